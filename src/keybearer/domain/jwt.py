"""Sign, read and rotate access tokens: JWTs after RFC 9068.

    base64url(header) . base64url(payload) . base64url(signature)

    header     {"typ":"at+jwt","alg":"EdDSA","kid":…}        and no other member
    payload    {"iss","sub","aud","exp","iat","jti","sid","client_id","scope"}
    signature  Ed25519 (RFC 8037); one algorithm per key, taken from the key, never from the header

The life of a signing key, and of its successor:

    created          activates                     successor activates        retires
    |---- ahead -----|---------- interval ---------|------ overlap -----------|
    |  in the JWKS   |  in the JWKS, signs         |  in the JWKS             |  gone
                              successor created ---|
                              |------ ahead -------|

    ahead    10 min: twice the JWKS' max-age, so that every verifier knows a key before it signs
    overlap  life of an access token + 10 min, so that no token outlives its key

The first key of all signs at once: nobody can hold a list without it. A key has no end until it has
a successor, so a rotation that comes late never leaves us without a key.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import OKPKey

from keybearer.domain.errors import Misuse

JWKS_MAX_AGE_SECONDS = 300
"""What Cache-Control of the JWKS may say at most."""

AHEAD_MS = 2 * JWKS_MAX_AGE_SECONDS * 1000
OVERLAP_MS = 600_000

MAX_LENGTH = 8192
"""Longest token that is looked at, in bytes."""

_MAX_OPENINGS = 32


class JwtRefusal(StrEnum):
    """Why a token was refused; for logs and tests, the caller only hears 401."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_TYPE = "wrong_type"


class SealBroken(Misuse):
    """A sealed key that no secret opens: SECRET lost a value, or the row was changed."""


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """An Ed25519 key pair with its life; the public half alone where only reading is wanted.

    `key` is joserfc's, whose repr shows nothing of it. The instants are milliseconds, UTC.
    `retires_at` is None until there is a successor.
    """

    kid: str
    key: OKPKey
    created_at: int
    activates_at: int
    retires_at: int | None = None

    def to_jwk(self, *, private: bool) -> str:
        """The key as a JWK (RFC 8037 section 2); with `private`, seal it before it is stored.

        Raises ValueError where the private half is asked for and not there.
        """
        return json.dumps({"kid": self.kid, **self.key.as_dict(private=private)})

    @classmethod
    def from_jwk(
        cls, text: str, *, created_at: int, activates_at: int, retires_at: int | None = None
    ) -> "SigningKey":
        """Read what `to_jwk` wrote, either half.

        Raises Misuse where it is no Ed25519 JWK with a kid, or `x` and `d` are not one pair.
        """
        jwk = _object(text.encode())
        if jwk is None or (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519"):
            raise Misuse("A signing key must be an Ed25519 JWK.")
        try:
            given = OKPKey.import_key({name: str(value) for name, value in jwk.items()})
            kid = str(jwk["kid"])
        except (JoseError, KeyError, ValueError):
            # From None: the cause's text may hold a part of the key.
            raise Misuse("A signing key is not readable.") from None
        # Rebuilt from the raw key, so that `x` is the one that belongs to `d`: joserfc would
        # publish the given one, and every verifier would refuse our tokens.
        key = OKPKey.import_key(given.raw_value)
        if key.as_dict()["x"] != jwk["x"]:
            raise Misuse("The halves of a signing key do not belong together.")
        life = {"created_at": created_at, "activates_at": activates_at}
        return cls(kid=kid, key=key, retires_at=retires_at, **life)


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What an access token says (RFC 9068 section 2.2); `exp` and `iat` in seconds, UTC.

    All text is printable ASCII: ids, URIs and scopes, never a person's data.
    Read from a token, `aud` is the audience that it was accepted for.
    """

    iss: str
    sub: str
    aud: str
    exp: int
    iat: int
    jti: str
    sid: str
    client_id: str
    scope: str


_REGISTRY = jws.JWSRegistry(algorithms=["EdDSA"])
# joserfc warns of "EdDSA" because RFC 9864 wants the curve in the name. RFC 9068 verifiers and
# Better Auth's clients know "EdDSA", so the header keeps that name, and in our registry it means
# the fully specified Ed25519 and nothing else.
_REGISTRY.algorithms = {"EdDSA": next(each for each in JWS_ALGORITHMS if each.name == "Ed25519")}


def issue(key: SigningKey, claims: AccessClaims) -> str:
    """Sign `claims` with `key`.

    Raises:
        Misuse: the key has no private half, or `read` would refuse the token for its form.
    """
    if not key.key.is_private:
        raise Misuse("This signing key has no private half.")
    payload = msgspec.json.encode(claims)
    if not isinstance(_claims(_object(payload), claims.aud), AccessClaims):
        raise Misuse("Claims must be printable ASCII, and none but scope may be empty.")
    header = {"typ": "at+jwt", "alg": "EdDSA", "kid": key.kid}
    token = jws.serialize_compact(header, payload, key.key, registry=_REGISTRY)
    if len(token) > MAX_LENGTH:
        raise Misuse(f"The access token would be longer than {MAX_LENGTH} bytes.")
    return token


def read(
    token: str | bytes,
    keys: Mapping[str, SigningKey],
    *,
    issuer: str,
    audience: str,
    now_seconds: int,
    leeway_seconds: int = 5,
) -> AccessClaims | JwtRefusal:
    """Check a token in the order of RFC 9068 section 4; never raises, whatever the token.

    Args:
        token: the credential, as it came.
        keys: our keys by kid.
        issuer: what `iss` must be, exactly.
        audience: what `aud` must be, or contain.
        now_seconds: the time, seconds since the epoch, UTC.
        leeway_seconds: for clocks that differ; counted once, for each of exp, iat and activation.
    """
    parts = _parts(token)
    if parts is None:
        return JwtRefusal.MALFORMED
    header = _header(_object(parts[0]))
    if isinstance(header, JwtRefusal):
        return header
    key = keys.get(header)
    now = now_seconds * 1000
    if key is None or key.activates_at > now + leeway_seconds * 1000 or _retired(key, now):
        return JwtRefusal.UNKNOWN_KEY
    try:
        jws.deserialize_compact(token, key.key, registry=_REGISTRY)
    except JoseError:
        return JwtRefusal.BAD_SIGNATURE
    claims = _claims(_object(parts[1]), audience)
    if isinstance(claims, JwtRefusal):
        return claims
    if claims.iss != issuer:
        return JwtRefusal.WRONG_ISSUER
    if claims.exp <= now_seconds - leeway_seconds:
        return JwtRefusal.EXPIRED
    if claims.iat > now_seconds + leeway_seconds:
        return JwtRefusal.NOT_YET
    return claims


def jwks(keys: Iterable[SigningKey]) -> dict[str, list[dict[str, str]]]:
    """The JWK Set (RFC 7517 section 5) of `keys`: public members only, named one by one."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": str(each.key.as_dict()["x"]),
                "kid": each.kid,
                "use": "sig",
                "alg": "EdDSA",
            }
            for each in keys
        ]
    }


