"""Loopback wires between the nodes and their servers, which can be cut in every way a network can.

    refused      whoever is connected is cut off, and whoever connects is turned away at once
    silent       nothing passes any more, and nobody is told
    deaf         what a node asks arrives, and no answer comes back: its commits hold, unheard

A wire that was silent or deaf is mended in one of two ways: what was held up comes late, or it is
lost with the connections that it was on.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Literal

Cut = Literal["refused", "silent", "deaf"]


class _End(asyncio.Protocol):
    """One end of a connection: what it receives goes out at the other."""

    def __init__(self, wire: "Wire", *, of_node: bool) -> None:
        self.wire, self.of_node = wire, of_node
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.wire.ends.add(self)
        if self.of_node:
            self.wire.dial(self)
        self.follow(self.wire.cut)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.wire.ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()  # what is written already still goes out

    def join(self, other: "_End") -> None:
        """Sends from here on to the other end, and first what came before."""
        self.other, other.other = other, self
        assert other.transport is not None
        assert self.transport is not None
        if self.transport.is_closing() or other.transport.is_closing():
            self.transport.close()
            other.transport.close()
        elif self._early:
            other.transport.write(self._early)

    def follow(self, cut: Cut | None) -> None:
        assert self.transport is not None
        if cut == "refused":
            self.transport.abort()
        elif cut == "silent" or (cut == "deaf" and not self.of_node):
            self.transport.pause_reading()
        elif not self.transport.is_closing():
            self.transport.resume_reading()


class Wire:
    """One port of a node's own that leads to a port of a server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to: int) -> None:
        self.cut: Cut | None = None
        self.ends: set[_End] = set()
        self.port = 0
        self._loop, self._to = loop, to
        self._dialling: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await self._loop.create_server(
            lambda: _End(self, of_node=True), "127.0.0.1", 0, backlog=100
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.set("refused")
        if self._dialling:
            await asyncio.wait(self._dialling)
        await asyncio.sleep(0)  # what was aborted is told so in the next turn

    def dial(self, end: _End) -> None:
        task = self._loop.create_task(self._dial(end))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, end: _End) -> None:
        try:
            _, other = await self._loop.create_connection(
                lambda: _End(self, of_node=False), "127.0.0.1", self._to
            )
        except OSError:
            assert end.transport is not None
            end.transport.abort()  # the server is down: as it would be without us
        else:
            end.join(other)

    def set(self, cut: Cut | None, *, lost: bool = False) -> None:
        self.cut = cut
        for end in list(self.ends):
            if lost and end.transport is not None:
                end.transport.abort()
            else:
                end.follow(cut)


class Wires:
    """Every wire of a site, on an event loop in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._wires: list[Wire] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def lay(self, to: int) -> Wire:
        """A wire to a port of this machine."""
        wire = Wire(self._loop, to)
        self._do(wire.open())
        self._wires.append(wire)
        return wire

    def cut(self, wire: Wire, how: Cut) -> None:
        self._do(_set(wire, how))

    def mend(self, wire: Wire, *, lost: bool) -> None:
        """Lets all pass again; with `lost` what was held up is gone, and its connections too."""
        self._do(_set(wire, None, lost=lost))

    def close(self) -> None:
        for wire in self._wires:
            self._do(wire.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()


async def _set(wire: Wire, cut: Cut | None, *, lost: bool = False) -> None:
    wire.set(cut, lost=lost)
