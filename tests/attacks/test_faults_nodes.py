"""Faults of one node among several (rows F14, F15, F19, F21, F24, F25)."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from keybearer import Auth, Refusal, Session
from keybearer.adapters.clock import SystemClock
from keybearer.adapters.redis import windows
from keybearer.domain.errors import Failure
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.tokens import Login, Refresh
from keybearer.verification import shared
from keybearer.web.health import readiness
from tests.attacks.guarded import ask, bearer
from tests.attacks.line import Line
from tests.attacks.nodes import Nodes, open_nodes
from tests.cli.command import Shell
from tests.people import PASSWORD, SECRET, person
from tests.servers import RedisServer, own_redis

DAY = 86_400_000


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with own_redis() as server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "PATIENCE_SECONDS", 10)  # a busy machine is no lost Redis
    monkeypatch.setattr(shared, "PROBE_SECONDS", 0.02)


async def id_of(nodes: Nodes, key: str) -> str:
    verdict = await nodes.auths[0].api.authenticate({"x-api-key": key})
    assert isinstance(verdict, Session)
    return verdict.id


async def revoke_at(nodes: Nodes, number: int, id: str) -> int:
    """Gives how many nodes had to stop."""
    done = await nodes.auths[number].api.revoke_api_key(RevokeKey(key_id=id))
    return done.nodes


# --- cut off ----------------------------------------------------------------------------------


async def test_f15_a_node_that_is_cut_off_from_redis_accepts_nothing_after_the_receipt(
    ready_url: str, redis: RedisServer
) -> None:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Line("127.0.0.1", redis.port)) for _ in range(3)]
        urls = [f"redis://127.0.0.1:{line.port}/0" for line in lines]
        nodes = await stack.enter_async_context(open_nodes(ready_url, urls))
        for cut in (1, 2, 0):
            key = await nodes.make(100)
            id = await id_of(nodes, key)
            for site in nodes.sites:
                assert (await ask(site, bearer(key))).status == 200
            lines[cut].cut()
            assert await revoke_at(nodes, 0, id) == 3
            for site in nodes.sites:
                assert (await ask(site, bearer(key))).status == 401
            lines[cut].mend()


# --- a failover that loses what was written ---------------------------------------------------


@contextmanager
def replica_of(master: RedisServer) -> Iterator[RedisServer]:
    with own_redis("--replicaof", f"127.0.0.1 {master.port}") as server:
        server.wait(b"INFO replication", b"master_link_status:up")
        yield server


def tell(server: RedisServer, command: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(command + b"\r\n")
        assert connection.recv(64).startswith(b"+OK")


async def test_f14_after_a_failover_that_lost_writes_no_revoked_key_works(
    ready_url: str, redis: RedisServer
) -> None:
    async with AsyncExitStack() as stack:
        replica = stack.enter_context(replica_of(redis))
        line = await stack.enter_async_context(Line("127.0.0.1", redis.port))
        url = f"redis://127.0.0.1:{line.port}/0"
        nodes = await stack.enter_async_context(open_nodes(ready_url, [url] * 3))
        limited, revoked = await nodes.make(10), await nodes.make(10)
        id = await id_of(nodes, revoked)
        tell(replica, b"REPLICAOF NO ONE")  # from here on it gets nothing
        assert await nodes.accepted(limited, 10) == 10
        assert await revoke_at(nodes, 0, id) == 3
        taken = 10
        for stale in (replica, redis):  # the old master comes back, with what it had
            line.lead_to(stale.port)
            for site in nodes.sites:
                assert (await ask(site, bearer(revoked))).status == 401
            taken += await nodes.accepted(limited, 10)
            key = await nodes.make(100)
            id = await id_of(nodes, key)
            for site in nodes.sites:
                assert (await ask(site, bearer(key))).status == 200
            assert await revoke_at(nodes, 1, id) == 3
            for site in nodes.sites:
                assert (await ask(site, bearer(key))).status == 401
        assert taken <= 2 * 10


# --- clocks -----------------------------------------------------------------------------------


class WrongClock(SystemClock):
    """The clock of a machine that was set wrong before the start, so that it finds no drift."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__()
        self.ahead_ms = ahead_ms

    def now(self) -> int:
        return super().now() + self.ahead_ms

    def drift(self) -> int:
        return super().drift() + self.ahead_ms


async def two(url: str, wrong: WrongClock, stack: AsyncExitStack, redis: RedisServer) -> list[Auth]:
    auths = []
    for clock in (SystemClock(), wrong):
        auth = Auth(url, secret=SECRET, token_management=True, redis_url=redis.url, clock=clock)
        await stack.enter_async_context(auth.lifespan())
        auths.append(auth)
    return auths


@pytest.fixture
async def ada(ready_url: str) -> Login:
    auth = Auth(ready_url, secret=SECRET, serving=False)
    async with auth.lifespan():
        await person(await auth.running())
    return Login(email="ada@example.com", password=PASSWORD)


