"""The lock of the one process that serves a database, and its name in there.

    lock    keeps a second process from starting; it can be lost: a cut line, a deleted file
    name    in the row of the epoch. Each change makes sure of it in its own transaction, so a
            process that lost the lock without knowing changes nothing once another has claimed

A process that ends takes its name back. One that was killed leaves it: whoever claims after that
knows that somebody may still answer by a lease, and waits that out with its changes.
"""

import asyncio
import contextlib
import fcntl
import os
from typing import Protocol

from keybearer.adapters.sql import coherence
from keybearer.adapters.sql.file import OneFile
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Database, Transaction

REFUSAL = (
    "another process already serves this database. Without Redis (KEYBEARER_REDIS_URL, which this "
    "version does not use yet) two cannot share limits and revocations: stop the other one"
)

_PAUSES = (0.01, 0.02, 0.05, 0.1)
"""Seconds; a command that looks whether somebody serves has the lock for a moment, too."""


class ServingLock(Protocol):
    """Held by the one process that serves a database; ends with the process, however it ends."""

    async def acquire(self) -> None:
        """Takes the lock.

        Raises:
            Misuse: another process has it.
        """
        ...

    async def held_elsewhere(self) -> bool:
        """Whether another process serves now."""
        ...

    async def check(self) -> bool:
        """Whether the lock was held all the time; one that was lost is taken again.

        False means that another process may have served meanwhile.

        Raises:
            Unavailable: the lock was lost and cannot be taken again now.
        """
        ...

    async def release(self) -> None:
        """Lets go of it."""
        ...


class FileLock:
    """A flock beside the SQLite file; the kernel lets go of it with the process.

    Args:
        served: the file itself, looked after with the lock: that of another one is nothing to us.
    """

    def __init__(self, path: str, served: OneFile | None = None) -> None:
        self._path = f"{path}-serving"
        self._served = served
        self._file: int | None = None

    async def acquire(self) -> None:
        """Takes the lock or raises Misuse."""
        if not self._take():
            raise Misuse(REFUSAL)

    async def held_elsewhere(self) -> bool:
        """Whether another process serves: tried, and let go of again; nothing is made."""
        if self._file is not None:
            return False
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    async def check(self) -> bool:
        """Nothing takes a flock from a living process; but somebody may delete its file."""
        if self._served is not None:
            self._served.check_whole()
        if self._file is not None and _is_at(self._file, self._path):
            return True
        await self.release()
        try:
            taken = self._take()
        except Misuse as error:
            raise Unavailable(f"the serving lock was lost: {error}") from None
        if not taken:
            raise Unavailable("the serving lock was lost and another process has it")
        return False

    async def release(self) -> None:
        """Closes the file and so lets go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self) -> bool:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misuse(
                f"{self._path} cannot be written ({error.strerror}); the folder of the database "
                "must be writable"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


class TakenOver(Protocol):
    """Told that another process may have served before."""

    def __call__(self, *, contested: bool) -> None:
        """`contested`: it has not let go, and may still answer by its lease."""
        ...


class Claim:
    """That this process is the one that serves.

    Args:
        address: the BASE_URL that it goes by, for the command beside it to know.
    """

    def __init__(self, database: Database, lock: ServingLock, address: str = "") -> None:
        self._database = database
        self._lock = lock
        self._name = f"{os.urandom(8).hex()} {address}"
        self._taken_over: TakenOver | None = None

    async def take(self, taken_over: TakenOver) -> None:
        """Takes the lock, and writes our name.

        Args:
            taken_over: called now, and whenever lock or name were lost and are ours again.

        Raises:
            Misuse: another process serves.
        """
        await self._acquire()
        self._taken_over = taken_over
        await self._write_name(taken_over)

    async def read_epoch(self) -> int:
        """The epoch, while the lock and the name are ours; a lost one is taken again.

        Raises:
            Unavailable: another process serves, or the database is lost.
        """
        held = await self._lock.check()
        state = await coherence.read_state(self._database)
        if self._taken_over is not None and not (held and state.served_by == self._name):
            await self._write_name(self._taken_over)
        return state.epoch

    async def ensure(self, tx: Transaction) -> None:
        """Makes sure that we serve until the transaction ends; raises Unavailable."""
        await coherence.ensure_serving(tx, self._name)

    async def somebody_serves(self) -> bool:
        """Whether another process may answer by a lease.

        By its name, which one that was killed leaves too; or by its lock, where the file was
        replaced by one that lacks the name.
        """
        return await coherence.is_served(self._database) or await self._lock.held_elsewhere()

    async def leave(self) -> None:
        """Takes our name back and lets go; nothing may be answered by a lease any more."""
        if self._taken_over is not None:
            with contextlib.suppress(Unavailable):
                await coherence.let_go(self._database, self._name)
        await self._lock.release()

    async def _acquire(self) -> None:
        for pause in _PAUSES:
            try:
                return await self._lock.acquire()
            except Misuse:
                await asyncio.sleep(pause)
        return await self._lock.acquire()

    async def _write_name(self, taken_over: TakenOver) -> None:
        before = await coherence.claim(self._database, self._name)
        taken_over(contested=before not in (None, self._name))
