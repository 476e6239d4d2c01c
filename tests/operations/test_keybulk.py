"""Many keys change together, each for itself, and nobody else's."""

import asyncio
import itertools

import pytest

from keybearer.adapters.sql import audit
from keybearer.domain.model import Session
from keybearer.operations.app import App
from keybearer.operations.declaration import Access
from keybearer.operations.keybulk import (
    KeyResult,
    RevokeKeys,
    UpdateKeys,
    revoke_api_keys,
    update_api_keys,
)
from keybearer.operations.keyends import RevokeKey, revoke_api_key, revoke_owner
from keybearer.operations.keys import CreateKey, GetKey, create_api_key, get_api_key
from keybearer.operations.reports import AskAudit, list_audit
from tests.operations.test_keys import accepted, code_of, make, refused
from tests.people import StandingClock, by, call_of, person

NOBODYS = "0193b2f0-0000-7000-8000-000000000000"


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


def good(id: str) -> KeyResult:
    return KeyResult(key_id=id, success=True, code=None)


def bad(id: str, code: str) -> KeyResult:
    return KeyResult(key_id=id, success=False, code=code)  # type: ignore[arg-type]


async def trail(app: App, who: Session, event: str) -> dict[str | None, dict[str, object]]:
    page = await list_audit(call_of(app, who), AskAudit(event=event, limit=100))
    assert page.total == len({each.target_id for each in page.events})
    return {each.target_id: dict(each.details) for each in page.events}


async def test_many_keys_are_turned_off_and_on(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = [await make(app, ada) for _ in range(3)]
    ids = [key.id for key in made]
    for key in made:
        await accepted(app, key.key)
    clock.advance(1000)
    asked = UpdateKeys(key_ids=ids[::-1][:2], enabled=False)
    off = await update_api_keys(call_of(app, ada), asked)
    assert off.results == [good(ids[2]), good(ids[1])]
    await accepted(app, made[0].key)
    for key in made[1:]:
        assert await refused(app, key.key) == "KEY_DISABLED"
        shown = await get_api_key(call_of(app, ada), GetKey(id=key.id))
        assert shown.updated_at == "2026-11-18T11:06:41.000Z"
    told = {"fields": "enabled", "enabled": False}
    assert await trail(app, ada, "key.updated") == dict.fromkeys(ids[1:], told)
    await update_api_keys(call_of(app, ada), UpdateKeys(key_ids=ids, enabled=True))
    for key in made:
        await accepted(app, key.key)


async def test_what_cannot_change_does_not_stop_the_others(
    app: App, ada: Session, clock: StandingClock
) -> None:
    eve = by(await person(app, "eve@example.com"))
    short, gone, lives = [await make(app, ada, expires_in=days) for days in (1, 60, 60)]
    foreign = await make(app, eve)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=gone.id))
    clock.advance(1000)
    asked = [foreign.id, short.id, NOBODYS, gone.id, lives.id]
    done = await update_api_keys(call_of(app, ada), UpdateKeys(key_ids=asked, enabled=False))
    assert done.results == [
        bad(foreign.id, "KEY_NOT_FOUND"),
        bad(short.id, "KEY_NOT_UPDATABLE"),
        bad(NOBODYS, "KEY_NOT_FOUND"),
        bad(gone.id, "KEY_NOT_UPDATABLE"),
        good(lives.id),
    ]
    await accepted(app, foreign.key)
    assert await refused(app, lives.key) == "KEY_DISABLED"
    assert set(await trail(app, ada, "key.updated")) == {lives.id}
    assert await trail(app, eve, "key.updated") == {}


async def test_many_keys_are_revoked_with_one_receipt(
    app: App, ada: Session, clock: StandingClock
) -> None:
    eve = by(await person(app, "eve@example.com"))
    foreign = await make(app, eve)
    made = [await make(app, ada, expires_in=60) for _ in range(3)]
    for key in made:
        await accepted(app, key.key)
    before = await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made[0].id, reason="first"))
    clock.advance(60_000)  # an expired one is ended as well
    asked = RevokeKeys(key_ids=[foreign.id, *(key.id for key in made)], reason="leaked")
    done = await revoke_api_keys(call_of(app, ada), asked)
    assert done.results == [bad(foreign.id, "KEY_NOT_FOUND"), *(good(key.id) for key in made)]
    assert (done.revoked_at, done.nodes) == ("2026-11-18T11:07:40.000Z", 1)
    for key in made:
        assert await refused(app, key.key) == "KEY_REVOKED"
    shown = await get_api_key(call_of(app, ada), GetKey(id=made[0].id))
    assert shown.revoked_at == before.revoked_at
    await accepted(app, foreign.key)
    assert await trail(app, ada, "key.revoked") == {
        made[0].id: {"reason": "first"},
        made[1].id: {"reason": "leaked"},
        made[2].id: {"reason": "leaked"},
    }
    clock.advance(5000)
    again = await revoke_api_keys(call_of(app, ada), asked)
    assert (again.results, again.revoked_at) == (done.results, done.revoked_at)
    assert len(await trail(app, ada, "key.revoked")) == 3


