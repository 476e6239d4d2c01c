"""Figures for this machine and for services, of credentials that are ours."""

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keybearer import Auth
from keybearer.operations import service_tokens
from keybearer.operations.app import App
from keybearer.web import metrics
from keybearer.web.mount import no_app
from tests.people import SECRET, StandingClock, call_of, log_in, make_key, person
from tests.web.losses import lose_database

PATH = "/api/auth/metrics"


def stranger(auth: Auth, host: str = "127.0.0.1:8000") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("198.51.100.9", 40000))
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}")


def local(auth: Auth) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def read(text: str) -> dict[tuple[str, ...], float]:
    """The figures by name and labels, without the worker: there is one."""
    return {
        (sample.name, *(v for name, v in sample.labels.items() if name != "worker")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


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
    figures = read(text)
    assert figures["keybearer_verdicts_total", "key", "accepted"] == 3
    assert figures["keybearer_verdicts_total", "key", "INSUFFICIENT_SCOPE"] == 1
    assert "INVALID_API_KEY" not in text
    assert figures["keybearer_usage_unwritten_seconds",] == 0
    assert figures["keybearer_outbox_waiting",] == 0
    for name in ("batches_waiting", "spilled_bytes", "samples_dropped_total"):
        assert figures[f"keybearer_usage_{name}",] == 0
    assert key["id"] not in text
    assert key["start"] not in text


async def test_hits_and_misses_are_told_apart_and_never_fall(
    client: httpx2.AsyncClient, app: App
) -> None:
    await person(app)
    login = await log_in(client)
    key = await make_key(client, login, name="CI")
    await app.verifier.usage.flush(app.clock.now())
    before = read((await client.get(PATH)).text)
    for _ in range(5):
        await client.get("/api/auth/forward", headers={"x-api-key": key["key"]})
    await client.get("/api/auth/forward", headers={"x-api-key": "kb_forged"})
    early = read((await client.get(PATH)).text)
    await app.verifier.usage.flush(app.clock.now())
    late = read((await client.get(PATH)).text)
    hits, misses = (f"keybearer_cache_{name}_total" for name in ("hits", "misses"))
    assert late[misses,] - before[misses,] == early[misses,] - before[misses,] == 1
    assert early[hits,] >= before[hits,]
    assert late[hits,] - before[hits,] == 4
    assert late["keybearer_cache_bytes",] > 0


async def test_lease_changes_and_queues_are_told(
    client: httpx2.AsyncClient, app: App, clock: StandingClock
) -> None:
    await person(app)
    login = await log_in(client)
    key = await make_key(client, login, name="CI")
    await client.post("/api/auth/api-key/delete", json={"keyId": key["id"]}, headers=login)
    figures = read((await client.get(PATH)).text)
    assert figures["keybearer_lease_held",] == 1
    assert figures["keybearer_lease_remaining_seconds",] == 2
    assert figures["keybearer_lease_stretched",] == 0
    assert figures["keybearer_nodes",] == 1
    assert figures["keybearer_nodes_suspected",] == 0
    assert figures["keybearer_changes_waiting",] == 0
    assert figures["keybearer_receipt_seconds_count",] >= 1
    assert figures["keybearer_receipt_seconds_bucket", "0.001"] >= 1
    assert figures["keybearer_receipt_seconds_sum",] == 0
    assert figures["keybearer_passwords_waiting",] == 0
    assert figures["keybearer_database_busy",] >= 0
    assert not any(name[0] == "keybearer_bus_connected" for name in figures)
    await lose_database(app)
    clock.advance(60_000)
    figures = read((await client.get(PATH)).text)
    assert figures["keybearer_lease_held",] == 0
    assert figures["keybearer_lease_remaining_seconds",] == 0


async def test_whether_changes_come_by_redis_is_told(ready_url: str, redis_url: str) -> None:
    auth = Auth(ready_url, secret=SECRET, accounts=False, redis_url=redis_url)
    async with auth.lifespan(), local(auth) as client:
        figures = read((await client.get(PATH)).text)
    assert figures["keybearer_bus_connected",] == 1
    assert figures["keybearer_rate_limits_shared",] == 1


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
    assert "keybearer_cache_entries{" in text
    assert "outbox" not in text


async def test_without_the_library_there_is_nothing(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "INSTALLED", False)
    assert (await client.get(PATH)).status_code == 404
