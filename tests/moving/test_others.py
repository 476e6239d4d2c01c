"""Databases that the real packages of Python made move in, and go on to work."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql.origins import open_origin
from keybearer.adapters.sql.tables import api_key_secrets, users
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.model import Refusal, Session
from keybearer.operations import fromdjango, fromothers
from keybearer.operations.app import App
from keybearer.operations.arriving import Choices
from keybearer.operations.keyedits import UpdateKey
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import GetKey, ListKeys
from keybearer.operations.moving import Count, Report
from keybearer.verification.foreign import SlowHashes
from tests.moving.conftest import HERE, Source
from tests.people import SECRET, StandingClock, call_of, person

GIVEN = json.loads((HERE / "others.json").read_text())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    made = Source(f"sqlite:///{tmp_path / 'others.db'}", GIVEN)
    made.run((HERE / "others.sql").read_text())
    return made


@pytest.fixture
async def peppered(ready_url: str, clock: StandingClock) -> AsyncIterator[App]:
    auth = Auth(ready_url, secret=SECRET, clock=clock, keyshield_pepper=GIVEN["pepper"])
    async with auth.lifespan():
        yield await auth.running()


async def move(app: App, source: Source, how: Any, **choices: Any) -> Report:
    async with open_origin(source.url) as origin:
        report: Report = await how(call_of(app), origin, Choices(**choices))
        return report


async def verdict(app: App, key: str) -> Any:
    return await app.verifier.verify([(b"x-api-key", key.encode())], "203.0.113.7")


async def log_in(client: httpx2.AsyncClient, email: str, password: str) -> int:
    asked = {"email": email, "password": password}
    return (await client.post("/api/auth/login", json=asked)).status_code


async def hashes(app: App) -> dict[str, str]:
    rows = await app.database.read(lambda tx: tx.all(select(users)))
    return {row.email: row.password_hash or "" for row in rows}


async def digests(app: App) -> list[tuple[str, str | None]]:
    rows = await app.database.read(lambda tx: tx.all(select(api_key_secrets)))
    return sorted((row.pepper_id, row.foreign_hash) for row in rows)


# --- people ---


async def test_people_of_django_log_in_with_any_of_its_hashes(
    app: App, client: httpx2.AsyncClient, source: Source
) -> None:
    report = await move(app, source, fromdjango.move, verified=True)
    assert report.users == Count(found=8, imported=7, present=0, skipped=1)
    assert "email is missing" in [each.reason for each in report.skipped]
    assert (await log_in(client, "off@example.com", "x")) == 401
    assert (await log_in(client, "argon2@example.com", "wrong")) == 401
    for email, person_ in GIVEN["people"].items():
        assert await log_in(client, email, person_["password"]) == 200, email
        assert (await hashes(app))[email].startswith("$argon2id$v=19$m=64,")
        assert await log_in(client, email, person_["password"]) == 200


async def test_people_of_fastapi_users_log_in(
    app: App, client: httpx2.AsyncClient, source: Source
) -> None:
    report = await move(app, source, fromothers.move_fastapi_users)
    assert report.users == Count(found=2, imported=2, present=0, skipped=0)
    assert [note.note for note in report.notes] == ["a role: nobody is an admin here by an import"]
    for email, person_ in GIVEN["fastapi"].items():
        assert await log_in(client, email, person_["password"]) == 200, email
        assert (await hashes(app))[email].startswith("$argon2id$v=19$m=64,")
    again = await move(app, source, fromothers.move_fastapi_users)
    assert again.users.present == 2


async def test_a_django_without_keys_brings_its_people(app: App, source: Source) -> None:
    source.run(
        "DROP TABLE knox_authtoken; DROP TABLE rest_framework_api_key_apikey;"
        "UPDATE auth_user SET is_superuser = 1 WHERE username = 'scrypt';"
        "UPDATE user SET email = '' WHERE is_superuser = 1;"
    )
    report = await move(app, source, fromdjango.move, dry_run=True)
    assert (report.users.imported, report.keys.found) == (7, 0)
    assert "a role: nobody is an admin here by an import" in [n.note for n in report.notes]
    with pytest.raises(Misuse, match="no table 'tokens'"):
        await move(app, source, fromdjango.move, names={"knox_authtoken": "tokens"})
    report = await move(app, source, fromothers.move_fastapi_users)
    assert (report.users.imported, report.users.skipped) == (1, 1)


# --- keys ---


async def test_keys_of_knox_and_of_drf_work_at_once(auth: Auth, app: App, source: Source) -> None:
    await move(app, source, fromdjango.move, verified=True)
    report = await move(
        app, source, fromdjango.move, owner=GIVEN["people"]["scrypt@example.com"]["id"]
    )
    assert report.keys == Count(found=6, imported=3, present=3, skipped=0)
    for name, owner in (("one", "1"), ("two", "2")):
        for _ in range(2):
            found = await verdict(app, GIVEN["knox"][name])
            assert isinstance(found, Session)
            assert found.subject == owner
    assert (await verdict(app, GIVEN["knox"]["off"])).code == "OWNER_DISABLED"
    new, old = GIVEN["drf"]["new"], GIVEN["drf"]["old"]
    assert isinstance(await verdict(app, new), Session)
    assert (await verdict(app, GIVEN["drf"]["revoked"])).code == "KEY_REVOKED"
    assert await verdict(app, old[:-1] + "_") == Refusal(code="INVALID_API_KEY")
    assert isinstance(await verdict(app, old), Session)
    # Checked once, and known by our digest from then on.
    assert all(hashed is None for _, hashed in await digests(app))
    app.verifier.cache.clear()
    assert isinstance(await verdict(app, old), Session)
    again = await move(app, source, fromdjango.move, owner="6")
    assert again.keys == Count(found=6, imported=0, present=6, skipped=0)


async def test_keys_without_an_owner_need_one(app: App, source: Source) -> None:
    report = await move(app, source, fromdjango.move)
    reasons = [each.reason for each in report.skipped if each.kind == "key"]
    assert reasons == ["it names no owner: --owner says whose it is"] * 3
    report = await move(app, source, fromdjango.move, owner="nobody")
    reasons = [each.reason for each in report.skipped if each.kind == "key"]
    assert reasons == ["its owner is no user here"] * 3


async def test_keys_of_django_alone(ready_url: str, source: Source, clock: StandingClock) -> None:
    host = Auth(ready_url, secret=SECRET, accounts=False, clock=clock)
    async with host.lifespan():
        app = await host.running()
        report = await move(app, source, fromdjango.move, keys_only=True, owner="service")
        assert (report.users.found, report.keys.imported) == (0, 6)
        assert isinstance(await verdict(app, GIVEN["knox"]["one"]), Session)


async def test_keys_of_keyshield_work_under_their_pepper(peppered: App, source: Source) -> None:
    owner = await person(peppered)
    report = await move(peppered, source, fromothers.move_keyshield, owner=owner.id)
    assert report.keys == Count(found=2, imported=2, present=0, skipped=0)
    assert report.notes == []
    for key in GIVEN["keyshield"].values():
        assert await verdict(peppered, key[:-1] + "_") == Refusal(code="INVALID_API_KEY")
        for _ in range(2):
            found = await verdict(peppered, key)
            assert isinstance(found, Session)
            assert found.permissions == frozenset({"files:read"})
    assert all(hashed is None for _, hashed in await digests(peppered))


async def test_without_the_pepper_none_is_good(auth: Auth, app: App, source: Source) -> None:
    owner = await person(app)
    report = await move(app, source, fromothers.move_keyshield, owner=owner.id)
    assert "KEYSHIELD_PEPPER" in report.notes[0].note
    assert await verdict(app, GIVEN["keyshield"]["bcrypt"]) == Refusal(code="INVALID_API_KEY")
    source.run("DROP TABLE api_keys")
    with pytest.raises(Misuse, match="--table api_keys=NAME"):
        await move(app, source, fromothers.move_keyshield)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE api_keys SET key_id = 'custom'", "sixteen hex digits"),
        ("UPDATE api_keys SET scopes = '{}'", "its owner is no user here"),
        ("UPDATE api_keys SET scopes = '{\"a\": 1}'", "scopes is no list"),
        ("UPDATE api_keys SET scopes = '[\"all\"]'", "a resource and an action"),
        ("UPDATE api_keys SET key_hash = 'mock$x'", "form that is not known"),
        ("UPDATE api_keys SET scopes = NULL", "its owner is no user here"),
        ("UPDATE knox_authtoken SET digest = 'x' WHERE user_id = 1", "no SHA-512"),
        ("UPDATE rest_framework_api_key_apikey SET hashed_key = 'sha512$$x'", "no SHA-512"),
    ],
)
async def test_what_is_broken_is_told(app: App, source: Source, change: str, reason: str) -> None:
    source.run(change)
    owner = None if reason.startswith("its owner") else (await person(app)).id
    choices = {"owner": owner or "nobody", "dry_run": True}
    reasons = []
    for how in (fromdjango.move, fromothers.move_keyshield):
        report = await move(app, source, how, **choices)
        reasons += [each.reason for each in report.skipped]
    assert any(reason in each for each in reasons), reasons


# --- a slow hash cannot be used against us ---


async def test_a144_one_check_for_each_key_and_all_others_come_again(
    app: App, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(app, source, fromdjango.move, verified=True)
    await move(app, source, fromdjango.move, owner="6")
    old = GIVEN["drf"]["old"]
    tries = [verdict(app, f"{old}_{n}") for n in range(20)]
    said = await asyncio.gather(*tries, return_exceptions=True)
    refused = [each for each in said if isinstance(each, Refusal)]
    told = [each for each in said if isinstance(each, Unavailable)]
    assert len(refused) >= 1, said
    assert len(refused) + len(told) == 20
    assert len(told) > 10
    # Who logs in does not wait behind them.
    assert not app.hasher.busy
    assert app.hasher.waiting == 0
    # And the right one opens as soon as it has its turn.
    assert isinstance(await verdict(app, old), Session)
    assert isinstance(await verdict(app, old), Session)


async def test_who_waits_for_a_slow_hash_and_leaves_holds_up_nobody() -> None:
    gate = asyncio.Event()

    async def check(_hashed: str, _part: bytes) -> bool:
        await gate.wait()
        return True

    slow = SlowHashes(check)
    first, leaving, last = (
        asyncio.create_task(slow.holds("k", "hash", part)) for part in (b"1", b"2", b"3")
    )
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.set()
    assert await asyncio.wait_for(first, 10)
    assert await asyncio.wait_for(last, 10)
    assert await asyncio.wait_for(slow.holds("k", "hash", b"4"), 10)


async def test_a_check_that_fails_makes_room() -> None:
    async def lost(hashed: str, part: bytes) -> bool:
        raise Unavailable("lost")

    slow = SlowHashes(lost)
    for _ in range(2):
        with pytest.raises(Unavailable, match="lost"):
            await slow.holds("k", "hash", b"part")


async def test_a_name_that_nobody_has_costs_no_hash(
    app: App, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(app, source, fromdjango.move, verified=True)
    await move(app, source, fromdjango.move, owner="6")

    async def never(*_: object) -> bool:
        raise AssertionError("a hash was checked")

    monkeypatch.setattr(SlowHashes, "holds", never)
    for text in ("nobodys.secret", "ak_v1-0123456789abcdef-secret", "x" * 64):
        assert await verdict(app, text) == Refusal(code="INVALID_API_KEY")
    assert isinstance(await verdict(app, GIVEN["knox"]["one"]), Session)


async def test_a_revoked_one_stays_revoked(auth: Auth, app: App, source: Source) -> None:
    await move(app, source, fromdjango.move, verified=True)
    await move(app, source, fromdjango.move, owner="6")
    page = await auth.api.list_api_keys(ListKeys(search="old"))
    (id,) = [key.id for key in page.api_keys]
    await auth.api.revoke_api_key(RevokeKey(key_id=id))
    # Nobody has proved to hold it, and that would cost a hash.
    assert (await verdict(app, GIVEN["drf"]["old"])).code == "INVALID_API_KEY"


async def test_a_dead_key_costs_no_hash(
    auth: Auth, app: App, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await move(app, source, fromdjango.move, verified=True)
    await move(app, source, fromdjango.move, owner="6")
    page = await auth.api.list_api_keys(ListKeys(search="old"))
    (id,) = [key.id for key in page.api_keys]
    old = GIVEN["drf"]["old"]
    holds = SlowHashes.holds

    async def never(*_: object) -> bool:
        raise AssertionError("a hash was checked")

    monkeypatch.setattr(SlowHashes, "holds", never)
    await auth.api.update_api_key(UpdateKey(key_id=id, enabled=False))
    assert await verdict(app, old) == Refusal(code="INVALID_API_KEY")
    await auth.api.update_api_key(UpdateKey(key_id=id, enabled=True))
    monkeypatch.setattr(SlowHashes, "holds", holds)
    assert isinstance(await verdict(app, old), Session)


# --- Unkey ---


def unkey(key: str, **members: object) -> bytes:
    digest = base64.b64encode(hashlib.sha256(key.encode()).digest()).decode()
    return json.dumps({"hash": digest, **members}).encode()


async def unkeys(app: App, *lines: bytes, **choices: Any) -> Report:
    return await fromothers.move_unkey(call_of(app), lines, Choices(**choices))


async def test_keys_of_unkey_work_at_once(auth: Auth, app: App) -> None:
    ada = await person(app)
    v1 = {"value": hashlib.sha256(b"acme_one").digest(), "variant": "sha256_base64"}
    v1["value"] = base64.b64encode(v1["value"]).decode()  # type: ignore[arg-type]
    first = json.dumps(
        {
            "hash": v1, "ownerId": ada.id, "prefix": "acme", "name": "one", "start": "acme_o",
            "meta": {"plan": "pro"}, "expires": 1_900_000_000_000, "remaining": 5,
            "refill": {"interval": "daily", "amount": 5},
            "ratelimit": {"limit": 7, "duration": 1000}, "enabled": True, "permissions": ["a.b"],
        }
    ).encode()  # fmt: skip
    second = unkey("two", externalId=ada.id, credits={"remaining": 3})
    third = unkey("three", enabled=False)
    report = await unkeys(app, first, b"", second, third, owner=ada.id)
    assert report.keys == Count(found=3, imported=3, present=0, skipped=0)
    assert [note.note for note in report.notes] == ["permissions: they have no form here"]
    one = await verdict(app, "acme_one")
    assert isinstance(one, Session)
    key = await auth.api.get_api_key(GetKey(id=one.id))
    assert (key.name, key.prefix, key.start, key.metadata) == (
        "one", "acme_", "acme_o", {"plan": "pro"},
    )  # fmt: skip
    assert (key.refill_amount, key.refill_interval) == (5, 86_400_000)
    assert (key.rate_limit_max, key.rate_limit_time_window) == (7, 1000)
    assert isinstance(await verdict(app, "two"), Session)
    assert (await verdict(app, "three")).code == "KEY_DISABLED"
    again = await unkeys(app, first, second, third, owner=ada.id)
    assert again.keys.present == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}", "hash is no SHA-256"),
        (b'{"hash": {"value": "x", "variant": "sha512"}}', "variant"),
        (b'{"hash": "short"}', "hash is no SHA-256"),
        (unkey("k"), "it names no owner"),
        (unkey("k", ownerId="nobody"), "its owner is no user here"),
        (unkey("k", remaining=1, refill={"interval": "hourly", "amount": 1}), "neither daily"),
        (unkey("k", remaining=1, refill={"interval": "daily"}), "refillAmount"),
        (unkey("k", meta=[1]), "metadata must be"),
    ],
)
async def test_a_broken_line_of_unkey_is_told(app: App, line: bytes, reason: str) -> None:
    owner = None if "owner" in reason else (await person(app)).id
    report = await unkeys(app, line, dry_run=True, owner=owner)
    (skipped,) = report.skipped
    assert reason in skipped.reason


async def test_owners_of_unkey_may_be_anybodys(app: App) -> None:
    report = await unkeys(app, unkey("k", externalId="team"), keys_only=True, dry_run=True)
    assert report.keys.imported == 1
