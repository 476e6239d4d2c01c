"""How long changes waited until nobody answered by the old, as a histogram."""

from itertools import accumulate

from keybearer.verification.coherence import Receipt

BOUNDS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_100, 5_000, 60_000)
"""The upper ends of the buckets: an answer over the bus is below 100, a lease that had to be
waited out below 2 100, and what is more comes of STALE_IF_DATABASE_LOST."""


class Receipts:
    """The receipts of one process since its start.

    Attributes:
        total_ms: all waiting together.
    """

    def __init__(self) -> None:
        self.total_ms = 0
        self._buckets = [0] * (len(BOUNDS_MS) + 1)

    def add(self, receipt: Receipt) -> None:
        """Counts a change that has ended."""
        waited = receipt.waited_ms
        place = next((i for i, bound in enumerate(BOUNDS_MS) if waited <= bound), -1)
        self._buckets[place] += 1
        self.total_ms += waited

    def up_to(self) -> list[int]:
        """How many waited up to each of the bounds; the last number is all."""
        return list(accumulate(self._buckets))
