"""Read somebody else's database: its rows in pages, and nothing is written.

The columns are called as their adapters like it (`emailVerified`, `email_verified`), so their names
are folded: lower case, without `_`.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

import pysqlite3.dbapi2 as driver
from sqlalchemy import URL, Connection, create_engine, inspect, select, table, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from keybearer.domain.errors import Misuse, Unavailable

Record = Mapping[str, object]
"""A row: its columns by their folded names."""

PAGE = 500
_ENDLESS = {2**63 - 1: datetime.max, -(2**63): datetime.min}  # noqa: DTZ901 -- with its zone below
"""`infinity` and `-infinity` of PostgreSQL, which counts microseconds."""


class Origin(Protocol):
    """A database of somebody else's, as it was when it was opened."""

    async def tables(self) -> frozenset[str]:
        """The names of its tables."""
        ...

    def pages(self, name: str) -> AsyncIterator[Sequence[Record]]:
        """The rows of a table."""
        ...


@contextlib.asynccontextmanager
async def open_origin(url: str) -> AsyncIterator[Origin]:
    """The database of a URL, `sqlite:///FILE` or `postgresql://…`; all of it is one snapshot.

    Raises:
        Misuse: it is no such URL, there is no such file, or the driver is not installed.
        Unavailable: it cannot be reached or read.
    """
    try:
        if url.startswith("sqlite:///"):
            with _open_file(url.removeprefix("sqlite:///")) as connection:
                yield _File(connection)
        elif url.startswith(("postgresql://", "postgres://")):
            async with _open_server(url) as connected:
                yield _Server(connected)
        else:
            raise Misuse("what is imported lies at sqlite:///FILE or postgresql://…")
    except (SQLAlchemyError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise Unavailable(f"the database to import cannot be read ({cause})") from error


@contextlib.contextmanager
def _open_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise Misuse(f"{path} is not there")
    name = f"file:{quote(os.path.realpath(path))}?mode=ro"
    engine = create_engine(
        URL.create("sqlite", database=name, query={"uri": "true"}),
        module=driver,
        poolclass=NullPool,
        hide_parameters=True,
    )
    with engine.connect() as connection:
        # One value that is no UTF-8 must not end the page that it is on.
        connection.connection.driver_connection.text_factory = _text  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN")
        yield connection


def _text(raw: bytes) -> str | bytes:
    """Text, or the bytes of what is none: whoever reads the row tells it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


@contextlib.asynccontextmanager
async def _open_server(url: str) -> AsyncIterator[AsyncConnection]:
    try:
        from keybearer.adapters.sql.postgres import connect_engine  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise Misuse("PostgreSQL needs a driver: pip install 'keybearer[postgres]'") from error
    engine = connect_engine(url, idle_seconds=None)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            await _read_any_instant(connection)
            yield connection
    finally:
        await engine.dispose()


async def _read_any_instant(connection: AsyncConnection) -> None:
    """Instants that Python has none for, as those before Christ, are text: they end no page."""
    raw = await connection.get_raw_connection()
    for name, zone in (("timestamptz", UTC), ("timestamp", None)):
        await raw.driver_connection.set_type_codec(  # type: ignore[union-attr]
            name,
            schema="pg_catalog",
            encoder=_written_nowhere,
            decoder=partial(_instant, datetime(2000, 1, 1, tzinfo=zone)),
            format="tuple",
        )


def _instant(epoch: datetime, told: tuple[int]) -> datetime | str:
    endless = _ENDLESS.get(told[0])
    if endless is not None:
        return endless.replace(tzinfo=epoch.tzinfo)
    try:
        return epoch + timedelta(microseconds=told[0])
    except OverflowError:
        return "outside the years 1 to 9999"


def _written_nowhere(value: object) -> Any:
    raise TypeError("nothing is written there")


class _File:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tables(self) -> frozenset[str]:
        return frozenset(inspect(self._connection).get_table_names())

    async def pages(self, name: str) -> AsyncIterator[Sequence[Record]]:
        result = self._connection.execute(_rows_of(name))
        columns = [_folded(column) for column in result.keys()]  # noqa: SIM118
        for page in result.partitions(PAGE):
            yield [dict(zip(columns, row, strict=True)) for row in page]


class _Server:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def tables(self) -> frozenset[str]:
        return await self._connection.run_sync(
            lambda connection: frozenset(inspect(connection).get_table_names())
        )

    async def pages(self, name: str) -> AsyncIterator[Sequence[Record]]:
        result = await self._connection.stream(_rows_of(name))
        columns = [_folded(column) for column in result.keys()]  # noqa: SIM118
        async for page in result.partitions(PAGE):
            yield [dict(zip(columns, row, strict=True)) for row in page]


def _rows_of(name: str) -> Any:
    return select(text("*")).select_from(table(name))


def _folded(column: str) -> str:
    return column.replace("_", "").lower()
