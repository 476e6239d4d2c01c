"""SQLite: reads on the calling thread, writes grouped on one.

    callers ── write(body) ──▶ queue ──▶ writer thread:  BEGIN IMMEDIATE
                                                         SAVEPOINT  body 1  RELEASE
                                                         SAVEPOINT  body 2  (raised: ROLLBACK TO)
                                                         COMMIT     one fsync for all of them
    callers ◀── results, each after the commit ──────────┘

What the right to answer depends on stands first in the queue, before all other writes.

A body is a coroutine that awaits nothing but its transaction; the transaction here never
suspends, so `send(None)` runs a body to its end on whatever thread we are on. One indexed read
takes tens of microseconds: a hop to another thread would cost more.

The interpreter's SQLite may be old (3.7.0 to 3.51.2 can lose commits: the WAL-reset bug), so the
driver is pysqlite3, which brings its own.
"""

import asyncio
import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pysqlite3.dbapi2 as driver
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from keybearer.adapters.sql.file import OneFile
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.ports import Body, Dialect, Row

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
_WAL_PAUSE_SECONDS = 0.01
GROUP = 64
"""Bodies in one commit at the most."""

_FIRST, _IN_TURN, _LAST = range(3)
"""In which order writes are taken from the queue."""

_FIXED = (3, 51, 3)


def connect_engine(path: str) -> Engine:
    """An engine on one file, which is there.

    Raises:
        Misuse: the driver's SQLite is one that can lose commits.
    """
    if driver.sqlite_version_info < _FIXED:
        raise Misuse(
            f"SQLite {driver.sqlite_version} can lose commits (WAL-reset bug); install pysqlite3"
        )
    # hide_parameters: an error that reaches the log must not bring digests and addresses along.
    # Not as text: there %20 would be a space, and the file another one than we made private.
    url = URL.create("sqlite", database=path)
    engine = create_engine(url, module=driver, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}").close()
        _use_wal(connection)
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine


