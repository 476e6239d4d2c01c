"""Keys that were made elsewhere, and by what each is found.

    sha256      SHA-256 of the whole key     Better Auth, Unkey
    sha512      SHA-512 of the whole key     djangorestframework-api-key 3, django-rest-knox
    drf         the prefix of prefix.secret, then a slow hash of the whole key decides
                                             djangorestframework-api-key before 3
    keyshield   the id of prefix-id-secret, then a slow hash of the secret under a pepper decides
                                             keyshield, fastapi-api-key

A digest or name of theirs stands where a digest of ours would, with its scheme in front, so that
the two are never taken for each other. At the first use ours takes its place, and a slow hash is
checked never again. The key itself goes on to have no checksum of ours, so whatever looks like no
key of ours is looked up, in one read, and only where the database has such keys.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping
from typing import Literal

Scheme = Literal["sha256", "sha512", "drf", "keyshield"]

NO_SCHEMES: frozenset[Scheme] = frozenset()

TAG = "foreign:schemes"
"""What a change touches that brings the first keys of a scheme."""

_LONGEST_NAME = 64
# The separator is one mark, `-` unless set; the id sixteen hex digits.
_KEYSHIELD = re.compile(rb"[!-~]+?([^0-9A-Za-z\s])([0-9a-f]{16})\1([!-~]+)")


def _sha256(credential: bytes) -> bytes | None:
    return hashlib.sha256(credential).digest()


def _sha512(credential: bytes) -> bytes | None:
    return hashlib.sha512(credential).digest()


def _drf(credential: bytes) -> bytes | None:
    prefix, dot, _ = credential.partition(b".")
    return prefix if dot and 0 < len(prefix) <= _LONGEST_NAME else None


def _keyshield(credential: bytes) -> bytes | None:
    match = _KEYSHIELD.fullmatch(credential)
    return None if match is None else match[2]


_NAMES: Mapping[Scheme, Callable[[bytes], bytes | None]] = {
    "sha256": _sha256,
    "sha512": _sha512,
    "drf": _drf,
    "keyshield": _keyshield,
}

SCHEMES = frozenset(_NAMES)

SLOW: frozenset[Scheme] = frozenset({"drf", "keyshield"})
"""Those whose digest is only a name, and a slow hash decides."""

_LENGTHS: Mapping[Scheme, range] = {
    "sha256": range(32, 33),
    "sha512": range(64, 65),
    "drf": range(1, _LONGEST_NAME + 1),
    "keyshield": range(16, 17),
}


def name_of(scheme: Scheme, found_by: bytes) -> bytes:
    """What stands in the database for a secret that is found by `found_by`."""
    return scheme.encode() + b":" + found_by


def is_name(scheme: Scheme, digest: bytes) -> bool:
    """Whether a digest is one that `name_of` gives."""
    front = name_of(scheme, b"")
    return digest.startswith(front) and len(digest) - len(front) in _LENGTHS[scheme]


def names(credential: bytes, schemes: Collection[Scheme]) -> list[bytes]:
    """What may stand in the database for a credential, by the schemes that it has."""
    found = ((scheme, _NAMES[scheme](credential)) for scheme in sorted(schemes))
    return [name_of(scheme, by) for scheme, by in found if by is not None]


def hashed_part(credential: bytes, scheme: str, hashed: str, pepper: str) -> bytes:
    """What of a credential a slow hash of its scheme was made of."""
    match = _KEYSHIELD.fullmatch(credential) if scheme == "keyshield" else None
    if match is None:
        return credential
    if hashed.startswith("$2"):
        return hmac.digest(pepper.encode(), match[3], "sha256")
    return match[3] + pepper.encode()
