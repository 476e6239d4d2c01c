"""Access tokens and the JWKS, attacked over HTTP (rows A169 to A190).

Each hostile token is shown to a guarded endpoint, to an operation of ours, to forward-auth and to
introspection. tests/domain/test_jwt.py asks the same of the rule, bit by bit.

keybearer reads no tokens but its own, so A187 asks that two of them in one process share nothing.
There is no DPoP, so A191 has nothing to ask.
"""

import asyncio
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws

from keybearer import Auth
from keybearer.adapters.sql import signing as stored
from keybearer.adapters.sql.coherence import SqlLog
from keybearer.domain import jwt
from keybearer.domain.jwt import AHEAD_MS, AccessClaims, SigningKey
from keybearer.domain.ports import Body, Transaction
from keybearer.operations import outbox, service_tokens
from keybearer.operations.tokens import Login
from tests.attacks.guarded import Answer, RawHeaders, ask, bearer, guarded_app
from tests.attacks.town import Town
from tests.people import PASSWORD, SECRET, StandingClock, call_of, log_in, person

FORM = (b"content-type", b"application/x-www-form-urlencoded")
DOORS = ("/guarded", "/api/auth/list-sessions", "/api/auth/forward")
CODES = ("INVALID_ACCESS_TOKEN", "TOKEN_EXPIRED", "SESSION_ENDED")

Parts = dict[str, object]


class Site:
    """The doors that access tokens open, and who asks about tokens."""

    def __init__(self, town: Town, service: str) -> None:
        self.town = town
        self.app = guarded_app(town.auth)
        self._asking: RawHeaders = [*bearer(service), FORM]
        self.token = town.t1["authorization"].removeprefix("Bearer ")

    async def introspect(self, token: str | bytes) -> Answer:
        body = urlencode({"token": token}).encode()
        path = "/api/auth/introspect"
        return await ask(self.app, self._asking, path=path, method="POST", body=body)

    async def accepts(self, token: str | bytes) -> None:
        for door in DOORS:
            assert (await ask(self.app, bearer(token), path=door)).status == 200, door
        assert json.loads((await self.introspect(token)).body)["active"] is True

    async def refuses(self, token: str | bytes) -> None:
        for door in DOORS:
            answer = await ask(self.app, bearer(token), path=door)
            assert (answer.status, answer.code in CODES) == (401, True), (door, token[:200])
            assert answer.headers["www-authenticate"].startswith("Bearer realm=")
            assert "x-auth-subject" not in answer.headers
        told = await self.introspect(token)
        if told.status not in (400, 413):  # what can be no token is no question
            assert (told.status, json.loads(told.body)) == (200, {"active": False}), token[:200]

    async def key(self) -> SigningKey:
        """The key that signs now."""
        return await self.town.app.signing.signer()

    async def parts(self) -> tuple[Parts, Parts]:
        """Header and payload of T1."""
        return read(self.token)

    async def forge(
        self,
        header: Mapping[str, object] | None = None,
        payload: Mapping[str, object] | None = None,
        *,
        key: SigningKey | None = None,
    ) -> str:
        """T1 with other members, signed anew: by our own key unless another is given."""
        of_t1 = await self.parts()
        told = [
            {**before, **(new or {})} for before, new in zip(of_t1, (header, payload), strict=True)
        ]
        raw = [json.dumps({n: v for n, v in each.items() if v is not GONE}) for each in told]
        return sign(raw[0].encode(), raw[1].encode(), key or await self.key())


GONE = object()
"""A member to leave out."""


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "==")


def read(token: str) -> tuple[Parts, Parts]:
    header, payload, _ = token.split(".")
    return json.loads(decode(header)), json.loads(decode(payload))


def sign(header: bytes, payload: bytes, key: SigningKey) -> str:
    signing_input = f"{encode(header)}.{encode(payload)}"
    private: Any = key.key.private_key
    return f"{signing_input}.{encode(private.sign(signing_input.encode()))}"


@pytest.fixture
async def site(town: Town) -> Site:
    _, secret = await service_tokens.create(call_of(town.app), "app")
    site = Site(town, secret.reveal())
    await site.accepts(site.token)
    await site.accepts(await site.forge())  # what is forged below is refused for its fault alone
    return site


