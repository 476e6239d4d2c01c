"""The values that everything speaks of: grants, verdicts, keys, users.

A credential that is presented becomes a `Grant` (what the database says of it, cached); judging
a grant against a need gives a verdict:

    Session     accepted: who is calling, with which permissions
    Refusal     presented and refused, with a code
    Anonymous   nothing was presented

Instants are integer milliseconds since the epoch, UTC.
"""

from typing import Literal

import msgspec

from keybearer.domain.errors import PROBLEMS, Failure
from keybearer.domain.instants import MAX_INSTANT
from keybearer.domain.networks import AllowList

Kind = Literal["key", "session", "access", "service", "operator"]
OwnerState = Literal["active", "unverified", "disabled", "gone"]
Role = Literal["user", "admin"]
Status = Literal["active", "expiring", "expired", "disabled", "revoked", "rotating"]

EXPIRING_MS = 14 * 86_400_000
"""A key that ends within 14 days is `expiring`."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `maximum` accepted requests in every interval of `window_ms` milliseconds."""

    maximum: int
    window_ms: int


ANYONE = "*"
"""The subject of an operator who acts for nobody in particular; no owner has this id."""


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="session"):
    """An accepted caller.

    Attributes:
        subject: the owner's opaque id (the user's id where keybearer keeps the users).
        kind: which credential was presented.
        id: the key's, login session's or service token's id.
        permissions: `resource:action` names that this caller may use; None where scopes do not
            limit it (a logged-in user of an app without a catalogue).
        expires_at: milliseconds since the epoch, or None for never.
        replaced: whether the key was rotated and this is its old secret, in its grace period.
    """

    subject: str
    kind: Kind
    id: str
    permissions: frozenset[str] | None = frozenset()
    role: Role = "user"
    name: str | None = None
    session_id: str | None = None
    expires_at: int | None = None
    authenticated_at: int | None = None
    replaced: bool = False

    @property
    def key_id(self) -> str | None:
        """The API key's id, or None when the caller logged in."""
        return self.id if self.kind == "key" else None


