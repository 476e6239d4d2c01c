"""A rotation can be seen, finished, given more time and called off; and nobody loses a secret."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import update

from keybearer import Auth, Failure
from keybearer.adapters.sql.tables import api_key_secrets
from keybearer.domain.model import UNTIL_FINISHED, Refusal, Session, Verdict
from keybearer.domain.ports import Transaction
from keybearer.inputs import (
    AboutRotation,
    AskAudit,
    ExtendRotation,
    RevokeKey,
    RotateKey,
    UpdateKey,
)
from keybearer.operations import upkeep
from keybearer.operations.app import App
from keybearer.operations.declaration import Call
from keybearer.operations.keyedits import update_api_key
from keybearer.operations.keyends import revoke_api_key, rotate_api_key
from keybearer.operations.keys import (
    CreateKey,
    GetKey,
    ListKeys,
    create_api_key,
    get_api_key,
    list_api_keys,
)
from keybearer.operations.keywire import ApiKey, CreatedApiKey
from keybearer.operations.reports import list_audit
from keybearer.operations.rotation import (
    RotationSecret,
    cancel_rotation,
    extend_rotation,
    finish_rotation,
    get_rotation,
)
from tests.operations.test_keys import check, code_of, make, refused
from tests.people import SECRET, StandingClock, by, call_of, log_in, person

DAY = 86_400_000
API = "/api/auth/api-key"
CHANGES: dict[str, Callable[[Call, str], Awaitable[ApiKey]]] = {
    "finish": lambda call, id: finish_rotation(call, AboutRotation(key_id=id)),
    "extend": lambda call, id: extend_rotation(call, ExtendRotation(key_id=id, grace_period=60)),
    "cancel": lambda call, id: cancel_rotation(call, AboutRotation(key_id=id)),
}


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


async def rotate(app: App, who: Session, id: str, **asked: Any) -> CreatedApiKey:
    """A later rotation: secrets are told apart by when they were made."""
    clock = app.clock
    assert isinstance(clock, StandingClock)
    clock.advance(1_000)
    return await rotate_api_key(call_of(app, who), RotateKey(key_id=id, **asked))


async def change(app: App, who: Session, deed: str, id: str) -> ApiKey:
    return await CHANGES[deed](call_of(app, who), id)


async def secrets(app: App, who: Session, id: str) -> list[RotationSecret]:
    return (await get_rotation(call_of(app, who), AboutRotation(key_id=id))).secrets


async def works(app: App, *made: CreatedApiKey) -> list[bool]:
    return [isinstance(await check(app, each.key), Session) for each in made]


# --- seen ---


async def test_a_key_that_does_not_rotate_has_one_secret(app: App, ada: Session) -> None:
    made = await make(app, ada)
    told = await get_rotation(call_of(app, ada), AboutRotation(key_id=made.id))
    assert (told.key_id, told.rotating) == (made.id, False)
    assert told.secrets == [
        RotationSecret(
            start=made.start,
            current=True,
            created_at=made.created_at,
            usable_until=None,
            last_request=None,
            last_used_ip=None,
            request_count=0,
        )
    ]


async def test_the_secrets_of_a_rotating_key_are_shown_newest_first(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first = await make(app, ada)
    second = await rotate(app, ada, first.id, grace_period=3600)
    third = await rotate(app, ada, first.id, grace_period=None)
    told = await get_rotation(call_of(app, ada), AboutRotation(key_id=first.id))
    assert told.rotating
    assert [(each.start, each.current, each.usable_until) for each in told.secrets] == [
        (third.start, True, None),
        (second.start, False, None),
        (first.start, False, "2026-11-18T12:06:41.000Z"),
    ]
    clock.advance(3_600_000)
    assert [each.start for each in await secrets(app, ada, first.id)] == [third.start, second.start]


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_key_that_has_ended_has_no_secret_that_works(
    app: App, ada: Session, clock: StandingClock, end: str
) -> None:
    made = await make(app, ada, expires_in=3600)
    await rotate(app, ada, made.id)
    if end == "revoked":
        await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    else:
        clock.advance(3_600_000)
    told = await get_rotation(call_of(app, ada), AboutRotation(key_id=made.id))
    assert (told.rotating, told.secrets) == (False, [])
    for deed in CHANGES:
        assert await code_of(change(app, ada, deed, made.id)) == "KEY_NOT_ROTATING"


async def test_a_secret_from_before_its_start_was_kept_shows_the_prefix(
    app: App, ada: Session
) -> None:
    made = await make(app, ada)
    await rotate(app, ada, made.id)

    async def forget(tx: Transaction) -> None:
        await tx.run(update(api_key_secrets).values(start=None))

    await app.database.write(forget)
    assert [each.start for each in await secrets(app, ada, made.id)] == ["kb_", "kb_"]
    assert (await change(app, ada, "cancel", made.id)).start == "kb_"


# --- begun ---


async def test_an_old_secret_without_an_end_goes_on_until_the_rotation_is_finished(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada, expires_in=365 * 86_400)
    rotated = await rotate(app, ada, made.id, grace_period=None)
    assert rotated.status == "rotating"
    clock.advance(300 * DAY)
    assert await works(app, made, rotated) == [True, True]
    await upkeep.forget_ended(app)
    old = await check(app, made.key)
    assert isinstance(old, Session)
    assert old.replaced
    page = await list_api_keys(call_of(app, ada), ListKeys(status=("rotating",)))
    assert [key.id for key in page.api_keys] == [made.id]
    told = await get_rotation(call_of(app, ada), AboutRotation(key_id=made.id))
    for answer in (page, told, rotated, await list_audit(call_of(app, ada), AskAudit())):
        assert b'"9999-' not in msgspec.json.encode(answer)
        assert str(UNTIL_FINISHED).encode() not in msgspec.json.encode(answer)
    await change(app, ada, "finish", made.id)
    assert await works(app, made, rotated) == [False, True]


async def test_a_rotation_that_was_sent_twice_is_done_once(app: App, ada: Session) -> None:
    made = await make(app, ada)
    first = await rotate(app, ada, made.id, replaces=made.start)
    again = RotateKey(key_id=made.id, replaces=made.start, grace_period=0)
    with pytest.raises(Failure) as refusal:
        await rotate_api_key(call_of(app, ada), again)
    assert (refusal.value.code, refusal.value.status) == ("KEY_ALREADY_ROTATED", 409)
    assert await works(app, made, first) == [True, True]
    assert len(await secrets(app, ada, made.id)) == 2
    second = await rotate(app, ada, made.id, replaces=first.start)
    assert await works(app, made, first, second) == [True, True, True]


async def test_of_many_rotations_at_once_that_replace_the_same_secret_one_is_done(
    app: App, ada: Session
) -> None:
    made = await make(app, ada)
    asked = RotateKey(key_id=made.id, replaces=made.start)
    done = await asyncio.gather(
        *(rotate_api_key(call_of(app, ada), asked) for _ in range(8)), return_exceptions=True
    )
    rotated = [each for each in done if isinstance(each, CreatedApiKey)]
    assert len(rotated) == 1
    assert {each.code for each in done if isinstance(each, Failure)} == {"KEY_ALREADY_ROTATED"}
    assert await works(app, made, rotated[0]) == [True, True]
    events = await list_audit(call_of(app, ada), AskAudit(event="key.rotated"))
    assert events.total == 1


@pytest.mark.parametrize("replaces", ["", "kb_", "kb_%", "kb_____", "'--", "\u202ekb_"])
async def test_what_is_no_start_of_the_current_secret_rotates_nothing(
    app: App, ada: Session, replaces: str
) -> None:
    made = await make(app, ada)
    asked = RotateKey(key_id=made.id, replaces=replaces)
    assert await code_of(rotate_api_key(call_of(app, ada), asked)) == "KEY_ALREADY_ROTATED"
    assert await works(app, made) == [True]


# --- finished ---


async def test_a_finished_rotation_leaves_the_newest_secret_alone(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first = await make(app, ada)
    second = await rotate(app, ada, first.id, grace_period=None)
    third = await rotate(app, ada, first.id, grace_period=3600)
    assert await works(app, first, second, third) == [True, True, True]
    finished = await change(app, ada, "finish", first.id)
    assert (finished.status, finished.start) == ("active", third.start)
    assert finished.updated_at > first.updated_at
    assert [await refused(app, each.key) for each in (first, second)] == ["KEY_REVOKED"] * 2
    assert await works(app, third) == [True]
    assert await code_of(change(app, ada, "finish", first.id)) == "KEY_NOT_ROTATING"
    clock.advance(app.settings.key_retention + 1)
    assert await upkeep.forget_ended(app) == 2


# --- extended ---


@pytest.mark.parametrize(
    ("grace", "seconds"), [(7 * 86_400, 7 * 86_400), (60, 60), (30 * 86_400, 30 * 86_400)]
)
async def test_an_extension_counts_from_now(
    app: App, ada: Session, clock: StandingClock, grace: int, seconds: int
) -> None:
    made = await make(app, ada, expires_in=365 * 86_400)
    await rotate(app, ada, made.id, grace_period=3600)
    clock.advance(1_800_000)
    asked = ExtendRotation(key_id=made.id, grace_period=grace)
    assert (await extend_rotation(call_of(app, ada), asked)).status == "rotating"
    clock.advance(seconds * 1000 - 1)
    assert await works(app, made) == [True]
    clock.advance(1)
    assert await refused(app, made.key) == "KEY_REVOKED"


async def test_an_extension_without_an_end_lasts_until_the_rotation_is_finished(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first = await make(app, ada, expires_in=365 * 86_400)
    second = await rotate(app, ada, first.id, grace_period=60)
    third = await rotate(app, ada, first.id, grace_period=60)
    await extend_rotation(call_of(app, ada), ExtendRotation(key_id=first.id, grace_period=None))
    clock.advance(300 * DAY)
    assert await works(app, first, second, third) == [True, True, True]
    assert [each.usable_until for each in await secrets(app, ada, first.id)] == [None] * 3
    await extend_rotation(call_of(app, ada), ExtendRotation(key_id=first.id, grace_period=0))
    assert await works(app, first, second, third) == [False, False, True]
    assert (await get_api_key(call_of(app, ada), GetKey(id=first.id))).status != "rotating"


async def test_a_secret_that_has_ended_is_not_extended(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first = await make(app, ada)
    await rotate(app, ada, first.id, grace_period=60)
    await rotate(app, ada, first.id, grace_period=3600)
    clock.advance(60_000)
    await change(app, ada, "extend", first.id)
    assert await works(app, first) == [False]


# --- cancelled ---


async def test_a_cancelled_rotation_makes_the_old_secret_the_current_one_again(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id, grace_period=60)
    assert await works(app, made, rotated) == [True, True]
    cancelled = await change(app, ada, "cancel", made.id)
    assert (cancelled.status, cancelled.start) == ("active", made.start)
    assert await refused(app, rotated.key) == "KEY_REVOKED"
    clock.advance(61_000)
    old = await check(app, made.key)
    assert isinstance(old, Session)
    assert not old.replaced
    (only,) = await secrets(app, ada, made.id)
    assert (only.start, only.current) == (made.start, True)
    assert await code_of(change(app, ada, "cancel", made.id)) == "KEY_NOT_ROTATING"


async def test_a_rotation_whose_old_secret_has_ended_cannot_be_cancelled(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id, grace_period=60)
    clock.advance(60_000)
    assert await code_of(change(app, ada, "cancel", made.id)) == "KEY_NOT_ROTATING"
    assert await works(app, made, rotated) == [False, True]


async def test_of_two_rotations_the_newer_one_is_cancelled(app: App, ada: Session) -> None:
    first = await make(app, ada)
    second = await rotate(app, ada, first.id)
    third = await rotate(app, ada, first.id)
    assert (await change(app, ada, "cancel", first.id)).status == "rotating"
    assert await works(app, first, second, third) == [True, True, False]
    assert (await change(app, ada, "cancel", first.id)).start == first.start
    assert await works(app, first, second, third) == [True, False, False]


async def test_after_a_cancelled_rotation_a_key_rotates_as_before(app: App, ada: Session) -> None:
    """A secret that was given up is none of the earlier ones that go on."""
    first = await make(app, ada)
    await rotate(app, ada, first.id)
    await change(app, ada, "cancel", first.id)
    third = await rotate(app, ada, first.id)
    fourth = await rotate(app, ada, first.id)
    assert await works(app, first, third, fourth) == [True, True, True]
    fifth = await rotate(app, ada, first.id)
    assert await works(app, first, third, fourth, fifth) == [False, True, True, True]


# --- of what the caller saw ---


def knowing(app: App, who: Session, deed: str, id: str, current: str) -> Awaitable[ApiKey]:
    call = call_of(app, who)
    if deed == "extend":
        return extend_rotation(call, ExtendRotation(key_id=id, grace_period=60, current=current))
    asked = AboutRotation(key_id=id, current=current)
    return (finish_rotation if deed == "finish" else cancel_rotation)(call, asked)


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_a_rotation_is_changed_by_whoever_names_its_newest_secret(
    app: App, ada: Session, deed: str
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id)
    changed = await knowing(app, ada, deed, made.id, rotated.start)
    assert changed.start == (made if deed == "cancel" else rotated).start


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_a_rotation_that_the_caller_did_not_see_stays_as_it_is(
    app: App, ada: Session, clock: StandingClock, deed: str
) -> None:
    """Somebody rotated again: the page still shows the rotation before."""
    first = await make(app, ada)
    second = await rotate(app, ada, first.id)
    third = await rotate(app, ada, first.id)
    before = await get_rotation(call_of(app, ada), AboutRotation(key_id=first.id))
    shown = await get_api_key(call_of(app, ada), GetKey(id=first.id))
    clock.advance(1_000)
    for current in (second.start, first.start, "", "kb_", "kb_%", "\u202ekb_"):
        with pytest.raises(Failure) as refusal:
            await knowing(app, ada, deed, first.id, current)
        assert (refusal.value.code, refusal.value.status) == ("KEY_ALREADY_ROTATED", 409)
    assert await get_api_key(call_of(app, ada), GetKey(id=first.id)) == shown
    assert await get_rotation(call_of(app, ada), AboutRotation(key_id=first.id)) == before
    assert await works(app, first, second, third) == [True, True, True]
    assert (await list_audit(call_of(app, ada), AskAudit(event="key.rotation_"))).total == 0


async def test_of_many_cancellations_at_once_of_one_rotation_one_is_done(
    app: App, ada: Session
) -> None:
    """The others would else call off the rotation before it."""
    first = await make(app, ada)
    second = await rotate(app, ada, first.id)
    third = await rotate(app, ada, first.id)
    done = await asyncio.gather(
        *(knowing(app, ada, "cancel", first.id, third.start) for _ in range(6)),
        return_exceptions=True,
    )
    assert len([each for each in done if isinstance(each, ApiKey)]) == 1
    assert {each.code for each in done if isinstance(each, Failure)} == {"KEY_ALREADY_ROTATED"}
    assert await works(app, first, second, third) == [True, True, False]


# --- whoever does it ---


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_a_key_that_does_not_rotate_is_told_so_and_stays(
    app: App, ada: Session, clock: StandingClock, deed: str
) -> None:
    made = await make(app, ada)
    before = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    clock.advance(1_000)
    with pytest.raises(Failure) as refusal:
        await change(app, ada, deed, made.id)
    assert (refusal.value.code, refusal.value.status) == ("KEY_NOT_ROTATING", 409)
    assert await get_api_key(call_of(app, ada), GetKey(id=made.id)) == before
    assert await works(app, made) == [True]


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_another_users_rotation_is_not_found(app: App, ada: Session, deed: str) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id)
    eve = by(await person(app, "eve@example.com"))
    for id in (made.id, "nobodys"):
        assert await code_of(change(app, eve, deed, id)) == "KEY_NOT_FOUND"
        asked = AboutRotation(key_id=id)
        assert await code_of(get_rotation(call_of(app, eve), asked)) == "KEY_NOT_FOUND"
    assert await works(app, made, rotated) == [True, True]


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_each_change_of_a_rotation_is_audited(app: App, ada: Session, deed: str) -> None:
    made = await make(app, ada)
    await rotate(app, ada, made.id)
    await change(app, ada, deed, made.id)
    name = {"finish": "finished", "extend": "extended", "cancel": "cancelled"}[deed]
    (newest, *_) = (await list_audit(call_of(app, ada), AskAudit(target=made.id))).events
    assert (newest.event, newest.actor_id) == (f"key.rotation_{name}", ada.subject)
    assert newest.details == ({"gracePeriod": 60} if deed == "extend" else {})


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_of_many_changes_at_once_the_key_keeps_one_current_secret(
    app: App, ada: Session, deed: str
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id, grace_period=3600)
    done = await asyncio.gather(
        *(change(app, ada, each, made.id) for each in [deed] * 4 + sorted(CHANGES)),
        return_exceptions=True,
    )
    codes = {each.code for each in done if isinstance(each, Failure)}
    assert codes <= {"KEY_NOT_ROTATING"}
    left = await secrets(app, ada, made.id)
    assert [each.current for each in left] == [True]
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert left[0].start == shown.start
    assert await works(app, made, rotated) == [shown.start == made.start, shown.start != made.start]


@pytest.mark.parametrize("deed", sorted(CHANGES))
async def test_a_key_has_no_say_in_its_rotation(
    app: App, client: httpx2.AsyncClient, ada: Session, deed: str
) -> None:
    """Whoever found the old secret could else call off its end."""
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id)
    for each in (made, rotated):
        headers = {"x-api-key": each.key or ""}
        json = {"keyId": made.id} | ({"gracePeriod": None} if deed == "extend" else {})
        answer = await client.post(f"{API}/rotation/{deed}", json=json, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "SESSION_REQUIRED")
        seen = await client.get(f"{API}/rotation", params={"keyId": made.id}, headers=headers)
        assert (seen.status_code, seen.json()["code"]) == (403, "SESSION_REQUIRED")


async def test_a_disabled_key_is_rotated_to_its_end_all_the_same(app: App, ada: Session) -> None:
    made = await make(app, ada)
    await rotate(app, ada, made.id)
    await update_api_key(call_of(app, ada), UpdateKey(key_id=made.id, enabled=False))
    assert (await change(app, ada, "finish", made.id)).status == "disabled"


@pytest.mark.parametrize(
    "grace", [-1, 30 * 86_400 + 1, 1.5, "60", "null", True, [60], {"a": 1}, 2**70]
)
async def test_a_grace_is_whole_seconds_up_to_30_days_or_null(
    app: App, client: httpx2.AsyncClient, ada: Session, grace: object
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id)
    headers = await log_in(client)
    for path in ("rotation/extend", "rotate"):
        json = {"keyId": made.id, "gracePeriod": grace}
        answer = await client.post(f"{API}/{path}", json=json, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert answer.json()["message"] == (
            "gracePeriod must be a whole number from 0 to 2592000 or null."
        )
    assert await works(app, made, rotated) == [True, True]


async def test_an_extension_says_for_how_long(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    made = await make(app, ada)
    answer = await client.post(
        f"{API}/rotation/extend", json={"keyId": made.id}, headers=await log_in(client)
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "gracePeriod is missing" in answer.json()["message"]


async def test_an_ended_secret_is_refused_while_it_is_used_all_the_time(
    app: App, ada: Session
) -> None:
    """No check that begins after the answer succeeds, whatever the cache held before."""
    made = await create_api_key(
        call_of(app), CreateKey(user_id=ada.subject, rate_limit_enabled=False)
    )
    rotated = await rotate(app, ada, made.id)
    answered = False
    late: list[Verdict] = []

    async def hammer() -> None:
        while len(late) < 20:
            begun_after = answered
            verdict = await check(app, made.key)
            if begun_after:
                late.append(verdict)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(hammer()) for _ in range(4)]
    await asyncio.sleep(0.01)
    await change(app, ada, "finish", made.id)
    answered = True
    await asyncio.gather(*tasks)
    assert {isinstance(each, Refusal) and each.code for each in late} == {"KEY_REVOKED"}
    assert await works(app, rotated) == [True]


# --- which secret is used ---


def shares(told: list[RotationSecret]) -> list[tuple[int, str | None]]:
    return [(each.request_count, each.last_used_ip) for each in told]


async def test_the_uses_of_each_secret_are_counted_while_the_key_rotates(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    assert await works(app, made, made) == [True, True]  # before the rotation: not counted apart
    rotated = await rotate(app, ada, made.id)
    assert shares(await secrets(app, ada, made.id)) == [(0, None), (0, None)]
    for ip in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
        clock.advance(1_000)
        await check(app, rotated.key, ip)
    clock.advance(1_000)
    await check(app, made.key, "198.51.100.7")
    await check(app, made.key, needed=frozenset({"files:read"}))  # refused: no use
    new, old = await secrets(app, ada, made.id)
    assert shares([new, old]) == [(3, "203.0.113.3"), (1, "198.51.100.7")]
    assert (new.last_request, old.last_request) == (
        "2026-11-18T11:06:44.000Z",
        "2026-11-18T11:06:45.000Z",
    )
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert (shown.request_count, shown.last_used_ip) == (6, "198.51.100.7")
    again = await rotate(app, ada, made.id)
    assert [each.request_count for each in await secrets(app, ada, made.id)] == [0, 0, 0]
    assert await works(app, made, rotated, again) == [True, True, True]
    assert [each.request_count for each in await secrets(app, ada, made.id)] == [1, 1, 1]


@pytest.mark.parametrize("end", ["finish", "cancel", "grace"])
async def test_when_the_rotation_is_over_nothing_is_counted_apart(
    app: App, ada: Session, clock: StandingClock, end: str
) -> None:
    made = await make(app, ada)
    rotated = await rotate(app, ada, made.id, grace_period=60)
    left = made if end == "cancel" else rotated
    assert await works(app, left) == [True]
    if end == "grace":
        clock.advance(60_000)
    else:
        await change(app, ada, end, made.id)
    assert await works(app, left, left, left) == [True] * 3
    (only,) = await secrets(app, ada, made.id)
    assert only.request_count == 1
    assert (await get_api_key(call_of(app, ada), GetKey(id=made.id))).request_count == 4


async def test_a_secret_is_counted_under_the_pepper_that_it_moves_to(
    ready_url: str, clock: StandingClock
) -> None:
    newer = "a-newer-secret-Kp4sV8nB2mX7cL3qW9tR"
    before = Auth(ready_url, secret=SECRET, accounts=False, clock=clock)
    async with before.lifespan():
        made = await before.api.create_api_key(CreateKey(), owner="ann")
        clock.advance(1_000)
        await before.api.rotate_api_key(RotateKey(key_id=made.id), owner="ann")
    after = Auth(ready_url, secret=f"{newer},{SECRET}", accounts=False, clock=clock)
    async with after.lifespan():
        for _ in range(2):
            assert await after.api.get_session({"x-api-key": made.key or ""}, ip="203.0.113.7")
        told = await after.api.get_rotation(AboutRotation(key_id=made.id), owner="ann")
        assert shares(told.secrets) == [(0, None), (2, "203.0.113.7")]
