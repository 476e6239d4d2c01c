"""How much a key may do in a time: limit, quota, headers.

Sliding window
==============
The promise: at most `maximum` is accepted in *every* interval of length `window`, wherever it
begins. The window is cut into 64 pieces on an absolute grid, and a ring holds 65 of them:

    piece   … c-65 | c-64  c-63  …  c-1   c |
            gone   ^ still counted, whole   ^ now is somewhere in c

A piece counts until no instant of it can lie in the last `window` any more. So an event counts
for at least `window` and for at most `window` + one piece: the promise is never broken, and at
most 1/65 (1.54 %) less than `maximum` is admitted. A window under 64 ms is cut into pieces of one
millisecond, and is exact. (The fixed windows of other libraries admit twice the limit around an
edge; a window that begins anew with each request starves steady clients.)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

PIECES = 64
MAX_AMOUNT = 2**53 - 1
"""The largest limit, window (ms) or cost: what JSON carries exactly."""

CHUNK_SHARE = 1_000
"""What a process takes of a quota ahead is at most one in so many of what is left then …"""
CHUNK_MAX = 10_000
"""… and at most so much."""

_CLOCK_WAS_SET_BACK_MS = 60_000
_MOST = 2**64 - 1
_STRUCTURED_INTEGER_MAX = 999_999_999_999_999  # RFC 9651 section 3.3.1


class Take(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came of asking a window.

    Attributes:
        accepted: whether the cost was taken.
        remaining: how much could be taken after that.
        retry_after_ms: milliseconds until this cost could be taken again; 0 when it can at once.
        reset_after_ms: milliseconds until `remaining` grows; 0 when nothing counts.
        at: the instant at which it was counted, on the clock of whoever counted.
        shared: whether all processes count together there.
    """

    accepted: bool
    remaining: int
    retry_after_ms: int
    reset_after_ms: int
    at: int
    shared: bool


