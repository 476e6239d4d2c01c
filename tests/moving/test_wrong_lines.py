"""Lines of an export that no keybearer wrote: nothing of them is believed."""

import json
from typing import Any

import pytest
from sqlalchemy import select

from keybearer.adapters.sql.tables import api_key_secrets, users
from keybearer.domain.errors import Misuse
from keybearer.operations import leaving
from keybearer.operations.app import App
from keybearer.operations.moving import Report
from tests.moving.test_leaving import AT, HEAD
from tests.people import call_of

OURS = "ab" * 32
DRF = b"drf:abcdefgh".hex()
KEYSHIELD = b"keyshield:0123456789abcdef".hex()
BCRYPT = "$2b$04$" + "a" * 53
NOTED = "no password: they choose one at “forgot password”"


def key(id: str = "k", **members: Any) -> bytes:
    usual = {
        "type": "key", "id": id, "ownerId": "ann", "configId": "default", "prefix": "kb_",
        "start": "kb_a", "createdAt": AT, "updatedAt": AT, "createdBy": "ann",
    }  # fmt: skip
    return json.dumps(usual | members).encode()


def secret(**members: Any) -> dict[str, Any]:
    return {"digest": OURS, "pepperId": "p", "createdAt": AT} | members


def user(**members: Any) -> bytes:
    usual = {
        "type": "user", "id": "ann", "email": "ann@example.com", "name": "Ann", "createdAt": AT,
        "updatedAt": AT,
    }  # fmt: skip
    return json.dumps(usual | members).encode()


def usage(**members: Any) -> bytes:
    usual = {"type": "usage", "keyId": "good", "hour": AT, "outcome": "accepted", "n": 1}
    return json.dumps(usual | members).encode()


async def taken(app: App, *lines: bytes, dry_run: bool = False) -> Report:
    text = [HEAD, *lines]
    end = json.dumps({"type": "end", "lines": len(text)}).encode()
    return await leaving.move(call_of(app), [*text, end], dry_run=dry_run, keys_only=False)


KEYS = [
    ({"name": "x" * 5000}, "name has more than 1000"),
    ({"name": "a\0b"}, "name must not have control characters"),
    ({"description": "x" * 501}, "500 characters"),
    ({"ownerId": "a\0"}, "ownerId has a NUL"),
    ({"prefix": "x" * 70_000}, "prefix has more than"),
    ({"revokedReason": "\0"}, "revokedReason has a NUL"),
    ({"remaining": 99999999999999999999}, "remaining must be from 0 to 9007199254740991"),
    ({"refillAmount": 5}, "refillAmount needs a refillInterval"),
    ({"requestCount": 99999999999999999999}, "requestCount is no number from 0 to"),
    ({"rateLimitEnabled": True}, "rateLimitMax must be from 0 to"),
    ({"rateLimitMax": 2**70}, "rateLimitMax must be from 0 to"),
    ({"rateLimitWindow": 2**70}, "rateLimitTimeWindow must be from 1 to"),
    ({"secrets": [secret(), secret()]}, "a digest twice"),
    ({"secrets": [secret(), secret(digest="cd" * 32)]}, "two current secrets"),
    ({"secrets": [secret(digest="abcd")]}, "a digest has the wrong length"),
    ({"secrets": [secret(pepperId="a\0")]}, "pepperId has a NUL"),
    ({"secrets": [secret(scheme="drf")]}, "without the hash that decides"),
    ({"secrets": [secret(scheme="keyshield", digest=KEYSHIELD)]}, "the wrong length"),
    (
        {"secrets": [secret(scheme="drf", pepperId="drf", digest=DRF)]},
        "without the hash that decides",
    ),
    ({"secrets": [secret(pepperId="drf", digest=DRF)]}, "a digest of another scheme"),
    ({"secrets": [secret(scheme="sha256", foreignHash=BCRYPT)]}, "a hash where none decides"),
    (
        {"secrets": [secret(scheme="sha256", pepperId="sha256", digest=DRF)]},
        "a digest of another scheme",
    ),
    (
        {"secrets": [secret(scheme="sha256", pepperId="sha256", digest=b"sha256:ab".hex())]},
        "a digest has the wrong length",
    ),
    (
        {"secrets": [secret(scheme="drf", pepperId="drf", digest=DRF, foreignHash="x")]},
        "form that is not known",
    ),
]


