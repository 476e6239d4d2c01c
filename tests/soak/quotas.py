"""The rules of a quota: a counter that starts at N, gives N units, and forgets none it has given.

    given ≤ N − remaining ≤ given + unheard + waste

Given is who got a unit, and unheard who never got an answer. Waste is what a crash may leave
unused: of each process that was killed or cut off the chunk that it had taken ahead and the one
that was on its way, each a thousandth of the quota at the most. Below a thousand there is none.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from keybearer.domain.limits import CHUNK_SHARE
from keybearer.verification.quota import CHUNK_LIFE_MS
from tests.soak.history import Spend


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A quota of so many units, and what the database says that is left at the end."""

    units: int
    remaining: int
    losses: int = 0
    """How often a process that had units of it was killed or cut off from the database."""

    @property
    def waste(self) -> int:
        """What may be left unused."""
        return 2 * self.losses * (self.units // CHUNK_SHARE)


def wrong_spends(spends: Iterable[Spend], quotas: Sequence[Quota]) -> list[str]:
    """The quotas that gave too much, refused too early, forgot something or kept it back."""
    by_quota: dict[int, list[Spend]] = defaultdict(list)
    for spend in spends:
        by_quota[spend.quota].append(spend)
    wrong = []
    for number, all_of_it in by_quota.items():
        found = _wrong_in_one(all_of_it, quotas[number])
        wrong += [f"quota {number}: {each}" for each in found]
    return wrong


def _wrong_in_one(spends: Sequence[Spend], quota: Quota) -> list[str]:
    total, wrong = quota.units, list[str]()
    good = [each for each in spends if each.seen == "good"]
    unheard = sum(each.seen == "unknown" for each in spends)
    gone = total - quota.remaining
    if len(good) > total:
        wrong.append(f"{len(good)} of {total} units were given")
    if len(good) > gone:
        wrong.append(f"{len(good)} units were given, and {gone} are gone: some were forgotten")
    if gone > len(good) + unheard + quota.waste:
        wrong.append(
            f"{gone} units are gone: {len(good)} were given, {unheard} were asked for in vain, and "
            f"at most {quota.waste} may be wasted"
        )
    # Whoever was refused came when all were gone: so many began before the refusal had ended.
    began = sorted(each.start for each in spends if each.seen != "ended")
    needed = total - quota.waste
    wrong += [
        f"refused with units left: {each}"
        for each in spends
        if each.seen == "ended" and needed > 0
        if len(began) < needed or began[needed - 1] > each.end
    ]
    # A process that spends what it had taken before says what was left then. That can be so below a
    # thousand, too: units of requests that had gone away when they came.
    ends = sorted(each.end for each in good)
    age = CHUNK_LIFE_MS * 1_000_000
    for each in good:
        spent_before = bisect_left(ends, each.start - age)
        if each.left is not None and not 0 <= each.left < total - spent_before:
            wrong.append(f"{each.left} are said to be left, after {spent_before} spent: {each}")
    return wrong
