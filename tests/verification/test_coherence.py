"""Leases on a log of changes, and receipts that wait until nobody goes by the old."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

import pytest

from keybearer.domain.changes import Change, Member, News
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Transaction
from keybearer.verification import lease, patience, spread
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, SLACK_MS, NoBus, Receipt
from keybearer.verification.lease import AnyLease, Lease, NoLease
from keybearer.verification.spread import Spread, _new_mark
from tests.people import START, StandingClock
from tests.verification.parts import MemoryLog, entry

ME = Member(id="me", lease_ms=LEASE_MS)
NO_TX = cast(Transaction, None)


class SlowLog(MemoryLog):
    """Each look at the news waits for the next gate, if one stands."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[asyncio.Event] = []

    async def news(self, node: str, after: int | None) -> News:
        found = await super().news(node, after)
        if self.gates:
            await self.gates.pop(0).wait()
        self._ask()
        return found


class Bus(NoBus):
    """Writes down what it is asked to carry."""

    def __init__(self) -> None:
        self.published: list[Change] = []
        self.acknowledged: list[int] = []

    async def publish(self, change: Change) -> None:
        self.published.append(change)

    def acknowledge(self, changes: Sequence[Change]) -> None:
        self.acknowledged += [change.seq for change in changes]


class Scene:
    """One node with everything around it in reach."""

    def __init__(self, *, stale_ms: int = 0, serving: bool = True) -> None:
        self.clock, self.cache, self.log, self.bus = StandingClock(), Cache(10), SlowLog(), Bus()
        me = Member(id="me", lease_ms=LEASE_MS + stale_ms)
        self.lease = Lease(
            cache=self.cache,
            clock=self.clock,
            log=self.log,
            bus=self.bus,
            me=me,
            still_ours=self.log.check,
        )
        self.told: list[Receipt] = []
        self.unlisted = False
        held: AnyLease = self.lease if serving else NoLease(self.cache)
        self.spread = Spread(
            cache=self.cache,
            clock=self.clock,
            log=self.log,
            bus=self.bus,
            lease=held,
            me=me,
            unlisted=self._unlisted,
            tell=self.told.append,
        )

    async def _unlisted(self) -> bool:
        return self.unlisted

    def keep(self, digest: bytes = b"a", tag: str = "key:1") -> None:
        self.cache.put(digest, entry(tag), begun=self.cache.generation)

    async def change(self, *tags: str) -> Change:
        return await self.spread.announce(NO_TX, tags)

    async def settling(self, change: Change) -> "asyncio.Task[Receipt]":
        """A receipt that is waited for, as far as it comes at once."""
        task = asyncio.create_task(self.spread.settle(change))
        await asyncio.wait([task], timeout=0.05)
        return task

    def pass_time(self, ms: int) -> None:
        """Moves the clock; the loop wakes whoever waits within a moment."""
        self.clock.advance(ms)
        for asked in self.spread._asked.values():
            asked.stirred.set()


