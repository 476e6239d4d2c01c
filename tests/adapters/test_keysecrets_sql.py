"""The secrets of a key on both databases: one is current, and an end is where it was put."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from keybearer.adapters.sql import keys, keysecrets
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.domain.model import UNTIL_FINISHED, KeySecret
from keybearer.domain.ports import Transaction
from tests.adapters.test_keys_sql import key_of
from tests.people import START

AnyDatabase = SqliteDatabase | PostgresDatabase

NOW = START


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


async def rotated(database: AnyDatabase, *ends: int, key_id: str = "k") -> None:
    """A key that was rotated once for each end; its secrets are called 0, 1, 2 …"""
    key = key_of(id=key_id, start="0")

    async def body(tx: Transaction) -> None:
        first = f"{key_id}0".encode()
        await keys.add(tx, key, digest=first, pepper_id="p", idempotency=None)
        for n, until in enumerate(ends, 1):
            await keysecrets.end(tx, key_id, until=until)
            digest = f"{key_id}{n}".encode()
            await keysecrets.add(
                tx, key_id, digest=digest, pepper_id="p", start=str(n), now=NOW + n
            )

    await database.write(body)


async def live(database: AnyDatabase, now: int = NOW, key_id: str = "k") -> list[KeySecret]:
    return list(await database.read(lambda tx: keysecrets.live(tx, key_id, now=now)))


async def ends(database: AnyDatabase, now: int = NOW) -> dict[str | None, int | None]:
    return {each.start: each.usable_until for each in await live(database, now)}


async def test_the_current_secret_comes_first_and_the_ended_ones_not_at_all(
    database: AnyDatabase,
) -> None:
    await rotated(database, NOW + 100, NOW + 300, UNTIL_FINISHED)
    await rotated(database, NOW + 100, key_id="other")
    assert await ends(database) == {
        "3": None, "2": UNTIL_FINISHED, "1": NOW + 300, "0": NOW + 100,
    }  # fmt: skip
    assert list(await ends(database, NOW + 100)) == ["3", "2", "1"]
    assert list(await ends(database, NOW + 300)) == ["3", "2"]
    (newest, *_) = await live(database)
    assert newest == KeySecret(
        digest=b"k3", start="3", created_at=NOW + 3, usable_until=None, last_used_at=None,
        last_used_ip=None, request_count=0,
    )  # fmt: skip
    assert "k3" not in repr(newest)


async def test_ends_move_of_what_works_and_of_nothing_else(database: AnyDatabase) -> None:
    await rotated(database, NOW + 100, NOW + 300)
    await rotated(database, NOW + 100, key_id="other")

    async def move(until: int, now: int) -> None:
        await database.write(lambda tx: keysecrets.move_ends(tx, "k", until=until, now=now))

    await move(NOW + 500, NOW + 200)
    assert await ends(database, NOW + 200) == {"2": None, "1": NOW + 500}
    assert await ends(database) == {"2": None, "1": NOW + 500, "0": NOW + 100}
    await move(NOW + 10, NOW)
    assert await ends(database) == {"2": None, "1": NOW + 10, "0": NOW + 10}
    await move(NOW + 10, NOW + 10)
    assert [each.usable_until for each in await live(database, key_id="other")] == [None, NOW + 100]


async def test_the_newest_that_work_go_on_and_the_others_end(database: AnyDatabase) -> None:
    await rotated(database, NOW + 900, NOW + 900, NOW + 900, NOW + 900)
    # Given up while it was the current one: no longer one of those that work.
    await database.write(lambda tx: keysecrets.set_end(tx, b"k4", until=NOW + 1))
    await database.write(lambda tx: keysecrets.end_older(tx, "k", kept=2, now=NOW + 5))
    assert list(await ends(database, NOW + 5)) == ["3", "2"]
    assert (await ends(database))["0"] == NOW + 5


async def test_one_secret_ends_or_is_made_current(database: AnyDatabase) -> None:
    await rotated(database, NOW + 100)

    async def swap(tx: Transaction) -> None:
        newest, before = await keysecrets.live(tx, "k", now=NOW, lock=True)
        await keysecrets.set_end(tx, newest.digest, until=NOW + 1)
        await keysecrets.set_end(tx, before.digest, until=None)

    await database.write(swap)
    assert await ends(database, NOW + 1) == {"0": None}


async def test_a_new_digest_waits_for_a_change_and_no_secret_is_missed(
    database: AnyDatabase,
) -> None:
    # The secret that a cancelled rotation makes current again may be used in that very moment
    # for the first time under a newer pepper.
    await rotated(database, NOW + 100)

    async def cancel(tx: Transaction) -> None:
        newest, before = await keysecrets.live(tx, "k", now=NOW, lock=True)
        await keysecrets.set_end(tx, newest.digest, until=NOW)
        await keysecrets.set_end(tx, before.digest, until=None)

    async def redigest(tx: Transaction) -> None:
        await keysecrets.redigest(tx, old=b"k0", new=b"new", pepper_id="q")

    await asyncio.gather(database.write(redigest), database.write(cancel))
    (current,) = await live(database)
    assert (current.digest, current.usable_until) == (b"new", None)
