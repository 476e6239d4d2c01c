"""A verifier whose database is a dict and whose clock the test moves."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from keybearer.domain.changes import Change, Member, News
from keybearer.domain.credentials import SERVICE_PREFIX, PepperRing, mint
from keybearer.domain.errors import PlaceLost, Unavailable
from keybearer.domain.foreign import Scheme
from keybearer.domain.limits import CHUNK_SHARE, ration
from keybearer.domain.model import Bars, Grant, Kind, Refusal, Session, bars_of, pack
from keybearer.domain.ports import Clock
from keybearer.domain.uses import Batch, Taken, Unspent
from keybearer.verification.cache import Cache, Entry
from keybearer.verification.coherence import LEASE_MS, NoBus
from keybearer.verification.lease import Lease
from keybearer.verification.limiter import Limiter
from keybearer.verification.presented import Presented
from keybearer.verification.quota import Quota
from keybearer.verification.shared import SharedLimiter
from keybearer.verification.usage import Usage
from keybearer.verification.verifier import Verified, Verifier
from tests.people import SECRET, START, StandingClock, fresh_id

COOKIE = "keybearer.session_token"
ALL: frozenset[Kind] = frozenset({"key", "session", "access", "service"})


def new_key() -> bytes:
    return mint("kb_", os.urandom).reveal().encode()


def new_service_token() -> bytes:
    return mint(SERVICE_PREFIX, os.urandom).reveal().encode()


def _new_credential(kind: Kind) -> bytes:
    if kind == "key":
        return new_key()
    if kind == "service":
        return new_service_token()
    return b"a.b.c" if kind == "access" else os.urandom(16).hex().encode()


def bearer(credential: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + credential), (b"user-agent", b"tests")]


def header(credential: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-api-key", credential)]


def grant(kind: Kind = "key", **fields: Any) -> Grant:
    """A grant by the fields of its session, of its bars, and its own."""
    session, bars = (
        {name: fields.pop(name) for name in type_.__struct_fields__ if name in fields}
        for type_ in (Session, Bars)
    )
    record = fields.pop("record", None)
    return Grant(
        session=Session(**{"kind": kind, "subject": "ann", "id": "k1", **session}),
        bars=bars_of(**bars),
        packed=None if record is None else pack(record),
        **fields,
    )


def entry(*tags: str, **fields: Any) -> Entry:
    """An entry that depends on what the tags name, and on little else."""
    ids = dict(tag.split(":", 1) for tag in tags)
    kind: Kind = next((kind for kind in ("session", "service") if kind in ids), "key")
    made = grant(kind, **{"subject": ids.get("owner", "-"), "id": ids.get(kind, "-"), **fields})
    nothing: Any = None
    return Entry(grant=made, session=made.session, tally=nothing, uses=nothing, fresh_until=1 << 60)


class Rows:
    """Grants as a database would give them: slowly when told to, and counting the reads."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Grant | Refusal] = {}
        self.reads: list[tuple[Kind, bytes]] = []
        self.lost = False
        self.gate: asyncio.Event | None = None

    async def _read(self, kind: Kind, credential: bytes) -> Grant | Refusal | None:
        self.reads.append((kind, credential))
        found = self.rows.get(credential)
        if self.gate is not None:
            await self.gate.wait()
        if self.lost:
            raise Unavailable("lost")
        return found

    async def key(self, credential: bytes) -> Grant | None:
        found = await self._read("key", credential)
        assert not isinstance(found, Refusal)
        return found

    async def session(self, token: bytes) -> Grant | None:
        found = await self._read("session", token)
        assert not isinstance(found, Refusal)
        return found

    async def service(self, token: bytes) -> Grant | None:
        found = await self._read("service", token)
        assert not isinstance(found, Refusal)
        return found

    async def access(self, token: bytes) -> Grant | Refusal:
        return await self._read("access", token) or Refusal(code="INVALID_ACCESS_TOKEN")

    async def foreign(self, credential: bytes, schemes: frozenset[Scheme]) -> Grant | None:
        assert schemes
        return await self.key(b"foreign " + credential)


