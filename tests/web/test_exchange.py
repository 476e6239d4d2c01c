"""One request read strictly: what is not exactly one thing to every reader is refused."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.errors import Failure
from keybearer.settings import Settings, load
from keybearer.web.exchange import (
    MAX_BODY,
    ClientGone,
    check_site,
    client_ip,
    facts,
    header,
    read_body,
    read_form,
    read_json,
    read_query,
    send_answer,
    trusted_origin,
)
from keybearer.web.problem import shown_path

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
HTTP = load({"base_url": "http://127.0.0.1:8000"}, environ={})
HTTPS = load(
    {"base_url": "https://auth.example.com", "trusted_origins": "https://app.example.com"},
    environ={},
)


def scope_of(*headers: tuple[bytes, bytes], **more: Any) -> Any:
    return {"type": "http", "path": "/x", "headers": list(headers), **more}


def refused(failure: pytest.ExceptionInfo[Failure]) -> str:
    return failure.value.code


# --- bodies ---------------------------------------------------------------------------------


async def body_of(
    chunks: Sequence[bytes], *headers: tuple[bytes, bytes], gone: bool = False
) -> Any:
    """What is read, and how many chunks were asked for."""
    waiting = [{"type": "http.request", "body": each, "more_body": True} for each in chunks]
    if gone:
        waiting.append({"type": "http.disconnect"})
    elif waiting:
        waiting[-1]["more_body"] = False
    asked = 0

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return waiting[asked - 1]

    try:
        return await read_body(scope_of(*headers), receive), asked
    except Failure as failure:
        return failure.code, asked


async def test_a_body_is_read_whole() -> None:
    assert await body_of([b"ab", b"", b"cd"]) == (b"abcd", 3)
    assert await body_of([b""]) == (b"", 1)
    assert await body_of([b"x" * MAX_BODY]) == (b"x" * MAX_BODY, 1)
    assert await body_of([b"x"], (b"content-length", b"00000000000000000001")) == (b"x", 1)


@pytest.mark.parametrize(
    "declared", [b"65537", b"99999999999999999999", b"9" * 5000, b"1" + b"0" * 400]
)
async def test_a_body_that_says_it_is_too_large_is_not_read(declared: bytes) -> None:
    assert await body_of([b"x"], (b"content-length", declared)) == ("BODY_TOO_LARGE", 0)


@pytest.mark.parametrize("declared", [None, b"1", b"-1", b"x", b"", "٣".encode()])
async def test_a_body_that_becomes_too_large_is_read_no_further(declared: bytes | None) -> None:
    told = [] if declared is None else [(b"content-length", declared)]
    found = await body_of([b"x" * MAX_BODY, b"x", b"x", b"x"], *told)
    assert found == ("BODY_TOO_LARGE", 2)


async def test_a_client_that_is_gone_is_no_request() -> None:
    with pytest.raises(ClientGone):
        await body_of([b'{"a":'], gone=True)
    with pytest.raises(ClientGone):
        await body_of([], gone=True)


# --- JSON -----------------------------------------------------------------------------------


def as_json(body: bytes, media_type: bytes | None = JSON) -> Any:
    headers = [] if media_type is None else [(b"content-type", media_type)]
    return read_json(scope_of(*headers), body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"{}", {}),
        (b' \r\n{"a": [1, 2.5, -0, null, true, "\\u00e9\\ud83d\\ude00"]}',
         {"a": [1, 2.5, 0, None, True, "é\U0001f600"]}),
        ('{"ключ": "😀"}'.encode(), {"ключ": "😀"}),
        (b"[1]", [1]),
        (b"[" * 20 + b"]" * 20, None),
        (b"1e300", 1e300),
    ],
)  # fmt: skip
def test_json_is_read(body: bytes, value: object) -> None:
    assert as_json(body) == (json.loads(body) if value is None else value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}', b'{"a": 1, "\\u0061": 2}', b'{"x": [{"a": 1, "a": 2}]}',
        b"NaN", b"[Infinity]", b'{"a": -Infinity}', b"1e999", b"[-1e400]",
        b"[" * 22 + b"]" * 22, b"[" * 60_000, b'{"a":' * 10_000, b'"a\\u0000b"', b'{"\\u0000": 1}',
        b'"\\ud83d"', b'{"\\udc80": 1}', b'["\\ude00\\ud83d"]', b'"\xff"', b'"\xed\xa0\x80"',
        b'"\xc0\x80"', b"\xef\xbb\xbf{}", b'{"a": 1}\0', b'{"a": 1} {}', b"{'a': 1}", b"{a: 1}",
        b'{"a": 1,}', b"// x\n{}", b"01", b'"a\nb"', b"9" * 5000, b"{}".join([b" ", b"x"]),
        '{"a": 1}'.encode("utf-16"), b"\x00", b" ",
    ],
)  # fmt: skip
def test_what_readers_could_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(Failure) as failure:
        as_json(body)
    assert refused(failure) == "INVALID_JSON"


@pytest.mark.parametrize(
    "media_type",
    [JSON, b"Application/JSON", b"application/json; charset=utf-8",
     b'application/json;charset="UTF-8"', b"application/json ; charset=utf8", b"application/json;"],
)  # fmt: skip
def test_the_media_type_may_be_spelled_so(media_type: bytes) -> None:
    assert as_json(b"{}", media_type) == {}


@pytest.mark.parametrize(
    "media_type",
    [None, b"", b"text/plain", FORM, b"multipart/form-data; boundary=x", b"application/jsonp",
     b"application/json; charset=utf-16", b"text/plain, application/json", b"\xff"],
)  # fmt: skip
def test_other_media_types_are_refused(media_type: bytes | None) -> None:
    with pytest.raises(Failure) as failure:
        as_json(b"{}", media_type)
    assert refused(failure) == "UNSUPPORTED_MEDIA_TYPE"


@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ud80 0e9NaN', max_size=40).map(str.encode)
)
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    try:
        value = as_json(body)
    except Failure as failure:
        code: object = failure.code
    else:
        code = None
        assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert code in (None, "INVALID_JSON")


# --- queries and forms ----------------------------------------------------------------------


def query(raw: bytes, *several: str) -> dict[str, object]:
    return read_query(scope_of(query_string=raw), frozenset(several))


def test_a_query_is_read() -> None:
    assert query(b"") == {}
    assert query(b"a=1&b=&c=%C3%A9+x") == {"a": "1", "b": "", "c": "é x"}
    assert query(b"s=x&a=1&s=y", "s") == {"s": ["x", "y"], "a": "1"}
    assert query(b"s=x", "s") == {"s": ["x"]}
    assert query(b"a=" + b"x" * 8_190) == {"a": "x" * 8_190}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"a=1&a=1", "VALIDATION_ERROR"), (b"a=1&%61=2", "VALIDATION_ERROR"),
        (b"a=%ff", "VALIDATION_ERROR"), (b"a=%ed%a0%80", "VALIDATION_ERROR"),
        (b"a=\xc3\xa9", "VALIDATION_ERROR"), (b"a=%00", "VALIDATION_ERROR"),
        (b"%00=a", "VALIDATION_ERROR"), (b"&".join([b"a=1"] * 129), "VALIDATION_ERROR"),
        (b"a=" + b"x" * 8_191, "URI_TOO_LONG"),
    ],
)  # fmt: skip
def test_a_query_that_is_not_plain_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(Failure) as failure:
        query(raw)
    assert refused(failure) == code


def test_a_form_is_read() -> None:
    scope = scope_of((b"content-type", FORM))
    assert read_form(scope, b"token=a%2Bb&token_type_hint=") == {
        "token": "a+b", "token_type_hint": "",
    }  # fmt: skip
    assert read_form(scope, b"") == {}


@pytest.mark.parametrize(
    ("body", "media_type", "code"),
    [
        (b"a=1&a=2", FORM, "INVALID_JSON"),
        (b"a=%ff", FORM, "INVALID_JSON"),
        (b"a=%00", FORM, "INVALID_JSON"),
        (b"a=1", JSON, "UNSUPPORTED_MEDIA_TYPE"),
        (b"a=1", FORM + b"; charset=latin-1", "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
def test_a_form_that_is_not_plain_is_refused(body: bytes, media_type: bytes, code: str) -> None:
    with pytest.raises(Failure) as failure:
        read_form(scope_of((b"content-type", media_type)), body)
    assert refused(failure) == code
    assert "query" not in failure.value.message


@given(st.binary(max_size=60) | st.text(alphabet="a=&%0fFeE+;", max_size=40).map(str.encode))
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    try:
        assert all(type(value) is str for value in query(raw).values())
    except Failure as failure:
        code = failure.code
    else:
        code = "VALIDATION_ERROR"
    assert code == "VALIDATION_ERROR"


# --- where it came from ---------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"a", b"x" * 255, b"2026-11-18 14:00", b"caf\xe9"])
def test_an_idempotency_key_is_kept(key: bytes) -> None:
    told = facts(scope_of((b"idempotency-key", key)), HTTP, "id")
    assert told.idempotency_key == key.decode("latin-1")


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\0", b"a\tb", b"a\x7f", b"a\xa0b"])
def test_an_idempotency_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(Failure) as failure:
        facts(scope_of((b"idempotency-key", key)), HTTP, "id")
    assert refused(failure) == "VALIDATION_ERROR"


def test_the_address_is_the_peers_unless_a_proxy_is_trusted() -> None:
    forged = (b"x-forwarded-for", b"198.51.100.1, 203.0.113.7")
    behind = load({"trusted_proxies": "10.0.0.1"}, environ={})
    peer = scope_of(forged, client=("10.0.0.1", 1))
    assert client_ip(peer, HTTP) == "10.0.0.1"
    assert client_ip(peer, behind) == "203.0.113.7"
    assert client_ip(scope_of(forged, client=("10.0.0.2", 1)), behind) == "10.0.0.2"
    assert client_ip(scope_of(forged, client=None), behind) is None
    assert client_ip(scope_of(forged), HTTP) is None


def test_the_first_header_of_a_name_counts_and_no_query_is_shown() -> None:
    assert header(scope_of((b"a", b"1"), (b"a", b"2")), b"a") == b"1"
    assert header(scope_of(), b"a") is None
    assert shown_path({"path": "/" + "x" * 500, "query_string": b"token=s3cret"}) == "/" + "x" * 199
    for path in ("/api/auth/reset-password/s3cret", "/iam/reset-password/s3/cret"):
        shown = shown_path({"path": path})
        assert shown == path.partition("s3")[0] + "***"
    for path in ("/api/auth/calendar/s3cret.ics", "/iam/calendar/s3/create", "/calendar/s3\ncret"):
        assert shown_path({"path": path}) == path.partition("s3")[0] + "***"
    for path in ("/api/auth/calendar", "/api/auth/calendar/create", "/iam/calendar/revoke"):
        assert shown_path({"path": path}) == path


# --- who may send what ----------------------------------------------------------------------

OURS, TRUSTED, OTHERS = (
    "https://auth.example.com",
    "https://app.example.com",
    "https://evil.example",
)


@pytest.mark.parametrize(
    ("origin", "site", "with_cookie", "code"),
    [
        # a program sends neither
        (None, None, False, None),
        (None, None, True, "MISSING_OR_NULL_ORIGIN"),
        # an older browser sends the Origin alone
        (OURS, None, True, None),
        (TRUSTED, None, True, None),
        (OTHERS, None, True, "INVALID_ORIGIN"),
        (OTHERS, None, False, "INVALID_ORIGIN"),
        ("null", None, True, "MISSING_OR_NULL_ORIGIN"),
        ("null", None, False, "MISSING_OR_NULL_ORIGIN"),
        ("", None, True, "INVALID_ORIGIN"),
        # a browser of today sends both
        (OURS, "same-origin", True, None),
        (TRUSTED, "same-site", True, None),
        (TRUSTED, "cross-site", True, None),
        (OTHERS, "cross-site", True, "INVALID_ORIGIN"),
        (OTHERS, "cross-site", False, "INVALID_ORIGIN"),
        (OTHERS, "same-site", True, "INVALID_ORIGIN"),
        ("null", "cross-site", True, "INVALID_ORIGIN"),
        ("null", "same-origin", True, None),
        # no Origin: a form of an old page, an address that was typed
        (None, "same-origin", True, None),
        (None, "none", True, None),
        (None, "same-site", True, "INVALID_ORIGIN"),
        (None, "cross-site", False, "INVALID_ORIGIN"),
        (None, "Same-Origin", True, "INVALID_ORIGIN"),
        (None, "", True, "INVALID_ORIGIN"),
    ],
)
def test_which_site_may_change_something(
    origin: str | None, site: str | None, with_cookie: bool, code: str | None
) -> None:
    told = ((b"origin", origin), (b"sec-fetch-site", site))
    scope = scope_of(*((name, value.encode()) for name, value in told if value is not None))
    found = None
    try:
        check_site(scope, HTTPS, with_cookie=with_cookie)
    except Failure as failure:
        found = failure.code
    assert found == code


def test_hostile_origins_are_not_trusted() -> None:
    for raw in (b"\xff", b"https://[", b"http://127.0.0.1:x", b"http://127.0.0.1:99999", b"//"):
        with pytest.raises(Failure):
            check_site(scope_of((b"origin", raw)), HTTP, with_cookie=False)


@pytest.mark.parametrize(
    ("origin", "settings", "trusted"),
    [
        ("http://127.0.0.1:8000", HTTP, True),
        ("http://localhost:8000", HTTP, True),
        ("http://[::1]:8000", HTTP, True),
        ("http://localhost:8001", HTTP, False),
        ("http://localhost", HTTP, False),
        ("https://localhost:8000", HTTP, False),
        ("http://localhost.evil.example:8000", HTTP, False),
        ("http://localhost:8000/", HTTP, False),
        ("http://localhost:8000@evil.example", HTTP, False),
        ("http://127.0.0.2:8000", HTTP, False),
        ("http://localhost:8000", HTTPS, False),
        (OURS, HTTPS, True),
        (TRUSTED, HTTPS, True),
        (OURS + ":443", HTTPS, False),
        (OURS.upper(), HTTPS, False),
        ("http://auth.example.com", HTTPS, False),
        ("https://a.auth.example.com", HTTPS, False),
    ],
)
def test_an_origin_is_trusted_exactly(origin: str, settings: Settings, trusted: bool) -> None:
    assert trusted_origin(origin, settings) is trusted


# --- answering ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [HTTP, HTTPS])
async def test_every_answer_has_the_headers_that_browsers_obey(settings: Settings) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_answer(send, 200, b"hi", [(b"referrer-policy", b"own")], settings)
    names = [name for name, _ in sent[0]["headers"]]
    told = dict(sent[0]["headers"])
    assert len(names) == len(set(names))
    assert told[b"x-content-type-options"] == b"nosniff"
    assert told[b"referrer-policy"] == b"own"
    assert b"frame-ancestors 'none'" in told[b"content-security-policy"]
    assert told[b"content-length"] == b"2"
    assert (b"strict-transport-security" in told) is settings.secure
    assert sent[1]["body"] == b"hi"
