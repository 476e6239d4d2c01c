"""API keys: one statement for each question."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from keybearer.adapters.sql import keysecrets
from keybearer.adapters.sql.tables import activity, api_key_secrets, api_keys, usage, users
from keybearer.domain.model import EXPIRING_MS, Key, Status
from keybearer.domain.permissions import parse, to_wire
from keybearer.domain.ports import Row, Transaction

_others = api_key_secrets.alias("others")
_ROTATING = (
    select(func.max(_others.c.usable_until))
    .where(_others.c.key_id == api_keys.c.id, _others.c.usable_until > bindparam("now"))
    .scalar_subquery()
    .label("rotating_until")
)
_RECORD = select(api_keys, _ROTATING)

SORTABLE: Mapping[str, Any] = {
    "createdAt": api_keys.c.created_at,
    "updatedAt": api_keys.c.updated_at,
    "expiresAt": api_keys.c.expires_at,
    "lastRequest": api_keys.c.last_used_at,
    "name": api_keys.c.name,
    "requestCount": api_keys.c.request_count,
    "enabled": api_keys.c.enabled,
}
"""What a list may be sorted by: wire names to columns."""

_INSERT = insert(api_keys)
_BY_ID = _RECORD.where(api_keys.c.id == bindparam("id"))
_BY_ID_LOCKED = _BY_ID.with_for_update(of=api_keys)
_BY_IDEMPOTENCY = _RECORD.where(api_keys.c.idempotency.in_(bindparam("digests", expanding=True)))
_COUNT_LIVE = (
    select(func.count().label("n"))
    .select_from(api_keys)
    .where(
        api_keys.c.owner_id == bindparam("owner_id"),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > bindparam("now")),
    )
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
# A refill that is due comes first, in the same statement: once for an interval, on its schedule.
_NOW = bindparam("now", type_=BigInteger)
_COST = bindparam("cost", type_=BigInteger)
_ANCHOR = func.coalesce(api_keys.c.last_refill_at, api_keys.c.created_at)
_DUE = and_(
    api_keys.c.refill_amount.is_not(None),
    api_keys.c.refill_interval_ms.is_not(None),
    api_keys.c.refill_interval_ms <= _NOW - _ANCHOR,
)
_HELD = case((_DUE, api_keys.c.refill_amount), else_=api_keys.c.remaining)
_CONSUME = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key_id"),
        api_keys.c.revoked_at.is_(None),
        api_keys.c.remaining.is_not(None),
        _HELD >= _COST,
    )
    .values(
        remaining=_HELD - _COST,
        last_refill_at=case(
            (
                _DUE,
                _ANCHOR
                + (_NOW - _ANCHOR) // api_keys.c.refill_interval_ms * api_keys.c.refill_interval_ms,
            ),
            else_=api_keys.c.last_refill_at,
        ),
    )
    .returning(api_keys.c.remaining)
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
    await tx.run(_INSERT, **_columns(key), idempotency=idempotency, idempotent_request=request)
    await keysecrets.add(
        tx, key.id, digest=digest, pepper_id=pepper_id, start=key.start, now=key.created_at
    )


async def by_id(tx: Transaction, id: str, *, now: int, lock: bool = False) -> Key | None:
    """One key; `lock` makes other changes of it wait until the transaction ends."""
    row = await tx.one(_BY_ID_LOCKED if lock else _BY_ID, id=id, now=now)
    return None if row is None else _key(row)


async def by_idempotency(
    tx: Transaction, digests: Sequence[bytes], *, now: int
) -> tuple[Key, bytes | None] | None:
    """The key that an earlier try under the same name made, and the digest of what it asked."""
    row = await tx.one(_BY_IDEMPOTENCY, digests=list(digests), now=now)
    return None if row is None else (_key(row), row.idempotent_request)


async def count_live(tx: Transaction, owner_id: str, *, now: int) -> int:
    """How many keys an owner has that are neither revoked nor expired."""
    row = await tx.one(_COUNT_LIVE, owner_id=owner_id, now=now)
    return 0 if row is None else int(row.n)


async def page(
    tx: Transaction,
    *,
    owner_id: str | None,
    now: int,
    statuses: Iterable[Status] = (),
    search: str = "",
    sort_by: str = "createdAt",
    descending: bool = True,
    limit: int,
    offset: int,
) -> tuple[list[Key], int]:
    """A page of keys, and how many there are before paging; `owner_id` None means everyone's."""
    where: list[ColumnElement[bool]] = []
    if owner_id is not None:
        where.append(api_keys.c.owner_id == owner_id)
    wanted = [_has_status(status, now) for status in statuses]
    if wanted:
        where.append(or_(*wanted))
    if search:
        where.append(
            or_(
                *(
                    column.icontains(search, autoescape=True)
                    for column in (api_keys.c.name, api_keys.c.description, api_keys.c.start)
                )
            )
        )
    column = SORTABLE[sort_by]
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    tie = api_keys.c.id.desc() if descending else api_keys.c.id.asc()
    rows = await tx.all(
        _RECORD.where(*where).order_by(order, tie).limit(limit).offset(offset), now=now
    )
    count = await tx.one(select(func.count().label("n")).select_from(api_keys).where(*where))
    return [_key(row) for row in rows], 0 if count is None else int(count.n)


