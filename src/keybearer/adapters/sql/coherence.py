"""The log of changes and the members, as rows; what they are for: `verification/coherence.py`."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import and_, bindparam, delete, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from keybearer.adapters.sql.tables import coherence, invalidations, nodes
from keybearer.domain.changes import Change, Member, News
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Clock, Database, Reading, Row, Transaction

KEPT_MS = 600_000
"""How long changes stay in the log; who reads it more rarely drops its whole cache."""

_MANY = 1_000
"""Changes at the most in one read: to drop the whole cache is cheaper than to apply more."""

_NUMBER = (
    update(coherence)
    .where(coherence.c.id == 1)
    .values(seq=coherence.c.seq + 1, mark=bindparam("new_mark"))
    .returning(coherence.c.seq)
)
_APPEND = insert(invalidations)
_STATE = (
    select(
        coherence.c.seq,
        coherence.c.mark,
        nodes.c.id.label("node"),
        nodes.c.lease_ms,
        nodes.c.applied,
        nodes.c.suspicion,
    )
    .select_from(coherence.outerjoin(nodes, nodes.c.id == bindparam("of_node")))
    .where(coherence.c.id == 1)
)
_CHANGES = (
    select(invalidations.c.seq, invalidations.c.tags, invalidations.c.origin, invalidations.c.mark)
    .where(invalidations.c.seq >= bindparam("after"), invalidations.c.seq <= bindparam("until"))
    .order_by(invalidations.c.seq)
    .limit(_MANY)
)
_MEMBERS = select(nodes.c.id, nodes.c.lease_ms, nodes.c.applied, nodes.c.suspicion).order_by(
    nodes.c.id
)
_NAME = select(coherence.c.name).where(coherence.c.id == 1)
_ADDRESS = select(nodes.c.address).order_by(nodes.c.joined_at.desc(), nodes.c.id).limit(1)
_JOIN = insert(nodes)
_READMIT = update(nodes).where(nodes.c.id == bindparam("of_node")).values(suspicion=None)
_NOTE = (
    update(nodes)
    .where(
        nodes.c.id == bindparam("of_node"),
        nodes.c.applied < bindparam("until"),
        # A log that has gone back meanwhile may have another change of that number, or none yet.
        or_(
            exists().where(
                invalidations.c.seq == bindparam("until"), invalidations.c.mark == bindparam("mark")
            ),
            exists().where(
                coherence.c.seq == bindparam("until"), coherence.c.mark == bindparam("mark")
            ),
        ),
    )
    .values(applied=bindparam("until"))
)
_SUSPECT = (
    update(nodes)
    .where(nodes.c.id == bindparam("of_node"), nodes.c.suspicion.is_(None))
    .values(suspicion=bindparam("mark"))
)
_EXPEL = delete(nodes).where(
    and_(nodes.c.id == bindparam("of_node"), nodes.c.suspicion == bindparam("mark"))
)
_LEAVE = delete(nodes).where(nodes.c.id == bindparam("of_node"))
_LAST = select(coherence.c.seq).where(coherence.c.id == 1).scalar_subquery()
_FORGET = delete(invalidations).where(
    invalidations.c.at < bindparam("before"),
    invalidations.c.seq < _LAST,  # whose mark tells those who have read it that nothing is missing
)


class SqlLog:
    """The log of a database.

    Args:
        address: the BASE_URL that this process goes by, for the command beside it to know.
        line: what a node reads the news over; as all else unless given.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        address: str = "",
        *,
        line: Reading | None = None,
    ) -> None:
        self._database = database
        self._line = database if line is None else line
        self._clock = clock
        self._address = address

    async def append(self, tx: Transaction, tags: tuple[str, ...], origin: str) -> int:
        """Numbers a change; the counter's row stays locked until the commit."""
        mark = _new_mark()
        row = await tx.one(_NUMBER, new_mark=mark)
        if row is None:
            raise _EMPTY
        seq = int(row.seq)
        now = self._clock.now()
        await tx.run(_APPEND, seq=seq, tags=" ".join(tags), origin=origin, at=now, mark=mark)
        return seq

    async def news(self, node: str, after: int | None) -> News:
        """The number of the last change, what came after one, and how the node is written down."""

        async def body(tx: Transaction) -> News:
            row = await tx.one(_STATE, of_node=node)
            if row is None:
                raise _EMPTY
            seq = int(row.seq)
            mark_after = row.mark if seq == after else None
            rows: Sequence[Row] = ()
            if after is not None and seq > after:
                rows = await tx.all(_CHANGES, after=after, until=seq)
                if rows and rows[0].seq == after:
                    mark_after, rows = rows[0].mark, rows[1:]
            return News(
                seq=seq,
                mark=row.mark,
                mark_after=mark_after,
                changes=[Change(row.seq, tuple(row.tags.split()), row.origin) for row in rows],
                member=None if row.node is None else _member(row.node, row),
            )

        return await self._line.read(body)

    async def members(self) -> Sequence[Member]:
        """Every member."""
        rows = await self._database.read(lambda tx: tx.all(_MEMBERS))
        return [_member(row.id, row) for row in rows]

    async def join(self, member: Member) -> None:
        """Writes a node down; nothing if it is there, by a call that was given up meanwhile."""
        with contextlib.suppress(IntegrityError):
            await self._database.write(
                lambda tx: tx.run(
                    _JOIN,
                    id=member.id,
                    address=self._address,
                    joined_at=self._clock.now(),
                    lease_ms=member.lease_ms,
                ),
                first=True,
            )

    async def readmit(self, node: str) -> bool:
        """Takes the suspicion from a member; False if it is none any more."""
        told = self._database.write(lambda tx: tx.run(_READMIT, of_node=node), first=True)
        return await told == 1

    async def note(self, node: str, seq: int, mark: int | None) -> None:
        """Notes up to which change a member has applied all; nothing if that has another mark."""
        await self._database.write(
            lambda tx: tx.run(_NOTE, of_node=node, until=seq, mark=mark), first=True
        )

    async def suspect(self, nodes: Iterable[str], mark: int) -> None:
        """Notes whose answer was missed; in order, so that two who note cannot deadlock."""
        rows = [{"of_node": node, "mark": mark} for node in sorted(nodes)]
        await self._database.write(lambda tx: tx.run_many(_SUSPECT, rows))

    async def expel(self, suspects: Mapping[str, int]) -> None:
        """Forgets members that are suspected, each still under that mark."""
        rows = [{"of_node": node, "mark": mark} for node, mark in sorted(suspects.items())]
        await self._database.write(lambda tx: tx.run_many(_EXPEL, rows))

    async def leave(self, node: str) -> None:
        """Forgets a member that answers no more."""
        await self._database.write(lambda tx: tx.run(_LEAVE, of_node=node), first=True)


_EMPTY = Unavailable("the table coherence is empty; run `keybearer migrate`")


async def read_name(database: Database) -> str:
    """The name of this database, which no other has: what is ours in a Redis goes by it."""
    row = await database.read(lambda tx: tx.one(_NAME))
    if row is None:
        raise _EMPTY
    return str(row.name)


async def read_address(database: Database) -> str | None:
    """The BASE_URL of the node that joined last; None while there is none."""
    row = await database.read(lambda tx: tx.one(_ADDRESS))
    return None if row is None or not row.address else str(row.address)


async def forget(tx: Transaction, *, before: int) -> int:
    """Forgets changes that were logged before; gives how many."""
    return await tx.run(_FORGET, before=before)


def _new_mark() -> int:
    return int.from_bytes(os.urandom(7))


def _member(id: str, row: Row) -> Member:
    return Member(id=id, lease_ms=row.lease_ms, applied=row.applied, suspicion=row.suspicion)
