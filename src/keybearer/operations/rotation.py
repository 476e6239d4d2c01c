"""A rotation under way: see it, finish it, give it more time, call it off.

rotate ──▶ [ new: current ]  [ old: replaced, until the grace ends ]
finish          stays              ends now
extend          stays              ends later, or sooner, counted from now
cancel          ends now           current again
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec

from keybearer.adapters.sql import keys as sql
from keybearer.adapters.sql import keysecrets
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import UNTIL_FINISHED, Key, KeySecret
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.keyconfig import acting
from keybearer.operations.keyrules import Grace, grace_end
from keybearer.operations.keywire import ApiKey, key_record
from keybearer.operations.ownership import own_key
from keybearer.operations.stepup import require_fresh
from keybearer.operations.wire import Id, Timestamp, instant

TAG = "API keys"
_Start = Annotated[str, msgspec.Meta(max_length=64)]
_Change = Callable[[Transaction, Key, Sequence[KeySecret]], Awaitable[str]]
"""Changes the secrets that work, and gives the `start` of the one that is current then."""


class AboutRotation(Input, frozen=True, kw_only=True):
    """Whose rotation.

    `current` is the `start` of the newest secret, as the caller last saw it: only a rotation with
    that one is changed. Whoever looks at the rotation is shown it in any case.
    """

    key_id: Id
    current: _Start | None = None


class ExtendRotation(Input, frozen=True, kw_only=True):
    """Whose rotation, and for how many seconds from now the old secret goes on.

    `gracePeriod: null` means until somebody finishes the rotation. `current` is the `start` of the
    newest secret, as the caller last saw it.
    """

    key_id: Id
    grace_period: Grace
    current: _Start | None = None


class RotationSecret(Output, frozen=True, kw_only=True):
    """One secret that works, as far as it may be shown, and its uses since the rotation.

    `usableUntil` is null for the current one, and for one that goes on until the rotation is
    finished.
    """

    start: str
    current: bool
    created_at: Timestamp
    usable_until: Timestamp | None
    last_request: Timestamp | None
    last_used_ip: str | None
    request_count: int


class Rotation(Output, frozen=True, kw_only=True):
    """The secrets of a key that work, newest first; more than one while it is rotating."""

    key_id: str
    rotating: bool
    secrets: list[RotationSecret]


@operation("GET", "/api-key/rotation", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def get_rotation(call: Call, asked: AboutRotation) -> Rotation:
    """Shows which secrets of a key work, and which of them is still used.

    The uses of each secret are counted apart while the key is rotating, from the last rotation
    on. A key that has expired or was revoked has no secret that works.
    """
    call = await acting(call, asked.key_id, "read")
    await call.app.verifier.usage.flush(call.now)

    async def body(tx: Transaction) -> tuple[Key, Sequence[KeySecret]]:
        key = await own_key(call, tx, asked.key_id)
        return key, await _live(call, tx, key)

    key, secrets = await call.app.database.read(body)
    return Rotation(
        key_id=key.id,
        rotating=len(secrets) > 1,
        secrets=[_shown(secret, key) for secret in secrets],
    )


@operation("POST", "/api-key/rotation/finish", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "KEY_NOT_ROTATING", "KEY_ALREADY_ROTATED",
                   "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def finish_rotation(call: Call, asked: AboutRotation) -> ApiKey:
    """Ends the old secrets of a key at once.

    When it has answered, no request that starts later succeeds with one of them. With `current` a
    key that has another newest secret by now is 409 `KEY_ALREADY_ROTATED`, and nothing changes.
    """

    async def finish(tx: Transaction, key: Key, _: Sequence[KeySecret]) -> str:
        await keysecrets.move_ends(tx, key.id, until=call.now, now=call.now)
        return key.start

    return await _change(call, asked, finish, "key.rotation_finished")


@operation("POST", "/api-key/rotation/extend", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "KEY_NOT_ROTATING", "KEY_ALREADY_ROTATED",
                   "SESSION_NOT_FRESH", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def extend_rotation(call: Call, asked: ExtendRotation) -> ApiKey:
    """Lets the old secrets that still work go on for another time, counted from now.

    `gracePeriod` is in seconds, up to 30 days; null lets them go on until somebody finishes the
    rotation. It may also end them sooner than before. As an old secret may live on by it, it asks
    for a password that was given lately. With `current` a key that has another newest secret by
    now is 409 `KEY_ALREADY_ROTATED`, and nothing changes.
    """
    await require_fresh(call)

    async def extend(tx: Transaction, key: Key, _: Sequence[KeySecret]) -> str:
        until = grace_end(call.now, asked.grace_period)
        await keysecrets.move_ends(tx, key.id, until=until, now=call.now)
        return key.start

    grace: dict[str, Any] = {"gracePeriod": asked.grace_period}
    return await _change(call, asked, extend, "key.rotation_extended", **grace)


@operation("POST", "/api-key/rotation/cancel", access=Access.MANAGER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND", "KEY_NOT_ROTATING", "KEY_ALREADY_ROTATED",
                   "SESSION_NOT_FRESH", "INSUFFICIENT_API_KEY_PERMISSIONS"))  # fmt: skip
async def cancel_rotation(call: Call, asked: AboutRotation) -> ApiKey:
    """Ends the newest secret of a key at once; the one that it replaced is the current one again.

    When it has answered, no request that starts later succeeds with the newest secret. One that
    has ended does not come back: then there is nothing to cancel. As the old secret lives on by
    it, it asks for a password that was given lately. With `current` a key that has another newest
    secret by now is 409 `KEY_ALREADY_ROTATED`, and nothing changes.
    """
    await require_fresh(call)

    async def cancel(tx: Transaction, key: Key, secrets: Sequence[KeySecret]) -> str:
        newest, before, *_ = secrets
        await keysecrets.set_end(tx, newest.digest, until=call.now)
        await keysecrets.set_end(tx, before.digest, until=None)
        return _start(before, key)

    return await _change(call, asked, cancel, "key.rotation_cancelled")


async def _change(
    call: Call,
    asked: AboutRotation | ExtendRotation,
    change: _Change,
    event: str,
    **details: Any,
) -> ApiKey:
    """Changes a rotation under way, if it is still the one that the caller saw.

    Raises:
        Failure: KEY_NOT_FOUND; INSUFFICIENT_API_KEY_PERMISSIONS; KEY_ALREADY_ROTATED;
            KEY_NOT_ROTATING.
    """
    call = await acting(call, asked.key_id, "update")
    await call.app.verifier.quota.give_back(asked.key_id)

    async def body(tx: Transaction) -> Key:
        key = await own_key(call, tx, asked.key_id, lock=True)
        if asked.current not in (None, key.start):
            raise Failure("KEY_ALREADY_ROTATED")
        # Read anew: what a statement shows beside the row it has waited for is older.
        secrets = await _live(call, tx, key, lock=True)
        if len(secrets) < 2:
            raise Failure("KEY_NOT_ROTATING")
        start = await change(tx, key, secrets)
        await sql.save(tx, key.id, {"start": start, "updated_at": call.now})
        await record(call, tx, event, owner_id=key.owner_id, target_id=key.id, **details)
        return await own_key(call, tx, key.id)

    key, _ = await call.app.change(body, lambda key: (f"key:{key.id}",))
    return key_record(key, call.now)


async def _live(
    call: Call, tx: Transaction, key: Key, *, lock: bool = False
) -> Sequence[KeySecret]:
    if key.status(call.now) in ("revoked", "expired"):
        return ()
    return await keysecrets.live(tx, key.id, now=call.now, lock=lock)


def _shown(secret: KeySecret, key: Key) -> RotationSecret:
    until = secret.usable_until
    return RotationSecret(
        start=_start(secret, key),
        current=until is None,
        created_at=iso(secret.created_at),
        usable_until=None if until == UNTIL_FINISHED else instant(until),
        last_request=instant(secret.last_used_at),
        last_used_ip=secret.last_used_ip,
        request_count=secret.request_count,
    )


def _start(secret: KeySecret, key: Key) -> str:
    """What may be shown of a secret; of one from before it was kept, the prefix."""
    return secret.start or key.prefix


OPERATIONS = (get_rotation, finish_rotation, extend_rotation, cancel_rotation)
