"""This process among those that serve a database: its lock, its lease, its word to the others.

enter   lock ▸ bus ▸ others, say that you are there
leave   no lease any more ▸ no member any more ▸ no bus ▸ lock
"""

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from keybearer.adapters import journal
from keybearer.adapters.sql.about import identity
from keybearer.adapters.sql.coherence import SqlLog, read_name
from keybearer.adapters.sql.serving import ServingLock
from keybearer.domain.changes import Member
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Clock, Database
from keybearer.settings import Settings
from keybearer.verification import patience
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, Bus, NoBus
from keybearer.verification.lease import AnyLease, Lease, NoLease
from keybearer.verification.limiter import Limiter
from keybearer.verification.receipts import Receipts
from keybearer.verification.shared import SharedLimiter
from keybearer.verification.spread import Spread

if TYPE_CHECKING:
    from keybearer.adapters.redis.bus import RedisBus
    from keybearer.adapters.sql.postgres import PostgresDatabase
    from keybearer.adapters.sql.sqlite import SqliteDatabase

log = logging.getLogger("keybearer")


class Node:
    """This process, from its start to its stop.

    Args:
        serving: whether it answers requests, and so is a member with a cache.

    Attributes:
        id: what the others call it.
        cache: its cache; of who does not serve, one that nothing is answered from.
        lease: its right to answer from it.
        spread: how its changes reach the others.
        receipts: how long they took.
        bus: what carries them, where there is Redis.
        limits: what all nodes count together, where there is Redis.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        lock: ServingLock,
        clock: Clock,
        *,
        serving: bool,
    ) -> None:
        self._settings = settings
        self._database = database
        self._lock = lock
        self._clock = clock
        self._serving = serving
        self.id = os.urandom(8).hex()
        self.receipts = Receipts()
        self._me = Member(id=self.id, lease_ms=LEASE_MS + settings.stale_if_database_lost)
        self._log = SqlLog(database, clock, settings.base_url, line=lock.line)
        self.cache = Cache(settings.cache_size, settings.cache_mb * 2**20)
        self.bus: RedisBus | None = None
        self.lease: AnyLease = NoLease(self.cache)
        self.limits: SharedLimiter | None = None
        self.spread = self._new_spread(NoBus())

    async def enter(self) -> None:
        """Takes its place.

        Raises:
            Misuse: another process serves that does not share; Redis evicts.
            Unavailable: the database is lost.
        """
        if self._serving:
            await self._lock.acquire()
        bus: Bus = NoBus()
        if self._settings.redis_url is not None:
            bus = self.bus = await self._open_bus(self._settings.redis_url)
        if self._serving:
            self.lease = Lease(
                cache=self.cache,
                clock=self._clock,
                log=self._log,
                bus=bus,
                me=self._me,
                still_ours=self._lock.check,
            )
        self.spread = self._new_spread(bus)
        if self.bus is not None:
            await self.bus.start(self.lease.heard, self.spread.acknowledged)
        if self._serving:
            await self.spread.suspect_others()
        if self._serving and self.bus is not None:
            log.info("node.entered", extra={"node": self.id})

    async def leave(self) -> None:
        """Answers nothing any more, and says so."""
        self.lease.end()
        await self.spread.finish()
        if self.limits is not None:
            await self.limits.stop()
        if isinstance(self.lease, Lease):
            with contextlib.suppress(Unavailable):
                await patience.in_time(patience.begin(self._log.leave(self.id)))
        if self.bus is not None:
            await self.bus.stop()
        await self._lock.release()

    async def share(self, limiter: Limiter) -> SharedLimiter | None:
        """The limits of all nodes, where there is Redis; `limiter` counts this one's beside it.

        Raises:
            Misuse: Redis cannot be relied on.
            Unavailable: the database is lost.
        """
        url = self._settings.redis_url
        if url is None:
            return None
        from keybearer.adapters.redis.windows import RedisWindows  # noqa: PLC0415 -- an extra

        windows = RedisWindows(url, await read_name(self._database), self._clock.now)
        self.limits = SharedLimiter(
            limiter, windows, lambda: self.spread.nodes_at_most, self._clock
        )
        if self._serving:  # who does not, hardly ever counts anything, and asks when it does
            await self.limits.start()
        return self.limits

    async def _open_bus(self, url: str) -> "RedisBus":
        from keybearer.adapters.redis.bus import RedisBus  # noqa: PLC0415 -- an extra

        lost = await check_redis(url) if self._serving else None
        if lost is not None:
            log.warning("redis.lost", extra={"reason": lost})
        name = await read_name(self._database)
        return RedisBus(url, name, self.id, member=self._serving)

    def _new_spread(self, bus: Bus) -> Spread:
        return Spread(
            cache=self.cache,
            clock=self._clock,
            log=self._log,
            bus=bus,
            lease=self.lease,
            me=self._me,
            unlisted=self._lock.held_elsewhere,
            tell=self.receipts.add,
        )


async def journals_of(
    settings: Settings, database: "SqliteDatabase | PostgresDatabase"
) -> journal.Journals:
    """Where what this process counts waits for a lost database.

    Raises:
        Unavailable: the database, by whose name it goes, is lost.
    """
    if settings.sqlite_path is not None and settings.spill_dir is None:
        return journal.beside(settings.sqlite_path)
    return journal.within(settings.spill_dir, await identity(database))


async def check_redis(url: str) -> str | None:
    """Makes sure that a Redis can be relied on; tells what is wrong with one that is away now.

    Raises:
        Misuse: it evicts, or is none that we can use.
    """
    from keybearer.adapters.redis import connection  # noqa: PLC0415 -- an extra

    client = connection.connect(url)
    try:
        await connection.check(client, url)
    except Unavailable as error:
        return error.reason
    finally:
        await connection.close(client)
    return None
