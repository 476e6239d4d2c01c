"""A chart shows every count, and nothing taller than itself."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.instants import iso
from keybearer.operations.reports import UsageBucket, UsageReport
from keybearer.web.pages.charts import HEIGHT, HOUR_MS, SPARK_HEIGHT, chart, sparkline
from tests.people import START

MIDNIGHT = START - START % (24 * HOUR_MS)


def report(*buckets: tuple[int, dict[str, int]], hours: int = 4) -> UsageReport:
    total: dict[str, int] = {}
    for _, counts in buckets:
        for outcome, n in counts.items():
            total[outcome] = total.get(outcome, 0) + n
    return UsageReport(
        key_id="k",
        since=iso(MIDNIGHT),
        until=iso(MIDNIGHT + hours * HOUR_MS),
        interval="hour",
        total=total,
        buckets=[
            UsageBucket(start=iso(MIDNIGHT + hour * HOUR_MS), counts=counts)
            for hour, counts in buckets
        ],
    )


def test_an_hour_without_requests_is_a_bar_of_nothing() -> None:
    bars = chart(report((1, {"accepted": 3}))).bars
    assert [bar.count("accepted") for bar in bars] == [0, 3, 0, 0]
    assert not bars[0].parts


def test_refusals_of_every_kind_stand_on_what_was_accepted() -> None:
    counts = {"KEY_EXPIRED": 1, "IP_NOT_ALLOWED": 2, "RATE_LIMITED": 3, "accepted": 6, "NEW": 0}
    drawn = chart(report((0, counts)))
    parts = drawn.bars[0].parts
    assert [(part.outcome, part.kind, part.count) for part in parts] == [
        ("accepted", "accepted", 6),
        ("RATE_LIMITED", "limited", 3),
        ("IP_NOT_ALLOWED", "barred", 2),
        ("KEY_EXPIRED", "ended", 1),
    ]
    for below, above in pairwise(parts):
        assert above.top + above.height == pytest.approx(below.top)
    assert parts[0].top + parts[0].height == HEIGHT
    assert [(part.outcome, part.count) for part in drawn.outcomes] == [
        (part.outcome, part.count) for part in parts
    ]


def test_one_request_among_many_is_still_seen() -> None:
    bars = chart(report((0, {"accepted": 1_000_000}), (1, {"accepted": 1}))).bars
    assert bars[1].parts[0].height >= 2


def test_the_axis_is_a_round_number() -> None:
    assert chart(report((0, {"accepted": 21}))).top == 50
    assert chart(report((0, {"accepted": 1}))).top == 1
    assert chart(report((0, {"accepted": 1_001}))).top == 2_000
    assert chart(report()).top == 1


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=90))
def test_bars_stay_in_the_picture(counts: list[int]) -> None:
    buckets = [(hour, {"accepted": n}) for hour, n in enumerate(counts) if n]
    drawn = chart(report(*buckets, hours=len(counts)))
    assert drawn.total == sum(counts)
    for bar in drawn.bars:
        assert all(0 <= part.top <= HEIGHT for part in bar.parts)
        assert bar.x + bar.width <= 720.01


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_a_sparkline_has_a_bar_for_each_day_with_requests(counts: list[int]) -> None:
    heights = [int(height) for height in re.findall(r"v-(\d+)", sparkline(counts))]
    assert len(heights) == sum(count > 0 for count in counts)
    assert all(2 <= height <= SPARK_HEIGHT for height in heights)
