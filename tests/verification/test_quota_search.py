"""A search for a unit that is spent twice, or lost without a crash: one quota, several nodes.

The real Quota and Cache run over the real SQL; an edit is spread as `coherence.py` promises it: its
answer waits until each node has dropped what it touches, or no lease of before can hold. Each call
of the database has two points that the search moves apart: where it happens, and where its answer
arrives. Nodes crash, answers are lost, callers go away, time moves only when the search says so.

    request   ──▶ chunk, or [take ▪ ─ ─ ▫] ──▶ accepted or refused
    edit      ──▶ [commit ▪ ─ ─ ▫] ──▶ every node ──▶ answered
                                                        └ requests from here on spend the new number

What must hold: whoever asks after an edit has answered, or a refill was due, is given no more than
what was set or refilled from then on. And as long as nothing crashed, all that is not spent is
there in the end. That the search would find a hole is shown with each guard taken out.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pysqlite3.dbapi2 as driver
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from keybearer.adapters.sql import keys, quotas
from keybearer.adapters.sql.sqlite import drive
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, metadata
from keybearer.domain.errors import Unavailable
from keybearer.domain.limits import CHUNK_MAX, CHUNK_SHARE
from keybearer.domain.uses import Taken, Unspent
from keybearer.verification import quota as module
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS
from keybearer.verification.quota import Left, Quota
from tests.adapters.test_keys_sql import key_of
from tests.people import StandingClock
from tests.verification.parts import MemoryLog, grant, lease_on

ID = "k1"
GRANT = grant(id=ID, metered=True)
TAGS = (f"key:{ID}",)
AMOUNTS = [0, 3, 900, 5_000, 40_000]
INTERVALS = [None, 700, 5_000]
COSTS = [1, 1, 1, 1, 2, 30, 900, 4_000]
ONE = st.integers(0, 2)
NODES = st.integers(2, 3)
TIMES = [1, 200, 999, 2_000, 5_000]
THOROUGH = int(os.environ.get("KEYBEARER_QUOTA_EXAMPLES", "60"))


ENGINE = create_engine("sqlite://", module=driver, poolclass=StaticPool)
metadata.create_all(ENGINE, tables=[api_keys, api_key_secrets])


@pytest.fixture(autouse=True)
def nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """But when the search says so, however slow the machine is."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 3_600.0)


class Broken(AssertionError):
    pass


@dataclass
class Step:
    """A call of the database on its way: first it happens, then its answer arrives."""

    node: "Node | None"
    happen: Callable[[], Any]
    future: "asyncio.Future[Any]"
    happened: bool = False
    value: Any = None

    def work(self) -> None:
        if not self.happened:
            self.happened = True
            self.value = self.happen()


@dataclass
class Edit:
    """A change of the key; `over` once it has answered."""

    changes: dict[str, object]
    step: Step
    seq: int = 0
    version: int = 0
    committed_at: int = 0
    published: bool = False
    over: bool = False


@dataclass
class Request:
    node: "Node"
    cost: int
    began: int
    task: "asyncio.Task[Left | None]"


@dataclass
class Accepted:
    cost: int
    began: int
    ended: int


@dataclass
class Guards:
    """The parts under search; each can be exchanged for one without its guard."""

    quota: type[Quota] = Quota
    stored: "type[Stored]" = field(default_factory=lambda: Stored)


class Node:
    """A process with its lease, its cache and its units."""

    def __init__(self, world: "Search", guards: Guards) -> None:
        self.applied = world.seq
        self.cache = Cache(10)
        self.lease = lease_on(MemoryLog(), self.cache, world.clock)
        self.gone = 0
        self.quota = guards.quota(
            quotas=guards.stored(world, self), cache=self.cache, lease=self.lease, clock=world.clock
        )

    def apply(self, seq: int) -> None:
        """Hears of every change up to this one."""
        if seq > self.applied:
            self.applied = seq
            self.cache.invalidate(TAGS)

    def unspent(self) -> int:
        return sum(chunk.units for chunk in self.quota._chunks.values())


