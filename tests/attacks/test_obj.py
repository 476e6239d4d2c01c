"""Other people's objects, attacked (rows A063 to A076).

There are no organisations, and a key never changes its owner: of A076 only an owner who is gone
remains.
"""

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations import people, upkeep
from keybearer.operations.keys import CreateKey
from tests.attacks.town import API, Town, is_problem
from tests.people import SECRET, StandingClock, call_of, log_in, make_key, person

NOBODYS = "0193b2f0-0000-7000-8000-000000000000"
VARIES = ("x-request-id", "content-length")
"""Headers that differ with every request."""


ABOUT_A_KEY = [
    ("DELETE", "/api-key/revoke", "keyId"),
    ("POST", "/api-key/delete", "keyId"),
    ("POST", "/api-key/update", "keyId"),
    ("POST", "/api-key/rotate", "keyId"),
    ("GET", "/api-key/get", "id"),
    ("GET", "/api-key/usage", "keyId"),
    ("GET", "/api-key/activity", "keyId"),
    ("GET", "/api-key/rotation", "keyId"),
    ("POST", "/api-key/rotation/finish", "keyId"),
    ("POST", "/api-key/rotation/extend", "keyId"),
    ("POST", "/api-key/rotation/cancel", "keyId"),
]
MORE: dict[str, dict[str, str | None]] = {
    "/api-key/update": {"name": "pwn"},
    "/api-key/rotation/extend": {"gracePeriod": None},
}
"""What some of them need beside the id."""


async def about(
    town: Town, endpoint: tuple[str, str, str], id: str, headers: dict[str, str]
) -> httpx2.Response:
    """The answer to a call about the key with this id."""
    method, path, field = endpoint
    if method == "GET":
        return await town.client.get(API + path, params={field: id}, headers=headers)
    json = {field: id, **MORE.get(path, {})}
    return await town.client.request(method, API + path, json=json, headers=headers)


async def record_of_k2(town: Town) -> object:
    """K2's record, as its owner sees it."""
    return (await town.get("/api-key/get", town.t2, id=town.k2["id"])).json()


@pytest.mark.parametrize("endpoint", ABOUT_A_KEY[:2])
async def test_a063_another_users_key_cannot_be_ended(
    town: Town, endpoint: tuple[str, str, str]
) -> None:
    before = await record_of_k2(town)
    answer = await about(town, endpoint, town.k2["id"], town.t1)
    assert is_problem(answer, 404, "KEY_NOT_FOUND")
    assert await record_of_k2(town) == before
    assert await town.works(town.k2["key"])


AT_ONCE: list[tuple[str, dict[str, object]]] = [
    ("/api-key/revoke-many", {"reason": "pwn"}),
    ("/api-key/update-many", {"enabled": False}),
    ("/api-key/update-many", {"enabled": True}),
]


@pytest.mark.parametrize(("path", "more"), AT_ONCE)
async def test_a063_many_keys_at_once_are_ones_own_too(
    town: Town, path: str, more: dict[str, object]
) -> None:
    before = await record_of_k2(town)
    asked = [town.k2["id"], NOBODYS, town.k2["id"].upper(), " " + town.k2["id"], "%", "x"]
    answer = await town.post(path, town.t1, keyIds=[*asked, town.k1["id"]], **more)
    assert answer.status_code == 200
    *others, own = answer.json()["results"]
    assert others == [{"keyId": id, "success": False, "code": "KEY_NOT_FOUND"} for id in asked]
    assert own == {"keyId": town.k1["id"], "success": True, "code": None}
    assert await record_of_k2(town) == before
    assert await town.works(town.k2["key"])
    told = [await town.events("key.revoked"), await town.events("key.updated")]
    assert {event.target_id for events in told for event in events} == {town.k1["id"]}


@pytest.mark.parametrize(("path", "more"), AT_ONCE)
async def test_a069_among_many_no_answer_tells_whose_or_whether(
    town: Town, path: str, more: dict[str, object]
) -> None:
    told = []
    for id in (town.k2["id"], NOBODYS):
        answer = await town.post(path, town.t1, keyIds=[id], **more)
        assert answer.status_code == 200
        told.append(answer.text.replace(id, ""))
    assert told[0] == told[1]


