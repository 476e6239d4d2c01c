"""A key's window outlives its entry, its edits and its process."""

import pytest

from keybearer.domain.limits import Take
from keybearer.domain.model import RateLimit
from keybearer.verification import limiter as module
from keybearer.verification.limiter import Limiter

NOW = 1_795_000_000_000
LIMIT = RateLimit(maximum=2, window_ms=1000)


def take(limiter: Limiter, limit: RateLimit = LIMIT, now: int = NOW, id: str = "k") -> bool:
    return limiter.window(id, limit, now).take(now)


def test_each_key_has_a_window_of_its_own() -> None:
    limiter = Limiter()
    assert [take(limiter), take(limiter), take(limiter)] == [True, True, False]
    assert take(limiter, id="other")
    assert len(limiter) == 2


def test_an_equal_limit_read_again_goes_on() -> None:
    limiter = Limiter()
    take(limiter)
    assert limiter.window("k", RateLimit(maximum=2, window_ms=1000), NOW) is limiter.window(
        "k", LIMIT, NOW
    )


@pytest.mark.parametrize(
    ("edited", "more"),
    [
        (RateLimit(maximum=3, window_ms=1000), [True, False]),
        (RateLimit(maximum=1, window_ms=1000), [False]),
        (RateLimit(maximum=2, window_ms=5000), [False]),
    ],
)
def test_an_edit_gives_nobody_a_fresh_window(edited: RateLimit, more: list[bool]) -> None:
    limiter = Limiter()
    assert take(limiter)
    assert take(limiter)
    assert [take(limiter, edited) for _ in more] == more


def test_what_came_of_a_take_is_told_with_its_times() -> None:
    limiter = Limiter()
    first = limiter.take("k", LIMIT, NOW, 1)
    assert first == Take(
        accepted=True, remaining=1, retry_after_ms=0, reset_after_ms=1016, at=NOW, shared=False
    )
    assert limiter.take("k", LIMIT, NOW + 5, 2) == Take(
        accepted=False,
        remaining=1,
        retry_after_ms=1011,
        reset_after_ms=1011,
        at=NOW + 5,
        shared=False,
    )


def test_a_window_that_is_taken_out_is_gone() -> None:
    limiter = Limiter()
    take(limiter)
    id, limit, window = limiter.pop()
    assert (id, limit, window.remaining(NOW)) == ("k", LIMIT, 1)
    assert len(limiter) == 0
    with pytest.raises(KeyError):
        limiter.pop()


def test_a_state_outlives_the_process() -> None:
    before, after = Limiter(), Limiter()
    take(before)
    take(before)
    state = before.state("k")
    assert state is not None
    after.restore("k", LIMIT, state)
    assert not take(after)
    assert take(after, now=NOW + 2000)


def test_a_state_read_again_does_not_undo_what_was_used_since() -> None:
    limiter = Limiter()
    take(limiter)
    state = limiter.state("k")
    assert state is not None
    take(limiter)
    limiter.restore("k", LIMIT, state)
    assert not take(limiter)


def test_an_unknown_key_has_no_state() -> None:
    assert Limiter().state("k") is None


def test_idle_windows_are_swept_and_busy_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_AT", 4)
    limiter = Limiter()
    limiter._sweep_at = 4
    for number in range(4):
        take(limiter, id=f"old{number}")
    later = NOW + 10_000
    take(limiter, id="busy", now=later)
    assert len(limiter) == 1
    for number in range(5):
        take(limiter, id=f"b{number}", now=later)
    # Nothing was idle: the next sweep waits until there are twice as many.
    assert len(limiter) == 6
    assert limiter._sweep_at == 8
