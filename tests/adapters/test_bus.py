"""Changes and acknowledgements over a real Redis, and what becomes of them without it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from keybearer.adapters.redis import bus as module
from keybearer.adapters.redis.bus import RedisBus
from keybearer.adapters.redis.connection import close, subscriber
from keybearer.domain.changes import Change
from tests.servers import RedisServer

NAME = "0123456789abcdef"


class Listener:
    """A node, or whoever stands beside, on a bus."""

    def __init__(self, url: str, id: str, *, member: bool = True, database: str = NAME) -> None:
        self.heard: list[Change] = []
        self.told: list[tuple[int, str]] = []
        self.id = id
        self.bus = RedisBus(url, database, id, member=member)

    async def start(self) -> None:
        await self.bus.start(self.heard.append, lambda seq, node: self.told.append((seq, node)))


@contextlib.asynccontextmanager
async def listening(*listeners: Listener) -> AsyncIterator[None]:
    for each in listeners:
        await each.start()
    yield
    for each in listeners:
        await each.bus.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 -- what is waited for sets no event
            await asyncio.sleep(0.01)


def change(seq: int, origin: str) -> Change:
    return Change(seq, ("key:1", "owner:ann"), origin)


async def test_who_asks_is_told_by_each_node_but_itself(redis_url: str) -> None:
    a, b, c = (Listener(redis_url, id) for id in "abc")
    async with listening(a, b, c):
        await a.bus.publish(change(7, "a"))
        await until(lambda: len(a.told) == 2)
        await asyncio.sleep(0.05)
        assert sorted(a.told) == [(7, "b"), (7, "c")]
        assert (a.heard, b.heard, b.told) == ([], [change(7, "a")], [])


async def test_who_is_no_member_connects_when_it_asks_and_hears_no_changes(redis_url: str) -> None:
    node, visitor = Listener(redis_url, "a"), Listener(redis_url, "v", member=False)
    async with listening(node, visitor):
        assert not visitor.bus.connected
        await visitor.bus.publish(change(1, "v"))
        await until(lambda: visitor.told == [(1, "a")])
        await node.bus.publish(change(2, "a"))
        await asyncio.sleep(0.05)
        assert visitor.heard == []


async def test_nodes_of_another_database_hear_nothing(redis_url: str) -> None:
    ours, theirs = Listener(redis_url, "a"), Listener(redis_url, "b", database="fedcba9876543210")
    async with listening(ours, theirs):
        await ours.bus.publish(change(1, "a"))
        await asyncio.sleep(0.05)
        assert (theirs.heard, ours.told) == ([], [])


async def test_what_the_log_showed_is_acknowledged_to_each_who_asked(redis_url: str) -> None:
    a, b, c = (Listener(redis_url, id) for id in "abc")
    async with listening(a, b, c):
        c.bus.acknowledge([change(1, "a"), change(2, "b"), change(3, "a"), change(4, "c")])
        await until(lambda: len(a.told) == 2 and len(b.told) == 1)
        assert (a.told, b.told, c.told) == ([(1, "c"), (3, "c")], [(2, "c")], [])


async def test_what_cannot_be_read_is_told_and_passed_over(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = Listener(redis_url, "a"), Listener(redis_url, "b")
    async with listening(a, b):
        client = await subscriber(redis_url)
        for channel in ("changes", "acks:b"):
            await client.publish(f"keybearer:{{{NAME}}}:{channel}", b"\xc1 nonsense")
        await close(client)
        await a.bus.publish(change(1, "a"))
        await until(lambda: b.heard == [change(1, "a")])
    assert [each.message for each in caplog.records].count("bus.unreadable") >= 2


async def test_without_redis_nothing_is_sent_and_with_it_all_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = RedisServer(tmp_path)
    a, b = Listener(server.url, "a"), Listener(server.url, "b")
    async with listening(a, b):  # returns though nobody answers
        assert not a.bus.connected
        await a.bus.publish(change(1, "a"))
        b.bus.acknowledge([change(1, "a")])
        for _ in range(2):
            server.start()
            await until(lambda: a.bus.connected and b.bus.connected)
            b.heard.clear()
            await a.bus.publish(change(2, "a"))
            await until(lambda: b.heard == [change(2, "a")])
            server.kill()
            await until(lambda: not a.bus.connected)
            await a.bus.publish(change(3, "a"))
        assert a.told.count((1, "b")) == 0
    lost = [each for each in caplog.records if each.message == "bus.lost"]
    assert 2 <= len(lost) <= 8  # once for each time and bus, not for each try


async def test_a_line_on_which_nothing_answers_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(module, "SECONDS", 0.2)
    server = RedisServer(tmp_path)
    server.start()
    a = Listener(server.url, "a")
    try:
        async with listening(a):
            await asyncio.sleep(0.5)
            assert a.bus.connected  # it was asked, and has answered
            server.pause()
            await until(lambda: not a.bus.connected)
            server.go_on()
            await until(lambda: a.bus.connected)
    finally:
        server.kill()
