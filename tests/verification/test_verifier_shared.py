"""The check of one process where all processes count limits together."""

import asyncio

import pytest

from keybearer.domain.model import RateLimit, Refusal, Session
from keybearer.verification import shared as module
from keybearer.verification.limiter import Limiter
from keybearer.verification.shared import SharedLimiter
from tests.people import StandingClock
from tests.verification.lines import Line, Server
from tests.verification.parts import Bench, bearer

LIMIT = RateLimit(maximum=2, window_ms=64_000)


class Shared:
    """A bench whose limits are shared, and its line."""

    def __init__(self) -> None:
        clock = StandingClock()
        self.line = Line(Server(clock))
        self.limiter = SharedLimiter(Limiter(), self.line, lambda: 2, clock)
        self.bench = Bench(shared=self.limiter)

    async def start(self) -> Bench:
        await self.limiter.start()
        await self.bench.lease.hold()
        return self.bench


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 3600)


async def test_a_check_is_one_round_trip_and_refused_above_the_limit() -> None:
    shared = Shared()
    bench = await shared.start()
    key = bench.add(limit=LIMIT)
    assert [await bench.code(key) for _ in range(3)] == ["ok", "ok", "RATE_LIMITED"]
    assert shared.line.calls == ["check", "take", "take", "take"]
    refusal = await bench.check(key)
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.id, refusal.retry_after_ms) == (LIMIT, "k1", 65_000)
    await bench.flush()
    assert bench.counted() == {"accepted": 2, "RATE_LIMITED": 2}


async def test_the_warm_check_leaves_limits_to_redis_and_answers_all_else() -> None:
    shared = Shared()
    bench = await shared.start()
    limited, free = bench.add(limit=LIMIT), bench.add(id="k2")
    for key in (limited, free):
        assert await bench.code(key) == "ok"
    calls = [*shared.line.calls]
    assert bench.verifier.warm(bearer(limited), None) is None
    assert isinstance(bench.verifier.warm(bearer(limited), None, charge=False), Session)
    refused = bench.verifier.warm(bearer(limited), None, accept=frozenset({"session"}))
    assert isinstance(refused, Refusal)
    assert isinstance(bench.verifier.warm(bearer(free), None), Session)
    assert shared.line.calls == calls


async def test_what_costs_nothing_asks_nobody() -> None:
    shared = Shared()
    bench = await shared.start()
    key = bench.add(limit=LIMIT)
    assert await bench.code(key, charge=0) == "ok"
    assert shared.line.calls == ["check"]


async def test_what_the_quota_refuses_is_given_back_to_the_shared_limit() -> None:
    shared = Shared()
    bench = await shared.start()
    key = bench.add(limit=LIMIT, metered=True)
    bench.quotas.left["k1"] = 1
    assert [await bench.code(key) for _ in range(5)] == ["ok", *["USAGE_EXCEEDED"] * 4]
    bench.quotas.left["k1"] = 9
    assert [await bench.code(key) for _ in range(2)] == ["ok", "RATE_LIMITED"]
    assert bench.quotas.left["k1"] == 8


async def test_without_redis_the_share_is_left() -> None:
    shared = Shared()
    bench = await shared.start()
    key = bench.add(limit=LIMIT)
    shared.line.cut = True
    assert [await bench.code(key) for _ in range(3)] == ["ok", *["RATE_LIMITED"] * 2]
    await shared.limiter.stop()


async def test_parallel_requests_get_exactly_the_limit() -> None:
    shared = Shared()
    bench = await shared.start()
    key = bench.add(limit=LIMIT)
    codes = await asyncio.gather(*(bench.code(key) for _ in range(50)))
    assert codes.count("ok") == 2