def generate(kid: str, now: int, *, first: bool = False) -> SigningKey:
    """A new key pair from the operating system's CSPRNG.

    `first`: no other key is live, so it may sign at once; else only once every verifier knows it.
    """
    return SigningKey(
        kid=kid,
        key=OKPKey.generate_key("Ed25519"),
        created_at=now,
        activates_at=now if first else now + AHEAD_MS,
    )


def current(keys: Iterable[SigningKey], now: int) -> SigningKey | None:
    """The key that signs at `now`: of those active and not retired, the newest."""
    active = (each for each in keys if each.activates_at <= now and not _retired(each, now))
    return max(active, key=_newness, default=None)


def due(keys: Iterable[SigningKey], now: int, interval_ms: int) -> bool:
    """Whether it is time to `generate` a successor, so that it signs when `interval_ms` is over."""
    live = publishable(keys, now)
    return not live or live[0].activates_at + interval_ms <= now + AHEAD_MS


def succeeded(key: SigningKey, successor: SigningKey, *, token_ttl_ms: int) -> SigningKey:
    """`key` with the end that `successor` gives it; an end that is set already stays.

    `token_ttl_ms`: the longest life of an access token.
    """
    if key.retires_at is not None:
        return key
    end = successor.activates_at + token_ttl_ms + OVERLAP_MS
    return msgspec.structs.replace(key, retires_at=end)


def publishable(keys: Iterable[SigningKey], now: int) -> tuple[SigningKey, ...]:
    """The keys of the JWKS at `now`, newest first: not yet active ones too, retired ones not."""
    live = (each for each in keys if not _retired(each, now))
    return tuple(sorted(live, key=_newness, reverse=True))