async def turns() -> None:
    """As many as whatever is ready needs, on a slow machine too."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- the lease --------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("made", [0, 1, 2, 3])
async def test_a_log_that_went_back_drops_the_whole_cache(lost: int, made: int) -> None:
    scene = Scene()
    for _ in range(3):
        scene.log.change("key:9")
    await scene.lease.renew()
    scene.keep()
    await scene.lease.renew()
    assert len(scene.cache) == 1
    scene.log.lose(lost)
    for _ in range(made):
        scene.log.change("key:8")
    await scene.lease.renew()
    assert len(scene.cache) == 0
    scene.keep()
    scene.log.change("key:8")
    await scene.lease.renew()
    assert len(scene.cache) == 1


async def test_after_a_log_went_back_a_change_of_a_number_that_was_heard_is_acknowledged() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.lease.heard(scene.log.change("key:1"))
    await scene.lease.renew()
    scene.log.change("key:1")
    await scene.lease.renew()
    scene.lease.heard(Change(3, ("key:1",), "another"))  # and lost before it is read
    scene.log.lose(1)
    await scene.lease.renew()
    scene.log.change("key:2")
    scene.log.change("key:2")
    await scene.lease.renew()
    assert scene.bus.acknowledged == [2, 2, 3]


async def test_a_lease_holds_two_seconds_from_before_the_read() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.log.gates = [gate := asyncio.Event()]
    scene.clock.advance(LEASE_MS)
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    scene.clock.advance(700)
    gate.set()
    await holding
    assert scene.lease.until == START + 2 * LEASE_MS


def test_a_node_begins_without_a_lease_and_knows_of_no_change() -> None:
    scene = Scene()
    lease = scene.lease
    assert (lease.until, lease.stretched, lease.seq) == (0, False, 0)
    assert (scene.spread.nodes, scene.spread.suspected) == (1, 0)


async def test_a_node_is_a_member_before_its_first_lease() -> None:
    scene = Scene()
    await scene.lease.hold()
    assert (list(scene.log.nodes), scene.log.reads) == (["me"], 2)
    await scene.lease.hold()
    assert scene.log.reads == 2


async def test_whoever_comes_during_a_renewal_waits_for_the_same() -> None:
    scene = Scene()
    await scene.log.join(ME)
    scene.log.gates = [gate := asyncio.Event()]
    waiting = [asyncio.create_task(scene.lease.hold()) for _ in range(20)]
    await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*waiting)
    assert scene.log.reads == 1


async def test_a_renewal_that_took_longer_than_the_lease_is_made_again() -> None:
    scene = Scene()
    await scene.log.join(ME)
    scene.log.gates = [gate := asyncio.Event()]
    holding = asyncio.create_task(scene.lease.hold())
    await asyncio.sleep(0.001)
    scene.clock.advance(LEASE_MS)
    gate.set()
    await holding
    assert (scene.log.reads, scene.lease.until) == (2, START + 2 * LEASE_MS)


async def test_a_database_that_hangs_is_waited_for_once_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    scene = Scene()
    await scene.log.join(ME)
    scene.log.gates = [gate := asyncio.Event()]
    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer"):
            await scene.lease.hold()
    assert scene.log.reads == 1  # the renewal goes on, and nobody begins another beside it
    assert scene.lease.until == 0
    gate.set()
    await asyncio.sleep(0.01)
    await scene.lease.hold()
    assert scene.log.reads == 1


async def test_only_what_a_change_touched_is_dropped() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep(b"a", "key:1")
    scene.keep(b"b", "key:2")
    scene.log.change("key:1", "owner:x")
    await scene.lease.renew()
    assert (scene.cache.get(b"a"), scene.cache.get(b"b") is not None) == (None, True)
    assert scene.lease.seq == 1


@pytest.mark.parametrize("lost", ["the log's beginning", "what a backup had not"])
async def test_what_the_log_does_not_show_drops_everything(lost: str) -> None:
    scene = Scene()
    for _ in range(3):
        scene.log.change("key:9")
    await scene.lease.renew()
    scene.keep()
    if lost == "the log's beginning":
        scene.log.change("key:1")
        scene.log.change("key:9")
        del scene.log.changes[:4]
    else:
        scene.log.lose(1)
    await scene.lease.renew()
    assert (len(scene.cache), scene.lease.seq) == (0, scene.log.seq)


async def test_who_is_suspected_says_that_it_is_there_and_keeps_its_cache() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    await scene.log.suspect(["me"], 1)
    await scene.lease.renew()
    assert (scene.log.nodes["me"].suspicion, len(scene.cache)) == (None, 1)


async def test_who_was_forgotten_joins_anew_without_a_cache() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    await scene.log.suspect(["me"], 1)
    await scene.log.expel({"me": 1})
    await scene.lease.renew()
    assert (list(scene.log.nodes), len(scene.cache)) == (["me"], 0)


async def test_who_is_forgotten_while_it_says_that_it_is_there_joins_anew() -> None:
    class Late(SlowLog):
        async def readmit(self, node: str) -> bool:
            self.nodes.pop(node, None)
            return False

    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    await scene.log.suspect(["me"], 1)
    scene.lease._log = late = Late()
    late.nodes = scene.log.nodes
    await scene.lease.renew()
    assert (late.nodes["me"].suspicion, len(scene.cache)) == (None, 0)


async def test_what_the_bus_brings_is_dropped_at_once_and_is_not_known_by_that() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    change = scene.log.change("key:1")
    scene.lease.heard(change)
    assert (len(scene.cache), scene.lease.seq) == (0, 0)
    scene.lease.heard(scene.log.change("key:2"))
    await scene.lease.renew()
    assert (scene.lease.seq, scene.bus.acknowledged) == (2, [])
    assert scene.log.nodes["me"].applied == 0  # who has acknowledged need not write


@pytest.mark.parametrize("what", ["join", "readmit"])
async def test_a_write_that_hangs_before_the_lease_leaves_the_next_renewal_free(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    scene, gate = Scene(), asyncio.Event()
    if what == "readmit":
        await scene.log.join(ME)
        await scene.log.suspect(["me"], 1)
    write = getattr(scene.log, what)

    async def hang(asked: object) -> object:
        await gate.wait()
        return await write(asked)

    monkeypatch.setattr(scene.log, what, hang)
    for read in (1, 2):
        with pytest.raises(Unavailable, match="does not answer"):
            await scene.lease.hold()
        await asyncio.wait([scene.lease._renewal or asyncio.ensure_future(turns())])
        assert scene.log.reads == read
    assert scene.lease.until == 0
    gate.set()
    await turns()
    await scene.lease.hold()
    assert scene.log.nodes["me"].suspicion is None


class Noting(SlowLog):
    """Each note waits for the gate, if one stands; each is written down as it is begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.gate: asyncio.Event | None = None

    async def note(self, node: str, seq: int, mark: int | None) -> None:
        self.begun.append(seq)
        if self.gate is not None:
            await self.gate.wait()
        await super().note(node, seq, mark)