def count_reads(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the bodies that the database runs, but for the lease's: those come with the time."""
    plain: Callable[[Body[object]], Awaitable[object]] = town.app.database.read
    calls = []

    async def counted(body: Body[object]) -> object:
        if not getattr(body, "__qualname__", "").startswith(SqlLog.__name__):
            calls.append(body)
        return await plain(body)

    monkeypatch.setattr(town.app.database, "read", counted)
    return lambda: len(calls)


# --- the header -----------------------------------------------------------------------------


async def test_a169_a_kid_is_looked_up_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(site.town, monkeypatch)
    (own,) = await site.town.app.signing.known()
    for kid in (
        *(
            "../../../dev/null",
            "/proc/self/environ",
            "k1' UNION SELECT 'x",
            "|id",
            "",
            "%",
            own + " ",
        ),
        *(
            own.upper() + "x",
            "x" * 5_000,
            [own],
            {"kid": own},
            None,
            1,
            True,
            "\0",
            "http://evil.example",
        ),
        GONE,
    ):
        await site.refuses(await site.forge({"kid": kid}))
    # The keys are read again for a kid that we lack, and not more than once in two seconds.
    assert reads() <= 1


async def test_a169_a_kid_of_a_megabyte_is_refused(site: Site) -> None:
    await site.refuses(await site.forge({"kid": "x" * 1_000_000}))


async def test_a170_a_key_that_is_not_active_or_retired_opens_nothing(
    site: Site, clock: StandingClock
) -> None:
    signing = site.town.app.signing
    old = await site.key()
    await signing.rotate()
    new = next(key for kid, key in (await signing.known()).items() if kid != old.kid)

    async def fresh(key: SigningKey) -> str:
        """A token of this moment by that key, of a login of this moment."""
        headers = await log_in(site.town.client, "u1@example.com")
        header, payload = read(headers["authorization"].removeprefix("Bearer "))
        raw = json.dumps(header | {"kid": key.kid}), json.dumps(payload)
        return sign(raw[0].encode(), raw[1].encode(), key)

    await site.refuses(await fresh(new))
    clock.advance(AHEAD_MS)
    await site.accepts(await fresh(new))
    await site.accepts(await fresh(old))
    retires_at = (await signing.known())[old.kid].retires_at
    assert retires_at is not None
    clock.advance(retires_at - clock.now())
    await site.refuses(await fresh(old))
    await site.accepts(await fresh(new))


async def test_a170_a_new_key_under_our_kid_opens_nothing(site: Site) -> None:
    other = jwt.generate((await site.key()).kid, 0, first=True)
    await site.refuses(await site.forge(key=other))
    await site.refuses(
        await site.forge({"jwk": json.loads(other.to_jwk(private=False))}, key=other)
    )


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["x-unknown"], "x-unknown": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/x5"},
    ],
)
async def test_a171_a_header_member_that_we_do_not_know_is_refused(
    site: Site, header: Parts
) -> None:
    await site.refuses(await site.forge(header))


async def test_a172_only_access_tokens_are_access_tokens(site: Site) -> None:
    for typ in (
        *(GONE, "JWT", "id+jwt", "refresh+jwt", "AT+JWT", "application/AT+JWT", "logout+jwt"),
        *("dpop+jwt", "secevent+jwt", "at+jwt ", "", None, 1, ["at+jwt"]),
    ):
        await site.refuses(await site.forge({"typ": typ}))
    await site.accepts(await site.forge({"typ": "application/at+jwt"}))


async def test_a172_no_other_token_of_ours_is_an_access_token(site: Site) -> None:
    town = site.town
    await town.post("/request-password-reset", email="u1@example.com")
    letters = await outbox.recent(town.app)
    texts = "".join(letter.text for letter in letters)
    (reset,) = re.findall(r"reset-password/([A-Za-z0-9]{43})", texts)
    login = await town.post("/login", email="u1@example.com", password=PASSWORD)
    for token in (reset, town.u1, town.k1["id"], login.json()["refreshToken"]):
        for door in DOORS:
            assert (await ask(site.app, bearer(token), path=door)).status == 401
    for token in (reset, town.k1["key"]):
        assert json.loads((await site.introspect(token)).body) == {"active": False}


