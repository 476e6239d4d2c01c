"""A database that the real Better Auth made moves in, and goes on to work."""

import os
import sqlite3
import unicodedata
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql.origins import open_origin
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, metadata, users
from keybearer.domain.errors import Failure, Misuse, Unavailable
from keybearer.domain.model import ANONYMOUS, ORGANIZATION, Refusal, Session
from keybearer.operations import betterauth
from keybearer.operations.app import App
from keybearer.operations.keyends import RevokeKey, RotateKey
from keybearer.operations.keys import CreateKey, GetKey
from keybearer.operations.moving import Count
from keybearer.operations.verify import VerifyKey
from tests.moving import crowd
from tests.moving.conftest import Source, move
from tests.people import SECRET, StandingClock, call_of, person

WITHOUT_OWNER = {
    True: """CREATE TABLE other AS SELECT * FROM apikey; DROP TABLE apikey;
        ALTER TABLE other RENAME TO apikey; UPDATE apikey SET "referenceId" = NULL;""",
    False: """ALTER TABLE apikey ALTER "referenceId" DROP NOT NULL;
        UPDATE apikey SET "referenceId" = NULL;""",
}
OLDER_OWNER = """ALTER TABLE apikey ADD "userId" text; UPDATE apikey SET "userId" = '{}';"""
DUMPED = sorted(set(metadata.tables) - {"nodes", "coherence", "invalidations"})


async def rows(app: App, table: str) -> list[tuple[Any, ...]]:
    found = await app.database.read(lambda tx: tx.all(select(metadata.tables[table])))
    return sorted((tuple(row) for row in found), key=repr)  # type: ignore[arg-type]


async def dump(app: App) -> dict[str, list[tuple[Any, ...]]]:
    return {table: await rows(app, table) for table in DUMPED}


async def verdict(app: App, key: str, *, header: bool = False) -> Any:
    name, value = (b"x-api-key", b"") if header else (b"authorization", b"Bearer ")
    return await app.verifier.verify([(name, value + key.encode())], "203.0.113.7")


async def accepted(auth: Auth, key: str) -> bool:
    answer = await auth.api.verify_api_key(VerifyKey(key=key, cost=0))
    return answer.valid


async def log_in(client: httpx2.AsyncClient, email: str, password: str) -> int:
    asked = {"email": email, "password": password}
    return (await client.post("/api/auth/login", json=asked)).status_code


# --- keys ---


async def test_keys_work_at_once_as_they_are(auth: Auth, app: App, better_auth: Source) -> None:
    report = await move(app, better_auth)
    assert report.keys == Count(found=9, imported=7, present=0, skipped=2)
    for name in ("plain", "full", "unlimited", "like_ours"):
        key = better_auth.key(name)
        for header in (False, True):
            found = await verdict(app, key, header=header)
            assert isinstance(found, Session), name
            assert found.id == better_auth.id(name)
        assert await verdict(app, key[:-1] + "_", header=True) == Refusal(code="INVALID_API_KEY")
    assert (await verdict(app, better_auth.key("disabled"))).code == "KEY_DISABLED"
    assert (await verdict(app, better_auth.key("banned"))).code == "OWNER_DISABLED"
    assert not await accepted(auth, better_auth.key("gone"))
    assert not await accepted(auth, better_auth.key("bad_name"))


async def test_a_key_brings_all_that_it_was(auth: Auth, app: App, better_auth: Source) -> None:
    await move(app, better_auth)
    key = await auth.api.get_api_key(GetKey(id=better_auth.id("full")))
    assert key.name == "deploy"
    assert (key.prefix, key.start) == ("acme_", better_auth.key("full")[:6])
    assert key.permissions == {"deploy": ["run"], "files": ["read", "write"]}
    assert key.metadata == {"plan": "pro", "seats": [1, 2, {"three": None}]}
    assert (key.remaining, key.refill_amount, key.refill_interval) == (4, 10, 3_600_000)
    limit = (key.rate_limit_enabled, key.rate_limit_max, key.rate_limit_time_window)
    assert limit == (True, 7, 60_000)
    assert key.expires_at is not None
    assert key.expires_at.startswith("2027-09-24T11:43:")
    assert key.created_at.startswith("2026-11-28T11:43:")
    assert key.last_request is not None
    assert key.reference_id == better_auth.person("ada")["id"]
    unlimited = await auth.api.get_api_key(GetKey(id=better_auth.id("unlimited")))
    assert not unlimited.rate_limit_enabled
    assert unlimited.expires_at is None


