"""Rate limits of one process: a sliding window for each key.

A window outlives its key's cache entry, so that an edit or a cleared cache gives nobody a fresh
one; windows in which nothing happened for their whole length are swept away.
"""

from keybearer.domain.limits import SlidingWindow, Take
from keybearer.domain.model import RateLimit

_SWEEP_AT = 10_000


class Limiter:
    """At most `maximum` in every interval of a key's window, wherever it starts."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[RateLimit, SlidingWindow]] = {}
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return len(self._windows)

    def window(self, id: str, limit: RateLimit, now: int) -> SlidingWindow:
        """The window of one key; after an edit it goes on with what was already used."""
        known = self._windows.get(id)
        if known is not None:
            if known[0] is limit or known[0] == limit:
                return known[1]
            window = SlidingWindow.load(known[1].dump(), limit.maximum, limit.window_ms)
        else:
            if len(self._windows) >= self._sweep_at:
                self._sweep(now)
            window = SlidingWindow(limit.maximum, limit.window_ms)
        self._windows[id] = (limit, window)
        return window

    def take(self, id: str, limit: RateLimit, now: int, cost: int) -> Take:
        """Takes from the window of one key, or changes nothing."""
        window = self.window(id, limit, now)
        return Take(
            accepted=window.take(now, cost),
            remaining=window.remaining(now),
            retry_after_ms=window.retry_after(now, cost),
            reset_after_ms=window.reset_after(now),
            at=now,
            shared=False,
        )

    def pop(self) -> tuple[str, RateLimit, SlidingWindow]:
        """Takes out one window; KeyError when there is none."""
        id, (limit, window) = self._windows.popitem()
        return id, limit, window

    def state(self, id: str) -> bytes | None:
        """What a key's window has counted, to outlive the process."""
        known = self._windows.get(id)
        return None if known is None else known[1].dump()

    def restore(self, id: str, limit: RateLimit, state: bytes) -> None:
        """Goes on with what a process before us has counted, where we have no window yet."""
        if id not in self._windows:
            window = SlidingWindow.load(state, limit.maximum, limit.window_ms)
            self._windows[id] = (limit, window)

    def _sweep(self, now: int) -> None:
        self._windows = {id: known for id, known in self._windows.items() if not known[1].idle(now)}
        # Sweeping walks all windows: do it again only when they have doubled.
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._windows))
