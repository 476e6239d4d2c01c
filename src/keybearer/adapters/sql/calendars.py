"""The calendar of an owner: the digest of its address, and what stands in it."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql.tables import api_keys, calendar_feeds
from keybearer.domain.ports import Transaction


class Dated(msgspec.Struct, frozen=True, kw_only=True):
    """A key that has an expiry."""

    id: str
    name: str | None
    start: str
    expires_at: int
    updated_at: int


_NEW = insert(calendar_feeds)
_PUT = _NEW.on_conflict_do_update(
    index_elements=[calendar_feeds.c.owner_id],
    set_={"digest": _NEW.excluded.digest, "created_at": _NEW.excluded.created_at},
)
_OF_OWNER = select(calendar_feeds.c.created_at).where(
    calendar_feeds.c.owner_id == bindparam("owner_id")
)
_OWNER = select(calendar_feeds.c.owner_id).where(
    calendar_feeds.c.digest.in_(bindparam("digests", expanding=True))
)
_FORGET = delete(calendar_feeds).where(calendar_feeds.c.owner_id == bindparam("owner_id"))
_FORGET_THAT = _FORGET.where(calendar_feeds.c.created_at == bindparam("made_at"))
_DATED = (
    select(*(api_keys.c[name] for name in Dated.__struct_fields__))
    .where(
        api_keys.c.owner_id == bindparam("owner_id"),
        api_keys.c.revoked_at.is_(None),
        api_keys.c.expires_at > bindparam("since"),
    )
    .order_by(api_keys.c.expires_at, api_keys.c.id)
    .limit(bindparam("limit"))
)


async def put(tx: Transaction, owner_id: str, *, digest: bytes, now: int) -> None:
    """Gives an owner's calendar an address; the one before stops."""
    await tx.run(_PUT, owner_id=owner_id, digest=digest, created_at=now)


async def made_at(tx: Transaction, owner_id: str) -> int | None:
    """When the present address was made, or None where there is none."""
    row = await tx.one(_OF_OWNER, owner_id=owner_id)
    return None if row is None else int(row.created_at)


async def owner_of(tx: Transaction, digests: Sequence[bytes]) -> str | None:
    """Whose calendar has the address."""
    row = await tx.one(_OWNER, digests=list(digests))
    return None if row is None else str(row.owner_id)


async def forget(tx: Transaction, owner_id: str, *, made_at: int | None = None) -> bool:
    """Takes the address away; False when there was none, or one that was not made then."""
    if made_at is None:
        return await tx.run(_FORGET, owner_id=owner_id) == 1
    return await tx.run(_FORGET_THAT, owner_id=owner_id, made_at=made_at) == 1


async def dated(tx: Transaction, owner_id: str, *, since: int, limit: int) -> list[Dated]:
    """The keys of an owner that are not revoked and expire after an instant, the next first."""
    rows = await tx.all(_DATED, owner_id=owner_id, since=since, limit=limit)
    return [Dated(**row._mapping) for row in rows]
