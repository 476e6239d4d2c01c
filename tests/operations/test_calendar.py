"""The calendar of an owner's keys: its address is the secret, and opens nothing else."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import icalendar
import msgspec
import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql import audit
from keybearer.adapters.sql.tables import calendar_feeds
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Failure
from keybearer.domain.model import Session
from keybearer.inputs import CreateKey, ReadCalendar, RevokeKey, UpdateUser
from keybearer.operations import calendar, people
from keybearer.operations.accounts import DeleteUser, delete_user, update_user
from keybearer.operations.app import App
from keybearer.operations.calendar import (
    CalendarAddress,
    create_calendar,
    get_calendar,
    read_calendar,
    revoke_calendar,
)
from keybearer.operations.declaration import Empty
from keybearer.operations.keyends import revoke_api_key
from keybearer.operations.keys import create_api_key
from keybearer.operations.users import prove_ownership
from keybearer.web.mount import no_app
from tests.people import PASSWORD, SECRET, START, StandingClock, by, call_of, log_in, person

API = "http://127.0.0.1:8000/api/auth/calendar"
DAY = 86_400_000
DAY_SECONDS = 86_400


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


async def made(app: App, who: Session) -> str:
    """A new calendar's token."""
    address = await create_calendar(call_of(app, who), Empty())
    front, _, file = address.url.rpartition("/")
    assert front == "http://127.0.0.1:8000/api/auth/calendar"
    assert file.endswith(".ics")
    return file.removesuffix(".ics")


async def read(app: App, token: str) -> str:
    return await read_calendar(call_of(app), ReadCalendar(token=token))


async def is_gone(app: App, token: str) -> bool:
    try:
        await read(app, token)
    except Failure as failure:
        return (failure.code, failure.message) == ("NOT_FOUND", Failure("NOT_FOUND").message)
    return False


def events(text: str) -> list[Any]:
    return icalendar.Calendar.from_ical(text).walk("VEVENT")


async def add_key(app: App, who: Session, **asked: Any) -> str:
    return (await create_api_key(call_of(app, who), CreateKey(**asked))).id


async def named(app: App) -> list[tuple[str, str | None]]:
    trail = await app.database.read(lambda tx: audit.newest(tx, limit=100))
    return [
        (each.event, each.owner_id)
        for each in reversed(trail)
        if each.event.startswith("calendar.")
    ]


# --- its address ------------------------------------------------------------------------------


async def test_the_address_is_shown_once_and_stored_as_digest(app: App, ada: Session) -> None:
    state = await get_calendar(call_of(app, ada), Empty())
    assert (state.active, state.created_at) == (False, None)
    address = await create_calendar(call_of(app, ada), Empty())
    assert address.created_at == "2026-11-18T11:06:40.000Z"
    assert "kbc_" not in repr(address)
    state = await get_calendar(call_of(app, ada), Empty())
    assert (state.active, state.created_at) == (True, address.created_at)
    (row,) = await app.database.read(lambda tx: tx.all(select(calendar_feeds)))
    token = address.url.rpartition("/")[2].removesuffix(".ics")
    assert bytes(row.digest) == app.ring.digest(token.encode())
    assert len(token) == len("kbc_") + 43 + 6


async def test_a_new_address_replaces_the_old_one(app: App, ada: Session) -> None:
    old = await made(app, ada)
    new = await made(app, ada)
    assert old != new
    assert await is_gone(app, old)
    assert not await is_gone(app, new)
    assert await named(app) == [("calendar.created", ada.subject)] * 2


async def test_a_revoked_address_is_gone_and_may_be_revoked_again(app: App, ada: Session) -> None:
    token = await made(app, ada)
    for _ in range(2):
        assert (await revoke_calendar(call_of(app, ada), Empty())).success
        assert await is_gone(app, token)
    assert await named(app) == [
        ("calendar.created", ada.subject), ("calendar.revoked", ada.subject),
    ]  # fmt: skip


async def test_an_address_outlives_a_rotated_secret_while_that_is_listed(
    app: App, ada: Session
) -> None:
    token = await made(app, ada)
    old = app.ring
    object.__setattr__(app, "ring", PepperRing([b"n" * 32, SECRET.encode()]))
    assert app.ring.newest.id != old.newest.id
    assert not await is_gone(app, token)
    object.__setattr__(app, "ring", PepperRing([b"n" * 32]))
    assert await is_gone(app, token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "kbc_",
        "kbc_" + "0" * 49,
        "kb_" + "0" * 49,
        "../create",
        "ü" * 49,
        "\udc00",
        "x" * 9999,
    ],
)
async def test_what_is_no_address_finds_nothing(app: App, ada: Session, token: str) -> None:
    await made(app, ada)
    assert await is_gone(app, token)


