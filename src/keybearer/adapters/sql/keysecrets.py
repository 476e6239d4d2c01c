"""The secrets of a key: one, and several while it rotates.

current     usable_until is NULL; a key that lives has exactly one
replaced    works until `usable_until`; UNTIL_FINISHED where nobody said until when
ended       usable_until is past; kept for the retention, so that it is told as ended
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, or_, select, update

from keybearer.adapters.sql.tables import api_key_secrets
from keybearer.domain.model import KeySecret
from keybearer.domain.ports import Transaction

_OF_KEY = api_key_secrets.c.key_id == bindparam("of_key")
_CURRENT = api_key_secrets.c.usable_until.is_(None)
_REPLACED = api_key_secrets.c.usable_until > bindparam("now")
_INSERT = insert(api_key_secrets)
_END = (
    update(api_key_secrets)
    .where(_OF_KEY, or_(_CURRENT, api_key_secrets.c.usable_until > bindparam("until")))
    .values(usable_until=bindparam("until"))
)
_COUNT_ANEW = update(api_key_secrets).where(_OF_KEY).values(request_count=0)
_others = api_key_secrets.alias("others")
_KEPT = (
    select(_others.c.digest)
    .where(_others.c.key_id == bindparam("of_key"), _others.c.usable_until > bindparam("now"))
    .order_by(_others.c.created_at.desc(), _others.c.usable_until.desc())
    .limit(bindparam("kept"))
)
_END_OLDER = (
    update(api_key_secrets)
    .where(_OF_KEY, _REPLACED, api_key_secrets.c.digest.not_in(_KEPT))
    .values(usable_until=bindparam("now"))
)
_THERE = select(api_key_secrets.c.key_id).where(
    api_key_secrets.c.digest.in_(bindparam("digests", expanding=True))
)
_LIVE = (
    select(api_key_secrets)
    .where(_OF_KEY, or_(_CURRENT, _REPLACED))
    .order_by(api_key_secrets.c.usable_until.is_not(None), api_key_secrets.c.created_at.desc())
)
_LIVE_LOCKED = _LIVE.with_for_update()
_MOVE_ENDS = (
    update(api_key_secrets).where(_OF_KEY, _REPLACED).values(usable_until=bindparam("until"))
)
_SET_END = (
    update(api_key_secrets)
    .where(api_key_secrets.c.digest == bindparam("of_digest"))
    .values(usable_until=bindparam("until"))
)
_REDIGEST = (
    update(api_key_secrets)
    .where(api_key_secrets.c.digest == bindparam("old"))
    .values(digest=bindparam("new"), pepper_id=bindparam("new_pepper"), foreign_hash=None)
)
_FORGET_REPLACED = delete(api_key_secrets).where(
    api_key_secrets.c.usable_until < bindparam("before")
)


async def are_there(tx: Transaction, digests: Sequence[bytes]) -> bool:
    """Whether any of these digests is one of a key already, of one that has ended too."""
    return await tx.one(_THERE.limit(1), digests=list(digests)) is not None


async def add(
    tx: Transaction, key_id: str, *, digest: bytes, pepper_id: str, start: str, now: int
) -> None:
    """Gives a key one more secret; `start` is what may be shown of it."""
    await tx.run(
        _INSERT,
        digest=digest,
        key_id=key_id,
        pepper_id=pepper_id,
        created_at=now,
        usable_until=None,
        start=start,
    )


async def end(tx: Transaction, key_id: str, *, until: int) -> None:
    """Lets every secret that a key has now end at `until`, or sooner where it does already."""
    await tx.run(_END, of_key=key_id, until=until)


async def end_older(tx: Transaction, key_id: str, *, kept: int, now: int) -> None:
    """Ends at once what works of the replaced secrets beyond the `kept` newest."""
    await tx.run(_END_OLDER, of_key=key_id, kept=kept, now=now)


async def count_anew(tx: Transaction, key_id: str) -> None:
    """Lets the uses of each secret be counted from nothing."""
    await tx.run(_COUNT_ANEW, of_key=key_id)


async def live(
    tx: Transaction, key_id: str, *, now: int, lock: bool = False
) -> Sequence[KeySecret]:
    """The secrets of a key that work, newest first: the current one, and those it replaced.

    Args:
        lock: makes other changes of them wait until the transaction ends, a new digest among
            them.
    """
    rows = await tx.all(_LIVE_LOCKED if lock else _LIVE, of_key=key_id, now=now)
    return [
        KeySecret(**{name: getattr(row, name) for name in KeySecret.__struct_fields__})
        for row in rows
    ]


async def move_ends(tx: Transaction, key_id: str, *, until: int, now: int) -> None:
    """Lets every replaced secret that works end at `until`, be it sooner or later than before."""
    await tx.run(_MOVE_ENDS, of_key=key_id, until=until, now=now)


async def set_end(tx: Transaction, digest: bytes, *, until: int | None) -> None:
    """Lets one secret end at `until`; None makes it the current one."""
    await tx.run(_SET_END, of_digest=digest, until=until)


async def redigest(tx: Transaction, *, old: bytes, new: bytes, pepper_id: str) -> None:
    """Moves a secret to the newest pepper, from an older one or from a hash of elsewhere."""
    await tx.run(_REDIGEST, old=old, new=new, new_pepper=pepper_id)


async def forget_replaced(tx: Transaction, *, before: int) -> int:
    """Deletes secrets that were replaced and ended before an instant, and gives how many."""
    return await tx.run(_FORGET_REPLACED, before=before)
