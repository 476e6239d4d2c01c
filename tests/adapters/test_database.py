"""The migrations make what the tables say, once, whoever comes first; on both databases."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from keybearer.adapters.sql import coherence
from keybearer.adapters.sql.advisory import AdvisoryLock
from keybearer.adapters.sql.database import migrate, open_database, versions
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.serving import FileLock
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import metadata
from keybearer.domain.errors import Misuse, Unavailable

AnyDatabase = SqliteDatabase | PostgresDatabase


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(database_url)
    yield opened
    await opened.close()


async def look(database: AnyDatabase, see: Any) -> Any:
    if isinstance(database, SqliteDatabase):
        with database.engine.connect() as connection:
            return see(connection)
    async with database.engine.connect() as connected:
        return await connected.run_sync(see)


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


def names(connection: Connection) -> dict[str, set[str | None]]:
    """Every key, constraint and index of every table by name."""
    seen = inspect(connection)
    return {
        table: {seen.get_pk_constraint(table)["name"]}
        | {each["name"] for each in seen.get_foreign_keys(table)}
        | {each["name"] for each in seen.get_unique_constraints(table)}
        | {each["name"] for each in seen.get_indexes(table)}
        for table in seen.get_table_names()
    }


async def test_the_migrations_make_what_the_tables_say(database: AnyDatabase) -> None:
    await migrate(database)
    assert await look(database, differences) == []


async def test_keys_and_indexes_have_the_names_of_the_tables(
    database: AnyDatabase, tmp_path: Path
) -> None:
    await migrate(database)
    by_migration = await look(database, names)
    fresh = SqliteDatabase(str(tmp_path / "fresh.db"))
    with fresh.engine.begin() as connection:
        metadata.create_all(connection)
        by_tables = names(connection)
    await fresh.close()
    del by_migration["alembic_version"]
    if isinstance(database, PostgresDatabase):
        # There a unique constraint is an index as well, under the same name.
        assert by_migration.keys() == by_tables.keys()
        assert all(by_tables[table] <= by_migration[table] for table in by_tables)
    else:
        assert by_migration == by_tables


async def test_migrating_again_changes_nothing(database: AnyDatabase) -> None:
    await migrate(database)

    name = await coherence.read_name(database)
    await migrate(database)
    assert await coherence.read_name(database) == name


async def test_each_database_has_a_name_of_its_own(database: AnyDatabase) -> None:
    await migrate(database)
    assert re.fullmatch("[0-9a-f]{16}", await coherence.read_name(database))


async def test_versions_tell_what_is_there_and_what_is_wanted(database: AnyDatabase) -> None:
    has, wanted = await versions(database)
    assert has is None
    assert wanted
    await migrate(database)
    assert await versions(database) == (wanted, wanted)


async def test_a_database_of_a_later_version_is_misuse(database: AnyDatabase) -> None:
    await migrate(database)
    await database.write(lambda tx: tx.run(text("UPDATE alembic_version SET version_num = '9999'")))
    assert (await versions(database))[0] == "9999"
    with pytest.raises(Misuse, match="9999"):
        await migrate(database)


MIGRATE = """
import asyncio, sys
from keybearer.adapters.sql.database import migrate, open_database
async def main():
    database, _ = open_database(sys.argv[1])
    await migrate(database)
    await database.close()
sys.stdin.readline()
asyncio.run(main())
"""


async def test_f28_two_at_once_on_an_empty_database_make_one_schema(database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, database_url,
            stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    await asyncio.sleep(0.3)
    ended = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 4, ended
    database, _lock = open_database(database_url)
    assert await look(database, differences) == []
    rows: Any = await database.read(lambda tx: tx.all(text("SELECT * FROM audit_heads")))
    assert len(rows) == 8
    await database.close()


async def test_a_failed_migration_leaves_nothing_half_done(
    database: AnyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = op.create_table, list[str]()

    def create_table(name: str, *columns: Any, **options: Any) -> Any:
        made.append(name)
        if len(made) == 5:
            raise MemoryError
        return real(name, *columns, **options)

    monkeypatch.setattr(op, "create_table", create_table)
    with pytest.raises(MemoryError):
        await migrate(database)
    monkeypatch.undo()
    assert await look(database, lambda connection: inspect(connection).get_table_names()) == []
    await migrate(database)
    assert await look(database, differences) == []


async def test_an_url_opens_its_database_with_its_lock(tmp_path: Path) -> None:
    sqlite, file_lock = open_database(f"sqlite:///{tmp_path}/a.db")
    assert isinstance(sqlite, SqliteDatabase)
    assert isinstance(file_lock, FileLock)
    postgres, advisory = open_database("postgresql://u@127.0.0.1:1/x")
    assert isinstance(postgres, PostgresDatabase)
    assert isinstance(advisory, AdvisoryLock)
    await sqlite.close()
    await postgres.close()


async def test_a_missing_driver_is_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keybearer.adapters.sql.postgres", None)
    with pytest.raises(Misuse, match=r"keybearer\[postgres\]"):
        open_database("postgresql://u@127.0.0.1:1/x")


async def test_an_unreachable_server_is_unavailable() -> None:
    database, _lock = open_database("postgresql://u@127.0.0.1:1/x")
    for ask in (migrate, versions):
        with pytest.raises(Unavailable):
            await ask(database)
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "noise.db"
    path.write_bytes(b"not a database at all" * 500)
    database, _lock = open_database(f"sqlite:///{path}")
    for ask in (migrate, versions):
        with pytest.raises(Unavailable):
            await ask(database)
    await database.close()
