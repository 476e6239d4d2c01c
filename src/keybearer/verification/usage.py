"""Who used what, and when: counted in memory, written in batches.

    check  ──▶ Tally     every request adds to it, and to nothing else
    flush  ──▶ Backlog   several times a second, on reading, and at the end: into the database
    secure ──▶           what the database does not take at once goes to the disk

kill -9 loses the last second at the most, while the database is there and while it is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Key
from keybearer.domain.uses import Batch, LastUse, Sample, SecretUse
from keybearer.verification import patience
from keybearer.verification.backlog import Backlog, Write
from keybearer.verification.spill import NewId, Spill

log = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_MS = 700
"""Between two flushes; with the patience and the disk's time it is a second."""
PATIENCE_SECONDS = 0.2
"""How long the database may take for a flush before the disk is asked as well."""
END_SECONDS = 5.0
HANGS_SECONDS = 2.0
"""After so long without an answer the end goes on without the database."""
_HOUR_MS = 3_600_000

ACCEPTED = "accepted"

Uses = tuple[int, int | None, str | None, str | None]
"""How often a key was used, and when, whence and by what the last time."""

_Last = tuple[int, int, str | None, bytes | None]
"""How many requests had one outcome, and when, whence and by what the last of them came."""


class Tally:
    """What happened to one key or session since the last flush, and how much before.

    Attributes:
        accepted: requests since the last flush.
        collected: those that a flush has taken before.
        written: as many of them as are in the database.
        told_ip, told_agent: what was last told to a flush: it stays where later ones tell nothing.
    """

    __slots__ = (
        "__weakref__",
        "accepted",
        "collected",
        "dirty",
        "id",
        "ip",
        "is_key",
        "last",
        "refused",
        "told_agent",
        "told_ip",
        "usage",
        "user_agent",
        "written",
    )

    def __init__(self, usage: "Usage", id: str, *, is_key: bool) -> None:
        self.usage = usage
        self.id = id
        self.is_key = is_key
        self.dirty = False
        self.accepted = self.collected = self.written = 0
        self.refused: dict[str, _Last] | None = None
        self.last = 0
        self.ip: str | None = None
        self.user_agent: bytes | None = None
        self.told_ip: str | None = None
        self.told_agent: bytes | None = None

    def accept(self, now: int, ip: str | None, user_agent: bytes | None) -> None:
        """Counts an accepted request and moves the last use."""
        self.accepted += 1
        self.last = now
        self.ip = ip
        self.user_agent = user_agent
        if not self.dirty:
            self.dirty = True
            self.usage.dirty.append(self)

    def refuse(self, now: int, code: str, ip: str | None, user_agent: bytes | None) -> None:
        """Counts a refused request, and keeps the last of each code; the last use stays."""
        if self.refused is None:
            self.refused = {}
        n = self.refused[code][0] if code in self.refused else 0
        self.refused[code] = (n + 1, now, ip, user_agent)
        if not self.dirty:
            self.dirty = True
            self.usage.dirty.append(self)

    def onto(self, key: Key, *, written: int) -> Key:
        """A key's record with the uses that are not in it: as it is once all is written.

        Args:
            written: what the tally had written when the record was read.
        """
        count, at, ip, user_agent = self.uses(key, written=written)
        return msgspec.structs.replace(
            key,
            request_count=count,
            last_used_at=at,
            last_used_ip=ip,
            last_used_user_agent=user_agent,
        )

    def uses(self, key: Key, *, written: int) -> Uses:
        """The same, but only what it changes of the record."""
        count = key.request_count + self.collected + self.accepted - written
        if not self.last or self.last < (key.last_used_at or 0):
            return count, key.last_used_at, key.last_used_ip, key.last_used_user_agent
        # As the database does: what nobody told stays as it was.
        ip, agent = self.ip, self.user_agent
        if ip is None:
            ip = key.last_used_ip if self.told_ip is None else self.told_ip
        if agent is None:
            agent = self.told_agent
        return count, self.last, ip, key.last_used_user_agent if agent is None else _text(agent)


