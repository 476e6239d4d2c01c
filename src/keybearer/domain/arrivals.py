"""What arrives from elsewhere: people, keys and logins, each whole, or why it cannot come."""

from typing import Literal

import msgspec

from keybearer.domain.foreign import Scheme
from keybearer.domain.model import Key, LoginSession, User

Sort = Literal["user", "key", "session", "line"]
Ending = Literal["disabled", "revoked", "expired", "expires sooner"]


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


# --- what is here already ---


class UserHere(msgspec.Struct, frozen=True, kw_only=True):
    """What tells whether a user here is the one who arrives, and may go on.

    `keys` says whether they have any.
    """

    id: str
    email: str
    role: str
    created_at: int
    verified: bool
    disabled: bool
    keys: bool

    @property
    def squats(self) -> bool:
        """Whether it is an account that nobody has proven or used: it may make room."""
        return not (self.verified or self.keys) and self.role == "user"

    def is_same(self, user: User, *, came: bool) -> bool:
        """Whether it is the user who arrives; an id alone is no proof.

        Args:
            came: whether somebody of that id came from there before: their address may be
                another by now, here or there.
        """
        return self.email == user.email or (came and self.created_at == user.created_at)

    def ended(self, user: User) -> Ending | None:
        """What was ended there and not here."""
        return "disabled" if user.disabled_at is not None and not self.disabled else None


class KeyHere(msgspec.Struct, frozen=True, kw_only=True):
    """What tells whether a key here is the one that arrives, and may go on."""

    id: str
    owner_id: str
    created_at: int
    enabled: bool
    revoked: bool
    expires_at: int | None

    def is_same(self, arriving: ArrivingKey, *, found: bool) -> bool:
        """Whether it is the key that arrives.

        Args:
            found: whether it has one of the secrets that arrive; our digest takes that place.
        """
        key = arriving.key
        return found or (self.owner_id, self.created_at) == (key.owner_id, key.created_at)

    def ended(self, key: Key, now: int) -> Ending | None:
        """What was ended there and not here."""
        if self.revoked or (self.expires_at is not None and self.expires_at <= now):
            return None
        if key.revoked_at is not None:
            return "revoked"
        ends = key.expires_at
        if ends is not None and ends <= now:
            return "expired" if self.enabled else None
        if not key.enabled and self.enabled:
            return "disabled"
        if ends is not None and (self.expires_at is None or ends < self.expires_at):
            return "expires sooner"
        return None
