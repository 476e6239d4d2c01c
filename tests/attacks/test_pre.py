"""Presenting a credential, attacked: parsing, ambiguity, smuggling (rows A029 to A062)."""

import json
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from keybearer.domain.credentials import PepperRing, checksum, mint
from keybearer.domain.ports import Body
from tests.attacks.guarded import RawHeaders, api_key, ask, bearer, guarded_app
from tests.attacks.town import Town
from tests.people import PASSWORD, StandingClock, make_key

REFUSED = ((401, "INVALID_API_KEY"), (401, "INVALID_ACCESS_TOKEN"))


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


async def test_a031_a_bad_credential_beside_a_good_cookie_is_refused(town: Town, site: Any) -> None:
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


async def test_a032_a_forged_bearer_beside_a_good_cookie_changes_nothing(town: Town) -> None:
    cookie = (await cookie_of(town)).decode()
    town.client.cookies.clear()
    for forged in ("forged.signature", "x", "a.b.c", ""):
        headers = {"authorization": f"Bearer {forged}", "cookie": cookie}
        answer = await town.post("/api-key/delete", headers, keyId=town.k1["id"])
        assert answer.status_code in (401, 403)
    assert await town.works(town.k1["key"])
    assert (await town.get("/api-key/list", {"cookie": cookie})).json()["total"] == 1


async def all_refused(town: Town, site: Any, wrong: list[RawHeaders]) -> None:
    """The very key is accepted, and so cached; nothing of `wrong` is, before or after that."""
    for _ in range(2):
        for headers in wrong:
            answer = await ask(site, headers)
            assert (answer.status, answer.code) in REFUSED, headers
        assert (await ask(site, bearer(town.k1["key"]))).status == 200


async def test_a036_two_keys_in_one_header_are_not_split(town: Town, site: Any) -> None:
    k1, k2 = town.k1["key"], town.k2["key"]
    for joined in (f"{k1}, {k2}", f"{k1},{k1}", f"{k1} {k1}", f"{k1};{k2}"):
        await all_refused(town, site, [api_key(joined), bearer(joined)])


async def test_a042_one_space_stands_between_scheme_and_key_and_none_elsewhere(
    town: Town, site: Any
) -> None:
    key = town.k1["key"].encode()
    wrong = [
        b"Bearer  " + key,
        b"Bearer\t" + key,
        b"Bearer\t " + key,
        b"Bearer " + key + b" ",
        b"Bearer " + key + b"\t",
        b"Bearer " + key + "\u00a0".encode(),
        b"Bearer " + key + b"\xa0",
        b"Bearer" + key,
        b" Bearer " + key,
        b"Bearer\xa0" + key,
        b"Bearer:" + key,
        b"Token " + key,
        key,
    ]
    await all_refused(town, site, [[(b"authorization", value)] for value in wrong])
    await all_refused(town, site, [api_key(key + b" "), api_key(b" " + key), api_key(b"\t" + key)])


async def test_a043_control_characters_end_nothing_and_add_no_header(town: Town, site: Any) -> None:
    key = town.k1["key"]
    smuggled = "\r\nX-Auth-Subject: " + town.u2
    for odd in ("\0", "\0x", "%00", "\x7f", "\x1b", "\n", "\r", smuggled):
        await all_refused(town, site, [bearer(key + odd), api_key(key + odd), bearer(odd + key)])
    forward = await ask(site, bearer(key + smuggled), path="/api/auth/forward")
    assert (forward.status, "x-auth-subject" in forward.headers) == (401, False)


async def test_a045_nothing_is_normalised_before_the_digest(town: Town, site: Any) -> None:
    key = town.k1["key"]
    alike = [
        key.replace("k", "\u043a").replace("b", "\u0432"),  # Cyrillic
        key[:3] + "\u0430" + key[4:],
        "".join(chr(ord(char) + 0xFEE0) for char in key),  # fullwidth: equal under NFKC
        key + "\u200b",
        key + "\u0301",
        "\ufeff" + key,
        key.swapcase(),
        key.upper(),
        key.lower(),
    ]
    for text in alike:
        assert text != key
        for raw in (text.encode(), text.encode("utf-16-le")):
            await all_refused(town, site, [bearer(raw), api_key(raw)])


async def test_a048_no_part_of_a_key_is_a_key(town: Town, site: Any) -> None:
    k1, k2 = town.k1["key"], town.k2["key"]
    spliced = [k1[:cut] + k2[cut:] for cut in (4, 7, 20, -10)]
    # With a right checksum too, so that the database is asked.
    spliced += [each[:-6] + checksum(each[:-6].encode()).decode() for each in spliced]
    spliced += [k1 + "x", k1 + k1, k1[:-1], k1[:7], k1[:-6], k1[1:], k1[3:], k1[:-6] + k2[-6:]]
    spliced += [town.k1["id"], town.k1["start"], "kb_", "kb_%", "kb_" + "_" * 49]
    assert not {k1, k2} & set(spliced)
    await all_refused(town, site, [way(each) for each in spliced for way in (bearer, api_key)])


async def test_a049_the_cache_knows_keys_by_the_whole_of_them(town: Town, site: Any) -> None:
    key = town.k1["key"]
    near = []
    for place in range(3, len(key) - 6):
        body = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 : -6]
        near.append(bearer(body + checksum(body.encode()).decode()))
    await all_refused(town, site, near)


