"""The ground of the repository: the locks, the databases and Redis."""

import re
from pathlib import Path

import asyncpg
import pytest
import redis

from tests.servers import PostgresServer

ROOT = Path(__file__).parent.parent
LOCKS = ["lock.txt", "uv.txt"]


def requirements(lock: str) -> list[str]:
    """Give the lock's requirements, each with its continued lines joined."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("lock", LOCKS)
def test_each_requirement_is_pinned_with_hashes(lock: str) -> None:
    pinned = re.compile(r"[a-z0-9.-]+==[^\s;]+( ;[^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    lines = requirements(lock)
    assert lines
    assert [line for line in lines if not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("trace", ["://", "--index", "--extra-index", "--find-links", " @ ", "-e "])
def test_locks_name_no_address_and_no_path(lock: str, trace: str) -> None:
    assert trace not in (ROOT / "requirements" / lock).read_text()


@pytest.mark.parametrize("name", ["hatchling", "editables", "pytest", "ruff", "sphinx", "granian"])
def test_the_lock_has_the_build_backend_and_every_group(name: str) -> None:
    assert any(line.startswith(f"{name}==") for line in requirements("lock.txt"))


def test_every_package_that_a_target_asks_for_is_known() -> None:
    asked = re.findall(r"scripts/system-packages (.+)", (ROOT / "Makefile").read_text())
    script = (ROOT / "scripts" / "system-packages").read_text()
    known = set(re.findall(r"^        ([a-z0-9-]+)\) ", script, flags=re.MULTILINE))
    assert {name for names in asked for name in names.split()} <= known
    assert {"wrk", "postgresql", "redis-server", "chromium"} <= known


async def test_fresh_postgres_is_an_empty_database(fresh_postgres: str) -> None:
    connection = await asyncpg.connect(fresh_postgres)
    try:
        tables = await connection.fetchval(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        )
        assert tables == 0
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SHOW max_connections") == "200"
        await connection.execute("CREATE TABLE mine (id bigint)")
    finally:
        await connection.close()


def test_a_database_can_be_copied_from_a_template(postgres_server: PostgresServer) -> None:
    template = postgres_server.create()
    postgres_server.execute("CREATE TABLE made AS SELECT 42 AS answer", url=template)
    copy = postgres_server.create(template=template)
    assert postgres_server.execute("SELECT answer FROM made", url=copy) == "42"
    postgres_server.drop(copy)
    postgres_server.drop(template)
    names = postgres_server.execute("SELECT datname FROM pg_database").splitlines()
    assert copy.rpartition("/")[2] not in names


async def test_a_database_in_use_is_dropped_all_the_same(postgres_server: PostgresServer) -> None:
    url = postgres_server.create()
    connection = await asyncpg.connect(url)
    postgres_server.drop(url)
    connection.terminate()
    postgres_server.drop(url)
    with pytest.raises(RuntimeError, match="does not exist"):
        postgres_server.execute("SELECT 1", url=url)


def test_the_database_url_is_a_new_database(database_url: str) -> None:
    assert database_url.startswith(("sqlite:////", "postgresql://"))


def test_redis_answers_and_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.set("ground", "here")
        assert client.get("ground") == b"here"
        assert client.config_get("save") == {"save": ""}
