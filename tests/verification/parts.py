"""A verifier whose database is a dict and whose clock the test moves."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from keybearer.domain.credentials import SERVICE_PREFIX, PepperRing, mint
from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Grant, Kind, Refusal
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import Lease
from keybearer.verification.limiter import Limiter
from keybearer.verification.presented import Presented
from keybearer.verification.usage import Batch, Usage
from keybearer.verification.verifier import Verified, Verifier
from tests.people import SECRET, START, StandingClock

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
    id = fields.pop("id", "k1")
    return Grant(
        kind=kind, **{"subject": "ann", "id": id, "tags": (f"{kind}:{id}", "owner:ann"), **fields}
    )


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


class Bench:
    """A verifier with everything around it in reach."""

    def __init__(
        self,
        *,
        prefixes: tuple[str, ...] = ("kb_",),
        verifier: Callable[..., Verifier] = Verifier,
    ) -> None:
        self.clock = StandingClock()
        self.ring = PepperRing([SECRET.encode()])
        self.cache = Cache(100)
        self.rows = Rows()
        self.epoch = 1
        self.epoch_lost = False
        self.limiter = Limiter()
        self.batches: list[Batch] = []
        self.quota: dict[str, int] = {}
        self.quota_lost = False
        self.quota_gate: asyncio.Event | None = None
        self.consumed: list[tuple[str, int, int]] = []
        self.lease = Lease(self.cache, self.clock, self._read_epoch)
        self.usage = Usage(self._write, self.limiter.state)
        self.verifier = verifier(
            ring=self.ring,
            clock=self.clock,
            cache=self.cache,
            lease=self.lease,
            grants=self.rows,
            limiter=self.limiter,
            usage=self.usage,
            consume=self._consume,
            cookie=COOKIE,
            prefixes=prefixes,
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

    async def _read_epoch(self) -> int:
        if self.epoch_lost:
            raise Unavailable("lost")
        return self.epoch

    async def _write(self, batch: Batch) -> None:
        self.batches.append(batch)

    async def _consume(self, id: str, cost: int, now: int) -> int | None:
        self.consumed.append((id, cost, now))
        if self.quota_gate is not None:
            await self.quota_gate.wait()
        if self.quota_lost:
            raise Unavailable("lost")
        if self.quota[id] < cost:
            return None
        self.quota[id] -= cost
        return self.quota[id]


__all__ = ["ALL", "COOKIE", "START", "Bench", "Rows", "bearer", "grant", "header", "new_key"]
