"""What waits on the disk: bounded, in order, and each batch as it was where it must be."""

import errno
import logging
import os
from pathlib import Path

import msgspec
import pytest

from keybearer.adapters import journal as files
from keybearer.adapters.journal import Journal, Journals
from keybearer.adapters.sql.batches import KEPT_MS
from keybearer.domain.uses import Batch, Count, Sample
from keybearer.verification.spill import OLDEST_MS, Spill
from tests.people import START, fresh_id

MINUTE = 60_000
HOUR = 3_600_000


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(f"{tmp_path}/db-usage-")


def spill_of(journals: Journals, room: int = 1_000_000) -> Spill:
    return Spill(journals, room=room, new_id=fresh_id)


@pytest.fixture
def spill(journals: Journals) -> Spill:
    return spill_of(journals)


def batch(n: int, *, at: int = START, events: int = 0, keys: int = 1) -> Batch:
    return Batch(
        id=fresh_id(at),
        counts=[
            Count(key_id=f"k{key}", hour=at - at % HOUR, outcome="accepted", n=n)
            for key in range(keys)
        ],
        keys=[],
        sessions=[],
        secrets=[],
        samples=[
            Sample(
                key_id="k0",
                outcome="accepted",
                at=at + e * MINUTE,
                n=1,
                ip=None,
                user_agent="x" * 90,
            )
            for e in range(events)
        ],
    )


def replayed(spill: Spill) -> list[tuple[Batch, bool]]:
    """All that waits, taken out."""
    told = []
    while (found := spill.first()) is not None:
        told.append(found)
        spill.settle(found[0])
    return told


def total(batches: list[tuple[Batch, bool]]) -> int:
    return sum(count.n for each, _ in batches for count in each.counts if count.key_id == "k0")


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def died(spill: Spill) -> None:
    """As kill -9 leaves it."""
    for journal in spill._all():
        os.close(journal._file)


def test_what_is_put_comes_back_in_order_and_once(spill: Spill) -> None:
    one, two, three = batch(1), batch(2, events=2), batch(3)
    assert spill.waiting == 0
    assert spill.first() is None
    assert spill.put([one, two], now=START)
    assert spill.put([three], now=START)
    assert (spill.waiting, spill.size > 300) == (3, True)
    assert spill.first() == (one, True)
    assert spill.first() == (one, True)  # until it is settled
    assert replayed(spill) == [(one, True), (two, True), (three, True)]
    assert (spill.waiting, spill.size, spill.first()) == (0, 0, None)
    assert spill.put([one], now=START)
    assert replayed(spill) == [(one, True)]
    assert spill.close() is None
    assert spill._tried == set()


def test_only_an_empty_journal_forgets_what_is_settled(spill: Spill) -> None:
    batches = [batch(n) for n in (1, 2)]
    spill.put(batches, now=START)
    told = []
    while (found := spill.first()) is not None:
        told.append(spill.settle(found[0]))
    assert told == [False, True]
    assert spill.settle(batches[0]) is False  # nobody has asked for it