async def test_the_operator_names_whose(app: App, ada: Session) -> None:
    for operation in (create_calendar, revoke_calendar, get_calendar):
        with pytest.raises(Failure) as refused:
            await operation(call_of(app), Empty())
        assert refused.value.code == "VALIDATION_ERROR"


async def test_without_the_library_there_is_nothing(
    app: App, ada: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await made(app, ada)
    monkeypatch.setitem(sys.modules, "icalendar", None)
    assert await is_gone(app, token)
    with pytest.raises(Failure) as refused:
        await create_calendar(call_of(app, ada), Empty())
    assert "extra `ui`" in refused.value.message


# --- what stands in it ------------------------------------------------------------------------


async def test_every_key_that_expires_is_one_event(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first = await add_key(app, ada, name="Nightly backup", expires_in=90 * DAY_SECONDS)
    second = await add_key(app, ada, expires_in=10 * DAY_SECONDS)
    await add_key(app, ada, name="for ever", expires_in=None)
    revoked = await add_key(app, ada, name="revoked", expires_in=DAY_SECONDS)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=revoked))
    await add_key(app, by(await person(app, "eve@example.com")), name="eves")
    token = await made(app, ada)
    soon, later = events(await read(app, token))
    assert (str(soon["UID"]), str(later["UID"])) == (second, first)
    assert str(later["SUMMARY"]) == "API key “Nightly backup” expires"
    assert str(later["URL"]) == f"http://127.0.0.1:8000/en/account/api-keys/{first}/rotate"
    assert str(later["DESCRIPTION"]).startswith("Starts with kb_")
    assert str(later["URL"]) in str(later["DESCRIPTION"])
    assert int(later["DTSTART"].dt.timestamp()) * 1000 == START + 90 * DAY
    assert str(soon["SUMMARY"]).startswith("API key “kb_")
    clock.advance(40 * DAY - 1)  # the second has expired for almost thirty days
    over, _ = events(await read(app, token))
    assert str(over["UID"]) == second
    assert str(over["URL"]) == f"http://127.0.0.1:8000/en/account/api-keys/{second}"
    assert "has expired" in str(over["DESCRIPTION"])
    clock.advance(1)
    (left,) = events(await read(app, token))
    assert str(left["UID"]) == first


async def test_it_is_the_same_until_a_key_changes(
    app: App, ada: Session, clock: StandingClock
) -> None:
    await add_key(app, ada, name="ci")
    token = await made(app, ada)
    before = await read(app, token)
    clock.advance(DAY)
    assert await read(app, token) == before


async def test_it_is_in_the_owners_language(app: App, ada: Session) -> None:
    await add_key(app, ada, name="ci")
    await update_user(call_of(app, ada), UpdateUser(locale="ar"))
    text = await read(app, await made(app, ada))
    (event,) = events(text)
    assert str(event["SUMMARY"]) == "تنتهي صلاحية مفتاح API «ci»"
    assert "/ar/account/api-keys/" in str(event["URL"])
    assert "X-WR-CALNAME:مفاتيح API في" in text


@pytest.mark.parametrize(
    "name", ["x\u2028BEGIN:VEVENT", "a;b,c\\n", "“{name}” {site}", "<b>", "\u202eemag"]
)
async def test_no_name_breaks_the_calendar(app: App, ada: Session, name: str) -> None:
    await add_key(app, ada, name=name)
    (event,) = events(await read(app, await made(app, ada)))
    shown = " ".join(name.splitlines())
    assert str(event["SUMMARY"]).replace("\n", "\\n") == f"API key “{shown}” expires"


async def test_it_is_bounded_and_has_those_that_expire_next(
    app: App, ada: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar, "MOST_ENTRIES", 2)
    for days in (30, 10, 20):
        await add_key(app, ada, name=f"{days} days", expires_in=days * DAY_SECONDS)
    found = events(await read(app, await made(app, ada)))
    assert [str(each["SUMMARY"]) for each in found] == [
        "API key “10 days” expires", "API key “20 days” expires",
    ]  # fmt: skip


# --- whose it is ------------------------------------------------------------------------------