def seal(secret: bytes, jwk_text: str) -> str:
    """Encrypt a private JWK for storage: `1.<secret id>.<base64url(nonce + AES-256-GCM)>`.

    Deterministic: the same text under the same secret gives the same seal.
    """
    key, nonce_key, secret_id = _derive(secret)
    plain = jwk_text.encode()
    # The nonce is a MAC of the text (as SIV has it): two texts under one secret never share a
    # nonce, and this module needs no randomness.
    mac = HMAC(nonce_key, SHA256())
    mac.update(plain)
    nonce = mac.finalize()[:12]
    prefix = f"1.{secret_id}."
    return prefix + _encode(nonce + AESGCM(key).encrypt(nonce, plain, prefix.encode()))


def unseal(secrets: Sequence[bytes], sealed: str) -> str:
    """Decrypt what `seal` wrote, with whichever of `secrets` (newest first) it was.

    Raises:
        SealBroken: none of them fits, or the text was changed.
    """
    for secret in secrets:
        key, _, secret_id = _derive(secret)
        prefix = f"1.{secret_id}."
        if not sealed.startswith(prefix):
            continue
        box = _decode(sealed[len(prefix) :].encode()) or b""
        try:
            return AESGCM(key).decrypt(box[:12], box[12:], prefix.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealBroken("A signing key in the database was changed.") from None
    raise SealBroken("No value of SECRET opens a signing key: put the old one back behind a comma.")


def _derive(secret: bytes) -> tuple[bytes, bytes, str]:
    info = b"keybearer signing key"
    material = HKDF(algorithm=SHA256(), length=70, salt=None, info=info).derive(secret)
    return material[:32], material[32:64], _encode(material[64:])


def _newness(key: SigningKey) -> tuple[int, str]:
    return key.activates_at, key.kid


def _retired(key: SigningKey, now: int) -> bool:
    return key.retires_at is not None and key.retires_at <= now


def _parts(token: str | bytes) -> list[bytes] | None:
    """Header, payload and signature, decoded; all three canonical, or None."""
    if len(token) > MAX_LENGTH or not token.isascii():
        return None
    raw = token.encode() if isinstance(token, str) else token
    parts = [_decode(part) for part in raw.split(b".", 3)]
    whole = [part for part in parts if part]
    return whole if len(whole) == len(parts) == 3 else None


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(part: bytes) -> bytes | None:
    """Base64url as RFC 7515 section 2 has it: what decodes must encode to itself again.

    That refuses padding, line ends, foreign characters and stray bits in the last one, each of
    which would give one signature many spellings.
    """
    try:
        data = urlsafe_b64decode(part + b"==")
    except ValueError:
        return None
    return data if urlsafe_b64encode(data).rstrip(b"=") == part else None


def _object(raw: bytes) -> dict[str, object] | None:
    """A JSON object without a member named twice, NaN or deep nesting; or None."""
    # Nothing of ours is nested: the number of openings bounds the depth without a parse.
    if raw.count(b"{") + raw.count(b"[") > _MAX_OPENINGS:
        return None
    try:
        value = _JSON.decode(raw.decode())
    except ValueError:
        return None
    return value if type(value) is dict else None


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(members)
    if len(names) != len(members):
        raise ValueError
    return names


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _header(header: dict[str, object] | None) -> str | JwtRefusal:
    """The kid; every member but typ, alg and kid is refused (crit, jwk, jku, x5u, b64, zip …)."""
    if header is None or not header.keys() <= {"typ", "alg", "kid"}:
        return JwtRefusal.MALFORMED
    kid = header.get("kid")
    if header.get("alg") != "EdDSA" or not isinstance(kid, str):
        return JwtRefusal.MALFORMED
    if header.get("typ") not in ("at+jwt", "application/at+jwt"):
        return JwtRefusal.WRONG_TYPE
    return kid


def _claims(payload: dict[str, object] | None, audience: str) -> AccessClaims | JwtRefusal:
    """The claims with their exact JSON types; members that we do not know are ignored."""
    if payload is None:
        return JwtRefusal.MALFORMED
    text = {name: payload.get(name) for name in ("iss", "sub", "jti", "sid", "client_id", "scope")}
    times = {name: payload.get(name) for name in ("exp", "iat")}
    audiences = payload.get("aud")
    audiences = audiences if isinstance(audiences, list) else [audiences]
    if not (
        all(_is_text(value) and (value or name == "scope") for name, value in text.items())
        # Not isinstance: True is an int for Python, but no NumericDate.
        and all(type(value) is int and 0 <= value < 2**53 for value in times.values())
        and all(_is_text(value) and value for value in audiences)
    ):
        return JwtRefusal.MALFORMED
    if audience not in audiences:
        return JwtRefusal.WRONG_AUDIENCE
    return msgspec.convert({**text, **times, "aud": audience}, AccessClaims)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()
