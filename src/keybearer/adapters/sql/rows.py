"""Many rows or many changes in one statement, where a round trip costs more than a row.

    SQLite       executemany    a call in the same process for each row
    PostgreSQL   unnest($1, …)  one statement; a row of its own each is a third as fast, and keeps
                                the event loop busy three times as long

Changes that need not see each other are sent together:

    SQLite       one after the other
    PostgreSQL   WITH c0 AS (INSERT …) INSERT …   one statement; references are checked at its end

Rows come sorted by what locks them, and locks are taken in that order: so two processes that write
the same rows wait for each other once, and never in a circle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Column, Table, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

from keybearer.domain.ports import Transaction

Statements = Mapping[str, Any]
"""The same change for `sqlite` and `postgresql`, with the same names of binds."""


def told(**types: TypeEngine[Any] | type[TypeEngine[Any]]) -> TableValuedAlias:
    """The rows that we bring, as a table of PostgreSQL: each bind has a column."""
    arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in types.items()]
    columns = [column(name, kind) for name, kind in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name="told").render_derived()


def as_table(table: Table) -> TableValuedAlias:
    """The same, with the columns of a table."""
    return told(**{each.name: each.type for each in table.c})


class Lock:
    """Locks rows of PostgreSQL for an update, in the order of their names.

    SQLite has one writer at a time, and needs none.
    """

    def __init__(self, name: Column[Any], bind: str) -> None:
        self.bind = bind
        rows = (
            select(name)
            .where(name == func.any(bindparam(bind, type_=ARRAY(name.type))))
            .order_by(name)
            # What refers to a row by its key need not wait for who counts its uses.
            .with_for_update(key_share=True)
        )
        self.statement = select(func.count()).select_from(rows.subquery())


def new(name: str) -> BindParameter[Any]:
    """A value that `Together` is given by this name."""
    return bindparam(f"new_{name}")  # a column's own name is not free in an INSERT


class Together:
    """Several changes of which none needs to see another, in one round trip.

    Args:
        changes: inserts and updates whose values are all `new`; the same name is the same value
            in each of them.
    """

    def __init__(self, *changes: Any) -> None:
        self._apart = [(change, frozenset(change.compile().params)) for change in changes]
        *others, last = changes
        self._at_once = last.add_cte(
            *(change.cte(f"c{number}") for number, change in enumerate(others))
        )

    async def run(self, tx: Transaction, **values: object) -> None:
        """Executes them all."""
        binds = {f"new_{name}": value for name, value in values.items()}
        if tx.dialect == "postgresql":
            await tx.run(self._at_once, **binds)
            return
        for change, names in self._apart:
            await tx.run(change, **{name: binds[name] for name in names})


async def run_rows(
    tx: Transaction,
    statements: Statements,
    rows: Sequence[Mapping[str, object]],
    *,
    dialect: str,
    lock: Lock | None = None,
) -> None:
    """Executes a change for many sets of binds.

    Args:
        lock: what an update locks beforehand; an insert takes its rows in their order anyway.
    """
    if dialect == "sqlite":
        await tx.run_many(statements[dialect], rows)
        return
    if not rows:
        return
    binds = {name: [row[name] for row in rows] for name in rows[0]}
    if lock is not None:
        await tx.one(lock.statement, **{lock.bind: binds[lock.bind]})
    await tx.run(statements[dialect], **binds)
