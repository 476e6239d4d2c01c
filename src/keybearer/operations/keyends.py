"""End a key or its secret: revoke, rotate."""

from typing import Annotated

import msgspec

from keybearer.adapters.sql import keys as sql
from keybearer.adapters.sql import keysecrets
from keybearer.domain.credentials import Secret
from keybearer.domain.errors import Failure
from keybearer.domain.model import ANYONE, Key, RequestFacts, Session
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App, record
from keybearer.operations.declaration import Access, Call, Empty, Input, Output, operation
from keybearer.operations.keyconfig import acting, config_of_key
from keybearer.operations.keyrules import Grace, grace_end
from keybearer.operations.keywire import CreatedApiKey, Revoked, created
from keybearer.operations.ownership import named, own_key
from keybearer.operations.stepup import require_fresh
from keybearer.operations.users import revoke_keys
from keybearer.operations.wire import Id, check_text, instant

TAG = "API keys"
DAY_SECONDS = 86_400
_BATCH = 500
_EARLIER_SECRETS = 2
"""That go on after a rotation: the one before, and one more, for whoever lost a reply."""


class RevokeKey(Input, frozen=True, kw_only=True):
    """Which key to end, and why."""

    key_id: Id
    config_id: Id | None = None
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class RotateKey(Input, frozen=True, kw_only=True):
    """Which key to give a new secret, and for how many seconds the old one goes on.

    `gracePeriod: null` means until somebody finishes the rotation. `replaces` is the `start` of
    the secret that shall be replaced.
    """

    key_id: Id | None = None
    grace_period: Grace = DAY_SECONDS
    replaces: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class ExpiredDeleted(Output, frozen=True, kw_only=True):
    """How many keys were deleted."""

    success: bool = True
    error: None = None
    deleted: int


