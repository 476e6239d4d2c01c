"""A lost server is Unavailable and comes back without a restart of ours; so does the lock."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from keybearer.adapters.sql import advisory
from keybearer.adapters.sql import postgres as module
from keybearer.adapters.sql.advisory import AdvisoryLock
from keybearer.adapters.sql.database import migrate
from keybearer.adapters.sql.postgres import (
    POOL_SIZE,
    RESERVED,
    WRITERS,
    PostgresDatabase,
)
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Body, Transaction
from tests.attacks.line import Line
from tests.servers import PostgresServer, _as, _postgres_account, run_postgres, run_standby

_ADD = text("INSERT INTO things (id) VALUES (:id)")
_COUNT = text("SELECT count(*) AS n FROM things")
KILL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE application_name = 'keybearer' AND datname = '{}'"
)


@pytest.fixture
async def database(fresh_postgres: str) -> AsyncIterator[PostgresDatabase]:
    opened = PostgresDatabase(fresh_postgres)
    await opened.write(create)
    yield opened
    await opened.close()


async def create(tx: Transaction) -> None:
    await tx.run(text("CREATE TABLE things (id TEXT PRIMARY KEY)"))


def adding(id: str) -> Body[str]:
    async def body(tx: Transaction) -> str:
        await tx.run(_ADD, id=id)
        return id

    return body


async def count(tx: Transaction) -> int:
    row = await tx.one(_COUNT)
    assert row is not None
    return int(row.n)


def kill_sessions(server: PostgresServer, url: str) -> int:
    killed = int(server.execute(KILL.format(url.rpartition("/")[2])))
    time.sleep(0.05)
    return killed


@contextlib.contextmanager
def own_server() -> Iterator[tuple[PostgresServer, "Power"]]:
    with run_postgres() as server:
        power = Power(server)
        try:
            yield server, power
        finally:
            power.off()


class Power:
    """Turns a server of our own off and on again, on its port and with its data."""

    def __init__(self, server: PostgresServer) -> None:
        self._data = Path(server.execute("SHOW data_directory"))
        self._port = server.execute("SHOW port")
        self._programs = server._psql.parent
        self._process: subprocess.Popen[bytes] | None = None

    def off(self) -> None:
        file = self._data / "postmaster.pid"
        if file.exists():
            pid = int(file.read_text().split()[0])
            if self._process is None:
                subprocess.run(["kill", f"-{signal.SIGINT.value}", str(pid)], check=True)
            else:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(15)
            while file.exists():
                time.sleep(0.02)

    def on(self) -> None:
        command: list[str | Path] = [
            *_as(_postgres_account()),
            *(self._programs / "postgres", "-D", self._data, "-p", self._port),
            *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            *("-c", f"unix_socket_directories={self._data.parent}"),
        ]
        self._process = subprocess.Popen(
            command, cwd=self._data.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        probe = str(self._programs / "pg_isready")
        ready = [probe, "-q", "-h", "127.0.0.1", "-p", self._port]
        while subprocess.run(ready, check=False).returncode:
            time.sleep(0.02)


async def test_who_stands_still_in_a_transaction_holds_up_the_others_for_seconds_only(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    paused, well = (PostgresDatabase(fresh_postgres, shared=True) for _ in range(2))
    await well.write(create)
    has_the_row, goes_on = asyncio.Event(), asyncio.Event()

    async def stand_still(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        has_the_row.set()
        await goes_on.wait()

    standing = asyncio.create_task(paused.write(stand_still))
    await has_the_row.wait()
    assert await well.write(adding("a")) == "a"  # waits for the row, and gets it
    goes_on.set()
    with pytest.raises(Unavailable):
        await standing
    await paused.close()
    await well.close()


_QUEUE = """
import asyncio, sys
from sqlalchemy import text
from keybearer.adapters.sql import postgres

postgres.IDLE_SECONDS /= 2
postgres.LOCK_SECONDS /= 2

async def body(tx):
    await tx.run(text("UPDATE things SET id = 'a' WHERE id = 'a'"))

async def main():
    database = postgres.PostgresDatabase(sys.argv[1], shared=True)
    while True:
        await asyncio.gather(*(database.write(body) for _ in range(20)))

