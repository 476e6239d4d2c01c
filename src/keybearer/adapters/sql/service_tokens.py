"""Service tokens that the operator made."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, insert, select, update

from keybearer.adapters.sql.tables import service_tokens
from keybearer.domain.ports import Row, Transaction


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A credential of an app that may call verify, introspect and the admin API."""

    id: str
    name: str
    created_at: int
    revoked_at: int | None


_INSERT = insert(service_tokens)
_BY_HASH = select(service_tokens).where(service_tokens.c.hash == bindparam("hash"))
_ALL = select(service_tokens).order_by(service_tokens.c.created_at)
_REVOKE = (
    update(service_tokens)
    .where(service_tokens.c.id == bindparam("of_id"), service_tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("revoked_at"))
)


async def add(tx: Transaction, token: ServiceToken, *, hash: str) -> None:
    """Writes a new service token."""
    await tx.run(
        _INSERT,
        id=token.id,
        name=token.name,
        hash=hash,
        created_at=token.created_at,
        revoked_at=token.revoked_at,
    )


async def by_hash(tx: Transaction, hash: str) -> ServiceToken | None:
    """The token with this hash, revoked or not."""
    row = await tx.one(_BY_HASH, hash=hash)
    return None if row is None else _token(row)


async def every(tx: Transaction) -> Sequence[ServiceToken]:
    """All of them, oldest first."""
    return [_token(row) for row in await tx.all(_ALL)]


async def revoke(tx: Transaction, id: str, *, now: int) -> bool:
    """Marks a token revoked; False when there is none or it was already."""
    return await tx.run(_REVOKE, of_id=id, revoked_at=now) == 1


def _token(row: Row) -> ServiceToken:
    return ServiceToken(
        id=row.id, name=row.name, created_at=row.created_at, revoked_at=row.revoked_at
    )
