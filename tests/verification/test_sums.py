"""Added up: the sum and the newest of each, in batches of a bounded size."""

from collections.abc import Callable, Iterator

import pytest

from keybearer.domain.uses import Batch, Count, LastUse, Sample, SecretUse
from keybearer.verification import sums as module
from keybearer.verification.sums import Sums

MINUTE = 60_000
HOUR = 3_600_000


@pytest.fixture
def ids() -> Iterator[str]:
    return (f"id{n}" for n in range(100))


def use(id: str, at: int, n: int = 1, **fields: str) -> LastUse:
    told = {"ip": None, "user_agent": None, **fields}
    return LastUse(id=id, at=at, n=n, ip=told["ip"], user_agent=told["user_agent"])


def sample(at: int, n: int = 1, *, key: str = "k", ip: str | None = None) -> Sample:
    return Sample(key_id=key, outcome="accepted", at=at, n=n, ip=ip, user_agent=None)


def batch(id: str, at: int, n: int = 1) -> Batch:
    """Some requests of one key, with a log-in beside."""
    return Batch(
        id=id,
        counts=[Count(key_id="k", hour=at - at % HOUR, outcome="accepted", n=n)],
        keys=[use("k", at, n, ip=id)],
        sessions=[use("s", at, n)],
        secrets=[SecretUse(digest=b"d", at=at, ip=None, n=n)],
        samples=[sample(at, n, ip=id)],
    )


def test_nothing_is_no_batch(ids: Iterator[str]) -> None:
    assert not Sums()
    assert Sums().batches(lambda: next(ids)) == []


@pytest.mark.parametrize(
    "add",
    [
        lambda sums: sums.count("k", 0, "accepted", 1),
        lambda sums: sums.use(use("k", 1), of_key=True),
        lambda sums: sums.use(use("s", 1), of_key=False),
        lambda sums: sums.secret(SecretUse(digest=b"d", at=1, ip=None, n=1)),
        lambda sums: sums.sample(sample(1)),
    ],
    ids=["count", "key", "session", "secret", "sample"],
)
def test_anything_is_something(add: Callable[[Sums], None], ids: Iterator[str]) -> None:
    sums = Sums()
    add(sums)
    assert sums
    assert len(sums.batches(lambda: next(ids))) == 1


def test_of_one_instant_the_later_told_stays_and_of_an_older_minute_nothing() -> None:
    sums = Sums()
    for ip in ("a", "b"):
        sums.use(use("k", 5, ip=ip), of_key=True)
    assert sums.keys["k"] == use("k", 5, 2, ip="b")
    sums.sample(sample(MINUTE, 1))
    sums.sample(sample(0, 5))
    assert [*sums.samples.values()] == [sample(MINUTE, 1)]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_batches_are_added_in_any_order(order: tuple[int, int], ids: Iterator[str]) -> None:
    each = {1: batch("a", 5, 3), 2: batch("b", 9, 4)}
    sums = Sums(61)
    for n in order:
        sums.add(each[n])
    (both,) = sums.batches(lambda: next(ids))
    assert both == Batch(
        id="id0",
        counts=[Count(key_id="k", hour=0, outcome="accepted", n=7)],
        keys=[use("k", 9, 7, ip="b")],
        sessions=[use("s", 9, 7)],
        secrets=[SecretUse(digest=b"d", at=9, ip=None, n=7)],
        samples=[sample(9, 7, ip="b")],
    )


def test_hours_and_outcomes_are_counted_apart(ids: Iterator[str]) -> None:
    sums = Sums()
    for key, hour, outcome in (("k", 0, "a"), ("k", HOUR, "a"), ("k", 0, "b"), ("j", 0, "a")):
        sums.count(key, hour, outcome, 1)
    (only,) = sums.batches(lambda: next(ids))
    told = [(count.key_id, count.hour, count.outcome) for count in only.counts]
    assert told == [("j", 0, "a"), ("k", 0, "a"), ("k", 0, "b"), ("k", HOUR, "a")]


@pytest.mark.parametrize(("slots", "kept"), [(1, [62]), (61, [62, 2]), (1_000, [0, 1, 2, 62])])
def test_of_each_slot_the_latest_minute_stays(
    slots: int, kept: list[int], ids: Iterator[str]
) -> None:
    sums = Sums(slots)
    for minute in (0, 62, 1, 2):
        sums.sample(sample(minute * MINUTE))
    (only,) = sums.batches(lambda: next(ids))
    if slots == 61:
        # 62 is in the slot of 1; 0 and 2 have slots of their own.
        assert [each.minute for each in only.samples] == [0, 62, 2]
    else:
        assert [each.minute for each in only.samples] == kept


def test_the_newest_samples_are_kept() -> None:
    sums = Sums(61)
    for n in range(10):
        sums.sample(sample(n * MINUTE))
    assert sums.keep_samples(3) == 7
    assert sorted(each.minute for each in sums.samples.values()) == [7, 8, 9]
    assert sums.keep_samples(3) == 0
    sums.sample(sample(20 * MINUTE, key="a"))
    assert sums.keep_samples(1) == 3
    assert [each.key_id for each in sums.samples.values()] == ["a"]


def test_a_large_sum_comes_in_batches_and_nothing_twice(
    ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    sums = Sums()
    for n in range(5):
        sums.count(f"k{n}", 0, "accepted", 1)
        sums.use(use(f"k{n}", n), of_key=True)
    sums.use(use("s", 1), of_key=False)
    made = sums.batches(lambda: next(ids))
    assert [each.id for each in made] == ["id0", "id1", "id2"]
    assert [[count.key_id for count in each.counts] for each in made] == [
        ["k0", "k1"], ["k2", "k3"], ["k4"],
    ]  # fmt: skip
    assert [use.id for each in made for use in each.keys] == ["k0", "k1", "k2", "k3", "k4"]
    assert [len(each.sessions) for each in made] == [1, 0, 0]
    again = Sums()
    for each in made:
        again.add(each)
    assert (again.counts, again.keys, again.sessions) == (sums.counts, sums.keys, sums.sessions)
