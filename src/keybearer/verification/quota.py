"""Quotas: units of a key, taken from the database and spent here.

    database   remaining 50 000 ──── UPDATE: 3 for who waits, 48 ahead ────▶ 49 949
    chunk                                          48 │ 47 │ 46 …  spent without a word
    refused    only by the database, never by a chunk: what another process has may come back

The database decides, in one statement that takes only what is there. A key that is asked for again
within a second takes some units ahead, its chunk: twice as many with each time, at most a
thousandth of what is left then, and at most 10 000. So under a thousand units are taken one by one.
Requests that find too little share one statement; each is met whole or not at all.

A chunk is good as long as a cached grant is: under the lease, until somebody touches its key, and
not longer than five seconds. Then its units go back, and so do all when the process ends. They go
back only to the number that they came from (`quota_version`): where the owner has set another, or
it was refilled, they are void. At the instant of the next refill a chunk is void by itself.

No unit is spent twice: it is spent or put back once, and nothing is tried again whose answer was
lost. What kill -9 or a lost answer can leave unspent is one chunk a key and process, and what the
requests under way had asked for.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from keybearer.domain.errors import Unavailable
from keybearer.domain.limits import CHUNK_MAX, CHUNK_SHARE
from keybearer.domain.model import Grant
from keybearer.domain.ports import Clock
from keybearer.domain.uses import Taken, Unspent
from keybearer.verification import patience
from keybearer.verification.cache import Cache
from keybearer.verification.lease import AnyLease

BUSY_MS = 1_000
"""A key that takes again within this time takes some ahead."""

CHUNK_LIFE_MS = 5_000
"""What was taken and is not spent is not good after this, and goes back within a second."""

PATIENCE_SECONDS = 5.0
"""How long a request waits for its share."""

log = logging.getLogger("keybearer")


class Quotas(Protocol):
    """Where units come from; each method raises Unavailable, and then it may have happened."""

    async def take(
        self, id: str, costs: Sequence[int], *, own: int, version: int, ahead: int, now: int
    ) -> Taken | None:
        """Takes what `costs` need beyond what is `own`; None when none of them is met."""
        ...

    async def give_back(self, unspent: Sequence[Unspent]) -> None:
        """Puts units back where their quota is still of the same version."""
        ...


class Left(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was left when this process last took units; what others held then counts as spent."""

    remaining: int
    refilled_at: int | None


_Request = tuple[int, "asyncio.Future[Left | None]"]
"""What it costs, and what it waits for: what is left, or None when there is too little."""


class _Chunk:
    """The units of one key that this process has taken, and the requests that wait for more."""

    __slots__ = ("ahead", "begun", "ends_at", "flight", "id", "left", "owner_id", "refilled_at",
                 "tags", "taken_at", "units", "version", "waiting")  # fmt: skip

    def __init__(self, grant: Grant) -> None:
        self.id = grant.id
        self.owner_id = grant.session.subject
        self.tags = grant.tags
        self.units = self.ahead = self.left = self.version = 0
        self.refilled_at: int | None = None
        self.begun = self.taken_at = self.ends_at = 0
        self.waiting: list[_Request] = []
        self.flight: asyncio.Task[None] | None = None


