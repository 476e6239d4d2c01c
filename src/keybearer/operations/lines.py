"""The lines of an export: JSON, one thing a line, told apart by `type`.

    head    which keybearer wrote it, and when            the first line
    user    a person; the hash of the password only where hashes are asked for
    key     a key's record; the digests of its secrets only where hashes are asked for
    usage   how many requests of a key ended how in an hour
    event   an event of the audit trail, in the order of its chain
    end     how many lines there are before it            the last line

Instants are ISO 8601 in UTC, durations milliseconds. There is no secret in any of them: a digest
opens nothing, and is of use only under the same SECRET.
"""

from typing import Annotated, Any

import msgspec

from keybearer.domain.foreign import Scheme
from keybearer.domain.instants import iso, parse_iso
from keybearer.domain.model import Key, Role, User
from keybearer.domain.permissions import parse, to_wire
from keybearer.domain.uses import Count

VERSION = 1

Instant = str


class Line(msgspec.Struct, kw_only=True, frozen=True, rename="camel", tag_field="type",
           omit_defaults=True):  # fmt: skip
    """What all lines have in common: names in camel case, and their type."""


class HeadLine(Line, tag="head", frozen=True, kw_only=True):
    """The first line."""

    keybearer: int
    exported_at: Instant
    hashes: bool


class UserLine(Line, tag="user", frozen=True, kw_only=True):
    """A person."""

    id: str
    email: str
    name: str
    image: str | None = None
    role: Role = "user"
    locale: str | None = None
    email_verified_at: Instant | None = None
    disabled_at: Instant | None = None
    created_at: Instant
    updated_at: Instant
    password_hash: str | None = None


class SecretLine(msgspec.Struct, kw_only=True, frozen=True, rename="camel", omit_defaults=True):
    """The digest of one secret of a key, in hex; `usableUntil` where it was replaced.

    `scheme` is there where the secret was made elsewhere.
    """

    digest: str
    pepper_id: str
    created_at: Instant
    start: str | None = None
    usable_until: Instant | None = None
    scheme: Scheme | None = None
    foreign_hash: str | None = None


class KeyLine(Line, tag="key", frozen=True, kw_only=True):
    """A key's record."""

    id: str
    owner_id: str
    config_id: str
    name: str | None = None
    description: str | None = None
    prefix: str
    start: str
    enabled: bool = True
    created_at: Instant
    updated_at: Instant
    created_by: str
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    revoked_reason: str | None = None
    deleted: bool = False
    permissions: dict[str, list[str]] | None = None
    metadata: dict[str, object] | None = None
    ip_allow: list[str] = []
    rate_limit_enabled: bool = False
    rate_limit_max: Annotated[int, msgspec.Meta(ge=0)] | None = None
    rate_limit_window: Annotated[int, msgspec.Meta(ge=1)] | None = None
    remaining: Annotated[int, msgspec.Meta(ge=0)] | None = None
    refill_amount: Annotated[int, msgspec.Meta(ge=1)] | None = None
    refill_interval: Annotated[int, msgspec.Meta(ge=1)] | None = None
    last_refill_at: Instant | None = None
    last_used_at: Instant | None = None
    last_used_ip: str | None = None
    last_used_user_agent: str | None = None
    request_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    secrets: list[SecretLine] = []


class UsageLine(Line, tag="usage", frozen=True, kw_only=True):
    """Requests of a key in the hour that began at `hour`."""

    key_id: str
    hour: Instant
    outcome: str
    n: Annotated[int, msgspec.Meta(ge=1)]


class EventLine(Line, tag="event", frozen=True, kw_only=True):
    """An event of the audit trail."""

    id: str
    at: Instant
    event: str
    outcome: str
    actor_kind: str
    actor_id: str | None = None
    owner_id: str | None = None
    target_id: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    details: dict[str, str | int | bool | None] = {}


class EndLine(Line, tag="end", frozen=True, kw_only=True):
    """The last line: without it, or with another number, some are missing."""

    lines: int


AnyLine = HeadLine | UserLine | KeyLine | UsageLine | EventLine | EndLine

_APART = frozenset({"permissions", "ip_allow"})
_INSTANTS = frozenset(
    {
        "created_at", "updated_at", "email_verified_at", "disabled_at", "expires_at",
        "revoked_at", "last_refill_at", "last_used_at",
    }
)  # fmt: skip


def user_line(user: User, *, hashes: bool) -> UserLine:
    """A user as a line."""
    line = UserLine(**_shown(user, UserLine))
    return line if hashes else msgspec.structs.replace(line, password_hash=None)


def user_of(line: UserLine) -> User:
    """The reverse of `user_line`; ValueError for an instant that is none."""
    return User(**_taken(line, User))


def key_line(key: Key, secrets: list[SecretLine]) -> KeyLine:
    """A key as a line."""
    return KeyLine(
        **_shown(key, KeyLine),
        permissions=None if key.permissions is None else to_wire(key.permissions),
        ip_allow=list(key.ip_allow),
        rate_limit_window=key.rate_limit_window_ms,
        refill_interval=key.refill_interval_ms,
        secrets=secrets,
    )


def key_of(line: KeyLine) -> Key:
    """The reverse of `key_line`; ValueError for what makes no sense."""
    return Key(
        **_taken(line, Key),
        permissions=None if line.permissions is None else parse(line.permissions),
        ip_allow=tuple(line.ip_allow),
        rate_limit_window_ms=line.rate_limit_window,
        refill_interval_ms=line.refill_interval,
    )


def usage_line(count: Count) -> UsageLine:
    """Counted requests as a line."""
    return UsageLine(key_id=count.key_id, hour=iso(count.hour), outcome=count.outcome, n=count.n)


def count_of(line: UsageLine) -> Count:
    """The reverse of `usage_line`."""
    return Count(key_id=line.key_id, hour=parse_iso(line.hour), outcome=line.outcome, n=line.n)


def _shown(value: User | Key, line: type[Line]) -> dict[str, Any]:
    """The members that a line calls as the value does, with instants as text."""
    names = set(value.__struct_fields__).intersection(line.__struct_fields__) - _APART
    values = {name: getattr(value, name) for name in names}
    return {
        name: iso(value) if name in _INSTANTS and value is not None else value
        for name, value in values.items()
    }


def _taken(line: Line, into: type[User] | type[Key]) -> dict[str, Any]:
    names = set(line.__struct_fields__).intersection(into.__struct_fields__) - _APART
    values = {name: getattr(line, name) for name in names}
    return {
        name: parse_iso(value) if name in _INSTANTS and value is not None else value
        for name, value in values.items()
    }
