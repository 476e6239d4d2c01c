"""The epoch that leases are held on."""

from sqlalchemy import bindparam, select, update

from keybearer.adapters.sql.tables import coherence
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Database, Transaction

_READ = select(coherence.c.epoch).where(coherence.c.id == 1)
_BUMP = (
    update(coherence).where(coherence.c.id == bindparam("row")).values(epoch=coherence.c.epoch + 1)
)


async def read_epoch(database: Database) -> int:
    """The epoch, from the database."""

    async def body(tx: Transaction) -> int:
        row = await tx.one(_READ)
        if row is None:
            raise Unavailable("the table coherence is empty; run `keybearer migrate`")
        return int(row.epoch)

    return await database.read(body)


async def bump_epoch(tx: Transaction) -> None:
    """Moves the epoch, in the caller's transaction."""
    await tx.run(_BUMP, row=1)
