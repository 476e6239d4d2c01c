import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest
from sqlalchemy import select, update

from keybearer.adapters.sql import signing as sql
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.signing import SealedKey
from keybearer.adapters.sql.tables import signing_keys
from keybearer.domain import jwt
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.jwt import AHEAD_MS, OVERLAP_MS, SealBroken
from keybearer.domain.ports import Body, Database, T, Transaction
from keybearer.verification.signing import SigningKeys
from tests.people import SECRET, START, StandingClock

NEWER = "tests-only-pB4nX8sK1vH6jM3qD7wF9rT2"
TTL_MS = 300_000
INTERVAL_MS = 90 * 86_400_000

Make = Callable[..., SigningKeys]


class Watched:
    """A database that counts its reads, and holds one back when told to."""

    busy = 0

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reads = self.writes = 0
        self.gate: asyncio.Event | None = None
        self.held = asyncio.Event()

    async def read(self, body: Body[T]) -> T:
        self.reads += 1
        result = await self._database.read(body)
        gate, self.gate = self.gate, None
        if gate is not None:
            self.held.set()
            await gate.wait()
        return result

    async def write(self, body: Body[T], *, first: bool = False) -> T:
        self.writes += 1
        return await self._database.write(body, first=first)

    async def close(self) -> None:
        await self._database.close()


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[Watched]:
    opened, _ = open_database(ready_url)
    yield Watched(opened)
    await opened.close()


@pytest.fixture
def make(database: Watched, clock: StandingClock) -> Make:
    kids = itertools.count(1)

    def made(*secrets: str, clock: StandingClock = clock) -> SigningKeys:
        return SigningKeys(
            database=database,
            ring=PepperRing([secret.encode() for secret in secrets or (SECRET,)]),
            clock=clock,
            interval_ms=INTERVAL_MS,
            token_ttl_ms=TTL_MS,
            new_kid=lambda now: f"k{next(kids)}",
        )

    return made


async def rows(database: Database) -> Sequence[SealedKey]:
    return await database.read(sql.every)


async def test_the_first_key_is_made_when_it_is_wanted_and_signs_at_once(
    make: Make, database: Watched
) -> None:
    keys = make()
    assert await keys.known("forged") == await keys.known() == {}
    signer = await keys.signer()
    assert (signer.kid, signer.activates_at, signer.retires_at) == ("k1", START, None)
    assert [key.kid for key in await keys.published()] == ["k1"]
    assert list(await keys.known()) == ["k1"]
    assert len(await rows(database)) == 1


async def test_a_hundred_at_once_on_two_nodes_make_one_first_key(
    make: Make, database: Watched
) -> None:
    nodes = (make(), make())
    signers = await asyncio.gather(*(nodes[n % 2].signer() for n in range(100)))
    [row] = await rows(database)
    assert {signer.kid for signer in signers} == {row.kid}


async def test_private_halves_are_stored_sealed(make: Make, database: Watched) -> None:
    signer = await make().signer()
    [row] = await rows(database)
    jwk = msgspec.json.decode(signer.to_jwk(private=True))
    assert row.sealed.startswith("1.")
    assert jwk["d"] not in row.sealed
    assert jwk["d"] not in repr(row) + repr(signer)


async def test_keys_are_read_again_after_half_a_minute(
    make: Make, database: Watched, clock: StandingClock
) -> None:
    keys = make()
    await keys.signer()
    before = database.reads
    for _ in range(10):
        await keys.known("k1")
        await keys.known()
        await keys.signer()
    clock.advance(29_999)
    await keys.known("k1")
    await keys.known()
    assert database.reads == before
    clock.advance(1)
    await keys.known("k1")
    assert database.reads == before + 1


async def test_an_unknown_kid_asks_the_database_every_two_seconds_at_the_most(
    make: Make, database: Watched, clock: StandingClock
) -> None:
    here, there = make(), make()
    await here.signer()
    made = await there.rotate()
    before = database.reads
    assert made not in await here.known(made)
    assert database.reads == before
    clock.advance(1_999)
    await here.known("forged")
    assert database.reads == before
    clock.advance(1)
    assert made in await here.known(made)
    for n in range(50):
        await here.known(f"forged-{n}")
    assert database.reads == before + 1


async def test_the_first_key_that_another_process_made_is_found_at_once(
    make: Make, clock: StandingClock
) -> None:
    here, there = make(), make()
    assert not await here.known()
    made = await there.signer()
    assert not await here.known()  # what signs here waits; a token that came does not
    assert made.kid in await here.known(made.kid)


