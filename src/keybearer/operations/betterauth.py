"""Move in from Better Auth: people, passwords, sessions and keys of its database (1.4 to 1.7).

    user       ──▶ users       the id stays; the address in our normal form
    account    ──▶ its password, where it is one of e-mail and password
    session    ──▶ sessions    only if asked: the token as our digest of it
    apikey     ──▶ api_keys    by its SHA-256; ours takes its place at the first use; of a user, or
                               of organization:<id>

A row comes whole or not at all. What has no place here is told as a note.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from functools import partial

import msgspec

from keybearer.adapters.sql.origins import Origin
from keybearer.domain import emails, records
from keybearer.domain.arrivals import ArrivingKey, ArrivingLogin, ArrivingSecret
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.foreign import name_of
from keybearer.domain.model import ORGANIZATION, Key, LoginSession, User
from keybearer.domain.permissions import parse
from keybearer.domain.records import Record
from keybearer.operations.arriving import check_usable, one_line, password_of, read_row
from keybearer.operations.declaration import Call
from keybearer.operations.keyconfig import DEFAULT, MAX_NAME
from keybearer.operations.keyrules import bounded_metadata, check_quota, check_rate_limit
from keybearer.operations.logins import BROWSER
from keybearer.operations.moving import Moving, Report
from keybearer.operations.users import read_image
from keybearer.verification.presented import MAX_AGENT

ORIGIN = "better-auth"
_LONGEST_NAME = 100
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(r"[!-~]{16,256}")


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What is imported, and how it lies there.

    Attributes:
        sessions: whether logins go on.
        keys_only: whether the users stay elsewhere: owners are their ids, and nobody is looked up.
        plain_keys: whether the keys themselves are stored (`disableKeyHashing`).
        organization_configs: the configurations whose keys belong to organizations
            (`references`); unless given, an owner's id tells, if it is not that of both.
        names: what the tables are called, where not as usual.
    """

    sessions: bool = False
    keys_only: bool = False
    plain_keys: bool = False
    organization_configs: frozenset[str] = frozenset()
    dry_run: bool = False
    endings: bool = False
    replace_unverified: bool = False
    names: Mapping[str, str] = {}


async def move(call: Call, origin: Origin, choices: Choices) -> Report:
    """Imports what a Better Auth database has; what is here already stays as it is.

    Raises:
        Failure: ADMIN_REQUIRED.
        Misuse: a table is missing.
        Unavailable: a database is lost; what was imported before stays, and the next try goes on.
    """
    moving = Moving(
        call, ORIGIN, dry_run=choices.dry_run, endings=choices.endings,
        replaces=choices.replace_unverified,
    )  # fmt: skip
    tables = await origin.tables()

    def table(usual: str) -> str:
        name = choices.names.get(usual, usual)
        if name not in tables:
            raise Misuse(f"there is no table {name!r}; --table {usual}=NAME tells another name")
        return name

    if not choices.keys_only:
        await _users(moving, origin, table("user"), await _passwords(origin, table("account")))
        if choices.sessions:
            await _logins(moving, origin, table("session"))
    if "apikey" in tables or "apikey" in choices.names:
        organizations = frozenset[str]()
        named = "organization" in choices.names or choices.organization_configs
        told = bool(named or "organization" in tables)
        if told:
            organizations = frozenset(await _ids(origin, table("organization"), moving.call.now))
        users = None
        if choices.names.get("user", "user") in tables:
            users = await _ids(origin, table("user"), moving.call.now)
        owners = _Owners(
            organizations=organizations,
            both=organizations & (users or {}).keys(),
            users=None if users is None else frozenset(users),
            banned=frozenset(id for id, banned in (users or {}).items() if banned),
            told=told,
        )
        await _keys(moving, origin, table("apikey"), owners, choices)
    return await moving.finish()


async def _ids(origin: Origin, table: str, now: int) -> dict[str, bool]:
    """Which ids there are, and whether each is of somebody who is banned."""
    return {
        str(record.get("id")): _banned(record, now)
        async for page in origin.pages(table)
        for record in page
    }


def _banned(record: Record, now: int) -> bool:
    """Whether they are banned; yes where that cannot be read."""
    try:
        ends = records.instant(record, "banexpires")
        return records.flag(record, "banned", otherwise=False) and (ends is None or ends > now)
    except ValueError:
        return True


# --- users ---


async def _passwords(origin: Origin, table: str) -> dict[str, str]:
    """The hash of each user who has one; of other accounts, none."""
    found = {}
    async for page in origin.pages(table):
        for record in page:
            if record.get("providerid") == "credential" and record.get("password"):
                found[str(record.get("userid"))] = str(record["password"])
    return found


