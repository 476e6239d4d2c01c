"""What is revoked or replaced stops, and the receipt says so."""

import asyncio

import httpx2
import pytest

from keybearer import Unavailable
from keybearer.adapters.sql import audit
from keybearer.adapters.sql import keys as keys_sql
from keybearer.domain.changes import Change
from keybearer.domain.model import Refusal, Session
from keybearer.domain.ports import Transaction
from keybearer.operations import people, upkeep
from keybearer.operations.app import App
from keybearer.operations.declaration import Call, Empty
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import (
    RevokeKey,
    RotateKey,
    delete_api_key,
    revoke_api_key,
    revoke_owner,
    revoke_self,
    rotate_api_key,
)
from keybearer.operations.keys import (
    CreateKey,
    GetKey,
    ListKeys,
    create_api_key,
    get_api_key,
    list_api_keys,
)
from keybearer.operations.reports import AskAudit, AskUsage, get_usage, list_audit
from keybearer.operations.verify import VerifyBatch, VerifyKey, verify_api_key, verify_api_keys
from keybearer.verification.coherence import Receipt
from tests.operations.test_keys import check, code_of, make, refused
from tests.people import StandingClock, by, call_of, person


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


async def test_a_revoked_key_is_refused_when_revoke_has_answered(app: App, ada: Session) -> None:
    made = await make(app, ada)
    await check(app, made.key)
    receipt = await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id, reason="leaked"))
    assert (receipt.success, receipt.nodes, receipt.waited_ms) == (True, 1, 0)
    assert await refused(app, made.key) == "KEY_REVOKED"
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert (shown.status, shown.revoked_at) == ("revoked", receipt.revoked_at)
    assert shown.revoked_reason == "leaked"


