"""Plugins: what a keybearer can do, chosen by the app."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keybearer.domain.errors import Misuse
from keybearer.domain.permissions import stated
from keybearer.operations import (
    accounts,
    calendar,
    disowning,
    keybulk,
    keyedits,
    keyends,
    keypolicy,
    keys,
    reports,
    rotation,
    sessions,
    stepup,
    tokens,
    verify,
)
from keybearer.operations.declaration import Operation

OwnerHolds = Callable[[str], Awaitable[Iterable[str] | Mapping[str, Sequence[str]]]]
"""The host's answer to what an owner may do at the most: `files:read` names, or a mapping."""

AnyOperation = Operation[Any, Any]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A part of keybearer: its operations, and what it changes in the settings."""

    name: str
    operations: tuple[AnyOperation, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    catalogue: frozenset[str] | None = None
    holds: OwnerHolds | None = None


CORE: tuple[AnyOperation, ...] = (reports.list_audit, *disowning.OPERATIONS)
ACCOUNTS: tuple[AnyOperation, ...] = (
    *accounts.OPERATIONS,
    *sessions.OPERATIONS,
    *stepup.OPERATIONS,
)


def api_key(
    *,
    permissions: Mapping[str, Sequence[str]] | Iterable[str] | None = None,
    holds: OwnerHolds | None = None,
    prefix: str | Sequence[str] | None = None,
    rate_limit: str | None = None,
    max_lifetime: str | None = None,
    default_lifetime: str | None = None,
    allow_no_expiry: bool | None = None,
    max_keys_per_owner: int | None = None,
) -> Plugin:
    """API keys: made, managed and checked.

    Args:
        permissions: the closed list of what keys can be allowed: `{"files": ["read", "write"]}`
            or `["files:read", …]`. Without one only the server sets permissions.
        holds: what an owner may do at the most; a key never has more, even if it once did.
        prefix: of new keys, as `kb_`; several: the first is the default.
        rate_limit: default limit of a key, as `1000/1m`, or `off`.
        max_lifetime, default_lifetime: durations, as `90d`.
        allow_no_expiry: whether a key may live for ever.
        max_keys_per_owner: live keys at the most.

    Raises:
        Misuse: `permissions` is no list of permissions.
    """
    return Plugin(
        name="api_key",
        operations=(
            *keys.OPERATIONS,
            keyedits.update_api_key,
            *keyends.OPERATIONS,
            *rotation.OPERATIONS,
            *reports.OF_KEYS,
            *calendar.OPERATIONS,
            *keybulk.OPERATIONS,
            *keypolicy.OPERATIONS,
            *verify.OPERATIONS,
        ),
        settings={
            "key_prefix": prefix,
            "key_rate_limit": rate_limit,
            "key_max_lifetime": max_lifetime,
            "key_default_lifetime": default_lifetime,
            "key_allow_no_expiry": allow_no_expiry,
            "max_keys_per_owner": max_keys_per_owner,
        },
        catalogue=None if permissions is None else stated(permissions, "permissions="),
        holds=holds,
    )


def bearer() -> Plugin:
    """Bearer tokens for programs that log in: access and refresh tokens."""
    return Plugin(name="bearer", operations=tokens.BEARER)


def jwt() -> Plugin:
    """Access tokens for a session, and the keys to check them with elsewhere."""
    return Plugin(name="jwt", operations=tokens.JWT)


def listed(plugins: object) -> tuple[Plugin, ...]:
    """The plugins that an app has listed.

    Raises:
        Misuse: it is no list of plugins, or one stands in it twice: which settings would hold?
    """
    found = tuple(plugins) if isinstance(plugins, Iterable) else ()
    named = {each.name: each for each in found if isinstance(each, Plugin)}
    if not isinstance(plugins, Iterable) or len(named) < len(found):
        raise Misuse("plugins= takes a list of api_key(), bearer() and jwt(), each once")
    return tuple(named.values())
