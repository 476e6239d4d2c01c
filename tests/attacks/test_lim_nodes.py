"""Limits of several nodes with a real Redis, attacked and lost (rows A096, A113, F12, F13)."""

import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from keybearer import Auth
from keybearer.adapters.redis import windows
from keybearer.domain.errors import Failure, Misuse
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.tokens import Login
from keybearer.verification import shared
from tests.attacks.guarded import ask, bearer
from tests.attacks.nodes import Nodes, limits_of, open_nodes
from tests.people import PASSWORD, SECRET
from tests.servers import RedisServer, own_redis, run_redis

NODES = 4


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with own_redis() as server:
        yield server


@pytest.fixture
async def nodes(
    ready_url: str, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    monkeypatch.setattr(windows, "PATIENCE_SECONDS", 10)  # a busy machine is no lost Redis
    monkeypatch.setattr(shared, "PROBE_SECONDS", 0.02)
    async with open_nodes(ready_url, [redis.url] * NODES) as nodes:
        yield nodes


async def test_a096_of_a_thousand_at_once_on_four_nodes_exactly_the_limit_pass(
    nodes: Nodes,
) -> None:
    assert await nodes.accepted(await nodes.make(10), 250) == 10


async def test_a113_f12_without_redis_each_node_has_its_share_and_it_recovers_by_itself(
    nodes: Nodes, redis: RedisServer
) -> None:
    key, other = await nodes.make(10), await nodes.make(10)
    assert await nodes.accepted(key, 3, nodes=[0]) == 3
    redis.kill()
    assert await nodes.accepted(key, 20) == 0 + 2 + 2 + 2
    assert all(nodes.alone())
    assert await nodes.accepted(other, 20) == 8
    redis.start()
    await nodes.are_back()
    # Redis has forgotten, and was told what was accepted alone. Until a window is over, each node
    # keeps to its share besides, as nobody knows what else was forgotten.
    assert await nodes.accepted(key, 20) == 0
    assert await nodes.accepted(other, 20) == 0


async def test_f12_a_redis_that_does_not_answer_is_lost_as_well(
    nodes: Nodes, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await nodes.make(10)
    assert await nodes.accepted(key, 1, nodes=[0]) == 1
    monkeypatch.setattr(windows, "PATIENCE_SECONDS", 0.05)
    redis.pause()
    assert await nodes.accepted(key, 20) == 1 + 2 + 2 + 2
    monkeypatch.setattr(windows, "PATIENCE_SECONDS", 10)
    redis.go_on()
    await nodes.are_back()
    # Its memory is whole: all that is left can be taken anywhere. What was under way when it
    # stopped may have been counted twice.
    assert await nodes.accepted(key, 20, nodes=[3]) <= 2
    assert await nodes.accepted(await nodes.make(10), 20, nodes=[3]) == 10


async def test_f12_logins_stay_throttled_without_redis(nodes: Nodes, redis: RedisServer) -> None:
    redis.kill()
    codes = []
    for number in range(30):
        try:
            await nodes.auths[number % NODES].api.login(
                Login(email="ada@example.com", password="wrong " + PASSWORD)
            )
        except Failure as failure:
            codes.append(failure.code)
    assert len(codes) == 30
    assert codes[-1] == "TOO_MANY_ATTEMPTS"


async def test_f13_an_emptied_redis_revives_nothing_and_at_most_doubles_a_limit(
    nodes: Nodes, redis: RedisServer
) -> None:
    key, revoked, metered = (
        await nodes.make(10),
        await nodes.make(10),
        await nodes.make(50, remaining=5),
    )
    assert await nodes.accepted(key, 10) == 10
    assert await nodes.accepted(metered, 1) == 4
    shown = await nodes.auths[0].api.get_session({"x-api-key": revoked}, ip="203.0.113.7")
    assert shown is not None
    await nodes.auths[0].api.revoke_api_key(RevokeKey(key_id=shown.id))
    with socket.create_connection(("127.0.0.1", redis.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    assert await nodes.accepted(key, 10) == 10
    assert await nodes.accepted(key, 10) == 0
    assert await nodes.accepted(metered, 10) == 1
    for site in nodes.sites:
        assert (await ask(site, bearer(revoked))).status == 401


async def test_f13_a_restarted_redis_gives_nobody_more_than_a_share(
    nodes: Nodes, redis: RedisServer
) -> None:
    key = await nodes.make(10)
    assert await nodes.accepted(key, 20, nodes=[0]) == 10
    redis.kill()
    redis.start()
    # Nobody has noticed: each learns of it with the connection that it asks over.
    assert not any(nodes.alone())
    assert await nodes.accepted(key, 20) <= 0 + 2 + 2 + 2
    assert await nodes.accepted(key, 20, nodes=[0]) == 0


async def test_an_evicting_redis_stops_the_start(ready_url: str) -> None:
    with run_redis("--maxmemory-policy", "allkeys-lfu") as url:
        auth = Auth(ready_url, secret=SECRET, redis_url=url)
        with pytest.raises(Misuse, match="set its maxmemory-policy to noeviction"):
            await auth.start()


async def test_a_node_starts_alone_where_redis_is_away(ready_url: str, redis: RedisServer) -> None:
    redis.kill()
    auth: Any = Auth(ready_url, secret=SECRET, redis_url=redis.url)
    async with auth.lifespan():
        assert not limits_of(auth).shared
