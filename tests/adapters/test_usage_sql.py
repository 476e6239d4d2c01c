"""Usage on both databases: batches add up, and a last use never goes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from keybearer.adapters.sql import keys, keysecrets, usage
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions
from keybearer.domain.ports import Row, Transaction
from keybearer.domain.uses import Count, LastUse, SecretUse
from tests.people import START

AnyDatabase = SqliteDatabase | PostgresDatabase

HOUR = 3_600_000
DAY = 24 * HOUR
FIRST = START - START % HOUR


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)

    async def body(tx: Transaction) -> None:
        await tx.run(
            insert(api_keys).values(
                id="k1",
                owner_id="ann",
                config_id="default",
                prefix="kb_",
                start="kb_abcd",
                enabled=True,
                created_at=START,
                updated_at=START,
                created_by="ann",
                rate_limit_enabled=True,
                request_count=0,
            )
        )
        await tx.run(
            insert(sessions).values(
                id="s1",
                user_id="ann",
                client_id="web",
                created_at=START,
                last_seen_at=START,
                authenticated_at=START,
                expires_at=START + HOUR,
                idle_ms=HOUR,
            )
        )

    await opened.write(body)
    yield opened
    await opened.close()


def count(n: int, *, key: str = "k1", hour: int = 0, outcome: str = "accepted") -> Count:
    return Count(key_id=key, hour=FIRST + hour * HOUR, outcome=outcome, n=n)


def use(at: int, n: int = 1, *, id: str = "k1", **fields: Any) -> LastUse:
    told: dict[str, Any] = {"ip": None, "user_agent": None, **fields}
    return LastUse(id=id, at=START + at, n=n, **told)


async def add(database: AnyDatabase, *counts: Count) -> None:
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
    await database.write(lambda tx: usage.add(tx, counts, dialect=dialect))


async def touch(
    database: AnyDatabase,
    *used: LastUse,
    logins: tuple[LastUse, ...] = (),
    secrets: tuple[SecretUse, ...] = (),
) -> None:
    dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
    await database.write(lambda tx: usage.touch(tx, used, logins, secrets, dialect=dialect))


async def report(
    database: AnyDatabase, since: int = 0, until: int = 100, *, key: str = "k1"
) -> list[Count]:
    found = await database.read(
        lambda tx: usage.report(tx, key, since=FIRST + since * HOUR, until=FIRST + until * HOUR)
    )
    return list(found)


async def last(database: AnyDatabase) -> Row:
    row = await database.read(lambda tx: tx.one(select(api_keys)))
    assert row is not None
    return row


async def seen(database: AnyDatabase) -> int:
    row = await database.read(lambda tx: tx.one(select(sessions.c.last_seen_at)))
    assert row is not None
    return int(row.last_seen_at) - START


async def test_batches_add_up_by_hour_and_outcome(database: AnyDatabase) -> None:
    await add(database, count(3), count(2, outcome="RATE_LIMITED"), count(1, hour=1))
    await add(database, count(4), count(5, hour=2), count(9, key="k2"))
    await add(database)
    assert await report(database) == [
        count(2, outcome="RATE_LIMITED"),
        count(7),
        count(1, hour=1),
        count(5, hour=2),
    ]
    assert await report(database, key="k2") == [count(9, key="k2")]


async def test_a_report_begins_with_its_first_hour_and_ends_before_its_last(
    database: AnyDatabase,
) -> None:
    await add(database, *(count(n + 1, hour=n) for n in range(5)))
    assert await report(database, 1, 3) == [count(2, hour=1), count(3, hour=2)]
    assert await report(database, 3, 3) == []
    assert await report(database, key="nobody") == []


async def test_batches_at_once_lose_nothing(database: AnyDatabase) -> None:
    async def batch(n: int) -> None:
        await add(database, count(n), count(1, outcome="RATE_LIMITED"), count(2, key="k2"))
        await touch(database, use(n, n))

    await asyncio.gather(*(batch(n) for n in range(1, 41)))
    assert await report(database) == [count(40, outcome="RATE_LIMITED"), count(820)]
    assert await report(database, key="k2") == [count(80, key="k2")]
    row = await last(database)
    assert (row.request_count, row.last_used_at) == (820, START + 40)


async def test_counts_go_beyond_32_bits(database: AnyDatabase) -> None:
    await add(database, count(2**40))
    await add(database, count(2**40))
    await touch(database, use(0, 2**40))
    assert await report(database) == [count(2**41)]
    assert (await last(database)).request_count == 2**40


async def test_a_batch_that_fails_counts_nothing(database: AnyDatabase) -> None:
    async def failing(tx: Transaction) -> None:
        dialect = "sqlite" if isinstance(database, SqliteDatabase) else "postgresql"
        await usage.add(tx, [count(3)], dialect=dialect)
        await usage.touch(tx, [use(5)], [use(5, id="s1")], [], dialect=dialect)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await database.write(failing)
    assert await report(database) == []
    assert ((await last(database)).last_used_at, await seen(database)) == (None, 0)


async def test_a_last_use_comes_with_where_it_came_from(database: AnyDatabase) -> None:
    await touch(database, use(1, 2, ip="203.0.113.7", user_agent="curl", limit_state=b"one"))
    row = await last(database)
    assert (row.last_used_at, row.last_used_ip, row.last_used_user_agent) == (
        START + 1, "203.0.113.7", "curl",
    )  # fmt: skip
    assert (row.request_count, bytes(row.limit_state)) == (2, b"one")
    assert row.updated_at == START


async def test_what_a_verify_call_does_not_tell_stays_as_it_was(database: AnyDatabase) -> None:
    await touch(database, use(1, ip="203.0.113.7", user_agent="curl"))
    await touch(database, use(2))
    row = await last(database)
    assert (row.last_used_at, row.last_used_ip) == (START + 2, "203.0.113.7")
    assert row.last_used_user_agent == "curl"


async def test_an_older_use_is_counted_and_moves_nothing_back(database: AnyDatabase) -> None:
    await touch(database, use(5, ip="203.0.113.7", user_agent="new"))
    await touch(database, use(4, 3, ip="198.51.100.1", user_agent="old"))
    row = await last(database)
    assert (row.last_used_at, row.request_count) == (START + 5, 4)
    assert (row.last_used_ip, row.last_used_user_agent) == ("203.0.113.7", "new")


@given(
    uses=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(1, 9),
            st.none() | st.sampled_from(["203.0.113.7", "198.51.100.1"]),
        ),
        max_size=6,
    )
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_in_whatever_order_uses_come_the_newest_is_the_last(
    database: AnyDatabase, uses: list[tuple[int, int, str | None]]
) -> None:
    before = await last(database)
    start = (before.last_used_at or START) - START + 10
    for at, n, ip in uses:
        await touch(database, use(start + at, n, ip=ip), logins=(use(start + at, id="s1"),))
    after = await last(database)
    assert after.request_count - before.request_count == sum(n for _, n, _ in uses)
    if uses:
        newest = max(at for at, _, _ in uses)
        assert (after.last_used_at, await seen(database)) == (
            START + start + newest,
            start + newest,
        )


async def secret(database: AnyDatabase) -> Row:
    row = await database.read(lambda tx: tx.one(select(api_key_secrets)))
    assert row is not None
    return row


async def test_the_uses_of_a_secret_add_up_and_move_nothing_back(database: AnyDatabase) -> None:
    await database.write(
        lambda tx: keysecrets.add(tx, "k1", digest=b"d", pepper_id="p", start="s", now=START)
    )
    seen = []
    for at, n, ip in ((5, 2, "203.0.113.7"), (4, 2**40, "198.51.100.1"), (6, 1, None)):
        used = SecretUse(digest=b"d", at=START + at, ip=ip, n=n)
        gone = SecretUse(digest=b"gone", at=START + at, ip=ip, n=n)
        await touch(database, secrets=(used, gone))
        row = await secret(database)
        seen.append((row.last_used_at - START, row.last_used_ip, row.request_count))
    assert seen == [
        (5, "203.0.113.7", 2),
        (5, "203.0.113.7", 2**40 + 2),
        (6, "203.0.113.7", 2**40 + 3),
    ]
    await database.write(lambda tx: keysecrets.count_anew(tx, "k1"))
    row = await secret(database)
    assert (row.last_used_at - START, row.request_count) == (6, 0)


async def test_a_session_is_seen_later_and_never_earlier(database: AnyDatabase) -> None:
    for at, shown in ((5, 5), (3, 5), (5, 5), (6, 6)):
        await touch(database, logins=(use(at, id="s1"),))
        assert await seen(database) == shown


async def test_who_is_gone_is_no_error(database: AnyDatabase) -> None:
    await touch(database, use(1, id="gone"), use(2), logins=(use(1, id="gone"),))
    assert (await last(database)).last_used_at == START + 2


async def by_day(
    database: AnyDatabase, *ids: str, owner: str | None = "ann", since: int = 0, days: int = 3
) -> dict[str, dict[int, int]]:
    """Counts by day, named by their number from the first."""
    first = START - START % DAY
    found = await database.read(
        lambda tx: usage.by_day(
            tx, ids, owner_id=owner, since=first + since * DAY, until=first + (since + days) * DAY
        )
    )
    return {
        id: {(start - first) // DAY: n for start, n in days.items()} for id, days in found.items()
    }


async def test_days_add_up_hours_and_outcomes(database: AnyDatabase) -> None:
    first = (START - START % DAY - FIRST) // HOUR
    await add(
        database,
        count(1, hour=first - 1),
        count(2, hour=first),
        count(4, hour=first + 23, outcome="RATE_LIMITED"),
        count(2**40, hour=first + 48),
        count(2**40, hour=first + 49),
        count(16, hour=first + 72),
        count(32, hour=first, key="not-a-key"),
    )
    assert await by_day(database, "k1", "k1") == {"k1": {0: 6, 2: 2**41}}
    assert await by_day(database, "k1", since=-1) == {"k1": {-1: 1, 0: 6}}
    assert await by_day(database, "k1", days=0) == {"k1": {}}


async def test_days_of_another_owners_key_are_not_told(database: AnyDatabase) -> None:
    await add(database, count(3), count(3, key="not-a-key"))
    assert await by_day(database, "k1", "not-a-key", "%", owner="bob") == {}
    assert set(await by_day(database, "k1", "not-a-key", owner=None)) == {"k1"}
    assert await by_day(database) == {}


async def test_counts_go_with_their_key(database: AnyDatabase) -> None:
    await add(database, count(3), count(2, hour=1), count(9, key="k2"))
    await database.write(lambda tx: keys.revoke(tx, "k1", now=START, reason=None))
    assert await database.write(lambda tx: keys.forget_ended(tx, before=START)) == 0
    assert len(await report(database)) == 2
    assert await database.write(lambda tx: keys.forget_ended(tx, before=START + 1)) == 1
    assert await report(database) == []
    assert await report(database, key="k2") == [count(9, key="k2")]
