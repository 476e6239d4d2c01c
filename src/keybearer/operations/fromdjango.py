"""Move in from Django: its users, and the keys of two packages for its REST framework.

auth_user                      ──▶ users     PBKDF2, Argon2, bcrypt, scrypt
knox_authtoken                 ──▶ api_keys  by the SHA-512 that is stored
rest_framework_api_key_apikey  ──▶ api_keys  by SHA-512, or by the prefix and a slow hash
"""

import re
from functools import partial
from typing import Any

from keybearer.adapters.sql.origins import Origin
from keybearer.domain import records
from keybearer.domain.arrivals import ArrivingKey
from keybearer.domain.model import User
from keybearer.domain.records import Record
from keybearer.operations.arriving import (
    Choices,
    arriving_key,
    arriving_user,
    open_moving,
    owner_of,
    read_row,
    rows_of,
)
from keybearer.operations.declaration import Call
from keybearer.operations.moving import Moving, Report

ORIGIN = "django"
_SHA512 = re.compile(r"[0-9a-f]{128}")
_OF_DRF = "sha512$$"


async def move(call: Call, origin: Origin, choices: Choices) -> Report:
    """Imports what a Django database has; what is here already stays as it is.

    Raises:
        Failure: ADMIN_REQUIRED.
        Misuse: a table is missing.
        Unavailable: a database is lost; what was imported before stays.
    """
    moving = open_moving(call, ORIGIN, choices)
    if not choices.keys_only:
        async for record in rows_of(origin, choices, "auth_user", required=True):
            user = read_row(moving, "user", record, partial(_user, moving, choices))
            if user is not None:
                await moving.arrive(user)
        await moving.settle()
        if choices.owner is not None:
            await moving.learn({choices.owner})
    for table, read in (
        ("knox_authtoken", _knox),
        ("rest_framework_api_key_apikey", _drf),
    ):
        async for record in rows_of(origin, choices, table, required=False):
            key = read_row(moving, "key", record, partial(read, moving, choices))
            if key is not None:
                await moving.arrive(key)
    return await moving.finish()


def _user(moving: Moving, choices: Choices, record: Record) -> User:
    hashed = records.text(record, "password")
    if hashed is not None and hashed.startswith("!"):
        hashed = None  # one that no password fits
    if records.flag(record, "issuperuser", otherwise=False):
        moving.note("a role: nobody is an admin here by an import")
    names = (records.text(record, "firstname"), records.text(record, "lastname"))
    return arriving_user(
        moving,
        id=records.identifier(record, "id"),
        address=records.required(record, "email"),
        name=" ".join(filter(None, names)) or records.text(record, "username") or "",
        hashed=hashed,
        verified=choices.verified,
        active=records.flag(record, "isactive", otherwise=True),
        created_at=records.moment(record, "datejoined", otherwise=moving.call.now),
    )


def _knox(moving: Moving, choices: Choices, record: Record) -> ArrivingKey:
    digest = records.required(record, "digest")
    if not _SHA512.fullmatch(digest):
        raise ValueError("digest is no SHA-512")
    return arriving_key(
        "sha512",
        bytes.fromhex(digest),
        owner=owner_of(moving, choices, records.identifier(record, "userid")),
        config=choices.config,
        created_at=records.moment(record, "created", otherwise=moving.call.now),
        name="knox",
        start=records.text(record, "tokenkey") or "",
        expires_at=records.instant(record, "expiry"),
    )


def _drf(moving: Moving, choices: Choices, record: Record) -> ArrivingKey:
    hashed = records.required(record, "hashedkey")
    prefix = records.required(record, "prefix")
    created = records.moment(record, "created", otherwise=moving.call.now)
    fields: dict[str, Any] = {
        "config": choices.config,
        "name": records.text(record, "name"),
        "start": prefix,
        "expires_at": records.instant(record, "expirydate"),
    }
    if records.flag(record, "revoked", otherwise=False):
        fields |= {"revoked_at": moving.call.now, "revoked_reason": "revoked before the import"}
    owner = owner_of(moving, choices, None)
    digest = hashed.removeprefix(_OF_DRF)
    if digest == hashed:
        return arriving_key(
            "drf", prefix.encode(), owner=owner, created_at=created, foreign_hash=hashed, **fields
        )
    if not _SHA512.fullmatch(digest):
        raise ValueError("hashed_key is no SHA-512")
    return arriving_key("sha512", bytes.fromhex(digest), owner=owner, created_at=created, **fields)
