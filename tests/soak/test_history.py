"""The rules find what they are there for, and nothing else."""

from typing import cast

import pytest

from tests.soak.history import (
    Check,
    History,
    Refresh,
    Revocation,
    Seen,
    Spend,
    Use,
    wrong_checks,
)
from tests.soak.quotas import Quota, wrong_spends
from tests.soak.refreshes import LEEWAY_NS, wrong_refreshes


def check(start: int, end: int, seen: Seen, key: int = 0) -> Check:
    return Check(key, 0, start, end, seen)


REVOKED = [Revocation(0, 0, 100, 200, 0)]


@pytest.mark.parametrize(
    ("one", "fine"),
    [
        (check(10, 90, "good"), True),
        (check(10, 90, "ended"), False),
        (check(10, 100, "ended"), True),  # while the revocation begins
        (check(150, 160, "good"), True),
        (check(150, 160, "ended"), True),
        (check(200, 300, "good"), True),  # it began when the receipt came
        (check(201, 300, "good"), False),
        (check(201, 300, "ended"), True),
        (check(201, 300, "unknown"), True),
        (check(201, 300, "good", key=1), True),
        (check(201, 300, "ended", key=1), False),  # nobody has revoked that one
    ],
)
def test_a_check_is_good_before_a_revocation_and_ended_after_its_receipt(
    one: Check, fine: bool
) -> None:
    assert (wrong_checks([one], REVOKED) == []) is fine


def test_an_attempt_without_a_receipt_promises_nothing() -> None:
    attempts = [Revocation(0, 0, 100, 200, None), Revocation(0, 1, 300, 400, 50)]
    fine = [check(250, 260, "good"), check(250, 260, "ended"), check(399, 500, "good")]
    assert wrong_checks(fine, attempts) == []
    assert len(wrong_checks([check(401, 402, "good"), check(1, 2, "ended")], attempts)) == 2


# --- quotas ----------------------------------------------------------------------------------


def spends(*seen: Seen) -> list[Spend]:
    return [Spend(0, at, at, each) for at, each in enumerate(seen)]


def two(remaining: int) -> list[Quota]:
    return [Quota(units=2, remaining=remaining)]


def test_a_quota_gives_all_of_its_units_and_no_more() -> None:
    assert wrong_spends(spends("good", "good", "ended"), two(0)) == []
    found = wrong_spends(spends("good", "good", "good"), two(0))
    assert found[0] == "quota 0: 3 of 2 units were given"
    assert "refused with units left" in wrong_spends(spends("good", "ended"), two(1))[0]
    assert "refused with units left" in wrong_spends(spends("good", "ended", "good"), two(0))[0]


def test_whoever_never_heard_may_have_had_a_unit() -> None:
    assert wrong_spends(spends("good", "unknown", "ended"), two(0)) == []
    assert wrong_spends(spends("good", "unknown", "good", "ended"), two(0)) == []
    assert "refused with units left" in wrong_spends(spends("unknown", "ended"), two(1))[0]


def test_a_refusal_is_right_when_the_last_unit_goes_meanwhile() -> None:
    one = [Quota(units=1, remaining=0)]
    refused = Spend(0, 1, 9, "ended")
    assert wrong_spends([refused, Spend(0, 8, 20, "good")], one) == []
    assert len(wrong_spends([refused, Spend(0, 10, 20, "good")], one)) == 1


def test_no_unit_that_was_given_is_forgotten_and_none_is_kept_back() -> None:
    assert wrong_spends(spends("good"), two(1)) == []
    assert "some were forgotten" in wrong_spends(spends("good"), two(2))[0]
    assert "may be wasted" in wrong_spends(spends("good"), two(0))[0]
    assert wrong_spends(spends("good", "unknown"), two(0)) == []


def test_a_crash_wastes_a_chunk_that_was_taken_and_one_on_its_way_and_no_more() -> None:
    def large(remaining: int) -> list[Quota]:
        return [Quota(units=5_000, remaining=remaining, losses=2)]

    assert wrong_spends(spends("good"), large(4_999 - 20)) == []
    assert "may be wasted" in wrong_spends(spends("good"), large(4_999 - 21))[0]


