"""What an export writes, another keybearer reads, whatever database either has."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql.database import migrate, open_database
from keybearer.adapters.sql.tables import api_key_secrets, metadata
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.model import ANONYMOUS, Refusal, Session
from keybearer.operations import leaving
from keybearer.operations.app import App
from keybearer.operations.keyends import RevokeKey, RotateKey
from keybearer.operations.keys import CreateKey
from keybearer.operations.moving import Count, Report
from keybearer.operations.verify import VerifyKey
from tests.moving.conftest import Source, move
from tests.people import PASSWORD, SECRET, StandingClock, call_of, person

HEAD = b'{"type":"head","keybearer":1,"exportedAt":"2026-11-18T11:06:40.000Z","hashes":false}'
APART = re.compile(rb'"type":"(event|end)"')
ROUND = ("users", "api_keys", "api_key_secrets", "usage")


@pytest.fixture
async def other(tmp_path: Path, clock: StandingClock) -> AsyncIterator[Auth]:
    """Another keybearer, on SQLite, with the same SECRET."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    database, _ = open_database(url)
    await migrate(database)
    await database.close()
    auth = Auth(url, secret=SECRET, clock=clock)
    async with auth.lifespan():
        yield auth


async def exported(app: App, *, hashes: bool = False) -> list[bytes]:
    return [line async for line in leaving.export(call_of(app), hashes=hashes)]


async def taken(auth: Auth, text: list[bytes], **options: Any) -> Report:
    app = await auth.running()
    return await leaving.move(call_of(app), text, **{"dry_run": False, **options})


async def rows(app: App, table: str) -> list[str]:
    found = await app.database.read(lambda tx: tx.all(select(metadata.tables[table])))
    return sorted(repr(sorted(row._mapping.items())) for row in found)


async def furnish(auth: Auth, app: App) -> dict[str, str]:
    """A user with keys of all sorts; the keys by name."""
    ada = await person(app)
    keys = {}
    for name in ("plain", "revoked", "rotated"):
        made = await auth.api.create_api_key(
            CreateKey(
                user_id=ada.id, name=name, permissions={"files": ["read"]}, metadata={"a": 1},
                ip_allow=["203.0.113.0/24"], remaining=5, refill_amount=5, refill_interval=60_000,
            )
        )  # fmt: skip
        keys[name] = made.key or ""
        await auth.api.verify_api_key(VerifyKey(key=keys[name], ip="203.0.113.7"))
        if name == "revoked":
            await auth.api.revoke_api_key(RevokeKey(key_id=made.id, reason="lost"))
        if name == "rotated":
            await auth.api.rotate_api_key(RotateKey(key_id=made.id, grace_period=600))
    await app.verifier.quota.end()
    await app.verifier.usage.flush(app.clock.now())
    return keys


async def valid(auth: Auth, key: str) -> bool:
    asked = VerifyKey(key=key, ip="203.0.113.7", cost=0)
    return (await auth.api.verify_api_key(asked)).valid


async def test_all_comes_back(auth: Auth, app: App, other: Auth) -> None:
    keys = await furnish(auth, app)
    text = await exported(app, hashes=True)
    report = await taken(other, text)
    assert report.users == Count(found=1, imported=1, present=0, skipped=0)
    assert report.keys == Count(found=3, imported=3, present=0, skipped=0)
    assert (report.skipped, report.notes) == ([], [])
    there = await other.running()
    for table in ("users", "usage"):
        assert await rows(there, table) == await rows(app, table)
    again = [line for line in await exported(there, hashes=True) if not APART.search(line)]
    assert again == [line for line in text if not APART.search(line)]
    assert await valid(other, keys["plain"])
    assert await valid(other, keys["rotated"])
    assert not await valid(other, keys["revoked"])


