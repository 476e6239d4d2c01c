"""Many requests at once, and the database beneath them (rows A296 to A300)."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import event, func, select, update

from keybearer import Auth
from keybearer.adapters.sql import postgres
from keybearer.adapters.sql.tables import api_keys
from keybearer.domain.credentials import mint
from keybearer.operations import service_tokens, upkeep
from keybearer.operations.app import App
from keybearer.operations.keys import CreateKey, GetKey
from tests.attacks.guarded import ask, bearer, guarded_app
from tests.attacks.town import Town
from tests.people import SECRET, StandingClock, call_of, log_in, person
from tests.servers import PostgresServer

DAY = 86_400_000


@contextlib.contextmanager
def statements(app: App) -> Iterator[list[str]]:
    """Every SQL statement that is run meanwhile, by whomever."""
    heard: list[str] = []
    engine: Any = app.database.engine  # type: ignore[attr-defined]
    engine = getattr(engine, "sync_engine", engine)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield heard
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextlib.asynccontextmanager
async def others_lock(url: str, key_id: str) -> AsyncIterator[None]:
    """Somebody else holds the key's row, or on SQLite the right to write."""
    if url.startswith("sqlite"):
        line = sqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        line.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            line.execute("ROLLBACK")
            line.close()
        return
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM api_keys WHERE id = $1 FOR UPDATE", key_id)
            yield
    finally:
        await connection.close()


async def made(town: Town, **asked: object) -> Any:
    return await town.auth.api.create_api_key(
        CreateKey(user_id=town.u1, rate_limit_enabled=False, **asked)  # type: ignore[arg-type]
    )


# --- A296 -------------------------------------------------------------------------------------


async def test_a296_2000_requests_of_one_key_are_a_write_a_second_and_counted_exactly(
    town: Town,
) -> None:
    site, key = guarded_app(town.auth), await made(town)
    begun = time.monotonic()
    with statements(town.app) as heard:
        for _ in range(20):
            answers = await asyncio.gather(*(ask(site, bearer(key.key)) for _ in range(100)))
            assert {answer.status for answer in answers} == {200}
        await town.app.verifier.usage.flush(town.app.clock.now())
        writes = sum(each.startswith("UPDATE api_keys") for each in heard)
    assert 1 <= writes <= 2 + time.monotonic() - begun
    shown = await town.auth.api.get_api_key(GetKey(id=key.id))
    assert shown.request_count == 2000


async def test_a296_a_locked_row_holds_up_no_request(town: Town, ready_url: str) -> None:
    site, key = guarded_app(town.auth), await made(town)
    assert (await ask(site, bearer(key.key))).status == 200
    await town.app.verifier.usage.flush(town.app.clock.now())
    async with others_lock(ready_url, key.id):
        flushing = asyncio.create_task(_flush_after_one(town, site, key.key))
        for _ in range(10):
            answers = await asyncio.gather(*(ask(site, bearer(key.key)) for _ in range(100)))
            assert {answer.status for answer in answers} == {200}
        assert not flushing.done()
    await flushing
    await town.app.verifier.usage.flush(town.app.clock.now())
    shown = await town.auth.api.get_api_key(GetKey(id=key.id))
    assert shown.request_count == 1002


async def _flush_after_one(town: Town, site: Any, key: str) -> None:
    assert (await ask(site, bearer(key))).status == 200
    await town.app.verifier.usage.flush(town.app.clock.now())


# --- A298 -------------------------------------------------------------------------------------


async def test_a298_no_request_sweeps_up_what_is_over(town: Town, clock: StandingClock) -> None:
    """Better Auth's plugin deletes every expired key with each request of any key."""
    key = await made(town, expires_in=None)
    over = [await made(town, expires_in=3600) for _ in range(50)]
    _, secret = await service_tokens.create(call_of(town.app), "app")
    service = {"authorization": f"Bearer {secret.reveal()}"}
    clock.advance(town.app.settings.key_retention + DAY)
    await town.app.database.write(
        lambda tx: tx.run(update(api_keys).where(api_keys.c.id == key.id).values(expires_at=None))
    )
    site = guarded_app(town.auth)
    with statements(town.app) as heard:
        for number in range(60):
            assert (await ask(site, bearer(key.key))).status == 200
            assert (await ask(site, bearer(over[number % 50].key))).status == 401
            asked = {"key": over[number % 50].key}
            told = (await town.post("/api-key/verify", service, **asked)).json()
            assert told["error"]["code"] == "KEY_EXPIRED"
        assert (await town.get("/forward", {"x-api-key": key.key})).status_code == 200
        await log_in(town.client, "u1@example.com")
        assert (await town.get("/api-key/list", service)).status_code == 200
    assert not [each for each in heard if each.startswith("DELETE FROM api_keys")]
    assert not [each for each in heard if each.startswith("DELETE FROM sessions")]
    count = select(func.count().label("n")).select_from(api_keys)
    assert (await town.app.database.read(lambda tx: tx.one(count))).n == 53  # type: ignore[union-attr]
    with statements(town.app) as heard:
        assert await upkeep.forget_ended(town.app) >= 50
    assert [each for each in heard if each.startswith("DELETE FROM api_keys")]


