"""What a second run tells from the first, and from another database whose ids are the same."""

from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from keybearer import Auth
from keybearer.adapters.sql.origins import open_origin
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions, users
from keybearer.domain.model import Refusal
from keybearer.operations import fromdjango, people, upkeep
from keybearer.operations.app import App
from keybearer.operations.arriving import Choices
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.moving import Count, Report
from tests.moving.conftest import Source, move
from tests.people import StandingClock, call_of

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
