"""Forward-auth: the headers once each, and never 200 for anybody unknown."""

from typing import Any

import httpx2
import pytest

from keybearer import Auth
from keybearer.domain.model import ANONYMOUS, Refusal, Session
from keybearer.operations.app import App
from keybearer.operations.keys import CreateKey, create_api_key
from keybearer.web.forward import headers_of
from keybearer.web.mount import no_app
from tests.people import PASSWORD, SECRET, StandingClock, call_of, log_in, make_key, person
from tests.web.losses import lose_database

PATH = "/api/auth/forward"


@pytest.fixture
async def made(app: App, client: httpx2.AsyncClient) -> dict[str, Any]:
    user = await person(app)
    headers = await log_in(client)
    key = await make_key(client, headers, name="CI", permissions={"files": ["write", "read"]})
    return {"user": user, "login": headers, "key": key}


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "query",
    [
        "",
        "?permissions=files:read",
        "?permissions=files:read,files:write",
        "?permissions=files:read&permissions=files:write",
    ],
)
async def test_a_good_key_passes_with_each_header_once(
    client: httpx2.AsyncClient, made: dict[str, Any], method: str, query: str
) -> None:
    key = made["key"]
    answer = await client.request(method, PATH + query, headers={"x-api-key": key["key"]})
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers.get_list("x-auth-subject") == [made["user"].id]
    assert answer.headers.get_list("x-auth-key-id") == [key["id"]]
    assert answer.headers.get_list("x-auth-permissions") == ["files:read,files:write"]
    assert answer.headers["cache-control"] == "no-store"


async def test_a_login_passes_and_its_key_id_is_blank(
    client: httpx2.AsyncClient, made: dict[str, Any]
) -> None:
    answer = await client.get(PATH, headers=made["login"])
    assert answer.status_code == 200
    assert answer.headers.get_list("x-auth-key-id") == [""]


async def test_a_session_cookie_passes(client: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    login = {"email": made["user"].email, "password": PASSWORD}
    signed = await client.post("/api/auth/sign-in/email", json=login)
    assert signed.status_code == 200
    answer = await client.get(PATH)
    assert (answer.status_code, answer.headers["x-auth-subject"]) == (200, made["user"].id)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?permissions=deploy:run", 403, "INSUFFICIENT_SCOPE"),
        ("?permissions=", 400, "INVALID_PERMISSIONS"),
        ("?permissions=files", 400, "INVALID_PERMISSIONS"),
        ("?permissions=files:*", 400, "INVALID_PERMISSIONS"),
        ("?permissions=FILES:READ", 400, "INVALID_PERMISSIONS"),
        ("?permissions=files:raed", 400, "UNKNOWN_SCOPE"),
        ("?permission=files:read", 400, "VALIDATION_ERROR"),
        ("?permissions=files:read&x=1", 400, "VALIDATION_ERROR"),
        ("?permissions=%ff", 400, "VALIDATION_ERROR"),
        ("?" + "x" * 9000, 414, "URI_TOO_LONG"),
    ],
)
async def test_a_need_that_is_not_met_or_not_known_is_refused(
    client: httpx2.AsyncClient, made: dict[str, Any], query: str, status: int, code: str
) -> None:
    for _ in range(2):  # the second time from what is remembered of the query
        answer = await client.get(PATH + query, headers={"x-api-key": made["key"]["key"]})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "x-auth-subject" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "UNAUTHORIZED"),
        ({"x-api-key": "kb_nothing"}, 401, "INVALID_API_KEY"),
        ({"authorization": "Bearer x", "x-api-key": "y"}, 400, "MULTIPLE_CREDENTIALS"),
        ({"authorization": "Basic eDp5"}, 401, "INVALID_ACCESS_TOKEN"),
        ({"cookie": "keybearer.session_token=x.y"}, 401, "UNAUTHORIZED"),
        ({"x-auth-subject": "admin"}, 401, "UNAUTHORIZED"),
    ],
)
async def test_nobody_unknown_passes(
    client: httpx2.AsyncClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await client.get(PATH, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_spent_limit_is_429(client: httpx2.AsyncClient, app: App) -> None:
    user = await person(app)
    made = await _key_for_one_request(app, user.id)
    first = await client.get(PATH, headers={"x-api-key": made})
    second = await client.get(PATH, headers={"x-api-key": made})
    assert (first.status_code, second.status_code) == (200, 429)
    assert "retry-after" in second.headers


async def _key_for_one_request(app: App, owner: str) -> str:
    asked = CreateKey(
        name="CI",
        user_id=owner,
        rate_limit_enabled=True,
        rate_limit_max=1,
        rate_limit_time_window=60_000,
    )
    made = await create_api_key(call_of(app), asked)
    return str(made.key)


@pytest.mark.parametrize("below", ["/", "/any", "//"])
async def test_only_the_exact_path_is_forward(
    client: httpx2.AsyncClient, made: dict[str, Any], below: str
) -> None:
    request = client.build_request("GET", PATH, headers={"x-api-key": made["key"]["key"]})
    request.url = request.url.copy_with(raw_path=(PATH + below).encode())
    assert (await client.send(request)).status_code == 404


async def test_a_lost_database_is_503(
    client: httpx2.AsyncClient, app: App, made: dict[str, Any], clock: StandingClock
) -> None:
    await lose_database(app)
    clock.advance(60_000)
    answer = await client.get(PATH, headers={"x-api-key": made["key"]["key"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert "x-auth-subject" not in answer.headers


async def test_the_hosts_own_login_passes_with_what_the_owner_holds(tmp_path: Any) -> None:
    async def identify(headers: Any) -> str | None:
        return "näme\r\n" if dict(headers).get(b"x-host-login") == b"yes" else None

    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}",
        accounts=False,
        identify=identify,
        secret=SECRET,
        permissions="files:read,files:write",
        user_permissions="files:read",
    )
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 1))
    async with (
        auth.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        login = {"x-host-login": "yes"}
        answer = await client.get(PATH + "?permissions=files:read", headers=login)
        assert answer.status_code == 200
        assert answer.headers["x-auth-subject"] == "n%C3%A4me%0D%0A"
        assert answer.headers["x-auth-permissions"] == "files:read"
        refused = await client.get(PATH + "?permissions=files:write", headers=login)
        assert (refused.status_code, refused.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
        assert (await client.get(PATH)).status_code == 401


def test_unlimited_permissions_are_blank_and_refusals_raise() -> None:
    session = Session(subject="a b%", kind="session", id="s", permissions=None)
    headers = dict(headers_of(session))
    assert headers[b"x-auth-permissions"] == b""
    assert headers[b"x-auth-subject"] == b"a%20b%25"
    for verdict in (ANONYMOUS, Refusal(code="KEY_EXPIRED")):
        with pytest.raises(Exception, match=r"UNAUTHORIZED|KEY_EXPIRED"):
            headers_of(verdict)