async def test_no_other_algorithm_signs(site: Site) -> None:
    header, payload = site.token.split(".")[:2]
    for alg in ("none", "None", "HS256", "ES256", "RS256", "Ed25519", "EdDSA ", "", None, GONE):
        await site.refuses(await site.forge({"alg": alg}))
    unsigned = encode(json.dumps({**read(site.token)[0], "alg": "none"}).encode())
    for token in (f"{unsigned}.{payload}.", f"{header}.{payload}.", f"{header}.{payload}"):
        for door in DOORS:
            assert (await ask(site.app, bearer(token), path=door)).status == 401


# --- the payload ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize(
    "text",
    ['"9999999999"', "9999999999.5", "true", "null", "-1", "1e400", "NaN", "[1]", "{}", None],
)
async def test_a175_a_time_is_a_whole_number_of_seconds(
    site: Site, name: str, text: str | None
) -> None:
    header, payload = await site.parts()
    members = [f'"{key}":{json.dumps(value)}' for key, value in payload.items() if key != name]
    if text is not None:
        members.append(f'"{name}":{text}')
    raw = "{" + ",".join(members) + "}"
    await site.refuses(sign(json.dumps(header).encode(), raw.encode(), await site.key()))


async def test_a175_a_token_ends_when_it_says_so_and_no_leeway_lengthens_it(
    site: Site, clock: StandingClock
) -> None:
    now = clock.now() // 1000
    for late in (0, 1, 29, 31, 300):
        await site.refuses(await site.forge(payload={"exp": now - late}))
    await site.refuses(await site.forge(payload={"iat": now + 31, "exp": now + 300}))
    await site.accepts(await site.forge(payload={"iat": now + 30, "exp": now + 300}))
    ends = read(site.token)[1]["exp"]
    assert isinstance(ends, int)
    clock.advance(ends * 1000 - clock.now() - 1)
    await site.accepts(site.token)
    clock.advance(1)
    await site.refuses(site.token)


