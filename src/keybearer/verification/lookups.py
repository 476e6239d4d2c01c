"""Look-ups in turn, so that a flood of made-up keys leaves room for all else.

checks of what the cache has not ──▶ 6 at once in the database ◀── 1 000 wait ◀── 503
log, members, changes, pages     ──▶ the connections that are left
"""

import asyncio
from typing import TypeVar

from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Body, Reading

T = TypeVar("T")

AT_ONCE = 6
"""Fewer than the pool of PostgreSQL has for all; SQLite answers each before the next one asks."""

WAITING = 1_000
"""As many as are answered well within the two seconds for which a check waits."""


class LookUps:
    """What reads of a credential that the cache has not, from a database."""

    def __init__(self, database: Reading) -> None:
        self._database = database
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def read(self, body: Body[T]) -> T:
        """Runs a body that only reads, after those that came before.

        Raises:
            Unavailable: the database is lost, or too many wait.
        """
        if self._waiting >= WAITING:
            raise Unavailable("too many look-ups wait for the database")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._database.read(body)
        finally:
            self._turn.release()
