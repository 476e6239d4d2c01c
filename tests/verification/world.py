"""A world in which several nodes run, and nothing is sure to arrive.

The real Verifier, Cache, Lease, Spread, RedisBus and App.change of each process, with an event loop
of its own, over a database in memory. Whoever drives the world says what becomes of each call to
the database, and of each message of the bus:

    call      ──▶ [ it happens ▪ ] ──▶ [ its answer arrives ▫ ]        or Unavailable, before or
                                                                       after it happened, or both
    message   ──▶ [ lost | once | twice, each after its own time ] ──▶ heard, acknowledged

A process is paused by not running its loop: on resuming its clock has gone on, and all that was
sent to it is there at once. It is killed by forgetting it: what it had sent to the database may
still happen there.

A key is a number of the database that only grows: each change makes its version the next one, and
revokes the one before. So what was answered with a receipt can be checked for each change.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal, TypeVar, cast

import msgspec

from keybearer.adapters.redis.bus import RedisBus
from keybearer.adapters.tracing import NO_TRACER
from keybearer.domain.changes import Change, Member, News
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Grant, Refusal
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Batch
from keybearer.operations.app import App
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, RENEW_MS, SLACK_MS, Receipt
from keybearer.verification.lease import Lease, NoLease
from keybearer.verification.limiter import Limiter
from keybearer.verification.presented import Presented
from keybearer.verification.quota import Quota
from keybearer.verification.spread import Spread
from keybearer.verification.usage import Usage
from keybearer.verification.verifier import Verified, Verifier
from tests.people import SECRET, fresh_id
from tests.verification.parts import Numbers, grant, new_key
from tests.verification.virtual import Face, Loop, Ticker

T = TypeVar("T")

Trouble = Literal["", "cut", "hangs"]
"""Of a line: none, whatever is sent is refused at once, or nothing is ever answered."""

KEYS = [new_key() for _ in range(2)]
RING = PepperRing([SECRET.encode()])
MANY = 3
"""Changes at the most in one read of the log."""

HANG_US = 10_000_000
"""After so long a call to a database that does not answer is given up."""


class StaleAccept(AssertionError):
    """A request that began after a receipt was accepted by what was before."""


class Broken(AssertionError):
    """Anything else that must not be."""


@dataclass(frozen=True)
class Fate:
    """What becomes of one call to the database.

    Attributes:
        happens_us: when it happens there; None: never.
        answers_us: when the answer arrives, after that; one that is lost, after the call.
        lost: whether the answer is Unavailable.
    """

    happens_us: int | None = 0
    answers_us: int = 0
    lost: bool = False


ANY = -1
"""The mark under which a part without its guard notes whatever it has."""

AT_ONCE = Fate()
ONCE = (0,)
"""A message that arrives at once, and once."""


@dataclass
class Guards:
    """The parts under search; each can be exchanged for one without its guard."""

    cache: type[Cache] = Cache
    verifier: type[Verifier] = Verifier
    lease: type[Lease] = Lease
    no_lease: type[NoLease] = NoLease
    spread: type[Spread] = Spread
    log: "type[MemoryLog] | None" = None
    bus: "type[Wire] | None" = None
    numbered_under_a_lock: bool = True
    told_again: bool = True


class _Locked(Exception):
    pass


class _IsThere(Exception):
    """A row of that id is there: what the real database calls an IntegrityError."""


class _Transaction:
    """What is done at the commit; from its number on it holds the counter."""

    def __init__(self) -> None:
        self.writes: list[Callable[[], None]] = []
        self.change: Change | None = None
        self.over = self.lost = False
        self.committing = False


@dataclass
class Made:
    """A change, and the versions that it made, before or after which failover."""

    keys: Sequence[int]
    versions: dict[int, int] = field(default_factory=dict)
    failovers: int = -1


@dataclass
class _Copy:
    """What a standby has received."""

    members: dict[str, Member]
    changes: list[Change]
    versions: list[int]
    seq: int
    marks: dict[int, int]


class World:
    """The database, the bus, the time, and everything that is on its way.

    Args:
        fate: what becomes of the next call, by the process and by the call's name.
        post: after which times the copies of the next message arrive.
        declared_ms: the staleness that the operator has declared.

    Attributes:
        over: of each key the version from which every request on must be accepted.
        calls_fail: whether calls to the database fail or take longer than anybody waits.
    """

    def __init__(
        self,
        fate: Callable[[str, str], Fate],
        post: Callable[[], Sequence[int]],
        guards: Guards | None = None,
        declared_ms: int = 0,
    ) -> None:
        self.ticker = Ticker()
        self.fate, self.post = fate, post
        self.guards = guards or Guards()
        self.lease_ms = LEASE_MS + declared_ms
        self.processes: list[Process] = []
        self.members: dict[str, Member] = {}
        self.changes: list[Change] = []
        self.versions = [1 for _ in KEYS]
        self.over = [1 for _ in KEYS]
        self.lost = [1 for _ in KEYS]
        self.calls_fail = True
        self.probing = True
        self.receipts = 0
        self.failovers = 0
        self._seq = 0
        self._marks = {0: 0}
        self._drawn = 0
        self._standby: _Copy | None = None
        self._handed_out = 0
        self._holder: _Transaction | None = None
        self._parked: list[Callable[[], None]] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._faults: list[AssertionError] = []
        self._history: list[tuple[int, tuple[object, ...]]] = []

    # --- time ---

    def advance(self, us: int) -> None:
        """Lets time pass, from one thing that happens to the next."""
        until = self.ticker.us + us
        self.run()
        while self._events and self._events[0][0] <= until:
            at, _, work = heapq.heappop(self._events)
            self.ticker.us = max(self.ticker.us, at)
            work()
            self.run()
        self.ticker.us = until
        self.run()

    def run(self) -> None:
        """Lets every process go on as far as it can, and tells what must not be."""
        again = True
        while again:
            again = False
            for process in list(self.processes):
                if process.loop.has_work() and not process.paused:
                    process.loop.run(timers_first=process.timers_first)
                    again = True
        if self._faults:
            raise type(self._faults[0])(f"{self._faults[0]}\n{self.told()}")

    def later(self, us: int, work: Callable[[], None]) -> None:
        self._at(self.ticker.us + us, work)

    def _at(self, us: int, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (us, next(self._numbers), work))

    def wake(self, us: int) -> None:
        """A process has something to do then."""
        self._at(us, _nothing)

    def tell(self, *what: object) -> None:
        self._history.append((self.ticker.us, what))

    def told(self) -> str:
        return "\n".join(
            f"{us / 1000:12.3f} ms  {' '.join(map(str, what))}" for us, what in self._history
        )

    def fault(self, error: AssertionError) -> None:
        self._faults.append(error)

    def end(self) -> None:
        for process in list(self.processes):
            process.kill()

    # --- the database ---

    async def call(
        self,
        by: "Process",
        happen: Callable[[], T],
        name: str,
        otherwise: Callable[[], None] | None = None,
    ) -> T:
        """A call on its way: it happens, and its answer arrives.

        Args:
            otherwise: done when it will never happen.
        """
        if by.dead:
            raise asyncio.CancelledError
        fate = self.fate(by.id, name)
        if by.database:
            fate = Fate(None, HANG_US if by.database == "hangs" else 0, lost=True)
        future: asyncio.Future[T] = by.loop.create_future()
        if fate is not AT_ONCE:
            self.tell(by.id, name, "…")
        sent = self.ticker.us

        def answer(value: T | None, error: Exception | None) -> None:
            if by.dead or future.done():
                return
            if by.database and error is None:
                error = Unavailable("cut")
            by.answered(name, self.ticker.us - sent, lost=error is not None)
            if fate is not AT_ONCE or error is not None:
                self.tell(by.id, name, "✗" if error else "→", value)
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast(T, value))

        def work() -> None:
            try:
                value = happen()
            except _Locked:
                self._parked.append(work)
                return
            except (_IsThere, Unavailable) as error:
                outcome: tuple[T | None, Exception | None] = (None, error)
            else:
                outcome = (value, None)
            if not fate.lost:
                self.later(fate.answers_us, partial(answer, *outcome))

        if fate.happens_us is not None:
            self.later(fate.happens_us, work)
        elif otherwise is not None:
            self.later(fate.answers_us, otherwise)
        if fate.lost:
            self.later(fate.answers_us, partial(answer, None, Unavailable("lost")))
        return await future

    async def write(self, by: "Process", body: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        transaction = _Transaction()
        by.transactions.append(transaction)
        try:
            result = await body(transaction)
            transaction.committing = True
            undo = partial(self.roll_back, transaction)
            await self.call(by, partial(self._commit, transaction), "commit", undo)
        finally:
            if not transaction.committing:
                self.roll_back(transaction)
            by.transactions.remove(transaction)
        return result

    def roll_back(self, transaction: _Transaction) -> None:
        transaction.over = True
        self._release(transaction)

    def _commit(self, transaction: _Transaction) -> None:
        if transaction.lost:
            raise Unavailable("the server is gone")
        if transaction.over:
            return
        transaction.over = True
        for write in transaction.writes:
            write()
        change = transaction.change
        if change is not None:
            self._seq = max(self._seq, change.seq)
            self._drawn += 1
            self._marks[change.seq] = self._drawn
            self.changes.append(change)
            self.changes.sort(key=lambda change: change.seq)
            self.tell(f"committed: {change.seq} {' '.join(change.tags)} by {change.origin}")
        self._release(transaction)

    def _release(self, transaction: _Transaction) -> None:
        if self._holder is transaction:
            self._holder = None
            parked, self._parked = self._parked, []
            for work in parked:
                work()

    def number(self, transaction: _Transaction, tags: tuple[str, ...], origin: str) -> int:
        if transaction.lost:
            raise Unavailable("the server is gone")
        if transaction.over:
            return 0  # nobody listens any more
        if self.guards.numbered_under_a_lock:
            if self._holder is not None:
                raise _Locked
            self._holder = transaction
            self._handed_out = self._seq
        self._handed_out += 1
        transaction.change = Change(self._handed_out, tags, origin)
        return self._handed_out

    def news(self, node: str, after: int | None) -> News:
        since = [] if after is None else [each for each in self.changes if each.seq > after]
        return News(
            seq=self._seq,
            mark=self._marks[self._seq],
            mark_after=None if after is None else self._marks.get(after),
            changes=since[:MANY],
            member=self.members.get(node),
        )

    def replicate(self) -> None:
        """A standby receives what is committed by now, and nothing more until the next time."""
        self.tell("the standby receives what is there")
        self._standby = _Copy(
            dict(self.members),
            list(self.changes),
            list(self.versions),
            self._seq,
            dict(self._marks),
        )

    def fail_over(self) -> None:
        """The standby takes over: what it has not received is lost, and all that is under way.

        The old server answers nobody any more, for as long as a lease that it gave may last.
        """
        if self._standby is None:
            return
        self.tell("the database is gone")
        troubles = {process: process.database for process in self.processes}
        for process in troubles:
            process.database = "cut"
        self.advance((self.lease_ms + SLACK_MS) * 1000)
        for process, trouble in troubles.items():
            process.database = trouble
        self.tell("the standby takes over, with change", self._standby.seq)
        self.failovers += 1
        copy, self._standby = self._standby, None
        self.members, self.changes = copy.members, copy.changes
        self._seq, self._marks = copy.seq, copy.marks
        # Versions that were lost are not given again: who accepts by one is found out.
        self.lost = [max(pair) for pair in zip(self.lost, self.versions, strict=True)]
        self.versions = copy.versions
        self.over = [min(pair) for pair in zip(self.over, self.versions, strict=True)]
        for process in self.processes:
            for transaction in process.transactions:
                transaction.lost = True
                self.roll_back(transaction)

    def mark_of(self, seq: int) -> int | None:
        return self._marks.get(seq)

    def forget_changes(self) -> None:
        """As upkeep does with those that are older than any reader should be."""
        self.tell("the log forgets what it has")
        self.changes.clear()

    # --- the bus ---

    def carry(self, channel: str, data: bytes) -> None:
        for process in self.processes:
            if process.hears(channel):
                for us in self.post():
                    self.later(us, partial(process.hear, channel, data))

    # --- what happens ---

    def start(self, *, member: bool = True, phase_us: int = 0, ppm: int = 0) -> "Process":
        name = f"{'node' if member else 'visitor'} {len(self._history)}"
        process = Process(self, name, member, Face(self.ticker, phase_us, ppm))
        self.processes.append(process)
        self.tell(f"{name} starts")
        process.begin()
        return process

    def ask(self, process: "Process", key: int) -> None:
        """A request that begins now."""
        floor, healthy, failovers = self.over[key], not self.calls_fail, self.failovers
        if process.ending:
            healthy = False
        presented = Presented(KEYS[key], "bearer", None)
        task = process.loop.create_task(process.verifier.check(presented, None))
        self.tell(process.id, "is asked for key", key, "and gives at least version", floor)

        def judge(task: "asyncio.Task[Verified | Refusal]") -> None:
            if task.cancelled() or process.dead:
                return
            error = task.exception()
            if error is not None:
                if not isinstance(error, Unavailable):
                    self.fault(Broken(f"{process.id}: a request ended with {error!r}"))
                elif healthy and not self.calls_fail and not process.ending:
                    self.fault(Broken(f"{process.id}: {error.reason}, with a sound database"))
                return
            verified = task.result()
            assert isinstance(verified, Verified)
            version = int(verified.session.name or 0)
            if version < floor and failovers == self.failovers:
                text = f"{process.id} accepted version {version} of key {key} after {floor}"
                self.fault(StaleAccept(text))

        task.add_done_callback(judge)

    def change(self, process: "Process", keys: Sequence[int]) -> "asyncio.Task[Any]":
        """A change of one key, or of all of their owner."""
        made = Made(keys)

        def bump() -> None:
            for key in made.keys:
                self.versions[key] = max(self.versions[key], self.lost[key]) + 1
                made.versions[key] = self.versions[key]
            made.failovers = self.failovers

        async def body(transaction: Transaction) -> None:
            cast(_Transaction, transaction).writes.append(bump)

        return self._change(process, made, body, "changes", told=True)

    def end_again(self, process: "Process", keys: Sequence[int]) -> "asyncio.Task[Any]":
        """A change that finds made what it wants, by somebody who may have no receipt yet."""
        made = Made(keys)

        def look() -> None:
            made.versions = {key: self.versions[key] for key in keys}
            made.failovers = self.failovers

        async def body(_transaction: Transaction) -> None:
            await self.call(process, look, "look")

        return self._change(process, made, body, "ends again", told=self.guards.told_again)

    def _change(
        self,
        process: "Process",
        made: Made,
        body: Callable[[Transaction], Coroutine[Any, Any, None]],
        what: str,
        *,
        told: bool,
    ) -> "asyncio.Task[Any]":
        keys = made.keys
        tags = (f"key:{keys[0]}",) if len(keys) == 1 else ("owner:ann",)

        async def change() -> Receipt:
            return (await process.house.change(body, lambda _: tags if told else ()))[1]

        self.tell(f"{process.id}: {what} {' '.join(tags)}")
        task = process.loop.create_task(change())

        def settled(task: "asyncio.Task[Receipt]") -> None:
            if task.cancelled() or process.dead:
                return
            error = task.exception()
            if error is None:
                self._receive(process, made, task.result())
            elif not isinstance(error, Unavailable):
                self.fault(Broken(f"{process.id}: a change ended with {error!r}"))

        task.add_done_callback(settled)
        return task

    def _receive(self, process: "Process", made: Made, receipt: Receipt) -> None:
        self.receipts += 1
        if made.failovers != self.failovers:
            self.tell(f"{process.id}: receipt for {made.versions}, which may be lost")
            return
        self.tell(f"{process.id}: receipt for {made.versions} after {receipt.waited_ms} ms")
        for key, version in made.versions.items():
            self.over[key] = max(self.over[key], version)
        # The read of the members may take its time, and a process that is paused takes longer.
        waits_ms = max(self.lease_ms, process.slowest_us // 1000 + 1) + process.paused_us // 1000
        if receipt.waited_ms > waits_ms * 1.01 + 2 * SLACK_MS:
            self.fault(Broken(f"{process.id}: a receipt took {receipt.waited_ms} ms"))
        if self.probing:
            for each in self.processes:
                for key in made.versions:
                    self.ask(each, key)

    def calm(self) -> None:
        """From here everything goes well, and what is dead is forgotten in the end."""
        self.tell("it becomes calm")
        self.fate, self.post = (lambda *_: AT_ONCE), (lambda: ONCE)
        for process in list(self.processes):
            process.heal()
        self.advance(HANG_US + 2_000_000)
        nodes = [each for each in self.processes if each.member]
        self.change(nodes[0], [0])  # whoever does not answer is suspected
        self.advance(2 * (self.lease_ms + SLACK_MS) * 1000 + 3_000_000)
        if set(self.members) != {each.id for each in nodes}:
            self.fault(Broken(f"members are {sorted(self.members)}"))
        for process in self.processes:
            before = self.receipts
            task = self.change(process, [0])
            self.advance(1000)
            if self.receipts == before or task.result().waited_ms > 1:
                self.fault(Broken(f"{process.id}: no receipt at once, though all is well"))
        self.run()


class MemoryLog:
    """The log as a process reaches it."""

    def __init__(self, world: World, by: "Process") -> None:
        self.world, self.by = world, by

    async def append(self, tx: Transaction, tags: tuple[str, ...], origin: str) -> int:
        transaction = cast(_Transaction, tx)
        number = partial(self.world.number, transaction, tags, origin)
        return await self.world.call(self.by, number, "number")

    async def news(self, node: str, after: int | None) -> News:
        return await self.world.call(self.by, partial(self.world.news, node, after), "news")

    async def members(self) -> Sequence[Member]:
        def happen() -> Sequence[Member]:
            return tuple(self.world.members.values())

        return await self.world.call(self.by, happen, "members")

    async def join(self, member: Member) -> None:
        def happen() -> None:
            if member.id in self.world.members:
                raise _IsThere
            self.world.members[member.id] = member

        with suppress(_IsThere):  # as SqlLog: by a call that was given up
            await self.world.call(self.by, happen, "join")

    async def readmit(self, node: str) -> bool:
        def happen() -> bool:
            return self._mark(node, None)

        return await self.world.call(self.by, happen, "readmit")

    async def note(self, node: str, seq: int, mark: int | None) -> None:
        def happen() -> None:
            member = self.world.members.get(node)
            if mark != ANY and self.world.mark_of(seq) != mark:
                return
            if member is not None and member.applied < seq:
                self.world.members[node] = msgspec.structs.replace(member, applied=seq)

        await self.world.call(self.by, happen, f"note {seq}")

    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        def happen() -> None:
            for node in nodes:
                member = self.world.members.get(node)
                if member is not None and member.suspicion is None:
                    self._mark(node, mark)

        nodes = list(nodes)
        await self.world.call(self.by, happen, f"suspect {nodes}")

    async def expel(self, suspects: Mapping[str, int]) -> None:
        def happen() -> None:
            for node, mark in suspects.items():
                member = self.world.members.get(node)
                if member is not None and member.suspicion == mark:
                    del self.world.members[node]
                    self.world.tell(f"{node} is expelled")

        await self.world.call(self.by, happen, f"expel {list(suspects)}")

    async def leave(self, node: str) -> None:
        def happen() -> None:
            self.world.members.pop(node, None)

        await self.world.call(self.by, happen, "leave")

    def _mark(self, node: str, mark: int | None) -> bool:
        member = self.world.members.get(node)
        if member is None:
            return False
        self.world.members[node] = msgspec.structs.replace(member, suspicion=mark)
        return True


class _Line:
    """What the bus of a process sends over."""

    def __init__(self, world: World, by: "Process") -> None:
        self._world, self._by = world, by

    async def publish(self, channel: str, data: bytes) -> None:
        if self._by.bus_is == "hangs":
            await asyncio.sleep(1)
            raise TimeoutError
        if self._by.bus_is == "cut" or self._by.dead:
            raise ConnectionError
        self._world.carry(channel, data)


class Wire(RedisBus):
    """The bus of a process, over a line of this world."""

    def __init__(self, world: World, by: "Process") -> None:
        super().__init__("redis://", "world", by.id, member=by.member)
        self._client = _Line(world, by)
        self._lost = True  # nobody reads the log of a search

    async def _connect(self) -> None:
        return None


class _House:
    """As much of an App as a change needs."""

    change = App.change
    _change = App._change
    _settle = App._settle
    tracer = NO_TRACER

    def __init__(self, world: World, by: "Process", spread: Spread) -> None:
        self.database = self
        self.spread = spread
        self._changes: set[asyncio.Task[Any]] = set()
        self._world, self._by = world, by

    async def write(self, body: Any) -> Any:
        return await self._world.write(self._by, body)


class Process:
    """A node, or a visitor.

    Attributes:
        database: what its calls to the database meet; "" is good.
        bus_is: the same of its bus.
        ending: whether it stops in an orderly way.
        slowest_us: the slowest read of the members so far, paused_us its longest pauses together.
    """

    def __init__(self, world: World, name: str, member: bool, clock: Face) -> None:
        self.id = name
        self.member = member
        self.loop = Loop(world.ticker, world.wake)
        self.database: Trouble = ""
        self.bus_is: Trouble = ""
        self.paused = self.dead = self.ending = self.timers_first = False
        self.slowest_us = self.paused_us = 0
        self.transactions: list[_Transaction] = []
        self._paused_at = 0
        self._world = world
        guards = world.guards
        self.log = (guards.log or MemoryLog)(world, self)
        self.bus = (guards.bus or Wire)(world, self)
        me = Member(id=name, lease_ms=world.lease_ms)
        self.cache = guards.cache(10)
        parts: dict[str, Any] = {
            "cache": self.cache, "clock": clock, "log": self.log, "bus": self.bus, "me": me,
        }  # fmt: skip
        self.lease: Lease | NoLease = (
            guards.lease(**parts, still_ours=self._still_ours)
            if member
            else guards.no_lease(self.cache)
        )
        self.spread = guards.spread(**parts, lease=self.lease)
        limiter = Limiter()
        self.verifier = guards.verifier(
            ring=RING,
            clock=clock,
            cache=self.cache,
            lease=self.lease,
            grants=self,
            limiter=limiter,
            usage=Usage(_ignore, limiter.state, new_id=fresh_id),
            quota=Quota(quotas=Numbers(), cache=self.cache, lease=self.lease, clock=clock),
            cookie="c",
            prefixes=("kb_",),
        )
        self.house = cast(App, _House(world, self, self.spread))

    # --- what it does ---

    def begin(self) -> None:
        self.loop.create_task(self._begin())

    async def _begin(self) -> None:
        await self.bus.start(self.lease.heard, self.spread.acknowledged)
        if self.member:
            with suppress(Unavailable):
                await self.spread.suspect_others()
            self.loop.create_task(self._every(RENEW_MS / 1000, self.lease.renew))
            self.loop.create_task(self._every(1, self.spread.look_after_members))

    async def _every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self.ending:
            with suppress(Unavailable):
                await job()
            await asyncio.sleep(seconds)

    def stop(self) -> None:
        """An orderly end, as Node.leave; requests still come meanwhile."""
        self.ending = True
        self._world.tell(f"{self.id} stops")
        self.loop.create_task(self._stop())

    async def _stop(self) -> None:
        self.lease.end()
        await self.spread.finish()
        with suppress(Unavailable):
            if self.member:
                await self.log.leave(self.id)
        self._world.later(500_000, self.kill)

    # --- what is done to it ---

    def pause(self) -> None:
        if not self.paused:
            self._world.tell(f"{self.id} is paused")
            self.paused, self._paused_at = True, self._world.ticker.us

    def resume(self, *, timers_first: bool = False) -> None:
        if self.paused:
            self._world.tell(f"{self.id} goes on")
            self.paused, self.timers_first = False, timers_first
            self.paused_us += self._world.ticker.us - self._paused_at

    def heal(self) -> None:
        self.resume()
        self.database, self.bus_is = "", ""

    def kill(self) -> None:
        """What it had sent to the database may still happen there."""
        if self.dead:
            return
        self._world.tell(f"{self.id} is killed")
        self.dead = True
        self._world.processes.remove(self)
        for transaction in self.transactions:
            if not transaction.committing:
                self._world.roll_back(transaction)
        self.loop.end()

    def hears(self, channel: str) -> bool:
        return channel in self.bus._channels

    def hear(self, channel: str, data: bytes) -> None:
        if not self.dead and not self.bus_is:
            what = "changes" if channel.endswith(":changes") else "acknowledgements"
            self._world.tell(f"{self.id}: hears of {what}")
            self.loop.call_soon(self.bus._take, channel, data)

    # --- what it asks the database ---

    def answered(self, name: str, us: int, *, lost: bool) -> None:
        if name == "members":
            self.slowest_us = max(self.slowest_us, us)

    async def _still_ours(self) -> bool:
        return await self._world.call(self, lambda: True, "lock")

    async def key(self, credential: bytes) -> Grant | None:
        number = KEYS.index(credential)
        version = await self._world.call(
            self, lambda: self._world.versions[number], f"version of key {number}"
        )
        return grant(subject="ann", id=str(number), name=str(version))

    async def none(self, *_presented: object) -> Any:
        raise AssertionError("only keys are presented")

    session = service = access = foreign = none


def _nothing() -> None:
    pass


async def _ignore(_batch: Batch, _settled: Sequence[str]) -> None:
    return None
