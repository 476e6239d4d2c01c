"""The workers of one server, who tell of each other: a scrape meets only one of them.

    folder/1          locked by worker 1 for as long as it lives; who comes after it is 1 again
    folder/1.socket   who connects is given its figures, as msgpack

So each scrape has the figures of all workers, by number: a counter begins anew only when its
worker does, as Prometheus expects. Nothing here needs the database or Redis.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from keybearer.domain.errors import Misuse
from keybearer.web.figures import Figure, Figures

PATIENCE_SECONDS = 1.0
_MAX_BYTES = 1 << 22
_MOST = 1_000
"""Numbers that are tried."""

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[Figure])


class Siblings:
    """This worker among those that share a folder.

    Args:
        folder: where they find each other; this user's alone.
        tell: the figures of this one.

    Attributes:
        number: which one this is, from 1.
    """

    def __init__(self, folder: Path, tell: Callable[[], Figures]) -> None:
        self.number = 0
        self._folder = folder
        self._tell = tell
        self._lock: int | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Takes a number, and answers under it.

        Raises:
            Misuse: the folder is missing, cannot be written, or is open to others.
        """
        try:
            status = self._folder.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise Misuse(f"{self._folder} must be this user's alone: chmod 700 {self._folder}")
            self.number = self._take_number()
            socket = self._socket(self.number)
            socket.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, socket)
        except OSError as error:
            raise Misuse(
                f"{self._folder} cannot be used ({error.strerror or error}): METRICS_DIR takes "
                "a folder that is there, this user's alone, with a short name"
            ) from None

    async def stop(self) -> None:
        """Gives the number back."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        if self._lock is not None:
            self._socket(self.number).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def ask(self) -> dict[int, Figures | None]:
        """The figures of the others by number; None of one that does not answer in time."""
        others = [int(each.stem) for each in self._folder.glob("*.socket") if each.stem.isdigit()]
        asked = sorted(number for number in others if number != self.number)
        answers = await asyncio.gather(*(self._ask(number) for number in asked))
        told = zip(asked, answers, strict=True)
        return {number: figures for number, (lives, figures) in told if lives}

    def _take_number(self) -> int:
        for number in range(1, _MOST):
            lock = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock = lock
            return number
        raise Misuse(f"{self._folder} has no number left")

    def _socket(self, number: int) -> Path:
        return self._folder / f"{number}.socket"

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(_encode(self._tell()))
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _ask(self, number: int) -> tuple[bool, Figures | None]:
        """Whether it lives, and what it says."""
        writer = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket(number))
                told = await reader.read(_MAX_BYTES)
                while more := await reader.read(_MAX_BYTES):
                    told += more
            return True, _decoder.decode(told)
        except (ConnectionRefusedError, FileNotFoundError):
            return False, None
        except (OSError, msgspec.MsgspecError):  # a timeout is an OSError
            return True, None
        finally:
            if writer is not None:
                writer.close()
