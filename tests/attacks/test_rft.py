"""Refresh, logout, revoke and introspect, attacked (security rows A192 to A213).

Four workers on two nodes (A194) wait for the shared cache that lets a second process serve; here
a hundred requests meet in one process, and the database decides between them. There is no
refresh cookie to steal by a cross-site request (A204): the token travels in the body alone, and
such a request is refused all the same.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import httpx2
import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql import audit, outbox
from keybearer.adapters.sql.tables import metadata, refresh_tokens, sessions
from keybearer.domain.credentials import parse_refresh_token, refresh_token
from keybearer.domain.model import User
from keybearer.domain.ports import Row, Transaction
from keybearer.operations import people, service_tokens
from keybearer.operations.app import App
from keybearer.web.mount import no_app
from tests.attacks.town import API, is_problem
from tests.people import PASSWORD, SECRET, StandingClock, call_of, log_in, make_key, person

T = TypeVar("T")

ADA = "ada@example.com"
LEEWAY_MS = 10_000
DAY_MS = 86_400_000
CREDENTIALS = ("cookie", "session", "signed", "access", "expired")


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app, ADA)


@pytest.fixture
async def service(app: App) -> dict[str, str]:
    _, secret = await service_tokens.create(call_of(app), "api")
    return {"authorization": f"Bearer {secret.reveal()}"}


async def login(client: httpx2.AsyncClient, **more: str) -> dict[str, Any]:
    answer = await client.post(f"{API}/login", json={"email": ADA, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    got: dict[str, Any] = answer.json()
    return got


async def browser(client: httpx2.AsyncClient, **more: object) -> httpx2.Response:
    """A sign-in whose cookie the test carries by hand."""
    answer = await client.post(
        f"{API}/sign-in/email", json={"email": ADA, "password": PASSWORD, **more}
    )
    assert answer.status_code == 200, answer.text
    client.cookies.clear()
    return answer


def cookie_of(answer: httpx2.Response) -> dict[str, str]:
    return {"cookie": answer.headers["set-cookie"].split(";")[0]}


OURS = {"origin": "http://127.0.0.1:8000"}


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post(f"{API}/refresh", json={"refreshToken": token})


async def successor(client: httpx2.AsyncClient, token: str) -> dict[str, Any]:
    answer = await refresh(client, token)
    assert answer.status_code == 200, answer.text
    got: dict[str, Any] = answer.json()
    return got


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def opens(client: httpx2.AsyncClient, headers: Any) -> bool:
    """Whether an endpoint for logged-in users accepts it."""
    answer = await client.get(f"{API}/list-sessions", headers=headers)
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def rows(app: App, statement: object) -> Sequence[Row]:
    async def body(tx: Transaction) -> Sequence[Row]:
        return await tx.all(statement)

    return await app.database.read(body)


async def events(app: App, name: str) -> list[audit.Event]:
    found = await app.database.read(lambda tx: audit.newest(tx, limit=1000))
    return [event for event in found if event.event == name]


async def letters(app: App) -> list[str]:
    return [
        letter.subject
        for letter in await app.database.read(lambda tx: outbox.recent(tx, limit=200))
    ]


async def form(
    client: httpx2.AsyncClient, path: str, headers: dict[str, str] | None = None, **fields: str
) -> httpx2.Response:
    return await client.post(API + path, data=fields, headers=headers)


async def introspected(
    client: httpx2.AsyncClient, service: dict[str, str], token: str
) -> dict[str, Any]:
    answer = await form(client, "/introspect", service, token=token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


# ---------------------------------------------------------------------------------- rotation


async def test_a192_each_refresh_token_works_once(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    first = await login(client)
    assert first["refreshToken"].startswith("kbr_")
    assert (first["tokenType"], first["expiresIn"]) == ("Bearer", 300)
    assert first["refreshExpiresIn"] == 30 * 86_400
    clock.advance(60_000)
    second = await successor(client, first["refreshToken"])
    clock.advance(60_000)
    third = await successor(client, second["refreshToken"])
    tokens = [each["refreshToken"] for each in (first, second, third)]
    assert len(set(tokens)) == 3
    read = [parse_refresh_token(token.encode()) for token in tokens]
    assert len({token.family for token in read if token is not None}) == 1
    assert [token.generation for token in read if token is not None] == [1, 2, 3]
    for pair in (first, second, third):
        assert await opens(client, bearer(pair["token"]))
    assert set(third) == set(first)


@pytest.mark.parametrize("late_ms", [LEEWAY_MS, LEEWAY_MS + 1, DAY_MS])
async def test_a193_a_spent_token_ends_the_family_and_the_owner_is_told_once(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock, late_ms: int
) -> None:
    other = await login(client)
    first = await login(client)
    second = await successor(client, first["refreshToken"])
    clock.advance(late_ms)
    fresh = await successor(client, other["refreshToken"])
    if late_ms < 300_000:
        assert await opens(client, bearer(second["token"]))
    assert is_problem(await refresh(client, first["refreshToken"]), 401, "INVALID_REFRESH_TOKEN")
    assert is_problem(await refresh(client, second["refreshToken"]), 401, "INVALID_REFRESH_TOKEN")
    assert is_problem(await refresh(client, first["refreshToken"]), 401, "INVALID_REFRESH_TOKEN")
    for pair in (first, second):
        assert not await opens(client, bearer(pair["token"]))
    assert await opens(client, bearer(fresh["token"]))  # the other login goes on
    reused = await events(app, "refresh.reuse")
    assert [(event.outcome, event.owner_id) for event in reused] == [("refused", ada.id)]
    assert await letters(app) == ["A device was logged out to protect your account"]


async def test_a194_a_hundred_at_once_make_one_successor(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refreshToken"] for answer in answers}) == 1
    [family] = await rows(app, select(refresh_tokens))
    assert (family.generation, family.ended_at) == (2, None)
    second = answers[0].json()["refreshToken"]
    clock.advance(LEEWAY_MS)
    await successor(client, second)
    assert await letters(app) == []


async def test_a194_a_hundred_late_ones_make_none_and_one_mail(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    await successor(client, first)
    clock.advance(LEEWAY_MS)
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {401}
    assert len(await events(app, "refresh.reuse")) == 1
    assert len(await letters(app)) == 1


async def test_a194_the_live_and_the_spent_token_at_once_leave_one_head_or_none(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    for _ in range(10):
        first = (await login(client))["refreshToken"]
        second = (await successor(client, first))["refreshToken"]
        clock.advance(LEEWAY_MS)
        answers = await asyncio.gather(
            *(refresh(client, token) for token in (first, second, second, first))
        )
        assert {answer.status_code for answer in answers} <= {200, 401}
        for answer in answers:
            if answer.status_code == 200:
                assert not await opens(client, bearer(answer.json()["token"]))
                assert (await refresh(client, answer.json()["refreshToken"])).status_code == 401


async def test_a195_generations_decide_not_the_clock(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    second = (await successor(client, first))["refreshToken"]
    clock.advance(300)
    third = await successor(client, second)
    clock.advance(300)
    assert is_problem(await refresh(client, first), 401, "INVALID_REFRESH_TOKEN")
    assert not await opens(client, bearer(third["token"]))
    assert len(await events(app, "refresh.reuse")) == 1


async def test_a197_a_lost_reply_is_given_again_even_by_the_next_process(
    client: httpx2.AsyncClient, auth: Auth, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    lost = await successor(client, first)
    await auth.stop()
    await auth.start()
    clock.advance(LEEWAY_MS - 1)
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    async with httpx2.AsyncClient(transport=transport, base_url=str(client.base_url)) as next_one:
        again = await successor(next_one, first)
        assert again["refreshToken"] == lost["refreshToken"]
        assert again["refreshExpiresIn"] == lost["refreshExpiresIn"] - 10
        clock.advance(LEEWAY_MS)
        third = await successor(next_one, again["refreshToken"])
        assert await opens(next_one, bearer(third["token"]))


# ------------------------------------------------------------------------------------- races


async def test_a198_no_refresh_outlives_a_logout(client: httpx2.AsyncClient, ada: User) -> None:
    for _ in range(50):
        pair = await login(client)
        refreshed, ended = await asyncio.gather(
            refresh(client, pair["refreshToken"]),
            client.post(f"{API}/logout", headers=bearer(pair["token"])),
        )
        assert ended.status_code == 200
        await assert_dead(client, pair, refreshed)


async def assert_dead(
    client: httpx2.AsyncClient, pair: dict[str, Any], refreshed: httpx2.Response
) -> None:
    assert refreshed.status_code in (200, 401), refreshed.text
    pairs = [pair, *([refreshed.json()] if refreshed.status_code == 200 else [])]
    for each in pairs:
        assert not await opens(client, bearer(each["token"]))
        answer = await refresh(client, each["refreshToken"])
        assert is_problem(answer, 401, "INVALID_REFRESH_TOKEN")


async def race(
    client: httpx2.AsyncClient, end: Coroutine[Any, Any, T], password: str = PASSWORD
) -> T:
    """Five refreshes of five logins, spread over the time that the end takes; none survives.

    Gives what the end gave.
    """
    pairs = [await login(client, password=password) for _ in range(5)]

    async def later(token: str, waits_ms: int) -> httpx2.Response:
        await asyncio.sleep(waits_ms / 1000)
        return await refresh(client, token)

    ending = asyncio.create_task(end)
    refreshed = await asyncio.gather(
        *(later(pair["refreshToken"], n * 3) for n, pair in enumerate(pairs))
    )
    ended = await ending
    for pair, answer in zip(pairs, refreshed, strict=True):
        await assert_dead(client, pair, answer)
    return ended


async def test_a199_no_refresh_outlives_a_disabling(client: httpx2.AsyncClient, app: App) -> None:
    await person(app, ADA)
    for _ in range(10):
        await race(client, people.disable(call_of(app), ADA))
        await people.enable(call_of(app), ADA)
    assert await events(app, "refresh.reuse") == []


async def test_a199_no_refresh_outlives_its_user(client: httpx2.AsyncClient, app: App) -> None:
    for _ in range(10):
        await person(app, ADA)
        await race(client, people.delete(call_of(app), ADA))
    assert await events(app, "refresh.reuse") == []


async def test_a199_no_refresh_outlives_its_password(client: httpx2.AsyncClient, app: App) -> None:
    await person(app, ADA)
    password = PASSWORD
    for number in range(10):
        mine = await login(client, password=password)
        change = client.post(
            f"{API}/change-password",
            json={"currentPassword": password, "newPassword": f"{PASSWORD} {number}"},
            headers=bearer(mine["token"]),
        )
        changed = await race(client, change, password)
        password = f"{PASSWORD} {number}"
        assert not await opens(client, bearer(mine["token"]))
        assert await opens(client, bearer(changed.json()["token"]))  # whoever changed it stays
    assert await events(app, "refresh.reuse") == []


# ------------------------------------------------------------------------------------ expiry


async def test_a200_a_refresh_token_ends_when_it_is_not_used(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    first = await login(client)
    second = await login(client)
    clock.advance(30 * DAY_MS - 1)
    await successor(client, second["refreshToken"])
    clock.advance(1)
    assert is_problem(await refresh(client, first["refreshToken"]), 401, "INVALID_REFRESH_TOKEN")


async def test_a200_use_does_not_carry_past_the_absolute_end(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    for _ in range(4):
        clock.advance(20 * DAY_MS)
        pair = await successor(client, pair["refreshToken"])
    assert pair["refreshExpiresIn"] == 10 * 86_400
    clock.advance(10 * DAY_MS - 60_000)
    last = await successor(client, pair["refreshToken"])
    assert (last["refreshExpiresIn"], last["expiresIn"]) == (60, 60)
    clock.advance(59_999)
    assert await opens(client, bearer(last["token"]))
    clock.advance(1)
    assert not await opens(client, bearer(last["token"]))
    assert is_problem(await refresh(client, last["refreshToken"]), 401, "INVALID_REFRESH_TOKEN")


async def test_a200_a_browser_session_ends_idle_and_absolutely(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    cookie = cookie_of(await browser(client))
    idle = cookie_of(await browser(client))
    for _ in range(6):
        clock.advance(DAY_MS - 1)
        assert await opens(client, cookie)
    assert not await opens(client, idle)
    clock.advance(DAY_MS + 5)
    assert await opens(client, cookie) is False


# ------------------------------------------------------------------------------------ forgery


async def test_a202_who_has_no_token_of_ours_ends_nothing(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    first = (await login(client))["refreshToken"]
    live = (await successor(client, first))["refreshToken"]
    clock.advance(LEEWAY_MS)
    [family] = await rows(app, select(refresh_tokens))
    pepper = app.ring.newest

    def made(generation: int, *, of: str = family.family, seed: bytes = bytes(16)) -> str:
        return refresh_token(pepper, family=of, generation=generation, seed=seed).reveal()

    forged = [
        *(made(generation) for generation in (0, 1, 2, 3, 2**32 - 1)),
        made(1, of="0" * 32, seed=family.seed),
        *(live[:-1] + char for char in "0Az" if char != live[-1]),
        live[:40] + ("0" if live[40] != "0" else "1") + live[41:],
        live[:-6],
        live + "0",
        live.lower(),
        "kbr_" + family.family,
        family.seed.hex(),
        "kbr_" + "z" * 76,
        "kbr_é",
        "x" * 8192,
    ]
    for token in forged:
        assert is_problem(await refresh(client, token), 401, "INVALID_REFRESH_TOKEN"), token
        for answer in (
            await client.post(f"{API}/logout", json={"refreshToken": token}),
            await form(client, "/revoke", token=token),
        ):
            assert answer.status_code == 200
    assert await events(app, "refresh.reuse") == []
    assert await letters(app) == []
    await successor(client, live)


@pytest.mark.parametrize(
    "body", [{}, {"refreshToken": ""}, {"refreshToken": None}, {"refreshToken": "x" * 8193}]
)
async def test_a202_what_is_no_request_is_400(
    client: httpx2.AsyncClient, body: dict[str, object]
) -> None:
    assert is_problem(await client.post(f"{API}/refresh", json=body), 400)


async def test_a202_an_access_token_or_key_does_not_refresh(
    client: httpx2.AsyncClient, ada: User
) -> None:
    pair = await login(client)
    key = await make_key(client, bearer(pair["token"]))
    for token in (pair["token"], key["key"]):
        assert is_problem(await refresh(client, token), 401, "INVALID_REFRESH_TOKEN")
    # And a refresh token opens nothing but its own three endpoints.
    for headers in (bearer(pair["refreshToken"]), {"x-api-key": pair["refreshToken"]}):
        assert not await opens(client, headers)


async def test_a204_another_site_cannot_refresh(client: httpx2.AsyncClient, ada: User) -> None:
    token = (await login(client))["refreshToken"]
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        answer = await client.post(f"{API}/refresh", json={"refreshToken": token}, headers=headers)
        assert answer.status_code == 403
    assert "set-cookie" not in (await refresh(client, token)).headers


async def test_a205_no_token_is_stored_or_logged(
    client: httpx2.AsyncClient, app: App, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    first = await login(client)
    second = await successor(client, first["refreshToken"])
    signed_in = await browser(client)
    await app.verifier.usage.flush(app.clock.now())
    secrets = [
        first["refreshToken"], second["refreshToken"], first["token"], second["token"],
        signed_in.json()["token"], PASSWORD, SECRET,
    ]  # fmt: skip
    kept = ""
    for table in metadata.sorted_tables:
        kept += "\n".join(repr(row) for row in await rows(app, select(table)))
    assert ADA in kept
    for secret in secrets:
        assert secret not in kept
        assert secret.removeprefix("kbr_")[:30] not in kept
        assert secret not in caplog.text


# ------------------------------------------------------------------------------------- logout


@pytest.mark.parametrize(
    ("path", "how"),
    [
        *(("/logout", how) for how in (*CREDENTIALS, "refresh")),
        *(("/sign-out", how) for how in CREDENTIALS),
    ],
)
async def test_a206_every_credential_logs_out_and_twice_is_the_same(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock, *, how: str, path: str
) -> None:
    pair = await login(client)
    signed_in = await browser(client)
    headers: dict[str, str] = {}
    body: dict[str, str] = {}
    if how == "cookie":
        headers = cookie_of(signed_in) | OURS
    elif how == "session":
        headers = bearer(signed_in.json()["token"])
    elif how == "signed":
        headers = bearer(signed_in.headers["set-auth-token"])
    elif how == "refresh":
        body = {"refreshToken": pair["refreshToken"]}
    else:
        headers = bearer(pair["token"])
    if how == "expired":
        clock.advance(3_600_000)
    by_token = how in ("access", "expired", "refresh")
    for _ in range(2):
        answer = await client.post(API + path, json=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert answer.headers["set-cookie"] == (
            "keybearer.session_token=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
        )
        assert answer.headers["clear-site-data"] == '"cache", "storage"'
        assert await opens(client, cookie_of(signed_in)) is by_token
        assert await opens(client, bearer(signed_in.json()["token"])) is by_token
        assert (await refresh(client, pair["refreshToken"])).status_code == (
            401 if by_token else 200
        )
        if by_token:
            assert not await opens(client, bearer(pair["token"]))
    [ended] = [row for row in await rows(app, select(sessions)) if row.ended_at is not None]
    assert (ended.client_id == "browser") is not by_token
    assert len(await events(app, "session.ended")) == 1


async def test_a206_without_a_credential_it_says_the_same(client: httpx2.AsyncClient) -> None:
    for path in ("/logout", "/sign-out"):
        for headers in ({}, bearer("nonsense"), bearer("a.b.c"), {"authorization": "Basic eDp5"}):
            answer = await client.post(API + path, headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"success": True})


async def test_a206_access_tokens_end_at_once_though_they_were_just_accepted(
    client: httpx2.AsyncClient, ada: User
) -> None:
    pair = await login(client)
    second = await successor(client, pair["refreshToken"])
    for token in (pair["token"], second["token"]):
        assert await opens(client, bearer(token))  # cached from here
    await client.post(f"{API}/logout", headers=bearer(pair["token"]))
    for token in (pair["token"], second["token"]):
        answer = await client.get(f"{API}/get-session", headers=bearer(token))
        assert is_problem(answer, 401, "SESSION_ENDED")


async def test_a206_two_credentials_are_refused(client: httpx2.AsyncClient, ada: User) -> None:
    pair = await login(client)
    both = bearer(pair["token"]) | {"x-api-key": "kb_x"}
    for path in ("/logout", "/sign-out"):
        answer = await client.post(API + path, headers=both)
        assert is_problem(answer, 400, "MULTIPLE_CREDENTIALS")
    assert await opens(client, bearer(pair["token"]))


async def test_a206_an_api_key_logs_nobody_out(client: httpx2.AsyncClient, ada: User) -> None:
    headers = await log_in(client)
    key = await make_key(client, headers)
    for path in ("/logout", "/sign-out"):
        answer = await client.post(API + path, headers={"x-api-key": key["key"]})
        assert is_problem(answer, 403, "SESSION_REQUIRED")
    assert await opens(client, headers)


async def test_a207_another_site_cannot_log_anybody_out(
    client: httpx2.AsyncClient, ada: User
) -> None:
    cookie = cookie_of(await browser(client))
    for path in ("/logout", "/sign-out"):
        answer = await client.get(API + path, headers=cookie)
        assert is_problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "POST"
        for headers, code in (
            ({"sec-fetch-site": "cross-site"}, "INVALID_ORIGIN"),
            ({"sec-fetch-site": "same-site"}, "INVALID_ORIGIN"),
            ({"origin": "https://evil.example"}, "INVALID_ORIGIN"),
            ({"origin": "http://127.0.0.1:8000.evil.example"}, "INVALID_ORIGIN"),
            ({"origin": "null"}, "MISSING_OR_NULL_ORIGIN"),
            ({}, "MISSING_OR_NULL_ORIGIN"),
        ):
            answer = await client.post(API + path, headers=cookie | headers)
            assert is_problem(answer, 403, code)
            assert "set-cookie" not in answer.headers
    assert await opens(client, cookie)
    # The browser says that a person typed or clicked it here.
    answer = await client.post(f"{API}/logout", headers=cookie | {"sec-fetch-site": "none"})
    assert answer.status_code == 200
    assert not await opens(client, cookie)


async def test_a208_a_forged_cookie_ends_nobodys_login(
    client: httpx2.AsyncClient, app: App, ada: User
) -> None:
    signed_in = await browser(client)
    mine = cookie_of(signed_in)
    token = signed_in.json()["token"]
    [row] = await rows(app, select(sessions))
    signature = signed_in.headers["set-auth-token"].split(".")[1]
    for value in (
        token,
        f"{token}.",
        f"{token}.{'A' * 43}=",
        f"{row.id}.{signature}",
        f"{token}.{signature[:-2]}" + ("B" if signature[-2] != "B" else "C") + "=",
        f"{token}x.{signature}",
        row.token_digest.hex(),
        f"{token}.{'é' * 44}",
    ):
        raw = f"keybearer.session_token={value}".encode()
        forged = [(b"cookie", raw), (b"origin", OURS["origin"].encode())]
        for path in ("/logout", "/sign-out"):
            assert (await client.post(API + path, headers=forged)).status_code == 200
        assert not await opens(client, forged)
    assert await opens(client, mine)
    assert await events(app, "session.ended") == []


# ---------------------------------------------------------------------- revoke and introspect


@pytest.mark.parametrize("which", ["token", "refreshToken"])
@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "nonsense"])
async def test_a209_a_revoked_token_takes_its_login_along_whatever_the_hint(
    client: httpx2.AsyncClient, ada: User, which: str, hint: str | None
) -> None:
    pair, other = await login(client), await login(client)
    fields = {"token": pair[which], "client_id": "keybearer"}
    if hint is not None:
        fields["token_type_hint"] = hint
    for _ in range(2):
        answer = await form(client, "/revoke", **fields)
        assert (answer.status_code, answer.json()) == (200, {})
        assert not await opens(client, bearer(pair["token"]))
        assert (await refresh(client, pair["refreshToken"])).status_code == 401
    assert await opens(client, bearer(other["token"]))


async def test_a209_what_is_no_token_is_revoked_already(
    client: httpx2.AsyncClient, app: App, ada: User, clock: StandingClock
) -> None:
    pair = await login(client)
    key = await make_key(client, bearer(pair["token"]))
    clock.advance(3_600_000)
    for token in ("nonsense", "a.b.c", "é", pair["token"], key["key"]):
        answer = await form(client, "/revoke", token=token)
        assert (answer.status_code, answer.json()) == (200, {})
    assert await events(app, "session.ended") == []
    await successor(client, pair["refreshToken"])


async def test_a209_another_programs_token_is_not_revoked(
    client: httpx2.AsyncClient, ada: User
) -> None:
    pair = await login(client, clientId="cli")
    for which in ("token", "refreshToken"):
        answer = await form(client, "/revoke", token=pair[which], client_id="web")
        assert (answer.status_code, answer.json()) == (200, {})
    assert await opens(client, bearer(pair["token"]))
    assert (await form(client, "/revoke", token=pair["token"], client_id="cli")).status_code == 200
    assert not await opens(client, bearer(pair["token"]))


async def test_a209_only_a_form_in_a_post_revokes(client: httpx2.AsyncClient, ada: User) -> None:
    pair = await login(client)
    token = pair["refreshToken"]
    got = await client.get(f"{API}/revoke", params={"token": token})
    assert is_problem(got, 405, "METHOD_NOT_ALLOWED")
    asked = await client.post(f"{API}/revoke", params={"token": token}, data={"token": token})
    assert is_problem(asked, 400, "VALIDATION_ERROR")
    assert token not in asked.text
    as_json = await client.post(f"{API}/revoke", json={"token": token})
    assert is_problem(as_json, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert is_problem(await form(client, "/revoke", token_type_hint="x"), 400, "VALIDATION_ERROR")
    twice = await client.post(
        f"{API}/revoke", content=f"token={token}&token={token}",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert twice.status_code == 400
    assert await opens(client, bearer(pair["token"]))


async def test_a210_only_a_service_introspects(client: httpx2.AsyncClient, ada: User) -> None:
    pair = await login(client)
    key = await make_key(client, bearer(pair["token"]))
    for headers, status in (
        ({}, 401),
        (bearer("nonsense"), 401),
        (bearer("kbs_" + "0" * 49), 401),
        (bearer(pair["refreshToken"]), 401),
        (bearer(pair["token"]), 403),
        ({"x-api-key": key["key"]}, 403),
    ):
        answer = await form(client, "/introspect", headers, token=pair["token"])
        assert is_problem(answer, status)
        assert "active" not in answer.json()


async def test_a213_what_was_revoked_is_inactive_at_once(
    client: httpx2.AsyncClient, ada: User, service: dict[str, str], clock: StandingClock
) -> None:
    pair = await login(client, clientId="cli")
    access = await introspected(client, service, pair["token"])
    now = clock.now() // 1000
    jti = access.pop("jti")
    assert len(jti) == 32
    assert access == {
        "active": True, "scope": "deploy:run files:read files:write", "client_id": "cli",
        "sub": ada.id, "exp": now + 300, "iat": now, "iss": "http://127.0.0.1:8000",
        "aud": "http://127.0.0.1:8000", "token_type": "Bearer",
    }  # fmt: skip
    assert await introspected(client, service, pair["refreshToken"]) == {
        "active": True, "client_id": "cli", "sub": ada.id, "exp": now + 30 * 86_400, "iat": now,
        "iss": "http://127.0.0.1:8000", "token_type": "refresh_token",
    }  # fmt: skip
    await form(client, "/revoke", token=pair["refreshToken"])
    for token in (pair["token"], pair["refreshToken"]):
        assert await introspected(client, service, token) == {"active": False}


async def test_a213_what_is_not_good_is_inactive_and_no_more(
    client: httpx2.AsyncClient, app: App, ada: User, service: dict[str, str], clock: StandingClock
) -> None:
    first = await login(client)
    second = await successor(client, first["refreshToken"])
    session = (await browser(client)).json()["token"]
    key = await make_key(client, bearer(first["token"]))
    for token in ("x", "a.b.c", "kbr_é", session, key["key"], first["refreshToken"],
                  second["refreshToken"][:-1] + "é"):  # fmt: skip
        assert await introspected(client, service, token) == {"active": False}
    clock.advance(300_000)
    assert await introspected(client, service, first["token"]) == {"active": False}
    assert (await introspected(client, service, second["refreshToken"]))["active"]
    await people.disable(call_of(app), ADA)
    assert await introspected(client, service, second["refreshToken"]) == {"active": False}
