"""One process serves a SQLite file; the kernel ends the lock with the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from keybearer.adapters.sql.serving import FileLock
from keybearer.domain.errors import Misuse

HOLDER = """
import asyncio, sys
from keybearer.adapters.sql.serving import FileLock
asyncio.run(FileLock(sys.argv[1]).acquire())
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_second_lock_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    path = str(tmp_path / "keybearer.db")
    first, second = FileLock(path), FileLock(path)
    assert not await first.held_elsewhere()
    await first.acquire()
    assert await first.check()
    assert not await first.held_elsewhere()
    assert await second.held_elsewhere()
    with pytest.raises(Misuse, match="already serves"):
        await second.acquire()
    await first.release()
    await first.release()
    await second.acquire()
    await second.release()


async def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "keybearer.db"))
    assert not await lock.held_elsewhere()
    await FileLock(str(tmp_path / "keybearer.db")).acquire()


def test_the_lock_file_is_private(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "keybearer.db"))
    assert lock._take()
    assert (tmp_path / "keybearer.db-serving").stat().st_mode & 0o777 == 0o600


def hold(path: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


async def test_another_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "keybearer.db")
    with hold(path) as holder:
        lock = FileLock(path)
        with pytest.raises(Misuse):
            await lock.acquire()
        holder.kill()
    await lock.acquire()
    await lock.release()
