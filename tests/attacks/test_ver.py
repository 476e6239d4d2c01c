"""Verify, forward-auth and who may call what, attacked (rows A244 to A265, P08)."""

import base64
import itertools
import json
from typing import Any, Literal

import httpx2
import pytest

from keybearer.operations import service_tokens
from keybearer.operations.declaration import Access, Operation
from keybearer.operations.keys import CreateKey
from keybearer.web.api import routes
from keybearer.web.extras import ahead, extra_routes
from keybearer.web.mount import no_app
from tests.attacks.guarded import Answer, RawHeaders, api_key, ask, bearer, guarded_app
from tests.attacks.town import API, Town, is_problem
from tests.people import PASSWORD, StandingClock, call_of

Headers = dict[str, str]
AS_BEARER_AND_HEADER = ("authorization", "x-api-key")
IDENTITY = ("x-auth-subject", "x-auth-key-id", "x-auth-permissions")


@pytest.fixture
async def service(town: Town) -> Headers:
    _, secret = await service_tokens.create(call_of(town.app), "app")
    return {"authorization": f"Bearer {secret.reveal()}"}


async def make(town: Town, **asked: object) -> dict[str, Any]:
    """A key of U1 with what only the server may set."""
    made = await town.auth.api.create_api_key(CreateKey(user_id=town.u1, **asked))  # type: ignore[arg-type]
    return {"id": made.id, "key": made.key}


async def state_of(town: Town, key: dict[str, Any]) -> tuple[int, int | None]:
    """How often a key was used, and what its quota has left."""
    shown = (await town.get("/api-key/get", town.t1, id=key["id"])).json()
    return shown["requestCount"], shown["remaining"]


async def cookie(town: Town) -> str:
    answer = await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD)
    town.client.cookies.clear()
    return str(answer.headers["set-cookie"].split(";")[0])


# --- verify -----------------------------------------------------------------------------------


async def test_a244_verify_is_no_oracle_for_strangers(town: Town) -> None:
    key = await make(town, remaining=5)
    callers: list[Headers] = [
        {},
        {"authorization": "Bearer kbs_" + "0" * 49},
        {"x-api-key": key["key"]},
        {"authorization": f"Bearer {key['key']}"},
        town.t1,
        {"cookie": await cookie(town), "origin": "http://127.0.0.1:8000"},
    ]
    for headers, path in itertools.product(callers, ("/api-key/verify", "/api-key/verify-batch")):
        bodies = [{"key": key["key"]}, {"key": "kb_unknown"}, {"keys": [{"key": key["key"]}]}]
        answers = [await town.post(path, headers, **body) for body in bodies]
        assert {answer.status_code for answer in answers} in ({401}, {403}), headers
        assert len({answer.json()["code"] for answer in answers}) == 1
    assert await state_of(town, key) == (0, 5)


async def test_a244_a_revoked_service_token_verifies_nothing(town: Town, service: Headers) -> None:
    assert (await town.post("/api-key/verify", service, key=town.k1["key"])).status_code == 200
    (token,) = await service_tokens.listing(call_of(town.app))
    await service_tokens.revoke(call_of(town.app), token.id)
    assert is_problem(await town.post("/api-key/verify", service, key=town.k1["key"]), 401)


async def test_a245_the_reason_is_for_whoever_has_the_whole_secret(
    town: Town, service: Headers, clock: StandingClock
) -> None:
    asked_for: dict[str, dict[str, Any]] = {
        "KEY_REVOKED": {},
        "KEY_DISABLED": {},
        "KEY_EXPIRED": {"expires_in": 1},
        "INSUFFICIENT_SCOPE": {},
        "IP_NOT_ALLOWED": {"ip_allow": ["192.0.2.0/24"]},
        "USAGE_EXCEEDED": {"remaining": 0},
        "RATE_LIMITED": {"rate_limit_max": 0, "rate_limit_time_window": 60_000},
    }
    made = {name: await make(town, **asked) for name, asked in asked_for.items()}
    await town.post("/api-key/delete", town.t1, keyId=made["KEY_REVOKED"]["id"])
    await town.post("/api-key/update", town.t1, keyId=made["KEY_DISABLED"]["id"], enabled=False)
    clock.advance(2_000)
    for code, key in made.items():
        asked: dict[str, Any] = {"key": key["key"], "ip": "203.0.113.9"}
        if code == "INSUFFICIENT_SCOPE":
            asked["permissions"] = {"deploy": ["run"]}
        told = (await town.post("/api-key/verify", service, **asked)).json()
        assert (told["valid"], told["error"]["code"], told["key"]) == (False, code, None)
        # The same key with one letter changed, its beginning and its checksum right or wrong.
        near = key["key"][:-8] + ("A" if key["key"][-8] != "A" else "B") + key["key"][-7:]
        told = (await town.post("/api-key/verify", service, **{**asked, "key": near})).json()
        assert (told["error"]["code"], told["key"]) == ("INVALID_API_KEY", None)


