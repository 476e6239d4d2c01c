"""What happened to keys is told to whom they belong."""

import httpx2
import pytest

from keybearer import Auth
from keybearer.adapters.sql import usage
from keybearer.domain.model import Session
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count
from keybearer.inputs import AskActivity, AskDailyUsage, RevokeKey, UpdateKey, VerifyKey
from keybearer.operations import upkeep
from keybearer.operations.app import App
from keybearer.operations.keyedits import update_api_key
from keybearer.operations.keyends import revoke_api_key
from keybearer.operations.reports import (
    ActivityEvent,
    daily_usage,
    list_activity,
)
from keybearer.operations.verify import verify_api_key
from tests.operations.test_keys import check, code_of, make, refused
from tests.people import START, StandingClock, by, call_of, person

DAY = 86_400_000
API = "/api/auth/api-key"


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


async def events(app: App, who: Session, id: str, limit: int = 50) -> list[ActivityEvent]:
    return (await list_activity(call_of(app, who), AskActivity(key_id=id, limit=limit))).events


# --- activity ---


async def test_uses_and_refusals_are_told_with_time_place_and_reason(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada, ip_allow=["203.0.113.0/24"])
    for ip in ("203.0.113.1", "203.0.113.2", "198.51.100.7"):
        clock.advance(1)
        await check(app, made.key, ip)
    clock.advance(60_000)
    await update_api_key(call_of(app, ada), UpdateKey(key_id=made.id, enabled=False))
    headers = [(b"x-api-key", (made.key or "").encode()), (b"user-agent", b"curl/8\x1b[31m")]
    await app.verifier.verify(headers, "203.0.113.3")
    assert [
        (each.outcome, each.count, each.ip, each.user_agent)
        for each in await events(app, ada, made.id)
    ] == [
        ("KEY_DISABLED", 1, "203.0.113.3", "curl/8?[31m"),
        ("IP_NOT_ALLOWED", 1, "198.51.100.7", None),
        ("accepted", 2, "203.0.113.2", None),
    ]
    newest, *_ = await events(app, ada, made.id, 1)
    assert newest.at == "2026-11-18T11:07:40.003Z"


async def test_who_still_tries_a_revoked_key_is_told(app: App, ada: Session) -> None:
    made = await make(app, ada)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    assert await refused(app, made.key, "198.51.100.7") == "KEY_REVOKED"
    (event,) = await events(app, ada, made.id)
    assert (event.outcome, event.ip) == ("KEY_REVOKED", "198.51.100.7")


async def test_a_check_over_http_tells_the_address_that_it_was_told(app: App, ada: Session) -> None:
    made = await make(app, ada)
    service = call_of(app, Session(subject="service", kind="service", id="s"))
    for n, ip in enumerate(("203.0.113.9", None), 1):
        asked = VerifyKey(key=made.key or "", permissions={"files": ["write"]}, ip=ip)
        await verify_api_key(service, asked)
        (event,) = await events(app, ada, made.id)
        assert (event.outcome, event.ip, event.count) == ("INSUFFICIENT_SCOPE", ip, n)


async def test_what_is_no_key_of_ours_leaves_no_trace(app: App, ada: Session) -> None:
    made = await make(app, ada)
    assert await refused(app, "kb_" + "0" * 49) == "INVALID_API_KEY"
    assert await events(app, ada, made.id) == []


