"""Check a password or a key against a hash that was made elsewhere: see `domain/foreignpasswords`.

Slow on purpose: it belongs into the pool of `adapters/passwords.py`.
"""

import hashlib
import hmac

from keybearer.domain.errors import Unavailable
from keybearer.domain.foreignpasswords import Bcrypt, Foreign, Pbkdf2, Scrypt, read

_SPARE_BYTES = 1 << 20
_MOST_BYTES = 72


def check(hashed: str, password: bytes) -> bool | None:
    """Whether it is the one that was hashed; None where the hash cannot be read.

    Raises:
        Unavailable: it takes bcrypt, which is an extra.
    """
    try:
        return _check(read(hashed), password)
    except (ValueError, OverflowError):
        return None  # its parameters or its base64 make no sense


def _check(foreign: Foreign | None, password: bytes) -> bool | None:
    if isinstance(foreign, Scrypt):
        return hmac.compare_digest(_scrypt(foreign, password), foreign.key)
    if isinstance(foreign, Pbkdf2):
        made = hashlib.pbkdf2_hmac(
            foreign.digest, password, foreign.salt, foreign.iterations, len(foreign.key)
        )
        return hmac.compare_digest(made, foreign.key)
    return None if foreign is None else _bcrypt(foreign, password)


def _scrypt(scrypt: Scrypt, password: bytes) -> bytes:
    return hashlib.scrypt(
        password,
        salt=scrypt.salt,
        n=scrypt.n,
        r=scrypt.r,
        p=scrypt.p,
        dklen=len(scrypt.key),
        # OpenSSL counts 128·r·(N + p + 2) bytes against it, and allows 32 MiB unless told.
        maxmem=128 * scrypt.r * (scrypt.n + scrypt.p + 2) + _SPARE_BYTES,
    )


def _bcrypt(foreign: Bcrypt, password: bytes) -> bool:
    try:
        import bcrypt  # noqa: PLC0415 -- an extra
    except ImportError:
        raise Unavailable("bcrypt is not installed: pip install 'keybearer[bcrypt]'") from None
    if foreign.before:
        password = hashlib.sha256(password).hexdigest().encode()
    # It never took more, and whoever made the hash cut it off there.
    right: bool = bcrypt.checkpw(password[:_MOST_BYTES], foreign.text)
    return right