async def test_it_ends_with_its_owner(app: App, ada: Session) -> None:
    token = await made(app, ada)
    await people.disable(call_of(app), ada.subject)
    assert await is_gone(app, token)
    await people.enable(call_of(app), ada.subject)
    assert not await is_gone(app, token)
    await delete_user(call_of(app, ada), DeleteUser(password=PASSWORD))
    assert await is_gone(app, token)
    assert await app.database.read(lambda tx: tx.all(select(calendar_feeds))) == []
    assert ("calendar.revoked", ada.subject) in await named(app)


async def test_an_address_from_before_the_first_proof_ends_with_it(app: App) -> None:
    """Who signs up with somebody else's address must not go on reading what the owner does."""
    trusting = msgspec.structs.replace(app.settings, require_email_verification=False)
    object.__setattr__(app, "settings", trusting)
    user = await person(app, verified=False)
    token = await made(app, by(user))
    assert not await is_gone(app, token)
    await app.database.write(lambda tx: prove_ownership(call_of(app), tx, user))
    assert await is_gone(app, token)


async def test_an_unverified_owner_has_none_where_verification_is_required(app: App) -> None:
    token = await made(app, by(await person(app, verified=False)))
    assert await is_gone(app, token)


@pytest.fixture
async def hosted(ready_url: str, clock: StandingClock) -> AsyncIterator[Auth]:
    async def identify(headers: Any) -> str | None:
        return next((v.decode() for n, v in headers if n == b"x-user"), None)

    auth = Auth(
        ready_url, accounts=False, identify=identify, secret=SECRET, token_management=True,
        locales="fr,en", clock=clock,
    )  # fmt: skip
    async with auth.lifespan():
        yield auth


async def test_owners_of_a_host_app_have_one_in_the_servers_language(hosted: Auth) -> None:
    transport = httpx2.ASGITransport(app=hosted.mount(no_app, base="/iam"))
    headers = {"x-user": "user-5", "origin": "http://127.0.0.1:8000"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        await client.post("/iam/api-key/create", json={"name": "ci"}, headers=headers)
        answer = await client.post("/iam/calendar/create", headers=headers)
        url = answer.json()["url"]
        assert url.startswith("http://127.0.0.1:8000/iam/calendar/kbc_")
        found = await client.get(url)
        assert "SUMMARY:La clé API « ci » expire" in found.text
        await hosted.api.end_owner("user-5")
        assert (await client.get(url)).status_code == 404


# --- over HTTP --------------------------------------------------------------------------------


async def test_a_program_reads_it_without_logging_in(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    headers = await log_in(client)
    created = await client.post("/api/auth/calendar/create", headers=headers)
    assert created.headers["cache-control"] == "no-store"
    url = created.json()["url"]
    answer = await client.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.text.startswith("BEGIN:VCALENDAR\r\n")
    head = await client.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(answer.content)))
    state = await client.get("/api/auth/calendar", headers=headers)
    assert state.json() == {"active": True, "createdAt": "2026-11-18T11:06:40.000Z"}
    assert (await client.post("/api/auth/calendar/revoke", headers=headers)).json() == {
        "success": True
    }
    assert (await client.get(url)).status_code == 404


async def test_nobody_but_the_owner_makes_or_sees_one(client: httpx2.AsyncClient) -> None:
    for method, path in (("POST", "create"), ("POST", "revoke"), ("GET", "")):
        answer = await client.request(method, f"/api/auth/calendar/{path}".rstrip("/"))
        assert answer.json()["code"] == "UNAUTHORIZED"


async def test_while_key_management_is_off_there_is_no_calendar(
    tmp_path: Path, app: App, ada: Session
) -> None:
    url = f"{API}/{await made(app, ada)}.ics"
    auth = Auth(f"sqlite:///{tmp_path}/other.db", secret=SECRET, token_management=False)
    async with auth.lifespan():
        transport = httpx2.ASGITransport(app=auth.mount(no_app))
        async with httpx2.AsyncClient(transport=transport) as client:
            for method, path in (("GET", url), ("POST", f"{API}/create"), ("GET", API)):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
                assert "kbc_" not in answer.text


def test_the_address_is_masked() -> None:
    assert repr(CalendarAddress(url="https://x/kbc_s3cret.ics", created_at="")) == (
        "CalendarAddress(…)"
    )
    assert "s3cret" not in repr(ReadCalendar(token="s3cret"))
