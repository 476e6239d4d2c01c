"""Make, list and show API keys."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import accounts, audit, keylists
from keybearer.adapters.sql import keys as sql
from keybearer.domain import reminders
from keybearer.domain.credentials import Secret
from keybearer.domain.durations import MAX_DURATION
from keybearer.domain.errors import Failure
from keybearer.domain.model import ORGANIZATION, Key, Role, Session
from keybearer.domain.permissions import parse_needs
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.declaration import Access, Call, Input, operation
from keybearer.operations.keyconfig import acting, as_member, config_of
from keybearer.operations.keyrules import (
    RULES,
    SERVER_ONLY,
    Metadata,
    Permissions,
    check_allow_list,
    check_description,
    check_metadata,
    check_name,
    check_permissions,
    check_prefix,
    check_quota,
    check_rate_limit,
    chosen,
    expiry,
    may_create,
)
from keybearer.operations.keywire import ApiKey, ApiKeyPage, CreatedApiKey, created, key_record
from keybearer.operations.ownership import named, own_key
from keybearer.operations.stepup import require_fresh
from keybearer.operations.wire import Id, instant, refuse_server_only

TAG = "API keys"


class CreateKey(Input, frozen=True, kw_only=True):
    """What a new key shall be.

    `expiresIn` is in seconds; null means never, and nothing at all means the default lifetime.
    `configId` names one of several configurations, and `organizationId` the organization that
    shall own the key, where its configuration says that organizations do.
    The fields from `userId` on are the server's alone: a service token or the app itself.
    """

    config_id: Id | None = None
    organization_id: Id | None = None
    name: str | None = None
    description: str | None = None
    expires_in: int | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    prefix: str | None = None
    metadata: Metadata = None
    permissions: Permissions | UnsetType | None = UNSET
    ip_allow: list[str] | None = None
    user_id: Id | UnsetType = UNSET
    remaining: int | UnsetType | None = UNSET
    refill_amount: int | UnsetType | None = UNSET
    refill_interval: int | UnsetType | None = UNSET
    rate_limit_enabled: bool | UnsetType = UNSET
    rate_limit_time_window: int | UnsetType = UNSET
    rate_limit_max: int | UnsetType = UNSET


StatusWord = Literal["active", "expiring", "expired", "disabled", "revoked", "rotating"]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=MAX_DURATION // 1000)]


class ListKeys(Input, frozen=True, kw_only=True):
    """Which keys to list, in which order; `status` may stand several times.

    Without `sortDirection` the newest come first, and any other order goes upwards; by `status`
    that is rotating, expiring, active, disabled, expired, revoked. `expiringWithin` so many
    seconds leaves keys that end by then, `unusedFor` so many seconds those that exist as long and
    were not used since, and both only keys that are neither revoked nor expired. `permission`
    leaves those that were given it, as `files:read`. What was deleted is listed where `status`
    asks for it. `configId` leaves the keys of one configuration, and `organizationId` asks for
    those of an organization in place of the caller's.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    sort_by: Literal[
        "createdAt",
        "updatedAt",
        "expiresAt",
        "lastRequest",
        "name",
        "requestCount",
        "enabled",
        "status",
    ] = "createdAt"
    sort_direction: Literal["asc", "desc"] | UnsetType = UNSET
    status: tuple[StatusWord, ...] = ()
    search: Annotated[str, msgspec.Meta(max_length=100)] = ""
    expiring_within: Seconds | UnsetType = UNSET
    unused_for: Seconds | UnsetType = UNSET
    permission: Annotated[str, msgspec.Meta(max_length=129)] = ""
    user_id: Id | UnsetType = UNSET
    config_id: Id | None = None
    organization_id: Id | None = None


class GetKey(Input, frozen=True, kw_only=True):
    """Which key; a key that asks about itself needs no id, and an id no `configId`."""

    id: Id | None = None
    config_id: Id | None = None


