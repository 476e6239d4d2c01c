"""Login sessions, and the refresh families that hang on them.

Every path that ends or refreshes locks the session's row first and the family after it, so that
a refresh and a logout of the same login wait for each other and never deadlock.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import LargeBinary, and_, bindparam, delete, exists, func, insert, select, update

from keybearer.adapters.sql.tables import refresh_tokens, sessions
from keybearer.domain.model import LoginSession
from keybearer.domain.ports import Row, Transaction


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh family: its generation says which of its tokens is the live one."""

    family: str
    session_id: str
    user_id: str
    seed: bytes
    generation: int
    rotated_at: int
    expires_at: int
    absolute_expires_at: int
    ended_at: int | None

    def __repr__(self) -> str:
        return f"Family({self.family!r}, generation={self.generation})"


_INSERT = insert(sessions)
_BY_ID = select(sessions).where(sessions.c.id == bindparam("id"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_BY_DIGEST = select(sessions).where(
    sessions.c.token_digest.in_(bindparam("digests", expanding=True))
)
_OF_USER = (
    select(sessions)
    .where(
        sessions.c.user_id == bindparam("user_id"),
        sessions.c.ended_at.is_(None),
        sessions.c.expires_at > bindparam("now"),
        sessions.c.last_seen_at + sessions.c.idle_ms > bindparam("now"),
    )
    .order_by(sessions.c.last_seen_at.desc(), sessions.c.id.desc())
)
_LOCK_USERS = (
    select(sessions.c.id)
    .where(
        sessions.c.user_id == bindparam("user_id"),
        sessions.c.ended_at.is_(None),
        sessions.c.expires_at > bindparam("now"),
    )
    .order_by(sessions.c.id)
    .with_for_update()
)
# Many rows are locked by id, so that two who end the same logins never wait for each other.
_LOCK = (
    select(sessions.c.id)
    .where(sessions.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(sessions.c.id)
    .with_for_update()
)
_END = (
    update(sessions)
    .where(
        sessions.c.id.in_(bindparam("ids", expanding=True)),
        sessions.c.ended_at.is_(None),
    )
    .values(ended_at=bindparam("at"))
    .returning(sessions.c.id)
)
_END_FAMILIES = (
    update(refresh_tokens)
    .where(
        refresh_tokens.c.session_id.in_(bindparam("ids", expanding=True)),
        refresh_tokens.c.ended_at.is_(None),
    )
    .values(ended_at=bindparam("at"))
)
_ENDED_SINCE = select(sessions.c.id).where(
    sessions.c.id.in_(bindparam("ids", expanding=True)),
    sessions.c.ended_at >= bindparam("since"),
)
_SEEN = (
    update(sessions).where(sessions.c.id == bindparam("of_id")).values(last_seen_at=bindparam("at"))
)
_CONFIRM = (
    update(sessions)
    .where(sessions.c.id == bindparam("of_id"), sessions.c.ended_at.is_(None))
    .values(
        authenticated_at=bindparam("at"),
        token_digest=func.coalesce(bindparam("digest", type_=LargeBinary), sessions.c.token_digest),
    )
    .returning(sessions)
)
_OVER = (
    select(sessions.c.id)
    .where(sessions.c.expires_at < bindparam("before"))
    .order_by(sessions.c.id)
    .limit(bindparam("limit"))
    .with_for_update()
)
_FORGET = delete(sessions).where(sessions.c.id.in_(bindparam("ids", expanding=True)))
_FORGET_FAMILIES = delete(refresh_tokens).where(
    refresh_tokens.c.session_id.in_(bindparam("ids", expanding=True))
)
_INSERT_FAMILY = insert(refresh_tokens)
_FAMILY = select(refresh_tokens).where(refresh_tokens.c.family == bindparam("family"))
_ADVANCE = (
    update(refresh_tokens)
    .where(
        refresh_tokens.c.family == bindparam("of_family"),
        refresh_tokens.c.generation == bindparam("from_generation"),
        refresh_tokens.c.ended_at.is_(None),
        refresh_tokens.c.expires_at > bindparam("now"),
        exists().where(
            and_(
                sessions.c.id == refresh_tokens.c.session_id,
                sessions.c.ended_at.is_(None),
                sessions.c.expires_at > bindparam("now"),
            )
        ),
    )
    .values(
        generation=refresh_tokens.c.generation + 1,
        rotated_at=bindparam("rotated"),
        expires_at=bindparam("ends"),
    )
)


async def add(tx: Transaction, login: LoginSession, *, token_digest: bytes | None) -> None:
    """Writes a new login; without a digest it is one that only tokens were given for."""
    values = msgspec.structs.asdict(login)
    await tx.run(_INSERT, **values, token_digest=token_digest)


async def by_id(tx: Transaction, id: str, *, lock: bool = False) -> LoginSession | None:
    """One login, ended or not; `lock` makes others wait until the transaction ends."""
    row = await tx.one(_BY_ID_LOCKED if lock else _BY_ID, id=id)
    return None if row is None else _login(row)


async def by_token_digest(tx: Transaction, digests: Sequence[bytes]) -> LoginSession | None:
    """The login that a session token belongs to, ended or not."""
    row = await tx.one(_BY_DIGEST, digests=list(digests))
    return None if row is None else _login(row)


async def live_of(tx: Transaction, user_id: str, *, now: int) -> Sequence[LoginSession]:
    """Where a user is logged in now, the last used first."""
    return [_login(row) for row in await tx.all(_OF_USER, user_id=user_id, now=now)]


async def end(tx: Transaction, ids: Sequence[str], now: int) -> list[str]:
    """Ends logins and their refresh families; gives the ids that were live."""
    if not ids:
        return []
    await tx.all(_LOCK, ids=list(ids))
    rows = await tx.all(_END, ids=list(ids), at=now)
    await tx.run(_END_FAMILIES, ids=list(ids), at=now)
    return [row.id for row in rows]


async def ended_since(tx: Transaction, ids: Sequence[str], since: int) -> list[str]:
    """Those of the logins that were ended at an instant or after it."""
    return [row.id for row in await tx.all(_ENDED_SINCE, ids=list(ids), since=since)]


async def end_all(tx: Transaction, user_id: str, now: int, *, keep: str | None = None) -> list[str]:
    """Ends every login of a user but `keep`, and their families; gives the ended ids.

    One whose time is over has ended by itself.
    """
    rows = await tx.all(_LOCK_USERS, user_id=user_id, now=now)
    return await end(tx, [row.id for row in rows if row.id != keep], now)


async def seen(tx: Transaction, id: str, now: int) -> None:
    """Moves the last use of a login."""
    await tx.run(_SEEN, of_id=id, at=now)


async def confirm(
    tx: Transaction, id: str, *, token_digest: bytes | None, now: int
) -> LoginSession | None:
    """Notes that the password was given again; a digest takes the old session token's place.

    None when the login has ended.
    """
    row = await tx.one(_CONFIRM, of_id=id, digest=token_digest, at=now)
    return None if row is None else _login(row)


async def add_family(tx: Transaction, family: Family) -> None:
    """Writes a new refresh family."""
    await tx.run(_INSERT_FAMILY, **msgspec.structs.asdict(family))


async def family_by_id(tx: Transaction, family: str) -> Family | None:
    """One refresh family, ended or not."""
    row = await tx.one(_FAMILY, family=family)
    if row is None:
        return None
    values = {name: getattr(row, name) for name in Family.__struct_fields__}
    return Family(**{**values, "seed": bytes(row.seed)})


async def advance(
    tx: Transaction, family: str, *, generation: int, now: int, expires_at: int
) -> bool:
    """Makes `generation + 1` the live one; False unless `generation` was, and all is alive."""
    changed = await tx.run(
        _ADVANCE,
        of_family=family,
        from_generation=generation,
        now=now,
        rotated=now,
        ends=expires_at,
    )
    return changed == 1


async def forget_ended(tx: Transaction, *, before: int, limit: int = 500) -> int:
    """Deletes logins whose life was over before an instant, and their families; gives how many."""
    ids = [row.id for row in await tx.all(_OVER, before=before, limit=limit)]
    await tx.run(_FORGET_FAMILIES, ids=ids)
    return await tx.run(_FORGET, ids=ids)


def _login(row: Row) -> LoginSession:
    return LoginSession(**{name: getattr(row, name) for name in LoginSession.__struct_fields__})
