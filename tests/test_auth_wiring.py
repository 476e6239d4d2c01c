"""What an Auth is made of: its secret, its operations, and what owners hold."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from keybearer import Auth, Failure, Misuse, Session, api_key, bearer, inputs, jwt
from keybearer.web.mount import no_app
from tests.people import SECRET

API = "/api/auth"


def url(folder: Path, name: str = "app.db") -> str:
    return f"sqlite:///{folder / name}"


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def status(auth: Auth, method: str, path: str) -> int:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50_000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        return (await client.request(method, API + path)).status_code


# --- the secret beside the file -------------------------------------------------------------


async def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    auth = Auth(url(tmp_path), accounts=False)
    file = tmp_path / "app.db-secret"
    assert not file.exists()
    async with auth.lifespan():
        written = file.read_bytes()
        key = await auth.api.create_api_key(inputs.CreateKey(), owner="ada")
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(written.strip()) >= 64
    async with (again := Auth(url(tmp_path), accounts=False)).lifespan():
        assert await again.api.get_session({"x-api-key": key.key or ""}) is not None
    assert file.read_bytes() == written
    assert names(tmp_path) <= {
        "app.db", "app.db-secret", "app.db-serving", "app.db-wal", "app.db-shm",
    }  # fmt: skip


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
async def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    async with Auth(url(tmp_path)).lifespan():
        pass
    file = tmp_path / "app.db-secret"
    written = file.read_bytes()
    file.chmod(mode)
    with pytest.raises(Misuse, match="may be read by others: chmod 600") as told:
        await Auth(url(tmp_path)).start()
    assert str(file) in str(told.value)
    assert written.decode().strip() not in str(told.value)
    assert file.read_bytes() == written
    file.chmod(0o600)
    async with Auth(url(tmp_path)).lifespan():
        pass


async def test_two_that_start_at_once_have_the_same_secret(tmp_path: Path) -> None:
    several = [Auth(url(tmp_path), accounts=False, serving=False) for _ in range(4)]
    await asyncio.gather(*(each.start() for each in several))
    made = await several[0].api.create_api_key(inputs.CreateKey(), owner="ada")
    for each in several:
        assert await each.api.get_session({"x-api-key": made.key or ""}) is not None
        await each.stop()


async def test_a_secret_that_is_set_makes_no_file(tmp_path: Path) -> None:
    async with Auth(url(tmp_path), secret=SECRET).lifespan():
        pass
    assert not (tmp_path / "app.db-secret").exists()


@pytest.mark.parametrize("name", ["a%20b.db", "a b.db", "a#b.db", "a%2Fb.db", "ä.db"])
async def test_the_file_is_the_one_that_was_named(tmp_path: Path, name: str) -> None:
    async with Auth(url(tmp_path, name), secret=SECRET).lifespan():
        pass
    assert names(tmp_path) <= {name + end for end in ("", "-serving")}
    assert (tmp_path / name).read_bytes().startswith(b"SQLite format 3\0")


# --- operations, by plugins -----------------------------------------------------------------


def paths(auth: Auth) -> set[str]:
    return {operation.path for operation in auth.operations}


async def test_without_bearer_there_is_no_login(tmp_path: Path) -> None:
    auth = Auth(url(tmp_path), [api_key()], token_management=True)
    async with auth.lifespan():
        assert await status(auth, "POST", "/login") == 404
        assert await status(auth, "POST", "/refresh") == 404
        assert await status(auth, "GET", "/jwks") == 404
        assert await status(auth, "POST", "/sign-in/email") == 400
        assert await status(auth, "GET", "/api-key/list") == 401


async def test_each_plugin_brings_its_operations(tmp_path: Path) -> None:
    every = Auth(url(tmp_path))
    called = [operation.name for operation in every.operations]
    assert len(called) == len(set(called))
    assert paths(Auth(url(tmp_path), [bearer()])) >= {"/login", "/refresh"}
    assert paths(Auth(url(tmp_path), [jwt()])) >= {"/jwks"}
    trail = {"/audit", "/audit/disown"}
    assert paths(Auth(url(tmp_path), [bearer(), jwt()], accounts=False)) == trail | {"/jwks"}
    assert paths(Auth(url(tmp_path), [], accounts=False)) == trail
    assert "/login" not in paths(Auth(url(tmp_path), [api_key(), jwt()]))
    assert "/sign-up/email" not in paths(Auth(url(tmp_path), accounts=False))
    apart = [[api_key()], [bearer()], [jwt()]]
    assert set[str]().union(*(paths(Auth(url(tmp_path), one)) for one in apart)) == paths(every)


async def test_a_plugins_settings_are_settings(tmp_path: Path) -> None:
    auth = Auth(url(tmp_path), [api_key(prefix=["kb_live_", "kb_test_"], rate_limit="off")])
    assert auth.settings.key_prefix == ("kb_live_", "kb_test_")
    assert auth.settings.key_rate_limit is None
    # What is said to Auth itself wins.
    both = Auth(url(tmp_path), [api_key(prefix="one_")], key_prefix="two_")
    assert both.settings.key_prefix == ("two_",)
    with pytest.raises(Misuse, match="key_max_lifetime"):
        Auth(url(tmp_path), [api_key(max_lifetime="for ever")])


def test_a_wrong_setting_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="token_managment is not a setting"):
        Auth(url(tmp_path), token_managment=True)
    with pytest.raises(Misuse, match="database_url: takes"):
        Auth(str(tmp_path / "app.db"))


# --- the catalogue, and what owners hold ----------------------------------------------------

FILES = {"files": ["read", "write"]}
BOTH = frozenset({"files:read", "files:write"})


@pytest.mark.parametrize(
    ("listed", "settings", "catalogue"),
    [
        (None, {}, frozenset()),
        (None, {"permissions": "files:read"}, frozenset({"files:read"})),
        (FILES, {}, BOTH),
        (["files:read", "files:write"], {}, BOTH),
        (FILES, {"permissions": "deploy:run"}, BOTH),
    ],
)
def test_the_catalogue_is_the_plugins_or_the_settings(
    tmp_path: Path, listed: Any, settings: dict[str, Any], catalogue: frozenset[str]
) -> None:
    assert Auth(url(tmp_path), [api_key(permissions=listed)], **settings).catalogue == catalogue


async def key_with(auth: Auth, permissions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    asked = {resource: list(actions) for resource, actions in permissions.items()}
    made = await auth.api.create_api_key(inputs.CreateKey(permissions=asked), owner="ada")
    return {"x-api-key": made.key or ""}


async def allowed(auth: Auth, headers: dict[str, str]) -> frozenset[str] | None:
    session = await auth.api.get_session(headers)
    assert isinstance(session, Session)
    return session.permissions


async def test_what_an_owner_holds_is_the_hosts_word(tmp_path: Path) -> None:
    asked_for: list[str] = []
    held: dict[str, Any] = {"ada": FILES}

    async def holds(owner: str) -> Any:
        asked_for.append(owner)
        return held[owner]

    auth = Auth(url(tmp_path), [api_key(permissions=FILES, holds=holds)], accounts=False)
    async with auth.lifespan():
        key = await key_with(auth, FILES)
        assert await allowed(auth, key) == BOTH
        held["ada"] = ["files:read"]
        await auth.api.owner_changed("ada")
        assert await allowed(auth, key) == frozenset({"files:read"})
        held["ada"] = []
        await auth.api.owner_changed("ada")
        assert await allowed(auth, key) == frozenset()
    assert set(asked_for) == {"ada"}


def test_a_catalogue_that_is_none_is_told_at_once() -> None:
    with pytest.raises(Misuse, match=r"permissions=.*1 to 64 of a-z"):
        api_key(permissions=["Files:*"])


async def test_a_host_that_tells_nonsense_is_told_and_nobody_passes(tmp_path: Path) -> None:
    held: list[Any] = ["files:read"]

    async def holds(_owner: str) -> Any:
        return held

    auth = Auth(url(tmp_path), [api_key(permissions=FILES, holds=holds)], accounts=False)
    async with auth.lifespan():
        key = await key_with(auth, {"files": ["read"]})
        for nonsense in (["everything"], [None]):
            held[:] = nonsense
            await auth.api.owner_changed("ada")
            with pytest.raises(Misuse, match="holds="):
                await auth.api.authenticate(key)
        held[:] = ["files:read"]
        assert await allowed(auth, key) == frozenset({"files:read"})


async def test_without_the_hosts_word_it_is_the_settings(tmp_path: Path) -> None:
    auth = Auth(url(tmp_path), accounts=False, permissions=BOTH, user_permissions="files:read")
    async with auth.lifespan():
        holds = (await auth.running()).holds
        assert await holds("ada", "user") == frozenset({"files:read"})
        assert await holds("ada", "admin") == BOTH
        with pytest.raises(Failure, match="UNKNOWN_SCOPE"):
            await key_with(auth, {"deploy": ["run"]})


@pytest.mark.parametrize(("settings", "held"), [({}, None), ({"permissions": BOTH}, BOTH)])
async def test_users_hold_the_whole_catalogue_unless_it_is_said(
    tmp_path: Path, settings: dict[str, Any], held: frozenset[str] | None
) -> None:
    auth = Auth(url(tmp_path), **settings)
    async with auth.lifespan():
        assert await (await auth.running()).holds("ada", "user") == held


async def test_user_permissions_need_a_catalogue_that_has_them(tmp_path: Path) -> None:
    for catalogue in (None, "deploy:run"):
        auth = Auth(url(tmp_path), permissions=catalogue, user_permissions=BOTH)
        with pytest.raises(Misuse) as told:
            await auth.start()
        assert str(told.value) == (
            "KEYBEARER_USER_PERMISSIONS names files:read, files:write, which "
            "KEYBEARER_PERMISSIONS lacks"
        )


@pytest.mark.parametrize(
    "plugins", [[1], "jwt", api_key(), api_key, [api_key], [api_key(), api_key()], [None], 7]
)
def test_plugins_that_are_none_or_stand_twice_are_told(plugins: Any) -> None:
    with pytest.raises(Misuse) as caught:
        Auth("sqlite:///app.db", plugins)
    assert str(caught.value) == "plugins= takes a list of api_key(), bearer() and jwt(), each once"
