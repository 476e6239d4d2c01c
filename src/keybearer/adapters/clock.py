"""Time that nobody sets: wall time at the start, then only the boot clock."""

import time


class SystemClock:
    """Milliseconds since the epoch, UTC, that never step.

    Read once from the wall, then carried on by CLOCK_BOOTTIME: somebody who sets the clock, or an
    NTP step, brings no expired key back and freezes no limit. The boot clock also counts while
    the machine sleeps, so that a lease does not outlive a suspended virtual machine.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_ns) // 1_000_000

    def drift(self) -> int:
        """Milliseconds by which the wall clock is ahead of this one: for readiness and doctor."""
        return time.time_ns() // 1_000_000 - self.now()
