"""`keybearer openapi`: print the description of the API."""

from keybearer.cli.output import answer, command


@command(None, "openapi")
async def openapi(*, as_json: bool) -> None:
    """Prints the OpenAPI 3.1 document of this version and these settings (JSON)."""
    import json

    from keybearer.auth import Auth
    from keybearer.web.openapi import document

    auth = Auth(serving=False)
    described = document(auth.operations, auth.settings, auth.base)
    answer(json.dumps(described, indent=None if as_json else 2, ensure_ascii=False))
