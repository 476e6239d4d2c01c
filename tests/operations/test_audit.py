"""The caller's trail can be asked for by group, outcome and time."""

import httpx2
import pytest

from keybearer.domain.model import Session
from keybearer.operations.app import App
from keybearer.operations.keyends import RevokeKey, revoke_api_key
from keybearer.operations.reports import AskAudit, list_audit
from tests.operations.test_keys import code_of, make
from tests.people import StandingClock, by, call_of, log_in, person


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


async def names(app: App, who: Session, **asked: object) -> list[str]:
    page = await list_audit(call_of(app, who), AskAudit(**asked))  # type: ignore[arg-type]
    assert page.total == len(page.events)
    return [event.event for event in page.events]


async def test_events_are_found_by_group_outcome_and_time(
    app: App, client: httpx2.AsyncClient, ada: Session, clock: StandingClock
) -> None:
    clock.advance(1000)
    made = await make(app, ada)
    clock.advance(1000)
    await log_in(client)
    wrong = {"email": "ada@example.com", "password": "wrong but long enough"}
    await client.post("/api/auth/login", json=wrong)
    clock.advance(1000)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    everything = ["key.revoked", "login.failed", "session.opened", "key.created", "user.created"]
    assert await names(app, ada) == everything
    assert await names(app, ada, event="key.") == ["key.revoked", "key.created"]
    assert await names(app, ada, event="session.") == ["session.opened"]
    assert await names(app, ada, event="key.created") == ["key.created"]
    for nothing in ("key", ".", "KEY.", "%", "k%.", "key.%", "' OR 1=1 --"):
        assert await names(app, ada, event=nothing) == []
    assert await names(app, ada, outcome="refused") == ["login.failed"]
    assert await names(app, ada, outcome="success", event="login.") == []
    since, until = "2026-11-18T11:06:41Z", "2026-11-18T11:06:42.000Z"
    assert await names(app, ada, since=since) == everything[:4]
    assert await names(app, ada, until=until) == everything[3:]
    assert await names(app, ada, since=since, until=until) == ["key.created"]
    assert await names(app, ada, since="2030-01-01T00:00:00+02:00") == []


@pytest.mark.parametrize(
    "asked",
    [
        {"since": "yesterday"},
        {"until": "2026-13-01T00:00:00Z"},
        {"since": ""},
        {"since": "2026-11-18T11:06:42Z", "until": "2026-11-18T11:06:42Z"},
        {"since": "2026-11-18T11:06:43Z", "until": "2026-11-18T11:06:42Z"},
    ],
)
async def test_a_span_that_makes_no_sense_is_refused(
    app: App, ada: Session, asked: dict[str, str]
) -> None:
    asking = list_audit(call_of(app, ada), AskAudit(**asked))  # type: ignore[arg-type]
    assert await code_of(asking) == "VALIDATION_ERROR"


async def test_over_http_the_filters_have_their_wire_names(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    headers = await log_in(client)
    wanted = {"event": "session.", "outcome": "success", "from": "2026-11-18T11:06:40Z",
              "to": "2026-11-18T11:06:41Z"}  # fmt: skip
    answer = await client.get("/api/auth/audit", params=wanted, headers=headers)
    assert [event["event"] for event in answer.json()["events"]] == ["session.opened"]
    for wrong in ({"outcome": "maybe"}, {"outcome": ""}, {"since": "x"}, {"from": "x"}):
        answer = await client.get("/api/auth/audit", params=wrong, headers=headers)
        assert answer.status_code == 400, wrong
