"""Imported keys in an app with configurations of keys, and with organizations that own some."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest

from keybearer import Auth, Misuse, api_key, bearer
from keybearer.domain.model import ORGANIZATION, Session
from keybearer.operations import fromothers, leaving
from keybearer.operations.app import App
from keybearer.operations.arriving import Choices
from keybearer.operations.keys import CreateKey, GetKey
from keybearer.operations.moving import Report
from keybearer.operations.verify import VerifyKey
from keybearer.plugins import Plugin
from keybearer.web.mount import no_app
from tests.moving.conftest import Source, move
from tests.moving.test_others import unkey
from tests.people import SECRET, StandingClock, call_of, log_in, person

Open = Callable[..., AbstractAsyncContextManager[Auth]]


@pytest.fixture
def town(ready_url: str, clock: StandingClock) -> Open:
    """An Auth with these configurations of keys."""

    @asynccontextmanager
    async def opened(*plugins: Plugin) -> AsyncIterator[Auth]:
        auth = Auth(
            ready_url, plugins=[*plugins, bearer()], secret=SECRET, token_management=True,
            clock=clock,
        )  # fmt: skip
        async with auth.lifespan():
            yield auth

    return opened


async def found(auth: Auth, key: str) -> Any:
    app = await auth.running()
    return await app.verifier.verify([(b"x-api-key", key.encode())], None)


async def valid(auth: Auth, key: str, config: str) -> bool:
    return (await auth.api.verify_api_key(VerifyKey(key=key, config_id=config))).valid


# --- configurations ---


@pytest.mark.parametrize(
    "ours",
    [
        api_key(validator=lambda key: False),
        api_key(generator=lambda prefix: f"{prefix}{'x' * 40}"),
        api_key(config_id="web", prefix="kb_", validator=lambda key: False),
    ],
    ids=["validator", "generator", "no default"],
)
async def test_what_a_configuration_asks_of_its_keys_shuts_no_imported_one_out(
    town: Open, better_auth: Source, ours: Plugin
) -> None:
    async with town(ours, api_key(config_id="acme", prefix="acme_")) as auth:
        await move(await auth.running(), better_auth)
        for name in ("like_ours", "full", "plain"):
            for _ in range(2):  # by their digest, then by ours
                assert isinstance(await found(auth, better_auth.key(name)), Session), name
                assert await valid(auth, better_auth.key(name), "default")
                (await auth.running()).verifier.cache.clear()
            assert not await valid(auth, better_auth.key(name), "acme")
        assert (await found(auth, f"kb_{'y' * 40}")).code == "INVALID_API_KEY"


async def test_what_the_validator_says_of_our_own_keys_goes_on_to_hold(
    town: Open, better_auth: Source
) -> None:
    async with town(api_key(validator=lambda key: False)) as auth:
        app = await auth.running()
        await move(app, better_auth)
        made = await auth.api.create_api_key(CreateKey(user_id=(await person(app, "z@b.com")).id))
        assert (await found(auth, made.key or "")).code == "INVALID_API_KEY"


async def test_a_key_is_of_the_configuration_it_is_imported_for(town: Open) -> None:
    async with town(api_key(), api_key(config_id="web", prefix="web_")) as auth:
        app = await auth.running()
        ada = await person(app)
        for key, config in (("one", "default"), ("two", "web")):
            choices = Choices(owner=ada.id, config=config)
            await fromothers.move_unkey(call_of(app), [unkey(key)], choices)
            assert await valid(auth, key, config)
        assert not await valid(auth, "two", "default")


# --- organizations ---


def roles(**members: str) -> Callable[[str, str], Any]:
    async def role_in(organization: str, user: str) -> str | None:
        return members.get(f"{organization}_{user}")

    return role_in


@pytest.mark.parametrize("config", ["team", "staff"])
async def test_whom_the_app_says_manages_the_keys_of_an_organization(
    town: Open, better_auth: Source, config: str
) -> None:
    organization, ada = better_auth.given["organization"], better_auth.person("ada")
    role_in = roles(**{f"{organization}_{ada['id']}": "owner"})
    of_organizations = api_key(config_id=config, prefix="team_", role_in=role_in)
    async with town(api_key(), of_organizations) as auth:
        report = await move(await auth.running(), better_auth)
        [note] = [each.note for each in report.notes if "organization" in each.note]
        assert "config_id='team', role_in=" in note
        key, id = better_auth.key("team"), better_auth.id("team")
        session = await found(auth, key)
        assert (session.subject, session.id) == (ORGANIZATION + organization, id)
        assert await valid(auth, key, "team")
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
        base = "http://127.0.0.1:8000/api/auth/api-key"
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as at:
            owner = await log_in(at, ada["email"], ada["password"])
            grace = better_auth.person("grace")
            other = await log_in(at, grace["email"], grace["password"])
            query: dict[str, Any] = {"organizationId": organization}
            page = (await at.get(f"{base}/list", params=query, headers=owner)).json()
            assert [each["id"] for each in page["apiKeys"]] == [id]
            assert page["apiKeys"][0]["referenceId"] == organization
            assert (await at.get(f"{base}/list", params=query, headers=other)).status_code == 403
            for path in ("update", "rotate", "delete"):
                asked = {"keyId": id} | ({"name": "ours"} if path == "update" else {})
                answer = await at.post(f"{base}/{path}", json=asked, headers=other)
                assert answer.json()["code"] == "KEY_NOT_FOUND", path
                answer = await at.post(f"{base}/{path}", json=asked, headers=owner)
                assert answer.status_code == 200, answer.text
        assert (await found(auth, key)).code == "KEY_REVOKED"


def _with_one_of_both(source: Source) -> str:
    """An organization with the id of a user, as where each table counts from 1."""
    source.run(
        """INSERT INTO organization (id, name, slug, "createdAt")
        SELECT id, 'Both', 'both', "createdAt" FROM "user" WHERE email = 'ada@example.com';"""
    )
    return str(source.person("ada")["id"])


def _skipped(report: Report) -> dict[str, str]:
    return {each.id: each.reason for each in report.skipped if each.kind == "key"}


async def test_an_id_of_both_is_nobodys_unless_the_configuration_is_named(
    auth: Auth, app: App, better_auth: Source
) -> None:
    ada = _with_one_of_both(better_auth)
    skipped = _skipped(await move(app, better_auth))
    for name in ("plain", "full"):
        assert "--organization-config" in skipped[better_auth.id(name)]
    named = frozenset({"team"})
    skipped = _skipped(await move(app, better_auth, organization_configs=named))
    assert set(skipped) == {better_auth.id("gone"), better_auth.id("bad_name")}
    assert (await found(auth, better_auth.key("plain"))).subject == ada
    team = await auth.api.get_api_key(GetKey(id=better_auth.id("team")))
    assert team.reference_id == better_auth.given["organization"]


async def test_where_there_is_no_table_of_organizations_that_is_told(
    app: App, better_auth: Source
) -> None:
    better_auth.run("DROP TABLE member; DROP TABLE invitation; DROP TABLE organization;")
    report = await move(app, better_auth, keys_only=True, names={"user": "nobody"})
    assert [each.count for each in report.notes if "'organization'" in each.note] == [1]


async def test_it_may_be_the_default_that_belongs_to_organizations(
    auth: Auth, app: App, better_auth: Source
) -> None:
    ada = _with_one_of_both(better_auth)
    report = await move(app, better_auth, organization_configs=frozenset({"default"}))
    assert (await found(auth, better_auth.key("plain"))).subject == ORGANIZATION + ada
    skipped = _skipped(report)
    assert skipped[better_auth.id("unlimited")] == "its owner is no organization there"
    assert skipped[better_auth.id("team")] == "its owner is no user here"


async def test_without_organizations_no_key_is_of_one(app: App, better_auth: Source) -> None:
    better_auth.run("DROP TABLE member; DROP TABLE invitation; DROP TABLE organization;")
    skipped = _skipped(await move(app, better_auth, dry_run=True))
    assert skipped[better_auth.id("team")] == "its owner is no user here"
    with pytest.raises(Misuse, match="--table organization=NAME"):
        await move(app, better_auth, organization_configs=frozenset({"team"}))


async def test_a_configuration_has_rules_that_the_app_says(app: App, better_auth: Source) -> None:
    better_auth.run("UPDATE apikey SET \"configId\" = 'web' WHERE name = 'deploy';")
    report = await move(app, better_auth)
    [note] = [each.note for each in report.notes if "'web'" in each.note]
    assert note.startswith("what its configuration says")


async def test_keys_that_name_nobody_may_be_an_organizations(auth: Auth, app: App) -> None:
    report = await fromothers.move_unkey(
        call_of(app), [unkey("one")], Choices(owner="organization:acme")
    )
    assert (report.keys.imported, report.skipped) == (1, [])
    assert (await found(auth, "one")).subject == "organization:acme"


async def test_no_row_names_an_organization(app: App) -> None:
    line = unkey("one", externalId="organization:acme")
    for keys_only in (False, True):
        report = await fromothers.move_unkey(call_of(app), [line], Choices(keys_only=keys_only))
        assert [each.reason for each in report.skipped] == [
            "its owner has an id as organizations have here: --owner alone names one"
        ]


async def test_an_export_takes_them_along(app: App, better_auth: Source) -> None:
    await move(app, better_auth)
    text = [line async for line in leaving.export(call_of(app), hashes=True)]
    assert f'"ownerId":"{ORGANIZATION}'.encode() in b"".join(text)
    report = await leaving.move(call_of(app), text, dry_run=True)
    assert report.keys.present == 7
    assert "owner" not in str(report.notes)
