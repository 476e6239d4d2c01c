"""A row that nobody would write in earnest is told like any other, and ends no import."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select

from keybearer.adapters.sql.tables import api_keys, sessions, users
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Row, Transaction
from keybearer.operations import fromothers
from keybearer.operations.app import App
from keybearer.operations.arriving import Choices, read_row
from keybearer.operations.moving import Moving
from tests.moving.conftest import Source, move
from tests.moving.test_broken import KEY, SESSION, USER, build
from tests.people import call_of, person

DEEP = '{"a":' * 3000 + "1" + "}" * 3000
CHANGED = "UPDATE apikey SET \"expiresAt\" = '{}' WHERE name = 'deploy'"
HOSTILE = [
    ("key", KEY.format("metadata = CAST(x'ff41' AS TEXT)"), "metadata must be"),
    ("key", KEY.format("name = CAST(x'ff41' AS TEXT)"), "name is no text in UTF-8"),
    ("key", KEY.format("key = CAST(x'ff41' AS TEXT)"), "key is no text in UTF-8"),
    ("key", KEY.format(f"metadata = '{DEEP}'"), "nested too deep"),
    ("key", KEY.format(f"permissions = '{DEEP}'"), ""),
    ("key", KEY.format("createdAt = 9e999"), "createdat is no instant"),
    ("key", KEY.format("expiresAt = 9e999"), "expiresat is no instant"),
    ("key", KEY.format("lastRequest = -9e999"), "lastrequest is no instant"),
    ("key", KEY.format("remaining = 9007199254740992"), "from 0 to 9007199254740991"),
    ("key", KEY.format("prefix = 'a' || char(0)"), "prefix has a NUL"),
    ("key", KEY.format("referenceId = 'a' || char(0)"), "referenceid is no id"),
    ("user", USER.format("image = 'https://a.example/' || char(0)"), "image has a NUL"),
    ("user", USER.format("name = CAST(x'c328' AS TEXT)"), "name is no text in UTF-8"),
    ("session", SESSION.format("userAgent = 'a' || char(0)"), "useragent has a NUL"),
    ("session", SESSION.format("ipAddress = printf('%.70000c', 'x')"), "more than 65536"),
]


async def all_of(table: Table, tx: Transaction) -> Sequence[Row]:
    return await tx.all(select(table))


@pytest.mark.parametrize("dry_run", [True, False])
async def test_all_others_come(app: App, tmp_path: Path, dry_run: bool) -> None:
    path = Path(build(tmp_path).url.removeprefix("sqlite:///"))
    whole = path.read_bytes()  # noqa: ASYNC240
    for sort, statement, reason in HOSTILE:
        path.write_bytes(whole)  # noqa: ASYNC240
        source = Source(f"sqlite:///{path}", {})
        source.run(statement)
        report = await move(app, source, sessions=True, dry_run=dry_run)
        told = [(each.kind, each.id) for each in report.skipped if reason in each.reason]
        assert [kind for kind, _ in told] == [sort], (statement[:80], report.skipped)
        assert all(id and len(id) < 65 for _, id in told)
    if not dry_run:
        for table, most in ((users, 2), (api_keys, 3), (sessions, 1)):
            rows = await app.database.read(partial(all_of, table))
            assert len(rows) == most


async def test_an_instant_of_postgres_that_python_lacks(app: App, better_auth: Source) -> None:
    if better_auth.url.startswith("sqlite"):
        pytest.skip("SQLite has no instants of its own")
    for told, skipped in (("0044-03-15 BC", 1), ("20000-01-01", 1), ("infinity", 0)):
        better_auth.run(CHANGED.format(told))
        report = await move(app, better_auth, dry_run=True)
        reasons = [each.reason for each in report.skipped]
        assert reasons.count("expiresat is no instant") == skipped, reasons
        assert report.keys.imported == 7 - skipped


async def test_what_is_too_long_of_a_person_is_cut(app: App, tmp_path: Path) -> None:
    source = build(tmp_path)
    source.run(SESSION.format("userAgent = printf('%.5000c', 'x')"))
    source.run(USER.format("image = 'data:' || printf('%.99000c', 'x')"))
    report = await move(app, source, sessions=True)
    assert report.skipped == []
    assert [each.note for each in report.notes] == ["an image that is no https:// address"]
    rows = await app.database.read(lambda tx: tx.all(select(sessions)))
    assert [row.user_agent for row in rows] == ["x" * 200]


def unkey(key: str, **members: object) -> bytes:
    digest = base64.b64encode(hashlib.sha256(key.encode()).digest()).decode()
    return json.dumps({"hash": digest, **members}).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"hash":"x","meta":' + DEEP.encode() + b"}", "nested too deep"),
        (unkey("a", prefix="z\0"), "prefix has a NUL"),
        (unkey("a", start="z\0"), "start has a NUL"),
        (unkey("a", externalId="z\0"), "externalId has a NUL"),
        (unkey("a", externalId="x" * 70_000), "externalId has more than"),
        (unkey("a", externalId=["x"]), "externalId is no"),
        (unkey("a", remaining=2**53), "remaining is no number from 0 to 9007199254740991"),
        (unkey("a", remaining=1, refill={"interval": "daily", "amount": 2**64}), "from 0 to"),
        (unkey("a", ratelimit={"limit": 5, "duration": 10**15}), "must be from 1 to"),
        (unkey("a", expires=1e300), "expires is no instant"),
    ],
)
async def test_of_unkey_too(app: App, line: bytes, reason: str) -> None:
    ada = await person(app)
    lines = [line, unkey("b")]
    for dry_run in (True, False):
        choices = Choices(owner=ada.id, dry_run=dry_run)
        report = await fromothers.move_unkey(call_of(app), lines, choices)
        assert [reason in each.reason for each in report.skipped] == [True], report.skipped
        assert report.skipped[0].id in {"line 1", "1"}
        assert report.keys.imported == 1


async def test_what_the_database_does_not_take_is_skipped_alone(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build(tmp_path)
    source.run(KEY.format("remaining = 77"))
    monkeypatch.setattr(
        "keybearer.operations.betterauth.check_quota",
        lambda remaining, **_: (2**70 if remaining == 77 else remaining, None, None),
    )
    for dry_run in (True, False):
        report = await move(app, source, dry_run=dry_run)
        assert [(each.kind, each.id) for each in report.skipped] == [("key", "key" + "0" * 29)]
        assert "the database does not take it" in report.skipped[0].reason
        assert (report.users.imported, report.keys.imported) == (2, 2)


async def test_and_a_database_that_is_lost_ends_it(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any) -> None:
        raise Unavailable("lost")

    monkeypatch.setattr("keybearer.operations.moving.arrivals.add_keys", lost)
    with pytest.raises(Unavailable, match="lost"):
        await move(app, build(tmp_path))


async def test_nobody_is_looked_for_by_what_is_no_text(app: App) -> None:
    moving = Moving(call_of(app), "test", dry_run=True)
    await moving.learn({"a\0", "\ud800"})
    assert moving.owners == set()


async def test_the_first_line_may_begin_with_a_byte_order_mark(app: App) -> None:
    ada = await person(app)
    lines = [b"\xef\xbb\xbf" + unkey("a"), unkey("b")]
    report = await fromothers.move_unkey(call_of(app), lines, Choices(owner=ada.id))
    assert (report.skipped, report.keys.imported) == ([], 2)


@pytest.mark.parametrize("first", [b"[", b"\xef\xbb\xbf [" + unkey("a") + b"]"])
async def test_an_array_is_no_file_of_lines(app: App, first: bytes) -> None:
    lines = [first, unkey("a"), b"]"]
    with pytest.raises(Misuse, match="no file of JSON lines"):
        await fromothers.move_unkey(call_of(app), lines, Choices(dry_run=True))


@pytest.mark.parametrize("within", [True, False])
async def test_a_day_of_refill_is_told(app: App, within: bool) -> None:
    ada = await person(app)
    credit = {"remaining": 5, "refill": {"interval": "monthly", "amount": 10, "refillDay": 3}}
    line = unkey("a", credits=credit) if within else unkey("a", **credit)
    report = await fromothers.move_unkey(call_of(app), [line], Choices(owner=ada.id))
    assert [each.note.partition(":")[0] for each in report.notes] == ["refillDay"]
    assert report.keys.imported == 1


@pytest.mark.parametrize("prefix", ["kbs", "kbr"])
async def test_a_key_that_could_never_be_used_is_told(app: App, prefix: str) -> None:
    ada = await person(app)
    lines = [unkey("a", prefix=prefix), unkey("b", start=f"{prefix}_b"), unkey("c", prefix="kbx")]
    report = await fromothers.move_unkey(call_of(app), lines, Choices(owner=ada.id))
    assert [each.reason.partition(" is")[0] for each in report.skipped] == [
        f"what begins with {prefix}_"
    ] * 2
    assert report.keys.imported == 1


async def test_what_no_number_holds_is_one_row(app: App) -> None:
    def beyond(_: object) -> int:
        raise OverflowError("int too large")

    moving = Moving(call_of(app), "test", dry_run=True)
    assert read_row(moving, "key", {"id": "k"}, beyond) is None
    (skipped,) = (await moving.finish()).skipped
    assert (skipped.id, skipped.reason) == ("k", "a number or an instant is out of range")
