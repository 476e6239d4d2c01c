"""Limits and quotas, attacked (rows A096 to A113).

Here one process counts, and the requests meet in it; several nodes and a Redis that stops are in
`test_lim_nodes.py`.
"""

import asyncio
import re
from typing import Any

import pytest

from keybearer.operations.keyedits import UpdateKey
from keybearer.operations.keys import CreateKey, GetKey
from tests.attacks.guarded import Answer, ask, bearer, guarded_app
from tests.attacks.town import Town
from tests.people import StandingClock

MINUTE = 60_000


@pytest.fixture
def site(town: Town) -> Any:
    return guarded_app(town.auth)


async def make(town: Town, **asked: object) -> str:
    """A key of U1 with limits that only the server may set."""
    made = await town.auth.api.create_api_key(CreateKey(user_id=town.u1, **asked))  # type: ignore[arg-type]
    assert made.key is not None
    return made.key


async def remaining(town: Town, key: str) -> int | None:
    session = await town.auth.api.verify_api_key(_look(key))
    assert session.key is not None
    shown = await town.auth.api.get_api_key(GetKey(id=session.key.id))
    return shown.remaining


def _look(key: str) -> Any:
    from keybearer.operations.verify import VerifyKey

    return VerifyKey(key=key, cost=0)


async def limited(town: Town, maximum: int, window_ms: int) -> str:
    return await make(town, rate_limit_max=maximum, rate_limit_time_window=window_ms)


async def accepted(site: Any, key: str, times: int) -> int:
    answers = await asyncio.gather(*(ask(site, bearer(key)) for _ in range(times)))
    assert {answer.status for answer in answers} <= {200, 429}
    return sum(answer.status == 200 for answer in answers)


async def test_a096_of_a_thousand_at_once_exactly_the_limit_pass(town: Town, site: Any) -> None:
    assert await accepted(site, await limited(town, 10, MINUTE), 1000) == 10


async def test_a097_no_window_anywhere_holds_more(
    town: Town, site: Any, clock: StandingClock
) -> None:
    key = await limited(town, 10, MINUTE)
    clock.advance(MINUTE - 100)
    assert await accepted(site, key, 10) == 10
    clock.advance(200)
    assert await accepted(site, key, 10) == 0
    clock.advance(MINUTE + 1000)  # a sub-window of 1/64 more is counted whole
    assert await accepted(site, key, 20) == 10


async def test_a098_a_steady_client_below_its_limit_is_never_refused(
    town: Town, site: Any, clock: StandingClock
) -> None:
    for maximum, window, pause, times in (
        (10, MINUTE, 30_000, 120),
        (10, 86_400_000, 82_800_000, 30),
    ):
        key = await limited(town, maximum, window)
        for _ in range(times):
            assert (await ask(site, bearer(key))).status == 200
            clock.advance(pause)


async def test_a100_over_the_limit_the_quota_stays(town: Town, site: Any) -> None:
    key = await make(town, remaining=5, rate_limit_max=2, rate_limit_time_window=MINUTE)
    assert await accepted(site, key, 10) == 2
    assert await remaining(town, key) == 3


async def test_a101_the_last_unit_is_spent_once(town: Town, site: Any) -> None:
    key = await make(town, remaining=1, rate_limit_enabled=False)
    assert await accepted(site, key, 500) == 1
    assert await remaining(town, key) == 0


async def test_what_the_quota_refuses_does_not_count_against_the_limit(
    town: Town, site: Any
) -> None:
    key = await make(town, remaining=1, rate_limit_max=3, rate_limit_time_window=MINUTE)
    assert await accepted(site, key, 10) == 1
    shown = await town.auth.api.verify_api_key(_look(key))
    assert shown.key is not None
    await town.auth.api.update_api_key(UpdateKey(key_id=shown.key.id, remaining=10))
    assert await accepted(site, key, 10) == 2


async def test_a104_nothing_means_nothing(town: Town, site: Any) -> None:
    assert await accepted(site, await limited(town, 0, MINUTE), 3) == 0
    assert await accepted(site, await make(town, remaining=0), 3) == 0


async def test_a107_verify_charges_once_a_call(town: Town) -> None:
    from keybearer.operations.verify import VerifyKey

    key = await make(town, remaining=10)
    for _ in range(3):
        await town.auth.api.verify_api_key(VerifyKey(key=key))
    assert await remaining(town, key) == 7


async def test_a109_a_clock_that_jumps_gives_nothing_away(
    town: Town, site: Any, clock: StandingClock
) -> None:
    key = await limited(town, 10, MINUTE)
    assert await accepted(site, key, 10) == 10
    clock.advance(86_400_000)
    assert await accepted(site, key, 10) == 10
    clock.advance(-86_400_000)
    assert await accepted(site, key, 10) == 0


