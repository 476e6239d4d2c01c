"""Grants by digest of the whole credential, bounded twice, dropped by tag.

    generation ──────1──────2──────3──────▶   moves with every invalidation
    fill A:      begins▲        reads…   ▲ends: its tags were invalidated in 2: not kept
    fill B:             begins▲     ▲ends: nothing of it invalidated since: kept

A fill that read the database before an invalidation must not enter after it, nor may a later
request join that read; so each fill and each flight carries the generation it began in.
"""

import sys
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from keybearer.domain.model import Grant, Session
from keybearer.verification.usage import SecretTally, Tally

ENTRY_LIFE_MS = 30_000
"""A change made in SQL behind our back is found at the latest after this."""

_REMEMBERED_TAGS = 10_000


_ENTRY_BYTES = 750
"""What an entry takes, measured (`make bench`), but for what its key makes long or short."""


@lru_cache(maxsize=2)
def _end_of(second: int) -> int:
    return second * 1_000 + ENTRY_LIFE_MS


def fresh_until(now: int) -> int:
    """When an entry that is read now must be read again: one number for all of a second."""
    return _end_of(now // 1_000)


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One cached grant with what a warm check needs beside it.

    Attributes:
        session: the grant's.
        tally: of the key or session.
        uses: what an accepted request is counted on: the tally, or that of the secret itself while
            its key rotates. A key that does not rotate pays nothing for those that do.
        written: what the tally had written when the grant was read.
    """

    grant: Grant
    session: Session
    tally: Tally
    uses: Tally | SecretTally
    fresh_until: int
    written: int = 0


_ById = dict[str, bytes | dict[bytes, None]]
"""The digests of the entries that depend on a row, by its id; one digest, or several."""


class Cache:
    """Entries of one process. All methods run on the event loop's thread.

    Args:
        size: entries at the most; the oldest leave first.
        max_bytes: what they may take together; by estimate, as Python tells nobody.

    Attributes:
        bytes: what they take now, by the same estimate.
    """

    def __init__(self, size: int, max_bytes: int = sys.maxsize) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.bytes = 0
        self.generation = 0
        self._entries: dict[bytes, Entry] = {}
        self._dependent: dict[str, _ById] = {}
        self._floor = 0
        self._invalidated: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> Entry | None:
        """The entry, or None; whether it is still fresh is the caller's question."""
        return self._entries.get(digest)

    def put(self, digest: bytes, entry: Entry, *, begun: int) -> bool:
        """Keeps an entry unless one of its tags was invalidated since generation `begun`."""
        if not self.untouched(entry.grant.tags, since=begun):
            return False
        self._forget(digest)
        weight = weight_of(entry.grant)
        room = self.max_bytes - weight
        while self._entries and (len(self._entries) >= self.size or self.bytes > room):
            self._forget(next(iter(self._entries)))
        self._entries[digest] = entry
        self.bytes += weight
        for kind, id in entry.grant.depends_on:
            self._depend(self._dependent.setdefault(kind, {}), id, digest)
        return True

    def untouched(self, tags: Iterable[str], *, since: int) -> bool:
        """Whether nothing that has one of `tags` was invalidated since generation `since`."""
        if since < self._floor:
            return False
        return all(self._invalidated.get(tag, 0) <= since for tag in tags)

    def invalidate(self, tags: Iterable[str]) -> None:
        """Drops every entry that has one of `tags`, and bars the fills that are under way."""
        self.generation += 1
        if len(self._invalidated) >= _REMEMBERED_TAGS:
            # Rather bar every fill under way than remember without bound.
            self._invalidated.clear()
            self._floor = self.generation
        for tag in tags:
            self._invalidated[tag] = self.generation
            kind, _, id = tag.partition(":")
            digests = self._dependent.get(kind, {}).get(id, {})
            for digest in [digests] if isinstance(digests, bytes) else list(digests):
                self._forget(digest)

    def clear(self) -> None:
        """Drops everything, and bars every fill that is under way."""
        self.generation += 1
        self._floor = self.generation
        self._invalidated.clear()
        self._entries.clear()
        self._dependent.clear()
        self.bytes = 0

    def _forget(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self.bytes -= weight_of(entry.grant)
        for kind, id in entry.grant.depends_on:
            self._depend_no_more(self._dependent[kind], id, digest)

    # Most rows have one entry that depends on them: it needs no set.

    @staticmethod
    def _depend(by_id: _ById, id: str, digest: bytes) -> None:
        others = by_id.setdefault(id, digest)
        if isinstance(others, dict):
            others[digest] = None
        elif others != digest:
            by_id[id] = {others: None, digest: None}

    @staticmethod
    def _depend_no_more(by_id: _ById, id: str, digest: bytes) -> None:
        others = by_id[id]
        if isinstance(others, dict):
            del others[digest]
        if not others or others == digest:
            del by_id[id]


def weight_of(grant: Grant) -> int:
    """About how many bytes the entry of a grant takes."""
    session, size = grant.session, sys.getsizeof
    weight = _ENTRY_BYTES + size(session.id) + size(session.subject) + size(session.name)
    weight += sum(map(size, session.permissions or ())) + size(session.permissions)
    if grant.packed is not None:
        weight += size(grant.packed)
    if grant.bars is not None:
        weight += size(grant.bars)
        allowed = () if grant.bars.allow is None else grant.bars.allow.entries
        weight += 5 * (size(allowed) + sum(map(size, allowed)))  # as numbers too, to compare with
    return weight
