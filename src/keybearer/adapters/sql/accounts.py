"""Users, the links that prove their addresses, and counted attempts."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import (
    BigInteger,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

# The statement is the same in both dialects: this one compiles for SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from keybearer.adapters.sql.tables import one_time_tokens, sessions, throttles, users
from keybearer.domain.model import User
from keybearer.domain.ports import Row, Transaction

# --- users ----------------------------------------------------------------------------------

_BY_ID = select(users).where(users.c.id == bindparam("id"))
_BY_EMAIL = select(users).where(users.c.email == bindparam("email"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_BY_EMAIL_LOCKED = _BY_EMAIL.with_for_update()
_ADD_NEW = insert(users)
# The update changes nothing: it locks the row that is there, and lets RETURNING show it.
_ADD = _ADD_NEW.on_conflict_do_update(
    index_elements=[users.c.email], set_={"email": _ADD_NEW.excluded.email}
).returning(*users.c)
_REHASH = (
    update(users)
    .where(users.c.id == bindparam("of_user"), users.c.password_hash == bindparam("old"))
    .values(password_hash=bindparam("new"))
)
_BESIDE = (
    select(users.c.password_hash)
    .where(users.c.email > bindparam("email"))
    .order_by(users.c.email)
    .limit(1)
)
_DELETE = delete(users).where(users.c.id == bindparam("id"))
_ADDRESSES = (
    select(sessions.c.ip)
    .where(sessions.c.user_id == bindparam("user_id"), sessions.c.ip.is_not(None))
    .group_by(sessions.c.ip)
    .order_by(func.max(sessions.c.created_at).desc())
    .limit(100)
)


async def user_by_id(tx: Transaction, id: str, *, lock: bool = False) -> User | None:
    """One user; `lock` makes other changes of that user wait until the transaction ends."""
    return _user(await tx.one(_BY_ID_LOCKED if lock else _BY_ID, id=id))


async def user_by_email(tx: Transaction, email: str, *, lock: bool = False) -> User | None:
    """The user of an address in normal form."""
    return _user(await tx.one(_BY_EMAIL_LOCKED if lock else _BY_EMAIL, email=email))


async def hash_beside(tx: Transaction, email: str) -> str | None:
    """The hash of whoever has the next address: the one to take as long as, for nobody."""
    row = await tx.one(_BESIDE, email=email)
    return None if row is None else row.password_hash


async def add_user(tx: Transaction, user: User) -> User:
    """Writes a new user, and gives the one who has the address: this, or who was there before."""
    held = _user(await tx.one(_ADD, **msgspec.structs.asdict(user)))
    return user if held is None else held


async def save_user(tx: Transaction, id: str, changes: Mapping[str, object]) -> None:
    """Writes the columns that change, and only those."""
    names = sorted(changes)
    statement = (
        update(users)
        .where(users.c.id == bindparam("of_user"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )
    await tx.run(statement, of_user=id, **{f"new_{name}": changes[name] for name in names})


async def rehash(tx: Transaction, id: str, *, old: str, new: str) -> bool:
    """Puts a hash of the same password in place of `old`; False when it was changed meanwhile."""
    return await tx.run(_REHASH, of_user=id, old=old, new=new) == 1


async def delete_user(tx: Transaction, id: str) -> bool:
    """Deletes a user and the links of that user; False when there was none."""
    await forget_links(tx, id)
    return await tx.run(_DELETE, id=id) == 1


async def page_of_users(
    tx: Transaction, *, search: str, limit: int, offset: int
) -> tuple[list[User], int]:
    """Users, newest first, and how many there are; "" filters nothing."""
    where = (
        [or_(*(c.icontains(search, autoescape=True) for c in (users.c.email, users.c.name)))]
        if search
        else []
    )
    newest_first = (users.c.created_at.desc(), users.c.id.desc())
    page = select(users).where(*where).order_by(*newest_first).limit(limit).offset(offset)
    count = await tx.one(select(func.count().label("n")).select_from(users).where(*where))
    rows = await tx.all(page)
    return [User(**row._mapping) for row in rows], 0 if count is None else int(count.n)


async def login_addresses(tx: Transaction, user_id: str) -> list[str]:
    """The latest 100 addresses from which this user has logged in."""
    return [row.ip for row in await tx.all(_ADDRESSES, user_id=user_id)]


def _user(row: Row | None) -> User | None:
    return None if row is None else User(**row._mapping)


# --- links in mails -------------------------------------------------------------------------


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time token that was mailed: for one user, one address and one purpose."""

    purpose: str
    user_id: str
    email: str
    created_at: int
    expires_at: int