async def test_a246_the_answer_has_one_shape_and_no_secret(town: Town, service: Headers) -> None:
    for key in (town.k1["key"], town.k2["key"], "kb_unknown", "x"):
        answer = await town.post("/api-key/verify", service, key=key)
        told = answer.json()
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert set(told) == {"valid", "error", "key"}
        assert key == "x" or key not in answer.text
        for secret in (town.k1["key"][7:], town.k2["key"][7:], "digest", "hash", "example.com"):
            assert secret not in answer.text
        owner = town.u1 if key == town.k1["key"] else town.u2
        assert told["key"] is None or told["key"]["referenceId"] == owner


# Of a key that may read files: True, False for 403, None for 400.
NEEDS: list[tuple[object, bool | None]] = [
    (None, True),
    ({}, True),  # nothing is needed: documented
    ({"files": ["read"]}, True),
    ({"files": ["read", "read"]}, True),
    ({"files": ["write"]}, False),
    ({"files": ["read", "write"]}, False),
    ({"files": ["readx"]}, False),
    ({"files": ["rea"]}, False),
    ({"file": ["read"]}, False),
    ({"filesx": ["read"]}, False),
    ({"files": ["read"], "deploy": ["run"]}, False),
    ({"unknown": ["read"]}, False),
    ({"files": ["*"]}, None),
    ({"*": ["*"]}, None),
    ({"Files": ["read"]}, None),
    ({"files": ["READ"]}, None),
    ({"files": ["read:*"]}, None),
    ({"files": [""]}, None),
    ({"files": []}, None),
    ({"": ["read"]}, None),
    ({"files": "read"}, None),
    (["files:read"], None),
    ("files:read", None),
]


async def test_a247_permissions_are_exact_sets(town: Town, service: Headers) -> None:
    key = await make(town, permissions={"files": ["read"]}, remaining=100)
    for needs, valid in NEEDS:
        answer = await town.post("/api-key/verify", service, key=key["key"], permissions=needs)
        if valid is None:
            assert is_problem(answer, 400), needs
        else:
            told = answer.json()
            assert told["valid"] is valid, needs
            assert told["error"] is None or told["error"]["code"] == "INSUFFICIENT_SCOPE"
    passed = sum(valid is True for _, valid in NEEDS)
    assert await state_of(town, key) == (passed, 100 - passed)


async def test_a248_a_key_is_none_of_another_config(town: Town, service: Headers) -> None:
    for config, valid in (("default", True), ("other", False), ("public", False), (None, True)):
        answer = await town.post("/api-key/verify", service, key=town.k1["key"], configId=config)
        assert answer.json()["valid"] is valid, config


async def test_a249_what_is_no_key_is_400(town: Town, service: Headers) -> None:
    key = town.k1["key"]
    wrong: list[Any] = ["", None, [], [key], {}, {"key": key}, {"$ne": ""}, 0, True, "k" * 9_000]
    for value in wrong:
        assert is_problem(await town.post("/api-key/verify", service, key=value), 400), value
        batch = await town.post("/api-key/verify-batch", service, keys=[{"key": value}])
        assert is_problem(batch, 400), value
    for body in ([], [key], "x", None, {"keys": key}, {"Key": key}, {"key": key, "cost": -1}):
        answer = await town.client.post(f"{API}/api-key/verify", json=body, headers=service)
        assert is_problem(answer, 400), body
    assert is_problem(await town.post("/api-key/verify", service), 400)
    huge = b'{"key":"' + b"k" * 10_000_000 + b'"}'
    json_type = {**service, "content-type": "application/json"}
    answer = await town.client.post(f"{API}/api-key/verify", content=huge, headers=json_type)
    assert is_problem(answer, 413, "BODY_TOO_LARGE")


