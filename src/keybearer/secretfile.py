"""SECRET, or the file that has it: made once, whole, and for this user alone."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from keybearer.domain.credentials import guessable
from keybearer.domain.errors import Misuse
from keybearer.settings import Settings


def secrets_of(settings: Settings) -> Sequence[str]:
    """SECRET; with SQLite, unless it is set, one that is made once and kept beside the file."""
    path = settings.sqlite_path
    if settings.secret or path is None:
        return settings.secret
    file = Path(f"{os.path.realpath(path)}-secret")
    try:
        if not file.exists():
            _make(file)
        if file.stat().st_mode & 0o077:
            raise Misuse(f"{file} may be read by others: chmod 600 {file}")
        kept = tuple(file.read_text().split())
    except OSError as error:
        raise Misuse(f"{file} cannot be read or made ({error.strerror})") from None
    if not kept:
        raise Misuse(f"{file} is empty: put the secret back from your backup")
    if any(guessable(secret) for secret in kept):
        raise Misuse(f"{file} must hold random bytes: openssl rand -base64 48")
    return kept


def _make(file: Path) -> None:
    """Makes the secret whole or not at all; of several processes at once, one makes it."""
    draft, name = tempfile.mkstemp(prefix=f"{file.name}-", dir=file.parent)
    try:
        with os.fdopen(draft, "w") as handle:
            handle.write(os.urandom(48).hex() + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # keys made under a secret that a power cut takes away are lost
        finally:
            os.close(folder)
    finally:
        os.unlink(name)
