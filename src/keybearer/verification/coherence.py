"""Cached speed without stale answers: leases on a log of changes.

Every change that a verdict depends on is numbered, in the transaction that makes it, by a counter
whose row stays locked until the commit: whoever sees change 8 sees 7 too. A node answers from its
cache only while it holds a lease. To get one it reads the log and drops what the changes since
touched; the lease counts 2 s from before that read was sent:

    node A   read log: 7 ─────────── lease 2 s ───────────▶ read log: 8, drop `key:k` …
    node B        │ revoke: UPDATE …, log 8 `key:k`, COMMIT
                  │ ask over the bus ──▶ A drops `key:k` ──▶ acknowledges ──▶ "revoked"
                  │ no bus? A notes in its row what it read of the log ─────▶ "revoked"
                  └ no word at all ────────── A's lease is over: 2.05 s ────▶ "revoked"

The database decides, the bus only hurries: lost, late, doubled and reordered messages, a Redis
that was flushed, failed over or is split in two make receipts slower, and nothing else.

Whom a change waits for
=======================
A node is written down as a member before its first lease. A change reads the members *after* its
commit: a node that is missing there joined later, so its first read of the log shows the change.

    member ──(did not acknowledge in time)──▶ suspected ──(still, a lease later)──▶ gone
      ▲                                           │                                  │
      └──── at its next read it says: I am here ──┘         joins anew, with no cache┘

A suspected node takes no lease before it has said that it is there. So once it has been suspected
for a whole lease, it holds none and may be forgotten: what was killed slows nobody for long.

Without a lease every check first reads the log; when the database is lost that raises Unavailable,
and the answer is 503 (or, where the operator declared it, what is cached goes on for a while).

A process beside the nodes, the command above all, has no cache and is no member (`NoLease`); its
changes are logged, asked and waited for like all others.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Change, Member, News
from keybearer.domain.ports import Clock, Transaction
from keybearer.verification import patience
from keybearer.verification.cache import Cache

log = logging.getLogger("keybearer")

LEASE_MS = 2_000
RENEW_MS = 500
SLACK_MS = 50
"""Clocks of two processes have milliseconds that begin elsewhere, and crystals that differ."""

_LOOK_MS = 200
"""After so long without an answer the members are read again: what has each read of the log?"""

_HEARD = 10_000
"""Changes at the most that are remembered as acknowledged before the log shows them."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How a change ended: how many nodes had to stop, and how long that took."""

    nodes: int
    waited_ms: int


NOBODY = Receipt(nodes=0, waited_ms=0)
"""Of what touches nothing that a check goes by."""


class Log(Protocol):
    """The changes and the members, in the database. Every method raises Unavailable."""

    async def append(self, tx: Transaction, tags: tuple[str, ...], origin: str) -> int:
        """Numbers a change in its own transaction."""
        ...

    async def news(self, node: str, after: int | None) -> News:
        """The state of the log, and the changes after one; None asks for no changes."""
        ...

    async def members(self) -> Sequence[Member]:
        """Every member."""
        ...

    async def join(self, member: Member) -> None:
        """Writes a node down as a member, not suspected."""
        ...

    async def readmit(self, node: str) -> bool:
        """Takes the suspicion from a member; False if it is none any more."""
        ...

    async def note(self, node: str, seq: int) -> None:
        """Notes that a member has applied every change up to one."""
        ...

    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        """Notes whose answer was missed, unless they are suspected already."""
        ...

    async def expel(self, suspects: Mapping[str, int]) -> None:
        """Forgets members that are suspected, each still under that mark."""
        ...

    async def leave(self, node: str) -> None:
        """Forgets a member that answers no more."""
        ...


class Bus(Protocol):
    """Carries changes to the nodes and acknowledgements back, as well as it can."""

    async def publish(self, change: Change) -> None:
        """Asks every node; a message that cannot be sent is none."""
        ...

    def acknowledge(self, changes: Sequence[Change]) -> None:
        """Tells those who asked that they are applied here; nobody waits for that."""
        ...


