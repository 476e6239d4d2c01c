"""A change goes on to its end, and what may have been committed is not answered by the old."""

import asyncio
import threading
from typing import Any

import pytest

from keybearer import Auth, Session
from keybearer.adapters.sql import keys, sessions
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Key, User
from keybearer.domain.ports import Body, Transaction
from keybearer.operations.app import App
from keybearer.operations.declaration import Empty
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey
from keybearer.operations.sessions import revoke_other_sessions, revoke_sessions
from tests.people import call_of, log_in, person


async def warm_key(auth: Auth, owner: User) -> tuple[str, dict[str, str]]:
    """A key that is cached; time stands still, so it stays."""
    made = await auth.api.create_api_key(CreateKey(name="ci", user_id=owner.id))
    headers = {"x-api-key": made.key or ""}
    assert await accepts(auth, headers)
    return made.id, headers


async def accepts(auth: Auth, headers: dict[str, str]) -> bool:
    return isinstance(await auth.api.authenticate(headers), Session)


async def until_revoked(app: App, id: str) -> None:
    async with asyncio.timeout(60):
        while True:
            key = await app.database.read(lambda tx: keys.by_id(tx, id, now=app.clock.now()))
            assert isinstance(key, Key)
            if key.revoked_at is not None:
                return
            await asyncio.sleep(0.01)


async def test_f18_a_change_whose_caller_goes_away_is_spread_all_the_same(
    auth: Auth, app: App
) -> None:
    ada = await person(app)
    for turns in range(1, 6):
        id, headers = await warm_key(auth, ada)
        change = asyncio.create_task(auth.api.revoke_api_key(RevokeKey(key_id=id)))
        for _ in range(turns):
            await asyncio.sleep(0)
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
        await until_revoked(app, id)
        await asyncio.gather(*app._changes)
        assert not await accepts(auth, headers)
    assert not app._changes


async def test_f18_a_failure_that_nobody_waits_for_any_more_makes_no_warning(app: App) -> None:
    begun, go, there = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def failing(_tx: Transaction) -> None:
        loop.call_soon_threadsafe(begun.set)
        if _runs_a_loop():
            await go.wait()
        else:
            assert there.wait(60)
        raise Failure("KEY_NOT_FOUND")

    change = asyncio.create_task(app.change(failing, lambda _: ()))
    await begun.wait()
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    go.set()
    there.set()
    await asyncio.gather(*app._changes, return_exceptions=True)


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False  # the writer's thread of SQLite
    return True


async def test_f18_a_commit_whose_answer_is_lost_is_not_answered_by_the_old(
    auth: Auth, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await person(app)
    id, headers = await warm_key(auth, ada)
    _, other = await warm_key(auth, ada)
    write = app.database.write

    async def cut(body: Body[Any]) -> Any:
        await write(body)
        raise Unavailable("the line was cut")

    with monkeypatch.context() as fault:
        fault.setattr(app.database, "write", cut)
        with pytest.raises(Unavailable) as told:
            await auth.api.revoke_api_key(RevokeKey(key_id=id))
    assert told.value.code != "REVOCATION_PENDING"
    assert not await accepts(auth, headers)
    assert await accepts(auth, other)


async def test_a_change_that_was_refused_drops_nothing(auth: Auth, app: App) -> None:
    await warm_key(auth, await person(app))
    cached, generation = len(app.verifier.cache), app.verifier.cache.generation

    async def refused(_tx: Transaction) -> tuple[str, ...]:
        raise Failure("KEY_NOT_FOUND")

    with pytest.raises(Failure):
        await app.change(refused, tuple)
    assert (len(app.verifier.cache), app.verifier.cache.generation) == (cached, generation)


@pytest.mark.parametrize("operation", [revoke_sessions, revoke_other_sessions])
async def test_f18_ending_every_login_ends_those_that_are_cached_though_ended_already(
    app: App, client: Any, operation: Any
) -> None:
    user = await person(app)
    headers, here = await log_in(client), await log_in(client)
    shown = await client.get("/api/auth/list-sessions", headers=headers)
    assert len(shown.json()) == 2
    caller = (await client.get("/api/auth/get-session", headers=here)).json()["session"]["id"]

    async def end_behind(tx: Transaction) -> None:
        await sessions.end_all(tx, user.id, app.clock.now())

    await app.database.write(end_behind)  # as by a request that committed and got no further
    me = Session(
        subject=user.id, kind="session", id=caller, session_id=caller, role="user", permissions=None
    )
    await operation(call_of(app, me), Empty())
    for each in (headers, here):
        answer = await client.get("/api/auth/list-sessions", headers=each)
        assert answer.status_code == 401
