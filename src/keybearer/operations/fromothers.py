"""Move in from fastapi-users, keyshield (fastapi-api-key) and Unkey.

user      ──▶ users     fastapi-users: Argon2 or bcrypt
api_keys  ──▶ api_keys  keyshield: by the id in the key, and a slow hash under its pepper
a file    ──▶ api_keys  Unkey: by SHA-256; one JSON object a line, as its migration takes them
"""

import re
from base64 import b64decode
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from keybearer.adapters.sql.origins import Origin
from keybearer.domain import records
from keybearer.domain.arrivals import ArrivingKey
from keybearer.domain.errors import Misuse
from keybearer.domain.model import User
from keybearer.domain.permissions import parse_needs
from keybearer.domain.records import Record
from keybearer.operations.arriving import (
    Choices,
    arriving_key,
    arriving_user,
    numbered,
    open_moving,
    owner_of,
    read_row,
    reason_of,
    rows_of,
)
from keybearer.operations.declaration import Call
from keybearer.operations.keyrules import bounded_metadata, check_quota, check_rate_limit
from keybearer.operations.moving import Moving, Report

_KEY_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_INTERVALS = {"daily": 86_400_000, "monthly": 30 * 86_400_000}


async def move_fastapi_users(call: Call, origin: Origin, choices: Choices) -> Report:
    """Imports the users of fastapi-users; raises as the other imports."""
    moving = open_moving(call, "fastapi-users", choices)
    async for record in rows_of(origin, choices, "user", required=True):
        user = read_row(moving, "user", record, partial(_user, moving))
        if user is not None:
            await moving.arrive(user)
    return await moving.finish()


def _user(moving: Moving, record: Record) -> User:
    if records.flag(record, "issuperuser", otherwise=False):
        moving.note("a role: nobody is an admin here by an import")
    return arriving_user(
        moving,
        id=records.identifier(record, "id"),
        address=records.required(record, "email"),
        name="",
        hashed=records.text(record, "hashedpassword"),
        verified=records.flag(record, "isverified", otherwise=False),
        active=records.flag(record, "isactive", otherwise=True),
        created_at=moving.call.now,
    )


async def move_keyshield(call: Call, origin: Origin, choices: Choices) -> Report:
    """Imports the keys of keyshield, for one owner; raises as the other imports."""
    moving = open_moving(call, "keyshield", choices)
    if choices.owner is not None:
        await moving.learn({choices.owner})
    if call.app.settings.keyshield_pepper is None:
        moving.note("KEYSHIELD_PEPPER is not set: without it no key of keyshield is good")
    async for record in rows_of(origin, choices, "api_keys", required=True):
        key = read_row(moving, "key", record, partial(_keyshield, moving, choices))
        if key is not None:
            await moving.arrive(key)
    return await moving.finish()


def _keyshield(moving: Moving, choices: Choices, record: Record) -> ArrivingKey:
    key_id = records.required(record, "keyid")
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError("key_id is none of sixteen hex digits, as it stands in the key")
    scopes = records.json(record, "scopes") or []
    if not isinstance(scopes, list):
        raise ValueError("scopes is no list")
    return arriving_key(
        "keyshield",
        key_id.encode(),
        id=records.identifier(record, "id"),
        owner=owner_of(moving, choices, None),
        config=choices.config,
        created_at=records.moment(record, "createdat", otherwise=moving.call.now),
        foreign_hash=records.required(record, "keyhash"),
        name=records.text(record, "name"),
        description=records.text(record, "description"),
        start=key_id,
        enabled=records.flag(record, "isactive", otherwise=True),
        expires_at=records.instant(record, "expiresat"),
        last_used_at=records.instant(record, "lastusedat"),
        permissions=parse_needs([str(scope) for scope in scopes]) if scopes else None,
    )


