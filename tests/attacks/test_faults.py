"""Faults of the files and the machine: nothing acknowledged is lost (rows F04 to F34)."""

import contextlib
import os
import random
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pysqlite3.dbapi2 as driver
import pytest

from tests.attacks.life import wait_until
from tests.cli.command import Server, Shell
from tests.people import SECRET

TRIALS = 10
API = "/api/auth"


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """The same, for a server where people manage their keys."""
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    return shell


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def query(shell: Shell, statement: str) -> list[tuple[Any, ...]]:
    """Rows of the database while nobody serves it."""
    with contextlib.closing(driver.connect(str(shell.folder / "keybearer.db"))) as connection:
        return list(connection.execute(statement))


# --- kill -9 ----------------------------------------------------------------------------------


class Clients:
    """Clients that make and revoke keys until their server is gone; they remember what was said."""

    def __init__(self, server: Server, token: str, owner: str) -> None:
        self.made: dict[str, str] = {}
        self.revoked: set[str] = set()
        self._server, self._token, self._owner = server, token, owner
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(4)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def wait_for(self, n: int) -> None:
        """Until this many keys were made."""
        wait_until(lambda: len(self.made) >= n)

    def _work(self, seed: int) -> None:
        choose = random.Random(seed)  # noqa: S311 -- no secret
        mine: list[str] = []
        with (
            contextlib.suppress(httpx2.TransportError),
            httpx2.Client(base_url=self._server.base, headers=bearer(self._token)) as client,
        ):
            while True:
                asked = {"name": "ci", "userId": self._owner}
                answer = client.post(f"{API}/api-key/create", json=asked)
                assert answer.status_code == 200, answer.text
                self.made[answer.json()["id"]] = answer.json()["key"]
                mine.append(answer.json()["id"])
                if choose.random() < 0.5:
                    id = mine.pop(choose.randrange(len(mine)))
                    answer = client.post(f"{API}/api-key/delete", json={"keyId": id})
                    assert answer.status_code == 200, answer.text
                    self.revoked.add(id)


def test_f04_f05_kill_9_at_any_moment_loses_nothing_acknowledged(shell: Shell) -> None:
    owner = shell.user()
    token = shell.service_token()
    made: dict[str, str] = {}
    revoked: set[str] = set()
    for trial in range(TRIALS):
        with shell.serving() as server, Clients(server, token, owner) as clients:
            # By counts, not seconds, so that a slow machine is killed in the midst of work too.
            clients.wait_for(random.Random(trial).randrange(1, 30))  # noqa: S311 -- no secret
            server.kill()
        made |= clients.made
        revoked |= clients.revoked
        rows = query(shell, "SELECT id, revoked_at IS NOT NULL FROM api_keys")
        assert made.keys() <= {id for id, _ in rows}
        assert revoked <= {id for id, ended in rows if ended}
        told = dict(query(shell, "SELECT event, count(*) FROM audit GROUP BY event"))
        assert told["key.created"] == len(rows)
        assert told.get("key.revoked", 0) == sum(ended for _, ended in rows)
    assert len(made) > TRIALS
    assert revoked
    shell.ok("audit", "verify")
    with shell.serving() as server:
        for id, key in made.items():
            verdict = server.verify(token, key)
            if id in revoked:
                assert verdict["error"]["code"] == "KEY_REVOKED"
            else:  # revoked all the same, if its answer was on its way
                assert verdict["valid"] or verdict["error"]["code"] == "KEY_REVOKED"


def test_sigterm_under_load_answers_what_it_took_and_counts_it(shell: Shell) -> None:
    shell.user()
    id, key = shell.key()
    token = shell.service_token()
    answered: list[int] = []
    lost: list[BaseException] = []

    def ask(server: Server) -> None:
        with httpx2.Client(base_url=server.base, headers=bearer(token)) as client:
            while True:
                try:
                    answer = client.post(f"{API}/api-key/verify", json={"key": key})
                except httpx2.TransportError as error:
                    lost.append(error)
                    return
                assert answer.json()["valid"] is True
                answered.append(answer.status_code)

    with shell.serving() as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) >= 300)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
    assert len(lost) == 6
    counted = shell.json("keys", "show", id)["requestCount"]
    # Each client may have had one request taken whose answer it did not get.
    assert len(answered) <= counted <= len(answered) + len(lost)


# --- files ------------------------------------------------------------------------------------