def _use_wal(connection: Any) -> None:
    """Turns a new file to WAL, which the file remembers.

    Where another process is about to do the same, SQLite says that it is locked without waiting
    (it would be for ever, if both held what the other wants): so we ask again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except driver.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(_WAL_PAUSE_SECONDS)


class _Transaction:
    """Statements on one connection; no method ever suspends."""

    dialect: Dialect = "sqlite"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def one(self, statement: Any, /, **binds: object) -> Row | None:
        row: Row | None = self._connection.execute(statement, binds).first()
        return row

    async def all(self, statement: Any, /, **binds: object) -> Sequence[Row]:
        rows: Sequence[Row] = self._connection.execute(statement, binds).all()
        return rows

    async def run(self, statement: Any, /, **binds: object) -> int:
        return self._connection.execute(statement, binds).rowcount

    async def run_many(self, statement: Any, rows: Sequence[Mapping[str, object]], /) -> None:
        if rows:
            self._connection.execute(statement, list(rows))


def drive(body: Body[T], connection: Connection) -> T:
    """Runs a body to its end on this thread.

    Raises:
        RuntimeError: the body awaited something else than its transaction.
    """
    steps = body(_Transaction(connection)).__await__()
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    steps.close()  # now, so that its last words belong to this transaction
    raise RuntimeError("a transaction's body awaits nothing but its transaction")


class SqliteDatabase:
    """The database of one process in one file, and never in another one.

    Raises:
        Misuse: the folder is missing, the file cannot be written, or has several names.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # what lies beside the file is found by that
        self.engine = connect_engine(self.path)
        self.file = OneFile(path)
        self._opening = threading.Lock()
        self._anchor: Connection | None = None
        self._reader: Connection | None = None
        self._reader_lock = threading.Lock()
        self._jobs: queue.PriorityQueue[tuple[int, int, _Job | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._writer: threading.Thread | None = None
        self._closed = False

    @property
    def busy(self) -> int:
        """Writes that wait for the writer."""
        return self._jobs.qsize()

    async def read(self, body: Body[T]) -> T:
        """Runs a body that only reads, on the calling thread."""
        with self._reader_lock:
            if self._closed:
                raise Unavailable("the database is closed")
            try:
                self._reader = self._opened(self._reader)
                self._reader.exec_driver_sql("BEGIN")
                try:
                    return drive(body, self._reader)
                finally:
                    self._reader.exec_driver_sql("ROLLBACK")
                    self._reader.rollback()
            except SQLAlchemyError as error:
                self._drop_reader()
                raise _lost(error) from error

    async def write(self, body: Body[T], *, first: bool = False) -> T:
        """Runs a body on the writer thread and returns after its commit."""
        if self._closed:
            raise Unavailable("the database is closed")
        if self._writer is None:
            self._writer = threading.Thread(
                target=self._write_for_ever, name="keybearer-writer", daemon=True
            )
            self._writer.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(_heard)
        self._put(_FIRST if first else _IN_TURN, _Job(body, future, loop))
        # A caller that goes away must not take its commit along: what began is finished.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Finishes the writes that wait, then closes the file."""
        self._closed = True
        if self._writer is not None:
            self._put(_LAST, None)
            await asyncio.get_running_loop().run_in_executor(None, self._writer.join)
            self._writer = None
        with self._reader_lock:
            self._drop_reader()
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None
        self.engine.dispose()

    def _put(self, rank: int, job: "_Job | None") -> None:
        self._jobs.put((rank, next(self._numbers), job))

    def _opened(self, connection: Connection | None) -> Connection:
        """The connection, or a new one, to the file that we began with.

        Raises:
            Unavailable: the path leads to another file now, or nowhere.
        """
        with self._opening:
            if self._anchor is None:
                self._anchor = self._begin()
        if connection is None:
            self.file.check_whole()  # beside a log that was deleted SQLite would make another one
            return self.engine.connect()
        self.file.check()
        return connection

    def _begin(self) -> Connection:
        """A connection that stays open, and so keeps the file's log where it is."""
        connection = self.engine.connect()
        try:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").close()
            connection.rollback()
            self.file.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._reader.close()
            self._reader = None

    # --- the writer thread ---

    def _write_for_ever(self) -> None:
        connection: Connection | None = None
        while (job := self._jobs.get()[-1]) is not None:
            jobs = [job]
            ended = False
            with contextlib.suppress(queue.Empty):
                while len(jobs) < GROUP:
                    waiting = self._jobs.get_nowait()[-1]
                    if waiting is None:
                        ended = True
                        break
                    jobs.append(waiting)
            try:
                connection = self._opened(connection)
                outcomes = _commit_together(connection, jobs)
                # Else the next process will not find what we say is done.
                self.file.check_whole()
            except Exception as error:  # noqa: BLE001 -- who waits must hear of it, whatever it is
                for each in jobs:
                    each.fail(_lost(error))
                if connection is not None:
                    with contextlib.suppress(SQLAlchemyError):
                        connection.invalidate()
                        connection.close()
                connection = None
            else:
                for each, outcome, failure in outcomes:
                    if failure is None:
                        each.succeed(outcome)
                    else:
                        each.fail(failure)
            if ended:
                break
        if connection is not None:
            connection.close()


def _heard(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()  # whoever waits has it; nobody waiting must not make a warning


class _Job:
    """A body that waits for its commit, and the caller that waits for the body."""

    def __init__(
        self, body: Body[Any], future: "asyncio.Future[Any]", loop: asyncio.AbstractEventLoop
    ) -> None:
        self.body = body
        self._future = future
        self._loop = loop

    def succeed(self, result: object) -> None:
        self._settle(lambda: self._future.set_result(result))

    def fail(self, error: BaseException) -> None:
        self._settle(lambda: self._future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        def on_loop() -> None:
            if not self._future.done():
                settle()

        # The loop may be closed already: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(on_loop)


_Outcome = tuple[_Job, object, Exception | None]


def _commit_together(connection: Connection, jobs: Sequence[_Job]) -> list[_Outcome]:
    """Runs all bodies in one commit; one that raises takes only its own changes back."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    outcomes: list[_Outcome] = []
    try:
        for job in jobs:
            connection.exec_driver_sql("SAVEPOINT body")
            result: object = None
            raised: Exception | None = None
            try:
                result = drive(job.body, connection)
            except Exception as error:  # noqa: BLE001 -- whatever a body raises is its caller's
                _take_back(connection, error)
                raised = _lost(error)
            except BaseException as error:  # noqa: BLE001 -- nor may it end the thread of all others
                connection.exec_driver_sql("ROLLBACK TO body")
                raised = Unavailable(f"SQLite: a write was ended by {type(error).__name__}")
            connection.exec_driver_sql("RELEASE body")
            outcomes.append((job, result, raised))
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with contextlib.suppress(SQLAlchemyError):
            connection.exec_driver_sql("ROLLBACK")
        raise
    finally:
        connection.rollback()  # ends SQLAlchemy's own bookkeeping; nothing is open any more
    return outcomes


def _take_back(connection: Connection, error: Exception) -> None:
    try:
        connection.exec_driver_sql("ROLLBACK TO body")
    except SQLAlchemyError:
        # A full disk, say, has made SQLite take back the whole transaction: then all of it failed.
        raise error from None


def _lost(error: Exception) -> Exception:
    """Unavailable for what the database did; a bug of ours stays what it is."""
    if not isinstance(error, DBAPIError | driver.Error):
        return error
    if isinstance(getattr(error, "orig", None), driver.IntegrityError):
        return error
    return Unavailable(f"SQLite: {type(error).__name__}: {getattr(error, 'orig', error)}")
