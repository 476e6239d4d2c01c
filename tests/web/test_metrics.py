"""Figures for this machine and for services, of credentials that are ours."""

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations import service_tokens
from keybearer.operations.app import App
from keybearer.web import metrics
from keybearer.web.mount import no_app
from tests.people import call_of, log_in, make_key, person
from tests.web.losses import lose_database

PATH = "/api/auth/metrics"


def stranger(auth: Auth, host: str = "127.0.0.1:8000") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("198.51.100.9", 40000))
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}")


async def test_verdicts_are_counted_for_our_credentials_alone(
    client: httpx2.AsyncClient, app: App
) -> None:
    await person(app)
    key = await make_key(client, await log_in(client), name="CI")
    for _ in range(3):
        await client.get("/api/auth/forward", headers={"x-api-key": key["key"]})
    await client.get("/api/auth/forward?permissions=deploy:run", headers={"x-api-key": key["key"]})
    forged = key["key"][:-1] + ("x" if key["key"][-1] != "x" else "y")
    await client.get("/api/auth/forward", headers={"x-api-key": forged})
    await app.verifier.usage.flush(app.clock.now())
    text = (await client.get(PATH)).text
    assert 'keybearer_verdicts_total{kind="key",outcome="accepted"} 3.0' in text
    assert 'keybearer_verdicts_total{kind="key",outcome="INSUFFICIENT_SCOPE"} 1.0' in text
    assert "INVALID_API_KEY" not in text
    assert "keybearer_cache_entries " in text
    assert "keybearer_usage_unwritten_seconds 0.0" in text
    assert "keybearer_outbox_waiting 0.0" in text
    for name in ("batches_waiting", "spilled_bytes", "samples_dropped_total"):
        assert f"keybearer_usage_{name} 0.0" in text
    assert key["id"] not in text
    assert key["start"] not in text


async def test_no_stranger_sees_them(auth: Auth, app: App, client: httpx2.AsyncClient) -> None:
    await person(app)
    login = await log_in(client)
    async with stranger(auth) as other:
        for headers, status, code in (
            ({}, 403, "LOOPBACK_ONLY"),
            (login, 403, "LOOPBACK_ONLY"),
            ({"authorization": "Bearer kbs_no"}, 401, "INVALID_ACCESS_TOKEN"),
            ({"x-forwarded-for": "127.0.0.1"}, 403, "LOOPBACK_ONLY"),
        ):
            answer = await other.get(PATH, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"host": "auth.example.com"},
        {"host": "127.0.0.1.example.com"},
    ],
)
async def test_a_proxy_on_this_machine_is_not_this_machine(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await client.get(PATH, headers=headers)).status_code == 403


async def test_a_service_sees_them_from_anywhere(auth: Auth, app: App) -> None:
    _, token = await service_tokens.create(call_of(app), "prometheus")
    async with stranger(auth) as other:
        answer = await other.get(PATH, headers={"authorization": f"Bearer {token.reveal()}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_lost_database_leaves_the_rest(client: httpx2.AsyncClient, app: App) -> None:
    await lose_database(app)
    text = (await client.get(PATH)).text
    assert "keybearer_cache_entries" in text
    assert "outbox" not in text


async def test_without_the_library_there_is_nothing(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "INSTALLED", False)
    assert (await client.get(PATH)).status_code == 404
