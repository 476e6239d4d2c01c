"""One process serves a database; whoever takes over knows whether the one before has let go."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from keybearer.adapters.sql import coherence
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.serving import Claim, FileLock
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Transaction
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
    assert not await lock.check()
    assert await lock.check()
    assert await rival.held_elsewhere()

    lose_lock(f"sqlite:///{path}", None)
    await rival.acquire()
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process has it"):
            await lock.check()
    await rival.release()
    assert not await lock.check()
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
    assert await lock.check()
    folder.rename(tmp_path / "old")
    new.rename(folder)
    with pytest.raises(Unavailable, match="replaced"):
        await lock.check()
    assert not os.listdir(folder)
    await lock.release()
    await database.close()


# --- the name beside the lock, on both databases --------------------------------------------


class Process:
    """One that claims to serve, and remembers what it was told."""

    def __init__(self, url: str) -> None:
        self.database, self.lock = open_database(url)
        self.claim = Claim(self.database, self.lock)
        self.told: list[bool] = []

    def taken_over(self, *, contested: bool) -> None:
        self.told.append(contested)

    async def take(self) -> None:
        await self.claim.take(self.taken_over)

    async def ensure(self) -> None:
        await self.database.write(self.claim.ensure)

    async def crash(self) -> None:
        """The lock goes with the process, and no last word is said."""
        await self.lock.release()


@pytest.fixture
async def processes(ready_url: str) -> AsyncIterator[list[Process]]:
    made = [Process(ready_url) for _ in range(2)]
    yield made
    for each in made:
        await each.claim.leave()
        await each.database.close()


@pytest.fixture
def server(request: pytest.FixtureRequest, ready_url: str) -> PostgresServer | None:
    if ready_url.startswith("sqlite"):
        return None
    found: PostgresServer = request.getfixturevalue("postgres_server")
    return found


async def test_a_claim_is_seen_until_it_is_left(processes: list[Process]) -> None:
    first, second = processes
    assert not await coherence.is_served(second.database)
    await first.take()
    assert await coherence.is_served(second.database)
    with pytest.raises(Misuse, match="already serves"):
        await second.take()
    await second.claim.leave()
    assert await coherence.is_served(second.database)
    await first.claim.leave()
    assert not await coherence.is_served(second.database)
    await second.take()
    assert (first.told, second.told) == ([False], [False])


async def test_who_ended_without_a_word_may_still_answer(processes: list[Process]) -> None:
    first, second = processes
    await first.take()
    await first.crash()
    assert await coherence.is_served(second.database)
    await second.take()
    assert second.told == [True]


async def test_a_lock_that_was_lost_to_nobody_makes_nobody_wait(
    processes: list[Process], ready_url: str, server: PostgresServer | None
) -> None:
    first, _ = processes
    await first.take()
    epoch = await first.claim.read_epoch()
    assert first.told == [False]
    lose_lock(ready_url, server)
    assert await first.claim.read_epoch() == epoch
    assert first.told == [False, False]
    await first.ensure()


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_lock_that_another_had_meanwhile_is_told_of(
    processes: list[Process], ready_url: str, server: PostgresServer | None, orderly: bool
) -> None:
    first, second = processes
    await first.take()
    lose_lock(ready_url, server)
    await second.take()
    assert second.told == [True]
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process has it"):
            await first.claim.read_epoch()
        with pytest.raises(Unavailable, match="not serve"):
            await first.ensure()
    await second.ensure()
    await (second.claim.leave() if orderly else second.crash())
    with pytest.raises(Unavailable, match="not serve"):
        await first.ensure()
    await first.claim.read_epoch()
    assert first.told == [False, not orderly]
    await first.ensure()


async def test_who_serves_a_file_without_its_name_is_seen_by_the_lock(
    processes: list[Process],
) -> None:
    first, second = processes
    assert not await second.claim.somebody_serves()
    await first.take()
    await coherence.let_go(second.database, first.claim._name)  # a backup from before, say
    assert await second.claim.somebody_serves()
    await first.claim.leave()
    assert not await second.claim.somebody_serves()


async def test_a_name_that_was_overwritten_is_written_again(processes: list[Process]) -> None:
    first, second = processes
    await first.take()
    assert await coherence.claim(second.database, "somebody") is not None  # a restore, say
    await first.claim.read_epoch()
    assert first.told == [False, True]
    await first.ensure()


async def test_who_only_looks_keeps_nobody_from_serving(processes: list[Process]) -> None:
    first, second = processes
    await second.lock.acquire()

    async def look_away() -> None:
        await asyncio.sleep(0.05)
        await second.lock.release()

    looking = asyncio.create_task(look_away())
    await first.take()
    await looking


async def test_taking_over_waits_for_the_changes_that_are_under_way(
    processes: list[Process], ready_url: str
) -> None:
    if ready_url.startswith("sqlite"):
        return  # there every write waits for the one before
    first, second = processes
    await first.take()
    ensured, go = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def body(tx: Transaction) -> None:
        await first.claim.ensure(tx)
        ensured.set()
        await go.wait()
        order.append("changed")

    changing = asyncio.create_task(first.database.write(body))
    await ensured.wait()
    await first.crash()
    taking = asyncio.create_task(second.take())
    await asyncio.sleep(0.2)
    assert not taking.done()
    go.set()
    await changing
    await taking
    order.append("taken over")
    assert order == ["changed", "taken over"]
