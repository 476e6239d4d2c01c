"""The script counts as `SlidingWindow` does, at any time, and one key is one window for all."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any, cast

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from keybearer.adapters.redis import windows as module
from keybearer.adapters.redis.windows import SCRIPT, RedisWindows
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.limits import MAX_AMOUNT, SlidingWindow
from keybearer.domain.model import RateLimit
from tests.servers import own_redis, run_redis, run_redis_sentinel

NOW = 1_795_479_000_000
LIMIT = RateLimit(maximum=10, window_ms=60_000)

# The same script by a time that the test gives, and with the expiry where the test can read it.
_AT_A_TIME = SCRIPT.replace(module._TIME, "local now = tonumber(table.remove(ARGV))").replace(
    "redis.call('PEXPIRE', key,", "redis.call('SET', key .. ':ttl',"
)
_numbers = count()


class Scripted:
    """One window in Redis at times of the test's choice."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._script = client.register_script(_AT_A_TIME)
        self.key = f"window-{next(_numbers)}"

    def run(
        self, now: int, limit: RateLimit, cost: int, given: int | str = "", *pairs: int
    ) -> list[int]:
        said = self._script(
            keys=[self.key], args=[limit.window_ms, limit.maximum, cost, given, *pairs, now]
        )
        accepted, remaining, wait, reset, at = cast("list[int]", said)
        assert at == now
        return [accepted, remaining, wait, reset]

    def expires_in(self) -> int:
        return int(cast("bytes", self._client.get(f"{self.key}:ttl")))

    def fields(self) -> int:
        return int(self._client.hlen(self.key))


@pytest.fixture(scope="module")
def client(redis_server: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_server) as client:
        yield client


_WINDOWS = st.one_of(
    st.integers(1, 200), st.sampled_from([64, 64, 65, 1_000, 60_000, 86_400_000, 10**11])
)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """What happens to a window: `(what, milliseconds later, number)`."""
    gaps = st.one_of(
        st.just(0),
        st.integers(0, 300),
        st.sampled_from([940, 1_000, 59_999, 60_000, 60_001, 70_000, 86_400_000]),
    )
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("take"), gaps, st.integers(1, 4)),
                st.tuples(st.just("take"), gaps, st.integers(1, 4)),
                st.tuples(st.just("give back"), gaps, st.integers(0, 30)),
                st.tuples(st.just("maximum"), st.just(0), st.integers(0, 12)),
                st.tuples(st.just("window"), st.just(0), _WINDOWS),
                st.tuples(st.just("clock"), st.just(0), st.sampled_from([-10, -61_000, -(10**9)])),
            ),
            max_size=60,
        )
    )


@given(story=stories(), maximum=st.integers(0, 12), window_ms=_WINDOWS)
def test_the_script_answers_as_the_window_of_one_process(
    client: "redis.Redis", story: list[tuple[str, int, int]], maximum: int, window_ms: int
) -> None:
    scripted = Scripted(client)
    limit = RateLimit(maximum=maximum, window_ms=window_ms)
    window, now = SlidingWindow(maximum, window_ms), NOW
    taken: list[tuple[int, int]] = []
    for what, later, number in story:
        now += later
        if not window._used:
            window = SlidingWindow(limit.maximum, limit.window_ms)
        if what == "clock":
            now += number
        elif what in {"maximum", "window"}:
            limit = RateLimit(
                maximum=number if what == "maximum" else limit.maximum,
                window_ms=number if what == "window" else limit.window_ms,
            )
            window = SlidingWindow.load(window.dump(), limit.maximum, limit.window_ms)
            assert scripted.run(now, limit, 0)[1] == window.remaining(now)
        elif what == "take":
            said = scripted.run(now, limit, number)
            accepted = window.take(now, number)
            assert said == [
                accepted,
                window.remaining(now),
                window.retry_after(now, number),
                window.reset_after(now),
            ]
            if accepted:
                taken.append((now, number))
                assert scripted.expires_in() == window._begin(window._piece + window._keep) - now
        elif taken:
            then, cost = taken.pop(number % len(taken))
            window._settle(now)
            window.give_back(then, cost)
            assert scripted.run(now, limit, cost, then)[1] == window.remaining(now)
        assert scripted.fields() <= 4 + 65


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2_500), st.integers(1, 3)), min_size=2, max_size=60
    ),
    _WINDOWS,
)
def test_what_was_accepted_elsewhere_counts_from_when_it_was(
    client: "redis.Redis", arrivals: list[tuple[bool, int, int]], window_ms: int
) -> None:
    """Alone, then told, then together: what Redis accepts never makes it too many."""
    scripted, limit = Scripted(client), RateLimit(maximum=12, window_ms=window_ms)
    untold, now = SlidingWindow(12, window_ms), NOW
    events: list[tuple[int, int]] = []
    for alone, gap, cost in arrivals:
        now += gap
        if alone:
            untold.add(now, cost)
            events.append((now, cost))
            continue
        pairs = [number for pair in untold.ages(now) for number in pair]
        untold = SlidingWindow(12, window_ms)
        scripted.run(now, limit, 0, "", *pairs)
        counting = sum(spent for at, spent in events if at > now - window_ms - window_ms / 32 - 1)
        if scripted.run(now, limit, cost)[0]:
            events.append((now, cost))
            assert sum(spent for at, spent in events if at > now - window_ms) <= 12
        else:
            assert counting + cost > 12