async def test_a265_a_batch_has_a_limit_and_bad_items_sink_no_others(
    town: Town, service: Headers
) -> None:
    key = await make(town, remaining=10)
    good = {"key": key["key"]}
    for keys in ([], [good] * 101):
        assert is_problem(await town.post("/api-key/verify-batch", service, keys=keys), 400)
    huge = {"keys": [{"key": "k"}] * 10_001}
    assert (await town.post("/api-key/verify-batch", service, **huge)).status_code == 413
    assert await state_of(town, key) == (0, 10)
    items = [
        good,
        {"key": "kb_wrong"},
        {"key": "😀" * 100},
        good | {"permissions": {"files": ["*"]}},
        good | {"ip": "not an address"},
        good,
    ]
    answer = await town.post("/api-key/verify-batch", service, keys=items)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [each["valid"] for each in results] == [True, False, False, False, False, True]
    codes = [each["error"] and each["error"]["code"] for each in results]
    wrong = ["INVALID_API_KEY", "INVALID_API_KEY", "INVALID_PERMISSIONS", "VALIDATION_ERROR"]
    assert codes == [None, *wrong, None]
    assert await state_of(town, key) == (2, 8)


# --- forward-auth -----------------------------------------------------------------------------


async def test_a252_hop_by_hop_names_take_no_identity_away(town: Town) -> None:
    strip = {"connection": "close, X-Auth-Subject, X-Auth-Key-Id, X-Forwarded-For"}
    fake = dict.fromkeys(IDENTITY, "admin")
    answer = await town.get("/forward", {**town.key1, **strip, **fake})
    assert answer.status_code == 200
    assert answer.headers.get_list("x-auth-subject") == [town.u1]
    assert answer.headers.get_list("x-auth-key-id") == [town.k1["id"]]
    assert "connection" not in answer.headers


async def test_a256_a_wrong_cookie_is_nobody(town: Town) -> None:
    good = await cookie(town)
    name, _, value = good.partition("=")
    assert (await town.get("/forward", {"cookie": good})).status_code == 200
    for wrong in (
        f"{name}=",
        f"{name}=x",
        f"{name}=x.y",
        f"{name}={'x' * 20_000}",
        f"{good}; {good}",
        f"{name}=x; {good}",
        f"{good}x",
        f"{name}={value[:-6]}",
        f"{name}={value.swapcase()}",
        f"{name}=%00%ff%zz",
        f"{name}={base64.b64encode(value.encode()).decode()}",
    ):
        answer = await town.get("/forward", {"cookie": wrong})
        assert is_problem(answer, 401), wrong
        assert not set(IDENTITY) & set(answer.headers), wrong


async def test_a257_nothing_of_the_clients_request_line_opens_the_door(town: Town) -> None:
    for name, path in itertools.product(
        (
            "x-forwarded-uri",
            "x-original-url",
            "x-original-uri",
            "x-rewrite-url",
            "x-forwarded-path",
        ),
        ("/api/private?x=/public/health", "/api/auth/health/live", "/api/auth/ok", "/"),
    ):
        answer = await town.get("/forward", {name: path, "x-forwarded-method": "OPTIONS"})
        assert is_problem(answer, 401), (name, path)
    for query in ("x=/public/health", "permissions=files:read&x=/api/auth/ok"):
        answer = await town.client.get(f"{API}/forward?{query}", headers=town.key1)
        assert is_problem(answer, 400), query


async def test_a259_no_proxy_keeps_a_verdict(town: Town) -> None:
    for headers in ({}, town.key1, {"x-api-key": "kb_wrong"}):
        answer = await town.get("/forward", headers)
        assert answer.headers["cache-control"] == "no-store"


