"""What was used: units of a quota, and the requests that are counted beside them.

Instants are integer milliseconds since the epoch, UTC.
"""

from collections.abc import Sequence

import msgspec

_MINUTE_MS = 60_000


class Count(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """`n` requests with one outcome in one hour; `hour` is its first millisecond."""

    key_id: str
    hour: int
    outcome: str
    n: int


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """The last of `n` requests of a key that had one outcome, in the minute of `at`."""

    key_id: str
    outcome: str
    at: int
    n: int
    ip: str | None
    user_agent: str | None

    @property
    def minute(self) -> int:
        """Which minute it is, counted from the epoch."""
        return self.at // _MINUTE_MS


class SecretUse(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """The last accepted request with one secret of a rotating key, `n` since the last flush."""

    digest: bytes
    at: int
    ip: str | None
    n: int


class LastUse(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """The last accepted request of a key or session, `n` since the last flush."""

    id: str
    at: int
    ip: str | None
    user_agent: str | None
    n: int
    limit_state: bytes | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Usage that is written together, and once: the id tells whether it has been.

    Each name is there once, and they are sorted, so that two batches cannot deadlock. A batch
    that waits on the disk may be read by a later version of this program: a new field of it, or
    of what is in it, comes last and has a default.
    """

    id: str
    counts: Sequence[Count]
    keys: Sequence[LastUse]
    sessions: Sequence[LastUse]
    secrets: Sequence[SecretUse]
    samples: Sequence[Sample]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a quota gave to some requests at once, and how it stands after.

    Attributes:
        met: for each cost, in their order, whether there was enough.
        units: what was taken, for those and ahead.
        ahead: how much of it is ahead, for requests to come.
        left: what the database has left.
        version: moves whenever `remaining` is set or refilled; a unit belongs to one of them.
        refilled_at: when it was refilled last.
        refill_at: when it is refilled next, if ever.
    """

    met: tuple[bool, ...]
    units: int
    ahead: int
    left: int
    version: int
    refilled_at: int | None
    refill_at: int | None


class Unspent(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a key's quota that were taken and not spent."""

    key_id: str
    version: int
    units: int
