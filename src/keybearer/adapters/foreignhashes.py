"""Check a password or a key against a hash that was made elsewhere: see `domain/foreignpasswords`.

Slow on purpose: it belongs into the pool of `adapters/passwords.py`.
"""

import hashlib
import hmac

from keybearer.domain.foreignpasswords import read_scrypt

_SPARE_BYTES = 1 << 20


def check(hashed: str, password: bytes) -> bool | None:
    """Whether it is the one that was hashed; None where the form of the hash is not known."""
    scrypt = read_scrypt(hashed)
    if scrypt is None:
        return None
    made = hashlib.scrypt(
        password,
        salt=scrypt.salt,
        n=scrypt.n,
        r=scrypt.r,
        p=scrypt.p,
        dklen=len(scrypt.key),
        # OpenSSL counts 128·r·(N + p + 2) bytes against it, and allows 32 MiB unless told.
        maxmem=128 * scrypt.r * (scrypt.n + scrypt.p + 2) + _SPARE_BYTES,
    )
    return hmac.compare_digest(made, scrypt.key)
