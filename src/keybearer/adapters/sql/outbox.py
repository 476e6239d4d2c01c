"""Mail that waits: written with the change it tells of, sent afterwards."""

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from keybearer.adapters.sql.tables import outbox
from keybearer.domain.ports import Row, Transaction


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A mail in the outbox. `attempts` counts those begun; `next_attempt_at` None: it is over."""

    id: str
    recipient: str
    subject: str
    text: str
    created_at: int
    next_attempt_at: int | None
    attempts: int
    sent_at: int | None
    error: str | None

    def __repr__(self) -> str:
        return f"Letter(id={self.id!r}, attempts={self.attempts})"


_PUT = insert(outbox)
_DUE = (
    select(outbox.c.id)
    .where(outbox.c.next_attempt_at <= bindparam("now"))
    .order_by(outbox.c.next_attempt_at)
    .limit(bindparam("limit"))
)
# The condition stands outside as well: of two that claim at once, the second waits for the row
# and then finds it claimed.
_CLAIM = (
    update(outbox)
    .where(outbox.c.id.in_(_DUE), outbox.c.next_attempt_at <= bindparam("now"))
    .values(next_attempt_at=bindparam("until"), attempts=outbox.c.attempts + 1)
    .returning(*outbox.c)
)
_SENT = (
    update(outbox)
    .where(outbox.c.id == bindparam("of_letter"))
    .values(sent_at=bindparam("now"), next_attempt_at=None, error=None)
)
_FAILED = (
    update(outbox)
    .where(outbox.c.id == bindparam("of_letter"))
    .values(next_attempt_at=bindparam("again_at"), error=bindparam("reason"))
)
_WIPE = update(outbox).where(outbox.c.id == bindparam("of_letter")).values(text="")
_RECENT = (
    select(outbox)
    .order_by(outbox.c.created_at.desc(), outbox.c.id.desc())
    .limit(bindparam("limit"))
)
_WAITING = (
    select(func.count().label("n")).select_from(outbox).where(outbox.c.next_attempt_at.is_not(None))
)
_WIPE_OLD = (
    update(outbox)
    .where(
        outbox.c.next_attempt_at.is_(None),
        outbox.c.created_at < bindparam("before"),
        outbox.c.text != "",
    )
    .values(text="")
)
_FORGET = delete(outbox).where(
    outbox.c.next_attempt_at.is_(None),
    outbox.c.created_at < bindparam("before"),
    or_(outbox.c.sent_at.is_not(None), outbox.c.created_at < bindparam("failed_before")),
)


async def put(tx: Transaction, letter: Letter) -> None:
    """Writes a mail in the caller's transaction."""
    await tx.run(_PUT, **msgspec.structs.asdict(letter))


async def claim(tx: Transaction, *, now: int, until: int, limit: int) -> list[Letter]:
    """Mails that are due, taken until an instant; whoever dies with one lets go of it then."""
    rows = await tx.all(_CLAIM, now=now, until=until, limit=limit)
    return sorted((_letter(row) for row in rows), key=lambda letter: letter.id)


async def mark_sent(tx: Transaction, id: str, *, now: int) -> None:
    """The mail was handed over."""
    await tx.run(_SENT, of_letter=id, now=now)


async def mark_failed(tx: Transaction, id: str, *, again_at: int | None, reason: str) -> None:
    """The mail was not handed over; `again_at` None gives it up."""
    await tx.run(_FAILED, of_letter=id, again_at=again_at, reason=reason)


async def wipe(tx: Transaction, id: str) -> None:
    """Empties the text of a mail: links are secrets."""
    await tx.run(_WIPE, of_letter=id)


async def recent(tx: Transaction, *, limit: int) -> list[Letter]:
    """The newest mails, sent or not."""
    return [_letter(row) for row in await tx.all(_RECENT, limit=limit)]


async def waiting(tx: Transaction) -> int:
    """How many mails are not sent, and not given up."""
    row = await tx.one(_WAITING)
    return 0 if row is None else int(row.n)


async def wipe_old(tx: Transaction, *, before: int) -> int:
    """Empties the texts of mails that are over and were written before an instant."""
    return await tx.run(_WIPE_OLD, before=before)


async def forget(tx: Transaction, *, before: int, failed_before: int) -> int:
    """Deletes mails that are over: the sent ones, and much later the failed ones."""
    return await tx.run(_FORGET, before=before, failed_before=failed_before)


def _letter(row: Row) -> Letter:
    return Letter(**row._mapping)