async def test_our_digest_takes_the_place_of_theirs_at_the_first_use(
    app: App, better_auth: Source
) -> None:
    await move(app, better_auth)
    key = better_auth.key("plain")

    async def digest() -> tuple[bytes, str]:
        where = api_key_secrets.c.key_id == better_auth.id("plain")
        row = await app.database.read(lambda tx: tx.one(select(api_key_secrets).where(where)))
        assert row is not None
        return bytes(row.digest), row.pepper_id

    assert (await digest())[0].startswith(b"sha256:")
    assert isinstance(await verdict(app, key), Session)
    assert await digest() == (app.ring.digest(key.encode()), app.ring.newest.id)
    app.verifier.cache.clear()
    assert isinstance(await verdict(app, key), Session)


async def test_a052_the_digest_itself_opens_nothing(app: App, better_auth: Source) -> None:
    await move(app, better_auth)
    stored = crowd.digest_of(better_auth.key("plain"))
    for text in (stored, f"sha256:{stored}"):
        assert isinstance(await verdict(app, text), Refusal)
        assert isinstance(await verdict(app, text, header=True), Refusal)


async def test_a077_a_revoked_one_is_refused_at_once(
    auth: Auth, app: App, better_auth: Source
) -> None:
    await move(app, better_auth)
    key = better_auth.key("plain")
    assert isinstance(await verdict(app, key), Session)
    await auth.api.revoke_api_key(RevokeKey(key_id=better_auth.id("plain")))
    assert (await verdict(app, key)).code == "KEY_REVOKED"
    # Never used here, and revoked: its own digest is still that of a revoked key.
    await auth.api.revoke_api_key(RevokeKey(key_id=better_auth.id("unlimited")))
    assert (await verdict(app, better_auth.key("unlimited"))).code == "KEY_REVOKED"


async def test_a_rotated_one_gets_a_secret_of_ours(
    auth: Auth, app: App, better_auth: Source
) -> None:
    await move(app, better_auth)
    made = await auth.api.rotate_api_key(RotateKey(key_id=better_auth.id("full"), grace_period=60))
    assert made.key is not None
    assert made.key.startswith("kb_")
    assert (made.prefix, made.start) == ("kb_", made.key[:7])
    assert await accepted(auth, made.key)
    assert await accepted(auth, better_auth.key("full"))  # in its grace


async def test_who_serves_finds_them_as_soon_as_the_import_has_answered(
    ready_url: str, better_auth: Source
) -> None:
    key = better_auth.key("plain")
    serving = Auth(ready_url, secret=SECRET)
    beside = Auth(ready_url, secret=SECRET, serving=False)
    async with serving.lifespan(), beside.lifespan():
        app = await serving.running()
        assert await verdict(app, key, header=True) == Refusal(code="INVALID_API_KEY")
        await move(await beside.running(), better_auth)
        assert isinstance(await verdict(app, key, header=True), Session)


