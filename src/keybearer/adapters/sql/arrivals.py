"""What arrives from elsewhere, written many rows at a time; what is there stays as it is."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec
from sqlalchemy import bindparam, exists, or_, select

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from keybearer.adapters.sql.keys import columns
from keybearer.adapters.sql.tables import (
    api_key_secrets,
    api_keys,
    imported,
    sessions,
    users,
)
from keybearer.domain.arrivals import (
    ArrivingKey,
    ArrivingLogin,
    KeyHere,
    Sort,
    Unwritable,
    UserHere,
)
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction

_HAS_KEYS = exists().where(api_keys.c.owner_id == users.c.id)
_USERS = select(users, _HAS_KEYS.label("keys")).where(
    or_(
        users.c.id.in_(bindparam("ids", expanding=True)),
        users.c.email.in_(bindparam("emails", expanding=True)),
    )
)
_KNOWN = select(users.c.id).where(users.c.id.in_(bindparam("ids", expanding=True)))
# Somebody may sign up with the same address meanwhile: who was first has it.
_ADD_USERS = insert(users).on_conflict_do_nothing()
_KEYS = select(api_keys).where(api_keys.c.id.in_(bindparam("ids", expanding=True)))
_SECRETS = select(api_key_secrets.c.digest, api_key_secrets.c.key_id).where(
    api_key_secrets.c.digest.in_(bindparam("digests", expanding=True))
)
_ADD_KEYS = insert(api_keys)
_ADD_SECRETS = insert(api_key_secrets)
_LOGINS = select(sessions).where(
    or_(
        sessions.c.id.in_(bindparam("ids", expanding=True)),
        sessions.c.token_digest.in_(bindparam("digests", expanding=True)),
    )
)
_ADD_LOGINS = insert(sessions)
_CAME = select(imported.c.id).where(
    imported.c.origin == bindparam("origin"),
    imported.c.sort == bindparam("sort"),
    imported.c.id.in_(bindparam("ids", expanding=True)),
)
_REMEMBER = insert(imported).on_conflict_do_nothing()


async def users_there(
    tx: Transaction, ids: Collection[str], emails: Collection[str]
) -> Mapping[str, UserHere]:
    """The users who have one of the ids or addresses, by id."""
    rows = await tx.all(_USERS, ids=list(ids), emails=list(emails))
    return {
        row.id: UserHere(
            id=row.id,
            email=row.email,
            role=row.role,
            created_at=row.created_at,
            verified=row.email_verified_at is not None,
            disabled=row.disabled_at is not None,
            keys=bool(row.keys),
        )
        for row in rows
    }


async def known_users(tx: Transaction, ids: Collection[str]) -> frozenset[str]:
    """Those of the ids that are users'."""
    return frozenset(row.id for row in await tx.all(_KNOWN, ids=list(ids)))


async def add_users(tx: Transaction, new: Sequence[User]) -> frozenset[str]:
    """Writes users, and gives the ids of those who are there now.

    Raises:
        Unwritable: the database takes one of the rows not; so of keys and logins.
    """
    if not new:
        return frozenset()
    with _told():
        await tx.run_many(_ADD_USERS, [msgspec.structs.asdict(user) for user in new])
    return await known_users(tx, [user.id for user in new])


async def keys_there(
    tx: Transaction, ids: Collection[str], digests: Collection[bytes]
) -> tuple[Mapping[str, KeyHere], Mapping[bytes, str]]:
    """The keys that have one of the ids, and whose key each of the digests is that is taken."""
    by_id = await tx.all(_KEYS, ids=list(ids))
    by_digest = await tx.all(_SECRETS, digests=list(digests))
    there = {
        row.id: KeyHere(
            id=row.id,
            owner_id=row.owner_id,
            created_at=row.created_at,
            enabled=row.enabled,
            revoked=row.revoked_at is not None,
            expires_at=row.expires_at,
        )
        for row in by_id
    }
    return there, {bytes(row.digest): row.key_id for row in by_digest}


async def add_keys(tx: Transaction, new: Sequence[ArrivingKey]) -> None:
    """Writes keys, each with its secrets."""
    secrets = [
        {**msgspec.structs.asdict(secret), "key_id": each.key.id}
        for each in new
        for secret in each.secrets
    ]
    with _told():
        await tx.run_many(_ADD_KEYS, [columns(each.key) for each in new])
        await tx.run_many(_ADD_SECRETS, secrets)


async def logins_there(
    tx: Transaction, ids: Collection[str], digests: Collection[bytes]
) -> tuple[Mapping[str, tuple[str, int]], Mapping[bytes, str]]:
    """Whose each login with one of the ids is, since when, and which has which of the digests."""
    rows = await tx.all(_LOGINS, ids=list(ids), digests=list(digests))
    taken = {bytes(row.token_digest): row.id for row in rows if row.token_digest is not None}
    return {row.id: (row.user_id, row.created_at) for row in rows}, taken


async def add_logins(tx: Transaction, new: Sequence[ArrivingLogin]) -> None:
    """Writes logins, each with the digest of its session token."""
    rows = [{**msgspec.structs.asdict(each.login), "token_digest": each.digest} for each in new]
    with _told():
        await tx.run_many(_ADD_LOGINS, rows)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tells what is wrong with a value from a database that is lost."""
    try:
        yield
    except (OverflowError, UnicodeError, IntegrityError) as error:
        raise Unwritable(type(error).__name__) from error
    except DBAPIError as error:
        # Class 22 is "data exception"; what the driver itself refuses has no SQLSTATE.
        state = getattr(error.orig, "sqlstate", None) or ""
        cause = None if error.orig is None else error.orig.__cause__
        if not state.startswith("22") and not isinstance(cause, ValueError):
            raise
        raise Unwritable(type(cause or error).__name__) from error


async def came(tx: Transaction, origin: str, sort: Sort, ids: Collection[str]) -> frozenset[str]:
    """Those of the ids that came from there before, whatever became of them here."""
    rows = await tx.all(_CAME, origin=origin, sort=sort, ids=list(ids))
    return frozenset(row.id for row in rows)


async def remember(tx: Transaction, origin: str, came: Collection[tuple[Sort, str]]) -> None:
    """Notes what came; nothing for what is noted already."""
    rows = [{"origin": origin, "sort": sort, "id": id} for sort, id in came]
    await tx.run_many(_REMEMBER, rows)
