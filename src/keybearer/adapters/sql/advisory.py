"""The serving lock in PostgreSQL, and the line that has it.

The lock goes with its session. So the log of changes, on which the right to answer depends, is
read over that same line: no crowd that waits for the pool stands before it, and what was read was
read by one who had the lock.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from keybearer.adapters.sql.postgres import (
    CONNECT_TIMEOUT_SECONDS,
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
_SILENT = text(
    f"SELECT bool_and(clock_timestamp() - state_change > interval '1 s') AS silent {_HOLDERS}"
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
        self._engine = database.reading
        self._try = _TRY_SHARED if shared else _TRY_ALONE
        self._refusal = SHARED if shared else ALONE
        self._wanted = False
        self._connection: AsyncConnection | None = None

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
        return await self._ask(lambda connection: body(PostgresTransaction(connection)))

    async def release(self) -> None:
        """Closes the connection and so lets go."""
        self._wanted = False
        await self._drop()

    async def _ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The answer of the line; of a new one, where the old one was dead."""
        while True:
            old = self._connection
            connection = old or await self._regain()
            try:
                return await question(connection)
            except LOST as error:
                if not _has_answered(connection, error):
                    await self._drop()
                    if old is not None:
                        continue
                raise unavailable(error) from error

    async def _regain(self) -> AsyncConnection:
        if self._wanted and not await self._take(self._try):
            raise PlaceLost("the serving lock was lost and another process has it")
        if not self._wanted or self._connection is None:  # let go of meanwhile
            await self._drop()
            raise Unavailable("keybearer is stopped")
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection)

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
            row = (await connection.execute(attempt, {"number": _LOCK_NUMBER})).first()
            taken = row is not None and bool(row.taken)
            if taken:
                await connection.execute(_LET_GO, {"ms": f"{SILENT_SECONDS * 1000:.0f}"})
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


def _has_answered(connection: AsyncConnection, error: BaseException) -> bool:
    """Whether it is the statement that failed, and not the line: the lock is held still."""
    return isinstance(error, DBAPIError) and not connection.invalidated


async def _close(connection: AsyncConnection) -> None:
    # Not back into the pool: the session itself must end, for its locks to end. Said goodbye to
    # by ourselves, as `invalidate` only cuts the line and leaves the socket to the next round.
    with contextlib.suppress(*LOST):
        raw = await connection.get_raw_connection()
        if raw.driver_connection is not None:
            await raw.driver_connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    with contextlib.suppress(*LOST):
        await connection.invalidate()
        await connection.close()
