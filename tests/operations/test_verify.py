"""What a check over HTTP tells of the key: as it is now, this very use among it."""

from functools import partial

import pytest
from sqlalchemy import text

from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from keybearer.operations.keyends import RotateKey, rotate_api_key
from keybearer.operations.keys import CreateKey, GetKey, create_api_key, get_api_key
from keybearer.operations.keywire import ApiKey
from keybearer.operations.verify import VerifyKey, verify_api_key
from tests.people import StandingClock, call_of, person

MINUTE = 60_000
HERE, THERE = "203.0.113.7", "198.51.100.1"


async def make(app: App, **asked: object) -> str:
    """A key of Ada's, with what only the server may set."""
    owner = await person(app)
    made = await create_api_key(call_of(app), CreateKey(user_id=owner.id, **asked))  # type: ignore[arg-type]
    assert made.key is not None
    return made.key


async def use(app: App, key: str, ip: str | None = HERE) -> None:
    """A request with the key at a guarded endpoint."""
    headers = [(b"x-api-key", key.encode()), (b"user-agent", b"curl")]
    await app.verifier.verify(headers, ip)


async def told(app: App, key: str, *, cost: int = 1, ip: str | None = None) -> ApiKey:
    """The record in the answer to a check."""
    verdict = await verify_api_key(call_of(app), VerifyKey(key=key, cost=cost, ip=ip))
    assert verdict.key is not None, verdict
    return verdict.key


async def shown(app: App, record: ApiKey) -> ApiKey:
    """The record as its owner sees it: all that was counted is written."""
    return await get_api_key(call_of(app), GetKey(id=record.id))


async def test_the_record_has_the_use_that_it_answers(app: App, clock: StandingClock) -> None:
    key = await make(app)
    await use(app, key)
    for number in range(2, 6):
        clock.advance(100)
        record = await told(app, key, ip=THERE)
        assert record.request_count == number
        assert record.last_used_ip == THERE
        assert record == await shown(app, record)


async def test_an_address_that_is_not_told_leaves_the_one_before(
    app: App, clock: StandingClock
) -> None:
    key = await make(app)
    await use(app, key)
    await app.verifier.usage.flush(app.clock.now())
    clock.advance(5_000)
    record = await told(app, key)
    assert record.last_request == "2026-11-18T11:06:45.000Z"
    assert (record.last_used_ip, record.last_used_user_agent) == (HERE, "curl")
    assert record == await shown(app, record)


async def test_a_check_that_costs_nothing_is_no_use(app: App, clock: StandingClock) -> None:
    key = await make(app)
    record = await told(app, key, cost=0, ip=THERE)
    assert (record.request_count, record.last_request, record.last_used_ip) == (0, None, None)
    await use(app, key)
    clock.advance(5_000)
    record = await told(app, key, cost=0, ip=THERE)
    assert (record.request_count, record.last_used_ip) == (1, HERE)
    assert record.last_request == "2026-11-18T11:06:40.000Z"
    assert record == await shown(app, record)


@pytest.mark.parametrize("written", [True, False])
async def test_uses_count_through_both_secrets_of_a_rotating_key(app: App, written: bool) -> None:
    key = await make(app)
    await use(app, key)
    if written:
        await app.verifier.usage.flush(app.clock.now())
    record = await told(app, key)
    made = await rotate_api_key(call_of(app), RotateKey(key_id=record.id))
    assert made.key is not None
    for number, secret in enumerate((made.key, key, made.key), start=3):
        record = await told(app, secret)
        assert record.request_count == number
        if written:
            await app.verifier.usage.flush(app.clock.now())
    assert record == await shown(app, record)


async def test_what_the_quota_has_left_is_told_to_whoever_only_looks(
    app: App, clock: StandingClock
) -> None:
    key = await make(app, remaining=5, refill_amount=5, refill_interval=MINUTE)
    await use(app, key)
    assert (await told(app, key)).remaining == 3
    assert (await told(app, key, cost=0)).remaining == 3
    clock.advance(5_000)  # another lease, the same entry
    assert (await told(app, key, cost=2)).remaining == 1
    record = await told(app, key, cost=0)
    assert record == await shown(app, record)


async def test_a_refill_that_came_while_the_key_was_remembered_is_told_once(
    app: App, clock: StandingClock
) -> None:
    key = await make(app, remaining=5, refill_amount=5, refill_interval=MINUTE)
    clock.advance(MINUTE - 1_000)
    assert (await told(app, key, cost=5)).remaining == 0
    clock.advance(1_000)
    record = await told(app, key)
    assert record.remaining == 4
    assert record.last_refill_at == "2026-11-18T11:07:40.000Z"
    assert record == await shown(app, record)


async def test_a_key_with_a_quota_that_is_deleted_meanwhile_has_no_record(app: App) -> None:
    key = await make(app, remaining=5)
    record = await told(app, key)

    async def behind_our_back(tx: Transaction, table: str, column: str) -> None:
        await tx.run(text(f"DELETE FROM {table} WHERE {column} = :id"), id=record.id)  # noqa: S608

    for table, column in (("api_key_secrets", "key_id"), ("api_keys", "id")):
        await app.database.write(partial(behind_our_back, table=table, column=column))
    verdict = await verify_api_key(call_of(app), VerifyKey(key=key, cost=0))
    assert (verdict.valid, verdict.key) == (True, None)


async def test_a_cost_that_is_never_given_is_not_put_off(app: App, clock: StandingClock) -> None:
    key = await make(app, rate_limit_max=10)
    never = await verify_api_key(call_of(app), VerifyKey(key=key, cost=11))
    assert never.error is not None
    assert (never.error.code, never.error.details) == ("RATE_LIMITED", None)
    assert never.error.message == "cost is 11, and the key's rate limit is 10."
    assert (await verify_api_key(call_of(app), VerifyKey(key=key, cost=10))).valid
    later = await verify_api_key(call_of(app), VerifyKey(key=key, cost=10))
    assert later.error is not None
    assert later.error.details is not None
    assert later.error.details["tryAgainIn"] >= 60_000


async def test_a_cost_above_what_a_quota_is_refilled_with_is_never_given(app: App) -> None:
    key = await make(app, remaining=12, refill_amount=10, refill_interval=MINUTE)
    assert (await verify_api_key(call_of(app), VerifyKey(key=key, cost=11))).valid
    never = await verify_api_key(call_of(app), VerifyKey(key=key, cost=11))
    assert never.error is not None
    assert (never.error.code, never.error.details) == ("USAGE_EXCEEDED", None)
    assert never.error.message == "cost is 11, and the key's quota is refilled with 10."
