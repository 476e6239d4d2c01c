"""Health: the process runs, and it can answer.

`live` says that the event loop turns; whoever restarts processes asks it. `ready` says that
requests can be answered; whoever spreads requests over processes asks it. Neither says why not,
which version this is, or where anything lies: that is in the log.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.types import Receive, Scope, Send

from keybearer.adapters.sql.about import server_time
from keybearer.domain.errors import Misuse, Unavailable
from keybearer.node import Node
from keybearer.operations.app import App
from keybearer.verification.patience import begin
from keybearer.web.exchange import send_answer

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger(__name__)

State = Literal["ok", "failing"]
PATIENCE_SECONDS = 2.0
SHARED_SECONDS = 0.5
"""For so long one look is the answer to all who ask: nobody needs a credential to ask."""

MAX_DRIFT_MS = 30_000
ALIVE = b'{"status":"ok"}'
OK = b'{"ok":true}'
"""What Better Auth's clients ask for."""

_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether each thing that an answer needs is there.

    Without a lease nothing can be answered: `failing`. All else degrades.

    Attributes:
        database: also while the cache is still answered from without it.
        lease: `stretched` while STALE_IF_DATABASE_LOST has it go on.
        clock: `failing` where the machine's or the database server's is more than 30 s away.
        redis: changes come by it, and limits are counted in it; not there without REDIS_URL.
    """

    status: Literal["ok", "degraded", "failing"]
    database: State
    lease: State | Literal["stretched"]
    clock: State
    usage: State
    redis: State | msgspec.UnsetType = msgspec.UNSET


class Live:
    """200 while the process runs, whatever else is lost."""

    def __init__(self, auth: "Auth", body: bytes = ALIVE) -> None:
        self._settings = auth.settings
        self._body = body

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, 200, self._body, list(_HEADERS), self._settings)


class Ready:
    """200 while requests can be answered, else 503."""

    def __init__(self, auth: "Auth") -> None:
        self._auth = auth
        self._look: asyncio.Task[Readiness] | None = None
        self._shared_until = 0.0

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        state = await self._state()
        status = 503 if state.status == "failing" else 200
        headers = list(_HEADERS)
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await send_answer(send, status, msgspec.json.encode(state), headers, self._auth.settings)

    async def _state(self) -> Readiness:
        loop, look = asyncio.get_running_loop(), self._look
        if look is None or look.get_loop() is not loop or loop.time() >= self._shared_until:
            self._shared_until = loop.time() + SHARED_SECONDS
            look = self._look = begin(self._looked())
        return await asyncio.shield(look)

    async def _looked(self) -> Readiness:
        try:
            return await readiness(await self._auth.running(), self._auth.node)
        except (Unavailable, Misuse) as error:
            log.warning("ready.not", extra={"reason": str(error)})
            return Readiness(
                status="failing", database="failing", lease="failing", clock="ok", usage="ok"
            )


async def readiness(app: App, node: Node | None) -> Readiness:
    """What is there now.

    A clock that another one has left by 30 s degrades, it does not stop. So does a disk that does
    not take the usage which waits for a lost database: a crash would lose that.
    """
    asked, lease_probe = begin(_lag(app)), begin(app.verifier.lease.hold())
    await asyncio.wait([asked, lease_probe], timeout=PATIENCE_SECONDS)
    database, held = _state_of(asked), _state_of(lease_probe)
    lease: State | Literal["stretched"] = held
    if held == "ok" and app.verifier.lease.stretched:
        lease = "stretched"
    redis: State | msgspec.UnsetType = msgspec.UNSET
    if node is not None and node.bus is not None:
        counted_there = node.limits is None or node.limits.shared
        redis = "ok" if node.bus.connected and counted_there else "failing"
    drift = getattr(app.clock, "drift", None)
    away = 0 if drift is None else abs(drift())
    if drift is not None and database == "ok":
        away = max(away, asked.result())
    clock: State = "ok" if away <= MAX_DRIFT_MS else "failing"
    spill = app.verifier.usage.spill
    usage: State = "ok" if spill is None or not spill.failing else "failing"
    status: Literal["ok", "degraded", "failing"] = "ok"
    if lease == "failing":
        status = "failing"
    elif lease == "stretched" or "failing" in (database, clock, usage, redis):
        status = "degraded"
    return Readiness(
        status=status, database=database, lease=lease, clock=clock, usage=usage, redis=redis
    )


async def _lag(app: App) -> int:
    """By how many milliseconds the clock of the database's server is away from ours."""
    theirs = await server_time(app.database)
    return 0 if theirs is None else abs(theirs - app.clock.now())


def _state_of(probe: "asyncio.Task[Any]") -> State:
    reason = "timeout"
    if probe.done():
        try:
            probe.result()
        except (Unavailable, Misuse) as error:
            reason = str(error)
        else:
            return "ok"
    probe.cancel()  # and not waited for: cutting a statement short takes seconds too
    log.warning("ready.waits", extra={"reason": reason})
    return "failing"
