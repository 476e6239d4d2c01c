"""The lock of the one process that serves a database."""

import fcntl
import os
from typing import Protocol

from keybearer.domain.errors import Misuse

REFUSAL = (
    "another process already serves this database. Without Redis (KEYBEARER_REDIS_URL, which this "
    "version does not use yet) two cannot share limits and revocations: stop the other one"
)


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

        False means that another process may have served meanwhile: what is cached may be old.

        Raises:
            Unavailable: the lock was lost and cannot be taken again now.
        """
        ...

    async def release(self) -> None:
        """Lets go of it."""
        ...


class FileLock:
    """A flock beside the SQLite file; the kernel lets go of it with the process."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-serving"
        self._file: int | None = None

    async def acquire(self) -> None:
        """Takes the lock or raises Misuse."""
        if not self._take():
            raise Misuse(REFUSAL)

    async def held_elsewhere(self) -> bool:
        """Whether another process serves: tried, and let go of again."""
        if self._file is not None:
            return False
        if not self._take():
            return True
        await self.release()
        return False

    async def check(self) -> bool:
        """Nothing can take a flock away from a living process."""
        return True

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
