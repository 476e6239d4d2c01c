"""“This wasn't me” ends what the event names, of one's own alone, and only once."""

from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from keybearer import Auth, Failure
from keybearer.adapters.sql import audit
from keybearer.adapters.sql.tables import refresh_tokens
from keybearer.domain.model import Session, User
from keybearer.domain.ports import Transaction
from keybearer.inputs import AskAudit, CreateKey, DisownEvent, RotateKey, UpdateKey
from keybearer.operations import reminders, upkeep
from keybearer.operations.app import App, record
from keybearer.operations.calendar import create_calendar, get_calendar
from keybearer.operations.declaration import Empty
from keybearer.operations.disowning import Disowned, disown_event
from keybearer.operations.keyedits import update_api_key
from keybearer.operations.keyends import RevokeKey, revoke_api_key, rotate_api_key
from keybearer.operations.reports import AuditEvent, list_audit
from tests.operations.test_keys import accepted, check, code_of, make, refused
from tests.operations.test_sessions import Browser, rows
from tests.people import PASSWORD, SECRET, StandingClock, by, call_of, log_in, person

NOTHING = Disowned(ended=None, id=None)


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app)


async def trail(app: App, who: User, **asked: Any) -> list[AuditEvent]:
    """The owner's events, oldest first."""
    page = await list_audit(call_of(app, by(who)), AskAudit(**asked))
    return page.events[::-1]


async def disown(app: App, who: User, id: str) -> Disowned:
    return await disown_event(call_of(app, by(who)), DisownEvent(event_id=id))


@pytest.mark.parametrize("name", ["key.created", "key.rotated", "key.updated"])
async def test_what_was_done_to_a_key_ends_the_key(app: App, ada: User, name: str) -> None:
    made, other = await make(app, by(ada)), await make(app, by(ada))
    await update_api_key(call_of(app, by(ada)), UpdateKey(key_id=made.id, name="x"))
    rotated = await rotate_api_key(call_of(app, by(ada)), RotateKey(key_id=made.id))
    for key in (made, rotated, other):
        await accepted(app, key.key)
    [event] = await trail(app, ada, event=name, target=made.id)
    assert await disown(app, ada, event.id) == Disowned(ended="key", id=made.id)
    for key in (made, rotated):
        assert await refused(app, key.key) == "KEY_REVOKED"
    await accepted(app, other.key)
    [revoked] = await trail(app, ada, event="key.revoked")
    assert (revoked.target_id, revoked.details) == (made.id, {"reason": "disowned by its owner"})
    [noted] = await trail(app, ada, event="event.disowned")
    assert (noted.target_id, noted.details) == (event.id, {"named": name})


async def test_doing_it_again_changes_nothing(app: App, ada: User, clock: StandingClock) -> None:
    made = await make(app, by(ada))
    [event] = await trail(app, ada, event="key.created")
    first = await disown(app, ada, event.id)
    before = await trail(app, ada)
    clock.advance(1000)
    assert await disown(app, ada, event.id) == first
    assert await trail(app, ada) == before
    # The key is gone in the end, and that is no other answer.
    clock.advance(app.settings.key_retention)
    assert await upkeep.forget_ended(app)
    assert await disown(app, ada, event.id) == Disowned(ended="key", id=made.id)
    assert await trail(app, ada) == before


async def test_a_key_that_was_ended_before_stays_as_it_was(app: App, ada: User) -> None:
    made = await make(app, by(ada))
    await revoke_api_key(call_of(app, by(ada)), RevokeKey(key_id=made.id, reason="done"))
    [event] = await trail(app, ada, event="key.revoked")
    assert (await disown(app, ada, event.id)).id == made.id
    assert len(await trail(app, ada, event="key.revoked")) == 1


