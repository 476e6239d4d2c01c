"""What a second run tells from the first, and from another database whose ids are the same."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from keybearer import Auth
from keybearer.adapters.sql import audit
from keybearer.adapters.sql.origins import open_origin
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions, users
from keybearer.domain.errors import Failure
from keybearer.domain.model import Refusal, Session
from keybearer.operations import fromdjango, leaving, people, upkeep
from keybearer.operations.app import App
from keybearer.operations.arriving import Choices
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey, GetKey
from keybearer.operations.moving import Count, Report
from tests.moving.conftest import Source, move
from tests.people import StandingClock, call_of, person

OTHER_ADDRESS = "UPDATE \"user\" SET email = 'else@example.com' WHERE id = '{}'"
OTHER_OWNER = "UPDATE apikey SET \"referenceId\" = 'seven' WHERE id = '{}'"
ANOTHER = "that id is another user's here"
DJANGO = """
CREATE TABLE auth_user (id integer PRIMARY KEY, password text, email text, date_joined text);
CREATE TABLE knox_authtoken (digest text, token_key text, user_id integer, created text);
INSERT INTO auth_user VALUES (1, '!', '{name}@example.com', '2026-0{month}-01T10:00:00Z');
INSERT INTO knox_authtoken VALUES ('{digest}', 'abcd', 1, '2026-0{month}-02T10:00:00Z');
"""


def django(tmp_path: Path, name: str, month: int) -> Source:
    source = Source(f"sqlite:///{tmp_path / name}.db", {})
    source.run(DJANGO.format(name=name, month=month, digest=str(month) * 128))
    return source


async def of_django(app: App, source: Source, **choices: Any) -> Report:
    async with open_origin(source.url) as origin:
        return await fromdjango.move(call_of(app), origin, Choices(**choices))


async def verdict(app: App, key: str) -> Any:
    return await app.verifier.verify([(b"x-api-key", key.encode())], "203.0.113.7")


def reasons(report: Report) -> dict[tuple[str, str], str]:
    return {(each.kind, each.id): each.reason for each in report.skipped}


# --- ids that are somebody else's ---


async def test_an_id_that_two_databases_have_is_one_persons(app: App, tmp_path: Path) -> None:
    await of_django(app, django(tmp_path, "alice", 1))
    report = await of_django(app, django(tmp_path, "bob", 2))
    assert report.users == Count(found=1, imported=0, present=0, skipped=1)
    assert report.keys == Count(found=1, imported=0, present=0, skipped=1)
    told = [(each.kind, each.reason) for each in report.skipped]
    assert told == [("user", ANOTHER), ("key", "its owner is no user here")]
    keys = await app.database.read(lambda tx: tx.all(select(api_keys.c.owner_id)))
    assert len(keys) == 1


async def test_whoever_has_another_address_by_now_is_the_same(app: App, tmp_path: Path) -> None:
    source = django(tmp_path, "alice", 1)
    await of_django(app, source)
    source.run("UPDATE auth_user SET email = 'new@example.com'")
    report = await of_django(app, source)
    assert (report.users.present, report.keys.present, report.skipped) == (1, 1, [])


async def test_the_same_address_is_the_same_wherever_it_came_from(
    app: App, better_auth: Source
) -> None:
    await move(app, better_auth)
    await app.database.write(lambda tx: tx.run(delete(_imported())))
    assert (await move(app, better_auth)).users.present == 4
    ada = better_auth.person("ada")["id"]
    better_auth.run(OTHER_ADDRESS.format(ada))
    report = await move(app, better_auth, sessions=True)
    told = reasons(report)
    assert told["user", ada] == ANOTHER
    assert told["key", better_auth.id("plain")] == "its owner is no user here"
    assert "its user did not come" in told.values()


def _imported() -> Any:
    from keybearer.adapters.sql.tables import imported

    return imported


async def test_an_owner_who_is_gone_there_is_nobody_of_that_id_here(
    app: App, tmp_path: Path, better_auth: Source
) -> None:
    gone = better_auth.given["keys"]["gone"]["id"]
    owner = _reference_of(better_auth, gone)

    async def body(tx: Any) -> None:
        values = {
            "id": owner, "email": "x@example.com", "name": "X", "role": "user", "created_at": 1,
            "updated_at": 1,
        }  # fmt: skip
        await tx.run_many(users.insert(), [values])

    await app.database.write(body)
    told = reasons(await move(app, better_auth))
    assert told["key", gone] == "its owner is no user here"


def _reference_of(source: Source, id: str) -> str:
    """Makes an owner of a key known by name."""
    source.run(OTHER_OWNER.format(id))
    return "seven"


async def test_an_id_of_another_key_is_not_the_same(app: App, better_auth: Source) -> None:
    await move(app, better_auth, sessions=True)
    id = better_auth.id("plain")

    async def body(tx: Any) -> None:
        await tx.run(api_key_secrets.delete().where(api_key_secrets.c.key_id == id))
        await tx.run(api_keys.update().where(api_keys.c.id == id).values(created_at=5))
        await tx.run(sessions.update().values(created_at=5, token_digest=None))

    await app.database.write(body)
    report = await move(app, better_auth, sessions=True)
    assert reasons(report)["key", id] == "that id is another key's here"
    assert report.sessions == Count(found=3, imported=0, present=0, skipped=3)
    assert {each.reason for each in report.skipped if each.kind == "session"} == {
        "that id is another session's here"
    }


# --- what was deleted here ---


async def test_what_was_deleted_here_does_not_come_back(
    auth: Auth, app: App, better_auth: Source, clock: StandingClock
) -> None:
    await move(app, better_auth, sessions=True)
    ada, plain = better_auth.person("ada")["id"], better_auth.id("plain")
    unlimited = better_auth.id("unlimited")
    await people.delete(call_of(app), ada)
    await auth.api.revoke_api_key(RevokeKey(key_id=unlimited))
    clock.advance(app.settings.key_retention + upkeep.SESSIONS_KEPT_MS + 1_000)
    await upkeep.forget_ended(app)
    for dry_run in (True, False):
        told = reasons(await move(app, better_auth, sessions=True, dry_run=dry_run))
        assert told["user", ada] == "it was here, and was deleted"
        assert told["key", unlimited] == "it was here, and was deleted"
        assert told["key", plain] == "its owner is no user here"
    assert isinstance(await verdict(app, better_auth.key("unlimited")), Refusal)


# --- what was ended there ---

DISABLE = """UPDATE "user" SET banned = {true} WHERE id = '{ada}';
UPDATE apikey SET enabled = {false} WHERE id = '{plain}';
UPDATE apikey SET "expiresAt" = '2020-01-01T00:00:00.000Z' WHERE id = '{unlimited}';
UPDATE apikey SET "expiresAt" = '2027-03-01T00:00:00.000Z' WHERE id = '{full}';
"""


def end_there(source: Source) -> None:
    lite = source.url.startswith("sqlite")
    names = ("plain", "unlimited", "full")
    source.run(
        DISABLE.format(
            true="1" if lite else "true", false="0" if lite else "false",
            ada=source.person("ada")["id"], **{name: source.id(name) for name in names},
        )
    )  # fmt: skip


async def test_what_was_ended_there_is_told_and_ended_if_wanted(
    auth: Auth, app: App, better_auth: Source
) -> None:
    assert (await move(app, better_auth)).ended == []
    end_there(better_auth)
    for choices in ({}, {"endings": True, "dry_run": True}):
        report = await move(app, better_auth, **choices)
        assert {(each.kind, each.id): each.what for each in report.ended} == {
            ("user", better_auth.person("ada")["id"]): "disabled",
            ("key", better_auth.id("plain")): "disabled",
            ("key", better_auth.id("unlimited")): "expired",
            ("key", better_auth.id("full")): "expires sooner",
        }
        assert not any(each.carried for each in report.ended)
        assert isinstance(await verdict(app, better_auth.key("plain")), Session)
    report = await move(app, better_auth, endings=True)
    assert [each.carried for each in report.ended] == [True] * 4
    assert (await verdict(app, better_auth.key("unlimited"))).code == "KEY_DISABLED"
    plain = await verdict(app, better_auth.key("plain"))
    assert plain.code in ("OWNER_DISABLED", "KEY_DISABLED")
    full = await auth.api.get_api_key(GetKey(id=better_auth.id("full")))
    assert (full.expires_at or "").startswith("2027-03-01")
    assert (await move(app, better_auth, endings=True)).ended == []


async def test_what_the_rules_refuse_stays_told(
    app: App, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(app, better_auth)
    end_there(better_auth)

    async def refuse(*_: object) -> None:
        raise Failure("KEY_NOT_UPDATABLE")

    monkeypatch.setattr("keybearer.operations.endings.update_api_key", refuse)
    report = await move(app, better_auth, endings=True)
    assert sorted((each.what, each.carried) for each in report.ended) == [
        ("disabled", False), ("disabled", True), ("expired", False), ("expires sooner", False),
    ]  # fmt: skip


async def test_a_key_that_was_revoked_there_is_revoked_here(auth: Auth, app: App) -> None:
    ada = await person(app)
    made = await auth.api.create_api_key(CreateKey(user_id=ada.id))
    before = [line async for line in leaving.export(call_of(app), hashes=True)]
    await auth.api.revoke_api_key(RevokeKey(key_id=made.id))
    after = [line async for line in leaving.export(call_of(app), hashes=True)]
    assert (await leaving.move(call_of(app), before, dry_run=False)).ended == []

    async def body(tx: Any) -> None:
        await tx.run(api_keys.update().values(revoked_at=None))

    await app.database.write(body)
    report = await leaving.move(call_of(app), after, dry_run=False, endings=True)
    assert [(each.what, each.carried) for each in report.ended] == [("revoked", True)]
    assert (await verdict(app, made.key or "")).code == "KEY_REVOKED"


# --- whoever was first with an address ---


async def test_whoever_has_not_proven_the_address_makes_room(
    auth: Auth, app: App, better_auth: Source
) -> None:
    ada = better_auth.person("ada")["id"]
    squatter = await person(app, "ada@example.com", verified=False)
    assert reasons(await move(app, better_auth))["user", ada] == (
        "the address is another user's here, who has not proven it"
    )
    dry = await move(app, better_auth, replace_unverified=True, dry_run=True)
    assert ("user", ada) not in reasons(dry)
    assert (await people.find(call_of(app), "ada@example.com")).id == squatter.id
    real = await move(app, better_auth, replace_unverified=True)
    assert (dry.users, dry.keys) == (real.users, real.keys)
    assert (await people.find(call_of(app), "ada@example.com")).id == ada
    told = await app.database.read(lambda tx: audit.newest(tx, limit=50))
    assert ("user.deleted", squatter.id) in {(each.event, each.target_id) for each in told}
    assert isinstance(await verdict(app, better_auth.key("plain")), Session)


@pytest.mark.parametrize("why", ["verified", "keys"])
async def test_whoever_has_proven_it_or_has_keys_stays(
    auth: Auth, app: App, better_auth: Source, why: str
) -> None:
    ours = await person(app, "ada@example.com", verified=why == "verified")
    if why == "keys":
        await auth.api.create_api_key(CreateKey(user_id=ours.id))
    report = await move(app, better_auth, replace_unverified=True)
    assert ("user", better_auth.person("ada")["id"]) in reasons(report)
    assert (await people.find(call_of(app), "ada@example.com")).id == ours.id


async def test_whoever_proves_it_at_the_last_moment_stays(
    app: App, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await person(app, "ada@example.com", verified=False)
    change = app.change

    async def proven_first(body: Any, tags: Any) -> Any:
        if "make_room" in body.__qualname__:
            where = users.update().where(users.c.id == ours.id)
            await app.database.write(lambda tx: tx.run(where.values(email_verified_at=1)))
        return await change(body, tags)

    monkeypatch.setattr(type(app), "change", lambda _, *asked: proven_first(*asked))
    report = await move(app, better_auth, replace_unverified=True)
    assert ("user", better_auth.person("ada")["id"]) in reasons(report)
    assert (await people.find(call_of(app), "ada@example.com")).id == ours.id


async def test_keys_of_an_export_stay_away_with_their_owner(auth: Auth, app: App) -> None:
    ada = await person(app)
    made = await auth.api.create_api_key(CreateKey(user_id=ada.id))
    text = [line async for line in leaving.export(call_of(app), hashes=True)]
    await people.delete(call_of(app), ada.id)
    await person(app)  # another with the same address

    async def forget(tx: Any) -> None:
        await tx.run(delete(api_key_secrets))
        await tx.run(delete(api_keys))

    await app.database.write(forget)
    told = reasons(await leaving.move(call_of(app), text, dry_run=False))
    assert told["user", ada.id] == "the address is another user's here"
    assert told["key", made.id] == "its owner did not come"


async def test_a_login_that_is_forgotten_here_does_not_come_back(
    app: App, better_auth: Source
) -> None:
    await move(app, better_auth, sessions=True)
    await app.database.write(lambda tx: tx.run(delete(sessions)))
    report = await move(app, better_auth, sessions=True)
    assert report.sessions == Count(found=3, imported=0, present=0, skipped=3)
    gone = {each.reason for each in report.skipped if each.kind == "session"}
    assert gone == {"it was here, and was deleted"}


async def test_a_ban_that_cannot_be_read_is_one(app: App, better_auth: Source) -> None:
    better_auth.run(
        """ALTER TABLE "user" RENAME COLUMN "banExpires" TO other;
        ALTER TABLE "user" ADD "banExpires" text; UPDATE "user" SET "banExpires" = 'once';"""
    )
    report = await move(app, better_auth, keys_only=True)
    assert any("who is banned" in each.note and each.count > 1 for each in report.notes)


async def test_whoever_signs_up_meanwhile_has_the_address(
    app: App, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await person(app, "ada@example.com")

    async def nobody(*_: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("keybearer.adapters.sql.arrivals.users_there", nobody)
    report = await move(app, better_auth)
    assert reasons(report)["user", better_auth.person("ada")["id"]] == (
        "the address is another user's here"
    )
    assert (await people.find(call_of(app), "ada@example.com")).id == ours.id


async def test_an_account_that_is_gone_by_itself_makes_room(
    app: App, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await person(app, "ada@example.com", verified=False)
    change = app.change

    async def gone_first(body: Any, tags: Any) -> Any:
        if "make_room" in body.__qualname__:
            await app.database.write(lambda tx: tx.run(delete(users).where(users.c.id == ours.id)))
        return await change(body, tags)

    monkeypatch.setattr(type(app), "change", lambda _, *asked: gone_first(*asked))
    report = await move(app, better_auth, replace_unverified=True)
    assert report.users.imported == 4
