"""Who used what, and when: counted in memory, written in batches.

    check ──▶ Tally          every request adds to it, and to nothing else
    flush ──▶ _Collected     every second, on reading, and at the end
          ──▶ Batch          written in one transaction; a lost database loses nothing:
                             what was collected waits for the next flush

kill -9 loses the last second at the most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from keybearer.domain.model import Count, Key, LastUse, Sample, SecretUse

FLUSH_MS = 1_000
_HOUR_MS = 3_600_000

ACCEPTED = "accepted"

_Last = tuple[int, int, str | None, bytes | None]
"""How many requests had one outcome, and when, whence and by what the last of them came."""


class Tally:
    """What happened to one key or session since the last flush, and how much before.

    Attributes:
        accepted: requests since the last flush.
        collected: those that a flush has taken before.
        written: as many of them as are in the database.
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
        count = key.request_count + self.collected + self.accepted - written
        if not self.last or self.last < (key.last_used_at or 0):
            return msgspec.structs.replace(key, request_count=count)
        agent = _text(self.user_agent)
        return msgspec.structs.replace(
            key,
            request_count=count,
            last_used_at=self.last,
            # As the database does: what nobody told stays as it was.
            last_used_ip=key.last_used_ip if self.ip is None else self.ip,
            last_used_user_agent=key.last_used_user_agent if agent is None else agent,
        )


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


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One flush: everything that is written together; sorted, so that two cannot deadlock."""

    counts: Sequence[Count]
    keys: Sequence[LastUse]
    sessions: Sequence[LastUse]
    secrets: Sequence[SecretUse]
    samples: Sequence[Sample]


Write = Callable[[Batch], Awaitable[None]]


class _Collected:
    """What was taken from the tallies and is not written: the sum and the last of each."""

    __slots__ = ("counts", "keys", "samples", "secrets", "sessions")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int, str], int] = {}
        self.keys: dict[str, LastUse] = {}
        self.sessions: dict[str, LastUse] = {}
        self.secrets: dict[bytes, SecretUse] = {}
        self.samples: dict[tuple[str, str], Sample] = {}

    def __bool__(self) -> bool:
        return bool(self.counts or self.sessions)  # whatever is a key's is counted

    def count(self, key_id: str, hour: int, outcome: str, n: int) -> None:
        name = (key_id, hour, outcome)
        self.counts[name] = self.counts.get(name, 0) + n

    def sample(self, later: Sample) -> None:
        name = (later.key_id, later.outcome)
        earlier = self.samples.get(name)
        # However long the database is lost, one of each is kept: of the last minute.
        same = earlier is not None and earlier.minute == later.minute
        self.samples[name] = _together(earlier, later) if same else later

    def batch(self) -> Batch:
        return Batch(
            counts=[
                Count(key_id=key_id, hour=hour, outcome=outcome, n=n)
                for (key_id, hour, outcome), n in sorted(self.counts.items())
            ],
            keys=_sorted(self.keys),
            sessions=_sorted(self.sessions),
            secrets=_sorted(self.secrets),
            samples=_sorted(self.samples),
        )


class Usage:
    """The tallies of one process.

    Args:
        write: writes a batch in one transaction; raises Unavailable.
        limit_state: what a key's rate limit has counted, to be kept beside its last use.

    Attributes:
        totals: requests since the start by kind (`key`, `session`) and outcome; only those whose
            credential was ours, so that nobody skews them with forgeries.
        written_at: when all that was counted had last been written; None before the first time.
    """

    def __init__(self, write: Write, limit_state: Callable[[str], bytes | None]) -> None:
        self._write = write
        self._limit_state = limit_state
        self.dirty: list[Tally] = []
        self.dirty_secrets: list[SecretTally] = []
        self.totals: dict[tuple[str, str], int] = {}
        self.written_at: int | None = None
        self._collected = _Collected()
        self._tallies: WeakValueDictionary[tuple[bool, str], Tally] = WeakValueDictionary()
        self._unwritten: set[Tally] = set()
        self._one_at_a_time = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        self._next: asyncio.Task[None] | None = None

    def tally(self, id: str, *, is_key: bool) -> Tally:
        """The tally of one id; it is the same one for as long as it has something to write."""
        found = self._tallies.get((is_key, id))
        if found is None:
            found = self._tallies[is_key, id] = Tally(self, id, is_key=is_key)
        return found

    async def flush(self, now: int) -> None:
        """Writes what has been counted; returns when all of it is written, by whomever.

        Raises:
            Unavailable: nothing was written, and nothing is lost: it stays for the next flush.
        """
        task = self._next
        if task is None:
            # Shared by all who come until it begins: behind a database that hangs, each would
            # else wait out the timeouts of everyone before.
            task = self._next = asyncio.ensure_future(self._flush(now))
            self._flushes.add(task)
            task.add_done_callback(self._flushed)
        # A caller that goes away must not put back what is being committed all the same.
        await asyncio.shield(task)

    def _flushed(self, task: "asyncio.Task[None]") -> None:
        self._flushes.discard(task)
        if self._next is task:
            self._next = None  # it was cancelled before it began
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody waiting must not make a warning

    async def _flush(self, now: int) -> None:
        async with self._one_at_a_time:
            self._next = None
            self._collect(now)
            if self._collected:
                await self._write_collected()
            self.written_at = now

    async def _write_collected(self) -> None:
        # Nobody collects meanwhile; and what was not written is there for the next flush.
        await self._write(self._collected.batch())
        self._collected = _Collected()
        for tally in self._unwritten:
            tally.written = tally.collected
        self._unwritten.clear()

    def _collect(self, now: int) -> None:
        dirty, self.dirty = self.dirty, []
        hour = now - now % _HOUR_MS
        for tally in dirty:
            tally.dirty = False
            accepted, tally.accepted = tally.accepted, 0
            refused, tally.refused = tally.refused, None
            happened = refused or {}
            if accepted:
                happened[ACCEPTED] = (accepted, tally.last, tally.ip, tally.user_agent)
                tally.collected += accepted
                self._unwritten.add(tally)
                self._collect_use(tally, accepted)
            kind = "key" if tally.is_key else "session"
            for outcome, (n, at, ip, agent) in happened.items():
                self.totals[kind, outcome] = self.totals.get((kind, outcome), 0) + n
                if not tally.is_key:
                    continue
                self._collected.count(tally.id, hour, outcome, n)
                self._collected.sample(
                    Sample(
                        key_id=tally.id, outcome=outcome, at=at, n=n, ip=ip, user_agent=_text(agent)
                    )
                )
        self._collect_secrets()

    def _collect_secrets(self) -> None:
        dirty, self.dirty_secrets = self.dirty_secrets, []
        uses = self._collected.secrets
        for secret in dirty:
            secret.dirty = False
            n, secret.accepted = secret.accepted, 0
            use = SecretUse(digest=secret.digest, at=secret.last, ip=secret.ip, n=n)
            uses[secret.digest] = _together(uses.get(secret.digest), use)

    def _collect_use(self, tally: Tally, n: int) -> None:
        uses = self._collected.keys if tally.is_key else self._collected.sessions
        use = LastUse(
            id=tally.id,
            at=tally.last,
            ip=tally.ip,
            user_agent=_text(tally.user_agent),
            n=n,
            limit_state=self._limit_state(tally.id) if tally.is_key else None,
        )
        uses[tally.id] = _together(uses.get(tally.id), use)


N = TypeVar("N", str, bytes, tuple[str, str])
U = TypeVar("U", LastUse, SecretUse, Sample)


def _together(earlier: U | None, later: U) -> U:
    """One out of two that were collected in this order: all of both, and the newest of them."""
    if earlier is None:
        return later
    newer = later if later.at >= earlier.at else earlier
    return msgspec.structs.replace(newer, n=earlier.n + later.n)


def _sorted(named: Mapping[N, U]) -> list[U]:
    return [named[name] for name in sorted(named)]


def _text(user_agent: bytes | None) -> str | None:
    """What we keep of a user agent: 200 printable characters."""
    if user_agent is None:
        return None
    text = user_agent[:200].decode("latin-1")
    return "".join(char if char.isprintable() else "?" for char in text)