class Quota:
    """The units of one process. All methods run on the event loop's thread."""

    def __init__(self, *, quotas: Quotas, cache: Cache, lease: AnyLease, clock: Clock) -> None:
        self._quotas = quotas
        self._cache = cache
        self._lease = lease
        self._clock = clock
        self._chunks: dict[str, _Chunk] = {}
        self._unspent: dict[tuple[str, int], int] = {}
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._chunks)

    def has(self, id: str, now: int, cost: int = 1) -> bool:
        """Whether `spend` will spend so much of a key's chunk."""
        chunk = self._chunks.get(id)
        return (
            chunk is not None
            and chunk.units >= cost
            and now < self._lease.until
            and self._stands(chunk, now)
        )

    def spend(self, id: str, now: int, cost: int = 1) -> Left | None:
        """Spends of a key's chunk; None, and nothing spent, where that does not suffice."""
        if not self.has(id, now, cost):
            return None
        chunk = self._chunks[id]
        chunk.units -= cost
        return Left(remaining=chunk.left + chunk.units, refilled_at=chunk.refilled_at)

    async def take(self, grant: Grant, cost: int) -> Left | None:
        """Takes from a key's quota, exactly; None, and nothing taken, when there is too little.

        Raises:
            Unavailable: the database is lost, or does not answer in time.
        """
        left = self.spend(grant.id, self._clock.now(), cost)
        if left is not None:
            return left
        chunk = self._chunks.get(grant.id)
        if chunk is None:
            chunk = self._chunks[grant.id] = _Chunk(grant)
        answer: asyncio.Future[Left | None] = asyncio.get_running_loop().create_future()
        chunk.waiting.append((cost, answer))
        if chunk.flight is None:
            chunk.flight = patience.begin(self._fly(chunk))
        try:
            return await patience.in_time(answer, PATIENCE_SECONDS)
        finally:
            answer.cancel()  # who has gone away spends nothing

    async def give_back(self, id: str | None = None, *, owner_id: str | None = None) -> None:
        """Puts back what is unspent of one key, or of an owner's, or all; returns when it is.

        Raises:
            Unavailable: the database was lost, and these units with it.
        """
        chunks = list(self._chunks.values())
        if id is not None:
            chunks = [self._chunks[id]] if id in self._chunks else []
        for chunk in chunks:
            if owner_id in (None, chunk.owner_id):
                self._put_back(chunk)
        await self._write_unspent()

    async def give_back_old(self) -> None:
        """Puts back what is no longer good; for the work beside the requests.

        Raises:
            Unavailable: as `give_back`.
        """
        now = self._clock.now()
        for chunk in list(self._chunks.values()):
            if chunk.flight is None and not self._stands(chunk, now):
                del self._chunks[chunk.id]
                self._put_back(chunk)
        await self._write_unspent()

    async def end(self) -> None:
        """Puts all back, once nothing is on its way any more.

        Raises:
            Unavailable: as `give_back`.
        """
        flights = [chunk.flight for chunk in self._chunks.values() if chunk.flight is not None]
        if flights:
            await asyncio.wait(flights)
        await self.give_back()

    # --- one statement for all who wait ---

    async def _fly(self, chunk: _Chunk) -> None:
        try:
            while requests := [each for each in chunk.waiting if not each[1].done()]:
                chunk.waiting = []
                try:
                    await self._serve(chunk, requests)
                except Exception as error:  # noqa: BLE001 -- whatever it is, it is theirs who wait
                    for _, answer in requests:
                        if not answer.done():
                            answer.set_exception(error)
        finally:
            chunk.waiting = []
            chunk.flight = None

    async def _serve(self, chunk: _Chunk, requests: list[_Request]) -> None:
        now = self._clock.now()
        begun = self._cache.generation
        costs = [cost for cost, _ in requests]
        total = sum(costs)
        own = self._claim(chunk, now)
        taken: Taken | None = None
        met: Sequence[bool] = [own >= total] * len(costs)
        try:
            if own < total:
                ahead = self._ahead(chunk, total, now)
                taken = await self._quotas.take(
                    chunk.id, costs, own=own, version=chunk.version, ahead=ahead, now=now
                )
        finally:
            chunk.units += own
        if taken is not None:
            if taken.version != chunk.version:
                chunk.units = 0  # of a number that is no more
            met = taken.met
            chunk.units += taken.units
            chunk.left, chunk.ahead, chunk.version = taken.left, taken.ahead, taken.version
            chunk.refilled_at = taken.refilled_at
            chunk.begun, chunk.taken_at, chunk.ends_at = begun, now, now + CHUNK_LIFE_MS
            if taken.refill_at is not None:
                chunk.ends_at = min(chunk.ends_at, taken.refill_at)
        chunk.waiting = [*_share(chunk, requests, met), *chunk.waiting]

    def _claim(self, chunk: _Chunk, now: int) -> int:
        """Takes the units out of a chunk that may be spent: nobody else shall, meanwhile."""
        if not self._stands(chunk, now):
            self._put_back(chunk)
        if now >= self._lease.until:
            return 0
        own, chunk.units = chunk.units, 0
        return own

    def _ahead(self, chunk: _Chunk, total: int, now: int) -> int:
        """How many units to take ahead: about what the key spends in a second, as it seems."""
        if now >= self._lease.until or now - chunk.taken_at >= BUSY_MS:
            return 0
        share = max(0, chunk.left - total) // CHUNK_SHARE
        return min(CHUNK_MAX, share, max(total, 2 * chunk.ahead))

    # --- what is void, and what goes back ---

    def _stands(self, chunk: _Chunk, now: int) -> bool:
        """Whether nobody has touched the key since its units were taken, and they are not old."""
        if now >= chunk.ends_at:
            return False
        generation = self._cache.generation
        if chunk.begun != generation:
            if not self._cache.untouched(chunk.tags, since=chunk.begun):
                return False
            chunk.begun = generation
        return True

    def _put_back(self, chunk: _Chunk) -> None:
        units, chunk.units, chunk.ahead = chunk.units, 0, 0
        if units:
            of = (chunk.id, chunk.version)
            self._unspent[of] = self._unspent.get(of, 0) + units

    async def _write_unspent(self) -> None:
        async with self._one_at_a_time:
            unspent, self._unspent = self._unspent, {}
            if not unspent:
                return
            try:
                await self._quotas.give_back(
                    [
                        Unspent(key_id=id, version=version, units=units)
                        for (id, version), units in sorted(unspent.items())
                    ]
                )
            except Unavailable:
                # Perhaps they are back: to try again might put them back twice.
                log.warning("quota.lost", extra={"units": sum(unspent.values())})
                raise


def _share(chunk: _Chunk, requests: Sequence[_Request], met: Sequence[bool]) -> list[_Request]:
    """Tells each what it has got, and gives those that must ask again.

    The units of whoever has gone away stay, for whoever comes next.
    """
    again: list[_Request] = []
    for enough, request in zip(met, requests, strict=True):
        cost, answer = request
        if answer.done():
            continue
        if not enough:
            answer.set_result(None)
        elif cost > chunk.units:
            again.append(request)  # what was counted on is void
        else:
            chunk.units -= cost
            left = chunk.left + chunk.units
            answer.set_result(Left(remaining=left, refilled_at=chunk.refilled_at))
    return again