class SecretTally:
    """The uses of one secret of a rotating key, counted beside those of the key.

    It takes the place of the key's tally where accepted requests are counted.
    """

    __slots__ = ("accepted", "digest", "dirty", "ip", "key", "last")

    def __init__(self, key: Tally, digest: bytes) -> None:
        self.key = key
        self.digest = digest
        self.dirty = False
        self.accepted = 0
        self.last = 0
        self.ip: str | None = None

    def accept(self, now: int, ip: str | None, user_agent: bytes | None) -> None:
        """Counts an accepted request on the secret and on its key."""
        self.accepted += 1
        self.last = now
        self.ip = ip
        if not self.dirty:
            self.dirty = True
            self.key.usage.dirty_secrets.append(self)
        self.key.accept(now, ip, user_agent)


class Usage:
    """The tallies of one process.

    Args:
        write: writes a batch once; see `backlog.Write`.
        limit_state: what a key's rate limit has counted, to be kept beside its last use.
        new_id: makes the ids of batches.
        spill: where batches wait for a lost database; without it, and while the disk takes
            nothing, they wait in memory.

    Attributes:
        totals: requests since the start by kind (`key`, `session`) and outcome; only those whose
            credential was ours, so that nobody skews them with forgeries.
        written_at: when all that was counted had last been written; None before the first time.
    """

    def __init__(
        self,
        write: Write,
        limit_state: Callable[[str], bytes | None],
        *,
        new_id: NewId,
        spill: Spill | None = None,
    ) -> None:
        self._limit_state = limit_state
        self.spill = spill
        self.dirty: list[Tally] = []
        self.dirty_secrets: list[SecretTally] = []
        self.totals: dict[tuple[str, str], int] = {}
        self.written_at: int | None = None
        self._backlog = Backlog(write, new_id, spill, self._note_written)
        self._of_keys: WeakValueDictionary[str, Tally] = WeakValueDictionary()
        self._of_sessions: WeakValueDictionary[str, Tally] = WeakValueDictionary()
        self._unwritten: set[Tally] = set()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Batches that wait for the database, in memory and on the disk."""
        return len(self._backlog)

    def tally(self, id: str, *, is_key: bool) -> Tally:
        """The tally of one id; it is the same one for as long as it has something to write."""
        tallies = self._of_keys if is_key else self._of_sessions
        found = tallies.get(id)
        if found is None:
            found = tallies[id] = Tally(self, id, is_key=is_key)
        return found

    async def flush(self, now: int) -> None:
        """Writes what has been counted; returns when it is written, by whomever.

        After an outage some of what waits on the disk may come later.

        Raises:
            Unavailable: the database is lost, and nothing is: it stays for the next flush.
        """
        task = self._next
        if task is None:
            # Shared by all who come until it begins: behind a database that hangs, each would
            # else wait out the timeouts of everyone before.
            task = self._next = self._begin(self._flush(now))
        # A caller that goes away must not put back what is being committed all the same.
        await asyncio.shield(task)

    async def secure(self, now: int) -> None:
        """Flushes; what the database does not take at once goes to the disk.

        Raises:
            Unavailable: the database is lost.
        """
        if self._backlog.lost:
            await self._to_disk(now)
        else:
            await self._backlog.look(now)
        flush = self._begin(self.flush(now))
        done, _ = await asyncio.wait({flush}, timeout=PATIENCE_SECONDS)
        if not done or flush.exception() is not None:
            await self._to_disk(now)
        if done:
            flush.result()

    async def end(self, now: int) -> None:
        """Writes everything, or leaves it on the disk for whoever comes next.

        A database that hangs is waited for no longer than HANGS_SECONDS, unless the disk takes
        nothing: whoever stops us kills us if we take too long.
        """
        reason = ""
        try:
            await patience.in_time(self._begin(self.flush(now)), HANGS_SECONDS)
            async with self._one_at_a_time:
                await self._backlog.write(now, seconds=END_SECONDS)
        except Unavailable as error:
            reason = error.reason
        kept = await self._to_disk(now)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HANGS_SECONDS if kept else None)
        if not await self._to_disk(now):
            log.error("usage.lost", extra={"reason": reason})
        left = await self._backlog.close()
        if left is not None:
            log.warning("usage.left", extra={"file": left, "reason": reason})

    async def _to_disk(self, now: int) -> bool:
        self._collect(now)
        # A caller that goes away must not take along what is on its way to the disk.
        return await asyncio.shield(self._begin(self._backlog.spill(now)))

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if self._next is task:
            self._next = None  # it was cancelled before it began
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody waiting must not make a warning

    async def _flush(self, now: int) -> None:
        async with self._one_at_a_time:
            self._next = None
            self._collect(now)
            await self._backlog.write(now)
            self.written_at = self.written_at if self._backlog else now

    def _note_written(self, batch: Batch) -> None:
        for uses, tallies in ((batch.keys, self._of_keys), (batch.sessions, self._of_sessions)):
            for use in uses:
                tally = tallies[use.id]  # kept until all of it is written
                tally.written += use.n
                if tally.written == tally.collected:
                    self._unwritten.discard(tally)

    def _collect(self, now: int) -> None:
        dirty, self.dirty = self.dirty, []
        hour = now - now % _HOUR_MS
        sums = self._backlog.sums
        for tally in dirty:
            tally.dirty = False
            accepted, tally.accepted = tally.accepted, 0
            refused, tally.refused = tally.refused, None
            happened = refused or {}
            if accepted:
                happened[ACCEPTED] = (accepted, tally.last, tally.ip, tally.user_agent)
                tally.collected += accepted
                tally.ip = _one_ip(tally.ip)
                tally.user_agent = _one_agent(tally.user_agent)
                tally.told_ip = _told(tally.ip, tally.told_ip)
                tally.told_agent = _told(tally.user_agent, tally.told_agent)
                self._unwritten.add(tally)
                sums.use(self._use(tally, accepted), of_key=tally.is_key)
            kind = "key" if tally.is_key else "session"
            for outcome, (n, at, ip, agent) in happened.items():
                self.totals[kind, outcome] = self.totals.get((kind, outcome), 0) + n
                if not tally.is_key:
                    continue
                sums.count(tally.id, hour, outcome, n)
                sums.sample(
                    Sample(
                        key_id=tally.id, outcome=outcome, at=at, n=n, ip=ip, user_agent=_text(agent)
                    )
                )
        secrets, self.dirty_secrets = self.dirty_secrets, []
        for secret in secrets:
            secret.dirty = False
            n, secret.accepted = secret.accepted, 0
            sums.secret(SecretUse(digest=secret.digest, at=secret.last, ip=secret.ip, n=n))

    def _use(self, tally: Tally, n: int) -> LastUse:
        return LastUse(
            id=tally.id,
            at=tally.last,
            ip=tally.ip,
            user_agent=_text(tally.user_agent),
            n=n,
            limit_state=self._limit_state(tally.id) if tally.is_key else None,
        )


def _text(user_agent: bytes | None) -> str | None:
    """What we keep of a user agent: 200 printable characters."""
    if user_agent is None:
        return None
    text = user_agent[:200].decode("latin-1")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


# Many come by the same address or agent: one text of each is kept, not one a request.


@lru_cache(maxsize=1_024)
def _one_ip(ip: str | None) -> str | None:
    return ip


@lru_cache(maxsize=1_024)
def _one_agent(user_agent: bytes | None) -> bytes | None:
    return user_agent


def _told(*values: T | None) -> T | None:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)
