"""Clients in processes of their own, who write down what they asked and what was answered."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import msgspec

from tests.soak.history import Check, History, Refresh, Revocation, Seen, Spend

PATIENCE_SECONDS = 20.0
"""Longer than any node is paused: whoever gives up earlier leaves a request that comes late."""

REVOKERS = 40
UNSENT = (0, b"")
"""Nobody listened: it cannot have happened, and is not written down."""

now = time.monotonic_ns


@dataclass(frozen=True)
class Plan:
    """What the clients of one round work with.

    Attributes:
        ports: of each node.
        keys: each with its id, to be revoked one after the other.
        quotas: keys with so many units each.
        families: the live refresh token of each login.
        token: a service token.
        at: how many keys have had their turn, for all to see.
        ends_at: when they shall stop, by the monotonic clock.
    """

    ports: Sequence[int]
    keys: Sequence[tuple[str, str]]
    quotas: Sequence[str]
    families: Sequence[str]
    token: str
    at: "Synchronized[int]"
    ends_at: float
    seed: int = 0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends_at


class Line:
    """A connection to a node, which is made anew when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, path: str, credential: str | None = None, body: object = None
    ) -> tuple[int, bytes] | None:
        """Status and body of the answer; None when there is none, and UNSENT where nobody asked."""
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
        lines.append(f"host: 127.0.0.1:{self._port}")
        if credential is not None:
            lines.append(f"authorization: Bearer {credential}")
        sent = b""
        if body is not None:
            sent = json.dumps(body).encode()
            lines += ["content-type: application/json", f"content-length: {len(sent)}"]
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return UNSENT
        request = "\r\n".join([*lines, "", ""]).encode() + sent
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._exchange(*self._streams, request)
        except (OSError, EOFError, TimeoutError):
            self.close()
            return None

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, bytes]:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = int(head[9:12]), 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return status, await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Client:
    """One client with a line to each node."""

    plan: Plan
    history: History
    chance: random.Random
    lines: list[Line] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = [Line(port) for port in self.plan.ports]

    async def check(self, key: int, node: int) -> Seen:
        start = now()
        answer = await self.lines[node].ask("/api/auth/forward", self.plan.keys[key][0])
        seen = _seen(answer, 401)
        if answer is not UNSENT:
            self.history.checks.append(Check(key, node, start, now(), seen))
        return seen

    async def revoke(self, key: int, node: int) -> bool:
        start = now()
        answer = await self.lines[node].ask(
            "/api/auth/api-key/delete", self.plan.token, {"keyId": self.plan.keys[key][1]}
        )
        waited_ms = None
        if answer is not None and answer[0] == 200:
            waited_ms = int(json.loads(answer[1])["waitedMs"])
        if answer is not UNSENT:
            self.history.revocations.append(Revocation(key, node, start, now(), waited_ms))
        return waited_ms is not None

    async def spend(self, quota: int, node: int) -> Seen:
        start = now()
        answer = await self.lines[node].ask("/api/auth/forward", self.plan.quotas[quota])
        seen = _seen(answer, 429)
        if answer is not UNSENT:
            self.history.spends.append(Spend(quota, start, now(), seen))
        return seen

    async def refresh(self, family: int, token: str, node: int) -> str | None:
        start = now()
        answer = await self.lines[node].ask("/api/auth/refresh", None, {"refreshToken": token})
        said: str | None = None
        if answer is not None and answer[0] == 200:
            said = json.loads(answer[1])["refreshToken"]
        elif answer is not None and answer[0] == 401:
            said = ""
        if answer is not UNSENT:
            self.history.refreshes.append(Refresh(family, token, start, now(), said))
        return said

    def somewhere(self) -> int:
        return self.chance.randrange(len(self.lines))

    def close(self) -> None:
        for line in self.lines:
            line.close()


def _seen(answer: tuple[int, bytes] | None, ended: int) -> Seen:
    if answer is None or answer[0] not in (200, ended):
        return "unknown"
    return "good" if answer[0] == 200 else "ended"


