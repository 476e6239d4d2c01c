"""Several serving processes on one PostgreSQL and one Redis, each with wires of its own to them."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.cli.command import COMMAND
from tests.people import SECRET
from tests.servers import RedisServer, _as, own_redis, run_postgres
from tests.soak.wires import Wires

START_SECONDS = 300


class Node:
    """One `keybearer serve`, and its wires.

    Attributes:
        hurt_until: when it will do again as it should, by the monotonic clock.
        hurts: from when to when it could not, in ns.
        losses: how often it may have lost units of quotas that it had taken.
    """

    def __init__(self, name: str, database: str, redis: str, wires: Wires, folder: Path) -> None:
        self.name = name
        self.postgres = wires.lay(_port(database))
        self.redis = wires.lay(_port(redis))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder = folder / self.name
        self.folder.mkdir()
        self.hurt_until = 0.0
        self.hurts: list[tuple[int, int]] = []
        self.losses = 0
        clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
        self._env = clean | {
            "KEYBEARER_DATABASE_URL": _through(database, self.postgres.port),
            "KEYBEARER_REDIS_URL": _through(redis, self.redis.port),
            "KEYBEARER_SECRET": SECRET,
            "KEYBEARER_TOKEN_MANAGEMENT": "true",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as sink:
            self._process = subprocess.Popen(
                [*_as(None), COMMAND, "serve", "--port", str(self.port)],
                cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    def serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.port}/api/auth/ok", timeout=1)
        except httpx2.TransportError:
            return False
        return bool(answer.status_code == 200)

    def wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not self.serves():
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)

    def signal(self, what: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, what)

    def stop(self) -> None:
        """Begins an orderly end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


class Site:
    """The nodes, their servers, and what has been done to them."""

    def __init__(self, database: str, redis: RedisServer, folder: Path, count: int) -> None:
        self.database, self.redis = database, redis
        self.wires = Wires()
        self.nodes = [
            Node(f"node{number}", database, redis.url, self.wires, folder)
            for number in range(count)
        ]
        self.events: Counter[str] = Counter()

    @property
    def losses(self) -> int:
        """How often a node may have lost units of quotas."""
        return sum(node.losses for node in self.nodes)

    def was_hurt(self, number: int, start: int, end: int) -> bool:
        """Whether something was done to a node meanwhile; by the monotonic clock, in ns."""
        return any(begun <= end and start <= over for begun, over in self.nodes[number].hurts)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self.wires.close()


@contextlib.contextmanager
def running_site(folder: Path, count: int, make_schema: Callable[[str], None]) -> Iterator[Site]:
    """A site of so many nodes, on a database and a Redis of its own."""
    with run_postgres() as postgres, own_redis() as redis:
        database = postgres.create()
        make_schema(database)
        site = Site(database, redis, folder, count)
        try:
            yield site
        finally:
            site.close()


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, port: int) -> str:
    return url.replace(f":{_port(url)}/", f":{port}/")
