import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import delete, insert, select

from keybearer.adapters.sql import audit
from keybearer.adapters.sql import sessions as sql
from keybearer.adapters.sql.tables import refresh_tokens, sessions, users
from keybearer.domain.errors import Failure
from keybearer.domain.ids import is_id
from keybearer.domain.model import ANONYMOUS, Session, User
from keybearer.domain.ports import Row, Transaction
from keybearer.operations import people
from keybearer.operations.app import App
from keybearer.operations.sessions import (
    AskSession,
    SessionAndUser,
    SessionRecord,
    SignedIn,
    SignIn,
)
from keybearer.operations.sessions import get_session as operation
from tests.people import PASSWORD, START, StandingClock, call_of, log_in, make_key, person

API = "/api/auth"
ADA = "ada@example.com"
DAY_MS = 86_400_000
ORIGIN = {"origin": "http://127.0.0.1:8000"}
AGENT = {"user-agent": "Browser/1 (desk)"}
CLEARED = "keybearer.session_token=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"


class Browser:
    """One browser: keeps the cookie that it was given."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.cookie: dict[str, str] = {}

    async def post(self, path: str, **json: object) -> httpx2.Response:
        answer = await self._client.post(API + path, json=json, headers=self._headers())
        return self._keep(answer)

    async def get(self, path: str) -> httpx2.Response:
        return self._keep(await self._client.get(API + path, headers=self._headers()))

    async def sign_in(self, email: str = ADA, **more: object) -> httpx2.Response:
        answer = await self.post("/sign-in/email", email=email, password=PASSWORD, **more)
        assert answer.status_code == 200, answer.text
        return answer

    async def session(self) -> Any:
        return (await self.get("/get-session")).json()

    async def handle(self) -> str:
        """What the own login is ended by."""
        return str((await self.session())["session"]["token"])

    async def is_in(self) -> bool:
        return await self.session() is not None

    def _headers(self) -> dict[str, str]:
        return ORIGIN | AGENT | self.cookie

    def _keep(self, answer: httpx2.Response) -> httpx2.Response:
        self._client.cookies.clear()
        if "set-cookie" in answer.headers:
            self.cookie = {"cookie": answer.headers["set-cookie"].split(";")[0]}
        return answer


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app, ADA)


@pytest.fixture
def browsers(client: httpx2.AsyncClient) -> tuple[Browser, Browser, Browser]:
    return Browser(client), Browser(client), Browser(client)


async def rows(app: App, statement: object) -> Sequence[Row]:
    async def body(tx: Transaction) -> Sequence[Row]:
        return await tx.all(statement)

    return await app.database.read(body)


async def run(app: App, statement: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(statement)

    await app.database.write(body)


async def events(app: App, owner: str) -> list[str]:
    """The owner's trail of logins, oldest first."""
    found = await app.database.read(lambda tx: audit.newest(tx, owner_id=owner, limit=1000))
    return [each.event for each in found if each.event.startswith("session.")][::-1]


# --- sign-in ---


