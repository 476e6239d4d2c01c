"""Mint, read and digest the secrets that programs present.

    API key        kb_ <43 base62: 256 random bits> <6 base62: CRC32 of all before>
    service token  kbs_ <the same>
    calendar       kbc_ <the same>, in its address
    refresh token  kbr_ <base62: family 16 B | generation 4 B | MAC 32 B> <6 base62: CRC32>
    session token  <32 of [a-zA-Z0-9]>, in cookies as token.signature
    access token   three base64url parts with dots (domain/jwt.py)

The checksum lets us, and secret scanners, tell a typo or a forgery from a key without asking the
database. It is no secret: who has the right checksum still needs the right 256 bits.

Digests are HMAC-SHA-256 of the whole credential under a pepper derived from SECRET. A slow hash
would only make checks slow: 256 random bits cannot be guessed, whatever the hash.
"""

import hashlib
import hmac
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from keybearer.domain.errors import Misuse

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_INDEX = {ord(char): value for value, char in enumerate(ALPHABET)}

SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
SERVICE_PREFIX = "kbs_"
REFRESH_PREFIX = "kbr_"
CALENDAR_PREFIX = "kbc_"
SESSION_TOKEN_LENGTH = 32

Entropy = Callable[[int], bytes]
"""Gives n bytes from the operating system's CSPRNG (`os.urandom`)."""


class Secret:
    """Text that must not be seen: masked in repr and str, compared in constant time."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one answer that shows it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(
            self._text.encode(), other._text.encode()
        )

    def __hash__(self) -> int:
        return hash(self._text)


# --- base62 ---------------------------------------------------------------------------------


def base62(number: int, length: int) -> str:
    """`number` in exactly `length` base62 digits, zero-padded.

    Raises:
        ValueError: the number needs more digits.
    """
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(ALPHABET[rest])
    if number:
        raise ValueError("the number does not fit the length")
    return "".join(reversed(digits))


def unbase62(text: bytes) -> int | None:
    """The number that base62 digits mean, or None where a byte is none."""
    number = 0
    for byte in text:
        value = _INDEX.get(byte)
        if value is None:
            return None
        number = number * 62 + value
    return number


def checksum(body: bytes) -> bytes:
    """Six base62 digits of CRC32 over `body` (62**6 > 2**32, so it always fits)."""
    return base62(zlib.crc32(body), CHECKSUM_LENGTH).encode()


# --- minting --------------------------------------------------------------------------------


def mint(prefix: str, entropy: Entropy) -> Secret:
    """A new API key, service or calendar token with `prefix`: 256 random bits and the checksum.

    A 256-bit number always fits 43 base62 digits (62**43 > 2**256), so nothing is folded and no
    digit is biased by a modulo.
    """
    body = prefix + base62(int.from_bytes(entropy(32)), SECRET_LENGTH)
    return Secret(body + checksum(body.encode()).decode())


def mint_session_token(entropy: Entropy) -> Secret:
    """A new opaque session token: 32 characters, 190 random bits."""
    number = int.from_bytes(entropy(32)) % 62**SESSION_TOKEN_LENGTH
    return Secret(base62(number, SESSION_TOKEN_LENGTH))


def mint_link_token(entropy: Entropy) -> Secret:
    """A new token for a link in a mail: 256 random bits in 43 characters."""
    return Secret(base62(int.from_bytes(entropy(32)), SECRET_LENGTH))


def start_of(secret: Secret, prefix: str) -> str:
    """What of a key may be shown for ever: its prefix and the four characters after it."""
    return secret.reveal()[: len(prefix) + 4]


# --- reading --------------------------------------------------------------------------------


def well_formed(credential: bytes, prefixes: Sequence[bytes]) -> bool:
    """Whether `credential` has one of `prefixes`, the length, the alphabet and the checksum.

    Costs no look-up: a storm of made-up keys ends here.
    """
    digits = SECRET_LENGTH + CHECKSUM_LENGTH
    for prefix in prefixes:
        if credential.startswith(prefix) and len(credential) == len(prefix) + digits:
            if unbase62(credential[len(prefix) :]) is None:
                return False
            body = credential[:-CHECKSUM_LENGTH]
            return hmac.compare_digest(checksum(body), credential[-CHECKSUM_LENGTH:])
    return False


# --- peppers --------------------------------------------------------------------------------


class Pepper(msgspec.Struct, frozen=True, kw_only=True):
    """One secret's derived keys; `id` names the secret without telling it."""

    id: str
    digest_key: bytes
    cookie_key: bytes
    refresh_key: bytes
    audit_key: bytes
    signing_secret: bytes
    flash_key: bytes

    def __repr__(self) -> str:
        return f"Pepper(id={self.id!r}, …)"


def derive(secret: bytes) -> Pepper:
    """A pepper from one SECRET: each use has its own key (domain separation).

    Raises:
        Misuse: the secret is shorter than 32 bytes.
    """
    if len(secret) < 32:
        raise Misuse("SECRET must have at least 32 bytes; make one with `openssl rand -base64 48`")

    def key(use: str) -> bytes:
        return hmac.digest(secret, f"keybearer/1/{use}".encode(), "sha256")

    return Pepper(
        id=key("id").hex()[:16],
        digest_key=key("digest"),
        cookie_key=key("cookie"),
        refresh_key=key("refresh"),
        audit_key=key("audit"),
        signing_secret=key("signing"),
        flash_key=key("flash"),
    )


_EXAMPLES = (
    *("changeme", "changethis", "replacethis", "replaceme", "yoursecret", "supersecret"),
    *("example", "placeholder", "betterauthsecret"),
)
_LONGEST_COUNT = 8


