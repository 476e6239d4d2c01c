"""How a change reaches every node, and when its receipt may be given; see `coherence.py`."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from keybearer.domain.changes import Change, Member
from keybearer.domain.ports import Clock, Transaction
from keybearer.verification import patience
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, SLACK_MS, Bus, Log, Receipt
from keybearer.verification.lease import AnyLease, Lease

log = logging.getLogger("keybearer")

_LOOK_MS = 200
"""After so long without an answer the members are read again: what has each read of the log?"""

_PUBLISH_SECONDS = 0.05
"""How long a bus that hangs is waited for; the log in the database tells the same, only later."""

_ANYBODY = ""
"""The id of whoever may be there: it never answers."""


async def _no() -> bool:
    return False


def _longest(member: Member) -> int:
    """How long, by our clock, a member may go by what it had read; milliseconds.

    What its lease is stretched by goes by a clock that nobody sets right: it may be off by 0.1 %.
    """
    stretch = max(0, member.lease_ms - LEASE_MS)
    return member.lease_ms + SLACK_MS + stretch // 1000


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
            if now - since >= _longest(other):
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
        await asyncio.wait([published], timeout=_PUBLISH_SECONDS)
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
        over_at = {other.id: committed + _longest(other) for other in others}
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