async def test_an_older_read_replaces_nothing_that_a_newer_one_found(
    make: Make, database: Watched
) -> None:
    keys = make()
    gate = database.gate = asyncio.Event()
    old = asyncio.ensure_future(keys.known())
    await database.held.wait()
    await keys.signer()
    gate.set()
    assert list(await old) == ["k1"]
    assert list(await keys.known()) == ["k1"]


async def test_a_successor_is_published_first_then_signs_and_the_old_key_stays_on_for_its_tokens(
    make: Make, clock: StandingClock
) -> None:
    keys = make()
    await keys.signer()
    assert await keys.rotate() == "k2"
    assert [key.kid for key in await keys.published()] == ["k2", "k1"]
    clock.advance(AHEAD_MS - 1)
    assert (await keys.signer()).kid == "k1"
    clock.advance(1)
    assert (await keys.signer()).kid == "k2"
    clock.advance(TTL_MS + OVERLAP_MS - 1)
    assert [key.kid for key in await keys.published()] == ["k2", "k1"]
    clock.advance(1)
    assert [key.kid for key in await keys.published()] == ["k2"]


async def test_a_key_is_rotated_when_its_interval_is_over_and_not_before(
    make: Make, database: Watched, clock: StandingClock
) -> None:
    keys = make()
    assert await keys.rotate_when_due() is None  # the first is made by whoever needs it
    await keys.signer()
    clock.advance(INTERVAL_MS - AHEAD_MS - 1)
    written = database.writes
    assert await keys.rotate_when_due() is None
    assert database.writes == written, "nobody is kept waiting for what is not due"
    clock.advance(1)
    noted = []

    async def note(_tx: Transaction, kid: str) -> None:
        noted.append(kid)

    assert await keys.rotate_when_due(note) == "k2"
    assert noted == ["k2"]
    assert await keys.rotate_when_due() is None
    clock.advance(AHEAD_MS)
    assert (await keys.signer()).kid == "k2"
    assert len(await rows(database)) == 2


async def test_of_two_nodes_that_find_it_due_at_once_one_rotates(
    make: Make, database: Watched, clock: StandingClock
) -> None:
    nodes = (make(), make())
    await nodes[0].signer()
    clock.advance(INTERVAL_MS)
    made = await asyncio.gather(*(nodes[n % 2].rotate_when_due() for n in range(20)))
    assert len([kid for kid in made if kid is not None]) == 1
    assert len(await rows(database)) == 2


async def test_an_end_that_is_said_already_stays_and_ended_keys_are_deleted(
    make: Make, database: Watched, clock: StandingClock
) -> None:
    keys = make()
    await keys.signer()
    await keys.rotate()
    [first, _] = await rows(database)
    clock.advance(60_000)
    await keys.rotate()
    assert (await rows(database))[0] == first
    clock.advance(AHEAD_MS + TTL_MS + OVERLAP_MS + 1)
    await keys.rotate()
    assert [row.kid for row in await rows(database)] == ["k3", "k4"]


async def test_a_node_whose_clock_is_behind_waits_rather_than_signing_wrongly(make: Make) -> None:
    await make().signer()
    behind = make(clock=StandingClock(START - 1))
    with pytest.raises(Unavailable, match="clocks"):
        await behind.signer()


async def test_keys_move_to_the_newest_secret_so_that_the_old_one_can_go(
    make: Make, database: Watched
) -> None:
    signer = await make(SECRET).signer()
    [before] = await rows(database)
    assert list(await make(NEWER, SECRET).known()) == ["k1"]
    [after] = await rows(database)
    assert after.sealed != before.sealed
    alone = await make(NEWER).signer()
    assert alone.to_jwk(private=True) == signer.to_jwk(private=True)
    written = database.writes
    await make(NEWER, SECRET).known()
    assert (await rows(database), database.writes) == ([after], written)


async def test_a_lost_secret_and_a_changed_row_say_what_to_do(
    make: Make, database: Watched
) -> None:
    await make(SECRET).signer()
    with pytest.raises(SealBroken, match="put the old one back"):
        await make(NEWER).signer()
    assert issubclass(SealBroken, Misuse)

    async def change(tx: Transaction) -> None:
        row = await tx.one(select(signing_keys.c.sealed))
        assert row is not None
        flipped = row.sealed[:-2] + ("AA" if row.sealed[-2:] != "AA" else "BB")
        await tx.run(update(signing_keys).values(sealed=flipped))

    await database.write(change)
    with pytest.raises(SealBroken, match="was changed"):
        await make(SECRET).known()


async def test_what_is_published_has_public_members_only(make: Make) -> None:
    keys = make()
    await keys.signer()
    await keys.rotate()
    published = jwt.jwks(await keys.published())["keys"]
    assert [set(key) for key in published] == [{"kty", "crv", "x", "kid", "use", "alg"}] * 2
    assert len({key["kid"] for key in published}) == 2