def guessable(secret: str) -> bool:
    """Whether a SECRET is one that anybody would try: an example, a repetition, a counted row.

    It knows no words beyond those of examples: `doctor` warns of what looks like words.
    """
    letters = "".join(filter(str.isalnum, secret.lower()))
    if any(example in letters for example in _EXAMPLES):
        return True
    if any(secret[unit:] == secret[:-unit] for unit in range(1, len(secret) // 2 + 1)):
        return True
    counted = 1
    for before, after in pairwise(secret.encode()):
        counted = counted + 1 if after == before + 1 else 1
        if counted > _LONGEST_COUNT:
            return True
    return False


class PepperRing:
    """Peppers, newest first: the first makes digests, all of them are tried in look-ups."""

    __slots__ = ("_digest_key", "peppers")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise Misuse("SECRET is empty; make one with `openssl rand -base64 48`")
        self.peppers = tuple(derive(secret) for secret in secrets)
        self._digest_key = self.peppers[0].digest_key

    @property
    def newest(self) -> Pepper:
        """The pepper that new digests, cookies and tokens are made with."""
        return self.peppers[0]

    def digest(self, credential: bytes) -> bytes:
        """32 bytes that stand for the whole credential, under the newest pepper."""
        return hmac.digest(self._digest_key, credential, "sha256")

    def digests(self, credential: bytes) -> list[bytes]:
        """The digests under every pepper, newest first, for look-ups while SECRET rotates."""
        return [hmac.digest(pepper.digest_key, credential, "sha256") for pepper in self.peppers]

    def find(self, pepper_id: str) -> Pepper | None:
        """The pepper with this id, or None when its secret is no longer listed."""
        return next((pepper for pepper in self.peppers if pepper.id == pepper_id), None)

    # Signed cookies: token.signature, the wire form of Better Auth.

    def sign(self, token: str) -> str:
        """`token.signature` for a cookie."""
        return f"{token}.{_signature(self.newest.cookie_key, token)}"

    def unsign(self, signed: str) -> str | None:
        """The token of `token.signature`, or None when no pepper made the signature."""
        token, dot, signature = signed.rpartition(".")
        if not dot or not signature.isascii():
            return None
        for pepper in self.peppers:
            if hmac.compare_digest(_signature(pepper.cookie_key, token), signature):
                return token
        return None


def _signature(key: bytes, token: str) -> str:
    mac = hmac.digest(key, token.encode("utf-8", "surrogatepass"), "sha256")
    return b64encode(mac).decode()


def service_token_hash(token: bytes) -> str:
    """SHA-256 in hex, as SERVICE_TOKENS lists it.

    Plain, not peppered, so that the setting outlives a rotation of SECRET; the token has 256
    random bits.
    """
    return hashlib.sha256(token).hexdigest()


# --- refresh tokens -------------------------------------------------------------------------
#
# One row a family; its generation counter alone says which token is the live one. Tokens are
# derived, so nothing secret is stored, and a reply that got lost can be given again:
#
#     generation:   1 ──refresh──▶ 2 ──refresh──▶ 3
#     presented 3:  the live one -> 4
#     presented 2:  within 10 s of becoming spent -> 3 again (the lost reply); later -> reuse
#     presented 1:  reuse: the family ends

_FAMILY_BYTES = 16
_REFRESH_BYTES = _FAMILY_BYTES + 4 + 32
_REFRESH_DIGITS = 70  # 62**70 > 2**(8*52)


class RefreshToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a well-formed refresh token says; the MAC is yet to be checked."""

    family: str
    generation: int
    mac: bytes

    def __repr__(self) -> str:
        return f"RefreshToken(family={self.family!r}, generation={self.generation})"


def refresh_token(pepper: Pepper, *, family: str, generation: int, seed: bytes) -> Secret:
    """The token of one generation of a family.

    Args:
        family: 32 hex digits.
        generation: 1 and up.
        seed: the family's random bytes from its row, so that SECRET alone forges nothing.
    """
    body = _refresh_body(family, generation)
    raw = body + hmac.digest(pepper.refresh_key, body + seed, "sha256")
    text = REFRESH_PREFIX + base62(int.from_bytes(raw), _REFRESH_DIGITS)
    return Secret(text + checksum(text.encode()).decode())


def parse_refresh_token(credential: bytes) -> RefreshToken | None:
    """Family, generation and MAC, or None for what is no refresh token at all."""
    prefix = REFRESH_PREFIX.encode()
    if not credential.startswith(prefix):
        return None
    if len(credential) != len(prefix) + _REFRESH_DIGITS + CHECKSUM_LENGTH:
        return None
    if not hmac.compare_digest(
        checksum(credential[:-CHECKSUM_LENGTH]), credential[-CHECKSUM_LENGTH:]
    ):
        return None
    number = unbase62(credential[len(prefix) : -CHECKSUM_LENGTH])
    if number is None or number >= 1 << (8 * _REFRESH_BYTES):
        return None
    raw = number.to_bytes(_REFRESH_BYTES)
    return RefreshToken(
        family=raw[:_FAMILY_BYTES].hex(),
        generation=int.from_bytes(raw[_FAMILY_BYTES : _FAMILY_BYTES + 4]),
        mac=raw[_FAMILY_BYTES + 4 :],
    )


def refresh_token_holds(ring: PepperRing, token: RefreshToken, *, seed: bytes) -> bool:
    """Whether one of our peppers made this token for this family."""
    body = _refresh_body(token.family, token.generation)
    held = False
    for pepper in ring.peppers:
        made = hmac.digest(pepper.refresh_key, body + seed, "sha256")
        held |= hmac.compare_digest(made, token.mac)
    return held


def _refresh_body(family: str, generation: int) -> bytes:
    return bytes.fromhex(family) + generation.to_bytes(4)