async def test_a053_a_credential_is_bound_to_a_statement_and_never_part_of_it(
    town: Town, site: Any
) -> None:
    engine: Any = town.app.database.engine  # type: ignore[attr-defined]
    ran: list[tuple[str, str]] = []

    def note(*about: Any) -> None:
        ran.append((about[2], repr(about[3])))

    hostile = [
        "' OR 1=1 --",
        "%",
        "_",
        '{"$gt":""}',
        "*",
        "'; DROP TABLE api_keys; --",
        "$1",
        ":id",
    ]
    listened = getattr(engine, "sync_engine", engine), "before_cursor_execute", note
    event.listen(*listened)
    try:
        for text in hostile:
            # By itself it is looked up as a session token; a key's alphabet has none of it.
            await all_refused(town, site, [bearer(text), api_key(text), api_key("kb_" + text)])
            cookie = f"{town.app.cookie}={text}".encode()
            assert (await ask(site, [(b"cookie", cookie)])).status == 401
    finally:
        event.remove(*listened)
    assert any("sessions" in statement for statement, _ in ran)
    for statement, binds in ran:
        for text in hostile[:1] + hostile[3:4] + hostile[5:6]:
            assert text not in statement
            assert text not in binds  # only its digest is asked for
    assert await town.count() == 1


async def test_a_credential_that_is_no_credential_is_refused(town: Town, site: Any) -> None:
    odd: list[str | bytes] = [
        *(b"\x80\xff\xfe", b"\xc3\x28", "x" * 9_000, "." * 5_000, "a.b.c", "eyJ.eyJ.eyJ"),
    ]
    await all_refused(town, site, [way(each) for each in odd for way in (bearer, api_key)])


async def test_a037_nothing_is_read_from_the_query(town: Town, site: Any) -> None:
    key = town.k1["key"].encode()
    for name in (b"api_key", b"access_token", b"token", b"key", b"apiKey", b"x-api-key"):
        answer = await ask(site, [], query=name + b"=" + key)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert key not in answer.body + repr(answer.headers).encode()


async def test_a038_nothing_is_read_from_the_body(town: Town, site: Any) -> None:
    key = town.k1["key"]
    form = b"application/x-www-form-urlencoded"
    sent: list[tuple[bytes, bytes]] = [(b"application/json", b'"%s"' % key.encode())]
    for name in ("access_token", "api_key", "key", "token", "Authorization"):
        sent.append((form, f"{name}={key}".encode()))
        sent.append((b"application/json", json.dumps({name: key}).encode()))
    for media_type, body in sent:
        headers = [(b"content-type", media_type)]
        for path in ("/guarded", "/api/auth/api-key/create", "/api/auth/introspect"):
            answer = await ask(site, headers, path=path, method="POST", body=body)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), (path, body)


_COUNTED = ContextVar("_COUNTED", default=False)
"""Set in the test and all that it starts; the jobs beside it were started before."""


def count_reads(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the bodies that the database runs for the test."""
    _COUNTED.set(True)
    database = town.app.database
    read: Callable[[Body[object]], Awaitable[object]] = database.read
    calls = []

    async def counted(body: Body[object]) -> object:
        if _COUNTED.get():
            calls.append(body)
        return await read(body)

    monkeypatch.setattr(database, "read", counted)
    return lambda: len(calls)


def count_statements(town: Town) -> Callable[[], int]:
    """Counts the statements that the test sends, apart from BEGIN and ROLLBACK."""
    _COUNTED.set(True)
    engine: Any = town.app.database.engine  # type: ignore[attr-defined]
    sent = []

    def note(*about: Any) -> None:
        if _COUNTED.get() and about[2] not in ("BEGIN", "ROLLBACK"):
            sent.append(about[2])

    listened = getattr(engine, "sync_engine", engine), "before_cursor_execute", note
    event.listen(*listened)
    return lambda: len(sent)


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


async def test_a062_every_refused_key_costs_the_same_work(
    town: Town, site: Any, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Equal work instead of equal time: a loaded machine measures itself. Only the checksum, which
    # is no secret, is cheaper (A050).
    async def fresh(**asked: object) -> dict[str, Any]:
        return await make_key(town.client, town.t1, **asked)

    expired, revoked, disabled = await fresh(expiresIn=1), await fresh(), await fresh()
    await town.post("/api-key/delete", town.t1, keyId=revoked["id"])
    await town.post("/api-key/update", town.t1, keyId=disabled["id"], enabled=False)
    clock.advance(2_000)
    await town.app.verifier.lease.renew()
    near = town.k1["key"][:20] + mint("kb_", os.urandom).reveal()[20:-6]
    presented = {
        "unknown": mint("kb_", os.urandom).reveal(),
        "known beginning, wrong end": near + checksum(near.encode()).decode(),
        "revoked": revoked["key"],
        "expired": expired["key"],
        "disabled": disabled["key"],
        "accepted": town.k2["key"],
    }
    # Whatever misses first reads whether keys were imported, for all that come later.
    assert (await ask(site, bearer(mint("kb_", os.urandom).reveal()))).status == 401
    reads = count_reads(town, monkeypatch)
    digests: list[int] = []
    plain = PepperRing.digests

    def counted(ring: PepperRing, credential: bytes) -> list[bytes]:
        digests.append(len(credential))
        return plain(ring, credential)

    monkeypatch.setattr(PepperRing, "digests", counted)
    statements = count_statements(town)
    work = {}
    for name, key in presented.items():
        before = reads(), statements(), len(digests)
        status = (await ask(site, bearer(key))).status
        assert status == (200 if name == "accepted" else 401)
        after = reads(), statements(), len(digests)
        work[name] = tuple(b - a for a, b in zip(before, after, strict=True))
    assert set(work.values()) == {(1, 1, 1)}, work


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