class NoBus:
    """One process serves: nobody is asked."""

    async def publish(self, change: Change) -> None:
        """Nothing."""

    def acknowledge(self, changes: Sequence[Change]) -> None:
        """Nothing."""


class Lease:
    """A node's right to answer from its cache, for two seconds at a time.

    Args:
        me: this node; its `lease_ms` is LEASE_MS and the staleness that was declared.
        still_ours: makes sure that this process may serve; raises Unavailable.

    Attributes:
        until: the instant from which nothing is answered from the cache.
        stretched: whether it goes on only because the operator declared so: the database is lost.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        clock: Clock,
        log: Log,
        bus: Bus,
        me: Member,
        still_ours: Callable[[], Awaitable[object]],
    ) -> None:
        self.until = 0
        self.stretched = False
        self._cache = cache
        self._clock = clock
        self._log = log
        self._bus = bus
        self._me = me
        self._still_ours = still_ours
        self._known: int | None = None
        self._heard: set[int] = set()
        self._read_at: int | None = None
        self._ended = False
        self._told = "lease.held"
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0

    @property
    def seq(self) -> int:
        """The last change up to which all are applied here."""
        return self._known or 0

    async def hold(self) -> None:
        """Returns once the lease is held.

        A renewal that began before we came may end with a lease that is over already: then
        another one is made.

        Raises:
            Unavailable: the database is lost.
        """
        while self._clock.now() >= self.until:
            try:
                await self.renew()
            except Unavailable:
                if self._clock.now() >= self.until:
                    raise

    async def renew(self) -> None:
        """Renews now; whoever comes meanwhile waits for the same renewal, as long as the first.

        Raises:
            Unavailable: the database is lost, or does not answer in time.
        """
        if self._ended:
            raise Unavailable("keybearer is stopped")
        time = asyncio.get_running_loop().time
        if self._renewal is None:
            self._renewal = patience.begin(self._renew())
            self._renewal.add_done_callback(self._renewed)
            self._patient_until = time() + patience.PATIENCE_SECONDS
        try:
            await patience.in_time(self._renewal, self._patient_until - time())
        except Unavailable as error:
            self._stretch()
            self._tell_loss(error.reason)
            raise

    def end(self) -> None:
        """From here nothing is answered from the cache, whoever still checks."""
        self._ended = True
        self.until = 0

    def heard(self, change: Change) -> None:
        """Applies a change that the bus brought; the log will show it once more.

        What a bus says moves nothing but entries out of the cache.
        """
        self._cache.invalidate(change.tags)
        if len(self._heard) >= _HEARD:
            self._heard.clear()
        self._heard.add(change.seq)

    async def _renew(self) -> None:
        begun = self._clock.now()
        news = await self._news()
        try:
            await self._still_ours()
        except Unavailable:
            self._read_at = None  # another process may serve: nothing declared covers that
            raise
        if self._is_gapless(news):
            for change in news.changes:
                self._cache.invalidate(change.tags)
        else:
            self._cache.clear()
        self._known = news.seq
        if not self._ended:
            self._read_at = begun
            self.until = begun + LEASE_MS
            self.stretched = False
            self._tell_held()
        unheard = [change for change in news.changes if change.seq not in self._heard]
        self._heard = {seq for seq in self._heard if seq > news.seq}
        if unheard:  # its message was lost, and somebody waits
            self._bus.acknowledge(unheard)
            await self._log.note(self._me.id, news.seq)

    async def _news(self) -> News:
        """The news of the log, as one who is a member and not suspected."""
        while True:
            news = await self._log.news(self._me.id, self._known)
            if news.member is None:
                if self._known is not None:
                    log.warning("node.forgotten", extra={"node": self._me.id})
                self._cache.clear()
                self._known = None
                await self._log.join(self._me)
            elif news.member.suspicion is None:
                return news
            elif await self._log.readmit(self._me.id):
                log.info("node.readmitted", extra={"node": self._me.id})
                return news

    def _is_gapless(self, news: News) -> bool:
        if self._known is None or news.seq < self._known:
            return False
        seqs = [change.seq for change in news.changes]
        return seqs == list(range(self._known + 1, news.seq + 1))

    def _stretch(self) -> None:
        """The database is lost: goes on for as long as the operator has declared."""
        if self._read_at is None or self._ended:
            return
        self.until = max(self.until, self._read_at + self._me.lease_ms)
        self.stretched = self._me.lease_ms > LEASE_MS

    def _tell_loss(self, reason: str) -> None:
        """Once for each time: it is stretched, or over."""
        told = self._told
        if self._clock.now() >= self.until:
            told = "lease.lost"
        elif self.stretched:
            told = "lease.stretched"
        if told != self._told:
            log.warning(told, extra={"node": self._me.id, "reason": reason})
        self._told = told

    def _tell_held(self) -> None:
        if self._told != "lease.held":
            log.info("lease.regained", extra={"node": self._me.id})
        self._told = "lease.held"

    def _renewed(self, _task: "asyncio.Task[None]") -> None:
        self._renewal = None


class NoLease:
    """Of a process that is no member: every check reads the database."""

    until = 0
    stretched = False
    seq = 0

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def hold(self) -> None:
        """Nobody joins a read that began before."""
        self._cache.clear()

    async def renew(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def heard(self, change: Change) -> None:
        """Nothing: nothing is kept."""


AnyLease = Lease | NoLease


_ANYBODY = ""
"""The id of whoever may be there: it never answers."""


async def _no() -> bool:
    return False


def _new_mark() -> int:
    return int.from_bytes(os.urandom(7))


class _Asked:
    """A change that is waited for."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.stirred = asyncio.Event()


