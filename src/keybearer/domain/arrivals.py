"""What arrives from elsewhere: people, keys and logins, each whole, or why it cannot come."""

from typing import Literal

import msgspec

from keybearer.domain.foreign import Scheme
from keybearer.domain.model import Key, LoginSession

Sort = Literal["user", "key", "session", "line"]


class ArrivingSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What one secret of a key is found by.

    `pepper_id` is of ours which made the digest, or the scheme. `usable_until` is None for the
    current one. `scheme` is None for a secret of our form, and says of any other how it is found;
    `foreign_hash` decides where the digest is only a name.
    """

    digest: bytes
    pepper_id: str
    created_at: int
    start: str | None
    usable_until: int | None = None
    scheme: Scheme | None = None
    foreign_hash: str | None = None


class ArrivingKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its secrets: one as a rule, several while it rotates."""

    key: Key
    secrets: tuple[ArrivingSecret, ...]


class ArrivingLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A login, and our digest of its session token."""

    login: LoginSession
    digest: bytes


class Unwritable(ValueError):
    """The database takes a value of some row not, which nobody foresaw."""


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot come: which one, and why."""

    sort: Sort
    id: str
    reason: str
