"""Grants by digest of the whole credential, bounded twice, dropped by tag.

    generation ──────1──────2──────3──────▶   moves with every invalidation
    fill A:      begins▲        reads…   ▲ends: its tags were invalidated in 2: not kept
    fill B:             begins▲     ▲ends: nothing of it invalidated since: kept

A fill that read the database before an invalidation must not enter after it, nor may a later
request join that read; so each fill and each flight carries the generation it began in.
"""

import sys
from collections.abc import Iterable

from keybearer.domain.model import Grant, Session
from keybearer.verification.usage import SecretTally, Tally

ENTRY_LIFE_MS = 30_000
"""A change made in SQL behind our back is found at the latest after this."""

_REMEMBERED_TAGS = 10_000


_ENTRY_BYTES = 4_500
"""What an entry takes, measured, but for what its owner may make long."""


class Entry:
    """One cached grant with what a warm check needs beside it.

    Args:
        written: what the tally had written when the grant was read.
        secret: the tally of the secret itself, while its key rotates.

    Attributes:
        uses: what an accepted request is counted on.
    """

    __slots__ = ("fresh_until", "grant", "session", "tally", "uses", "weight", "written")

    def __init__(
        self,
        grant: Grant,
        session: Session,
        tally: Tally,
        *,
        fresh_until: int,
        written: int = 0,
        secret: SecretTally | None = None,
    ) -> None:
        self.grant = grant
        self.session = session
        self.tally = tally
        # Decided here, so that a key that does not rotate pays nothing for those that do.
        self.uses: Tally | SecretTally = tally if secret is None else secret
        self.written = written
        self.weight = 0
        self.fresh_until = fresh_until


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
        self._by_tag: dict[str, set[bytes]] = {}
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
        entry.weight = weight_of(entry.grant)
        room = self.max_bytes - entry.weight
        while self._entries and (len(self._entries) >= self.size or self.bytes > room):
            self._forget(next(iter(self._entries)))
        self._entries[digest] = entry
        self.bytes += entry.weight
        for tag in entry.grant.tags:
            self._by_tag.setdefault(tag, set()).add(digest)
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
            for digest in list(self._by_tag.get(tag, ())):
                self._forget(digest)

    def clear(self) -> None:
        """Drops everything, and bars every fill that is under way."""
        self.generation += 1
        self._floor = self.generation
        self._invalidated.clear()
        self._entries.clear()
        self._by_tag.clear()
        self.bytes = 0

    def _forget(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self.bytes -= entry.weight
        for tag in entry.grant.tags:
            digests = self._by_tag[tag]
            digests.discard(digest)
            if not digests:
                del self._by_tag[tag]


def weight_of(grant: Grant) -> int:
    """About how many bytes the entry of a grant takes."""
    weight = _ENTRY_BYTES + _size(grant.permissions)
    key = grant.record
    if key is not None:
        weight += _size(key.name) + _size(key.description) + _size(key.last_used_user_agent)
        weight += _size(key.metadata)
        weight += 5 * _size(key.ip_allow)  # and as numbers, to compare with
    return weight


def _size(value: object) -> int:
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(_size(name) + _size(member) for name, member in value.items())
    if isinstance(value, list | tuple | frozenset):
        return size + sum(map(_size, value))
    return size
