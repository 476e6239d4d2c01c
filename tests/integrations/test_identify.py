"""Whoever is logged in to the host app passes every guard, as far as an owner may go there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keybearer import Anonymous, Auth, Refusal, Session, api_key
from keybearer.integrations import fastapi, starlette
from keybearer.operations.keys import CreateKey
from keybearer.verification.presented import Headers
from tests.integrations.conftest import Calling

THEIRS = {"cookie": "sid=theirs"}
OURS = {"origin": "http://127.0.0.1:8000"}


async def identify(headers: Headers) -> str | None:
    sent = dict(headers)
    if sent.get(b"x-forwarded-user") == b"user-6":
        return "user-6"
    return "user-5" if sent.get(b"cookie") == b"sid=theirs" else None


async def holds(_owner: str) -> list[str]:
    return ["files:read"]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Auth]:
    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}",
        [api_key(permissions=["files:read", "files:write"], holds=holds)],
        accounts=False,
        identify=identify,
    )
    async with auth.lifespan():
        yield auth


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse(request.state.session and request.state.session.subject)


def with_middleware(auth: Auth) -> Any:
    methods = ["GET", "POST"]
    read = [Middleware(starlette.Guard, auth=auth, permissions="files:read")]
    write = [Middleware(starlette.Guard, auth=auth, permissions="files:write")]
    return Starlette(routes=[
        Route("/read", whoami, methods=methods, middleware=read),
        Route("/write", whoami, methods=methods, middleware=write),
    ])  # fmt: skip


def with_decorator(auth: Auth) -> Any:
    methods = ["GET", "POST"]
    read, write = (starlette.requires(auth, f"files:{what}")(whoami) for what in ("read", "write"))
    return Starlette(
        routes=[Route("/read", read, methods=methods), Route("/write", write, methods=methods)]
    )


def with_dependency(auth: Auth) -> Any:
    app = FastAPI()

    async def read(
        session: Annotated[Session, Depends(fastapi.Guard(auth, "files:read"))],
    ) -> str:
        return session.subject

    async def write(
        session: Annotated[Session, Depends(fastapi.Guard(auth, "files:write"))],
    ) -> str:
        return session.subject

    for path, endpoint in (("/read", read), ("/write", write)):
        app.api_route(path, methods=["GET", "POST"])(endpoint)
    return app


@pytest.mark.parametrize("guarded", [with_middleware, with_decorator, with_dependency])
async def test_every_guard_goes_by_the_hosts_log_in(
    host: Auth, calling: Calling, guarded: Any
) -> None:
    client: httpx2.AsyncClient = calling(guarded(host))
    answer = await client.get("/read", headers=THEIRS)
    assert (answer.status_code, answer.json()) == (200, "user-5")
    assert (await client.get("/read", headers={"cookie": "sid=no"})).status_code == 401
    beyond = await client.get("/write", headers=THEIRS)
    assert (beyond.status_code, beyond.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
    bad = await client.get("/read", headers=THEIRS | {"x-api-key": "kb_bad"})
    assert (bad.status_code, bad.json()["code"]) == (401, "INVALID_API_KEY")
    made = await host.api.create_api_key(CreateKey(name="k"), owner="user-7")
    by_key = await client.get("/read", headers=THEIRS | {"x-api-key": made.key or ""})
    assert by_key.status_code == 403  # the key alone counts, and it has no permission

    # What changes something by a cookie comes from our own pages; by a proxy's word, from anywhere.
    assert (await client.post("/read", headers=THEIRS)).status_code == 403
    evil = THEIRS | {"origin": "https://evil.example"}
    assert (await client.post("/read", headers=evil)).status_code == 403
    assert (await client.post("/read", headers=THEIRS | OURS)).json() == "user-5"
    assert (await client.post("/read", headers={"x-forwarded-user": "user-6"})).json() == "user-6"


async def test_the_library_call_goes_by_it_too(host: Auth) -> None:
    verdict = await host.api.authenticate(THEIRS, permissions="files:read")
    assert isinstance(verdict, Session)
    assert (verdict.subject, verdict.kind) == ("user-5", "session")
    assert verdict.permissions == frozenset({"files:read"})
    assert isinstance(await host.api.authenticate(THEIRS, permissions="files:write"), Refusal)
    assert isinstance(await host.api.authenticate({"cookie": "sid=no"}), Anonymous)
    session = await host.api.get_session(THEIRS)
    assert session is not None
    assert session.subject == "user-5"


async def test_forward_auth_says_the_same(host: Auth, calling: Calling) -> None:
    client = calling(host.mount(Starlette()))
    answer = await client.get("/api/auth/forward?permissions=files:read", headers=THEIRS)
    assert (answer.status_code, answer.headers["x-auth-subject"]) == (200, "user-5")
    assert answer.headers["x-auth-permissions"] == "files:read"
    beyond = await client.get("/api/auth/forward?permissions=files:write", headers=THEIRS)
    assert beyond.status_code == 403
