"""A Redis of dictionaries, and lines to it that can be cut."""

import asyncio
from collections.abc import Sequence

from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.limits import SlidingWindow, Take
from keybearer.domain.model import RateLimit
from keybearer.verification.limiter import Limiter
from tests.people import StandingClock


class Server:
    """What Redis holds."""

    def __init__(self, clock: StandingClock) -> None:
        self.clock = clock
        self.limiter = Limiter()
        self.restarted_at = 0

    def restart(self) -> None:
        self.limiter, self.restarted_at = Limiter(), self.clock.now()


class Line:
    """One process's line to it, that can be cut; or lose an answer after it was counted."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cut = False
        self.loses_answers = False
        self.evicts = False
        self.knew = False
        self.forgot_at = 0
        self.closed = False
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None

    async def check(self) -> None:
        await self._travel("check")
        if self.evicts:
            raise Misuse("it evicts")

    async def take(self, id: str, limit: RateLimit, cost: int) -> Take:
        await self._travel("take")
        taken = self.server.limiter.take(id, limit, self.server.clock.now(), cost)
        if self.loses_answers:
            raise Unavailable("no answer")
        return Take(
            accepted=taken.accepted,
            remaining=taken.remaining,
            retry_after_ms=taken.retry_after_ms,
            reset_after_ms=taken.reset_after_ms,
            at=taken.at,
            shared=True,
        )

    async def give_back(self, id: str, limit: RateLimit, cost: int, at: int) -> None:
        await self._travel("give back")
        self._window(id, limit).give_back(at, cost)

    async def add(self, id: str, limit: RateLimit, ages: Sequence[tuple[int, int]]) -> None:
        await self._travel("add")
        for age, amount in ages:
            self._window(id, limit).add(self.server.clock.now() - age, amount)

    async def close(self) -> None:
        self.closed = True

    def _window(self, id: str, limit: RateLimit) -> SlidingWindow:
        return self.server.limiter.window(id, limit, self.server.clock.now())

    async def _travel(self, what: str) -> None:
        self.calls.append(what)
        if self.gate is not None:
            await self.gate.wait()
        if self.cut:
            raise Unavailable("cut")
        if self.knew and self.server.restarted_at > self.forgot_at:
            self.forgot_at = self.server.restarted_at
        self.knew = True
