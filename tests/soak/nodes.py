"""Several serving processes on one PostgreSQL and one Redis, and the weather they stand in.

    paused       SIGSTOP for up to four seconds: twice as long as a lease
    killed       kill -9, and started anew; or stopped in an orderly way
    cut off      from Redis (its user is off), from PostgreSQL (its role may not log in), or both
    Redis        killed and started anew, or paused

A node is a command of its own, with its own port, role and Redis user.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from tests.cli.command import COMMAND
from tests.people import SECRET
from tests.servers import PostgresServer, RedisServer, _as, own_redis, run_postgres

START_SECONDS = 60

_END_SESSIONS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{}'"


class Node:
    """One `keybearer serve`."""

    def __init__(self, number: int, database: str, redis: RedisServer, folder: Path) -> None:
        self.name = f"soak{number}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder = folder / self.name
        self.folder.mkdir()
        self.hurt_until = 0.0
        clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
        self._env = clean | {
            "KEYBEARER_DATABASE_URL": database.replace("postgres@", f"{self.name}@"),
            "KEYBEARER_REDIS_URL": redis.url.replace("redis://", f"redis://{self.name}:any@"),
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
    """The nodes, their servers, and what has been done to them.

    Attributes:
        hurts: of each node, by its number, from when to when it could not do as it should.
    """

    def __init__(
        self, database: str, postgres: PostgresServer, redis: RedisServer, folder: Path, count: int
    ) -> None:
        self.database, self.postgres, self.redis = database, postgres, redis
        self.nodes = [Node(number, database, redis, folder) for number in range(count)]
        self.events: Counter[str] = Counter()
        self.hurts: list[tuple[int, int, int]] = []
        for node in self.nodes:
            postgres.execute(f"CREATE ROLE {node.name} LOGIN SUPERUSER")

    def was_hurt(self, number: int, start: int, end: int) -> bool:
        """Whether something was done to a node meanwhile; by the monotonic clock, in ns."""
        return any(
            node == number and begun <= end and start <= over for node, begun, over in self.hurts
        )

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def running_site(folder: Path, count: int, template: Callable[[str], None]) -> Iterator[Site]:
    """A site of so many nodes; `template` makes the schema in a database."""
    users = [
        part
        for number in range(count)
        for part in ("--user", f"soak{number}", "on", "nopass", "~*", "&*", "+@all")
    ]
    with run_postgres() as postgres, own_redis(*users) as redis:
        database = postgres.create()
        template(database)
        site = Site(database, postgres, redis, folder, count)
        try:
            yield site
        finally:
            site.kill()


class Weather:
    """Does one thing after the other to a site; what was done is undone when its time is over.

    Args:
        healthy: how many nodes nothing is done to, at any time.
    """

    def __init__(self, site: Site, seed: int, *, healthy: int = 1) -> None:
        self._site = site
        self._chance = random.Random(seed)  # noqa: S311 -- nothing to guess here
        self._healthy = healthy
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._kinds: list[tuple[int, str, Callable[[], None]]] = [
            (3, "paused", self._pause),
            (2, "killed", self._kill),
            (1, "stopped", self._stop),
            (1, "cut off from Redis", self._cut_redis),
            (1, "cut off from PostgreSQL", self._cut_postgres),
            (1, "cut off from both", self._cut_both),
            (1, "Redis killed", self._kill_redis),
            (1, "Redis paused", self._pause_redis),
        ]
        self._next: list[tuple[str, Callable[[], None]]] = []
        self._redis_hurt_until = 0.0

    def blow(self, until: float) -> None:
        """Goes on until then, by the monotonic clock; afterwards all is well again."""
        while time.monotonic() < until:
            if not self._next:  # so that each has its turn, also in a short time
                self._next = [(name, do) for times, name, do in self._kinds for _ in range(times)]
                self._chance.shuffle(self._next)
            name, do = self._next.pop()
            try:
                do()
                self._site.events[name] += 1
            except _NobodyIsLeft:
                self._next.insert(0, (name, do))
            self._wait(min(self._chance.uniform(0.05, 1.0), max(0.0, until - time.monotonic())))
        self._wait(0, everything=True)
        for node in self._site.nodes:
            node.wait()

    def _wait(self, seconds: float, *, everything: bool = False) -> None:
        until = time.monotonic() + seconds
        while self._undo and (everything or min(self._undo)[0] <= until):
            at, undo = min(self._undo, key=lambda each: each[0])
            self._undo.remove((at, undo))
            time.sleep(0 if everything else max(0.0, at - time.monotonic()))
            undo()
        time.sleep(max(0.0, until - time.monotonic()))

    def _for(self, seconds: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + seconds, undo))

    def _one(self, seconds: float) -> Node:
        now = time.monotonic()
        # Who starts without its database ends: that is no weather to look at.
        well = [node for node in self._site.nodes if node.hurt_until < now and node.serves()]
        if len(well) <= self._healthy:
            raise _NobodyIsLeft
        node = self._chance.choice(well)
        node.hurt_until = now + seconds + 0.5
        number = self._site.nodes.index(node)
        self._site.hurts.append((number, int(now * 1e9), int(node.hurt_until * 1e9)))
        return node

    # --- what is done ---

    def _pause(self) -> None:
        seconds = self._chance.choice([0.1, 0.5, 2.1, 3.0, 4.0])
        node = self._one(seconds)
        node.signal(signal.SIGSTOP)
        self._for(seconds, lambda: node.signal(signal.SIGCONT))

    def _kill(self) -> None:
        self._start_again(self._one(4))

    def _stop(self) -> None:
        node = self._one(6)
        node.stop()
        self._for(2, lambda: self._start_again(node))  # with lines open it takes its time

    def _start_again(self, node: Node) -> None:
        node.kill()
        node.start()

    def _cut_redis(self) -> None:
        self._need_redis()
        seconds = self._chance.uniform(0.5, 4)
        self._off(self._one(seconds), seconds)

    def _cut_postgres(self) -> None:
        seconds = self._chance.uniform(0.5, 4)
        self._bar(self._one(seconds), seconds)

    def _cut_both(self) -> None:
        self._need_redis()
        seconds = self._chance.uniform(0.5, 4)
        node = self._one(seconds)
        self._off(node, seconds)
        self._bar(node, seconds)

    def _need_redis(self) -> None:
        if time.monotonic() < self._redis_hurt_until:
            raise _NobodyIsLeft

    def _off(self, node: Node, seconds: float) -> None:
        self._tell_redis(f"ACL SETUSER {node.name} off", f"CLIENT KILL USER {node.name}")
        self._for(seconds, lambda: self._tell_redis(f"ACL SETUSER {node.name} on"))

    def _tell_redis(self, *commands: str) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._site.redis.port), timeout=1) as line,
        ):
            for command in commands:
                line.sendall(command.encode() + b"\r\n")
                line.recv(256)

    def _bar(self, node: Node, seconds: float) -> None:
        run = self._site.postgres.execute
        run(f"ALTER ROLE {node.name} NOLOGIN")
        run(_END_SESSIONS.format(node.name))
        self._for(seconds, lambda: _nothing(run(f"ALTER ROLE {node.name} LOGIN")))

    def _kill_redis(self) -> None:
        self._need_redis()
        self._redis_hurt_until = time.monotonic() + 2
        self._site.redis.kill()
        self._for(self._chance.uniform(0.1, 1.5), self._site.redis.start)

    def _pause_redis(self) -> None:
        self._need_redis()
        seconds = self._chance.choice([0.3, 1.5, 3.0])
        self._redis_hurt_until = time.monotonic() + seconds + 0.5
        self._site.redis.pause()
        self._for(seconds, self._site.redis.go_on)


class _NobodyIsLeft(Exception):
    """To whom it could be done now."""


def _nothing(_said: str) -> None:
    """An answer that tells nothing."""
