"""Many writes in one commit, each for itself; a lost file is Unavailable, never an answer."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as driver
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from keybearer.adapters.sql import sqlite as module
from keybearer.adapters.sql.sqlite import SqliteDatabase
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Body, Transaction

_ADD = text("INSERT INTO things (id) VALUES (:id)")
_COUNT = text("SELECT count(*) AS n FROM things")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(str(tmp_path / "keybearer.db"))

    async def create(tx: Transaction) -> None:
        await tx.run(text("CREATE TABLE things (id TEXT PRIMARY KEY)"))

    await opened.write(create)
    yield opened
    await opened.close()


def adding(id: str) -> Body[str]:
    async def body(tx: Transaction) -> str:
        await tx.run(_ADD, id=id)
        return id

    return body


async def count(tx: Transaction) -> int:
    row = await tx.one(_COUNT)
    assert row is not None
    return int(row.n)


ASK = """
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)  # SQLite's shared range
    except OSError:
        print("locked")
"""


async def test_opening_a_file_twice_leaves_its_locks(database: SqliteDatabase) -> None:
    # Without them another process believes to be the last one, and deletes the log under us.
    assert await database.read(count) == 0
    second = SqliteDatabase(database.path)
    ask = [sys.executable, "-c", ASK, database.path]
    done = await asyncio.to_thread(subprocess.run, ask, capture_output=True, check=True)
    assert done.stdout == b"locked\n", done.stderr
    await second.close()


async def test_a_folder_and_a_file_of_two_names_are_refused(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    with pytest.raises(Misuse, match="Is a directory"):
        SqliteDatabase(str(tmp_path))
    os.link(database.path, tmp_path / "other.db")
    with pytest.raises(Misuse, match="has 2 names"):
        SqliteDatabase(database.path)


class Commits:
    """Counts what the writer says to the file."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.said: list[str] = []
        event.listen(database.engine, "before_cursor_execute", self._hear)

    def _hear(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.said.append(statement)


class Held:
    """A body that keeps the writer busy until it is let go, so that others queue behind it."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    async def __call__(self, tx: Transaction) -> None:
        self.begun.set()
        assert self.go.wait(10)

    async def busy(self, database: SqliteDatabase) -> "asyncio.Task[None]":
        task = asyncio.create_task(database.write(self))
        await asyncio.to_thread(self.begun.wait, 10)
        return task


async def test_a_new_file_that_another_process_begins_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "keybearer.db")
    other = driver.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # its file is no WAL yet
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 50)
    with pytest.raises(OperationalError, match="locked"):
        module.connect_engine(path).connect()
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 5_000)
    ending = threading.Timer(0.3, other.execute, ["COMMIT"])
    ending.start()
    with module.connect_engine(path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    ending.join()
    other.close()


async def test_what_was_written_is_read(database: SqliteDatabase) -> None:
    assert await database.write(adding("a")) == "a"
    assert await database.read(count) == 1


async def test_a_transaction_gives_rows_counts_and_many(database: SqliteDatabase) -> None:
    async def body(tx: Transaction) -> tuple[int, list[str], bool]:
        await tx.run_many(_ADD, [{"id": "a"}, {"id": "b"}])
        await tx.run_many(_ADD, [])
        changed = await tx.run(text("DELETE FROM things WHERE id = :id"), id="a")
        rows = await tx.all(text("SELECT id FROM things"))
        return changed, [row.id for row in rows], await tx.one(_COUNT.columns()) is None

    assert await database.write(body) == (1, ["b"], False)


async def test_many_writes_share_one_commit(database: SqliteDatabase) -> None:
    held = Held()
    first = await held.busy(database)
    heard = Commits(database)
    writes = [asyncio.create_task(database.write(adding(str(n)))) for n in range(50)]
    await asyncio.sleep(0.05)
    held.go.set()
    assert await asyncio.gather(*writes) == [str(n) for n in range(50)]
    await first
    assert heard.said.count("COMMIT") == 2  # the first one's, and one for all fifty
    assert await database.read(count) == 50


async def test_a_group_has_an_end(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP", 10)
    held = Held()
    first = await held.busy(database)
    heard = Commits(database)
    writes = [asyncio.create_task(database.write(adding(str(n)))) for n in range(25)]
    await asyncio.sleep(0.05)
    held.go.set()
    await asyncio.gather(first, *writes)
    assert heard.said.count("COMMIT") == 4


async def test_what_the_right_to_answer_depends_on_is_written_before_all_that_wait(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP", 1)
    held, written = Held(), list[str]()
    busy = await held.busy(database)

    def telling(id: str) -> Body[None]:
        async def body(tx: Transaction) -> None:
            await tx.run(_ADD, id=id)
            written.append(id)

        return body

    waiting = [asyncio.create_task(database.write(telling(id))) for id in "abc"]
    await asyncio.sleep(0.01)
    first = [asyncio.create_task(database.write(telling(id), first=True)) for id in "12"]
    await asyncio.sleep(0.01)
    assert database.busy == 5
    held.go.set()
    await asyncio.gather(busy, *waiting, *first)
    assert written == ["1", "2", "a", "b", "c"]


@pytest.mark.parametrize(
    "raised", [ValueError("mine"), Unavailable("mine"), asyncio.CancelledError(), SystemExit(3)]
)
async def test_a_body_that_raises_takes_back_its_own_changes_alone(
    database: SqliteDatabase, raised: BaseException
) -> None:
    async def failing(tx: Transaction) -> None:
        await tx.run(_ADD, id="mine")
        raise raised

    held = Held()
    first = await held.busy(database)
    before = asyncio.create_task(database.write(adding("a")))
    bad = asyncio.create_task(database.write(failing))
    after = asyncio.create_task(database.write(adding("b")))
    await asyncio.sleep(0.05)
    held.go.set()
    await asyncio.gather(first, before, after)
    (outcome,) = await asyncio.gather(bad, return_exceptions=True)
    assert type(outcome) in {type(raised), Unavailable}
    assert await database.read(count) == 2
    assert await database.write(adding("c")) == "c"


async def test_a_broken_constraint_is_the_callers(database: SqliteDatabase) -> None:
    await database.write(adding("a"))
    with pytest.raises(IntegrityError):
        await database.write(adding("a"))
    with pytest.raises(IntegrityError):
        await database.read(adding("a"))
    assert await database.read(count) == 1


async def test_a_body_may_go_on_after_a_broken_constraint(database: SqliteDatabase) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        with pytest.raises(IntegrityError):
            await tx.run(_ADD, id="a")
        await tx.run(_ADD, id="b")

    await database.write(body)
    assert await database.read(count) == 2


async def test_a_write_whose_caller_goes_away_is_committed(database: SqliteDatabase) -> None:
    held = Held()
    first = await held.busy(database)
    write = asyncio.create_task(database.write(adding("a")))
    await asyncio.sleep(0.05)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    held.go.set()
    await first
    await database.write(adding("b"))
    assert await database.read(count) == 2


async def test_closing_finishes_the_writes_that_wait(tmp_path: Path) -> None:
    path = tmp_path / "closing.db"
    database = SqliteDatabase(str(path))
    await database.write(lambda tx: tx.run(text("CREATE TABLE things (id TEXT PRIMARY KEY)")))
    held = Held()
    first = await held.busy(database)
    writes = [asyncio.create_task(database.write(adding(str(n)))) for n in range(200)]
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0.05)
    held.go.set()
    await closing
    assert len(await asyncio.gather(first, *writes)) == 201
    again = SqliteDatabase(str(path))
    assert await again.read(count) == 200
    await again.close()


async def test_a_closed_database_is_unavailable(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "closed.db"))
    await database.close()
    await database.close()
    with pytest.raises(Unavailable, match="closed"):
        await database.write(count)
    with pytest.raises(Unavailable, match="closed"):
        await database.read(count)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "private.db"
        database = SqliteDatabase(str(path))
        await database.write(lambda tx: tx.run(text("CREATE TABLE things (id TEXT)")))
        files = modes(tmp_path)
        await database.close()
    finally:
        os.umask(before)
    assert files == {"private.db": 0o600, "private.db-wal": 0o600, "private.db-shm": 0o600}


def test_a_file_that_cannot_be_written_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be written"):
        SqliteDatabase(str(tmp_path / "missing" / "keybearer.db"))
    with pytest.raises(Misuse, match="cannot be written"):
        SqliteDatabase(str(tmp_path))


def test_a_sqlite_that_can_lose_commits_is_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(Misuse, match="WAL-reset"):
        SqliteDatabase(str(tmp_path / "old.db"))


async def test_the_file_is_durable_and_holds_to_its_keys(database: SqliteDatabase) -> None:
    async def body(tx: Transaction) -> list[Any]:
        values = []
        for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete"):
            row: Any = await tx.one(text(f"PRAGMA {name}"))
            values.append(row[0])
        return values

    assert await database.read(body) == ["wal", 2, 1, 1]
    assert await database.write(body) == ["wal", 2, 1, 1]


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_body_that_awaits_something_else_is_a_bug_and_is_closed(
    database: SqliteDatabase, way: str
) -> None:
    ended: list[str] = []

    async def body(tx: Transaction) -> None:
        await tx.one(_COUNT)
        try:
            await asyncio.sleep(0)
        except GeneratorExit:
            ended.append("closed")
            raise

    with pytest.raises(RuntimeError, match="awaits nothing but its transaction") as caught:
        await getattr(database, way)(body)
    assert ended == ["closed"]
    del caught
    gc.collect()  # no coroutine is left to warn of
    assert await database.write(adding("a")) == "a"


async def test_a_body_that_makes_a_bug_stays_a_bug(database: SqliteDatabase) -> None:
    async def body(_tx: Transaction) -> None:
        raise KeyError("x")

    for way in (database.read, database.write):
        with pytest.raises(KeyError):
            await way(body)


async def test_reads_do_not_see_what_is_not_committed(database: SqliteDatabase) -> None:
    wrote, go = threading.Event(), threading.Event()

    async def slow(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        wrote.set()
        assert go.wait(10)

    write = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(wrote.wait, 10)
    assert await database.read(count) == 0
    go.set()
    await write
    assert await database.read(count) == 1


async def test_a_read_is_of_one_moment(database: SqliteDatabase) -> None:
    other = SqliteDatabase(database.path)
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    async def twice(tx: Transaction) -> None:
        seen.append(await count(tx))
        asyncio.run_coroutine_threadsafe(other.write(adding("a")), loop).result(10)
        seen.append(await count(tx))

    await asyncio.to_thread(lambda: asyncio.run(_read(database, twice)))
    assert seen == [0, 0]
    assert await database.read(count) == 1
    await other.close()


async def _read(database: SqliteDatabase, body: Body[Any]) -> Any:
    return await database.read(body)


async def test_threads_read_beside_each_other(database: SqliteDatabase) -> None:
    for number in range(5):
        await database.write(adding(str(number)))

    def reads() -> list[int]:
        return [asyncio.run(_read(database, count)) for _ in range(20)]

    results = await asyncio.gather(*(asyncio.to_thread(reads) for _ in range(4)))
    assert {n for result in results for n in result} == {5}


async def test_what_a_read_writes_is_taken_back(database: SqliteDatabase) -> None:
    await database.read(adding("a"))
    assert await database.read(count) == 0


LOCKER = """
import sys, pysqlite3.dbapi2 as driver
connection = driver.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
connection.close()
"""


def lock(path: str) -> subprocess.Popen[bytes]:
    """Another process, which holds the file until its stdin is closed."""
    command = [sys.executable, "-c", LOCKER, path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_locked_file_is_unavailable_after_the_busy_timeout_and_recovers(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 100)
    waiting = SqliteDatabase(database.path)
    await waiting.write(adding("a"))
    locker = lock(database.path)
    assert locker.stdout is not None
    assert locker.stdin is not None
    assert await asyncio.to_thread(locker.stdout.readline) == b"locked\n"
    begun = time.monotonic()
    outcomes = await asyncio.gather(
        *(waiting.write(adding(str(n))) for n in range(5)), return_exceptions=True
    )
    assert time.monotonic() - begun < 5
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert await waiting.read(count) == 1  # readers wait for nobody
    locker.stdin.close()
    locker.stdout.close()
    assert await asyncio.to_thread(locker.wait, 10) == 0
    assert await waiting.write(adding("b")) == "b"
    assert await waiting.read(count) == 2
    await waiting.close()


async def test_a_full_disk_is_unavailable_and_takes_nothing_along(
    database: SqliteDatabase,
) -> None:
    pages: Any = await database.read(lambda tx: tx.one(text("PRAGMA page_count")))

    async def full(tx: Transaction) -> None:
        await tx.one(text(f"PRAGMA max_page_count = {pages[0] + 2}"))

    async def big(tx: Transaction) -> None:
        for number in range(100):
            await tx.run(_ADD, id=f"{number}" + "x" * 4000)

    await database.write(full)
    small = asyncio.create_task(database.write(adding("small")))
    with pytest.raises(Unavailable, match="full"):
        await database.write(big)
    # What was in the same group either committed or failed; it is never half there.
    (outcome,) = await asyncio.gather(small, return_exceptions=True)
    assert await database.read(count) == (1 if outcome == "small" else 0)
    assert isinstance(outcome, Unavailable) or outcome == "small"
    assert await database.write(adding("after")) == "after"


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "noise.db"
    path.write_bytes(b"not a database at all" * 500)
    database = SqliteDatabase(str(path))
    for way in (database.read, database.write):
        with pytest.raises(Unavailable):
            await way(count)
    await database.close()


async def test_a_lost_table_is_unavailable_and_the_reader_recovers(
    database: SqliteDatabase,
) -> None:
    async def wrong(tx: Transaction) -> None:
        await tx.one(text("SELECT * FROM nothing"))

    for way in (database.read, database.write):
        with pytest.raises(Unavailable, match="nothing"):
            await way(wrong)
    assert await database.read(count) == 0


def test_who_no_longer_waits_is_not_told(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "left.db"))
    held = Held()

    async def leave() -> None:
        task = asyncio.ensure_future(database.write(held))
        await asyncio.to_thread(held.begun.wait, 10)
        task.cancel()

    asyncio.run(leave())
    held.go.set()  # its loop is closed by now

    async def go_on() -> None:
        await database.write(lambda tx: tx.run(text("CREATE TABLE things (id TEXT)")))
        await database.close()

    asyncio.run(go_on())


# --- the file is not there any more --------------------------------------------------------------


def replace(path: Path) -> None:
    backup = path.with_name("backup.db")
    with contextlib.closing(driver.connect(str(path))) as connection:
        connection.execute(f"VACUUM INTO '{backup}'")
    backup.rename(path)


def delete(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def delete_index(path: Path) -> None:
    Path(f"{path}-shm").unlink()


@pytest.mark.parametrize("lose", [replace, delete, delete_log, delete_index])
async def test_a_file_that_is_lost_is_unavailable_and_stays_so(
    database: SqliteDatabase, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    await database.write(adding("a"))
    lose(Path(database.path))
    for _ in range(2):
        with pytest.raises(Unavailable, match="deleted, moved or replaced"):
            await database.write(adding("b"))
        with pytest.raises(Unavailable, match="deleted, moved or replaced"):
            database.file.check_whole()
        if lose in (replace, delete):
            with pytest.raises(Unavailable, match="deleted, moved or replaced"):
                await database.read(count)
    # And none is made in its place.
    assert (Path(database.path).name in os.listdir(tmp_path)) == (lose is not delete)


async def test_a_file_that_comes_back_is_gone_on_with(database: SqliteDatabase) -> None:
    os.rename(database.path, f"{database.path}-away")
    with pytest.raises(Unavailable):
        await database.write(adding("a"))
    os.rename(f"{database.path}-away", database.path)
    await database.write(adding("b"))
    assert await database.read(count) == 1


async def test_a_commit_that_a_replacement_overtook_is_not_acknowledged(
    database: SqliteDatabase,
) -> None:
    held = Held()
    writing = await held.busy(database)
    replace(Path(database.path))
    held.go.set()
    with pytest.raises(Unavailable, match="replaced"):
        await writing


async def test_a_link_that_leads_elsewhere_is_a_lost_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "elsewhere")]
    for folder in folders:
        folder.mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(folders[0] / "keybearer.db")
    monkeypatch.chdir(tmp_path)
    database = SqliteDatabase("link.db")
    assert database.path == str(folders[0] / "keybearer.db")
    create = text("CREATE TABLE things (id TEXT PRIMARY KEY)")
    await database.write(lambda tx: tx.run(create))
    monkeypatch.chdir(folders[2])
    assert await database.read(count) == 0
    (folders[1] / "keybearer.db").touch()
    link.unlink()
    link.symlink_to(folders[1] / "keybearer.db")
    with pytest.raises(Unavailable, match="replaced"):
        await database.read(count)
    await database.close()


async def test_what_was_committed_before_its_log_was_deleted_is_written_back_at_the_end(
    database: SqliteDatabase,
) -> None:
    await database.write(adding("a"))
    delete_log(Path(database.path))
    await database.close()
    again = SqliteDatabase(database.path)
    assert await again.read(count) == 1
    await again.close()


async def test_a_log_that_was_begun_anew_while_nobody_had_it_open_is_no_loss(
    database: SqliteDatabase,
) -> None:
    await database.read(count)
    with pytest.raises(Unavailable):
        await database.read(lambda tx: tx.one(text("SELECT * FROM nothing")))
    with pytest.raises(Unavailable):
        await database.write(lambda tx: tx.one(text("SELECT * FROM nothing")))
    other = SqliteDatabase(database.path)
    await other.write(adding("a"))
    await other.close()
    assert await database.read(count) == 1