class Bars(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What can stand in the way of a good credential; most have nothing of it.

    `usable_until` is when this secret stops (rotation grace).
    """

    usable_until: int | None = None
    enabled: bool = True
    revoked_at: int | None = None
    owner_state: OwnerState = "active"
    allow: AllowList | None = None


_NOTHING = Bars()


def bars_of(
    *,
    usable_until: int | None = None,
    enabled: bool = True,
    revoked_at: int | None = None,
    owner_state: OwnerState = "active",
    allow: AllowList | None = None,
) -> Bars | None:
    """The bars of a grant, or None where there are none."""
    bars = Bars(
        usable_until=usable_until,
        enabled=enabled,
        revoked_at=revoked_at,
        owner_state=owner_state,
        allow=allow,
    )
    return None if bars == _NOTHING else bars


class Grant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the database says of one credential, at the moment of the read.

    Many are kept in memory: it holds nothing twice, and the key's record packed.

    Attributes:
        session: the caller that it stands for; its `permissions` are already cut to what the
            owner holds, its `expires_at` is when the key or session ends.
        bars: None where there is nothing in its way.
        secret_digest: given while the key rotates: then the uses of each secret are counted apart.
        packed: the key's record, as `pack` makes it.
    """

    session: Session
    bars: Bars | None = None
    secret_digest: bytes | None = None
    limit: RateLimit | None = None
    metered: bool = False
    packed: bytes | None = None

    @property
    def kind(self) -> Kind:
        """Which credential it is."""
        return self.session.kind

    @property
    def id(self) -> str:
        """The key's, login session's or service token's id."""
        return self.session.id

    @property
    def record(self) -> "Key | None":
        """The key's record; None where it is no key."""
        return None if self.packed is None else unpack(self.packed, self.session)

    @property
    def depends_on(self) -> tuple[tuple[str, str], ...]:
        """Of which rows a change makes it stale: the kind of each, and its id."""
        session = self.session
        if session.kind == "service":
            return (("service", session.id),)
        own = "key" if session.kind == "key" else "session"
        return ((own, session.id), ("owner", session.subject))

    @property
    def tags(self) -> tuple[str, ...]:
        """The same as changes name it: `key:<id>`, `owner:<id>`."""
        return tuple(f"{kind}:{id}" for kind, id in self.depends_on)


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A credential was presented and refused.

    Attributes:
        code: a name of `keybearer.domain.errors.PROBLEMS`.
        needed: the permissions that the endpoint asks for, where they were missing.
        retry_after_ms: milliseconds until a retry can succeed, for 429; None for never.
        limit: the key's rate limit, or what its quota is refilled with and how often, for 429.
        id: the key or session that the credential belongs to, when it is ours.
    """

    code: str
    needed: frozenset[str] = frozenset()
    retry_after_ms: int | None = None
    limit: RateLimit | None = None
    id: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status: 400, 401, 403 or 429."""
        return PROBLEMS[self.code].status

    @property
    def message(self) -> str:
        """One public sentence."""
        return PROBLEMS[self.code].message

    def failure(self) -> Failure:
        """The same as an exception, for code that answers by raising."""
        extra: dict[str, object] = {}
        if self.needed:
            extra["neededPermissions"] = sorted(self.needed)
        if self.retry_after_ms is not None:
            extra["details"] = {"tryAgainIn": self.retry_after_ms}
        if self.limit is not None:
            extra["limit"] = {"max": self.limit.maximum, "window": self.limit.window_ms}
        return Failure(self.code, extra=extra, retry_after_ms=self.retry_after_ms)


class Anonymous(msgspec.Struct, frozen=True, tag="anonymous"):
    """Nothing was presented."""


Verdict = Session | Refusal | Anonymous
ANONYMOUS = Anonymous()


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person with a login; `email` is in normal form."""

    id: str
    email: str
    name: str
    image: str | None
    role: Role
    locale: str | None
    email_verified_at: int | None
    disabled_at: int | None
    password_hash: str | None
    created_at: int
    updated_at: int

    def __repr__(self) -> str:
        return f"User(id={self.id!r}, role={self.role!r})"


class LoginSession(msgspec.Struct, frozen=True, kw_only=True):
    """One login of one user, in a browser or a program."""

    id: str
    user_id: str
    client_id: str
    created_at: int
    last_seen_at: int
    authenticated_at: int
    expires_at: int
    idle_ms: int
    ended_at: int | None
    ip: str | None
    user_agent: str | None

    @property
    def ends_at(self) -> int:
        """When it ends if nobody uses it: the sooner of idle and absolute."""
        return min(self.expires_at, self.last_seen_at + self.idle_ms)


ORGANIZATION = "organization:"
"""What the owner of an organization's key begins with: no user of the same id passes for it."""


class Key(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An API key's record; the secret is not in it."""

    id: str
    owner_id: str
    config_id: str
    name: str | None
    description: str | None
    prefix: str
    start: str
    enabled: bool
    created_at: int
    updated_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    revoked_reason: str | None
    permissions: frozenset[str] | None
    metadata: dict[str, object] | None
    ip_allow: tuple[str, ...]
    rate_limit_enabled: bool
    rate_limit_max: int | None
    rate_limit_window_ms: int | None
    remaining: int | None
    refill_amount: int | None
    refill_interval_ms: int | None
    last_refill_at: int | None
    last_used_at: int | None
    last_used_ip: str | None
    last_used_user_agent: str | None
    request_count: int
    deleted: bool = False
    """Whether it was revoked by a deletion: lists have it where revoked keys are asked for."""
    reminded_days: int | None = None
    rotating_until: int | None = None
    """When the last of the replaced secrets ends that still work; None while there is none."""

    def status(self, now: int) -> Status:
        """The word for its state; the gravest that applies."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        if not self.enabled:
            return "disabled"
        if self.rotating_until is not None and now < self.rotating_until:
            return "rotating"
        if self.expires_at is not None and self.expires_at - now < EXPIRING_MS:
            return "expiring"
        return "active"

    def status_until(self, now: int) -> int:
        """Up to which instant its state is what it is now, if nobody changes it."""
        ends = self.expires_at
        turns = (self.rotating_until, ends, None if ends is None else ends - EXPIRING_MS + 1)
        return min((at for at in turns if at is not None and now < at), default=MAX_INSTANT)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Key).decode


def pack(key: Key) -> bytes:
    """A record in a quarter of the memory, but for what the session of its grant has."""
    return _pack(msgspec.structs.replace(key, id="", owner_id=""))


def unpack(packed: bytes, session: Session) -> Key:
    """The reverse of `pack`."""
    return msgspec.structs.replace(_unpack(packed), id=session.id, owner_id=session.subject)


UNTIL_FINISHED = MAX_INSTANT
"""The `usable_until` of a replaced secret that goes on until somebody finishes the rotation.

An instant, so that it compares as any other; it is never shown.
"""


class KeySecret(msgspec.Struct, frozen=True, kw_only=True):
    """One secret of a key, as far as it is known: the secret itself is not in it.

    `usable_until` is None for the current one. Uses are counted while the key rotates; `start` is
    None for one that was replaced before it was kept.
    """

    digest: bytes
    start: str | None
    created_at: int
    usable_until: int | None
    last_used_at: int | None
    last_used_ip: str | None
    request_count: int

    def __repr__(self) -> str:
        return f"KeySecret(start={self.start!r}, usable_until={self.usable_until!r})"


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request came from: for audit, throttles and last use."""

    id: str
    ip: str | None = None
    user_agent: str | None = None
    idempotency_key: str | None = None
