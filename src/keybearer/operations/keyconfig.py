"""The configurations of an app's keys: what each lets a key be, and whose it is.

An app has one, `default`, or several, each with an id: `configId` says which is meant. What a
configuration leaves open is as the settings have it.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import keys as sql
from keybearer.adapters.sql import keysecrets
from keybearer.domain.credentials import Secret, mint, start_of, well_formed
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.model import ORGANIZATION, Key, RateLimit
from keybearer.domain.permissions import stated
from keybearer.domain.ports import Transaction
from keybearer.operations.declaration import Call
from keybearer.settings import Settings
from keybearer.verification import hosted

DEFAULT = "default"
MAX_NAME = 64
SHORTEST, LONGEST = 32, 512
"""Of a key that the app makes itself."""
HIDDEN = 28
"""Characters of a key that are never shown."""

Action = Literal["create", "read", "update", "delete"]
DefaultPermissions = Iterable[str] | Mapping[str, Sequence[str]]
Roles = Mapping[str, Sequence[Action]]
RoleOf = Callable[[str, str], Awaitable[str | None]]
"""The host's answer to who is what: (organization id, user id) -> a role, several with commas
between, or None for somebody who is no member."""


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration; None where the settings decide.

    Attributes:
        prefixes: that its keys may have; the first is the default.
        min_lifetime, max_lifetime, default_lifetime: milliseconds.
        custom_expiry: whether who makes a key says when it ends.
        name_length: characters, at the least and at the most.
        metadata: whether keys have any.
        starting_characters: how many of a key are kept to be shown, its prefix among them; None
            for the prefix and four.
        default_permissions: what a key gets for which none are asked, or who says it: owner's id
            -> permissions.
        generator: makes a key of its prefix, instead of us.
        validator: whether a text that has a prefix of this configuration can be a key of it.
        sessions: whether a key shows its owner at `get-session`.
        role: who is a member of the organizations that own these keys; None: users own them.
        roles: what members may do with them.
    """

    id: str = DEFAULT
    prefixes: tuple[str, ...] | None = None
    rate_limit: RateLimit | UnsetType | None = UNSET
    min_lifetime: int = 1_000
    max_lifetime: int | None = None
    default_lifetime: int | None = None
    allow_no_expiry: bool | None = None
    custom_expiry: bool = True
    name_length: tuple[int, int] = (1, MAX_NAME)
    require_name: bool = False
    metadata: bool = True
    starting_characters: int | None = None
    default_permissions: (
        DefaultPermissions | Callable[[str], Awaitable[DefaultPermissions | None]] | None
    ) = None
    generator: Callable[[str], str] | None = None
    validator: Callable[[str], bool] | None = None
    sessions: bool = False
    role: RoleOf | None = None
    roles: Roles = msgspec.field(default_factory=dict)

    def within(self, settings: Settings) -> "KeyConfig":
        """The same, with what the settings have where it leaves something open."""
        rate = settings.key_rate_limit if self.rate_limit is UNSET else self.rate_limit
        never = self.allow_no_expiry
        return msgspec.structs.replace(
            self,
            prefixes=self.prefixes or settings.key_prefix,
            rate_limit=rate,
            max_lifetime=self.max_lifetime or settings.key_max_lifetime,
            default_lifetime=self.default_lifetime or settings.key_default_lifetime,
            allow_no_expiry=settings.key_allow_no_expiry if never is None else never,
        )

    async def mint(self, call: Call, tx: Transaction, prefix: str) -> tuple[Secret, str]:
        """A new key, and what of it is shown: never so much that the rest could be guessed.

        Raises:
            Unavailable: the app's own generator made none, or twice one that is there already.
        """
        if self.generator is None:
            secret = mint(prefix, call.app.entropy)
        else:
            secret = await _generated(call, tx, self.generator, prefix)
        key, shown = secret.reveal(), self.starting_characters
        start = start_of(secret, prefix) if shown is None else key[:shown]
        return secret, start[: len(key) - HIDDEN]

    def reads(self, credential: bytes) -> bool:
        """Whether a text can be a key of this configuration; no look-up is made for another."""
        prefixes = [prefix.encode() for prefix in self.prefixes or ()]
        if self.generator is None and not well_formed(credential, prefixes):
            return False
        if not credential.startswith(tuple(prefixes)):
            return False
        if self.validator is None:
            return True
        valid = hosted.asked("validator=", self.validator, credential.decode("latin-1"))
        if not isinstance(valid, bool):
            raise hosted.odd("validator=", "True or False")
        return valid

    async def permissions_for(
        self, owner_id: str, catalogue: frozenset[str]
    ) -> frozenset[str] | None:
        """What a key gets for which none are asked.

        Raises:
            Unavailable: who says it fails, or says what no key can have.
        """
        given = self.default_permissions
        if given is None:
            return None
        if not callable(given):
            return stated(given, "default_permissions=")
        given = await hosted.awaited("default_permissions=", given, owner_id)
        if given is None:
            return None
        try:
            names = stated(given, "default_permissions=")
        except Misuse:
            names = None
        if names is None or (catalogue and names - catalogue):
            raise hosted.odd("default_permissions=", "permissions that keys can have")
        return names


