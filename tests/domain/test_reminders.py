"""When the owner of a key is reminded: each time once, and never of what is past."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.reminders import DAYS, FIRST_MS, begun, due, span, within
from tests.people import START

HOUR = 3_600_000
DAY_MS = 24 * HOUR
LATE_MS = 30 * DAY_MS


def test_the_first_is_a_month_before_the_end() -> None:
    assert FIRST_MS == 30 * DAY_MS


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (31 * DAY_MS, None),
        (30 * DAY_MS + 1, None),
        (30 * DAY_MS, 30),
        (14 * DAY_MS + 1, 30),
        (14 * DAY_MS, 14),
        (7 * DAY_MS, 7),
        (DAY_MS, 1),
        (1, 1),
        (0, 0),
        (-40 * DAY_MS, 0),
    ],
)
def test_a_key_is_within_the_smallest_that_holds(left: int, days: int | None) -> None:
    assert within(START + left, START) == days


@pytest.mark.parametrize(
    ("lives", "past"),
    [(3_600_000, 0), (DAY_MS, 0), (DAY_MS + 1, 7), (7 * DAY_MS, 7), (40 * DAY_MS, None)],
)
def test_nobody_is_told_what_they_have_just_chosen(lives: int, past: int | None) -> None:
    """Nor of the end of a key for a day or less, which a job has made."""
    assert begun(START + lives, START) == past


def test_a_key_without_expiry_is_within_none_and_due_for_none() -> None:
    assert within(None, START) is None
    assert due(expires_at=None, reminded_days=None, now=START) is None


@pytest.mark.parametrize(
    ("left", "reminded", "days"),
    [
        (31 * DAY_MS, None, None),
        (30 * DAY_MS, None, 30),
        (30 * DAY_MS, 30, None),
        (20 * DAY_MS, 30, None),
        (7 * DAY_MS, 30, 7),  # two weeks were missed: the most urgent alone
        (7 * DAY_MS, 7, None),
        (7 * DAY_MS, 1, None),
        (0, 1, 0),
        (0, 0, None),
        (1 - LATE_MS, None, 0),
        (-LATE_MS, None, None),
    ],
)
def test_what_is_due_goes_by_what_was_told(
    left: int, reminded: int | None, days: int | None
) -> None:
    assert due(expires_at=START + left, reminded_days=reminded, now=START) == days


@given(
    life=st.integers(1, 60 * 24).map(lambda hours: hours * HOUR),
    rounds=st.lists(st.integers(1, 40 * 24).map(lambda hours: hours * HOUR), max_size=60),
)
def test_each_is_told_once_from_far_to_near_and_none_that_was_past(
    life: int, rounds: list[int]
) -> None:
    expires_at, now = START + life, START
    reminded = begun = within(expires_at, START)
    told = []
    for wait in rounds:
        now += wait
        days = due(expires_at=expires_at, reminded_days=reminded, now=now)
        if days is not None:
            told.append(days)
            reminded = days
            assert expires_at - now <= days * DAY_MS
        assert due(expires_at=expires_at, reminded_days=reminded, now=now) is None
    assert told == sorted(set(told), reverse=True)
    assert begun is None or all(days < begun for days in told)


@given(left=st.integers(-60 * DAY_MS, 60 * DAY_MS), reminded=st.sampled_from([None, *DAYS]))
def test_the_span_of_a_reminder_holds_the_keys_that_are_due_for_it(
    left: int, reminded: int | None
) -> None:
    expires_at = START + left
    days = due(expires_at=expires_at, reminded_days=reminded, now=START)
    holding = [
        each
        for each in DAYS
        if span(each, START)[0] < expires_at <= span(each, START)[1]
        and (reminded is None or reminded > each)
    ]
    assert holding == ([] if days is None else [days])
