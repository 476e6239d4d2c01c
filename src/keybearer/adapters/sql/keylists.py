"""Which keys there are: pages with filters, and counts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, case, func, or_, select

from keybearer.adapters.sql.keys import RECORD, read
from keybearer.adapters.sql.tables import api_key_secrets, api_keys
from keybearer.domain.model import EXPIRING_MS, Key, Status
from keybearer.domain.ports import Transaction

SORTABLE: Mapping[str, Any] = {
    "createdAt": api_keys.c.created_at,
    "updatedAt": api_keys.c.updated_at,
    "expiresAt": api_keys.c.expires_at,
    "lastRequest": api_keys.c.last_used_at,
    "name": api_keys.c.name,
    "requestCount": api_keys.c.request_count,
    "enabled": api_keys.c.enabled,
}
"""What a list may be sorted by: wire names to columns; and by `status`, which is none."""

_GRAVITY: Sequence[Status] = ("rotating", "expiring", "active", "disabled", "expired", "revoked")
"""The order of a list by status: what asks for something first, what is over last."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys there are, how many of them are alive, and which of those ask for a look."""

    total: int
    live: int
    expiring: int
    unused: int


async def summarize(
    tx: Transaction, owner_id: str | None, *, now: int, expires_before: int, unused_since: int
) -> Summary:
    """How many keys an owner has; None means everyone's."""
    alive = _alive(now)
    statement = select(
        func.count().label("total"),
        func.count().filter(alive).label("live"),
        func.count().filter(alive, _expires_before(expires_before)).label("expiring"),
        func.count().filter(alive, _unused_since(unused_since)).label("unused"),
    ).select_from(api_keys)
    (row,) = await tx.all(statement if owner_id is None else statement.where(_of(owner_id)))
    return Summary(total=row.total, live=row.live, expiring=row.expiring, unused=row.unused)


async def page(
    tx: Transaction,
    *,
    owner_id: str | None,
    now: int,
    config_id: str | None = None,
    statuses: Iterable[Status] = (),
    search: str = "",
    expires_before: int | None = None,
    unused_since: int | None = None,
    permission: str | None = None,
    sort_by: str = "createdAt",
    descending: bool = True,
    limit: int,
    offset: int,
) -> tuple[list[Key], int]:
    """A page of keys, and how many there are before paging; `owner_id` None means everyone's.

    Args:
        statuses: without any, all keys but deleted ones.
        expires_before: only keys that are alive, and will not be at that instant.
        unused_since: only keys that are alive, were there at that instant, and not used since.
        permission: only keys that were given this `resource:action`.
    """
    where: list[ColumnElement[bool]] = []
    if owner_id is not None:
        where.append(_of(owner_id))
    if config_id is not None:
        where.append(api_keys.c.config_id == config_id)
    wanted = [_has_status(status, now) for status in statuses]
    if wanted:
        where.append(or_(*wanted))
    else:
        where.append(api_keys.c.deleted.is_(False))
    if search:
        where.append(
            or_(
                *(
                    column.icontains(search, autoescape=True)
                    for column in (api_keys.c.name, api_keys.c.description, api_keys.c.start)
                )
            )
        )
    if expires_before is not None:
        where += [_alive(now), _expires_before(expires_before)]
    if unused_since is not None:
        where += [_alive(now), _unused_since(unused_since)]
    if permission is not None:
        where.append(_has_permission(permission))
    column = _gravity(now) if sort_by == "status" else SORTABLE[sort_by]
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    tie = api_keys.c.id.desc() if descending else api_keys.c.id.asc()
    rows = await tx.all(
        RECORD.where(*where).order_by(order, tie).limit(limit).offset(offset), now=now
    )
    count = await tx.one(select(func.count().label("n")).select_from(api_keys).where(*where))
    return [read(row) for row in rows], 0 if count is None else int(count.n)


def _of(owner_id: str) -> ColumnElement[bool]:
    return api_keys.c.owner_id == owner_id


def _alive(now: int) -> ColumnElement[bool]:
    """Neither revoked nor expired; it may be off."""
    return and_(
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
    )


def _expires_before(instant: int) -> ColumnElement[bool]:
    return api_keys.c.expires_at < instant


def _unused_since(instant: int) -> ColumnElement[bool]:
    return and_(
        api_keys.c.created_at <= instant,
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= instant),
    )


def _has_permission(permission: str) -> ColumnElement[bool]:
    """Whether the stored JSON, `{"files":["read","write"]}`, has `files:read`.

    A name has no quote and no bracket in it, so a resource is what a list follows, and an action
    what stands in that list, between its quotes.
    """
    resource, _, action = permission.partition(":")
    pattern = rf'"{re.escape(resource)}":\[[^]]*"{re.escape(action)}"'
    return api_keys.c.permissions.regexp_match(pattern)


def _gravity(now: int) -> ColumnElement[int]:
    return case(*((_has_status(status, now), rank) for rank, status in enumerate(_GRAVITY)))


def _has_status(status: Status, now: int) -> ColumnElement[bool]:
    """The same words as `Key.status`, in SQL."""
    revoked = api_keys.c.revoked_at.is_not(None)
    expired = and_(~revoked, api_keys.c.expires_at.is_not(None), api_keys.c.expires_at <= now)
    alive = _alive(now)
    usable = and_(alive, api_keys.c.enabled.is_(True))
    rotating = (
        select(api_key_secrets.c.digest)
        .where(
            api_key_secrets.c.key_id == api_keys.c.id,
            api_key_secrets.c.usable_until > now,
        )
        .correlate(api_keys)
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