async def _generated(
    call: Call, tx: Transaction, generator: Callable[[str], str], prefix: str
) -> Secret:
    for _ in range(2):
        key = _checked(hosted.asked("generator=", generator, prefix), prefix)
        if not await keysecrets.are_there(tx, call.app.ring.digests(key.encode())):
            return Secret(key)
    raise hosted.odd("generator=", "another key each time")


def _checked(key: object, prefix: str) -> str:
    wanted = f"{SHORTEST} to {LONGEST} characters that begin with the prefix"
    if not isinstance(key, str):
        raise hosted.odd("generator=", wanted)
    fits = key.isascii() and key.isprintable() and " " not in key
    if not fits or not key.startswith(prefix) or not SHORTEST <= len(key) <= LONGEST:
        raise hosted.odd("generator=", wanted)
    return key


# --- which one is meant ---------------------------------------------------------------------


def config_of(call: Call, id: str | None) -> KeyConfig:
    """The configuration that a request names, or the default.

    Raises:
        Failure: UNKNOWN_CONFIGURATION, NO_DEFAULT_API_KEY_CONFIGURATION_FOUND.
    """
    for config in call.app.key_configs:
        if config.id == (id or DEFAULT):
            return config.within(call.app.settings)
    if id in (None, DEFAULT):
        raise Failure("NO_DEFAULT_API_KEY_CONFIGURATION_FOUND")
    raise Failure("UNKNOWN_CONFIGURATION")


def usual_config(call: Call) -> KeyConfig:
    """The default configuration; the first, where none is."""
    configs = call.app.key_configs
    found = next((config for config in configs if config.id == DEFAULT), configs[0])
    return found.within(call.app.settings)


def config_of_key(call: Call, key: Key) -> KeyConfig:
    """The configuration that a key was made by; the first, where that one is gone."""
    configs = call.app.key_configs
    found = next((config for config in configs if config.id == key.config_id), configs[0])
    return found.within(call.app.settings)


# --- organizations --------------------------------------------------------------------------


async def as_member(
    call: Call, organization_id: str, action: Action, config_id: str | None = None
) -> Call:
    """The same call, made for an organization by one of its members; by the app for anyone.

    Args:
        config_id: the configuration of the keys; each that belongs to organizations unless given.

    Raises:
        Failure: USER_NOT_MEMBER_OF_ORGANIZATION, INSUFFICIENT_API_KEY_PERMISSIONS.
    """
    if not call.trusted:
        rules = [
            (config.role, config.roles)
            for config in call.app.key_configs
            if config.role is not None and config_id in (None, config.id)
        ]
        if not rules:
            raise Failure("USER_NOT_MEMBER_OF_ORGANIZATION")
        for role_in, roles in rules:
            role = await hosted.awaited("role_in=", role_in, organization_id, call.session.subject)
            if not isinstance(role, str | None):
                raise hosted.odd("role_in=", "a role or None")
            if not role:
                raise Failure("USER_NOT_MEMBER_OF_ORGANIZATION")
            if not any(action in roles.get(each.strip(), ()) for each in role.split(",")):
                raise Failure("INSUFFICIENT_API_KEY_PERMISSIONS")
    return dataclasses.replace(call, owner=ORGANIZATION + organization_id)


async def acting(call: Call, key_id: str, action: Action) -> Call:
    """The same call, made for the owner of a key where that is an organization of the caller's.

    To somebody who is no member such a key is as one that does not exist.

    Raises:
        Failure: INSUFFICIENT_API_KEY_PERMISSIONS.
    """
    owned = {config.id for config in call.app.key_configs if config.role is not None}
    if not owned or call.session.kind not in ("session", "access"):
        return call
    key = await call.app.database.read(lambda tx: sql.by_id(tx, key_id, now=call.now))
    if key is None or not key.owner_id.startswith(ORGANIZATION):
        return call
    # A key that was imported may be of a configuration that this app has not.
    config_id = key.config_id if key.config_id in owned else None
    try:
        organization_id = key.owner_id.removeprefix(ORGANIZATION)
        return await as_member(call, organization_id, action, config_id)
    except Failure as failure:
        if failure.code == "USER_NOT_MEMBER_OF_ORGANIZATION":
            return call
        raise