# --- what they do ----------------------------------------------------------------------------


async def _guest(client: Client, node: int) -> None:
    """Checks keys that are about to be revoked, or just were, at one node."""
    last = len(client.plan.keys) - 1
    while not client.plan.over:
        key = client.plan.at.value + client.chance.randrange(-20, 10)
        if await client.check(min(max(key, 0), last), node) == "unknown":
            await asyncio.sleep(0.05)


async def _revoker(client: Client, asking: Client) -> None:
    """Has each key in every cache, revokes it somewhere, and asks everywhere at once."""
    plan, everywhere = client.plan, range(len(client.lines))
    while not plan.over:
        key = plan.at.value
        if key >= len(plan.keys):
            return
        plan.at.value += 1  # this process alone counts
        before = [asyncio.create_task(asking.check(key, node)) for node in everywhere]
        await asyncio.wait(before, timeout=0.5)
        await asyncio.sleep(client.chance.choice([0, 0, 0.01, 0.3]))
        for _ in range(5):
            if await client.revoke(key, client.somewhere()):
                break
            await asyncio.sleep(0.1)
        await asyncio.gather(*(client.check(key, node) for node in everywhere))
        await asyncio.wait(before)  # a line carries one question at a time


async def _spender(client: Client, mine: Sequence[int]) -> None:
    """Spends quotas to the end, one after the other."""
    for quota in mine:
        refused = 0
        while refused < 3 and not client.plan.over:
            seen = await client.spend(quota, client.somewhere())
            refused += seen == "ended"
            if seen == "unknown":
                await asyncio.sleep(0.05)


async def _refresher(client: Client, family: int, live: dict[int, str]) -> None:
    """Refreshes with each token twice at once, at two nodes."""
    while not client.plan.over and live[family]:
        nodes = client.chance.sample(range(len(client.lines)), 2)
        token = live[family]
        answers = await asyncio.gather(*(client.refresh(family, token, each) for each in nodes))
        said = [each for each in answers if each is not None]
        if said:
            live[family] = max(said)  # "" only if both were refused
        await asyncio.sleep(client.chance.choice([0.05, 0.2]))


# --- their processes -------------------------------------------------------------------------


def guests(plan: Plan, file: Path) -> None:
    """Asks each node over several lines, as fast as it answers."""
    history = History()
    clients = [Client(plan, history, random.Random(plan.seed * 1000 + i)) for i in range(3)]  # noqa: S311
    work = [_guest(client, node) for client in clients for node in range(len(plan.ports))]
    _run(work, clients)
    file.write_bytes(msgspec.msgpack.encode(history))


def holders(plan: Plan, file: Path) -> None:
    """Revokes, spends and refreshes."""
    history, live = History(), dict(enumerate(plan.families))
    chances = (random.Random(plan.seed * 1000 + 100 + i) for i in range(1000))  # noqa: S311

    def client() -> Client:
        clients.append(Client(plan, history, next(chances)))
        return clients[-1]

    clients: list[Client] = []
    work: list[Coroutine[Any, Any, None]] = [_revoker(client(), client()) for _ in range(REVOKERS)]
    quotas = list(range(len(plan.quotas)))
    work += [_spender(client(), quotas) for _ in range(6)]
    work += [_refresher(client(), family, live) for family in live]
    _run(work, clients)
    file.write_bytes(msgspec.msgpack.encode((history, live)))


async def spend_the_rest(plan: Plan, history: History) -> None:
    """Spends every quota at every node until each refuses: in good weather, at the end."""
    client = Client(plan, history, random.Random(plan.seed))  # noqa: S311
    for quota in range(len(plan.quotas)):
        for node in range(len(client.lines)):
            while await client.spend(quota, node) != "ended":
                pass
    client.close()


def _run(work: Sequence[Coroutine[Any, Any, None]], clients: Sequence[Client]) -> None:
    async def run() -> None:
        await asyncio.gather(*work)
        for client in clients:
            client.close()
        await asyncio.sleep(0)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