async def test_a050_what_is_no_key_costs_a_read_only_where_something_was_imported(
    app: App, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.verifier.lease.hold()
    await verdict(app, "a" * 32)  # an unknown session token: now it is known that nothing came
    reads = 0
    read = app.database.read
    ours = ContextVar("ours", default=False)  # the work beside the requests reads, too
    ours.set(True)

    async def counted(body: Any) -> Any:
        nonlocal reads
        reads += ours.get()
        return await read(body)

    monkeypatch.setattr(app.database, "read", counted)
    for text in ("garbage", "kb_garbage", "x" * 64):
        assert await verdict(app, text, header=True) == Refusal(code="INVALID_API_KEY")
    assert reads == 0
    monkeypatch.setattr(app.database, "read", read)
    await move(app, better_auth)
    await verdict(app, "something")
    monkeypatch.setattr(app.database, "read", counted)
    for number, text in enumerate(("garbage", "kb_garbage", "x" * 64), start=1):
        assert await verdict(app, text, header=True) == Refusal(code="INVALID_API_KEY")
        assert reads == number
    # What only our own credentials look like is never asked for.
    for text in ("kbr_garbage", "kbs_garbage"):
        assert isinstance(await verdict(app, text, header=True), Refusal)
    assert reads == 3


async def test_a_key_of_ours_is_none_that_came_from_elsewhere(
    ready_url: str, better_auth: Source
) -> None:
    former = Auth(ready_url, secret=SECRET, key_prefix="old_,mk_")
    async with former.lifespan():
        app = await former.running()
        ours = (await former.api.create_api_key(CreateKey(user_id=(await person(app)).id))).key
        assert ours is not None
        assert isinstance(await verdict(app, ours), Session)
    now = Auth(ready_url, secret=SECRET)
    async with now.lifespan():
        app = await now.running()
        assert isinstance(await verdict(app, ours, header=True), Refusal)  # its prefix is gone
        await move(app, better_auth)
        assert isinstance(await verdict(app, ours, header=True), Refusal)
        assert isinstance(await verdict(app, better_auth.key("unlimited"), header=True), Session)


# --- people ---


async def test_a145_passwords_open_at_once_and_are_hashed_anew(
    app: App, client: httpx2.AsyncClient, better_auth: Source
) -> None:
    report = await move(app, better_auth)
    assert report.users == Count(found=4, imported=4, present=0, skipped=0)
    for name in ("ada", "grace"):
        who = better_auth.person(name)
        assert await log_in(client, who["email"], "not " + who["password"]) == 401
        assert (await _hash(app, who["id"])).startswith("$scrypt$ln=14,r=16,p=1$")
        assert await log_in(client, who["email"].upper(), who["password"]) == 200
        assert (await _hash(app, who["id"])).startswith("$argon2id$")
        assert await log_in(client, who["email"], who["password"]) == 200
    mallory = better_auth.person("mallory")
    assert await log_in(client, mallory["email"], mallory["password"]) == 403
    assert await log_in(client, "only@example.com", "") == 401


async def _hash(app: App, id: str) -> str:
    where = users.c.id == id
    row = await app.database.read(lambda tx: tx.one(select(users).where(where)))
    assert row is not None
    return str(row.password_hash)


async def test_nobody_takes_as_long_as_whoever_comes_next(
    app: App, client: httpx2.AsyncClient, better_auth: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(app, better_auth)
    told: list[tuple[str | None, str | None]] = []
    verify = app.hasher.verify

    async def noted(hashed: str | None, password: str, *, like: str | None = None) -> bool:
        told.append((hashed, like))
        return await verify(hashed, password, like=like)

    monkeypatch.setattr(app.hasher, "verify", noted)
    grace = better_auth.person("grace")
    password = unicodedata.normalize("NFKC", grace["password"])
    # The right password of whoever comes next opens nothing.
    assert await log_in(client, "bob@example.com", password) == 401
    assert await log_in(client, "zoe@example.com", password) == 401
    assert told == [(None, await _hash(app, grace["id"])), (None, None)]


async def test_logins_go_on_where_that_is_wanted(
    app: App, client: httpx2.AsyncClient, better_auth: Source
) -> None:
    token = better_auth.person("ada")["token"]
    headers = {"authorization": f"Bearer {token}"}
    assert (await move(app, better_auth)).sessions == Count()
    assert (await client.get("/api/auth/get-session", headers=headers)).status_code != 200
    report = await move(app, better_auth, sessions=True)
    assert report.sessions == Count(found=3, imported=3, present=0, skipped=0)
    answer = await client.get("/api/auth/get-session", headers=headers)
    assert answer.json()["user"]["email"] == "ada@example.com"
    banned = better_auth.person("mallory")["token"]
    assert (await verdict(app, banned)).code == "SESSION_ENDED"


# --- the import itself ---


async def test_a_dry_run_tells_the_same_and_writes_nothing(app: App, better_auth: Source) -> None:
    before = await dump(app)
    dry = await move(app, better_auth, sessions=True, dry_run=True)
    assert await dump(app) == before
    assert dry.dry_run
    real = await move(app, better_auth, sessions=True)
    assert (dry.users, dry.keys, dry.sessions) == (real.users, real.keys, real.sessions)
    assert (dry.skipped, dry.notes) == (real.skipped, real.notes)


async def test_a_second_run_changes_nothing(
    app: App, client: httpx2.AsyncClient, better_auth: Source
) -> None:
    await move(app, better_auth, sessions=True)
    ada = better_auth.person("ada")
    await verdict(app, better_auth.key("plain"))
    assert await log_in(client, ada["email"], ada["password"]) == 200
    await app.verifier.usage.flush(app.clock.now())
    before = await dump(app)
    again = await move(app, better_auth, sessions=True)
    assert await dump(app) == before
    assert again.users == Count(found=4, imported=0, present=4, skipped=0)
    assert again.keys == Count(found=9, imported=0, present=7, skipped=2)
    assert again.sessions == Count(found=3, imported=0, present=3, skipped=0)


async def test_what_cannot_come_is_told_with_its_id(app: App, better_auth: Source) -> None:
    report = await move(app, better_auth)
    reasons = {each.id: each.reason for each in report.skipped}
    assert reasons == {
        better_auth.id("gone"): "its owner is no user here",
        better_auth.id("bad_name"): reasons[better_auth.id("bad_name")],
    }
    assert "resource" in reasons[better_auth.id("bad_name")]
    assert [(each.count, each.note.partition(":")[0]) for each in report.notes] == [
        (1, "a role"), (1, "no password"), (1, "who manages the keys of an organization"),
    ]  # fmt: skip


async def test_the_trail_tells_of_each(app: App, better_auth: Source) -> None:
    from keybearer.adapters.sql import audit

    await move(app, better_auth)
    count, faults = await app.database.read(lambda tx: audit.verify(tx, app.ring))
    assert faults == []
    events = await app.database.read(lambda tx: audit.newest(tx, limit=100))
    told = sorted(event.event for event in events)
    assert told == ["import.finished"] + ["key.imported"] * 7 + ["user.imported"] * 4
    assert count == len(told)
    mine = better_auth.person("ada")["id"]
    assert {e.target_id for e in events if e.owner_id == mine} == {
        mine, better_auth.id("plain"), better_auth.id("full"),
    }  # fmt: skip


async def test_somebody_elses_address_is_left_alone(app: App, better_auth: Source) -> None:
    ours = await person(app, "ada@example.com")
    report = await move(app, better_auth, sessions=True)
    ada = better_auth.person("ada")["id"]
    skipped = {(each.kind, each.id): each.reason for each in report.skipped}
    assert skipped["user", ada] == "the address is another user's here"
    assert skipped["key", better_auth.id("plain")] == "its owner is no user here"
    assert "its user did not come" in skipped.values()
    assert (await _hash(app, ours.id)).startswith("$argon2id$")


async def test_two_rows_that_say_the_same_are_one(app: App, better_auth: Source) -> None:
    better_auth.run(
        """UPDATE apikey SET key = (SELECT key FROM apikey AS other WHERE other.name = 'deploy')
        WHERE name = 'no limit';"""
    )
    report = await move(app, better_auth)
    assert [each.reason for each in report.skipped].count("another row says the same") == 1
    # And whoever was here before keeps the secret.
    better_auth.run("UPDATE apikey SET id = 'another' WHERE name = 'deploy';")
    report = await move(app, better_auth)
    reasons = {each.id: each.reason for each in report.skipped}
    same = {"another key here has the same secret", "another row says the same"}
    assert reasons["another"] in same


async def test_only_the_operator_imports(app: App, better_auth: Source) -> None:
    async with open_origin(better_auth.url) as origin:
        call = call_of(app, ANONYMOUS)
        with pytest.raises(Failure, match="ADMIN_REQUIRED"):
            await betterauth.move(call, origin, betterauth.Choices())


async def test_keys_alone_move_to_an_app_that_keeps_its_users(
    ready_url: str, better_auth: Source, clock: StandingClock
) -> None:
    host = Auth(ready_url, secret=SECRET, accounts=False, clock=clock)
    async with host.lifespan():
        app = await host.running()
        report = await move(app, better_auth, keys_only=True)
        assert (report.users.found, report.keys.imported) == (0, 7)
        found = await verdict(app, better_auth.key("team"))
        assert isinstance(found, Session)
        assert found.subject == ORGANIZATION + better_auth.given["organization"]
        told = {each.id: each.reason for each in report.skipped}
        assert told[better_auth.id("gone")] == "its owner is no user there"
        assert (await verdict(app, better_auth.key("banned"))).code == "KEY_DISABLED"
        assert any("who is banned" in each.note for each in report.notes)


async def test_keys_alone_come_as_they_are_where_there_are_no_users(
    app: App, better_auth: Source
) -> None:
    better_auth.run(
        """DELETE FROM session; DELETE FROM account; DELETE FROM member; DELETE FROM invitation;
        ALTER TABLE "user" RENAME TO people;"""
    )
    report = await move(app, better_auth, keys_only=True)
    assert report.keys.imported == 8
    keys = await app.database.read(lambda tx: tx.all(select(api_keys.c.id, api_keys.c.enabled)))
    assert {better_auth.id("gone"): True, better_auth.id("banned"): True}.items() <= {
        row.id: row.enabled for row in keys
    }.items()


@pytest.mark.parametrize("column", [False, True], ids=["no userId", "userId"])
async def test_a_key_that_names_no_owner_is_nobodys(
    app: App, better_auth: Source, column: bool
) -> None:
    ada, id = better_auth.person("ada")["id"], better_auth.id("plain")
    better_auth.run(WITHOUT_OWNER[better_auth.url.startswith("sqlite")])
    if column:
        better_auth.run(OLDER_OWNER.format(ada))
    report = await move(app, better_auth, keys_only=True)
    reasons = {each.id: each.reason for each in report.skipped}
    if column:
        keys = await app.database.read(lambda tx: tx.all(select(api_keys.c.owner_id)))
        assert {row.owner_id for row in keys} == {ada}
    else:
        assert reasons[id] == "it names no owner"
        assert report.keys.imported == 0


async def test_keys_that_were_stored_as_they_are(app: App, better_auth: Source) -> None:
    plain = "OpenSesame" * 5
    change = "UPDATE apikey SET key = '{}' WHERE name = 'no limit';"
    better_auth.run(change.format(plain))
    report = await move(app, better_auth, dry_run=True)
    assert any("--plain-keys" in each.reason for each in report.skipped)
    await move(app, better_auth, plain_keys=True)
    assert isinstance(await verdict(app, plain), Session)
    secrets = str(await rows(app, "api_key_secrets"))
    assert plain not in secrets


async def test_tables_may_have_other_names(app: App, better_auth: Source) -> None:
    better_auth.run('ALTER TABLE apikey RENAME TO api_keys; ALTER TABLE "user" RENAME TO users;')
    with pytest.raises(Misuse, match="--table user=NAME"):
        await move(app, better_auth)
    report = await move(app, better_auth, names={"apikey": "api_keys", "user": "users"})
    assert (report.users.imported, report.keys.imported) == (4, 7)


async def test_a_crowd_comes_in_batches(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keybearer.operations.moving.BATCH", 20)
    path = tmp_path / "crowd.db"
    crowd.build(path, 200, 700)
    source = Source(f"sqlite:///{path}", {})
    report = await move(app, source)
    assert (report.users.imported, report.keys.imported) == (200, 700)
    for n in (0, 499, 699):
        assert isinstance(await verdict(app, crowd.key_of(n)), Session)


# --- where it lies ---


@pytest.mark.parametrize("url", ["mysql://somewhere/db", "sqlite:////nowhere/at/all.db"])
async def test_what_cannot_be_opened_is_told(url: str) -> None:
    with pytest.raises(Misuse):
        async with open_origin(url):
            pass


async def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(os.urandom(8_192))
    with pytest.raises(Unavailable, match="cannot be read"):
        async with open_origin(f"sqlite:///{tmp_path / 'broken.db'}") as origin:
            await origin.tables()


async def test_nothing_of_theirs_is_written(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    crowd.build(path, 1, 1)
    before = path.read_bytes()
    async with open_origin(f"sqlite:///{path}") as origin:
        assert "apikey" in await origin.tables()
        assert [len(page) async for page in origin.pages("apikey")] == [1]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["theirs.db"]
    sqlite3.connect(path).close()