class Spread:
    """Spreads the changes of this process, and says when nobody goes by the old any more.

    Args:
        me: this process; a member if it serves.
        unlisted: whether somebody serves who is not written down, as after a file was replaced.
        tell: told of each receipt, for the metrics.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        clock: Clock,
        log: Log,
        bus: Bus,
        lease: AnyLease,
        me: Member,
        unlisted: Callable[[], Awaitable[bool]] = _no,
        tell: Callable[[Receipt], None] | None = None,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._log = log
        self._bus = bus
        self._lease = lease
        self._me = me
        self._unlisted = unlisted
        self._tell = tell
        self._asked: dict[int, _Asked] = {}
        self._others: Sequence[Member] = ()
        self._seen: dict[str, tuple[int, int]] = {}
        self._suspecting: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> int:
        """How many nodes there are, as far as we know: 1 or more."""
        return 1 + sum(other.suspicion is None for other in self._others)

    @property
    def nodes_at_most(self) -> int:
        """How many nodes there may be: suspected ones, too, until they are expelled."""
        return 1 + len(self._others)

    @property
    def suspected(self) -> int:
        """How many of the others did not answer in time, and may be forgotten soon."""
        return sum(other.suspicion is not None for other in self._others)

    @property
    def waiting(self) -> int:
        """How many changes wait for others."""
        return len(self._asked)

    async def announce(self, tx: Transaction, tags: tuple[str, ...]) -> Change:
        """Numbers a change in its own transaction, as the last thing there."""
        return Change(await self._log.append(tx, tags, self._me.id), tags, self._me.id)

    def forget(self, tags: Iterable[str]) -> None:
        """Drops what a change may have touched that may have been committed."""
        self._cache.invalidate(tags)

    def acknowledged(self, seq: int, node: str) -> None:
        """A node has applied a change of ours."""
        asked = self._asked.get(seq)
        if asked is not None:
            asked.acknowledged.add(node)
            asked.stirred.set()

    async def settle(self, change: Change) -> Receipt:
        """Returns when no node goes by what was before the change, which is committed.

        Raises:
            Unavailable: the database is lost, and nobody knows whom to wait for.
        """
        committed = self._clock.now()
        self._lease.heard(change)
        self._cache.invalidate(change.tags)
        asked = self._asked[change.seq] = _Asked()
        try:
            others = await self._ask(change)
            late = await self._wait(asked, change.seq, committed, others)
        finally:
            del self._asked[change.seq]
        if late:
            self._tell_late(change, others, late)
            task = patience.begin(self._log.suspect(late, _new_mark()))
            self._suspecting.add(task)
            task.add_done_callback(self._suspecting.discard)
        nodes = isinstance(self._lease, Lease) + len(others)
        waited_ms = self._clock.now() - committed if others else 0
        receipt = Receipt(nodes=nodes, waited_ms=waited_ms)
        if self._tell is not None:
            self._tell(receipt)
        return receipt

    async def look_after_members(self) -> None:
        """Forgets who has been suspected for a whole lease; to be called every second or so.

        Raises:
            Unavailable: the database is lost.
        """
        others = await self.members()
        now = self._clock.now()
        seen, over = dict[str, tuple[int, int]](), dict[str, int]()
        for other in others:
            mark = other.suspicion
            if mark is None:
                continue
            known, since = self._seen.get(other.id, (mark, now))
            if known != mark:
                since = now  # it said that it is there, and was suspected anew
            seen[other.id] = (mark, since)
            if now - since >= other.lease_ms + SLACK_MS:
                over[other.id] = mark
        self._seen = seen
        if over:
            await self._log.expel(over)
            log.warning("node.expelled", extra={"nodes": sorted(over)})

    async def suspect_others(self) -> None:
        """Asks every other member to say that it is there: after a start, for those left dead.

        Raises:
            Unavailable: the database is lost.
        """
        others = await self.members()
        if others:
            await self._log.suspect([other.id for other in others], _new_mark())

    async def finish(self) -> None:
        """Waits for what is still to be noted."""
        if self._suspecting:
            await asyncio.wait(self._suspecting)

    def _tell_late(self, change: Change, others: Sequence[Member], late: Sequence[str]) -> None:
        new = [each.id for each in others if each.suspicion is None and each.id in late and each.id]
        if new:
            log.warning("node.suspected", extra={"nodes": new, "change": change.seq})

    async def _ask(self, change: Change) -> Sequence[Member]:
        """Asks every node over the bus, and gives the members of after the commit."""
        published = patience.begin(self._bus.publish(change))
        others = await self.members()
        if not others and await self._unlisted():
            others = [msgspec.structs.replace(self._me, id=_ANYBODY)]
        await asyncio.wait([published], timeout=SLACK_MS / 1000)
        return others

    async def members(self) -> Sequence[Member]:
        """The other members, as they are written down now; raises Unavailable."""
        members = await self._log.members()
        self._others = [member for member in members if member.id != self._me.id]
        return self._others

    async def _wait(
        self, asked: _Asked, seq: int, committed: int, others: Sequence[Member]
    ) -> Sequence[str]:
        """Waits for a word of each, or until its lease is over; gives those without one."""
        over_at = {other.id: committed + other.lease_ms + SLACK_MS for other in others}
        look_at = committed + _LOOK_MS
        look: asyncio.Task[None] | None = None
        while True:
            now = self._clock.now()
            silent = [id for id in over_at if id not in asked.acknowledged]
            left = [over_at[id] - now for id in silent if over_at[id] > now]
            if not left:
                return silent
            if now >= look_at and (look is None or look.done()):
                # Beside the wait: a database that hangs holds up nobody whose wait is over.
                look = patience.begin(self._look(asked, seq, silent))
                look_at = now + _LOOK_MS
            if now < look_at:
                left.append(look_at - now)
            asked.stirred.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left) / 1000):
                    await asked.stirred.wait()

    async def _look(self, asked: _Asked, seq: int, silent: Iterable[str]) -> None:
        """Takes for an answer what silent members have noted, and that they are none any more."""
        try:
            members = {member.id: member for member in await self.members()}
        finally:
            asked.stirred.set()
        asked.acknowledged |= {
            id
            for id in silent
            if id != _ANYBODY and (id not in members or members[id].applied >= seq)
        }