class MemoryLog:
    """The log of a database that is a few values; no transaction is needed.

    Attributes:
        lost: every call raises Unavailable.
        taken: another process serves.
        check_lost: the database is lost when it is asked for the serving lock.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.marks = {0: 0}
        self._drawn = 0
        self.nodes: dict[str, Member] = {}
        self.lost = self.taken = self.check_lost = False
        self.reads = 0

    @property
    def seq(self) -> int:
        return self.changes[-1].seq if self.changes else 0

    def change(self, *tags: str, origin: str = "another") -> Change:
        """What another node has committed."""
        made = Change(self.seq + 1, tags, origin)
        self.changes.append(made)
        self._drawn += 1
        self.marks[made.seq] = self._drawn
        return made

    def lose(self, many: int) -> None:
        """The log goes back: its last changes are lost."""
        for lost in self.changes[-many:]:
            del self.marks[lost.seq]
        del self.changes[-many:]

    async def append(self, tx: object, tags: tuple[str, ...], origin: str) -> int:
        self._ask()
        return self.change(*tags, origin=origin).seq

    async def news(self, node: str, after: int | None) -> News:
        self._ask()
        self.reads += 1
        later = [] if after is None else [each for each in self.changes if each.seq > after]
        return News(
            seq=self.seq,
            mark=self.marks[self.seq],
            mark_after=None if after is None else self.marks.get(after),
            changes=later,
            member=self.nodes.get(node),
        )

    async def members(self) -> Sequence[Member]:
        self._ask()
        return list(self.nodes.values())

    async def join(self, member: Member) -> None:
        self._ask()
        self.nodes[member.id] = member

    async def readmit(self, node: str) -> bool:
        self._ask()
        if node not in self.nodes:
            return False
        self.nodes[node] = msgspec.structs.replace(self.nodes[node], suspicion=None)
        return True

    async def note(self, node: str, seq: int, mark: int | None) -> None:
        self._ask()
        same = seq in self.marks and self.marks[seq] == mark
        if same and node in self.nodes and self.nodes[node].applied < seq:
            self.nodes[node] = msgspec.structs.replace(self.nodes[node], applied=seq)

    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        self._ask()
        for id in nodes:
            if id in self.nodes and self.nodes[id].suspicion is None:
                self.nodes[id] = msgspec.structs.replace(self.nodes[id], suspicion=mark)

    async def expel(self, suspects: Mapping[str, int]) -> None:
        self._ask()
        for id, mark in suspects.items():
            if id in self.nodes and self.nodes[id].suspicion == mark:
                del self.nodes[id]

    async def leave(self, node: str) -> None:
        self._ask()
        self.nodes.pop(node, None)

    async def check(self) -> None:
        """The serving lock."""
        if self.taken:
            raise PlaceLost("another process serves")
        if self.check_lost:
            raise Unavailable("lost")

    def _ask(self) -> None:
        if self.lost:
            raise Unavailable("lost")


def lease_on(log: MemoryLog, cache: Cache, clock: Clock, *, stale_ms: int = 0) -> Lease:
    """The lease of a node on a log, with no bus."""
    return Lease(
        cache=cache,
        clock=clock,
        log=log,
        bus=NoBus(),
        me=Member(id="bench", lease_ms=LEASE_MS + stale_ms),
        still_ours=log.check,
    )


class Numbers:
    """Quotas as a database would hold them: slow or lost when told to, and writing down."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.version = 0
        self.refilled_at: int | None = None
        self.refill_at: int | None = None
        self.taken: list[tuple[tuple[int, ...], int, int]] = []
        self.back: list[Unspent] = []
        self.lost = False
        self.gate: asyncio.Event | None = None

    async def take(
        self, id: str, costs: Sequence[int], *, own: int, version: int, ahead: int, now: int
    ) -> Taken | None:
        self.taken.append((tuple(costs), own, ahead))
        await self._answer()
        held = self.left[id]
        met, need = tuple([True] * len(costs)), sum(costs) - own
        if held < need + ahead * CHUNK_SHARE:
            met, need = ration(costs, own if version == self.version else 0, held)
            if not any(met):
                return None
            ahead = min(ahead, (held - need) // CHUNK_SHARE)
        self.left[id] -= need + ahead
        return Taken(
            met=met,
            units=need + ahead,
            ahead=ahead,
            left=self.left[id],
            version=self.version,
            refilled_at=self.refilled_at,
            refill_at=self.refill_at,
        )

    async def give_back(self, unspent: Sequence[Unspent]) -> None:
        self.back += unspent
        await self._answer()
        for each in unspent:
            if each.version == self.version:
                self.left[each.key_id] += each.units

    async def _answer(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.lost:
            raise Unavailable("lost")


class Bench:
    """A verifier with everything around it in reach."""

    def __init__(
        self,
        *,
        prefixes: tuple[str, ...] = ("kb_",),
        stale_ms: int = 0,
        verifier: Callable[..., Verifier] = Verifier,
        shared: SharedLimiter | None = None,
    ) -> None:
        self.clock = StandingClock()
        self.ring = PepperRing([SECRET.encode()])
        self.cache = Cache(100)
        self.rows = Rows()
        self.log = MemoryLog()
        self.limiter = Limiter()
        self.batches: list[Batch] = []
        self.quotas = Numbers()
        self.lease = lease_on(self.log, self.cache, self.clock, stale_ms=stale_ms)
        self.usage = Usage(self._write, self.limiter.state, new_id=fresh_id)
        self.verifier = verifier(
            ring=self.ring,
            clock=self.clock,
            cache=self.cache,
            lease=self.lease,
            grants=self.rows,
            limiter=self.limiter,
            usage=self.usage,
            quota=Quota(quotas=self.quotas, cache=self.cache, lease=self.lease, clock=self.clock),
            cookie=COOKIE,
            prefixes=prefixes,
            shared=shared,
        )

    def add(self, kind: Kind = "key", *, credential: bytes | None = None, **fields: Any) -> bytes:
        """Puts a credential into the database, and gives it."""
        if credential is None:
            credential = _new_credential(kind)
        self.rows.rows[credential] = grant(kind, **fields)
        return credential

    async def check(self, credential: bytes, **options: Any) -> Verified | Refusal:
        options.setdefault("ip", "203.0.113.7")
        presented = Presented(credential, options.pop("via", "bearer"), b"tests")
        return await self.verifier.check(presented, options.pop("ip"), **options)

    async def code(self, credential: bytes, **options: Any) -> str:
        """`ok`, or the code of the refusal."""
        verdict = await self.check(credential, **options)
        return verdict.code if isinstance(verdict, Refusal) else "ok"

    async def flush(self) -> None:
        await self.usage.flush(self.clock.now())

    def counted(self) -> dict[str, int]:
        """What was flushed, by outcome."""
        total: dict[str, int] = {}
        for batch in self.batches:
            for count in batch.counts:
                total[count.outcome] = total.get(count.outcome, 0) + count.n
        return total

    async def _write(self, batch: Batch, _settled: Sequence[str]) -> None:
        self.batches.append(batch)


__all__ = [
    "ALL",
    "COOKIE",
    "START",
    "Bench",
    "Numbers",
    "Rows",
    "bearer",
    "grant",
    "header",
    "new_key",
]
