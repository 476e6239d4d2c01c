"""Who logged in long ago gives the password again before a key is made or widened."""

from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import select

from keybearer import Auth, Failure
from keybearer.adapters.sql.tables import sessions
from keybearer.domain.model import Session, User
from keybearer.inputs import CreateKey, RotateKey, VerifyPassword
from keybearer.operations.app import App
from keybearer.operations.keybulk import UpdateKeys, update_api_keys
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RevokeKey, revoke_api_key, rotate_api_key
from keybearer.operations.keys import create_api_key
from keybearer.operations.rotation import (
    AboutRotation,
    ExtendRotation,
    cancel_rotation,
    extend_rotation,
    finish_rotation,
    get_rotation,
)
from keybearer.operations.stepup import PasswordVerified, require_fresh, verify_password
from tests.operations.test_keys import check, code_of, make
from tests.operations.test_sessions import Browser, events, rows
from tests.people import PASSWORD, SECRET, START, StandingClock, by, call_of, log_in, person

LIFE_MS = 15 * 60_000
WRONG = "not the password of anybody"
STALE = "SESSION_NOT_FRESH"
DAY_MS = 86_400_000


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app)


@pytest.fixture
def browser(client: httpx2.AsyncClient) -> Browser:
    return Browser(client)


def code(answer: httpx2.Response) -> object:
    return answer.json()["code"] if answer.is_error else None


# --- what is asked --------------------------------------------------------------------------------


async def test_for_fifteen_minutes_nobody_is_asked(
    app: App, ada: User, clock: StandingClock
) -> None:
    who = by(ada, authenticated_at=START)
    clock.advance(LIFE_MS)
    await require_fresh(call_of(app, who))
    clock.advance(1)
    assert await code_of(require_fresh(call_of(app, who))) == STALE


async def test_making_rotating_and_widening_ask_and_change_nothing(
    app: App, ada: User, clock: StandingClock
) -> None:
    who = by(ada, authenticated_at=START)
    made = await make(app, who, permissions={"files": ["read"]}, expires_in=86_400)
    off = await make(app, who)
    await update_api_key(call_of(app, who), UpdateKey(key_id=off.id, enabled=False))
    clock.advance(LIFE_MS + 1)
    call = call_of(app, who)
    assert await code_of(create_api_key(call, CreateKey())) == STALE
    assert await code_of(rotate_api_key(call, RotateKey(key_id=made.id))) == STALE
    widening: list[dict[str, Any]] = [
        {"permissions": {"files": ["read", "write"]}},
        {"permissions": None},
        {"ip_allow": ["203.0.113.0/24"]},
        {"ip_allow": None},
        {"expires_in": 60},
        {"expires_in": None},
        {"expires_at": "2027-01-01T00:00:00Z"},
        {"expires_at": None},
        {"enabled": True},
        {"name": "new", "enabled": True},
    ]
    for change in widening:
        # Whether the key exists, and whose it is, makes no difference.
        for id in (off.id, "0193b2f0-0000-7000-8000-000000000000"):
            asked = update_api_key(call, UpdateKey(key_id=id, **change))
            assert await code_of(asked) == STALE, change
    both = UpdateKeys(key_ids=[off.id, made.id], enabled=True)
    assert await code_of(update_api_keys(call, both)) == STALE
    assert isinstance(await check(app, made.key), Session)
    assert not isinstance(await check(app, off.key), Session)


async def test_to_let_an_old_secret_live_on_asks_and_to_end_it_does_not(
    app: App, ada: User, clock: StandingClock
) -> None:
    who = by(ada, authenticated_at=START)
    made = await make(app, who)
    clock.advance(1)
    await rotate_api_key(call_of(app, who), RotateKey(key_id=made.id))
    clock.advance(LIFE_MS)
    call, asked = call_of(app, who), AboutRotation(key_id=made.id)
    before = await get_rotation(call, asked)
    for id in (made.id, "0193b2f0-0000-7000-8000-000000000000"):
        for grace in (None, 0, 60):
            extend = ExtendRotation(key_id=id, grace_period=grace)
            assert await code_of(extend_rotation(call, extend)) == STALE
        assert await code_of(cancel_rotation(call, AboutRotation(key_id=id))) == STALE
    assert await get_rotation(call, asked) == before
    assert (await finish_rotation(call, asked)).status == "active"
    assert not isinstance(await check(app, made.key), Session)


