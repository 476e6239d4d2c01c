"""The rules of a login's refresh tokens: a chain of which one is live, until one comes again.

t0 ──▶ t1 ──▶ t2 live
 │      └──── again, within ten seconds: t2 once more, as the answer may have been lost
 └─────────── again: the login ends, whoever asks; nothing of this family is good any more
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.soak.history import Refresh, Use

LEEWAY_NS = 10_000_000_000


def wrong_refreshes(refreshes: Iterable[Refresh], uses: Iterable[Use] = ()) -> list[str]:
    """What no chain explains: two successors, a login that goes on or ends against the rule."""
    families: dict[str, list[Refresh]] = defaultdict(list)
    for refresh in refreshes:
        families[refresh.family].append(refresh)
    used: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        used[use.family].append(use)
    return [
        f"family {number}: {each}"
        for number, (name, family) in enumerate(families.items())
        for each in _wrong_in_one(family, used[name])
    ]


def _wrong_in_one(family: Sequence[Refresh], uses: Sequence[Use]) -> list[str]:
    by_token: dict[str, list[Refresh]] = defaultdict(list)
    for refresh in family:
        by_token[refresh.presented].append(refresh)
    successors = {
        token: {each.answer for each in attempts if each.answer}
        for token, attempts in by_token.items()
    }
    wrong = _wrong_successors(successors)
    next_of = {token: max(found) for token, found in successors.items() if found}
    wrong += _wrong_after_reuse(family, uses, by_token, next_of)
    wrong += _wrong_refusals(family, by_token, next_of)
    return wrong


def _wrong_successors(successors: Mapping[str, set[str]]) -> list[str]:
    wrong, parents = [], dict[str, str]()
    for token, found in successors.items():
        if len(found) > 1:
            wrong.append(f"{len(found)} successors of one token")
        wrong += [
            "one token succeeds two"
            for answer in found
            if parents.setdefault(answer, token) != token or answer == token
        ]
    return wrong


def _superseded_at(
    token: str, by_token: Mapping[str, Sequence[Refresh]], next_of: Mapping[str, str]
) -> int | None:
    """When somebody first had the successor's successor in hand; None if nobody had."""
    following = by_token.get(next_of.get(token, ""), ())
    return min((each.end for each in following if each.answer), default=None)


def _wrong_after_reuse(
    family: Sequence[Refresh],
    uses: Sequence[Use],
    by_token: Mapping[str, Sequence[Refresh]],
    next_of: Mapping[str, str],
) -> list[str]:
    """A token that came again late is refused, and after that refusal everything is."""
    over: int | None = None
    wrong = []
    for each in family:
        superseded = _superseded_at(each.presented, by_token, next_of)
        if superseded is None or each.start <= superseded:
            continue
        if each.answer:
            wrong.append(f"a token was good that came again: {each}")
        elif each.answer == "":
            over = min(each.end, over or each.end)
    if over is not None:
        wrong += [
            f"the login went on after a token had come again: {each}"
            for each in family
            if each.answer and each.start > over
        ]
        wrong += [
            f"accepted {(each.start - over) / 1e6:.3f} ms after a token had come again: {each}"
            for each in uses
            if each.seen == "good" and each.start > over
        ]
    return wrong


def _wrong_refusals(
    family: Sequence[Refresh],
    by_token: Mapping[str, Sequence[Refresh]],
    next_of: Mapping[str, str],
) -> list[str]:
    """A refusal that nothing explains: no token of the family can have come too late by then."""
    began = {token: min(each.start for each in by_token[token]) for token in by_token}

    def too_late_from(each: Refresh) -> int | None:
        """The first instant at which this attempt may have been one too many."""
        replaced = [began[each.presented] + LEEWAY_NS]
        if next_of.get(each.presented, "") in began:
            replaced.append(began[next_of[each.presented]])
        instant = max(each.start, min(replaced))
        # What was never answered may still happen.
        return instant if each.answer is None or instant <= each.end else None

    instants = [at for each in family if (at := too_late_from(each)) is not None]
    first = min(instants, default=None)
    return [
        f"the live token was refused: {each}"
        for each in family
        if each.answer == "" and (first is None or each.end < first)
    ]