def started_in_vain(shell: Shell) -> str:
    """What a start says that must fail in one line."""
    # Modes of files do not bind root, unless it gives up what makes it root.
    meek = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
    done = subprocess.run(
        [*meek, *shell.command, "serve", "--port", "0"], cwd=shell.folder, env=clean | shell.env,
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("keybearer: ")
    return done.stderr


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def test_f11_a_file_that_cannot_be_written_stops_the_start_in_one_line(shell: Shell) -> None:
    shell.env["KEYBEARER_SECRET"] = SECRET
    shell.user()
    for mode in (0o444, 0o000):
        for file in shell.folder.iterdir():
            file.chmod(mode)
        assert "cannot be written" in started_in_vain(shell)


@pytest.mark.parametrize("missing", [["-secret"], ["-serving"], ["-secret", "-serving"]])
def test_f11_a_folder_that_cannot_be_written_stops_the_start_in_one_line(
    shell: Shell, missing: list[str]
) -> None:
    shell.user()
    with shell.serving() as server:
        assert server.stop() == 0
    for end in missing:
        (shell.folder / f"keybearer.db{end}").unlink()
    before = {file.name: file.read_bytes() for file in shell.folder.iterdir()}
    with read_only(shell.folder):
        said = started_in_vain(shell)
    assert "cannot be" in said or "readonly database" in said or "unable to open" in said
    assert {file.name: file.read_bytes() for file in shell.folder.iterdir()} == before


def test_f11_a_lock_of_somebody_else_stops_the_start_in_one_line(shell: Shell) -> None:
    shell.user()
    lock = shell.folder / "keybearer.db-serving"
    lock.touch()
    lock.chmod(0o000)
    assert "keybearer.db-serving cannot be written (Permission denied)" in started_in_vain(shell)


@contextlib.contextmanager
def full_disk(shell: Shell, server: Server) -> Iterator[None]:
    """No file of the worker may grow, as on a full disk; what is there can be read."""
    files = [shell.folder / name for name in ("keybearer.db", "keybearer.db-wal")]
    size = max(file.stat().st_size for file in files)
    before = resource.prlimit(server.worker, resource.RLIMIT_FSIZE)
    resource.prlimit(server.worker, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.worker, resource.RLIMIT_FSIZE, before)


def test_f17_a_full_disk_is_503_and_leaves_nothing_half_done(shell: Shell) -> None:
    owner = shell.user()
    _, key = shell.key()
    token = shell.service_token()
    with (
        shell.serving() as server,
        httpx2.Client(base_url=server.base, headers=bearer(token)) as client,
    ):
        made: list[str] = []

        def create() -> httpx2.Response:
            answer = client.post(
                f"{API}/api-key/create",
                json={"name": "n" * 32, "userId": owner, "metadata": {"x": "y" * 1000}},
            )
            if answer.status_code == 200:
                made.append(answer.json()["id"])
            return answer

        assert create().status_code == 200
        with full_disk(shell, server):
            while create().status_code == 200:
                assert len(made) < 1000
            for answer in [create() for _ in range(20)]:
                assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) > 0
            assert server.verify(token, key)["valid"] is True  # reading goes on
            assert client.get(f"{API}/health/live").status_code == 200
        assert create().status_code == 200
        assert server.verify(token, key)["valid"] is True
        assert server.stop() == 0
    assert "Traceback" not in server.said
    assert {id for (id,) in query(shell, "SELECT id FROM api_keys")} >= set(made)
    told = dict(query(shell, "SELECT event, count(*) FROM audit GROUP BY event"))
    ((rows,),) = query(shell, "SELECT count(*) FROM api_keys")
    assert rows == told["key.created"] == len(made) + 1
    assert query(shell, "PRAGMA integrity_check") == [("ok",)]
    shell.ok("audit", "verify")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_f17_a_disk_that_is_really_full_is_survived_from_the_start(
    shell: Shell, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this root may not mount")
    try:
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        shell.env["KEYBEARER_DATABASE_URL"] = f"sqlite:///{disk}/keybearer.db"
        assert "keybearer: " in started_in_vain(shell)
        assert (disk / "keybearer.db-secret").exists() is False
        ballast.unlink()
        owner = shell.user()
        token = shell.service_token()
        with (
            shell.serving() as server,
            httpx2.Client(base_url=server.base, headers=bearer(token)) as client,
        ):
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"x" * 1024):
                    pass
            statuses = set()
            for _ in range(60):
                answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
                statuses.add(answer.status_code)
            assert statuses <= {200, 503}
            assert 503 in statuses
            ballast.unlink()
            answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
            assert answer.status_code == 200
            assert server.stop() == 0
        shell.ok("audit", "verify")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_f17_no_more_files_to_open_ends_nothing(shell: Shell) -> None:
    shell.user()
    _, key = shell.key()
    token = shell.service_token()
    with shell.serving() as server:
        assert server.verify(token, key)["valid"] is True
        with httpx2.Client(base_url=server.base, headers=bearer(token)) as client:
            assert client.get(f"{API}/health/live").status_code == 200
            before = resource.prlimit(server.worker, resource.RLIMIT_NOFILE)
            inside = len(os.listdir(f"/proc/{server.worker}/fd"))
            resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (inside, before[1]))
            answer = client.post(f"{API}/api-key/verify", json={"key": key})
            assert answer.json()["valid"] is True  # who is connected is served
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(f"{server.base}{API}/health/live", timeout=2)
            resource.prlimit(server.worker, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: answers(server))
        assert server.verify(token, key)["valid"] is True
        assert server.stop() == 0


def answers(server: Server) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{server.base}{API}/health/ready", timeout=5).status_code == 200
    return False
