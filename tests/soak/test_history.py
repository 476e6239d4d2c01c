"""The rules find what they are there for, and nothing else."""

import pytest

from tests.soak.history import (
    LEEWAY_NS,
    Check,
    History,
    Refresh,
    Revocation,
    Seen,
    Spend,
    wrong_checks,
    wrong_in,
    wrong_refreshes,
    wrong_spends,
)


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


def spends(*seen: Seen, at: int = 0) -> list[Spend]:
    return [Spend(0, at + i, at + i, each) for i, each in enumerate(seen)]


def test_a_quota_gives_all_of_its_units_and_no_more() -> None:
    assert wrong_spends(spends("good", "good", "ended"), [2]) == []
    assert wrong_spends(spends("good", "good", "good"), [2]) == ["quota 0: 3 of 2 units were given"]
    assert "refused with units left" in wrong_spends(spends("good", "ended"), [2])[0]
    assert "refused with units left" in wrong_spends(spends("good", "ended", "good"), [2])[0]


def test_whoever_never_heard_may_have_had_a_unit() -> None:
    assert wrong_spends(spends("good", "unknown", "ended"), [2]) == []
    assert wrong_spends(spends("good", "unknown", "good", "ended"), [2]) == []
    assert "refused with units left" in wrong_spends(spends("unknown", "ended"), [2])[0]


def test_a_refusal_is_right_when_the_last_unit_goes_meanwhile() -> None:
    refused = Spend(0, 1, 9, "ended")
    assert wrong_spends([refused, Spend(0, 8, 20, "good")], [1]) == []
    assert len(wrong_spends([refused, Spend(0, 10, 20, "good")], [1])) == 1


def refresh(presented: str, answer: str | None, at: int = 0) -> Refresh:
    return Refresh(0, presented, at, at + 1, answer)


def test_a_token_has_one_successor_for_all_who_ask_in_time() -> None:
    chain = [refresh("a", "b"), refresh("a", "b"), refresh("b", None), refresh("b", "c")]
    assert wrong_refreshes(chain) == []
    assert wrong_refreshes([refresh("a", "b"), refresh("a", "c")]) == [
        "family 0: 2 successors of one token"
    ]
    assert wrong_refreshes([refresh("a", "b"), refresh("b", "b")]) != []
    assert wrong_refreshes([refresh("a", "c"), refresh("b", "c")]) != []


def test_the_live_token_is_refused_only_to_whoever_comes_too_late() -> None:
    assert "was refused" in wrong_refreshes([refresh("a", "")])[0]
    late = [refresh("a", None), refresh("a", "", at=LEEWAY_NS)]
    assert wrong_refreshes(late) == []
    early = [refresh("a", None), refresh("a", "", at=LEEWAY_NS - 2)]
    assert len(wrong_refreshes(early)) == 1


def test_histories_add_up() -> None:
    one = History(checks=[check(1, 2, "good")], spends=spends("good", "good"))
    one.add(History(revocations=REVOKED, refreshes=[refresh("a", "")]))
    assert len(one) == 5
    assert len(wrong_in(one, [1])) == 2
