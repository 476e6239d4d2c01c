"""Batches of usage that wait on the disk for a lost database.

    put     ──▶ own journal ── full ──▶ what was never tried is added up, and then put anew
    first   ◀── journals of dead processes, then our own: the batch that waits longest
    settle  ──▶ it is written: taken out; an empty journal goes away

A batch whose fate is not known, because its commit was sent and no answer came, stays as it is,
under its id: added up with others it could be counted twice.

Nothing here awaits: whoever calls does so on one thread of its own.
"""

import logging
from collections.abc import Callable, Collection, Sequence

import msgspec

from keybearer.adapters.journal import Journal, Journals, size_of
from keybearer.adapters.sql.activity import SLOTS
from keybearer.adapters.sql.batches import KEPT_MS
from keybearer.domain.ids import time_of
from keybearer.domain.uses import Batch
from keybearer.verification.sums import Sums

log = logging.getLogger(__name__)

NewId = Callable[[int], str]
"""A new id that bears an instant."""

OLDEST_MS = KEPT_MS - 86_400_000
"""What was left longer ago is not written: nobody knows any more whether it has been."""


class Spill:
    """What one process has on the disk.

    Args:
        journals: where.
        room: bytes that its own journal may take.
        new_id: makes ids of an instant.

    Attributes:
        waiting: batches on the disk.
        samples_dropped: how many had to be forgotten for want of room; counts never are.
        failing: whether the disk did not take the last that was brought.
    """

    def __init__(self, journals: Journals, *, room: int, new_id: NewId) -> None:
        self._journals = journals
        self._room = room
        self._new_id = new_id
        self._own: Journal | None = None
        self._left: list[Journal] = []
        self._from: Journal | None = None
        self._tried: set[str] = set()
        self._least = 0
        self._too_old: set[str] = set()
        self.waiting = 0
        self.samples_dropped = 0
        self.failing = False

    @property
    def size(self) -> int:
        """How much of the disk our batches take."""
        return sum(each.size for each in self._all() if each.records)

    def check(self) -> None:
        """Looks whether anything could be put, and tells when not."""
        try:
            self._journals.check()
        except OSError as error:
            self._fail(_reason(error))

    def put(self, batches: Sequence[Batch], *, now: int, tried: Collection[str] = ()) -> bool:
        """Puts batches on the disk; False when it does not take them, and then it has none.

        Args:
            tried: ids of those whose fate is not known.
        """
        payloads = [msgspec.msgpack.encode(each) for each in batches]
        try:
            own = self._own or self._journals.open()
            if self._own is None:
                self._own, self._least = own, own.size
                log.warning("usage.spilled", extra={"file": own.path})
            need = size_of(payloads)
            if own.size + need > self._room:
                self._compact(own, now, need)
            if own.size + need > self._room:
                self._fail("full")
                return False
            own.append(payloads)
        except (OSError, msgspec.MsgspecError) as error:
            self._fail(_reason(error))
            return False
        finally:
            self._count()
        self._tried.update(tried)
        self.failing = False
        return True

    def first(self) -> tuple[Batch, bool] | None:
        """The batch that waits longest, and whether it is of this process."""
        for journal in list(self._all()):
            try:
                payload = journal.first()
                if payload is None:
                    continue
                batch = _decoded(payload)
            except (OSError, msgspec.MsgspecError) as error:
                self._set_aside(journal, error)
                continue
            self._from = journal
            self._tried.add(batch.id)
            return batch, journal is self._own
        self._count()
        return None

    def settle(self, batch: Batch) -> bool:
        """Takes out what `first` gave, as it is written; True when its journal is empty then.

        Only then does a crash not bring it back.
        """
        journal = self._from
        if journal is None:
            return False
        self._from = None
        self._tried.discard(batch.id)
        try:
            empty = journal.drop_first()
        except OSError as error:
            self._fail(_reason(error))
            return False
        finally:
            self._count()
        if empty:
            # Ours too: what is not there cannot be taken away by who tidies the folder up.
            if journal is self._own:
                self._own = None
            else:
                self._left.remove(journal)
            journal.close()
            log.info("usage.replayed", extra={"file": journal.path})
        return empty

    def adopt(self, now: int) -> None:
        """Takes what dead processes have left."""
        try:
            found = list(self._journals.left())
        except OSError as error:
            log.warning("usage.left_unread", extra={"reason": _reason(error)})
            return
        for journal in found:
            if journal.torn:
                extra = {"file": journal.path, "bytes": journal.torn}
                log.warning("usage.journal_torn", extra=extra)
            if not journal.records or self._is_too_old(journal, now):
                journal.close()
            else:
                log.info("usage.found", extra={"file": journal.path, "batches": journal.records})
                self._left.append(journal)
        self._count()

    def close(self) -> str | None:
        """Lets go of all; the file in which something of ours still waits."""
        for journal in self._all():
            journal.close()
        left = self._own.path if self._own is not None and self._own.records else None
        self._own, self._left = None, []
        return left

    def _is_too_old(self, journal: Journal, now: int) -> bool:
        try:
            payload = journal.first()
            old = payload is not None and time_of(_decoded(payload).id) < now - OLDEST_MS
        except (OSError, msgspec.MsgspecError):
            return False  # whoever reads it next sets it aside
        if old and journal.path not in self._too_old:
            self._too_old.add(journal.path)
            log.error("usage.journal_too_old", extra={"file": journal.path})
        return old

    def _compact(self, own: Journal, now: int, need: int) -> None:
        """Adds up what was never tried, and forgets old samples where that is not enough."""
        if own.size - self._least < self._room // 4:
            return  # it has been added up just now
        fixed, sums = [], Sums(SLOTS)
        for payload in own.all():
            batch = _decoded(payload)
            if batch.id in self._tried:
                fixed.append(payload)
            else:
                sums.add(batch)
        room = self._room - self._room // 4 - need
        dropped = 0
        while True:
            added_up = [
                msgspec.msgpack.encode(each) for each in sums.batches(lambda: self._new_id(now))
            ]
            if size_of([*fixed, *added_up]) <= room or not sums.samples:
                break
            dropped += sums.keep_samples(len(sums.samples) // 2)
        own.replace([*fixed, *added_up])
        self._least = own.size
        if dropped:
            self.samples_dropped += dropped
            log.warning("usage.samples_dropped", extra={"samples": dropped, "file": own.path})

    def _set_aside(self, journal: Journal, error: Exception) -> None:
        try:
            file = journal.set_aside()
        except OSError:
            file = journal.path
        log.error("usage.journal_unreadable", extra={"file": file, "reason": _reason(error)})
        if journal is self._own:
            self._own = None
        else:
            self._left.remove(journal)

    def _all(self) -> list[Journal]:
        return self._left if self._own is None else [*self._left, self._own]

    def _count(self) -> None:
        self.waiting = sum(each.records for each in self._all())

    def _fail(self, reason: str) -> None:
        if not self.failing:
            where = self._journals.prefix
            log.error("usage.not_spilled", extra={"where": where, "reason": reason})
        self.failing = True


def _decoded(payload: bytes) -> Batch:
    return msgspec.msgpack.decode(payload, type=Batch)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
