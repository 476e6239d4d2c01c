"""The trail on both databases: what was done to its rows shows."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from keybearer.adapters.sql import audit
from keybearer.adapters.sql.audit import CHAINS, Event, Fault
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.postgres import PostgresDatabase
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.adapters.sql.tables import audit as rows
from keybearer.adapters.sql.tables import audit_heads as heads
from keybearer.domain.credentials import PepperRing
from keybearer.domain.ports import Row, Transaction
from tests.people import SECRET, START
from tests.servers import PostgresServer

AnyDatabase = SqliteDatabase | PostgresDatabase

RING = PepperRing([SECRET.encode()])
OTHER = b"another-Hq7bN2xW5vJ8kR3mT6pY9cD4"
OWNER = "ann"
CHAIN = audit.chain_of(OWNER)
OTHER_CHAIN = (CHAIN + 1) % CHAINS
LENGTH = 5


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


@pytest.fixture
async def trail(database: AnyDatabase) -> AnyDatabase:
    """A database in which Ann has five events."""
    for n in range(1, LENGTH + 1):
        await write(database, event(f"e{n}", at=START + n))
    return database


def event(id: str, **fields: Any) -> Event:
    told: dict[str, Any] = {
        "at": START,
        "event": "key.created",
        "actor_kind": "session",
        "actor_id": OWNER,
        "owner_id": OWNER,
        "target_id": "k1",
        "ip": "203.0.113.7",
        "user_agent": "tests",
        "request_id": "r1",
        "details": {"name": "ci", "expiresIn": 60},
    }
    return Event(id=id, **(told | fields))


async def write(database: AnyDatabase, *events: Event, ring: PepperRing = RING) -> None:
    async def body(tx: Transaction) -> None:
        for each in events:
            await audit.append(tx, ring, each)

    await database.write(body)


async def append_at(database: AnyDatabase, owner_id: str, *events: Event) -> None:
    """Appends events behind one and the same end of a chain, as nobody may."""

    async def body(tx: Transaction) -> None:
        head = await audit.lock(tx, owner_id)
        for each in events:
            await audit.append(tx, RING, each, head=head)

    await database.write(body)


async def run(database: AnyDatabase, *statements: Any) -> None:
    """What somebody with write access does behind our back."""

    async def body(tx: Transaction) -> None:
        for statement in statements:
            await tx.run(statement)

    await database.write(body)


async def verified(
    database: AnyDatabase, ring: PepperRing = RING
) -> tuple[int, list[tuple[int, int, str]]]:
    """How many rows there are, and the faults as chain, seq and reason."""
    count, faults = await database.read(lambda tx: audit.verify(tx, ring))
    return count, [(fault.chain, fault.seq, fault.reason) for fault in faults]


def at(seq: int, chain: int = CHAIN) -> Any:
    return (rows.c.chain == chain) & (rows.c.seq == seq)


async def row_at(database: AnyDatabase, seq: int) -> Row:
    found = await database.read(lambda tx: tx.one(select(rows).where(at(seq))))
    assert found is not None
    return found


# --- a sound one ----------------------------------------------------------------------------------


async def test_a_lock_gives_the_end_that_an_event_goes_behind(trail: AnyDatabase) -> None:
    await append_at(trail, OWNER, event("e6"))
    assert await verified(trail) == (LENGTH + 1, [])


async def test_no_event_goes_behind_an_end_that_is_none_any_more(trail: AnyDatabase) -> None:
    with pytest.raises(IntegrityError):
        await append_at(trail, OWNER, event("e6"), event("e7"))
    stranger = next(str(n) for n in range(100) if audit.chain_of(str(n)) != CHAIN)
    with pytest.raises(ValueError, match="chain"):
        await append_at(trail, stranger, event("e6"))
    assert await verified(trail) == (LENGTH, [])


async def test_a_sound_trail_has_no_fault(trail: AnyDatabase) -> None:
    assert await verified(trail) == (LENGTH, [])
    ends = await trail.read(audit.heads)
    assert {end.chain: end.seq for end in ends if end.seq} == {CHAIN: LENGTH}
    assert [end.chain for end in ends] == list(range(CHAINS))


async def test_an_empty_trail_has_no_fault(database: AnyDatabase) -> None:
    assert await verified(database) == (0, [])


async def test_more_events_than_one_read_fetches_are_all_walked(database: AnyDatabase) -> None:
    await write(database, *(event(f"e{n}") for n in range(1001)))
    assert await verified(database) == (1001, [])
    await run(database, update(rows).where(at(1001)).values(ip="198.51.100.1"))
    assert await verified(database) == (1001, [(CHAIN, 1001, "changed")])


async def test_parallel_events_of_one_owner_stand_in_one_unbroken_chain(
    database: AnyDatabase,
) -> None:
    await asyncio.gather(*(write(database, event(f"e{n}")) for n in range(60)))
    assert await verified(database) == (60, [])


async def test_an_event_goes_with_its_transaction(trail: AnyDatabase) -> None:
    async def failing(tx: Transaction) -> None:
        await audit.append(tx, RING, event("lost"))
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await trail.write(failing)
    assert await verified(trail) == (LENGTH, [])
    await write(trail, event("next"))
    assert await verified(trail) == (LENGTH + 1, [])


async def test_a_trail_of_a_rotated_secret_holds_while_the_old_one_is_listed(
    trail: AnyDatabase,
) -> None:
    both = PepperRing([OTHER, SECRET.encode()])
    await write(trail, event("new"), ring=both)
    assert await verified(trail, both) == (LENGTH + 1, [])
    count, faults = await verified(trail, PepperRing([OTHER]))
    assert count == LENGTH + 1
    assert faults == [(CHAIN, seq, "unknown secret") for seq in range(1, LENGTH + 1)]


async def test_who_has_another_secret_writes_no_event_of_ours(trail: AnyDatabase) -> None:
    forger = PepperRing([OTHER])
    await write(trail, event("forged"), ring=forger)
    assert await verified(trail) == (LENGTH + 1, [(CHAIN, LENGTH + 1, "unknown secret")])
    await run(trail, update(rows).where(at(LENGTH + 1)).values(pepper_id=RING.newest.id))
    assert await verified(trail) == (LENGTH + 1, [(CHAIN, LENGTH + 1, "changed")])


class Interrupted:
    """A transaction before each of whose reads another process appends an event."""

    def __init__(self, tx: Transaction, database: PostgresDatabase) -> None:
        self._tx, self._database, self._n = tx, database, 0
        self.dialect = tx.dialect

    async def _append(self) -> None:
        self._n += 1
        if self._n <= 3 * CHAINS:
            await write(self._database, event(f"meanwhile{self._n}", owner_id=str(self._n)))

    async def one(self, statement: object, /, **binds: object) -> Row | None:
        await self._append()
        return await self._tx.one(statement, **binds)

    async def all(self, statement: object, /, **binds: object) -> Sequence[Row]:
        await self._append()
        return await self._tx.all(statement, **binds)

    async def run(self, statement: object, /, **binds: object) -> int:
        return await self._tx.run(statement, **binds)

    async def run_many(self, statement: object, many: Sequence[Mapping[str, object]], /) -> None:
        await self._tx.run_many(statement, many)


async def test_events_that_come_while_it_is_walked_are_no_fault(
    postgres_server: PostgresServer, postgres_template: str
) -> None:
    # On PostgreSQL each statement sees what was committed before it. SQLite reads one snapshot.
    url = postgres_server.create(postgres_template)
    database = PostgresDatabase(url)
    await write(database, *(event(f"e{n}", owner_id=str(n)) for n in range(20)))
    count, faults = await database.read(
        lambda tx: audit.verify(Interrupted(tx, database), RING),
    )
    assert faults == []
    assert count >= 20
    await database.close()
    postgres_server.drop(url)


# --- what was done to it --------------------------------------------------------------------------


CHANGED: dict[str, Sequence[object]] = {
    "id": ["e9"],
    "at": [START, 0],
    "event": ["key.revoked", "Key.created", ""],
    "outcome": ["refused"],
    "actor_kind": ["operator"],
    "actor_id": ["bob", None, ""],
    "owner_id": ["bob", None],
    "target_id": ["k2", None],
    "ip": ["198.51.100.1", None],
    "user_agent": ["curl", None],
    "request_id": ["r2", None],
    "details": ["{}", '{"expiresIn":60, "name":"ci"}'],
    "mac": [b"\0" * 32, b""],
}


async def test_a_change_of_any_column_is_found(trail: AnyDatabase) -> None:
    assert {*CHANGED, "chain", "seq", "pepper_id"} == set(rows.c.keys())
    whole = dict((await row_at(trail, 3))._mapping)
    for column, values in CHANGED.items():
        for value in values:
            await run(trail, update(rows).where(at(3)).values({column: value}))
            count, faults = await verified(trail)
            assert count == LENGTH
            assert (CHAIN, 3, "changed") in faults, (column, value)
            await run(trail, update(rows).where(at(3)).values(**whole))
    assert await verified(trail) == (LENGTH, [])


async def test_another_pepper_is_found(trail: AnyDatabase) -> None:
    await run(trail, update(rows).where(at(3)).values(pepper_id="0" * 16))
    assert await verified(trail) == (LENGTH, [(CHAIN, 3, "unknown secret")])


@pytest.mark.parametrize("seq", [1, 3])
async def test_a_missing_event_is_found(trail: AnyDatabase, seq: int) -> None:
    await run(trail, delete(rows).where(at(seq)))
    assert await verified(trail) == (LENGTH - 1, [(CHAIN, seq, "missing")])


async def test_a_missing_event_is_found_even_if_those_after_it_move_up(trail: AnyDatabase) -> None:
    await run(
        trail,
        delete(rows).where(at(3)),
        update(rows).where(at(4)).values(seq=3),
        update(rows).where(at(5)).values(seq=4),
        update(heads).where(heads.c.chain == CHAIN).values(seq=4),
    )
    assert await verified(trail) == (4, [(CHAIN, 3, "changed"), (CHAIN, 4, "changed")])


@pytest.mark.parametrize("left", [0, 2, LENGTH - 1])
async def test_an_end_that_was_cut_off_is_found(trail: AnyDatabase, left: int) -> None:
    await run(trail, delete(rows).where(rows.c.chain == CHAIN, rows.c.seq > left))
    assert await verified(trail) == (left, [(CHAIN, LENGTH, "end cut off")])


async def test_events_that_changed_places_are_found(trail: AnyDatabase) -> None:
    await run(
        trail,
        update(rows).where(at(2)).values(seq=99),
        update(rows).where(at(4)).values(seq=2),
        update(rows).where(at(99)).values(seq=4),
    )
    count, faults = await verified(trail)
    assert count == LENGTH
    assert {(CHAIN, 2, "changed"), (CHAIN, 4, "changed")} <= set(faults)


async def test_an_event_that_moved_to_another_chain_is_found_in_both(trail: AnyDatabase) -> None:
    await run(trail, update(rows).where(at(LENGTH)).values(chain=OTHER_CHAIN, seq=1))
    count, faults = await verified(trail)
    assert count == LENGTH
    assert set(faults) == {
        (CHAIN, LENGTH, "end cut off"),
        (OTHER_CHAIN, 1, "changed"),
        (OTHER_CHAIN, 0, "end cut off"),
    }


async def test_an_event_that_was_put_in_is_found_wherever_it_stands(trail: AnyDatabase) -> None:
    copied = dict((await row_at(trail, 3))._mapping) | {"id": "put in"}
    for chain in (CHAIN, OTHER_CHAIN, CHAINS, -1):
        for seq in (-(2**63), -1, 0, LENGTH + 1, LENGTH + 7, 2**63 - 1):
            await run(trail, insert(rows).values(**copied | {"chain": chain, "seq": seq}))
            count, faults = await verified(trail)
            assert count == LENGTH + 1
            assert {of for of, _, _ in faults} == {chain}, seq
            await run(trail, delete(rows).where(at(seq, chain)))
    assert await verified(trail) == (LENGTH, [])


async def test_a_changed_head_is_found(trail: AnyDatabase) -> None:
    of_chain = update(heads).where(heads.c.chain == CHAIN)
    (before,) = [end for end in await trail.read(audit.heads) if end.chain == CHAIN]
    for tampered in ({"mac": b"\1" * 32}, {"seq": LENGTH - 1}, {"seq": LENGTH + 1}, {"seq": 0}):
        await run(trail, of_chain.values(**tampered))
        count, faults = await verified(trail)
        assert count == LENGTH
        assert [(chain, reason) for chain, _, reason in faults] == [(CHAIN, "end cut off")]
        await run(trail, of_chain.values(seq=before.seq, mac=before.mac))
    assert await verified(trail) == (LENGTH, [])


@pytest.mark.parametrize("chain", [CHAIN, OTHER_CHAIN])
async def test_a_missing_head_is_found(trail: AnyDatabase, chain: int) -> None:
    await run(trail, delete(heads).where(heads.c.chain == chain))
    count, faults = await verified(trail)
    assert count == LENGTH
    assert [(of, reason) for of, _, reason in faults] == [(chain, "end cut off")]
    with pytest.raises(LookupError, match="migrate"):
        await write(trail, event("e6", owner_id=owner_on(chain)))


def owner_on(chain: int) -> str:
    return next(str(n) for n in range(1000) if audit.chain_of(str(n)) == chain)


async def test_an_older_end_with_its_older_head_shows_only_against_heads_kept_elsewhere(
    trail: AnyDatabase,
) -> None:
    noted = await trail.read(audit.heads)
    third = (await row_at(trail, 3)).mac
    await run(
        trail,
        delete(rows).where(rows.c.chain == CHAIN, rows.c.seq > 3),
        update(heads).where(heads.c.chain == CHAIN).values(seq=3, mac=third),
    )
    assert await verified(trail) == (3, [])
    assert await trail.read(audit.heads) != noted


async def test_each_place_where_it_does_not_hold_is_told(trail: AnyDatabase) -> None:
    await write(trail, event("b1", owner_id=owner_on(OTHER_CHAIN)))
    await run(
        trail,
        update(rows).where(at(2)).values(ip=None),
        delete(rows).where(at(4)),
        delete(rows).where(at(1, OTHER_CHAIN)),
    )
    _, faults = await trail.read(lambda tx: audit.verify(tx, RING))
    assert sorted(faults, key=lambda fault: (fault.chain != CHAIN, fault.seq)) == [
        Fault(chain=CHAIN, seq=2, reason="changed"),
        Fault(chain=CHAIN, seq=4, reason="missing"),
        Fault(chain=OTHER_CHAIN, seq=1, reason="end cut off"),
    ]


# --- what is read ---------------------------------------------------------------------------------


async def test_a_page_is_one_owners_newest_first(trail: AnyDatabase) -> None:
    await write(trail, event("b1", owner_id="bob"), event("n1", owner_id=None))
    await write(trail, event("e6", at=START + 6, event="key.revoked", target_id="k2"))

    async def page(**asked: Any) -> tuple[list[str], int]:
        wanted: dict[str, Any] = {"owner_id": OWNER, "limit": 10}
        found, total = await trail.read(lambda tx: audit.page(tx, **(wanted | asked)))
        return [each.id for each in found], total

    assert await page() == (["e6", "e5", "e4", "e3", "e2", "e1"], 6)
    assert await page(limit=2, offset=1) == (["e5", "e4"], 6)
    assert await page(event="key.revoked") == (["e6"], 1)
    assert await page(target_id="k1", limit=1) == (["e5"], 5)
    assert await page(target_id="k1", event="key.revoked") == ([], 0)
    assert await page(owner_id="bob") == (["b1"], 1)
    assert await page(owner_id="%") == ([], 0)


async def test_a_page_is_filtered_by_group_outcome_and_time(trail: AnyDatabase) -> None:
    await write(
        trail,
        event("f6", at=START + 6, event="keys.moved"),
        event("f7", at=START + 7, event="session.opened"),
        event("f8", at=START + 8, event="session.ended", outcome="refused"),
        event("b9", at=START + 9, event="session.ended", owner_id="bob"),
    )

    async def page(**asked: Any) -> list[str]:
        found, total = await trail.read(
            lambda tx: audit.page(tx, owner_id=OWNER, limit=100, **asked)
        )
        assert total == len(found)
        return [each.id for each in found]

    keys = ["e5", "e4", "e3", "e2", "e1"]
    assert await page(event="key.") == keys
    assert await page(event="session.") == ["f8", "f7"]
    for nothing in ("key", "session", "KEY.", "Session.", ".", "%.", "_ey.", "key.created.", "*"):
        assert await page(event=nothing) == [], nothing
    assert await page(outcome="refused") == ["f8"]
    assert await page(outcome="success", event="session.") == ["f7"]
    assert await page(since=START + 7) == ["f8", "f7"]
    assert await page(since=START + 3, until=START + 5) == ["e4", "e3"]
    assert await page(until=START + 2) == ["e1"]


async def test_an_event_is_found_by_its_owner_alone(trail: AnyDatabase) -> None:
    found = await trail.read(lambda tx: audit.by_id(tx, "e3", owner_id=OWNER))
    assert found == event("e3", at=START + 3)
    for id, owner_id in (("e3", "bob"), ("e9", OWNER), ("%", OWNER), ("e3", "")):
        assert await trail.read(partial(audit.by_id, id=id, owner_id=owner_id)) is None


async def test_what_was_written_is_read_back(trail: AnyDatabase) -> None:
    told = event(
        "e6", at=START + 6, details={"ok": True, "n": -1, "text": "ä\u2028'\"", "no": None}
    )
    await write(trail, told)
    newest = await trail.read(lambda tx: audit.newest(tx, limit=1))
    assert newest == [told]
    assert len(await trail.read(lambda tx: audit.newest(tx, owner_id=OWNER, limit=100))) == 6
    assert await trail.read(lambda tx: audit.newest(tx, owner_id="bob", limit=100)) == []
