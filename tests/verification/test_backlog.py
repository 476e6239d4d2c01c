"""Whatever happens to the database, the disk and the process: each request is counted once."""

import asyncio
import contextlib
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keybearer.adapters import journal as files
from keybearer.adapters.journal import Journals
from keybearer.domain.errors import Unavailable
from keybearer.domain.uses import Batch
from keybearer.verification import backlog, sums, usage
from keybearer.verification.spill import Spill
from keybearer.verification.usage import Usage
from tests.people import START, fresh_id

HOUR = 3_600_000

Fault = Literal["none", "refuses", "commits", "hangs"]


class Base:
    """A database that writes each batch once, and can fail before its commit, after, or never."""

    def __init__(self) -> None:
        self.fault: Fault = "none"
        self.ids: set[str] = set()
        self.tries: list[str] = []
        self.counts: dict[str, int] = {}
        self.mended = asyncio.Event()

    async def write(self, batch: Batch, settled: Sequence[str]) -> None:
        self.tries.append(batch.id)
        if self.fault == "hangs":
            await self.mended.wait()
        if self.fault == "refuses":
            raise Unavailable("refused")
        self.ids -= {*settled}
        if batch.id not in self.ids:
            self.ids.add(batch.id)
            for count in batch.counts:
                self.counts[count.key_id] = self.counts.get(count.key_id, 0) + count.n
        if self.fault == "commits":
            raise Unavailable("the answer was lost")


class Node:
    """One process: what it counts, and what it has on the disk."""

    def __init__(self, base: Base, folder: Path | None, room: int = 1_000_000) -> None:
        self.base = base
        self.spill = (
            None
            if folder is None
            else Spill(Journals(f"{folder}/db-usage-"), room=room, new_id=fresh_id)
        )
        self.now = START
        self.usage = Usage(base.write, lambda _: None, new_id=fresh_id, spill=self.spill)
        self.counted = 0

    def count(self, key: str = "k", n: int = 1) -> None:
        for _ in range(n):
            self.usage.tally(key, is_key=True).accept(self.now, "203.0.113.7", b"curl")
        self.counted += n

    async def secure(self) -> None:
        self.now += 1_000
        with contextlib.suppress(Unavailable):
            await self.usage.secure(self.now)

    def kill(self) -> None:
        """As kill -9 leaves it."""
        assert self.spill is not None
        for journal in self.spill._all():
            os.close(journal._file)


@pytest.fixture
def base() -> Base:
    return Base()


@pytest.fixture
def node(base: Base, tmp_path: Path) -> Node:
    return Node(base, tmp_path)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a flush comes to its end."""
    monkeypatch.setattr(usage, "PATIENCE_SECONDS", 60)
    monkeypatch.setattr(backlog, "MOMENT_SECONDS", 60)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For databases that hang."""
    monkeypatch.setattr(usage, "PATIENCE_SECONDS", 0.02)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


# --- exactly once -----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [True, False], ids=["disk", "memory"])
async def test_a_commit_whose_answer_was_lost_counts_once(
    base: Base, tmp_path: Path, folder: bool
) -> None:
    node = Node(base, tmp_path if folder else None)
    base.fault = "commits"
    for _ in range(4):
        node.count()
        await node.secure()
    base.fault = "none"
    await node.usage.flush(node.now)
    assert (base.counts, node.usage.waiting) == ({"k": 4}, 0)
    # Nobody knew of the first; the others were added up, as nobody had tried them.
    assert base.tries.count(base.tries[0]) > 1


async def test_no_row_is_left_of_batches_that_nobody_brings_again(node: Node, base: Base) -> None:
    for _ in range(5):
        node.count()
        await node.secure()
    assert len(base.ids) == 1
    base.fault = "refuses"
    for _ in range(5):
        node.count()
        await node.secure()
    base.fault = "none"
    for _ in range(2):
        node.count()
        await node.secure()
    assert (base.counts, len(base.ids)) == ({"k": 12}, 1)
    assert node.usage._backlog._tried == set()


async def test_what_nobody_brings_again_is_told_once_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "_SETTLED", 2)
    monkeypatch.setattr(sums, "ROWS", 1)
    told: list[list[str]] = []

    async def write(_batch: Batch, settled: Sequence[str]) -> None:
        told.append([*settled])

    counted = Usage(write, lambda _: None, new_id=fresh_id)
    waits = [f"b{n}" for n in range(5)]
    counted._backlog._settled += waits
    for n in range(5):
        counted.tally(f"k{n}", is_key=True).accept(START, None, None)
    await counted.flush(START)
    assert [len(ids) for ids in told] == [2, 2, 2, 2, 1]
    ids = [id for ids in told for id in ids]
    assert ids[:5] == waits
    assert len({*ids}) == len(ids)


