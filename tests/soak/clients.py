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

from tests.soak.history import Check, History, Refresh, Revocation, Seen, Spend, Use

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
        quotas: keys of quotas, each with its id.
        families: of each login its name, and the refresh token that is live.
        token: a service token.
        at: how many keys have had their turn, for all to see.
        stop: not zero once they shall stop.
    """

    ports: Sequence[int]
    keys: Sequence[tuple[str, str]]
    quotas: Sequence[tuple[str, str]]
    families: Sequence[tuple[str, str]]
    token: str
    at: "Synchronized[int]"
    stop: "Synchronized[int]"
    seed: int

    @property
    def over(self) -> bool:
        return bool(self.stop.value)


class Line:
    """A connection to a node, which is made anew when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, path: str, credential: str | None = None, body: object = None
    ) -> tuple[int, bytes] | None:
        """Status and body of the answer; None when there is none, and UNSENT where nobody asked."""
        lines = [f"{'GET' if body is None else 'POST'} /api/auth{path} HTTP/1.1"]
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
    """One client with a line to each node.

    Attributes:
        access: of the login that it refreshes, the access token that came last.
    """

    plan: Plan
    history: History
    chance: random.Random
    access: str = ""
    lines: list[Line] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = [Line(port) for port in self.plan.ports]

    async def check(self, key: int, node: int) -> Seen:
        start = now()
        answer = await self.lines[node].ask("/forward", self.plan.keys[key][0])
        seen: Seen = "unknown"
        if answer is not None and answer[0] in (200, 401):
            seen = "good" if answer[0] == 200 else "ended"
        if answer is not UNSENT:
            self.history.checks.append(Check(key, node, start, now(), seen))
        return seen

    async def revoke(self, key: int, node: int) -> bool:
        start = now()
        asked = {"keyId": self.plan.keys[key][1]}
        answer = await self.lines[node].ask("/api-key/delete", self.plan.token, asked)
        waited_ms = None
        if answer is not None and answer[0] == 200:
            waited_ms = int(json.loads(answer[1])["waitedMs"])
        if answer is not UNSENT:
            self.history.revocations.append(Revocation(key, node, start, now(), waited_ms))
            self._note_unanswered("revocation", answer)
        return waited_ms is not None

    async def spend(self, quota: int, node: int) -> Seen:
        start = now()
        asked = {"key": self.plan.quotas[quota][0]}
        answer = await self.lines[node].ask("/api-key/verify", self.plan.token, asked)
        seen, left = _spent(answer)
        if answer is not UNSENT:
            self.history.spends.append(Spend(quota, start, now(), seen, left))
        return seen

    async def remaining(self, quota: int, node: int) -> int | None:
        """What the database says is left, once this node has put back what it had."""
        id = self.plan.quotas[quota][1]
        answer = await self.lines[node].ask(f"/api-key/get?id={id}", self.plan.token)
        if answer is None or answer[0] != 200:
            return None
        return int(json.loads(answer[1])["remaining"])

    async def refresh(self, family: str, token: str, node: int) -> str | None:
        start = now()
        answer = await self.lines[node].ask("/refresh", None, {"refreshToken": token})
        said: str | None = None
        if answer is not None and answer[0] == 200:
            pair = json.loads(answer[1])
            said, self.access = pair["refreshToken"], pair["token"]
        elif answer is not None and answer[0] == 401:
            said = ""
        if answer is not UNSENT:
            self.history.refreshes.append(Refresh(family, token, start, now(), said))
            self._note_unanswered("refresh", answer)
        return said

    async def use(self, family: str, token: str, node: int) -> None:
        start = now()
        answer = await self.lines[node].ask("/forward", token)
        seen: Seen = "unknown"
        if answer is not None and answer[0] in (200, 401):
            seen = "good" if answer[0] == 200 else "ended"
        if answer is not UNSENT:
            self.history.uses.append(Use(family, node, start, now(), seen))

    def _note_unanswered(self, what: str, answer: tuple[int, bytes] | None) -> None:
        if answer is None:
            why = "the line broke"
        elif answer[0] >= 400 and answer[0] != 401:
            why = str(json.loads(answer[1]).get("code"))
        else:
            return
        name = f"unanswered {what}: {why}"
        self.history.unanswered[name] = self.history.unanswered.get(name, 0) + 1

    def somewhere(self) -> int:
        return self.chance.randrange(len(self.lines))

    def close(self) -> None:
        for line in self.lines:
            line.close()


