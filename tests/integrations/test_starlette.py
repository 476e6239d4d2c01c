"""The middleware and the decorator for Starlette."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from keybearer import Auth, Misuse
from keybearer.integrations.starlette import Guard, requires
from keybearer.operations.keys import CreateKey, ListKeys
from tests.integrations.conftest import Calling, MakeKey, built
from tests.people import PASSWORD, StandingClock, log_in, person


async def whoami(request: Request) -> JSONResponse:
    session = request.state.session
    return JSONResponse(None if session is None else session.subject)


def guarded(auth: Auth, **options: Any) -> Starlette:
    middleware = [Middleware(Guard, auth=auth, **options)]
    methods = ["GET", "POST"]
    return Starlette(routes=[Route("/x", whoami, methods=methods, middleware=middleware)])


@pytest.mark.parametrize("form", ["bearer", "header"])
async def test_a_good_key_is_let_through_and_named(
    auth: Auth, make_key: MakeKey, calling: Calling, form: str
) -> None:
    key = await make_key()
    headers = {"authorization": f"Bearer {key}"} if form == "bearer" else {"x-api-key": key}
    answer = await calling(guarded(auth)).get("/x", headers=headers)
    assert (answer.status_code, answer.json()) == (200, "user-1")


async def test_refusals_are_problems_with_their_headers(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    client = calling(guarded(auth, permissions="files:write"))
    key = await make_key("files:read")

    answer = await client.get("/x?q=1")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="keybearer"'
    assert (answer.json()["code"], answer.json()["instance"]) == ("UNAUTHORIZED", "/x")

    answer = await client.get("/x", headers={"x-api-key": "kb_wrong"})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_API_KEY")

    answer = await client.get("/x", headers={"x-api-key": key})
    assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert 'scope="files:write"' in answer.headers["www-authenticate"]

    both = {"x-api-key": key, "authorization": f"Bearer {key}"}
    answer = await client.get("/x", headers=both)
    assert (answer.status_code, answer.json()["code"]) == (400, "MULTIPLE_CREDENTIALS")


async def test_the_rate_limit_answers_429_and_ends(
    auth: Auth, make_key: MakeKey, calling: Calling, clock: StandingClock
) -> None:
    client = calling(guarded(auth))
    headers = {"x-api-key": await make_key(rate_limit_max=1, rate_limit_time_window=60_000)}
    assert (await client.get("/x", headers=headers)).status_code == 200
    answer = await client.get("/x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
    assert answer.headers["ratelimit-policy"] == '"default";q=1;w=60'
    clock.advance(1000 * int(answer.headers["retry-after"]))
    assert (await client.get("/x", headers=headers)).status_code == 200


async def test_several_guards_charge_a_key_once(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    inner = guarded(auth, permissions="files:read")
    outer = Starlette(routes=[Mount("/api", app=inner)], middleware=[Middleware(Guard, auth=auth)])
    key = await make_key("files:read", rate_limit_max=1, rate_limit_time_window=60_000)
    client = calling(outer)
    assert (await client.get("/api/x", headers={"x-api-key": key})).status_code == 200
    assert (await client.get("/api/x", headers={"x-api-key": key})).status_code == 429
    found = await auth.api.list_api_keys(ListKeys(), owner="user-1")
    assert found.api_keys[0].request_count == 1


async def test_two_keybearers_each_ask_for_their_own(
    auth: Auth, make_key: MakeKey, calling: Calling, sqlite_template: Path, tmp_path: Path
) -> None:
    other = built(sqlite_template, tmp_path / "other", StandingClock(), accounts=False)
    async with other.lifespan():
        client = calling(Guard(guarded(other), auth=auth))
        answer = await client.get("/x", headers={"x-api-key": await make_key()})
        assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_API_KEY")


async def test_optional_lets_nobody_through_but_no_bad_credential(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    client = calling(guarded(auth, optional=True))
    answer = await client.get("/x")
    assert (answer.status_code, answer.json()) == (200, None)
    answer = await client.get("/x", headers={"x-api-key": await make_key()})
    assert answer.json() == "user-1"
    assert (await client.get("/x", headers={"x-api-key": "kb_wrong"})).status_code == 401


async def browser(house: Auth, client: httpx2.AsyncClient) -> None:
    """Makes the client a browser that is logged in by cookie."""
    await person(await house.running())
    login = {"email": "ada@example.com", "password": PASSWORD}
    answer = await client.post("/api/auth/sign-in/email", json=login)
    assert answer.status_code == 200, answer.text


async def test_a_cookie_is_good_for_our_own_site_alone(house: Auth, calling: Calling) -> None:
    client = calling(house.mount(guarded(house)))
    await browser(house, client)
    assert (await client.get("/x", headers={"sec-fetch-site": "cross-site"})).status_code == 200
    assert (await client.post("/x", headers={"sec-fetch-site": "same-origin"})).status_code == 200
    answer = await client.post("/x", headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_ORIGIN")
    assert (await client.post("/x")).status_code == 403


async def test_the_cookie_of_an_ended_login_is_nobody_where_that_is_allowed(
    house: Auth, calling: Calling
) -> None:
    client = calling(house.mount(guarded(house, optional=True)))
    await browser(house, client)
    cookies = dict(client.cookies)
    await client.post("/api/auth/sign-out", headers={"sec-fetch-site": "same-origin"}, json={})
    client.cookies.update(cookies)
    answer = await client.get("/x")
    assert (answer.status_code, answer.json()) == (200, None)


async def test_a_program_that_logged_in_may_post_from_anywhere(
    house: Auth, calling: Calling
) -> None:
    client = calling(house.mount(guarded(house)))
    await person(await house.running())
    headers = {**await log_in(client), "origin": "https://elsewhere.example"}
    assert (await client.post("/x", headers=headers)).status_code == 200


async def test_a_lost_database_is_503(
    auth: Auth, make_key: MakeKey, calling: Calling, caplog: pytest.LogCaptureFixture
) -> None:
    client = calling(guarded(auth))
    key = await make_key()
    await (await auth.running()).database.write(
        lambda tx: tx.run(text("ALTER TABLE api_keys RENAME TO lost"))
    )
    answer = await client.get("/x", headers={"x-api-key": key})
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert "dependency.lost" in caplog.text


async def test_the_decorator_guards_functions_and_methods(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    @requires(auth, "files:read")
    async def fast(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.session.subject)

    @requires(auth)
    def slow(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.session.subject)

    class Page(HTTPEndpoint):
        @requires(auth)
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.session.subject)

    client = calling(Starlette(routes=[Route("/f", fast), Route("/s", slow), Route("/p", Page)]))
    headers = {"x-api-key": await make_key("files:read")}
    for path in ("/f", "/s", "/p"):
        assert (await client.get(path, headers=headers)).text == "user-1"
        assert (await client.get(path)).json()["code"] == "UNAUTHORIZED"
    assert (await client.get("/f", headers={"x-api-key": await make_key()})).status_code == 403


async def test_what_cannot_be_guarded_is_told_at_once(auth: Auth) -> None:
    async def no_request() -> None: ...

    with pytest.raises(Misuse, match="no_request"):
        requires(auth)(no_request)
    for nothing in ("", "files"):
        with pytest.raises(Misuse, match=r"permissions=.*resource"):
            Guard(Starlette(), auth=auth, permissions=nothing)
        with pytest.raises(Misuse, match=r"permissions=.*resource"):
            requires(auth, nothing)


async def test_websockets_are_guarded_too(auth: Auth, make_key: MakeKey) -> None:
    reached: list[str] = []

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["state"]["session"].subject)

    async def call(headers: list[tuple[bytes, bytes]]) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        scope = {"type": "websocket", "path": "/", "headers": headers, "client": ("::1", 1)}
        await Guard(endpoint, auth=auth)(scope, receive, send)
        return sent

    assert await call([]) == [{"type": "websocket.close", "code": 1008}]
    assert reached == []
    assert await call([(b"x-api-key", (await make_key()).encode())]) == []
    assert reached == ["user-1"]


def test_the_lifespan_passes_a_guard() -> None:
    auth = Auth("sqlite:///lifespan.db", secret="another-secret-of-at-least-32-bytes!")
    begun: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["type"])
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    with TestClient(Guard(app, auth=auth)):
        assert begun == ["lifespan"]


async def test_a_revoked_key_is_out(auth: Auth, calling: Calling) -> None:
    from keybearer.operations.keyends import RevokeKey

    made = await auth.api.create_api_key(CreateKey(name="x"), owner="user-1")
    client = calling(guarded(auth))
    headers = {"x-api-key": made.key or ""}
    assert (await client.get("/x", headers=headers)).status_code == 200
    await auth.api.revoke_api_key(RevokeKey(key_id=made.id), owner="user-1")
    assert (await client.get("/x", headers=headers)).json()["code"] == "KEY_REVOKED"
