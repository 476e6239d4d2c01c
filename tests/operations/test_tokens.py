import asyncio
import dataclasses
import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, select, update

from keybearer.adapters.sql import audit
from keybearer.adapters.sql import sessions as sql
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.tables import refresh_tokens, sessions, users
from keybearer.domain.credentials import PepperRing, parse_refresh_token, refresh_token
from keybearer.domain.errors import Failure
from keybearer.domain.jwt import JWKS_MAX_AGE_SECONDS
from keybearer.domain.model import ANONYMOUS, Session, User
from keybearer.domain.ports import Row, Transaction
from keybearer.operations.app import App
from keybearer.operations.declaration import Empty
from keybearer.operations.issuing import TokenPair
from keybearer.operations.recovery import PasswordChanged
from keybearer.operations.tokens import (
    BEARER,
    JWT,
    AboutToken,
    AccessToken,
    Login,
    Logout,
    Refresh,
    RevokeToken,
    get_token,
    introspect,
    refresh,
    revoke_token,
)
from tests.people import PASSWORD, SECRET, START, StandingClock, call_of, make_key, person

API = "/api/auth"
ADA = "ada@example.com"
BASE = "http://127.0.0.1:8000"
NEWER = "tests-only-pB4nX8sK1vH6jM3qD7wF9rT2"
SERVICE = Session(subject="service", kind="service", id="test")
DAY_MS = 86_400_000


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app, ADA)


