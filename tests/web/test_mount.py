"""In front of an app: our paths are ours, all else goes on; we start before it and stop after."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keybearer import Auth, Misuse
from keybearer.web.mount import no_app
from tests.people import SECRET

Events = list[str]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Auth]:
    """On SQLite alone: no path depends on the database."""
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, token_management=True)
    yield auth
    await auth.stop()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with what it was asked."""
    told = {name: scope[name] for name in ("type", "path", "method")}
    told["body"] = (await receive()).get("body", b"").decode()
    told["root_path"] = scope.get("root_path", "")
    headers = [(b"content-type", b"application/json"), (b"x-app", b"yes")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def calling(app: ASGIApp) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50_000))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


# --- whose path it is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/", "/api/au", "/api/authors", "/api/authors/ada", "/api/auth-x",
        "/API/auth/ok", "/apis/auth/ok", "/x/api/auth/ok", "//api/auth/ok",
        "/api/authors/a%2Fb", "/files/a%2Fb",
        "/api/authors%2f", "/api%2Fauthors", "/dev/outboxes", "/dev/outbox%2Fx",
    ],
)  # fmt: skip
async def test_other_paths_are_the_apps_and_untouched(here: Auth, path: str) -> None:
    async with calling(here.mount(echo)) as client:
        answer = await client.request("PATCH", path, content=b"body")
    assert (answer.status_code, answer.headers.get("x-app")) == (200, "yes")
    told = answer.json()
    assert (told["method"], told["body"], told["root_path"]) == ("PATCH", "body", "")
    assert "x-content-type-options" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/auth", 404), ("/api/auth/", 404), ("/api/auth/ok", 200), ("/api/auth/ok/", 404),
        ("/api/auth/nothing", 404), ("/api/auth/login", 405), ("/api/auth/login/", 404),
        ("/api/auth//ok", 404), ("/api/auth/../ok", 404), ("/api/auth/health/live", 200),
        ("/api/auth/get-session", 200), ("/api/auth/openapi.json", 200), ("/dev/outbox", 200),
    ],
)  # fmt: skip
async def test_our_paths_never_reach_the_app(here: Auth, path: str, status: int) -> None:
    sent = await asked(here.mount(echo), path)
    assert sent["status"] == status
    assert b"x-app" not in sent["headers"]
    if status == 404:
        assert json.loads(sent["body"])["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "raw",
    ["/api/auth%2Fok", "/api%2fauth/ok", "/api/auth/%2Fok", "/api%2Fauth%2Fget-session",
     "/dev%2Foutbox", "/api/auth/health%2flive", "/api/auth%2f"],
)  # fmt: skip
async def test_an_escaped_slash_is_no_slash(here: Auth, raw: str) -> None:
    path = raw.replace("%2F", "/").replace("%2f", "/")
    sent = await asked(here.mount(echo), path, raw_path=raw.encode())
    assert (sent["status"], json.loads(sent["body"])["code"]) == (404, "NOT_FOUND")
    assert b"x-app" not in sent["headers"]


async def test_a_server_that_gives_no_raw_path_is_fine(here: Auth) -> None:
    assert (await asked(here.mount(echo), "/api/auth/ok", raw_path=None))["status"] == 200


async def asked(app: ASGIApp, path: str, *, raw_path: bytes | None = b"", **more: Any) -> Any:
    """The answer to a path exactly as it stands here."""
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"127.0.0.1:8000")], "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000), "root_path": "", "raw_path": raw_path or path.encode(),
        **more,
    }  # fmt: skip
    if raw_path is None:
        del scope["raw_path"]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return {"status": sent[0]["status"], "headers": dict(sent[0]["headers"]), "body": body}


async def test_it_may_lie_elsewhere(here: Auth) -> None:
    async with calling(here.mount(echo, base="/login-api")) as client:
        assert (await client.get("/login-api/ok")).json() == {"ok": True}
        assert (await client.post("/login-api/login", json={})).status_code == 400
        assert "x-app" not in (await client.get("/login-api/nothing")).headers
        for path in ("/api/auth/ok", "/login-apis/ok", "/login-ap"):
            assert (await client.get(path)).headers["x-app"] == "yes"
        described = (await client.get("/login-api/openapi.json")).text
        assert "/login-api" in described
        assert "/api/auth" not in described


@pytest.mark.parametrize("base", ["", "/", "api/auth", "/api/auth/", "/api//auth", "/a?b", "/a b"])
async def test_a_base_that_would_match_nothing_or_all_is_refused(here: Auth, base: str) -> None:
    with pytest.raises(Misuse, match="base"):
        here.mount(echo, base=base)


async def test_websockets_are_the_apps(here: Auth) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await here.mount(app)({"type": "websocket", "path": "/api/auth/ok"}, nothing, nothing)
    assert seen == ["websocket"]
    assert here.parts is None


async def test_the_app_alone_starts_nothing(here: Auth) -> None:
    async with calling(here.mount(echo)) as client:
        await client.get("/")
        assert here.parts is None
        await client.get("/api/auth/get-session")
        assert here.parts is not None


async def test_a_stopped_one_that_starts_again_serves_its_new_parts(here: Auth) -> None:
    async with calling(here.mount(no_app)) as client:
        for _ in range(2):
            assert (await client.get("/api/auth/get-session")).status_code == 200
            await here.stop()


