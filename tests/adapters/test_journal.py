"""A journal is whole or not there: through torn ends, full disks and processes that die."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybearer.adapters import journal as module
from keybearer.adapters.journal import Journal, Journals, beside, size_of, within


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(str(tmp_path / "spill" / "db-usage-"))


def died(journal: Journal) -> None:
    """As the kernel leaves it: its lock is free, and nothing was tidied up."""
    os.close(journal._file)


def left(journals: Journals) -> list[list[bytes]]:
    found = list(journals.left())
    told = [list(each.all()) for each in found]
    for each in found:
        died(each)
    return told


def names(journals: Journals) -> list[str]:
    return sorted(os.listdir(os.path.dirname(journals.prefix)))


def test_records_come_out_in_the_order_they_went_in(journals: Journals) -> None:
    own = journals.open()
    assert own.first() is None
    own.append([b"one", b""])
    own.append([b"three"])
    assert (own.records, list(own.all())) == (3, [b"one", b"", b"three"])
    assert own.size == 8 + size_of([b"one", b"", b"three"])
    taken = []
    for _ in range(2):
        taken.append(own.first())
        assert own.drop_first() is False
    assert (taken, own.first(), list(own.all())) == ([b"one", b""], b"three", [b"three"])
    own.append([b"four"])
    assert own.drop_first() is False
    assert own.drop_first() is True
    assert (own.first(), own.records, own.size, Path(own.path).stat().st_size) == (None, 0, 8, 8)
    own.append([b"five"])
    assert own.first() == b"five"
    own.close()
    assert left(journals) == [[b"five"]]


def test_files_and_folder_are_this_users_alone(journals: Journals) -> None:
    own = journals.open()
    assert Path(own.path).stat().st_mode & 0o777 == 0o600
    assert Path(own.path).parent.stat().st_mode & 0o777 == 0o700
    own.close()


def test_an_empty_one_goes_away(journals: Journals) -> None:
    journals.open().close()
    assert names(journals) == []
    own = journals.open()
    os.unlink(own.path)  # somebody else was faster
    own.close()


def test_what_a_living_process_has_is_not_taken(journals: Journals) -> None:
    own = journals.open()
    own.append([b"mine"])
    assert left(journals) == []
    died(own)
    assert left(journals) == [[b"mine"]]
    (taken,) = journals.left()
    assert left(journals) == []  # it is ours now
    assert taken.drop_first() is True
    taken.close()
    assert names(journals) == []


def test_a_process_that_is_killed_leaves_its_records(journals: Journals) -> None:
    program = (
        "import os, signal, sys\n"
        "from keybearer.adapters.journal import Journals\n"
        "own = Journals(sys.argv[1]).open()\n"
        "own.append([b'one', b'two'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, journals.prefix], check=False)
    assert done.returncode == -9
    assert left(journals) == [[b"one", b"two"]]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_record_is_ignored(journals: Journals, cut: int) -> None:
    own = journals.open()
    own.append([b"one", b"two"])
    os.ftruncate(own._file, own.size - cut)
    died(own)
    (taken,) = journals.left()
    whole = [b"one", b"two"] if cut == 0 else [b"one"]
    assert (list(taken.all()), taken.records) == (whole, 1)
    assert taken.torn == max(0, 11 - cut)
    taken.append([b"three"])
    died(taken)
    assert left(journals) == [[b"one", b"three"]]


def test_a_record_with_other_bytes_is_none(journals: Journals) -> None:
    own = journals.open()
    own.append([b"one", b"two", b"three"])
    os.pwrite(own._file, b"x", 8 + size_of([b"one"]) + 8)
    with pytest.raises(OSError, match="damaged"):
        list(own.all())
    own.drop_first()
    with pytest.raises(OSError, match="damaged"):
        own.first()
    died(own)
    assert left(journals) == [[b"one"]]


def test_other_records_take_the_place_of_all_at_once(journals: Journals) -> None:
    own = journals.open()
    own.append([b"one", b"two"])
    own.drop_first()
    own.replace([b"both"])
    assert (list(own.all()), own.records, own.size) == ([b"both"], 1, 8 + size_of([b"both"]))
    own.append([b"three"])
    assert left(journals) == []  # the lock goes with it
    assert len(names(journals)) == 1
    died(own)
    assert left(journals) == [[b"both", b"three"]]


def test_what_was_being_put_in_the_place_of_others_is_forgotten(journals: Journals) -> None:
    own = journals.open()
    own.append([b"one"])
    Path(own.path + ".new").write_bytes(b"kbusage1....")
    assert left(journals) == []
    assert names(journals) == [os.path.basename(own.path)]
    died(own)


@pytest.fixture
def full(journals: Journals) -> Iterator[Journal]:
    """One on a disk where no file may grow beyond 64 bytes."""
    own = journals.open()
    own.append([b"one"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    yield own
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    died(own)


def test_what_a_full_disk_does_not_take_is_not_there(full: Journal, journals: Journals) -> None:
    with pytest.raises(OSError, match="File too large") as raised:
        full.append([b"two", b"x" * 100])
    assert raised.value.errno == errno.EFBIG
    assert (list(full.all()), Path(full.path).stat().st_size) == ([b"one"], full.size)
    with pytest.raises(OSError, match="File too large"):
        full.replace([b"y" * 100])
    assert list(full.all()) == [b"one"]
    assert names(journals) == [os.path.basename(full.path)]
    full.append([b"two"])
    assert list(full.all()) == [b"one", b"two"]


def test_a_new_one_on_a_full_disk_is_an_error(
    journals: Journals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", no_room)
    with pytest.raises(OSError, match="No space"):
        journals.open()


@pytest.mark.parametrize("replaced", [False, True])
def test_one_that_is_taken_away_while_it_is_made_is_not_used(
    journals: Journals, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    def taken(file: int, how: int) -> None:
        (path,) = (Path(journals.prefix).parent).iterdir()
        path.rename(f"{path}.away")
        if replaced:
            path.touch()

    monkeypatch.setattr(fcntl, "flock", taken)
    with pytest.raises(FileNotFoundError):
        journals.open()


def test_what_cannot_be_read_is_set_aside(journals: Journals) -> None:
    own = journals.open()
    own.append([b"one"])
    aside = own.set_aside()
    assert names(journals) == [os.path.basename(aside)]
    assert left(journals) == []


def test_what_is_not_ours_is_left_alone(journals: Journals, tmp_path: Path) -> None:
    journals.check()
    for end, content in (("a", b"another program's"), ("b", b""), ("c", b"kbus")):
        Path(journals.prefix + end).write_bytes(content)
    os.symlink("/etc/passwd", journals.prefix + "d")
    os.mkdir(journals.prefix + "e")
    os.symlink("nowhere", journals.prefix + "f")
    (tmp_path / "spill" / "another-usage-x").write_bytes(b"kbusage1")
    assert left(journals) == [[], []]  # killed before it had written how it begins


def test_there_need_be_no_folder(journals: Journals) -> None:
    assert left(journals) == []
    own = journals.open()
    own.append([b"one"])
    found = journals.left()
    died(own)
    assert [list(each.all()) for each in found] == [[b"one"]]


def test_a_private_folder_must_be_private(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    private = Journals(f"{folder}/db-usage-", private=True)
    private.check()
    private.check()
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="not this user's alone"):
        private.check()
    Journals(private.prefix).check()  # where the operator chose it, the operator knows
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not this user's alone"):
        private.check()


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(PermissionError, match="cannot be written"):
        Journals(f"{tmp_path}/db-usage-").check()


def test_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    assert beside(str(link)).prefix == f"{tmp_path.resolve()}/real.db-usage-"
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    ours = f"/var/tmp/keybearer-{os.geteuid()}"  # noqa: S108 -- it is not used here
    assert within(None, "pg-1").prefix == f"{ours}/pg-1-usage-"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/keybearer:/var/lib/other")
    assert within(None, "pg-1").prefix == "/var/lib/keybearer/pg-1-usage-"
    assert within("/spill", "pg-1").prefix == "/spill/pg-1-usage-"
    monkeypatch.chdir(tmp_path)
    assert within("spill", "pg-1").prefix == f"{tmp_path}/spill/pg-1-usage-"
