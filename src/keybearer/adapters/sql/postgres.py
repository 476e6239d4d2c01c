"""PostgreSQL through asyncpg: a pool, and the serving lock."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from keybearer.adapters.sql.serving import ALONE, PAUSES, SHARED, Standby
from keybearer.domain.errors import Misuse, PlaceLost, Unavailable
from keybearer.domain.ports import Body, Dialect, Row

log = logging.getLogger("keybearer")

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
_LOST = (SQLAlchemyError, OSError, asyncio.TimeoutError, EOFError)


def connect_engine(url: str, *, idle_seconds: float | None) -> AsyncEngine:
    """An engine for a `postgresql://` URL; nothing is connected yet.

    Args:
        idle_seconds: how long a transaction may stand still; None where nothing has a limit.
    """
    greeting = _GREETING
    if idle_seconds is not None:
        greeting += _LIMITS.format(idle=idle_seconds * 1000, lock=LOCK_SECONDS * 1000)

    async def dial(*address: object, **options: object) -> Any:
        try:
            line = await asyncpg.connect(*address, **options)
        except asyncpg.TargetServerAttributeNotMatched:
            raise Standby from None
        try:
            # Not among the parameters of the start, which a pooler on the way forgets or refuses,
            # and asked as well as required: a pooler may tell of another server than is there now.
            if await line.fetchval(greeting):
                raise Standby
        except BaseException:
            line.terminate()
            raise
        return line

    return create_async_engine(
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


class _Transaction:
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
        self.engine = connect_engine(url, idle_seconds=idle)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
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
            async with _turn(self._seats), _connected(self._reading) as connection:
                return await body(_Transaction(connection))
        except IntegrityError:
            raise
        except _LOST as error:
            raise _lost(error) from error

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
                    _connected(self.engine) as connection,
                    connection.begin(),
                ):
                    return await body(_Transaction(connection))
            except IntegrityError:
                raise
            except _LOST as error:
                if not _is_held_up(error) or time() >= until:
                    raise _lost(error) from error

    async def alter(self, body: Callable[[Connection], None]) -> None:
        """Runs a body in one transaction that may take as long as it takes: a migration."""
        engine = connect_engine(self._url, idle_seconds=None)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(body)
        finally:
            await engine.dispose()

    async def close(self) -> None:
        """Waits for the writes under way, then closes the pool."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=COMMAND_TIMEOUT_SECONDS)
        await self.engine.dispose()


@contextlib.asynccontextmanager
async def _turn(*waited: asyncio.Semaphore) -> AsyncIterator[None]:
    """A place among those that may ask at once, after whoever came before."""
    async with contextlib.AsyncExitStack() as taken:
        try:
            async with asyncio.timeout(POOL_TIMEOUT_SECONDS):
                for each in waited:
                    await taken.enter_async_context(each)
        except TimeoutError as error:
            raise PoolTimeout from error
        yield


@contextlib.asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
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


def _lost(error: BaseException) -> Unavailable:
    if isinstance(error, PoolTimeout):
        return Unavailable("PostgreSQL: every connection of the pool is busy")
    cause = error.orig if isinstance(error, DBAPIError) else error
    return Unavailable(f"PostgreSQL: {type(cause).__name__}: {cause}")


_LOCK_NUMBER = 0x6B6579_62656172  # "keybear"
_TRY_ALONE = text("SELECT pg_try_advisory_lock(:number) AS taken")
_TRY_SHARED = text("SELECT pg_try_advisory_lock_shared(:number) AS taken")
_ALIVE = text("SELECT 1")
# What this server has not (`idle_session_timeout` came with PostgreSQL 14) stays as it is.
_LET_GO = text(
    "SELECT set_config(name, wanted.value, false) FROM pg_settings JOIN (VALUES "
    "('idle_session_timeout', :ms), ('tcp_user_timeout', :ms), ('tcp_keepalives_idle', '4'), "
    "('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3')"
    ") AS wanted (name, value) USING (name)"
)
_SILENT = text(
    "SELECT bool_and(clock_timestamp() - state_change > interval '1 s') AS silent "
    "FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database() "
    "AND database = datid AND (classid::bigint << 32) + objid::bigint = :number"
)

