"""Everything there is, in pages by id: for an export."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql.audit import Event, event_of
from keybearer.adapters.sql.keys import RECORD, read
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, audit, usage, users
from keybearer.domain.arrivals import ArrivingSecret
from keybearer.domain.model import Key, User
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count

PAGE = 500

_USERS = select(users).where(users.c.id > bindparam("after")).order_by(users.c.id).limit(PAGE)
_KEYS = RECORD.where(api_keys.c.id > bindparam("after")).order_by(api_keys.c.id).limit(PAGE)
_SECRETS = (
    select(api_key_secrets)
    .where(api_key_secrets.c.key_id.in_(bindparam("ids", expanding=True)))
    .order_by(api_key_secrets.c.created_at, api_key_secrets.c.digest)
)
_USAGE = (
    select(usage)
    .where(usage.c.key_id.in_(bindparam("ids", expanding=True)))
    .order_by(usage.c.key_id, usage.c.hour, usage.c.outcome)
)
_ADD_USAGE = insert(usage).on_conflict_do_nothing()
_AUDIT = (
    select(audit)
    .where(audit.c.chain == bindparam("chain"), audit.c.seq > bindparam("after"))
    .order_by(audit.c.seq)
    .limit(PAGE)
)


async def users_after(tx: Transaction, after: str) -> Sequence[User]:
    """The next users by id."""
    return [User(**row._mapping) for row in await tx.all(_USERS, after=after)]


async def keys_after(tx: Transaction, after: str, *, now: int) -> Sequence[Key]:
    """The next keys by id."""
    return [read(row) for row in await tx.all(_KEYS, after=after, now=now)]


async def secrets_of(tx: Transaction, ids: Sequence[str]) -> dict[str, list[ArrivingSecret]]:
    """What the secrets of keys are found by."""
    found: dict[str, list[ArrivingSecret]] = {}
    for row in await tx.all(_SECRETS, ids=list(ids)):
        one = ArrivingSecret(
            digest=bytes(row.digest),
            pepper_id=row.pepper_id,
            created_at=row.created_at,
            start=row.start,
            usable_until=row.usable_until,
            scheme=row.scheme,
            foreign_hash=row.foreign_hash,
        )
        found.setdefault(row.key_id, []).append(one)
    return found


async def usage_of(tx: Transaction, ids: Sequence[str]) -> Sequence[Count]:
    """The counts of keys."""
    rows = await tx.all(_USAGE, ids=list(ids))
    return [Count(key_id=row.key_id, hour=row.hour, outcome=row.outcome, n=row.n) for row in rows]


async def add_usage(tx: Transaction, counts: Sequence[Count]) -> None:
    """Writes counts of hours that have none yet."""
    rows = [
        {"key_id": each.key_id, "hour": each.hour, "outcome": each.outcome, "n": each.n}
        for each in counts
    ]
    await tx.run_many(_ADD_USAGE, rows)


async def events_after(tx: Transaction, chain: int, after: int) -> tuple[Sequence[Event], int]:
    """The next events of a chain of the trail, and the number of the last of them."""
    rows = await tx.all(_AUDIT, chain=chain, after=after)
    return [event_of(row) for row in rows], rows[-1].seq if rows else after
