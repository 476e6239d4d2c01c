"""How the server ends: a worker at the first signal, once it serves; the parent when it is told.

SIGTERM and SIGINT are one wish, however often they come: Ctrl-C reaches the whole group of the
terminal and a supervisor tells every process, so a worker hears it from them and from its parent.

granian's own handlers pass each signal on to an event that must be set once, and not before the
server runs: set again while it calls back, or set too early, it holds the interpreter and waits for
ever. A handler of the event loop hears nothing between two runs of it. So these are handlers of the
process, which note the wish; the loop grants it.

    fork ▸ SIGTERM kills ▸ handlers ▸ startup ▸ the server runs ▸ the wish is granted ▸ shutdown
"""

import asyncio
import contextlib
import queue
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from granian._granian import WorkerSignal

STOPS = (signal.SIGTERM, signal.SIGINT)
TURNS = 10
"""Of the loop, after which its run for the startup is over: that takes three."""


def end_at_once() -> None:
    """Lets a signal kill a new worker: the handler that it has of its parent would swallow it."""
    for each in STOPS:
        signal.signal(each, signal.SIG_DFL)


class Ending:
    """An ASGI app in front of another one, which knows when it serves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._wished = False
        self._serving = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: WorkerSignal | None = None

    def listen(self) -> None:
        """Puts itself in the place of granian's handlers."""
        from granian import _signals

        _signals.set_loop_signals = self.attach

    def attach(self, loop: asyncio.AbstractEventLoop) -> "WorkerSignal":
        """Gives the event that granian ends with."""
        from granian._granian import WorkerSignal

        self._loop, self._stop = loop, WorkerSignal()
        for each in STOPS:
            signal.signal(each, self._hear)
        return self._stop

    def _hear(self, *_: object) -> None:
        self._wished = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # a closed loop: it has ended
                self._loop.call_soon_threadsafe(self._grant)

    def _grant(self) -> None:
        if self._wished and self._serving and self._stop is not None:
            self._serving = False
            self._stop.set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            return self._app(scope, receive, send)
        return self._live(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                self._serving = True
                self._grant()

        await self._app(scope, receive, sending)


class Wake:
    """What the parent waits for, in the place of an event.

    An event's `set` takes a lock that is not reentrant: called by a signal handler while another
    one, or the wait, holds it, it never returns. And a signal that comes just before granian clears
    its event, because a worker has died, would be forgotten.

    Args:
        ended: whether a signal has been heard.
    """

    def __init__(self, ended: Callable[[], bool]) -> None:
        self._ended = ended
        self._wishes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Wakes the parent. Reentrant."""
        self._wishes.put(None)

    def clear(self) -> None:
        """Forgets what woke it, but not that it shall end."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._wishes.get_nowait()
        if self._ended():
            self.set()

    def wait(self) -> None:
        """Sleeps until somebody wakes it."""
        self._wishes.get()