async def test_a_queue_of_writes_before_the_note_holds_up_no_renewal() -> None:
    scene = Scene()
    scene.log = scene.lease._log = log = Noting()
    await scene.lease.renew()
    log.gate = asyncio.Event()
    for number in range(3):
        log.change("key:1")
        scene.clock.advance(LEASE_MS)
        await asyncio.wait_for(scene.lease.renew(), 10)
        await turns()
        assert scene.lease.until == scene.clock.now() + LEASE_MS
        assert scene.lease.seq == number + 1
    assert (log.begun, log.nodes["me"].applied) == ([1], 0)  # one at a time
    log.gate.set()
    await turns()
    assert (log.begun, log.nodes["me"].applied) == ([1, 3], 3)


async def test_a_note_that_a_lost_database_did_not_take_is_made_with_the_next_renewal() -> None:
    scene = Scene()
    scene.log = scene.lease._log = log = Noting()
    await scene.lease.renew()
    log.change("key:1")
    log.gate = asyncio.Event()
    await scene.lease.renew()
    await turns()
    log.lost = True
    log.gate.set()
    await turns()
    log.lost = False
    assert (log.begun, log.nodes["me"].applied) == ([1], 0)
    await scene.lease.renew()
    await turns()
    assert (log.begun, log.nodes["me"].applied) == ([1, 1], 1)
    await scene.lease.renew()
    await turns()
    assert log.begun == [1, 1]


async def test_what_the_bus_lost_is_acknowledged_and_noted_when_the_log_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "_HEARD", 1)
    scene = Scene()
    await scene.lease.renew()
    lost, *heard = [scene.log.change(f"key:{n}") for n in range(3)]
    for change in heard:  # of more than it remembers, some are acknowledged twice
        scene.lease.heard(change)
    await scene.lease.renew()
    await turns()
    assert scene.bus.acknowledged == [lost.seq, heard[0].seq]
    assert scene.log.nodes["me"].applied == 3


async def test_what_the_bus_brings_before_the_log_is_remembered_until_the_log_shows_it() -> None:
    scene = Scene()
    await scene.lease.renew()
    early = Change(1, ("key:1",), "another")
    scene.lease.heard(early)
    await scene.lease.renew()
    assert scene.log.change(*early.tags) == early
    await scene.lease.renew()
    assert (scene.lease.seq, scene.bus.acknowledged, scene.lease._heard) == (1, [], set())


async def test_a_lost_database_gives_no_lease_and_ends_none_that_is_held() -> None:
    scene = Scene()
    await scene.lease.hold()
    scene.log.lost = True
    with pytest.raises(Unavailable):
        await scene.lease.renew()
    await scene.lease.hold()
    scene.clock.advance(LEASE_MS)
    with pytest.raises(Unavailable):
        await scene.lease.hold()
    scene.log.lost = False
    await scene.lease.hold()


async def test_what_is_declared_stretches_a_lease_until_the_database_is_back() -> None:
    scene = Scene(stale_ms=5_000)
    scene.log.lost = True
    with pytest.raises(Unavailable):
        await scene.lease.hold()  # nothing to stretch
    scene.log.lost = False
    await scene.lease.hold()
    scene.log.lost = True
    scene.clock.advance(LEASE_MS)
    await scene.lease.hold()
    assert (scene.lease.until, scene.lease.stretched) == (START + LEASE_MS + 5_000, True)
    scene.log.lost = False
    scene.clock.advance(1_000)
    await scene.lease.renew()
    assert (scene.lease.until, scene.lease.stretched) == (START + 3_000 + LEASE_MS, False)