# --- A299, A300 -------------------------------------------------------------------------------

POOL = 5


@pytest.fixture
async def small(
    postgres_server: PostgresServer, postgres_template: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Auth]:
    """A keybearer with five connections to PostgreSQL and little patience."""
    monkeypatch.setattr(postgres, "POOL_SIZE", POOL)
    monkeypatch.setattr(postgres, "POOL_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_SECONDS", 2.0)
    url = postgres_server.create(postgres_template)
    auth = Auth(url, secret=SECRET, token_management=True)
    await auth.start()
    yield auth
    await auth.stop()
    postgres_server.drop(url)


async def idle(app: App) -> bool:
    """Whether nothing uses a connection of the pool but the serving lock."""
    pool: Any = app.database.engine.pool  # type: ignore[attr-defined]
    return int(pool.checkedout()) <= 1


async def wait_for(holds: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to hold")


async def test_a299_500_slow_checks_on_5_connections_end_in_503_and_recover(small: Auth) -> None:
    app = await small.running()
    user = await person(app)
    site = guarded_app(small)
    key = (await small.api.create_api_key(CreateKey(user_id=user.id))).key
    locker = await asyncpg.connect(small.settings.database_url)
    async with locker.transaction():
        await locker.execute("LOCK TABLE api_key_secrets, api_keys IN ACCESS EXCLUSIVE MODE")
        unknown = [mint("kb_", os.urandom).reveal() for _ in range(500)]
        answers = await asyncio.gather(*(ask(site, bearer(each)) for each in unknown))
        assert {(answer.status, answer.code) for answer in answers} == {(503, answers[0].code)}
        assert all(answer.headers["retry-after"] for answer in answers)
    await locker.close()

    async def works() -> bool:
        return (await ask(site, bearer(str(key)))).status == 200

    await wait_for(works)
    assert (await ask(site, bearer(unknown[0]))).status == 401
    await wait_for(lambda: idle(app))


async def test_a300_cancelled_requests_swap_no_answers_and_leave_nothing_open(
    town: Town, ready_url: str
) -> None:
    site = guarded_app(town.auth)
    owners = [(town.k1["key"], town.u1, town.t1), (town.k2["key"], town.u2, town.t2)]

    async def cancelled(number: int) -> None:
        key, _, token = owners[number % 2]
        asked: Any = (
            ask(site, bearer(key)),
            town.get("/api-key/list", token),
            town.post("/api-key/update", token, keyId="none", name="x"),
            town.post("/login", email=f"u{number % 2 + 1}@example.com", password="wrong"),
            town.get("/audit", token),
        )
        task = asyncio.ensure_future(asked[number % 5])
        for index, each in enumerate(asked):
            if index != number % 5:
                each.close()
        # A database answers between two turns of the loop, or after some milliseconds.
        for _ in range(number % 9):
            await asyncio.sleep(0)
        await asyncio.sleep((number % 4) / 1000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def whole(number: int) -> None:
        key, owner, token = owners[number % 2]
        answer = await ask(site, bearer(key))
        assert answer.status == 200
        assert owner.encode() in answer.body
        listed = (await town.get("/api-key/list", token)).json()["apiKeys"]
        assert {each["referenceId"] for each in listed} == {owner}

    for begin in range(0, 300, 20):
        town.app.verifier.cache.clear()
        numbers = range(begin, begin + 20)
        await asyncio.gather(*map(cancelled, numbers), *map(whole, numbers[:6]))
    await town.app.verifier.usage.flush(town.app.clock.now())
    if ready_url.startswith("postgresql"):
        await wait_for(lambda: idle(town.app))
    assert (await town.create(name="after")).status_code == 200
    assert await town.count() == 2
