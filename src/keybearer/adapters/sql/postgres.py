"""PostgreSQL through asyncpg: a pool."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakSet

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from keybearer.adapters.sql.serving import Standby
from keybearer.domain.errors import Unavailable
from keybearer.domain.ports import Body, Dialect, Row

T = TypeVar("T")

POOL_SIZE = 10
RESERVED = 2
"""Connections that no other work takes: one has the serving lock, the other one writes what the
right to answer depends on. So no queue of reads or writes ends a lease."""

WRITERS = POOL_SIZE - RESERVED - 1
"""Transactions at once: one connection is left for reads, so that a key is looked up also while
every change waits for the same row."""

POOL_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3.0
COMMAND_TIMEOUT_SECONDS = 10.0
GOODBYE_SECONDS = 2.0
"""How long connections may take to be closed in an orderly way."""

IDLE_SECONDS = 2.0
"""How long a transaction may stand still: a process that was paused in the midst of a change, or
whose machine lost its power, has the counter of changes locked, and nobody could revoke anything
until it goes on or TCP gives it up, after hours. By then it has no lease either."""

ALONE_IDLE_SECONDS = 10.0
"""… where one process serves alone, and holds up nobody else's."""

LOCK_SECONDS = 0.75
"""How long a statement waits for a row, before its transaction is begun anew. PostgreSQL counts
the wait for one's turn and the wait for who has the row apart, and both together are shorter than
IDLE_SECONDS: what a paused process has in the queue for a row is gone when the row is free, and
does not get it next, to stand still in its turn."""

# A commit that was answered before it is on the disk may be lost by a crash, and with it a
# revocation. All but `off` wait for our disk; `local` does not wait for a synchronous standby.
_GREETING = (
    "SELECT pg_is_in_recovery(), set_config('synchronous_commit', "
    "CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on' "
    "ELSE current_setting('synchronous_commit') END, false)"
)
_LIMITS = (
    ", set_config('idle_in_transaction_session_timeout', '{idle:.0f}', false)"
    ", set_config('lock_timeout', '{lock:.0f}', false)"
)
_HELD_UP = "55P03"  # lock_not_available
LOST = (SQLAlchemyError, OSError, asyncio.TimeoutError, EOFError)


Lines = WeakSet[asyncpg.Connection]


