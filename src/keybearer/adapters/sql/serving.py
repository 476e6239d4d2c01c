"""The lock of whoever serves a database: of one process alone, or of many that share it.

Without Redis nobody else may serve, as limits are not shared; with it, only those who have it too.
A lock can be lost without a word: a cut line, a deleted file. So each renewal of the lease checks
it, and whoever lost it to another one answers nothing more.
"""

import asyncio
import fcntl
import os
from typing import Protocol

from keybearer.adapters.sql.file import OneFile
from keybearer.domain.errors import Misuse, PlaceLost
from keybearer.domain.ports import Reading

ALONE = (
    "another process already serves this database. Without Redis (KEYBEARER_REDIS_URL) two cannot "
    "share limits: stop the other one, or set it for both"
)
SHARED = (
    "a process without Redis serves this database: stop it, or set KEYBEARER_REDIS_URL for it too"
)

PAUSES = (0.01, 0.02, 0.05, 0.1)
"""Seconds; a command that looks whether somebody serves has the lock for a moment, too."""


class Standby(ConnectionError):
    """What answers is a hot standby, whose log of changes lags behind that of the primary.

    Reads and advisory locks work there, too: a node that took it for the database would renew its
    lease from what was, and accept what has been revoked.
    """

    def __init__(self) -> None:
        super().__init__("the server is a standby, not the primary")


class ServingLock(Protocol):
    """Held by whoever serves a database; ends with the process, however it ends."""

    @property
    def line(self) -> Reading | None:
        """What reads as the one that has the lock; None where any read is as good."""
        ...

    async def acquire(self) -> None:
        """Takes the lock.

        Raises:
            Misuse: another process has it, and does not share.
        """
        ...

    async def held_elsewhere(self) -> bool:
        """Whether another process serves now."""
        ...

    async def check(self) -> None:
        """Makes sure of the lock; one that was lost is taken again.

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
        shared: whether others may have it too, if they share it.
    """

    def __init__(self, path: str, served: OneFile | None = None, *, shared: bool = False) -> None:
        self._path = f"{path}-serving"
        self._served = served
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._refusal = SHARED if shared else ALONE
        self._file: int | None = None

    @property
    def line(self) -> None:
        """None: who reads a file waits for nobody."""
        return None

    async def acquire(self) -> None:
        """Takes the lock or raises Misuse."""
        for pause in PAUSES:
            if self._take():
                return
            await asyncio.sleep(pause)
        if not self._take():
            raise Misuse(self._refusal)

    async def held_elsewhere(self) -> bool:
        """Whether another process serves: tried, and let go of again; nothing is made."""
        if self._file is not None:
            return False
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    async def check(self) -> None:
        """Nothing takes a flock from a living process; but somebody may delete its file."""
        if self._served is not None:
            self._served.check_whole()
        if self._file is not None and _is_at(self._file, self._path):
            return
        await self.release()
        try:
            taken = self._take()
        except Misuse as error:
            raise PlaceLost(f"the serving lock was lost: {error}") from None
        if not taken:
            raise PlaceLost("the serving lock was lost and another process has it")

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
            fcntl.flock(file, self._kind | fcntl.LOCK_NB)
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
