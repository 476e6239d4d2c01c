"""What was asked and answered, and whether one order of all of it explains the answers.

Every operation of every process is written down with its start and end on one monotonic clock. The
objects are so simple that each has a rule of its own; no search is needed.

    revocation   a register that goes from `good` to `ended`, once
    quota        a counter that starts at N and gives N units (quotas.py)
    refresh      a chain of tokens, of which one is live (refreshes.py)

What has no answer (a killed node, a cut line, a 503) may have happened or not, and at any time
after its start: it excuses others and is judged by nobody.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

Seen = Literal["good", "ended", "unknown"]


class Check(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request with a key, in nanoseconds."""

    key: int
    node: int
    start: int
    end: int
    seen: Seen


class Revocation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request to revoke a key, and how long its receipt says that it waited for others.

    None where it was answered with no receipt.
    """

    key: int
    node: int
    start: int
    end: int
    waited_ms: int | None


class Spend(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request with a key of a quota: `good` spent a unit, `ended` found none.

    `left` is what is left of it, as the answer to a good one says.
    """

    quota: int
    start: int
    end: int
    seen: Seen
    left: int | None = None


class Refresh(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request to refresh a login: the token that came, "" when it was refused, or None."""

    family: str
    presented: str
    start: int
    end: int
    answer: str | None


class Use(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request with an access token of a login."""

    family: str
    node: int
    start: int
    end: int
    seen: Seen


class History(msgspec.Struct, gc=False):
    """What one client has written down; `unanswered` counts why there was no answer."""

    checks: list[Check] = []
    revocations: list[Revocation] = []
    spends: list[Spend] = []
    refreshes: list[Refresh] = []
    uses: list[Use] = []
    unanswered: dict[str, int] = {}

    def add(self, other: "History") -> None:
        """Takes over what another has written down."""
        self.checks += other.checks
        self.revocations += other.revocations
        self.spends += other.spends
        self.refreshes += other.refreshes
        self.uses += other.uses
        for why, times in other.unanswered.items():
            self.unanswered[why] = self.unanswered.get(why, 0) + times

    def __len__(self) -> int:
        kinds: tuple[list[Any], ...] = (
            self.checks, self.revocations, self.spends, self.refreshes, self.uses,
        )  # fmt: skip
        return sum(len(kind) for kind in kinds)


def wrong_checks(checks: Iterable[Check], revocations: Iterable[Revocation]) -> list[str]:
    """The checks that no moment of the revocation explains.

    The moment lies between the start of the first attempt and the end of the first receipt. So
    there is one exactly if

    - no check that starts after a receipt is good, and
    - no check that ends before the first attempt is ended.

    Between the two, nodes may differ: the promise begins with the receipt.
    """
    begun: dict[int, int] = {}
    over: dict[int, int] = {}
    for each in revocations:
        begun[each.key] = min(each.start, begun.get(each.key, each.start))
        if each.waited_ms is not None:
            over[each.key] = min(each.end, over.get(each.key, each.end))
    wrong = []
    for check in checks:
        if check.seen == "good" and check.key in over and check.start > over[check.key]:
            late = (check.start - over[check.key]) / 1e6
            wrong.append(f"key {check.key}: accepted {late:.3f} ms after its receipt: {check}")
        if check.seen == "ended" and (check.key not in begun or check.end < begun[check.key]):
            wrong.append(f"key {check.key}: refused before anybody revoked it: {check}")
    return wrong
