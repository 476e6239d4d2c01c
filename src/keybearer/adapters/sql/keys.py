"""API keys: one statement for each question."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from keybearer.adapters.sql.rows import Together, new
from keybearer.adapters.sql.tables import activity, api_key_secrets, api_keys, usage, users
from keybearer.domain.model import Key
from keybearer.domain.permissions import parse, to_wire
from keybearer.domain.ports import Row, Transaction

_others = api_key_secrets.alias("others")
_ROTATING = (
    select(func.max(_others.c.usable_until))
    .where(_others.c.key_id == api_keys.c.id, _others.c.usable_until > bindparam("now"))
    .scalar_subquery()
    .label("rotating_until")
)
RECORD = select(api_keys, _ROTATING)
"""What `read` makes a key of; wants `now`."""

_PARSED = ("permissions", "metadata", "ip_allow")
_FIELDS = tuple(name for name in Key.__struct_fields__ if name not in (*_PARSED, "rotating_until"))
_ADD = Together(
    insert(api_keys).values(
        {name: new(name) for name in (*_FIELDS, *_PARSED, "idempotency", "idempotent_request")}
    ),
    insert(api_key_secrets).values(
        key_id=new("id"),
        digest=new("digest"),
        pepper_id=new("pepper_id"),
        created_at=new("created_at"),
        start=new("start"),
    ),
)
_BY_ID = RECORD.where(api_keys.c.id == bindparam("id"))
_BY_ID_LOCKED = _BY_ID.with_for_update(of=api_keys)
_BY_IDEMPOTENCY = RECORD.where(api_keys.c.idempotency.in_(bindparam("digests", expanding=True)))
# Many rows are locked by id, so that two who change the same keys never wait for each other.
_LOCK_MANY = (
    RECORD.where(api_keys.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(api_keys.c.id)
    .with_for_update(of=api_keys)
)
_LOCK_OWNERS = (
    select(api_keys.c.id)
    .where(api_keys.c.owner_id == bindparam("of_owner"), api_keys.c.revoked_at.is_(None))
    .order_by(api_keys.c.id)
    .with_for_update()
)
_COUNT_LIVE = (
    select(func.count().label("n"))
    .select_from(api_keys)
    .where(
        api_keys.c.owner_id == bindparam("owner_id"),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > bindparam("now")),
    )
)
_SWITCH_MANY = (
    update(api_keys)
    .where(api_keys.c.id.in_(bindparam("ids", expanding=True)))
    .values(enabled=bindparam("switched"), updated_at=bindparam("at"))
)
_REVOKE = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("key_id"), api_keys.c.revoked_at.is_(None))
    .values(
        revoked_at=bindparam("revoked_at"),
        revoked_reason=bindparam("revoked_reason"),
        updated_at=bindparam("revoked_at"),
    )
)
_DELIST = update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(deleted=True)
_REVOKE_MANY = (
    update(api_keys)
    .where(
        api_keys.c.id.in_(bindparam("ids", expanding=True)),
        api_keys.c.revoked_at.is_(None),
    )
    .values(
        revoked_at=bindparam("revoked_at"),
        revoked_reason=bindparam("revoked_reason"),
        updated_at=bindparam("revoked_at"),
    )
)
_REVOKE_OWNERS = (
    update(api_keys)
    .where(api_keys.c.owner_id == bindparam("of_owner"), api_keys.c.revoked_at.is_(None))
    .values(
        revoked_at=bindparam("revoked_at"),
        revoked_reason=bindparam("revoked_reason"),
        updated_at=bindparam("revoked_at"),
    )
    .returning(api_keys.c.id)
)
_GRANT = (
    select(
        api_keys,
        _ROTATING,
        api_key_secrets.c.digest,
        api_key_secrets.c.usable_until,
        api_key_secrets.c.pepper_id,
        api_key_secrets.c.scheme,
        api_key_secrets.c.foreign_hash,
        users.c.id.label("user_id"),
        users.c.role,
        users.c.disabled_at,
        users.c.email_verified_at,
    )
    .select_from(
        api_key_secrets.join(api_keys, api_keys.c.id == api_key_secrets.c.key_id).outerjoin(
            users, users.c.id == api_keys.c.owner_id
        )
    )
    .where(api_key_secrets.c.digest.in_(bindparam("digests", expanding=True)))
)
_FORGET_SECRETS = delete(api_key_secrets).where(
    api_key_secrets.c.key_id.in_(bindparam("ids", expanding=True))
)
_FORGET_USAGE = delete(usage).where(usage.c.key_id.in_(bindparam("ids", expanding=True)))
_FORGET_ACTIVITY = delete(activity).where(activity.c.key_id.in_(bindparam("ids", expanding=True)))
_FORGET = delete(api_keys).where(api_keys.c.id.in_(bindparam("ids", expanding=True)))
_ENDED = (
    select(api_keys.c.id)
    .where(
        or_(
            api_keys.c.revoked_at < bindparam("before"),
            api_keys.c.expires_at < bindparam("before"),
        )
    )
    .limit(bindparam("limit"))
)
_EXPIRED = (
    select(api_keys.c.id)
    .where(api_keys.c.expires_at <= bindparam("before"), api_keys.c.revoked_at.is_(None))
    .limit(bindparam("limit"))
    .with_for_update()  # whose life is made longer at this moment is not found any more
)


async def add(
    tx: Transaction,
    key: Key,
    *,
    digest: bytes,
    pepper_id: str,
    idempotency: bytes | None,
    request: bytes | None = None,
) -> None:
    """Writes a new key and its first secret.

    Args:
        idempotency, request: digests of the name that a retry will come with, and of what was
            asked.
    """
    await _ADD.run(
        tx,
        **columns(key),
        digest=digest,
        pepper_id=pepper_id,
        idempotency=idempotency,
        idempotent_request=request,
    )


async def by_id(tx: Transaction, id: str, *, now: int, lock: bool = False) -> Key | None:
    """One key; `lock` makes other changes of it wait until the transaction ends."""
    row = await tx.one(_BY_ID_LOCKED if lock else _BY_ID, id=id, now=now)
    return None if row is None else read(row)


async def lock_many(
    tx: Transaction, ids: Sequence[str], *, owner_id: str | None, now: int
) -> list[Key]:
    """Those of the keys that an owner has (None: that there are), locked until the end."""
    statement = _LOCK_MANY
    if owner_id is not None:
        statement = statement.where(api_keys.c.owner_id == owner_id)
    return [read(row) for row in await tx.all(statement, ids=list(ids), now=now)]


async def by_idempotency(
    tx: Transaction, digests: Sequence[bytes], *, now: int
) -> tuple[Key, bytes | None] | None:
    """The key that an earlier try under the same name made, and the digest of what it asked."""
    row = await tx.one(_BY_IDEMPOTENCY, digests=list(digests), now=now)
    return None if row is None else (read(row), row.idempotent_request)


async def count_live(tx: Transaction, owner_id: str, *, now: int) -> int:
    """How many keys an owner has that are neither revoked nor expired."""
    row = await tx.one(_COUNT_LIVE, owner_id=owner_id, now=now)
    return 0 if row is None else int(row.n)


async def save(tx: Transaction, id: str, changes: Mapping[str, object]) -> None:
    """Writes the columns that change, and only those: counters beside them stay untouched."""
    names = sorted(changes)
    values: dict[str, object] = {name: bindparam(f"new_{name}") for name in names}
    if "remaining" in changes:
        # The new number counts, whatever processes have taken of the old one.
        values["quota_version"] = api_keys.c.quota_version + 1
    statement = update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(values)
    await tx.run(
        statement, key_id=id, **{f"new_{name}": _column(name, changes[name]) for name in names}
    )


async def revoke(tx: Transaction, id: str, *, now: int, reason: str | None) -> bool:
    """Marks a key revoked; False when it was already."""
    changed = await tx.run(_REVOKE, key_id=id, revoked_at=now, revoked_reason=reason)
    return changed == 1


async def delist(tx: Transaction, id: str) -> None:
    """Takes a revoked key out of the list."""
    await tx.run(_DELIST, key_id=id)


async def switch_many(tx: Transaction, ids: Sequence[str], *, enabled: bool, now: int) -> None:
    """Turns keys on or off."""
    await tx.run(_SWITCH_MANY, ids=list(ids), switched=enabled, at=now)


async def revoke_many(tx: Transaction, ids: Sequence[str], *, now: int, reason: str | None) -> None:
    """Marks those of the keys revoked that were not."""
    await tx.run(_REVOKE_MANY, ids=list(ids), revoked_at=now, revoked_reason=reason)


async def revoke_owners(tx: Transaction, owner_id: str, *, now: int, reason: str) -> list[str]:
    """Marks every key of an owner revoked, and gives the ids that were not."""
    await tx.all(_LOCK_OWNERS, of_owner=owner_id)
    rows = await tx.all(_REVOKE_OWNERS, of_owner=owner_id, revoked_at=now, revoked_reason=reason)
    return [row.id for row in rows]


async def by_digest(
    tx: Transaction, digests: Sequence[bytes], *, now: int
) -> tuple[Key, Row] | None:
    """The key of a secret, and what a verdict needs beside it, in one indexed read."""
    row = await tx.one(_GRANT, digests=list(digests), now=now)
    return None if row is None else (read(row), row)


async def forget_ended(tx: Transaction, *, before: int, limit: int = 500) -> int:
    """Deletes keys that ended before an instant, and gives how many: for the retention job."""
    return await _forget(tx, [row.id for row in await tx.all(_ENDED, before=before, limit=limit)])


async def forget_expired(tx: Transaction, *, before: int, limit: int = 500) -> int:
    """Deletes keys that had expired by an instant and were never revoked; gives how many."""
    return await _forget(tx, [row.id for row in await tx.all(_EXPIRED, before=before, limit=limit)])


async def _forget(tx: Transaction, ids: list[str]) -> int:
    if ids:
        await tx.run(_FORGET_SECRETS, ids=ids)
        await tx.run(_FORGET_USAGE, ids=ids)
        await tx.run(_FORGET_ACTIVITY, ids=ids)
        await tx.run(_FORGET, ids=ids)
    return len(ids)


def read(row: Row) -> Key:
    """A key of a row of `RECORD`."""
    return Key(
        **{name: getattr(row, name) for name in _FIELDS},
        permissions=permissions_of(row.permissions),
        metadata=None if row.metadata is None else msgspec.json.decode(row.metadata),
        ip_allow=allow_of(row.ip_allow),
        rotating_until=row.rotating_until,
    )


def permissions_of(text: str | None) -> frozenset[str] | None:
    """The permissions column as `resource:action` names."""
    return None if text is None else parse(msgspec.json.decode(text))


def allow_of(text: str | None) -> tuple[str, ...]:
    """The allow-list column as addresses and CIDRs."""
    return () if text is None else tuple(msgspec.json.decode(text))


def columns(key: Key) -> dict[str, object]:
    """The columns of a key; the reverse of `read`."""
    values: dict[str, object] = {name: getattr(key, name) for name in _FIELDS}
    for name in _PARSED:
        values[name] = _column(name, getattr(key, name))
    return values


def _column(name: str, value: object) -> object:
    if name == "permissions" and isinstance(value, frozenset):
        return msgspec.json.encode(to_wire(value)).decode()
    if name == "metadata" and value is not None:
        return msgspec.json.encode(value).decode()
    if name == "ip_allow":
        return msgspec.json.encode(value).decode() if value else None
    return value
