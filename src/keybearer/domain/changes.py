"""What nodes tell each other: numbered changes, who is a member, what the log shows."""

from collections.abc import Sequence

import msgspec


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One numbered change: what it touched, and which node asks to hear that it was applied."""

    seq: int
    tags: tuple[str, ...]
    origin: str


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A node that may answer from its cache.

    Attributes:
        lease_ms: for how long at the most after it read the log.
        applied: the change up to which it has noted that it applied all.
        suspicion: the mark of whoever missed its answer; another one each time.
    """

    id: str
    lease_ms: int
    applied: int = 0
    suspicion: int | None = None


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What a read of the log shows.

    Attributes:
        seq: the number of the last change.
        mark: the random mark of the last change.
        mark_after: the mark, in this log, of the change that was asked for; None where it has none.
        changes: those after the one that was asked for, in order; with a gap where the log does
            not reach back so far, or there are too many.
        member: the asking node as it is written down; None where it is not.
    """

    seq: int
    mark: int | None = None
    mark_after: int | None = None
    changes: Sequence[Change] = ()
    member: Member | None = None