async def test_where_no_key_is_found_nothing_was_revoked(app: App, ada: Session) -> None:
    done = await revoke_api_keys(call_of(app, ada), RevokeKeys(key_ids=[NOBODYS, "x", "%"]))
    assert {result.code for result in done.results} == {"KEY_NOT_FOUND"}
    assert done.revoked_at is None
    off = await update_api_keys(call_of(app, ada), UpdateKeys(key_ids=[NOBODYS], enabled=False))
    assert off.results == [bad(NOBODYS, "KEY_NOT_FOUND")]


async def test_a_key_is_named_once_and_a_reason_can_be_shown(app: App, ada: Session) -> None:
    made = await make(app, ada)
    twice = [made.id, made.id]
    for act in (
        update_api_keys(call_of(app, ada), UpdateKeys(key_ids=twice, enabled=False)),
        revoke_api_keys(call_of(app, ada), RevokeKeys(key_ids=twice)),
        revoke_api_keys(call_of(app, ada), RevokeKeys(key_ids=[made.id], reason="a\x07")),
    ):
        assert await code_of(act) == "VALIDATION_ERROR"
    await accepted(app, made.key)


async def test_the_operator_revokes_the_keys_of_several_owners(app: App, ada: Session) -> None:
    eve = by(await person(app, "eve@example.com"))
    made = [await make(app, who) for who in (ada, eve, ada)]
    done = await revoke_api_keys(call_of(app), RevokeKeys(key_ids=[key.id for key in made]))
    assert done.results == [good(key.id) for key in made]
    assert set(await trail(app, ada, "key.revoked")) == {made[0].id, made[2].id}
    assert set(await trail(app, eve, "key.revoked")) == {made[1].id}


async def test_no_two_who_change_many_keys_wait_for_each_other(app: App, ada: Session) -> None:
    """Rows in one order and chains in one order: on PostgreSQL any other is a deadlock, 503."""
    others = [f"owner-{n}" for n in range(12)]
    made = [
        (await create_api_key(call_of(app), CreateKey(user_id=ada.subject))).id for _ in range(6)
    ]
    object.__setattr__(app, "accounts", False)  # so that owners can be anybody
    made += [(await create_api_key(call_of(app), CreateKey(user_id=owner))).id for owner in others]
    assert len({audit.chain_of(owner) for owner in others}) > 3
    orders = itertools.cycle((made, made[::-1], made[1::2] + made[::2]))
    done = await asyncio.gather(
        *(
            update_api_keys(call_of(app), UpdateKeys(key_ids=next(orders), enabled=bool(n % 2)))
            for n in range(12)
        ),
        revoke_owner(app, ada.subject),
        *(revoke_api_keys(call_of(app), RevokeKeys(key_ids=next(orders))) for _ in range(3)),
    )
    assert len(done) == 16
    count, faults = await app.database.read(lambda tx: audit.verify(tx, app.ring))
    assert (count > 18, faults) == (True, [])


async def test_other_keys_of_the_same_owners_do_not_wait_for_each_other_either(
    app: App, clock: StandingClock
) -> None:
    object.__setattr__(app, "accounts", False)
    first, second = "owner-1", "owner-2"
    assert audit.chain_of(first) != audit.chain_of(second)
    pairs: list[list[str]] = []
    for _ in range(5):
        for owners in ((first, second), (second, first)):
            pair = []
            for owner in owners:
                clock.advance(1)  # ids sort by time: here one owner's is the lesser, there not
                pair.append((await create_api_key(call_of(app), CreateKey(user_id=owner))).id)
            pairs.append(pair)
    for enabled in (False, True) * 5:
        await asyncio.gather(
            *(
                update_api_keys(call_of(app), UpdateKeys(key_ids=pair, enabled=enabled))
                for pair in pairs
            )
        )


def test_only_whoever_manages_keys_may_change_many() -> None:
    for declared in (update_api_keys, revoke_api_keys):
        assert declared.access is Access.MANAGER
        assert declared.management