def connect_engine(
    url: str, *, idle_seconds: float | None, lines: Lines | None = None
) -> AsyncEngine:
    """An engine for a `postgresql://` URL; nothing is connected yet.

    Args:
        idle_seconds: how long a transaction may stand still; None where nothing has a limit.
        lines: takes every connection, also one that is not in the pool yet.
    """
    greeting = _GREETING
    if idle_seconds is not None:
        greeting += _LIMITS.format(idle=idle_seconds * 1000, lock=LOCK_SECONDS * 1000)

    async def dial(*address: object, **options: object) -> Any:
        try:
            line = await asyncpg.connect(*address, **options)
        except asyncpg.TargetServerAttributeNotMatched:
            raise Standby from None
        if lines is not None:
            lines.add(line)
        try:
            # Not among the parameters of the start, which a pooler on the way forgets or refuses,
            # and asked as well as required: a pooler may tell of another server than is there now.
            if await line.fetchval(greeting, timeout=CONNECT_TIMEOUT_SECONDS):
                raise Standby
        except BaseException:
            line.terminate()
            raise
        return line

    engine = create_async_engine(
        "postgresql+asyncpg://" + url.split("://", 1)[1],
        pool_size=POOL_SIZE,
        max_overflow=0,
        hide_parameters=True,  # errors that reach the log must not bring digests and addresses
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,
        connect_args={
            "async_creator_fn": dial,
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "command_timeout": None if idle_seconds is None else COMMAND_TIMEOUT_SECONDS,
            "target_session_attrs": "primary",  # of several hosts, whichever it is
            "server_settings": {"application_name": "keybearer", "jit": "off"},
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
    """Has the pool dial anew where it is known without a question that the line is dead."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


class PostgresTransaction:
    """Statements on one connection."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def one(self, statement: Any, /, **binds: object) -> Row | None:
        row: Row | None = (await self._connection.execute(statement, binds)).first()
        return row

    async def all(self, statement: Any, /, **binds: object) -> Sequence[Row]:
        rows: Sequence[Row] = (await self._connection.execute(statement, binds)).all()
        return rows

    async def run(self, statement: Any, /, **binds: object) -> int:
        return (await self._connection.execute(statement, binds)).rowcount

    async def run_many(self, statement: Any, rows: Sequence[Mapping[str, object]], /) -> None:
        if rows:
            await self._connection.execute(statement, list(rows))


class PostgresDatabase:
    """The database of any number of processes.

    Args:
        shared: whether others serve it too, and wait for what this one has locked.
    """

    def __init__(self, url: str, *, shared: bool = False) -> None:
        self._url = url
        idle = IDLE_SECONDS if shared else ALONE_IDLE_SECONDS
        self._lines: Lines = WeakSet()
        self.engine = connect_engine(url, idle_seconds=idle, lines=self._lines)
        self.reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes: set[asyncio.Task[Any]] = set()
        self._seats = asyncio.Semaphore(POOL_SIZE - RESERVED)
        self._room = asyncio.Semaphore(WRITERS)

    @property
    def busy(self) -> int:
        """Connections in use, out of POOL_SIZE; one is always the serving lock's."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    async def read(self, body: Body[T]) -> T:
        """Runs a body that only reads; tries once more when the connection was stale."""
        try:
            return await self._read(body)
        except Unavailable as error:
            if isinstance(error.__cause__, (PoolTimeout, TimeoutError)):
                raise  # it has waited once already
            # After a restart of the server every pooled connection is dead; the first error
            # empties the pool, and the second try dials anew.
            return await self._read(body)

    async def _read(self, body: Body[T]) -> T:
        try:
            async with _turn(self._seats), connected(self.reading) as connection:
                return await body(PostgresTransaction(connection))
        except IntegrityError:
            raise
        except LOST as error:
            raise unavailable(error) from error

    async def write(self, body: Body[T], *, first: bool = False) -> T:
        """Runs a body in one transaction and returns after its commit.

        A body is run again where a row was held by somebody else for LOCK_SECONDS.
        """
        turns = () if first else (self._room, self._seats)
        task = asyncio.ensure_future(self._write(body, turns))
        self._writes.add(task)
        task.add_done_callback(self._written)
        # A caller that goes away must not cut a transaction in two: what began is finished.
        return await asyncio.shield(task)

    def _written(self, task: "asyncio.Task[Any]") -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody waiting must not make a warning

    async def _write(self, body: Body[T], turns: Sequence[asyncio.Semaphore]) -> T:
        time = asyncio.get_running_loop().time
        until = time() + COMMAND_TIMEOUT_SECONDS
        while True:
            try:
                async with (
                    _turn(*turns),
                    connected(self.engine) as connection,
                    connection.begin(),
                ):
                    return await body(PostgresTransaction(connection))
            except IntegrityError:
                raise
            except LOST as error:
                if not _is_held_up(error) or time() >= until:
                    raise unavailable(error) from error

    async def alter(self, body: Callable[[Connection], None]) -> None:
        """Runs a body in one transaction that may take as long as it takes: a migration."""
        engine = connect_engine(self._url, idle_seconds=None)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(body)
        finally:
            await engine.dispose()

    def give_up(self) -> None:
        """Ends every connection at once, without a word; who waits for an answer has none.

        For a server that says nothing: each that waited in the pool would be waited for in turn.
        """
        for line in list(self._lines):
            line.terminate()

    async def close(self) -> None:
        """Waits for the writes under way, then closes the pool."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=COMMAND_TIMEOUT_SECONDS)
        closing = asyncio.ensure_future(self.engine.dispose())
        await asyncio.wait([closing], timeout=GOODBYE_SECONDS)
        self.give_up()
        await closing


@contextlib.asynccontextmanager
async def _turn(*waited: asyncio.Semaphore) -> AsyncIterator[None]:
    """A place among those that may ask at once, after whoever came before."""
    taken: list[asyncio.Semaphore] = []
    try:
        for each in waited:
            if each.locked():
                await _wait(each)
            else:
                await each.acquire()  # at once: nothing is paid for a timeout
            taken.append(each)
        yield
    finally:
        for each in taken:
            each.release()


async def _wait(turn: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(POOL_TIMEOUT_SECONDS):
            await turn.acquire()
    except TimeoutError as error:
        raise PoolTimeout from error


@contextlib.asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that goes back into the pool, also when the loop ends meanwhile.

    SQLAlchemy's own way gives it back in another task, which a loop that ends cancels before it
    has begun.
    """
    connection = await engine.connect()
    try:
        yield connection
    finally:
        await connection.close()


def _is_held_up(error: BaseException) -> bool:
    """Whether a transaction was rolled back because somebody else has a row that it needs."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _HELD_UP


def unavailable(error: BaseException) -> Unavailable:
    """How one of LOST is told to whoever asked."""
    if isinstance(error, PoolTimeout):
        return Unavailable("PostgreSQL: every connection of the pool is busy")
    cause = error.orig if isinstance(error, DBAPIError) else error
    return Unavailable(f"PostgreSQL: {type(cause).__name__}: {cause}")
