"""Between counted and written: batches on their way into the database, or around its loss.

    sums ──▶ batches ──▶ the database
               │            ▲
               ▼            │ what waits longest first, for a moment with each flush
             the disk ──────┘

A batch is written once, however often it is tried: it keeps its id, and what is counted after it
goes into another one. While the database is lost nothing new is tried: it is asked with the batch
that waits longest, and all others can still be added up.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from keybearer.domain.errors import Unavailable
from keybearer.domain.uses import Batch
from keybearer.verification.spill import NewId, Spill
from keybearer.verification.sums import Sums

T = TypeVar("T")

Write = Callable[[Batch, Sequence[str]], Awaitable[object]]
"""Writes a batch unless it has been, and forgets the ids of others that nobody brings again.

Raises Unavailable, perhaps after the commit.
"""

MOMENT_SECONDS = 0.25
"""How long a flush goes on with what has waited, after it has written what is new."""
LOOK_MS = 60_000
_SETTLED = 500


class Backlog:
    """What one process has counted and not written.

    Args:
        written: told of each batch of this process that is in the database.

    Attributes:
        sums: what is counted and in no batch yet.
        lost: whether the database did not take the last that was brought.
    """

    def __init__(
        self,
        write: Write,
        new_id: NewId,
        spill: Spill | None,
        written: Callable[[Batch], None],
    ) -> None:
        self.sums = Sums()
        self.lost = False
        self._write = write
        self._new_id = new_id
        self._spill = spill
        self._written = written
        self._batches: deque[Batch] = deque()
        self._tried: set[str] = set()
        # Both are written. Nobody brings the first again; a crash may bring the second.
        self._settled: list[str] = []
        self._replayed: list[str] = []
        self._looked_at: int | None = None
        self._thread = ThreadPoolExecutor(1, "keybearer-spill")  # begins when it is needed

    def __len__(self) -> int:
        """How many batches wait; 0 when all that was counted is written."""
        on_disk = 0 if self._spill is None else self._spill.waiting
        return bool(self.sums) + len(self._batches) + on_disk

    async def write(self, now: int, *, seconds: float | None = None) -> None:
        """Writes what is new, and then, for a while, what waits on the disk.

        Raises:
            Unavailable: the database is lost; what is not written stays.
        """
        try:
            if self.lost and not self._batches:
                await self._replay_first()
            await self._write_new(now)
            clock = asyncio.get_running_loop().time
            until = clock() + (MOMENT_SECONDS if seconds is None else seconds)
            while await self._replay_first() and clock() < until:
                pass
        except Unavailable:
            self.lost = True
            raise
        self.lost = False

    async def spill(self, now: int) -> bool:
        """Puts all that is not written on the disk; False when it does not take it."""
        spill = self._spill
        if spill is None:
            return not (self._batches or self.sums)
        moving = [*self._batches, *self._take(now)]
        if not moving:
            return True
        # From here they are the disk's: a write of one of them that is under way, and succeeds
        # meanwhile, will be found done when it is replayed.
        self._batches.clear()
        tried, self._tried = self._tried, set()
        if await self._on_disk(lambda: spill.put(moving, now=now, tried=tried)):
            return True
        self._tried |= tried
        for batch in moving:
            if batch.id in tried:
                self._batches.append(batch)
            else:
                self.sums.add(batch)
        return False

    async def look(self, now: int) -> None:
        """Takes what dead processes have left on the disk, once a minute."""
        spill, last = self._spill, self._looked_at
        if spill is not None and (last is None or now - last >= LOOK_MS):
            self._looked_at = now
            await self._on_disk(lambda: spill.adopt(now))

    async def close(self) -> str | None:
        """Lets go of the disk; the file in which something waits."""
        if self._spill is None:
            return None
        left = await self._on_disk(self._spill.close)
        self._thread.shutdown(wait=False)
        return left

    async def _write_new(self, now: int) -> None:
        while self._batches or self.sums:
            if not self._batches:
                self._batches.extend(self._take(now))
            batch = self._batches[0]
            self._tried.add(batch.id)
            await self._write_once(batch)
            if self._batches and self._batches[0] is batch:  # else it went to the disk meanwhile
                self._batches.popleft()
                self._tried.discard(batch.id)
                self._settled.append(batch.id)
                self._written(batch)

    async def _replay_first(self) -> bool:
        """Writes the batch that waits longest; False when none does."""
        spill = self._spill
        if spill is None or not spill.waiting:
            return False
        found = await self._on_disk(spill.first)
        if found is None:
            return False
        batch, ours = found
        await self._write_once(batch)
        again = batch.id in self._replayed  # the disk did not let go of it
        self._replayed.append(batch.id)
        if await self._on_disk(lambda: spill.settle(batch)):
            self._settled += self._replayed
            self._replayed = []
        if ours and not again:
            self._written(batch)
        return True

    async def _write_once(self, batch: Batch) -> None:
        settled = self._settled[:_SETTLED]
        await self._write(batch, settled)
        del self._settled[: len(settled)]

    def _take(self, now: int) -> list[Batch]:
        sums, self.sums = self.sums, Sums()
        return sums.batches(lambda: self._new_id(now))

    async def _on_disk(self, job: Callable[[], T]) -> T:
        # What has begun is done, also when whoever waits for it is cancelled.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, job))
