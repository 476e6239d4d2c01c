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


KINDS = {
    "accepted": "accepted",
    **dict.fromkeys(("RATE_LIMITED", "USAGE_EXCEEDED"), "limited"),
    **dict.fromkeys(("INSUFFICIENT_SCOPE", "IP_NOT_ALLOWED", "SESSION_REQUIRED"), "barred"),
}
"""What an outcome is drawn as; all others are `ended`: the key is not good any more."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a bar has of one outcome."""

    outcome: str
    kind: str
    count: int
    top: float
    height: float


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One hour or day of the chart, in the units of its picture; its parts from the ground up."""

    start: int
    x: float
    width: float
    parts: Sequence[Part]

    def count(self, outcome: str) -> int:
        """How many requests had this outcome."""
        return sum(part.count for part in self.parts if part.outcome == outcome)


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Bars, oldest first; `top` is the count that the full height stands for."""

    bars: Sequence[Bar]
    top: int
    total: int
    outcomes: Sequence[Part]
    """All that occur, as they stand in the bars, with how often in all."""


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
    bars = [
        Bar(
            start=start,
            x=round(place * width + width * 0.1, 2),
            width=round(width * 0.8, 2),
            parts=_stacked(counted.get(start, {}), top),
        )
        for place, start in enumerate(starts)
    ]
    total = sum(totals)
    return Chart(bars=bars, top=top, total=total, outcomes=_stacked(report.total, total))


def _stacked(counts: dict[str, int], top: int) -> list[Part]:
    parts = []
    ground = float(HEIGHT)
    for outcome in sorted(counts, key=_place):
        count = counts[outcome]
        if count:
            height = _height(count, top)
            ground = round(ground - height, 2)
            kind = KINDS.get(outcome, "ended")
            parts.append(Part(outcome=outcome, kind=kind, count=count, top=ground, height=height))
    return parts


def _place(outcome: str) -> tuple[int, str]:
    """What was accepted stands below, then what a limit refused, and so on."""
    order = list(KINDS)
    return (order.index(outcome) if outcome in order else len(order), outcome)


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
