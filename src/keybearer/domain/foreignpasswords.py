"""Hashes of passwords that were made elsewhere, as they are kept here until the next login.

    Better Auth   <salt>:<key>, hex             ──▶  $scrypt$ln=14,r=16,p=1$<salt>$<key>
    Django        scrypt$N$salt$r$p$key         ──▶  the same
                  pbkdf2_sha256$i$salt$key      ──▶  $pbkdf2-sha256$i=…$<salt>$<key>
                  bcrypt_sha256$$2b$12$…        ──▶  $bcrypt-sha256$2b$12$…
                  bcrypt$$2b$12$…               ──▶  $2b$12$…
                  argon2$argon2id$v=19$m=…      ──▶  $argon2id$v=19$m=…
    others        $argon2id$v=19$m=…, $2b$12$…  ──▶  the same

In the PHC string format, with base64 without padding, so that a hash says of itself how it is
checked (adapters/foreignhashes.py). Bounds hold the work: a hash that nobody made in earnest must
not cost a minute at each guess.
"""

import re
from base64 import b64decode, b64encode

import msgspec

_BETTER_AUTH = re.compile(r"([0-9a-f]{32}):([0-9a-f]{128})")
_DJANGO_SCRYPT = re.compile(
    r"scrypt\$(\d{1,8})\$([!-#%-~]{1,64})\$(\d{1,2})\$(\d)\$([A-Za-z0-9+/]{22,128})=*"
)
_DJANGO_PBKDF2 = re.compile(
    r"pbkdf2_(sha1|sha256)\$(\d{1,8})\$([!-#%-~]{1,64})\$([A-Za-z0-9+/]{22,128})=*"
)
_B64 = r"([A-Za-z0-9+/]{2,128})\$([A-Za-z0-9+/]{22,128})"
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d)\$" + _B64)
_PBKDF2 = re.compile(r"\$pbkdf2-(sha1|sha256)\$i=(\d{1,8})\$" + _B64)
_BCRYPT = re.compile(r"\$(bcrypt-sha256\$)?(2[aby]\$(\d\d)\$[./A-Za-z0-9]{53})")
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})"
    r"\$([A-Za-z0-9+/]{11,128})\$([A-Za-z0-9+/]{22,172})"
)

_MOST_KIB = 256 * 1024
_MOST_PASSES = 16
_MOST_ITERATIONS = 5_000_000
_MOST_ROUNDS = 15


class Scrypt(msgspec.Struct, frozen=True, kw_only=True):
    """A scrypt hash (RFC 7914) with its parameters."""

    n: int
    r: int
    p: int
    salt: bytes
    key: bytes


class Pbkdf2(msgspec.Struct, frozen=True, kw_only=True):
    """A PBKDF2 hash (RFC 8018 section 5.2) with its parameters."""

    digest: str
    iterations: int
    salt: bytes
    key: bytes


class Bcrypt(msgspec.Struct, frozen=True, kw_only=True):
    """A bcrypt hash; `before` where the hex digits of the SHA-256 were hashed."""

    before: bool
    rounds: int
    text: bytes


Foreign = Scrypt | Pbkdf2 | Bcrypt


def kept(text: str) -> str:
    """The hash as it is kept here.

    Raises:
        ValueError: its form is not known, or it would cost too much to check.
    """
    told = _in_our_form(text)
    match = _ARGON2.fullmatch(told)
    if match is not None:
        kib, passes, lanes = (int(match[n]) for n in (1, 2, 3))
        fits = 0 < lanes <= kib // 8 <= _MOST_KIB // 8 and 0 < passes <= _MOST_PASSES
    else:
        foreign = read(told)
        if foreign is None or (isinstance(foreign, Scrypt) and not _is_scrypt(foreign)):
            raise ValueError("the hash of the password has a form that is not known here")
        fits = _fits(foreign)
    if not fits:
        raise ValueError("the hash of the password would cost too much to check")
    return told


def read(hashed: str) -> Foreign | None:
    """A kept hash that is not one of Argon2; None for another."""
    match = _SCRYPT.fullmatch(hashed)
    if match is not None:
        ln, r, p = (int(match[n]) for n in (1, 2, 3))
        return Scrypt(n=1 << ln, r=r, p=p, salt=unb64(match[4]), key=unb64(match[5]))
    match = _PBKDF2.fullmatch(hashed)
    if match is not None:
        return Pbkdf2(
            digest=match[1], iterations=int(match[2]), salt=unb64(match[3]), key=unb64(match[4])
        )
    match = _BCRYPT.fullmatch(hashed)
    if match is not None:
        text = b"$" + match[2].encode()
        return Bcrypt(before=match[1] is not None, rounds=int(match[3]), text=text)
    return None


def _in_our_form(text: str) -> str:
    match = _BETTER_AUTH.fullmatch(text)
    if match is not None:
        # The salt is the text of the hex digits itself.
        key = b64(bytes.fromhex(match[2]))
        return f"$scrypt$ln=14,r=16,p=1${b64(match[1].encode())}${key}"
    match = _DJANGO_SCRYPT.fullmatch(text)
    if match is not None:
        n, salt = int(match[1]), b64(match[2].encode())
        if n & (n - 1) == 0:
            return f"$scrypt$ln={n.bit_length() - 1},r={match[3]},p={match[4]}${salt}${match[5]}"
    match = _DJANGO_PBKDF2.fullmatch(text)
    if match is not None:
        salt = b64(match[3].encode())
        return f"$pbkdf2-{match[1]}$i={match[2]}${salt}${match[4]}"
    if text.startswith("bcrypt_sha256$$"):
        return "$bcrypt-sha256$" + text.removeprefix("bcrypt_sha256$$")
    if text.startswith("bcrypt$$"):
        return text.removeprefix("bcrypt$")
    if text.startswith("argon2$"):
        return "$" + text.removeprefix("argon2$")
    return text


def _is_scrypt(foreign: Scrypt) -> bool:
    """Whether N is one that RFC 7914 allows: a power of 2, from 2 to under 2^(128·r/8)."""
    return foreign.r < 1 or 2 <= foreign.n < 1 << 16 * foreign.r


def _fits(foreign: Foreign) -> bool:
    if isinstance(foreign, Scrypt):
        return 0 < foreign.n * foreign.r * foreign.p * 128 <= _MOST_KIB * 1024
    if isinstance(foreign, Pbkdf2):
        return 0 < foreign.iterations <= _MOST_ITERATIONS
    return 4 <= foreign.rounds <= _MOST_ROUNDS


def b64(raw: bytes) -> str:
    """Base64 without padding, as the PHC string format has it."""
    return b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """The reverse of `b64`."""
    return b64decode(text + "=" * (-len(text) % 4))
