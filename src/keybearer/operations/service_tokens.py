"""What an operator does with service tokens: make, list, revoke.

No HTTP operations: the command and the app itself call these with a trusted `Call`. The token is
shown once; the database has its SHA-256 alone, as the setting SERVICE_TOKENS would.
"""

from collections.abc import Sequence

from keybearer.adapters.sql import service_tokens as sql
from keybearer.adapters.sql.service_tokens import ServiceToken
from keybearer.domain.credentials import SERVICE_PREFIX, Secret, mint, service_token_hash
from keybearer.domain.errors import Failure
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.declaration import Call
from keybearer.operations.wire import check_text
from keybearer.verification.coherence import Receipt

_LONGEST_NAME = 64


async def create(call: Call, name: str) -> tuple[ServiceToken, Secret]:
    """Makes a service token.

    Raises:
        Failure: INVALID_NAME_LENGTH, VALIDATION_ERROR, ADMIN_REQUIRED.
    """
    _require_operator(call)
    name = check_text(name, "name").strip()
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise Failure("INVALID_NAME_LENGTH")
    secret = mint(SERVICE_PREFIX, call.app.entropy)
    token = ServiceToken(
        id=call.app.new_id(call.now), name=name, created_at=call.now, revoked_at=None
    )

    async def body(tx: Transaction) -> None:
        await sql.add(tx, token, hash=service_token_hash(secret.reveal().encode()))
        await record(
            call, tx, "service_token.created", owner_id=None, target_id=token.id, name=name
        )

    await call.app.database.write(body)
    return token, secret


async def listing(call: Call) -> Sequence[ServiceToken]:
    """Every service token that was made, revoked ones too, oldest first.

    Raises:
        Failure: ADMIN_REQUIRED.
    """
    _require_operator(call)
    return await call.app.database.read(sql.every)


async def revoke(call: Call, id: str) -> Receipt:
    """Ends a service token for ever; returns when no process accepts it any more.

    A second time does nothing more, and is no error.

    Raises:
        Failure: SERVICE_TOKEN_NOT_FOUND, ADMIN_REQUIRED.
        Unavailable: REVOCATION_PENDING, as `App.change`.
    """
    _require_operator(call)

    async def body(tx: Transaction) -> None:
        if await sql.revoke(tx, id, now=call.now):
            await record(call, tx, "service_token.revoked", owner_id=None, target_id=id)
        elif id not in {token.id for token in await sql.every(tx)}:
            raise Failure("SERVICE_TOKEN_NOT_FOUND")

    _, receipt = await call.app.change(body, lambda _: (f"service:{id}",))
    return receipt


def _require_operator(call: Call) -> None:
    if call.session.kind != "operator":
        raise Failure("ADMIN_REQUIRED")