async def test_a064_another_users_key_cannot_be_changed(town: Town) -> None:
    before = await record_of_k2(town)
    for change in (
        {"name": "pwn"},
        {"enabled": False},
        {"expiresIn": None},
        {"expiresIn": 60},
        {"metadata": {"x": 1}},
        {"permissions": {"files": ["read"]}},
        {"ipAllow": ["192.0.2.1"]},
        {},
    ):
        answer = await town.post("/api-key/update", town.t1, keyId=town.k2["id"], **change)
        assert is_problem(answer, 404, "KEY_NOT_FOUND"), change
    answer = await town.post("/api-key/rotate", town.t1, keyId=town.k2["id"], gracePeriod=0)
    assert is_problem(answer, 404, "KEY_NOT_FOUND")
    assert await record_of_k2(town) == before
    assert await town.works(town.k2["key"])
    assert {event.owner_id for event in await town.events("key.updated")} == set()


@pytest.mark.parametrize("deed", ["finish", "extend", "cancel"])
async def test_a064_another_users_rotation_cannot_be_changed(town: Town, deed: str) -> None:
    rotated = await town.post("/api-key/rotate", town.t2, keyId=town.k2["id"], gracePeriod=60)
    seen = await town.get("/api-key/rotation", town.t2, keyId=town.k2["id"])
    path = f"/api-key/rotation/{deed}"
    answer = await about(town, ("POST", path, "keyId"), town.k2["id"], town.t1)
    assert is_problem(answer, 404, "KEY_NOT_FOUND")
    after = await town.get("/api-key/rotation", town.t2, keyId=town.k2["id"])
    assert after.json() == seen.json()
    assert await town.works(town.k2["key"])
    assert await town.works(rotated.json()["key"])
    assert await town.events("key.rotation_" + {"cancel": "cancelled"}.get(deed, f"{deed}ed")) == []


@pytest.mark.parametrize("endpoint", ABOUT_A_KEY)
async def test_a069_no_answer_tells_whose_or_whether(
    town: Town, clock: StandingClock, endpoint: tuple[str, str, str]
) -> None:
    deleted = await make_key(town.client, town.t1)
    await town.post("/api-key/delete", town.t1, keyId=deleted["id"])
    clock.advance(town.app.settings.key_retention + 1)
    assert await upkeep.forget_ended(town.app)
    headers = await log_in(town.client, "u1@example.com")
    bodies = []
    for id in (town.k2["id"], NOBODYS, deleted["id"], NOBODYS.upper(), "x", " " + town.k2["id"]):
        answer = await about(town, endpoint, id, headers)
        assert is_problem(answer, 404, "KEY_NOT_FOUND"), id
        told = {**answer.json(), "requestId": ""}
        same = {name: answer.headers[name] for name in sorted(answer.headers) if name not in VARIES}
        bodies.append((told, same))
    assert all(each == bodies[0] for each in bodies)


async def test_a066_another_users_key_cannot_be_looked_at(town: Town) -> None:
    for endpoint in ABOUT_A_KEY:
        if endpoint[0] == "GET":
            answer = await about(town, endpoint, town.k2["id"], town.t1)
            assert is_problem(answer, 404, "KEY_NOT_FOUND")
            assert "k2" not in answer.text


async def test_a066_another_users_days_are_as_those_of_no_key(town: Town) -> None:
    ids = [town.k1["id"], town.k2["id"], NOBODYS]
    told = await town.get("/api-key/daily-usage", town.t1, keyId=ids)
    assert list(told.json()["keys"]) == [town.k1["id"]]
    other = await town.get("/api-key/daily-usage", town.t1, keyId=town.k2["id"])
    nobodys = await town.get("/api-key/daily-usage", town.t1, keyId=NOBODYS)
    assert (other.status_code, other.json()) == (200, nobodys.json())


async def test_a066_another_users_trail_is_empty(town: Town) -> None:
    trail = (await town.get("/audit", town.t1, target=town.k2["id"])).json()
    assert (trail["events"], trail["total"]) == ([], 0)


async def test_a066_a_calendar_is_its_owners_alone(town: Town) -> None:
    """Nobody makes, ends or sees another's, and its address opens nothing else."""
    theirs = (await town.post("/calendar/create", town.t2)).json()["url"]
    ours = (await town.post("/calendar/create", town.t1)).json()["url"]
    assert "k2" in (await town.client.get(theirs)).text
    assert "k2" not in (await town.client.get(ours)).text
    for asked in ({"userId": town.u2}, {"owner": town.u2}, {"ownerId": town.u2}):
        for path in ("create", "revoke"):
            assert is_problem(await town.post(f"/calendar/{path}", town.t1, **asked), 400)
    assert is_problem(await town.get("/calendar", town.t1, userId=town.u2), 400)
    await town.post("/calendar/revoke", town.t1)
    assert (await town.client.get(theirs)).status_code == 200
    token = theirs.rpartition("/")[2].removesuffix(".ics")
    for headers in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}):
        assert is_problem(await town.get("/api-key/list", headers), 401)
        assert is_problem(await town.get("/calendar", headers), 401)
    for key in (town.key1, {"x-api-key": town.k2["key"]}):
        assert is_problem(await town.post("/calendar/create", key), 403)


