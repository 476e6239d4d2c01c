"""Whatever is sent, in whichever field: nothing breaks (rows A291 to A294)."""

import base64
import contextlib
import json
import re
import string
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keybearer.domain import (
    credentials,
    durations,
    emails,
    ids,
    instants,
    jwt,
    limits,
    networks,
    passwords,
    permissions,
)
from keybearer.operations import service_tokens
from keybearer.verification import presented
from keybearer.web.host import host_name
from tests.attacks.guarded import RawHeaders, ask, guarded_app
from tests.attacks.town import API, Town
from tests.people import PASSWORD, SECRET, call_of

Headers = dict[str, str]


# --- A291 -------------------------------------------------------------------------------------

SEEDS = (
    "' OR '1'='1", "' OR 1=1--", "'; DROP TABLE api_keys;--", "' UNION SELECT digest FROM users--",
    "1; SELECT pg_sleep(9)", "'||(SELECT pg_sleep(9))||'", "1' AND randomblob(900000000)--",
    "\\'; DELETE FROM users; --", "admin'/*", "') OR ('a'='a", "%' OR name LIKE '%", "%", "_", "\\",
    "' AND 1=CAST((SELECT version()) AS int)--", "$$;SELECT 1;$$", ":id", "%(id)s", "?", "$1",
    "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{0.__class__}", "%s%s%n%x", "{}", "[]",
    '{"$ne":null}', '{"$gt":""}', "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "....//....//etc",
    "/etc/passwd%00.png", "file:///etc/passwd", "http://169.254.169.254/latest/meta-data/",
    "; cat /etc/passwd", "| id", "`id`", "$(id)", "&& ping -c 9 127.0.0.1", "*)(uid=*))(|(uid=*",
    "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", "%0d%0aSet-Cookie:a=b", "true",
    "null", "undefined", "NaN", "-1", "0", "1e309", "9" * 60, "0x7fffffff", "2147483648",
    "\u202eexe.txt", "\ufeff", "\u2028", "ﬀ", "İ", "ß", "\U0001f4a9", "a\u0301" * 20, "A" * 100,
    "__proto__", "constructor.prototype", "None", "O:8:\"stdClass\":0:{}", "cos\nsystem\n(S'id'",
)  # fmt: skip
TWISTS: tuple[Callable[[str], str], ...] = (
    str,
    quote,
    lambda text: quote(quote(text)),
    str.swapcase,
    lambda text: f"x{text}",
    lambda text: f"{text}'\"`;--",
    lambda text: f"{text}\u00a0",
    lambda text: text.replace(" ", "/**/"),
    lambda text: base64.b64encode(text.encode()).decode(),
)
PAYLOADS = list(dict.fromkeys(twist(seed)[:100] for seed in SEEDS for twist in TWISTS))


def aimed(town: Town, service: Headers, payload: str) -> list[httpx2.Request]:
    """One request for each field that takes text."""
    client, key = town.client, town.k1["id"]

    def get(path: str, headers: Headers | None = None, **query: str) -> httpx2.Request:
        return client.build_request("GET", API + path, params=query, headers=headers)

    def post(path: str, headers: Headers | None = None, **body: object) -> httpx2.Request:
        return client.build_request("POST", API + path, json=body, headers=headers)

    return [
        get("/api-key/list", town.t1, search=payload),
        get("/api-key/list", town.t1, sortBy=payload),
        get("/api-key/list", town.t1, status=payload),
        get("/api-key/get", town.t1, id=payload),
        get("/api-key/usage", town.t1, keyId=payload),
        get("/api-key/usage", town.t1, **{"keyId": key, "from": payload}),
        get("/audit", town.t1, event=payload[:64]),
        get("/audit", town.t1, target=payload[:64]),
        get("/verify-email", token=payload),
        get("/verify-email", token="x", callbackURL=payload),
        get(f"/reset-password/{quote(payload, safe='')}"),
        get("/forward", town.t1, permissions=payload),
        post("/api-key/create", town.t1, prefix=payload),
        post("/api-key/create", town.t1, expiresAt=payload),
        post("/api-key/create", town.t1, ipAllow=[payload]),
        post("/api-key/create", town.t1, permissions={payload: [payload]}),
        post("/api-key/update", town.t1, keyId=payload, name="x"),
        post("/api-key/revoke-self", {"x-api-key": quote(payload)}),
        post("/api-key/verify", service, key=payload),
        post("/api-key/verify", service, key=town.k1["key"], ip=payload),
        post("/refresh", refreshToken=payload),
        post("/reset-password", token=payload, newPassword=PASSWORD),
        client.build_request("POST", f"{API}/revoke", data={"token": payload}),
        client.build_request("POST", f"{API}/introspect", data={"token": payload}, headers=service),
    ]


