"""Passwords are hashed beside the requests, by few threads, and never by a queue without end."""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator

import argon2
import pytest

from keybearer.adapters.passwords import Cost, Hasher, Overloaded
from keybearer.domain.errors import Unavailable

CHEAP = Cost(memory_kib=64, passes=1)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    hasher = Hasher(cost=CHEAP)
    yield hasher
    hasher.close()


async def test_the_right_password_is_told_from_a_wrong_one(hasher: Hasher) -> None:
    hashed = await hasher.hash("correct horse battery staple")
    assert hashed.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert await hasher.verify(hashed, "correct horse battery staple")
    assert not await hasher.verify(hashed, "correct horse battery stapler")
    assert not await hasher.verify(hashed, "")


async def test_each_hash_has_its_own_salt(hasher: Hasher) -> None:
    assert await hasher.hash("same") != await hasher.hash("same")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x" * 72 + "a", "x" * 72 + "b", id="72 bytes alike"),
        pytest.param("x" * 1024 + "a", "x" * 1024 + "b", id="1 KB alike"),
        pytest.param("a\0b", "a\0c", id="NUL"),
        pytest.param("é", "e\u0301", id="NFC and NFD"),
        pytest.param("\ud800", "\ud801", id="lone surrogates"),
        pytest.param(" a", "a", id="space"),
    ],
)
async def test_a140_no_character_is_lost(hasher: Hasher, one: str, other: str) -> None:
    hashed = await hasher.hash(one)
    assert await hasher.verify(hashed, one)
    assert not await hasher.verify(hashed, other)


@pytest.mark.parametrize("password", ["", "\0" * 32, "password"])
async def test_nobody_has_no_password(hasher: Hasher, password: str) -> None:
    assert not await hasher.verify(None, password)


async def test_nobody_takes_as_long_as_somebody() -> None:
    hasher = Hasher(threads=1)
    hashed = await hasher.hash("right")

    async def cost(hashed: str | None) -> float:
        # CPU seconds of the one thread: the clock on the wall knows of other processes too.
        before = await hasher.run(time.thread_time)
        await hasher.verify(hashed, "wrong")
        return await hasher.run(time.thread_time) - before

    somebody = statistics.median([await cost(hashed) for _ in range(7)])
    nobody = statistics.median([await cost(None) for _ in range(7)])
    hasher.close()
    assert 0.5 < nobody / somebody < 2