async def test_a069_a_calendar_does_not_tell_why_it_is_gone(town: Town) -> None:
    revoked = (await town.post("/calendar/create", town.t1)).json()["url"]
    await town.post("/calendar/revoke", town.t1)
    disabled = (await town.post("/calendar/create", town.t2)).json()["url"]
    await people.disable(call_of(town.app), town.u2)
    never = revoked.replace(revoked[-20:-4], "0" * 16)
    bodies = []
    for url in (revoked, disabled, never, revoked.replace(".ics", "x.ics")):
        answer = await town.client.get(url)
        assert is_problem(answer, 404, "NOT_FOUND")
        told = {**answer.json(), "requestId": ""}
        same = {name: answer.headers[name] for name in sorted(answer.headers) if name not in VARIES}
        bodies.append((told, same))
    assert all(each == bodies[0] for each in bodies)


async def test_a066_another_users_event_cannot_be_disowned(town: Town) -> None:
    before = await record_of_k2(town)
    events = (await town.get("/audit", town.t2)).json()["events"]
    assert {event["event"] for event in events} >= {"session.opened", "key.created"}
    bodies = []
    for id in (*(event["id"] for event in events), NOBODYS, NOBODYS.upper(), "x", "%"):
        answer = await town.post("/audit/disown", town.t1, eventId=id)
        assert is_problem(answer, 404, "EVENT_NOT_FOUND"), id
        same = {name: answer.headers[name] for name in sorted(answer.headers) if name not in VARIES}
        bodies.append(({**answer.json(), "requestId": ""}, same))
    assert all(each == bodies[0] for each in bodies)
    assert await record_of_k2(town) == before
    assert await town.works(town.k2["key"])
    assert (await town.get("/list-sessions", town.t2)).status_code == 200
    assert await town.events("event.disowned") == []


async def test_a066_counts_and_policy_are_ones_own(town: Town) -> None:
    await town.create(name="one more")
    for headers, total in ((town.t1, 2), (town.t2, 1)):
        assert (await town.get("/api-key/summary", headers)).json()["total"] == total
        assert (await town.get("/api-key/policy", headers)).json()["liveKeys"] == total
    for path in ("/api-key/summary", "/api-key/policy"):
        answer = await town.get(path, town.t1, userId=town.u2)
        assert is_problem(answer, 400, "UNKNOWN_FIELD")


async def test_a067_a_list_is_ones_own_whatever_is_asked(town: Town) -> None:
    for organization in ("x", town.u2, f"organization:{town.u2}"):
        answer = await town.get("/api-key/list", town.t1, organizationId=organization)
        assert is_problem(answer, 403, "USER_NOT_MEMBER_OF_ORGANIZATION")
    for query in (
        {"userId": town.u2},
        {"filter": "OR 1=1"},
        {"sortBy": "key"},
        {"sortBy": "owner_id; DROP TABLE api_keys"},
        {"status": "all"},
        {"limit": "-1"},
        {"limit": "101"},
        {"limit": "1e9"},
        {"offset": "-1"},
        {"sortDirection": "sideways"},
        {"expiringWithin": "0"},
        {"expiringWithin": "1e9"},
        {"expiringWithin": "9007199254740993"},
        {"unusedFor": "-1"},
        {"unusedFor": "315360001"},
        {"permission": "files:%"},
        {"permission": "files:read') OR ('1'='1"},
        {"permission": "x" * 130},
    ):
        assert is_problem(await town.get("/api-key/list", town.t1, **query), 400), query


async def test_a067_search_is_text_not_a_pattern(town: Town) -> None:
    for text in ("%", "_", "' OR 1=1 --", "\\"):
        found = (await town.get("/api-key/list", town.t1, search=text)).json()
        assert found["total"] == (1 if text == "_" else 0)  # every key's start has a `_`


