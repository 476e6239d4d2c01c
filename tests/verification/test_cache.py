"""No fill that began before an invalidation enters after it; the cache is bounded."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from keybearer.domain.model import Grant
from keybearer.domain.networks import compile_allow_list
from keybearer.verification import cache as module
from keybearer.verification.cache import Cache, Entry, fresh_until, weight_of
from tests.verification.parts import entry, grant
from tests.verification.test_usage import KEY


def test_what_was_put_is_there() -> None:
    cache = Cache(2)
    one = entry("key:1")
    assert cache.put(b"a", one, begun=cache.generation)
    assert cache.get(b"a") is one
    assert cache.get(b"b") is None
    assert (len(cache), cache.bytes) == (1, weight_of(one.grant))


@pytest.mark.parametrize("tag", ["key:1", "owner:ann"])
def test_an_invalidated_tag_takes_every_entry_that_has_it(tag: str) -> None:
    cache = Cache(10)
    cache.put(b"a", entry("key:1", "owner:ann"), begun=0)
    cache.put(b"b", entry("key:1", "owner:ann"), begun=0)
    cache.put(b"c", entry("key:2", "owner:bob"), begun=0)
    cache.invalidate(iter([tag, "owner:nobody"]))
    assert (cache.get(b"a"), cache.get(b"b")) == (None, None)
    assert cache.get(b"c") is not None


def test_a_fill_that_began_before_its_tag_was_invalidated_is_not_kept() -> None:
    cache = Cache(10)
    begun = cache.generation
    cache.invalidate(["key:1"])
    assert not cache.put(b"a", entry("owner:ann", "key:1"), begun=begun)
    assert cache.get(b"a") is None


def test_a_fill_beside_another_tags_invalidation_is_kept() -> None:
    cache = Cache(10)
    begun = cache.generation
    cache.invalidate(["key:2"])
    assert cache.put(b"a", entry("key:1"), begun=begun)


def test_a_fill_that_began_after_the_invalidation_is_kept() -> None:
    cache = Cache(10)
    cache.invalidate(["key:1"])
    assert cache.put(b"a", entry("key:1"), begun=cache.generation)


def test_clearing_drops_everything_and_bars_every_fill_under_way() -> None:
    cache = Cache(10)
    cache.put(b"a", entry("key:1"), begun=0)
    begun = cache.generation
    cache.clear()
    assert len(cache) == 0
    assert not cache.put(b"a", entry("key:1"), begun=begun)
    assert not cache.put(b"a", entry(), begun=begun)
    assert cache.put(b"a", entry("key:1"), begun=cache.generation)


def test_the_oldest_entry_leaves_a_full_cache() -> None:
    cache = Cache(2)
    for digest in (b"a", b"b", b"a", b"c"):
        cache.put(digest, entry("key:" + digest.decode()), begun=0)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.get(b"c") is not None


def heavy(tag: str, metadata: dict[str, object]) -> Entry:
    return entry(tag, record=replace(KEY, metadata=metadata))


def test_the_oldest_entries_leave_a_cache_that_is_full_of_bytes() -> None:
    small = weight_of(entry("key:10").grant)
    cache = Cache(1_000, max_bytes=10 * small)
    for number in range(10, 22):
        cache.put(b"%d" % number, entry(f"key:{number}"), begun=0)
    assert len(cache) == 10
    assert cache.get(b"11") is None
    assert cache.get(b"12") is not None
    cache.put(b"heavy", heavy("key:h", {"x": "y" * 5 * small}), begun=0)
    assert cache.get(b"heavy") is not None
    assert 0 < len(cache) <= 6
    cache.invalidate(["key:h"])
    for number in range(30, 42):
        cache.put(b"%d" % number, entry(f"key:{number}"), begun=0)
    assert len(cache) == 10
    cache.clear()
    assert cache.bytes == 0


def test_one_that_is_larger_than_the_cache_is_the_only_one() -> None:
    cache = Cache(10, max_bytes=100)
    for name in (b"a", b"b"):
        assert cache.put(name, heavy("key:1", {}), begun=0)
        assert len(cache) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": "y" * 4_000},
        {"x": "\U0001f600" * 1_000},
        {"x": [[] for _ in range(1_300)]},
        {f"k{number}": {} for number in range(400)},
        {"x": [number + 0.5 for number in range(600)]},
    ],
    ids=["text", "wide text", "lists", "objects", "numbers"],
)
def test_an_entry_is_never_weighed_far_below_what_it_takes(metadata: dict[str, object]) -> None:
    tracemalloc.start()
    cache = Cache(20)
    for number in range(20):
        cache.put(b"%d" % number, heavy(f"key:{number}", metadata), begun=0)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert cache.bytes > taken * 0.7


def grants() -> dict[str, Callable[[int], dict[str, Any]]]:
    return {
        "id": lambda number: {"id": f"{number}" * 2_000},
        "name": lambda number: {"name": f"{number}" * 2_000},
        "subject": lambda number: {"subject": f"{number}" * 2_000},
        "permissions": lambda number: {
            "permissions": frozenset(f"files{number}:read{other}" for other in range(200))
        },
        "allow": lambda number: {
            "allow": compile_allow_list(f"10.{number}.0.{other}" for other in range(100))
        },
        "networks": lambda number: {
            "allow": compile_allow_list(f"10.{number}.{other}.0/24" for other in range(100))
        },
    }


def of(made: Grant) -> Entry:
    nothing: Any = None
    return Entry(grant=made, session=made.session, tally=nothing, uses=nothing, fresh_until=0)


@pytest.mark.parametrize("part", grants())
def test_all_that_a_grant_holds_is_weighed(part: str) -> None:
    fields = grants()[part]
    tracemalloc.start()
    cache = Cache(20)
    for number in range(20, 40):
        cache.put(b"%d" % number, of(grant(**{"id": f"{number}", **fields(number)})), begun=0)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken * 0.7 < cache.bytes < taken * 2.5


def test_an_entry_is_good_for_half_a_minute_from_the_begun_second() -> None:
    assert [fresh_until(now) for now in (0, 999, 1_000)] == [30_000, 30_000, 31_000]


def test_a_credentials_entry_is_replaced_with_its_tags() -> None:
    cache = Cache(2)
    cache.put(b"a", entry("key:1"), begun=0)
    cache.put(b"a", entry("key:2"), begun=0)
    cache.invalidate(["key:1"])
    assert cache.get(b"a") is not None
    cache.invalidate(["key:2"])
    assert cache.get(b"a") is None


def test_of_several_that_share_an_owner_one_may_get_another() -> None:
    cache = Cache(10)
    for digest in (b"a", b"b", b"c"):
        cache.put(digest, entry(f"key:{digest.decode()}", "owner:ann"), begun=0)
    cache.put(b"a", entry("key:a", "owner:bob"), begun=0)
    cache.invalidate(["owner:ann"])
    assert (cache.get(b"b"), cache.get(b"c")) == (None, None)
    assert cache.get(b"a") is not None
    cache.invalidate(["owner:bob"])
    assert not any(cache._dependent.values())


def test_remembered_invalidations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED_TAGS", 3)
    cache = Cache(10)
    begun = cache.generation
    for number in range(20):
        cache.invalidate([f"key:{number}"])
        assert len(cache._invalidated) <= 3
        # What was forgotten bars more than it must, never less.
        assert not cache.put(b"a", entry(f"key:{number}"), begun=begun)
    assert not cache.put(b"a", entry("key:new"), begun=begun)


digests = st.sampled_from([b"a", b"b", b"c", b"d"])
TAGS = ["key:1", "key:2", "key:3", "owner:1", "owner:2"]
tags = st.lists(st.sampled_from(TAGS), max_size=3, unique=True)
of_a_key = st.tuples(st.sampled_from(TAGS[:3]), st.sampled_from(TAGS[3:]))
steps = st.one_of(
    st.tuples(st.just("begin"), digests, of_a_key),
    st.tuples(st.just("put"), st.integers(0, 9)),
    st.tuples(st.just("invalidate"), tags),
    st.tuples(st.just("clear")),
)


@given(st.lists(steps, max_size=40), st.integers(1, 3))
def test_nothing_stale_is_ever_held_and_no_tag_leaks(script: list[Any], size: int) -> None:
    cache = Cache(size)
    fills: list[tuple[bytes, Entry, int, int]] = []
    changed: dict[str, int] = {}
    read_at: dict[int, int] = {}
    for time, step in enumerate(script):
        if step[0] == "begin":
            made = entry(*step[2])
            read_at[id(made)] = time
            fills.append((step[1], made, cache.generation, time))
        elif step[0] == "put" and step[1] < len(fills):
            digest, made, begun, _ = fills[step[1]]
            cache.put(digest, made, begun=begun)
        elif step[0] == "invalidate":
            cache.invalidate(step[1])
            changed.update(dict.fromkeys(step[1], time))
        elif step[0] == "clear":
            cache.clear()
            changed.update(dict.fromkeys(TAGS, time))
        assert len(cache) <= size
        for digest in (b"a", b"b", b"c", b"d"):
            held = cache.get(digest)
            if held is not None:
                assert all(changed.get(tag, -1) < read_at[id(held)] for tag in held.grant.tags)
    cache.invalidate(TAGS)
    assert not any(cache._dependent.values())
