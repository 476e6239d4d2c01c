"""The epoch that leases are held on, and the name of whoever serves."""

from typing import NamedTuple

from sqlalchemy import bindparam, select, update

from keybearer.adapters.sql.tables import coherence
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Database, Transaction

_READ = select(coherence.c.epoch, coherence.c.served_by).where(coherence.c.id == 1)
_KEEP = _READ.with_for_update(read=True)
_LOCK = _READ.with_for_update()
_BUMP = (
    update(coherence).where(coherence.c.id == bindparam("row")).values(epoch=coherence.c.epoch + 1)
)
_CLAIM = update(coherence).where(coherence.c.id == 1).values(served_by=bindparam("name"))
_LET_GO = (
    update(coherence)
    .where(coherence.c.id == 1, coherence.c.served_by == bindparam("name"))
    .values(served_by=None)
)


class State(NamedTuple):
    """The row: the epoch, and the name of the process that may answer by a lease on it."""

    epoch: int
    served_by: str | None

    @property
    def address(self) -> str | None:
        """The BASE_URL that this process goes by."""
        return (self.served_by or "").partition(" ")[2] or None


async def read_state(database: Database) -> State:
    """The row, from the database."""
    return await database.read(lambda tx: _state(tx, _READ))


async def read_epoch(database: Database) -> int:
    """The epoch, from the database."""
    return (await read_state(database)).epoch


async def bump_epoch(tx: Transaction) -> None:
    """Moves the epoch, in the caller's transaction."""
    await tx.run(_BUMP, row=1)


async def is_served(database: Database) -> bool:
    """Whether some process may answer by a lease: it serves, or has ended without a word."""
    return (await read_state(database)).served_by is not None


async def claim(database: Database, name: str) -> str | None:
    """Writes who serves from now on, and gives who did; None if that one has let go."""

    async def body(tx: Transaction) -> str | None:
        before = await _state(tx, _LOCK)
        await tx.run(_CLAIM, name=name)
        return before.served_by

    return await database.write(body)


async def let_go(database: Database, name: str) -> None:
    """Says that this process answers by no lease any more; nothing if another one serves now."""
    await database.write(lambda tx: tx.run(_LET_GO, name=name))


async def ensure_serving(tx: Transaction, name: str) -> None:
    """Keeps others from claiming until the caller's transaction ends.

    Raises:
        Unavailable: another process has claimed already.
    """
    if (await _state(tx, _KEEP)).served_by != name:
        raise Unavailable("this process does not serve the database any more")


async def _state(tx: Transaction, statement: object) -> State:
    row = await tx.one(statement)
    if row is None:
        raise Unavailable("the table coherence is empty; run `keybearer migrate`")
    return State(int(row.epoch), row.served_by)