# --- every route ------------------------------------------------------------------------------

# What answers without a credential, written down by hand: a new route is not public unless it
# is added here, by somebody who thought about it.
PUBLIC = {
    *(("GET", "/ok"), ("GET", "/health/live"), ("GET", "/health/ready")),
    *(("GET", "/openapi.json"), ("GET", "/docs")),
    *(("GET", "/jwks"), ("GET", "/.well-known/jwks.json")),
    *(("POST", "/sign-up/email"), ("POST", "/sign-in/email"), ("POST", "/sign-out")),
    *(("POST", "/login"), ("POST", "/refresh"), ("POST", "/logout"), ("POST", "/revoke")),
    *(("POST", "/send-verification-email"), ("GET", "/verify-email"), ("POST", "/verify-email")),
    *(("POST", "/request-password-reset"), ("POST", "/reset-password")),
    ("GET", "/reset-password/{token}"),
    ("GET", "/get-session"),  # null for nobody, as Better Auth's
}
LOOPBACK_ONLY = {("GET", "/metrics")}  # 403 for a stranger


async def test_a261_only_what_is_written_down_answers_strangers(town: Town) -> None:
    described = (await town.get("/openapi.json")).json()["paths"]
    declared = {(method.upper(), path) for path, item in described.items() for method in item}
    assert {("POST", "/api-key/create"), ("GET", "/forward"), *PUBLIC} <= declared
    transport = httpx2.ASGITransport(app=town.auth.mount(no_app), client=("203.0.113.7", 5))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        for method, path in sorted(declared):
            where = API + path.replace("{token}", "x")
            answer = await client.request(method, where)
            if (method, path) in LOOPBACK_ONLY:
                assert is_problem(answer, 403, "LOOPBACK_ONLY")
            elif path == "/calendar/{token}.ics":  # the credential is in the address
                assert is_problem(answer, 404, "NOT_FOUND")
            elif (method, path) in PUBLIC:
                assert answer.status_code in (200, 302, 400, 415), (method, path)
            else:
                assert is_problem(answer, 401, "UNAUTHORIZED"), (method, path)
        outbox = await client.get("/dev/outbox")
        assert outbox.status_code == 404


async def test_a261_every_route_there_is_is_described(town: Town) -> None:
    described = {API + path for path in (await town.get("/openapi.json")).json()["paths"]}
    served = {
        route.path  # type: ignore[attr-defined]
        for route in (
            *routes(town.auth.operations, town.app, API),
            *extra_routes(town.auth, town.app, API),
        )
    } | set(ahead(town.auth, API))
    undescribed = {path for path in served - described if not path.startswith(f"{API}/static/")}
    assert undescribed == {"/dev/outbox"}


Outcome = Literal["in", "UNAUTHORIZED", "INVALID_API_KEY", "INVALID_ACCESS_TOKEN",
                  "SESSION_REQUIRED", "SERVICE_TOKEN_REQUIRED", "KEY_REVOKED"]  # fmt: skip
_LOGINS = {"cookie": "in", "session": "in", "access": "in"}
_NO_LOGINS = dict.fromkeys(_LOGINS, "INVALID_ACCESS_TOKEN")
_BY_KEY = ("key bearer", "key header")
_REVOKED = ("revoked bearer", "revoked header")
_GARBAGE = {"garbage bearer": "INVALID_ACCESS_TOKEN", "garbage header": "INVALID_API_KEY"}
_KINDS = ("nobody", *_LOGINS, *_BY_KEY, *_REVOKED, "service", *_GARBAGE)

