"""Creating keys, attacked: authentication, ownership, mass assignment (rows A002 to A026)."""

import asyncio
import itertools
import json
from typing import Any

import httpx2

from keybearer import Auth
from keybearer.web.mount import no_app
from tests.attacks.town import API, Town, is_problem
from tests.people import PASSWORD, SECRET, StandingClock, person


async def test_a002_a_body_with_a_user_id_authenticates_nobody(town: Town) -> None:
    answer = await town.post("/api-key/create", name="x", userId=town.u2)
    assert is_problem(answer, 401, "UNAUTHORIZED")
    assert await town.count(town.t2) == 1


async def test_a003_a_stranger_learns_no_field_names(town: Town) -> None:
    plain = await town.post("/api-key/create", name="x")
    greedy = await town.post(
        "/api-key/create", rateLimitMax=999_999, permissions={"admin": ["*"]}, remaining=1e9
    )
    for answer in (plain, greedy):
        assert is_problem(answer, 401, "UNAUTHORIZED")
    assert _without_request_id(plain) == _without_request_id(greedy)


def _without_request_id(answer: httpx2.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "requestId"}


async def test_a005_ownership_is_not_for_the_client_to_say(town: Town) -> None:
    for field in (
        *("user_id", "ownerId", "owner", "referenceId", "createdBy", "tenantId"),
        *("id", "start", "status", "key"),
    ):
        answer = await town.create(name="x", **{field: town.u2})
        assert is_problem(answer, 400, "UNKNOWN_FIELD"), field
    for field, code in (
        ("organizationId", "VALIDATION_ERROR"),
        ("configId", "UNKNOWN_CONFIGURATION"),
    ):
        assert is_problem(await town.create(name="x", **{field: town.u2}), 400, code)
    assert await town.count() == 1


async def test_a005_nor_is_the_user(town: Town) -> None:
    answer = await town.create(name="x", userId=town.u2)
    assert is_problem(answer, 400, "SERVER_ONLY_PROPERTY")


async def test_a007_fields_beside_the_body_are_not_read(town: Town) -> None:
    answer = await town.client.post(
        f"{API}/api-key/create?remaining=1&userId={town.u2}", json={"name": "x"}, headers=town.t1
    )
    assert is_problem(answer, 400)
    form = await town.client.post(f"{API}/api-key/create", data={"name": "x"}, headers=town.t1)
    assert is_problem(form, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert await town.count() == 1


async def test_a008_null_is_no_way_round_the_guard(town: Town) -> None:
    fields = [
        "remaining",
        "refillAmount",
        "refillInterval",
        "rateLimitMax",
        "rateLimitEnabled",
        "userId",
    ]
    for field, value in itertools.product(fields, (None, "", False)):
        assert is_problem(await town.create(**{field: value}), 400), (field, value)
    assert await town.count() == 1


async def test_a009_a_key_never_has_more_than_its_owner(town: Town) -> None:
    answer = await town.create(permissions={"users": ["write"]})
    assert is_problem(answer, 403, "SCOPE_NOT_HELD")
    for wild in ({"admin": ["*"]}, {"*": ["*"]}):
        assert is_problem(await town.create(permissions=wild), 400)
    assert await town.count() == 1


async def test_a010_an_unknown_scope_is_refused(town: Town) -> None:
    answer = await town.create(permissions={"totally-bogus": ["x"]})
    assert is_problem(answer, 400, "UNKNOWN_SCOPE")


async def test_a013_a_made_up_cookie_beside_a_key_is_no_session(town: Town) -> None:
    headers = {**town.key1, "cookie": f"{town.app.cookie}=made.up"}
    assert is_problem(await town.post("/api-key/create", headers, name="x"), 403)
    assert is_problem(await town.get("/list-sessions", headers), 403, "SESSION_REQUIRED")


async def test_a014_without_a_verified_address_there_is_no_token(town: Town) -> None:
    await person(town.app, "new@example.com", verified=False)
    answer = await town.post("/login", email="new@example.com", password=PASSWORD)
    assert is_problem(answer, 403, "EMAIL_NOT_VERIFIED")


async def test_a016_a_session_that_ended_a_moment_ago_makes_no_key(town: Town) -> None:
    signed_in = await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD)
    bearer = {"authorization": f"Bearer {signed_in.json()['token']}"}
    assert (await town.post("/api-key/create", bearer, name="a")).status_code == 200
    await town.post("/sign-out", bearer)
    assert is_problem(await town.post("/api-key/create", bearer, name="b"), 401, "SESSION_ENDED")
    assert await town.count() == 2


