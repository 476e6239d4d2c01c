"""Rate limits of all processes together, and what is left of them without Redis.

    shared   Redis counts: one round trip                 at most `max`, exactly
       │ no answer within 250 ms, or an error
       ▼
    alone    each process counts for itself               at most `max` ÷ processes each
       │ every 0.5 s: is it there, and does it evict nothing?
       ▼
    told     what was accepted alone is added to the windows in Redis, each with its age;
             only when all is told, Redis counts again

The first request that gets no answer waits for it; those after it decide at once. Each process
also counts what it has accepted itself through Redis, so that none gets a fresh share when Redis
is lost: alone it accepts only while all that it accepted in the last window is below its share.

The share is rounded down: with a maximum below the number of processes each gets nothing, because
the sum must not exceed the maximum.

How far off it can be
=====================
Let process i of n have accepted A(i) of a key in some interval of the window's length before Redis
was lost; together at most `max`. Alone it comes to at most the larger of A(i) and max ÷ n. So all
have accepted at most max + (n − 1) · max ÷ n, less than 2 · `max`, and that only when one process
had taken all of it just before. The same holds while some processes reach Redis and others do
not. Intervals that begin after the last process is back hold at most `max`.

What Redis itself forgets:

- Started anew, it may have forgotten the windows. Each process that knew it before learns of that
  with its next connection, before the first answer (`forgot_at`), and until one window after the
  start keeps to its share besides what Redis says. So the bound above holds.
- Emptied (FLUSHALL), it says nothing, and the keys start afresh: at most 2 · `max` in an interval
  that contains that moment.
- After a failover it lacks what the new master had not received yet; so much more can be accepted.

A request whose answer was lost may be counted twice, in Redis and alone; never not at all.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.limits import SlidingWindow, Take
from keybearer.domain.model import RateLimit
from keybearer.domain.ports import Clock
from keybearer.verification.limiter import Limiter

log = logging.getLogger("keybearer")

PROBE_SECONDS = 0.5
_AT_ONCE = 200
"""How many keys are told to Redis in one round trip."""


class Windows(Protocol):
    """The windows that all processes share; each method raises Unavailable when they are lost."""

    @property
    def forgot_at(self) -> int:
        """When what they held may have been forgotten, on our own clock; 0 for never."""
        ...

    async def check(self) -> object:
        """Whether they can be relied on; raises Misuse when not."""
        ...

    async def take(self, id: str, limit: RateLimit, cost: int) -> Take:
        """Takes from a key's window, or changes nothing."""
        ...

    async def give_back(self, id: str, limit: RateLimit, cost: int, at: int) -> None:
        """Undoes a take that was accepted at `at`."""
        ...

    async def add(self, id: str, limit: RateLimit, ages: Sequence[tuple[int, int]]) -> None:
        """Counts what was accepted elsewhere: how many milliseconds ago, and how much."""
        ...

    async def close(self) -> None:
        """Ends the connections."""
        ...


