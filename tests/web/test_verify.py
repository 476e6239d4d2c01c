"""What `verify` answers at once it answers as the route behind it does, which has all else."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from keybearer import Auth, api_key
from keybearer.domain.errors import Failure
from keybearer.domain.ports import Transaction
from keybearer.operations import service_tokens
from keybearer.operations.app import App
from keybearer.operations.verify import VerifyKey
from keybearer.web import verify as module
from keybearer.web.exchange import convert, read_json
from keybearer.web.mount import Mount, no_app
from keybearer.web.verify import read
from tests.people import SECRET, call_of, log_in, make_key, person

PATH = "/api/auth/api-key/verify"
JSON = {"type": "http", "headers": [(b"content-type", b"application/json")]}


@pytest.fixture
async def key(app: App, client: httpx2.AsyncClient) -> str:
    await person(app)
    made = await make_key(client, await log_in(client), permissions={"files": ["read"]})
    return str(made["key"])


@pytest.fixture
async def service(app: App, client: httpx2.AsyncClient, key: str) -> dict[str, str]:
    """The headers of a service token that is in memory."""
    _, secret = await service_tokens.create(call_of(app), "app")
    headers = {"authorization": f"Bearer {secret.reveal()}"}
    assert (await client.post(PATH, json={"key": key}, headers=headers)).status_code == 200
    return headers


@pytest.fixture
def read_at_once(monkeypatch: pytest.MonkeyPatch) -> list[VerifyKey]:
    """What was read ahead of the router."""
    seen: list[VerifyKey] = []

    def watched(*told: Any) -> VerifyKey | None:
        asked = read(*told)
        if asked is not None:
            seen.append(asked)
        return asked

    monkeypatch.setattr(module, "read", watched)
    return seen


@pytest.fixture
def plain(
    key: str, service: dict[str, str], read_at_once: list[VerifyKey]
) -> tuple[str, dict[str, str], list[VerifyKey]]:
    return key, service, read_at_once


def without_id(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "x-request-id"}


async def test_both_ways_answer_alike(
    client: httpx2.AsyncClient, key: str, service: dict[str, str], read_at_once: list[VerifyKey]
) -> None:
    at_once = await client.post(PATH, json={"key": key}, headers=service)
    assert len(read_at_once) == 1
    spaced = {**service, "content-type": "application/json; charset=utf-8"}
    behind = await client.post(PATH, content=json.dumps({"key": key}), headers=spaced)
    assert len(read_at_once) == 1
    assert without_id(at_once) == without_id(behind)
    first, second = at_once.json()["key"], behind.json()["key"]
    assert second.pop("requestCount") == first.pop("requestCount") + 1
    assert first == second
    ids = [answer.headers["x-request-id"] for answer in (at_once, behind)]
    assert ids[0] != ids[1]
    assert all(re.fullmatch("[0-9a-f]{16}", id) for id in ids)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"key": "kb_nothing"}, "INVALID_API_KEY"),
        ({"permissions": {"deploy": ["run"]}}, "INSUFFICIENT_SCOPE"),
        ({"permissions": {"files": ["read"]}, "ip": "203.0.113.7", "cost": 2}, None),
    ],
)
async def test_a_verdict_is_told_at_once(
    client: httpx2.AsyncClient,
    plain: tuple[str, dict[str, str], list[VerifyKey]],
    asked: dict[str, Any],
    code: str | None,
) -> None:
    key, service, read_at_once = plain
    answer = await client.post(PATH, json={"key": key, **asked}, headers=service)
    assert len(read_at_once) == 1
    told = answer.json()
    assert (answer.status_code, told["valid"]) == (200, code is None)
    assert (told["error"] or {}).get("code") == code


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"headers": {"origin": "https://elsewhere.example"}}, 200),
        ({"headers": {"idempotency-key": "x" * 256}}, 400),
        ({"headers": {"x-forwarded-for": "203.0.113.7"}}, 200),
        ({"headers": {"x-api-key": "kb_x"}}, 400),
        ({"headers": {"authorization": "Bearer kbs_no"}}, 401),
        ({"headers": {"cookie": "keybearer.session_token=x", "authorization": ""}}, 401),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"params": {"x": "1"}}, 400),
        ({"json": {"key": "k", "no": 1}}, 400),
        ({"json": {"key": "\u00e9"}}, 200),
        ({"content": b'{"key":"a","key":"b"}'}, 400),
        ({"content": b""}, 400),
    ],
)
async def test_what_is_not_plain_is_left_to_the_route(
    client: httpx2.AsyncClient,
    service: dict[str, str],
    read_at_once: list[VerifyKey],
    sent: dict[str, Any],
    status: int,
) -> None:
    if not sent.keys() & {"json", "content"}:
        sent = {**sent, "json": {"key": "kb_x"}}
    headers = {**service, "content-type": "application/json", **sent.pop("headers", {})}
    answer = await client.post(PATH, headers=headers, **sent)
    assert answer.status_code == status
    assert read_at_once == []


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
async def test_another_method_is_told_which(
    client: httpx2.AsyncClient, service: dict[str, str], method: str
) -> None:
    answer = await client.request(method, PATH, headers=service)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_what_cannot_be_asked_is_refused_as_ever(
    client: httpx2.AsyncClient, key: str, service: dict[str, str]
) -> None:
    for asked, code in (
        ({"permissions": {"FILES": ["read"]}}, "INVALID_PERMISSIONS"),
        ({"ip": "here"}, "VALIDATION_ERROR"),
    ):
        answer = await client.post(PATH, json={"key": key, **asked}, headers=service)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_lost_database_is_503(
    app: App, client: httpx2.AsyncClient, service: dict[str, str], read_at_once: list[VerifyKey]
) -> None:
    login = await log_in(client)
    other = await make_key(client, login, name="never asked for")

    async def body(tx: Transaction) -> None:
        await tx.run(text("DROP TABLE api_key_secrets"))

    await app.database.write(body)
    answer = await client.post(PATH, json={"key": other["key"]}, headers=service)
    assert len(read_at_once) == 1
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert "retry-after" in answer.headers


def test_without_the_plugin_nothing_stands_there(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'kb.db'}"
    bare = Auth(database, plugins=[], secret=SECRET)
    full = Auth(database, plugins=[api_key()], secret=SECRET)
    for auth, there in ((bare, False), (full, True)):
        mount = auth.mount(no_app)
        assert isinstance(mount, Mount)
        assert (PATH in mount._ahead) is there


# --- reading --------------------------------------------------------------------------------


def slowly(body: bytes) -> VerifyKey | None:
    try:
        asked = convert(read_json(JSON, body), VerifyKey, strict=True)
    except Failure:
        return None
    assert isinstance(asked, VerifyKey)
    return asked


def at_once(body: bytes, length: bytes | None = None) -> VerifyKey | None:
    said = b"%d" % len(body) if length is None else length
    return read({"type": "http.request", "body": body, "more_body": True}, said)


def test_a_body_that_is_not_whole_is_not_read() -> None:
    body = b'{"key":"a"}'
    assert at_once(body) == VerifyKey(key="a")
    for length in (b"12", b"10", b"", b"x", b"+11", b"011"):
        assert at_once(body, length) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"key":"a","key":"b"}',
        b'{"key":"a","cost":2,"cost":3}',
        b'{"key":"a","cost":1}',
        b'{"key":"a","ip":null}',
        b'{"key":"a","permissions":{"a":["b"],"a":["b"]}}',
        b'{"key":"a\\u0000"}',
        b'{"key":"a","key":"\\"b"}',
        b'{"key":"' + b"a" * 70_000 + b'"}',
        b'{"key":"\xff"}',
        b'{"key":1}',
        b"[]",
        b"",
    ],
)
def test_what_could_be_read_in_two_ways_is_left_to_the_strict_reader(body: bytes) -> None:
    assert at_once(body) is None


names = st.sampled_from(["key", "ip", "cost", "permissions", "no", "k\\u0065y"])
values = st.sampled_from(
    ['"a"', '"203.0.113.7"', "null", "1", "2", "2.0", "1e0", "-0", '{"a":["b"]}',
     '{"a":["b"],"a":["c"]}', '{"a":[]}', "{}", '"\\""', '"a:b"', '"\u00e9"', "true", "[]"]
)  # fmt: skip
members = st.lists(st.tuples(names, values), max_size=4)


@given(members, st.sampled_from(["", " ", "\n"]))
def test_whatever_is_read_at_once_the_strict_reader_reads_alike(
    pairs: list[tuple[str, str]], space: str
) -> None:
    inner = f",{space}".join(f'"{name}"{space}:{space}{value}' for name, value in pairs)
    body = f"{space}{{{inner}}}{space}".encode()
    asked = at_once(body)
    assert asked is None or asked == slowly(body)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_alike_or_left(body: bytes) -> None:
    asked = at_once(body)
    assert asked is None or asked == slowly(body)
