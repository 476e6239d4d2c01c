"""Slow hashes of imported keys: in turn, so that nobody keeps the holder of a key out."""

import asyncio
from typing import Any

import pytest

from keybearer.domain.errors import Unavailable
from keybearer.verification import foreign
from keybearer.verification.foreign import WAITING, SlowHashes


class Checks:
    """Checks that end when they are told; the right one is `right`."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, _hashed: str, part: bytes) -> bool:
        self.asked.append(part)
        await self.gate.acquire()
        return part == b"right"


@pytest.fixture
def checks() -> Checks:
    return Checks()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def begin(slow: SlowHashes, *parts: bytes, key: str = "k") -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(slow.holds(key, "hash", part)) for part in parts]
    await settle()
    return tasks


async def test_a_few_wait_for_their_turn_and_the_last_to_ask_is_told(checks: Checks) -> None:
    slow = SlowHashes(checks)
    tasks = await begin(slow, *(b"%d" % n for n in range(WAITING + 2)))
    assert [task.done() for task in tasks] == [False] * (WAITING + 1) + [True]
    with pytest.raises(Unavailable, match="slow hash"):
        await tasks.pop()
    for _ in tasks:
        checks.gate.release()
    assert await asyncio.gather(*tasks) == [False] * (WAITING + 1)
    assert checks.asked == [b"%d" % n for n in range(WAITING + 1)]
    (task,) = await begin(slow, b"right")
    checks.gate.release()
    assert await task is True


async def test_a_flood_of_made_up_secrets_keeps_no_holder_out(checks: Checks) -> None:
    slow, number = SlowHashes(checks), 0

    async def flood(many: int) -> None:
        nonlocal number
        tasks = await begin(slow, *(b"made up %d" % (number + n) for n in range(many)))
        number += many
        for task in tasks:
            task.add_done_callback(lambda done: done.exception())

    await flood(WAITING + 1)
    (holder,) = await begin(slow, b"right")
    with pytest.raises(Unavailable):
        await holder
    checks.gate.release()
    await settle()
    await flood(WAITING * 5)
    (holder,) = await begin(slow, b"right")
    for _ in range(WAITING + 1):
        assert not holder.done()
        checks.gate.release()
        await settle()
        await flood(WAITING)
    assert await holder is True


async def test_what_was_refused_costs_no_second_hash(
    checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowHashes(checks)
    monkeypatch.setattr(foreign, "REMEMBERED", 2)
    for part in (b"1", b"2", b"2", b"1", b"3", b"1"):
        (task,) = await begin(slow, part)
        checks.gate.release()
        assert await task is False
        checks.gate = asyncio.Semaphore(0)
    assert checks.asked == [b"1", b"2", b"3", b"1"]
    # Another hash is another question.
    task = asyncio.create_task(slow.holds("k", "another", b"1"))
    await settle()
    checks.gate.release()
    assert await task is False


async def test_other_keys_do_not_wait(checks: Checks) -> None:
    slow = SlowHashes(checks)
    await begin(slow, b"1", b"2")
    (other,) = await begin(slow, b"right", key="other")
    assert checks.asked == [b"1", b"right"]
    for _ in range(3):
        checks.gate.release()
    assert await other is True


async def test_one_that_is_lost_gives_its_turn_on() -> None:
    asked: list[Any] = []

    async def check(_hashed: str, part: bytes) -> bool:
        asked.append(part)
        await asyncio.sleep(0)
        if part == b"lost":
            raise Unavailable("lost")
        return True

    slow = SlowHashes(check)
    lost, after = await begin(slow, b"lost", b"after")
    with pytest.raises(Unavailable, match="lost"):
        await lost
    assert await after is True
    assert asked == [b"lost", b"after"]
