"""Quotas: taken from in one statement, given back only to the number they came from."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, and_, bindparam, case, func, select, update

from keybearer.adapters.sql.tables import api_keys
from keybearer.domain.limits import CHUNK_SHARE, ration, refill, until_refill
from keybearer.domain.ports import Database, Row, Transaction
from keybearer.domain.uses import Taken, Unspent

# A refill that is due comes first, in the same statement: once for an interval, on its schedule.
_NOW = bindparam("now", type_=BigInteger)
_UNITS = bindparam("units", type_=BigInteger)
_ANCHOR = func.coalesce(api_keys.c.last_refill_at, api_keys.c.created_at)
_DUE = and_(
    api_keys.c.refill_amount.is_not(None),
    api_keys.c.refill_interval_ms.is_not(None),
    api_keys.c.refill_interval_ms <= _NOW - _ANCHOR,
)
_HELD = case((_DUE, api_keys.c.refill_amount), else_=api_keys.c.remaining)
_STATE = (
    api_keys.c.remaining,
    api_keys.c.refill_amount,
    api_keys.c.refill_interval_ms,
    api_keys.c.last_refill_at,
    api_keys.c.created_at,
    api_keys.c.quota_version,
)
_HAS_QUOTA = and_(
    api_keys.c.id == bindparam("key_id"),
    api_keys.c.revoked_at.is_(None),
    api_keys.c.remaining.is_not(None),
)
_TAKE = (
    update(api_keys)
    .where(_HAS_QUOTA, bindparam("at_least", type_=BigInteger) <= _HELD)
    .values(
        remaining=_HELD - _UNITS,
        last_refill_at=case(
            (
                _DUE,
                _ANCHOR
                + (_NOW - _ANCHOR) // api_keys.c.refill_interval_ms * api_keys.c.refill_interval_ms,
            ),
            else_=api_keys.c.last_refill_at,
        ),
        quota_version=case((_DUE, api_keys.c.quota_version + 1), else_=api_keys.c.quota_version),
    )
    .returning(*_STATE)
)
_LOCK = select(*_STATE).where(_HAS_QUOTA).with_for_update()
_GIVE_BACK = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key_id"),
        api_keys.c.quota_version == bindparam("of_version"),
    )
    .values(remaining=api_keys.c.remaining + bindparam("units", type_=BigInteger))
)


async def take(
    tx: Transaction,
    id: str,
    costs: Sequence[int],
    *,
    own: int = 0,
    version: int = 0,
    ahead: int = 0,
    now: int,
) -> Taken | None:
    """Takes from a key's quota what `costs` need, refilled first when that is due.

    Args:
        own: units of this quota's `version` that the caller has, fewer than `costs` need.
        ahead: how many more to take where at least CHUNK_SHARE times as many are left.

    Returns:
        None when none of the costs is met; then nothing is taken.
    """
    need = sum(costs) - own
    taken = await _take(tx, id, (True,) * len(costs), need=need, ahead=ahead, now=now)
    if taken is not None or (len(costs) == 1 and not ahead):
        return taken
    # Too little for all of it: see what there is, and nobody else takes from it meanwhile.
    row = await tx.one(_LOCK, key_id=id)
    if row is None:
        return None
    held, _ = refill(
        row.remaining,
        row.refill_amount,
        row.refill_interval_ms,
        row.last_refill_at,
        row.created_at,
        now,
    )
    held = held or 0
    met, need = ration(costs, own if row.quota_version == version else 0, held)
    if not any(met):
        return None
    ahead = min(ahead, (held - need) // CHUNK_SHARE) if need else 0
    return await _take(tx, id, met, need=need, ahead=ahead, now=now)


async def _take(
    tx: Transaction, id: str, met: tuple[bool, ...], *, need: int, ahead: int, now: int
) -> Taken | None:
    row = await tx.one(
        _TAKE, key_id=id, units=need + ahead, at_least=need + ahead * CHUNK_SHARE, now=now
    )
    if row is None:
        return None
    return Taken(
        met=met,
        units=need + ahead,
        ahead=ahead,
        left=row.remaining,
        version=row.quota_version,
        refilled_at=row.last_refill_at,
        refill_at=_next_refill(row, now),
    )


def _next_refill(row: Row, now: int) -> int | None:
    if row.refill_amount is None or row.refill_interval_ms is None:
        return None
    return now + until_refill(row.refill_interval_ms, row.last_refill_at, row.created_at, now)


async def give_back(tx: Transaction, unspent: Sequence[Unspent]) -> None:
    """Puts units back, unless their quota was set or refilled since. Rows come sorted by key."""
    await tx.run_many(
        _GIVE_BACK,
        [
            {"key_id": each.key_id, "of_version": each.version, "units": each.units}
            for each in unspent
        ],
    )


class StoredQuotas:
    """The quotas in a database, for the process that takes from them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(
        self, id: str, costs: Sequence[int], *, own: int, version: int, ahead: int, now: int
    ) -> Taken | None:
        """As `take`, in a transaction of its own."""
        return await self._database.write(
            lambda tx: take(tx, id, costs, own=own, version=version, ahead=ahead, now=now)
        )

    async def give_back(self, unspent: Sequence[Unspent]) -> None:
        """As `give_back`, in a transaction of its own."""
        await self._database.write(lambda tx: give_back(tx, unspent))
