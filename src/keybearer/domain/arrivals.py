"""What arrives from elsewhere: people, keys and logins, each whole, or why it cannot come."""

from typing import Literal

import msgspec

from keybearer.domain.foreign import Scheme
from keybearer.domain.model import Key, LoginSession

Sort = Literal["user", "key", "session"]


class ArrivingKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, and what its secret is found by.

    Attributes:
        digest: as it stands in the database; None where the key comes without a secret.
        pepper_id: of ours which made the digest, or the scheme.
        scheme: which one it is found by; None for a digest of ours.
    """

    key: Key
    digest: bytes | None
    pepper_id: str
    scheme: Scheme | None


class ArrivingLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A login, and our digest of its session token."""

    login: LoginSession
    digest: bytes


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot come: which one, and why."""

    sort: Sort
    id: str
    reason: str