class SlidingWindow:
    """The accepted requests of one key: mutable, bounded in size, not locked.

    A count takes a byte until one of them needs more; then all take eight.

    Every `now` is in milliseconds of a clock that should not run backwards. A `now` that is
    smaller than an earlier one is taken for that one; if it is smaller by more than the window and
    a minute, the clock has been set back, and what counts is counted for one more window.
    """

    __slots__ = ("_counts", "_edge", "_floor", "_keep", "_maximum", "_piece", "_pieces", "_used",
                 "_window")  # fmt: skip

    def __init__(self, maximum: int, window_ms: int) -> None:
        """Start empty. `maximum` 0 allows nothing; ValueError for a limit that makes no sense."""
        if not 0 <= maximum <= MAX_AMOUNT:
            raise ValueError("A rate limit allows 0 requests or more.")
        if not 1 <= window_ms <= MAX_AMOUNT:
            raise ValueError("The window of a rate limit is at least 1 millisecond.")
        self._maximum = maximum
        self._window = window_ms
        self._pieces = min(PIECES, window_ms)
        # A piece of one millisecond holds one instant only, so it never counts too long.
        self._keep = self._pieces if window_ms <= PIECES else self._pieces + 1
        self._counts = array("B", bytes(self._keep))
        self._used = 0
        self._piece = 0
        self._floor = self._edge = 0  # an empty span: the first `now` always moves the window

    def take(self, now: int, cost: int = 1) -> bool:
        """Accept `cost` (1 or more) at `now`, or answer False and change nothing."""
        if not self._floor <= now < self._edge:
            self._move(now)
        if 0 < cost <= self._maximum - self._used:
            self._count(cost)
            return True
        if cost < 1:
            raise ValueError("A request costs 1 or more.")
        return False

    def add(self, now: int, cost: int = 1) -> bool:
        """Count what was accepted elsewhere, and answer whether it fits here as well."""
        if cost < 1:
            raise ValueError("A request costs 1 or more.")
        self._settle(now)
        self._count(cost)
        return self._used <= self._maximum

    def ages(self, now: int) -> list[tuple[int, int]]:
        """What counts at `now`, as `(age, amount)`: it came at least `age` milliseconds ago."""
        self._settle(now)
        return [
            (max(0, now - self._begin(piece + 1) + 1), self._counts[piece % self._keep])
            for piece in range(self._piece - self._keep + 1, self._piece + 1)
            if self._counts[piece % self._keep]
        ]

    def give_back(self, now: int, cost: int = 1) -> None:
        """Undo a `take` that was accepted, or an `add`: the same `now`, the same `cost`.

        What is no longer counted is not given back. After a clock ran backwards, older requests
        are forgotten rather than newer ones, so the promise holds.
        """
        if cost < 1:
            raise ValueError("A request costs 1 or more.")
        piece = min(now * self._pieces // self._window, self._piece)
        while cost and piece > self._piece - self._keep:
            given = min(cost, self._counts[piece % self._keep])
            self._counts[piece % self._keep] -= given
            self._used -= given
            cost -= given
            piece -= 1

    def remaining(self, now: int) -> int:
        """How much could be taken at `now`."""
        self._settle(now)
        return max(0, self._maximum - self._used)

    def retry_after(self, now: int, cost: int = 1) -> int:
        """Milliseconds until `cost` can be taken if nobody else comes: 0 when it can be now.

        Never too early. For a cost above the maximum, which never succeeds: at least a window.
        """
        self._settle(now)
        if cost > self._maximum:
            return max(self._window, self._until_freed(now, 1))
        return self._until_freed(now, self._used + cost - self._maximum)

    def reset_after(self, now: int) -> int:
        """Milliseconds until `remaining` grows without anything given back; 0 when nothing counts.

        This is the `t` of the RateLimit header, never later than any `retry_after`: a Retry-After
        should not lie before the end of that effective window.
        """
        self._settle(now)
        return self._until_freed(now, min(1, self._used))

    def idle(self, now: int) -> bool:
        """Whether nothing counts, so that a new window could take this one's place."""
        self._settle(now)
        return not self._used

    def dump(self) -> bytes:
        """The state in about a hundred bytes, for `load`."""
        return msgspec.msgpack.encode(
            _Dump(window=self._window, piece=self._piece, counts=self._counts.tolist())
        )

    @classmethod
    def load(cls, data: bytes, maximum: int, window_ms: int) -> SlidingWindow:
        """A window that goes on from `dump`; an empty one if the bytes are not a dump.

        With another maximum all still counts. With another window all that counted is taken as if
        it had come in the last piece: too strict for one window, never too loose.
        """
        window = cls(maximum, window_ms)
        try:
            dump = msgspec.msgpack.decode(data, type=_Dump)
            then = cls(0, dump.window)
        except (msgspec.MsgspecError, ValueError):
            return window
        if len(dump.counts) != then._keep or min(dump.counts) < 0:
            return window
        if dump.window == window_ms:
            window._enter(dump.piece)
            window._counts = array("B" if max(dump.counts) < 256 else "Q", dump.counts)
            window._used = sum(dump.counts)
        else:
            end = -(-(dump.piece + 1) * dump.window // then._pieces) - 1
            window._move(end)
            window._count(min(sum(dump.counts), _MOST))
        return window

    def _count(self, cost: int) -> None:
        place = self._piece % self._keep
        try:
            self._counts[place] += cost
        except OverflowError:
            self._counts = array("Q", self._counts)
            self._counts[place] += cost
        self._used += cost

    def _settle(self, now: int) -> None:
        if not self._floor <= now < self._edge:
            self._move(now)

    def _move(self, now: int) -> None:
        """Go to the piece of `now`, and forget the pieces that fall out of the ring."""
        piece = now * self._pieces // self._window
        if not self._used:
            pass  # nothing to forget, and every count is 0
        elif piece < self._piece:
            used, self._used = self._used, 0
            self._counts = array("B", bytes(self._keep))
            self._enter(piece)
            self._count(used)
        elif piece - self._piece >= self._keep:
            self._counts = array("B", bytes(self._keep))
            self._used = 0
        else:
            for passed in range(self._piece + 1, piece + 1):
                self._used -= self._counts[passed % self._keep]
                self._counts[passed % self._keep] = 0
        self._enter(piece)

    def _enter(self, piece: int) -> None:
        self._piece = piece
        self._edge = self._begin(piece + 1)
        self._floor = self._begin(piece) - max(self._window, _CLOCK_WAS_SET_BACK_MS)

    def _begin(self, piece: int) -> int:
        """The first millisecond of a piece."""
        return -(-piece * self._window // self._pieces)

    def _until_freed(self, now: int, amount: int) -> int:
        """Milliseconds from `now` until `amount` of what counts no longer does."""
        if amount <= 0 or not self._used:
            return 0
        piece = self._piece - self._keep
        while amount > 0:
            piece += 1
            amount -= self._counts[piece % self._keep]
        return self._begin(piece + self._keep) - now


class _Dump(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    window: int
    piece: int
    counts: list[int]


def refill(  # noqa: PLR0917 -- the order of a key's record
    remaining: int | None,
    refill_amount: int | None,
    refill_interval_ms: int | None,
    last_refill_at: int | None,
    created_at: int,
    now: int,
) -> tuple[int | None, int | None]:
    """What a quota and its last refill are at `now`: `(remaining, last_refill_at)`.

    Once an interval has passed, `remaining` *becomes* `refill_amount`, once however many intervals
    have passed. The schedule starts at `created_at` and moves by whole intervals, so that a late
    request does not put off the next refill. A quota that is None (unlimited) or has no refill
    stays. All instants are in milliseconds since the epoch, UTC.
    """
    if remaining is None or refill_amount is None or refill_interval_ms is None:
        return remaining, last_refill_at
    if refill_interval_ms < 1:
        raise ValueError("The interval of a refill is at least 1 millisecond.")
    anchor = created_at if last_refill_at is None else last_refill_at
    passed = (now - anchor) // refill_interval_ms
    if passed < 1:
        return remaining, last_refill_at
    return refill_amount, anchor + passed * refill_interval_ms


def until_refill(
    refill_interval_ms: int, last_refill_at: int | None, created_at: int, now: int
) -> int:
    """Milliseconds until the next refill on the schedule of `refill`, 1 or more.

    A `last_refill_at` that is some refills old gives the same: the schedule does not move.
    """
    anchor = created_at if last_refill_at is None else last_refill_at
    passed = max(0, (now - anchor) // refill_interval_ms)
    return anchor + (passed + 1) * refill_interval_ms - now


def ration(costs: Sequence[int], own: int, held: int) -> tuple[tuple[bool, ...], int]:
    """Which costs a quota meets, in the order in which they came, and what they take from it.

    What a process has taken before (`own`) is spent first, then what is `held` in the database. A
    cost is met whole or not at all; one that is not met leaves the rest to those behind it.
    """
    left = own + held
    met = []
    for cost in costs:
        met.append(cost <= left)
        left -= cost if met[-1] else 0
    return tuple(met), max(0, held - left)


def rate_limit_headers(
    name: str, maximum: int, window_ms: int | None, remaining: int, reset_ms: int | None
) -> tuple[str, str]:
    """The values of `RateLimit` and `RateLimit-Policy`, in this order.

        RateLimit: "default";r=50;t=30
        RateLimit-Policy: "default";q=100;w=60

    Structured fields (RFC 9651) as draft-ietf-httpapi-ratelimit-headers-10 has them: a List of
    one String with integer parameters. Seconds are rounded up; `w` is at least 1. A quota that
    never comes again has neither `t` nor `w`.
    """
    if not (name.isascii() and name.isprintable()):
        raise ValueError("The name of a rate limit is printing ASCII.")
    item = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    state, policy = f"{item};r={_integer(remaining)}", f"{item};q={_integer(maximum)}"
    if reset_ms is not None:
        state += f";t={_integer(_seconds(reset_ms))}"
    if window_ms is not None:
        policy += f";w={_integer(max(1, _seconds(window_ms)))}"
    return state, policy


def _seconds(ms: int) -> int:
    return -(-ms // 1000)


def _integer(value: int) -> int:
    return min(max(0, value), _STRUCTURED_INTEGER_MAX)
