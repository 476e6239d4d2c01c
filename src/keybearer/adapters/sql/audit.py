"""The audit trail: written with the change it tells of, and chained.

    mac(n) = HMAC(audit key, mac(n-1) | row n)        one chain for each of 8 groups of owners
    audit_heads(chain) = (seq, mac) of the last row

A changed row breaks its mac, a missing one the sequence or the head. Several chains, so that
changes of different owners do not wait for one head row; the head's lock is also what makes
counts per owner (MAX_KEYS_PER_OWNER) race-free.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Text, bindparam, func, insert, or_, select, update

from keybearer.adapters.sql.rows import Together, new
from keybearer.adapters.sql.tables import audit, audit_heads
from keybearer.domain.credentials import PepperRing
from keybearer.domain.ports import Row, Transaction

CHAINS = 8
_START = b"\0" * 32
_NEVER = 2**62

Outcome = Literal["success", "refused"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to what, when, from where, and how it ended.

    `owner_id` is whose trail it belongs to; `details` holds no secret.
    """

    id: str
    at: int
    event: str
    outcome: Outcome = "success"
    actor_kind: str
    actor_id: str | None
    owner_id: str | None
    target_id: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, str | int | bool | None] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the chain does not hold."""

    chain: int
    seq: int
    reason: Literal["missing", "changed", "unknown secret", "end cut off"]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a chain: how many events it has, and the MAC over all of them."""

    chain: int
    seq: int
    mac: bytes


