"""Usage added up: the sum and the last of each, made into batches.

Counts of one key, hour and outcome are added, and so are uses, of which the newest stays. Of what
happened one sample stays for each key and outcome: the last minute's or, in as many slots as the
database has, the last hour's. So what is added up grows with the keys that were used, and not with
the requests or the time.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TypeVar

import msgspec

from keybearer.domain.uses import Batch, Count, LastUse, Sample, SecretUse

ROWS = 2_000
"""Rows of each kind in one batch: a transaction holds what it locks for a tenth of a second."""

N = TypeVar("N", str, bytes, tuple[str, str, int])
U = TypeVar("U", LastUse, SecretUse, Sample)


class Sums:
    """What was collected and is in no batch yet.

    Args:
        slots: for how many minutes in a row samples are kept.
    """

    __slots__ = ("_slots", "counts", "keys", "samples", "secrets", "sessions")

    def __init__(self, slots: int = 1) -> None:
        self._slots = slots
        self.counts: dict[tuple[str, int, str], int] = {}
        self.keys: dict[str, LastUse] = {}
        self.sessions: dict[str, LastUse] = {}
        self.secrets: dict[bytes, SecretUse] = {}
        self.samples: dict[tuple[str, str, int], Sample] = {}

    def __bool__(self) -> bool:
        return bool(self.counts or self.sessions or self.keys or self.secrets or self.samples)

    def count(self, key_id: str, hour: int, outcome: str, n: int) -> None:
        """Adds requests of one hour."""
        name = (key_id, hour, outcome)
        self.counts[name] = self.counts.get(name, 0) + n

    def use(self, later: LastUse, *, of_key: bool) -> None:
        """Adds uses of a key or a session."""
        uses = self.keys if of_key else self.sessions
        uses[later.id] = _together(uses.get(later.id), later)

    def secret(self, later: SecretUse) -> None:
        """Adds uses of a secret."""
        self.secrets[later.digest] = _together(self.secrets.get(later.digest), later)

    def sample(self, later: Sample) -> None:
        """Adds what happened in one minute; of two minutes in one slot the later stays."""
        name = (later.key_id, later.outcome, later.minute % self._slots)
        earlier = self.samples.get(name)
        if earlier is None or earlier.minute < later.minute:
            self.samples[name] = later
        elif earlier.minute == later.minute:
            self.samples[name] = _together(earlier, later)

    def add(self, batch: Batch) -> None:
        """Adds all of a batch, which then must not be written itself."""
        for count in batch.counts:
            self.count(count.key_id, count.hour, count.outcome, count.n)
        for use in batch.keys:
            self.use(use, of_key=True)
        for use in batch.sessions:
            self.use(use, of_key=False)
        for secret in batch.secrets:
            self.secret(secret)
        for sample in batch.samples:
            self.sample(sample)

    def keep_samples(self, n: int) -> int:
        """Forgets all samples but the `n` newest; how many it forgot."""
        newest = sorted(self.samples, key=lambda name: self.samples[name].at, reverse=True)
        for name in newest[n:]:
            del self.samples[name]
        return len(newest[n:])

    def batches(self, new_id: Callable[[], str]) -> list[Batch]:
        """All of it in as many batches as it takes; each name stands in one of them, once."""
        counts = iter(
            [
                Count(key_id=key_id, hour=hour, outcome=outcome, n=n)
                for (key_id, hour, outcome), n in sorted(self.counts.items())
            ]
        )
        keys, sessions = iter(_sorted(self.keys)), iter(_sorted(self.sessions))
        secrets, samples = iter(_sorted(self.secrets)), iter(_sorted(self.samples))
        kinds = (self.counts, self.keys, self.sessions, self.secrets, self.samples)
        longest = max(len(kind) for kind in kinds)
        return [
            Batch(
                id=new_id(),
                counts=list(islice(counts, ROWS)),
                keys=list(islice(keys, ROWS)),
                sessions=list(islice(sessions, ROWS)),
                secrets=list(islice(secrets, ROWS)),
                samples=list(islice(samples, ROWS)),
            )
            for _ in range(0, longest, ROWS)
        ]


def _together(earlier: U | None, later: U) -> U:
    """One out of two that were collected in this order: all of both, and the newest of them."""
    if earlier is None:
        return later
    newer = later if later.at >= earlier.at else earlier
    return msgspec.structs.replace(newer, n=earlier.n + later.n)


def _sorted(named: Mapping[N, U]) -> list[U]:
    return [named[name] for name in sorted(named)]