asyncio.run(main())
"""
_QUEUED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@contextlib.contextmanager
def paused_in_a_queue(server: PostgresServer, url: str) -> Iterator[None]:
    """A process that stands still: one of its transactions has the row, others wait for it."""
    with subprocess.Popen([sys.executable, "-c", _QUEUE, url]) as paused:
        try:
            while int(server.execute(_QUEUED, url=url)) < WRITERS // 2:
                time.sleep(0.01)
            paused.send_signal(signal.SIGSTOP)
            yield
        finally:
            paused.kill()


async def test_nor_does_what_a_paused_process_has_in_the_queue_for_a_row_hold_them_up(
    fresh_postgres: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of them may stand still for a second, not one after the other.
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 4.0)
    well = PostgresDatabase(fresh_postgres, shared=True)
    await well.write(create)
    await well.write(adding("a"))

    async def take(tx: Transaction) -> int:
        return await tx.run(text("UPDATE things SET id = 'a' WHERE id = 'a'"))

    with paused_in_a_queue(postgres_server, fresh_postgres):
        assert await well.write(take) == 1  # many stood before it
    await well.close()


async def test_a_row_that_is_never_free_is_told_as_a_lost_database(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 0.2)
    well = PostgresDatabase(fresh_postgres, shared=True)
    await well.write(create)
    tries = []

    async def nested(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")

        async def same(other: Transaction) -> None:
            tries.append("a")
            await other.run(_ADD, id="a")

        await well.write(same)

    with pytest.raises(Unavailable, match="lock timeout"):
        await well.write(nested)
    assert len(tries) > 1
    await well.close()


async def test_reads_go_on_while_every_change_waits_for_one_row(database: PostgresDatabase) -> None:
    all_stand, go_on = asyncio.Barrier(WRITERS + 1), asyncio.Event()

    async def stand_still(tx: Transaction) -> None:
        if not go_on.is_set():
            await all_stand.wait()
        await go_on.wait()

    writes = [asyncio.create_task(database.write(stand_still)) for _ in range(POOL_SIZE)]
    await all_stand.wait()
    assert await database.read(count) == 0
    assert database.busy == WRITERS
    go_on.set()
    await asyncio.gather(*writes)


async def test_what_the_right_to_answer_depends_on_is_written_whatever_waits(
    database: PostgresDatabase,
) -> None:
    lock = AdvisoryLock(database)
    await lock.acquire()
    all_stand, go_on = asyncio.Barrier(POOL_SIZE - RESERVED + 1), asyncio.Event()

    async def stand_still(_tx: Transaction) -> None:
        if not go_on.is_set():
            await all_stand.wait()
        await go_on.wait()

    many = range(2 * POOL_SIZE)
    writes = [asyncio.create_task(database.write(stand_still)) for _ in many]
    reads = [asyncio.create_task(database.read(stand_still)) for _ in many]
    await all_stand.wait()
    assert await database.write(adding("a"), first=True) == "a"
    await lock.check()
    go_on.set()
    await asyncio.gather(*writes, *reads)
    await lock.release()


async def test_a_migration_takes_as_long_as_it_takes(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("COMMAND_TIMEOUT_SECONDS", "IDLE_SECONDS", "LOCK_SECONDS"):
        monkeypatch.setattr(module, limit, 0.1)
    database = PostgresDatabase(fresh_postgres)

    def slow(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE things (id TEXT PRIMARY KEY)")
        connection.exec_driver_sql("SELECT pg_sleep(0.3)")
        time.sleep(0.3)  # the loop stands still, as while modules are loaded
        connection.exec_driver_sql("INSERT INTO things (id) VALUES ('a')")

    await database.alter(slow)
    monkeypatch.undo()
    assert await database.read(count) == 1
    await database.close()


@pytest.mark.parametrize(
    ("found", "used"),
    [
        ("off", "on"),
        ("local", "on"),
        ("on", "on"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ],
)
async def test_a_commit_that_was_answered_is_on_the_disk(
    fresh_postgres: str, postgres_server: PostgresServer, found: str, used: str
) -> None:
    name = fresh_postgres.rpartition("/")[2]
    postgres_server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {found}')
    database = PostgresDatabase(fresh_postgres)
    for way in (database.read, database.write):
        row = await way(lambda tx: tx.one(text("SHOW synchronous_commit")))
        assert row is not None
        assert row.synchronous_commit == used
    await database.close()


async def test_what_was_written_is_read(database: PostgresDatabase) -> None:
    assert await database.write(adding("a")) == "a"
    assert await database.read(count) == 1


async def test_a_transaction_gives_rows_counts_and_many(database: PostgresDatabase) -> None:
    async def body(tx: Transaction) -> tuple[int, list[str]]:
        await tx.run_many(_ADD, [{"id": "a"}, {"id": "b"}])
        await tx.run_many(_ADD, [])
        changed = await tx.run(text("DELETE FROM things WHERE id = :id"), id="a")
        return changed, [row.id for row in await tx.all(text("SELECT id FROM things"))]

    assert await database.write(body) == (1, ["b"])


@pytest.mark.parametrize("raised", [ValueError("mine"), Unavailable("mine")])
async def test_a_body_that_raises_is_taken_back(
    database: PostgresDatabase, raised: Exception
) -> None:
    async def failing(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        raise raised

    with pytest.raises(type(raised)):
        await database.write(failing)
    assert await database.read(count) == 0


async def test_a_broken_constraint_is_the_callers(database: PostgresDatabase) -> None:
    await database.write(adding("a"))
    with pytest.raises(IntegrityError):
        await database.write(adding("a"))
    with pytest.raises(IntegrityError):
        await database.read(adding("a"))


async def test_a_write_whose_caller_goes_away_is_committed(database: PostgresDatabase) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        begun.set()
        await go.wait()
        await tx.run(_ADD, id="b")

    write = asyncio.create_task(database.write(slow))
    await begun.wait()
    assert await database.read(count) == 0
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    go.set()
    await asyncio.sleep(0.1)
    assert await database.read(count) == 2


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_loop_that_ends_while_a_connection_goes_back_leaves_none_behind(
    database: PostgresDatabase, way: str
) -> None:
    """`asyncio.run` cancels every task at its end, also the one that gives a connection back."""
    loop = asyncio.get_running_loop()

    def cancelling(
        loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=loop, **options)
        if coro.__qualname__ == "AsyncConnection.close":
            task.cancel()
        return task

    loop.set_task_factory(cancelling)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await (database.read(count) if way == "read" else database.write(adding("a")))
    finally:
        loop.set_task_factory(None)
    pool: Any = database.engine.pool
    assert pool.checkedout() == 0


async def test_closing_waits_for_the_writes_under_way(fresh_postgres: str) -> None:
    database = PostgresDatabase(fresh_postgres)
    await database.write(create)
    writes = [asyncio.create_task(database.write(adding(str(n)))) for n in range(30)]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*writes)) == 30
    again = PostgresDatabase(fresh_postgres)
    assert await again.read(count) == 30
    await again.close()


async def test_a_statement_that_fails_is_unavailable_and_not_a_verdict(
    database: PostgresDatabase,
) -> None:
    for way in (database.read, database.write):
        with pytest.raises(Unavailable, match="nothing"):
            await way(lambda tx: tx.one(text("SELECT * FROM nothing")))
    assert await database.read(count) == 0


async def test_a_statement_that_takes_too_long_is_unavailable(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 0.2)
    database = PostgresDatabase(fresh_postgres)
    with pytest.raises(Unavailable):
        await database.write(lambda tx: tx.one(text("SELECT pg_sleep(30)")))
    assert await database.write(lambda tx: tx.one(text("SELECT 1 AS one"))) is not None
    await database.close()


async def test_a_read_that_took_too_long_is_not_tried_again(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 0.2)
    database = PostgresDatabase(fresh_postgres)
    tries: list[Transaction] = []

    async def slow(tx: Transaction) -> None:
        tries.append(tx)
        await tx.one(text("SELECT pg_sleep(30)"))

    with pytest.raises(Unavailable):
        await database.read(slow)
    assert len(tries) == 1
    assert await database.read(lambda tx: tx.one(text("SELECT 1 AS one"))) is not None
    await database.close()


async def test_killed_sessions_cost_reads_nothing(
    database: PostgresDatabase, fresh_postgres: str, postgres_server: PostgresServer
) -> None:
    await asyncio.gather(*(database.read(count) for _ in range(10)))
    assert kill_sessions(postgres_server, fresh_postgres) > 0
    assert await asyncio.gather(*(database.read(count) for _ in range(10))) == [0] * 10


async def test_a_write_over_a_killed_session_is_unavailable_and_the_next_one_works(
    database: PostgresDatabase, fresh_postgres: str, postgres_server: PostgresServer
) -> None:
    kill_sessions(postgres_server, fresh_postgres)
    (outcome,) = await asyncio.gather(database.write(adding("a")), return_exceptions=True)
    assert outcome == "a" or isinstance(outcome, Unavailable)
    assert await database.write(adding("b")) == "b"
    assert await database.read(count) == (2 if outcome == "a" else 1)


async def test_a_session_killed_in_the_middle_commits_nothing(
    database: PostgresDatabase, fresh_postgres: str, postgres_server: PostgresServer
) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(_ADD, id="a")
        await asyncio.to_thread(kill_sessions, postgres_server, fresh_postgres)
        await tx.run(_ADD, id="b")

    with pytest.raises(Unavailable):
        await database.write(body)
    assert await database.read(count) == 0


async def test_an_exhausted_pool_is_unavailable_soon(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POOL_SIZE", module.RESERVED + 2)
    monkeypatch.setattr(module, "POOL_TIMEOUT_SECONDS", 0.5)
    database = PostgresDatabase(fresh_postgres)
    go = asyncio.Event()

    async def hold(_tx: Transaction) -> None:
        await go.wait()

    held = [asyncio.create_task(database.write(hold)) for _ in range(2)]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    for way in (database.read, database.write):
        with pytest.raises(Unavailable, match="busy"):
            await way(lambda tx: tx.one(text("SELECT 1")))
    assert time.monotonic() - begun < 1.4  # once 0.5 s each: nobody waits twice
    go.set()
    await asyncio.gather(*held)
    assert await database.read(lambda tx: tx.one(text("SELECT 1"))) is not None
    await database.close()


async def test_a_stopped_server_is_unavailable_and_comes_back() -> None:
    with own_server() as (server, power):
        database = PostgresDatabase(server.admin_url)
        lock = AdvisoryLock(database)
        await lock.acquire()
        await database.write(create)
        await asyncio.gather(*(database.read(count) for _ in range(5)))
        await asyncio.to_thread(power.off)
        for _ in range(2):
            begun = time.monotonic()
            for way in (database.read, database.write):
                with pytest.raises(Unavailable):
                    await way(count)
            with pytest.raises(Unavailable):
                await lock.check()
            with pytest.raises(Unavailable):
                await lock.held_elsewhere()
            assert time.monotonic() - begun < 3
        await asyncio.to_thread(power.on)
        assert await database.read(count) == 0
        assert await database.write(adding("a")) == "a"
        await lock.check()
        await lock.check()
        other = PostgresDatabase(server.admin_url)
        with pytest.raises(Misuse):
            await AdvisoryLock(other).acquire()
        await other.close()
        await lock.release()
        await database.close()


async def test_a_server_restarted_between_two_checks_is_never_a_foreign_error() -> None:
    # Connections of before the restart wait in the pool; whoever gets one must not tell of it.
    with own_server() as (server, power):
        database = PostgresDatabase(server.admin_url)
        await asyncio.gather(*(database.read(_sleep) for _ in range(5)))
        lock = AdvisoryLock(database)
        await asyncio.to_thread(power.off)
        await asyncio.to_thread(power.on)
        for _ in range(8):
            try:
                await lock.acquire()
            except Unavailable:
                continue
            break
        await lock.check()
        await lock.release()
        await database.close()


async def _sleep(tx: Transaction) -> Any:
    return await tx.one(text("SELECT pg_sleep(0.1)"))


async def test_an_unreachable_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_SECONDS", 0.3)
    database = PostgresDatabase("postgresql://postgres@127.0.0.1:1/none")
    for way in (database.read, database.write):
        with pytest.raises(Unavailable):
            await way(count)
    await database.close()


# --- the serving lock -----------------------------------------------------------------------


@pytest.fixture
async def other(fresh_postgres: str) -> AsyncIterator[PostgresDatabase]:
    opened = PostgresDatabase(fresh_postgres)
    yield opened
    await opened.close()


async def test_a_second_process_is_refused_until_the_first_lets_go(
    database: PostgresDatabase, other: PostgresDatabase
) -> None:
    first, second = AdvisoryLock(database), AdvisoryLock(other)
    assert not await first.held_elsewhere()
    await first.acquire()
    assert not await first.held_elsewhere()
    assert await second.held_elsewhere()
    with pytest.raises(Misuse, match="already serves"):
        await second.acquire()
    with pytest.raises(Unavailable, match="another process"):
        await second.check()
    await first.release()
    await first.release()
    assert not await second.held_elsewhere()
    await second.acquire()
    await second.release()


async def test_a_lock_lost_with_its_session_is_taken_again(
    database: PostgresDatabase,
    other: PostgresDatabase,
    fresh_postgres: str,
    postgres_server: PostgresServer,
) -> None:
    lock, rival = AdvisoryLock(database), AdvisoryLock(other)
    await lock.acquire()
    await lock.check()
    kill_sessions(postgres_server, fresh_postgres)
    # False: somebody else may have served meanwhile, and what is cached may be old.
    await lock.check()
    await lock.check()
    assert await rival.held_elsewhere()
    await lock.release()


async def test_a_lock_that_a_rival_took_meanwhile_is_unavailable(
    database: PostgresDatabase,
    other: PostgresDatabase,
    fresh_postgres: str,
    postgres_server: PostgresServer,
) -> None:
    lock, rival = AdvisoryLock(database), AdvisoryLock(other)
    await lock.acquire()
    kill_sessions(postgres_server, fresh_postgres)
    await rival.acquire()
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process"):
            await lock.check()
    await rival.release()
    await lock.check()
    await lock.release()


async def test_a_lock_takes_no_connection_from_a_full_pool_for_ever(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POOL_SIZE", 1)
    monkeypatch.setattr(module, "RESERVED", 0)
    monkeypatch.setattr(module, "POOL_TIMEOUT_SECONDS", 0.2)
    database = PostgresDatabase(fresh_postgres)
    lock = AdvisoryLock(database)
    for _ in range(3):
        assert not await lock.held_elsewhere()
    await lock.acquire()
    with pytest.raises(Unavailable):
        await AdvisoryLock(database).held_elsewhere()
    await lock.release()
    assert await database.read(_sleep) is not None
    await database.close()


async def test_lines_that_are_dead_without_a_word_are_all_given_up_at_once(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 3_600.0)
    port = urlsplit(fresh_postgres).port
    assert port is not None
    async with Line("127.0.0.1", port) as line, asyncio.timeout(60):
        database = PostgresDatabase(fresh_postgres.replace(f":{port}/", f":{line.port}/"))
        lock = AdvisoryLock(database)
        await lock.acquire()
        await database.write(create)
        await asyncio.gather(*(database.read(_sleep) for _ in range(5)))
        line.lose()
        reading = [asyncio.create_task(database.read(count)) for _ in range(2)]
        writing = asyncio.create_task(database.write(adding("a")))
        # Its old session has the lock still, on the server, and is ended first.
        assert await lock.read(count) == 0
        await lock.check()
        assert await asyncio.gather(*reading) == [0, 0]
        with pytest.raises(Unavailable):
            await writing  # its commit may hold
        assert await asyncio.gather(*(database.read(count) for _ in range(5))) == [0] * 5
        assert await database.write(adding("b")) == "b"
        await lock.release()
        await database.close()


async def test_a_stop_waits_for_no_line_that_is_dead(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_SECONDS", 3_600.0)
    for each in (module, advisory):
        monkeypatch.setattr(each, "GOODBYE_SECONDS", 0.1)
    port = urlsplit(fresh_postgres).port
    assert port is not None
    async with Line("127.0.0.1", port) as line, asyncio.timeout(60):
        database = PostgresDatabase(fresh_postgres.replace(f":{port}/", f":{line.port}/"))
        lock = AdvisoryLock(database)
        await lock.acquire()
        await database.write(create)
        await asyncio.gather(*(database.read(_sleep) for _ in range(5)))
        line.lose()
        writing = asyncio.create_task(database.write(adding("a")))
        await asyncio.sleep(0)
        await lock.release()
        await database.close()
        with pytest.raises(Unavailable):
            await writing


async def test_a_lock_that_is_let_go_of_while_it_is_asked_is_not_taken_again(
    database: PostgresDatabase, other: PostgresDatabase
) -> None:
    lock = AdvisoryLock(database)
    await lock.acquire()
    asking, go_on = asyncio.Event(), asyncio.Event()

    async def slow(tx: Transaction) -> int:
        asking.set()
        await go_on.wait()
        return await tx.run(text("SELECT 1"))

    reading = asyncio.create_task(lock.read(slow))
    await asking.wait()
    await lock.release()
    go_on.set()
    with pytest.raises(Unavailable):
        await reading
    assert not await AdvisoryLock(other).held_elsewhere()


async def test_a_statement_that_fails_takes_the_lock_from_nobody(
    database: PostgresDatabase, other: PostgresDatabase
) -> None:
    lock = AdvisoryLock(database)
    await lock.acquire()
    held = lock._connection
    with pytest.raises(Unavailable, match="nothing"):
        await lock.read(lambda tx: tx.one(text("SELECT * FROM nothing")))
    assert lock._connection is held
    assert await AdvisoryLock(other).held_elsewhere()
    await lock.check()
    await lock.release()


@contextlib.asynccontextmanager
async def lock_on_a_dead_line(url: str) -> AsyncIterator[AdvisoryLock]:
    """A lock that is held, and whose line was cut without a word."""
    port = urlsplit(url).port
    assert port is not None
    async with Line("127.0.0.1", port) as line:
        database = PostgresDatabase(url.replace(f":{port}/", f":{line.port}/"))
        lock = AdvisoryLock(database)
        await lock.acquire()
        line.cut()
        try:
            yield lock
        finally:
            line.mend()
            await lock.release()
            await database.close()


async def test_the_lock_of_who_is_gone_without_a_word_is_free_soon(
    other: PostgresDatabase,
    fresh_postgres: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(advisory, "SILENT_SECONDS", 4.0)
    async with lock_on_a_dead_line(fresh_postgres):
        await asyncio.sleep(1.1)
        rival = AdvisoryLock(other)
        await rival.acquire()
        await rival.check()
        assert [record.message for record in caplog.records] == ["serving.waits"]
        await rival.release()


async def test_a_lock_that_is_never_free_is_refused_in_the_end(
    other: PostgresDatabase, fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As before PostgreSQL 14, or where a process that is paused has it.
    monkeypatch.setattr(advisory, "_LET_GO", text("SELECT :ms"))
    monkeypatch.setattr(advisory, "SILENT_SECONDS", -1.5)
    async with lock_on_a_dead_line(fresh_postgres):
        await asyncio.sleep(1.1)
        with pytest.raises(Misuse, match="already serves"):
            await AdvisoryLock(other).acquire()


async def test_the_sessions_of_the_pool_may_be_idle(database: PostgresDatabase) -> None:
    lock = AdvisoryLock(database)
    await lock.acquire()
    await lock.release()
    shown = await database.read(lambda tx: tx.one(text("SHOW idle_session_timeout")))
    assert shown is not None
    assert shown.idle_session_timeout == "0"


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    with run_standby(primary) as server:
        yield server


async def test_a_hot_standby_is_not_taken_for_the_database(standby: PostgresServer) -> None:
    assert standby.execute("SELECT pg_is_in_recovery()") == "t"
    database = PostgresDatabase(standby.admin_url)
    with pytest.raises(Unavailable, match="the server is a standby, not the primary"):
        await database.read(lambda tx: tx.one(text("SELECT 1")))
    with pytest.raises(Unavailable, match="standby"):
        await AdvisoryLock(database).acquire()
    with pytest.raises(Unavailable, match="is a standby, whose answers lag behind"):
        await migrate(database)
    assert database.busy == 0
    await database.close()


async def test_nor_is_one_that_a_pooler_told_of_as_the_primary(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GREETING", "SELECT true")
    database = PostgresDatabase(fresh_postgres)
    with pytest.raises(Unavailable, match="the server is a standby, not the primary"):
        await database.read(lambda tx: tx.one(text("SELECT 1")))
    await database.close()


async def test_of_several_hosts_the_primary_is_taken(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    hosts = [each.admin_url.split("@")[1].split("/")[0] for each in (standby, primary)]
    database = PostgresDatabase(f"postgresql://postgres@/postgres?host={'&host='.join(hosts)}")
    await database.write(create)
    assert await database.read(count) == 0
    await database.close()
