"""Change many keys at once: switch, revoke.

One transaction, one receipt, an event for each key. The rows are locked by id and the chains of
the trail in their order, so that two who do this never wait for each other.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from keybearer.adapters.sql import audit
from keybearer.adapters.sql import keys as sql
from keybearer.domain.errors import Failure
from keybearer.domain.model import Key
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.stepup import require_fresh
from keybearer.operations.wire import Id, Timestamp, check_text, instant

TAG = "API keys"

KeyIds = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=100)]


class UpdateKeys(Input, frozen=True, kw_only=True):
    """Which keys to turn on or off: 1 to 100, each once."""

    key_ids: KeyIds
    enabled: bool


class RevokeKeys(Input, frozen=True, kw_only=True):
    """Which keys to end, and why: 1 to 100, each once."""

    key_ids: KeyIds
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class KeyResult(Output, frozen=True, kw_only=True):
    """How it went with one key; `code` says why it did not."""

    key_id: str
    success: bool
    code: Literal["KEY_NOT_FOUND", "KEY_NOT_UPDATABLE"] | None


class UpdatedKeys(Output, frozen=True, kw_only=True):
    """A result for each key, in the order that was asked."""

    results: list[KeyResult]


class RevokedKeys(Output, frozen=True, kw_only=True):
    """A result for each key, and the receipt of all.

    `revokedAt` is when the last of them was, perhaps before; null when none was found.
    """

    results: list[KeyResult]
    revoked_at: Timestamp | None
    nodes: int
    waited_ms: int


@operation("POST", "/api-key/update-many", access=Access.MANAGER, tag=TAG, management=True,
           errors=("SESSION_NOT_FRESH",))  # fmt: skip
async def update_api_keys(call: Call, asked: UpdateKeys) -> UpdatedKeys:
    """Turns many keys on or off at once.

    A key that is not found, expired or revoked is told in its result, and the others change all
    the same. When this has answered, every check goes by the new values.
    """
    _check_distinct(asked.key_ids)
    if asked.enabled:
        await require_fresh(call)

    async def body(tx: Transaction) -> list[Key]:
        found = await _lock(call, tx, asked.key_ids)
        changed = [key for key in found if key.status(call.now) not in ("revoked", "expired")]
        ids = [key.id for key in changed]
        await sql.switch_many(tx, ids, enabled=asked.enabled, now=call.now)
        told = {"fields": "enabled", "enabled": asked.enabled}
        await _record_each(call, tx, "key.updated", changed, told)
        return found

    found, _ = await call.app.change(body, _tags)
    codes = {
        key.id: "KEY_NOT_UPDATABLE" if key.status(call.now) in ("revoked", "expired") else None
        for key in found
    }
    return UpdatedKeys(results=_results(asked.key_ids, codes))


@operation("POST", "/api-key/revoke-many", access=Access.MANAGER, tag=TAG, management=True)
async def revoke_api_keys(call: Call, asked: RevokeKeys) -> RevokedKeys:
    """Ends many keys for ever, at once.

    A key that is not found is told in its result, and the others end all the same. When this has
    answered, no request that starts later succeeds with one of them; if that cannot be assured
    the answer is 503 `REVOCATION_PENDING`, as at `/api-key/revoke`.
    """
    _check_distinct(asked.key_ids)
    reason = None if asked.reason is None else check_text(asked.reason, "reason")

    async def body(tx: Transaction) -> list[Key]:
        found = await _lock(call, tx, asked.key_ids)
        live = [key for key in found if key.revoked_at is None]
        await sql.revoke_many(tx, [key.id for key in live], now=call.now, reason=reason)
        await _record_each(call, tx, "key.revoked", live, {"reason": reason})
        return found

    found, receipt = await call.app.change(body, _tags)
    ended = [call.now if key.revoked_at is None else key.revoked_at for key in found]
    return RevokedKeys(
        results=_results(asked.key_ids, dict.fromkeys((key.id for key in found), None)),
        revoked_at=instant(max(ended, default=None)),
        nodes=receipt.nodes,
        waited_ms=receipt.waited_ms,
    )


def _check_distinct(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        raise Failure("VALIDATION_ERROR", "keyIds: name each key once.")


async def _lock(call: Call, tx: Transaction, ids: Sequence[str]) -> list[Key]:
    """Those of the keys that the caller may speak of; others are not even locked."""
    return await sql.lock_many(tx, ids, owner_id=call.speaks_for, now=call.now)


async def _record_each(
    call: Call, tx: Transaction, event: str, keys: Sequence[Key], details: dict[str, Any]
) -> None:
    for key in sorted(keys, key=lambda key: (audit.chain_of(key.owner_id), key.id)):
        await record(call, tx, event, owner_id=key.owner_id, target_id=key.id, **details)


def _tags(found: Sequence[Key]) -> tuple[str, ...]:
    return tuple(f"key:{key.id}" for key in found)


def _results(ids: Sequence[str], codes: dict[str, Any]) -> list[KeyResult]:
    told = ((id, codes.get(id, "KEY_NOT_FOUND")) for id in ids)
    return [KeyResult(key_id=id, success=code is None, code=code) for id, code in told]


OPERATIONS = (update_api_keys, revoke_api_keys)