# Who may call what, once more and by hand: what operations/admission.py says in code.
MATRIX: dict[Access, dict[str, str]] = {
    Access.PUBLIC: dict.fromkeys(_KINDS, "in"),
    Access.OPTIONAL: {
        "nobody": "in",
        **_LOGINS,
        **dict.fromkeys((*_BY_KEY, *_REVOKED), "SESSION_REQUIRED"),
        "service": "INVALID_ACCESS_TOKEN",
        **_GARBAGE,
    },
    Access.SESSION: {
        "nobody": "UNAUTHORIZED",
        **_LOGINS,
        **dict.fromkeys((*_BY_KEY, *_REVOKED, "service"), "SESSION_REQUIRED"),
        **_GARBAGE,
    },
    Access.MANAGER: {
        "nobody": "UNAUTHORIZED",
        **_LOGINS,
        **dict.fromkeys((*_BY_KEY, *_REVOKED), "SESSION_REQUIRED"),
        "service": "in",
        **_GARBAGE,
    },
    Access.KEY: {
        "nobody": "UNAUTHORIZED",
        **_NO_LOGINS,
        **dict.fromkeys(_BY_KEY, "in"),
        **dict.fromkeys(_REVOKED, "KEY_REVOKED"),
        "service": "INVALID_ACCESS_TOKEN",
        **_GARBAGE,
    },
    Access.OWNER: {
        "nobody": "UNAUTHORIZED",
        **_LOGINS,
        **dict.fromkeys(_BY_KEY, "in"),
        **dict.fromkeys(_REVOKED, "KEY_REVOKED"),
        "service": "in",
        **_GARBAGE,
    },
    Access.SERVICE: {
        "nobody": "UNAUTHORIZED",
        **dict.fromkeys((*_LOGINS, *_BY_KEY), "SERVICE_TOKEN_REQUIRED"),
        **dict.fromkeys(_REVOKED, "KEY_REVOKED"),
        "service": "in",
        **_GARBAGE,
    },
}


async def everybody(town: Town, service: Headers) -> dict[str, Headers]:
    """The headers of each kind of caller."""
    signed = await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD)
    town.client.cookies.clear()
    ended = await make(town)
    await town.post("/api-key/delete", town.t1, keyId=ended["id"])

    def both(kind: str, key: str) -> dict[str, Headers]:
        return {
            f"{kind} bearer": {"authorization": f"Bearer {key}"},
            f"{kind} header": {"x-api-key": key},
        }

    return {
        "nobody": {},
        "cookie": {
            "cookie": signed.headers["set-cookie"].split(";")[0],
            "origin": "http://127.0.0.1:8000",
        },
        "session": {"authorization": f"Bearer {signed.headers['set-auth-token']}"},
        "access": town.t1,
        **both("key", town.k1["key"]),
        **both("revoked", ended["key"]),
        "service": service,
        **both("garbage", "garbage"),
    }


async def admitted(
    town: Town, declared: Operation[Any, Any], method: str, path: str, headers: Headers
) -> str:
    """ "in", or the code of the refusal.

    Everybody sends what no operation takes, so that who is let in changes nothing and learns
    400, and who is not learns nothing.
    """
    where = API + path.replace("{token}", "x")
    nothing: dict[str, Any] = {"params": {"noSuchField": "1"}}
    if declared.form:
        nothing = {"data": {"noSuchField": "1"}}
    elif method == "POST":
        nothing = {"json": {"noSuchField": 1}}
    answer = await town.client.request(method, where, headers=headers, **nothing)
    code: str = answer.json()["code"]
    if answer.status_code == 400 and code in ("UNKNOWN_FIELD", "VALIDATION_ERROR"):
        return "in"
    assert is_problem(answer, answer.status_code, code)
    assert answer.status_code in (401, 403)
    return code


async def test_p08_every_operation_with_every_credential(town: Town, service: Headers) -> None:
    callers = await everybody(town, service)
    assert set(callers) == set(_KINDS)
    for declared in town.auth.operations:
        for method, path in ((declared.method, declared.path), *declared.aliases):
            expected = MATRIX[declared.access]
            for kind, headers in callers.items():
                found = await admitted(town, declared, method, path, headers)
                assert found == expected[kind], (method, path, kind)
    assert await town.works(town.k1["key"])
    assert (await town.get("/get-session", callers["session"])).json() is not None


