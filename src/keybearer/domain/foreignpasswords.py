"""Hashes of passwords that were made elsewhere, as they are kept here until the next login.

    Better Auth   <salt>:<key>, hex       ──▶  $scrypt$ln=14,r=16,p=1$<salt>$<key>
    Argon2        $argon2id$v=19$m=…      ──▶  the same

In the PHC string format, with base64 without padding, so that a hash says of itself how it is
checked (adapters/foreignhashes.py). Bounds hold the work: a hash that nobody made in earnest must
not cost a minute at each guess.
"""

import re
from base64 import b64decode, b64encode

import msgspec

_BETTER_AUTH = re.compile(r"([0-9a-f]{32}):([0-9a-f]{128})")
_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{22,128})"
)
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})"
    r"\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{22,172})"
)

_MOST_KIB = 256 * 1024
_MOST_PASSES = 16


class Scrypt(msgspec.Struct, frozen=True, kw_only=True):
    """A scrypt hash (RFC 7914) with its parameters."""

    n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Scrypt(n={self.n}, r={self.r}, p={self.p}, …)"


def kept(text: str) -> str:
    """The hash as it is kept here.

    Raises:
        ValueError: its form is not known, or it would cost too much to check.
    """
    match = _BETTER_AUTH.fullmatch(text)
    if match is not None:
        # The salt is the text of the hex digits itself.
        salt, key = b64(match[1].encode()), b64(bytes.fromhex(match[2]))
        return f"$scrypt$ln=14,r=16,p=1${salt}${key}"
    match = _ARGON2.fullmatch(text)
    if match is not None:
        kib, passes, lanes = (int(match[n]) for n in (1, 2, 3))
        if not 8 * lanes <= kib <= _MOST_KIB or not 1 <= passes <= _MOST_PASSES or not lanes:
            raise ValueError("the hash of the password would cost too much to check")
        return text
    scrypt = read_scrypt(text)
    if scrypt is not None:
        if scrypt.n * scrypt.r * 128 > _MOST_KIB * 1024 or not scrypt.p or not scrypt.r:
            raise ValueError("the hash of the password would cost too much to check")
        return text
    raise ValueError("the hash of the password has a form that is not known here")


def read_scrypt(hashed: str) -> Scrypt | None:
    """A kept hash that is one of scrypt's; None for another."""
    match = _SCRYPT.fullmatch(hashed)
    if match is None:
        return None
    ln, r, p = (int(match[n]) for n in (1, 2, 3))
    return Scrypt(n=1 << ln, r=r, p=p, salt=unb64(match[4]), key=unb64(match[5]))


def b64(raw: bytes) -> str:
    """Base64 without padding, as the PHC string format has it."""
    return b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """The reverse of `b64`."""
    return b64decode(text + "=" * (-len(text) % 4))