async def test_a291_a_corpus_in_each_field_breaks_nothing_and_changes_nothing(town: Town) -> None:
    _, secret = await service_tokens.create(call_of(town.app), "app")
    service = {"authorization": f"Bearer {secret.reveal()}"}
    before = await town.rows()
    assert len(PAYLOADS) >= 500
    for number, payload in enumerate(PAYLOADS):
        # Each meets a third of the fields; what it is a twist of meets all of them.
        for request in aimed(town, service, payload)[number % 3 :: 3]:
            answer = await town.client.send(request)
            assert answer.status_code < 500, (payload, request.url, request.content)
            if request.headers.get("authorization") is not None:
                assert answer.status_code != 401  # it came as far as the field
            if "/api-key/list" in str(request.url):
                assert town.k2["id"] not in answer.text
    assert await town.rows() == before


async def test_a291_text_is_kept_as_it_came(town: Town) -> None:
    other = (await town.get("/api-key/get", town.t2, id=town.k2["id"])).json()
    for payload in PAYLOADS[::4]:
        name = re.sub(r"[\x00-\x1f]", " ", payload)[:64]
        answer = await town.post(
            "/api-key/update", town.t1, keyId=town.k1["id"], name=name, description=payload,
            metadata={"a": payload},
        )  # fmt: skip
        assert answer.status_code == (200 if name.strip() else 400), payload
        if answer.status_code == 200:
            shown = (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()
            assert (shown["name"], shown["metadata"]) == (name, {"a": payload})
            assert shown["description"] == (payload or None)
            found = (await town.get("/api-key/list", town.t1, search=name)).json()
            assert [key["id"] for key in found["apiKeys"]] == [town.k1["id"]]
    assert (await town.get("/api-key/get", town.t2, id=town.k2["id"])).json() == other


# --- A292, A294 -------------------------------------------------------------------------------

KEYS = {"k": jwt.generate("k", 0, first=True)}


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


READERS: dict[str, Callable[[str], object]] = {
    "forwarded": lambda text: networks.client_address(
        "10.0.0.1", [text], networks.compile_allow_list(["10.0.0.0/8"])
    ),
    "host": lambda text: host_name(raw(text)),
    "id": ids.is_id,
    "key": lambda text: credentials.well_formed(raw(text), [b"kb_"]),
    "refresh token": lambda text: credentials.parse_refresh_token(raw(text)),
    "cookie": credentials.PepperRing([SECRET.encode()]).unsign,
    "access token": lambda text: jwt.read(text, KEYS, issuer="i", audience="a", now_seconds=1),
}
"""What reads a header or a credential: a value, whatever it reads."""

PARSERS: dict[str, Callable[[str], object]] = READERS | {
    "address": emails.normalise,
    "allow-list": lambda text: networks.parse_allow_list([text]),
    "proxies": networks.parse_trusted_proxies,
    "duration": durations.parse_duration,
    "rate": durations.parse_rate,
    "instant": instants.parse_iso,
    "needs": permissions.parse_needs,
    "permissions": lambda text: permissions.parse({text: [text]}),
    "password": lambda text: passwords.check(
        passwords.normalise(text), minimum=15, context=[text, text]
    ),
}
"""And what reads a field: a value, or ValueError."""

MEGA = 100_000
ADVERSARIAL = (
    "a" * MEGA, "a" * MEGA + "!", "a." * (MEGA // 2), "a@" * (MEGA // 2), "a-" * (MEGA // 2) + "@",
    "a@" + "a-" * (MEGA // 2), "a@" + "a." * (MEGA // 2), " " * MEGA + "a", "1" * MEGA,
    "1." * (MEGA // 2), ":" * MEGA, "[" * MEGA, "0" * MEGA + "/32", "1," * (MEGA // 2),
    "1.1.1.1," * (MEGA // 8), "10.0.0.1," * (MEGA // 9), "{" * MEGA, "a:" * (MEGA // 2),
    "a:b," * (MEGA // 4), "-" * MEGA, "\u0301" * MEGA, "a" + "\u0301\u0323" * (MEGA // 2),
    "\ufdfa" * MEGA, "é" * MEGA,
    "kb_" + "a" * MEGA, "kbr_" + "z" * MEGA, "a." * MEGA + "a", "%" * MEGA, "=" * MEGA,
    "2026-01-01T00:00:00." + "0" * MEGA + "Z", "4@8({[<6!1|$5+7%2" * (MEGA // 17),
)  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a292_no_parser_takes_long_over_100_kb(name: str) -> None:
    parse = PARSERS[name]
    for text in ADVERSARIAL:
        begun = time.process_time()
        with contextlib.suppress(ValueError):
            parse(text)
        # A walk over it takes milliseconds, a search from every character minutes.
        assert time.process_time() - begun < 2, text[:40]


@pytest.mark.parametrize("name", PARSERS)
def test_a294_every_parser_gives_a_value_or_a_value_error(name: str) -> None:
    parse = PARSERS[name]
    alphabet = string.ascii_letters + string.digits + ".:/@-_,; \t\r\n\0\"'\\[]{}%=+é\u0301\ud800"

    @given(st.one_of(st.text(max_size=80), st.text(alphabet, max_size=80)))
    @settings(max_examples=300, deadline=None)
    def holds(text: str) -> None:
        try:
            parse(text)
        except ValueError:
            assert name not in READERS

    holds()


@given(
    name=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    numbers=st.tuples(*[st.integers() for _ in range(4)]),
)
@settings(max_examples=300, deadline=None)
def test_a294_limits_are_structured_fields_whatever_the_numbers(
    name: str, numbers: tuple[int, int, int, int]
) -> None:
    text = r'"(?:[ !#-\[\]-~]|\\["\\])*"'  # RFC 9651 section 3.3.3
    state, policy = limits.rate_limit_headers(name, *numbers)
    assert re.fullmatch(text + r";r=\d{1,15};t=\d{1,15}", state)
    assert re.fullmatch(text + r";q=\d{1,15};w=[1-9]\d{0,14}", policy)


HEADER_NAMES = st.sampled_from(
    [b"authorization", b"x-api-key", b"cookie", b"user-agent", b"origin", b"content-length",
     b"content-type", b"x-forwarded-for", b"idempotency-key", b"sec-fetch-site"]
)  # fmt: skip
HEADERS = st.lists(st.tuples(HEADER_NAMES, st.binary(max_size=60)), max_size=6)


@given(HEADERS)
@settings(max_examples=300, deadline=None)
def test_a294_any_headers_present_one_credential_none_or_a_refusal(headers: RawHeaders) -> None:
    read = presented.read(headers, b"keybearer.session_token")
    if isinstance(read, presented.Presented):
        sent = sum(name in (b"authorization", b"x-api-key") for name, _ in headers)
        assert sent == (0 if read.via == "cookie" else 1)
        assert any(read.credential in value for _, value in headers)


BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["email", "password", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
REQUESTS = st.fixed_dictionaries(
    {
        "path": st.sampled_from(
            ["/guarded", f"{API}/api-key/list", f"{API}/forward", f"{API}/login"]
        ),
        "method": st.sampled_from(["GET", "POST", "DELETE", "X" * 50]),
        "query": st.binary(max_size=40),
        "body": st.binary(max_size=60) | BODIES,
    }
)


@given(headers=HEADERS, request=REQUESTS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a294_whatever_is_sent_the_answer_is_a_refusal(
    town: Town, headers: RawHeaders, request: dict[str, Any]
) -> None:
    site = guarded_app(town.auth)
    for sent in (headers, [*headers, (b"content-type", b"application/json")]):
        answer = await ask(site, sent, **request)
        assert 400 <= answer.status < 500
