"""Records on disk, each whole or not there, in a file of one process.

    kbusage1 | length (4)  crc32 (4)  payload | length  crc32  payload | …
               ▲ head: read from here                                    ▲ end: written from here

A process holds a flock on its file, and the kernel lets go of it with the process: so a file whose
lock is free was left by a dead one, and whoever takes the lock takes what is in it. What a crash
has torn can only be the last record, whose append never returned. Nothing here awaits: whoever
calls does so on a thread.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_MAGIC = b"kbusage1"
_HEADER = struct.Struct(">II")
_NEW = ".new"
UNREADABLE = ".unreadable"


class Journal:
    """One file, whose lock we hold.

    Attributes:
        path: where it lies.
        records: how many were not taken out.
        torn: bytes at its end, when it was opened, that are no whole record.
    """

    def __init__(self, path: str, file: int) -> None:
        self.path = path
        self._file = file
        self._head = self._end = len(_MAGIC)
        self.records = 0
        size = os.fstat(file).st_size
        while (payload := self._read(self._end, size)) is not None:
            self._end += _HEADER.size + len(payload)
            self.records += 1
        self.torn = max(0, size - self._end)

    @property
    def size(self) -> int:
        """How much of the disk it takes."""
        return self._end

    def append(self, payloads: Sequence[bytes]) -> None:
        """Adds records, and returns when they are durable.

        Raises:
            OSError: none of them is there.
        """
        data = b"".join(_framed(payload) for payload in payloads)
        try:
            _write(self._file, data, self._end)
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)
        self.records += len(payloads)

    def first(self) -> bytes | None:
        """The oldest record; None when there is none.

        Raises:
            OSError: the disk does not give it back.
        """
        if not self.records:
            return None
        return self._whole(self._head)

    def drop_first(self) -> bool:
        """Takes the oldest record out; True when it was the last, and the file is empty.

        Until then a crash brings back all that were taken out.
        """
        length, _ = _HEADER.unpack(os.pread(self._file, _HEADER.size, self._head))
        self._head += _HEADER.size + length
        self.records -= 1
        if self.records:
            return False
        self._head = self._end = len(_MAGIC)
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        return True

    def all(self) -> Iterator[bytes]:
        """Every record that was not taken out, oldest first.

        Raises:
            OSError: the disk does not give one back.
        """
        at = self._head
        while at < self._end:
            payload = self._whole(at)
            at += _HEADER.size + len(payload)
            yield payload

    def replace(self, payloads: Sequence[bytes]) -> None:
        """Puts other records in the place of all that are there, at once or not at all.

        Raises:
            OSError: nothing has changed.
        """
        new = self.path + _NEW
        file = _make(new, os.O_TRUNC)
        try:
            data = b"".join(_framed(payload) for payload in payloads)
            _write(file, data, len(_MAGIC))
            os.fsync(file)
            os.rename(new, self.path)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        os.close(self._file)
        self._file = file
        self._head, self._end = len(_MAGIC), len(_MAGIC) + len(data)
        self.records = len(payloads)
        with contextlib.suppress(OSError):
            _sync_folder(self.path)

    def close(self) -> None:
        """Lets go of the file; an empty one goes away."""
        if not self.records:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        os.close(self._file)

    def set_aside(self) -> str:
        """Leaves the file to whoever can read it, under another name; gives that."""
        aside = self.path + UNREADABLE
        os.rename(self.path, aside)
        os.close(self._file)
        return aside

    def _whole(self, at: int) -> bytes:
        payload = self._read(at, self._end)
        if payload is None:
            raise OSError(errno.EIO, "a record that was written is damaged", self.path)
        return payload

    def _read(self, at: int, end: int) -> bytes | None:
        header = os.pread(self._file, _HEADER.size, at)
        if len(header) < _HEADER.size:
            return None
        length, checksum = _HEADER.unpack(header)
        if at + _HEADER.size + length > end:
            return None
        payload = os.pread(self._file, length, at + _HEADER.size)
        return payload if zlib.crc32(payload) == checksum else None


def beside(path: str) -> "Journals":
    """The journals of a SQLite file."""
    return Journals(f"{os.path.realpath(path)}-usage-")


def within(folder: str | None, name: str) -> "Journals":
    """The journals of a database by its name, in a folder that somebody chose.

    Without one: what systemd gives the service, or else what outlives a restart of the machine.
    """
    given = folder or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Journals(os.path.join(os.path.abspath(given), f"{name}-usage-"))
    ours = f"/var/tmp/keybearer-{os.geteuid()}"  # noqa: S108 -- looked at before it is used
    return Journals(os.path.join(ours, f"{name}-usage-"), private=True)


class Journals:
    """The journals of one database in one folder.

    Args:
        prefix: what their paths begin with; a name of its own follows.
        private: whether the folder must be this user's alone: where others may write, somebody
            else could have made it.
    """

    def __init__(self, prefix: str, *, private: bool = False) -> None:
        self.prefix = prefix
        self._folder = os.path.dirname(prefix)
        self._private = private

    def check(self) -> None:
        """Makes the folder, unless it is there.

        Raises:
            OSError: it cannot be made or written, or is somebody else's.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._check_folder()

    def look(self) -> int:
        """How many bytes wait in it, of the living and the dead; makes nothing.

        Raises:
            OSError: it could not be made, written or read, or is somebody else's.
        """
        if not os.path.lexists(self._folder):
            above = next(path for path in Path(self._folder).parents if path.exists())
            fits = above.is_dir() and os.access(above, os.W_OK | os.X_OK, effective_ids=True)
            if not fits:
                raise PermissionError(0, "it cannot be made", self._folder)
            return 0
        self._check_folder()
        name = os.path.basename(self.prefix)
        paths = (path for path in Path(self._folder).iterdir() if path.name.startswith(name))
        return sum(path.stat().st_size for path in paths)

    def _check_folder(self) -> None:
        found = os.lstat(self._folder)
        others = found.st_uid != os.geteuid() or found.st_mode & 0o077
        if self._private and (others or not stat.S_ISDIR(found.st_mode)):
            raise PermissionError(0, "it is not this user's alone, with mode 0700", self._folder)
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(0, "it cannot be written", self._folder)

    def open(self) -> Journal:
        """A new one, of this process.

        Raises:
            OSError: it cannot be made.
        """
        self.check()
        path = self.prefix + os.urandom(8).hex()
        file = _make(path, os.O_EXCL)
        _sync_folder(path)
        return Journal(path, file)

    def left(self) -> Iterator[Journal]:
        """Those that dead processes have left, oldest first; they are ours from then on.

        Raises:
            OSError: the folder cannot be read.
        """
        folder = Path(self._folder)
        if not folder.is_dir():
            return
        name = os.path.basename(self.prefix)
        found = [
            path
            for path in folder.iterdir()
            if path.name.startswith(name) and not path.name.endswith(UNREADABLE)
        ]
        for path in sorted(found, key=_age):
            file = _take(str(path))
            if file is None:
                continue
            if path.name.endswith(_NEW):  # it was killed before that took the old one's place
                path.unlink()
                os.close(file)
            else:
                yield Journal(str(path), file)


def size_of(payloads: Sequence[bytes]) -> int:
    """How many bytes records take in a journal."""
    return sum(_HEADER.size + len(payload) for payload in payloads)


def _framed(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def _write(file: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        n = os.pwrite(file, left, at)
        left, at = left[n:], at + n


def _make(path: str, how: int) -> int:
    """A new file that begins as ours do, with its lock taken."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Somebody who looks for what the dead have left may have taken it away before.
        if not os.path.samestat(os.fstat(file), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        _write(file, _MAGIC, 0)
    except OSError:
        os.close(file)
        raise
    return file


def _take(path: str) -> int | None:
    """The file, if it is one of ours and nobody holds it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(file)
        # Whoever had it may have put another in its place, or taken it away.
        there = os.path.samestat(found, os.stat(path))
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if there and own and _MAGIC.startswith(os.pread(file, len(_MAGIC), 0)):
            return file  # one that was killed at once has written less
    except OSError:
        pass
    os.close(file)
    return None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