async def test_a017_with_management_off_there_is_nothing_to_manage(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, clock=clock)
    async with auth.lifespan():
        made = await auth.api.create_api_key(_create(), owner=await _owner(auth))
        transport = httpx2.ASGITransport(app=auth.mount(no_app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for method, path in (
                ("POST", "create"),
                ("GET", "list"),
                ("GET", "get?id=x"),
                ("POST", "update"),
                ("DELETE", "revoke?keyId=x"),
                ("POST", "delete"),
                ("POST", "rotate"),
                ("GET", "usage?keyId=x"),
            ):
                answer = await client.request(method, f"{API}/api-key/{path}")
                assert is_problem(answer, 404, "NOT_FOUND"), path
            ended = await client.post(
                f"{API}/api-key/revoke-self", headers={"x-api-key": made.key or ""}
            )
        assert ended.status_code == 200
        assert await auth.api.get_session({"x-api-key": made.key or ""}) is None


def _create() -> Any:
    from keybearer.operations.keys import CreateKey

    return CreateKey(name="x")


async def _owner(auth: Auth) -> str:
    return (await person(await auth.running())).id


async def test_a019_a_long_name_is_refused(town: Town) -> None:
    for length in (65, 10_000, 60_000):
        assert is_problem(await town.create(name="x" * length), 400, "INVALID_NAME_LENGTH")


async def test_a019_a_body_over_64_kb_is_refused(town: Town) -> None:
    assert is_problem(await town.create(name="x" * 10_000_000), 413, "BODY_TOO_LARGE")
    assert await town.count() == 1


async def test_a020_control_characters_and_half_pairs_are_refused(town: Town) -> None:
    for raw in ("a\\u0000b", "\\ud800", "a\\u0007", "\\u007f", "\\u0085"):
        assert is_problem(await _create_raw(town, f'{{"name":"{raw}"}}'), 400), raw
    assert await town.count() == 1


async def test_a020_other_text_is_kept_to_the_byte(town: Town) -> None:
    for name in ("\u202eevil", "a\u200bb", "🔑" * 64, "e\u0301", "é", "<img>"):
        assert (await town.create(name=name)).json()["name"] == name


async def test_a021_an_odd_lifetime_makes_no_key(town: Town) -> None:
    for raw in (
        *("0", "-1", "1e308", "9007199254740993", '"60"', "true", "NaN", "0.5", "[]", "1e400"),
        "9" * 5000,
    ):
        assert is_problem(await _create_raw(town, f'{{"expiresIn":{raw}}}'), 400), raw
    assert await town.count() == 1


async def _create_raw(town: Town, body: str) -> httpx2.Response:
    return await town.client.post(
        f"{API}/api-key/create",
        content=body,
        headers={**town.t1, "content-type": "application/json"},
    )


async def test_a021_null_means_never(town: Town) -> None:
    assert (await town.create(expiresIn=None)).json()["expiresAt"] is None


async def test_a026_a_retry_makes_one_key_and_shows_it_once(town: Town) -> None:
    headers = {**town.t1, "idempotency-key": "try-1"}
    tries = await asyncio.gather(
        *(town.post("/api-key/create", headers, name="x") for _ in range(10))
    )
    assert {answer.status_code for answer in tries} == {200}
    assert len({answer.json()["id"] for answer in tries}) == 1
    assert sum(answer.json()["key"] is not None for answer in tries) == 1
    assert await town.count() == 2
    other = await town.post("/api-key/create", {**town.t2, "idempotency-key": "try-1"}, name="x")
    assert other.json()["key"] is not None


async def test_an_odd_idempotency_key_is_refused(town: Town) -> None:
    for odd in ("", "x" * 256):
        headers = {**town.t1, "idempotency-key": odd}
        assert is_problem(await town.post("/api-key/create", headers), 400, "VALIDATION_ERROR")


async def test_every_new_key_is_told_to_nobody_but_its_maker(town: Town) -> None:
    made = (await town.create(name="secret")).json()
    answers = [
        await town.get("/api-key/list", town.t1),
        await town.get("/api-key/get", town.t1, id=made["id"]),
        await town.get("/api-key/usage", town.t1, keyId=made["id"]),
        await town.get("/audit", town.t1),
        await town.post("/api-key/update", town.t1, keyId=made["id"], name="n"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert made["key"] not in answer.text
        assert made["key"][7:] not in json.dumps(answer.json())
