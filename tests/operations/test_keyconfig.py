"""Each option of `api_key()` shows its effect over HTTP."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keybearer import Auth, Failure, Misuse, api_key, bearer, jwt
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.inputs import AskUsage, CreateKey, GetKey, ListKeys
from keybearer.plugins import Plugin
from keybearer.web.mount import no_app
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, SECRET, StandingClock, log_in, person

DAY = 86_400
ADA, BOB = "ada@example.com", "bob@example.com"


class Town:
    """A served Auth, two people, and a service."""

    def __init__(self, auth: Auth, client: httpx2.AsyncClient, clock: StandingClock) -> None:
        self.auth = auth
        self.client = client
        self.clock = clock
        self.ada: dict[str, str] = {}
        self.bob: dict[str, str] = {}
        self.service: dict[str, str] = {}
        self.ids: dict[str, str] = {}

    async def post(self, path: str, who: dict[str, str], **asked: Any) -> httpx2.Response:
        return await self.client.post(f"/api/auth{path}", json=asked, headers=who)

    async def get(self, path: str, who: dict[str, str], **query: Any) -> httpx2.Response:
        return await self.client.get(f"/api/auth{path}", params=query, headers=who)

    async def made(self, who: dict[str, str] | None = None, **asked: Any) -> dict[str, Any]:
        answer = await self.post("/api-key/create", who or self.ada, **asked)
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()
        return record

    async def refused(self, **asked: Any) -> str:
        return code(await self.post("/api-key/create", self.ada, **asked))

    async def verified(self, key: str, **asked: Any) -> Any:
        return (await self.post("/api-key/verify", self.service, key=key, **asked)).json()


def code(answer: httpx2.Response) -> str:
    """The code of a refusal, with its status before it."""
    return f"{answer.status_code} {answer.json().get('code')}"


Open = Callable[..., AbstractAsyncContextManager[Town]]


@pytest.fixture
def town(sqlite_template: Path, tmp_path: Path) -> Open:
    """A town with these plugins, on SQLite unless a URL is given."""

    @asynccontextmanager
    async def opened(*plugins: Plugin, url: str = "", **settings: Any) -> AsyncIterator[Town]:
        if not url:
            file = tmp_path / "town.db"
            shutil.copy(sqlite_template, file)
            url = f"sqlite:///{file}"
        clock = StandingClock()
        auth = Auth(
            url, plugins=[*plugins, bearer(), jwt()], secret=SECRET, token_management=True,
            clock=clock, **settings,
        )  # fmt: skip
        await auth.start()
        app = await auth.running()
        app.hasher.close()
        object.__setattr__(app, "hasher", Hasher(threads=1, cost=Cost(memory_kib=64, passes=1)))
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
        base = "http://127.0.0.1:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            found = Town(auth, client, clock)
            for email in (ADA, BOB):
                found.ids[email] = (await person(app, email)).id
            found.ada, found.bob = await log_in(client, ADA), await log_in(client, BOB)
            _, token = await auth.api.service_tokens.create("app")
            found.service = {"authorization": f"Bearer {token.reveal()}"}
            yield found
        await auth.stop()

    return opened


async def test_the_least_and_the_longest_life(town: Open) -> None:
    async with town(api_key(min_lifetime="1d", max_lifetime="30d", default_lifetime="7d")) as at:
        assert await at.refused(expiresIn=DAY - 1) == "400 EXPIRES_IN_IS_TOO_SMALL"
        assert await at.refused(expiresIn=31 * DAY) == "400 EXPIRES_IN_IS_TOO_LARGE"
        assert (await at.made(expiresIn=DAY))["expiresAt"] == "2026-11-19T11:06:40.000Z"
        assert (await at.made())["expiresAt"] == "2026-11-25T11:06:40.000Z"


async def test_a_life_that_the_server_alone_sets(town: Open) -> None:
    async with town(api_key(custom_expiry=False)) as at:
        made = await at.made()
        assert await at.refused(expiresIn=DAY) == "400 KEY_DISABLED_EXPIRATION"
        assert await at.refused(expiresIn=None) == "400 KEY_DISABLED_EXPIRATION"
        update = await at.post("/api-key/update", at.ada, keyId=made["id"], expiresIn=DAY)
        assert code(update) == "400 KEY_DISABLED_EXPIRATION"
        server = await at.made(at.service, userId=at.ids[ADA], expiresIn=DAY)
        assert server["expiresAt"] == "2026-11-19T11:06:40.000Z"


async def test_a_page_asks_for_no_end_where_nobody_may_say_it(town: Open) -> None:
    async with town(api_key(config_id="web", prefix="web_", custom_expiry=False)) as at:
        answer = await at.client.post(
            "/api/auth/sign-in/email", json={"email": ADA, "password": PASSWORD}
        )
        assert answer.status_code == 200
        surfer = Surfer(at.client)
        await surfer.open("/en/account/api-keys/new")
        assert "Expiration" not in surfer.seen.text
        await surfer.send("/new", name="ci")
        [key] = (await at.get("/api-key/list", at.ada)).json()["apiKeys"]
        assert (key["configId"], key["expiresAt"]) == ("web", "2027-02-16T11:06:40.000Z")
        await surfer.open(f"/en/account/api-keys/{key['id']}")
        assert "Change the expiration" not in surfer.seen.text


async def test_names_have_a_length_and_may_be_needed(town: Open) -> None:
    async with town(api_key(name_length=(3, 5), require_name=True)) as at:
        assert await at.refused() == "400 NAME_REQUIRED"
        for name in ("ab", "abcdef"):
            answer = await at.post("/api-key/create", at.ada, name=name)
            assert code(answer) == "400 INVALID_NAME_LENGTH"
            assert answer.json()["message"] == "The name must have 3 to 5 characters."
        made = await at.made(name="abc")
        update = await at.post("/api-key/update", at.ada, keyId=made["id"], name=None)
        assert code(update) == "400 NAME_REQUIRED"


async def test_metadata_can_be_switched_off(town: Open) -> None:
    async with town(api_key(metadata=False)) as at:
        assert await at.refused(metadata={"a": 1}) == "400 METADATA_DISABLED"
        made = await at.made(metadata=None)
        update = await at.post("/api-key/update", at.ada, keyId=made["id"], metadata={"a": 1})
        assert code(update) == "400 METADATA_DISABLED"


async def test_more_or_fewer_characters_stay_visible(town: Open) -> None:
    async with town(api_key(prefix="acme_", starting_characters=10)) as at:
        made = await at.made()
        assert made["start"] == made["key"][:10]
        rotated = (await at.post("/api-key/rotate", at.ada, keyId=made["id"])).json()
        assert rotated["start"] == rotated["key"][:10] != made["start"]


async def test_a_limit_of_its_own(town: Open) -> None:
    async with town(api_key(rate_limit="2/1m")) as at:
        key = (await at.made())["key"]
        answers = [await at.verified(key) for _ in range(3)]
        assert [answer["valid"] for answer in answers] == [True, True, False]
        assert answers[2]["error"]["code"] == "RATE_LIMITED"


async def test_permissions_that_nobody_asked_for(town: Open) -> None:
    async with town(api_key(default_permissions={"files": ["read"]})) as at:
        made = await at.made()
        assert made["permissions"] == {"files": ["read"]}
        assert (await at.verified(made["key"], permissions={"files": ["read"]}))["valid"]
        refused = await at.verified(made["key"], permissions={"files": ["write"]})
        assert refused["error"]["code"] == "INSUFFICIENT_SCOPE"
        server = await at.made(at.service, userId=at.ids[ADA], permissions=None)
        assert server["permissions"] is None


async def test_permissions_that_depend_on_the_owner(town: Open) -> None:
    asked: list[str] = []

    async def by_owner(owner: str) -> list[str] | None:
        asked.append(owner)
        return ["files:read"] if len(asked) == 1 else None

    async with town(api_key(default_permissions=by_owner)) as at:
        assert (await at.made())["permissions"] == {"files": ["read"]}
        assert (await at.made(at.bob))["permissions"] is None
        assert asked == [at.ids[ADA], at.ids[BOB]]


async def test_keys_stand_in_more_headers(town: Open) -> None:
    plugin = api_key(headers=["X-One", "x-two", "x-api-key"])
    async with town(plugin, trusted_origins="https://app.example.com") as at:
        made = await at.made()
        for name in ("x-one", "X-Two", "x-api-key"):
            shown = await at.get("/api-key/get", {name: made["key"]})
            assert shown.json()["id"] == made["id"], name
            assert await at.auth.api.get_session({name: made["key"]}) is not None
            assert code(await at.get("/api-key/get", {name: "kb_wrong"})) == "401 INVALID_API_KEY"
        both = {"x-one": made["key"], "x-two": made["key"]}
        assert code(await at.get("/api-key/get", both)) == "400 MULTIPLE_CREDENTIALS"
        rotated = await at.post("/api-key/rotate", {"x-one": made["key"]})
        assert rotated.status_code == 200
        asked = await at.client.options(
            "/api/auth/api-key/get",
            headers={
                "origin": "https://app.example.com",
                "access-control-request-method": "GET",
                "access-control-request-headers": "x-one",
            },
        )
        assert asked.status_code == 200


async def test_a_getter_finds_keys_in_a_way_of_its_own(town: Open) -> None:
    def of_basic(headers: Any) -> Any:
        found = dict(headers).get(b"x-basic")
        return None if found is None else found.decode().removeprefix("user:") or 7

    async with town(api_key(getter=of_basic)) as at:
        made = await at.made()
        shown = await at.get("/api-key/get", {"x-basic": f"user:{made['key']}"})
        assert shown.json()["id"] == made["id"]
        assert code(await at.get("/api-key/get", {"x-basic": "wrong"})) == "401 INVALID_API_KEY"
        assert code(await at.get("/api-key/get", {})) == "401 UNAUTHORIZED"
        twice = {"x-basic": f"user:{made['key']}", "x-api-key": "kb_another"}
        assert code(await at.get("/api-key/get", twice)) == "400 MULTIPLE_CREDENTIALS"
        assert code(await at.get("/api-key/get", {"x-basic": "user:"})) == "503 UNAVAILABLE"


def after_a_scheme(headers: Any) -> str | None:
    value = dict(headers).get(b"authorization", b"")
    scheme, _, key = value.decode("latin-1").partition(" ")
    return key if scheme in ("Token", "Api-Key") else None


@pytest.mark.parametrize("scheme", ["Token", "Api-Key"])
async def test_a_getter_reads_keys_of_another_scheme(town: Open, scheme: str) -> None:
    async with town(api_key(getter=after_a_scheme)) as at:
        key = (await at.made())["key"]
        held = {"authorization": f"{scheme} {key}"}
        assert (await at.get("/api-key/get", held)).status_code == 200
        assert await at.auth.api.get_session(held) is not None
        assert (await at.post("/api-key/rotate", held)).status_code == 200
        for other in (key, "kb_another"):
            twice = await at.get("/api-key/get", held | {"x-api-key": other})
            assert code(twice) == "400 MULTIPLE_CREDENTIALS"
        basic = await at.get("/api-key/get", {"authorization": f"Basic {key}"})
        assert code(basic) == "401 INVALID_ACCESS_TOKEN"
        assert (await at.get("/api-key/list", at.ada)).status_code == 200


async def test_a_getter_that_fails_is_asked_only_where_somebody_looks(town: Open) -> None:
    def failing(headers: Any) -> str | None:
        raise RuntimeError

    async with town(api_key(getter=failing)) as at:
        assert code(await at.get("/api-key/get", {})) == "503 UNAVAILABLE"
        assert code(await at.get("/get-session", {})) == "503 UNAVAILABLE"
        asked = {"email": ADA, "password": PASSWORD}
        assert (await at.post("/login", {}, **asked)).status_code == 200
        assert (await at.get("/jwks", {})).status_code == 200
        twice = {"x-api-key": "kb_1", "authorization": "Bearer kb_1"}
        assert code(await at.post("/login", twice, **asked)) == "400 MULTIPLE_CREDENTIALS"


async def test_keys_of_a_generator(town: Open) -> None:
    made_by_app = iter(f"acme_{n:040d}" for n in range(9))
    plugin = api_key(prefix="acme_", generator=lambda prefix: next(made_by_app))
    async with town(plugin) as at:
        made = await at.made()
        assert (made["key"], made["start"]) == (f"acme_{0:040d}", "acme_0000")
        assert (await at.verified(made["key"]))["valid"]
        assert (await at.verified(f"acme_{7:040d}"))["error"]["code"] == "INVALID_API_KEY"
        assert (await at.verified("kb_x"))["error"]["code"] == "INVALID_API_KEY"
        rotated = (await at.post("/api-key/rotate", at.ada, keyId=made["id"])).json()
        assert (await at.verified(rotated["key"]))["valid"]


async def test_a_generator_that_gives_a_key_twice_is_asked_once_more(town: Open) -> None:
    given = ["a", "a", "b", "b", "b", "b", "c"]
    plugin = api_key(prefix="acme_", generator=lambda prefix: prefix + given.pop(0) * 40)
    async with town(plugin) as at:
        assert (await at.made())["key"] == "acme_" + "a" * 40
        second = await at.made()
        assert second["key"] == "acme_" + "b" * 40
        assert await at.refused() == "503 UNAVAILABLE"
        assert given == ["b", "c"]
        rotated = await at.post("/api-key/rotate", at.ada, keyId=second["id"])
        assert rotated.json()["key"] == "acme_" + "c" * 40


async def test_of_a_short_key_less_is_shown(town: Open) -> None:
    plugin = api_key(prefix="acme_", starting_characters=13, generator=lambda p: p + "x" * 27)
    async with town(plugin) as at:
        assert (await at.made())["start"] == "acme"


async def test_keys_of_a_generator_beside_ours(town: Open) -> None:
    plugins = (
        api_key(config_id="app", prefix="acme_", generator=lambda prefix: f"{prefix}{'x' * 40}"),
        api_key(),
    )
    async with town(*plugins) as at:
        assert (await at.verified((await at.made())["key"]))["valid"]
        ours = (await at.made(configId="app"))["key"]
        assert (await at.verified(ours, configId="app"))["valid"]
        assert (await at.get("/api-key/policy", at.ada)).json()["configId"] == "default"


def failing(*_: object) -> Any:
    raise RuntimeError("kb_secret")


@pytest.mark.parametrize(
    "key", [None, 5, "acme_short", f"other_{1:040d}", f"acme_ {1:040d}", "acme_é" * 9]
)
async def test_a_generator_that_makes_no_key_makes_none(town: Open, key: Any) -> None:
    async with town(api_key(prefix="acme_", generator=lambda prefix: key)) as at:
        assert await at.refused() == "503 UNAVAILABLE"
        assert (await at.get("/api-key/list", at.ada)).json()["total"] == 0


async def test_a_generator_that_raises_is_told(town: Open, caplog: Any) -> None:
    async with town(api_key(generator=failing)) as at:
        assert await at.refused() == "503 UNAVAILABLE"
        reasons = [getattr(record, "reason", "") for record in caplog.records]
        assert [each for each in reasons if "generator" in each] == [
            "generator= raised RuntimeError"
        ]
        assert "kb_secret" not in caplog.text


@pytest.mark.parametrize("validator", [failing, lambda key: "no", lambda key: None])
async def test_a_validator_that_gives_no_answer_lets_nothing_in(town: Open, validator: Any) -> None:
    async with town(api_key(validator=validator)) as at:
        held = {"x-api-key": (await at.made())["key"]}
        assert code(await at.get("/api-key/get", held)) == "503 UNAVAILABLE"


@pytest.mark.parametrize("given", [None, 5, ["files"], ["admin:all"], RuntimeError()])
async def test_permissions_of_the_app_that_no_key_can_have(town: Open, given: Any) -> None:
    async def by_owner(_owner: str) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    async with town(api_key(permissions=["files:read"], default_permissions=by_owner)) as at:
        answer = await at.post("/api-key/create", at.ada)
        if given is None:
            assert answer.json()["permissions"] is None
        else:
            assert code(answer) == "503 UNAVAILABLE"


async def test_a_loss_that_the_app_tells_itself_stays_one(town: Open) -> None:
    async def away(_owner: str) -> None:
        raise Failure("UNAUTHORIZED")

    def out(_prefix: str) -> str:
        raise Failure("UNAUTHORIZED")

    for plugin in (api_key(default_permissions=away), api_key(generator=out)):
        async with town(plugin) as at:
            assert await at.refused() == "401 UNAUTHORIZED"


async def of_async(*_: object) -> None:
    return None


class AsyncCall:
    async def __call__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"getter": of_async}, "getter= takes a function that is not async"),
        ({"getter": AsyncCall()}, "getter= takes"),
        ({"getter": "x"}, "getter= takes"),
        ({"validator": 3}, "validator= takes"),
        ({"generator": of_async}, "generator= takes"),
        ({"role_in": "owner"}, "role_in= takes"),
        ({"config_id": ""}, "config_id= takes"),
        ({"config_id": 5}, "config_id= takes"),
        ({"name_length": (5, 2)}, "name_length= takes the least"),
        ({"name_length": (0, 1000)}, "name_length= takes the least"),
        ({"name_length": (0, 0)}, "name_length= takes the least"),
        ({"name_length": 5}, "name_length= takes two"),
        ({"name_length": ("1", "2")}, "name_length= takes two"),
        ({"headers": ["Authorization"]}, "headers= takes neither"),
        ({"headers": ["Cookie"]}, "headers= takes neither"),
        ({"headers": ["bad name\n"]}, "headers= takes a list"),
        ({"headers": [5]}, "headers= takes a list"),
        ({"headers": "x-key"}, "headers= takes a list"),
        ({"headers": 5}, "headers= takes a list"),
        ({"default_permissions": 5}, "default_permissions="),
    ],
)
def test_an_option_that_is_wrong_is_told_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Misuse, match=said):
        api_key(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_lifetime": "400d"}, "min_lifetime= is longer"),
        ({"min_lifetime": "2d", "default_lifetime": "1d"}, "default_lifetime="),
        ({"starting_characters": 200}, "starting_characters= takes 1 to 11"),
        ({"starting_characters": 12}, "starting_characters= takes 1 to 11"),
        ({"starting_characters": 0}, "starting_characters="),
        ({"starting_characters": -3}, "starting_characters="),
        ({"starting_characters": True}, "starting_characters="),
        ({"permissions": ["files:read"], "default_permissions": ["admin:all"]}, "admin:all"),
    ],
)
def test_options_that_contradict_each_other_are_told_at_the_start(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(Misuse, match=said):
        Auth(f"sqlite:///{tmp_path / 'k.db'}", [api_key(**options)], secret=SECRET)


def test_options_that_fit_are_taken(tmp_path: Path) -> None:
    fitting: list[dict[str, Any]] = [
        {"starting_characters": 11},
        {"permissions": ["files:read"], "default_permissions": ["files:read"]},
        {"permissions": ["files:read"], "default_permissions": lambda owner: None},
        {"default_permissions": ["files:read"]},
        {"name_length": [0, 64]},
    ]
    for options in fitting:
        Auth(f"sqlite:///{tmp_path / 'k.db'}", [api_key(**options)], secret=SECRET)


async def test_a_validator_is_asked_before_anything_is_looked_up(town: Open) -> None:
    asked: list[str] = []

    def valid(key: str) -> bool:
        asked.append(key)
        return len(asked) > 1

    async with town(api_key(validator=valid)) as at:
        key = (await at.made())["key"]
        assert (await at.verified(key))["error"]["code"] == "INVALID_API_KEY"
        assert (await at.verified(key))["valid"]
        assert asked == [key, key]
        await at.verified("kb_no-key-at-all")
        assert len(asked) == 2


async def test_a_key_may_show_whose_it_is(town: Open) -> None:
    async with town(api_key(sessions=True, rate_limit="2/1m")) as at:
        made = await at.made()
        held = {"x-api-key": made["key"]}
        shown = (await at.get("/get-session", held)).json()
        assert shown["user"]["id"] == shown["session"]["userId"] == at.ids[ADA]
        assert (shown["session"]["id"], shown["session"]["token"]) == (made["id"], made["id"])
        assert shown["session"]["expiresAt"] == made["expiresAt"]
        for path in ("/api-key/list", "/list-sessions", "/token"):
            assert code(await at.get(path, held)) == "403 SESSION_REQUIRED"
        assert code(await at.post("/api-key/create", held)) == "403 SESSION_REQUIRED"
        assert (await at.get("/get-session", held)).status_code == 200
        assert code(await at.get("/get-session", held)) == "429 RATE_LIMITED"
        never = await at.made(expiresIn=None)
        shown = (await at.get("/get-session", {"x-api-key": never["key"]})).json()
        assert shown["session"]["expiresAt"] == "2026-11-25T11:06:40.000Z"
        assert (await at.get("/get-session", {})).json() is None


async def test_a_key_shows_nobody_unless_that_is_asked(town: Open) -> None:
    async with town(api_key()) as at:
        held = {"x-api-key": (await at.made())["key"]}
        assert code(await at.get("/get-session", held)) == "403 SESSION_REQUIRED"


# --- several configurations -----------------------------------------------------------------


PUBLIC: dict[str, Any] = {
    "config_id": "public",
    "prefix": "pk_",
    "rate_limit": "5/1m",
    "max_lifetime": "30d",
    "default_lifetime": "1d",
    "allow_no_expiry": False,
}


async def test_each_configuration_has_its_own_rules(town: Open, ready_url: str) -> None:
    plugins = (api_key(sessions=True), api_key(**PUBLIC))
    async with town(*plugins, url=ready_url) as at:
        usual = await at.made(name="usual")
        public = await at.made(name="public", configId="public")
        assert (usual["configId"], public["configId"]) == ("default", "public")
        assert public["key"].startswith("pk_")
        assert (usual["rateLimitMax"], public["rateLimitMax"]) == (1000, 5)
        assert public["expiresAt"] == "2026-11-19T11:06:40.000Z"
        assert await at.refused(configId="public", expiresIn=None) == "400 KEY_EXPIRY_REQUIRED"
        assert await at.refused(configId="public", prefix="kb_") == "400 INVALID_PREFIX"
        assert await at.refused(configId="other") == "400 UNKNOWN_CONFIGURATION"

        async def listed(**query: str) -> list[str]:
            page = (await at.get("/api-key/list", at.ada, sortBy="name", **query)).json()
            return [key["name"] for key in page["apiKeys"]]

        assert await listed() == ["public", "usual"]
        assert await listed(configId="public") == ["public"]
        assert await listed(configId="other") == []

        held = {"x-api-key": public["key"]}
        assert code(await at.get("/get-session", held)) == "403 SESSION_REQUIRED"
        assert (await at.get("/get-session", {"x-api-key": usual["key"]})).status_code == 200
        policy = (await at.get("/api-key/policy", at.ada)).json()
        assert policy["prefixes"] == ["kb_"]


async def test_a_key_is_of_its_configuration(town: Open) -> None:
    async with town(api_key(), api_key(**PUBLIC)) as at:
        public = await at.made(configId="public")
        id, key = public["id"], public["key"]
        assert (await at.get("/api-key/get", at.ada, id=id)).json()["id"] == id
        assert (await at.get("/api-key/get", at.ada, id=id, configId="public")).status_code == 200
        wrong = await at.get("/api-key/get", at.ada, id=id, configId="default")
        assert code(wrong) == "404 KEY_NOT_FOUND"
        for path in ("/api-key/update", "/api-key/delete"):
            answer = await at.post(path, at.ada, keyId=id, configId="default")
            assert code(answer) == "404 KEY_NOT_FOUND"
        renamed = await at.post("/api-key/update", at.ada, keyId=id, configId="public", name="x")
        assert renamed.json()["name"] == "x"

        assert (await at.verified(key, configId="public"))["valid"]
        elsewhere = await at.verified(key, configId="default")
        assert elsewhere["error"]["code"] == "INVALID_API_KEY"
        assert (await at.verified("pk_x", configId="public"))["error"]["code"] == "INVALID_API_KEY"
        assert (await at.verified(key))["error"]["code"] == "INVALID_API_KEY"
        usual = await at.made()
        assert (await at.verified(usual["key"]))["valid"]
        again = await at.verified(key, configId="public")
        assert again["key"]["requestCount"] == 2
        ended = await at.post("/api-key/delete", at.ada, keyId=id, configId="public")
        assert ended.json()["success"] is True


async def test_without_a_default_a_configuration_must_be_named(town: Open) -> None:
    async with town(api_key(**PUBLIC), api_key(config_id="secret", prefix="sk_")) as at:
        assert await at.refused() == "400 NO_DEFAULT_API_KEY_CONFIGURATION_FOUND"
        assert (await at.made(configId="secret"))["prefix"] == "sk_"


async def test_a_key_outlives_its_configuration(town: Open, tmp_path: Path) -> None:
    async with town(api_key(), api_key(**PUBLIC)) as at:
        made = await at.made(configId="public")
    auth = Auth(
        f"sqlite:///{tmp_path / 'town.db'}", secret=SECRET, clock=StandingClock(),
        plugins=[api_key(prefix=["kb_", "pk_"], sessions=True)],
    )  # fmt: skip
    async with auth.lifespan():
        held = {"x-api-key": made["key"]}
        assert await auth.api.get_session(held) is not None
        shown = await auth.api.get_session_and_user(headers=held)
        assert shown is not None
        assert shown.session.id == made["id"]


def test_a_configuration_stands_once() -> None:
    with pytest.raises(Misuse, match="each once"):
        Auth(plugins=[api_key(**PUBLIC), api_key(**PUBLIC)])
    with pytest.raises(Misuse, match="key_prefix"):
        api_key(config_id="public", prefix="No Prefix")
    with pytest.raises(Misuse, match="key_max_lifetime"):
        api_key(min_lifetime="soon")


async def test_of_a_key_of_another_configuration_nothing_is_told(town: Open) -> None:
    async with town(api_key(), api_key(**PUBLIC)) as at:
        made = await at.made(configId="public")
        await at.post("/api-key/update", at.ada, keyId=made["id"], enabled=False)
        for _ in range(2):
            other = await at.verified(made["key"])
            assert other["error"]["code"] == "INVALID_API_KEY"
        for _ in range(3):
            own = await at.verified(made["key"], configId="public")
            assert own["error"]["code"] == "KEY_DISABLED"
        _, token = await at.auth.api.service_tokens.create("other")
        for text in (token.reveal(), "kb_nothing"):
            assert (await at.verified(text))["error"]["code"] == "INVALID_API_KEY"
        usage = await at.auth.api.get_usage(AskUsage(key_id=made["id"]))
        assert usage.total == {"KEY_DISABLED": 3}


# --- keys of organizations ------------------------------------------------------------------


async def roles(organization: str, user: str) -> str | None:
    """What the host app says."""
    role = ROLES.get((organization, user))
    if isinstance(role, Exception):
        raise role
    return role


ROLES: dict[tuple[str, str], Any] = {}
OURS: dict[str, Any] = {"configId": "org", "organizationId": "acme"}


def of_organizations(**options: Any) -> Plugin:
    return api_key(
        config_id="org", prefix="org_", role_in=roles, sessions=True,
        roles={"owner": ["create", "read", "update", "delete"], "member": ["read"],
               "keeper": ["create", "update"]}, **options,
    )  # fmt: skip


async def test_an_organization_owns_keys(town: Open, ready_url: str) -> None:
    async with town(api_key(), of_organizations(), url=ready_url) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        own = await at.made(name="my own")
        assert await at.refused(configId="org") == "400 ORGANIZATION_ID_REQUIRED"
        made = await at.made(name="ours", **OURS)
        assert (made["referenceId"], made["configId"]) == ("acme", "org")
        assert (await at.verified(made["key"], configId="org"))["valid"]
        mine = (await at.get("/api-key/list", at.ada)).json()
        ours = (await at.get("/api-key/list", at.ada, organizationId="acme")).json()
        assert [key["id"] for key in mine["apiKeys"]] == [own["id"]]
        assert [key["id"] for key in ours["apiKeys"]] == [made["id"]]
        held = {"x-api-key": made["key"]}
        assert code(await at.get("/get-session", held)) == "403 SESSION_REQUIRED"
        rotated = (await at.post("/api-key/rotate", at.ada, keyId=made["id"])).json()
        assert (await at.verified(rotated["key"], configId="org"))["valid"]
        renamed = await at.post("/api-key/update", at.ada, keyId=made["id"], name="all")
        assert renamed.json()["name"] == "all"
        ended = await at.post("/api-key/delete", at.ada, keyId=made["id"])
        assert ended.json()["success"] is True
        assert not (await at.verified(rotated["key"], configId="org"))["valid"]
        trail = (await at.get("/audit", at.ada)).json()["events"]
        assert "key.revoked" not in [event["event"] for event in trail]


async def test_a_user_of_the_same_id_is_not_the_organization(town: Open) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        id = at.ids[BOB]  # an id that is both, as where each table counts from 1
        ROLES[id, at.ids[ADA]] = "owner"
        ours = await at.made(configId="org", organizationId=id)
        assert ours["referenceId"] == id
        theirs = await at.made(at.bob)
        gone = "404 KEY_NOT_FOUND"
        assert code(await at.get("/api-key/get", at.bob, id=ours["id"])) == gone
        assert code(await at.post("/api-key/delete", at.bob, keyId=ours["id"])) == gone
        assert code(await at.get("/api-key/get", at.ada, id=theirs["id"])) == gone
        page = (await at.get("/api-key/list", at.ada, organizationId=id)).json()
        assert [key["id"] for key in page["apiKeys"]] == [ours["id"]]
        page = (await at.get("/api-key/list", at.bob)).json()
        assert [key["id"] for key in page["apiKeys"]] == [theirs["id"]]
        session = await at.auth.api.get_session({"x-api-key": ours["key"]})
        assert session is not None
        assert session.subject == f"organization:{id}"


async def test_members_must_be_such_of_every_configuration_they_list(town: Open) -> None:
    async def nobody(organization: str, user: str) -> str | None:
        return None

    other = api_key(config_id="other", prefix="oth_", role_in=nobody)
    async with town(of_organizations(), other) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "member"
        none = "403 USER_NOT_MEMBER_OF_ORGANIZATION"
        assert code(await at.get("/api-key/list", at.ada, organizationId="acme")) == none
        one = await at.get("/api-key/list", at.ada, organizationId="acme", configId="org")
        assert one.json()["total"] == 0


async def test_who_is_no_member_sees_nothing_of_them(town: Open) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        made = await at.made(**OURS)
        none = "403 USER_NOT_MEMBER_OF_ORGANIZATION"
        assert code(await at.post("/api-key/create", at.bob, **OURS)) == none
        assert code(await at.get("/api-key/list", at.bob, organizationId="acme")) == none
        gone = "404 KEY_NOT_FOUND"
        assert code(await at.get("/api-key/get", at.bob, id=made["id"])) == gone
        assert code(await at.post("/api-key/delete", at.bob, keyId=made["id"])) == gone
        assert code(await at.get("/api-key/get", at.bob, id="nobody's")) == gone
        theirs = await at.made(name="bob's", who=at.bob)
        assert code(await at.get("/api-key/get", at.ada, id=theirs["id"])) == gone


@pytest.mark.parametrize(
    ("role", "may"),
    [("member", {"read"}), ("keeper", {"create", "update"}), ("guest", set()),
     ("member, keeper", {"create", "read", "update"})],
)  # fmt: skip
async def test_a_role_says_what_a_member_may(town: Open, role: str, may: set[str]) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        ROLES["acme", at.ids[BOB]] = role
        id = (await at.made(**OURS))["id"]
        answers = {
            "create": await at.post("/api-key/create", at.bob, **OURS),
            "read": await at.get("/api-key/get", at.bob, id=id),
            "update": await at.post("/api-key/update", at.bob, keyId=id, name="x"),
            "delete": await at.post("/api-key/delete", at.bob, keyId=id),
        }
        for action, answer in answers.items():
            if action in may:
                assert answer.status_code == 200, action
            else:
                assert code(answer) == "403 INSUFFICIENT_API_KEY_PERMISSIONS", action
        listed = await at.get("/api-key/list", at.bob, organizationId="acme")
        assert (listed.status_code == 200) is ("read" in may)


@pytest.mark.parametrize("role", [RuntimeError(), ["owner"], True, b"owner", 5])
async def test_a_role_that_is_none_lets_nobody_in(town: Open, role: Any) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        id = (await at.made(**OURS))["id"]
        ROLES["acme", at.ids[BOB]] = role
        assert code(await at.get("/api-key/get", at.bob, id=id)) == "503 UNAVAILABLE"
        assert code(await at.post("/api-key/create", at.bob, **OURS)) == "503 UNAVAILABLE"


async def test_members_finish_the_rotations_that_they_begin(town: Open) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        id = (await at.made(**OURS))["id"]
        for path, asked in (("cancel", {}), ("extend", {"gracePeriod": 60}), ("finish", {})):
            begun = await at.post("/api-key/rotate", at.ada, keyId=id, gracePeriod=600)
            assert begun.status_code == 200
            seen = await at.get("/api-key/rotation", at.ada, keyId=id)
            assert seen.json()["rotating"] is True
            for role, read, change in (
                ("member", "200 None", "403 INSUFFICIENT_API_KEY_PERMISSIONS"),
                ("guest", *["403 INSUFFICIENT_API_KEY_PERMISSIONS"] * 2),
                (None, *["404 KEY_NOT_FOUND"] * 2),
            ):
                ROLES["acme", at.ids[BOB]] = role
                assert code(await at.get("/api-key/rotation", at.bob, keyId=id)) == read
                tried = await at.post(f"/api-key/rotation/{path}", at.bob, keyId=id, **asked)
                assert code(tried) == change
            done = await at.post(f"/api-key/rotation/{path}", at.ada, keyId=id, **asked)
            assert done.status_code == 200, done.text


async def test_an_empty_role_is_no_membership(town: Open) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        ROLES["acme", at.ids[ADA]] = "owner"
        id = (await at.made(**OURS))["id"]
        ROLES["acme", at.ids[BOB]] = ""
        assert code(await at.get("/api-key/get", at.bob, id=id)) == "404 KEY_NOT_FOUND"


async def test_the_app_itself_makes_keys_of_organizations(town: Open) -> None:
    async with town(api_key(), of_organizations()) as at:
        ROLES.clear()
        made = await at.made(at.service, configId="org", organizationId="acme")
        assert made["referenceId"] == "acme"
        api = at.auth.api
        own = await api.create_api_key(CreateKey(config_id="org", organization_id="acme"))
        shown = await api.get_api_key(GetKey(id=own.id))
        assert shown.reference_id == "acme"
        page = await api.list_api_keys(ListKeys(organization_id="acme"))
        assert page.total == 2


async def test_without_organizations_nobody_is_a_member(town: Open) -> None:
    async with town(api_key()) as at:
        answer = await at.get("/api-key/list", at.ada, organizationId="acme")
        assert code(answer) == "403 USER_NOT_MEMBER_OF_ORGANIZATION"