async def test_revoking_again_tells_when_it_was(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    first = await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    clock.advance(5000)
    again = await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    assert again.revoked_at == first.revoked_at


async def test_a_reason_is_text_that_can_be_shown(app: App, ada: Session) -> None:
    made = await make(app, ada)
    asked = RevokeKey(key_id=made.id, reason="leaked\x07\x1b[2J")
    assert await code_of(revoke_api_key(call_of(app, ada), asked)) == "VALIDATION_ERROR"
    assert isinstance(await check(app, made.key), Session)


async def test_whoever_holds_a_key_can_end_it(app: App, ada: Session) -> None:
    made = await make(app, ada)
    itself = await check(app, made.key)
    assert isinstance(itself, Session)
    assert (await revoke_self(call_of(app, itself), Empty())).success
    assert isinstance(await check(app, made.key), Refusal)


@pytest.mark.parametrize("barred", ["network", "off", "expired", "owner"])
async def test_whoever_finds_a_key_can_end_it_though_it_opens_nothing(
    app: App, client: httpx2.AsyncClient, ada: Session, clock: StandingClock, barred: str
) -> None:
    ip_allow = ["10.0.0.0/8"] if barred == "network" else None
    made = await make(app, ada, ip_allow=ip_allow, expires_in=60)
    if barred == "off":
        await update_api_key(call_of(app, ada), UpdateKey(key_id=made.id, enabled=False))
    elif barred == "expired":
        clock.advance(60_000)
    elif barred == "owner":
        await people.disable(call_of(app), ada.subject)
    headers = {"x-api-key": made.key or ""}
    refusal = await client.get("/api/auth/api-key/get", headers=headers)
    assert refusal.status_code in (401, 403)
    answer = await client.post("/api/auth/api-key/revoke-self", headers=headers)
    assert answer.status_code == 200, answer.text
    shown = await get_api_key(call_of(app), GetKey(id=made.id))
    assert (shown.status, shown.revoked_at) == ("revoked", answer.json()["revokedAt"])
    events = await list_audit(call_of(app, ada), AskAudit(event="key.revoked"))
    assert [event.actor_id for event in events.events] == [made.id]

    again = await client.post("/api/auth/api-key/revoke-self", headers=headers)
    assert (again.status_code, again.json()["code"]) == (401, "KEY_REVOKED")


async def test_a_secret_that_was_replaced_for_good_ends_nothing(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    made = await make(app, ada)
    await rotate_api_key(call_of(app, ada), RotateKey(key_id=made.id, grace_period=0))
    headers = {"x-api-key": made.key or ""}
    answer = await client.post("/api/auth/api-key/revoke-self", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "KEY_REVOKED")
    assert (await get_api_key(call_of(app, ada), GetKey(id=made.id))).revoked_at is None


async def test_a_key_that_is_gone_while_it_asks_is_refused(
    app: App, client: httpx2.AsyncClient, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada, ip_allow=["10.0.0.0/8"], expires_in=60)
    headers = {"x-api-key": made.key or ""}
    assert (await client.get("/api/auth/api-key/get", headers=headers)).status_code == 403  # cached

    async def forget(tx: Transaction) -> int:
        return await keys_sql.forget_ended(tx, before=clock.now() + 90_000)

    assert await app.database.write(forget) == 1
    answer = await client.post("/api/auth/api-key/revoke-self", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "IP_NOT_ALLOWED")


async def test_every_key_of_an_owner_ends_together(app: App, ada: Session) -> None:
    made = [await make(app, ada) for _ in range(3)]
    for key in made:
        await check(app, key.key)
    assert await revoke_owner(app, ada.subject) == 3
    for key in made:
        assert isinstance(await check(app, key.key), Refusal)


async def test_a_change_that_cannot_spread_says_so(app: App, ada: Session) -> None:
    class Broken:
        async def announce(self, tx: object, tags: tuple[str, ...]) -> Change:
            return Change(1, tags, "another")

        async def settle(self, change: Change) -> Receipt:
            raise Unavailable("the bus is gone")

    made = await make(app, ada)
    object.__setattr__(app, "spread", Broken())
    with pytest.raises(Unavailable) as caught:
        await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    assert caught.value.code == "REVOCATION_PENDING"


async def test_rotating_again_and_again_leaves_few_secrets(
    app: App, ada: Session, clock: StandingClock
) -> None:
    first, other = await make(app, ada), await make(app, ada)
    await rotate_api_key(call_of(app, ada), RotateKey(key_id=other.id))
    secrets = [first.key]
    for _ in range(4):
        clock.advance(1_000)
        rotated = await rotate_api_key(call_of(app, ada), RotateKey(key_id=first.id))
        secrets.append(rotated.key)
        working = [isinstance(await check(app, key), Session) for key in secrets]
        assert working == [False] * (len(secrets) - 3) + [True] * min(3, len(secrets))
    assert await refused(app, first.key) == "KEY_REVOKED"
    assert isinstance(await check(app, other.key), Session)  # another key's go on

    # What is over for long is deleted, and what works is not.
    clock.advance(86_400_000)
    assert await upkeep.forget_ended(app) == 0
    clock.advance(app.settings.key_retention + 1)
    assert await upkeep.forget_ended(app) == 5
    assert await refused(app, first.key) == "INVALID_API_KEY"


async def test_the_old_secret_works_until_the_grace_ends(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    rotated = await rotate_api_key(call_of(app, ada), RotateKey(key_id=made.id, grace_period=60))
    assert rotated.id == made.id
    assert rotated.key != made.key
    assert rotated.status == "rotating"
    clock.advance(59_999)
    old = await check(app, made.key)
    assert isinstance(old, Session)
    assert old.replaced
    assert isinstance(await check(app, rotated.key), Session)
    assert await code_of(rotate_api_key(call_of(app, old), RotateKey())) == "KEY_NOT_ROTATABLE"
    clock.advance(1)
    assert await refused(app, made.key) == "KEY_REVOKED"
    assert isinstance(await check(app, rotated.key), Session)


async def test_a_grace_of_zero_ends_the_old_secret_at_once(app: App, ada: Session) -> None:
    made = await make(app, ada)
    await check(app, made.key)
    itself = await check(app, made.key)
    assert isinstance(itself, Session)
    rotated = await rotate_api_key(call_of(app, itself), RotateKey(grace_period=0))
    assert isinstance(await check(app, made.key), Refusal)
    assert isinstance(await check(app, rotated.key), Session)


async def test_a_second_rotation_does_not_lengthen_the_first_grace(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    call = call_of(app, ada)
    await rotate_api_key(call, RotateKey(key_id=made.id, grace_period=60))
    await rotate_api_key(call, RotateKey(key_id=made.id, grace_period=3600))
    clock.advance(60_000)
    assert isinstance(await check(app, made.key), Refusal)


async def test_a_revoked_key_is_not_rotated(app: App, ada: Session) -> None:
    made = await make(app, ada)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    again = RotateKey(key_id=made.id)
    assert await code_of(rotate_api_key(call_of(app, ada), again)) == "KEY_NOT_ROTATABLE"


async def test_ended_keys_are_forgotten_after_the_retention(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    kept = await make(app, ada, expires_in=365 * 86_400)
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made.id))
    assert await upkeep.forget_ended(app) == 0
    clock.advance(app.settings.key_retention + 1)
    assert await upkeep.forget_ended(app) == 1
    call = call_of(app, ada)
    assert await code_of(get_api_key(call, GetKey(id=made.id))) == "KEY_NOT_FOUND"
    assert (await get_api_key(call, GetKey(id=kept.id))).id == kept.id


# --- verify ---


def service(app: App) -> Call:
    return call_of(app, Session(subject="service", kind="service", id="s"))


async def test_verify_tells_whether_a_key_is_good(app: App, ada: Session) -> None:
    made = await make(app, ada, permissions={"files": ["read"]}, metadata={"a": 1})
    assert made.key is not None
    good = await verify_api_key(
        service(app), VerifyKey(key=made.key, permissions={"files": ["read"]}, ip="203.0.113.9")
    )
    assert good.valid
    assert good.error is None
    assert good.key is not None
    assert (good.key.id, good.key.metadata) == (made.id, {"a": 1})
    lacking = await verify_api_key(
        service(app), VerifyKey(key=made.key, permissions={"files": ["write"]})
    )
    assert not lacking.valid
    assert lacking.error is not None
    assert lacking.error.code == "INSUFFICIENT_SCOPE"
    assert lacking.error.needed_permissions == ["files:write"]
    assert made.key not in repr(VerifyKey(key=made.key))


async def test_verify_takes_from_the_quota_and_shows_what_is_left(app: App, ada: Session) -> None:
    made = await create_api_key(
        call_of(app),
        CreateKey(
            user_id=ada.subject, remaining=3, rate_limit_max=3, rate_limit_time_window=60_000
        ),
    )
    assert made.key is not None
    first = await verify_api_key(service(app), VerifyKey(key=made.key, cost=2))
    assert first.key is not None
    assert first.key.remaining == 1
    over = await verify_api_key(service(app), VerifyKey(key=made.key, cost=2))
    assert over.error is not None
    assert over.error.code == "RATE_LIMITED"
    assert over.error.details is not None
    assert over.error.details["tryAgainIn"] > 0
    look = await verify_api_key(service(app), VerifyKey(key=made.key, cost=0))
    assert look.valid


async def test_a_batch_answers_each_for_itself(app: App, ada: Session) -> None:
    made = await make(app, ada)
    assert made.key is not None
    batch = VerifyBatch(keys=[VerifyKey(key=made.key), VerifyKey(key="kb_wrong")])
    results = (await verify_api_keys(service(app), batch)).results
    assert [result.valid for result in results] == [True, False]
    assert results[1].error is not None
    assert results[1].error.code == "INVALID_API_KEY"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"permissions": {"files": []}}, "INVALID_PERMISSIONS"),
        ({"ip": "not-an-address"}, "VALIDATION_ERROR"),
    ],
)
async def test_verify_says_what_is_wrong_with_the_question(
    app: App, asked: dict[str, object], code: str
) -> None:
    question = VerifyKey(key="kb_x", **asked)  # type: ignore[arg-type]
    assert await code_of(verify_api_key(service(app), question)) == code


