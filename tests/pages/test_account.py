"""Sessions that can be ended, a password that can be changed, and events that were not mine."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

import keybearer
from keybearer import Auth
from keybearer.inputs import CreateKey
from keybearer.operations import outbox
from keybearer.web.mount import no_app
from keybearer.web.pages.words import ACTORS, EVENTS
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, StandingClock

NEW_PASSWORD = "nine purple kettles whistle softly"


@pytest.fixture
async def other(auth: Auth, owner: str) -> AsyncIterator[Surfer]:
    """Ann again, somewhere else."""
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("198.51.100.4", 50000))
    base = "http://127.0.0.1:8000"
    headers = {"user-agent": "Mozilla/5.0 (X11; Linux) Gecko/20100101 Firefox/131.0"}
    async with httpx2.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
        await client.post(
            "/api/auth/sign-in/email", json={"email": "ann@example.com", "password": PASSWORD}
        )
        yield Surfer(client)


# --- sessions ---


async def test_sessions_say_where_and_since_when(
    surfer: Surfer, other: Surfer, clock: StandingClock
) -> None:
    await other.open("/en/account/sessions")
    clock.advance(180_000)
    await surfer.open("/en/account/sessions")
    assert "Firefox 131" in surfer.text
    assert "198.51.100.4" in surfer.text
    assert "3 minutes ago" in surfer.text
    assert surfer.text.count("this one") == 1


async def test_one_session_is_ended_and_the_others_go_on(surfer: Surfer, other: Surfer) -> None:
    await surfer.open("/en/account/sessions")
    mine = {dict(form.fields).get("session") for form in surfer.seen.forms} - {None}
    assert len(mine) == 2
    (ended,) = mine - {await _current(surfer)}
    await surfer.send("/sessions", session=ended, action=None)
    assert "The session has ended." in surfer.text
    await other.open("/en/account/sessions")
    assert other.path.startswith("/en/login")


async def _current(surfer: Surfer) -> str:
    answer = await surfer.client.get("/api/auth/list-sessions")
    return next(str(each["token"]) for each in answer.json() if each["current"])


async def test_all_other_sessions_end_at_once(surfer: Surfer, other: Surfer) -> None:
    await surfer.open("/en/account/sessions")
    await surfer.send("/sessions", action="others")
    assert "All other sessions have ended." in surfer.text
    assert "End all other sessions" not in surfer.text
    await other.open("/en/account/sessions")
    assert other.path.startswith("/en/login")


async def test_ending_this_one_is_a_log_out(surfer: Surfer) -> None:
    await surfer.open("/en/account/sessions")
    await surfer.send("/sessions", session=await _current(surfer))
    assert surfer.path == "/en/login"
    assert "You are logged out." in surfer.text


async def test_a_made_up_session_ends_nothing(surfer: Surfer, other: Surfer) -> None:
    await surfer.open("/en/account/sessions")
    await surfer.send("/sessions", session="made-up", action=None)
    assert surfer.status == 200
    await other.open("/en/account/sessions")
    assert other.path == "/en/account/sessions"


# --- the password ---


async def test_a_changed_password_ends_the_others_and_goes_on_here(
    surfer: Surfer, other: Surfer, auth: Auth
) -> None:
    await surfer.open("/en/account/security")
    await surfer.send("/password", password="wrong one", new_password=NEW_PASSWORD)
    assert surfer.status == 400
    assert "The password is wrong." in surfer.text
    await surfer.send("/password", password=PASSWORD, new_password="short")
    assert "at least 15 characters" in surfer.text
    await surfer.send("/password", password=PASSWORD, new_password=NEW_PASSWORD)
    assert "Your password is changed" in surfer.text
    await other.open("/en/account/security")
    assert other.path.startswith("/en/login")
    await other.send("/login", email="ann@example.com", password=NEW_PASSWORD)
    assert other.path == "/en/account/security"


async def test_the_language_of_mails_is_chosen(surfer: Surfer, auth: Auth) -> None:
    await surfer.open("/en/account/security")
    await surfer.send("/language", locale="ja")
    assert "Mails will be in this language." in surfer.text
    chosen = surfer.seen.html.split('name="locale"')[1].split("selected")[0].rsplit("value=", 1)[1]
    assert chosen.startswith('"ja"')
    await surfer.send("/language", locale="xx")
    assert surfer.status == 400
    await surfer.open("/en/account/security")
    await surfer.send("/password", password=PASSWORD, new_password=NEW_PASSWORD)
    (mail,) = await outbox.recent(await auth.running(), limit=5)
    assert "パスワード" in mail.subject


# --- the trail ---


async def test_the_trail_is_narrowed_and_paged(surfer: Surfer, auth: Auth, owner: str) -> None:
    for n in range(30):
        await auth.api.create_api_key(CreateKey(name=f"Key {n}"), owner=owner)
    await surfer.open("/en/account/security")
    await surfer.send("/password", password="wrong one", new_password=NEW_PASSWORD)
    await surfer.open("/en/account/security?outcome=refused")
    assert "Wrong password" in surfer.text
    assert "API key created" not in surfer.text.split("What happened")[1]
    await surfer.open("/en/account/security?group=key.")
    assert "Page 1 of 2" in surfer.text
    await surfer.open(next(link for link in surfer.seen.links if "page=2" in link))
    assert "Page 2 of 2" in surfer.text
    await surfer.open("/en/account/security?group=nothing.&outcome=maybe&page=x")
    assert surfer.status == 200
    await surfer.open("/en/account/security?group=key.&page=99")
    assert "Page 2 of 2" in surfer.text
    await surfer.open("/en/account/security?group=user.&outcome=refused")
    assert "Nothing of this kind." in surfer.text


async def test_an_event_that_was_not_me_ends_what_it_names(
    surfer: Surfer, other: Surfer, auth: Auth, owner: str
) -> None:
    made = await auth.api.create_api_key(CreateKey(name="Not mine"), owner=owner)
    await surfer.open("/en/account/security?group=key.")
    events = (await surfer.client.get("/api/auth/audit?event=key.created")).json()["events"]
    await surfer.open("/en/account/security")
    await surfer.send("/disown", event=events[0]["id"])
    assert "The key is revoked" in surfer.text
    assert "Change your password" in surfer.text
    headers = {"x-api-key": made.key or ""}
    assert await auth.api.get_session(headers, ip="127.0.0.1") is None
    trail = await surfer.client.get("/api/auth/audit?event=session.opened")
    theirs = next(event for event in trail.json()["events"] if event["ip"] == "198.51.100.4")
    await surfer.open("/en/account/security")
    await surfer.send("/disown", event=theirs["id"])
    assert "The session has ended" in surfer.text
    await other.open("/en/account/sessions")
    assert other.path.startswith("/en/login")
    await surfer.open("/en/account/security")
    await surfer.send("/disown", event="made-up")
    assert surfer.status == 404
    ours = next(event for event in trail.json()["events"] if event["ip"] == "127.0.0.1")
    await surfer.open("/en/account/security")
    await surfer.send("/disown", event=ours["id"])
    assert surfer.path == "/en/login"
    assert "Log in, change your password, and look through your API keys." in surfer.text


async def test_every_event_that_is_recorded_has_a_word() -> None:
    source = Path(keybearer.__file__).parent
    recorded = set()
    for file in (source / "operations").glob("*.py"):
        for call in re.findall(r"record\(.*?\)", file.read_text("utf-8"), re.DOTALL):
            recorded |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', call))
    of_operators = ("import.", "keys.", "service_token.", "signing_key.")
    operators = {name for name in recorded if name.startswith(of_operators)}
    assert recorded - operators - set(EVENTS) == set()
    assert len(recorded) > 20
    assert set(ACTORS) >= {"session", "access", "key", "service", "operator", "anonymous"}


# --- the calendar ---


async def test_a_calendar_address_is_shown_once_and_ended(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    await auth.api.create_api_key(CreateKey(name="CI"), owner=owner)
    await surfer.open("/en/account/api-keys")
    await surfer.send("/calendar", action="")
    assert surfer.status == 400
    await surfer.open("/en/account/api-keys")
    await surfer.send("/calendar", action="make")
    address = next(has["value"] for _, has in surfer.seen.elements if has.get("id") == "key")
    feed = await surfer.client.get(address)
    assert feed.headers["content-type"].startswith("text/calendar")
    assert "CI" in feed.text
    await surfer.open("/en/account/api-keys")
    assert address not in surfer.seen.html
    assert "An address has been in use since" in surfer.text
    await surfer.send("/calendar", action="end")
    assert "no longer works" in surfer.text
    assert (await surfer.client.get(address)).status_code == 404
