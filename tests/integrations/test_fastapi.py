"""The dependency for FastAPI."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.dependencies.utils import get_dependant
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from keybearer import Auth, Misuse, Session
from keybearer.integrations.fastapi import REFUSALS, Guard, describe
from tests.integrations.conftest import Calling, MakeKey


def reports(auth: Auth) -> FastAPI:
    app = FastAPI()
    caller = Guard(auth)

    @app.get("/mine", responses=REFUSALS)
    async def mine(session: Annotated[Session, Depends(caller)]) -> str:
        return session.subject

    @app.get("/read", responses=REFUSALS)
    def read(session: Annotated[Session, Depends(Guard(auth, "files:read"))]) -> str:
        return session.subject

    @app.get("/write")
    async def write(session: Annotated[Session, Security(caller, scopes=["files:write"])]) -> str:
        return session.subject

    @app.get("/maybe")
    async def maybe(
        session: Annotated[Session | None, Depends(Guard(auth, optional=True))],
    ) -> str | None:
        return session.subject if session else None

    @app.get("/open")
    async def anyone(number: int) -> int:
        return number

    return app


async def test_the_dependency_gives_the_caller(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    client = calling(reports(auth))
    headers = {"authorization": f"Bearer {await make_key('files:read')}"}
    for path in ("/mine", "/read", "/maybe"):
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (200, "user-1")


@pytest.mark.parametrize(
    ("path", "credential", "expected"),
    [
        ("/mine", None, (401, "UNAUTHORIZED")),
        ("/mine", "kb_wrong", (401, "INVALID_API_KEY")),
        ("/maybe", "kb_wrong", (401, "INVALID_API_KEY")),
        ("/write", "good", (403, "INSUFFICIENT_SCOPE")),
    ],
)
async def test_refusals_are_problems(  # noqa: PLR0917 -- three fixtures, three parameters
    auth: Auth,
    make_key: MakeKey,
    calling: Calling,
    path: str,
    credential: str | None,
    expected: tuple[int, str],
) -> None:
    key = await make_key("files:read") if credential == "good" else credential
    answer = await calling(reports(auth)).get(path, headers={"x-api-key": key} if key else {})
    assert (answer.status_code, answer.json()["code"]) == expected
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    assert answer.headers["cache-control"] == "no-store"


async def test_optional_gives_none_to_nobody(auth: Auth, calling: Calling) -> None:
    answer = await calling(reports(auth)).get("/maybe")
    assert (answer.status_code, answer.json()) == (200, None)


async def test_the_rate_limit_says_when_to_come_back(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    client = calling(reports(auth))
    headers = {"x-api-key": await make_key(rate_limit_max=1, rate_limit_time_window=60_000)}
    assert (await client.get("/mine", headers=headers)).status_code == 200
    answer = await client.get("/mine", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
    assert int(answer.headers["retry-after"]) >= 60


async def test_a_guard_on_the_router_and_one_on_the_route_charge_once(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    router = APIRouter(dependencies=[Depends(Guard(auth))])

    @router.get("/x")
    async def read(session: Annotated[Session, Depends(Guard(auth, "files:read"))]) -> str:
        return session.subject

    app = FastAPI()
    app.include_router(router)
    key = await make_key("files:read", rate_limit_max=1, rate_limit_time_window=60_000)
    client = calling(app)
    assert (await client.get("/x", headers={"x-api-key": key})).status_code == 200
    assert (await client.get("/x", headers={"x-api-key": key})).status_code == 429


async def test_an_app_with_its_own_error_pages_keeps_them(auth: Auth, calling: Calling) -> None:
    app = reports(auth)

    @app.exception_handler(HTTPException)
    async def own(_request: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse(f"own: {error.detail}", error.status_code, error.headers)

    answer = await calling(app).get("/mine")
    assert (answer.status_code, answer.text) == (401, "own: Unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="keybearer"'


async def test_the_apps_own_refusals_stay_as_they_are(auth: Auth, calling: Calling) -> None:
    client = calling(reports(auth))
    await client.get("/mine")  # a refusal of ours before must change nothing
    answer = await client.get("/open?number=x")
    assert answer.status_code == 422
    assert "detail" in answer.json()
    assert (await client.get("/nowhere")).json() == {"detail": "Not Found"}


async def test_the_docs_show_both_headers_and_the_refusals(auth: Auth) -> None:
    app = reports(auth)
    assert set(app.openapi()["components"]["securitySchemes"]) == {"Bearer"}
    describe(app)
    described: dict[str, Any] = app.openapi()
    assert app.openapi() == described
    schemes = described["components"]["securitySchemes"]
    assert (schemes["Bearer"]["type"], schemes["Bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["X-API-Key"]["in"], schemes["X-API-Key"]["name"]) == ("header", "X-API-Key")
    mine = described["paths"]["/mine"]["get"]
    assert mine["security"] == [{"Bearer": []}, {"X-API-Key": []}]
    assert set(mine["responses"]) == {"200", "400", "401", "403", "429", "503"}
    assert "application/problem+json" in mine["responses"]["401"]["content"]
    assert "security" not in described["paths"]["/open"]["get"]
    write = described["paths"]["/write"]["get"]
    assert write["security"] == [{"Bearer": ["files:write"]}, {"X-API-Key": ["files:write"]}]
    assert "parameters" not in mine  # nothing of the guard's inside leaks into the docs


def test_the_docs_of_an_app_that_guards_nothing_stay_as_they_are() -> None:
    app, plain = FastAPI(), FastAPI()
    describe(app)
    for each in (app, plain):
        each.add_api_route("/open", lambda: None, name="open")
    assert app.openapi() == plain.openapi()


async def test_the_guard_is_one_dependency(auth: Auth) -> None:
    # Each costs FastAPI as much as the whole check does.
    assert not get_dependant(path="/", call=Guard(auth)).dependencies


async def test_websockets_are_guarded_too(auth: Auth) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: Annotated[Session, Depends(Guard(auth))]) -> None:
        raise AssertionError(session)

    with pytest.raises(WebSocketDisconnect) as refused, TestClient(app) as client:
        client.websocket_connect("/ws").__enter__()
    assert refused.value.code == 1008


async def test_a_need_that_is_no_permission_is_told_at_once(auth: Auth) -> None:
    with pytest.raises(Misuse, match=r"permissions=.*1 to 64 of a-z"):
        Guard(auth, "Files:*")


async def test_scopes_that_are_no_permissions_let_nobody_pass(
    auth: Auth, make_key: MakeKey, calling: Calling
) -> None:
    app = FastAPI()

    @app.get("/x")
    async def x(session: Annotated[Session, Security(Guard(auth), scopes=["files"])]) -> str:
        return session.subject

    headers = {"x-api-key": await make_key("files:read")}
    with pytest.raises(Misuse, match=r"scopes=.*resource"):
        await calling(app).get("/x", headers=headers)
