"""The units of one process: taken in chunks, never spent twice, given back."""

import asyncio
from typing import Any

import pytest

from keybearer.domain.errors import Unavailable
from keybearer.domain.limits import CHUNK_MAX, CHUNK_SHARE
from keybearer.domain.model import RateLimit, Session
from keybearer.domain.uses import Unspent
from keybearer.verification.coherence import LEASE_MS
from keybearer.verification.quota import BUSY_MS, CHUNK_LIFE_MS, Left
from tests.verification.parts import START, Bench, bearer, grant

KEY = grant(metered=True)
IP = "203.0.113.7"


async def bench_with(left: int) -> Bench:
    """A process that holds its lease."""
    bench = Bench()
    bench.quotas.left["k1"] = left
    await bench.lease.renew()
    return bench


async def take(bench: Bench, cost: int = 1) -> int | None:
    left = await bench.verifier.quota.take(KEY, cost)
    return None if left is None else left.remaining


async def busy(bench: Bench, units: int) -> None:
    """Takes until the process has at least so many units in its chunk."""
    for _ in range(100_000):
        if bench.verifier.quota.has("k1", bench.clock.now(), units):
            return
        await take(bench)
    raise AssertionError("no chunk grew")


def unspent(bench: Bench) -> int:
    """How many units the process has, by asking for ever less."""
    now = bench.clock.now()
    return next(n for n in range(CHUNK_MAX, -1, -1) if bench.verifier.quota.has("k1", now, n))


def statements(bench: Bench) -> int:
    return len(bench.quotas.taken)


async def in_flight(bench: Bench, *costs: int) -> list["asyncio.Task[int | None]"]:
    """Requests that have asked, each in its turn, and wait for the database."""
    tasks = [asyncio.create_task(take(bench, cost)) for cost in costs]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


# --- how much is taken ----------------------------------------------------------------------------


@pytest.mark.parametrize("left", [1, CHUNK_SHARE - 1, CHUNK_SHARE])
async def test_a_small_quota_is_taken_one_by_one_and_told_exactly(left: int) -> None:
    bench = await bench_with(left)
    told = [await take(bench) for _ in range(left + 2)]
    assert told == [*range(left - 1, -1, -1), None, None]
    assert {ahead for _, _, ahead in bench.quotas.taken} == {0}


async def test_a_busy_key_takes_more_with_each_time_up_to_its_share() -> None:
    bench = await bench_with(100_000)
    for _ in range(300):
        await take(bench)
    aheads = [ahead for _, _, ahead in bench.quotas.taken]
    assert aheads[:7] == [0, 1, 2, 4, 8, 16, 32]
    assert aheads[7] == 64
    assert max(aheads) <= 100_000 // CHUNK_SHARE
    assert statements(bench) < 12
    assert bench.quotas.left["k1"] + unspent(bench) == 100_000 - 300


async def test_a_chunk_is_never_larger_than_its_maximum() -> None:
    bench = await bench_with(10**12)
    for _ in range(60_000):
        await take(bench)
    aheads = [ahead for _, _, ahead in bench.quotas.taken]
    assert max(aheads) == CHUNK_MAX


async def test_a_key_that_is_used_seldom_takes_one_by_one() -> None:
    bench = await bench_with(10**9)
    for n in range(1, 6):
        assert await take(bench) == 10**9 - n
        bench.clock.advance(BUSY_MS)
        await bench.lease.renew()
    assert {ahead for _, _, ahead in bench.quotas.taken} == {0}


async def test_what_is_left_is_the_number_in_the_database_and_the_own_units() -> None:
    bench = await bench_with(50_000)
    assert [await take(bench) for _ in range(20)] == list(range(49_999, 49_979, -1))
    bench.quotas.left["k1"] -= 7_000  # by others: it shows with the next statement
    await busy(bench, 30)
    left = await take(bench)
    assert left == bench.quotas.left["k1"] + unspent(bench)


async def test_a_cost_above_the_chunk_takes_what_is_missing() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had = unspent(bench)
    before = bench.quotas.left["k1"]
    await take(bench, had + 10)
    assert bench.quotas.taken[-1][:2] == ((had + 10,), had)
    assert bench.quotas.left["k1"] + unspent(bench) == before - 10


async def test_a_refused_request_changes_nothing() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    assert await take(bench, left + had + 1) is None
    assert (unspent(bench), bench.quotas.left["k1"]) == (had, left)
    assert await take(bench, left + had) == 0


# --- many at once ---------------------------------------------------------------------------------


