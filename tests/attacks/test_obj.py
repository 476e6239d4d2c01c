"""Other people's objects, attacked (rows A063 to A074)."""

from tests.attacks.town import API, Town, is_problem

NOBODYS = "0193b2f0-0000-7000-8000-000000000000"


async def _same_as_unknown(town: Town, method: str, path: str, id: str, field: str) -> None:
    """An answer about somebody else's object equals the one about no object at all."""
    bodies = []
    for each in (id, NOBODYS, "0193B2F0-0000-7000-8000-000000000000", "x", " " + id):
        if method == "GET":
            answer = await town.client.get(API + path, params={field: each}, headers=town.t1)
        else:
            json = {field: each} | ({"name": "pwn"} if path.endswith("update") else {})
            answer = await town.client.request(method, API + path, json=json, headers=town.t1)
        assert is_problem(answer, 404, "KEY_NOT_FOUND")
        bodies.append({**answer.json(), "requestId": ""})
    assert all(body == bodies[0] for body in bodies)


async def test_a063_a064_a066_a069_another_users_key_does_not_exist(town: Town) -> None:
    for method, path, field in (
        ("DELETE", "/api-key/revoke", "keyId"),
        ("POST", "/api-key/delete", "keyId"),
        ("POST", "/api-key/update", "keyId"),
        ("POST", "/api-key/rotate", "keyId"),
        ("GET", "/api-key/get", "id"),
        ("GET", "/api-key/usage", "keyId"),
    ):
        await _same_as_unknown(town, method, path, town.k2["id"], field)
    assert await town.works(town.k2["key"])
    shown = (await town.get("/api-key/get", town.t2, id=town.k2["id"])).json()
    assert (shown["name"], shown["updatedAt"]) == ("k2", town.k2["updatedAt"])


async def test_a066_another_users_trail_is_empty(town: Town) -> None:
    trail = (await town.get("/audit", town.t1, target=town.k2["id"])).json()
    assert (trail["events"], trail["total"]) == ([], 0)


async def test_a067_a_list_is_ones_own_whatever_is_asked(town: Town) -> None:
    for query in (
        {"userId": town.u2},
        {"organizationId": "x"},
        {"filter": "OR 1=1"},
        {"sortBy": "key"},
        {"sortBy": "owner_id; DROP TABLE api_keys"},
        {"status": "all"},
        {"limit": "-1"},
        {"limit": "101"},
        {"limit": "1e9"},
        {"offset": "-1"},
        {"sortDirection": "sideways"},
    ):
        assert is_problem(await town.get("/api-key/list", town.t1, **query), 400), query


async def test_a067_search_is_text_not_a_pattern(town: Town) -> None:
    for text in ("%", "_", "' OR 1=1 --", "\\"):
        found = (await town.get("/api-key/list", town.t1, search=text)).json()
        assert found["total"] == (1 if text == "_" else 0)  # every key's start has a `_`


async def test_a070_a071_a_malformed_id_touches_nothing(town: Town) -> None:
    odd: list[object] = [1, ["a", "b"], {"$ne": None}, None, True, "", "x" * 65]
    for path in ("/api-key/update", "/api-key/delete", "/api-key/rotate"):
        for value in odd:
            assert is_problem(await town.post(path, town.t1, keyId=value), 400), (path, value)
    assert await town.works(town.k1["key"])
    assert await town.works(town.k2["key"])


async def test_a071_an_empty_body_ends_nothing(town: Town) -> None:
    for answer in (
        await town.client.request("DELETE", f"{API}/api-key/revoke", headers=town.t1),
        await town.post("/api-key/delete", town.t1),
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
    grants = town.app.verifier._grants
    grants._holds = holds  # type: ignore[attr-defined]
    await town.auth.api.owner_changed(town.u1)
    assert await town.auth.api.get_session(headers, permissions="files:read") is None