@operation("DELETE", "/api-key/revoke", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def revoke_api_key(call: Call, asked: RevokeKey) -> Revoked:
    """Ends a key for ever.

    When it has answered, no request that starts later succeeds with that key, on any process of
    any node. If that cannot be assured the answer is 503 `REVOCATION_PENDING`: the key is revoked
    in the database, and the last process stops within seconds.
    """
    return await _end(call, asked, deleted=False)


@operation("POST", "/api-key/delete", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def delete_api_key(call: Call, asked: RevokeKey) -> Revoked:
    """Ends a key for ever, as `/api-key/revoke` does, and takes it out of the list.

    It is there until its retention is over: a list that is asked for revoked keys (`status`) has
    it, and its usage and activity can be looked at. A key that was revoked before leaves the list.
    """
    return await _end(call, asked, deleted=True)


@operation("POST", "/api-key/revoke-self", access=Access.KEY, tag=TAG)
async def revoke_self(call: Call, asked: Empty) -> Revoked:
    """Ends the API key that calls: for whoever finds one.

    It need not be one that opens anything: a key that is bound to networks, disabled or expired
    is ended as well.
    """
    return await _revoke(call, call.session.id, "revoked by itself")


@operation("POST", "/api-key/delete-all-expired-api-keys", access=Access.SERVICE, tag=TAG)
async def delete_all_expired_api_keys(call: Call, asked: Empty) -> ExpiredDeleted:
    """Deletes every key that has expired, whoever owns it, before its retention is over.

    Without it an expired key stays listed until then. A key that is deleted is `INVALID_API_KEY`
    afterwards; a revoked one stays.
    """

    async def body(tx: Transaction) -> int:
        found = await sql.forget_expired(tx, before=call.now, limit=_BATCH)
        if found:
            await record(call, tx, "keys.deleted", owner_id=None, expired=found)
        return found

    deleted, batch = 0, _BATCH
    while batch == _BATCH:
        batch = await call.app.database.write(body)
        deleted += batch
    return ExpiredDeleted(deleted=deleted)


async def _end(call: Call, asked: RevokeKey, *, deleted: bool) -> Revoked:
    reason = None if asked.reason is None else check_text(asked.reason, "reason")
    call = await acting(call, asked.key_id, "delete")
    return await _revoke(call, asked.key_id, reason, config_id=asked.config_id, deleted=deleted)


async def _revoke(
    call: Call,
    id: str,
    reason: str | None,
    *,
    config_id: str | None = None,
    deleted: bool = False,
) -> Revoked:
    async def body(tx: Transaction) -> Key:
        key = await own_key(call, tx, id, lock=True)
        if config_id not in (None, key.config_id):
            raise Failure("KEY_NOT_FOUND")
        ends = await sql.revoke(tx, key.id, now=call.now, reason=reason)
        if ends:
            await record(
                call, tx, "key.revoked", owner_id=key.owner_id, target_id=key.id, reason=reason
            )
        if deleted and not key.deleted:
            await sql.delist(tx, key.id)
            if not ends:
                await record(
                    call, tx, "key.updated", owner_id=key.owner_id, target_id=key.id,
                    fields="deleted",
                )  # fmt: skip
        return msgspec.structs.replace(key, revoked_at=call.now) if ends else key

    key, receipt = await call.app.change(body, lambda key: (f"key:{key.id}",))
    return Revoked(
        revoked_at=instant(key.revoked_at) or "",
        nodes=receipt.nodes,
        waited_ms=receipt.waited_ms,
    )


@operation("POST", "/api-key/rotate", access=Access.OWNER, tag=TAG, management=True, secret=True,
           errors=("KEY_NOT_FOUND", "KEY_NOT_ROTATABLE", "KEY_ALREADY_ROTATED",
                   "SESSION_NOT_FRESH", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def rotate_api_key(call: Call, asked: RotateKey) -> CreatedApiKey:
    """Gives a key a new secret; the old one works until the grace period ends.

    The key keeps its id, limits, quota and history. `gracePeriod` is in seconds, a day unless
    given; 0 ends the old secret at once, and null lets it go on until somebody finishes the
    rotation. Of earlier ones that still work, one goes on; the others end. With `replaces` a
    request that is sent twice rotates once: the second is 409 `KEY_ALREADY_ROTATED`. A key may
    rotate itself, but not with a secret that was itself replaced.
    """
    await require_fresh(call)
    id = named(call, asked.key_id)
    call = await acting(call, id, "update")
    if call.session.replaced:
        raise Failure("KEY_NOT_ROTATABLE", "This secret was replaced: use the new one.")
    await call.app.verifier.quota.give_back(id)

    async def body(tx: Transaction) -> tuple[Key, Secret]:
        key = await own_key(call, tx, id, lock=True)
        if key.status(call.now) in ("revoked", "expired"):
            raise Failure("KEY_NOT_ROTATABLE")
        if asked.replaces not in (None, key.start):
            raise Failure("KEY_ALREADY_ROTATED")
        config = config_of_key(call, key)
        prefixes = config.prefixes or ()
        # A key that was made elsewhere gets a secret of ours.
        prefix = key.prefix if key.prefix in prefixes else prefixes[0]
        secret, start = await config.mint(call, tx, prefix)
        await keysecrets.end(tx, key.id, until=grace_end(call.now, asked.grace_period))
        await keysecrets.end_older(tx, key.id, kept=_EARLIER_SECRETS, now=call.now)
        await keysecrets.count_anew(tx, key.id)
        await keysecrets.add(
            tx,
            key.id,
            digest=call.app.ring.digest(secret.reveal().encode()),
            pepper_id=call.app.ring.newest.id,
            start=start,
            now=call.now,
        )
        changes = {"prefix": prefix, "start": start, "updated_at": call.now}
        await sql.save(tx, key.id, changes)
        await record(
            call, tx, "key.rotated", owner_id=key.owner_id, target_id=key.id,
            gracePeriod=asked.grace_period,
        )  # fmt: skip
        return await own_key(call, tx, id), secret

    (key, secret), _ = await call.app.change(body, lambda made: (f"key:{made[0].id}",))
    return created(key, secret, call.now)


async def revoke_owner(app: App, owner_id: str) -> int:
    """Ends every key of an owner; gives how many there were."""
    now = app.clock.now()
    caller = Session(subject=ANYONE, kind="operator", id="app")
    call = Call(app=app, caller=caller, facts=RequestFacts(id=app.new_id(now)), now=now)

    async def body(tx: Transaction) -> list[str]:
        return await revoke_keys(call, tx, owner_id, reason="owner ended")

    ids, _ = await app.change(body, lambda _: (f"owner:{owner_id}",))
    return len(ids)


OPERATIONS = (
    revoke_api_key,
    delete_api_key,
    revoke_self,
    rotate_api_key,
    delete_all_expired_api_keys,
)