async def test_what_is_new_is_written_before_what_another_has_left(
    node: Node, base: Base, tmp_path: Path
) -> None:
    dead = Node(base, tmp_path)
    base.fault = "refuses"
    dead.count("old")
    await dead.secure()
    dead.kill()
    base.fault = "none"
    node.count("new")
    await node.secure()
    assert [*base.counts] == ["new", "old"]


async def test_a_large_flush_is_several_batches(
    node: Node, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "ROWS", 2)
    for n in range(5):
        node.count(f"k{n}")
    base.fault = "commits"
    await node.secure()
    assert node.usage.waiting == 3
    base.fault = "none"
    await node.secure()
    assert (base.counts, len(base.tries)) == ({f"k{n}": 1 for n in range(5)}, 4)


# --- an outage --------------------------------------------------------------------------------


async def test_in_an_outage_what_is_counted_is_on_the_disk_and_not_in_memory(
    node: Node, base: Base
) -> None:
    base.fault = "refuses"
    for _ in range(20):
        node.count(n=3)
        await node.secure()
    assert node.spill is not None
    assert (node.usage.waiting, node.spill.waiting) == (20, 20)
    assert not node.usage._backlog.sums
    assert base.counts == {}
    assert len({*base.tries}) == 1  # it is asked with the one that waits longest
    written_before = node.usage.written_at
    base.fault = "none"
    await node.usage.flush(node.now)
    assert (base.counts, node.usage.waiting) == ({"k": 60}, 0)
    assert (written_before, node.usage.written_at) == (None, node.now)


async def test_while_the_database_is_lost_nothing_new_is_tried(node: Node, base: Base) -> None:
    base.fault = "refuses"
    node.count()
    await node.secure()
    assert node.usage.spill is node.spill
    node.count()
    with pytest.raises(Unavailable):
        await node.usage.flush(node.now)  # by somebody who reads
    assert len({*base.tries}) == 1


async def test_a_database_may_be_lost_again(node: Node, base: Base) -> None:
    for fault in ("refuses", "commits", "refuses"):
        base.fault = fault
        node.count()
        with pytest.raises(Unavailable):
            await node.usage.secure(node.now)
        base.fault = "none"
        await node.usage.secure(node.now)
    assert (base.counts, node.usage.waiting) == ({"k": 3}, 0)


async def test_while_it_is_lost_the_disk_is_asked_first(node: Node, base: Base) -> None:
    base.fault = "refuses"
    node.count()
    await node.secure()
    base.fault = "hangs"
    node.count()
    securing = asyncio.create_task(node.secure())
    assert node.spill is not None
    async with asyncio.timeout(5):
        while node.spill.waiting < 2:  # noqa: ASYNC110 -- the disk is asked in a thread
            await asyncio.sleep(0.001)
    base.fault = "none"
    base.mended.set()
    await securing
    assert base.counts == {"k": 2}


async def test_a_killed_process_leaves_all_but_what_came_last(
    node: Node, base: Base, tmp_path: Path
) -> None:
    base.fault = "refuses"
    for _ in range(5):
        node.count()
        await node.secure()
    node.count(n=100)
    node.kill()
    base.fault = "none"
    later = Node(base, tmp_path)
    later.count("other")
    await later.secure()
    assert base.counts == {"k": 5, "other": 1}
    assert os.listdir(tmp_path) == []


async def test_who_is_killed_in_the_midst_of_replaying_has_it_counted_once(
    node: Node, base: Base, tmp_path: Path
) -> None:
    base.fault = "refuses"
    for _ in range(6):
        node.count()
        await node.secure()
    base.fault = "none"
    await node.usage._backlog.write(node.now, seconds=0)
    assert 0 < base.counts["k"] < 6
    node.kill()
    for _ in range(2):
        later = Node(base, tmp_path)
        await later.secure()
        assert base.counts == {"k": 6}


