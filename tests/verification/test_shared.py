"""Limits of several processes: together, alone, and together again."""

import asyncio
import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.limits import Take
from keybearer.domain.model import RateLimit
from keybearer.verification import shared as module
from keybearer.verification.limiter import Limiter
from keybearer.verification.shared import SharedLimiter
from tests.people import StandingClock
from tests.verification.lines import Line, Server

LIMIT = RateLimit(maximum=10, window_ms=64_000)


class Process:
    """A process with its limiter and its line."""

    def __init__(self, server: Server, nodes: list["Process"]) -> None:
        nodes.append(self)
        self.clock = server.clock
        self.line = Line(server)
        self.limiter = SharedLimiter(Limiter(), self.line, lambda: len(nodes), self.clock)

    async def take(self, cost: int = 1, limit: RateLimit = LIMIT, id: str = "k") -> Take:
        return await self.limiter.take(id, limit, self.clock.now(), cost)

    async def accepts(self, times: int) -> int:
        """How many of so many requests."""
        return sum([(await self.take()).accepted for _ in range(times)])

    async def is_back(self) -> None:
        """Until it counts together again."""
        async with asyncio.timeout(5):
            while not self.limiter.shared:  # noqa: ASYNC110 -- what ends it is a task of its own
                await asyncio.sleep(0)


class Town:
    """Some processes that share a server."""

    def __init__(self, number: int = 1) -> None:
        self.clock = StandingClock()
        self.server = Server(self.clock)
        self.nodes: list[Process] = []
        for _ in range(number):
            Process(self.server, self.nodes)

    async def start(self) -> list[Process]:
        for node in self.nodes:
            await node.limiter.start()
        return self.nodes

    def cut(self) -> None:
        for node in self.nodes:
            node.line.cut = True

    async def mend(self) -> None:
        for _ in range(3):  # what probes by itself has found it cut, and rests
            await asyncio.sleep(0)
        for node in self.nodes:
            node.line.cut = False

    async def stop(self) -> None:
        for node in self.nodes:
            await node.limiter.stop()


@pytest.fixture
async def town() -> Town:
    return Town(4)


@pytest.fixture(autouse=True)
def _probe_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 3600)


async def test_all_processes_count_together(town: Town) -> None:
    nodes = await town.start()
    assert [await node.accepts(3) for node in nodes] == [3, 3, 3, 1]
    assert nodes[0].line.calls == ["check", *["take"] * 3]
    refused = await nodes[1].take()
    assert (refused.accepted, refused.shared, refused.remaining) == (False, True, 0)
    assert refused.retry_after_ms == 65_000


async def test_alone_each_accepts_its_share_and_never_more(town: Town) -> None:
    nodes = await town.start()
    town.cut()
    assert [await node.accepts(9) for node in nodes] == [2, 2, 2, 2]
    town.clock.advance(30_000)
    assert [await node.accepts(9) for node in nodes] == [0, 0, 0, 0]
    refused = await nodes[0].take()
    assert (refused.accepted, refused.shared, refused.retry_after_ms) == (False, False, 35_000)
    town.clock.advance(35_000)
    taken = await nodes[0].take()
    assert (taken.accepted, taken.shared, taken.remaining) == (True, False, 1)
    await town.stop()


async def test_what_came_of_a_take_alone_is_told_with_its_times(town: Town) -> None:
    node, *_ = await town.start()
    town.cut()
    now = town.clock.now()
    assert await node.take() == Take(
        accepted=True, remaining=1, retry_after_ms=0, reset_after_ms=65_000, at=now, shared=False
    )
    await town.stop()


async def test_the_only_process_has_the_whole_limit_alone() -> None:
    town = Town(1)
    (node,) = await town.start()
    town.cut()
    assert await node.accepts(20) == 10
    await town.stop()


async def test_what_no_longer_counts_is_not_told_again(town: Town) -> None:
    node, *_ = await town.start()
    town.cut()
    assert (await node.take()).accepted
    town.clock.advance(66_000)
    with pytest.raises(Unavailable):
        await node.limiter._tell()
    assert len(node.limiter._untold) == 0
    await town.mend()
    await node.limiter.probe()
    assert node.limiter.shared
    await town.stop()


async def test_only_the_first_request_after_the_loss_asks_redis(town: Town) -> None:
    node, *_ = await town.start()
    town.cut()
    await node.accepts(20)
    assert node.line.calls.count("take") == 1
    assert not node.limiter.shared
    await town.stop()


async def test_what_it_accepted_together_counts_alone_too(town: Town) -> None:
    nodes = await town.start()
    assert await nodes[0].accepts(1) == 1
    assert await nodes[1].accepts(9) == 9
    town.cut()
    assert [await node.accepts(9) for node in nodes] == [1, 0, 2, 2]
    await town.stop()


async def test_below_one_for_each_nobody_accepts(town: Town) -> None:
    nodes = await town.start()
    town.cut()
    scarce = RateLimit(maximum=3, window_ms=64_000)
    taken = [await node.take(limit=scarce) for node in nodes]
    assert [take.accepted for take in taken] == [False] * 4
    assert {take.retry_after_ms for take in taken} == {64_000}
    await town.stop()


