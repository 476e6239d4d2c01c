"""Changes to the nodes, and acknowledgements back, by PUBLISH and SUBSCRIBE.

    …:changes          every node listens: a change, as msgpack
    …:acks:<node>      only that node listens: who applied which of its changes

A message that is lost costs time and nothing else: the log in the database decides. So nothing is
kept, nothing is sent again, and who connects anew need not know what it missed.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from keybearer.adapters.redis.connection import ERRORS, SECONDS, close, subscriber
from keybearer.domain.changes import Change
from keybearer.domain.errors import Unavailable

log = logging.getLogger("keybearer")

_QUIET_SECONDS = 1.0
"""After so long without a message a PING asks whether the line still stands."""

_AGAIN_SECONDS = 0.2


class Acknowledgement(msgspec.Struct, frozen=True, array_like=True):
    """Which changes of somebody a node has applied."""

    node: str
    seqs: tuple[int, ...]


_CHANGE = msgspec.msgpack.Decoder(Change)
_ACKNOWLEDGEMENT = msgspec.msgpack.Decoder(Acknowledgement)
_encode = msgspec.msgpack.Encoder().encode


class RedisBus:
    """The bus of one process.

    Args:
        url: REDIS_URL.
        database: the name of the database: nodes of another one hear nothing of ours.
        node: this process.
        member: whether it answers from a cache, and so listens to changes.

    Attributes:
        connected: whether it listens now.
    """

    def __init__(self, url: str, database: str, node: str, *, member: bool) -> None:
        self.connected = False
        self._url = url
        self._node = node
        self._member = member
        self._changes = f"keybearer:{{{database}}}:changes"
        self._acks = f"keybearer:{{{database}}}:acks:"
        self._channels = [self._acks + node, *([self._changes] if member else [])]
        self._heard: Callable[[Change], None] = _ignore
        self._acknowledged: Callable[[int, str], None] = _ignore
        self._client: Any = None
        self._listening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._lost = False
        self._unacknowledged: list[Change] = []
        self._acknowledging: asyncio.Task[None] | None = None

    async def start(
        self, heard: Callable[[Change], None], acknowledged: Callable[[int, str], None]
    ) -> None:
        """Listens from now on; returns after the first try to connect, however it ended.

        Who is no member connects when there is something to ask.

        Args:
            heard: applies a change to the cache.
            acknowledged: told of each change of ours that a node has applied.
        """
        self._heard, self._acknowledged = heard, acknowledged
        if self._member:
            await self._connect()

    async def stop(self) -> None:
        """Listens no more."""
        running = [task for task in (self._listening, self._acknowledging) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def publish(self, change: Change) -> None:
        """Asks every node that listens."""
        await self._connect()
        await self._send(self._changes, change)

    def acknowledge(self, changes: Sequence[Change]) -> None:
        """Tells each who asked which of its changes are applied here, as soon as it can.

        In a task of its own: a Redis that hangs holds up nobody, and what comes meanwhile is
        acknowledged together.
        """
        self._unacknowledged += [change for change in changes if change.origin != self._node]
        if self._unacknowledged and self._acknowledging is None:
            self._acknowledging = asyncio.create_task(self._acknowledge_all())

    async def _connect(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen_for_ever())
        await self._tried.wait()

    async def _send(self, channel: str, message: Change | Acknowledgement) -> None:
        client = self._client
        if client is None:
            return
        try:
            await client.publish(channel, _encode(message))
        except ERRORS as error:
            self._tell_lost(error)

    # --- listening ---

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except (*ERRORS, Unavailable) as error:
                self._tell_lost(error)
            finally:
                self._tried.set()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        client = await subscriber(self._url)
        pubsub = client.pubsub()
        waited_for = set(self._channels)
        try:
            await pubsub.subscribe(*self._channels)
            while True:
                message = await self._next(pubsub)
                if message["type"] == "subscribe":
                    waited_for.discard(message["channel"].decode())
                    if not waited_for:  # only from here on nothing that is asked goes past us
                        self._client, self.connected = client, True
                        self._tell_back()
                        self._tried.set()
                elif message["type"] == "message":
                    self._take(message["channel"].decode(), message["data"])
        finally:
            self._client, self.connected = None, False
            with contextlib.suppress(*ERRORS):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            with contextlib.suppress(*ERRORS):
                await close(client)

    async def _next(self, pubsub: Any) -> Any:
        """The next message; a line on which nothing answers is lost."""
        message = await pubsub.get_message(timeout=_QUIET_SECONDS)
        if message is None:
            await pubsub.ping()
            message = await pubsub.get_message(timeout=SECONDS)
        if message is None:
            raise TimeoutError("nothing answers")
        return message

    def _take(self, channel: str, data: bytes) -> None:
        try:
            if channel == self._changes:
                self._take_change(_CHANGE.decode(data))
            else:
                told = _ACKNOWLEDGEMENT.decode(data)
                for seq in told.seqs:
                    self._acknowledged(seq, told.node)
        except msgspec.MsgspecError:
            log.warning("bus.unreadable", extra={"channel": channel})

    def _take_change(self, change: Change) -> None:
        if change.origin != self._node:
            self._heard(change)
            self.acknowledge([change])

    async def _acknowledge_all(self) -> None:
        try:
            while self._unacknowledged:
                changes, self._unacknowledged = self._unacknowledged, []
                by_origin = defaultdict[str, list[int]](list)
                for change in changes:
                    by_origin[change.origin].append(change.seq)
                for origin, seqs in by_origin.items():
                    await self._send(self._acks + origin, Acknowledgement(self._node, tuple(seqs)))
        finally:
            self._acknowledging = None

    def _tell_lost(self, error: Exception) -> None:
        if not self._lost:
            log.warning("bus.lost", extra={"reason": f"{type(error).__name__}: {error}"})
        self._lost = True

    def _tell_back(self) -> None:
        if self._lost:
            log.info("bus.back")
        self._lost = False


def _ignore(*_: object) -> None:
    """Before anybody listens."""