class Stored:
    """The quotas in the database, for one node."""

    def __init__(self, world: "Search", node: Node) -> None:
        self.world = world
        self.node = node

    async def take(self, id: str, costs: Sequence[int], **asked: Any) -> Taken | None:
        return cast(
            Taken | None,
            await self.world.call(
                self.node, lambda: self.world.sql(lambda tx: quotas.take(tx, id, costs, **asked))
            ),
        )

    async def give_back(self, unspent: Sequence[Unspent]) -> None:
        await self.world.call(
            self.node, lambda: self.world.sql(lambda tx: quotas.give_back(tx, unspent))
        )


class Search(RuleBasedStateMachine):
    guards = Guards()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = StandingClock()
        self.connection = ENGINE.connect()
        for table in (api_key_secrets, api_keys):
            self.connection.execute(table.delete())
        self.steps: list[Step] = []
        self.edits: list[Edit] = []
        self.requests: list[Request] = []
        self.accepted: list[Accepted] = []
        self.others: list[asyncio.Task[Any]] = []
        self.counter = 0
        self.seq = 0
        self.seen_version = 0
        self.begun_at: dict[int, int] = {0: 0}
        self.floors: list[tuple[int, int]] = [(0, 0)]
        self.due: set[int] = set()
        self.whole = True

    @initialize(
        amount=st.sampled_from(AMOUNTS),
        interval=st.sampled_from(INTERVALS),
        nodes=st.integers(2, 3),
    )
    def begin(self, amount: int, interval: int | None, nodes: int) -> None:
        self.refill_amount = None if interval is None else 5_000
        key = key_of(
            id=ID, remaining=amount, refill_amount=self.refill_amount, refill_interval_ms=interval
        )
        self.sql(lambda tx: keys.add(tx, key, digest=b"d", pepper_id="p", idempotency=None))
        self.amounts = {0: amount}
        self.nodes = [Node(self, self.guards) for _ in range(nodes)]
        for node in self.nodes:
            node.lease.until = self.clock.now() + LEASE_MS

    # --- the database ---

    def sql(self, body: Callable[[Any], Awaitable[Any]]) -> Any:
        result = drive(body, self.connection)
        self.connection.commit()
        self._look()
        return result

    def row(self) -> Any:
        row = self.connection.execute(api_keys.select()).one()
        self.connection.rollback()
        return row

    def _look(self) -> None:
        """A version that was not there before is a refill, unless an edit has told of it."""
        row = self.row()
        if row.remaining is not None and row.remaining < 0:
            raise Broken("below zero")
        if row.quota_version != self.seen_version:
            self.seen_version = row.quota_version
            self.begun_at[row.quota_version] = self._tick()
            self.amounts.setdefault(row.quota_version, self.refill_amount or 0)

    async def call(self, node: Node | None, happen: Callable[[], Any]) -> Any:
        step = Step(node, happen, asyncio.get_running_loop().create_future())
        self.steps.append(step)
        return await step.future

    # --- what must hold ---

    def _tick(self) -> int:
        self.counter += 1
        return self.counter

    def run(self) -> None:
        """Lets everything go on as far as it can, and looks at the answers."""
        ready = cast(Any, self.loop)._ready  # the loop has no other word for "nothing to do"
        while ready:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        for edit in self.edits:
            self._end(edit)
        for request in list(self.requests):
            if request.task.done():
                self.requests.remove(request)
                if request.task.cancelled() or request.task.exception() is not None:
                    continue
                left = request.task.result()
                if left is not None:
                    if left.remaining < 0:
                        raise Broken("told less than nothing")
                    self.accepted.append(Accepted(request.cost, request.began, self._tick()))
        self._check()

    def _end(self, edit: Edit) -> None:
        """An edit answers when each node has heard, or no lease of before can hold."""
        if not edit.published or edit.over:
            return
        waited = self.clock.now() - edit.committed_at
        if waited >= LEASE_MS or all(node.applied >= edit.seq for node in self.nodes):
            edit.over = True
            if edit.version:
                self.floors.append((self._tick(), edit.version))

    def _check(self) -> None:
        for since, version in self.floors:
            spent = sum(each.cost for each in self.accepted if each.began >= since)
            given = sum(amount for of, amount in self.amounts.items() if of >= version)
            if spent > given:
                raise Broken(f"{spent} spent of {given}")
        for node in self.nodes:
            share = max(self.amounts.values()) // CHUNK_SHARE
            if node.unspent() > min(CHUNK_MAX, share) + node.gone:
                raise Broken(f"a chunk of {node.unspent()}")

    # --- what can happen ---

    @rule(which=ONE, cost=st.sampled_from(COSTS), times=st.sampled_from([1, 1, 5, 20]))
    def somebody_asks(self, which: int, cost: int, times: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        for _ in range(times):
            task = self.loop.create_task(node.quota.take(GRANT, cost))
            self.requests.append(Request(node, cost, self._tick(), task))
            self.run()

    @rule(which=st.integers(-1, 3), arrives=st.booleans())
    def the_database_works(self, which: int, arrives: bool) -> None:
        if not self.steps:
            return
        step = self.steps[which % len(self.steps)]
        step.work()
        if arrives:
            self._arrive(step)
        self.run()

    def _arrive(self, step: Step) -> None:
        self.steps.remove(step)
        if not step.future.done():
            step.future.set_result(step.value)

    @rule()
    def everything_happens(self) -> None:
        for step in self.steps:
            step.work()

    @rule()
    def everything_arrives(self) -> None:
        while self.steps:
            step = self.steps[0]
            step.work()
            self._arrive(step)
            self.run()

    @rule(which=st.integers(0, 3), happened=st.booleans())
    def an_answer_is_lost(self, which: int, happened: bool) -> None:
        mine = [step for step in self.steps if step.node is not None]
        if mine:
            step = mine[which % len(mine)]
            if happened:
                step.work()
            self.steps.remove(step)
            self.whole = False
            if not step.future.done():
                step.future.set_exception(Unavailable("lost"))
            self.run()

    @rule(which=st.integers(0, 3))
    def somebody_goes_away(self, which: int) -> None:
        if self.requests:
            request = self.requests[which % len(self.requests)]
            request.node.gone += request.cost
            request.task.cancel()
            self.run()

    @rule(
        remaining=st.sampled_from([None, *AMOUNTS]),
        refilled=st.booleans(),
        name=st.text(max_size=1),
    )
    def the_owner_edits(self, remaining: int | None, refilled: bool, name: str) -> None:
        """Sets the number, the refill, or nothing of both: then units go back."""
        now = self.clock.now()
        changes: dict[str, object] = {"name": name, "updated_at": now}
        if remaining is not None:
            changes["remaining"] = remaining
        if refilled and self.refill_amount is not None:
            changes["last_refill_at"] = now
        self._edit(changes, lambda tx: keys.save(tx, ID, changes))

    @rule()
    def the_owner_revokes(self) -> None:
        now = self.clock.now()
        self._edit({"revoked_at": now}, lambda tx: keys.revoke(tx, ID, now=now, reason=None))

    def _edit(self, changes: dict[str, object], body: Callable[[Any], Awaitable[Any]]) -> None:
        def commit() -> None:
            version = self.row().quota_version
            if "remaining" in changes:
                edit.version = version + 1
                self.amounts[version + 1] = cast(int, changes["remaining"])
            if "revoked_at" in changes:
                edit.version = 1 << 60
            if "last_refill_at" in changes:
                # A refill that was due and has not come does not come any more.
                self.floors = [each for each in self.floors if each[1] != version + 1]
            self.sql(body)
            self.seq += 1
            edit.seq, edit.committed_at = self.seq, self.clock.now()

        async def change() -> None:
            await self.call(None, commit)
            edit.published = True

        edit = Edit(changes, cast(Any, None))
        self.edits.append(edit)
        self.others.append(self.loop.create_task(change()))
        self.run()

    @rule(which=ONE)
    def a_node_hears_of_changes(self, which: int) -> None:
        published = [edit.seq for edit in self.edits if edit.published]
        self.nodes[which % len(self.nodes)].apply(max(published, default=0))
        self.run()

    @rule(which=ONE)
    def a_lease_is_renewed(self, which: int) -> None:
        node = self.nodes[which % len(self.nodes)]
        begun = self.clock.now()

        async def renew() -> None:
            node.apply(await self.call(node, lambda: self.seq))
            node.lease.until = begun + LEASE_MS

        self.others.append(self.loop.create_task(renew()))
        self.run()

    @rule(which=ONE, all_of_it=st.booleans())
    def units_go_back(self, which: int, all_of_it: bool) -> None:
        quota = self.nodes[which % len(self.nodes)].quota
        give = quota.give_back() if all_of_it else quota.give_back_old()
        self.others.append(self.loop.create_task(give))
        self.run()

    @rule(which=ONE)
    def a_node_crashes(self, which: int) -> None:
        which %= len(self.nodes)
        node, self.nodes[which] = self.nodes[which], Node(self, self.guards)
        self.whole = False
        for request in [each for each in self.requests if each.node is node]:
            self.requests.remove(request)
        # What it had sent may still happen; nobody is there for the answer.
        for step in [each for each in self.steps if each.node is node]:
            step.future.cancel()
        self.run()

    @rule(ms=st.sampled_from(TIMES))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)
        row = self.row()
        if row.refill_interval_ms is not None:
            due = (row.last_refill_at or row.created_at) + row.refill_interval_ms
            floor = row.quota_version + 1
            if self.clock.now() >= due and (not self.floors or self.floors[-1][1] < floor):
                self.floors.append((self._tick(), floor))
        self.run()

    # --- the end ---

    def teardown(self) -> None:
        try:
            self.everything_arrives()
            for node in self.nodes:
                node.lease.end()
                self.others.append(self.loop.create_task(node.quota.end()))
            self.run()
            self.everything_arrives()
            self._check_the_end()
        finally:
            pending = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            for task in pending:
                task.cancel()
            together = asyncio.gather(*pending, *self.others, return_exceptions=True)
            if pending or self.others:
                self.loop.run_until_complete(together)
            self.loop.close()
            self.connection.close()

    def _check_the_end(self) -> None:
        """What is missing was spent, by those who were answered since the number was set."""
        row = self.row()
        missing = self.amounts[row.quota_version] - row.remaining
        begun = self.begun_at[row.quota_version]
        floors = [since for since, version in self.floors if version >= row.quota_version]
        surely = min(floors, default=self._tick())
        least = sum(each.cost for each in self.accepted if each.began >= surely)
        most = sum(each.cost for each in self.accepted if each.ended > begun)
        if missing < least or (self.whole and missing > most):
            raise Broken(f"{missing} missing, {least} to {most} spent")