async def test_the_default_cost_is_that_of_owasp() -> None:
    hasher = Hasher()
    assert (await hasher.hash("x")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    hasher.close()


async def test_a145_a_hash_of_another_cost_is_checked_and_wants_renewal(hasher: Hasher) -> None:
    old = Hasher(cost=Cost(memory_kib=32, passes=1))
    hashed = await old.hash("right")
    old.close()
    assert await hasher.verify(hashed, "right")
    assert hasher.needs_rehash(hashed)
    assert not hasher.needs_rehash(await hasher.hash("right"))


UNREADABLE = [
    "x", "$argon2id$", "$argon2id$v=19$m=64,t=1,p=1$!$!", "$2b$1", "$argon2id$é",
    f"$scrypt$ln=0,r=8,p=1$c2FsdA${'A' * 43}",
    f"$scrypt$ln=4,r=8,p=1$c2FsdAA${'A' * 45}",
    f"$pbkdf2-sha1$i=0$c2FsdA${'A' * 43}",
    "$2b$99$" + "a" * 53,
]  # fmt: skip


@pytest.mark.parametrize("hashed", UNREADABLE)
async def test_a_hash_that_is_none_has_no_password(
    hasher: Hasher, hashed: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await hasher.verify(hashed, "secret")
    assert [record.message for record in caplog.records] == ["password.hash_unreadable"]
    assert hashed not in caplog.text or len(hashed) == 1
    assert not await hasher.verify(None, "secret", like=hashed)
    assert not await hasher.check(hashed, b"secret")


@pytest.mark.parametrize("hashed", ["x", "$argon2id$", "$2b$1"])
async def test_and_costs_what_another_costs(
    hasher: Hasher, hashed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    real = argon2.PasswordHasher.verify

    def verify(self: argon2.PasswordHasher, hash: str, password: bytes) -> bool:
        checked.append(hash)
        return real(self, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    await hasher.verify(None, "secret")
    (nobodys,) = checked
    await hasher.verify(hashed, "secret")
    await hasher.verify(None, "secret", like=hashed)
    assert checked.count(nobodys) == 3


async def test_a_pool_is_busy_before_it_is_full() -> None:
    hasher = Hasher(threads=1, queue=16, cost=CHEAP)
    go_on = threading.Event()
    waiting = []
    busy = []
    for _ in range(5):
        busy.append(hasher.busy)
        waiting.append(asyncio.ensure_future(hasher.run(go_on.wait)))
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*waiting)
    hasher.close()
    assert [*busy, hasher.busy] == [False] * 4 + [True, False]


async def test_without_memory_hashing_is_unavailable() -> None:
    hasher = Hasher(cost=Cost(memory_kib=2**32 - 1))
    with pytest.raises(Unavailable, match="hashed"):
        await hasher.hash("x")
    hasher.close()


async def test_a144_a_full_queue_is_refused_at_once() -> None:
    hasher = Hasher(threads=1, queue=2, cost=CHEAP)
    gate = threading.Event()
    waiting = [asyncio.create_task(hasher.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(500):
        with pytest.raises(Overloaded) as caught:
            await hasher.hash("x" * 1024)
        assert caught.value.retry_after_seconds == 1
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await hasher.hash("x")
    hasher.close()


async def test_who_leaves_the_queue_frees_a_place() -> None:
    hasher = Hasher(threads=1, queue=1, cost=CHEAP)
    started, gate = threading.Event(), threading.Event()

    def hold() -> bool:
        started.set()
        return gate.wait()

    running = asyncio.create_task(hasher.run(hold))
    waiting = asyncio.create_task(hasher.run(gate.wait))
    assert await asyncio.to_thread(started.wait)
    waiting.cancel()
    await asyncio.wait([waiting])
    another = asyncio.create_task(hasher.run(gate.wait))
    await asyncio.sleep(0)
    # The one that runs keeps its place although nobody waits for it any more.
    running.cancel()
    await asyncio.wait([running])
    with pytest.raises(Overloaded):
        await hasher.hash("x")
    gate.set()
    assert await another
    hasher.close()


async def test_no_more_threads_run_than_were_asked_for() -> None:
    hasher = Hasher(threads=2, queue=64, cost=CHEAP)
    names = await asyncio.gather(*(hasher.run(_name_slowly) for _ in range(20)))
    assert len(set(names)) <= 2
    hasher.close()


def _name_slowly() -> str:
    time.sleep(0.002)
    return threading.current_thread().name


async def test_the_loop_goes_on_while_passwords_are_hashed() -> None:
    hasher = Hasher(threads=1)
    work = asyncio.create_task(hasher.hash("x"))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    hasher.close()


async def test_what_the_function_raises_comes_back(hasher: Hasher) -> None:
    with pytest.raises(ZeroDivisionError):
        await hasher.run(divmod, 1, 0)
    assert await hasher.run(divmod, 7, 2) == (3, 1)


def test_one_hasher_serves_several_loops(hasher: Hasher) -> None:
    hashed = asyncio.run(hasher.hash("x"))
    assert asyncio.run(hasher.verify(hashed, "x"))


async def test_a_closed_pool_is_unavailable(hasher: Hasher) -> None:
    hasher.close()
    for _ in range(100):
        with pytest.raises(Unavailable, match="closed"):
            await hasher.hash("x")


async def test_without_memory_checking_is_unavailable() -> None:
    hasher = Hasher(cost=CHEAP)
    most = f"$argon2id$v=19$m={2**32 - 1},t=1,p=1$c2FsdHNhbHQ${'A' * 43}"
    with pytest.raises(Unavailable, match="checked") as caught:
        await hasher.verify(most, "secret")
    assert "secret" not in str(caught.value)
    hasher.close()