async def accepts(auth: Auth, token: str) -> bool:
    verdict = await auth.api.authenticate({"authorization": f"Bearer {token}"})
    assert isinstance(verdict, Session | Refusal)
    return isinstance(verdict, Session)


@pytest.mark.parametrize(("ahead_s", "taken"), [(20, True), (60, False), (-60, True)])
async def test_f21_a_token_of_a_node_that_is_ahead_is_taken_up_to_thirty_seconds(
    ready_url: str, redis: RedisServer, ada: Login, ahead_s: int, taken: bool
) -> None:
    async with AsyncExitStack() as stack:
        right, wrong = await two(ready_url, WrongClock(ahead_s * 1000), stack, redis)
        made = await wrong.api.login(ada)
        for _ in range(3):  # one answer, each time
            assert await accepts(right, made.token) is taken
        for _ in range(3):
            assert await accepts(wrong, made.token)


@pytest.mark.parametrize(("ahead_s", "status"), [(20, "ok"), (60, "degraded"), (-60, "degraded")])
async def test_f21_a_node_whose_clock_is_not_the_databases_is_degraded(
    ready_url: str, redis: RedisServer, ahead_s: int, status: str
) -> None:
    if not ready_url.startswith("postgresql"):
        pytest.skip("a file has the clock of its machine")
    async with AsyncExitStack() as stack:
        right, wrong = await two(ready_url, WrongClock(ahead_s * 1000), stack, redis)
        states = [await readiness(await auth.running(), auth.node) for auth in (right, wrong)]
    assert [state.status for state in states] == ["ok", status]


@pytest.mark.parametrize("ahead", [DAY, 3_650 * DAY])
async def test_f19_what_a_clock_far_ahead_made_is_not_taken_and_what_it_ended_stays_ended(
    ready_url: str, redis: RedisServer, ada: Login, ahead: int
) -> None:
    async with AsyncExitStack() as stack:
        clock = WrongClock(ahead)
        right, wrong = await two(ready_url, clock, stack, redis)
        before = await right.api.login(ada)
        made = await wrong.api.login(ada)
        assert not await accepts(right, made.token)
        assert not await accepts(wrong, before.token)
        if ahead > 3_000 * DAY:  # the login is over, says the node that is ahead
            with pytest.raises(Failure) as refused:
                await wrong.api.refresh(Refresh(refresh_token=before.refresh_token))
            assert refused.value.code == "INVALID_REFRESH_TOKEN"
        # Its clock is set right and steps back by all of it: what had expired there has expired.
        clock.ahead_ms = 0
        assert not await accepts(right, made.token)


# --- races ------------------------------------------------------------------------------------


async def test_f25_two_nodes_that_race_for_a_refresh_token_make_one_successor(
    ready_url: str, redis: RedisServer
) -> None:
    async with open_nodes(ready_url, [redis.url] * 2) as nodes:
        made = await nodes.auths[0].api.login(Login(email="ada@example.com", password=PASSWORD))
        token = made.refresh_token
        for _ in range(50):
            pairs = await asyncio.gather(
                *(
                    auth.api.refresh(Refresh(refresh_token=token))
                    for auth in nodes.auths
                    for _ in range(2)
                )
            )
            [token] = {pair.refresh_token for pair in pairs}
            for auth in nodes.auths:
                assert await accepts(auth, pairs[0].token)


# --- a rolling restart ------------------------------------------------------------------------


def test_f24_a_rolling_restart_fails_no_request(
    shell: Shell, redis_url: str, fresh_postgres: str
) -> None:
    """As a load balancer does it: who is to end gets no more, and then is told."""
    shell.env["KEYBEARER_DATABASE_URL"] = fresh_postgres
    shell.env["KEYBEARER_REDIS_URL"] = redis_url
    shell.env["KEYBEARER_SECRET"] = SECRET
    shell.ok("migrate")
    shell.user()
    _, key = shell.key("--rate-limit", "off")
    headers = {
        "authorization": f"Bearer {shell.service_token()}",
        "content-type": "application/json",
    }
    body = json.dumps({"key": key})
    bases: list[str] = []
    answered: list[tuple[int, bool]] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            for base in list(bases):
                connection = HTTPConnection(urlsplit(base).netloc, timeout=20)
                try:
                    connection.request("POST", "/api/auth/api-key/verify", body, headers)
                except ConnectionRefusedError:  # nothing was sent
                    assert base not in bases
                    continue
                answer = connection.getresponse()
                answered.append((answer.status, json.loads(answer.read())["valid"]))
                connection.close()
                time.sleep(0.005)

    with ExitStack() as servers:
        old = [servers.enter_context(shell.serving()) for _ in range(2)]
        bases += [server.base for server in old]
        clients = [threading.Thread(target=load) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for server in old:
                bases.remove(server.base)  # no new requests; those under way go on
                assert server.stop() == 0
                bases.append(servers.enter_context(shell.serving()).base)
            before = len(answered)
            while len(answered) < before + 50:
                assert all(client.is_alive() for client in clients)
                time.sleep(0.01)
        finally:
            ended.set()
            for client in clients:
                client.join(20)
    assert set(answered) == {(200, True)}
