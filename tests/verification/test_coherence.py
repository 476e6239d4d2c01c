"""Leases, and changes that wait until nobody answers by the old."""

import asyncio
from typing import Any, cast

import pytest

from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Transaction
from keybearer.verification import patience
from keybearer.verification.cache import Cache, Entry
from keybearer.verification.coherence import (
    LEASE_MS,
    Lease,
    Receipt,
    Serving,
    Visiting,
)
from tests.people import START, StandingClock
from tests.verification.parts import grant


class Epoch:
    """The row of the database: read slowly when a gate stands, or lost."""

    def __init__(self) -> None:
        self.value = 1
        self.reads = 0
        self.lost = False
        self.gates: list[asyncio.Event] = []

    async def read(self) -> int:
        self.reads += 1
        value = self.value
        if self.gates:
            await self.gates.pop(0).wait()
        if self.lost:
            raise Unavailable("lost")
        return value


class Scene:
    def __init__(self) -> None:
        self.clock, self.cache, self.epoch = StandingClock(), Cache(10), Epoch()
        self.lease = Lease(self.cache, self.clock, self.epoch.read)

    def keep(self, digest: bytes = b"a", tag: str = "key:1") -> None:
        nothing = cast(Any, None)
        self.cache.put(
            digest,
            Entry(grant(tags=(tag,)), nothing, nothing, fresh_until=0),
            begun=self.cache.generation,
        )


async def test_a_lease_holds_two_seconds_from_before_the_read() -> None:
    scene = Scene()
    scene.epoch.gates = [gate := asyncio.Event()]
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    scene.clock.advance(700)
    gate.set()
    await holding
    assert scene.lease.until == START + LEASE_MS


async def test_a_held_lease_is_not_renewed() -> None:
    scene = Scene()
    await scene.lease.hold()
    scene.clock.advance(LEASE_MS - 1)
    await scene.lease.hold()
    assert scene.epoch.reads == 1
    scene.clock.advance(1)
    await scene.lease.hold()
    assert scene.epoch.reads == 2


async def test_whoever_comes_during_a_renewal_waits_for_the_same() -> None:
    scene = Scene()
    scene.epoch.gates = [gate := asyncio.Event()]
    waiting = [asyncio.create_task(scene.lease.hold()) for _ in range(20)]
    await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*waiting)
    assert scene.epoch.reads == 1


async def test_a_renewal_that_took_longer_than_the_lease_is_made_again() -> None:
    scene = Scene()
    scene.epoch.gates = [gate := asyncio.Event()]
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    scene.clock.advance(LEASE_MS)
    gate.set()
    await holding
    assert scene.epoch.reads == 2
    assert scene.lease.until == START + 2 * LEASE_MS


async def test_a_database_that_hangs_is_waited_for_once_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    scene = Scene()
    scene.epoch.gates = [gate := asyncio.Event()]
    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer"):
            await scene.lease.hold()
    assert scene.epoch.reads == 1  # the renewal goes on, and nobody begins another beside it
    assert scene.lease.until == 0
    gate.set()
    await asyncio.sleep(0.01)
    await scene.lease.hold()
    assert scene.epoch.reads == 1


async def test_who_comes_late_to_a_renewal_that_hangs_is_told_at_once() -> None:
    scene = Scene()
    scene.epoch.gates = [asyncio.Event()]
    renewing = asyncio.create_task(scene.lease.renew())
    await asyncio.sleep(0.001)
    scene.lease._patient_until = 0.0  # as if it had begun long ago
    with pytest.raises(Unavailable, match="does not answer"):
        await scene.lease.hold()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)


async def test_the_same_epoch_keeps_the_cache_and_another_drops_it() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    await scene.lease.renew()
    assert len(scene.cache) == 1
    scene.epoch.value += 1
    await scene.lease.renew()
    assert len(scene.cache) == 0


async def test_a_lost_database_gives_no_lease_and_ends_none_that_is_held() -> None:
    scene = Scene()
    await scene.lease.hold()
    scene.epoch.lost = True
    with pytest.raises(Unavailable):
        await scene.lease.renew()
    await scene.lease.hold()
    scene.clock.advance(LEASE_MS)
    with pytest.raises(Unavailable):
        await scene.lease.hold()
    scene.epoch.lost = False
    await scene.lease.hold()


async def test_who_goes_away_leaves_the_renewal_to_the_others() -> None:
    scene = Scene()
    scene.epoch.gates = [gate := asyncio.Event()]
    first, second = (asyncio.create_task(scene.lease.hold()) for _ in range(2))
    await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await second
    assert scene.epoch.reads == 1


async def test_a_failed_renewal_that_nobody_waits_for_makes_no_warning() -> None:
    scene = Scene()
    scene.epoch.gates, scene.epoch.lost = [gate := asyncio.Event()], True
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    gate.set()
    await asyncio.sleep(0.01)
    scene.epoch.lost = False
    await scene.lease.hold()