_LOCK_HEAD = (
    select(audit_heads.c.seq, audit_heads.c.mac)
    .where(audit_heads.c.chain == bindparam("chain"))
    .with_for_update()
)
_APPEND = Together(
    update(audit_heads)
    .where(audit_heads.c.chain == new("chain"))
    .values(seq=new("seq"), mac=new("mac")),
    insert(audit).values({each.name: new(each.name) for each in audit.c}),
)
_MANY = insert(audit)
_MOVE_HEAD = (
    update(audit_heads)
    .where(audit_heads.c.chain == bindparam("of_chain"))
    .values(seq=bindparam("end"), mac=bindparam("end_mac"))
)
_BY_ID = select(audit).where(
    audit.c.id == bindparam("id"), audit.c.owner_id == bindparam("owner_id")
)
_ASKED = (
    audit.c.owner_id == bindparam("owner_id"),
    or_(bindparam("event") == "", audit.c.event == bindparam("event")),
    # Not LIKE, which SQLite and PostgreSQL compare differently.
    func.substr(audit.c.event, 1, func.length(bindparam("begins", type_=Text)))
    == bindparam("begins"),
    or_(bindparam("target_id") == "", audit.c.target_id == bindparam("target_id")),
    or_(bindparam("outcome") == "", audit.c.outcome == bindparam("outcome")),
    audit.c.at >= bindparam("since"),
    audit.c.at < bindparam("until"),
)
_PAGE = (
    select(audit)
    .where(*_ASKED)
    .order_by(audit.c.at.desc(), audit.c.chain, audit.c.seq.desc())
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
_COUNT = select(func.count()).select_from(audit).where(*_ASKED)
_EVERYONE = (
    select(audit)
    .where(or_(bindparam("owner_id") == "", audit.c.owner_id == bindparam("owner_id")))
    .order_by(audit.c.at.desc(), audit.c.chain, audit.c.seq.desc())
    .limit(bindparam("limit"))
)
_FIRST = select(audit).where(audit.c.chain == bindparam("chain")).order_by(audit.c.seq).limit(1000)
_NEXT = _FIRST.where(audit.c.seq > bindparam("after"))
_CHAINS = select(audit.c.chain).distinct()
_HEADS = select(audit_heads).order_by(audit_heads.c.chain)
_HEAD = select(audit_heads).where(audit_heads.c.chain == bindparam("chain"))


def chain_of(owner_id: str | None) -> int:
    """Which chain an owner's events are on."""
    return hashlib.sha256((owner_id or "").encode()).digest()[0] % CHAINS


async def lock(tx: Transaction, owner_id: str | None) -> Head:
    """Makes changes of this owner wait for each other until the transaction ends.

    Gives the end of the owner's chain, which is good until the next `append`.
    """
    chain = chain_of(owner_id)
    row = await tx.one(_LOCK_HEAD, chain=chain)
    if row is None:
        raise LookupError(f"audit chain {chain} has no head; run `keybearer migrate`")
    return Head(chain=chain, seq=row.seq, mac=bytes(row.mac))


async def append(
    tx: Transaction, ring: PepperRing, event: Event, *, head: Head | None = None
) -> None:
    """Writes an event at the end of its chain, in the caller's transaction.

    Args:
        head: what `lock` gave for the same owner, if nothing was appended since.
    """
    if head is None:
        head = await lock(tx, event.owner_id)
    chain = chain_of(event.owner_id)
    if head.chain != chain:
        raise ValueError(f"the end of chain {head.chain} is not that of chain {chain}")
    values = _row(ring, event, chain, head.seq + 1)
    mac = _mac(ring.newest.audit_key, head.mac, values)
    await _APPEND.run(tx, **values, mac=mac)


async def append_many(tx: Transaction, ring: PepperRing, events: Sequence[Event]) -> None:
    """Writes events of one chain at its end, in the caller's transaction."""
    if not events:
        return
    head = await lock(tx, events[0].owner_id)
    seq, mac = head.seq, head.mac
    rows = []
    for event in events:
        seq += 1
        values = _row(ring, event, head.chain, seq)
        mac = _mac(ring.newest.audit_key, mac, values)
        rows.append({**values, "mac": mac})
    await tx.run_many(_MANY, rows)
    await tx.run(_MOVE_HEAD, of_chain=head.chain, end=seq, end_mac=mac)


def _row(ring: PepperRing, event: Event, chain: int, seq: int) -> dict[str, object]:
    values = msgspec.structs.asdict(event)
    values["details"] = msgspec.json.encode(event.details, order="sorted").decode()
    return {**values, "chain": chain, "seq": seq, "pepper_id": ring.newest.id}


async def by_id(tx: Transaction, id: str, *, owner_id: str) -> Event | None:
    """One of an owner's events."""
    row = await tx.one(_BY_ID, id=id, owner_id=owner_id)
    return None if row is None else event_of(row)


async def page(
    tx: Transaction,
    *,
    owner_id: str,
    event: str = "",
    target_id: str = "",
    outcome: str = "",
    since: int = 0,
    until: int = _NEVER,
    limit: int,
    offset: int = 0,
) -> tuple[Sequence[Event], int]:
    """One owner's events, newest first, and how many there are; "" filters nothing.

    Args:
        event: one name, or with a `.` at its end all that begin so.
        since, until: from the one instant on, before the other.
    """
    begins = event if event.endswith(".") else ""
    binds: dict[str, object] = {
        "owner_id": owner_id,
        "event": "" if begins else event,
        "begins": begins,
        "target_id": target_id,
        "outcome": outcome,
        "since": since,
        "until": until,
    }
    rows = await tx.all(_PAGE, **binds, limit=limit, offset=offset)
    count = await tx.one(_COUNT, **binds)
    return [event_of(row) for row in rows], 0 if count is None else int(count.count_1)


async def newest(tx: Transaction, *, owner_id: str = "", limit: int) -> Sequence[Event]:
    """The newest events of everyone, or of one owner: for the operator."""
    return [event_of(row) for row in await tx.all(_EVERYONE, owner_id=owner_id, limit=limit)]


async def heads(tx: Transaction) -> Sequence[Head]:
    """The ends of all chains; who keeps them elsewhere can prove a trail complete later."""
    return [Head(chain=row.chain, seq=row.seq, mac=bytes(row.mac)) for row in await tx.all(_HEADS)]


async def verify(tx: Transaction, ring: PepperRing) -> tuple[int, list[Fault]]:
    """Walks every chain: how many rows there are, and where they do not hold.

    Rows on a chain of their own, or before the first, are walked as well: a page would show them.
    """
    count = 0
    faults: list[Fault] = []
    found = {row.chain for row in await tx.all(_CHAINS)}
    for chain in sorted(found.union(range(CHAINS))):
        rows, faulty = await _walk(tx, ring, chain)
        count += rows
        faults += faulty
    return count, faults


async def _walk(tx: Transaction, ring: PepperRing, chain: int) -> tuple[int, list[Fault]]:
    count, seq, mac = 0, 0, _START
    faults: list[Fault] = []
    rows = await tx.all(_FIRST, chain=chain)
    expected: int | None = None
    while True:
        while rows:
            for row in rows:
                count += 1
                fault = _fault(ring, row, seq, mac)
                if fault is not None:
                    faults.append(fault)
                seq, mac = row.seq, bytes(row.mac)
            rows = await tx.all(_NEXT, chain=chain, after=seq)
        head = await tx.one(_HEAD, chain=chain)
        if head is None or head.seq <= seq or head.seq == expected:
            break
        # Events came after our last look at the rows (PostgreSQL shows them): walk on, once for
        # each place where the head is seen.
        expected = head.seq
        rows = await tx.all(_NEXT, chain=chain, after=seq)
    if head is None or (seq, mac) != (head.seq, bytes(head.mac)):
        faults.append(Fault(chain=chain, seq=head.seq if head else seq, reason="end cut off"))
    return count, faults


def _fault(ring: PepperRing, row: Row, seq: int, mac: bytes) -> Fault | None:
    if row.seq != seq + 1:
        return Fault(chain=row.chain, seq=seq + 1, reason="missing")
    pepper = ring.find(row.pepper_id)
    if pepper is None:
        return Fault(chain=row.chain, seq=row.seq, reason="unknown secret")
    values = {name: getattr(row, name) for name in audit.c.keys() if name != "mac"}  # noqa: SIM118
    if not hmac.compare_digest(_mac(pepper.audit_key, mac, values), bytes(row.mac)):
        return Fault(chain=row.chain, seq=row.seq, reason="changed")
    return None


def _mac(key: bytes, before: bytes, values: dict[str, object]) -> bytes:
    row = msgspec.json.encode([values[name] for name in sorted(values)])
    return hmac.digest(key, before + row, "sha256")


def event_of(row: Row) -> Event:
    """The event of a row of the trail."""
    return Event(
        **{name: getattr(row, name) for name in Event.__struct_fields__ if name != "details"},
        details=msgspec.json.decode(row.details),
    )
