"""Open a Redis by its URL, and see whether it can be relied on.

One connection has 1 s to open and each command 1 s to be answered; nothing is sent twice, because
whoever asks knows better what a second time would mean. Valkey is the same.

An evicting Redis (a `maxmemory-policy` other than `noeviction`) is refused: it would forget what a
key has used just when there is much to remember. The policy is read from INFO, on each node of a
cluster, as managed services forbid CONFIG.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from keybearer.domain.errors import Misuse, Unavailable
from keybearer.domain.redisurl import RedisUrl, parse_redis_url

try:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        NoPermissionError,
        RedisClusterException,
        RedisError,
    )
    from redis.maint_notifications import MaintNotificationsConfig
except ImportError as error:
    raise Misuse(
        f"KEYBEARER_REDIS_URL is set, but {error.name} is missing: pip install keybearer[redis]"
    ) from None

SECONDS = 1.0

Client: TypeAlias = Redis | RedisCluster
ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What the library raises when Redis is lost or answers nonsense."""

_REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What was found behind a URL: the oldest version of its nodes, and how many they are."""

    name: str
    version: str
    nodes: int


class Restarts:
    """When a Redis that we knew was started anew: what it held may be gone.

    Each new connection asks who answers, so no command goes to a server that was not asked. At an
    address that we knew, another run id is a restart, and the uptime tells when it was.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self.at = 0
        self._now = now
        self._runs: dict[tuple[str, int], str] = {}

    async def look(self, connection: Any) -> None:
        """Greets as the library would, then asks."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        lines = (await connection.read_response()).decode().splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        address, run = (connection.host, connection.port), info.get("run_id", "")
        if self._runs.setdefault(address, run) != run:
            self._runs[address] = run
            # Whole seconds, rounded down: it was not later than that.
            self.at = max(self.at, self._now() - int(info.get("uptime_in_seconds", 0)) * 1000)


def connect(url: str, restarts: Restarts | None = None) -> Client:
    """A client for REDIS_URL in any of its forms; nothing is sent yet. End it with `close`.

    Args:
        url: REDIS_URL.
        restarts: who shall notice when a server was started anew.

    Raises:
        Misuse: the URL is none.
    """
    parts = _parse(url)
    watched: dict[str, Any] = {}
    if restarts is not None:
        watched = {"redis_connect_func": restarts.look}
    if parts.kind == "cluster":
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in parts.hosts],
            # Once more after the map of the cluster was read anew: a node had gone.
            **_options(parts, retry=Retry(NoBackoff(), 1)),
        )
        # It takes no such argument, and gives each node a copy of these.
        cluster.connection_kwargs.update(watched)
        for node in cluster.nodes_manager.startup_nodes.values():
            node.connection_kwargs.update(watched)
        return cluster
    if parts.kind == "sentinel":
        sentinel = Sentinel(  # type: ignore[no-untyped-call] # the library's own gap
            parts.hosts,
            sentinel_kwargs=_options(
                parts, username=parts.sentinel_username, password=parts.sentinel_password
            ),
        )
        master: Redis = sentinel.master_for(
            parts.service, db=parts.db, **_options(parts, **watched)
        )
        return master
    return _single(parts, *parts.hosts[0], **watched)


async def subscriber(url: str) -> Redis:
    """A client that can PUBLISH and SUBSCRIBE: PUBLISH travels over the whole of a cluster.

    In a cluster it is connected with the first node of the URL that answers, with sentinels to
    the master of the hour. A lost connection is an error to whoever listens: ask for a new one.

    Raises:
        Misuse: the URL is none.
        Unavailable: no node of the cluster answers.
    """
    parts = _parse(url)
    if parts.kind != "cluster":
        client = connect(url)
        assert isinstance(client, Redis)  # noqa: S101 -- for the type checker
        return client
    for host, port in parts.hosts:
        client = _single(parts, host, port)
        try:
            await client.ping()
        except ERRORS:
            await client.aclose()
        else:
            return client
    raise Unavailable(f"Redis at {parts.where} cannot be reached")


async def close(client: Client) -> None:
    """Ends every connection of a client, those with sentinels too."""
    await client.aclose()
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


async def check(client: Client, url: str) -> Server:
    """Whether what is there can be relied on.

    Raises:
        Misuse: it evicts, is a replica, another kind than the URL says, or refuses our login.
        Unavailable: it cannot be reached.
    """
    parts = _parse(url)
    try:
        infos = await _infos(client)
    except _REFUSALS:
        raise Misuse(f"Redis at {parts.where} refuses the login of KEYBEARER_REDIS_URL") from None
    except ERRORS as error:
        if "Cluster mode is not enabled" in str(error):
            raise Misuse(
                f"Redis at {parts.where} is no cluster: KEYBEARER_REDIS_URL takes redis://…"
            ) from None
        raise Unavailable(f"Redis at {parts.where} cannot be reached ({_name(error)})") from None
    for where, info in infos.items():
        _judge(parts, where or parts.where, info)
    oldest = min(infos.values(), key=_version)
    return Server(
        name="Valkey" if "valkey_version" in oldest else "Redis",
        version=str(oldest.get("valkey_version") or oldest.get("redis_version", "?")),
        nodes=len(infos),
    )


async def _infos(client: Client) -> dict[str, Mapping[str, Any]]:
    """INFO of each node by its name; of a single server by no name."""
    if isinstance(client, Redis):
        return {"": await client.info()}
    # Replicas too: one of them is the master tomorrow.
    await client.initialize()
    nodes = client.get_nodes()
    answers = await asyncio.gather(
        *(client.info(target_nodes=node) for node in nodes), return_exceptions=True
    )
    infos: dict[str, Mapping[str, Any]] = {}
    for node, answer in zip(nodes, answers, strict=True):
        if not isinstance(answer, BaseException):
            infos[node.name] = answer
        elif node.server_type == "primary":
            raise answer
    return infos


def _judge(parts: RedisUrl, where: str, info: Mapping[str, Any]) -> None:
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        said = f"evicts keys when it is full ({policy})" if policy else "does not tell whether it"
        said += "" if policy else " evicts keys"
        raise Misuse(
            f"Redis at {where} {said}, and would forget what keys have used: set its "
            "maxmemory-policy to noeviction"
        )
    if parts.kind == "single" and info.get("role") == "slave":
        raise Misuse(f"Redis at {where} is a replica: KEYBEARER_REDIS_URL takes its master")
    if parts.kind == "single" and info.get("cluster_enabled"):
        raise Misuse(
            f"Redis at {where} is a node of a cluster: KEYBEARER_REDIS_URL takes redis+cluster://…"
        )


def _parse(url: str) -> RedisUrl:
    try:
        return parse_redis_url(url)
    except ValueError as error:
        raise Misuse(f"KEYBEARER_REDIS_URL: {error}") from None


def _single(parts: RedisUrl, host: str, port: int, **others: object) -> Redis:
    return Redis(host=host, port=port, db=parts.db, **_options(parts, **others))


def _options(parts: RedisUrl, **others: object) -> dict[str, Any]:
    return {
        "username": parts.username,
        "password": parts.password,
        "ssl": parts.tls,
        "socket_timeout": SECONDS,
        "socket_connect_timeout": SECONDS,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "keybearer",
        # What every server of the last years speaks; a connection costs no more than it must.
        "protocol": 2,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **others,
    }


def _version(info: Mapping[str, Any]) -> tuple[int, ...]:
    words = str(info.get("valkey_version") or info.get("redis_version", "")).split(".")
    return tuple(int(word) for word in words if word.isdigit())


def _name(error: BaseException) -> str:
    return type(error).__name__