async def test_a_key_that_asks_for_activity_need_not_name_itself(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    made, other = await make(app, ada), await make(app, ada)
    await check(app, made.key)
    headers = {"x-api-key": made.key or ""}
    own = await client.get(f"{API}/activity", headers=headers)
    assert own.status_code == 200, own.text
    assert own.json() == {
        "keyId": made.id,
        "events": [
            {
                "at": "2026-11-18T11:06:40.000Z",
                "outcome": "accepted",
                "count": 1,
                "ip": "203.0.113.7",
                "userAgent": None,
            }
        ],
    }
    foreign = await client.get(f"{API}/activity", params={"keyId": other.id}, headers=headers)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "KEY_NOT_FOUND")
    assert await code_of(list_activity(call_of(app, ada), AskActivity())) == "VALIDATION_ERROR"


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "all", ""])
async def test_a_limit_of_events_is_a_number_that_makes_sense(
    client: httpx2.AsyncClient, app: App, ada: Session, limit: str
) -> None:
    made = await make(app, ada)
    answer = await client.get(
        f"{API}/activity", params={"limit": limit}, headers={"x-api-key": made.key or ""}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_activity_goes_with_its_key(app: App, ada: Session, clock: StandingClock) -> None:
    made = await make(app, ada)
    await check(app, made.key)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    assert len(await events(app, ada, made.id)) == 1
    clock.advance(app.settings.key_retention + 1)
    assert await upkeep.forget_ended(app) == 1
    asked = AskActivity(key_id=made.id)
    assert await code_of(list_activity(call_of(app, ada), asked)) == "KEY_NOT_FOUND"


# --- daily usage ---


async def count(app: App, id: str, days_ago: int, n: int, outcome: str = "accepted") -> None:
    hour = START - START % 3_600_000 - days_ago * DAY

    async def body(tx: Transaction) -> None:
        counts = [Count(key_id=id, hour=hour, outcome=outcome, n=n)]
        dialect = "sqlite" if app.settings.sqlite_path is not None else "postgresql"
        await usage.add(tx, counts, dialect=dialect)

    await app.database.write(body)


async def test_days_are_told_oldest_first_with_today_last(app: App, ada: Session) -> None:
    made, idle = await make(app, ada), await make(app, ada)
    for days_ago, n in ((0, 1), (2, 3), (6, 7), (7, 8)):
        await count(app, made.id, days_ago, n)
    await count(app, made.id, 2, 10, "RATE_LIMITED")
    await check(app, made.key)
    asked = AskDailyUsage(key_id=(made.id, idle.id, made.id), days=7)
    told = await daily_usage(call_of(app, ada), asked)
    assert told.keys == {made.id: [7, 0, 0, 0, 13, 0, 2], idle.id: [0] * 7}
    assert (told.since, told.days) == ("2026-11-12T00:00:00.000Z", 7)
    today = await daily_usage(call_of(app, ada), AskDailyUsage(key_id=(made.id,), days=1))
    assert (today.keys, today.since) == ({made.id: [2]}, "2026-11-18T00:00:00.000Z")


async def test_days_of_keys_that_are_not_the_callers_are_left_out(app: App, ada: Session) -> None:
    made = await make(app, ada)
    eve = by(await person(app, "eve@example.com"))
    asked = AskDailyUsage(key_id=(made.id, "nobodys", "' OR 1=1 --"))
    assert (await daily_usage(call_of(app, eve), asked)).keys == {}
    assert set((await daily_usage(call_of(app), asked)).keys) == {made.id}
    assert (await daily_usage(call_of(app, ada), AskDailyUsage())).keys == {}


async def test_days_of_100_keys_are_asked_for_at_once(
    app: App, auth: Auth, client: httpx2.AsyncClient, ada: Session
) -> None:
    _token, secret = await auth.api.service_tokens.create("pages")
    headers = {"authorization": f"Bearer {secret.reveal()}"}
    made = await make(app, ada)
    ids = [made.id, *(f"{n:036}" for n in range(99))]
    params = [("keyId", id) for id in ids]
    answer = await client.get(
        f"{API}/daily-usage", params=[*params, ("days", "90")], headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["keys"] == {made.id: [0] * 90}
    more = await client.get(
        f"{API}/daily-usage", params=[*params, ("keyId", "more")], headers=headers
    )
    assert (more.status_code, more.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "at most 100 times" in more.json()["message"]


@pytest.mark.parametrize("days", ["0", "91", "-1", "1.5", "month", ""])
async def test_days_are_as_many_as_make_sense(
    client: httpx2.AsyncClient, auth: Auth, days: str
) -> None:
    _token, secret = await auth.api.service_tokens.create("pages")
    headers = {"authorization": f"Bearer {secret.reveal()}"}
    answer = await client.get(f"{API}/daily-usage", params={"days": days}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_a_key_asks_for_the_days_of_no_key(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    made = await make(app, ada)
    answer = await client.get(
        f"{API}/daily-usage", params={"keyId": made.id}, headers={"x-api-key": made.key or ""}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "SESSION_REQUIRED")
