"""Times and sizes are those that the manual tells: whoever changes one changes a promise."""

from keybearer.verification import (
    access,
    cache,
    coherence,
    lease,
    patience,
    presented,
    quota,
    shared,
    usage,
)


def test_a_lease_is_two_seconds_and_renewed_twice_a_second() -> None:
    assert (coherence.LEASE_MS, coherence.RENEW_MS, coherence.SLACK_MS) == (2_000, 500, 250)


def test_what_clocks_differ_by_at_the_most() -> None:
    assert coherence.CLOCKS_MS == 60_000


def test_what_touches_nothing_waits_for_nobody() -> None:
    assert (coherence.NOBODY.nodes, coherence.NOBODY.waited_ms) == (0, 0)


def test_who_has_no_cache_holds_no_lease() -> None:
    none = lease.NoLease
    assert (none.until, none.stretched, none.seq) == (0, False, 0)


def test_what_is_cached_is_read_again_after_half_a_minute() -> None:
    assert cache.ENTRY_LIFE_MS == 30_000


def test_nothing_is_remembered_without_bound() -> None:
    assert (cache._REMEMBERED_TAGS, lease._HEARD) == (10_000, 10_000)


def test_a_chunk_lives_five_seconds_and_grows_within_one() -> None:
    assert (quota.CHUNK_LIFE_MS, quota.BUSY_MS, quota.PATIENCE_SECONDS) == (5_000, 1_000, 5.0)


def test_a_lost_redis_is_looked_for_every_half_second() -> None:
    assert shared.PROBE_SECONDS == 0.5


def test_usage_is_written_within_a_second() -> None:
    assert (usage.FLUSH_MS, usage.PATIENCE_SECONDS, usage.END_SECONDS) == (700, 0.2, 5.0)
    assert usage.HANGS_SECONDS == 2.0


def test_a_request_waits_two_seconds_for_what_many_share() -> None:
    assert patience.PATIENCE_SECONDS == 2.0


def test_what_a_request_may_bring() -> None:
    assert (presented.MAX_CREDENTIAL, presented.MAX_AGENT) == (8 * 1024, 200)
    assert access.LEEWAY_SECONDS == 30