class SharedLimiter:
    """The limits of all processes; of this one alone while the shared windows are lost.

    Args:
        local: what this process accepts, counted beside Redis.
        windows: what all processes accept.
        nodes: how many processes there are, this one too, as far as is known; 1 or more.

    Attributes:
        shared: whether all processes count together now.
    """

    def __init__(
        self, local: Limiter, windows: Windows, nodes: Callable[[], int], clock: Clock
    ) -> None:
        self.shared = True
        self._local = local
        self._windows = windows
        self._nodes = nodes
        self._clock = clock
        self._untold = Limiter()  # what was accepted alone
        self._returning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks whether Redis is there; if it cannot be reached yet, begins alone.

        Raises:
            Misuse: it can be reached, and cannot be relied on.
        """
        try:
            await self._windows.check()
        except Unavailable as error:
            self._lose(error.reason)

    async def probe(self) -> None:
        """Looks whether Redis is back, tells it what it missed, and has it count again.

        Raises:
            Misuse: it cannot be relied on.
            Unavailable: it is not there.
        """
        await self._windows.check()
        await self._tell()

    async def stop(self) -> None:
        """Ends the connections. What Redis was not told yet, it is told no more."""
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        await self._windows.close()

    async def take(self, id: str, limit: RateLimit, now: int, cost: int) -> Take:
        """Takes `cost` (1 or more) from a key's limit, or changes nothing."""
        # Counted before anybody answers: what is under way when Redis is lost has its place, too.
        fits = self._own(id, limit, now).add(now, cost)
        if self.shared and (fits or not self._forgotten(limit)):
            try:
                taken = await self._windows.take(id, limit, cost)
            except Unavailable as error:
                self._lose(error.reason)
            else:
                if taken.accepted and (fits or not self._forgotten(limit)):
                    return taken
                if not taken.accepted:
                    self._own(id, limit, now).give_back(now, cost)
                    return taken
                await self._give_back(id, limit, cost, taken)
        own = self._own(id, limit, now)
        if fits:
            self._untold.window(id, limit, now).add(now, cost)
        else:
            own.give_back(now, cost)
        return Take(
            accepted=fits,
            remaining=own.remaining(now),
            retry_after_ms=own.retry_after(now, cost),
            reset_after_ms=own.reset_after(now),
            at=now,
            shared=False,
        )

    async def give_back(self, id: str, limit: RateLimit, now: int, cost: int, taken: Take) -> None:
        """Undoes a `take` that was accepted: the same `now`, the same `cost`.

        What Redis cannot be told stays counted there.
        """
        self._own(id, limit, now).give_back(now, cost)
        if taken.shared:
            await self._give_back(id, limit, cost, taken)
        else:
            self._untold.window(id, limit, now).give_back(now, cost)

    async def _give_back(self, id: str, limit: RateLimit, cost: int, taken: Take) -> None:
        if self.shared:
            try:
                await self._windows.give_back(id, limit, cost, taken.at)
            except Unavailable as error:
                self._lose(error.reason)

    # --- one process alone ---

    def _own(self, id: str, limit: RateLimit, now: int) -> SlidingWindow:
        """What this process accepts, against its share."""
        share = limit.maximum // max(1, self._nodes())
        return self._local.window(id, RateLimit(maximum=share, window_ms=limit.window_ms), now)

    def _forgotten(self, limit: RateLimit) -> bool:
        """Whether Redis may lack what still counts."""
        return self._clock.now() < self._windows.forgot_at + limit.window_ms

    def _lose(self, reason: str) -> None:
        if self.shared:
            log.warning("limits.alone", extra={"reason": reason, "processes": self._nodes()})
        self.shared = False
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        told = ""
        while not self.shared:
            try:
                await self.probe()
            except Unavailable:
                await asyncio.sleep(PROBE_SECONDS)
            except Misuse as error:
                if str(error) != told:
                    told = str(error)
                    log.error("limits.alone", extra={"reason": told, "processes": self._nodes()})
                await asyncio.sleep(PROBE_SECONDS)
        log.info("limits.shared")

    async def _tell(self) -> None:
        """Adds all that was accepted alone to the shared windows, then counts together."""
        while len(self._untold):
            batch = [self._untold.pop() for _ in range(min(_AT_ONCE, len(self._untold)))]
            now = self._clock.now()
            told = await asyncio.gather(
                *(self._windows.add(id, limit, window.ages(now)) for id, limit, window in batch),
                return_exceptions=True,
            )
            lost = [error for error in told if isinstance(error, BaseException)]
            for (id, limit, window), error in zip(batch, told, strict=True):
                # What may have been told is told again: twice is allowed, not at all is not.
                amount = sum(amount for _, amount in window.ages(now))
                if error is not None and amount:
                    self._untold.window(id, limit, now).add(now, amount)
            if lost:
                raise lost[0]
        self.shared = True
