"""Open a Redis by its URL, in each form, and refuse one that cannot be relied on."""

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest
from redis.asyncio import RedisCluster

from keybearer.adapters.redis.connection import Server, check, close, connect, subscriber
from keybearer.domain.errors import Misuse, Unavailable
from tests.servers import own_redis, run_redis, run_redis_sentinel


async def looked_at(url: str) -> Server:
    client = connect(url)
    try:
        return await check(client, url)
    finally:
        await close(client)


async def test_one_server_is_found(redis_url: str) -> None:
    server = await looked_at(redis_url)
    assert (server.name, server.nodes) == ("Redis", 1)
    assert server.version[0].isdigit()


async def test_the_database_of_the_url_is_used(redis_url: str) -> None:
    client = connect(redis_url.replace("/0", "/3"))
    await client.set("here", b"1")
    elsewhere = connect(redis_url)
    assert await elsewhere.exists("here") == 0
    await close(client)
    await close(elsewhere)


async def serves(url: str, *, nodes: int) -> None:
    """Whether it is found, stores and publishes."""
    assert (await looked_at(url)).nodes == nodes
    client, listening, publishing = connect(url), await subscriber(url), await subscriber(url)
    for number in range(20):
        await client.set(f"some-{number}", str(number))
        assert await client.get(f"some-{number}") == str(number).encode()
    async with listening.pubsub() as channel:
        await channel.subscribe("news")
        subscribed = await channel.get_message(timeout=5)
        await publishing.publish("news", "new")
        published = await channel.get_message(timeout=5)
        assert (subscribed["type"], published["data"]) == ("subscribe", b"new")
    for each in (client, listening, publishing):
        await close(each)


async def test_one_server_stores_and_publishes(redis_url: str) -> None:
    await serves(redis_url, nodes=1)


async def test_a_cluster_stores_and_publishes(cluster_url: str) -> None:
    await serves(cluster_url, nodes=3)


async def test_what_a_sentinel_watches_stores_and_publishes() -> None:
    with run_redis_sentinel() as url:
        await serves(url, nodes=1)


async def test_a_service_that_no_sentinel_knows_cannot_be_reached() -> None:
    with run_redis_sentinel() as url, pytest.raises(Unavailable):
        await looked_at(f"{url}-of-others")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_an_evicting_redis_is_refused(policy: str) -> None:
    refused = pytest.raises(Misuse, match=rf"{policy}.*set its maxmemory-policy to noeviction")
    with run_redis("--maxmemory-policy", policy) as url, refused:
        await looked_at(url)


async def test_one_evicting_node_of_a_cluster_is_enough(cluster_url: str) -> None:
    client = connect(cluster_url)
    assert isinstance(client, RedisCluster)
    await client.initialize()
    node = client.get_nodes()[-1]
    await client.config_set("maxmemory-policy", "allkeys-random", target_nodes=node)
    with pytest.raises(Misuse, match="evicts"):
        await check(client, cluster_url)
    await close(client)


async def test_a_url_of_another_kind_is_told(redis_url: str, cluster_url: str) -> None:
    with pytest.raises(Misuse, match=r"no cluster.*takes redis://"):
        await looked_at(redis_url.replace("redis://", "redis+cluster://"))
    with pytest.raises(Misuse, match=r"node of a cluster.*takes redis\+cluster://"):
        await looked_at(cluster_url.replace("redis+cluster://", "redis://").split(",")[0])


async def test_a_replica_is_refused(redis_url: str) -> None:
    port = redis_url.rpartition(":")[2].removesuffix("/0")
    refused = pytest.raises(Misuse, match=r"is a replica.*its master")
    with run_redis("--replicaof", f"127.0.0.1 {port}") as url, refused:
        await looked_at(url)


async def test_a_login_is_used_and_a_wrong_one_told_without_it() -> None:
    with run_redis("--requirepass", "horse staple") as url:
        good = url.replace("//", "//:horse%20staple@")
        assert (await looked_at(good)).nodes == 1
        for bad in (url, url.replace("//", "//:horse@"), url.replace("//", "//ann:horse@")):
            with pytest.raises(Misuse, match="refuses the login") as refused:
                await looked_at(bad)
            assert "horse" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:horse@127.0.0.1:1",
        "redis+sentinel://:horse@127.0.0.1:1/keys?sentinel_password=horse",
        "redis+cluster://:horse@127.0.0.1:1",
    ],
)
async def test_what_cannot_be_reached_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match=r"Redis at 127\.0\.0\.1:1 cannot be reached") as lost:
        await looked_at(url)
    assert "horse" not in str(lost.value)


async def test_no_node_of_a_cluster_to_subscribe_at_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await subscriber("redis+cluster://127.0.0.1:1,127.0.0.1:2")


async def test_a_server_that_was_away_is_used_again() -> None:
    with own_redis() as server:
        client = connect(server.url)
        await client.set("some", "1")
        server.kill()
        with pytest.raises(Unavailable):
            await check(client, server.url)
        server.start()
        # Connections that died meanwhile are no failures of the first commands.
        assert [*await asyncio.gather(*(client.exists("some") for _ in range(5)))] == [0] * 5
        await close(client)


def test_a_bad_url_is_misuse() -> None:
    with pytest.raises(Misuse, match="KEYBEARER_REDIS_URL: takes"):
        connect("http://127.0.0.1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("redis-tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made: list[str | Path] = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", key, "-out", certificate),
    ]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


async def test_tls_is_spoken_to_whom_our_authorities_vouch_for(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1]))
    with own_redis(*files, "--tls-auth-clients", "no") as server:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        plain = connect(server.url)
        await plain.execute_command("CONFIG", "SET", "tls-port", port)
        await close(plain)
        url = f"rediss://127.0.0.1:{port}"
        with pytest.raises(Unavailable):
            await looked_at(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert (await looked_at(url)).nodes == 1