_ADD_LINK = insert(one_time_tokens)
_LIVE = (
    one_time_tokens.c.digest.in_(bindparam("digests", expanding=True)),
    one_time_tokens.c.purpose == bindparam("purpose"),
    one_time_tokens.c.expires_at > bindparam("now"),
)
_LINK = (
    one_time_tokens.c.purpose,
    one_time_tokens.c.user_id,
    one_time_tokens.c.email,
    one_time_tokens.c.created_at,
    one_time_tokens.c.expires_at,
)
_PEEK_LINK = select(*_LINK).where(*_LIVE)
_TAKE_LINK = delete(one_time_tokens).where(*_LIVE).returning(*_LINK)
_FORGET_LINKS = delete(one_time_tokens).where(
    one_time_tokens.c.user_id == bindparam("user_id"),
    or_(bindparam("purpose") == "", one_time_tokens.c.purpose == bindparam("purpose")),
)
_SWEEP_LINKS = delete(one_time_tokens).where(one_time_tokens.c.expires_at <= bindparam("now"))


async def add_link(tx: Transaction, link: Link, *, digest: bytes) -> None:
    """Writes a link; the older ones of that user and purpose stop, so only the newest works."""
    await forget_links(tx, link.user_id, purpose=link.purpose)
    await tx.run(_ADD_LINK, digest=digest, **msgspec.structs.asdict(link))


async def peek_link(
    tx: Transaction, digests: Sequence[bytes], *, purpose: str, now: int
) -> Link | None:
    """A live link, which stays."""
    return _link(await tx.one(_PEEK_LINK, digests=list(digests), purpose=purpose, now=now))


async def take_link(
    tx: Transaction, digests: Sequence[bytes], *, purpose: str, now: int
) -> Link | None:
    """A live link, used up by this: of any number of callers at once, one gets it."""
    return _link(await tx.one(_TAKE_LINK, digests=list(digests), purpose=purpose, now=now))


async def forget_links(tx: Transaction, user_id: str, *, purpose: str = "") -> None:
    """Stops the links of a user, of one purpose or all."""
    await tx.run(_FORGET_LINKS, user_id=user_id, purpose=purpose)


def _link(row: Row | None) -> Link | None:
    return None if row is None else Link(**row._mapping)


# --- attempts -------------------------------------------------------------------------------
#
# A row counts in one of two ways.
#
#     pace      `open_at` is when the bucket would be empty again (GCRA): an attempt moves it on
#               by one interval, and is refused where that is over a burst ahead of now
#     failures  `open_at` is when the next attempt may come: after each one later

DELAYS_MS = (0, 0, 0, 0, *(1000 << n for n in range(10)), 900_000)
"""How long the next attempt waits after the 1st, 2nd … failure in a row: from the 5th on 1 s, 2 s,
4 s … 512 s, then 15 minutes each."""

NEVER = 253_402_300_799_999
"""`open_at` of a bucket that waits for no time to pass, but for a proof of ownership."""

_NOW = bindparam("now", type_=BigInteger)
_INTERVAL = bindparam("interval", type_=BigInteger)
_BURST = bindparam("burst", type_=BigInteger)
_STOP = bindparam("stop", type_=BigInteger)

