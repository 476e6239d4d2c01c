"""Ids: UUIDs that sort by time (RFC 9562, version 7).

     0                48   52          64 66                           128
     | milliseconds   | 7  | random 12 | 2 | random 62                   |
       since the epoch  version          variant

An id is no secret and opens nothing; its time is when the object was made.
"""

from __future__ import annotations

import re

RANDOM_BYTES = 10
"""How many random bytes `new_id` takes; six of the 80 bits give way to version and variant."""

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id(now: int, random: bytes) -> str:
    """The UUIDv7 of `now` (milliseconds since the epoch) and 10 random bytes.

    ValueError for another number of bytes, and for an instant before 1970 or after 48 bits.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"An id is made of {RANDOM_BYTES} random bytes.")
    if not 0 <= now < 1 << 48:
        raise ValueError("An id is made of an instant between 1970 and 10889.")
    high, low = int.from_bytes(random[:2]) & 0xFFF, int.from_bytes(random[2:]) & ((1 << 62) - 1)
    text = f"{now << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def time_of(id: str) -> int:
    """When the object of an id of ours was made, in milliseconds since the epoch."""
    return int(id[:8] + id[9:13], 16)


def is_id(text: str) -> bool:
    """Whether `text` is a UUID in canonical lower case, of any version."""
    return _CANONICAL.fullmatch(text) is not None