async def test_a_process_more_is_a_smaller_share(town: Town) -> None:
    nodes = await town.start()
    town.cut()
    Process(town.server, town.nodes)
    assert await nodes[0].accepts(1) == 1
    for _ in range(5):
        Process(town.server, town.nodes)
    assert await nodes[0].accepts(9) == 0
    assert await nodes[1].accepts(9) == 1
    town.nodes[4:] = []
    await town.stop()


async def test_back_again_all_that_was_accepted_alone_counts(town: Town) -> None:
    nodes = await town.start()
    town.cut()
    assert [await node.accepts(9) for node in nodes] == [2, 2, 2, 2]
    town.clock.advance(10_000)
    await town.mend()
    for node in nodes:
        await node.limiter.probe()
    assert nodes[0].limiter.shared
    assert [await node.accepts(9) for node in nodes] == [2, 0, 0, 0]
    # It counts from when it was accepted, not from when it was told.
    town.clock.advance(55_000)
    assert [await node.accepts(9) for node in nodes] == [8, 0, 0, 0]
    await town.stop()


async def test_many_keys_are_told_in_several_trips(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    node, *_ = await town.start()
    town.cut()
    for number in range(8):
        assert (await node.take(2, id=f"k{number}")).accepted
    await town.mend()
    await node.limiter.probe()
    left = [(await town.nodes[1].take(9, id=f"k{number}")).remaining for number in range(8)]
    assert left == [8] * 8
    await town.stop()


async def test_a_line_cut_while_it_tells_loses_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    node, *_ = await town.start()
    town.cut()
    for number in range(8):
        await node.take(2, id=f"k{number}")
    await town.mend()
    honest, told = node.line.add, 0

    async def add(id: str, limit: RateLimit, ages: Sequence[tuple[int, int]]) -> None:
        nonlocal told
        told += 1
        node.line.cut = told == 5
        await honest(id, limit, ages)

    monkeypatch.setattr(node.line, "add", add)
    with pytest.raises(Unavailable):
        await node.limiter.probe()
    assert not node.limiter.shared
    await node.limiter.probe()
    for number in range(8):
        assert not (await town.nodes[1].take(9, id=f"k{number}")).accepted
    await town.stop()


async def test_a_lost_answer_is_counted_twice_rather_than_never(town: Town) -> None:
    nodes = await town.start()
    nodes[0].line.loses_answers = True
    assert (await nodes[0].take(2)).accepted
    assert town.server.limiter.take("k", LIMIT, town.clock.now(), 9).remaining == 8
    await town.mend()
    nodes[0].line.loses_answers = False
    await nodes[0].limiter.probe()
    assert town.server.limiter.take("k", LIMIT, town.clock.now(), 9).remaining == 6
    await town.stop()


async def test_what_is_under_way_when_redis_is_lost_has_its_place(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    node, *_ = await town.start()
    before = asyncio.all_tasks()
    node.line.gate = asyncio.Event()
    waiting = [asyncio.create_task(node.take()) for _ in range(10)]
    await asyncio.sleep(0)
    node.line.cut = True
    node.line.gate.set()
    taken = [await each for each in waiting]
    # It is told once, and one task looks whether Redis is back.
    assert [record.message for record in caplog.records] == ["limits.alone"]
    assert len(asyncio.all_tasks() - before) == 1
    assert sum(take.accepted for take in taken) == 2
    assert await node.accepts(5) == 0
    await town.stop()


async def test_a_restart_keeps_everybody_to_their_share_for_a_window(town: Town) -> None:
    nodes = await town.start()
    assert await nodes[0].accepts(10) == 10
    await nodes[1].accepts(1)
    town.clock.advance(20_000)
    town.server.restart()
    town.clock.advance(20_000)
    # The second learns of it only from the answer to its first request.
    assert [await node.accepts(9) for node in nodes[:2]] == [0, 2]
    town.clock.advance(44_000)
    assert town.nodes[0].line.forgot_at + 64_000 == town.clock.now()
    assert [await node.accepts(10) for node in nodes[:2]] == [8, 0]


async def test_what_redis_accepts_above_the_share_after_a_restart_is_refused(town: Town) -> None:
    node, *_ = await town.start()
    assert await node.accepts(5) == 5
    town.server.restart()
    refused = await node.take()
    assert (refused.accepted, refused.shared, refused.retry_after_ms) == (False, False, 65_000)
    asked = node.line.calls.count("take")
    assert not (await node.take()).accepted
    assert node.line.calls.count("take") == asked, "it knows that Redis may have forgotten"


async def test_an_emptied_redis_is_at_most_twice_the_maximum(town: Town) -> None:
    nodes = await town.start()
    assert await nodes[0].accepts(20) == 10
    town.server.limiter = Limiter()
    assert sum([await node.accepts(20) for node in nodes]) == 10


async def test_who_starts_without_redis_starts_alone(town: Town) -> None:
    before = asyncio.all_tasks()
    town.cut()
    nodes = await town.start()
    assert [await node.accepts(9) for node in nodes] == [2, 2, 2, 2]
    assert nodes[0].line.calls.count("take") == 0
    await town.stop()
    assert all(node.line.closed for node in nodes)
    assert asyncio.all_tasks() == before


async def test_an_unreliable_redis_stops_the_start(town: Town) -> None:
    town.nodes[0].line.evicts = True
    with pytest.raises(Misuse, match="evicts"):
        await town.nodes[0].limiter.start()


async def test_it_returns_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0)
    town = Town()
    (node,) = await town.start()
    node.line.cut = True
    await node.take()
    for _ in range(3):
        await asyncio.sleep(0)
    node.line.cut, node.line.evicts = False, True
    for _ in range(3):
        await asyncio.sleep(0)
    assert not node.limiter.shared
    node.line.evicts = False
    await node.is_back()
    # And a second time.
    node.line.cut = True
    await node.take()
    node.line.cut = False
    await node.is_back()
    assert town.server.limiter.take("k", LIMIT, town.clock.now(), 9).remaining == 8
    await town.stop()


async def test_why_it_is_alone_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0)
    town = Town()
    (node,) = await town.start()
    node.line.cut = True
    await node.accepts(5)
    node.line.cut, node.line.evicts = False, True
    for _ in range(9):
        await asyncio.sleep(0)
    told = [(record.levelname, vars(record)["reason"]) for record in caplog.records]
    assert told == [("WARNING", "cut"), ("ERROR", "it evicts")]
    node.line.evicts = False
    caplog.clear()
    with caplog.at_level(logging.INFO, "keybearer"):
        await node.is_back()
        await asyncio.sleep(0)
    assert [record.message for record in caplog.records] == ["limits.shared"]
    await town.stop()