@given(
    st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 3)), min_size=1, max_size=20),
    st.sampled_from([64, 65, 1_000, 60_000]),
)
def test_an_age_stands_for_the_instant_at_which_it_was_accepted(
    client: "redis.Redis", ages: list[tuple[int, int]], window_ms: int
) -> None:
    scripted, limit = Scripted(client), RateLimit(maximum=50, window_ms=window_ms)
    window = SlidingWindow(50, window_ms)
    for age, amount in sorted(ages, reverse=True):
        window.add(NOW - age, amount)
    said = scripted.run(NOW, limit, 0, "", *(number for pair in ages for number in pair))
    assert said[1] == window.remaining(NOW)
    assert said[3] == window.reset_after(NOW)
    assert scripted.run(NOW, limit, 50) == [
        window.take(NOW, 50),
        window.remaining(NOW),
        window.retry_after(NOW, 50),
        window.reset_after(NOW),
    ]


def test_what_is_told_by_a_clock_that_fell_back_counts_in_full(client: "redis.Redis") -> None:
    scripted, limit, edge = (
        Scripted(client),
        RateLimit(maximum=9, window_ms=64_000),
        NOW - NOW % 64_000,
    )
    assert scripted.run(edge, limit, 1)[1] == 8
    assert scripted.run(edge - 10, limit, 0, "", 0, 5)[1] == 3
    assert scripted.run(edge + 64_000, limit, 1)[1] == 2


def test_the_largest_numbers_are_counted(client: "redis.Redis") -> None:
    scripted = Scripted(client)
    limit = RateLimit(maximum=MAX_AMOUNT, window_ms=MAX_AMOUNT)
    assert scripted.run(NOW, limit, MAX_AMOUNT - 1)[:2] == [1, 1]
    assert scripted.run(NOW, limit, 1)[:2] == [1, 0]
    assert scripted.run(NOW, limit, 1)[:2] == [0, 0]


def test_a_refusal_leaves_nothing_behind(client: "redis.Redis") -> None:
    scripted = Scripted(client)
    none = RateLimit(maximum=0, window_ms=60_000)
    assert scripted.run(NOW, none, 1) == [0, 0, 60_000, 0]
    assert scripted.fields() == 0


# --- through the client -----------------------------------------------------------------------


def wall() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a round trip may take its time."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 10)


@pytest.fixture
async def windows(redis_url: str) -> AsyncIterator[RedisWindows]:
    windows = RedisWindows(redis_url, "d1", wall)
    yield windows
    await windows.close()


async def test_many_at_once_get_exactly_the_maximum(windows: RedisWindows) -> None:
    taken = await asyncio.gather(*(windows.take("k", LIMIT, 1) for _ in range(500)))
    assert sum(take.accepted for take in taken) == 10
    refused = [take for take in taken if not take.accepted]
    assert {take.remaining for take in refused} == {0}
    assert all(59_000 < take.retry_after_ms <= 61_000 for take in refused)


async def test_four_clients_share_one_window(redis_url: str) -> None:
    several = [RedisWindows(redis_url, "d1", wall) for _ in range(4)]
    taken = await asyncio.gather(
        *(windows.take("k", LIMIT, 1) for windows in several for _ in range(100))
    )
    assert sum(take.accepted for take in taken) == 10
    for windows in several:
        await windows.close()