async def test_a110_the_headers_are_structured_fields_that_keep_their_word(
    town: Town, site: Any, clock: StandingClock
) -> None:
    key = await limited(town, 2, MINUTE)
    await accepted(site, key, 2)
    refused: Answer = await ask(site, bearer(key))
    assert refused.code == "RATE_LIMITED"
    state = re.fullmatch(r'"default";r=(\d+);t=(\d+)', refused.headers["ratelimit"])
    policy = re.fullmatch(r'"default";q=(\d+);w=(\d+)', refused.headers["ratelimit-policy"])
    assert state is not None
    assert policy is not None
    assert (policy[1], policy[2], state[1]) == ("2", "60", "0")
    wait = int(refused.headers["retry-after"])
    assert wait >= int(state[2])
    clock.advance(wait * 1000)
    assert (await ask(site, bearer(key))).status == 200


async def test_a110_a_spent_quota_says_when_it_is_refilled(
    town: Town, site: Any, clock: StandingClock
) -> None:
    key = await make(town, refill_amount=2, refill_interval=MINUTE)
    await accepted(site, key, 2)
    clock.advance(5 * MINUTE + 20_500)
    assert await accepted(site, key, 2) == 2
    for path in ("/guarded", "/api/auth/forward"):
        refused = await ask(site, bearer(key), path=path)
        assert (refused.status, refused.code) == (429, "USAGE_EXCEEDED")
        assert refused.headers["retry-after"] == "40"
        assert refused.headers["ratelimit"] == '"quota";r=0;t=40'
        assert refused.headers["ratelimit-policy"] == '"quota";q=2;w=60'
    clock.advance(39_499)
    assert await accepted(site, key, 1) == 0
    clock.advance(1)
    assert await accepted(site, key, 2) == 2


async def test_a110_a_quota_that_is_never_refilled_says_so(town: Town, site: Any) -> None:
    key = await make(town, remaining=1)
    assert await accepted(site, key, 1) == 1
    for path in ("/guarded", "/api/auth/forward"):
        refused = await ask(site, bearer(key), path=path)
        assert (refused.status, refused.code) == (429, "USAGE_EXCEEDED")
        assert refused.headers["retry-after"] == "86400"
        assert refused.headers["ratelimit"] == '"quota";r=0'
        assert refused.headers["ratelimit-policy"] == '"quota";q=0'


async def test_a110_verify_tells_the_asking_app_when_to_come_again(town: Town) -> None:
    from keybearer.operations.verify import VerifyKey

    told = {}
    for name, asked in {
        "refilled": {"refill_interval": MINUTE, "refill_amount": 1},
        "not": {},
    }.items():
        key = await make(town, remaining=0, **asked)
        verdict = await town.auth.api.verify_api_key(VerifyKey(key=key))
        assert verdict.error is not None
        assert verdict.error.code == "USAGE_EXCEEDED"
        told[name] = verdict.error.details
    assert told == {"refilled": {"tryAgainIn": MINUTE}, "not": None}


async def test_a110_too_many_log_ins_say_when_to_come_again(town: Town) -> None:
    refused = await town.post("/login", email="u1@example.com", password="wrong")
    while refused.status_code != 429:
        refused = await town.post("/login", email="u1@example.com", password="wrong")
    assert refused.json()["code"] == "TOO_MANY_ATTEMPTS"
    wait = refused.headers["retry-after"]
    assert refused.headers["ratelimit"] == f'"attempts";r=0;t={wait}'
    assert refused.headers["ratelimit-policy"] == f'"attempts";q=1;w={wait}'


async def test_a112_one_keys_limit_is_not_anothers(town: Town, site: Any) -> None:
    first, second = await limited(town, 1, MINUTE), await limited(town, 1, MINUTE)
    assert await accepted(site, first, 3) == 1
    assert await accepted(site, second, 3) == 1


async def test_a_refill_comes_once_and_on_its_schedule(
    town: Town, site: Any, clock: StandingClock
) -> None:
    key = await make(town, refill_amount=3, refill_interval=MINUTE, rate_limit_enabled=False)
    assert await accepted(site, key, 10) == 3
    clock.advance(5 * MINUTE + 1)
    assert await accepted(site, key, 10) == 3
    clock.advance(MINUTE - 2)
    assert await accepted(site, key, 10) == 0
    clock.advance(1)
    assert await accepted(site, key, 10) == 3


async def test_a316_a_stranger_sees_no_limits(town: Town, site: Any) -> None:
    for headers in ([], bearer("kb_wrong")):
        answer = await ask(site, headers)
        assert not {"ratelimit", "ratelimit-policy", "retry-after"} & set(answer.headers)


async def test_a_limit_outlives_the_process(
    town: Town, site: Any, ready_url: str, clock: StandingClock
) -> None:
    from keybearer import Auth
    from tests.people import SECRET

    key = await limited(town, 10, MINUTE)
    assert await accepted(site, key, 7) == 7
    await town.auth.stop()
    again = Auth(ready_url, secret=SECRET, token_management=True, clock=clock)
    async with again.lifespan():
        assert await accepted(guarded_app(again), key, 10) == 3