@operation(
    "POST",
    "/api-key/create",
    access=Access.MANAGER,
    tag=TAG,
    errors=(*RULES, "NAME_REQUIRED", "NO_DEFAULT_API_KEY_CONFIGURATION_FOUND",
            "UNKNOWN_CONFIGURATION", "ORGANIZATION_ID_REQUIRED",
            "USER_NOT_MEMBER_OF_ORGANIZATION", "INVALID_PREFIX", "KEY_CREATION_NOT_ALLOWED",
            "KEY_LIMIT_REACHED", "USER_NOT_FOUND", "IDEMPOTENCY_KEY_REUSED", "SESSION_NOT_FRESH"),
    management=True,
    secret=True,
)  # fmt: skip
async def create_api_key(call: Call, asked: CreateKey) -> CreatedApiKey:
    """Creates an API key.

    The answer has the key itself in `key`: the only time it is shown. With the header
    `Idempotency-Key` a retry after a lost reply makes no second key; its answer has `key: null`.
    With another request that header is refused. A person whose password was given longer ago
    than STEP_UP_AFTER gives it again first, at `/verify-password`.
    """
    refuse_server_only(call, asked, "user_id", *SERVER_ONLY)
    if not may_create(call):
        raise Failure("KEY_CREATION_NOT_ALLOWED")
    await require_fresh(call)
    config = config_of(call, asked.config_id)
    if config.role is None:
        if asked.organization_id is not None:
            raise Failure(
                "VALIDATION_ERROR", "organizationId: users own keys of this configuration."
            )
        owner_id, role = await _owner(call, asked.user_id)
    else:
        if asked.organization_id is None:
            raise Failure("ORGANIZATION_ID_REQUIRED")
        call = await as_member(call, asked.organization_id, "create", config.id)
        owner_id, role = f"{ORGANIZATION}{asked.organization_id}", call.session.role
    limit = config.rate_limit or None
    prefix = check_prefix(asked.prefix, config.prefixes or ())
    secret, start = await call.app.database.read(lambda tx: config.mint(call, tx, prefix))
    rate = check_rate_limit(
        enabled=chosen(asked.rate_limit_enabled, limit is not None),
        maximum=chosen(asked.rate_limit_max, limit.maximum if limit else None),
        window_ms=chosen(asked.rate_limit_time_window, limit.window_ms if limit else None),
    )
    remaining, refill_amount, refill_interval = check_quota(
        remaining=chosen(asked.remaining, None),
        refill_amount=chosen(asked.refill_amount, None),
        refill_interval_ms=chosen(asked.refill_interval, None),
    )
    held = await call.app.holds(owner_id, role)
    permissions = check_permissions(call, asked.permissions, held=held)
    if asked.permissions is UNSET:
        permissions = await config.permissions_for(owner_id, call.app.catalogue)
    expires_at = expiry(call, config, asked.expires_in, asked.expires_at, default=True)
    key = Key(
        id=call.app.new_id(call.now),
        owner_id=owner_id,
        config_id=config.id,
        name=check_name(config, asked.name),
        description=check_description(asked.description),
        prefix=prefix,
        start=start,
        enabled=True,
        created_at=call.now,
        updated_at=call.now,
        created_by=call.session.id if call.trusted else call.session.subject,
        expires_at=expires_at,
        revoked_at=None,
        revoked_reason=None,
        permissions=permissions,
        metadata=check_metadata(config, asked.metadata),
        ip_allow=check_allow_list(asked.ip_allow),
        rate_limit_enabled=rate is not None,
        rate_limit_max=rate.maximum if rate else None,
        rate_limit_window_ms=rate.window_ms if rate else None,
        remaining=remaining,
        refill_amount=refill_amount,
        refill_interval_ms=refill_interval,
        last_refill_at=None,
        last_used_at=None,
        last_used_ip=None,
        last_used_user_agent=None,
        request_count=0,
        reminded_days=reminders.begun(expires_at, call.now),
    )
    stored = await call.app.database.write(lambda tx: _add(call, tx, asked, key, secret))
    if stored is not None:
        return created(stored, None, call.now)
    return created(key, secret, call.now)


async def _add(
    call: Call, tx: Transaction, asked: CreateKey, key: Key, secret: Secret
) -> Key | None:
    """Writes the key; gives the one that an earlier try made, if this is a retry.

    Raises:
        Failure: IDEMPOTENCY_KEY_REUSED for a retry that asks for another key; KEY_LIMIT_REACHED.
    """
    head = await audit.lock(tx, key.owner_id)
    ring, idempotency, request = call.app.ring, None, None
    if call.facts.idempotency_key is not None:
        named = f"{key.owner_id}|{call.facts.idempotency_key}".encode()
        wanted = msgspec.json.encode(asked, order="sorted")
        before = await sql.by_idempotency(tx, ring.digests(named), now=call.now)
        if before is not None:
            made, asked_before = before
            if asked_before not in (None, *ring.digests(wanted)):
                raise Failure("IDEMPOTENCY_KEY_REUSED")
            return made
        idempotency, request = ring.digest(named), ring.digest(wanted)
    most = call.app.settings.max_keys_per_owner
    if not call.trusted and await sql.count_live(tx, key.owner_id, now=call.now) >= most:
        raise Failure("KEY_LIMIT_REACHED", extra={"limit": most})
    await sql.add(
        tx,
        key,
        digest=call.app.ring.digest(secret.reveal().encode()),
        pepper_id=call.app.ring.newest.id,
        idempotency=idempotency,
        request=request,
    )
    await record(
        call, tx, "key.created", owner_id=key.owner_id, target_id=key.id, head=head,
        name=key.name, expiresAt=instant(key.expires_at),
    )  # fmt: skip
    return None


