"""Live while the process runs; ready while it can answer."""

import asyncio

import httpx2
import pytest

from keybearer import Auth
from keybearer.adapters.clock import SystemClock
from keybearer.operations.app import App
from keybearer.web import health
from keybearer.web.health import readiness
from keybearer.web.mount import no_app
from tests.people import SECRET, StandingClock
from tests.servers import own_redis
from tests.web.losses import lose_database

READY = "/api/auth/health/ready"
LIVE = "/api/auth/health/live"


def local(auth: Auth) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=auth.mount(no_app))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.fixture(autouse=True)
def a_look_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen for another one is no answer here."""
    monkeypatch.setattr(health, "SHARED_SECONDS", 0)


class DriftingClock(SystemClock):
    def __init__(self, drift: int) -> None:
        super().__init__()
        self._drift = drift

    def drift(self) -> int:
        return self._drift


async def test_ready_says_nothing_but_what_is_there(client: httpx2.AsyncClient) -> None:
    answer = await client.get(READY)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "lease": "ok",
        "clock": "ok",
        "usage": "ok",
    }
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "body"), [(LIVE, {"status": "ok"}), ("/api/auth/ok", {"ok": True})]
)
async def test_a_lost_database_leaves_live_but_not_ready(
    client: httpx2.AsyncClient, app: App, clock: StandingClock, path: str, body: object
) -> None:
    await lose_database(app)
    clock.advance(60_000)
    answer = await client.get(READY)
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failing", "database": "failing", "lease": "failing", "clock": "ok",
        "usage": "ok",
    }  # fmt: skip
    assert "retry-after" in answer.headers
    alive = await client.get(path)
    assert (alive.status_code, alive.json()) == (200, body)


class Frozen:
    """A database whose reads hang, and which takes its time even to give up."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def read(self, _body: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.go.wait()


async def test_a_database_that_hangs_is_told_in_time(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    frozen, database = Frozen(), app.database
    object.__setattr__(app, "database", frozen)
    await app.verifier.lease.hold()
    state = await readiness(app, None)  # does not end while what was asked is still giving up
    assert (state.status, state.database, state.lease) == ("degraded", "failing", "ok")
    frozen.go.set()
    object.__setattr__(app, "database", database)


async def test_before_the_start_it_is_live_and_not_ready() -> None:
    auth = Auth("postgresql://127.0.0.1:9/nobody", secret=SECRET)
    async with local(auth) as client:
        assert (await client.get(LIVE)).status_code == 200
        assert (await client.get(READY)).status_code == 503


async def test_usage_that_cannot_wait_on_the_disk_degrades(app: App) -> None:
    spill = app.verifier.usage.spill
    assert spill is not None
    spill.failing = True
    state = await readiness(app, None)
    assert (state.status, state.usage, state.clock) == ("degraded", "failing", "ok")


@pytest.mark.parametrize(
    ("drift", "status"), [(0, "ok"), (30_000, "ok"), (30_001, "degraded"), (-30_001, "degraded")]
)
async def test_a_drifting_clock_degrades(ready_url: str, drift: int, status: str) -> None:
    auth = Auth(ready_url, secret=SECRET, clock=DriftingClock(drift))
    async with auth.lifespan():
        assert (await readiness(await auth.running(), auth.node)).status == status


async def test_a_lease_that_goes_on_without_the_database_degrades(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, clock=clock, stale_if_database_lost="10s")
    async with auth.lifespan():
        app = await auth.running()
        await app.verifier.lease.hold()
        await lose_database(app)
        clock.advance(5_000)
        state = await readiness(app, auth.node)
        assert (state.status, state.database, state.lease) == ("degraded", "failing", "stretched")
        clock.advance(7_000)
        state = await readiness(app, auth.node)
        assert (state.status, state.database, state.lease) == ("failing", "failing", "failing")


@pytest.mark.parametrize(("seconds", "looks"), [(60, 1), (0, 3)])
async def test_whoever_asks_soon_is_told_of_the_same_look(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, seconds: int, looks: int
) -> None:
    looked: list[App] = []

    async def lag(app: App) -> int:
        looked.append(app)
        return 0

    monkeypatch.setattr(health, "_lag", lag)
    monkeypatch.setattr(health, "SHARED_SECONDS", seconds)
    assert [(await client.get(READY)).status_code for _ in range(3)] == [200] * 3
    assert len(looked) == looks


async def test_a_lost_redis_degrades(ready_url: str) -> None:
    with own_redis() as server:
        auth = Auth(ready_url, secret=SECRET, redis_url=server.url)
        async with auth.lifespan(), local(auth) as client:
            assert (await client.get(READY)).json() == {
                "status": "ok", "database": "ok", "lease": "ok", "clock": "ok", "usage": "ok",
                "redis": "ok",
            }  # fmt: skip
            server.kill()
            app = await auth.running()
            async with asyncio.timeout(30):
                while (await readiness(app, auth.node)).redis == "ok":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            answer = await client.get(READY)
            assert answer.status_code == 200
            assert answer.json() == {
                "status": "degraded", "database": "ok", "lease": "ok", "clock": "ok",
                "usage": "ok", "redis": "failing",
            }  # fmt: skip


async def test_only_reading_is_answered(client: httpx2.AsyncClient) -> None:
    for path in (LIVE, READY):
        assert (await client.post(path)).status_code == 405
        assert (await client.head(path)).status_code == 200