def test_what_a_dead_process_has_left_comes_first(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dead, spill = spill_of(journals), spill_of(journals)
    theirs, ours = batch(1), batch(2)
    dead.put([theirs], now=START)
    spill.put([ours], now=START)
    spill.adopt(START)
    assert spill.waiting == 1  # it lives
    died(dead)
    spill.adopt(START)
    assert spill.waiting == 2
    assert events(caplog) == ["usage.spilled"] * 2 + ["usage.found"]
    assert replayed(spill) == [(theirs, False), (ours, True)]
    assert spill.close() is None
    assert list(Path(journals.prefix).parent.iterdir()) == []


def test_who_is_killed_while_it_replays_leaves_all_of_it(journals: Journals) -> None:
    dead, spill = spill_of(journals), spill_of(journals)
    batches = [batch(n) for n in (1, 2, 3)]
    dead.put(batches, now=START)
    first = dead.first()
    assert first is not None
    dead.settle(first[0])
    died(dead)
    spill.adopt(START)
    assert replayed(spill) == [(each, False) for each in batches]


def test_what_waits_at_the_end_is_told(spill: Spill, journals: Journals) -> None:
    spill.put([batch(1)], now=START)
    left = spill.close()
    assert left is not None
    assert left.startswith(journals.prefix)
    later = spill_of(journals)
    later.adopt(START)
    assert total(replayed(later)) == 1


def test_a_torn_record_is_told_and_the_others_count(
    spill: Spill, journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    spill.put([batch(1), batch(2)], now=START)
    left = spill.close()
    assert left is not None
    os.truncate(left, Path(left).stat().st_size - 3)
    later = spill_of(journals)
    later.adopt(START)
    (torn,) = [each for each in caplog.records if each.message == "usage.journal_torn"]
    assert (vars(torn)["file"], vars(torn)["bytes"] > 0) == (left, True)
    assert total(replayed(later)) == 1
    assert list(Path(left).parent.iterdir()) == []


def test_one_torn_to_nothing_goes_away(spill: Spill, journals: Journals) -> None:
    spill.put([batch(1)], now=START)
    left = spill.close()
    assert left is not None
    os.truncate(left, 20)
    later = spill_of(journals)
    later.adopt(START)
    assert (later.waiting, Path(left).exists()) == (0, False)


# --- full -------------------------------------------------------------------------------------


def test_a_full_journal_is_added_up_and_its_counts_are_whole(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    spill = spill_of(journals, room=4_000)
    for n in range(200):
        assert spill.put([batch(n, keys=5)], now=START)
        assert spill.size <= 4_000 + 8
    found = replayed(spill)
    assert total(found) == sum(range(200))
    assert len(found) < 100
    assert spill.samples_dropped == 0
    assert "usage.samples_dropped" not in events(caplog)


def test_a_room_that_is_just_large_enough_suffices(journals: Journals, tmp_path: Path) -> None:
    one = batch(1)
    spill = spill_of(journals)
    spill.put([one], now=START)
    for room, fits in ((spill.size, True), (spill.size - 1, False)):
        assert spill_of(Journals(f"{tmp_path}/{room}-"), room).put([one], now=START) == fits


def test_what_was_tried_stays_as_it_is(journals: Journals) -> None:
    spill = spill_of(journals, room=4_000)
    asked, sent = batch(1), batch(2)
    spill.put([asked], now=START)
    assert spill.first() == (asked, True)
    spill.put([sent], now=START, tried={sent.id})
    for n in range(200):
        spill.put([batch(n)], now=START)
    found = replayed(spill)
    assert [each for each, _ in found[:2]] == [asked, sent]
    assert total(found) == 3 + sum(range(200))


def test_where_adding_up_is_not_enough_the_oldest_samples_go(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    spill = spill_of(journals, room=4_000)
    for n in range(10):
        assert spill.put([batch(1, at=START + n * 5 * MINUTE, events=5)], now=START)
    found = replayed(spill)
    assert total(found) == 10
    samples = [sample for each, _ in found for sample in each.samples]
    assert len(samples) == 50 - spill.samples_dropped
    assert 0 < spill.samples_dropped < 40
    assert min(sample.at for sample in samples) > START
    assert max(sample.at for sample in samples) == START + 49 * MINUTE
    assert "usage.samples_dropped" in events(caplog)


def test_no_more_samples_go_than_there_is_want_of_room(journals: Journals) -> None:
    spill, put = spill_of(journals, room=4_000), 0
    while not spill.samples_dropped:
        assert spill.put([batch(1, at=START + put * MINUTE, events=1)], now=START)
        put += 1
    kept = sum(len(each.samples) for each, _ in replayed(spill))
    assert (kept, put > 15) == (put - spill.samples_dropped, True)
    assert put // 3 < kept < put


def test_counts_that_have_no_room_are_refused_and_nothing_is_forgotten(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    spill = spill_of(journals, room=2_000)
    taken = 0
    while spill.put([batch(1, keys=10, at=START + taken * HOUR)], now=START):
        taken += 1
    assert not spill.put([batch(1, keys=10)], now=START)
    (told,) = [each for each in caplog.records if each.message == "usage.not_spilled"]
    assert (spill.failing, vars(told)["reason"]) == (True, "full")
    assert spill.size <= 2_000
    assert total(replayed(spill)) == taken > 1
    assert spill.put([batch(1)], now=START)
    assert spill.failing is False


def test_a_disk_that_takes_nothing_is_told_once(
    spill: Spill, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spill.put([batch(1)], now=START)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write", no_room)
        for _ in range(3):
            assert not spill.put([batch(2)], now=START)
    (told,) = [each for each in caplog.records if each.message == "usage.not_spilled"]
    assert told.__dict__["reason"] == "No space left on device"
    assert (spill.failing, spill.put([batch(4)], now=START)) == (True, True)
    assert spill.failing is False
    assert total(replayed(spill)) == 5


def test_a_folder_that_is_none_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    spill = spill_of(Journals(f"{tmp_path}/file/db-usage-"))
    spill.check()
    assert (spill.failing, events(caplog)) == (True, ["usage.not_spilled"])
    assert vars(caplog.records[0])["where"] == f"{tmp_path}/file/db-usage-"
    assert not spill.put([batch(1)], now=START)
    spill.adopt(START)
    assert (spill.waiting, spill.close()) == (0, None)
    fine = spill_of(Journals(f"{tmp_path}/db-usage-"))
    fine.check()
    assert not fine.failing


# --- what cannot be read ----------------------------------------------------------------------


def test_what_is_too_old_to_know_is_left_and_told_once(
    journals: Journals, caplog: pytest.LogCaptureFixture
) -> None:
    assert OLDEST_MS < KEPT_MS
    dead, spill = spill_of(journals), spill_of(journals)
    dead.put([batch(1)], now=START)
    died(dead)
    for _ in range(2):
        spill.adopt(START + OLDEST_MS + 1)
        assert spill.waiting == 0
    assert events(caplog).count("usage.journal_too_old") == 1
    spill.adopt(START + OLDEST_MS)
    assert total(replayed(spill)) == 1


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_records_that_are_no_batches_are_set_aside(
    journals: Journals, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    spill = spill_of(journals)
    if whose == "ours":
        spill.put([batch(1)], now=START)
        assert spill._own is not None
        spill._own.replace([b"\xc1"])
    else:
        theirs = journals.open()
        theirs.append([b"\xc1"])
        os.close(theirs._file)
        spill.adopt(START)
    assert spill.waiting == 1
    assert spill.first() is None
    assert spill.waiting == 0
    (told,) = [each for each in caplog.records if each.message == "usage.journal_unreadable"]
    assert vars(told)["reason"]
    (left,) = Path(journals.prefix).parent.iterdir()
    assert left.name.endswith(".unreadable")
    assert spill.put([batch(2)], now=START)
    assert total(replayed(spill)) == 2


def test_what_cannot_be_read_hides_nothing_that_can(journals: Journals) -> None:
    spill = spill_of(journals)
    for payload in (b"\xc1", msgspec.msgpack.encode(batch(1)), b"\xc1"):
        theirs = journals.open()
        theirs.append([payload])
        os.close(theirs._file)
    spill.adopt(START)
    spill.put([batch(2)], now=START)
    assert spill.waiting == 4
    assert total(replayed(spill)) == 3


def test_one_that_is_gone_cannot_be_set_aside(
    spill: Spill, caplog: pytest.LogCaptureFixture
) -> None:
    spill.put([batch(1)], now=START)
    own = spill._own
    assert own is not None
    os.unlink(own.path)
    os.pwrite(own._file, b"x", 20)
    assert spill.first() is None
    assert spill.waiting == 0
    assert vars(caplog.records[-1])["file"] == own.path


def test_a_journal_that_cannot_be_emptied_is_told(
    spill: Spill, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spill.put([batch(1)], now=START)
    found = spill.first()
    assert found is not None

    def broken(_: Journal) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Journal, "drop_first", broken)
    assert spill.settle(found[0]) is False
    assert spill.failing


def test_a_folder_that_cannot_be_read_is_told(
    spill: Spill, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Journals) -> list[Journal]:
        raise OSError("gone")

    monkeypatch.setattr(Journals, "left", broken)
    spill.adopt(START)
    assert events(caplog) == ["usage.left_unread"]
    assert vars(caplog.records[0])["reason"] == "gone"


def test_what_happens_is_told(spill: Spill, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spill.put([batch(1)], now=START)
    spill.put([batch(1)], now=START)
    replayed(spill)
    assert events(caplog) == ["usage.spilled", "usage.replayed"]


def test_a_journal_that_took_nothing_hides_none_that_has_something(
    spill: Spill, journals: Journals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Journal, _payloads: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr(Journal, "append", full)
        assert not spill.put([batch(1)], now=START)
    assert spill.first() is None
    assert spill.size == 0
    left = spill_of(journals)
    assert left.put([batch(2)], now=START)
    died(left)
    spill.adopt(START)
    assert total(replayed(spill)) == 2


def test_where_nothing_could_be_put_nothing_is_left(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Journal, _payloads: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    assert not spill.put([batch(1)], now=START)
    assert spill.close() is None
