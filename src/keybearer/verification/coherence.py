"""Cached speed without stale answers: leases on the database's epoch.

A process answers from its cache only while it holds a lease. To get one it reads the epoch, one
row, and holds it for 2 s counted from before the read:

    server    read epoch 7 ──────────── lease 2 s ────────────▶ read epoch 8: drop the cache
    visitor        │ revoke: UPDATE …, epoch = 8, COMMIT ── waits 2 s ──▶ "revoked"
                   ▼
              from here no new lease on epoch 7 can begin; the last one is over before the answer

A change by the serving process itself drops its own entries at once and waits for nobody: it is
the only one (`Serving`), and makes sure of that in the transaction of the change. Only after it
took over from a process that has not let go, its changes wait until the other's lease is over:

    old one    lease 2 s ─────┤ lost the lock, and goes on ├─▶ no lease
    server          takes over │ revoke: UPDATE …, COMMIT ─── waits ──▶ "revoked"

A process beside it, the command above all, has no cache; it moves the epoch in the transaction of
its change and then waits out the longest possible lease (`Visiting`), unless nobody serves.

Without a lease every check first renews it, which reads the database; when the database is lost
that raises Unavailable, and the answer is 503.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Clock, Transaction
from keybearer.verification import patience
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
        self._ended = False
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0

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
        await patience.in_time(self._renewal, self._patient_until - time())

    def end(self) -> None:
        """From here nothing is answered from the cache, whoever still checks."""
        self._ended = True
        self.until = 0

    async def _renew(self) -> None:
        begun = self._clock.now()
        epoch = await self._read_epoch()
        if epoch != self._epoch:
            self._cache.clear()
            self._epoch = epoch
        if not self._ended:
            self.until = begun + LEASE_MS

    def _renewed(self, _task: "asyncio.Task[None]") -> None:
        self._renewal = None


class Serving:
    """Spreads changes of the one process that serves: its own cache is the only one.

    Args:
        ensure: makes sure that no other process serves before the change's transaction ends;
            raises Unavailable.
        sleep: waits seconds.
    """

    def __init__(
        self,
        cache: Cache,
        clock: Clock,
        ensure: Callable[[Transaction], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._ensure = ensure
        self._sleep = sleep
        self._alone_at = 0

    def take_over(self, *, contested: bool) -> None:
        """Another process may have served; `contested`: it may still answer by its lease."""
        self._cache.clear()
        if contested:
            self._alone_at = self._clock.now() + _WAIT_MS

    async def announce(self, tx: Transaction) -> None:
        """Makes sure that there is nobody to tell."""
        await self._ensure(tx)

    def forget(self, tags: Iterable[str]) -> None:
        """Drops what a change may have touched that may have been committed."""
        self._cache.invalidate(tags)

    async def settle(self, tags: Iterable[str]) -> Receipt:
        """Drops what the change touches; when this returns nobody accepts it any more."""
        committed = self._clock.now()
        self._cache.invalidate(tags)
        while (left := self._alone_at - self._clock.now()) > 0:
            await self._sleep(left / 1000)
        return Receipt(nodes=1, waited_ms=self._clock.now() - committed)


class Visiting:
    """Spreads changes of a process beside the serving one: the command, a script.

    Args:
        bump: moves the epoch, inside the change's transaction.
        somebody_serves: whether a process serves this database, or may still answer by a lease.
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

    def forget(self, tags: Iterable[str]) -> None:
        """Nothing: here nothing is answered from the cache, and the epoch moved with the commit."""

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
