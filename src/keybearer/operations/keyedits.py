"""Change an API key: its words, expiry, permissions, networks, limits."""

from typing import Any

from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import keys as sql
from keybearer.domain import reminders
from keybearer.domain.errors import Failure
from keybearer.domain.model import Key
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.declaration import Access, Call, Input, operation
from keybearer.operations.keyconfig import acting, config_of_key
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
    check_quota,
    check_rate_limit,
    chosen,
    expiry,
)
from keybearer.operations.keywire import ApiKey, key_record
from keybearer.operations.ownership import own_key
from keybearer.operations.stepup import require_fresh
from keybearer.operations.wire import Id, read_instant, refuse_server_only


class UpdateKey(Input, frozen=True, kw_only=True):
    """What of a key shall change; what is not given stays.

    `ifUpdatedAt` is the key's `updatedAt` as the caller last saw it, and `userId` whose key it
    is, `configId` of which configuration; they change nothing themselves.
    """

    key_id: Id
    user_id: Id | UnsetType = UNSET
    config_id: Id | None = None
    if_updated_at: str | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    expires_in: int | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    metadata: Metadata = UNSET
    permissions: Permissions | UnsetType | None = UNSET
    ip_allow: list[str] | UnsetType | None = UNSET
    remaining: int | UnsetType | None = UNSET
    refill_amount: int | UnsetType | None = UNSET
    refill_interval: int | UnsetType | None = UNSET
    rate_limit_enabled: bool | UnsetType = UNSET
    rate_limit_time_window: int | UnsetType = UNSET
    rate_limit_max: int | UnsetType = UNSET


@operation("POST", "/api-key/update", access=Access.MANAGER, tag="API keys", management=True,
           errors=(*RULES, "KEY_NOT_FOUND", "KEY_NOT_UPDATABLE", "KEY_CHANGED_MEANWHILE",
                   "NO_VALUES_TO_UPDATE", "SESSION_NOT_FRESH"))  # fmt: skip
async def update_api_key(call: Call, asked: UpdateKey) -> ApiKey:
    """Changes a key: its name, description, expiry, permissions, networks, or whether it is on.

    When it has answered, every check goes by the new values. A key that has expired or was
    revoked never comes back. With `ifUpdatedAt` a key that was changed since is 409
    `KEY_CHANGED_MEANWHILE`, and nothing changes. What may make a key worth more (permissions,
    networks, expiry, turning it on) asks for a password that was given lately, as
    `/api-key/create` does.
    """
    refuse_server_only(call, asked, *SERVER_ONLY)
    call = await acting(call, asked.key_id, "update")
    if _widens(asked):
        await require_fresh(call)
    seen = (
        None if asked.if_updated_at is UNSET else read_instant(asked.if_updated_at, "ifUpdatedAt")
    )
    before = await call.app.database.read(lambda tx: own_key(call, tx, asked.key_id))
    if asked.user_id not in (UNSET, before.owner_id) or asked.config_id not in (
        None,
        before.config_id,
    ):
        raise Failure("KEY_NOT_FOUND")
    changes = await _changes(call, asked, before)
    if not changes:
        raise Failure("NO_VALUES_TO_UPDATE")
    await call.app.verifier.quota.give_back(before.id)

    async def body(tx: Transaction) -> Key:
        key = await own_key(call, tx, asked.key_id, lock=True)
        if key.status(call.now) in ("revoked", "expired"):
            raise Failure("KEY_NOT_UPDATABLE")
        if seen not in (None, key.updated_at):
            raise Failure("KEY_CHANGED_MEANWHILE")
        await sql.save(tx, key.id, {**changes, **_reminded(changes, call.now)})
        # On or off is said, not only that it was switched: it decides what was let in.
        switched: dict[str, Any] = {} if asked.enabled is UNSET else {"enabled": asked.enabled}
        await record(
            call, tx, "key.updated", owner_id=key.owner_id, target_id=key.id,
            fields=",".join(sorted(changes)), **switched,
        )  # fmt: skip
        return await own_key(call, tx, key.id)

    key, _ = await call.app.change(body, lambda key: (f"key:{key.id}",))
    return key_record(key, call.now)


def _reminded(changes: dict[str, Any], now: int) -> dict[str, object]:
    """What changes by the way: the time of the change, and which reminders are past."""
    if "expires_at" not in changes:
        return {"updated_at": now}
    return {"updated_at": now, "reminded_days": reminders.begun(changes["expires_at"], now)}


def _widens(asked: UpdateKey) -> bool:
    fields = (asked.permissions, asked.ip_allow, asked.expires_in, asked.expires_at)
    return asked.enabled is True or any(given is not UNSET for given in fields)


async def _changes(call: Call, asked: UpdateKey, key: Key) -> dict[str, object]:
    """The columns that change, with their new values; only what was asked."""
    changes: dict[str, object] = {}
    config = config_of_key(call, key)
    if asked.name is not UNSET:
        changes["name"] = check_name(config, asked.name)
    if asked.description is not UNSET:
        changes["description"] = check_description(asked.description)
    if asked.enabled is not UNSET:
        changes["enabled"] = asked.enabled
    if asked.expires_in is not UNSET or asked.expires_at is not UNSET:
        changes["expires_at"] = expiry(
            call, config, asked.expires_in, asked.expires_at, default=False
        )
    if asked.metadata is not UNSET:
        changes["metadata"] = check_metadata(config, asked.metadata)
    if asked.permissions is not UNSET:
        held = await call.app.holds(key.owner_id, call.session.role)
        changes["permissions"] = check_permissions(call, asked.permissions, held=held)
    if asked.ip_allow is not UNSET:
        changes["ip_allow"] = check_allow_list(asked.ip_allow)
    limits = (asked.rate_limit_enabled, asked.rate_limit_max, asked.rate_limit_time_window)
    if any(given is not UNSET for given in limits):
        rate = check_rate_limit(
            enabled=chosen(asked.rate_limit_enabled, key.rate_limit_enabled),
            maximum=chosen(asked.rate_limit_max, key.rate_limit_max),
            window_ms=chosen(asked.rate_limit_time_window, key.rate_limit_window_ms),
        )
        changes["rate_limit_enabled"] = rate is not None
        if rate is not None:
            changes["rate_limit_max"] = rate.maximum
            changes["rate_limit_window_ms"] = rate.window_ms
    quota = (asked.remaining, asked.refill_amount, asked.refill_interval)
    if any(given is not UNSET for given in quota):
        remaining, amount, interval = check_quota(
            remaining=chosen(asked.remaining, key.remaining),
            refill_amount=chosen(asked.refill_amount, key.refill_amount),
            refill_interval_ms=chosen(asked.refill_interval, key.refill_interval_ms),
        )
        # What is being spent meanwhile is overwritten only when that was asked.
        if asked.remaining is not UNSET or key.remaining is None:
            changes["remaining"] = remaining
        changes["refill_amount"] = amount
        changes["refill_interval_ms"] = interval
        changes["last_refill_at"] = call.now if amount is not None else None
    return changes
