"""What one process says of itself, for the metrics.

No label holds an id, an address or a name that anybody chose.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from keybearer import __version__
from keybearer.node import Node
from keybearer.operations.app import App
from keybearer.verification.receipts import BOUNDS_MS
from keybearer.verification.verifier import Verifier


class Buckets(msgspec.Struct, frozen=True, array_like=True):
    """Observations in buckets: upper ends with how many are up to there, and their sum."""

    buckets: tuple[tuple[str, int], ...]
    total: float


class Figure(msgspec.Struct, frozen=True, array_like=True):
    """One thing that is counted or measured, with a value for each set of its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    values: tuple[tuple[tuple[str, ...], float | Buckets], ...]
    labels: tuple[str, ...] = ()


Figures = Sequence[Figure]


def counter(name: str, text: str, value: float) -> Figure:
    """What only grows, until the process ends."""
    return Figure(name, "counter", text, (((), value),))


def gauge(name: str, text: str, value: float) -> Figure:
    """How it is now; True is 1."""
    return Figure(name, "gauge", text, (((), float(value)),))


class Told:
    """The figures of one process.

    Args:
        node: this process among those that serve.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hits = 0

    def __call__(self, app: App) -> Figures:
        """All of them, now."""
        return [
            self._info(),
            *self._of_checks(app.verifier),
            *self._of_lease(app),
            *self._of_changes(app),
            *self._of_queues(app),
        ]

    def _info(self) -> Figure:
        told = (self._node.id, __version__)
        return Figure(
            "node_info", "gauge", "Which node this is, as the log calls it, and its version.",
            ((told, 1),), ("node", "version"),
        )  # fmt: skip

    def _of_checks(self, verifier: Verifier) -> Iterator[Figure]:
        totals, cache = verifier.usage.totals, verifier.cache
        yield Figure(
            "verdicts", "counter",
            "Checks of credentials that are ours, a second late at the most.",
            tuple((outcome, n) for outcome, n in sorted(totals.items())), ("kind", "outcome"),
        )  # fmt: skip
        # Told of a check with its verdict, and of a miss at once: so what is late is held back.
        self._hits = max(self._hits, sum(totals.values()) - verifier.misses)
        yield counter("cache_hits", "Checks that were answered from memory, about.", self._hits)
        yield counter("cache_misses", "Checks that the database was asked for.", verifier.misses)
        yield counter(
            "cache_invalidations", "Changes that dropped cached grants.", cache.generation
        )
        yield gauge("cache_entries", "Cached grants.", len(cache))
        yield gauge("cache_capacity", "Cached grants at the most.", cache.size)
        yield gauge("cache_bytes", "What they take, about.", cache.bytes)
        yield gauge("cache_capacity_bytes", "What they may take, about.", cache.max_bytes)
        yield gauge("rate_limit_windows", "Keys whose limit is counted.", len(verifier.limiter))
        if self._node.limits is not None:
            yield gauge(
                "rate_limits_shared",
                "Whether all processes count together; else each by its share.",
                self._node.limits.shared,
            )
        yield gauge("quota_chunks", "Keys of which units are taken ahead.", len(verifier.quota))

    def _of_lease(self, app: App) -> Iterator[Figure]:
        lease = self._node.lease
        left = max(0, lease.until - app.clock.now())
        yield gauge("lease_held", "Whether the cache may be answered from.", left > 0)
        yield gauge(
            "lease_remaining_seconds",
            "How long the cache may be answered from without another renewal.",
            left / 1000,
        )
        yield gauge(
            "lease_stretched",
            "Whether it is only because STALE_IF_DATABASE_LOST says so.",
            lease.stretched and left > 0,
        )
        yield gauge("log_position", "The last change that is applied here.", lease.seq)

    def _of_changes(self, app: App) -> Iterator[Figure]:
        receipts, spread = self._node.receipts, app.spread
        counts = receipts.up_to()
        ends = [str(bound / 1000) for bound in BOUNDS_MS]
        waited = Buckets(tuple(zip([*ends, "+Inf"], counts, strict=True)), receipts.total_ms / 1000)
        yield Figure(
            "receipt_seconds", "histogram",
            "How long changes waited until no process answered by the old.", (((), waited),),
        )  # fmt: skip
        yield gauge("changes_waiting", "Changes that wait for other processes.", spread.waiting)
        yield gauge("nodes", "Serving processes that answer, this one too.", spread.nodes)
        yield gauge("nodes_suspected", "Those that did not answer in time.", spread.suspected)
        if self._node.bus is not None:
            yield gauge(
                "bus_connected", "Whether changes come and go by Redis.", self._node.bus.connected
            )

    def _of_queues(self, app: App) -> Iterator[Figure]:
        written_at = app.verifier.usage.written_at
        if written_at is not None:
            yield gauge(
                "usage_unwritten_seconds",
                "How long ago all that was counted had been written.",
                max(0, app.clock.now() - written_at) / 1000,
            )
        usage = app.verifier.usage
        spill = usage.spill
        yield gauge(
            "usage_batches_waiting", "Batches of usage that are not in the database.", usage.waiting
        )
        yield gauge(
            "usage_spilled_bytes",
            "Usage that waits on the disk for the database.",
            0 if spill is None else spill.size,
        )
        yield counter(
            "usage_samples_dropped",
            "Events of the activity of keys that had no room on the disk in an outage.",
            0 if spill is None else spill.samples_dropped,
        )
        yield gauge("passwords_waiting", "Passwords that wait to be hashed.", app.hasher.waiting)
        yield gauge(
            "database_busy",
            "SQLite: writes that wait. PostgreSQL: connections in use.",
            app.database.busy,
        )
