"""Operations over HTTP: in which order a request is refused, and what an answer carries."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from sqlalchemy import text

from keybearer import Auth
from keybearer.domain.ports import Transaction
from keybearer.operations import outbox
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Call, Empty, Output, operation
from keybearer.plugins import Plugin
from keybearer.web.mount import no_app
from tests.attacks.town import is_problem
from tests.people import PASSWORD, SECRET, log_in, make_key, person

API = "/api/auth"
LOGIN = f"{API}/login"
LIST = f"{API}/api-key/list"
CREATE = f"{API}/api-key/create"
SIGN_IN = f"{API}/sign-in/email"
WHO = {"email": "ada@example.com", "password": PASSWORD}


def calling(auth: Auth, base: str = "http://127.0.0.1:8000") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50_000))
    return httpx2.AsyncClient(transport=transport, base_url=base)


# --- methods --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/login", "GET", "POST"),
        ("/login", "OPTIONS", "POST"),
        ("/login", "TRACE", "POST"),
        ("/get-session", "POST", "GET, HEAD"),
        ("/api-key/list", "DELETE", "GET, HEAD"),
        ("/verify-email", "PUT", "GET, POST"),
        ("/reset-password/x", "POST", "GET"),
        ("/api-key/revoke", "GET", "DELETE"),
        ("/api-key/delete", "DELETE", "POST"),
        ("/openapi.json", "POST", "GET, HEAD"),
        ("/ok", "DELETE", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which(
    client: httpx2.AsyncClient, path: str, method: str, allow: str
) -> None:
    answer = await client.request(method, API + path)
    assert is_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("path", "status"),
    [("/get-session", 200), ("/list-sessions", 401), ("/api-key/list", 401), ("/jwks", 200),
     ("/.well-known/jwks.json", 200), ("/api-key/create", 405), ("/login", 405)],
)  # fmt: skip
async def test_what_may_be_read_may_be_asked_for_without_the_content(
    client: httpx2.AsyncClient, path: str, status: int
) -> None:
    asked = await client.head(API + path)
    assert asked.status_code == status
    if status == 405:
        assert asked.headers["allow"] == "POST"
    else:
        read = await client.get(API + path)
        assert read.status_code == status
        same = ("content-type", "cache-control", "content-length")
        assert [asked.headers[name] for name in same] == [read.headers[name] for name in same]


async def test_a_mail_scanner_that_only_asks_for_headers_uses_no_link_up(
    client: httpx2.AsyncClient, app: App
) -> None:
    await client.post(f"{API}/sign-up/email", json={"name": "Ada", "email": "ada@example.com",
                                                    "password": PASSWORD})  # fmt: skip
    (letter,) = await outbox.recent(app)
    (link,) = re.findall(rf"{API}(/verify-email\?\S+)", letter.text)
    assert (await client.head(API + link)).status_code == 405
    assert (await client.get(API + link)).json()["status"] is True


# --- bodies and queries ---------------------------------------------------------------------


async def test_a_large_body_is_413_whether_or_not_it_says_so(client: httpx2.AsyncClient) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 4096

    kind = {"content-type": "application/json"}
    for content in (b" " * 65_537, stream()):
        answer = await client.post(LOGIN, content=content, headers=kind)
        assert is_problem(answer, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{", "application/json", 400, "INVALID_JSON"),
        (b'{"email":"a","email":"b"}', "application/json", 400, "INVALID_JSON"),
        (b'{"email":NaN}', "application/json", 400, "INVALID_JSON"),
        (b'{"email":"\\u0000"}', "application/json", 400, "INVALID_JSON"),
        (b'{"email":"\\ud800"}', "application/json", 400, "INVALID_JSON"),
        (b'{"email":"\xff"}', "application/json", 400, "INVALID_JSON"),
        (b"[" * 65_536, "application/json", 400, "INVALID_JSON"),
        (b"[]", "application/json", 400, "VALIDATION_ERROR"),
        (b"{}", "application/json", 400, "VALIDATION_ERROR"),
        (b'{"emial":"a"}', "application/json", 400, "UNKNOWN_FIELD"),
        (b'{"email":1,"password":"x"}', "application/json", 400, "VALIDATION_ERROR"),
    ],
)
async def test_a_bad_body_is_refused(
    client: httpx2.AsyncClient, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = await client.post(LOGIN, content=content, headers={"content-type": kind})
    assert is_problem(answer, status, code)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=1&limit=2", 400, "VALIDATION_ERROR"),
        ("limit=many", 400, "VALIDATION_ERROR"),
        ("limit=" + "9" * 5000, 400, "VALIDATION_ERROR"),
        ("limt=1", 400, "UNKNOWN_FIELD"),
        ("search=%ff", 400, "VALIDATION_ERROR"),
        ("search=" + "x" * 8_192, 414, "URI_TOO_LONG"),
    ],
)
async def test_a_bad_query_is_refused(
    client: httpx2.AsyncClient, app: App, query: str, status: int, code: str
) -> None:
    await person(app)
    answer = await client.get(f"{LIST}?{query}", headers=await log_in(client))
    assert is_problem(answer, status, code)


async def test_fields_in_the_wrong_place_are_refused(client: httpx2.AsyncClient) -> None:
    assert is_problem(await client.post(LOGIN + "?email=a", json=WHO), 400, "UNKNOWN_FIELD")
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post(f"{API}/revoke?token=x", content=b"token=x", headers=form)
    assert is_problem(answer, 400, "VALIDATION_ERROR")
    assert is_problem(await client.post(f"{API}/revoke", json={"token": "x"}), 415)


async def test_several_words_of_one_field_are_several(client: httpx2.AsyncClient, app: App) -> None:
    await person(app)
    headers = await log_in(client)
    await make_key(client, headers)
    for query, total in (("status=active&status=revoked", 1), ("status=revoked", 0)):
        assert (await client.get(f"{LIST}?{query}", headers=headers)).json()["total"] == total


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\x01"])
async def test_a_bad_idempotency_key_makes_nothing(
    client: httpx2.AsyncClient, app: App, key: bytes
) -> None:
    await person(app)
    headers = await log_in(client)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await client.post(CREATE, json={}, headers=[*raw, (b"idempotency-key", key)])
    assert is_problem(answer, 400, "VALIDATION_ERROR")
    assert (await client.get(LIST, headers=headers)).json()["total"] == 0


async def test_a_client_that_hangs_up_gets_no_answer_and_changes_nothing(
    auth: Auth, client: httpx2.AsyncClient, app: App
) -> None:
    await person(app)
    headers = await log_in(client)
    sent: list[Any] = []
    waiting = [
        {"type": "http.request", "body": b'{"name":', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http", "method": "POST", "path": CREATE, "query_string": b"",
        "headers": [(b"content-type", b"application/json"),
                    (b"authorization", headers["authorization"].encode())],
        "client": ("127.0.0.1", 50_000),
    }  # fmt: skip
    await auth.mount(no_app)(scope, receive, send)
    assert sent == []
    assert (await client.get(LIST, headers=headers)).json()["total"] == 0


# --- the order of refusals ------------------------------------------------------------------


async def test_strangers_learn_no_field_names(client: httpx2.AsyncClient) -> None:
    for content in (b"{", b'{"x":1}', b" " * 65_537):
        kind = {"content-type": "application/json"}
        assert is_problem(await client.post(CREATE, content=content, headers=kind), 401)
    site = {"sec-fetch-site": "cross-site"}
    assert is_problem(await client.post(CREATE, json={}, headers=site), 403, "INVALID_ORIGIN")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", LIST), ("POST", LIST), ("OPTIONS", LIST), ("POST", CREATE), ("GET", CREATE)],
)
async def test_nothing_shows_that_management_exists_where_it_is_off(
    tmp_path: Path, method: str, path: str
) -> None:
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET)
    async with auth.lifespan(), calling(auth) as client:
        for headers in (
            {},
            {"idempotency-key": "x" * 256},
            {"authorization": "Bearer x", "x-api-key": "y"},
            {"origin": "https://evil.example"},
        ):
            answer = await client.request(method, path, headers=headers)
            nothing = await client.request(method, f"{API}/api-key/nothing", headers=headers)
            assert is_problem(answer, 404, "NOT_FOUND")
            assert {*answer.headers} == {*nothing.headers}
        verify = await client.post(f"{API}/api-key/verify", json={"key": "x"})
        assert verify.status_code == 401


# --- our own failures -----------------------------------------------------------------------


class Done(Output, frozen=True, kw_only=True):
    done: bool


@operation("POST", "/broken", access=Access.PUBLIC, tag="Tests")
async def broken(call: Call, asked: Empty) -> Done:
    """Fails as no operation should."""
    raise ValueError("SELECT s3cret FROM users")


async def test_a_bug_is_500_without_details_and_the_next_request_is_fine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buggy = Plugin(name="buggy", operations=(broken,))
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", [buggy], secret=SECRET)
    async with auth.lifespan(), calling(auth) as client:
        answer = await client.post(f"{API}/broken", json={})
        assert is_problem(answer, 500, "INTERNAL_ERROR")
        assert "s3cret" not in answer.text
        (record,) = [each for each in caplog.records if each.message == "request.failed"]
        assert record.__dict__["request_id"] == answer.json()["requestId"]
        assert answer.headers["x-request-id"] == answer.json()["requestId"]
        assert record.exc_info is not None
        assert (await client.get(f"{API}/get-session")).status_code == 200


async def test_a_lost_database_is_503_with_retry_after(
    client: httpx2.AsyncClient, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await person(app)

    async def lose(tx: Transaction) -> None:
        await tx.run(text("ALTER TABLE users RENAME TO lost"))

    await app.database.write(lose)
    answer = await client.post(LOGIN, json=WHO)
    assert is_problem(answer, 503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    assert "set-cookie" not in answer.headers
    told = [each for each in caplog.records if each.message == "dependency.lost"]
    assert [each.__dict__["request_id"] for each in told] == [answer.json()["requestId"]]


# --- cookies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "name", "attributes"),
    [
        (
            "http://127.0.0.1:8000",
            "keybearer.session_token",
            {"path=/", "httponly", "samesite=lax"},
        ),
        (
            "https://auth.example.com",
            "__Host-keybearer.session_token",
            {"path=/", "httponly", "samesite=lax", "secure"},
        ),
    ],
)
@pytest.mark.parametrize("remember", [True, False])
async def test_the_cookie_is_as_safe_as_the_address(
    tmp_path: Path, base: str, name: str, attributes: set[str], remember: bool
) -> None:
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, base_url=base)
    async with auth.lifespan(), calling(auth, base) as client:
        await person(await auth.running())
        site = {"origin": base}
        answer = await client.post(SIGN_IN, json={**WHO, "rememberMe": remember}, headers=site)
        assert answer.status_code == 200, answer.text
        (cookie,) = answer.headers.get_list("set-cookie")
        pair, *told = cookie.split("; ")
        life = {"max-age=604800"} if remember else set()
        assert {each.lower() for each in told} == attributes | life
        assert pair.partition("=")[0] == name
        assert unquote(pair.partition("=")[2]) == answer.headers["set-auth-token"]
        assert answer.headers["cache-control"] == "no-store"
        assert ("strict-transport-security" in answer.headers) is base.startswith("https")
        session = (await client.get(f"{API}/get-session", headers={"cookie": pair})).json()
        assert session["user"]["email"] == WHO["email"]

        out = await client.post(f"{API}/sign-out", json={}, headers={**site, "cookie": pair})
        (ended,) = out.headers.get_list("set-cookie")
        assert {each.lower() for each in ended.split("; ")[1:]} == attributes | {"max-age=0"}
        assert ended.startswith(f"{name}=;")
        assert "set-auth-token" not in out.headers
        assert '"cache"' in out.headers["clear-site-data"]


async def test_a_cookie_changes_nothing_from_another_site(
    client: httpx2.AsyncClient, app: App
) -> None:
    await person(app)
    site = {"origin": "http://localhost:8000"}
    await client.post(SIGN_IN, json=WHO, headers=site)
    for headers, status in (
        ({}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        (site, 200),
    ):
        assert (await client.post(CREATE, json={}, headers=headers)).status_code == status
    assert (await client.get(LIST)).json()["total"] == 2


async def test_requests_at_once_have_their_own_ids(client: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.get(f"{API}/list-sessions") for _ in range(10)))
    ids = {json.loads(answer.content)["requestId"] for answer in answers}
    assert len(ids) == 10
