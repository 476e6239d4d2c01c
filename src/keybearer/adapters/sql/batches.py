"""Batches of usage, each written once, however often it is brought.

    INSERT INTO usage_batches (id) … ON CONFLICT DO NOTHING
        1 row    it is new: everything else follows in the same transaction
        0 rows   it was written before, and its answer was lost: nothing follows

Whoever brought a batch, and knows that nobody will bring it again, has its row deleted with the
next one. So what is in the table are the last batches of each process, and those of killed ones.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql import activity, usage
from keybearer.adapters.sql.tables import usage_batches
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Batch

KEPT_MS = 30 * 86_400_000
"""How long a batch is known as written: what waits on a disk for longer is not written any more."""

_NOTE = insert(usage_batches).on_conflict_do_nothing(index_elements=["id"])
_FORGET = delete(usage_batches).where(usage_batches.c.id.in_(bindparam("ids", expanding=True)))
_FORGET_OLD = delete(usage_batches).where(
    usage_batches.c.id.in_(
        select(usage_batches.c.id)
        .where(usage_batches.c.written_at < bindparam("before"))
        .order_by(usage_batches.c.id)
        .limit(bindparam("limit"))
    )
)


async def write(
    tx: Transaction, batch: Batch, *, now: int, settled: Sequence[str], dialect: str
) -> bool:
    """Writes a batch unless it has been; whether it was new.

    What no change of a key ever locks comes first, and the rows of the keys, which changes wait
    for, are held for as short as can be.

    Args:
        settled: ids of batches that nobody will bring again.
    """
    if settled:
        await tx.run(_FORGET, ids=list(settled))
    if not await tx.run(_NOTE, id=batch.id, written_at=now):
        return False
    await usage.add(tx, batch.counts, dialect=dialect)
    await activity.add(tx, batch.samples, dialect=dialect)
    await usage.touch(tx, batch.keys, batch.sessions, batch.secrets, dialect=dialect)
    return True


async def forget_old(tx: Transaction, *, before: int, limit: int = 500) -> int:
    """Forgets that batches were written which nobody can bring any more; how many."""
    return await tx.run(_FORGET_OLD, before=before, limit=limit)