async def test_a_lost_database_at_the_start_is_503() -> None:
    auth = Auth("postgresql://127.0.0.1:9/nobody", secret=SECRET)
    async with calling(auth.mount(echo)) as client:
        answer = await client.post("/api/auth/login", json={})
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/")).status_code == 200


OURS = ["/api/auth/get-session", "/api/auth/forward", "/api/auth/metrics", "/dev/outbox"]


@pytest.mark.parametrize("path", OURS)
async def test_a_start_that_is_refused_is_503_and_logged(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    first, second = (Auth(url, secret=SECRET, token_management=True) for _ in range(2))
    async with calling(second.mount(echo)) as client:
        async with first.lifespan():
            answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
        assert "serves" not in answer.text
        (record,) = [each for each in caplog.records if each.msg == "start.refused"]
        assert record.levelname == "ERROR"
        assert "another process" in record.__dict__["reason"]
        assert (await client.get(path)).status_code in (200, 401)
    await second.stop()


async def test_an_app_with_nothing_in_it(here: Auth) -> None:
    async with calling(here.mount(no_app)) as client:
        front, nothing = await client.get("/"), await client.get("/nothing")
    # Nobody else could answer there: the pages do.
    assert front.status_code == 303
    assert front.headers["location"].startswith("/en/account/")
    assert (nothing.status_code, "Not found" in nothing.text) == (404, True)


# --- other origins --------------------------------------------------------------------------

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type,x-api-key,authorization,idempotency-key",
}


@pytest.fixture
async def trusting(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, trusted_origins=ORIGIN)
    async with auth.lifespan(), calling(auth.mount(echo)) as client:
        yield client


async def test_a_trusted_origin_may_call_with_cookies(trusting: httpx2.AsyncClient) -> None:
    asks = await trusting.options("/api/auth/login", headers={"origin": ORIGIN, **PREFLIGHT})
    assert asks.status_code == 200
    answer = await trusting.post("/api/auth/login", headers={"origin": ORIGIN}, json={})
    assert answer.status_code == 400
    for each in (asks, answer):
        assert each.headers["access-control-allow-origin"] == ORIGIN
        assert each.headers["access-control-allow-credentials"] == "true"
        assert "origin" in each.headers["vary"].lower()
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"set-auth-token", "retry-after", "ratelimit", "ratelimit-policy"} <= set(exposed)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.com", "null", "https://app.example.com.evil.example", "http://app.example.com",
     "https://app.example.com:8443", "https://APP.example.com"],
)  # fmt: skip
async def test_other_origins_are_allowed_nothing(trusting: httpx2.AsyncClient, origin: str) -> None:
    asks = await trusting.options("/api/auth/login", headers={"origin": origin, **PREFLIGHT})
    assert asks.status_code == 400
    answer = await trusting.post("/api/auth/login", headers={"origin": origin}, json={})
    assert answer.status_code == 403
    for each in (asks, answer):
        assert "access-control-allow-origin" not in each.headers


@pytest.mark.parametrize("proxies", [None, "10.0.0.0/8"])
async def test_a_proxy_that_nobody_told_of_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, proxies: str | None
) -> None:
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, trusted_proxies=proxies)
    async with auth.lifespan(), calling(auth.mount(echo)) as client:
        for headers in ({}, {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "192.0.2.2"}):
            await client.get("/api/auth/get-session", headers=headers)
    said = [record for record in caplog.records if record.message == "proxy.not_trusted"]
    assert len(said) == (1 if proxies is None else 0)


@pytest.mark.parametrize(
    "path", ["/api/auth/ok", "/api/auth/health/live", "/api/auth/health/ready"]
)
async def test_a_trusted_origin_may_ask_whether_we_are_there(
    trusting: httpx2.AsyncClient, path: str
) -> None:
    asks = await trusting.options(path, headers={"origin": ORIGIN, **PREFLIGHT})
    answer = await trusting.get(path, headers={"origin": ORIGIN})
    for each in (asks, answer):
        assert each.status_code == 200
        assert each.headers["access-control-allow-origin"] == ORIGIN
    other = await trusting.get(path, headers={"origin": "https://evil.example.com"})
    assert other.status_code == 200
    assert "access-control-allow-origin" not in other.headers


async def test_a_preflight_passes_no_guard_of_a_proxy(trusting: httpx2.AsyncClient) -> None:
    """Some proxies ask with the client's own method and headers, and go by the status."""
    asks = await trusting.options("/api/auth/forward", headers={"origin": ORIGIN, **PREFLIGHT})
    assert asks.status_code == 401
    for path in ("/api/auth/metrics", "/dev/outbox"):
        answer = await trusting.get(path, headers={"origin": ORIGIN})
        assert "access-control-allow-origin" not in answer.headers


async def test_without_trusted_origins_nothing_is_allowed(here: Auth) -> None:
    async with calling(here.mount(echo)) as client:
        asks = await client.options("/api/auth/login", headers={"origin": ORIGIN, **PREFLIGHT})
        assert asks.status_code == 405
        assert "access-control-allow-origin" not in asks.headers