def test_no_unit_is_spent_twice_and_none_is_lost() -> None:
    run_state_machine_as_test(
        Search,
        settings=settings(
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            max_examples=THOROUGH,
            stateful_step_count=40,
        ),
    )


# --- each guard is needed -------------------------------------------------------------------------


class NeedsNoLease(Quota):
    def has(self, id: str, now: int, cost: int = 1) -> bool:
        until, self._lease.until = self._lease.until, 1 << 60
        try:
            return super().has(id, now, cost)
        finally:
            self._lease.until = until


class HearsNoChange(Quota):
    def _stands(self, chunk: Any, now: int) -> bool:
        ends_at: int = chunk.ends_at
        return now < ends_at


class KeepsWhatArrivesLate(Quota):
    async def _serve(self, chunk: Any, requests: Any) -> None:
        await super()._serve(chunk, requests)
        chunk.begun = self._cache.generation


class OutlivesTheRefill(Quota):
    async def _serve(self, chunk: Any, requests: Any) -> None:
        await super()._serve(chunk, requests)
        chunk.ends_at = chunk.taken_at + module.CHUNK_LIFE_MS


class MixesVersions(Quota):
    async def _serve(self, chunk: Any, requests: Any) -> None:
        class Blind:
            async def take(self, *args: Any, **asked: Any) -> Taken | None:
                taken = await stored.take(*args, **asked)
                if taken is not None:
                    chunk.version = taken.version
                return taken

        stored, self._quotas = self._quotas, cast(Any, Blind())
        try:
            await super()._serve(chunk, requests)
        finally:
            self._quotas = stored