_HAMMER = """
import asyncio, sys, time
from keybearer.adapters.redis import windows
from keybearer.domain.model import RateLimit

async def main(url, times, maximum):
    windows.PATIENCE_SECONDS = 10
    shared = windows.RedisWindows(url, "d1", lambda: time.time_ns() // 1_000_000)
    limit = RateLimit(maximum=maximum, window_ms=600_000)
    taken = await asyncio.gather(*(shared.take("k", limit, 1) for _ in range(times)))
    await shared.close()
    print(sum(take.accepted for take in taken))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


async def test_four_processes_share_one_window(redis_url: str) -> None:
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _HAMMER, redis_url, "300", "1000"),
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    said = [(await process.communicate())[0] for process in running]
    assert sum(int(accepted) for accepted in said) == 1000


async def test_keys_and_databases_have_windows_of_their_own(
    redis_url: str, windows: RedisWindows
) -> None:
    full = RateLimit(maximum=1, window_ms=60_000)
    elsewhere = RedisWindows(redis_url, "d2", wall)
    assert (await windows.take("k", full, 1)).accepted
    assert not (await windows.take("k", full, 1)).accepted
    assert (await windows.take("other", full, 1)).accepted
    assert (await elsewhere.take("k", full, 1)).accepted
    await elsewhere.close()


async def test_what_is_given_back_can_be_taken_again(windows: RedisWindows) -> None:
    taken = await windows.take("k", LIMIT, 10)
    await windows.give_back("k", LIMIT, 4, taken.at)
    assert not (await windows.take("k", LIMIT, 5)).accepted
    assert (await windows.take("k", LIMIT, 4)).accepted


async def test_a_window_vanishes_from_redis_when_nothing_of_it_counts(
    windows: RedisWindows, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert (await windows.take("k", RateLimit(maximum=9, window_ms=60_000), 1)).accepted
        assert 59_000 < cast("int", client.pttl("keybearer:d1:limit:{k}")) <= 61_000
        await windows.take("brief", RateLimit(maximum=9, window_ms=1), 1)
        await asyncio.sleep(0.01)
        assert client.exists("keybearer:d1:limit:{brief}") == 0


async def test_a_cluster_spreads_the_windows(cluster_url: str) -> None:
    windows = RedisWindows(cluster_url, "d1", wall)
    assert cast("Any", await windows.check()).nodes == 3
    taken = await asyncio.gather(
        *(windows.take(f"k{number % 20}", LIMIT, 1) for number in range(400))
    )
    assert sum(take.accepted for take in taken) == 200
    await windows.close()


async def test_what_a_sentinel_watches_counts() -> None:
    with run_redis_sentinel() as url:
        windows = RedisWindows(url, "d1", wall)
        taken = [await windows.take("k", LIMIT, 4) for _ in range(3)]
        assert [take.accepted for take in taken] == [True, True, False]
        await windows.close()


async def test_a_restart_is_known_before_the_first_answer_after_it() -> None:
    with own_redis() as server:
        windows = RedisWindows(server.url, "d1", wall)
        await windows.take("k", LIMIT, 1)
        assert windows.forgot_at == 0
        server.kill()
        with pytest.raises(Unavailable, match="Redis counts no limits"):
            await windows.take("k", LIMIT, 1)
        server.start()
        # The script is unknown there, too.
        assert (await windows.take("k", LIMIT, 1)).remaining == 9
        assert wall() - 10_000 < windows.forgot_at <= wall()
        await windows.close()


async def test_who_never_knew_the_redis_before_knows_of_no_restart(windows: RedisWindows) -> None:
    await windows.check()
    assert windows.forgot_at == 0


async def test_an_evicting_redis_is_refused() -> None:
    with run_redis("--maxmemory-policy", "allkeys-lru") as url:
        windows = RedisWindows(url, "d1", wall)
        with pytest.raises(Misuse, match="set its maxmemory-policy to noeviction"):
            await windows.check()
        await windows.close()


async def test_a_full_redis_is_unavailable() -> None:
    with run_redis("--maxmemory", "1") as url:
        windows = RedisWindows(url, "d1", wall)
        with pytest.raises(Unavailable, match="OutOfMemory"):
            await windows.check()
        await windows.close()


async def test_whoever_asks_and_leaves_disturbs_nobody(windows: RedisWindows) -> None:
    leaving = asyncio.create_task(windows.take("k", LIMIT, 1))
    staying = asyncio.create_task(windows.take("k", LIMIT, 1))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).accepted
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_redis_that_stands_still_holds_two_connections_at_the_most() -> None:
    with own_redis() as server, redis.Redis.from_url(server.url) as client:
        windows = RedisWindows(server.url, "d1", wall)
        await windows.check()
        before = connections(client)
        server.pause()
        waiting = []
        for _ in range(200):  # in as many turns of the loop
            waiting.append(asyncio.create_task(windows.take("k", LIMIT, 1)))
            await asyncio.sleep(0)
        server.go_on()
        taken = await asyncio.gather(*waiting)
        assert sum(each.accepted for each in taken) == LIMIT.maximum
        assert connections(client) - before <= module.FLIGHTS
        await windows.close()


def connections(client: "redis.Redis") -> int:
    """How many were ever made."""
    return int(cast("dict[str, int]", client.info("stats"))["total_connections_received"])


async def test_who_waits_for_a_lost_redis_does_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with own_redis() as server:
        windows = RedisWindows(server.url, "d1", wall)
        await windows.check()
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.25)
        trips: list[int] = []
        run = windows._run

        async def counted(command: str, script: str, calls: list[Any]) -> list[object]:
            trips.append(len(calls))
            return await run(command, script, calls)

        monkeypatch.setattr(windows, "_run", counted)
        server.pause()
        waiting = []
        for _ in range(20):
            waiting.append(asyncio.create_task(windows.take("k", LIMIT, 1)))
            await asyncio.sleep(0)
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in told)
        assert len(trips) <= module.FLIGHTS
        assert sum(trips) < len(waiting)
        await windows.close()


async def test_who_still_waits_when_it_ends_is_told() -> None:
    with own_redis() as server:
        windows = RedisWindows(server.url, "d1", wall)
        await windows.check()
        server.pause()
        waiting = asyncio.create_task(windows.take("k", LIMIT, 1))
        await asyncio.sleep(0.02)
        await windows.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, timeout=5)
