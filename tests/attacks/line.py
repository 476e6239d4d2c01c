"""A line between two processes that a test can cut."""

import asyncio
import contextlib


class Line:
    """A line to a server that can go dead: bytes are taken, and none arrive."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._dead = asyncio.Event()
        self._alive = asyncio.Event()
        self._alive.set()
        self._lost: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def cut(self) -> None:
        self._alive.clear()

    def mend(self) -> None:
        self._alive.set()

    def lose(self) -> None:
        """What is connected goes dead for ever, without a word; who dials anew gets through."""
        self._lost |= {*self._writers}

    def lead_to(self, port: int) -> None:
        """Breaks every connection; the next ones end at another server."""
        self._target = (self._target[0], port)
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._alive.wait()
                if sink in self._lost:
                    continue
                sink.write(data)
                await sink.drain()
            if sink not in self._lost:
                sink.close()