async def test_p08_a_service_is_no_person(town: Town, service: Headers) -> None:
    """MANAGER lets service tokens in for the keys' sake: people's own things are none of theirs."""
    for path, body in {
        "/change-password": {"currentPassword": PASSWORD, "newPassword": "y" * 20},
        "/update-user": {"name": "x"},
        "/delete-user": {"password": PASSWORD},
    }.items():
        assert is_problem(await town.post(path, service, **body), 403, "SESSION_REQUIRED"), path
    assert is_problem(await town.get("/token", service), 403, "SESSION_REQUIRED")
    before = (await town.get("/list-sessions", town.t1)).json()
    for path, body in {
        "/revoke-session": {"token": before[0]["id"]},
        "/revoke-sessions": {},
        "/revoke-other-sessions": {},
    }.items():
        assert is_problem(await town.post(path, service, **body), 403, "SESSION_REQUIRED"), path
    assert (await town.get("/list-sessions", town.t1)).json() == before
    for path in ("/list-sessions", "/audit"):
        assert is_problem(await town.get(path, service), 403, "SESSION_REQUIRED"), path


# --- one key, two headers ---------------------------------------------------------------------


def same(first: Answer, second: Answer) -> bool:
    """Whether two answers are one but for the request's id."""

    def plain(answer: Answer) -> tuple[int, dict[str, str], object]:
        headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        body = json.loads(answer.body) if answer.body else {}
        body.pop("requestId", None)
        return answer.status, headers, body

    assert plain(first) == plain(second)
    return True


async def test_a263_both_headers_are_one_in_every_respect(town: Town, clock: StandingClock) -> None:
    site = guarded_app(town.auth, "deploy:run")
    asked: dict[str, dict[str, Any]] = {
        "good": {"permissions": {"deploy": ["run"]}},
        "scope": {"permissions": {"files": ["read"]}},
        "ip": {"permissions": {"deploy": ["run"]}, "ip_allow": ["192.0.2.1"]},
        "quota": {"permissions": {"deploy": ["run"]}, "remaining": 1},
        "limit": {
            "permissions": {"deploy": ["run"]},
            "rate_limit_max": 1,
            "rate_limit_time_window": 60_000,
        },
        "expired": {"expires_in": 1},
        "revoked": {},
        "disabled": {},
    }
    status = {
        "good": [200, 200], "scope": [403, 403], "ip": [403, 403], "quota": [200, 429],
        "limit": [200, 429], "expired": [401, 401], "revoked": [401, 401], "disabled": [401, 401],
    }  # fmt: skip
    for name, fields in asked.items():
        pair = [await make(town, **fields) for _ in AS_BEARER_AND_HEADER]
        for key in pair:
            if name == "revoked":
                await town.post("/api-key/delete", town.t1, keyId=key["id"])
            elif name == "disabled":
                await town.post("/api-key/update", town.t1, keyId=key["id"], enabled=False)
        if name == "expired":
            clock.advance(2_000)
        by: list[RawHeaders] = [bearer(pair[0]["key"]), api_key(pair[1]["key"])]
        for wanted in status[name]:
            first, second = [await ask(site, headers) for headers in by]
            assert first.status == wanted, name
            assert same(first, second)
        assert await state_of(town, pair[0]) == await state_of(town, pair[1]), name


async def test_a264_without_a_scope_every_guard_says_which(town: Town) -> None:
    for needed in town.app.catalogue:
        await _lacks(town, needed)


async def _lacks(town: Town, needed: str) -> None:
    held: dict[str, list[str]] = {}
    for each in town.app.catalogue - {needed, "users:write"}:
        resource, _, action = each.partition(":")
        held.setdefault(resource, []).append(action)
    key = await make(town, permissions=held)
    site = guarded_app(town.auth, needed)
    query = f"permissions={needed}".encode()
    for answer in (
        await ask(site, bearer(key["key"])),
        await ask(site, api_key(key["key"])),
        await ask(site, api_key(key["key"]), path=f"{API}/forward", query=query),
    ):
        assert (answer.status, answer.code) == (403, "INSUFFICIENT_SCOPE")
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert f'scope="{needed}"' in challenge
    assert (await state_of(town, key))[0] == 0


def test_the_matrix_knows_every_kind_of_access() -> None:
    assert set(MATRIX) == set(Access)
    assert all(set(row) == set(_KINDS) for row in MATRIX.values())
