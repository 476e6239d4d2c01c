"""The browser's login, attacked (row A219).

There is no way to change the address, and to delete the account takes the password itself.
"""

from typing import Any

import httpx2
import pytest

from keybearer.settings import Settings
from tests.attacks.town import API, Town, is_problem
from tests.people import PASSWORD, StandingClock

STEP_UP_MS = Settings().step_up_after or 0
STALE = "SESSION_NOT_FRESH"
ORIGIN = {"origin": "http://127.0.0.1:8000"}
WIDENING: list[dict[str, Any]] = [
    {"permissions": {"files": ["read", "write"]}},
    {"ipAllow": []},
    {"expiresIn": None},
    {"expiresAt": "2027-06-01T00:00:00Z"},
    {"enabled": True},
]


async def sign_in(town: Town) -> tuple[dict[str, str], str]:
    """A browser's cookie, as somebody copied it, and the session token in it."""
    answer = await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD)
    town.client.cookies.clear()
    return {"cookie": answer.headers["set-cookie"].split(";")[0], **ORIGIN}, answer.json()["token"]


async def made_and_widened(town: Town, headers: dict[str, str]) -> list[httpx2.Response]:
    """Everything that gives whoever does it a key, or a better one."""
    id = town.k1["id"]
    return [
        await town.post("/api-key/create", headers, name="stolen", expiresIn=None),
        await town.post("/api-key/rotate", headers, keyId=id),
        # An old secret, which somebody may have found, would live on.
        await town.post("/api-key/rotation/extend", headers, keyId=id, gracePeriod=None),
        await town.post("/api-key/rotation/cancel", headers, keyId=id),
        await town.post("/api-key/update-many", headers, keyIds=[id], enabled=True),
        *[await town.post("/api-key/update", headers, keyId=id, **each) for each in WIDENING],
    ]


async def copies(town: Town) -> dict[str, dict[str, str]]:
    """One browser's login, under each name that it goes by."""
    cookie, token = await sign_in(town)
    jwt = (await town.get("/token", cookie)).json()["token"]
    return {
        "cookie": cookie,
        "session token": {"authorization": f"Bearer {token}"},
        "its access token": {"authorization": f"Bearer {jwt}"},
    }


async def test_a219_an_old_login_makes_and_widens_no_key(town: Town, clock: StandingClock) -> None:
    await town.post("/api-key/update", town.t1, keyId=town.k1["id"], name="k1", enabled=True)
    await town.post("/api-key/rotate", town.t1, keyId=town.k1["id"])
    by_name = await copies(town)
    clock.advance(STEP_UP_MS + 1)
    by_name["its access token"] = {
        # As long as the login lives there is a new one to be had.
        "authorization": f"Bearer {(await town.get('/token', by_name['cookie'])).json()['token']}"
    }
    before = (await town.get("/api-key/get", by_name["cookie"], id=town.k1["id"])).json()
    rotation = (await town.get("/api-key/rotation", by_name["cookie"], keyId=town.k1["id"])).json()
    assert rotation["rotating"]
    count = await town.count(by_name["cookie"])
    for name, headers in by_name.items():
        for answer in await made_and_widened(town, headers):
            assert is_problem(answer, 403, STALE), (name, answer.request.url)
            assert "password" in answer.json()["message"]
    after = (await town.get("/api-key/get", by_name["cookie"], id=town.k1["id"])).json()
    assert (after, await town.count(by_name["cookie"])) == (before, count)
    seen = await town.get("/api-key/rotation", by_name["cookie"], keyId=town.k1["id"])
    assert seen.json() == rotation
    assert await town.works(town.k1["key"])


async def test_a219_the_password_opens_it_again_for_this_login_alone(
    town: Town, clock: StandingClock
) -> None:
    (mine, token), (other, _) = await sign_in(town), await sign_in(town)
    copied = [dict(mine), {"authorization": f"Bearer {token}"}]
    clock.advance(STEP_UP_MS + 1)
    wrong = await town.post("/verify-password", mine, password="not the password of u1")
    assert is_problem(wrong, 400, "INVALID_PASSWORD")
    assert is_problem(await town.post("/api-key/create", mine), 403, STALE)
    answer = await town.post("/verify-password", mine, password=PASSWORD)
    assert answer.status_code == 200
    town.client.cookies.clear()
    fresh = {"cookie": answer.headers["set-cookie"].split(";")[0], **ORIGIN}
    # Whoever had a copy of the cookie is out, though the login goes on (R-SES-02).
    for old in copied:
        assert is_problem(await town.get("/list-sessions", old), 401)
    assert is_problem(await town.post("/api-key/create", other), 403, STALE)
    for answer in await made_and_widened(town, fresh):
        assert answer.status_code == 200, answer.text
    clock.advance(STEP_UP_MS + 1)
    assert is_problem(await town.post("/api-key/create", fresh), 403, STALE)


async def test_a219_the_password_is_not_asked_of_another_site(
    town: Town, clock: StandingClock
) -> None:
    mine, _ = await sign_in(town)
    for origin in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        headers = {"cookie": mine["cookie"], **origin}
        answer = await town.post("/verify-password", headers, password=PASSWORD)
        assert is_problem(answer, 403, "INVALID_ORIGIN")
        answer = await town.post("/audit/disown", headers, eventId="x")
        assert is_problem(answer, 403, "INVALID_ORIGIN")


async def test_a219_who_has_a_key_confirms_nothing(town: Town) -> None:
    for headers in (town.key1, {"authorization": f"Bearer {town.k1['key']}"}):
        for path, body in {
            "/verify-password": {"password": PASSWORD},
            "/audit/disown": {"eventId": "x"},
        }.items():
            assert is_problem(await town.post(path, headers, **body), 403, "SESSION_REQUIRED")


@pytest.mark.parametrize("old", [False, True])
async def test_a219_the_account_goes_with_its_password_alone(
    town: Town, clock: StandingClock, old: bool
) -> None:
    mine, _ = await sign_in(town)
    clock.advance(STEP_UP_MS + 1 if old else 0)
    for body in ({}, {"password": ""}, {"password": "not the password of u1"}):
        answer = await town.client.post(f"{API}/delete-user", json=body, headers=mine)
        assert is_problem(answer, 400)
    assert await town.works(town.k1["key"])
    assert (await town.post("/delete-user", mine, password=PASSWORD)).status_code == 200


async def test_a219_what_protects_is_not_asked_for_a_password(
    town: Town, clock: StandingClock
) -> None:
    mine, _ = await sign_in(town)
    id = town.k1["id"]
    await town.post("/api-key/rotate", town.t1, keyId=id)
    clock.advance(STEP_UP_MS + 1)
    for path, body in (
        ("/api-key/rotation/finish", {"keyId": id}),
        ("/api-key/update", {"keyId": id, "enabled": False}),
        ("/api-key/update-many", {"keyIds": [id], "enabled": False}),
        ("/api-key/revoke-many", {"keyIds": [id]}),
        ("/api-key/delete", {"keyId": id}),
        ("/revoke-other-sessions", {}),
    ):
        answer = await town.post(path, mine, **body)
        assert answer.status_code == 200, answer.text
    assert not await town.works(town.k1["key"])