SILENT_SECONDS = 10.0
"""After so long without a question PostgreSQL ends the session that has the lock, which asks twice
a second. A machine that lost its power, or a line that was cut, says no goodbye, and TCP alone
would keep the lock for hours."""

_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.25


class AdvisoryLock:
    """An advisory lock of PostgreSQL on a connection of its own.

    The lock goes with the connection: after a restart of the server or a cut line it must be
    taken again, and while it is not held nothing is answered from the cache.

    Args:
        shared: whether others may have it too, if they share it.
    """

    def __init__(self, database: PostgresDatabase, *, shared: bool = False) -> None:
        self._engine = database.engine
        self._try = _TRY_SHARED if shared else _TRY_ALONE
        self._refusal = SHARED if shared else ALONE
        self._connection: AsyncConnection | None = None

    async def acquire(self) -> None:
        """Takes the lock or raises Misuse; waits for one whose holder has gone without a word."""
        for pause in PAUSES:
            if await self._take(self._try):
                return
            await asyncio.sleep(pause)
        time, told = asyncio.get_running_loop().time, False
        until = time() + SILENT_SECONDS + _PATIENCE_SECONDS
        while not await self._take(self._try):
            if time() >= until or not await self._is_silent():
                raise Misuse(self._refusal)
            if not told:
                log.warning("serving.waits", extra={"seconds": SILENT_SECONDS})
                told = True
            await asyncio.sleep(_LOOK_SECONDS)

    async def held_elsewhere(self) -> bool:
        """Whether another process serves: tried, and let go of again."""
        if self._connection is not None:
            return False
        if await self._take(_TRY_ALONE):
            await self.release()
            return False
        return True

    async def check(self) -> None:
        """Asks over the connection that holds the lock; takes it again when it was lost."""
        if self._connection is not None:
            try:
                await self._connection.execute(_ALIVE)
                await self._connection.commit()
                return
            except _LOST:
                await self.release()
        if not await self._take(self._try):
            raise PlaceLost("the serving lock was lost and another process has it")

    async def release(self) -> None:
        """Closes the connection and so lets go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection)

    async def _is_silent(self) -> bool:
        """Whether nobody who has the lock has asked anything for a second: dead, or paused."""
        try:
            async with _connected(self._engine) as connection:
                found = await connection.execute(_SILENT, {"number": _LOCK_NUMBER})
                return bool(found.scalar_one())
        except _LOST as error:
            raise _lost(error) from error

    async def _take(self, attempt: TextClause) -> bool:
        try:
            connection = await self._engine.connect()
        except _LOST as error:
            raise _lost(error) from error
        try:
            row = (await connection.execute(attempt, {"number": _LOCK_NUMBER})).first()
            taken = row is not None and bool(row.taken)
            if taken:
                await connection.execute(_LET_GO, {"ms": f"{SILENT_SECONDS * 1000:.0f}"})
            await connection.commit()
        except _LOST as error:
            await _close(connection)
            raise _lost(error) from error
        except BaseException:
            await _close(connection)
            raise
        if taken:
            self._connection = connection
        else:
            await _close(connection)
        return taken


async def _close(connection: AsyncConnection) -> None:
    # Not back into the pool: the session itself must end, for its locks to end. Said goodbye to
    # by ourselves, as `invalidate` only cuts the line and leaves the socket to the next round.
    with contextlib.suppress(*_LOST):
        raw = await connection.get_raw_connection()
        if raw.driver_connection is not None:
            await raw.driver_connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    with contextlib.suppress(*_LOST):
        await connection.invalidate()
        await connection.close()