async def test_a070_a_malformed_id_touches_nothing(town: Town) -> None:
    odd: list[object] = [1, ["a", "b"], {"$ne": None}, None, True, "", "x" * 65]
    for path in {path for method, path, _ in ABOUT_A_KEY if method == "POST"}:
        for value in odd:
            answer = await town.post(path, town.t1, keyId=value, **MORE.get(path, {}))
            assert is_problem(answer, 400), (path, value)
    assert await town.works(town.k1["key"])
    assert await town.works(town.k2["key"])


async def test_a070_malformed_ids_among_many_touch_nothing(town: Town) -> None:
    key = town.k1["id"]
    odd: list[object] = [
        None, key, {}, [], [None], [1], [[key]], [{"$ne": None}], [""], ["x" * 65], [key, key],
        [f"k{n}" for n in range(101)],
    ]  # fmt: skip
    for path, more in AT_ONCE:
        for value in odd:
            answer = await town.post(path, town.t1, keyIds=value, **more)
            assert is_problem(answer, 400), (path, value)
    for enabled in (None, "false", 0, [False]):
        answer = await town.post("/api-key/update-many", town.t1, keyIds=[key], enabled=enabled)
        assert is_problem(answer, 400), enabled
    for value in (None, 1, [key], {}, "", "x" * 65):
        assert is_problem(await town.post("/audit/disown", town.t1, eventId=value), 400), value
    assert await town.works(town.k1["key"])


async def test_a071_an_empty_body_ends_nothing(town: Town) -> None:
    for answer in (
        await town.client.request("DELETE", f"{API}/api-key/revoke", headers=town.t1),
        await town.post("/api-key/delete", town.t1),
        await town.post("/api-key/revoke-many", town.t1),
        await town.post("/api-key/update-many", town.t1),
        await town.post("/audit/disown", town.t1),
    ):
        assert is_problem(answer, 400, "VALIDATION_ERROR")
    assert await town.works(town.k1["key"])


async def test_a073_there_are_no_admin_routes_for_users(town: Town) -> None:
    for path in ("/admin", "/admin/users", "/admin/list-users", "/admin/impersonate-user"):
        assert is_problem(await town.get(path, town.t1), 404, "NOT_FOUND")
    for path in ("/api-key/verify", "/api-key/verify-batch"):
        answer = await town.post(path, town.t1, key="x", keys=[])
        assert is_problem(answer, 403, "SERVICE_TOKEN_REQUIRED")


async def test_a074_what_an_owner_lost_the_keys_lose_too(town: Town) -> None:
    made = (await town.create(permissions={"files": ["read"]})).json()
    headers = {"x-api-key": made["key"]}
    assert await town.auth.api.get_session(headers, permissions="files:read")

    held: frozenset[str] = frozenset()

    async def holds(_owner: str, _role: str) -> frozenset[str]:
        return held

    # The host takes the permission away, and says so.
    grants = town.app.verifier._finder._grants
    grants._holds = holds  # type: ignore[attr-defined]
    await town.auth.api.owner_changed(town.u1)
    assert await town.auth.api.get_session(headers, permissions="files:read") is None


async def test_a076_the_keys_of_an_owner_who_is_gone_open_nothing(town: Town) -> None:
    other = await make_key(town.client, town.t1, name="other")
    assert await town.works(town.k1["key"])  # and so it is cached
    await people.delete(call_of(town.app), "u1@example.com")
    for made in (town.k1, other):
        assert not await town.works(made["key"])
        for endpoint in ABOUT_A_KEY:
            answer = await about(town, endpoint, made["id"], town.t2)
            assert is_problem(answer, 404, "KEY_NOT_FOUND")
    assert is_problem(await town.get("/api-key/list", town.t1), 401)
    again = await person(town.app, "u1@example.com")  # the same address is somebody else
    assert again.id != town.u1
    listed = await town.get("/api-key/list", await log_in(town.client, "u1@example.com"))
    assert listed.json()["total"] == 0
    assert not await town.works(town.k1["key"])
    assert await town.works(town.k2["key"])


async def test_a076_a_host_that_ends_an_owner_ends_the_keys(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, accounts=False, clock=clock)
    async with auth.lifespan():
        leaver, stays = [
            await auth.api.create_api_key(CreateKey(), owner=owner) for owner in ("ann", "bob")
        ]
        for made in (leaver, stays):
            assert await auth.api.get_session({"x-api-key": made.key or ""})
        assert await auth.api.end_owner("ann") == 1
        assert await auth.api.get_session({"x-api-key": leaver.key or ""}) is None
        assert await auth.api.get_session({"x-api-key": stays.key or ""})
