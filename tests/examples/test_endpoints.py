"""The example endpoints, with and without accounts and permissions."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.endpoints import MAX_BODY, create_app
from keybearer import Auth, api_key, bearer
from keybearer.operations.keys import CreateKey
from tests.people import SECRET, log_in, make_key, person

GUARDED = [("GET", "/api/protected-endpoint"), ("GET", "/api/user/profile"),
           ("POST", "/api/deploy")]  # fmt: skip


def open_client(auth: Auth) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(auth.mount(create_app(auth)), client=("127.0.0.1", 50000))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(auth) as client:
        yield client


@pytest.fixture
async def ada(auth: Auth, client: httpx2.AsyncClient) -> dict[str, str]:
    """The headers of a user who logged in."""
    await person(await auth.running())
    return await log_in(client)


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer kb_wrong"}, {"x-api-key": "x"}, {"authorization": "Basic eA=="}],
)
async def test_strangers_get_401(
    client: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await client.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "www-authenticate" in answer.headers


async def test_a_key_opens_all_and_its_last_use_moves(
    client: httpx2.AsyncClient, ada: dict[str, str]
) -> None:
    made = await make_key(client, ada, name="ci", permissions={"deploy": ["run"]})
    assert made["lastRequest"] is None
    for headers in ({"authorization": f"Bearer {made['key']}"}, {"x-api-key": made["key"]}):
        for method, path in GUARDED:
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["keyId"]) == (200, made["id"])
    listed = await client.get("/api/auth/api-key/list", headers=ada)
    shown = listed.json()["apiKeys"][0]
    assert shown["lastRequest"] is not None
    assert shown["requestCount"] == 6


@pytest.mark.parametrize("with_key", [False, True])
async def test_the_profile_names_the_user(
    client: httpx2.AsyncClient, ada: dict[str, str], *, with_key: bool
) -> None:
    headers = ada
    if with_key:
        headers = {"x-api-key": (await make_key(client, ada, name="x"))["key"]}
    answer = await client.get("/api/user/profile", headers=headers)
    told = answer.json()
    assert (told["name"], told["email"]) == ("Ada", "ada@example.com")
    assert told["credential"] == ("key" if with_key else "access")


async def test_deploying_needs_its_permission(
    client: httpx2.AsyncClient, ada: dict[str, str]
) -> None:
    other = await make_key(client, ada, name="x", permissions={"files": ["read"]})
    answer = await client.post("/api/deploy", headers={"x-api-key": other["key"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")


async def test_it_says_what_it_would_deploy(
    client: httpx2.AsyncClient, ada: dict[str, str]
) -> None:
    asked = {"ref": "v1.2.0", "environment": "staging"}
    answer = await client.post("/api/deploy", headers=ada, json=asked)
    assert answer.status_code == 200
    assert answer.json()["wouldDeploy"] == "v1.2.0"
    assert answer.json()["environment"] == "staging"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b'{"ref": 1}', b'{"ref": ""}', b'{"ref": "$(rm)"}',
     b'{"enviroment": "x"}', b"\xff\xfe", b'{"ref": "\xff"}'],
)  # fmt: skip
async def test_bad_input_is_400(
    client: httpx2.AsyncClient, ada: dict[str, str], body: bytes
) -> None:
    answer = await client.post("/api/deploy", headers=ada, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_a_large_body_is_413(client: httpx2.AsyncClient, ada: dict[str, str]) -> None:
    answer = await client.post("/api/deploy", headers=ada, content=b" " * (MAX_BODY + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


async def test_the_index_tells_paths_that_exist(client: httpx2.AsyncClient) -> None:
    told: dict[str, Any] = (await client.get("/")).json()
    lines = [told.pop("examples"), list(told.values())]
    for line in [text for texts in lines for text in texts]:
        method, path, *_ = line.rstrip(",").replace(",", "").split()
        answer = await client.request(method, path)
        assert answer.status_code not in (404, 405), line


async def test_owners_of_a_host_app_have_no_name(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "host.db")
    auth = Auth(
        f"sqlite:///{tmp_path / 'host.db'}",
        plugins=[api_key(), bearer()],
        accounts=False,
        secret=SECRET,
    )
    async with auth.lifespan(), open_client(auth) as client:
        made = await auth.api.create_api_key(CreateKey(name="x"), owner="user-1")
        headers = {"x-api-key": made.key or ""}
        told = (await client.get("/api/user/profile", headers=headers)).json()
        assert told["subject"] == "user-1"
        assert "email" not in told
        # Without a catalogue there is no deploy:run to ask for.
        assert (await client.post("/api/deploy", headers=headers)).status_code == 200
