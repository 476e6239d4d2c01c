"""Look-ups take turns, and no flood of them stands before anything else."""

import asyncio
import os
from collections.abc import Sequence
from typing import TypeVar, cast

import asyncpg
import pytest

from keybearer import Auth
from keybearer.domain.credentials import mint
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Body, Database, Transaction
from keybearer.verification import lookups
from keybearer.verification.lookups import AT_ONCE, LookUps
from tests.attacks.guarded import ask, bearer, guarded_app
from tests.people import SECRET
from tests.servers import PostgresServer

T = TypeVar("T")


class Slow:
    """Answers nobody before the gate is open."""

    def __init__(self) -> None:
        self.asked, self.gate = 0, asyncio.Event()

    async def read(self, body: Body[T]) -> T:
        self.asked += 1
        await self.gate.wait()
        return await body(cast(Transaction, None))  # which these bodies ask nothing


async def look_up(look_ups: LookUps, number: int, told: list[int]) -> None:
    async def body(_tx: object) -> None:
        told.append(number)

    await look_ups.read(body)


def begin(look_ups: LookUps, many: int, told: list[int]) -> Sequence["asyncio.Task[None]"]:
    return [asyncio.create_task(look_up(look_ups, number, told)) for number in range(many)]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_are_looked_up_at_once_and_the_others_in_turn() -> None:
    slow, told = Slow(), list[int]()
    waiting = begin(LookUps(slow), 3 * AT_ONCE, told)
    await turns()
    assert slow.asked == AT_ONCE
    slow.gate.set()
    await asyncio.gather(*waiting)
    assert told == list(range(3 * AT_ONCE))


async def test_of_too_many_the_last_ones_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "WAITING", 5)
    slow, told = Slow(), list[int]()
    look_ups = LookUps(slow)
    waiting = begin(look_ups, AT_ONCE + 5, told)
    await turns()
    with pytest.raises(Unavailable, match="too many"):
        await look_up(look_ups, 99, told)
    waiting[-1].cancel()  # whoever goes away leaves its place
    await turns()
    last = asyncio.create_task(look_up(look_ups, 100, told))
    await turns()
    slow.gate.set()
    await asyncio.gather(*waiting[:-1], last)
    assert told == [*range(AT_ONCE + 4), 100]


async def test_who_fails_makes_room() -> None:
    class Lost:
        async def read(self, _body: Body[T]) -> T:
            raise Unavailable("lost")

    look_ups = LookUps(Lost())
    for _ in range(2 * AT_ONCE):
        with pytest.raises(Unavailable, match="lost"):
            await look_up(look_ups, 1, [])


async def busy(database: Database) -> None:
    """Returns when all that may be looked up at once is, beside the lock."""
    for _ in range(10_000):
        if database.busy > AT_ONCE:
            return
        await asyncio.sleep(0.01)


async def test_a_flood_of_made_up_keys_takes_no_lease_and_no_receipt(
    postgres_server: PostgresServer, postgres_template: str
) -> None:
    url = postgres_server.create(postgres_template)
    auth = Auth(url, secret=SECRET, token_management=True)
    async with auth.lifespan():
        app, site = await auth.running(), guarded_app(auth)
        locker = await asyncpg.connect(url)
        async with locker.transaction():
            await locker.execute("LOCK TABLE api_key_secrets IN ACCESS EXCLUSIVE MODE")
            flood = [
                asyncio.create_task(ask(site, bearer(mint("kb_", os.urandom).reveal())))
                for _ in range(100)
            ]
            async with asyncio.timeout(60):
                await busy(app.database)
            await app.verifier.lease.renew()
            await app.spread.members()
        await locker.close()
        await asyncio.gather(*flood)
    postgres_server.drop(url)
