"""Which database this is: its software's version and the server's clock."""

import hashlib
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import pysqlite3.dbapi2 as driver
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from keybearer.adapters.sql.coherence import read_name
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Database, Transaction

if TYPE_CHECKING:
    from keybearer.adapters.sql.postgres import PostgresDatabase

_POSTGRES = text(
    "SELECT current_setting('server_version') AS version, "
    "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now"
)

_COMMIT = text("SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'")


async def about(database: "SqliteDatabase | PostgresDatabase") -> tuple[str, int | None]:
    """Name and version, and on PostgreSQL the server's time in milliseconds UTC.

    Raises:
        Unavailable: it cannot be reached.
    """
    if isinstance(database, SqliteDatabase):
        return f"SQLite {driver.sqlite_version}", None

    async def body(tx: Transaction) -> tuple[str, int | None]:
        row = await tx.one(_POSTGRES)
        if row is None:
            raise Unavailable("PostgreSQL answered nothing")
        return f"PostgreSQL {row.version.split()[0]}", int(row.now)

    return await database.read(body)


async def careless(database: "SqliteDatabase | PostgresDatabase") -> str | None:
    """What PostgreSQL has `synchronous_commit` set to where commits may be lost; None where not.

    Raises:
        Unavailable: it cannot be reached.
    """
    if isinstance(database, SqliteDatabase):
        return None
    row = await database.read(lambda tx: tx.one(_COMMIT))
    return None if row is None or row.reset_val not in ("off", "local") else str(row.reset_val)


async def server_time(database: Database) -> int | None:
    """What the clock of the database's server says, in milliseconds UTC; None where it is ours.

    Raises:
        Unavailable: it cannot be reached.
    """
    await read_name(database)  # of our own tables: a server without them is no help
    if isinstance(database, SqliteDatabase):
        return None
    row = await database.read(lambda tx: tx.one(_POSTGRES))
    return None if row is None else int(row.now)


async def identity(database: "SqliteDatabase | PostgresDatabase") -> str:
    """A name of the database that no other one has, and that a new address does not change.

    Raises:
        Unavailable: it cannot be reached.
    """
    if isinstance(database, SqliteDatabase):
        return f"sqlite-{hashlib.sha256(os.fsencode(database.path)).hexdigest()[:16]}"
    # A standby that takes over has the same name; so has a copy, unless it lies beside it.
    within = quote(database.engine.url.database or "", safe="")
    return f"postgresql-{await read_name(database)}-{within}"


def intact(database: "SqliteDatabase | PostgresDatabase") -> str | None:
    """What SQLite's own quick check finds wrong in the file; None on PostgreSQL or when sound.

    Raises:
        Unavailable: the file cannot be read.
    """
    if not isinstance(database, SqliteDatabase):
        return None
    try:
        with database.engine.connect() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    except SQLAlchemyError as error:
        raise Unavailable(f"SQLite: {error}") from error
    return None if found == "ok" else found
