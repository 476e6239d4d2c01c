"""Keys that were made elsewhere, and by what each is found.

    sha256    SHA-256 of the whole key      Better Auth

A digest of theirs stands where one of ours would, with the name of its scheme in front, so that
the two are never taken for each other. At the first use ours takes its place. The key itself goes
on to have no checksum of ours, so whatever looks like no key of ours is looked up, in one read,
and only where the database has such keys.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Literal

Scheme = Literal["sha256"]

NO_SCHEMES: frozenset[Scheme] = frozenset()

TAG = "foreign:schemes"
"""What a change touches that brings the first keys of a scheme."""


def _sha256(credential: bytes) -> bytes:
    return hashlib.sha256(credential).digest()


_NAMES: Mapping[Scheme, Callable[[bytes], bytes]] = {"sha256": _sha256}

SCHEMES = frozenset(_NAMES)


def name_of(scheme: Scheme, found_by: bytes) -> bytes:
    """What stands in the database for a secret that is found by `found_by`."""
    return scheme.encode() + b":" + found_by


def names(credential: bytes, schemes: Collection[Scheme]) -> list[bytes]:
    """What may stand in the database for a credential, by the schemes that it has."""
    return [name_of(scheme, _NAMES[scheme](credential)) for scheme in sorted(schemes)]
