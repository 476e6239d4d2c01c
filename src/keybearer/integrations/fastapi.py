"""FastAPI: a dependency that gives the caller.

    caller = Guard(auth)

    @app.get("/report", responses=REFUSALS)
    async def report(session: Annotated[Session, Depends(caller)]): ...

    @app.delete("/file", dependencies=[Depends(Guard(auth, "files:write"))])
    async def delete(): ...

`Security(caller, scopes=["files:write"])` asks for the same. The docs page shows Bearer under
Authorize, which takes keys too; `describe(app)` has it show `X-API-Key` beside it.
"""

from typing import Any

from fastapi import FastAPI, WebSocketException
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import HTTPException
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from keybearer.api import Needs
from keybearer.auth import Auth
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Session
from keybearer.domain.permissions import stated
from keybearer.integrations.starlette import POLICY_VIOLATION, admit, answer


class NotAdmitted(HTTPException):
    """A refusal or a loss: problem+json, unless the app handles `HTTPException` in its own way."""

    def __init__(self, response: Response, message: str) -> None:
        headers = {
            name: value
            for name, value in response.headers.items()
            if not name.startswith("content-")
        }
        super().__init__(response.status_code, message, headers)
        self.response = response


class Guard(SecurityBase):
    """The dependency: gives the caller's `Session`, and lets nobody else through.

    Args:
        permissions: what it asks for, as `"files:read"` or `{"files": ["read"]}`.
        optional: whether it gives None where nobody presented a credential. A bad credential is
            refused even then.

    Raises:
        Misuse: `permissions` is no list of permissions.
    """

    # Itself what the docs show: each dependency more costs FastAPI 9 µs a request.
    scheme_name = "Bearer"
    model = HTTPBearer(description="An API key, or the access token that a login gave.")

    def __init__(self, auth: Auth, permissions: Needs = None, *, optional: bool = False) -> None:
        self._auth = auth
        self._needed = stated(permissions, "permissions=")
        self._optional = optional

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> Session | None:
        """Checks one request."""
        scope = connection.scope
        needed = self._needed
        if scopes.scopes:
            needed |= stated(scopes.scopes, "scopes=")
        try:
            return await admit(self._auth, scope, needed, optional=self._optional)
        except (Failure, Unavailable) as error:
            if scope["type"] == "websocket":
                raise WebSocketException(POLICY_VIOLATION, error.message) from None
            _show_problems(scope)
            raise NotAdmitted(answer(error, scope), error.message) from None


def describe(app: FastAPI) -> None:
    """Has the docs of an app show `X-API-Key` wherever they show a guard's Bearer."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        described = made()
        schemes = described.get("components", {}).get("securitySchemes", {})
        if Guard.scheme_name in schemes and "X-API-Key" not in schemes:
            schemes["X-API-Key"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            for path in described["paths"].values():
                for operation in path.values():
                    asked = operation.get("security", [])
                    scopes = [each["Bearer"] for each in asked if Guard.scheme_name in each]
                    asked += [{"X-API-Key": each} for each in scopes]
        return described

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's way to extend it


def _show_problems(scope: Scope) -> None:
    """Answers with problem+json unless the app has an answer of its own to `HTTPException`.

    A dependency can only raise, and FastAPI's own handler would make `{"detail": …}` of it. The
    table is the one that Starlette looks in when the exception arrives; without it that handler
    still answers, with the right status and headers.
    """
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    found = [handlers[kind] for kind in NotAdmitted.__mro__ if kind in handlers]
    if found and found[0] is http_exception_handler:
        handlers[NotAdmitted] = _answer


async def _answer(_request: Request, error: NotAdmitted) -> Response:
    return error.response


def _problem(description: str, *headers: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "code", "message"],
        "properties": {
            "status": {"type": "integer"},
            **{
                name: {"type": "string"}
                for name in ("type", "title", "detail", "instance", "code", "message", "requestId")
            },
        },
    }
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": schema}},
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
    }


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _problem("More than one credential."),
    401: _problem("No credential, or a bad one.", "WWW-Authenticate"),
    403: _problem("A credential that may not do this.", "WWW-Authenticate"),
    429: _problem("Over the key's rate limit or quota.", "Retry-After", "RateLimit",
                  "RateLimit-Policy"),
    503: _problem("A dependency is lost; try again.", "Retry-After"),
}  # fmt: skip
"""For `responses=` of a route or router: what a guard answers, for the docs."""
