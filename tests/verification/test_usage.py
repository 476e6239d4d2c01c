"""Counted in memory, written in batches, and nothing twice."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Key
from keybearer.domain.uses import Batch, Count, LastUse, Sample, SecretUse
from keybearer.verification.usage import SecretTally, Usage
from tests.people import fresh_id

HOUR = 3_600_000
NOW = 1_795_000_000_000 // HOUR * HOUR + 5


class Store:
    """Writes that can fail, or wait."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.lost = False
        self.gate: asyncio.Event | None = None
        self.states: dict[str, bytes] = {}
        self.usage = Usage(self.write, self.states.get, new_id=fresh_id)

    async def write(self, batch: Batch, _settled: Sequence[str]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.lost:
            raise Unavailable("lost")
        self.batches.append(batch)

    def total(self) -> dict[tuple[str, str], int]:
        sums: dict[tuple[str, str], int] = {}
        for batch in self.batches:
            for count in batch.counts:
                name = (count.key_id, count.outcome)
                sums[name] = sums.get(name, 0) + count.n
        return sums

    def uses(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for batch in self.batches:
            for use in batch.keys:
                sums[use.id] = sums.get(use.id, 0) + use.n
        return sums


def sample(at: int, outcome: str = "accepted", n: int = 1, **fields: Any) -> Sample:
    told: dict[str, Any] = {"ip": None, "user_agent": None, **fields}
    return Sample(key_id="k", outcome=outcome, at=NOW + at, n=n, **told)


async def test_nothing_counted_is_nothing_written() -> None:
    store = Store()
    await store.usage.flush(NOW)
    assert store.batches == []


async def test_a_flush_writes_counts_by_hour_and_the_last_use() -> None:
    store = Store()
    store.states["k"] = b"state"
    tally = store.usage.tally("k", is_key=True)
    tally.accept(NOW, "203.0.113.7", b"curl")
    tally.accept(NOW + 1, "203.0.113.8", b"wget")
    tally.refuse(NOW + 2, "RATE_LIMITED", "203.0.113.1", b"one")
    tally.refuse(NOW + 3, "RATE_LIMITED", "203.0.113.2", b"two\n")
    await store.usage.flush(NOW + 3)
    use = LastUse(
        id="k", at=NOW + 1, ip="203.0.113.8", user_agent="wget", n=2, limit_state=b"state"
    )
    assert store.batches == [
        Batch(
            id=store.batches[0].id,
            counts=[
                Count(key_id="k", hour=NOW - 5, outcome="RATE_LIMITED", n=2),
                Count(key_id="k", hour=NOW - 5, outcome="accepted", n=2),
            ],
            keys=[use],
            sessions=[],
            secrets=[],
            samples=[
                sample(3, "RATE_LIMITED", 2, ip="203.0.113.2", user_agent="two?"),
                sample(1, ip="203.0.113.8", user_agent="wget", n=2),
            ],
        )
    ]


async def test_a_second_flush_writes_nothing_again() -> None:
    store = Store()
    tally = store.usage.tally("k", is_key=True)
    tally.accept(NOW, None, None)
    await store.usage.flush(NOW)
    await store.usage.flush(NOW)
    assert len(store.batches) == 1
    tally.accept(NOW, None, None)
    await store.usage.flush(NOW)
    assert store.total() == {("k", "accepted"): 2}


async def test_what_is_used_often_waits_once_for_the_flush() -> None:
    store = Store()
    key, login = store.usage.tally("k", is_key=True), store.usage.tally("s", is_key=False)
    secret = SecretTally(key, b"new")
    for n in range(3):
        secret.accept(NOW + n, None, None)
        login.refuse(NOW + n, "SESSION_ENDED", None, None)
    assert (store.usage.dirty, store.usage.dirty_secrets) == ([key, login], [secret])


async def test_refusals_alone_do_not_move_the_last_use() -> None:
    store = Store()
    store.usage.tally("k", is_key=True).refuse(NOW, "IP_NOT_ALLOWED", None, None)
    await store.usage.flush(NOW)
    assert store.batches[0].keys == []
    assert store.total() == {("k", "IP_NOT_ALLOWED"): 1}


async def test_all_requests_are_counted_by_kind_and_outcome() -> None:
    store = Store()
    for _ in range(2):
        for id, is_key in (("k", True), ("s", False)):
            tally = store.usage.tally(id, is_key=is_key)
            tally.refuse(NOW, "INSUFFICIENT_SCOPE", None, None)
            tally.accept(NOW, None, None)
            tally.accept(NOW, None, None)
        await store.usage.flush(NOW)
    assert store.usage.totals == {
        ("key", "accepted"): 4,
        ("key", "INSUFFICIENT_SCOPE"): 2,
        ("session", "accepted"): 4,
        ("session", "INSUFFICIENT_SCOPE"): 2,
    }


async def test_sessions_have_a_last_use_and_no_counts() -> None:
    store = Store()
    store.states["s"] = b"of a key that has the same id"
    tally = store.usage.tally("s", is_key=False)
    tally.accept(NOW, None, None)
    tally.refuse(NOW, "SESSION_ENDED", None, None)
    await store.usage.flush(NOW)
    (batch,) = store.batches
    assert (batch.counts, batch.keys, [use.id for use in batch.sessions]) == ([], [], ["s"])
    assert batch.samples == []
    assert batch.sessions[0].limit_state is None


async def test_a_sessions_refusals_alone_write_nothing() -> None:
    store = Store()
    store.usage.tally("s", is_key=False).refuse(NOW, "SESSION_ENDED", None, None)
    await store.usage.flush(NOW)
    assert store.batches == []


async def test_a_flush_tells_of_what_is_new_alone() -> None:
    store = Store()
    tally = store.usage.tally("k", is_key=True)
    tally.accept(NOW, "203.0.113.7", None)
    tally.refuse(NOW, "KEY_DISABLED", "203.0.113.7", None)
    await store.usage.flush(NOW)
    tally.refuse(NOW + 1_000, "KEY_DISABLED", None, None)
    await store.usage.flush(NOW + 1_000)
    assert store.batches[1].samples == [sample(1_000, "KEY_DISABLED")]


async def test_of_each_outcome_one_sample_waits_for_a_lost_database_however_long() -> None:
    store = Store()
    store.lost = True
    tally = store.usage.tally("k", is_key=True)
    for at in range(0, 600_000, 20_000):
        tally.accept(NOW + at, "203.0.113.7", None)
        tally.refuse(NOW + at, "RATE_LIMITED", str(at), None)
        with pytest.raises(Unavailable):
            await store.usage.flush(NOW + at)
    store.lost = False
    await store.usage.flush(NOW + 600_000)
    # The counts are whole; of what happened, the last minute is told.
    assert store.total() == {("k", "accepted"): 30, ("k", "RATE_LIMITED"): 30}
    minute = sum(
        (NOW + at) // 60_000 == (NOW + 580_000) // 60_000 for at in range(0, 600_000, 20_000)
    )
    assert len(store.batches) == 2  # the one that was tried stays as it was
    assert store.batches[1].samples == [
        sample(580_000, "RATE_LIMITED", minute, ip="580000"),
        sample(580_000, n=minute, ip="203.0.113.7"),
    ]


async def test_several_tallies_of_one_key_are_added() -> None:
    store = Store()
    for at in (NOW, NOW + 1):
        store.usage.tally("k", is_key=True).accept(at, None, None)
    await store.usage.flush(NOW)
    (batch,) = store.batches
    assert store.total() == {("k", "accepted"): 2}
    assert [(use.at, use.n) for use in batch.keys] == [(NOW + 1, 2)]


async def test_of_several_tallies_of_one_key_the_newest_use_is_the_last() -> None:
    # As with the two secrets of a rotating key: the one that was used first is used again.
    store = Store()
    old, new = (store.usage.tally("k", is_key=True) for _ in range(2))
    old.accept(NOW, "203.0.113.1", None)
    new.accept(NOW + 1, "203.0.113.2", None)
    old.accept(NOW + 2, "203.0.113.3", None)
    await store.usage.flush(NOW + 2)
    (use,) = store.batches[0].keys
    assert (use.at, use.ip, use.n) == (NOW + 2, "203.0.113.3", 3)


def tallies(store: Store, *digests: bytes) -> list[SecretTally]:
    key = store.usage.tally("k", is_key=True)
    return [SecretTally(key, digest) for digest in digests]


async def test_a_use_of_a_secret_is_one_of_its_key_too() -> None:
    store = Store()
    new, old = tallies(store, b"new", b"old")
    old.accept(NOW, "203.0.113.1", b"curl")
    new.accept(NOW + 1, "203.0.113.2", b"wget")
    new.accept(NOW + 2, None, None)
    await store.usage.flush(NOW + 2)
    (batch,) = store.batches
    assert batch.secrets == [
        SecretUse(digest=b"new", at=NOW + 2, ip=None, n=2),
        SecretUse(digest=b"old", at=NOW, ip="203.0.113.1", n=1),
    ]
    assert [(use.id, use.at, use.n) for use in batch.keys] == [("k", NOW + 2, 3)]
    assert store.total() == {("k", "accepted"): 3}
    old.accept(NOW + 3, None, None)
    await store.usage.flush(NOW + 3)
    assert [(use.digest, use.n) for use in store.batches[1].secrets] == [(b"old", 1)]


async def test_the_uses_of_a_secret_wait_for_a_lost_database() -> None:
    store = Store()
    store.lost = True
    # An entry that is loaded anew has another tally of the same secret.
    for n, secret in enumerate(tallies(store, b"old", b"old", b"new", b"old")):
        secret.accept(NOW + n, str(n), None)
        with pytest.raises(Unavailable):
            await store.usage.flush(NOW + n)
    store.lost = False
    await store.usage.flush(NOW + 4)
    assert [batch.secrets for batch in store.batches] == [
        [SecretUse(digest=b"old", at=NOW, ip="0", n=1)],
        [
            SecretUse(digest=b"new", at=NOW + 2, ip="2", n=1),
            SecretUse(digest=b"old", at=NOW + 3, ip="3", n=2),
        ],
    ]
    assert store.uses() == {"k": 4}


async def test_rows_are_sorted_so_that_batches_cannot_deadlock() -> None:
    store = Store()
    for id in ("c", "a", "b"):
        store.usage.tally(id, is_key=True).accept(NOW, None, None)
        store.usage.tally(id, is_key=False).accept(NOW, None, None)
    await store.usage.flush(NOW)
    (batch,) = store.batches
    assert [count.key_id for count in batch.counts] == ["a", "b", "c"]
    assert [use.id for use in batch.keys] == ["a", "b", "c"]
    assert [use.id for use in batch.sessions] == ["a", "b", "c"]


async def test_a_lost_database_loses_nothing_and_counts_nothing_twice() -> None:
    store = Store()
    key, login = store.usage.tally("k", is_key=True), store.usage.tally("s", is_key=False)
    key.accept(NOW, "203.0.113.7", None)
    login.accept(NOW, None, None)
    store.lost = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await store.usage.flush(NOW)
    key.accept(NOW + 9, "203.0.113.9", None)
    key.refuse(NOW + 9, "RATE_LIMITED", None, None)
    store.usage.tally("other", is_key=True).accept(NOW, None, None)
    with pytest.raises(Unavailable):
        await store.usage.flush(NOW + 9)
    store.lost = False
    await store.usage.flush(NOW + 10)
    assert store.total() == {
        ("k", "accepted"): 2,
        ("k", "RATE_LIMITED"): 1,
        ("other", "accepted"): 1,
    }
    assert store.uses() == {"k": 2, "other": 1}
    # Nobody knows whether the first was written before its answer was lost: it stays as it was.
    first, batch = store.batches
    assert [(use.id, use.at, use.n) for use in first.keys] == [("k", NOW, 1)]
    assert [use.n for use in first.sessions] == [1]
    assert [use.id for use in batch.keys] == ["k", "other"]
    assert (batch.keys[0].at, batch.keys[0].ip) == (NOW + 9, "203.0.113.9")


async def test_what_was_used_while_a_failing_write_was_under_way_is_the_newer() -> None:
    store = Store()
    tally = store.usage.tally("k", is_key=True)
    tally.accept(NOW, "203.0.113.1", None)
    store.gate, store.lost = asyncio.Event(), True
    first = asyncio.create_task(store.usage.flush(NOW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tally.accept(NOW + 7, "203.0.113.2", None)
    second = asyncio.create_task(store.usage.flush(NOW + 7))
    await asyncio.sleep(0)
    store.gate.set()
    assert [type(done) for done in await asyncio.gather(first, second, return_exceptions=True)] == [
        Unavailable,
        Unavailable,
    ]
    store.lost = False
    await store.usage.flush(NOW + 8)
    assert [(use.at, use.ip, use.n) for batch in store.batches for use in batch.keys] == [
        (NOW, "203.0.113.1", 1),
        (NOW + 7, "203.0.113.2", 1),
    ]
    assert store.total() == {("k", "accepted"): 2}


async def test_a_cancelled_flush_whose_write_goes_on_counts_nothing_twice() -> None:
    # The stop of the server cancels the flush under way, and then flushes once more.
    store = Store()
    store.usage.tally("k", is_key=True).accept(NOW, None, None)
    store.gate = asyncio.Event()
    written: asyncio.Task[None] | None = None
    plain = store.write

    async def shielded(batch: Batch, settled: Sequence[str]) -> None:
        nonlocal written
        written = asyncio.ensure_future(plain(batch, settled))
        await asyncio.shield(written)  # as both databases do: what began is finished

    usage = store.usage
    usage._backlog._write = shielded
    flush = asyncio.create_task(usage.flush(NOW))
    await asyncio.sleep(0.01)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    last = asyncio.create_task(usage.flush(NOW))
    await asyncio.sleep(0.01)
    store.gate.set()
    await last
    assert written is not None
    await written
    assert store.total() == {("k", "accepted"): 1}


async def test_a_flush_returns_only_when_all_that_was_counted_before_is_written() -> None:
    # Who flushes to read must not miss what another flush is still writing.
    store = Store()
    store.usage.tally("k", is_key=True).accept(NOW, None, None)
    store.gate = asyncio.Event()
    first = asyncio.create_task(store.usage.flush(NOW))
    await asyncio.sleep(0.01)
    reader = asyncio.create_task(store.usage.flush(NOW))
    await asyncio.sleep(0.01)
    assert not reader.done()
    store.gate.set()
    await asyncio.gather(first, reader)
    assert store.total() == {("k", "accepted"): 1}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        (b"", ""),
        (b"curl/8", "curl/8"),
        (b"a\x1b[31m\r\nb\0", "a?[31m??b?"),
        (b"\xe9\x85", "é?"),
        (b"x" * 300, "x" * 200),
    ],
)
async def test_200_printable_characters_of_a_user_agent_are_kept(
    sent: bytes | None, kept: str | None
) -> None:
    store = Store()
    store.usage.tally("k", is_key=True).accept(NOW, None, sent)
    await store.usage.flush(NOW)
    uses: Any = store.batches[0].keys
    assert uses[0].user_agent == kept


KEY = Key(
    id="k", owner_id="ann", config_id="default", name=None, description=None, prefix="kb_",
    start="kb_abcd", enabled=True, created_at=NOW, updated_at=NOW, created_by="ann",
    expires_at=None, revoked_at=None, revoked_reason=None, permissions=None, metadata=None,
    ip_allow=(), rate_limit_enabled=False, rate_limit_max=None, rate_limit_window_ms=None,
    remaining=None, refill_amount=None, refill_interval_ms=None, last_refill_at=None,
    last_used_at=NOW, last_used_ip="203.0.113.7", last_used_user_agent="curl", request_count=7,
)  # fmt: skip


def used(key: Key) -> tuple[int, int | None, str | None, str | None]:
    return key.request_count, key.last_used_at, key.last_used_ip, key.last_used_user_agent


async def test_a_record_is_brought_up_to_every_use_whether_it_is_written_or_not() -> None:
    store = Store()
    tally = store.usage.tally("k", is_key=True)
    assert tally.onto(KEY, written=0) == KEY
    tally.accept(NOW + 1, None, None)
    assert used(tally.onto(KEY, written=0)) == (8, NOW + 1, "203.0.113.7", "curl")
    store.lost = True
    with pytest.raises(Unavailable):
        await store.usage.flush(NOW + 1)
    tally.accept(NOW + 2, "203.0.113.9", b"wget\n")
    assert used(tally.onto(KEY, written=0)) == (9, NOW + 2, "203.0.113.9", "wget?")
    store.lost = False
    await store.usage.flush(NOW + 3)
    assert tally.written == 2
    assert used(tally.onto(KEY, written=0)) == (9, NOW + 2, "203.0.113.9", "wget?")
    read_again = tally.onto(KEY, written=tally.written)
    assert read_again.request_count == 7, "what is written is in the record"


async def test_what_was_told_last_stays_where_later_uses_tell_nothing() -> None:
    store = Store()
    store.lost = True
    tally = store.usage.tally("k", is_key=True)
    for n, told in enumerate((("203.0.113.9", b"wget"), (None, None), (None, None))):
        tally.accept(NOW + n, *told)
        with pytest.raises(Unavailable):
            await store.usage.flush(NOW + n)
    assert used(tally.onto(KEY, written=0)) == (10, NOW + 2, "203.0.113.9", "wget")


def test_a_record_with_a_newer_use_keeps_it() -> None:
    tally = Store().usage.tally("k", is_key=True)
    tally.accept(NOW - 1, "203.0.113.9", None)
    assert used(tally.onto(KEY, written=0)) == (8, NOW, "203.0.113.7", "curl")
    tally.accept(NOW, "203.0.113.9", None)
    assert used(tally.onto(KEY, written=0)) == (9, NOW, "203.0.113.9", "curl")


def test_a_record_that_was_never_used_says_so() -> None:
    never = msgspec.structs.replace(KEY, last_used_at=None)
    assert Store().usage.tally("k", is_key=True).onto(never, written=0) == never


async def test_a_tally_is_kept_until_it_is_written_and_forgotten_after() -> None:
    store = Store()
    store.usage.tally("k", is_key=True).accept(NOW, None, None)
    store.lost = True
    with pytest.raises(Unavailable):
        await store.usage.flush(NOW)
    tally = store.usage.tally("k", is_key=True)
    assert (tally.collected, tally.written) == (1, 0)
    store.lost = False
    await store.usage.flush(NOW)
    assert (tally.collected, tally.written) == (1, 1)
    del tally
    assert len(store.usage._of_keys) == 0


async def test_all_who_wait_for_a_lost_database_wait_for_one_write() -> None:
    """Else the thirtieth who asks for a list waits out thirty timeouts."""
    store = Store()
    tries = 0

    async def write(_batch: Batch, _settled: Sequence[str]) -> None:
        nonlocal tries
        tries += 1
        await gate.wait()
        raise Unavailable("lost")

    gate = asyncio.Event()
    usage = Usage(write, store.states.get, new_id=fresh_id)
    usage.tally("k", is_key=True).accept(NOW, None, None)
    first = asyncio.create_task(usage.flush(NOW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(usage.flush(NOW + n)) for n in range(30)]
    await asyncio.sleep(0)
    await usage._to_disk(NOW)  # that something else has ended changes nothing
    others += [asyncio.create_task(usage.flush(NOW + n)) for n in range(30)]
    await asyncio.sleep(0)
    gate.set()
    ended = await asyncio.gather(first, *others, return_exceptions=True)
    assert {type(each) for each in ended} == {Unavailable}
    assert tries == 2  # the one under way, and one that began after all of them had come


async def test_a_flush_that_was_cancelled_before_it_began_is_no_ones_successor() -> None:
    store = Store()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    store.usage.tally("k", is_key=True).accept(NOW, None, None)
    flush = asyncio.create_task(store.usage.flush(NOW))
    await asyncio.sleep(0)
    (task,) = store.usage._tasks
    task.cancel()  # as a loop does that is being closed
    with pytest.raises(asyncio.CancelledError):
        await flush
    await store.usage.flush(NOW)
    assert store.uses() == {"k": 1}
    assert (told, store.usage._tasks) == ([], set())
