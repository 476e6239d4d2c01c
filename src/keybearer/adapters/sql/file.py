"""The SQLite file: this user's alone, and still the one that we began with.

A path may come to lead elsewhere while we have its file open: somebody moves a backup over it, or
deletes the file or its log. SQLite goes on with what it has open, and others with what is there:

    server    ── has open ──▶ the old file    "created": lost with the process
    command   ── opens ─────▶ the new file    revoke: UPDATE …, COMMIT ── waits 2 s ──▶ "stopped"

So each read, each commit and each renewal of the lease looks where the path leads, and nothing is
answered that lies elsewhere. Then "stopped" is true: a lease counts from before a look that found
the old file in its place, so it has run out two seconds after the new one came.

We never go on with another file. What we know of the old one (the schema's version, signing keys,
what was counted) need not be true of it; a new start learns all that anew. When our own comes back
we go on. Until then we keep it open: its inode's number is given to no other file meanwhile, and
an orderly stop can still write back what a deleted log holds.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

from keybearer.domain.errors import Misuse, PlaceLost

_Place = tuple[int, int] | None
"""Device and inode; None where nothing is."""


class OneFile:
    """A path, and what it led to when we began.

    Raises:
        Misuse: the folder is missing, the file cannot be written, or has several names.
    """

    def __init__(self, path: str) -> None:
        real = os.path.realpath(path)
        # By the name that we were given: a link may come to lead elsewhere. The process may go
        # into another folder, and by that nothing is lost.
        self._path = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
        self._beside = (f"{real}-wal", f"{real}-shm")
        self._known: dict[str, _Place] = {}
        _make_private(real)

    def begin(self) -> None:
        """What lies there now is ours: call it while SQLite has all of it open."""
        self._known = {path: _place(path) for path in (self._path, *self._beside)}

    def check(self) -> None:
        """Raises PlaceLost when the path leads to another file than when we began."""
        self._check(self._path)

    def check_whole(self) -> None:
        """The same, of the file and of its log: without that, what is committed is not found."""
        self._check(self._path)
        for path in self._beside:
            self._check(path)

    def _check(self, path: str) -> None:
        if self._known and _place(path) != self._known[path]:
            raise PlaceLost(
                f"SQLite: {path} was deleted, moved or replaced while it was open: put back the "
                "one that was there, or restart to go on with what is there now"
            )


def _place(path: str) -> _Place:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: str) -> None:
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        links = _look_at(path).st_nlink
    except OSError as error:
        raise Misuse(
            f"DATABASE_URL: {Path(path).absolute()} cannot be written ({error.strerror}); "
            "name a file in a folder that this user may write"
        ) from None
    if links > 1:
        # Each name would have its own -wal: SQLite loses commits, and two processes could serve.
        raise Misuse(
            f"DATABASE_URL: {Path(path).absolute()} has {links} names (hard links): "
            "remove the others, or make them symbolic links"
        )


def _look_at(path: str) -> os.stat_result:
    """The file, without opening it.

    POSIX takes every lock of a process on a file away when the process closes that file once,
    and SQLite in this process may have it open already.

    Raises:
        OSError: it is a folder, or may not be written.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return found
