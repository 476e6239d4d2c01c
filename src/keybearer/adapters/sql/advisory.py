"""The serving lock in PostgreSQL, and the line that has it.

The lock goes with its session. So the log of changes, on which the right to answer depends, is
read over that same line: no crowd that waits for the pool stands before it, and what was read was
read by one who had the lock.

    line       asks ──▶ answer              twice a second
    line       asks ──▶ nothing, for 2 s    every connection of the process is given up
    new line   takes the lock ──▶ asks      what is left of our old session is ended first

A machine that vanished, or a firewall that forgot its connections, says nothing, and each
connection would be waited for in turn.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from keybearer.adapters.sql.postgres import (
    GOODBYE_SECONDS,
    LOST,
    PostgresDatabase,
    PostgresTransaction,
    connected,
    unavailable,
)
from keybearer.adapters.sql.serving import ALONE, PAUSES, SHARED
from keybearer.domain.errors import Misuse, PlaceLost, Unavailable
from keybearer.domain.ports import Body

log = logging.getLogger("keybearer")

T = TypeVar("T")

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
_HOLDERS = (
    "FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database() "
    "AND database = datid AND (classid::bigint << 32) + objid::bigint = :number"
)
_SILENCE = "clock_timestamp() - state_change > interval '1 s'"
_SILENT = text(f"SELECT bool_and({_SILENCE}) AS silent {_HOLDERS}")
_SESSION = text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
# Another server has another start for a process of that number. One that asks is somebody else's.
_END = text(
    f"SELECT pg_terminate_backend(pid) {_HOLDERS} AND {_SILENCE} "
    "AND pid = :pid AND backend_start = :started"
)

SILENT_SECONDS = 10.0
"""After so long without a question PostgreSQL ends the session that has the lock, which asks twice
a second. A machine that lost its power, or a line that was cut, says no goodbye, and TCP alone
would keep the lock for hours."""

_PATIENCE_SECONDS = 2.0
_STEPS = 4
_LOOK_SECONDS = 0.25


class AdvisoryLock:
    """An advisory lock of PostgreSQL on a connection of its own.

    The lock goes with the connection: after a restart of the server or a cut line it must be
    taken again, and while it is not held nothing is answered from the cache.

    Args:
        shared: whether others may have it too, if they share it.
    """

    def __init__(self, database: PostgresDatabase, *, shared: bool = False) -> None:
        self._database = database
        self._engine = database.reading
        self._try = _TRY_SHARED if shared else _TRY_ALONE
        self._refusal = SHARED if shared else ALONE
        self._wanted = False
        self._connection: AsyncConnection | None = None
        self._session: dict[str, object] | None = None

    @property
    def line(self) -> "AdvisoryLock":
        """Reads over the connection that has the lock."""
        return self

    async def acquire(self) -> None:
        """Takes the lock or raises Misuse; waits for one whose holder has gone without a word."""
        self._wanted = True
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
            await self._drop()
            return False
        return True

    async def check(self) -> None:
        """Asks over the connection that holds the lock; takes it again when it was lost."""
        await self._ask(lambda connection: connection.execute(_ALIVE))

    async def read(self, body: Body[T]) -> T:
        """Runs a body that only reads, as one who has the lock; takes it again when it was lost."""

        async def asked(connection: AsyncConnection) -> T:
            return await body(PostgresTransaction(connection))

        return await self._ask(asked)

    async def release(self) -> None:
        """Closes the connection and so lets go."""
        self._wanted = False
        if not await self._drop():
            self._database.give_up()

    async def _ask(self, question: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        """The answer of the line; of a new one, where the old one was dead."""
        while True:
            old = self._connection
            connection = old or await self._regain()
            try:
                return await self._in_time(question(connection))
            except LOST as error:
                if not _has_answered(connection, error):
                    await self._drop()
                    if old is not None:
                        continue
                raise unavailable(error) from error

    async def _in_time(self, asked: Coroutine[Any, Any, T]) -> T:
        """What is answered in time; else gives up every connection, and raises one of LOST.

        In steps: a process that was paused has one of them over at once, and reads then what was
        answered meanwhile.
        """
        task = asyncio.ensure_future(asked)
        try:
            for _ in range(_STEPS):
                await asyncio.wait([task], timeout=_PATIENCE_SECONDS / _STEPS)
                if task.done():
                    return task.result()
        except asyncio.CancelledError:
            task.cancel()
            raise
        self._database.give_up()
        return await task

    async def _regain(self) -> AsyncConnection:
        if self._wanted and not await self._take(self._try):
            raise PlaceLost("the serving lock was lost and another process has it")
        if not self._wanted or self._connection is None:  # let go of meanwhile
            await self._drop()
            raise Unavailable("keybearer is stopped")
        return self._connection

    async def _drop(self) -> bool:
        """Closes the connection; False where the server did not answer to that."""
        connection, self._connection = self._connection, None
        return connection is None or await _close(connection)

    async def _is_silent(self) -> bool:
        """Whether nobody who has the lock has asked anything for a second: dead, or paused."""
        try:
            async with connected(self._engine) as connection:
                found = await connection.execute(_SILENT, {"number": _LOCK_NUMBER})
                return bool(found.scalar_one())
        except LOST as error:
            raise unavailable(error) from error

    async def _take(self, attempt: TextClause) -> bool:
        try:
            connection = await self._engine.connect()
        except LOST as error:
            raise unavailable(error) from error
        try:
            taken = await self._in_time(self._try_over(connection, attempt))
        except LOST as error:
            await _close(connection)
            raise unavailable(error) from error
        except BaseException:
            await _close(connection)
            raise
        if taken:
            self._connection = connection
        else:
            await _close(connection)
        return taken

    async def _try_over(self, connection: AsyncConnection, attempt: TextClause) -> bool:
        taken = await _taken(connection, attempt)
        for pause in PAUSES:
            if taken or not await self._end_old(connection):
                break
            await asyncio.sleep(pause)
            taken = await _taken(connection, attempt)
        if taken:
            await connection.execute(_LET_GO, {"ms": f"{SILENT_SECONDS * 1000:.0f}"})
            session = (await connection.execute(_SESSION)).one()
            self._session = {"pid": session.pid, "started": session.backend_start}
        return taken

    async def _end_old(self, connection: AsyncConnection) -> bool:
        """Ends what is left of the session that had the lock; whether it was there."""
        if self._session is None:
            return False
        try:
            ended = await connection.execute(_END, {"number": _LOCK_NUMBER, **self._session})
        except DBAPIError:
            return False  # where the role may not: it ends by itself, after SILENT_SECONDS
        return bool(ended.all())


async def _taken(connection: AsyncConnection, attempt: TextClause) -> bool:
    return bool((await connection.execute(attempt, {"number": _LOCK_NUMBER})).scalar_one())


def _has_answered(connection: AsyncConnection, error: BaseException) -> bool:
    """Whether it is the statement that failed, and not the line: the lock is held still."""
    return isinstance(error, DBAPIError) and not connection.invalidated


async def _close(connection: AsyncConnection) -> bool:
    """Ends a session, and its locks with it; False where the server did not answer to that."""
    answered = True
    # Not back into the pool: the session itself must end, for its locks to end. Said goodbye to
    # by ourselves, as `invalidate` only cuts the line and leaves the socket to the next round.
    try:
        if not connection.invalidated:
            raw = await connection.get_raw_connection()
            if raw.driver_connection is not None:
                await raw.driver_connection.close(timeout=GOODBYE_SECONDS)
    except LOST as error:
        answered = not isinstance(error, TimeoutError)
    with contextlib.suppress(*LOST):
        await connection.invalidate()
        await connection.close()
    return answered