# --- usage and audit ---


async def test_a_key_that_asks_for_usage_need_not_name_itself(
    app: App, client: httpx2.AsyncClient, ada: Session
) -> None:
    made, other = await make(app, ada), await make(app, ada)
    await check(app, made.key)
    path, headers = "/api/auth/api-key/usage", {"x-api-key": made.key or ""}
    own = await client.get(path, headers=headers)
    assert own.status_code == 200, own.text
    assert (own.json()["keyId"], own.json()["total"]) == (made.id, {"accepted": 1})
    foreign = await client.get(path, params={"keyId": other.id}, headers=headers)
    assert foreign.status_code == 404
    assert await code_of(get_usage(call_of(app, ada), AskUsage())) == "VALIDATION_ERROR"


async def test_usage_counts_by_hour_day_and_outcome(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    call = call_of(app, ada)
    for _ in range(3):
        await check(app, made.key)
    await check(app, made.key, needed=frozenset({"files:read"}))
    await app.verifier.usage.flush(clock.now())
    clock.advance(3_600_000)
    await check(app, made.key)
    hours = await get_usage(call_of(app, ada), AskUsage(key_id=made.id))
    assert hours.total == {"accepted": 4, "INSUFFICIENT_SCOPE": 1}
    assert [bucket.counts for bucket in hours.buckets] == [
        {"INSUFFICIENT_SCOPE": 1, "accepted": 3},
        {"accepted": 1},
    ]
    days = await get_usage(call_of(app, ada), AskUsage(key_id=made.id, interval="day"))
    assert len(days.buckets) == 1
    empty = await get_usage(
        call,
        AskUsage(key_id=made.id, since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z"),
    )
    assert (empty.total, empty.buckets) == ({}, [])


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("yesterday", None),
    ],
)
async def test_usage_refuses_a_span_that_makes_no_sense(
    app: App, ada: Session, since: str, until: str | None
) -> None:
    made = await make(app, ada)
    asked = AskUsage(key_id=made.id, since=since, until=until)
    assert await code_of(get_usage(call_of(app, ada), asked)) == "VALIDATION_ERROR"