# --- given back -------------------------------------------------------------------------------


async def test_what_is_given_back_can_be_taken_by_another(town: Town) -> None:
    nodes = await town.start()
    now = town.clock.now()
    taken = await nodes[0].take(10)
    await nodes[0].limiter.give_back("k", LIMIT, now, 10, taken)
    assert await nodes[1].accepts(20) == 10
    town.cut()
    assert await nodes[0].accepts(20) == 2
    await town.stop()


async def test_what_was_accepted_alone_is_given_back_alone(town: Town) -> None:
    nodes = await town.start()
    town.cut()
    now = town.clock.now()
    await nodes[0].take(1)
    taken = await nodes[0].take(1)
    await nodes[0].limiter.give_back("k", LIMIT, now, 1, taken)
    assert await nodes[0].accepts(20) == 1
    await town.mend()
    await nodes[0].limiter.probe()
    assert town.server.limiter.take("k", LIMIT, now, 9).remaining == 8
    await town.stop()


async def test_what_redis_cannot_be_told_stays_counted_there(town: Town) -> None:
    nodes = await town.start()
    now = town.clock.now()
    first, second = await nodes[0].take(1), await nodes[0].take(1)
    town.cut()
    await nodes[0].limiter.give_back("k", LIMIT, now, 1, first)
    assert not nodes[0].limiter.shared
    await nodes[0].limiter.give_back("k", LIMIT, now, 1, second)
    assert nodes[0].line.calls.count("give back") == 1
    assert await nodes[0].accepts(20) == 2
    await town.mend()
    await nodes[0].limiter.probe()
    assert town.server.limiter.take("k", LIMIT, now, 9).remaining == 6
    await town.stop()


# --- the bound --------------------------------------------------------------------------------

_DEEDS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 12)),
    st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 12)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([0, 500, 10_000, 30_000, 66_000])),
    st.tuples(st.just("cut"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("mend"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
    st.tuples(st.just("lose answers"), st.integers(0, 2), st.just(0)),
)


@given(deeds=st.lists(_DEEDS, max_size=40), restarts=st.booleans())
def test_no_interval_holds_more_than_the_bound(
    deeds: list[tuple[str, int, int]], restarts: bool
) -> None:
    asyncio.run(_live(deeds, restarts))


async def _live(deeds: list[tuple[str, int, int]], restarts: bool) -> None:
    town = Town(3)
    nodes = await town.start()
    for node in nodes:
        await node.take(id="another")  # everybody has known the server
    accepted: list[int] = []
    well_since = town.clock.now()
    for what, number, amount in deeds:
        node = nodes[number]
        if what == "wait":
            town.clock.advance(amount)
        elif what == "cut":
            node.line.cut = True
        elif what == "lose answers":
            node.line.loses_answers = True
        elif what == "mend":
            node.line.cut = node.line.loses_answers = False
            if not node.limiter.shared:
                await node.limiter.probe()
        elif what == "restart" and restarts:
            town.server.restart()
            well_since = town.clock.now() + LIMIT.window_ms
        else:
            accepted += [town.clock.now()] * await node.accepts(amount)
        if any(each.line.cut or not each.limiter.shared for each in nodes):
            well_since = max(well_since, town.clock.now())
    for begin in set(accepted):
        held = sum(begin <= at < begin + LIMIT.window_ms for at in accepted)
        assert held <= 10 + 2 * (10 // 3)
        if begin > well_since:
            assert held <= 10
    await town.stop()
