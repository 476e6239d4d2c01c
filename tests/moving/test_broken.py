"""One broken value is one row that does not come, with its reason; all others come."""

import sqlite3
from pathlib import Path

from keybearer.operations.app import App
from tests.moving import crowd
from tests.moving.conftest import Source, move

USER = "UPDATE \"user\" SET {} WHERE name = 'Person 0'"
KEY = "UPDATE apikey SET {} WHERE name = 'key 0'"
SESSION = "UPDATE session SET {}"
BROKEN = [
    (USER.format("email = 'no address'"), "exactly one @"),
    (USER.format("email = x'07'"), "email is no text"),
    (USER.format("createdAt = 'once'"), "createdat is no instant"),
    (USER.format("emailVerified = 'maybe'"), "emailverified is neither"),
    (KEY.format("key = 'short'"), "no SHA-256"),
    (KEY.format("key = ''"), "key is missing"),
    (KEY.format("prefix = 'kbs_'"), "what begins with kbs_ is no key here"),
    (KEY.format("start = 'kbr_x'"), "what begins with kbr_ is no key here"),
    (KEY.format("referenceId = 'nobody'"), "its owner is no user here"),
    (KEY.format("metadata = '[1]'"), "metadata must be a JSON object"),
    (KEY.format("metadata = '{'"), "metadata is no JSON"),
    (KEY.format("permissions = '[1]'"), "permissions are no lists"),
    (KEY.format("""permissions = '{"a": "b"}'"""), "permissions are no lists"),
    (KEY.format("""permissions = '{"a": []}'"""), "list of 1 to"),
    (KEY.format("rateLimitTimeWindow = 0"), "rateLimitTimeWindow must be"),
    (KEY.format("remaining = 1, refillAmount = 0, refillInterval = 1"), "refillAmount must be"),
    (KEY.format("remaining = -5"), "remaining is no number"),
    (KEY.format("expiresAt = 'never'"), "expiresat is no instant"),
    (SESSION.format("token = 'with.a.dot.in.the.token'"), "none that could be presented"),
    (SESSION.format("token = 'short'"), "none that could be presented"),
    (SESSION.format("expiresAt = ''"), "expiresat is missing"),
    (SESSION.format("expiresAt = '2020-01-01T00:00:00.000Z'"), "it is over"),
    (SESSION.format("userId = 'nobody'"), "its user did not come"),
]
TAKEN = [
    (USER.format("image = 'https://example.com/a.png', name = ''"), ""),
    (USER.format("banned = 1, banExpires = '2099-01-01T00:00:00.000Z'"), "a ban that ends"),
    (USER.format("banned = 1, banExpires = '2020-01-01T00:00:00.000Z'"), "a ban that ends"),
    (USER.format("twoFactorEnabled = 1"), "a second factor"),
    ("UPDATE account SET password = 'md5:1234' WHERE userId LIKE '%0'", "no password: they"),
    (KEY.format("rateLimitMax = NULL"), ""),
    (KEY.format("rateLimitEnabled = NULL, enabled = NULL, configId = ''"), ""),
    (KEY.format("refillAmount = 5, refillInterval = 5"), ""),
    (KEY.format("name = 'x' || char(10) || 'y'"), ""),
]


def build(tmp_path: Path) -> Source:
    path = tmp_path / "crowd.db"
    crowd.build(path, 2, 3)
    source = Source(f"sqlite:///{path}", {})
    source.run(
        'ALTER TABLE "user" ADD twoFactorEnabled integer;'
        "INSERT INTO session (id, token, userId, expiresAt, createdAt, updatedAt) SELECT "
        "'s', 'abcdefghijklmnopqrstuvwxyz012345', id, '2099-01-01T00:00:00.000Z', createdAt, "
        "updatedAt FROM \"user\" WHERE name = 'Person 1';"
    )
    return source


async def test_what_is_broken_is_told_and_all_else_comes(app: App, tmp_path: Path) -> None:
    source = build(tmp_path)
    path = source.url.removeprefix("sqlite:///")
    whole = Path(path).read_bytes()  # noqa: ASYNC240
    for statement, reason in BROKEN:
        Path(path).write_bytes(whole)  # noqa: ASYNC240
        source.run(statement)
        report = await move(app, source, sessions=True, dry_run=True)
        reasons = [each.reason for each in report.skipped]
        assert any(reason in each for each in reasons), (statement, reasons)
        came = sum(count.imported for count in (report.users, report.keys, report.sessions))
        assert came + len(report.skipped) == 6, statement


async def test_what_is_odd_comes_with_a_note(app: App, tmp_path: Path) -> None:
    source = build(tmp_path)
    path = source.url.removeprefix("sqlite:///")
    whole = Path(path).read_bytes()  # noqa: ASYNC240
    for statement, note in TAKEN:
        Path(path).write_bytes(whole)  # noqa: ASYNC240
        source.run(statement)
        report = await move(app, source, sessions=True, dry_run=True)
        assert report.skipped == [], statement
        assert [each.note for each in report.notes if note and note in each.note] or not note


async def test_a_session_token_that_is_here_already_is_not_given_again(
    app: App, tmp_path: Path
) -> None:
    source = build(tmp_path)
    await move(app, source, sessions=True)
    source.run(SESSION.format("id = 'another'"))
    report = await move(app, source, sessions=True)
    assert [each.reason for each in report.skipped] == ["another session here has the same token"]


async def test_a_database_without_keys_brings_its_people(app: App, tmp_path: Path) -> None:
    source = build(tmp_path)
    source.run("DROP TABLE apikey; DROP TABLE organization;")
    report = await move(app, source)
    assert (report.users.imported, report.keys.found) == (2, 0)
    sqlite3.connect(":memory:").close()
