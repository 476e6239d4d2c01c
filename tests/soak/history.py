"""What was asked and answered, and whether one order of all of it explains the answers.

Every operation of every process is written down with its start and end on one monotonic clock. The
objects are so simple that each has a rule of its own; no search is needed.

    revocation   a register that goes from `good` to `ended`, once
    quota        a counter that starts at N and gives N units
    refresh      a chain of tokens, of which one is live

What has no answer (a killed node, a cut line, a 503) may have happened or not, and at any time
after its start: it excuses others and is judged by nobody.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

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
    """One request with a key of a quota: `good` spent a unit, `ended` found none."""

    quota: int
    start: int
    end: int
    seen: Seen


class Refresh(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request to refresh a login: the token that came, "" when it was refused, or None."""

    family: int
    presented: str
    start: int
    end: int
    answer: str | None


class History(msgspec.Struct, gc=False):
    """What one client has written down."""

    checks: list[Check] = []
    revocations: list[Revocation] = []
    spends: list[Spend] = []
    refreshes: list[Refresh] = []

    def add(self, other: "History") -> None:
        """Takes over what another has written down."""
        self.checks += other.checks
        self.revocations += other.revocations
        self.spends += other.spends
        self.refreshes += other.refreshes

    def __len__(self) -> int:
        return len(self.checks) + len(self.revocations) + len(self.spends) + len(self.refreshes)


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


def wrong_spends(spends: Iterable[Spend], units: Sequence[int]) -> list[str]:
    """The quotas that gave too much, refused too early, or kept something back.

    Those who got a unit are at most N. Whoever was refused came when all had been given: at least
    N others, who got one or never heard, began before the refusal ended. So at the end, when every
    node refuses, nothing is left over either.
    """
    by_quota: dict[int, list[Spend]] = defaultdict(list)
    for spend in spends:
        by_quota[spend.quota].append(spend)
    wrong = []
    for quota, all_of_it in by_quota.items():
        total = units[quota]
        given = sum(each.seen == "good" for each in all_of_it)
        if given > total:
            wrong.append(f"quota {quota}: {given} of {total} units were given")
        began = sorted(each.start for each in all_of_it if each.seen != "ended")
        wrong += [
            f"quota {quota}: refused with units left: {each}"
            for each in all_of_it
            if each.seen == "ended" and (len(began) < total or began[total - 1] > each.end)
        ]
    return wrong


LEEWAY_NS = 10_000_000_000


def wrong_refreshes(refreshes: Iterable[Refresh]) -> list[str]:
    """The families with two live tokens, or with none though nobody did anything wrong.

    Whoever presents a token gets the one successor that it has, however many ask at once and
    however often within ten seconds. Only who comes later than that, after an attempt that may
    have happened, may be refused.
    """
    by_token: dict[tuple[int, str], list[Refresh]] = defaultdict(list)
    for refresh in refreshes:
        by_token[refresh.family, refresh.presented].append(refresh)
    wrong = []
    parents: dict[str, str] = {}
    for (family, token), attempts in by_token.items():
        answers = {each.answer for each in attempts if each.answer}
        if len(answers) > 1:
            wrong.append(f"family {family}: {len(answers)} successors of one token")
        wrong += [
            f"family {family}: one token succeeds two"
            for answer in answers
            if parents.setdefault(answer, token) != token or answer == token
        ]
        first = min(each.start for each in attempts)
        wrong += [
            f"family {family}: the live token was refused: {each}"
            for each in attempts
            if each.answer == "" and each.end < first + LEEWAY_NS
        ]
    return wrong


def wrong_in(history: History, units: Sequence[int]) -> list[str]:
    """Everything in a history that nothing explains; empty is good."""
    return [
        *wrong_checks(history.checks, history.revocations),
        *wrong_spends(history.spends, units),
        *wrong_refreshes(history.refreshes),
    ]