async def test_each_change_leaves_one_event_in_the_owners_trail(app: App, ada: Session) -> None:
    made = await make(app, ada, name="ci")
    call = call_of(app, ada)
    await rotate_api_key(call, RotateKey(key_id=made.id))
    await revoke_api_key(call, RevokeKey(key_id=made.id, reason="done"))
    page = await list_audit(call, AskAudit(target=made.id))
    assert [event.event for event in page.events] == ["key.revoked", "key.rotated", "key.created"]
    assert page.total == 3
    assert page.events[0].details == {"reason": "done"}
    assert page.events[0].ip == "203.0.113.7"
    one = await list_audit(call, AskAudit(event="key.rotated", limit=1))
    assert (one.total, len(one.events)) == (1, 1)
    eve = by(await person(app, "eve@example.com"))
    assert (await list_audit(call_of(app, eve), AskAudit(target=made.id))).total == 0
    count, faults = await app.database.read(lambda tx: audit.verify(tx, app.ring))
    assert count >= 3
    assert faults == []


async def test_500_parallel_requests_spend_one_unit_once(app: App, ada: Session) -> None:
    made = await create_api_key(
        call_of(app), CreateKey(user_id=ada.subject, remaining=1, rate_limit_enabled=False)
    )
    verdicts = await asyncio.gather(*(check(app, made.key) for _ in range(500)))
    assert sum(isinstance(verdict, Session) for verdict in verdicts) == 1
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert shown.remaining == 0


async def test_a_deleted_key_is_revoked_and_listed_only_where_that_is_asked(
    app: App, ada: Session
) -> None:
    call = call_of(app, ada)
    made, revoked = await make(app, ada), await make(app, ada)
    await delete_api_key(call, RevokeKey(key_id=made.id, reason="leaked"))
    await revoke_api_key(call, RevokeKey(key_id=revoked.id, reason="deleted"))
    assert await refused(app, made.key) == "KEY_REVOKED"
    page = await list_api_keys(call, ListKeys())
    assert ([key.id for key in page.api_keys], page.total) == ([revoked.id], 1)
    both = (await list_api_keys(call, ListKeys(status=("revoked", "expired")))).api_keys
    assert {key.id: key.revoked_reason for key in both} == {
        made.id: "leaked", revoked.id: "deleted",
    }  # fmt: skip
    assert (await list_api_keys(call, ListKeys(status=("active",)))).total == 0


async def test_a_revoked_key_is_deleted_once_and_tells_so(app: App, ada: Session) -> None:
    call = call_of(app, ada)
    made = await make(app, ada)
    before = await revoke_api_key(call, RevokeKey(key_id=made.id, reason="leaked"))
    for _ in range(2):
        deleted = await delete_api_key(call, RevokeKey(key_id=made.id))
        assert deleted.revoked_at == before.revoked_at
        assert (await list_api_keys(call, ListKeys())).total == 0
    events = [event.event for event in (await list_audit(call, AskAudit())).events]
    assert events[:3] == ["key.updated", "key.revoked", "key.created"]