async def move_unkey(call: Call, text: Iterable[bytes], choices: Choices) -> Report:
    """Imports keys in the form in which Unkey takes them for a migration, one a line.

    Raises:
        Failure: ADMIN_REQUIRED.
        Misuse: it is one JSON array.
        Unavailable: the database is lost; what was imported before stays.
    """
    moving = open_moving(call, "unkey", choices)
    if choices.owner is not None:
        await moving.learn({choices.owner})
    for number, raw in numbered(text):
        if number == 1 and raw.lstrip().startswith(b"["):
            raise Misuse("this is no file of JSON lines: it is one array, take it apart")
        try:
            told = msgspec.json.decode(raw, type=dict[str, object])
        except (msgspec.MsgspecError, RecursionError) as error:
            moving.skip("line", str(number), reason_of(error))
            continue
        record = {"id": f"line {number}", **told}
        owner = record.get("externalId") or record.get("ownerId")
        if isinstance(owner, str) and not choices.keys_only:
            await moving.learn({owner})
        key = read_row(moving, "key", record, partial(_unkey, moving, choices))
        if key is not None:
            await moving.arrive(key)
    return await moving.finish()


def _unkey(moving: Moving, choices: Choices, record: Record) -> ArrivingKey:
    hashed = record.get("hash")
    if isinstance(hashed, dict):  # with a variant beside it, in the first version
        if hashed.get("variant", "sha256_base64") != "sha256_base64":
            raise ValueError("the variant of hash is not sha256_base64")
        hashed = hashed.get("value")
    if not isinstance(hashed, str) or not _SHA256.fullmatch(hashed):
        raise ValueError("hash is no SHA-256 in base64")
    digest = b64decode(hashed.translate({45: "+", 95: "/"}).rstrip("=") + "=")
    owner = records.text(record, "externalId") or records.text(record, "ownerId")
    for name in ("roles", "permissions", "ratelimits"):
        if record.get(name):
            moving.note(f"{name}: they have no form here")
    if _sub(_credits_of(record), "refill").get("refillDay") is not None:
        moving.note("refillDay: a monthly refill comes every 30 days, counted from the creation")
    remaining, amount, interval = check_quota(**_credits(record))
    limit = _sub(record, "ratelimit")
    prefix = records.text(record, "prefix")
    return arriving_key(
        "sha256",
        digest,
        owner=owner_of(moving, choices, owner),
        config=choices.config,
        created_at=records.moment(record, "createdAt", otherwise=moving.call.now),
        name=records.text(record, "name"),
        prefix="" if prefix is None else f"{prefix}_",
        start=records.text(record, "start") or prefix or "",
        enabled=records.flag(record, "enabled", otherwise=True),
        expires_at=records.instant(record, "expires"),
        metadata=bounded_metadata(record.get("meta")),
        remaining=remaining,
        refill_amount=amount,
        refill_interval_ms=interval,
        **_limited(limit),
    )


def _sub(record: Record, name: str) -> Record:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _credits_of(record: Record) -> Record:
    return _sub(record, "credits") or record


def _credits(record: Record) -> dict[str, int | None]:
    """What is left and how it is refilled: `remaining` and `refill`, or both within `credits`."""
    held = _credits_of(record)
    left, refill = records.number(held, "remaining"), _sub(held, "refill")
    if left is None or not refill:
        return {"remaining": left, "refill_amount": None, "refill_interval_ms": None}
    interval = _INTERVALS.get(str(refill.get("interval")))
    if interval is None:
        raise ValueError("the interval of refill is neither daily nor monthly")
    amount = records.number(refill, "amount")
    return {"remaining": left, "refill_amount": amount, "refill_interval_ms": interval}


def _limited(limit: Record) -> dict[str, Any]:
    maximum = records.number(limit, "limit")
    window = records.number(limit, "duration")
    if maximum is None or window is None:
        return {}
    check_rate_limit(enabled=True, maximum=maximum, window_ms=window)
    return {
        "rate_limit_enabled": True, "rate_limit_max": maximum, "rate_limit_window_ms": window,
    }  # fmt: skip