async def test_an_event_of_a_login_ends_that_login_with_its_tokens(
    app: App, client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    thief = (
        await client.post("/api/auth/login", json={"email": ada.email, "password": PASSWORD})
    ).json()
    [opened] = await trail(app, ada, event="session.opened")
    clock.advance(1000)
    mine = await log_in(client)
    theirs = {"authorization": f"Bearer {thief['token']}"}
    assert (await client.get("/api/auth/list-sessions", headers=theirs)).status_code == 200
    answer = await client.post("/api/auth/audit/disown", json={"eventId": opened.id}, headers=mine)
    assert answer.json() == {"ended": "session", "id": opened.target_id}
    assert "set-cookie" not in answer.headers
    assert (await client.get("/api/auth/list-sessions", headers=theirs)).status_code == 401
    again = await client.post("/api/auth/refresh", json={"refreshToken": thief["refreshToken"]})
    assert again.status_code == 401
    families = await rows(app, select(refresh_tokens))
    assert [row.ended_at is None for row in families].count(True) == 1
    names = [event.event for event in await trail(app, ada)][-2:]
    assert names == ["session.ended", "event.disowned"]
    [ended] = await trail(app, ada, event="session.ended")
    assert (await disown(app, ada, ended.id)) == Disowned(ended="session", id=opened.target_id)
    assert len(await trail(app, ada, event="session.ended")) == 1


async def test_the_own_login_can_be_disowned_and_ends_the_cookie(
    app: App, client: httpx2.AsyncClient, ada: User
) -> None:
    browser = Browser(client)
    await browser.sign_in()
    [event] = await trail(app, ada, event="session.opened")
    answer = await browser.post("/audit/disown", eventId=event.id)
    assert answer.json()["ended"] == "session"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert not await browser.is_in()


CALENDAR = Disowned(ended="calendar", id=None)


async def has_calendar(app: App, who: User) -> bool:
    return (await get_calendar(call_of(app, by(who)), Empty())).active


async def test_a_calendar_that_somebody_made_loses_its_address(app: App, ada: User) -> None:
    eve = await person(app, "eve@example.com")
    for who in (ada, eve):
        await create_calendar(call_of(app, by(who)), Empty())
    [event] = await trail(app, ada, event="calendar.created")
    assert await code_of(disown(app, eve, event.id)) == "EVENT_NOT_FOUND"
    assert await has_calendar(app, ada)
    assert await disown(app, ada, event.id) == CALENDAR
    assert (await has_calendar(app, ada), await has_calendar(app, eve)) == (False, True)
    [revoked] = await trail(app, ada, event="calendar.revoked")
    assert revoked.details == {"reason": "disowned by its owner"}
    before = await trail(app, ada)
    assert await disown(app, ada, event.id) == CALENDAR
    assert await trail(app, ada) == before


async def test_an_address_that_was_replaced_meanwhile_has_ended_and_the_new_one_stays(
    app: App, ada: User, clock: StandingClock
) -> None:
    await create_calendar(call_of(app, by(ada)), Empty())
    [theirs] = await trail(app, ada, event="calendar.created")
    clock.advance(1000)
    await create_calendar(call_of(app, by(ada)), Empty())
    assert await disown(app, ada, theirs.id) == CALENDAR
    assert await has_calendar(app, ada)
    assert await trail(app, ada, event="calendar.revoked") == []


async def test_that_a_calendar_was_taken_away_ends_nothing(app: App, ada: User) -> None:
    await create_calendar(call_of(app, by(ada)), Empty())
    [made] = await trail(app, ada, event="calendar.created")
    await disown(app, ada, made.id)
    await create_calendar(call_of(app, by(ada)), Empty())
    [event] = await trail(app, ada, event="calendar.revoked")
    assert await disown(app, ada, event.id) == NOTHING
    assert await has_calendar(app, ada)


async def test_what_the_server_did_itself_ends_nothing(
    app: App, client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    made = await make(app, by(ada), expires_in=8 * 86_400)
    clock.advance(2 * 86_400_000)
    assert await reminders.remind(app) == 1
    headers = await log_in(client)
    [opened] = await trail(app, ada, event="session.opened")
    await create_calendar(call_of(app, by(ada)), Empty())
    names = {"key.updated": made.id, "session.ended": opened.target_id, "calendar.created": ada.id}

    async def by_itself(tx: Transaction) -> None:
        call = upkeep.scheduled(app, app.clock.now())
        for name, target in names.items():
            await record(call, tx, name, owner_id=ada.id, target_id=target)

    await app.database.write(by_itself)
    events = [event for event in await trail(app, ada) if event.actor_id == "schedule"]
    assert [event.event for event in events] == ["key.expiry_reminded", *names]
    for event in events:
        assert await disown(app, ada, event.id) == NOTHING
    noted = await trail(app, ada, event="event.disowned")
    assert [event.target_id for event in noted] == [event.id for event in events]
    await accepted(app, made.key)
    assert await has_calendar(app, ada)
    assert (await client.get("/api/auth/list-sessions", headers=headers)).status_code == 200


async def test_other_events_end_nothing_and_are_noted_once(
    app: App, client: httpx2.AsyncClient, ada: User
) -> None:
    made, headers = await make(app, by(ada)), await log_in(client)
    await client.post(
        "/api/auth/login", json={"email": ada.email, "password": "wrong but long enough"}
    )
    await client.post("/api/auth/update-user", json={"name": "Eve"}, headers=headers)
    others = [
        event
        for event in await trail(app, ada)
        if event.event in ("user.created", "user.updated", "login.failed")
    ]
    assert len(others) == 3
    for event in (*others, *others):
        assert await disown(app, ada, event.id) == NOTHING
    noted = await trail(app, ada, event="event.disowned")
    assert [event.target_id for event in noted] == [event.id for event in others]
    assert await disown(app, ada, noted[0].id) == NOTHING
    await accepted(app, made.key)
    assert (await client.get("/api/auth/list-sessions", headers=headers)).status_code == 200


async def test_somebody_elses_event_is_not_found(app: App, ada: User) -> None:
    eve = await person(app, "eve@example.com")
    made = await make(app, by(ada))
    [event] = await trail(app, ada, event="key.created")
    for id in (event.id, event.id.upper(), "0193b2f0-0000-7000-8000-000000000000", "%", made.id):
        assert await code_of(disown(app, eve, id)) == "EVENT_NOT_FOUND"
    await accepted(app, made.key)
    assert await trail(app, eve, event="event.disowned") == []


async def test_a_trail_that_names_things_of_others_ends_none_of_them(
    app: App, client: httpx2.AsyncClient, ada: User
) -> None:
    """No event does; whoever could write one must not gain by it."""
    eve = await person(app, "eve@example.com")
    made, headers = await make(app, by(ada)), await log_in(client)
    [opened] = await trail(app, ada, event="session.opened")
    named = {"key.created": made.id, "session.opened": opened.target_id}

    async def forge(tx: Transaction) -> None:
        for name, target in named.items():
            await record(call_of(app), tx, name, owner_id=eve.id, target_id=target)

    await app.database.write(forge)
    for name in named:
        [event] = await trail(app, eve, event=name)
        await disown(app, eve, event.id)
    await accepted(app, made.key)
    assert (await client.get("/api/auth/list-sessions", headers=headers)).status_code == 200


async def test_with_owners_of_the_apps_keys_are_disowned_too(
    ready_url: str, clock: StandingClock
) -> None:
    async def identify(_headers: object) -> str | None:
        return "host-7"

    auth = Auth(ready_url, secret=SECRET, accounts=False, identify=identify, clock=clock)
    async with auth.lifespan():
        app = await auth.running()
        made = await auth.api.create_api_key(CreateKey(), owner="host-7")
        assert isinstance(await check(app, made.key), Session)
        [event] = (await auth.api.list_audit(owner="host-7")).events
        asked = DisownEvent(event_id=event.id)
        with pytest.raises(Failure, match="EVENT_NOT_FOUND"):
            await auth.api.disown_event(asked, owner="host-8")
        with pytest.raises(Failure, match="VALIDATION_ERROR"):
            await auth.api.disown_event(asked)
        done = await auth.api.disown_event(asked, headers={"cookie": "theirs=1"})
        assert done == Disowned(ended="key", id=made.id)
        assert await refused(app, made.key) == "KEY_REVOKED"


async def test_the_trail_holds_after_all_of_it(app: App, ada: User) -> None:
    await make(app, by(ada))
    for event in await trail(app, ada):
        await disown(app, ada, event.id)
    _, faults = await app.database.read(lambda tx: audit.verify(tx, app.ring))
    assert faults == []