def test_what_is_said_to_be_left_was_left_within_five_seconds() -> None:
    before = [Spend(0, at, at, "good") for at in range(3)]
    quota = [Quota(units=9, remaining=5)]
    soon, late = 5_000_000_000, 5_000_000_004
    assert wrong_spends([*before, Spend(0, soon, soon, "good", 8)], quota) == []
    assert len(wrong_spends([*before, Spend(0, soon, soon, "good", 9)], quota)) == 1
    assert len(wrong_spends([*before, Spend(0, soon, soon, "good", -1)], quota)) == 1
    assert wrong_spends([*before, Spend(0, late, late, "good", 5)], quota) == []
    assert len(wrong_spends([*before, Spend(0, late, late, "good", 6)], quota)) == 1


# --- refresh ---------------------------------------------------------------------------------


def refresh(presented: str, answer: str | None, at: int = 0) -> Refresh:
    return Refresh("ann", presented, at, at + 1, answer)


def test_a_token_has_one_successor_for_all_who_ask_in_time() -> None:
    chain = [refresh("a", "b"), refresh("a", "b"), refresh("b", None), refresh("b", "c")]
    assert wrong_refreshes(chain) == []
    assert wrong_refreshes([refresh("a", "b"), refresh("a", "c")]) == [
        "family 0: 2 successors of one token"
    ]
    assert wrong_refreshes([refresh("a", "b"), refresh("b", "b")]) != []
    assert wrong_refreshes([refresh("a", "c"), refresh("b", "c")]) != []


CHAIN = [refresh("a", "b", 0), refresh("b", "c", 10), refresh("c", "d", 20)]


def test_a_token_that_comes_again_ends_the_login() -> None:
    assert wrong_refreshes([*CHAIN, refresh("b", "", 30), refresh("d", "", 40)]) == []
    assert "was good that came again" in wrong_refreshes([*CHAIN, refresh("a", "b", 30)])[0]
    went_on = [*CHAIN, refresh("b", "", 30), refresh("d", "e", 40)]
    assert "the login went on" in wrong_refreshes(went_on)[0]
    at_once = [*CHAIN, refresh("b", "", 30), refresh("d", "e", 31)]
    assert wrong_refreshes(at_once) == []


def test_no_access_token_is_good_after_that_refusal() -> None:
    over = [*CHAIN, refresh("b", "", 30)]
    for start, seen, wrong in ((31, "good", 0), (32, "good", 1), (32, "ended", 0)):
        use = Use("ann", 0, start, 40, cast(Seen, seen))
        assert len(wrong_refreshes(over, [use])) == wrong
        assert wrong_refreshes(CHAIN, [use]) == []
    assert wrong_refreshes(over, [Use("bob", 0, 32, 40, "good")]) == []


def test_the_live_token_is_refused_only_after_one_that_came_too_late() -> None:
    assert "the live token was refused" in wrong_refreshes([refresh("a", "")])[0]
    assert "the live token was refused" in wrong_refreshes([*CHAIN, refresh("d", "", 30)])[0]
    late = [refresh("a", None), refresh("a", "", at=LEEWAY_NS)]
    assert wrong_refreshes(late) == []


def test_what_was_never_answered_may_have_come_too_late() -> None:
    given_up = Refresh("ann", "b", 11, 12, None)
    assert wrong_refreshes([*CHAIN, given_up, refresh("d", "", 30)]) == []


def test_histories_add_up() -> None:
    one = History(checks=[check(1, 2, "good")], unanswered={"check: late": 1})
    one.add(History(revocations=REVOKED, refreshes=[refresh("a", "")]))
    one.add(History(spends=spends("good"), unanswered={"check: late": 2}))
    one.add(History(uses=[Use("ann", 0, 1, 2, "good")]))
    assert len(one) == 5
    assert one.unanswered == {"check: late": 3}