async def test_what_narrows_is_not_asked(app: App, ada: User, clock: StandingClock) -> None:
    who = by(ada, authenticated_at=START)
    made, other = await make(app, who), await make(app, who)
    clock.advance(DAY_MS)
    call = call_of(app, who)
    change = UpdateKey(key_id=made.id, name="new", description="d", metadata={}, enabled=False)
    assert (await update_api_key(call, change)).name == "new"
    off = await update_api_keys(call, UpdateKeys(key_ids=[other.id], enabled=False))
    assert off.results[0].success
    assert (await revoke_api_key(call, RevokeKey(key_id=made.id))).success


async def test_off_asks_nobody(app: App, ada: User, clock: StandingClock) -> None:
    object.__setattr__(app, "settings", msgspec.structs.replace(app.settings, step_up_after=None))
    clock.advance(DAY_MS)
    assert (await make(app, by(ada, authenticated_at=START))).key


async def test_a_login_of_which_nobody_knows_when_is_not_fresh(app: App, ada: User) -> None:
    who = msgspec.structs.replace(by(ada), authenticated_at=None)
    assert await code_of(require_fresh(call_of(app, who))) == STALE


# --- who is asked ---------------------------------------------------------------------------------


async def test_a_program_is_not_asked_and_a_browsers_access_token_is(
    app: App, client: httpx2.AsyncClient, ada: User, browser: Browser, clock: StandingClock
) -> None:
    pair = (
        await client.post("/api/auth/login", json={"email": ada.email, "password": PASSWORD})
    ).json()
    await browser.sign_in()
    clock.advance(LIFE_MS + 1)
    again = (
        await client.post("/api/auth/refresh", json={"refreshToken": pair["refreshToken"]})
    ).json()
    create = "/api/auth/api-key/create"
    program = {"authorization": f"Bearer {again['token']}"}
    assert code(await client.post(create, json={}, headers=program)) is None
    # The same login under another name: a copied cookie must not get round by it.
    token = (await browser.get("/token")).json()["token"]
    theirs = {"authorization": f"Bearer {token}"}
    assert code(await client.post(create, json={}, headers=theirs)) == STALE
    assert code(await browser.post("/api-key/create")) == STALE
    assert code(await browser.post("/verify-password", password=PASSWORD)) is None
    assert code(await client.post(create, json={}, headers=theirs)) is None


async def test_the_app_a_service_and_a_key_are_not_asked(
    auth: Auth, app: App, ada: User, clock: StandingClock
) -> None:
    service = Session(subject="service", kind="service", id="s")
    clock.advance(DAY_MS)
    made = await create_api_key(call_of(app, service), CreateKey(user_id=ada.id))
    assert (await auth.api.rotate_api_key(RotateKey(key_id=made.id), owner=ada.id)).key
    itself = Session(subject=ada.id, kind="key", id=made.id)
    assert (await rotate_api_key(call_of(app, itself), RotateKey())).key


async def test_people_of_the_host_app_are_not_asked(ready_url: str, clock: StandingClock) -> None:
    async def identify(_headers: object) -> str | None:
        return "host-7"

    auth = Auth(
        ready_url, secret=SECRET, accounts=False, identify=identify, clock=clock,
        token_management=True,
    )  # fmt: skip
    async with auth.lifespan():
        clock.advance(DAY_MS)
        made = await auth.api.create_api_key(CreateKey(), headers={"cookie": "theirs=1"})
        assert made.reference_id == "host-7"
        with pytest.raises(Failure, match="NOT_FOUND"):
            await auth.api.verify_password(VerifyPassword(password=PASSWORD), headers={"a": "b"})


# --- the password again ---------------------------------------------------------------------------


