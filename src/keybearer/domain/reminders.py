"""When the owner of a key is reminded that it expires.

    more than 30 days    30 … 14    14 … 7    7 … 1    1 … 0    expired, for 30 days
    nothing is due          30         14        7        1        0

Each once, and only the most urgent: who was away for long is told how things stand, not what was
missed. What is past already when a key is made, or its expiry is changed, is never told: whoever
has just chosen a week knows it. A key that expired long ago is no news either.
"""

DAY_MS = 86_400_000

DAYS = (30, 14, 7, 1, 0)
"""How many days before the end there is a reminder; the last one when it has come."""

FIRST_MS = DAYS[0] * DAY_MS
LATE_MS = 30 * DAY_MS
"""For how long the end itself is still worth a mail."""


def within(expires_at: int | None, now: int) -> int | None:
    """The smallest of `DAYS` that a key's remaining time is within; None where there is none."""
    if expires_at is None:
        return None
    return next((days for days in reversed(DAYS) if expires_at - now <= days * DAY_MS), None)


def begun(expires_at: int | None, now: int) -> int | None:
    """What a new key begins with, and one whose expiry was changed: the reminders that are past.

    A key for a day or less is made to end, by a job as a rule: nobody is told of its end either.
    """
    days = within(expires_at, now)
    return 0 if days == 1 else days


def due(*, expires_at: int | None, reminded_days: int | None, now: int) -> int | None:
    """The reminder that a key is due for, as one of `DAYS`, or None.

    Args:
        reminded_days: the last one that was sent or was past; None: none yet.
    """
    if expires_at is None or expires_at <= now - LATE_MS:
        return None
    days = within(expires_at, now)
    if days is None or (reminded_days is not None and reminded_days <= days):
        return None
    return days


def span(days: int, now: int) -> tuple[int, int]:
    """The expiries that one reminder is for: later than the first, up to the second."""
    if days == 0:
        return now - LATE_MS, now
    nearer = DAYS[DAYS.index(days) + 1]
    return now + nearer * DAY_MS, now + days * DAY_MS