async def test_nothing_stretches_the_lease_of_whoever_lost_its_place() -> None:
    scene = Scene(stale_ms=5_000)
    await scene.lease.hold()
    scene.log.taken = True
    scene.clock.advance(LEASE_MS)
    with pytest.raises(Unavailable, match="another process"):
        await scene.lease.hold()
    assert scene.lease.until <= scene.clock.now()


async def test_a_database_that_is_lost_between_the_questions_of_a_renewal_is_stretched_over() -> (
    None
):
    scene = Scene(stale_ms=5_000)
    await scene.lease.hold()
    scene.log.check_lost = True
    scene.clock.advance(LEASE_MS)
    await scene.lease.hold()
    assert (scene.lease.until, scene.lease.stretched) == (START + LEASE_MS + 5_000, True)


async def test_after_the_end_there_is_no_lease_whatever_is_under_way() -> None:
    scene = Scene(stale_ms=5_000)
    await scene.lease.renew()
    scene.log.gates = [gate := asyncio.Event()]
    renewing = asyncio.create_task(scene.lease.renew())
    await asyncio.sleep(0.001)
    scene.lease.end()
    gate.set()
    await renewing
    assert scene.lease.until == 0
    with pytest.raises(Unavailable, match="stopped"):
        await scene.lease.hold()
    scene.lease._stretch()
    assert scene.lease.until == 0


async def test_who_is_no_member_keeps_nothing_and_joins_no_read_of_before() -> None:
    cache = Cache(10)
    none = NoLease(cache)
    before = cache.generation
    await none.hold()
    await none.renew()
    none.heard(Change(1, ("key:1",), "x"))
    none.end()
    assert cache.generation == before + 1
    assert (none.until, none.stretched, none.seq) == (0, False, 0)


# --- receipts ---------------------------------------------------------------------------------


async def test_alone_a_change_waits_for_nobody() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    receipt = await scene.spread.settle(await scene.change("key:1"))
    assert receipt == Receipt(nodes=1, waited_ms=0)
    assert (len(scene.cache), scene.told, scene.spread.waiting) == (0, [receipt], 0)
    assert (scene.spread._suspecting, scene.spread.nodes_at_most) == (set(), 1)
    await scene.lease.renew()
    assert scene.bus.acknowledged == []  # nobody waits for our own word
    await NoBus().publish(Change(1, (), "me"))
    NoBus().acknowledge([])


async def test_alone_a_slow_bus_is_no_wait_for_others_and_one_that_hangs_is_left() -> None:
    class Slow(Bus):
        async def publish(self, change: Change) -> None:
            scene.clock.advance(3)
            await super().publish(change)
            await hanging.wait()

    scene, hanging = Scene(), asyncio.Event()
    scene.bus = scene.spread._bus = Slow()
    await scene.lease.renew()
    change = await scene.change("key:1")
    settling = asyncio.wait_for(scene.spread.settle(change), 5)
    assert await settling == Receipt(nodes=1, waited_ms=0)
    assert scene.bus.published == [change]
    hanging.set()


async def test_what_the_bus_takes_a_moment_to_carry_has_left_with_the_receipt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spread, "SLACK_MS", 60_000)

    class Brisk(Bus):
        async def publish(self, change: Change) -> None:
            await asyncio.sleep(0.005)
            await super().publish(change)

    scene = Scene()
    scene.bus = scene.spread._bus = Brisk()
    change = await scene.change("key:1")
    await scene.spread.settle(change)
    assert scene.bus.published == [change]