async def _users(moving: Moving, origin: Origin, table: str, hashes: Mapping[str, str]) -> None:
    async for page in origin.pages(table):
        for record in page:
            made = read_row(moving, "user", record, partial(_user, moving, hashes=hashes))
            if made is not None:
                await moving.arrive(made)
    await moving.settle()


def _user(moving: Moving, record: Record, *, hashes: Mapping[str, str]) -> User:
    now = moving.call.now
    id = records.identifier(record, "id")
    email = emails.normalise(records.required(record, "email"))
    created = records.moment(record, "createdat", otherwise=now)
    hashed = hashes.get(id)
    banned = records.flag(record, "banned", otherwise=False)
    ends = records.instant(record, "banexpires")
    if banned and ends is not None:
        banned = ends > now
        moving.note("a ban that ends by itself: the user is disabled until somebody enables them")
    if records.text(record, "role") not in (None, "user"):
        moving.note("a role: nobody is an admin here by an import")
    if records.flag(record, "twofactorenabled", otherwise=False):
        moving.note("a second factor: there is none here, the password is enough")
    return User(
        id=id,
        email=email,
        name=one_line(records.text(record, "name"), _LONGEST_NAME) or email.partition("@")[0],
        image=_image(moving, record),
        role="user",
        locale=None,
        email_verified_at=(
            created if records.flag(record, "emailverified", otherwise=False) else None
        ),
        disabled_at=now if banned else None,
        password_hash=password_of(moving, hashed),
        created_at=created,
        updated_at=records.moment(record, "updatedat", otherwise=created),
    )


def _image(moving: Moving, record: Record) -> str | None:
    """The address of the picture; what is none is left out, as pictures within their address."""
    value = record.get("image")
    within = isinstance(value, str) and value.startswith("data:")  # as long as a picture is
    try:
        return read_image("data:" if within else records.text(record, "image"))
    except Failure:
        moving.note("an image that is no https:// address")
        return None


# --- sessions ---


async def _logins(moving: Moving, origin: Origin, table: str) -> None:
    now = moving.call.now
    async for page in origin.pages(table):
        for record in page:
            made = read_row(moving, "session", record, partial(_login, moving))
            if made is None:
                continue
            if made.login.expires_at <= now:
                moving.skip("session", made.login.id, "it is over")
            else:
                await moving.arrive(made)


def _login(moving: Moving, record: Record) -> ArrivingLogin:
    app, now = moving.call.app, moving.call.now
    user_id = records.identifier(record, "userid")
    if user_id not in moving.owners:
        raise ValueError("its user did not come")
    token = records.required(record, "token")
    if not _TOKEN.fullmatch(token) or "." in token:
        raise ValueError("token is none that could be presented here")
    expires = records.instant(record, "expiresat")
    if expires is None:
        raise ValueError("expiresat is missing")
    created = records.moment(record, "createdat", otherwise=now)
    return ArrivingLogin(
        login=LoginSession(
            id=records.identifier(record, "id"),
            user_id=user_id,
            client_id=BROWSER,
            created_at=created,
            last_seen_at=now,  # the idle time is counted from here
            authenticated_at=created,
            expires_at=min(expires, now + app.settings.session_ttl),
            idle_ms=app.settings.session_idle_ttl,
            ended_at=None,
            ip=records.text(record, "ipaddress"),
            user_agent=one_line(records.text(record, "useragent"), MAX_AGENT) or None,
        ),
        digest=app.ring.digest(token.encode()),
    )


# --- keys ---


class _Owners(msgspec.Struct, frozen=True, kw_only=True):
    """Whose keys are whose: users' or organizations'; a row does not say which.

    Attributes:
        organizations: the ids of those that are there.
        both: ids that an organization and a user have, as where each table counts from 1.
        users: the ids of the users there; None where there is no table of them.
        banned: those of them who are banned.
        told: whether there is a table of organizations.
    """

    organizations: frozenset[str]
    both: frozenset[str]
    users: frozenset[str] | None
    banned: frozenset[str]
    told: bool

    def of(self, moving: Moving, record: Record, config_id: str, choices: Choices) -> str:
        """The owner of a key; ValueError where that is nobody, or cannot be told."""
        id = _reference(record)
        configs = choices.organization_configs
        if not configs and id in self.both:
            raise ValueError("its owner is a user or an organization: --organization-config tells")
        if config_id in configs if configs else id in self.organizations:
            if id not in self.organizations:
                raise ValueError("its owner is no organization there")
            moving.note(
                "who manages the keys of an organization: "
                f"api_key(config_id={config_id!r}, role_in=…) of your app says it"
            )
            return ORGANIZATION + id
        if not choices.keys_only and id not in moving.owners:
            raise ValueError("its owner is no user here")
        if choices.keys_only and self.users is not None and id not in self.users:
            raise ValueError("its owner is no user there")
        if config_id != DEFAULT and not self.told:
            moving.note(
                "there is no table 'organization': a key of an organization comes as one of a "
                "user; --table organization=NAME tells where they are"
            )
        if config_id != DEFAULT:
            moving.note(
                f"what its configuration says: api_key(config_id={config_id!r}) of your app"
            )
        return id


