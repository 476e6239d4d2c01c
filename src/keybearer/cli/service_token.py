"""`keybearer service-token`: credentials of apps that check keys here."""

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, receipt, say, table


@click.group("service-token")
def service_token() -> None:
    """Service tokens, for apps that call verify, introspect and the admin API."""


@command(service_token, "create")
@click.option("--name", required=True, help="Which app it is for.")
async def create(*, name: str, as_json: bool) -> None:
    """Creates a service token and prints it, the only time it is shown."""
    from keybearer.domain.credentials import service_token_hash
    from keybearer.operations import service_tokens
    from keybearer.operations.wire import instant

    async with operator() as call:
        token, secret = await service_tokens.create(call, name)
    text = secret.reveal()
    hash_ = service_token_hash(text.encode())
    if as_json:
        made = {"id": token.id, "name": token.name, "createdAt": instant(token.created_at)}
        answer(encode({**made, "hash": hash_, "token": text}))
        return
    say(f"created {token.id}, which works at once; it is not shown again")
    say(f"a server with another database takes it by KEYBEARER_SERVICE_TOKENS={hash_}")
    answer(text)


@command(service_token, "list")
async def listing(*, as_json: bool) -> None:
    """Lists service tokens, revoked ones too; those of SERVICE_TOKENS by hash."""
    from keybearer.operations import service_tokens
    from keybearer.operations.wire import instant

    async with operator() as call:
        found = await service_tokens.listing(call)
        of_settings = call.app.settings.service_tokens
    tokens = [
        {
            "id": token.id,
            "name": token.name,
            "createdAt": instant(token.created_at),
            "revokedAt": instant(token.revoked_at),
        }
        for token in found
    ]
    if as_json:
        answer(encode({"serviceTokens": tokens, "ofSettings": of_settings}))
        return
    rows = [tuple(token.values()) for token in tokens]
    answer(table(("ID", "NAME", "CREATED", "REVOKED"), rows))
    for hash_ in of_settings:
        say(f"and by the setting SERVICE_TOKENS: {hash_[:12]}…")


@command(service_token, "revoke")
@click.argument("id")
async def revoke(*, id: str, as_json: bool) -> None:
    """Ends a service token; returns when no process accepts it any more."""
    from keybearer.operations import service_tokens

    async with operator() as call:
        done = await service_tokens.revoke(call, id)
    if as_json:
        answer(encode({"success": True, "nodes": done.nodes, "waitedMs": done.waited_ms}))
    else:
        say(f"revoked; {receipt(done.nodes, done.waited_ms)}")
