"""Figures as SVG, drawn here: no script, and a table beside them.

Heights are of the tallest bar; a count that is not zero is never drawn as nothing.
"""

from collections.abc import Sequence

import msgspec

from keybearer.domain.instants import parse_iso
from keybearer.operations.reports import UsageReport

SPARK_WIDTH, SPARK_HEIGHT = 120, 24
WIDTH, HEIGHT = 720, 160
HOUR_MS = 3_600_000
STEPS_MS = {"hour": HOUR_MS, "day": 24 * HOUR_MS}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One hour or day of the chart, in the units of its picture."""

    start: int
    x: float
    width: float
    accepted: int
    refused: int
    accepted_top: float
    accepted_height: float
    refused_top: float
    refused_height: float


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Bars, oldest first; `top` is the count that the full height stands for."""

    bars: Sequence[Bar]
    top: int
    total: int
    by_outcome: dict[str, int]


def sparkline(counts: Sequence[int]) -> str:
    """Strokes as the data of one SVG path, `SPARK_WIDTH` by `SPARK_HEIGHT`."""
    top = max(counts, default=0)
    if not top:
        return ""
    step = SPARK_WIDTH / len(counts)
    drawn = []
    for place, count in enumerate(counts):
        if count:
            height = max(2, round(SPARK_HEIGHT * count / top))
            drawn.append(f"M{place * step + step / 2:g} {SPARK_HEIGHT}v-{height}")
    return "".join(drawn)


def chart(report: UsageReport) -> Chart:
    """The bars of a report, with the empty hours or days that it leaves out."""
    step = STEPS_MS[report.interval]
    since, until = parse_iso(report.since), parse_iso(report.until)
    counted = {parse_iso(bucket.start): bucket.counts for bucket in report.buckets}
    starts = range(since - since % step, until, step)
    totals = [sum(counted.get(start, {}).values()) for start in starts]
    top = _round_up(max(totals, default=0))
    width = WIDTH / max(1, len(starts))
    bars = []
    for place, start in enumerate(starts):
        counts = counted.get(start, {})
        accepted = counts.get("accepted", 0)
        refused = sum(counts.values()) - accepted
        low, high = _height(accepted, top), _height(refused, top)
        bars.append(
            Bar(
                start=start,
                x=round(place * width + width * 0.1, 2),
                width=round(width * 0.8, 2),
                accepted=accepted,
                refused=refused,
                accepted_top=round(HEIGHT - low, 2),
                accepted_height=low,
                refused_top=round(HEIGHT - low - high, 2),
                refused_height=high,
            )
        )
    return Chart(bars=bars, top=top, total=sum(totals), by_outcome=report.total)


def _height(count: int, top: int) -> float:
    return max(2.0, round(HEIGHT * count / top, 2)) if count else 0.0


def _round_up(count: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 …: what an axis is labelled with."""
    unit = 1
    while True:
        for step in (1, 2, 5):
            if count <= step * unit:
                return step * unit
        unit *= 10
