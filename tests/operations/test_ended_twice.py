"""Whoever ends what has ended already is answered no sooner than whoever ended it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import select, update

from keybearer import Auth
from keybearer.adapters.sql import audit
from keybearer.adapters.sql.tables import sessions
from keybearer.domain.model import ANONYMOUS, User
from keybearer.operations.app import App
from keybearer.operations.refreshing import refresh_once
from keybearer.verification.coherence import CLOCKS_MS, LEASE_MS, SLACK_MS
from keybearer.web.mount import no_app
from tests.attacks.nodes import open_nodes
from tests.people import PASSWORD, StandingClock, call_of, person

API = "/api/auth"
ADA = "ada@example.com"

Pair = dict[str, Any]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def login(client: httpx2.AsyncClient) -> Pair:
    answer = await client.post(f"{API}/login", json={"email": ADA, "password": PASSWORD})
    pair: Pair = answer.json()
    return pair


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post(f"{API}/refresh", json={"refreshToken": token})


async def logout(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await client.post(f"{API}/logout", json={}, headers=bearer(pair["token"]))


async def sign_out(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await client.post(f"{API}/sign-out", json={}, headers=bearer(pair["token"]))


async def logout_by_refresh_token(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await client.post(f"{API}/logout", json={"refreshToken": pair["refreshToken"]})


async def revoke_access(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await client.post(f"{API}/revoke", data={"token": pair["token"]})


async def revoke_refresh(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await client.post(f"{API}/revoke", data={"token": pair["refreshToken"]})


async def reuse(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await refresh(client, pair["spent"])


async def refresh_on(client: httpx2.AsyncClient, pair: Pair) -> httpx2.Response:
    return await refresh(client, pair["refreshToken"])


End = Callable[[httpx2.AsyncClient, Pair], Any]
ENDS: tuple[End, ...] = (
    logout,
    sign_out,
    logout_by_refresh_token,
    revoke_access,
    revoke_refresh,
    reuse,
)


async def with_spent(client: httpx2.AsyncClient) -> Pair:
    """A login with a token that was spent two refreshes ago."""
    first = await login(client)
    second = (await refresh(client, first["refreshToken"])).json()
    third = (await refresh(client, second["refreshToken"])).json()
    return {**third, "spent": first["refreshToken"]}


async def changes(app: App) -> int:
    """How many changes there were."""
    await app.verifier.lease.renew()
    return app.verifier.lease.seq


# --- several nodes ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def client_of(auth: Auth) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.mark.parametrize("ready_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("end", [logout, revoke_access, reuse], ids=lambda end: end.__name__)
async def test_it_is_waited_for_again(ready_url: str, redis_url: str, end: End) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(open_nodes(ready_url, [redis_url] * 3))
        silent, first, second = [
            await stack.enter_async_context(client_of(auth)) for auth in nodes.auths
        ]
        pair = await with_spent(first)

        async def accepts() -> bool:
            answer = await silent.get(f"{API}/forward", headers=bearer(pair["token"]))
            return answer.status_code == 200

        assert await accepts()  # and has it in its cache
        auth = nodes.auths[0]
        assert auth.node is not None
        assert auth.node.bus is not None
        assert auth._jobs is not None
        auth._jobs.stopping.set()  # from here it hears nothing, and has the lease it has
        await auth.node.bus.stop()
        await auth.node.lease.renew()
        waiting = asyncio.create_task(end(first, pair))
        while not await _has_ended(await nodes.auths[2].running()):  # noqa: ASYNC110 -- no event is set
            await asyncio.sleep(0.01)
        assert not waiting.done()
        answer = await end(second, pair)
        assert answer.status_code == (401 if end is reuse else 200)
        assert not await accepts()
        assert (await waiting).status_code == answer.status_code


async def _has_ended(app: App) -> bool:
    ended = select(sessions.c.id).where(sessions.c.ended_at.is_not(None))
    return await app.database.read(lambda tx: tx.one(ended)) is not None


# --- for how long, and how often -------------------------------------------------------------


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app, ADA)


@pytest.mark.parametrize("end", [*ENDS, refresh_on], ids=lambda end: end.__name__)
async def test_it_is_a_change_until_every_lease_of_then_is_over(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock, end: End
) -> None:
    pair = await with_spent(client)
    assert (await logout(client, pair)).status_code == 200
    before = await changes(app)
    clock.advance(LEASE_MS + SLACK_MS + CLOCKS_MS)
    answer = await end(client, pair)
    assert answer.status_code == (401 if end in (reuse, refresh_on) else 200)
    assert await changes(app) == before + 1
    clock.advance(1)
    assert (await end(client, pair)).status_code == answer.status_code
    assert await changes(app) == before + 1


async def test_leases_that_are_stretched_count(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    await logout(client, pair)
    before = await changes(app)
    stretched = msgspec.structs.replace(app.settings, stale_if_database_lost=600_000)
    object.__setattr__(app, "settings", stretched)
    clock.advance(LEASE_MS + 600_000 + SLACK_MS + CLOCKS_MS)
    await revoke_refresh(client, pair)
    assert await changes(app) == before + 1
    clock.advance(1)
    await revoke_refresh(client, pair)
    assert await changes(app) == before + 1


async def test_a_login_whose_time_is_over_is_ended_once(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    await _run(app, update(sessions).values(idle_ms=1))
    clock.advance(1)
    before = await changes(app)
    for _ in range(2):
        assert (await logout(client, pair)).status_code == 200
        clock.advance(100_000)
    assert await changes(app) == before + 1


async def test_a_log_out_with_two_tokens_of_one_login_is_one_change(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair, other = await login(client), await login(client)
    before = await changes(app)
    for token, more in ((pair["refreshToken"], 1), (other["refreshToken"], 3)):
        await client.post(
            f"{API}/logout", json={"refreshToken": token}, headers=bearer(pair["token"])
        )
        assert await changes(app) == before + more


@pytest.mark.parametrize("end", [logout, revoke_refresh, reuse], ids=lambda end: end.__name__)
async def test_a_dead_token_makes_no_change_after_change(
    client: httpx2.AsyncClient, app: App, ada: User, end: End
) -> None:
    pair, other = await with_spent(client), await login(client)
    await logout(client, pair)
    before = await changes(app)
    statuses = [(await end(client, pair)).status_code for _ in range(110)]
    assert statuses[:100] == [401 if end is reuse else 200] * 100
    assert statuses[100:] == [429] * 10
    assert await changes(app) == before + 100
    assert (await logout(client, other)).status_code == 200  # the first time it always ends


async def test_a_hundred_at_once_are_one_change(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair = await with_spent(client)
    await logout(client, pair)
    before = await changes(app)
    calls = [refresh_once(call_of(app, ANONYMOUS), pair["spent"]) for _ in range(100)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {getattr(answer, "code", None) for answer in answers} == {"INVALID_REFRESH_TOKEN"}
    assert await changes(app) - before <= 10


async def test_whoever_is_logged_in_ends_others_as_often_as_need_be(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair, other = await login(client), await login(client)
    [handle] = [
        row.id
        for row in await app.database.read(lambda tx: tx.all(select(sessions.c.id)))
        if row.id not in _current(await _listed(client, pair))
    ]
    await logout(client, other)
    for _ in range(110):
        answer = await client.post(
            f"{API}/revoke-session", json={"token": handle}, headers=bearer(pair["token"])
        )
        assert answer.status_code == 200


async def test_it_is_recorded_once(client: httpx2.AsyncClient, app: App, ada: User) -> None:
    pair = await with_spent(client)
    for end in ENDS:
        await end(client, pair)
    trail = await app.database.read(lambda tx: audit.newest(tx, limit=100))
    assert [event.event for event in trail].count("session.ended") == 1
    assert "refresh.reuse" not in {event.event for event in trail}


async def _listed(client: httpx2.AsyncClient, pair: Pair) -> list[dict[str, Any]]:
    answer = await client.get(f"{API}/list-sessions", headers=bearer(pair["token"]))
    listed: list[dict[str, Any]] = answer.json()
    return listed


def _current(listed: list[dict[str, Any]]) -> set[str]:
    return {each["id"] for each in listed if each["current"]}


async def _run(app: App, statement: Any) -> None:
    async def body(tx: Any) -> None:
        await tx.run(statement)

    await app.database.write(body)
