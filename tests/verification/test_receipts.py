"""Receipts in buckets."""

import pytest

from keybearer.verification.coherence import NOBODY, Receipt
from keybearer.verification.receipts import BOUNDS_MS, Receipts


def test_nothing_is_counted_before_anything_happens() -> None:
    receipts = Receipts()
    assert receipts.up_to() == [0] * (len(BOUNDS_MS) + 1)
    assert receipts.total_ms == 0


def test_the_bounds_are_those_that_dashboards_know() -> None:
    assert BOUNDS_MS == (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_100, 5_000, 60_000)


@pytest.mark.parametrize(
    ("waited_ms", "first"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (2_050, BOUNDS_MS.index(2_100)), (60_001, len(BOUNDS_MS))],
)
def test_a_receipt_is_in_its_bucket_and_all_above(waited_ms: int, first: int) -> None:
    receipts = Receipts()
    receipts.add(NOBODY)
    receipts.add(Receipt(nodes=2, waited_ms=waited_ms))
    below = [1] * first
    assert receipts.up_to() == below + [2] * (len(BOUNDS_MS) + 1 - first)
    assert receipts.total_ms == waited_ms