async def test_who_comes_while_one_asks_shares_the_next_statement() -> None:
    bench = await bench_with(70)
    bench.quotas.gate = asyncio.Event()
    tasks = await in_flight(bench, *[1] * 200)
    bench.quotas.gate.set()
    told = await asyncio.gather(*tasks)
    assert told == [*range(69, -1, -1), *[None] * 130]
    assert [len(costs) for costs, _, _ in bench.quotas.taken] == [200]
    assert bench.quotas.left["k1"] == 0


async def test_who_comes_later_is_not_served_before_and_finds_what_was_left_over() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 30)
    had = unspent(bench)
    bench.quotas.gate = asyncio.Event()
    first = await in_flight(bench, had + 1)
    later = await in_flight(bench, 1, 2)
    assert not bench.verifier.quota.has("k1", START)  # the one before counts on it
    bench.quotas.gate.set()
    before = statements(bench)
    assert None not in await asyncio.gather(*first, *later)
    assert statements(bench) == before  # the chunk that came with the first has enough


async def test_each_is_met_whole_or_not_at_all_in_the_order_they_came() -> None:
    bench = await bench_with(10)
    assert await asyncio.gather(*(take(bench, cost) for cost in (4, 7, 5, 2, 1))) == [
        6, None, 1, None, 0,
    ]  # fmt: skip