_FROM = case((throttles.c.open_at > _NOW, throttles.c.open_at), else_=_NOW)
_PACE = (
    insert(throttles)
    .values(bucket=bindparam("bucket"), attempts=1, last_at=_NOW, open_at=_NOW + _INTERVAL)
    .on_conflict_do_update(
        index_elements=[throttles.c.bucket],
        set_={
            "attempts": throttles.c.attempts + 1,
            "last_at": _NOW,
            "open_at": _FROM + _INTERVAL,
        },
        where=_FROM + _INTERVAL <= _NOW + _BURST,
    )
    .returning(throttles.c.attempts)
)
_FAILURES = (
    insert(throttles)
    .values(bucket=bindparam("bucket"), attempts=1, last_at=_NOW, open_at=_NOW)
    .on_conflict_do_update(
        index_elements=[throttles.c.bucket],
        set_={
            "attempts": throttles.c.attempts + 1,
            "last_at": _NOW,
            "open_at": case(
                (throttles.c.attempts + 1 >= _STOP, NEVER),
                *((throttles.c.attempts == n, _NOW + DELAYS_MS[n]) for n in range(1, 15)),
                else_=_NOW + DELAYS_MS[-1],
            ),
        },
        where=throttles.c.open_at <= _NOW,
    )
    .returning(throttles.c.attempts)
)
_OPEN_AT = select(throttles.c.open_at).where(throttles.c.bucket == bindparam("bucket"))
_UNPACE = (
    update(throttles)
    .where(throttles.c.bucket == bindparam("of_bucket"))
    .values(attempts=throttles.c.attempts - 1, open_at=throttles.c.open_at - _INTERVAL)
)
_UNFAIL = (
    update(throttles)
    .where(throttles.c.bucket == bindparam("of_bucket"))
    .values(attempts=throttles.c.attempts - 1, open_at=_NOW)
)
_CLEAR = delete(throttles).where(throttles.c.bucket.in_(bindparam("buckets", expanding=True)))
_SWEEP_THROTTLES = delete(throttles).where(
    throttles.c.open_at < _NOW, throttles.c.last_at < bindparam("before")
)

_REMEMBERED_MS = 30 * 86_400_000


async def count_pace(
    tx: Transaction, bucket: bytes, *, now: int, interval: int, burst: int
) -> int | None:
    """Counts an attempt at a pace, or gives how many milliseconds to wait.

    Args:
        interval: milliseconds from one attempt to the next, in the long run.
        burst: milliseconds of attempts that may come at once: `burst // interval` of them.
    """
    binds: dict[str, object] = {"bucket": bucket, "now": now, "interval": interval}
    if await tx.one(_PACE, **binds, burst=burst) is not None:
        return None
    return max(1, await _open_at(tx, bucket) + interval - burst - now)


async def count_failure(tx: Transaction, bucket: bytes, *, now: int, stop: int) -> int | None:
    """Counts an attempt as one more failure in a row, or gives how many milliseconds to wait.

    Taken back by `take_back_failure` or forgotten by `clear` when it turns out to be none.

    Args:
        stop: after so many the bucket opens no more by itself.
    """
    if await tx.one(_FAILURES, bucket=bucket, now=now, stop=stop) is not None:
        return None
    return max(1, await _open_at(tx, bucket) - now)


async def take_back_pace(tx: Transaction, bucket: bytes, *, interval: int) -> None:
    """Takes one counted attempt back."""
    await tx.run(_UNPACE, of_bucket=bucket, interval=interval)


async def take_back_failure(tx: Transaction, bucket: bytes, *, now: int) -> None:
    """Takes one counted failure back; the next attempt may come at once."""
    await tx.run(_UNFAIL, of_bucket=bucket, now=now)


async def clear(tx: Transaction, buckets: Collection[bytes]) -> None:
    """Forgets what was counted."""
    await tx.run(_CLEAR, buckets=list(buckets))


async def sweep(tx: Transaction, *, now: int) -> int:
    """Deletes expired links, and counts that are open and 30 days old: for the retention job."""
    links = await tx.run(_SWEEP_LINKS, now=now)
    return links + await tx.run(_SWEEP_THROTTLES, now=now, before=now - _REMEMBERED_MS)


async def _open_at(tx: Transaction, bucket: bytes) -> int:
    row = await tx.one(_OPEN_AT, bucket=bucket)
    return 0 if row is None else int(row.open_at)
