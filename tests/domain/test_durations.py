"""Durations and rates are read in one spelling, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.durations import (
    MAX_DURATION,
    format_duration,
    parse_duration,
    parse_rate,
)

DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1s", 1_000),
        ("30s", 30_000),
        ("15m", 900_000),
        ("12h", 43_200_000),
        ("90d", 90 * DAY),
        ("1w", 7 * DAY),
        ("3650d", MAX_DURATION),
        ("521w", 521 * 7 * DAY),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize(
    "text",
    ["", "0s", "00s", "01s", "-1s", "+1s", "1", "s", "1 s", " 1s", "1s\n", "1.5h", "1h30m", "1M",
     "1S", "1ms", "1y", "3651d", "522w", "9999999999s", "99999999999s", "\u0661s", "1e3s",
     "9" * 100_000 + "s"],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="as in 15m, 12h or 90d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(1_000, "1s"), (90_000, "90s"), (60_000, "1m"), (5_400_000, "90m"), (3_600_000, "1h"),
     (DAY, "1d"), (7 * DAY, "7d"), (MAX_DURATION, "3650d")],
)  # fmt: skip
def test_the_largest_unit_that_fits_is_written(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@given(st.integers(1, MAX_DURATION // 1000))
def test_every_duration_comes_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds * 1000)) == seconds * 1000


@pytest.mark.parametrize("ms", [0, -1_000, 1, 1_500, MAX_DURATION + 1_000])
def test_what_has_no_text_is_a_mistake(ms: int) -> None:
    with pytest.raises(ValueError, match="whole seconds, from 1s to 3650d"):
        format_duration(ms)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("off", None),
        ("1000/1m", (1_000, 60_000)),
        ("1/1d", (1, DAY)),
        ("0/1s", (0, 1_000)),
        ("1000000000/1s", (10**9, 1_000)),
    ],
)
def test_a_rate_is_a_number_and_a_duration(text: str, rate: tuple[int, int] | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "OFF", "none", "1000", "/1m", "1000/", "1000/m", "1000/0s", "-1/1m", "01/1m", "1.5/1m",
     " 1/1m", "1 / 1m", "1/1m/1m", "1000000001/1s", "9" * 100_000 + "/1s", "\u0661/1m"],
)  # fmt: skip
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="as in 1000/1m, or off"):
        parse_rate(text)


def test_a_rate_without_a_duration_is_not_told_of_a_wrong_one() -> None:
    with pytest.raises(ValueError, match=r"or off\.$"):
        parse_rate("1000")