async def test_a_cancelled_renewal_is_made_again() -> None:
    scene = Scene()
    scene.epoch.gates = [asyncio.Event()]
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    assert scene.lease._renewal is not None
    scene.lease._renewal.cancel()  # as a closing event loop does
    await asyncio.gather(holding, return_exceptions=True)
    await scene.lease.hold()
    assert scene.epoch.reads == 2


async def test_an_ended_lease_is_never_held_again() -> None:
    scene = Scene()
    await scene.lease.hold()
    scene.epoch.gates = [gate := asyncio.Event()]
    under_way = asyncio.create_task(scene.lease.renew())
    await asyncio.sleep(0.001)
    scene.lease.end()
    assert scene.lease.until == 0
    gate.set()
    await under_way
    assert scene.lease.until == 0
    for way in (scene.lease.hold, scene.lease.renew):
        with pytest.raises(Unavailable, match="stopped"):
            await way()


# --- changes --------------------------------------------------------------------------------


def serving_of(
    scene: Scene, asked: list[Transaction], slept: list[float], *, early: bool = False
) -> Serving:
    async def ensure(tx: Transaction) -> None:
        asked.append(tx)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        ms = round(seconds * 1000)
        scene.clock.advance(max(1, ms // 2) if early else ms)

    return Serving(scene.cache, scene.clock, ensure, sleep)


async def test_the_serving_process_drops_its_own_entries_and_waits_for_nobody() -> None:
    scene = Scene()
    scene.keep(b"a", "key:1")
    scene.keep(b"b", "key:2")
    asked, slept = list[Transaction](), list[float]()
    serving = serving_of(scene, asked, slept)
    transaction = cast(Transaction, object())
    await serving.announce(transaction)
    assert asked == [transaction]
    assert await serving.settle(["key:1"]) == Receipt(nodes=1, waited_ms=0)
    assert scene.cache.get(b"a") is None
    assert scene.cache.get(b"b") is not None


@pytest.mark.parametrize("early", [False, True])
async def test_who_took_over_waits_until_the_old_lease_is_over(early: bool) -> None:
    scene, slept = Scene(), list[float]()
    serving = serving_of(scene, [], slept, early=early)
    scene.keep()
    serving.take_over(contested=True)
    assert len(scene.cache) == 0
    scene.clock.advance(500)
    receipt = await serving.settle(["key:1"])
    assert scene.clock.now() >= START + LEASE_MS
    assert receipt.waited_ms >= LEASE_MS - 500
    assert (len(slept) > 1) is early
    assert (await serving.settle(["key:1"])).waited_ms == 0


async def test_who_took_over_from_one_that_let_go_forgets_and_waits_for_nobody() -> None:
    scene, slept = Scene(), list[float]()
    serving = serving_of(scene, [], slept)
    scene.keep()
    serving.take_over(contested=False)
    assert len(scene.cache) == 0
    assert (await serving.settle(["key:1"])).waited_ms == 0
    assert slept == []


async def test_what_may_have_been_changed_is_forgotten() -> None:
    scene = Scene()
    scene.keep(b"a", "key:1")
    scene.keep(b"b", "key:2")
    visiting(scene, served=True, slept=[]).forget(["key:1"])
    assert len(scene.cache) == 2
    serving_of(scene, [], []).forget(["key:1"])
    assert scene.cache.get(b"a") is None
    assert scene.cache.get(b"b") is not None


def visiting(scene: Scene, *, served: bool, slept: list[float], early: bool = False) -> Visiting:
    async def bump(_tx: Transaction) -> None:
        scene.epoch.value += 1

    async def somebody_serves() -> bool:
        scene.clock.advance(300)  # looking takes time, too
        return served

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        ms = round(seconds * 1000)
        scene.clock.advance(max(1, ms // 2) if early else ms)

    return Visiting(scene.cache, scene.clock, bump, somebody_serves, sleep)


async def test_a_visitor_moves_the_epoch_and_waits_out_the_longest_lease() -> None:
    scene, slept = Scene(), list[float]()
    scene.keep()
    visitor = visiting(scene, served=True, slept=slept)
    await visitor.announce(cast(Transaction, None))
    assert scene.epoch.value == 2
    receipt = await visitor.settle(["key:1"])
    assert receipt.nodes == 1
    assert receipt.waited_ms >= LEASE_MS
    assert scene.clock.now() >= START + LEASE_MS
    assert len(slept) == 1
    assert len(scene.cache) == 0


async def test_a_sleep_that_ends_early_is_slept_on() -> None:
    scene, slept = Scene(), list[float]()
    receipt = await visiting(scene, served=True, slept=slept, early=True).settle(["key:1"])
    assert len(slept) > 1
    assert receipt.waited_ms >= LEASE_MS


async def test_nobody_serving_is_nobody_to_wait_for() -> None:
    scene, slept = Scene(), list[float]()
    receipt = await visiting(scene, served=False, slept=slept).settle(["key:1"])
    assert (receipt, slept) == (Receipt(nodes=0, waited_ms=0), [])
