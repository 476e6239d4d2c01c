"""Databases and servers that every test may ask for; started when the first one asks.

| fixture           | lives for | gives                                                        |
|-------------------|-----------|--------------------------------------------------------------|
| `postgres_server` | session   | `PostgresServer`: `.create(template=None) -> url`, `.drop(url)` |
| `postgres_url`    | session   | the superuser's URL of that server                           |
| `fresh_postgres`  | test      | URL of an empty PostgreSQL database, dropped afterwards      |
| `database_url`    | test      | runs the test twice: URL of an empty SQLite, then PostgreSQL |
| `ready_url`       | test      | the same, with the schema of this version                    |
| `clock`           | test      | a clock that stands still until a test moves it              |
| `auth`            | test      | a started `Auth` with everything on, on each database        |
| `app`             | test      | its parts                                                    |
| `client`          | test      | HTTP to it, in process                                       |
| `redis_server`    | session   | URL of a Redis without persistence                           |
| `redis_url`       | test      | the same, emptied beforehand                                 |
| `cluster_url`     | test      | URL of a Redis Cluster of three, emptied beforehand          |
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from keybearer import Auth
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.adapters.sql.database import migrate, open_database
from keybearer.operations.app import App
from keybearer.web.mount import no_app
from tests import tracing
from tests.people import SECRET, StandingClock
from tests.servers import PostgresServer, run_postgres, run_redis, run_redis_cluster

MEMORY = "/dev/shm"  # noqa: S108 -- names in it are made as in /tmp
ROOM = 2 << 30
"""Bytes."""


def pytest_configure() -> None:
    """Databases and files of tests stay in memory where there is room for them.

    On a disk, each commit of a test waits for it, and a new PostgreSQL database is 8 MB. TMPDIR
    says otherwise.
    """
    if "TMPDIR" not in os.environ and os.path.isdir(MEMORY):
        place = os.statvfs(MEMORY)
        if place.f_bavail * place.f_frsize >= ROOM and not place.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"] = tempfile.tempdir = MEMORY


def pytest_runtestloop() -> None:
    tracing.keep_out()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Usage that waits for a lost PostgreSQL waits in here, and not where a service has it."""
    before = os.environ.get("STATE_DIRECTORY")
    os.environ["STATE_DIRECTORY"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("STATE_DIRECTORY")
    if before is not None:
        os.environ["STATE_DIRECTORY"] = before


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.admin_url


@pytest.fixture
def fresh_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keybearer.db'}"
    # Asked for by name only here, so that the SQLite run starts no PostgreSQL.
    return str(request.getfixturevalue("fresh_postgres"))


async def _migrate(url: str) -> None:
    database, _ = open_database(url)
    await migrate(database)
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    url = postgres_server.create()
    asyncio.run(_migrate(url))
    return urlsplit(url).path.removeprefix("/")


@pytest.fixture(params=["sqlite", "postgresql"])
def ready_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        path = tmp_path / "keybearer.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create(request.getfixturevalue("postgres_template"))
    yield url
    server.drop(url)


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
async def auth(ready_url: str, clock: StandingClock) -> AsyncIterator[Auth]:
    auth = Auth(
        ready_url,
        secret=SECRET,
        token_management=True,
        permissions="files:read,files:write,users:write,deploy:run",
        user_permissions="files:read,files:write,deploy:run",
        clock=clock,
    )
    await auth.start()
    app = await auth.running()
    app.hasher.close()
    # The same Argon2id at a hundredth of the cost: these tests log in a thousand times.
    object.__setattr__(app, "hasher", Hasher(threads=2, cost=Cost(memory_kib=64, passes=1)))
    yield auth
    await auth.stop()


@pytest.fixture
async def app(auth: Auth) -> App:
    return await auth.running()


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with run_redis() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    parts = urlsplit(redis_server)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    return redis_server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[str]:
    with run_redis_cluster() as url:
        yield url


@pytest.fixture
def cluster_url(cluster_server: str) -> str:
    for host in cluster_server.partition("://")[2].split(","):
        port = int(host.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"CONFIG SET maxmemory-policy noeviction\r\nFLUSHALL\r\n")
            said = b""
            while said.count(b"\r\n") < 2:
                said += connection.recv(64)
            assert said == b"+OK\r\n+OK\r\n"
    return cluster_server


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A short name for long values: those that are made anew in each process differ between
    the processes that share a run."""
    if isinstance(val, str | bytes) and len(val) > 40:
        return argname
    return None
