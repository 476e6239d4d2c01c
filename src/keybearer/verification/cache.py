"""Grants by digest of the whole credential, bounded, dropped by tag.

    generation ──────1──────2──────3──────▶   moves with every invalidation
    fill A:      begins▲        reads…   ▲ends: its tags were invalidated in 2: not kept
    fill B:             begins▲     ▲ends: nothing of it invalidated since: kept

A fill that read the database before an invalidation must not enter after it, nor may a later
request join that read; so each fill and each flight carries the generation it began in.
"""

from collections.abc import Iterable

from keybearer.domain.model import Grant, Session
from keybearer.verification.usage import Tally

ENTRY_LIFE_MS = 30_000
"""A change made in SQL behind our back is found at the latest after this."""

_REMEMBERED_TAGS = 10_000


class Entry:
    """One cached grant with what a warm check needs beside it.

    Args:
        written: what the tally had written when the grant was read.
    """

    __slots__ = ("fresh_until", "grant", "session", "tally", "written")

    def __init__(
        self, grant: Grant, session: Session, tally: Tally, fresh_until: int, written: int = 0
    ) -> None:
        self.grant = grant
        self.session = session
        self.tally = tally
        self.written = written
        self.fresh_until = fresh_until


class Cache:
    """Entries of one process. All methods run on the event loop's thread.

    Args:
        size: entries at the most; the oldest leave first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
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
        if begun < self._floor:
            return False
        if any(self._invalidated.get(tag, 0) > begun for tag in entry.grant.tags):
            return False
        self._forget(digest)
        if len(self._entries) >= self.size:
            self._forget(next(iter(self._entries)))
        self._entries[digest] = entry
        for tag in entry.grant.tags:
            self._by_tag.setdefault(tag, set()).add(digest)
        return True

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

    def _forget(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        for tag in entry.grant.tags:
            digests = self._by_tag[tag]
            digests.discard(digest)
            if not digests:
                del self._by_tag[tag]
