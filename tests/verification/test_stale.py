"""A search for a stale accept: no request that starts after a revocation answered is accepted.

The real Verifier, Cache, Lease, Serving and Visiting run over a database that is a few values and
an epoch. Each of its calls has two points that the search moves apart: where it happens (commits,
or takes its snapshot) and where its answer arrives. Time moves only when the search says so, and
the serving process and the visitor read it through clocks whose milliseconds begin elsewhere.

    request   ──▶ [hold lease: epoch read ▪ ─ ─ ▫] ──▶ [grant read ▪ ─ ─ ▫] ──▶ verdict
    revoke         ──▶ [commit ▪ ─ ─ ▫] ──▶ settle ──▶ "revoked"
                                                           └ requests from here on are refused

Another process may take over at any moment. From then on the first one gets no lease and changes
nothing, but does not know it yet; requests and revocations go to both.

That the search would find a hole is shown with each guard taken out.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Batch, Grant, Refusal
from keybearer.domain.ports import Transaction
from keybearer.verification.cache import Cache, Entry
from keybearer.verification.coherence import LEASE_MS, Lease, Serving, Visiting
from keybearer.verification.limiter import Limiter
from keybearer.verification.presented import Presented
from keybearer.verification.quota import Quota
from keybearer.verification.usage import Batch, Usage
from keybearer.verification.verifier import Verified, Verifier
from tests.people import SECRET, START
from tests.verification.parts import Numbers, new_key

KEYS = [new_key() for _ in range(2)]
RING = PepperRing([SECRET.encode()])


TIMES = [1, 500_000, 1_999_000, 2_000_000]
keys = st.sampled_from([0, 0, 0, 1])


class StaleAccept(AssertionError):
    pass


class Ticker:
    """One time in microseconds, and clocks on it whose milliseconds begin elsewhere."""

    def __init__(self) -> None:
        self.us = START * 1000

    def clock(self, phase_us: int) -> "Face":
        return Face(self, phase_us)


@dataclass
class Face:
    ticker: Ticker
    phase_us: int

    def now(self) -> int:
        return (self.ticker.us + self.phase_us) // 1000


@dataclass
class Step:
    """A call of the database on its way: first it happens, then its answer arrives."""

    happen: Callable[[], Any]
    future: "asyncio.Future[Any]"
    happened: bool = False
    value: Any = None

    def work(self) -> None:
        if not self.happened:
            self.happened = True
            try:
                self.value = self.happen()
            except Unavailable as refused:
                self.value = refused


class World:
    """The database, the time, and everything that is on its way."""

    def __init__(self) -> None:
        self.ticker = Ticker()
        self.epoch = 1
        self.revoked: set[int] = set()
        self.served_by = "the first"
        self.steps: list[Step] = []
        self.sleepers: list[tuple[int, asyncio.Future[None]]] = []

    async def call(self, happen: Callable[[], Any]) -> Any:
        step = Step(happen, asyncio.get_running_loop().create_future())
        self.steps.append(step)
        return await step.future

    async def read_epoch(self, server: str) -> int:
        def happen() -> int:
            self.ensure(server)
            return self.epoch

        return cast(int, await self.call(happen))

    def ensure(self, server: str) -> None:
        if self.served_by != server:
            raise Unavailable("another process serves")

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The sleep of the loop is exact to the microsecond at the best.
        self.sleepers.append((self.ticker.us + round(seconds * 1_000_000), future))
        await future

    def advance(self, us: int) -> None:
        self.ticker.us += us
        for due, future in self.sleepers:
            if due <= self.ticker.us and not future.done():
                future.set_result(None)

    # What the verifier asks.

    async def key(self, credential: bytes) -> Grant | None:
        number = KEYS.index(credential)
        revoked = await self.call(lambda: number in self.revoked)
        return Grant(
            kind="key",
            subject="ann",
            id=str(number),
            tags=(f"key:{number}", "owner:ann"),
            revoked_at=1 if revoked else None,
        )

    async def none(self, _token: bytes) -> Any:
        raise AssertionError("only keys are presented")

    session = service = access = none


async def ignore(_batch: Batch, _settled: Sequence[str]) -> None:
    return None


@dataclass
class Guards:
    """The parts under search; each can be exchanged for one without its guard."""

    cache: type[Cache] = Cache
    lease: type[Lease] = Lease
    verifier: type[Verifier] = Verifier
    serving: type[Serving] = Serving
    ensured: bool = True


@dataclass
class Server:
    """A process that serves, or believes so."""

    name: str
    cache: Cache
    lease: Lease
    verifier: Verifier
    serving: Serving


@dataclass
class Request:
    key: int
    task: "asyncio.Task[Verified | Refusal]"
    begun_after_revocation: bool


@dataclass
class Revocation:
    key: int
    task: "asyncio.Task[Any]"
    seen: bool = field(default=False)


class Search(RuleBasedStateMachine):
    guards = Guards()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.requests: list[Request] = []
        self.revocations: list[Revocation] = []
        self.over: set[int] = set()
        self.renewals: list[asyncio.Task[None]] = []

    @initialize(phase=st.sampled_from([0, 1, 500, 999]), visitors=st.sampled_from([0, 999]))
    def begin(self, phase: int, visitors: int) -> None:
        self.world = World()
        self.first = self._server("the first", phase)
        self.second: Server | None = None
        self.visitors = visitors
        self.visitor = Visiting(
            Cache(1),
            self.world.ticker.clock(visitors),
            self._bump,
            self._served,
            self.world.sleep,
        )

    def _server(self, name: str, phase: int) -> Server:
        clock = self.world.ticker.clock(phase)
        cache = self.guards.cache(10)
        lease = self.guards.lease(cache, clock, partial(self.world.read_epoch, name))
        limiter = Limiter()
        verifier = self.guards.verifier(
            ring=RING,
            clock=clock,
            cache=cache,
            lease=lease,
            grants=self.world,
            limiter=limiter,
            usage=Usage(ignore, limiter.state),
            quota=Quota(quotas=Numbers(), cache=cache, lease=lease, clock=clock),
            cookie="c",
            prefixes=("kb_",),
        )
        serving = self.guards.serving(cache, clock, self._ensure, self.world.sleep)
        return Server(name, cache, lease, verifier, serving)

    async def _bump(self, _tx: Transaction) -> None:
        return None  # happens with the commit, in `_revoke`

    async def _ensure(self, _tx: Transaction) -> None:
        return None  # happens with the commit, in `_revoke_by`

    async def _served(self) -> bool:
        return cast(bool, await self.world.call(lambda: True))

    def run(self) -> None:
        """Lets everything go on as far as it can, and looks at the answers."""

        ready = cast(Any, self.loop)._ready  # the loop has no other word for "nothing to do"
        while ready:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        for revocation in self.revocations:
            if revocation.task.done() and not revocation.seen:
                revocation.seen = True
                if not revocation.task.cancelled() and revocation.task.exception() is None:
                    self.over.add(revocation.key)
        for request in list(self.requests):
            if request.task.done():
                self.requests.remove(request)
                if request.task.exception() is not None:
                    continue
                if request.begun_after_revocation and isinstance(request.task.result(), Verified):
                    raise StaleAccept(f"key {request.key}")

    def start(self, work: Awaitable[Any]) -> "asyncio.Task[Any]":
        return self.loop.create_task(cast(Any, work))

    # --- what can happen ---

    @rule(key=keys)
    def somebody_asks(self, key: int) -> None:
        self._ask(self.first, key)

    @rule(key=keys)
    def somebody_asks_the_new_one(self, key: int) -> None:
        if self.second is not None:
            self._ask(self.second, key)

    def _ask(self, server: Server, key: int) -> None:
        presented = Presented(KEYS[key], "bearer", None)
        after = key in self.over
        asking = self.start(server.verifier.check(presented, None))
        self.requests.append(Request(key, asking, after))
        self.run()

    @rule(key=keys)
    def the_serving_process_revokes(self, key: int) -> None:
        self._revoke_by(self.first, key)

    @rule()
    def another_process_takes_over(self) -> None:
        if self.second is None:
            self.second = self._server("the second", self.visitors)
            self.world.served_by = self.second.name
            self.second.serving.take_over(contested=True)

    @rule(key=keys)
    def the_new_one_revokes(self, key: int) -> None:
        if self.second is not None:
            self._revoke_by(self.second, key)

    def _revoke_by(self, server: Server, key: int) -> None:
        def commit() -> None:
            if self.guards.ensured:
                self.world.ensure(server.name)
            self.world.revoked.add(key)

        async def revoke() -> None:
            await self.world.call(commit)
            await server.serving.settle([f"key:{key}"])

        self.revocations.append(Revocation(key, self.start(revoke())))
        self.run()

    @rule(key=keys)
    def a_visitor_revokes(self, key: int) -> None:
        def commit() -> None:
            self.world.revoked.add(key)
            self.world.epoch += 1

        async def revoke() -> None:
            await self.visitor.announce(cast(Transaction, None))
            await self.world.call(commit)
            await self.visitor.settle([f"key:{key}"])

        self.revocations.append(Revocation(key, self.start(revoke())))
        self.run()

    @rule()
    def the_lease_is_renewed(self) -> None:
        self.renewals.append(self.start(self.first.lease.renew()))
        self.run()

    @rule(which=st.sampled_from([0, -1, 1]), arrives=st.booleans())
    def the_database_works(self, which: int, arrives: bool) -> None:
        if not self.world.steps:
            return
        step = self._pick(which)
        step.work()
        if arrives:
            self.world.steps.remove(step)
            if step.future.done():
                pass
            elif isinstance(step.value, Unavailable):
                step.future.set_exception(step.value)
            else:
                step.future.set_result(step.value)
        self.run()

    def _pick(self, which: int) -> Step:
        steps = self.world.steps
        return steps[which] if which < len(steps) else steps[0]

    @rule()
    def everything_happens(self) -> None:
        for step in self.world.steps:
            step.work()

    @rule()
    def everything_arrives(self) -> None:
        for _ in range(20):
            if not self.world.steps:
                break
            self.the_database_works(0, arrives=True)

    @rule(which=st.sampled_from([0, -1, 1]))
    def an_answer_is_lost(self, which: int) -> None:
        if not self.world.steps:
            return
        step = self._pick(which)
        self.world.steps.remove(step)
        if not step.future.done():
            step.future.set_exception(Unavailable("lost"))
        self.run()

    @rule(which=st.sampled_from([0, -1, 1]))
    def somebody_goes_away(self, which: int) -> None:
        if self.requests:
            self.requests.pop(which % len(self.requests)).task.cancel()
            self.run()

    @rule(us=st.sampled_from(TIMES))
    def time_passes(self, us: int) -> None:
        self.world.advance(us)
        self.run()

    def teardown(self) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            done = {each.task for each in self.requests} | {each.task for each in self.revocations}
            await asyncio.gather(*others, *done, *self.renewals, return_exceptions=True)

        self.loop.run_until_complete(end())
        self.loop.close()


THOROUGH = int(os.environ.get("KEYBEARER_STALE_EXAMPLES", "150"))


def test_no_request_that_starts_after_a_revocation_is_accepted() -> None:
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


# --- each guard is needed -------------------------------------------------------------------


class CacheThatKeepsEveryFill(Cache):
    def put(self, digest: bytes, entry: Entry, *, begun: int) -> bool:
        return super().put(digest, entry, begun=self.generation)


class VerifierThatJoinsAnyFlight(Verifier):
    async def _find(self, digest: bytes, presented: Presented) -> Entry | Refusal:
        flight = self._flights.get(digest)
        if flight is not None:
            await self.lease.hold()
            return await asyncio.shield(flight[1])
        return await super()._find(digest, presented)


class LeaseThatIsNotLookedAtAgain(Lease):
    async def hold(self) -> None:
        if self._clock.now() >= self.until:
            await self.renew()


class LeaseCountedFromAfterTheRead(Lease):
    async def _renew(self) -> None:
        await super()._renew()
        self.until = self._clock.now() + LEASE_MS


class LeaseThatKeepsTheCache(Lease):
    async def _renew(self) -> None:
        begun = self._clock.now()
        self._epoch = await self._read_epoch()
        self.until = begun + LEASE_MS


class ServingThatWaitsForNobody(Serving):
    def take_over(self, *, contested: bool) -> None:
        super().take_over(contested=False)


class VerifierThatNeedsNoLease(Verifier):
    async def check(self, presented: Any, ip: Any, *args: Any, **options: Any) -> Any:
        until, self.lease.until = self.lease.until, 1 << 60
        coroutine = super().check(presented, ip, *args, **options)
        try:
            return await coroutine
        finally:
            if self.lease.until == 1 << 60:
                self.lease.until = until


def walk(guards_of: Guards, seed: int) -> None:
    """The same search without hypothesis: a hundred times the steps in the same time."""
    chance = random.Random(seed)  # noqa: S311 -- nothing to guess here
    step = Search()
    step.guards = guards_of  # of this machine alone
    step.begin(phase=chance.choice([0, 500]), visitors=chance.choice([0, 999]))

    def anything(*weights: int) -> None:
        which = chance.choice([0, -1, 1])
        match chance.choices(range(8), weights)[0]:
            case 0:
                step.somebody_asks(key=chance.choice([0, 0, 0, 1]))
            case 1:
                step.the_lease_is_renewed()
            case 2:
                step.the_database_works(which=which, arrives=True)
            case 3:
                step.everything_happens()
            case 4:
                step.everything_arrives()
            case 5:
                step.an_answer_is_lost(which=which)
            case 6:
                step.somebody_goes_away(which=which)
            case _:
                step.time_passes(us=chance.choice(TIMES))

    try:
        for _ in range(chance.randrange(2, 10)):
            anything(6, 4, 6, 4, 1, 1, 1, 3)
        chance.choice([step.a_visitor_revokes, step.the_serving_process_revokes])(key=0)
        for _ in range(chance.randrange(3, 10)):
            if chance.random() < 0.5:
                step.the_database_works(which=-1, arrives=True)
            else:
                anything(2, 2, 1, 2, 0, 0, 0, 8)
        for _ in range(6):
            anything(6, 1, 6, 1, 1, 1, 1, 1)
    finally:
        step.teardown()


def walk_over(guards_of: Guards, seed: int) -> None:
    """A search around the moment in which another process takes over."""
    chance = random.Random(seed)  # noqa: S311 -- nothing to guess here
    step = Search()
    step.guards = guards_of
    step.begin(phase=chance.choice([0, 1, 500, 999]), visitors=chance.choice([0, 999]))

    def anything() -> None:
        match chance.randrange(7):
            case 0:
                step.somebody_asks(key=0)
            case 1:
                step.somebody_asks_the_new_one(key=0)
            case 2:
                step.time_passes(us=chance.choice(TIMES))
            case 3:
                step.the_lease_is_renewed()
            case _:
                step.everything_arrives()

    try:
        for _ in range(chance.randrange(2, 8)):
            anything()
        step.another_process_takes_over()
        for _ in range(chance.randrange(0, 5)):
            anything()
        chance.choice([step.the_new_one_revokes, step.the_serving_process_revokes])(key=0)
        for _ in range(8):
            anything()
    finally:
        step.teardown()


def test_nor_is_one_when_another_process_takes_over() -> None:
    for seed in range(THOROUGH * 5):
        walk_over(Guards(), seed)


@pytest.mark.parametrize(
    "without",
    [
        pytest.param(Guards(serving=ServingThatWaitsForNobody), id="the lease of the old one"),
        pytest.param(Guards(ensured=False), id="the name, within the change"),
    ],
)
def test_without_a_guard_a_takeover_leads_to_a_stale_accept(without: Guards) -> None:
    def search() -> None:
        for seed in range(10_000):
            walk_over(without, seed)

    with pytest.raises(StaleAccept):
        search()


def test_clocks_whose_milliseconds_begin_elsewhere_leave_no_gap() -> None:
    step = Search()
    step.begin(phase=0, visitors=999)
    step.somebody_asks(key=0)
    step.everything_arrives()
    step.a_visitor_revokes(key=0)
    step.the_database_works(which=0, arrives=True)  # committed, in the microsecond of the lease
    step.time_passes(us=1)  # while the visitor asks whether anybody serves: its millisecond ends
    step.everything_arrives()
    step.time_passes(us=1_999_000)
    step.somebody_asks(key=0)  # the lease lasts for 999 microseconds more
    step.teardown()


def test_nor_is_one_in_a_long_walk() -> None:
    for seed in range(THOROUGH * 10):
        walk(Guards(), seed)


@pytest.mark.parametrize(
    ("without", "first"),
    [
        pytest.param(Guards(cache=CacheThatKeepsEveryFill), 0, id="generation of fills"),
        pytest.param(Guards(verifier=VerifierThatJoinsAnyFlight), 0, id="generation of flights"),
        # The rarest: two reads must be under way at once. One walk in 30 000 meets it.
        pytest.param(Guards(lease=LeaseThatIsNotLookedAtAgain), 5_200, id="late renewals"),
        pytest.param(Guards(lease=LeaseCountedFromAfterTheRead), 0, id="lease from before"),
        pytest.param(Guards(lease=LeaseThatKeepsTheCache), 0, id="epoch"),
        pytest.param(Guards(verifier=VerifierThatNeedsNoLease), 0, id="lease"),
    ],
)
def test_without_a_guard_the_search_finds_a_stale_accept(without: Guards, first: int) -> None:
    def search() -> None:
        for seed in range(first, first + 40_000):
            walk(without, seed)

    with pytest.raises(StaleAccept):
        search()