async def save(tx: Transaction, id: str, changes: Mapping[str, object]) -> None:
    """Writes the columns that change, and only those: counters beside them stay untouched."""
    names = sorted(changes)
    statement = (
        update(api_keys)
        .where(api_keys.c.id == bindparam("key_id"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )
    await tx.run(
        statement, key_id=id, **{f"new_{name}": _column(name, changes[name]) for name in names}
    )


async def revoke(tx: Transaction, id: str, *, now: int, reason: str | None) -> bool:
    """Marks a key revoked; False when it was already."""
    changed = await tx.run(_REVOKE, key_id=id, revoked_at=now, revoked_reason=reason)
    return changed == 1


async def revoke_owners(tx: Transaction, owner_id: str, *, now: int, reason: str) -> list[str]:
    """Marks every key of an owner revoked, and gives the ids that were not."""
    rows = await tx.all(_REVOKE_OWNERS, of_owner=owner_id, revoked_at=now, revoked_reason=reason)
    return [row.id for row in rows]


async def by_digest(
    tx: Transaction, digests: Sequence[bytes], *, now: int
) -> tuple[Key, Row] | None:
    """The key of a secret, and what a verdict needs beside it, in one indexed read."""
    row = await tx.one(_GRANT, digests=list(digests), now=now)
    return None if row is None else (_key(row), row)


async def consume(tx: Transaction, id: str, *, cost: int, now: int) -> int | None:
    """Takes from a key's quota, refilled first when that is due, and gives what is left.

    None when too little is left; then nothing is taken.
    """
    row = await tx.one(_CONSUME, key_id=id, cost=cost, now=now)
    return None if row is None else int(row.remaining)


async def forget_ended(tx: Transaction, *, before: int, limit: int = 500) -> int:
    """Deletes keys that ended before an instant, and gives how many: for the retention job."""
    ids = [row.id for row in await tx.all(_ENDED, before=before, limit=limit)]
    if ids:
        await tx.run(_FORGET_SECRETS, ids=ids)
        await tx.run(_FORGET_USAGE, ids=ids)
        await tx.run(_FORGET_ACTIVITY, ids=ids)
        await tx.run(_FORGET, ids=ids)
    return len(ids)


def _has_status(status: Status, now: int) -> ColumnElement[bool]:
    """The same words as `Key.status`, in SQL."""
    revoked = api_keys.c.revoked_at.is_not(None)
    expired = and_(~revoked, api_keys.c.expires_at.is_not(None), api_keys.c.expires_at <= now)
    alive = and_(~revoked, or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now))
    usable = and_(alive, api_keys.c.enabled.is_(True))
    rotating = (
        select(api_key_secrets.c.digest)
        .where(
            api_key_secrets.c.key_id == api_keys.c.id,
            api_key_secrets.c.usable_until > now,
        )
        .exists()
    )
    soon = and_(api_keys.c.expires_at.is_not(None), api_keys.c.expires_at < now + EXPIRING_MS)
    return {
        "revoked": revoked,
        "expired": expired,
        "disabled": and_(alive, api_keys.c.enabled.is_(False)),
        "rotating": and_(usable, rotating),
        "expiring": and_(usable, ~rotating, soon),
        "active": and_(usable, ~rotating, or_(api_keys.c.expires_at.is_(None), ~soon)),
    }[status]


_FIELDS = tuple(
    name
    for name in Key.__struct_fields__
    if name not in ("permissions", "metadata", "ip_allow", "rotating_until")
)


def _key(row: Row) -> Key:
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


def _columns(key: Key) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(key, name) for name in _FIELDS}
    for name in ("permissions", "metadata", "ip_allow"):
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