async def _keys(
    moving: Moving, origin: Origin, table: str, owners: _Owners, choices: Choices
) -> None:
    async for page in origin.pages(table):
        for record in page:
            made = read_row(
                moving, "key", record, partial(_key, moving, owners=owners, choices=choices)
            )
            if made is not None:
                await moving.arrive(made)


def _reference(record: Record) -> str:
    """Whose key it is: a user's since the first versions, anybody's since 1.6."""
    names = ("referenceid", "userid")
    name = next((each for each in names if record.get(each) is not None), None)
    if name is None:
        raise ValueError("it names no owner")
    return records.identifier(record, name)


def _key(moving: Moving, record: Record, *, owners: _Owners, choices: Choices) -> ArrivingKey:
    now = moving.call.now
    enabled = records.flag(record, "enabled", otherwise=True)
    config_id = one_line(records.text(record, "configid"), MAX_NAME) or DEFAULT
    owner = owners.of(moving, record, config_id, choices)
    if choices.keys_only and owner in owners.banned:
        moving.note("the key of a user who is banned: it comes disabled")
        enabled = False
    created = records.moment(record, "createdat", otherwise=now)
    limited, maximum, window = _limit(record)
    left = records.number(record, "remaining")
    remaining, amount, interval = check_quota(
        remaining=left,
        # Without a number that is left nothing is refilled there, and nothing counted.
        refill_amount=None if left is None else records.number(record, "refillamount"),
        refill_interval_ms=None if left is None else records.number(record, "refillinterval"),
    )
    prefix = one_line(records.text(record, "prefix"), MAX_NAME)
    key = Key(
        id=records.identifier(record, "id"),
        owner_id=owner,
        config_id=config_id,
        name=one_line(records.text(record, "name"), MAX_NAME) or None,
        description=None,
        prefix=prefix,
        start=one_line(records.text(record, "start"), MAX_NAME) or prefix,
        enabled=enabled,
        created_at=created,
        updated_at=records.moment(record, "updatedat", otherwise=created),
        created_by=owner,
        expires_at=records.instant(record, "expiresat"),
        revoked_at=None,
        revoked_reason=None,
        permissions=_permissions(records.json(record, "permissions")),
        metadata=bounded_metadata(records.json(record, "metadata")),
        ip_allow=(),
        rate_limit_enabled=limited,
        rate_limit_max=maximum,
        rate_limit_window_ms=window,
        remaining=remaining,
        refill_amount=amount,
        refill_interval_ms=interval,
        last_refill_at=records.instant(record, "lastrefillat"),
        last_used_at=records.instant(record, "lastrequest"),
        last_used_ip=None,
        last_used_user_agent=None,
        request_count=0,  # there it counts a window, here all
    )
    check_usable(key)
    secret = records.required(record, "key")
    if choices.plain_keys:
        ring = moving.call.app.ring
        digest, pepper_id = ring.digest(secret.encode()), ring.newest.id
    else:
        if not _DIGEST.fullmatch(secret):
            raise ValueError("key is no SHA-256 in base64url; --plain-keys where keys are stored")
        digest, pepper_id = name_of("sha256", urlsafe_b64decode(secret + "=")), "sha256"
    one = ArrivingSecret(
        digest=digest,
        pepper_id=pepper_id,
        created_at=created,
        start=key.start or None,
        scheme="sha256",
    )
    return ArrivingKey(key=key, secrets=(one,))


def _limit(record: Record) -> tuple[bool, int | None, int | None]:
    """A limit with a missing number is none, as there."""
    maximum = records.number(record, "ratelimitmax")
    window = records.number(record, "ratelimittimewindow")
    enabled = records.flag(record, "ratelimitenabled", otherwise=True)
    if maximum is None or window is None:
        return False, maximum, window
    check_rate_limit(enabled=True, maximum=maximum, window_ms=window)
    return enabled, maximum, window


def _permissions(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(each, list) for each in value.values()):
        raise ValueError("permissions are no lists of actions")
    return parse(value)
