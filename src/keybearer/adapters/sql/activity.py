"""What happened lately to a key, in slots that are overwritten.

    minute   …  999  1000  1001  …  1059  1060  1061      at // 60 000
    slot     …   23    24    25  …    22    23    24      minute % 61

A row tells of one outcome in one minute how many requests had it, and of the last of them. After
61 minutes its slot is another minute's. So a key has 61 rows for each outcome at the most, nobody
has to clean up, and of a key that rests there remains what happened last.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, case, select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql.rows import Statements, as_table, run_rows
from keybearer.adapters.sql.tables import activity
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Sample

SLOTS = 61
"""An hour, and the minute that runs."""


def _adding(new: Any) -> Any:
    same_minute = activity.c.minute == new.excluded.minute
    # Several processes write: of two in one minute the last stays, whoever writes first.
    newest = activity.c.at <= new.excluded.at
    return new.on_conflict_do_update(
        index_elements=["key_id", "outcome", "slot"],
        set_={
            "minute": new.excluded.minute,
            "n": case((same_minute, activity.c.n + new.excluded.n), else_=new.excluded.n),
            **{
                name: case((newest, new.excluded[name]), else_=activity.c[name])
                for name in ("at", "ip", "user_agent")
            },
        },
        where=activity.c.minute <= new.excluded.minute,
    )


_ADD: Statements = {
    "sqlite": _adding(insert(activity)),
    "postgresql": _adding(
        insert(activity).from_select([each.name for each in activity.c], select(as_table(activity)))
    ),
}
_RECENT = (
    select(activity)
    .where(activity.c.key_id == bindparam("key_id"))
    .order_by(activity.c.at.desc(), activity.c.outcome)
    .limit(bindparam("limit"))
)


async def add(tx: Transaction, samples: Sequence[Sample], *, dialect: str) -> None:
    """Puts samples into their slots, each slot once.

    They come sorted, so that two batches cannot deadlock.
    """
    rows = [
        {
            "key_id": sample.key_id,
            "outcome": sample.outcome,
            "slot": sample.minute % SLOTS,
            "minute": sample.minute,
            "at": sample.at,
            "n": sample.n,
            "ip": sample.ip,
            "user_agent": sample.user_agent,
        }
        for sample in samples
    ]
    await run_rows(tx, _ADD, rows, dialect=dialect)


async def recent(tx: Transaction, key_id: str, *, limit: int) -> Sequence[Sample]:
    """What happened last to a key, newest first."""
    rows = await tx.all(_RECENT, key_id=key_id, limit=limit)
    return [
        Sample(key_id=key_id, outcome=row.outcome, at=row.at, n=row.n, ip=row.ip,
               user_agent=row.user_agent)
        for row in rows
    ]  # fmt: skip