@operation("GET", "/api-key/list", access=Access.MANAGER, tag=TAG, management=True,
           errors=("SERVER_ONLY_PROPERTY", "USER_NOT_MEMBER_OF_ORGANIZATION",
                   "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def list_api_keys(call: Call, asked: ListKeys) -> ApiKeyPage:
    """Lists the caller's keys, a page at a time; expired and revoked ones too.

    Those that were ended by `/api-key/delete` are listed where `status` asks for revoked keys.
    """
    refuse_server_only(call, asked, "user_id")
    await call.app.verifier.usage.flush(call.now)
    if asked.organization_id is not None:
        call = await as_member(call, asked.organization_id, "read", asked.config_id)
    owner_id = call.speaks_for
    if asked.user_id is not UNSET:
        owner_id = _named_owner(call, asked.user_id)

    await call.app.verifier.quota.give_back(owner_id=owner_id)
    direction = asked.sort_direction
    if direction is UNSET:
        direction = "desc" if asked.sort_by == "createdAt" else "asc"
    permission = _one_permission(asked.permission)
    within, unused = asked.expiring_within, asked.unused_for

    async def body(tx: Transaction) -> tuple[list[Key], int]:
        return await keylists.page(
            tx,
            owner_id=owner_id,
            config_id=asked.config_id,
            now=call.now,
            statuses=asked.status,
            search=asked.search,
            expires_before=None if within is UNSET else call.now + within * 1000,
            unused_since=None if unused is UNSET else call.now - unused * 1000,
            permission=permission,
            sort_by=asked.sort_by,
            descending=direction == "desc",
            limit=asked.limit,
            offset=asked.offset,
        )

    found, total = await call.app.database.read(body)
    return ApiKeyPage(
        api_keys=[key_record(key, call.now) for key in found],
        total=total,
        limit=asked.limit,
        offset=asked.offset,
    )


@operation("GET", "/api-key/get", access=Access.OWNER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def get_api_key(call: Call, asked: GetKey) -> ApiKey:
    """Shows one key, never its secret.

    With an API key as credential it shows that key.
    """
    id = named(call, asked.id)
    call = await acting(call, id, "read")
    await call.app.verifier.usage.flush(call.now)
    await call.app.verifier.quota.give_back(id)
    key = await call.app.database.read(lambda tx: own_key(call, tx, id))
    if asked.config_id not in (None, key.config_id):
        raise Failure("KEY_NOT_FOUND")
    return key_record(key, call.now)


def _one_permission(text: str) -> str | None:
    """The permission that a list is asked for, or None.

    Raises:
        Failure: VALIDATION_ERROR.
    """
    if not text:
        return None
    try:
        (permission,) = parse_needs(text)
    except ValueError:
        raise Failure("VALIDATION_ERROR", "permission takes one, as files:read.") from None
    return permission


async def _owner(call: Call, user_id: str | UnsetType) -> tuple[str, Role]:
    """Who will own the key, and in which role."""
    session: Session = call.session
    owner_id = call.speaks_for if user_id is UNSET else _named_owner(call, user_id)
    if owner_id is None:
        raise Failure("VALIDATION_ERROR", "userId: name the owner of the key.")
    if owner_id.startswith(ORGANIZATION):
        raise Failure("VALIDATION_ERROR", "userId: name an organization as organizationId.")
    if not (call.trusted and call.app.accounts):
        return owner_id, session.role
    user = await call.app.database.read(lambda tx: accounts.user_by_id(tx, owner_id))
    if user is None:
        raise Failure("USER_NOT_FOUND")
    return owner_id, user.role


def _named_owner(call: Call, user_id: str) -> str:
    if call.speaks_for not in (None, user_id):
        raise Failure("VALIDATION_ERROR", "userId: the caller acts for another owner.")
    return user_id


OPERATIONS = (create_api_key, list_api_keys, get_api_key)