async def test_and_changes_nothing_the_second_time(auth: Auth, app: App, other: Auth) -> None:
    await furnish(auth, app)
    text = await exported(app, hashes=True)
    await taken(other, text)
    there = await other.running()
    before = [await rows(there, table) for table in (*ROUND, "audit")]
    report = await taken(other, text)
    assert [await rows(there, table) for table in (*ROUND, "audit")] == before
    assert (report.users.present, report.keys.present) == (1, 3)


async def test_without_hashes_nothing_of_them_is_written(auth: Auth, app: App, other: Auth) -> None:
    keys = await furnish(auth, app)
    text = await exported(app)
    written = b"\n".join(text).decode()
    assert all(key not in written for key in keys.values())
    assert "argon2" not in written
    assert "secrets" not in written
    report = await taken(other, text)
    assert sorted(note.note.partition(":")[0] for note in report.notes) == [
        "no digest", "no password",
    ]  # fmt: skip
    assert not await valid(other, keys["plain"])
    id = next(json.loads(line)["id"] for line in text if b'"name":"plain"' in line)
    made = await other.api.rotate_api_key(RotateKey(key_id=id))
    assert await valid(other, made.key or "")


async def test_a_dry_run_writes_nothing(auth: Auth, app: App, other: Auth) -> None:
    await furnish(auth, app)
    there = await other.running()
    report = await taken(other, await exported(app, hashes=True), dry_run=True)
    assert (report.users.imported, report.keys.imported) == (1, 3)
    for table in (*ROUND, "audit"):
        assert await rows(there, table) == []


async def test_keys_that_came_from_elsewhere_go_on(
    app: App, better_auth: Source, other: Auth
) -> None:
    await move(app, better_auth)
    used = (better_auth.key("full"), better_auth.key("like_ours"))
    for key in used:
        headers = [(b"x-api-key", key.encode())]
        assert isinstance(await app.verifier.verify(headers, None), Session)
    report = await taken(other, await exported(app, hashes=True))
    assert report.keys.imported == 7
    there = await other.running()
    for key in (*used, better_auth.key("unlimited")):
        found = await there.verifier.verify([(b"x-api-key", key.encode())], None)
        assert isinstance(found, Session)


async def test_one_that_looks_like_ours_does_so_too(
    app: App, better_auth: Source, other: Auth
) -> None:
    await move(app, better_auth)
    headers = [(b"x-api-key", better_auth.key("like_ours").encode())]
    assert isinstance(await app.verifier.verify(headers, None), Session)
    id = better_auth.id("like_ours").encode()
    text = [line for line in await exported(app, hashes=True) if b'"key"' not in line or id in line]
    assert (await taken(other, text)).keys.imported == 1
    there = await other.running()
    assert isinstance(await there.verifier.verify(headers, None), Session)


async def test_another_secret_is_told(
    auth: Auth, app: App, tmp_path: Path, clock: StandingClock
) -> None:
    keys = await furnish(auth, app)
    text = await exported(app, hashes=True)
    stranger = Auth(f"sqlite:///{tmp_path / 'stranger.db'}", secret=SECRET[::-1], clock=clock)
    async with stranger.lifespan():
        report = await taken(stranger, text)
        assert [note.note for note in report.notes] == [
            "a digest under another SECRET: the key works once it is rotated"
        ]
        assert not await valid(stranger, keys["plain"])


async def test_keys_alone(auth: Auth, app: App, other: Auth) -> None:
    await furnish(auth, app)
    report = await taken(other, await exported(app, hashes=True), keys_only=True)
    assert (report.users.found, report.keys.imported, report.notes) == (0, 3, [])


async def test_the_password_opens(auth: Auth, app: App, other: Auth) -> None:
    await furnish(auth, app)
    await taken(other, await exported(app, hashes=True))
    there = await other.running()
    line = json.loads(next(x for x in await exported(there, hashes=True) if b'"user"' in x))
    assert await app.hasher.verify(line["passwordHash"], PASSWORD)