@pytest.mark.parametrize(("members", "reason"), KEYS)
async def test_a_key_that_nobody_wrote(app: App, members: dict[str, Any], reason: str) -> None:
    for dry_run in (True, False):
        lines = (user(), key(**members), key("good"))
        report = await taken(app, *lines, dry_run=dry_run)
        assert [(each.kind, each.id) for each in report.skipped] == [("key", "k")], members
        assert reason in report.skipped[0].reason
        assert report.keys.imported == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"name": "x" * 101}, "name must have 1 to 100 characters"),
        ({"name": "a\0"}, "name must not have control"),
        ({"image": "https://a\0"}, "image must be"),
        ({"locale": "e\0"}, "locale is no id"),
    ],
)
async def test_a_person_that_nobody_wrote(app: App, members: dict[str, Any], reason: str) -> None:
    report = await taken(app, user(**members), user(id="bob", email="bob@example.com"))
    assert [(each.kind, each.id) for each in report.skipped] == [("user", "ann")]
    assert reason in report.skipped[0].reason
    assert report.users.imported == 1


@pytest.mark.parametrize(
    "hashed", ["garbage", f"$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ${'A' * 43}"]
)
async def test_a_hash_that_is_none_does_not_come(app: App, hashed: str) -> None:
    report = await taken(app, user(passwordHash=hashed))
    assert (report.users.imported, report.skipped) == (1, [])
    assert [(each.note, each.count) for each in report.notes] == [(NOTED, 1)]
    rows = await app.database.read(lambda tx: tx.all(select(users)))
    assert [row.password_hash for row in rows] == [None]


@pytest.mark.parametrize(
    "members", [{"n": 99999999999999999999}, {"outcome": "a\0"}, {"keyId": "x" * 65}]
)
async def test_usage_that_nobody_counted(app: App, members: dict[str, Any]) -> None:
    report = await taken(app, user(), key("good"), usage(**members), usage())
    assert [(each.kind, each.id) for each in report.skipped] == [("line", "4")]


async def test_lines_nested_without_end(app: App) -> None:
    deep = b'{"type":"key","metadata":' + b'{"a":' * 3000 + b"1" + b"}" * 3001
    report = await taken(app, deep, user())
    assert [each.reason for each in report.skipped] == ["it is nested too deep"]
    assert report.users.imported == 1


async def test_what_a_keybearer_writes_of_keys_from_elsewhere_comes(app: App) -> None:
    known = app.ring.newest.id
    secrets = [
        secret(scheme="drf", pepperId="drf", digest=DRF, foreignHash=BCRYPT),
        secret(scheme="keyshield", pepperId="keyshield", digest=KEYSHIELD, foreignHash=BCRYPT),
        secret(scheme="drf", pepperId=known),
        secret(scheme="sha256", pepperId="sha256", digest=(b"sha256:" + b"x" * 32).hex()),
        secret(scheme="sha512", pepperId="sha512", digest=(b"sha512:" + b"x" * 64).hex()),
        secret(scheme="sha256", digest="cd" * 32),
    ]
    lines = [key(f"k{n}", secrets=[each]) for n, each in enumerate(secrets)]
    limits = {"rateLimitMax": 5, "remaining": 2**53 - 1, "rateLimitWindow": 1000}
    report = await taken(app, user(), *lines, key("limits", **limits))
    assert report.skipped == []
    rows = await app.database.read(lambda tx: tx.all(select(api_key_secrets)))
    assert sorted(bytes(row.digest).hex() for row in rows) == sorted(
        each["digest"] for each in secrets
    )


async def test_an_export_says_where_it_ends(app: App) -> None:
    text = [line async for line in leaving.export(call_of(app), hashes=False)]
    assert json.loads(text[-1]) == {"type": "end", "lines": len(text) - 1}
    whole = await leaving.move(call_of(app), [*text, b"\n"], dry_run=True)
    assert not whole.truncated


@pytest.mark.parametrize(
    "end",
    [
        [],
        [b'{"type":"end","lines":1}'],
        [b'{"type":"end","lines":3}'],
        [b'{"type":"end","lines":2}', b"{"],
        [b'{"type":"en'],
    ],
)
async def test_without_its_end_it_is_told(app: App, end: list[bytes]) -> None:
    report = await leaving.move(call_of(app), [HEAD, user(), *end], dry_run=False)
    assert report.truncated
    assert report.users.imported == 1


@pytest.mark.parametrize("text", [[], [b"\n", b""]])
async def test_an_empty_file_is_no_export(app: App, text: list[bytes]) -> None:
    with pytest.raises(Misuse, match="no export"):
        await leaving.move(call_of(app), text, dry_run=True)


async def test_a_byte_order_mark_is_no_part_of_the_head(app: App) -> None:
    text = [b"\xef\xbb\xbf" + HEAD, b'{"type":"end","lines":1}']
    assert not (await leaving.move(call_of(app), text, dry_run=True)).truncated
