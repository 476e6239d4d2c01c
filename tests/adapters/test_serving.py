"""Who may serve a database: one process alone, or many that share it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.serving import FileLock, ServingLock
from keybearer.domain.errors import Misuse, Unavailable
from tests.servers import PostgresServer
from tests.takeover import lose_lock

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
    await first.check()
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
    assert not os.listdir(tmp_path)
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


async def test_a_deleted_lock_file_is_a_lost_lock_that_is_taken_again(tmp_path: Path) -> None:
    path = str(tmp_path / "keybearer.db")
    lock, rival = FileLock(path), FileLock(path)
    await lock.acquire()
    lose_lock(f"sqlite:///{path}", None)
    await lock.check()
    await lock.check()
    assert await rival.held_elsewhere()

    lose_lock(f"sqlite:///{path}", None)
    await rival.acquire()
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process has it"):
            await lock.check()
    await rival.release()
    await lock.check()
    await lock.release()


async def test_a_lock_file_whose_folder_is_gone_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lock = FileLock(str(folder / "keybearer.db"))
    await lock.acquire()
    (folder / "keybearer.db-serving").unlink()
    folder.rmdir()
    with pytest.raises(Unavailable, match="cannot be written"):
        await lock.check()


async def test_the_lock_of_a_file_that_was_replaced_is_lost_and_not_taken_anew(
    tmp_path: Path,
) -> None:
    folder, new = tmp_path / "data", tmp_path / "new"
    for each in (folder, new):
        each.mkdir()
    database, lock = open_database(f"sqlite:///{folder}/keybearer.db")
    await lock.acquire()
    await database.read(lambda tx: tx.one(text("SELECT 1")))
    await lock.check()
    folder.rename(tmp_path / "old")
    new.rename(folder)
    with pytest.raises(Unavailable, match="replaced"):
        await lock.check()
    assert not os.listdir(folder)
    await lock.release()
    await database.close()


# --- alone, or shared, on both databases ----------------------------------------------------


@pytest.fixture
async def locks(ready_url: str) -> AsyncIterator[dict[str, ServingLock]]:
    opened = {
        name: open_database(ready_url, shared=name != "alone")
        for name in ("alone", "shared", "shared too")
    }
    yield {name: lock for name, (_, lock) in opened.items()}
    for database, lock in opened.values():
        await lock.release()
        await database.close()


async def test_many_that_share_may_serve_and_nobody_alone_beside_them(
    locks: dict[str, ServingLock],
) -> None:
    await locks["shared"].acquire()
    await locks["shared too"].acquire()
    await locks["shared"].check()
    assert await locks["alone"].held_elsewhere()
    with pytest.raises(Misuse, match="already serves"):
        await locks["alone"].acquire()
    await locks["shared"].release()
    await locks["shared too"].release()
    assert not await locks["alone"].held_elsewhere()
    await locks["alone"].acquire()
    with pytest.raises(Misuse, match="without Redis"):
        await locks["shared"].acquire()


async def test_who_only_looks_keeps_nobody_from_serving(locks: dict[str, ServingLock]) -> None:
    await locks["alone"].acquire()

    async def look_away() -> None:
        await asyncio.sleep(0.05)
        await locks["alone"].release()

    looking = asyncio.create_task(look_away())
    await locks["shared"].acquire()
    await looking


@pytest.mark.parametrize("other", ["alone", "shared"])
async def test_a_lost_lock_is_taken_again_unless_another_one_has_it(
    locks: dict[str, ServingLock], ready_url: str, server: PostgresServer | None, other: str
) -> None:
    mine, rival = locks["shared too"], locks[other]
    await mine.acquire()
    lose_lock(ready_url, server)
    await mine.check()
    lose_lock(ready_url, server)
    await rival.acquire()
    if other == "shared":
        await mine.check()
    else:
        for _ in range(2):
            with pytest.raises(Unavailable, match="another process has it"):
                await mine.check()
        await rival.release()
        await mine.check()


@pytest.fixture
def server(request: pytest.FixtureRequest, ready_url: str) -> PostgresServer | None:
    if ready_url.startswith("sqlite"):
        return None
    found: PostgresServer = request.getfixturevalue("postgres_server")
    return found
