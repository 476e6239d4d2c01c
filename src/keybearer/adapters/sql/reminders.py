"""Which keys expire soon, and who has been told."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, bindparam, or_, select, update

from keybearer.adapters.sql.tables import api_keys, users
from keybearer.domain.ports import Row, Transaction


class Expiring(msgspec.Struct, frozen=True, kw_only=True):
    """A key that has an expiry, and the last reminder of it."""

    id: str
    owner_id: str
    name: str | None
    start: str
    expires_at: int
    reminded_days: int | None


_FIELDS = tuple(api_keys.c[name] for name in Expiring.__struct_fields__)
_USABLE = and_(api_keys.c.revoked_at.is_(None), api_keys.c.enabled.is_(True))
# A page goes by the index on expires_at, and by id where several keys expire at once.
_EXPIRING = (
    select(*_FIELDS)
    .join(users, users.c.id == api_keys.c.owner_id)
    .where(
        _USABLE,
        users.c.disabled_at.is_(None),
        users.c.email_verified_at.is_not(None),
        api_keys.c.expires_at >= bindparam("after"),
        or_(api_keys.c.expires_at > bindparam("after"), api_keys.c.id > bindparam("after_id")),
        api_keys.c.expires_at <= bindparam("until"),
    )
    .order_by(api_keys.c.expires_at, api_keys.c.id)
    .limit(bindparam("limit"))
)
_DUE = (
    api_keys.c.owner_id == bindparam("of_owner"),
    _USABLE,
    api_keys.c.expires_at > bindparam("after"),
    api_keys.c.expires_at <= bindparam("until"),
    or_(api_keys.c.reminded_days.is_(None), api_keys.c.reminded_days > bindparam("days")),
)
# The condition stands outside as well: of two that claim at once, the second waits for the row
# and then finds it claimed.
_CLAIM = (
    update(api_keys)
    .where(
        api_keys.c.id.in_(
            select(api_keys.c.id)
            .where(*_DUE)
            .order_by(api_keys.c.expires_at, api_keys.c.id)
            .limit(bindparam("limit"))
        ),
        *_DUE,
    )
    .values(reminded_days=bindparam("days"))
    .returning(*_FIELDS)
)


async def expiring(
    tx: Transaction, *, after: tuple[int, str], until: int, limit: int
) -> list[Expiring]:
    """Keys of active owners, by expiry and id: later than `after`, up to `until`."""
    rows = await tx.all(_EXPIRING, after=after[0], after_id=after[1], until=until, limit=limit)
    return _expiring(rows)


async def claim(
    tx: Transaction, owner_id: str, *, days: int, span: tuple[int, int], limit: int
) -> list[Expiring]:
    """The keys of an owner that a reminder is due for, marked by this: each is given out once.

    Args:
        days: which reminder.
        span: the expiries that it is for: later than the first, up to the second.
    """
    rows = await tx.all(
        _CLAIM, of_owner=owner_id, days=days, after=span[0], until=span[1], limit=limit
    )
    return sorted(_expiring(rows), key=lambda key: (key.expires_at, key.id))


def _expiring(rows: Sequence[Row]) -> list[Expiring]:
    return [Expiring(**row._mapping) for row in rows]
