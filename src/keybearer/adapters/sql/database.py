"""Open a database by its URL, and bring it to this version."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from keybearer.adapters.sql.serving import FileLock, ServingLock, Standby
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.domain.errors import Misuse, Unavailable

if TYPE_CHECKING:
    from keybearer.adapters.sql.postgres import PostgresDatabase

AnyDatabase = "SqliteDatabase | PostgresDatabase"


def open_database(
    url: str, *, shared: bool = False
) -> "tuple[SqliteDatabase | PostgresDatabase, ServingLock]":
    """The database of a URL and the lock of whoever serves it; nothing is read yet.

    Args:
        shared: whether several processes may serve it.

    Raises:
        Misuse: the file cannot be written, or the driver is not installed.
    """
    if url.startswith("sqlite:///"):
        database = SqliteDatabase(url.removeprefix("sqlite:///"))
        return database, FileLock(database.path, database.file, shared=shared)
    try:
        from keybearer.adapters.sql.advisory import AdvisoryLock  # noqa: PLC0415 -- an extra
        from keybearer.adapters.sql.postgres import PostgresDatabase  # noqa: PLC0415
    except ImportError as error:
        raise Misuse("PostgreSQL needs a driver: pip install 'keybearer[postgres]'") from error
    postgres = PostgresDatabase(url, shared=shared)
    return postgres, AdvisoryLock(postgres, shared=shared)


async def migrate(database: "SqliteDatabase | PostgresDatabase") -> None:
    """Brings the database to this version; does nothing when it is there already.

    Raises:
        Misuse: the database is of a later version than this program.
        Unavailable: the database cannot be reached.
    """
    if isinstance(database, SqliteDatabase):
        try:
            with database.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                _upgrade(connection)
                connection.exec_driver_sql("COMMIT")
                connection.rollback()
        except SQLAlchemyError as error:
            raise _unreachable(database, error) from error
        return
    try:
        await database.alter(_upgrade_alone)
    except (SQLAlchemyError, OSError) as error:
        raise _unreachable(database, error) from error


async def versions(database: "SqliteDatabase | PostgresDatabase") -> tuple[str | None, str]:
    """The version that the database has, and the one that this code wants."""
    wanted = _head()
    try:
        if isinstance(database, SqliteDatabase):
            with database.engine.connect() as connection:
                return _version(connection), wanted
        async with database.engine.connect() as connection:
            return await connection.run_sync(_version), wanted
    except (SQLAlchemyError, OSError) as error:
        raise _unreachable(database, error) from error


def _unreachable(database: "SqliteDatabase | PostgresDatabase", error: Exception) -> Unavailable:
    """What it is that cannot be read, and why: for whoever starts a process."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    url = database.engine.url
    if not isinstance(database, SqliteDatabase):
        where = f"{url.host}:{url.port or 5432}"
        if isinstance(cause, Standby):
            return Unavailable(
                f"DATABASE_URL: PostgreSQL at {where} is a standby, whose answers lag behind: "
                "name the primary, or an address that leads to it"
            )
        how = "cannot be reached" if isinstance(cause, OSError) else "refuses"
        return Unavailable(
            f"DATABASE_URL: PostgreSQL at {where} {how} ({type(cause).__name__}: {cause})"
        )
    file = Path(url.database or "").absolute()
    if "not a database" in str(cause):
        return Unavailable(
            f"DATABASE_URL: {file} is no SQLite database: name another file, or move this one away"
        )
    return Unavailable(f"DATABASE_URL: {file} cannot be read ({cause})")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@cache
def _head() -> str:
    """This code's version; Alembic loads all migrations to find it."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade_alone(connection: Connection) -> None:
    # Two instances that start at once on an empty database: the second waits, then has no work.
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7594000)")
    _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    if _version(connection) == _head():
        return
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Misuse(
            f"the database is of a later version than this program ({error}): install that one, "
            "or restore a backup of before"
        ) from error
