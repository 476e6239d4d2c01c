"""Activity on both databases: an hour of each outcome, and no slot goes back in time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from keybearer.adapters.sql import activity
from keybearer.adapters.sql.activity import SLOTS
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import activity as table
from keybearer.domain.uses import Sample
from tests.people import START

AnyDatabase = SqliteDatabase | PostgresDatabase

MINUTE = 60_000
FIRST = START - START % MINUTE


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


def sample(
    at: int, n: int = 1, *, outcome: str = "accepted", key: str = "k", ip: str | None = None
) -> Sample:
    """One that ends `at` milliseconds after the first minute began."""
    return Sample(key_id=key, outcome=outcome, at=FIRST + at, n=n, ip=ip, user_agent=ip)


async def add(database: AnyDatabase, *samples: Sample) -> None:
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
    await database.write(lambda tx: activity.add(tx, samples, dialect=dialect))


async def recent(database: AnyDatabase, limit: int = 1_000, *, key: str = "k") -> list[Sample]:
    return list(await database.read(lambda tx: activity.recent(tx, key, limit=limit)))


async def test_the_newest_of_ones_own_come_first(database: AnyDatabase) -> None:
    refused = sample(MINUTE + 1, 3, outcome="RATE_LIMITED", ip="203.0.113.7")
    await add(database, sample(0), sample(MINUTE + 2, 2), refused, sample(9, key="other"))
    await add(database)
    assert await recent(database) == [sample(MINUTE + 2, 2), refused, sample(0)]
    assert await recent(database, 2) == [sample(MINUTE + 2, 2), refused]
    assert await recent(database, key="nobody") == []


async def test_one_minute_of_one_outcome_is_one_event(database: AnyDatabase) -> None:
    await add(database, sample(0, 2, ip="203.0.113.1"))
    await add(database, sample(MINUTE - 1, 3, ip="203.0.113.2"))
    await add(database, sample(5, 4, ip="203.0.113.3"))  # written late by another process
    assert await recent(database) == [sample(MINUTE - 1, 9, ip="203.0.113.2")]
    await add(database, sample(MINUTE - 1, 1))
    assert await recent(database) == [sample(MINUTE - 1, 10)]


async def test_a_slot_is_overwritten_by_a_later_minute_and_by_no_earlier_one(
    database: AnyDatabase,
) -> None:
    await add(database, sample(0, 7, ip="203.0.113.1"))
    later = sample(SLOTS * MINUTE, 1)
    await add(database, later)
    assert await recent(database) == [later]
    await add(database, sample(1, 9, ip="203.0.113.1"))
    assert await recent(database) == [later]


async def test_a_key_has_an_hour_of_each_outcome_at_the_most(database: AnyDatabase) -> None:
    for minute in range(150):
        at = minute * MINUTE
        await add(database, sample(at, outcome="IP_NOT_ALLOWED"), sample(at))
    kept = await recent(database)
    assert len(kept) == 2 * SLOTS
    assert {each.minute for each in kept} == {FIRST // MINUTE + n for n in range(150 - SLOTS, 150)}


async def test_batches_at_once_lose_nothing(database: AnyDatabase) -> None:
    await asyncio.gather(*(add(database, sample(n, n, ip=str(n))) for n in range(1, 41)))
    assert await recent(database) == [sample(40, 820, ip="40")]


async def test_counts_go_beyond_32_bits(database: AnyDatabase) -> None:
    await add(database, sample(0, 2**40))
    await add(database, sample(0, 2**40))
    assert await recent(database) == [sample(0, 2**41)]


@given(
    samples=st.lists(
        st.tuples(st.integers(0, 3 * SLOTS * MINUTE), st.integers(1, 9)), min_size=1, max_size=12
    )
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_in_whatever_order_they_come_each_slot_has_its_newest_minute(
    database: AnyDatabase, samples: list[tuple[int, int]]
) -> None:
    await database.write(lambda tx: tx.run(delete(table)))
    expected: dict[int, Sample] = {}
    for at, n in samples:
        new = sample(at, n)
        await add(database, new)
        old = expected.get(new.minute % SLOTS)
        if old is None or old.minute < new.minute:
            expected[new.minute % SLOTS] = new
        elif old.minute == new.minute:
            newest = max(at, old.at - FIRST)
            expected[new.minute % SLOTS] = sample(newest, old.n + n)
    rows = select(func.count().label("n")).select_from(table)
    counted = await database.read(lambda tx: tx.one(rows))
    assert counted is not None
    assert counted.n == len(expected)
    assert {each.minute: each for each in await recent(database)} == {
        each.minute: each for each in expected.values()
    }