async def test_the_right_password_makes_the_login_fresh_with_a_new_token(
    app: App, client: httpx2.AsyncClient, ada: User, browser: Browser, clock: StandingClock
) -> None:
    await browser.sign_in()
    copied, handle = dict(browser.cookie), await browser.handle()
    [before] = await rows(app, select(sessions))
    clock.advance(LIFE_MS + 1)
    answer = await browser.post("/verify-password", password=PASSWORD)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["token"]
    assert answer.json() == {"status": True, "token": token}
    assert app.ring.unsign(answer.headers["set-auth-token"]) == token
    assert answer.headers["set-cookie"].endswith("; Max-Age=604800; Path=/; HttpOnly; SameSite=Lax")
    [after] = await rows(app, select(sessions))
    assert (after.id, after.expires_at, after.created_at) == (
        handle, before.expires_at, before.created_at,
    )  # fmt: skip
    assert after.authenticated_at == clock.now()
    assert after.token_digest != before.token_digest
    assert await events(app, ada.id) == ["session.opened", "session.confirmed"]

    old = await client.get("/api/auth/list-sessions", headers=copied)
    assert (old.status_code, old.json()["code"]) == (401, "INVALID_ACCESS_TOKEN")
    assert await browser.handle() == handle
    session = await app.verifier.verify([(b"authorization", f"Bearer {token}".encode())], None)
    assert isinstance(session, Session)
    assert (session.id, session.authenticated_at) == (handle, clock.now())
    assert code(await browser.post("/api-key/create")) is None


async def test_a_cookie_that_ends_with_the_browser_goes_on_ending_with_it(
    ada: User, browser: Browser, clock: StandingClock
) -> None:
    await browser.sign_in(rememberMe=False)
    clock.advance(60_000)
    answer = await browser.post("/verify-password", password=PASSWORD)
    assert "Max-Age" not in answer.headers["set-cookie"]
    clock.advance(DAY_MS - 60_000)
    assert not await browser.is_in()  # a day after the log-in, as before


async def test_a_program_confirms_and_keeps_its_access_token(
    app: App, client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    headers = await log_in(client)
    clock.advance(60_000)
    answer = await client.post(
        "/api/auth/verify-password", json={"password": PASSWORD}, headers=headers
    )
    assert answer.json() == {"status": True, "token": None}
    assert "set-cookie" not in answer.headers
    assert "set-auth-token" not in answer.headers
    [row] = await rows(app, select(sessions))
    assert (row.authenticated_at, row.token_digest) == (clock.now(), None)
    assert (await client.get("/api/auth/list-sessions", headers=headers)).status_code == 200


async def test_a_wrong_password_changes_nothing_and_counts_as_at_a_login(
    app: App, ada: User, browser: Browser, clock: StandingClock
) -> None:
    await browser.sign_in()
    clock.advance(LIFE_MS + 1)
    for _ in range(5):
        answer = await browser.post("/verify-password", password=WRONG)
        assert (answer.status_code, code(answer)) == (400, "INVALID_PASSWORD")
    throttled = await browser.post("/verify-password", password=PASSWORD)
    assert (throttled.status_code, code(throttled)) == (429, "TOO_MANY_ATTEMPTS")
    assert code(await browser.post("/api-key/create")) == STALE
    [row] = await rows(app, select(sessions))
    assert row.authenticated_at == START
    clock.advance(1000)
    assert code(await browser.post("/verify-password", password=PASSWORD)) is None


@pytest.mark.parametrize("password", [None, 1, [PASSWORD], "x" * 4097, ""])
async def test_what_is_no_password_confirms_nothing(
    ada: User, browser: Browser, password: object
) -> None:
    await browser.sign_in()
    answer = await browser.post("/verify-password", password=password)
    assert answer.status_code == 400
    assert code(answer) == ("INVALID_PASSWORD" if password == "" else "VALIDATION_ERROR")


async def test_a_login_that_has_ended_meanwhile_is_not_confirmed(app: App, ada: User) -> None:
    for session_id in ("gone", ""):
        asked = verify_password(
            call_of(app, by(ada, session_id)), VerifyPassword(password=PASSWORD)
        )
        assert await code_of(asked) == "SESSION_ENDED"


async def test_neither_the_app_nor_a_key_confirms_a_password(app: App, ada: User) -> None:
    for kind in ("operator", "key"):
        who = Session(subject=ada.id, kind=kind, id="x")
        asked = verify_password(call_of(app, who), VerifyPassword(password=PASSWORD))
        assert await code_of(asked) == "SESSION_REQUIRED"


def test_the_new_token_is_not_shown() -> None:
    assert "CANARY" not in repr(PasswordVerified(token="CANARY"))