class RunningClock:
    """Real time."""

    def now(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


@pytest.mark.parametrize(
    ("noted", "at_least"), [(False, 350 + SLACK_MS), (True, 200)], ids=["over", "noted"]
)
async def test_nobody_needs_to_be_stirred_to_see_that_a_wait_is_over(
    noted: bool, at_least: int
) -> None:
    scene = Scene()
    scene.spread._clock = RunningClock()
    await scene.log.join(Member(id="a", lease_ms=350))
    change = await scene.change("key:1")
    if noted:
        await scene.log.note("a", change.seq, scene.log.marks[change.seq])
    receipt = await asyncio.wait_for(scene.spread.settle(change), 30)
    await scene.spread.finish()
    assert receipt.waited_ms >= at_least
    assert (scene.log.nodes["a"].suspicion is None) == noted


async def test_beside_the_nodes_one_counts_them_and_not_itself() -> None:
    scene = Scene(serving=False)
    scene.keep()
    assert await scene.spread.settle(await scene.change("key:1")) == Receipt(nodes=0, waited_ms=0)
    assert len(scene.cache) == 0
    scene.unlisted = True  # a file that was replaced by one without rows
    settling = await scene.settling(await scene.change("key:1"))
    scene.pass_time(200)  # who is written down nowhere says nothing by that
    await asyncio.sleep(0.01)
    assert not settling.done()
    scene.pass_time(LEASE_MS + SLACK_MS - 200)
    assert await settling == Receipt(nodes=1, waited_ms=LEASE_MS + SLACK_MS)


async def test_where_nodes_are_written_down_they_are_asked_and_nobody_else() -> None:
    scene = Scene()
    scene.unlisted = True
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    change = await scene.change("key:1")
    settling = await scene.settling(change)
    scene.spread.acknowledged(change.seq, "a")
    assert await asyncio.wait_for(settling, 5) == Receipt(nodes=2, waited_ms=0)
    assert scene.spread.nodes_at_most == 2


async def test_what_is_noted_of_the_silent_is_waited_for_at_the_end() -> None:
    scene, noting = Scene(), asyncio.Event()
    suspect = scene.log.suspect

    async def slowly(nodes: Iterable[str], mark: int) -> None:
        await noting.wait()
        await suspect(nodes, mark)

    scene.log.suspect = slowly  # type: ignore[method-assign]
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    settling = await scene.settling(await scene.change("key:1"))
    scene.pass_time(LEASE_MS + SLACK_MS)
    await settling
    finishing = asyncio.create_task(scene.spread.finish())
    await asyncio.sleep(0.01)
    assert not finishing.done()
    noting.set()
    await finishing
    assert scene.log.nodes["a"].suspicion is not None
    await asyncio.sleep(0)
    assert scene.spread._suspecting == set()


def test_the_mark_of_a_suspicion_fits_a_column_and_is_another_one_each_time() -> None:
    marks = {_new_mark() for _ in range(100)}
    assert len(marks) == 100
    assert max(marks) < 1 << 63


async def test_a_receipt_waits_for_the_word_of_each() -> None:
    scene = Scene()
    for id in ("a", "b"):
        await scene.log.join(Member(id=id, lease_ms=LEASE_MS))
    change = await scene.change("key:1")
    settling = await scene.settling(change)
    assert (scene.bus.published, scene.spread.waiting) == ([change], 1)
    for id in ("a", "a", "stranger"):
        scene.spread.acknowledged(change.seq, id)
        assert scene.spread._asked[change.seq].stirred.is_set()
    scene.spread.acknowledged(99, "b")
    await asyncio.sleep(0.01)
    assert not settling.done()
    scene.clock.advance(3)
    scene.spread.acknowledged(change.seq, "b")
    assert await settling == Receipt(nodes=3, waited_ms=3)
    await scene.spread.finish()
    assert all(each.suspicion is None for each in scene.log.nodes.values())


async def test_who_says_nothing_is_waited_for_until_its_lease_is_over_and_suspected() -> None:
    scene = Scene()
    await scene.log.join(Member(id="brief", lease_ms=LEASE_MS))
    await scene.log.join(Member(id="long", lease_ms=LEASE_MS + 5_000))
    change = await scene.change("key:1")
    settling = await scene.settling(change)
    scene.pass_time(LEASE_MS + SLACK_MS)
    await asyncio.sleep(0.01)
    assert not settling.done()
    scene.pass_time(5_004)  # of a clock that is off by a thousandth, too
    await asyncio.sleep(0.01)
    assert not settling.done()
    scene.pass_time(1)
    assert (await settling).waited_ms == LEASE_MS + 5_005 + SLACK_MS
    await scene.spread.finish()
    assert all(each.suspicion is not None for each in scene.log.nodes.values())
    assert scene.spread.nodes == 3  # as they were when it asked


@pytest.mark.parametrize("word", ["noted", "left"])
async def test_what_a_silent_one_has_noted_is_its_word(word: str) -> None:
    scene = Scene()
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    change = await scene.change("key:1")
    settling = await scene.settling(change)
    reads = 0
    members = scene.log.members

    async def counted() -> Sequence[Member]:
        nonlocal reads
        reads += 1
        return await members()

    scene.log.members = counted  # type: ignore[method-assign]
    scene.pass_time(199)
    await turns()
    assert (settling.done(), reads) == (False, 0)
    scene.pass_time(1)
    await turns()
    assert (settling.done(), reads) == (False, 1)
    if word == "noted":
        await scene.log.note("a", change.seq, scene.log.marks[change.seq])
    else:
        await scene.log.leave("a")
    scene.pass_time(200)
    assert (await asyncio.wait_for(settling, 5)).waited_ms == 400


async def test_a_look_that_hangs_holds_up_nobody_whose_wait_is_over() -> None:
    scene = Scene()
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    settling = await scene.settling(await scene.change("key:1"))
    looking, go_on = asyncio.Event(), asyncio.Event()
    members, looks = scene.log.members, 0

    async def hang() -> Sequence[Member]:
        nonlocal looks
        looks += 1
        looking.set()
        await go_on.wait()
        return await members()

    scene.log.members = hang  # type: ignore[method-assign]
    scene.pass_time(200)
    await looking.wait()
    scene.pass_time(200)
    await asyncio.sleep(0.01)
    assert (settling.done(), looks) == (False, 1)
    scene.pass_time(LEASE_MS)
    assert (await settling).nodes == 2
    go_on.set()
    await scene.spread.finish()


async def test_a_look_at_a_lost_database_changes_nothing() -> None:
    scene = Scene()
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    settling = await scene.settling(await scene.change("key:1"))
    scene.log.lost = True
    scene.pass_time(200)
    await asyncio.sleep(0.01)
    assert not settling.done()
    scene.pass_time(LEASE_MS + SLACK_MS)
    assert (await settling).nodes == 2
    await scene.spread.finish()


async def test_without_the_members_there_is_no_receipt_and_the_own_cache_is_clean() -> None:
    scene = Scene()
    await scene.lease.renew()
    scene.keep()
    change = await scene.change("key:1")
    scene.log.lost = True
    with pytest.raises(Unavailable):
        await scene.spread.settle(change)
    assert (len(scene.cache), scene.told, scene.spread.waiting) == (0, [], 0)


def test_what_may_have_been_committed_is_forgotten() -> None:
    scene = Scene()
    scene.keep()
    scene.spread.forget(("key:1",))
    assert len(scene.cache) == 0


# --- who is gone ------------------------------------------------------------------------------


async def test_who_is_suspected_for_a_whole_lease_is_forgotten_and_not_before() -> None:
    scene = Scene()
    await scene.lease.renew()
    for id in ("dead", "alive"):
        await scene.log.join(Member(id=id, lease_ms=LEASE_MS))
    await scene.spread.suspect_others()
    await scene.spread.look_after_members()
    assert scene.spread.nodes == 1
    await scene.log.readmit("alive")
    scene.clock.advance(LEASE_MS + SLACK_MS - 1)
    await scene.spread.look_after_members()
    assert set(scene.log.nodes) == {"me", "dead", "alive"}
    scene.clock.advance(1)
    await scene.spread.look_after_members()
    assert set(scene.log.nodes) == {"me", "alive"}


async def test_who_is_not_suspected_is_never_forgotten() -> None:
    scene = Scene()
    for id in ("alive", "dead"):
        await scene.log.join(Member(id=id, lease_ms=LEASE_MS))
    await scene.log.suspect(["dead"], 1)
    for _ in range(3):
        await scene.spread.look_after_members()
        scene.clock.advance(10 * LEASE_MS)
    assert set(scene.log.nodes) == {"alive"}


async def test_a_suspicion_under_another_mark_is_another_one() -> None:
    scene = Scene()
    await scene.log.join(Member(id="a", lease_ms=LEASE_MS))
    await scene.spread.suspect_others()
    await scene.spread.look_after_members()
    scene.clock.advance(LEASE_MS)
    await scene.log.readmit("a")
    await scene.spread.suspect_others()
    scene.clock.advance(SLACK_MS)
    await scene.spread.look_after_members()
    assert set(scene.log.nodes) == {"a"}


async def test_alone_there_is_nobody_to_suspect() -> None:
    scene = Scene()
    await scene.spread.suspect_others()
    await scene.spread.finish()
    assert scene.spread.nodes == 1
