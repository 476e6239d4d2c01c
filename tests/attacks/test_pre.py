"""Presenting a credential, attacked: parsing, ambiguity, smuggling (rows A029 to A062)."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keybearer.domain.credentials import mint
from keybearer.domain.ports import Body
from tests.attacks.guarded import RawHeaders, api_key, ask, bearer, guarded_app
from tests.attacks.town import Town
from tests.people import PASSWORD


@pytest.fixture
def site(town: Town) -> Any:
    return guarded_app(town.auth)


async def cookie_of(town: Town) -> bytes:
    """The session cookie of U1, as a browser sends it."""
    answer = await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD)
    return answer.headers["set-cookie"].split(";")[0].encode()


async def test_a029_without_a_credential_there_is_a_challenge_without_an_error(
    town: Town, site: Any
) -> None:
    answer = await ask(site, [])
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == 'Bearer realm="keybearer"'


async def test_a_good_key_is_alike_in_both_headers(town: Town, site: Any) -> None:
    key = town.k1["key"]
    for headers in (bearer(key), api_key(key), [(b"authorization", b"bEaReR " + key.encode())]):
        assert (await ask(site, headers)).status == 200


async def test_d2_one_credential_a_request(town: Town, site: Any) -> None:
    key = town.k1["key"]
    for headers in (
        bearer(key) + api_key(key),
        bearer(key) + bearer(key),
        api_key(key) + api_key(town.k2["key"]),
    ):
        answer = await ask(site, headers)
        assert (answer.status, answer.code) == (400, "MULTIPLE_CREDENTIALS")
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]


async def test_a031_a032_a_bad_credential_beside_a_good_cookie_is_refused(
    town: Town, site: Any
) -> None:
    cookie = (b"cookie", await cookie_of(town))
    assert (await ask(site, [cookie])).status == 200
    for headers in (
        bearer("forged.signature"),
        bearer("x"),
        bearer(""),
        api_key("x"),
        api_key(""),
        [(b"authorization", b"Basic dTpw")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
    ):
        for method in ("GET", "POST"):
            answer = await ask(site, [*headers, cookie], method=method)
            assert answer.status == 401, headers


async def test_a036_a042_a043_a045_a048_a049_only_the_exact_bytes_are_the_key(
    town: Town, site: Any
) -> None:
    k1, k2 = town.k1["key"], town.k2["key"]
    assert (await ask(site, bearer(k1))).status == 200  # and so it is cached
    wrong: list[RawHeaders] = [
        api_key(f"{k1}, {k2}"),
        api_key(f"{k1},{k1}"),
        bearer(f" {k1}"),
        [(b"authorization", b"Bearer\t" + k1.encode())],
        bearer(f"{k1} "),
        bearer(k1.encode() + "\u00a0".encode()),
        [(b"authorization", b"Bearer" + k1.encode())],
        bearer(f"{k1}\0x"),
        bearer(f"{k1}%00"),
        bearer(f"{k1}\r\nX-User-Id: 1"),
        bearer(k1.replace("a", "\u0430").replace("e", "\u0435").encode()),
        bearer("".join(chr(ord(char) + 0xFEE0) for char in k1)),
        bearer(k1[:7] + k2[7:]),
        bearer(k1 + "x"),
        bearer(k1[:-1]),
        bearer(k1.swapcase()),
        bearer(town.k1["id"]),
        bearer(k1[:-10] + k2[-10:]),
        bearer(b"\x80\xff\xfe"),
        bearer(b"\xc3\x28"),
        api_key("' OR 1=1 --"),
        api_key("%"),
        api_key("_"),
        api_key('{"$gt":""}'),
        api_key("*"),
        bearer("x" * 9_000),
        bearer("." * 5_000),
        bearer("a.b.c"),
        bearer("eyJ.eyJ.eyJ"),
    ]
    for headers in wrong:
        if headers[0][1].endswith(k1.encode()) and headers[0][1] == b"Bearer " + k1.encode():
            continue
        assert (await ask(site, headers)).status == 401, headers


async def test_a037_a038_nothing_is_read_from_query_or_body(town: Town, site: Any) -> None:
    key = town.k1["key"].encode()
    for name in (b"api_key", b"access_token", b"token", b"key", b"apiKey", b"x-api-key"):
        assert (await ask(site, [], query=name + b"=" + key)).status == 401
    form = [(b"content-type", b"application/x-www-form-urlencoded")]
    assert (await ask(site, form, method="POST", body=b"access_token=" + key)).status == 401


def count_reads(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the bodies that the database runs."""
    database = town.app.database
    read: Callable[[Body[object]], Awaitable[object]] = database.read
    calls = []

    async def counted(body: Body[object]) -> object:
        calls.append(body)
        return await read(body)

    monkeypatch.setattr(database, "read", counted)
    return lambda: len(calls)


async def test_a050_a_wrong_checksum_costs_no_read(
    town: Town, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(town, monkeypatch)
    for _ in range(20):
        key = mint("kb_", os.urandom).reveal()
        flipped = key[:-1] + ("a" if key[-1] != "a" else "b")
        answer = await ask(site, bearer(flipped))
        assert (answer.status, answer.code) == (401, "INVALID_API_KEY")
    assert reads() == 0


async def test_a051_a_right_checksum_of_nobodys_key_answers_the_same(town: Town, site: Any) -> None:
    unknown = await ask(site, bearer(mint("kb_", os.urandom).reveal()))
    forged = await ask(site, bearer("kb_" + "0" * 49))
    assert (unknown.status, unknown.code) == (401, "INVALID_API_KEY")
    assert b"Invalid API key" in unknown.body
    assert {**unknown.headers, "content-length": ""} == {**forged.headers, "content-length": ""} | {
        "x-request-id": unknown.headers["x-request-id"]
    }


async def test_a059_a_key_is_no_refresh_token(town: Town) -> None:
    key = town.k1["key"]
    assert (await town.post("/refresh", refreshToken=key)).status_code == 401
    assert (await town.post("/logout", refreshToken=key)).status_code == 200
    form = {"token": key}
    assert (await town.client.post("/api/auth/revoke", data=form)).status_code == 200
    assert await town.works(key)


async def test_a060_a_key_of_another_prefix_is_refused(town: Town, site: Any) -> None:
    for prefix in ("kb_test_", "kb_staging_", "sk_", "kbs_", "kbr_"):
        answer = await ask(site, bearer(mint(prefix, os.urandom).reveal()))
        assert answer.status == 401, prefix


async def test_a_refresh_or_service_token_opens_no_endpoint(town: Town, site: Any) -> None:
    login = await town.post("/login", email="u1@example.com", password=PASSWORD)
    for token in (login.json()["refreshToken"], mint("kbs_", os.urandom).reveal()):
        assert (await ask(site, bearer(token))).status == 401
        assert (await ask(site, api_key(token))).status == 401


async def test_an_access_or_session_token_is_no_api_key(town: Town, site: Any) -> None:
    access = town.t1["authorization"].removeprefix("Bearer ")
    assert (await ask(site, bearer(access))).status == 200
    assert (await ask(site, api_key(access))).code == "INVALID_API_KEY"


@given(
    raw=st.binary(max_size=300), via=st.sampled_from([b"authorization", b"x-api-key", b"cookie"])
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a055_no_bytes_are_ever_an_error_or_a_way_in(
    town: Town, site: Any, raw: bytes, via: bytes
) -> None:
    for value in (raw, b"Bearer " + raw, town.app.cookie.encode() + b"=" + raw):
        answer = await ask(site, [(via, value)])
        assert answer.status in (400, 401)
