"""Real PostgreSQL and Redis for the tests, each in a folder of its own.

A server is started on a free port of 127.0.0.1, is owned by this process (it ends with it, where
the system can do that) and is stopped by its pid. Nothing of the machine's own services is touched.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import count
from pathlib import Path

START_SECONDS = 30
STOP_SECONDS = 15
POSTGRES_PACKAGE = "PostgreSQL is not installed: `make system` (Debian's package `postgresql`)."
REDIS_PACKAGE = "Redis is not installed: `make system` (Debian's package `redis-server`)."


class PostgresServer:
    """A running PostgreSQL that makes and drops databases for tests.

    `admin_url` is `postgresql://…` of the superuser in the database `postgres`.
    """

    def __init__(self, *, programs: Path, port: int) -> None:
        self._psql = programs / "psql"
        self._origin = f"postgresql://postgres@127.0.0.1:{port}"
        self._numbers = count(1)
        self._console: subprocess.Popen[str] | None = None
        self.admin_url = f"{self._origin}/postgres"

    def create(self, template: str | None = None) -> str:
        """Make a database, empty or as a copy of the one at the URL `template`; return its URL.

        Nobody may be connected to the template meanwhile: PostgreSQL refuses that.
        """
        name = f"keybearer_{next(self._numbers)}"
        source = "template0" if template is None else _database(template)
        self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{source}" {self._strategy}')
        return f"{self._origin}/{name}"

    def drop(self, url: str) -> None:
        """Drop the database at `url`, and who is still connected with it; idempotent."""
        self._administer(f'DROP DATABASE IF EXISTS "{_database(url)}" WITH (FORCE)')

    def execute(self, statement: str, *, url: str | None = None) -> str:
        """Run one statement outside a transaction; return its rows, `|` between the columns.

        It goes through psql, and so works within a running event loop too.
        """
        done = subprocess.run(
            [self._psql, "-XqAtv", "ON_ERROR_STOP=1", "-c", statement, url or self.admin_url],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def close(self) -> None:
        """End the session that makes and drops databases."""
        if self._console is not None:
            self._console.communicate()
            self._console = None

    @cached_property
    def _strategy(self) -> str:
        # Through the log, as is the default since 15, a copy costs three times as much.
        known = int(self.execute("SHOW server_version_num")) >= 15_00_00
        return "STRATEGY file_copy" if known else ""

    def _administer(self, statement: str) -> None:
        """Run one statement in a session that stays open: each test makes and drops a database."""
        if self._console is None:
            self._console = subprocess.Popen(
                [self._psql, "-Xqv", "ON_ERROR_STOP=1", self.admin_url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._console.stdin is not None
        assert self._console.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._console.stdin.write(f"{statement};\n\\echo done\n")
            self._console.stdin.flush()
        if self._console.stdout.readline() != "done\n":
            # It was refused, or the session has ended: a new one does it, or tells why not.
            self.close()
            self.execute(statement)


@contextlib.contextmanager
def run_postgres(**settings: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL until the block ends. Raises RuntimeError if it is missing or fails.

    `settings` are the server's, beside ours or instead of them.
    """
    programs = _postgres_programs()
    account = _postgres_account()
    with tempfile.TemporaryDirectory(prefix="keybearer-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = folder / "data"
        initdb: list[str | Path] = [
            *_as(account),
            *(programs / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        ]
        done = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")

        with _postgres(programs, folder, settings) as server:
            yield server


@contextlib.contextmanager
def run_standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Run a hot standby of a PostgreSQL until the block ends."""
    programs, account = _postgres_programs(), _postgres_account()
    origin = primary.admin_url.rpartition("/")[0]
    with tempfile.TemporaryDirectory(prefix="keybearer-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = folder / "data"
        copy: list[str | Path] = [
            *_as(account),
            *(programs / "pg_basebackup", "--dbname", origin, "--pgdata", data),
            *("--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
        ]
        done = subprocess.run(copy, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pg_basebackup failed: {done.stderr.strip()}")
        with _postgres(programs, folder, {}) as server:
            yield server


class RedisServer:
    """A Redis without persistence that a test may end and start again, on the same port."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, and wait until it answers. RuntimeError if it is missing or does not start."""
        with (self._folder / "log").open("ab") as sink:
            self._process = subprocess.Popen(
                _redis(self.port, self._folder, *self._options), stdin=subprocess.DEVNULL,
                stdout=sink, stderr=sink,
            )  # fmt: skip
        if not _wait(self._process, _redis_ready, self.port):
            log = (self._folder / "log").read_text(errors="replace")
            raise RuntimeError(f"Redis did not start: {log[-2000:]}")

    def wait(self, command: bytes, until: bytes) -> None:
        """Ask until the answer holds `until`."""
        assert self._process is not None
        if not _wait(self._process, lambda port: until in _redis_said(port, command), self.port):
            raise RuntimeError(f"Redis never said {until!r}")

    def kill(self) -> None:
        """End it at once, as a crash would; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Have it take connections and never answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def run_redis(*options: str) -> Iterator[str]:
    """Run a Redis until the block ends; give its URL. Raises RuntimeError if it is missing."""
    with tempfile.TemporaryDirectory(prefix="keybearer-redis-") as name:
        folder = Path(name)
        with _run(lambda port: _redis(port, folder, *options), _redis_ready, folder=folder) as port:
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def own_redis(*options: str) -> Iterator[RedisServer]:
    """A Redis of the test's own, started, to be killed and started again."""
    with tempfile.TemporaryDirectory(prefix="keybearer-redis-") as name:
        server = RedisServer(Path(name), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def run_redis_cluster() -> Iterator[str]:
    """Run a cluster of three masters until the block ends; give its `redis+cluster://` URL."""
    with tempfile.TemporaryDirectory(prefix="keybearer-cluster-") as name, ExitStack() as running:
        servers = []
        for number in range(3):
            folder = Path(name, str(number))
            folder.mkdir()
            port, bus = _free_port(), _free_port()
            server = RedisServer(
                folder,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", "2000"),
                port=port,
            )
            running.callback(server.kill)
            server.start()
            servers.append(server)
        hosts = [f"127.0.0.1:{server.port}" for server in servers]
        made = subprocess.run(
            ["redis-cli", "--cluster", "create", *hosts, "--cluster-yes"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"The cluster was not made: {made.stdout[-1000:]}{made.stderr}")
        for server in servers:  # redis-cli waits for one of them only
            server.wait(b"CLUSTER INFO", b"cluster_state:ok")
        yield f"redis+cluster://{','.join(hosts)}"


@contextlib.contextmanager
def run_redis_sentinel() -> Iterator[str]:
    """Run a Redis and a sentinel that watches it until the block ends; give the sentinel's URL."""
    with tempfile.TemporaryDirectory(prefix="keybearer-sentinel-") as name, own_redis() as master:
        config = Path(name, "sentinel.conf")
        config.write_text(f"sentinel monitor keys 127.0.0.1 {master.port} 1\n")
        sentinel = RedisServer(Path(name), str(config))
        try:
            sentinel.start()
            yield f"redis+sentinel://127.0.0.1:{sentinel.port}/keys"
        finally:
            sentinel.kill()


def _redis(port: int, folder: Path, *options: str) -> list[str | Path]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise RuntimeError(REDIS_PACKAGE)
    bound: list[str | Path] = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
    if options and options[0].endswith("sentinel.conf"):
        return [*_as(None), program, *options, *bound, "--sentinel"]
    return [*_as(None), program, *bound, "--save", "", "--appendonly", "no", *options]


def _redis_ready(port: int) -> bool:
    return _redis_said(port, b"PING").startswith((b"+PONG", b"-NOAUTH"))


def _redis_said(port: int, command: bytes) -> bytes:
    """The first packet of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(command + b"\r\n")
        return connection.recv(4096)


@contextlib.contextmanager
def _postgres(
    programs: Path, folder: Path, settings: Mapping[str, str]
) -> Iterator[PostgresServer]:
    """Run what is in `folder / "data"` until the block ends."""
    account, data = _postgres_account(), folder / "data"

    def command(port: int) -> list[str | Path]:
        # fsync off: these databases need not outlive the machine. synchronous_commit stays on,
        # so that an acknowledged commit survives the kill of a session as it would in earnest.
        return [
            *_as(account),
            *(programs / "postgres", "-D", data, "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"),
            *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"),
            *("-c", "shared_buffers=64MB", "-c", "autovacuum=off", "-c", "timezone=UTC"),
            *(part for each in settings.items() for part in ("-c", "=".join(each))),
        ]

    def ready(port: int) -> bool:
        probe: list[str | Path] = [
            programs / "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ]
        return subprocess.run(probe, check=False).returncode == 0

    with _run(command, ready, folder=folder) as port:
        server = PostgresServer(programs=programs, port=port)
        try:
            yield server
        finally:
            server.close()


@contextlib.contextmanager
def _run(
    command: Callable[[int], Sequence[str | Path]],
    ready: Callable[[int], bool],
    *,
    folder: Path,
) -> Iterator[int]:
    """Run `command` on a free port until the block ends; give the port once it is ready."""
    log = folder / "log"
    for _ in range(3):  # another process may take the port between our look and the start
        port = _free_port()
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command(port), cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        try:
            if _wait(process, ready, port):
                yield port
                return
        finally:
            _stop(process)
    raise RuntimeError(f"The server did not start: {log.read_text(errors='replace')[-2000:]}")


def _wait(process: subprocess.Popen[bytes], ready: Callable[[int], bool], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # Asked again whether it lives: what answers might be another's server on this port.
            if ready(port) and process.poll() is None:
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Redis ends on it too; for PostgreSQL it is the shutdown that doesn't wait for clients.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _postgres_programs() -> Path:
    """Find the folder of PostgreSQL's programs; Debian's own, newest first, before PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    on_path = shutil.which("initdb")
    folders = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql", "pg_isready")):
            return folder
    raise RuntimeError(POSTGRES_PACKAGE)


def _version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


def _postgres_account() -> pwd.struct_passwd | None:
    """Give the account PostgreSQL runs under: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as(account: pwd.struct_passwd | None) -> list[str]:
    """Begin a command that runs under `account` and ends with this process.

    setpriv replaces itself by the command, so the pid we hold is the server's own.
    """
    setpriv = shutil.which("setpriv")
    if account is None:
        return [setpriv, "--pdeathsig", "INT"] if setpriv else []
    if setpriv is None:
        raise RuntimeError("Run the tests as another user than root: setpriv is missing here.")
    user = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    return [setpriv, *user, "--pdeathsig", "INT"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _database(url: str) -> str:
    return url.rpartition("/")[2]
