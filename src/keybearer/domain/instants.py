"""Instants: milliseconds inside, RFC 3339 text outside.

Inside, an instant is an `int`: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
Outside it is `2026-11-24T00:09:17.089Z`, always UTC and always with milliseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache

MIN_INSTANT = -62_135_596_800_000
"""0001-01-01T00:00:00.000Z"""

MAX_INSTANT = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z"""

_DAY_MINUTES = 1_440
_EPOCH_DAY = date(1970, 1, 1).toordinal()

_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EXAMPLE = "An instant is a date and time with its offset, as in 2026-11-24T00:09:17.089Z."


@lru_cache(maxsize=4096)  # a record's instants are told again and again
def iso(ms: int) -> str:
    """The text of an instant; ValueError outside the years 1 to 9999."""
    minutes, rest = divmod(ms, 60_000)
    digits = f"{rest:05}"
    return f"{_minute_text(minutes)}:{digits[:2]}.{digits[2:]}Z"


def parse_iso(text: str) -> int:
    """The instant of an RFC 3339 date-time (section 5.6), finer than a millisecond cut off.

    ValueError without an offset, for another form of ISO 8601, for a day or a second that there is
    not (leap seconds included), and outside the years 1 to 9999 UTC.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(_EXAMPLE)
    *fields, fraction, sign, offset_hours, offset_minutes = match.groups()
    offset = timedelta()
    if sign:
        if int(offset_minutes) > 59:
            raise ValueError(_EXAMPLE)
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
        offset = -offset if sign == "-" else offset
    year, month, day, hour, minute, second = map(int, fields)
    try:
        then = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    except ValueError:
        raise ValueError(f"There is no such day or time. {_EXAMPLE}") from None
    since = then - datetime(1970, 1, 1, tzinfo=UTC)
    ms = (since.days * 86_400 + since.seconds) * 1000 + int((fraction or "0").ljust(3, "0")[:3])
    if not MIN_INSTANT <= ms <= MAX_INSTANT:
        raise ValueError("An instant lies in the years 1 to 9999.")
    return ms


@lru_cache(maxsize=1024)
def _minute_text(minutes: int) -> str:
    day, rest = divmod(minutes, _DAY_MINUTES)
    hour, minute = divmod(rest, 60)
    try:
        return f"{date.fromordinal(_EPOCH_DAY + day).isoformat()}T{hour:02}:{minute:02}"
    except (ValueError, OverflowError):
        raise ValueError("An instant lies in the years 1 to 9999.") from None