async def test_who_goes_away_spends_nothing() -> None:
    bench = await bench_with(5)
    bench.quotas.gate = asyncio.Event()
    gone, stays = await in_flight(bench, 3, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    bench.quotas.gate.set()
    assert await stays == 4
    assert unspent(bench) == 3
    assert await take(bench) == 3
    assert statements(bench) == 1


async def test_a_statement_is_not_made_for_those_who_have_all_gone() -> None:
    bench = await bench_with(5)
    bench.quotas.gate = asyncio.Event()
    (first,) = await in_flight(bench, 1)
    (gone,) = await in_flight(bench, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    bench.quotas.gate.set()
    assert await first == 4
    await asyncio.sleep(0)
    assert statements(bench) == 1


async def test_a_lost_database_is_unavailable_for_all_who_wait_and_takes_no_chunk_along() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had = unspent(bench)
    bench.quotas.lost = True
    ended = await asyncio.gather(*(take(bench, had + n) for n in (1, 2)), return_exceptions=True)
    assert [type(each) for each in ended] == [Unavailable] * 2
    bench.quotas.lost = False
    assert unspent(bench) == had
    assert await take(bench, had) is not None


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keybearer.verification.quota.PATIENCE_SECONDS", 0.01)
    bench = await bench_with(5)
    bench.quotas.gate = asyncio.Event()
    with pytest.raises(Unavailable, match="in time"):
        await take(bench, 2)
    bench.quotas.gate.set()
    assert await take(bench) == 4  # of the two that came after all
    assert (statements(bench), bench.quotas.left["k1"]) == (1, 3)


async def test_who_went_away_hears_of_no_loss() -> None:
    bench = await bench_with(5)
    bench.quotas.gate = asyncio.Event()
    gone, stays = await in_flight(bench, 1, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    bench.quotas.lost = True
    bench.quotas.gate.set()
    with pytest.raises(Unavailable, match="lost"):
        await stays


# --- when a chunk is void -------------------------------------------------------------------------


async def test_without_the_lease_nothing_is_spent_of_a_chunk_nor_taken_ahead() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.lease.until = bench.clock.now()
    assert not bench.verifier.quota.has("k1", bench.clock.now())
    assert await take(bench) == left - 1 + had
    assert bench.quotas.taken[-1] == ((1,), 0, 0)
    await bench.lease.renew()
    assert unspent(bench) == had


@pytest.mark.parametrize("tags", [("key:k1",), ("owner:ann",), None])
async def test_a_touched_key_spends_nothing_of_its_chunk(tags: tuple[str, ...] | None) -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.cache.invalidate(["key:k2", "owner:bob"])
    assert unspent(bench) == had
    if tags is None:
        bench.cache.clear()
    else:
        bench.cache.invalidate(tags)
    assert not bench.verifier.quota.has("k1", bench.clock.now())
    await bench.verifier.quota.give_back_old()
    assert bench.quotas.back == [Unspent(key_id="k1", version=0, units=had)]
    assert bench.quotas.left["k1"] == left + had


async def test_the_next_request_of_a_touched_key_asks_the_database() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.cache.invalidate(["key:k1"])
    assert await take(bench) == left - 1
    assert bench.quotas.taken[-1] == ((1,), 0, 1)
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == left + had - 1


async def test_units_that_arrive_after_the_key_was_touched_are_void_but_for_who_had_asked() -> None:
    bench = await bench_with(50_000)
    await take(bench)
    bench.quotas.gate = asyncio.Event()
    (asked,) = await in_flight(bench, 5)
    bench.cache.invalidate(["key:k1"])
    bench.quotas.gate.set()
    assert await asked == 49_999 - 5
    assert not bench.verifier.quota.has("k1", bench.clock.now())
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == 49_999 - 5


async def test_units_of_a_number_that_was_set_anew_are_void() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    bench.quotas.version, bench.quotas.left["k1"] = 1, 3
    bench.cache.invalidate(["key:k1"])
    assert [await take(bench) for _ in range(4)] == [2, 1, 0, None]
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == 0


async def test_who_counted_on_units_of_another_number_asks_again() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had = unspent(bench)
    bench.clock.advance(BUSY_MS)  # so that it takes nothing ahead
    bench.quotas.gate = asyncio.Event()
    (asked,) = await in_flight(bench, had + 2)
    # Another node's change is committed, and this one has not heard of it.
    bench.quotas.version, bench.quotas.left["k1"] = 1, 60_000
    bench.quotas.gate.set()
    assert await asked == 60_000 - had - 2
    assert [own for _, own, _ in bench.quotas.taken[-2:]] == [had, 2]
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == 60_000 - had - 2


async def test_a_chunk_ends_with_the_refill() -> None:
    bench = await bench_with(50_000)
    bench.quotas.refill_at = START + 1_000
    await busy(bench, 4)
    had = unspent(bench)
    bench.clock.advance(999)
    assert unspent(bench) == had
    bench.clock.advance(1)
    assert not bench.verifier.quota.has("k1", bench.clock.now())
    bench.quotas.version, bench.quotas.left["k1"], bench.quotas.refill_at = 1, 70_000, START + 2_000
    assert await take(bench) == 69_999
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == 69_999


# --- what goes back -------------------------------------------------------------------------------


async def test_what_was_not_spent_in_time_goes_back() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.clock.advance(CHUNK_LIFE_MS - 1)
    await bench.verifier.quota.give_back_old()
    assert (bench.quotas.left["k1"], len(bench.verifier.quota)) == (left, 1)
    bench.clock.advance(1)
    await bench.verifier.quota.give_back_old()
    assert (bench.quotas.left["k1"], len(bench.verifier.quota)) == (left + had, 0)
    assert await take(bench) == left + had - 1


async def test_a_chunk_that_others_wait_for_stays() -> None:
    bench = await bench_with(50_000)
    bench.quotas.gate = asyncio.Event()
    (asked,) = await in_flight(bench, 1)
    bench.clock.advance(CHUNK_LIFE_MS)
    await bench.verifier.quota.give_back_old()
    assert len(bench.verifier.quota) == 1
    bench.quotas.gate.set()
    assert await asked == 49_999


async def test_one_key_s_units_go_back_or_an_owner_s_or_all() -> None:
    bench = await bench_with(50_000)
    keys = {id: grant(id=id, metered=True) for id in ("k2", "k3", "k4")}
    others = {id: keys[id] for id in ("k2", "k3")}
    bob = grant(id="k4", metered=True, subject="bob")
    for id in keys:
        bench.quotas.left[id] = 50_000
    quota = bench.verifier.quota

    async def give_back(**which: Any) -> list[str]:
        for each in (*others.values(), bob):
            for _ in range(8):
                await quota.take(each, 1)
        bench.quotas.back.clear()
        await quota.give_back(**which)
        return [each.key_id for each in bench.quotas.back]

    assert await give_back(id="k2") == ["k2"]
    assert await give_back(id="k9") == []
    assert await give_back(owner_id="ann") == ["k2", "k3"]
    assert await give_back() == ["k2", "k3", "k4"]
    assert await give_back(id="k4") == ["k4"]


async def test_what_was_perhaps_given_back_is_not_given_back_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.quotas.lost = True
    with pytest.raises(Unavailable):
        await bench.verifier.quota.give_back()
    assert [(each.message, each.__dict__["units"]) for each in caplog.records] == [
        ("quota.lost", had)
    ]
    bench.quotas.lost = False
    await bench.verifier.quota.give_back()
    assert bench.quotas.left["k1"] == left
    assert await take(bench) == left - 1


async def test_where_nothing_is_unspent_nobody_is_asked() -> None:
    bench = await bench_with(50)
    assert await take(bench) == 49  # one by one: nothing is ahead
    bench.quotas.lost = True
    await bench.verifier.quota.give_back()
    await bench.verifier.quota.give_back_old()
    assert bench.quotas.back == []


async def test_who_asks_for_exactly_what_was_left_over_gets_it() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 30)
    had = unspent(bench)
    bench.quotas.gate = asyncio.Event()
    (first,) = await in_flight(bench, had + 1)
    left, ahead = bench.quotas.left["k1"], bench.quotas.taken[-1][2]
    (later,) = await in_flight(bench, ahead)
    bench.quotas.gate.set()
    assert await first == left - 1
    assert await later == left - 1 - ahead
    assert len(bench.quotas.taken[-1][0]) == 1
    assert bench.quotas.taken[-1][0] == (had + 1,)


async def test_whoever_reads_waits_for_what_is_on_its_way_back() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    had, left = unspent(bench), bench.quotas.left["k1"]
    bench.quotas.gate = asyncio.Event()
    giving = asyncio.create_task(bench.verifier.quota.give_back())
    await asyncio.sleep(0)
    reading = asyncio.create_task(bench.verifier.quota.give_back("k1"))
    await asyncio.sleep(0)
    assert not reading.done()
    bench.quotas.gate.set()
    await asyncio.gather(giving, reading)
    assert bench.quotas.left["k1"] == left + had


async def test_at_the_end_all_goes_back_once_nothing_is_on_its_way() -> None:
    bench = await bench_with(50_000)
    await busy(bench, 4)
    before = bench.quotas.left["k1"] + unspent(bench)
    bench.quotas.gate = asyncio.Event()
    (asked,) = await in_flight(bench, 100)
    bench.lease.end()
    ending = asyncio.create_task(bench.verifier.quota.end())
    await asyncio.sleep(0)
    bench.quotas.gate.set()
    assert await asked is not None
    await ending
    assert bench.quotas.left["k1"] == before - 100
    await bench.verifier.quota.end()
    assert bench.quotas.left["k1"] == before - 100


# --- in the check ---------------------------------------------------------------------------------


async def test_a_warm_check_spends_of_the_chunk_and_else_leaves_it_to_the_whole_check() -> None:
    bench = await bench_with(50_000)
    key = bench.add(metered=True, limit=RateLimit(maximum=1000, window_ms=60_000))
    for _ in range(8):
        assert await bench.code(key) == "ok"
    had = unspent(bench)
    assert had > 0
    for _ in range(had):
        assert isinstance(bench.verifier.warm(bearer(key), IP), Session)
    assert bench.verifier.warm(bearer(key), IP) is None
    assert isinstance(bench.verifier.warm(bearer(key), IP, charge=False), Session)
    await bench.flush()
    assert bench.counted() == {"accepted": 8 + had}
    assert bench.quotas.left["k1"] == 50_000 - 8 - had


async def test_what_the_limit_refuses_warm_is_not_spent() -> None:
    bench = await bench_with(50_000)
    key = bench.add(metered=True, limit=RateLimit(maximum=8, window_ms=60_000))
    for _ in range(8):
        assert await bench.code(key) == "ok"
    had = unspent(bench)
    assert had > 0
    refused = bench.verifier.warm(bearer(key), IP)
    assert not isinstance(refused, Session | None)
    assert unspent(bench) == had


async def test_the_record_tells_what_is_left_of_this_very_check() -> None:
    bench = await bench_with(50_000)
    bench.quotas.refilled_at = START - 5
    left = await bench.verifier.quota.take(KEY, 3)
    assert left == Left(remaining=49_997, refilled_at=START - 5)


async def test_a_lease_that_ends_while_a_check_waits_leaves_the_chunk_alone() -> None:
    bench = await bench_with(50_000)
    key = bench.add(metered=True)
    for _ in range(8):
        assert await bench.code(key) == "ok"
    bench.clock.advance(LEASE_MS)
    had = statements(bench)
    assert bench.verifier.warm(bearer(key), IP) is None
    bench.cache._entries.clear()  # as the oldest leave it
    bench.rows.gate = asyncio.Event()
    checking = asyncio.create_task(bench.code(key))
    for _ in range(5):
        await asyncio.sleep(0)
    bench.clock.advance(LEASE_MS)  # the grant was read under the lease; now it is over
    bench.rows.gate.set()
    assert await checking == "ok"
    assert statements(bench) == had + 1
