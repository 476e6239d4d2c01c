"""A batch is written once on both databases, whoever brings it, however often."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from sqlalchemy import insert, select

from keybearer.adapters.sql import activity, batches, usage
from keybearer.adapters.sql.about import identity
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import api_keys, usage_batches
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Batch, Count, LastUse, Sample
from tests.people import START, fresh_id
from tests.servers import PostgresServer

AnyDatabase = SqliteDatabase | PostgresDatabase

HOUR = 3_600_000
KEYS = [f"k{n:04}" for n in range(500)]


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    rows = [
        {
            "id": key,
            "owner_id": "ann",
            "config_id": "default",
            "prefix": "kb_",
            "start": "kb_abcd",
            "enabled": True,
            "created_at": START,
            "updated_at": START,
            "created_by": "ann",
            "rate_limit_enabled": True,
            "request_count": 0,
        }
        for key in KEYS
    ]
    await opened.write(lambda tx: tx.run_many(insert(api_keys), rows))
    yield opened
    await opened.close()


def batch(*keys: str, n: int = 1, at: int = 0) -> Batch:
    now = START + at
    return Batch(
        id=fresh_id(now),
        counts=[Count(key_id=key, hour=now - now % HOUR, outcome="accepted", n=n) for key in keys],
        keys=[
            LastUse(id=key, at=now, ip=None, user_agent=None, n=n, limit_state=b"%d" % at)
            for key in keys
        ],
        sessions=[],
        secrets=[],
        samples=[
            Sample(key_id=key, outcome="accepted", at=now, n=n, ip=None, user_agent=None)
            for key in keys
        ],
    )


async def write(database: AnyDatabase, told: Batch, settled: Sequence[str] = ()) -> bool:
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
    return await database.write(
        lambda tx: batches.write(tx, told, now=START, settled=settled, dialect=dialect)
    )


async def known(database: AnyDatabase) -> set[str]:
    rows = await database.read(lambda tx: tx.all(select(usage_batches.c.id)))
    return {row.id for row in rows}


async def counted(database: AnyDatabase, key: str = KEYS[0]) -> tuple[int, int, int]:
    """By hour, by the key's own count, and as events."""

    async def body(tx: Transaction) -> tuple[int, int, int]:
        counts = await usage.report(tx, key, since=0, until=START + HOUR)
        row = await tx.one(select(api_keys.c.request_count).where(api_keys.c.id == key))
        assert row is not None
        seen = await activity.recent(tx, key, limit=100)
        return sum(each.n for each in counts), row.request_count, sum(each.n for each in seen)

    return await database.read(body)


async def test_a_batch_that_is_brought_twice_counts_once(database: AnyDatabase) -> None:
    told = batch(KEYS[0], n=3)
    assert [await write(database, told) for _ in range(3)] == [True, False, False]
    assert await write(database, batch(KEYS[0], n=2)) is True
    assert await counted(database) == (5, 5, 5)


async def test_a_batch_that_is_brought_by_several_at_once_counts_once(
    database: AnyDatabase,
) -> None:
    told = batch(*KEYS[:50], n=3)
    new = await asyncio.gather(*(write(database, told) for _ in range(8)))
    assert sum(new) == 1
    assert await counted(database) == (3, 3, 3)


async def test_a_batch_that_was_taken_back_was_not_written(database: AnyDatabase) -> None:
    told = batch(KEYS[0])
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"

    async def failing(tx: Transaction) -> None:
        await batches.write(tx, told, now=START, settled=(), dialect=dialect)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await database.write(failing)
    assert await counted(database) == (0, 0, 0)
    assert await write(database, told) is True
    assert await counted(database) == (1, 1, 1)


async def test_what_nobody_brings_again_is_forgotten_with_the_next(database: AnyDatabase) -> None:
    first, second, third = (batch(KEYS[0]) for _ in range(3))
    await write(database, first)
    await write(database, second)
    assert await write(database, third, [first.id, second.id]) is True
    assert await known(database) == {third.id}
    assert await write(database, third, [first.id]) is False


async def test_old_ones_are_forgotten_in_batches(database: AnyDatabase) -> None:
    old = [{"id": f"old{n}", "written_at": START + n} for n in range(5)]
    await database.write(lambda tx: tx.run_many(insert(usage_batches), old))
    forgotten = [
        await database.write(lambda tx: batches.forget_old(tx, before=START + 3, limit=2))
        for _ in range(3)
    ]
    assert forgotten == [2, 1, 0]
    assert await known(database) == {"old3", "old4"}


async def test_processes_that_write_the_same_keys_all_get_through(ready_url: str) -> None:
    """Each in its own order of batches, and with changes of the same keys between."""
    opened = [open_database(ready_url)[0] for _ in range(3)]
    if isinstance(opened[0], SqliteDatabase):
        opened = opened[:1]
    told = [batch(*KEYS, at=n) for n in range(6)]

    async def node(database: AnyDatabase, first: int) -> None:
        for n in range(6):
            await write(database, told[(first + n) % 6])

    await asyncio.gather(*(node(each, 2 * n) for n, each in enumerate(opened)))
    total = await opened[0].read(lambda tx: usage.report(tx, KEYS[7], since=0, until=START + HOUR))
    assert [count.n for count in total] == [6]
    for each in opened:
        await each.close()


async def test_the_state_of_a_limit_goes_with_the_newest_use(database: AnyDatabase) -> None:
    """Of several nodes, and of what waited on a disk: none takes a newer state back."""
    for at in (5, 9, 7):
        await write(database, batch(KEYS[0], at=at))
    row = await database.read(
        lambda tx: tx.one(select(api_keys.c.limit_state).where(api_keys.c.id == KEYS[0]))
    )
    assert row is not None
    assert bytes(row.limit_state) == b"9"


async def test_each_database_has_a_name_of_its_own(
    ready_url: str, postgres_server: PostgresServer, postgres_template: str
) -> None:
    first, _ = open_database(ready_url)
    again, _ = open_database(ready_url.replace("127.0.0.1", "localhost"))
    another = postgres_server.create(postgres_template)
    other, _ = open_database(another)
    try:
        name = await identity(first)
        assert name.isascii()
        assert "/" not in name
        assert await identity(again) == name
        assert await identity(other) != name
    finally:
        for each in (first, again, other):
            await each.close()
        postgres_server.drop(another)