class TriesAgain(Quota):
    async def _write_unspent(self) -> None:
        unspent = dict(self._unspent)
        try:
            await super()._write_unspent()
        except Unavailable:
            self._unspent |= unspent
            raise


class GivesBackToAny(Stored):
    async def give_back(self, unspent: Sequence[Unspent]) -> None:
        def happen() -> None:
            version = self.world.row().quota_version
            of_now = [Unspent(key_id=e.key_id, version=version, units=e.units) for e in unspent]
            self.world.sql(lambda tx: quotas.give_back(tx, of_now))

        await self.world.call(self.node, happen)


class LosesUnits(Quota):
    def _put_back(self, chunk: Any) -> None:
        chunk.units = 0


def walk(guards_of: Guards, seed: int) -> None:
    """The same search without hypothesis, around an edit: chunks are out when it begins."""
    chance = random.Random(seed)  # noqa: S311 -- nothing to guess here
    step = Search()
    step.guards = guards_of  # of this machine alone
    step.begin(
        amount=chance.choice([900, 40_000, 40_000]),
        interval=chance.choice(INTERVALS),
        nodes=chance.choice([2, 2, 3]),
    )

    def which() -> int:
        return chance.randrange(3)

    deeds: list[Callable[[], None]] = [
        lambda: step.somebody_asks(which=which(), cost=chance.choice([1, 1, 3]), times=20),
        lambda: step.somebody_asks(which=which(), cost=chance.choice(COSTS), times=1),
        lambda: step.the_database_works(which=which(), arrives=chance.random() < 0.5),
        step.everything_arrives,
        lambda: step.time_passes(ms=chance.choice(TIMES)),
        lambda: step.a_lease_is_renewed(which=which()),
        lambda: step.a_node_hears_of_changes(which=which()),
        lambda: step.units_go_back(which=which(), all_of_it=chance.random() < 0.5),
        lambda: step.an_answer_is_lost(which=which(), happened=chance.random() < 0.7),
        lambda: step.somebody_goes_away(which=which()),
        lambda: step.a_node_crashes(which=which()),
    ]

    def some(most: int, *weights: int) -> None:
        for _ in range(chance.randrange(most)):
            chance.choices(deeds, weights)[0]()

    def ask_all() -> None:
        for node in range(3):
            step.somebody_asks(which=node, cost=1, times=20)
            some(2, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0)

    try:
        for _ in range(chance.randrange(1, 4)):
            ask_all()
            some(4, 0, 2, 4, 6, 1, 1, 1, 1, 0, 0, 0)
            if chance.random() < 0.8:
                step.everything_arrives()
        some(4, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1)
        if chance.random() < 0.5:
            step.somebody_asks(which=which(), cost=chance.choice([1, 30]), times=1)
            step.everything_happens()
        remaining = chance.choice([None, 0, 0, 3])
        if chance.random() < 0.1:
            step.the_owner_revokes()
        else:
            step.the_owner_edits(remaining=remaining, refilled=chance.random() < 0.5, name="")
        if chance.random() < 0.5:
            step.the_database_works(which=-1, arrives=True)
            for node in range(3):
                step.a_node_hears_of_changes(which=node)
        some(5, 0, 1, 4, 3, 4, 2, 3, 2, 2, 1, 0)
        ask_all()
        some(5, 0, 1, 2, 3, 2, 2, 2, 2, 2, 1, 0)
        step.everything_arrives()
        ask_all()
    finally:
        step.teardown()


def test_nor_in_a_long_walk() -> None:
    for seed in range(THOROUGH * 3):
        walk(Guards(), seed)


@pytest.mark.parametrize(
    ("without", "first"),
    [
        pytest.param(Guards(quota=NeedsNoLease), 320, id="the lease"),  # the rarest
        pytest.param(Guards(quota=HearsNoChange), 0, id="what was touched"),
        pytest.param(Guards(quota=KeepsWhatArrivesLate), 0, id="generation of flights"),
        pytest.param(Guards(quota=OutlivesTheRefill), 0, id="the refill"),
        pytest.param(Guards(quota=MixesVersions), 0, id="versions kept apart"),
        pytest.param(Guards(quota=TriesAgain), 160, id="once"),
        pytest.param(Guards(stored=GivesBackToAny), 0, id="the version they came from"),
        pytest.param(Guards(quota=LosesUnits), 0, id="giving back"),
    ],
)
def test_without_a_guard_the_search_finds_a_hole(without: Guards, first: int) -> None:
    def search() -> None:
        for seed in range(first, first + 10_000):
            walk(without, seed)

    with pytest.raises(Broken):
        search()
