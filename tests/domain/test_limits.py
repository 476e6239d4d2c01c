"""The promise of the limits, held against brute force over random arrivals."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from sys import getsizeof

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keybearer.domain.limits import (
    MAX_AMOUNT,
    SlidingWindow,
    rate_limit_headers,
    ration,
    refill,
    until_refill,
)

NOW = 1_795_479_000_000
HOUR = 3_600_000

windows = st.one_of(st.integers(1, 200), st.sampled_from([1_000, 60_000, 86_400_000]))
maxima = st.integers(0, 12)


@st.composite
def traffic(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int]]]:
    """A limit, a window, and arrivals `(now, cost)` of which few are far apart."""
    maximum, window = draw(maxima), draw(windows)
    gaps = st.one_of(
        st.just(0),
        st.integers(0, max(1, window // 8)),
        st.integers(0, 2 * window),
        st.sampled_from([window - 1, window, window + 1]),
    )
    now, arrivals = NOW, []
    for gap, cost in draw(st.lists(st.tuples(gaps, st.integers(1, 4)), max_size=60)):
        now += gap
        arrivals.append((now, cost))
    return maximum, window, arrivals


def most_in_any_interval(accepted: list[tuple[int, int]], window: int) -> int:
    """The largest cost in any interval `[t, t + window)`; the worst ones begin at an arrival."""
    return max(
        (
            sum(cost for at, cost in accepted if begin <= at < begin + window)
            for begin, _ in accepted
        ),
        default=0,
    )


def everything_about(window: SlidingWindow, now: int) -> tuple[int, int, int, bool, list[int]]:
    """What can be seen of a window at `now`."""
    waits = [window.retry_after(now, cost) for cost in range(1, 14)]
    return (
        window.remaining(now),
        window.retry_after(now),
        window.reset_after(now),
        window.idle(now),
        waits,
    )


@given(traffic())
@example((2, 1, [(NOW, 1), (NOW, 1), (NOW, 1), (NOW + 1, 2)]))
@example((1, 65, [(NOW, 1), (NOW + 64, 1), (NOW + 65, 1)]))
def test_no_interval_ever_holds_more_than_the_maximum(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    accepted = [(now, cost) for now, cost in arrivals if window.take(now, cost)]
    assert most_in_any_interval(accepted, window_ms) <= maximum


@given(traffic())
def test_what_is_refused_would_not_fit_into_a_window_and_a_piece(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    accepted: list[tuple[int, int]] = []
    # Under 64 ms the pieces are single milliseconds and nothing counts too long.
    reach = window_ms if window_ms <= 64 else window_ms * Fraction(65, 64)
    for now, cost in arrivals:
        counting = sum(spent for at, spent in accepted if at > now - reach)
        if window.take(now, cost):
            accepted.append((now, cost))
        else:
            assert counting + cost > maximum


@given(traffic())
def test_a_refused_take_changes_nothing(scene: tuple[int, int, list[tuple[int, int]]]) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    for now, cost in arrivals:
        before = everything_about(window, now)
        dump = window.dump()
        if not window.take(now, cost):
            assert window.dump() == dump
            assert everything_about(window, now) == before


@given(traffic())
def test_taking_and_giving_back_leaves_what_was(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    for number, (now, cost) in enumerate(arrivals):
        before = everything_about(window, now)
        if window.take(now, cost) and number % 2:
            window.give_back(now, cost)
            assert everything_about(window, now) == before


@given(traffic())
def test_giving_back_late_never_breaks_the_promise(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    accepted: list[tuple[int, int]] = []
    for number, (now, cost) in enumerate(arrivals):
        if window.take(now, cost):
            accepted.append((now, cost))
        if number % 3 == 2 and accepted:
            window.give_back(*accepted.pop(len(accepted) // 2))
    assert most_in_any_interval(accepted, window_ms) <= maximum


@given(traffic())
def test_what_is_added_counts_above_the_maximum_too(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window, roomy = SlidingWindow(maximum, window_ms), SlidingWindow(MAX_AMOUNT, window_ms)
    for now, cost in arrivals:
        assert roomy.take(now, cost)
        used = MAX_AMOUNT - roomy.remaining(now)
        assert window.add(now, cost) == (used <= maximum)
        assert window.remaining(now) == max(0, maximum - used)
        assert window.ages(now) == roomy.ages(now)
        assert sum(amount for _, amount in window.ages(now)) == used
        assert (window.retry_after(now) == 0) == (used < maximum)
        window.give_back(now, cost)
        assert window.remaining(now) == max(0, maximum - used + cost)
        window.add(now, cost)


@given(traffic())
def test_an_age_is_never_more_than_it_was(scene: tuple[int, int, list[tuple[int, int]]]) -> None:
    _, window_ms, arrivals = scene
    window, events = SlidingWindow(0, window_ms), list[int]()
    for now, cost in arrivals:
        window.add(now, cost)
        events += [now] * cost
        told = [age for age, amount in window.ages(now) for _ in range(amount)]
        for age, then in zip(reversed(told), reversed(events), strict=False):
            assert 0 <= age <= now - then


def test_what_is_added_is_one_unless_said_otherwise() -> None:
    window = SlidingWindow(5, 1_000)
    assert window.add(NOW)
    assert window.remaining(NOW) == 4


@pytest.mark.parametrize("later", [65_000, 66_000, 130_000, 500_000])
def test_what_no_longer_counts_is_not_given_back(later: int) -> None:
    window, edge = SlidingWindow(2, 64_000), NOW - NOW % 64_000
    assert window.take(edge)
    assert window.take(edge + later, 2)
    window.give_back(edge, 1)
    assert window.remaining(edge + later) == 0


@given(traffic())
def test_retry_after_is_the_first_moment_at_which_a_take_succeeds(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    for now, cost in arrivals:
        window.take(now, cost)
        wait = window.retry_after(now, cost)
        if cost > maximum:
            assert wait >= window_ms
            continue
        assert wait <= window_ms * Fraction(65, 64) + 1
        state = window.dump()
        if wait:
            early = SlidingWindow.load(state, maximum, window_ms)
            assert not early.take(now + wait - 1, cost)
        assert SlidingWindow.load(state, maximum, window_ms).take(now + wait, cost)


@given(traffic())
def test_reset_after_is_when_more_remains_and_never_later_than_a_retry(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    for now, cost in arrivals:
        window.take(now, cost)
        remaining, reset = window.remaining(now), window.reset_after(now)
        for asked in range(1, 14):
            if wait := window.retry_after(now, asked):
                assert wait >= reset
        later = SlidingWindow.load(window.dump(), maximum, window_ms)
        if reset:
            assert later.remaining(now + reset - 1) == remaining
            assert later.remaining(now + reset) > remaining
        else:
            assert window.idle(now)


@pytest.mark.parametrize(("window_ms", "again"), [(1, 1), (63, 63), (64, 64), (65, 67), (128, 130)])
def test_up_to_64_ms_a_window_is_exact_and_above_it_is_a_piece_longer(
    window_ms: int, again: int
) -> None:
    window = SlidingWindow(1, window_ms)
    edge = NOW - NOW % window_ms
    assert window.take(edge)
    assert not window.take(edge + again - 1)
    assert window.take(edge + again)


@given(st.integers(1, 300), st.integers(1_000, 10_000_000))
def test_a_steady_client_at_98_percent_is_never_refused(maximum: int, window_ms: int) -> None:
    window = SlidingWindow(maximum, window_ms)
    every = Fraction(window_ms * 100, maximum * 98)
    assert all(window.take(NOW + int(number * every)) for number in range(3 * maximum + 3))


@pytest.mark.parametrize(("every", "window_ms"), [(30_000, 60_000), (23 * HOUR, 24 * HOUR)])
def test_a_slow_client_is_never_refused(every: int, window_ms: int) -> None:
    window = SlidingWindow(10, window_ms)
    assert all(window.take(NOW + number * every) for number in range(120))


def test_around_an_edge_the_limit_is_not_doubled() -> None:
    window = SlidingWindow(10, 60_000)
    edge = NOW - NOW % 60_000
    assert sum(window.take(edge + 59_900) for _ in range(20)) == 10
    assert sum(window.take(edge + 60_100) for _ in range(20)) == 0
    assert window.take(edge + 59_900 + 60_938)


def test_a_maximum_of_0_allows_nothing() -> None:
    window = SlidingWindow(0, 60_000)
    assert not window.take(NOW)
    assert window.remaining(NOW) == 0
    assert window.retry_after(NOW) == 60_000
    assert window.reset_after(NOW) == 0
    assert window.idle(NOW)


@pytest.mark.parametrize(
    ("maximum", "window_ms"), [(-1, 1_000), (1, 0), (1, -1), (MAX_AMOUNT + 1, 1), (1, 2**53)]
)
def test_a_limit_that_makes_no_sense_is_refused(maximum: int, window_ms: int) -> None:
    with pytest.raises(ValueError, match="rate limit"):
        SlidingWindow(maximum, window_ms)


def test_the_longest_window_and_the_greatest_maximum_make_sense() -> None:
    window = SlidingWindow(MAX_AMOUNT, MAX_AMOUNT)
    assert window.take(NOW, MAX_AMOUNT)
    assert not window.take(NOW + MAX_AMOUNT - 1)
    assert window.reset_after(NOW) >= MAX_AMOUNT


@pytest.mark.parametrize(("back", "set_back"), [(60_000, False), (60_001, True)])
def test_a_clock_that_is_more_than_a_minute_back_was_set_back(back: int, set_back: bool) -> None:
    window, edge = SlidingWindow(1, 64), NOW - NOW % 64
    assert window.take(edge)
    assert not window.take(edge - back)
    # Set back, what counts is counted for one more window; else it counts until the later time.
    assert window.take(edge - back + 64) is set_back
    asked = SlidingWindow(1, 64)
    assert asked.take(edge)
    assert asked.retry_after(edge - back) == (64 if set_back else back + 64)


@pytest.mark.parametrize("cost", [0, -1])
def test_a_cost_below_1_is_a_mistake(cost: int) -> None:
    window = SlidingWindow(5, 1_000)
    with pytest.raises(ValueError, match="costs 1 or more"):
        window.take(NOW, cost)
    with pytest.raises(ValueError, match="costs 1 or more"):
        window.give_back(NOW, cost)
    with pytest.raises(ValueError, match="costs 1 or more"):
        window.add(NOW, cost)
    assert window.remaining(NOW) == 5


def test_a_cost_above_the_maximum_waits_for_nothing_that_comes() -> None:
    window = SlidingWindow(5, 64_000)
    assert window.retry_after(NOW, 6) == 64_000
    assert window.take(NOW - NOW % 1_000, 5)
    assert window.retry_after(NOW - NOW % 1_000, 6) == 65_000
    one = SlidingWindow(5, 64_000)
    assert one.take(NOW - NOW % 1_000)
    assert one.retry_after(NOW - NOW % 1_000, 6) == 65_000


def test_what_is_asked_first_after_a_while_knows_what_has_gone() -> None:
    window, edge = SlidingWindow(1, 64_000), NOW - NOW % 64_000
    assert window.take(edge)
    assert window.reset_after(edge + 64_000) == 1_000
    assert window.reset_after(edge + 65_001) == 0


# ---------------------------------------------------------------------------------- clocks


@given(traffic(), st.lists(st.integers(0, 50_000), min_size=60, max_size=60))
def test_a_clock_that_jitters_backwards_admits_no_more(
    scene: tuple[int, int, list[tuple[int, int]]], jitters: list[int]
) -> None:
    maximum, window_ms, arrivals = scene
    window, latest = SlidingWindow(maximum, window_ms), 0
    accepted: list[tuple[int, int]] = []
    for (now, cost), jitter in zip(arrivals, jitters, strict=False):
        latest = max(latest, now - jitter)
        if window.take(now - jitter, cost):
            accepted.append((latest, cost))
            assert window.retry_after(now - jitter, maximum + 1) >= window_ms
    assert most_in_any_interval(accepted, window_ms) <= maximum


def test_what_was_taken_while_the_clock_ran_backwards_can_be_given_back() -> None:
    window = SlidingWindow(3, 64_000)
    assert window.take(NOW)
    assert window.take(NOW + 10_000)
    assert window.take(NOW + 5_000)
    window.give_back(NOW + 5_000, 1)
    assert window.remaining(NOW + 10_000) == 1
    assert window.retry_after(NOW + 10_000, 2) > 60_000, "the oldest one is forgotten"


def test_a_clock_set_forward_and_back_neither_locks_out_nor_gives_for_ever() -> None:
    window, day = SlidingWindow(10, 60_000), 24 * HOUR
    assert sum(window.take(NOW) for _ in range(20)) == 10
    assert sum(window.take(NOW + day) for _ in range(20)) == 10
    assert sum(window.take(NOW + 1_000) for _ in range(20)) == 0
    assert sum(window.take(NOW + 59_000) for _ in range(20)) == 0
    assert sum(window.take(NOW + 62_000) for _ in range(20)) == 10


def test_an_idle_window_follows_a_clock_that_is_set_back() -> None:
    window = SlidingWindow(1, 1_000)
    assert window.remaining(NOW + 24 * HOUR) == 1
    assert window.take(NOW)
    assert not window.take(NOW + 999)
    assert window.take(NOW + 1_016)


@pytest.mark.parametrize("now", [0, -1, -(10**15), 10**15])
def test_any_whole_number_is_a_time(now: int) -> None:
    window = SlidingWindow(1, 1_000)
    assert window.take(now)
    assert not window.take(now + 999)
    assert window.take(now + 1_016)


# --------------------------------------------------------------------------- dump and load


@given(traffic())
def test_a_loaded_window_goes_on_as_the_dumped_one(
    scene: tuple[int, int, list[tuple[int, int]]],
) -> None:
    maximum, window_ms, arrivals = scene
    window = SlidingWindow(maximum, window_ms)
    for now, cost in arrivals:
        window.take(now, cost)
        loaded = SlidingWindow.load(window.dump(), maximum, window_ms)
        for later in (now, now + window_ms // 3, now + window_ms, now + 2 * window_ms):
            assert everything_about(
                SlidingWindow.load(loaded.dump(), maximum, window_ms), later
            ) == everything_about(SlidingWindow.load(window.dump(), maximum, window_ms), later)


@given(traffic(), maxima, windows)
def test_a_changed_limit_keeps_counting_what_was_accepted(
    scene: tuple[int, int, list[tuple[int, int]]], maximum: int, window_ms: int
) -> None:
    old_maximum, old_window_ms, arrivals = scene
    window = SlidingWindow(old_maximum, old_window_ms)
    accepted = [(now, cost) for now, cost in arrivals if window.take(now, cost)]
    last = arrivals[-1][0] if arrivals else NOW
    loaded = SlidingWindow.load(window.dump(), maximum, window_ms)
    for later in range(last, last + 2 * window_ms, max(1, window_ms // 5)):
        reach = later - min(window_ms, old_window_ms)
        counting = sum(cost for at, cost in accepted if at > reach)
        assert loaded.remaining(later) <= max(0, maximum - counting)
    assert loaded.idle(last + 3 * max(window_ms, old_window_ms))


@given(st.binary(max_size=200))
@example(b"")
@example(msgspec.msgpack.encode([1_000, 5]))
@example(msgspec.msgpack.encode([0, 5, [1]]))
@example(msgspec.msgpack.encode([-5, 5, [1]]))
@example(msgspec.msgpack.encode([1_000, 5, [1] * 64]))
@example(msgspec.msgpack.encode([1_000, 5, [1] * 64 + [-1]]))
@example(msgspec.msgpack.encode([1_000, 5, []]))
@example(msgspec.msgpack.encode([1_000, NOW * 64 // 1_000, [1] * 65, "of a later version"]))
@example(msgspec.msgpack.encode([2**60, 5, [0] * 65]))
def test_bytes_that_are_no_dump_start_an_empty_window(data: bytes) -> None:
    window = SlidingWindow.load(data, 3, 1_000)
    assert window.remaining(NOW) == 3
    assert window.take(NOW, 3)
    assert not window.take(NOW)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_dump_never_raises_and_never_allows_more(place: int, byte: int) -> None:
    window = SlidingWindow(5, 60_000)
    for number in range(5):
        window.take(NOW + 7_000 * number)
    data = bytearray(window.dump())
    data[place % len(data)] = byte
    loaded = SlidingWindow.load(bytes(data), 5, 60_000)
    assert sum(loaded.take(NOW + 28_000) for _ in range(10)) <= 5


@given(traffic(), st.sampled_from([20, 64, 2**31, MAX_AMOUNT // 12]))
def test_large_numbers_are_counted_as_small_ones(
    limit: tuple[int, int, list[tuple[int, int]]], scale: int
) -> None:
    maximum, length, arrivals = limit
    small, large = SlidingWindow(maximum, length), SlidingWindow(maximum * scale, length)
    for number, (at, cost) in enumerate(arrivals):
        now = at
        if number % 7 == 6:
            large = SlidingWindow.load(large.dump(), maximum * scale, length)
            now = at - 70_000 - length  # somebody sets the clock back
        assert small.take(now, cost) == large.take(now, cost * scale)
        assert small.remaining(now) * scale == large.remaining(now)
        assert [(age, n * scale) for age, n in small.ages(now)] == large.ages(now)


def test_a_dump_of_more_than_any_window_counts_allows_nothing() -> None:
    window = SlidingWindow(5, 1_000)
    window.take(NOW)
    size, piece, counts = msgspec.msgpack.decode(window.dump())
    dump = msgspec.msgpack.encode([size, piece, [2**64 - 1 for _ in counts]])
    for length in (1_000, 5_000):
        assert not SlidingWindow.load(dump, 5, length).take(NOW)


def test_with_another_window_all_came_in_the_last_millisecond_of_the_last_piece() -> None:
    window, edge = SlidingWindow(1, 64_000), NOW - NOW % 64_000
    assert window.take(edge)
    state, last = window.dump(), edge + 999
    assert not SlidingWindow.load(state, 1, 64).take(last + 63)
    assert SlidingWindow.load(state, 1, 64).take(last + 64)


@pytest.mark.parametrize("amount", [255, 256, 257])
def test_a_count_of_more_than_a_byte_is_loaded(amount: int) -> None:
    window = SlidingWindow(1_000, 60_000)
    assert window.take(NOW, amount)
    loaded = SlidingWindow.load(window.dump(), 1_000, 60_000)
    assert loaded.remaining(NOW) == 1_000 - amount
    assert (getsizeof(loaded._counts) < 200) == (amount < 256)


def test_a_window_takes_little_memory_until_much_is_counted() -> None:
    window = SlidingWindow(1_000, 60_000)
    small = getsizeof(window._counts)
    assert small < 200
    assert [window.take(NOW) for _ in range(1_001)].count(True) == 1_000
    assert small < getsizeof(window._counts) < 700


def test_a_dump_is_small() -> None:
    window = SlidingWindow(10_000, 60_000)
    for number in range(1_000):
        window.take(NOW + 60 * number)
    assert len(window.dump()) < 150


# ---------------------------------------------------------------------------------- refill


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW, (0, None)),
        (NOW + 999, (0, None)),
        (NOW + 1_000, (7, NOW + 1_000)),
        (NOW + 1_999, (7, NOW + 1_000)),
        (NOW + 5_500, (7, NOW + 5_000)),
        (NOW - 5_000, (0, None)),
    ],
)
def test_the_first_refill_is_one_interval_after_creation(
    now: int, expected: tuple[int | None, int | None]
) -> None:
    assert refill(0, 7, 1_000, None, NOW, now) == expected


@pytest.mark.parametrize(
    ("remaining", "amount", "interval"),
    [(None, 7, 1_000), (3, None, 1_000), (3, 7, None), (None, None, None)],
)
def test_what_is_unlimited_or_never_refilled_stays(
    remaining: int | None, amount: int | None, interval: int | None
) -> None:
    assert refill(remaining, amount, interval, 5, 0, NOW) == (remaining, 5)


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_a_millisecond_is_a_mistake(interval: int) -> None:
    with pytest.raises(ValueError, match="interval of a refill"):
        refill(1, 7, interval, None, 0, NOW)


@given(st.integers(1, 10_000), st.lists(st.integers(0, 30_000), max_size=50))
def test_refills_stay_on_schedule_and_come_once_per_interval(
    interval: int, gaps: list[int]
) -> None:
    now, last, filled = NOW, None, 0
    for gap in gaps:
        now += gap
        remaining, last = refill(0, 1, interval, last, NOW, now)
        filled += remaining or 0
        assert refill(0, 1, interval, last, NOW, now) == (0, last)
        if last is not None:
            assert (last - NOW) % interval == 0
            assert 0 <= now - last < interval
    assert filled <= (now - NOW) // interval


@given(st.integers(1, 10_000), st.integers(-20_000, 50_000), st.none() | st.integers(0, 9))
def test_the_time_until_a_refill_is_the_first_at_which_it_comes(
    interval: int, later: int, refilled: int | None
) -> None:
    last, now = None if refilled is None else NOW + refilled * interval, NOW + later
    _, at = refill(0, 1, interval, last, NOW, now)
    wait = until_refill(interval, at, NOW, now)
    assert wait > 0
    assert refill(0, 1, interval, at, NOW, now + wait - 1) == (0, at)
    assert refill(0, 1, interval, at, NOW, now + wait)[0] == 1
    # A record that is some refills old says the same.
    assert until_refill(interval, last, NOW, now) == wait


@pytest.mark.parametrize(
    ("costs", "own", "held", "expected"),
    [
        ([1], 5, 10, ((True,), 0)),
        ([5], 5, 0, ((True,), 0)),
        ([5, 1], 5, 1, ((True, True), 1)),
        ([7, 2, 1], 1, 2, ((False, True, True), 2)),
        ([4], 1, 2, ((False,), 0)),
        ([], 0, 3, ((), 0)),
    ],
)
def test_what_is_taken_already_is_spent_first(
    costs: list[int], own: int, held: int, expected: tuple[tuple[bool, ...], int]
) -> None:
    assert ration(costs, own, held) == expected


# --------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("default", 100, 60_000, 50, 30_000), ('"default";r=50;t=30', '"default";q=100;w=60')),
        (("default", 100, 500, 50, 1), ('"default";r=50;t=1', '"default";q=100;w=1')),
        (("k", 0, 1_001, -3, -1), ('"k";r=0;t=0', '"k";q=0;w=2')),
        (('a"b\\', 1, 1_000, 1, 0), ('"a\\"b\\\\";r=1;t=0', '"a\\"b\\\\";q=1;w=1')),
        (
            ("k", 10**20, 10**20, 10**20, 10**20),
            (
                '"k";r=999999999999999;t=999999999999999',
                '"k";q=999999999999999;w=999999999999999',
            ),
        ),
    ],
)
def test_headers_are_structured_fields(
    arguments: tuple[str, int, int, int, int], expected: tuple[str, str]
) -> None:
    assert rate_limit_headers(*arguments) == expected


def test_what_never_comes_again_has_no_time() -> None:
    assert rate_limit_headers("quota", 0, None, 0, None) == ('"quota";r=0', '"quota";q=0')


@pytest.mark.parametrize("name", ["a\nb", "é", "a\x7f"])
def test_a_name_that_is_not_printing_ascii_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="printing ASCII"):
        rate_limit_headers(name, 1, 1_000, 1, 0)


def test_a_minute_in_small_steps_admits_nearly_everything() -> None:
    window = SlidingWindow(1_000, 60_000)
    accepted = [now for now in range(NOW, NOW + 600_000, 10) if window.take(now)]
    windows = [bisect_right(accepted, at + 59_999) - index for index, at in enumerate(accepted)]
    assert max(windows) <= 1_000
    assert len(accepted) >= 0.98 * 10_000
