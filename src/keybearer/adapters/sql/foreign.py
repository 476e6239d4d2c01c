"""Which schemes of keys made elsewhere there are: see `domain/foreign.py`."""

from collections.abc import Iterable

from sqlalchemy import select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql.tables import foreign_schemes
from keybearer.domain.foreign import Scheme
from keybearer.domain.ports import Transaction

_EVERY = select(foreign_schemes.c.scheme)
_ADD = insert(foreign_schemes).on_conflict_do_nothing()


async def schemes(tx: Transaction) -> frozenset[Scheme]:
    """Every scheme that the database has keys of."""
    return frozenset(row.scheme for row in await tx.all(_EVERY))


async def add_schemes(tx: Transaction, new: Iterable[Scheme]) -> None:
    """Notes schemes; nothing for those that are noted already."""
    await tx.run_many(_ADD, [{"scheme": scheme} for scheme in sorted(new)])