@given(
    which=st.integers(0, 2),
    bit=st.integers(0, 8_000),
    place=st.integers(0, 1_000),
    char=st.sampled_from("Aa0_-.=~ "),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a178_every_bit_and_every_character_counts(
    site: Site, which: int, bit: int, place: int, char: str
) -> None:
    raw = [bytearray(decode(part)) for part in site.token.split(".")]
    part = raw[which]
    part[bit // 8 % len(part)] ^= 1 << bit % 8
    await site.refuses(".".join(encode(bytes(each)) for each in raw))
    place %= len(site.token)
    text = site.token[:place] + char + site.token[place + 1 :]
    if text != site.token:
        assert (await ask(site.app, bearer(text))).status == 401


async def test_a181_what_two_parsers_read_differently_is_refused(site: Site) -> None:
    header, payload = await site.parts()
    first, second = json.dumps(header), json.dumps(payload)
    deep = "[" * 2_500 + "]" * 2_500
    for raw_header, raw_payload in (
        (first, second[:-1] + f',"sub":"{site.town.u2}"}}'),
        (first, f'{{"sub":"{site.town.u2}",' + second[1:]),
        (first[:-1] + ',"kid":"other"}', second),
        (first[:-1] + ',"typ":"JWT"}', second),
        (first, second[:-1] + f',"x":{deep}}}'),
        (first[:-1] + f',"x":{deep}}}', second),
        (deep, second),
        (first, deep),
        (first, "\ufeff" + second),
        ("\ufeff" + first, second),
        (first, second + "x"),
        (first, second + second),
        (first, "[" + second + "]"),
        (first, ""),
        ("", second),
        (first, "null"),
    ):
        await site.refuses(sign(raw_header.encode(), raw_payload.encode(), await site.key()))
    broken = second.encode()[:-1] + b',"x":"\xff\xc3\x28"}'
    await site.refuses(sign(first.encode(), broken, await site.key()))
    await site.refuses(sign(first.encode(), second.encode("utf-16"), await site.key()))


async def test_a183_a_long_token_costs_no_signature_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    plain = jws.deserialize_compact

    def counted(*args: Any, **options: Any) -> Any:
        checked.append(len(args[0]))
        return plain(*args, **options)

    monkeypatch.setattr(jws, "deserialize_compact", counted)
    reads = count_reads(site.town, monkeypatch)
    whole = await site.forge(payload={"scope": "x" * 48_000})
    for token in (
        whole,
        site.token + "A" * 64_000,
        "a" * 64_000,
        "." * 64_000,
        "a.b." + "c" * 64_000,
    ):
        assert len(token) > 60_000
        for door in DOORS:
            assert (await ask(site.app, bearer(token), path=door)).status == 401
        assert (await site.introspect(token)).status in (200, 400, 413)
    assert (checked, reads()) == ([], 0)


async def test_a184_another_issuer_audience_or_key_is_not_ours(site: Site) -> None:
    staging = jwt.generate((await site.key()).kid, 0, first=True)
    await site.refuses(await site.forge(key=staging))
    issuer = str(read(site.token)[1]["iss"])
    for name in ("iss", "aud"):
        for other in (
            *(
                "https://staging.example.com",
                issuer + "/",
                issuer.upper(),
                issuer + ".evil.example",
            ),
            *("", None, GONE, 1, {"x": issuer}),
        ):
            await site.refuses(await site.forge(payload={name: other}))
    await site.refuses(await site.forge(payload={"iss": [issuer]}))
    await site.refuses(await site.forge(payload={"aud": ["https://other.example.com"]}))


async def test_a184_a_token_opens_nothing_but_its_own_login(site: Site) -> None:
    _, theirs = read(site.town.t2["authorization"].removeprefix("Bearer "))
    for payload in (
        {"sub": site.town.u2},
        {"sid": theirs["sid"]},
        {"sid": "0193b2f0-0000-7000-8000-000000000000"},
        {"sub": "0193b2f0-0000-7000-8000-000000000000"},
    ):
        await site.refuses(await site.forge(payload=payload))


# --- the keys -------------------------------------------------------------------------------


async def test_a185_the_published_keys_are_public(site: Site) -> None:
    await site.town.app.signing.rotate()
    answers = [await site.town.get(path) for path in ("/jwks", "/.well-known/jwks.json")]
    assert answers[0].json() == answers[1].json()
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/jwk-set+json"
        (age,) = re.findall(r"max-age=(\d+)", answer.headers["cache-control"])
        assert int(age) * 1000 <= min(AHEAD_MS, jwt.OVERLAP_MS)
    keys = answers[0].json()["keys"]
    assert len({key["kid"] for key in keys}) == len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == (
            "OKP",
            "Ed25519",
            "sig",
            "EdDSA",
        )
        assert len(decode(key["x"])) == 32


async def test_a186_a_rotation_under_load_fails_nobody(site: Site, clock: StandingClock) -> None:
    town = site.town
    login = (await town.post("/login", email="u1@example.com", password=PASSWORD)).json()
    published: Mapping[str, SigningKey] = {}
    fetched = -(10**9)
    signed_by = []
    for minute in range(60):
        mine = {"authorization": f"Bearer {login['token']}"}
        load = [town.get(path, mine) for path in ("/list-sessions", "/forward", "/jwks")]
        if minute == 5:
            load.insert(0, rotated(town))
        answers = await asyncio.gather(*load)
        assert {answer.status_code for answer in answers} == {200}
        # Somebody who checks offline, and keeps the keys for as long as they say.
        if minute * 60 - fetched >= jwt.JWKS_MAX_AGE_SECONDS:
            published, fetched = from_jwks(answers[-1].json()), minute * 60
        claims = jwt.read(
            login["token"], published, issuer=town.app.settings.base_url,
            audience=town.app.settings.base_url, now_seconds=clock.now() // 1000,
        )  # fmt: skip
        assert isinstance(claims, AccessClaims), (minute, claims)
        signed_by.append(str(read(login["token"])[0]["kid"]))
        clock.advance(60_000)
        refreshed = await town.post("/refresh", refreshToken=login["refreshToken"])
        assert refreshed.status_code == 200
        login = refreshed.json()
    old, new = list(dict.fromkeys(signed_by))
    assert signed_by == [old] * signed_by.count(old) + [new] * signed_by.count(new)
    assert set(published) == {new}


async def rotated(town: Town) -> Any:
    await town.app.signing.rotate()
    return await town.get("/ok")


def from_jwks(document: Any) -> dict[str, SigningKey]:
    """What an offline verifier knows: the public halves, without their lives."""
    return {
        key["kid"]: SigningKey.from_jwk(json.dumps(key), created_at=0, activates_at=0)
        for key in document["keys"]
    }


async def test_a187_two_issuers_that_share_a_kid_share_no_key(
    site: Site, tmp_path: Path, clock: StandingClock
) -> None:
    kid = (await site.key()).kid
    other = Auth(f"sqlite:///{tmp_path}/other.db", secret=SECRET, clock=clock)
    async with other.lifespan():
        app = await other.running()
        theirs = jwt.generate(kid, clock.now(), first=True)
        sealed = jwt.seal(app.ring.newest.signing_secret, theirs.to_jwk(private=True))

        async def body(tx: Transaction) -> None:
            now = clock.now()
            row = stored.SealedKey(
                kid=kid, sealed=sealed, created_at=now, activates_at=now, retires_at=None
            )
            await stored.add(tx, row)

        await app.database.write(body)
        clock.advance(30_000)  # keys are read again
        user = await person(app, "u1@example.com")
        token, key = await own_token(other, user.email), await site.key()
        assert read(token)[0]["kid"] == key.kid == kid
        ours, others = site.town.app.signing, app.signing
        for first, second in ((ours, others), (others, ours)):
            clock.advance(30_000)
            await first.known()
            await second.known()
            await site.refuses(token)
            await site.refuses(await site.forge(key=theirs))
            await site.accepts(await site.forge(key=key))
            assert await other.api.get_session({"authorization": f"Bearer {token}"})
            assert await other.api.get_session({"authorization": f"Bearer {site.token}"}) is None


async def own_token(auth: Auth, email: str) -> str:
    """An access token of somebody who logs in there."""
    answer = await auth.api.login(Login(email=email, password=PASSWORD))
    return answer.token


# --- what a token says ----------------------------------------------------------------------


async def test_a189_a_token_says_ids_and_no_more(site: Site, clock: StandingClock) -> None:
    header, payload = await site.parts()
    assert set(header) == {"typ", "alg", "kid"}
    assert set(payload) == set(AccessClaims.__struct_fields__)
    assert "@" not in json.dumps(payload)
    assert "Ada" not in json.dumps(payload)
    now = clock.now() // 1000
    claims = msgspec.convert(payload, AccessClaims)
    assert (claims.iat, claims.exp) == (now, now + 300)
    assert claims.sub == site.town.u1
    listed = (await site.town.get("/list-sessions", site.town.t1)).json()
    assert claims.sid in json.dumps(listed)
    jtis = [claims.jti]
    for _ in range(20):
        fresh = await log_in(site.town.client, "u1@example.com")
        jtis.append(str(read(fresh["authorization"].removeprefix("Bearer "))[1]["jti"]))
    assert len(set(jtis)) == len(jtis)
    assert {len(bytes.fromhex(jti)) for jti in jtis} == {16}


async def test_a190_a_scope_is_signed_text_and_no_more_than_is_held(site: Site) -> None:
    header, payload = await site.parts()
    wider = {**payload, "scope": f"{payload['scope']} users:write"}
    signature = site.token.rpartition(".")[2]
    parts = [encode(json.dumps(each).encode()) for each in (header, wider)]
    await site.refuses(".".join([*parts, signature]))
    for key in (
        jwt.generate((await site.key()).kid, 0, first=True),
        jwt.generate("x", 0, first=True),
    ):
        await site.refuses(await site.forge(payload=wider, key=key))
    for scope in (["files:read"], {"files": "read"}, 1, None, True, GONE):
        await site.refuses(await site.forge(payload={"scope": scope}))
    # Not even our own signature gives more than the owner holds now.
    token = await site.forge(payload=wider)
    answer = await ask(
        site.app, bearer(token), path="/api/auth/forward", query=b"permissions=users:write"
    )
    assert (answer.status, answer.code) == (403, "INSUFFICIENT_SCOPE")