def _spent(answer: tuple[int, bytes] | None) -> tuple[Seen, int | None]:
    """What became of one unit, and how many are said to be left."""
    if answer is None or answer[0] != 200:
        return "unknown", None
    said = json.loads(answer[1])
    if said["valid"]:
        return "good", int(said["key"]["remaining"])
    return ("ended" if said["error"]["code"] == "USAGE_EXCEEDED" else "unknown"), None


# --- what they do ----------------------------------------------------------------------------


async def _guest(client: Client, node: int) -> None:
    """Checks keys that are about to be revoked, or just were, at one node."""
    last = len(client.plan.keys) - 1
    while not client.plan.over:
        # Far ahead, so that whoever is cut off has in its cache what is revoked meanwhile.
        key = client.plan.at.value + client.chance.randrange(-20, 100)
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


async def _refresher(
    client: Client, asking: Client, family: str, live: dict[str, str], thief_after: float | None
) -> None:
    """Refreshes with each token twice at once, at two nodes; a thief may come in between."""
    tokens = [live[family]]
    comes_at = None if thief_after is None else time.monotonic() + thief_after
    while not client.plan.over and live[family]:
        if comes_at is not None and time.monotonic() > comes_at and len(tokens) > 2:
            await _steal(client, asking, family, tokens)
            live[family] = ""
            return
        nodes = client.chance.sample(range(len(client.lines)), 2)
        answers = await asyncio.gather(*(client.refresh(family, tokens[-1], it) for it in nodes))
        said = [each for each in answers if each is not None]
        if said:
            live[family] = max(said)  # "" only if both were refused
            tokens.append(live[family])
        await asyncio.sleep(client.chance.choice([0.05, 0.2]))


async def _steal(client: Client, asking: Client, family: str, tokens: Sequence[str]) -> None:
    """Presents a token of before until it is refused, and then what is live, everywhere.

    Twice at once, so that the second finds it ended while the first may still wait; at each
    refusal the access token, which all nodes have in their caches, is asked with.
    """
    everywhere = range(len(client.lines))

    async def use_everywhere() -> None:
        await asyncio.gather(*(asking.use(family, access, node) for node in everywhere))

    access, over = client.access, False
    await use_everywhere()
    while not (over or client.plan.over):
        two = client.chance.sample(everywhere, 2)
        for said in asyncio.as_completed([client.refresh(family, tokens[-3], it) for it in two]):
            if await said is not None:
                over = True
                await use_everywhere()
        await asyncio.sleep(0.05)
    for node in everywhere:
        await client.refresh(family, tokens[-1], node)


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
    history, live = History(), dict(plan.families)
    chance = random.Random(plan.seed)  # noqa: S311
    chances = (random.Random(plan.seed * 1000 + 100 + i) for i in range(1000))  # noqa: S311

    def client() -> Client:
        clients.append(Client(plan, history, next(chances)))
        return clients[-1]

    clients: list[Client] = []
    work: list[Coroutine[Any, Any, None]] = [_revoker(client(), client()) for _ in range(REVOKERS)]
    quotas = list(range(len(plan.quotas)))
    work += [_spender(client(), quotas[:-1]) for _ in range(6)]
    work += [_spender(client(), quotas[-1:]) for _ in range(6)]  # the large one
    for number, family in enumerate(live):
        thief = chance.uniform(3, 12) if number % 2 else None
        work.append(_refresher(client(), client(), family, live, thief))
    _run(work, clients)
    file.write_bytes(msgspec.msgpack.encode((history, live)))


async def settle(plan: Plan, history: History, large: Sequence[int]) -> list[int]:
    """In good weather, at the end: spends what is left of the small quotas, and asks what is."""
    client = Client(plan, history, random.Random(plan.seed))  # noqa: S311
    nodes = range(len(client.lines))
    remaining = []
    for quota in range(len(plan.quotas)):
        for node in nodes:
            while quota not in large and await client.spend(quota, node) != "ended":
                pass
        left = [await _insist(client, quota, node) for node in nodes]
        remaining.append(left[-1])  # after all have put back theirs
    client.close()
    return remaining


async def _insist(client: Client, quota: int, node: int) -> int:
    while True:
        left = await client.remaining(quota, node)
        if left is not None:
            return left
        await asyncio.sleep(0.1)


def _run(work: Sequence[Coroutine[Any, Any, None]], clients: Sequence[Client]) -> None:
    async def run() -> None:
        await asyncio.gather(*work)
        for client in clients:
            client.close()
        await asyncio.sleep(0)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
