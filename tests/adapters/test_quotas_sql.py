"""Quotas on both databases: SQL says what the rules of the domain say."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keybearer.adapters.sql import keys, quotas
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.quotas import StoredQuotas
from keybearer.domain.limits import CHUNK_SHARE, ration, refill
from keybearer.domain.model import Key
from keybearer.domain.uses import Taken, Unspent
from tests.adapters.test_keys_sql import AnyDatabase, add, key_of, stored
from tests.people import START

NOW = START


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


async def take(
    database: AnyDatabase,
    id: str,
    *costs: int,
    own: int = 0,
    version: int = 0,
    ahead: int = 0,
    now: int = NOW,
) -> Taken | None:
    return await StoredQuotas(database).take(
        id, costs, own=own, version=version, ahead=ahead, now=now
    )


async def consume(database: AnyDatabase, id: str, now: int = NOW, *, cost: int = 1) -> int | None:
    """What is left after one request; None where it is refused."""
    taken = await take(database, id, cost, now=now)
    assert taken is None or (taken.met, taken.units, taken.ahead) == ((True,), cost, 0)
    return None if taken is None else taken.left


async def give_back(database: AnyDatabase, key: Key, units: int, *, version: int = 0) -> None:
    unspent = Unspent(key_id=key.id, version=version, units=units)
    await StoredQuotas(database).give_back([unspent])


async def left(database: AnyDatabase, key: Key) -> int | None:
    return (await stored(database, key.id)).remaining


async def save(database: AnyDatabase, key: Key, **changes: object) -> None:
    await database.write(lambda tx: keys.save(tx, key.id, changes))


# --- one request ----------------------------------------------------------------------------------


async def test_of_200_at_once_as_many_pass_as_the_quota_has(database: AnyDatabase) -> None:
    key = key_of(remaining=70)
    await add(database, key)
    left = await asyncio.gather(*(consume(database, key.id) for _ in range(200)))
    assert sorted(each for each in left if each is not None) == list(range(70))
    assert left.count(None) == 130
    assert (await stored(database, key.id)).remaining == 0


async def test_of_200_at_once_one_refills(database: AnyDatabase) -> None:
    key = key_of(remaining=3, refill_amount=50, refill_interval_ms=1000)
    await add(database, key)
    due = NOW + 2500
    left = await asyncio.gather(*(consume(database, key.id, due) for _ in range(200)))
    assert sorted(each for each in left if each is not None) == list(range(50))
    after = await stored(database, key.id)
    assert (after.remaining, after.last_refill_at) == (0, NOW + 2000)


async def test_costs_are_whole_or_not_at_all(database: AnyDatabase) -> None:
    key = key_of(remaining=10)
    await add(database, key)
    left = await asyncio.gather(*(consume(database, key.id, cost=3) for _ in range(20)))
    assert sorted(each for each in left if each is not None) == [1, 4, 7]
    assert await consume(database, key.id, cost=2) is None
    assert await consume(database, key.id, cost=1) == 0


async def test_a_revoked_key_spends_nothing(database: AnyDatabase) -> None:
    key = key_of(remaining=5, refill_amount=9, refill_interval_ms=1000)
    await add(database, key)
    await database.write(lambda tx: keys.revoke(tx, key.id, now=NOW, reason=None))
    assert await consume(database, key.id, NOW + 5000) is None
    after = await stored(database, key.id)
    assert (after.remaining, after.last_refill_at) == (5, None)


async def test_a_key_without_a_quota_has_none_to_take_from(database: AnyDatabase) -> None:
    plain = key_of()
    refilled = key_of(refill_amount=9, refill_interval_ms=1000)
    await add(database, plain, refilled)
    for key in (plain, refilled):
        assert await consume(database, key.id, NOW + 5000) is None
        after = await stored(database, key.id)
        assert (after.remaining, after.last_refill_at) == (None, None)
    assert await consume(database, "nobody") is None


QUOTAS = st.fixed_dictionaries(
    {"remaining": st.integers(0, 6), "last_refill_at": st.none() | st.integers(NOW - 90, NOW + 90)}
)
REFILLS: st.SearchStrategy[dict[str, int]] = st.just({}) | st.fixed_dictionaries(
    {"refill_amount": st.integers(1, 6), "refill_interval_ms": st.integers(1, 40)}
)


@given(
    quota=QUOTAS,
    refilled=REFILLS,
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 7)), max_size=8),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_sql_takes_and_refills_as_the_rule_says(
    database: AnyDatabase,
    quota: dict[str, int | None],
    refilled: dict[str, int],
    steps: list[tuple[int, int]],
) -> None:
    key = key_of(**quota, **refilled)
    await add(database, key)
    held, filled, now = key.remaining, key.last_refill_at, NOW
    for passed, cost in steps:
        now += passed
        after, when = refill(
            held, key.refill_amount, key.refill_interval_ms, filled, key.created_at, now
        )
        assert after is not None
        left = await consume(database, key.id, now, cost=cost)
        if after < cost:
            assert left is None  # and nothing is written: a refill that is due stays due
        else:
            held, filled = after - cost, when
            assert left == held
        row = await stored(database, key.id)
        assert (row.remaining, row.last_refill_at) == (held, filled)


# --- several at once, and ahead -------------------------------------------------------------------


async def test_requests_together_are_met_as_one_after_the_other(database: AnyDatabase) -> None:
    key = key_of(remaining=10)
    await add(database, key)
    taken = await take(database, key.id, 4, 7, 5, 2, 1)
    assert taken is not None
    assert (taken.met, taken.units, taken.left) == ((True, False, True, False, True), 10, 0)
    assert await take(database, key.id, 1, 1) is None


async def test_what_the_process_has_is_spent_first(database: AnyDatabase) -> None:
    key = key_of(remaining=3)
    await add(database, key)
    taken = await take(database, key.id, 8, own=5)
    assert taken is not None
    assert (taken.units, taken.left) == (3, 0)
    assert await take(database, key.id, 6, own=5) is None
    # One is met by what the process has; the other is not, and so nothing is taken.
    taken = await take(database, key.id, 4, 9, own=5)
    assert taken is not None
    assert (taken.met, taken.units, taken.left) == ((True, False), 0, 0)


async def test_units_of_another_version_meet_nothing(database: AnyDatabase) -> None:
    key = key_of(remaining=3)
    await add(database, key)
    await save(database, key, remaining=4)
    taken = await take(database, key.id, 6, 4, own=5, version=0)
    assert taken is not None
    assert (taken.met, taken.units, taken.left, taken.version) == ((False, True), 4, 0, 1)


@pytest.mark.parametrize(
    ("remaining", "ahead"),
    [(CHUNK_SHARE - 1, 0), (CHUNK_SHARE, 0), (CHUNK_SHARE + 1, 1), (7 * CHUNK_SHARE + 1, 7),
     (7 * CHUNK_SHARE, 6), (10**9, 40)],
)  # fmt: skip
async def test_ahead_is_at_most_a_thousandth_of_what_is_left(
    database: AnyDatabase, remaining: int, ahead: int
) -> None:
    key = key_of(remaining=remaining)
    await add(database, key)
    taken = await take(database, key.id, 1, ahead=40)
    assert taken is not None
    assert (taken.units, taken.ahead, taken.left) == (1 + ahead, ahead, remaining - 1 - ahead)


async def test_nothing_is_taken_ahead_where_the_process_has_enough_for_who_is_met(
    database: AnyDatabase,
) -> None:
    key = key_of(remaining=90_000)
    await add(database, key)
    taken = await take(database, key.id, 5, 100_000, own=6, ahead=40)
    assert taken is not None
    assert (taken.met, taken.units, taken.ahead) == ((True, False), 0, 0)


async def test_a_key_that_ended_or_has_no_quota_gives_nothing_to_several_either(
    database: AnyDatabase,
) -> None:
    ended, plain = key_of(remaining=5), key_of()
    await add(database, ended, plain)
    await database.write(lambda tx: keys.revoke(tx, ended.id, now=NOW, reason=None))
    for id in (ended.id, plain.id, "nobody"):
        assert await take(database, id, 1, 1) is None


async def test_when_it_is_refilled_is_told(database: AnyDatabase) -> None:
    refilled = key_of(remaining=9, refill_amount=9, refill_interval_ms=1000)
    never = key_of(remaining=9)
    await add(database, refilled, never)
    told = []
    for key, now in ((refilled, NOW), (refilled, NOW + 2500), (never, NOW)):
        taken = await take(database, key.id, 1, now=now)
        assert taken is not None
        told.append((taken.version, taken.refilled_at, taken.refill_at))
    assert told == [(0, None, NOW + 1000), (1, NOW + 2000, NOW + 3000), (0, None, None)]


async def test_many_processes_at_once_take_all_and_no_more(database: AnyDatabase) -> None:
    key = key_of(remaining=12_345)
    await add(database, key)
    own = 0
    met = 0

    async def spend() -> None:
        nonlocal own, met
        while True:
            # What lies in the chunk is on its way to the statement: nobody else may count on it.
            mine, own = own, 0
            taken = await take(database, key.id, 60, 61, own=min(mine, 120), ahead=9)
            if taken is None:
                own += mine
                return
            spent = sum(cost for cost, enough in zip((60, 61), taken.met, strict=True) if enough)
            met += spent
            own += mine + taken.units - spent

    await asyncio.gather(*(spend() for _ in range(8)))
    assert met + own + (await left(database, key) or 0) == 12_345
    assert own + (await left(database, key) or 0) < 8 * 60


# --- back -----------------------------------------------------------------------------------------


async def test_units_go_back_to_the_number_that_they_came_from(database: AnyDatabase) -> None:
    key = key_of(remaining=10)
    await add(database, key)
    await consume(database, key.id, cost=6)
    await save(database, key, name="new", refill_amount=7, refill_interval_ms=1000)
    await give_back(database, key, 4)
    assert await left(database, key) == 8
    await save(database, key, remaining=2)
    await give_back(database, key, 2)
    assert await left(database, key) == 2
    await give_back(database, key, 2, version=1)
    assert await left(database, key) == 4


async def test_units_never_add_to_a_refill(database: AnyDatabase) -> None:
    key = key_of(remaining=10, refill_amount=7, refill_interval_ms=1000)
    await add(database, key)
    await consume(database, key.id, cost=6)
    assert await consume(database, key.id, NOW + 1000) == 6
    await give_back(database, key, 4)
    assert await left(database, key) == 6


async def test_units_of_a_key_that_ended_go_back_and_of_one_that_is_gone_nowhere(
    database: AnyDatabase,
) -> None:
    ended, endless, gone = key_of(remaining=10), key_of(remaining=10), key_of()
    await add(database, ended, endless)
    await database.write(lambda tx: keys.revoke(tx, ended.id, now=NOW, reason=None))
    await save(database, endless, remaining=None)
    back: Sequence[Unspent] = [
        Unspent(key_id=key.id, version=0, units=4) for key in (ended, endless, gone)
    ]
    await database.write(lambda tx: quotas.give_back(tx, back))
    assert (await left(database, ended), await left(database, endless)) == (14, None)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.lists(st.integers(1, 7), min_size=1, max_size=4),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    max_size=8,
)


@given(quota=QUOTAS, refilled=REFILLS, steps=STEPS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_sql_shares_out_as_the_rule_says(
    database: AnyDatabase,
    quota: dict[str, int | None],
    refilled: dict[str, int],
    steps: list[tuple[int, list[int], int, int]],
) -> None:
    held, filled, now, version = 1000 * (quota["remaining"] or 0), quota["last_refill_at"], NOW, 0
    key = key_of(**{**quota, "remaining": held}, **refilled)
    await add(database, key)
    for passed, costs, own, ahead in steps:
        now += passed
        own = min(own, sum(costs) - 1)  # noqa: PLW2901 -- a process that has enough does not ask
        after, when = refill(
            held, key.refill_amount, key.refill_interval_ms, filled, key.created_at, now
        )
        assert after is not None
        of = version + (when != filled)
        taken = await take(database, key.id, *costs, own=own, version=version, ahead=ahead, now=now)
        met, need = ration(costs, own if of == version else 0, after)
        if taken is None:
            assert not any(met)
            continue
        if of == version:
            assert (taken.met, taken.units - taken.ahead) == (met, need)
        # Else it was counted on what is void: the caller sees the version, and asks again.
        assert taken.ahead <= min(ahead, (after - (taken.units - taken.ahead)) // CHUNK_SHARE)
        held, filled, version = after - taken.units, when, of
        assert (taken.left, taken.version, taken.refilled_at) == (held, version, filled)
        row = await stored(database, key.id)
        assert (row.remaining, row.last_refill_at) == (held, filled)