async def test_a_sign_in_answers_as_better_auth_does(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    answer = await Browser(client).sign_in()
    body = answer.json()
    token = body["token"]
    assert list(body) == ["redirect", "token", "user"]
    assert body["redirect"] is False
    assert body["user"] == {
        "name": "Ada", "email": ADA, "emailVerified": True, "image": None,
        "createdAt": "2026-11-18T11:06:40.000Z", "updatedAt": "2026-11-18T11:06:40.000Z",
        "id": ada.id, "locale": None,
    }  # fmt: skip
    assert len(token) == 32
    assert answer.headers["cache-control"] == "no-store"
    signed = answer.headers["set-auth-token"]
    assert signed.startswith(f"{token}.")
    assert app.ring.unsign(signed) == token
    assert answer.headers["set-cookie"].endswith(
        "%3D; Max-Age=604800; Path=/; HttpOnly; SameSite=Lax"
    )
    [row] = await rows(app, select(sessions))
    assert (row.user_id, row.client_id, row.ip) == (ada.id, "browser", "127.0.0.1")
    assert (row.expires_at, row.idle_ms) == (START + 7 * DAY_MS, DAY_MS)
    assert await events(app, ada.id) == ["session.opened"]


async def test_the_session_token_is_good_as_bearer_too_bare_and_signed(
    client: httpx2.AsyncClient, ada: User
) -> None:
    answer = await Browser(client).sign_in()
    for token in (answer.json()["token"], answer.headers["set-auth-token"]):
        got = await client.get(f"{API}/get-session", headers={"authorization": f"Bearer {token}"})
        assert got.json()["user"]["id"] == ada.id


async def test_a_login_that_is_not_remembered_ends_with_the_browser_or_in_a_day(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    answer = await Browser(client).sign_in(rememberMe=False)
    assert "Max-Age" not in answer.headers["set-cookie"]
    [row] = await rows(app, select(sessions))
    assert row.expires_at == START + DAY_MS


async def test_a_callback_of_ours_is_handed_back_and_another_refused(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    browser = Browser(client)
    body = (await browser.sign_in(callbackURL="/account")).json()
    assert (body["redirect"], body["url"]) == (True, "/account")
    refused = await browser.post(
        "/sign-in/email", email=ADA, password=PASSWORD, callbackURL="https://evil.example"
    )
    assert 400 <= refused.status_code < 404
    assert len(await rows(app, select(sessions))) == 1


async def test_a_wrong_password_opens_nothing(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    answer = await Browser(client).post("/sign-in/email", email=ADA, password="wrong " + PASSWORD)
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_EMAIL_OR_PASSWORD")
    assert "set-cookie" not in answer.headers
    assert await rows(app, select(sessions)) == []


async def test_a_sign_in_makes_a_new_token_and_ends_the_login_before_it(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    browser, thief = Browser(client), Browser(client)
    await browser.sign_in()
    thief.cookie = browser.cookie
    assert await thief.is_in()
    await browser.sign_in()
    assert browser.cookie != thief.cookie
    assert await browser.is_in()
    assert not await thief.is_in()
    assert await events(app, ada.id) == ["session.opened", "session.ended", "session.opened"]


async def test_a_sign_in_as_somebody_else_ends_the_login_of_the_first(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    bob = await person(app, "bob@example.com")
    browser = Browser(client)
    await browser.sign_in()
    await browser.sign_in("bob@example.com")
    assert (await browser.session())["user"]["id"] == bob.id
    assert await events(app, ada.id) == ["session.opened", "session.ended"]
    assert await events(app, bob.id) == ["session.opened"]


async def test_browsers_that_change_owners_at_once_do_not_block_each_other(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    await person(app, "bob@example.com")
    names = (ADA, "bob@example.com")
    pool = [Browser(client) for _ in range(10)]
    for number, browser in enumerate(pool):
        await browser.sign_in(names[number % 2])
    await asyncio.gather(*(browser.sign_in(names[(n + 1) % 2]) for n, browser in enumerate(pool)))
    live = await rows(app, select(sessions).where(sessions.c.ended_at.is_(None)))
    assert len(live) == 10


# --- a changed password ---

NEW_PASSWORD = "seven lamps under green rain"
CHANGE = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}


async def test_a_changed_password_gives_the_browser_a_new_cookie_and_kills_the_old(
    browsers: tuple[Browser, Browser, Browser], ada: User
) -> None:
    here, there, thief = browsers
    await here.sign_in()
    await there.sign_in()
    thief.cookie = here.cookie
    answer = await here.post("/change-password", **CHANGE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["set-auth-token"].startswith(answer.json()["token"] + ".")
    assert "; Max-Age=604800; " in answer.headers["set-cookie"]
    assert here.cookie != thief.cookie
    assert [await each.is_in() for each in browsers] == [True, False, False]


async def test_a_login_that_is_not_remembered_stays_one_when_the_password_changes(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    browser = Browser(client)
    await browser.sign_in(rememberMe=False)
    clock.advance(3_600_000)
    answer = await browser.post("/change-password", **CHANGE)
    assert "Max-Age" not in answer.headers["set-cookie"]
    [row] = await rows(app, select(sessions).where(sessions.c.ended_at.is_(None)))
    assert (row.client_id, row.authenticated_at) == ("browser", START + 3_600_000)
    assert row.expires_at == START + 3_600_000 + DAY_MS


async def test_a_changed_password_gives_a_program_new_tokens_and_kills_the_old(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    asked = {"email": ADA, "password": PASSWORD, "clientId": "phone"}
    before = (await client.post(f"{API}/login", json=asked)).json()
    bearer = {"authorization": f"Bearer {before['token']}"}
    answer = await client.post(f"{API}/change-password", json=CHANGE, headers=bearer)
    after = answer.json()
    assert "set-cookie" not in answer.headers
    assert set(after) == set(before)
    assert (after["tokenType"], after["expiresIn"]) == ("Bearer", 300)
    for pair, status in ((before, 401), (after, 200)):
        headers = {"authorization": f"Bearer {pair['token']}"}
        told = await client.get(f"{API}/list-sessions", headers=headers)
        assert told.status_code == status
        told = await client.post(f"{API}/refresh", json={"refreshToken": pair["refreshToken"]})
        assert told.status_code == status
    [row] = await rows(app, select(sessions).where(sessions.c.ended_at.is_(None)))
    assert row.client_id == "phone"


async def test_a_token_of_a_browser_begins_a_login_of_that_browser(
    client: httpx2.AsyncClient, ada: User
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    token = (await browser.get("/token")).json()["token"]
    answer = await client.post(
        f"{API}/change-password", json=CHANGE, headers={"authorization": f"Bearer {token}"}
    )
    assert set(answer.json()) == {"token", "user"}
    assert answer.headers["set-auth-token"].startswith(answer.json()["token"] + ".")


# --- set-auth-jwt ---


async def test_who_is_logged_in_gets_an_access_token_beside_the_session(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    browser = Browser(client)
    assert "set-auth-jwt" not in (await browser.get("/get-session")).headers
    await browser.sign_in()
    answer = await browser.get("/get-session")
    assert answer.headers["access-control-expose-headers"] == "set-auth-jwt"
    headers = {"authorization": f"Bearer {answer.headers['set-auth-jwt']}"}
    told = await client.get(f"{API}/get-session", headers=headers)
    assert told.json()["user"]["id"] == ada.id
    # An access token never fetches its own successor.
    assert "set-auth-jwt" not in told.headers
    object.__setattr__(app, "jwt", False)
    assert "set-auth-jwt" not in (await browser.get("/get-session")).headers


# --- get-session ---


@pytest.mark.parametrize(
    "query", ["disableCookieCache=true", "disableRefresh=false&disableCookieCache=1"]
)
async def test_what_better_auths_client_asks_of_the_session_is_taken(
    client: httpx2.AsyncClient, ada: User, query: str
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    answer = await browser.get(f"/get-session?{query}")
    assert answer.json()["user"]["email"] == ADA
    refused = await browser.get("/get-session?disableCookieCache=perhaps")
    assert refused.status_code == 400
    assert refused.json()["message"] == "disableCookieCache must be true or false."


async def test_what_better_auths_client_sends_with_a_sign_out_is_taken(
    client: httpx2.AsyncClient, ada: User
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    answer = await browser.post("/sign-out", callbackURL="/bye", disableRedirect=True, state="x")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert not await browser.is_in()


async def test_get_session_shows_a_handle_and_never_the_token(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    browser = Browser(client)
    token = (await browser.sign_in()).json()["token"]
    answer = await browser.get("/get-session")
    session = answer.json()["session"]
    assert token not in answer.text
    assert is_id(session["id"])
    assert session == {
        "expiresAt": "2026-11-19T11:06:40.000Z", "token": session["id"],
        "createdAt": "2026-11-18T11:06:40.000Z", "updatedAt": "2026-11-18T11:06:40.000Z",
        "ipAddress": "127.0.0.1", "userAgent": "Browser/1 (desk)", "userId": ada.id,
        "id": session["id"], "current": True,
    }  # fmt: skip
    assert answer.json()["user"]["email"] == ADA
    handle = {"authorization": f"Bearer {session['token']}"}
    assert (await client.get(f"{API}/get-session", headers=handle)).status_code == 401


async def test_get_session_is_null_without_a_login_and_with_the_cookie_of_one_that_is_over(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    browser = Browser(client)
    answer = await browser.get("/get-session")
    assert (answer.status_code, answer.content) == (200, b"null")
    await browser.sign_in()
    assert await browser.is_in()
    clock.advance(DAY_MS)
    assert not await browser.is_in()


async def test_get_session_takes_an_access_token_and_refuses_a_key(
    client: httpx2.AsyncClient, ada: User
) -> None:
    headers = await log_in(client)
    answer = await client.get(f"{API}/get-session", headers=headers)
    assert answer.json()["user"]["id"] == ada.id
    key = (await make_key(client, headers))["key"]
    refused = await client.get(f"{API}/get-session", headers={"x-api-key": key})
    assert (refused.status_code, refused.json()["code"]) == (403, "SESSION_REQUIRED")


async def test_get_session_is_null_when_login_or_user_went_meanwhile(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    await Browser(client).sign_in()
    [row] = await rows(app, select(sessions))
    caller = Session(subject=ada.id, kind="session", id=row.id, session_id=row.id)
    assert isinstance(await operation(call_of(app, caller), AskSession()), SessionAndUser)
    gone = msgspec.structs.replace(caller, session_id="gone")
    assert await operation(call_of(app, gone), AskSession()) is None
    assert await operation(call_of(app, ANONYMOUS), AskSession()) is None
    assert await operation(call_of(app), AskSession()) is None  # the app itself has no login
    await run(app, delete(users))
    assert await operation(call_of(app, caller), AskSession()) is None


async def test_use_moves_the_idle_end_but_never_past_the_absolute_one(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    for _ in range(6):
        clock.advance(DAY_MS - 60_000)
        assert await browser.is_in()
        await browser.get("/list-sessions")  # writes what was counted
    clock.advance(DAY_MS - 60_000)
    assert await browser.is_in()
    clock.advance(7 * 60_000)
    assert not await browser.is_in()


# --- list and revoke ---


async def test_logins_are_listed_the_last_used_first_and_only_ones_own(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock,
    browsers: tuple[Browser, Browser, Browser],
) -> None:  # fmt: skip
    await person(app, "bob@example.com")
    first, second, bob = browsers
    await first.sign_in()
    clock.advance(1_000)
    await second.sign_in()
    await bob.sign_in("bob@example.com")
    clock.advance(1_000)
    listed = (await first.get("/list-sessions")).json()
    assert [each["current"] for each in listed] == [True, False]
    assert [each["token"] for each in listed] == [await first.handle(), await second.handle()]
    assert {each["userId"] for each in listed} == {ada.id}
    assert [each["updatedAt"] for each in listed] == [
        "2026-11-18T11:06:42.000Z", "2026-11-18T11:06:41.000Z",
    ]  # fmt: skip


async def test_a_login_without_address_and_agent_has_empty_ones(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    now = app.clock.now()
    await run(
        app,
        insert(sessions).values(
            id="other", user_id=ada.id, client_id="cli", created_at=now, last_seen_at=now,
            authenticated_at=now, expires_at=now + DAY_MS, idle_ms=DAY_MS,
        ),
    )  # fmt: skip
    listed = (await browser.get("/list-sessions")).json()
    [other] = [each for each in listed if each["id"] == "other"]
    assert (other["ipAddress"], other["userAgent"]) == ("", "")


async def test_a_login_is_ended_by_its_handle_at_once(
    app: App, ada: User, browsers: tuple[Browser, Browser, Browser]
) -> None:
    here, there, third = browsers
    for browser in browsers:
        await browser.sign_in()
    handle = await there.handle()
    for _ in range(2):
        answer = await here.post("/revoke-session", token=handle)
        assert (answer.status_code, answer.json()) == (200, {"status": True})
        assert "set-cookie" not in answer.headers
        assert not await there.is_in()
    assert await here.is_in()
    assert await third.is_in()
    assert (await events(app, ada.id)).count("session.ended") == 1


async def test_ending_the_own_login_clears_the_cookie(
    client: httpx2.AsyncClient, ada: User
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    answer = await browser.post("/revoke-session", token=await browser.handle())
    assert answer.headers["set-cookie"] == CLEARED
    assert not await browser.is_in()


async def test_a_handle_of_nobodys_or_somebody_elses_changes_nothing(
    app: App, ada: User, browsers: tuple[Browser, Browser, Browser]
) -> None:
    await person(app, "bob@example.com")
    here, bob, _ = browsers
    await here.sign_in()
    token = (await bob.sign_in("bob@example.com")).json()["token"]
    for handle in ("nobody", await bob.handle(), token):
        answer = await here.post("/revoke-session", token=handle)
        assert (answer.status_code, answer.json()) == (200, {"status": True})
    assert await bob.is_in()


async def test_every_other_login_ends_with_its_tokens(
    client: httpx2.AsyncClient, app: App, ada: User, browsers: tuple[Browser, Browser, Browser]
) -> None:
    here, there, bob = browsers
    await person(app, "bob@example.com")
    await here.sign_in()
    await there.sign_in()
    await bob.sign_in("bob@example.com")
    program = await log_in(client)
    answer = await here.post("/revoke-other-sessions")
    assert (answer.status_code, answer.json()) == (200, {"status": True})
    assert "set-cookie" not in answer.headers
    assert [await each.is_in() for each in browsers] == [True, False, True]
    assert (await client.get(f"{API}/get-session", headers=program)).status_code == 401
    [family] = await rows(app, select(refresh_tokens))
    assert family.ended_at == app.clock.now()


async def test_every_login_ends_this_one_too(
    ada: User, browsers: tuple[Browser, Browser, Browser]
) -> None:
    for browser in browsers:
        await browser.sign_in()
    answer = await browsers[0].post("/revoke-sessions")
    assert answer.json() == {"status": True}
    assert answer.headers["set-cookie"] == CLEARED
    assert [await each.is_in() for each in browsers] == [False] * 3


async def test_ends_and_refreshes_of_one_user_at_once_never_wait_for_each_other_in_a_circle(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pool = [Browser(client) for _ in range(8)]
    for browser in pool:
        await browser.sign_in()
    answers = await asyncio.gather(
        *(browser.post("/revoke-other-sessions") for browser in pool[:4]),
        *(browser.post("/revoke-sessions") for browser in pool[4:]),
        people.disable(call_of(app), ADA),
        return_exceptions=True,
    )
    *answered, _ = answers
    assert {isinstance(each, httpx2.Response) and each.status_code for each in answered} <= {
        200,
        401,
    }
    live = await rows(app, select(sessions).where(sessions.c.ended_at.is_(None)))
    assert live == []
    assert (await events(app, ada.id)).count("session.ended") <= 8


# --- sign-out, and what is no more ---


async def test_sign_out_ends_the_login_and_says_the_same_without_one(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    browser, thief = Browser(client), Browser(client)
    await browser.sign_in()
    thief.cookie = browser.cookie
    for _ in range(2):
        answer = await browser.post("/sign-out")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert answer.headers["set-cookie"] == CLEARED
    assert not await thief.is_in()
    assert await events(app, ada.id) == ["session.opened", "session.ended"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/list-sessions"),
        ("POST", "/revoke-session"),
        ("POST", "/revoke-sessions"),
        ("POST", "/revoke-other-sessions"),
    ],
)
async def test_managing_logins_takes_a_login(
    client: httpx2.AsyncClient, ada: User, method: str, path: str
) -> None:
    body = {"token": "x"} if path == "/revoke-session" else None
    nobody = await client.request(method, API + path, json=body)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "UNAUTHORIZED")
    key = (await make_key(client, await log_in(client)))["key"]
    by_key = await client.request(method, API + path, json=body, headers={"x-api-key": key})
    assert (by_key.status_code, by_key.json()["code"]) == (403, "SESSION_REQUIRED")


async def test_logins_long_over_are_forgotten_with_their_families(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    await log_in(client)
    await Browser(client).sign_in()
    end = START + 90 * DAY_MS

    async def forget(before: int) -> int:
        return await app.database.write(lambda tx: sql.forget_ended(tx, before=before))

    assert await forget(START + 7 * DAY_MS) == 0
    assert await forget(end) == 1
    assert len(await rows(app, select(refresh_tokens))) == 1
    assert await forget(end + 1) == 1
    assert await rows(app, select(sessions)) == []
    assert await rows(app, select(refresh_tokens)) == []


async def test_ending_no_login_is_no_statement(app: App, ada: User) -> None:
    async def body(tx: Transaction) -> list[str]:
        return await sql.end(tx, [], app.clock.now())

    assert await app.database.write(body) == []


async def test_accounts_that_are_left_out_have_no_logins(app: App) -> None:
    object.__setattr__(app, "accounts", False)
    with pytest.raises(Failure, match="NOT_FOUND"):
        await operation(call_of(app, ANONYMOUS), AskSession())


def test_reprs_show_no_secret() -> None:
    asked = SignIn(email=ADA, password=PASSWORD)
    assert repr(asked) == "SignIn(…)"
    signed_in = SignedIn(redirect=False, token="secret", user=None)  # type: ignore[arg-type]
    assert "secret" not in repr(signed_in)
    assert SessionRecord.__struct_fields__[1] == "token"