async def test_new_usage_does_not_wait_for_what_has_waited(
    node: Node, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.fault = "refuses"
    for _ in range(30):
        node.count("old")
        await node.secure()
    base.fault = "none"
    node.count("new")
    node.usage._collect(node.now)
    await node.usage._backlog.write(node.now, seconds=0)
    assert base.counts["new"] == 1
    assert 0 < base.counts["old"] < 30
    assert node.usage.waiting == 30 - base.counts["old"]
    assert node.usage.written_at is None
    monkeypatch.setattr(backlog, "MOMENT_SECONDS", 0)
    await node.usage.flush(node.now)
    assert node.usage.written_at is None  # some of it waits


@pytest.mark.usefixtures("impatient")
async def test_what_hangs_is_on_the_disk_meanwhile(node: Node, base: Base, tmp_path: Path) -> None:
    base.fault = "hangs"
    for _ in range(3):
        node.count()
        await node.secure()
    assert node.spill is not None
    assert (node.spill.waiting, len(os.listdir(tmp_path))) == (3, 1)
    assert (node.usage.waiting, len(base.tries)) == (3, 1)
    base.fault = "none"
    base.mended.set()
    await node.usage.flush(node.now)
    await node.usage.flush(node.now)
    assert (base.counts, node.usage.waiting) == ({"k": 3}, 0)


async def test_a_write_that_ends_after_its_batch_went_to_the_disk_is_fine(
    node: Node, base: Base
) -> None:
    base.fault = "hangs"
    node.count()
    flush = asyncio.create_task(node.usage.flush(node.now))
    while not base.tries:  # noqa: ASYNC110 -- until the write is under way
        await asyncio.sleep(0)
    assert await node.usage._to_disk(node.now)
    base.fault = "none"
    base.mended.set()
    await flush
    assert (base.counts, node.usage.waiting) == ({"k": 1}, 0)


@pytest.mark.usefixtures("impatient")
async def test_a_write_that_fails_after_its_batch_went_to_the_disk_is_tried_again(
    node: Node, base: Base
) -> None:
    base.fault = "hangs"
    node.count()
    await node.secure()
    base.fault = "refuses"
    base.mended.set()
    await node.secure()
    assert base.counts == {}
    base.fault = "none"
    await node.usage.flush(node.now)
    assert (base.counts, node.usage.waiting) == ({"k": 1}, 0)


async def test_a_record_is_brought_up_to_what_waits_on_the_disk(node: Node, base: Base) -> None:
    tally = node.usage.tally("k", is_key=True)
    base.fault = "refuses"
    for _ in range(3):
        node.count()
        node.usage.tally("s", is_key=False).accept(node.now, None, None)
        await node.secure()
    assert (tally.collected, tally.written, len(node.usage._unwritten)) == (3, 0, 2)
    base.fault = "none"
    await node.secure()
    assert (tally.collected, tally.written, len(node.usage._unwritten)) == (3, 3, 0)


# --- the disk ---------------------------------------------------------------------------------


async def test_what_the_disk_does_not_let_go_of_is_noted_once(
    node: Node, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.fault = "refuses"
    node.count()
    await node.secure()
    assert node.spill is not None
    assert node.spill.waiting == 1
    base.fault = "none"

    def broken(_journal: files.Journal) -> bool:
        raise OSError("read only")

    with monkeypatch.context() as patched:
        patched.setattr(files.Journal, "drop_first", broken)
        patched.setattr(backlog, "MOMENT_SECONDS", 0)
        for _ in range(3):  # written and noted; what counted it may be gone by then
            await node.secure()
    await node.secure()
    assert (base.counts, node.spill.waiting) == ({"k": 1}, 0)


async def test_the_disk_is_asked_on_one_thread(node: Node) -> None:
    two = threading.Barrier(2)

    def meet() -> bool:
        with contextlib.suppress(threading.BrokenBarrierError):
            two.wait(0.2)
            return True
        return False

    held = node.usage._backlog
    met = await asyncio.gather(held._on_disk(meet), held._on_disk(meet))
    assert not any(met)


async def test_the_thread_of_the_disk_begins_when_it_is_needed_and_ends_with_the_usage(
    node: Node,
) -> None:
    others = set(threading.enumerate())

    def own() -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread not in others and thread.name.startswith("keybearer-spill_")
        ]

    node.count()
    await node.usage.flush(node.now)
    assert own() == []
    await node.secure()
    (thread,) = own()
    await node.usage.end(node.now)
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


async def test_nothing_is_no_file(node: Node, tmp_path: Path) -> None:
    assert await node.usage._backlog.spill(node.now)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """No file of this process may grow, from the call with True until the one with False."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(on: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 if on else before[0], before[1]))

    yield switch
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_loses_nothing_that_memory_holds(
    node: Node, base: Base, full_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    base.fault = "commits"
    full_disk(True)
    for _ in range(5):
        node.count()
        await node.secure()
    full_disk(False)
    assert events(caplog).count("usage.not_spilled") == 1
    assert node.usage.waiting == 2  # the one that was tried, and the sum of the others
    node.count()
    await node.secure()
    assert node.spill is not None
    assert (node.spill.waiting, node.spill.failing) == (2, False)
    base.fault = "none"
    await node.secure()
    assert (base.counts, node.usage.waiting) == ({"k": 6}, 0)


async def test_an_end_with_a_lost_database_and_a_full_disk_tells_what_is_lost(
    node: Node, base: Base, full_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    base.fault = "refuses"
    node.count()
    full_disk(True)
    await node.usage.end(node.now)
    full_disk(False)
    (told,) = [record for record in caplog.records if record.message == "usage.lost"]
    assert vars(told)["reason"] == "refused"


@pytest.mark.usefixtures("impatient")
async def test_a_batch_that_the_disk_gave_back_is_not_added_up(
    node: Node, base: Base, full_disk: Callable[[bool], None]
) -> None:
    base.fault = "hangs"
    full_disk(True)
    for _ in range(3):
        node.count()
        await node.secure()
    base.fault = "commits"
    base.mended.set()
    await node.secure()
    full_disk(False)
    base.fault = "none"
    await node.usage.end(node.now)
    assert base.counts == {"k": 3}


@pytest.mark.parametrize("fault", ["refuses", "commits"])
async def test_a_full_journal_holds_every_count(base: Base, tmp_path: Path, fault: Fault) -> None:
    dead, node = Node(base, tmp_path), Node(base, tmp_path, room=2_000)
    base.fault = "refuses"
    dead.count("dead")  # it is asked for first, so that what was tried is known as that alone
    await dead.secure()
    dead.kill()
    base.fault = fault
    for n in range(100):
        node.now += 60_000
        node.count(f"k{n % 3}")
        await node.secure()
    assert node.spill is not None
    assert node.spill.size <= 3_000 + 8
    base.fault = "none"
    while node.usage.waiting:
        await node.secure()
    assert sum(base.counts.values()) == 101


# --- the end ----------------------------------------------------------------------------------


async def test_the_end_writes_what_waits(
    node: Node,
    base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(backlog, "MOMENT_SECONDS", 0)
    base.fault = "refuses"
    for _ in range(5):
        node.count()
        await node.secure()
    node.count()
    base.fault = "none"
    await node.usage.end(node.now)
    assert base.counts == {"k": 6}
    assert os.listdir(tmp_path) == []
    assert "usage.left" not in events(caplog)


async def test_without_a_disk_the_end_waits_for_a_database_that_hangs(
    base: Base, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "HANGS_SECONDS", 0.01)
    node = Node(base, None)
    base.fault = "hangs"
    node.count()
    ending = asyncio.create_task(node.usage.end(node.now))
    await asyncio.sleep(0.1)
    assert not ending.done()
    base.fault = "none"
    base.mended.set()
    await ending
    assert (base.counts, events(caplog)) == ({"k": 1}, [])


@pytest.mark.usefixtures("impatient")
async def test_an_end_without_a_database_leaves_it_to_the_next_start(
    node: Node, base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base.fault = "hangs"
    node.count()
    await node.secure()
    node.count()
    base.fault = "refuses"
    base.mended.set()
    await node.usage.end(node.now)
    assert "usage.left" in events(caplog)
    assert "usage.lost" not in events(caplog)
    base.fault = "none"
    later = Node(base, tmp_path)
    await later.secure()
    await later.usage.end(later.now)
    assert base.counts == {"k": 2}


async def test_an_end_does_not_wait_for_a_database_that_hangs(
    node: Node,
    base: Base,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage, "HANGS_SECONDS", 0.02)
    base.fault = "hangs"
    node.count(n=3)
    await node.usage.end(node.now)
    assert events(caplog) == ["usage.spilled", "usage.left"]
    base.fault = "none"
    base.mended.set()  # what was under way happens after all
    later = Node(base, tmp_path)
    await later.secure()
    await later.usage.end(later.now)
    assert base.counts == {"k": 3}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("n", "lost"), [(1, 1), (0, 0)])
async def test_without_a_disk_the_end_tells_what_is_lost(
    base: Base, caplog: pytest.LogCaptureFixture, n: int, lost: int
) -> None:
    node = Node(base, None)
    base.fault = "refuses"
    node.count(n=n)
    await node.usage.end(node.now)
    assert events(caplog).count("usage.lost") == lost


async def test_what_cannot_be_read_back_keeps_nothing_else(node: Node, base: Base) -> None:
    base.fault = "refuses"
    node.count("damaged")
    await node.secure()
    assert node.spill is not None
    assert node.spill._own is not None
    os.pwrite(node.spill._own._file, b"x", 30)
    base.fault = "none"
    node.count("new")
    await node.usage.flush(node.now)
    assert (base.counts, node.usage.waiting) == ({"new": 1}, 0)


@pytest.mark.usefixtures("impatient")
async def test_the_end_waits_for_what_is_under_way(node: Node, base: Base) -> None:
    base.fault = "hangs"
    node.count()
    await node.secure()
    ending = asyncio.create_task(node.usage.end(node.now))
    waits = asyncio.create_task(node.usage.flush(node.now))
    await asyncio.sleep(0)
    base.fault = "none"
    base.mended.set()
    await asyncio.gather(ending, waits)
    assert base.counts == {"k": 1}


async def test_the_folder_is_looked_at_once_a_minute(
    node: Node, base: Base, tmp_path: Path
) -> None:
    await node.secure()
    dead = Node(base, tmp_path)
    base.fault = "refuses"
    dead.count()
    await dead.secure()
    dead.kill()
    base.fault = "none"
    for _ in range(58):
        await node.secure()
    assert base.counts == {}
    for _ in range(2):
        await node.secure()
    assert base.counts == {"k": 1}


async def test_a_caller_that_goes_away_leaves_what_is_on_its_way_to_the_disk(
    node: Node, base: Base
) -> None:
    base.fault = "refuses"
    node.count()
    await node.secure()
    node.count()
    securing = asyncio.create_task(node.usage.secure(node.now))
    await asyncio.sleep(0)  # it has begun to bring the second to the disk
    securing.cancel()
    await asyncio.gather(securing, return_exceptions=True)
    base.fault = "none"
    await node.usage.end(node.now)
    assert base.counts == {"k": 2}


# --- whatever happens, in whatever order ------------------------------------------------------


def test_each_request_is_counted_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LOOK_MS", 0)
    monkeypatch.setattr(backlog, "MOMENT_SECONDS", 0)  # so that there are leftovers
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is lost here

    class Machine(RuleBasedStateMachine):
        """One process after another; each request has a key of its own, so that none hides."""

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.base = Base()
            self.folder = tmp_path_factory.mktemp("spill")
            self.full = False
            self.keys = 0
            self.unsafe: set[str] = set()
            self.safe: set[str] = set()
            self.start()

        def start(self) -> None:
            self.node = Node(self.base, self.folder, room=2_000)

        def teardown(self) -> None:
            self.base.fault, self.full = "none", False
            for _ in range(50):
                self.secure()
            assert self.node.usage.waiting == 0
            assert self.safe <= self.base.counts.keys()
            self.node.kill()
            self.loop.close()

        @rule(n=st.integers(1, 4))
        def count(self, n: int) -> None:
            for _ in range(n):
                self.keys += 1
                self.node.count(f"k{self.keys}")
                self.unsafe.add(f"k{self.keys}")

        @rule(fault=st.sampled_from(["none", "refuses", "commits"]))
        def break_or_mend(self, fault: Fault) -> None:
            self.base.fault = fault

        @rule(full=st.sampled_from([False, False, True]))
        def fill_disk(self, full: bool) -> None:
            self.full = full

        @rule()
        def secure(self) -> None:
            with pytest.MonkeyPatch.context() as patch:
                if self.full:
                    patch.setattr(files, "_write", _no_room)
                self.loop.run_until_complete(self.node.secure())
            held = self.node.usage._backlog
            if not held._batches and not held.sums:
                self.safe |= self.unsafe
                self.unsafe = set()

        @rule(n=st.integers(1, 6))
        def go_on(self, n: int) -> None:
            for _ in range(n):
                self.count(2)
                self.secure()

        @rule()
        def kill(self) -> None:
            self.node.kill()
            self.unsafe = set()  # what was not secured may be lost
            self.start()

        @invariant()
        def nothing_is_counted_twice(self) -> None:
            assert {key: n for key, n in self.base.counts.items() if n > 1} == {}

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=50, stateful_step_count=40, deadline=None)
    )


def _no_room(*_: object) -> None:
    raise OSError("no room")
