"""Cached speed without stale answers: leases on the database's epoch.

A process answers from its cache only while it holds a lease. To get one it reads the epoch, one
row, and holds it for 2 s counted from before the read:

    server    read epoch 7 ──────────── lease 2 s ────────────▶ read epoch 8: drop the cache
    visitor        │ revoke: UPDATE …, epoch = 8, COMMIT ── waits 2 s ──▶ "revoked"
                   ▼
              from here no new lease on epoch 7 can begin; the last one is over before the answer

A change by the serving process itself drops its own entries at once and waits for nobody: it is
the only one (`Serving`). A process beside it, the command above all, has no cache; it moves the
epoch in the transaction of its change and then waits out the longest possible lease
(`Visiting`), unless nobody serves.

Without a lease every check first renews it, which reads the database; when the database is lost
that raises Unavailable, and the answer is 503.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from keybearer.domain.ports import Clock, Transaction
from keybearer.verification.cache import Cache

LEASE_MS = 2_000
RENEW_MS = 500
_WAIT_MS = LEASE_MS + 50
"""Clocks of two processes have milliseconds that begin elsewhere, and crystals that differ."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How a change ended: how many processes had to stop, and how long that took."""

    nodes: int
    waited_ms: int


class Lease:
    """The right to answer from the cache, for two seconds at a time.

    Args:
        read_epoch: reads the epoch from the database; raises Unavailable.
    """

    def __init__(
        self, cache: Cache, clock: Clock, read_epoch: Callable[[], Awaitable[int]]
    ) -> None:
        self.until = 0
        self._cache = cache
        self._clock = clock
        self._read_epoch = read_epoch
        self._epoch: int | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Returns once the lease is held.

        A renewal that began before we came may end with a lease that is over already: then
        another one is made.

        Raises:
            Unavailable: the database is lost.
        """
        while self._clock.now() >= self.until:
            await self.renew()

    async def renew(self) -> None:
        """Renews now; whoever comes meanwhile waits for the same renewal."""
        if self._renewal is None:
            self._renewal = asyncio.ensure_future(self._renew())
            self._renewal.add_done_callback(self._renewed)
        await asyncio.shield(self._renewal)

    async def _renew(self) -> None:
        begun = self._clock.now()
        epoch = await self._read_epoch()
        if epoch != self._epoch:
            self._cache.clear()
            self._epoch = epoch
        self.until = begun + LEASE_MS

    def _renewed(self, task: "asyncio.Task[None]") -> None:
        self._renewal = None
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody waiting must not make a warning


class Serving:
    """Spreads changes of the one process that serves: its own cache is the only one."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def announce(self, tx: Transaction) -> None:
        """Nothing to tell inside the transaction."""

    async def settle(self, tags: Iterable[str]) -> Receipt:
        """Drops what the change touches; when this returns nobody accepts it any more."""
        self._cache.invalidate(tags)
        return Receipt(nodes=1, waited_ms=0)


class Visiting:
    """Spreads changes of a process beside the serving one: the command, a script.

    Args:
        bump: moves the epoch, inside the change's transaction.
        somebody_serves: whether a serving process holds the lock on this database.
        sleep: waits seconds.
    """

    def __init__(
        self,
        cache: Cache,
        clock: Clock,
        bump: Callable[[Transaction], Awaitable[None]],
        somebody_serves: Callable[[], Awaitable[bool]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._bump = bump
        self._somebody_serves = somebody_serves
        self._sleep = sleep

    async def announce(self, tx: Transaction) -> None:
        """Moves the epoch together with the change."""
        await self._bump(tx)

    async def settle(self, tags: Iterable[str]) -> Receipt:
        """Waits until no lease on an older epoch can be held any more."""
        committed = self._clock.now()
        self._cache.invalidate(tags)
        if not await self._somebody_serves():
            return Receipt(nodes=0, waited_ms=0)
        while (waited := self._clock.now() - committed) < _WAIT_MS:
            await self._sleep((_WAIT_MS - waited) / 1000)
        return Receipt(nodes=1, waited_ms=waited)


Spread = Serving | Visiting
