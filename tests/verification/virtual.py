"""Event loops whose time stands still until somebody moves it, and clocks on that time."""

import asyncio
import heapq
import math
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVarTuple, Unpack, cast

from tests.people import START

Ts = TypeVarTuple("Ts")


class Ticker:
    """One time for all, in microseconds."""

    def __init__(self) -> None:
        self.us = 0


@dataclass
class Face:
    """A clock of the ticker whose milliseconds begin elsewhere, and whose crystal differs."""

    ticker: Ticker
    phase_us: int = 0
    ppm: int = 0

    def now(self) -> int:
        us = self.ticker.us * (1_000_000 + self.ppm) // 1_000_000
        return START + (us + self.phase_us) // 1000


class Loop(asyncio.BaseEventLoop):
    """The event loop of one process: runs when it is told to, as far as it comes without time.

    Args:
        wake: told of each instant at which it will have something to do.
    """

    def __init__(self, ticker: Ticker, wake: Callable[[int], None]) -> None:
        super().__init__()
        self._ticker, self._wake = ticker, wake
        own = cast(Any, self)  # the loop has no other word for what it has to do
        self._ready_now: Any = own._ready
        self._timers: list[asyncio.TimerHandle] = own._scheduled
        self._tasks: set[asyncio.Task[Any]] = set()

    def time(self) -> float:
        return self._ticker.us / 1e6

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        task = super().create_task(coro, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._wake(math.ceil(when * 1e6 - 0.01))
        return super().call_at(when, callback, *args, context=context)

    def has_work(self) -> bool:
        """Whether it has something to do now."""
        return bool(self._ready_now) or self._timer_is_over()

    def run(self, *, timers_first: bool = False) -> None:
        """Does all that can be done now.

        Args:
            timers_first: whether a wait that is over is seen before an answer that has come: after
                a pause both are there.
        """
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._take_timers(first=timers_first) or self._ready_now:
                while self._ready_now:
                    handle = self._ready_now.popleft()
                    if not handle.cancelled():
                        handle._run()
        finally:
            asyncio._set_running_loop(before)

    def end(self) -> None:
        """Cancels everything, as nothing of it goes on."""
        for _ in range(10):
            if not self._tasks:
                break
            for task in list(self._tasks):
                task.cancel()
            self.run()
        self.close()

    def _timer_is_over(self) -> bool:
        return bool(self._timers) and self._timers[0].when() * 1e6 - 0.01 <= self._ticker.us

    def _take_timers(self, *, first: bool) -> bool:
        over = []
        while self._timer_is_over():
            over.append(heapq.heappop(self._timers))
        if first:
            self._ready_now.extendleft(reversed(over))
        else:
            self._ready_now.extend(over)
        return bool(over)
