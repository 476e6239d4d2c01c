"""Plugins: what a keybearer can do, chosen by the app."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from keybearer.domain.errors import Misuse
from keybearer.domain.model import Role
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
from keybearer.operations.keyconfig import (
    DEFAULT,
    MAX_NAME,
    DefaultPermissions,
    KeyConfig,
    RoleOf,
    Roles,
)
from keybearer.operations.keyoptions import check_config, check_functions, header_names
from keybearer.settings import read
from keybearer.verification.owners import Holds
from keybearer.verification.presented import Getter, Headers, Places

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
    keys: KeyConfig | None = None
    headers: tuple[bytes, ...] = ()
    getter: Getter | None = None


ALL_TO_OWNERS: Roles = {"owner": ("create", "read", "update", "delete")}
CORE: tuple[AnyOperation, ...] = (reports.list_audit, *disowning.OPERATIONS)
ACCOUNTS: tuple[AnyOperation, ...] = (
    *accounts.OPERATIONS,
    *sessions.OPERATIONS,
    *stepup.OPERATIONS,
)


def api_key(
    *,
    config_id: str = DEFAULT,
    permissions: Mapping[str, Sequence[str]] | Iterable[str] | None = None,
    holds: OwnerHolds | None = None,
    prefix: str | Sequence[str] | None = None,
    rate_limit: str | None = None,
    min_lifetime: str | None = None,
    max_lifetime: str | None = None,
    default_lifetime: str | None = None,
    allow_no_expiry: bool | None = None,
    custom_expiry: bool = True,
    max_keys_per_owner: int | None = None,
    name_length: tuple[int, int] = (1, MAX_NAME),
    require_name: bool = False,
    metadata: bool = True,
    starting_characters: int | None = None,
    default_permissions: DefaultPermissions
    | Callable[[str], Awaitable[DefaultPermissions | None]]
    | None = None,
    headers: Sequence[str] = (),
    getter: Getter | None = None,
    generator: Callable[[str], str] | None = None,
    validator: Callable[[str], bool] | None = None,
    sessions: bool = False,
    role_in: RoleOf | None = None,
    roles: Roles = ALL_TO_OWNERS,
) -> Plugin:
    """API keys: made, managed and checked.

    Given several times, with a `config_id` each, an app has several configurations: keys for
    browsers and keys for servers, say. `permissions`, `holds` and `max_keys_per_owner` are the
    app's, whichever of them says it.

    Args:
        config_id: which configuration it is; a request that names none means `default`.
        permissions: the closed list of what keys can be allowed: `{"files": ["read", "write"]}`
            or `["files:read", …]`. Without one only the server sets permissions.
        holds: what an owner may do at the most; a key never has more, even if it once did.
        prefix: of new keys, as `kb_`; several: the first is the default.
        rate_limit: default limit of a key, as `1000/1m`, or `off`.
        min_lifetime, max_lifetime, default_lifetime: durations, as `90d`.
        allow_no_expiry: whether a key may live for ever.
        custom_expiry: whether who makes a key says when it ends; else the server alone does.
        max_keys_per_owner: live keys at the most.
        name_length: characters of a name, at the least and at the most.
        require_name: whether a key must have one.
        metadata: whether a key may have any.
        starting_characters: how many of a key stay visible, its prefix among them; at the most
            eight after it.
        default_permissions: what a key gets for which none are asked; or who says it, by the
            owner's id.
        headers: names of more headers that keys may stand in, beside `X-API-Key`.
        getter: finds a key in a request's raw headers in a way of its own.
        generator: makes a key of its prefix, which it begins with. It must not be guessable: take
            128 random bits or more.
        validator: whether a text can be a key, before it is looked up.
        sessions: whether a key shows its owner at `get-session`.
        role_in: who is what in the organizations of the host app, which own these keys then:
            (organization id, user id) -> a role, several with commas between, or None.
        roles: what members may do with them: `{"owner": ["create", "read", "update", "delete"]}`.

    Raises:
        Misuse: `permissions` is no list of permissions, or another value is a bad one.
    """
    as_settings: dict[str, object] = {
        "key_prefix": prefix,
        "key_rate_limit": rate_limit,
        "key_max_lifetime": max_lifetime,
        "key_default_lifetime": default_lifetime,
        "key_allow_no_expiry": allow_no_expiry,
    }
    # The settings are those of the default; another configuration goes by them but for these.
    own = {
        name: read(name, value)
        for name, value in as_settings.items()
        if config_id != DEFAULT and value is not None
    }
    config = KeyConfig(
        id=config_id,
        prefixes=own.get("key_prefix"),
        rate_limit=own.get("key_rate_limit", UNSET),
        min_lifetime=1_000 if min_lifetime is None else read("key_max_lifetime", min_lifetime),
        max_lifetime=own.get("key_max_lifetime"),
        default_lifetime=own.get("key_default_lifetime"),
        allow_no_expiry=own.get("key_allow_no_expiry"),
        custom_expiry=custom_expiry,
        name_length=name_length,
        require_name=require_name,
        metadata=metadata,
        starting_characters=starting_characters,
        default_permissions=default_permissions,
        generator=generator,
        validator=validator,
        sessions=sessions,
        role=role_in,
        roles=roles,
    )
    check_config(config)
    check_functions(config=config, getter=getter)
    return Plugin(
        name="api_key" if config_id == DEFAULT else f"api_key({config_id!r})",
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
            **(as_settings if config_id == DEFAULT else {}),
            "max_keys_per_owner": max_keys_per_owner,
        },
        catalogue=None if permissions is None else stated(permissions, "permissions="),
        holds=holds,
        keys=config,
        headers=header_names(headers),
        getter=getter,
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


# --- what they say together ---


def holds_of(
    plugins: Iterable[Plugin], catalogue: frozenset[str], users: frozenset[str] | None
) -> Holds:
    """What owners hold at the most: the host's word, or the settings'.

    Args:
        users: what everybody holds who is no admin; None for all of the catalogue.

    Raises:
        Misuse: users hold what is not in the catalogue.
    """
    own = next((plugin.holds for plugin in plugins if plugin.holds is not None), None)
    unknown = (users or frozenset()) - catalogue
    if unknown:
        raise Misuse(
            f"KEYBEARER_USER_PERMISSIONS names {', '.join(sorted(unknown))}, which "
            "KEYBEARER_PERMISSIONS lacks"
        )

    async def holds(owner_id: str, role: Role) -> frozenset[str] | None:
        if own is not None:
            return stated(await own(owner_id), "holds=")
        if not catalogue:
            return None
        return catalogue if users is None or role == "admin" else users

    return holds


def places_of(plugins: Sequence[Plugin]) -> Places:
    """Where keys may stand beside `X-API-Key`."""
    getters = [plugin.getter for plugin in plugins if plugin.getter is not None]

    def getter(headers: Headers) -> str | None:
        return next((key for each in getters if (key := each(headers)) not in (None, "")), None)

    names = [name for plugin in plugins for name in plugin.headers]
    return Places(names, getter if getters else None)
