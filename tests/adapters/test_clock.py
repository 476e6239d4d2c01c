"""The clock starts at the wall and then never steps."""

import time

import pytest

from keybearer.adapters.clock import SystemClock


def test_it_tells_the_wall_time_in_milliseconds() -> None:
    assert abs(SystemClock().now() - time.time() * 1000) < 1000


def test_it_never_runs_backwards() -> None:
    clock = SystemClock()
    seen = [clock.now() for _ in range(10_000)]
    assert seen == sorted(seen)


@pytest.mark.parametrize("step_ms", [-86_400_000, 86_400_000])
def test_who_sets_the_wall_clock_moves_nothing_but_the_drift(
    step_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    before = clock.now()
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + step_ms * 1_000_000)
    assert 0 <= clock.now() - before < 1000
    assert abs(clock.drift() - step_ms) < 1000


def test_it_counts_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    ticks = time.clock_gettime_ns
    slept_ns = 3_600_000_000_000  # the boot clock goes on, the monotonic one would not

    def after_sleep(which: int) -> int:
        return ticks(which) + (slept_ns if which == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr(time, "clock_gettime_ns", after_sleep)
    assert 3_600_000 <= clock.now() - before < 3_601_000
