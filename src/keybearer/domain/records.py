"""Read one row of somebody else's database: text, numbers, instants, JSON.

Databases and their adapters write the same value in several ways: an instant as ISO text, as a
`datetime`, as seconds or milliseconds; a truth as 1 or true. What is none of them is a ValueError
with the reason, for the report.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from keybearer.domain.instants import parse_iso
from keybearer.domain.limits import MAX_AMOUNT

Record = Mapping[str, object]

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_BARE_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,9})?)", re.ASCII)
_SECONDS_BEFORE = 100_000_000_000
"""A number under it counts seconds: as milliseconds it would be of 1973."""
_LARGEST = 253_402_300_799_999
_LONGEST = 65_536
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""What is no character of UTF-8, or none that PostgreSQL keeps."""


def identifier(record: Record, name: str) -> str:
    """An id: letters, digits, `_`, `.` and `-`; numbers and UUIDs become text."""
    value = record.get(name)
    text = "" if value is None or isinstance(value, bool) else str(value)
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"{name} is no id of letters, digits, '_', '.' and '-'")
    return text


def text(record: Record, name: str) -> str | None:
    """Text, or None; an empty one is None."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text in UTF-8")
    if not storable(value):
        raise ValueError(f"{name} has a NUL or half a character")
    if len(value) > _LONGEST:
        raise ValueError(f"{name} has more than {_LONGEST} characters")
    return value


def storable(value: str) -> bool:
    """Whether every database takes a text: without NUL, and UTF-8."""
    return _NO_CHARACTER.search(value) is None


def required(record: Record, name: str) -> str:
    """Text that must be there."""
    value = text(record, name)
    if value is None:
        raise ValueError(f"{name} is missing")
    return value


def flag(record: Record, name: str, *, otherwise: bool) -> bool:
    """Yes or no, and what holds where nothing is said."""
    value = record.get(name)
    if value is None:
        return otherwise
    if value not in (0, 1):
        raise ValueError(f"{name} is neither true nor false")
    return bool(value)


def number(record: Record, name: str) -> int | None:
    """A whole number from 0 to the largest that a limit may be, or None."""
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_AMOUNT:
        raise ValueError(f"{name} is no number from 0 to {MAX_AMOUNT}")
    return value


def instant(record: Record, name: str) -> int | None:
    """An instant in milliseconds, or None; one without an offset is in UTC."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        value = aware.isoformat()
    if isinstance(value, str):
        bare = _BARE_INSTANT.fullmatch(value)
        spelt = value if bare is None else f"{bare[1]}T{bare[2]}Z"
        try:
            return parse_iso(spelt.replace(" ", "T", 1))
        except ValueError:
            raise ValueError(f"{name} is no instant") from None
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} is no instant")
    return value * 1000 if value < _SECONDS_BEFORE else value


def moment(record: Record, name: str, *, otherwise: int) -> int:
    """An instant, and which one holds where nothing is said."""
    value = instant(record, name)
    return otherwise if value is None else value


def json(record: Record, name: str) -> object:
    """What JSON text means, encoded once or twice; a value that the database decoded stays."""
    value = record.get(name)
    for _ in range(2):
        if not isinstance(value, str):
            break
        if not value:
            return None
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise ValueError(f"{name} is no JSON") from None
    return value
