"""The right of a node to answer from its cache; the protocol stands in `coherence.py`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from keybearer.domain.changes import Change, Member, News
from keybearer.domain.errors import PlaceLost, Unavailable
from keybearer.domain.ports import Clock
from keybearer.verification import patience
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS, Bus, Log

log = logging.getLogger("keybearer")

T = TypeVar("T")

_HEARD = 10_000
"""Changes at the most that are remembered as acknowledged before the log shows them."""


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
        self._mark: int | None = None
        self._heard: set[int] = set()
        self._read_at: int | None = None
        self._ended = False
        self._told = "lease.held"
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0
        self._place: tuple[int, int | None] | None = None
        self._noting: asyncio.Task[None] | None = None

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
        try:
            news = await self._news()
            await self._still_ours()
        except PlaceLost:
            self._read_at = None  # a database that is only lost is what was declared
            raise
        if self._is_gapless(news):
            for change in news.changes:
                self._cache.invalidate(change.tags)
        else:
            self._cache.clear()
            self._heard.clear()  # a number that was heard may be another change's
        self._known, self._mark = news.seq, news.mark
        if not self._ended:
            self._read_at = begun
            self.until = begun + LEASE_MS
            self.stretched = False
            self._tell_held()
        unheard = [change for change in news.changes if change.seq not in self._heard]
        self._heard = {seq for seq in self._heard if seq > news.seq}
        if unheard:  # its message was lost, and somebody waits
            self._bus.acknowledge(unheard)
            self._place = news.seq, news.mark
        if self._place is not None and self._noting is None:
            self._noting = patience.begin(self._note())
            self._noting.add_done_callback(self._noted)

    async def _note(self) -> None:
        """Beside the renewals: a database that takes no writes now must not end the lease.

        What is to be noted is applied already, so that late is slow, and never wrong. When the
        database is lost meanwhile, the next renewal begins anew.
        """
        while (place := self._place) is not None:
            await self._log.note(self._me.id, *place)
            if self._place == place:
                self._place = None

    async def _news(self) -> News:
        """The news of the log, as one who is a member and not suspected."""
        while True:
            news = await self._log.news(self._me.id, self._known)
            if news.member is None:
                if self._known is not None:
                    log.warning("node.forgotten", extra={"node": self._me.id})
                self._cache.clear()
                self._known = None
                await _in_time(self._log.join(self._me))
            elif news.member.suspicion is None:
                return news
            elif await _in_time(self._log.readmit(self._me.id)):
                log.info("node.readmitted", extra={"node": self._me.id})
                return news

    def _is_gapless(self, news: News) -> bool:
        if self._known is None or news.mark_after is None or news.mark_after != self._mark:
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

    def _noted(self, _task: "asyncio.Task[None]") -> None:
        self._noting = None


async def _in_time(asked: Coroutine[Any, Any, T]) -> T:
    """A write that goes on where the database is slow: the next renewal sees what came of it.

    A renewal that waited for it would ask nothing, and not notice that its line is dead.
    """
    return await patience.in_time(patience.begin(asked))


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
