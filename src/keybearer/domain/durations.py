"""Durations and rates as people write them: `15m`, `1000/1m`."""

from __future__ import annotations

import re

MAX_DURATION = 3650 * 86_400_000
"""3650 days, in milliseconds."""

MAX_RATE = 1_000_000_000

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_DURATION = re.compile(r"([1-9][0-9]{0,9})([wdhms])")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,9}")

_DURATION_RULE = (
    "A duration is a whole number and one of s, m, h, d or w, as in 15m, 12h or 90d; "
    "the longest is 3650d."
)
_RATE_RULE = "A rate is a number and a duration, as in 1000/1m, or off."


def parse_duration(text: str) -> int:
    """The milliseconds of `30s`, `15m`, `12h`, `90d` or `1w`; ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    ms = int(match[1]) * _UNITS[match[2]] if match else 0
    if not ms or ms > MAX_DURATION:
        raise ValueError(_DURATION_RULE)
    return ms


def format_duration(ms: int) -> str:
    """The shortest text that `parse_duration` reads as `ms`; weeks are written as days.

    ValueError if there is none: parts of a second, nothing, or more than 3650 days.
    """
    if not 1000 <= ms <= MAX_DURATION or ms % 1000:
        raise ValueError("A duration is written in whole seconds, from 1s to 3650d.")
    unit = next(unit for unit in "dhms" if ms % _UNITS[unit] == 0)
    return f"{ms // _UNITS[unit]}{unit}"


def parse_rate(text: str) -> tuple[int, int] | None:
    """The maximum and the window in milliseconds of `1000/1m`; None for `off`.

    A maximum of 0 allows nothing, which is not `off`. ValueError for anything else.
    """
    if text == "off":
        return None
    amount, slash, window = text.partition("/")
    if not slash or not _AMOUNT.fullmatch(amount) or int(amount) > MAX_RATE:
        raise ValueError(_RATE_RULE)
    try:
        return int(amount), parse_duration(window)
    except ValueError as wrong:
        raise ValueError(f"{_RATE_RULE} {wrong}") from None