async def login(client: httpx2.AsyncClient, **more: object) -> dict[str, Any]:
    answer = await client.post(f"{API}/login", json={"email": ADA, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    pair: dict[str, Any] = answer.json()
    return pair


async def session_token(client: httpx2.AsyncClient) -> dict[str, str]:
    """The headers of a browser's login, as Bearer."""
    asked = {"email": ADA, "password": PASSWORD}
    answer = await client.post(f"{API}/sign-in/email", json=asked)
    client.cookies.clear()
    return bearer(answer.json()["token"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload of a JWT, unchecked."""
    parts = [json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
    return parts[0], parts[1]


async def renew(app: App, token: str) -> TokenPair | str:
    """What a refresh gives, or its code."""
    try:
        return await refresh(call_of(app, ANONYMOUS), Refresh(refresh_token=token))
    except Failure as failure:
        return failure.code


async def renewed(app: App, token: str) -> TokenPair:
    pair = await renew(app, token)
    assert isinstance(pair, TokenPair), pair
    return pair


async def is_active(app: App, token: str) -> bool:
    return (await introspect(call_of(app, SERVICE), AboutToken(token=token))).active


async def rows(app: App, statement: object) -> Sequence[Row]:
    async def body(tx: Transaction) -> Sequence[Row]:
        return await tx.all(statement)

    return await app.database.read(body)


async def run(app: App, statement: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(statement)

    await app.database.write(body)


# --- login ---


async def test_a_login_gives_an_access_token_as_rfc_9068_has_it(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair = await login(client)
    assert list(pair) == [
        "token", "tokenType", "expiresIn", "refreshToken", "refreshExpiresIn", "user",
    ]  # fmt: skip
    assert pair["user"]["email"] == ADA
    header, payload = read(pair["token"])
    [row] = await rows(app, select(sessions))
    kid = (await app.signing.signer()).kid
    assert header == {"typ": "at+jwt", "alg": "EdDSA", "kid": kid}
    jti = payload.pop("jti")
    assert payload == {
        "iss": BASE, "sub": ada.id, "aud": BASE, "exp": START // 1000 + 300, "iat": START // 1000,
        "sid": row.id, "client_id": "keybearer", "scope": "deploy:run files:read files:write",
    }  # fmt: skip
    assert len(bytes.fromhex(jti)) == 16


async def test_a_login_of_a_program_has_no_session_token_and_lives_by_its_refresh_token(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    await login(client, clientId="deploy.cli-2_x")
    [row] = await rows(app, select(sessions))
    assert (row.token_digest, row.client_id) == (None, "deploy.cli-2_x")
    assert (row.expires_at, row.idle_ms) == (START + 90 * DAY_MS, 30 * DAY_MS)
    [event] = [
        each
        for each in await app.database.read(lambda tx: audit.newest(tx, limit=10))
        if each.event == "session.opened"
    ]
    assert (event.target_id, event.details["clientId"]) == (row.id, "deploy.cli-2_x")


@pytest.mark.parametrize("client_id", ["", "x" * 65, "a b", "abc\n", "\u00e9", "a/b", None, 7])
async def test_a_program_has_a_plain_name(
    client: httpx2.AsyncClient, ada: User, client_id: object
) -> None:
    asked = {"email": ADA, "password": PASSWORD, "clientId": client_id}
    answer = await client.post(f"{API}/login", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_a_program_without_the_password_gets_nothing(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    answer = await client.post(f"{API}/login", json={"email": ADA, "password": "wrong" + PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_EMAIL_OR_PASSWORD")
    assert await rows(app, select(sessions)) == []


# --- refresh ---


async def test_each_refresh_moves_the_end_of_the_family(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = await login(client)
    clock.advance(DAY_MS)
    pair = await renewed(app, first["refreshToken"])
    [family] = await rows(app, select(refresh_tokens))
    assert (family.generation, family.rotated_at) == (2, START + DAY_MS)
    assert family.expires_at == START + 31 * DAY_MS
    assert family.absolute_expires_at == START + 90 * DAY_MS
    assert pair.refresh_expires_in == 30 * 86_400
    [row] = await rows(app, select(sessions))
    assert row.last_seen_at == START + DAY_MS
    assert read(pair.token)[1]["sid"] == row.id


async def test_use_of_the_access_token_does_not_keep_a_refresh_token_alive(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    clock.advance(29 * DAY_MS)
    [row] = await rows(app, select(sessions))
    await app.database.write(lambda tx: sql.seen(tx, row.id, clock.now()))
    clock.advance(DAY_MS)
    assert await renew(app, pair["refreshToken"]) == "INVALID_REFRESH_TOKEN"
    assert await rows(app, select(sessions).where(sessions.c.ended_at.is_not(None))) == []


async def test_a_life_shorter_than_the_leeway_is_not_lengthened_by_it(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = await login(client)
    await renewed(app, first["refreshToken"])
    clock.advance(4_000)
    assert isinstance(await renew(app, first["refreshToken"]), TokenPair)
    await run(app, update(refresh_tokens).values(expires_at=clock.now()))
    assert await renew(app, first["refreshToken"]) == "INVALID_REFRESH_TOKEN"


async def test_a_new_secret_refreshes_what_the_old_one_made(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    rotated = dataclasses.replace(app, ring=PepperRing([NEWER.encode(), SECRET.encode()]))
    second = (await renewed(rotated, first)).refresh_token
    clock.advance(1_000)
    # A lost reply comes again as the token of the newest secret; both stand for generation 2.
    again = (await renewed(rotated, first)).refresh_token
    assert again == second
    alone = dataclasses.replace(app, ring=PepperRing([NEWER.encode()]))
    assert await renew(alone, first) == "INVALID_REFRESH_TOKEN"
    await renewed(alone, second)


@pytest.mark.parametrize("column", ["disabled_at", "email_verified_at"])
async def test_who_is_not_active_refreshes_nothing(
    client: httpx2.AsyncClient, app: App, ada: User, column: str
) -> None:
    pair = await login(client)
    changed = {"disabled_at": START} if column == "disabled_at" else {"email_verified_at": None}
    await run(app, update(users).values(**changed))
    assert await renew(app, pair["refreshToken"]) == "INVALID_REFRESH_TOKEN"
    assert not await is_active(app, pair["refreshToken"])
    await run(app, update(users).values(disabled_at=None, email_verified_at=START))
    await renewed(app, pair["refreshToken"])


@pytest.mark.parametrize("table", [sessions, users])
async def test_a_family_whose_login_or_owner_is_gone_refreshes_nothing(
    client: httpx2.AsyncClient, app: App, ada: User, table: Any
) -> None:
    pair = await login(client)
    await run(app, delete(table))
    assert await renew(app, pair["refreshToken"]) == "INVALID_REFRESH_TOKEN"
    assert not await is_active(app, pair["refreshToken"])
    await revoke_token(call_of(app, ANONYMOUS), RevokeToken(token=pair["refreshToken"]))


async def test_a_family_that_is_gone_refreshes_nothing(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair = await login(client)
    await run(app, delete(refresh_tokens))
    assert await renew(app, pair["refreshToken"]) == "INVALID_REFRESH_TOKEN"
    assert not await is_active(app, pair["refreshToken"])
    await revoke_token(call_of(app, ANONYMOUS), RevokeToken(token=pair["refreshToken"]))


async def test_a_hundred_on_two_nodes_make_one_successor(
    client: httpx2.AsyncClient, app: App, ada: User, ready_url: str
) -> None:
    first = (await login(client))["refreshToken"]
    database, _ = open_database(ready_url)
    nodes = (app, dataclasses.replace(app, database=database))
    pairs = await asyncio.gather(*(renewed(nodes[n % 2], first) for n in range(100)))
    await database.close()
    assert len({pair.refresh_token for pair in pairs}) == 1
    assert len({pair.token for pair in pairs}) == 100  # each its own jti
    [family] = await rows(app, select(refresh_tokens))
    assert (family.generation, family.ended_at) == (2, None)


async def test_the_database_lets_a_generation_go_once_only(
    client: httpx2.AsyncClient, app: App, ada: User, ready_url: str
) -> None:
    await login(client)
    [family] = await rows(app, select(refresh_tokens))
    other, _ = open_database(ready_url)

    async def body(tx: Transaction) -> bool:
        return await sql.advance(
            tx, family.family, generation=1, now=START, expires_at=START + DAY_MS
        )

    won = await asyncio.gather(*((app.database, other)[n % 2].write(body) for n in range(40)))
    await other.close()
    assert won.count(True) == 1


# --- revoke and introspect, where HTTP does not reach ---


async def test_a_refresh_token_of_another_family_or_seed_is_nothing(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair = await login(client)
    token = parse_refresh_token(pair["refreshToken"].encode())
    assert token is not None
    forged = refresh_token(
        app.ring.newest, family=token.family, generation=1, seed=bytes(16)
    ).reveal()
    assert not await is_active(app, forged)
    await revoke_token(call_of(app, ANONYMOUS), RevokeToken(token=forged))
    assert await is_active(app, pair["refreshToken"])


async def test_a_refresh_token_is_inactive_once_it_has_expired(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    clock.advance(30 * DAY_MS - 1)
    assert await is_active(app, pair["refreshToken"])
    clock.advance(1)
    assert not await is_active(app, pair["refreshToken"])


async def test_an_access_token_is_inactive_once_its_login_has_ended(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    pair = await login(client)
    assert await is_active(app, pair["token"])
    await run(app, update(sessions).values(ended_at=START))
    assert not await is_active(app, pair["token"])


async def test_a_logout_with_an_expired_token_of_a_login_long_forgotten_says_the_same(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    clock.advance(DAY_MS)
    await run(app, delete(sessions))
    answer = await client.post(f"{API}/logout", json={}, headers=bearer(pair["token"]))
    assert (answer.status_code, answer.json()) == (200, {"success": True})


# --- GET /token and the keys ---


async def test_a_session_gets_an_access_token_that_works(
    client: httpx2.AsyncClient, ada: User
) -> None:
    headers = await session_token(client)
    answer = await client.get(f"{API}/token", headers=headers)
    assert (answer.status_code, list(answer.json())) == (200, ["token"])
    assert answer.headers["cache-control"] == "no-store"
    got = await client.get(f"{API}/get-session", headers=bearer(answer.json()["token"]))
    assert got.json()["user"]["id"] == ada.id


async def test_it_ends_with_the_session(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    await session_token(client)
    [row] = await rows(app, select(sessions))
    caller = Session(
        subject=ada.id, kind="session", id=row.id, session_id=row.id, expires_at=START + 60_000
    )
    made = await get_token(call_of(app, caller), Empty())
    assert read(made.token)[1]["exp"] == START // 1000 + 60


async def test_only_a_session_gets_one(client: httpx2.AsyncClient, app: App, ada: User) -> None:
    access = bearer((await login(client))["token"])
    key = {"x-api-key": (await make_key(client, access))["key"]}
    for headers, status, code in (
        ({}, 401, "UNAUTHORIZED"),
        (access, 403, "SESSION_REQUIRED"),
        (key, 403, "SESSION_REQUIRED"),
    ):
        answer = await client.get(f"{API}/token", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await get_token(call_of(app), Empty())  # the app itself has no login
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await get_token(call_of(app, Session(subject="host", kind="session", id="host")), Empty())


async def test_the_keys_are_public_and_may_be_kept_for_five_minutes(
    client: httpx2.AsyncClient, ada: User
) -> None:
    token = (await login(client))["token"]
    answers = [await client.get(API + path) for path in ("/jwks", "/.well-known/jwks.json")]
    assert answers[0].content == answers[1].content
    for answer in answers:
        assert answer.headers["content-type"] == "application/jwk-set+json"
        assert answer.headers["cache-control"] == f"public, max-age={JWKS_MAX_AGE_SECONDS}"
    [key] = answers[0].json()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert key["kid"] == read(token)[0]["kid"]


async def test_tokens_stay_good_while_their_keys_are_rotated(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    kids = set()
    for minute in range(60):
        if minute == 1:
            await app.signing.rotate()
        clock.advance(60_000)
        before = pair["token"]
        pair = (await client.post(
            f"{API}/refresh", json={"refreshToken": pair["refreshToken"]}
        )).json()  # fmt: skip
        for token in (before, pair["token"]):
            answer = await client.get(f"{API}/get-session", headers=bearer(token))
            assert answer.status_code == 200, answer.text
        kids.add(read(pair["token"])[0]["kid"])
    assert len(kids) == 2
    assert len((await client.get(f"{API}/jwks")).json()["keys"]) == 1


# --- the rest ---


@pytest.mark.parametrize("declared", [*BEARER, JWT[0]], ids=lambda each: each.name)
async def test_accounts_that_are_left_out_have_no_tokens(app: App, declared: Any) -> None:
    object.__setattr__(app, "accounts", False)
    asked = {
        Login: Login(email=ADA, password=PASSWORD),
        Refresh: Refresh(refresh_token="x"),
        Logout: Logout(),
        RevokeToken: RevokeToken(token="x"),
        AboutToken: AboutToken(token="x"),
        Empty: Empty(),
    }[declared.input]
    with pytest.raises(Failure, match="NOT_FOUND"):
        await declared(call_of(app, SERVICE), asked)


def test_reprs_show_no_secret() -> None:
    shown = [
        sql.Family(
            family="f", session_id="s", user_id="u", seed=b"secret", generation=1, rotated_at=1,
            expires_at=2, absolute_expires_at=3, ended_at=None,
        ),
        Login(email=ADA, password="secret"),
        Refresh(refresh_token="secret"),
        Logout(refresh_token="secret"),
        AboutToken(token="secret"),
        RevokeToken(token="secret"),
        AccessToken(token="secret"),
        TokenPair(
            token="secret", expires_in=1, refresh_token="secret", refresh_expires_in=1,
            user=None,  # type: ignore[arg-type]
        ),
        PasswordChanged(token="secret", user=None),  # type: ignore[arg-type]
    ]  # fmt: skip
    for value in shown:
        assert "secret" not in repr(value)