async def test_many_are_written_in_pages(
    auth: Auth, app: App, other: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnish(auth, app)
    monkeypatch.setattr("keybearer.adapters.sql.leaving.PAGE", 1)
    report = await taken(other, await exported(app, hashes=True))
    assert report.keys.imported == 3
    assert await rows(await other.running(), "usage") == await rows(app, "usage")


KEY = (
    '{"type":"key","id":"k","ownerId":"ann","configId":"default","prefix":"kb_","start":"kb_a",'
    '"createdAt":"2026-11-18T11:06:40.000Z","updatedAt":"2026-11-18T11:06:40.000Z",'
    '"createdBy":"ann"%s}'
)
USER = (
    '{"type":"user","id":"%s","email":"%s","name":"Ann","createdAt":"%s",'
    '"updatedAt":"2026-11-18T11:06:40.000Z"}'
)
AT = "2026-11-18T11:06:40.000Z"


@pytest.mark.parametrize(
    ("line", "sort", "reason"),
    [
        ("{", "line", "truncated"),
        ('{"type":"other"}', "line", "type"),
        (USER % ("a b", "a@example.com", AT), "user", "id is no id"),
        (USER % ("a", "A@example.com", AT), "user", "normal form"),
        (USER % ("a", "a@example.com", "now"), "user", "instant"),
        (KEY % ',"ipAllow":["everywhere"]', "key", ""),
        (KEY % ',"metadata":{"a":{"b":{"c":{"d":{"e":{}}}}}}', "key", "metadata must be"),
        (KEY % ',"permissions":{"a":[]}', "key", "1 to"),
        (KEY % ',"secrets":[{"digest":"xy","pepperId":"p","createdAt":"%s"}]' % AT, "key", "hex"),
        ('{"type":"usage","keyId":"k","hour":"now","outcome":"accepted","n":1}', "line", "instant"),
    ],
)
async def test_a_broken_line_is_told(app: App, line: str, sort: str, reason: str) -> None:
    report = await leaving.move(call_of(app), [HEAD, b"", line.encode()], dry_run=True)
    (skipped,) = report.skipped
    assert skipped.kind == sort
    assert reason in skipped.reason


@pytest.mark.parametrize(
    "first", [b"nothing", b'{"type":"user"}', HEAD.replace(b":1,", b":2,"), USER.encode()]
)
async def test_what_is_no_export_is_told(app: App, first: bytes) -> None:
    with pytest.raises(Misuse, match="export"):
        await leaving.move(call_of(app), [first], dry_run=True)


async def test_a_key_of_nobody_here_is_told(app: App) -> None:
    report = await leaving.move(call_of(app), [HEAD, (KEY % "").encode()], dry_run=True)
    told = [note.note for note in report.notes]
    assert "the key of an owner who is no user here" in told


async def test_usage_of_a_key_that_is_not_here_is_left(app: App) -> None:
    line = b'{"type":"usage","keyId":"k","hour":"2026-11-18T11:00:00.000Z","outcome":"x","n":1}'
    event = (
        b'{"type":"event","id":"e","at":"2026-11-18T11:00:00.000Z","event":"x","outcome":"success",'
        b'"actorKind":"operator"}'
    )
    report = await leaving.move(call_of(app), [HEAD, line, event], dry_run=False)
    assert report.skipped == []
    assert await rows(app, "usage") == await rows(app, "audit") == []


async def test_only_the_operator_exports(app: App) -> None:
    with pytest.raises(Failure, match="ADMIN_REQUIRED"):
        await anext(leaving.export(call_of(app, ANONYMOUS), hashes=False))


async def test_a_digest_opens_nothing(auth: Auth, app: App, other: Auth) -> None:
    await furnish(auth, app)
    await taken(other, await exported(app, hashes=True))
    there = await other.running()
    digests = await there.database.read(lambda tx: tx.all(select(api_key_secrets.c.digest)))
    for row in digests:
        headers = [(b"x-api-key", bytes(row.digest).hex().encode())]
        assert isinstance(await there.verifier.verify(headers, None), Refusal)
