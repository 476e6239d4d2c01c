"""Against real processes: what starts, what does not, and what survives."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from keybearer.cli import serve
from keybearer.settings import load
from tests.cli.command import Server, Shell
from tests.people import SECRET


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.base)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def test_it_says_where_things_are_and_answers(shell: Shell) -> None:
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    with shell.serving() as server:
        answer = httpx2.get(f"{server.base}/api/auth/api-key/list")
        assert answer.status_code == 401
        assert answer.json()["code"] == "UNAUTHORIZED"
        assert server.stop() == 0
    lines = {line.partition(":")[0]: line for line in server.said.splitlines()}
    assert f"{server.base}/en/sign-up" in lines["sign up"]
    assert f"{server.base}/en/account/api-keys" in lines["API keys"]
    assert f"{server.base}/api/auth/docs" in lines["reference"]
    assert f"{server.base}/dev/outbox" in lines["mail"]
    assert len(server.said.splitlines()) == 5


def test_base_url_and_port_come_from_settings_too(shell: Shell) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shell.env |= {"KEYBEARER_PORT": str(port), "KEYBEARER_BASE_URL": "https://auth.example.com"}
    server = shell.start()
    try:
        assert server.process.stderr is not None
        first = server.process.stderr.readline()
        assert first == (
            f"keybearer serves on http://127.0.0.1:{port} as https://auth.example.com\n"
        )
    finally:
        server.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(shell: Shell, how: signal.Signals) -> None:
    with shell.serving() as server:
        assert server.stop(how) == 0


def test_a_closed_terminal_ends_it_too(shell: Shell) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests run under
    try:
        with shell.serving() as server:
            os.killpg(server.process.pid, signal.SIGHUP)
            assert server.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_that_cannot_start_ends_the_server_with_exit_code_1(shell: Shell) -> None:
    """Somebody takes the lock between the parent's look and the worker's start."""
    code = (
        "from keybearer.cli import main, serve; from keybearer.auth import Auth; import sys;"
        "serve._rehearse = lambda keywords, examples: "
        "(Auth(serving=False, **keywords).settings, None);"
        "sys.argv = ['keybearer', 'serve', '--port', '0']; main()"
    )
    with shell.serving():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=shell.folder, check=False, capture_output=True,
            text=True, timeout=20,
        )  # fmt: skip
    assert done.returncode == 1
    assert "another process already serves this database" in done.stderr
    assert "Traceback" not in done.stderr


def test_control_c_reaches_both_processes_and_still_ends_with_0(shell: Shell) -> None:
    with shell.serving() as server:
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.end() == 0
        assert "Traceback" not in server.said


def refused(shell: Shell, *args: str) -> str:
    server = shell.start(*args)
    assert server.end() == 1, server.said
    assert server.said.count("\n") == 1, server.said
    return server.said


def test_a_second_server_on_the_same_database_says_why_not(shell: Shell) -> None:
    with shell.serving():
        assert "another process already serves this database" in refused(shell, "--port", "0")


def test_a_taken_port_is_told(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port} cannot be listened on" in refused(shell, "--port", port)


def test_two_servers_never_share_a_port(shell: Shell, tmp_path: Path) -> None:
    with shell.serving() as server:
        shell.env["KEYBEARER_DATABASE_URL"] = f"sqlite:///{tmp_path}/other.db"
        port = str(urlsplit(server.base).port)
        assert "Address already in use" in refused(shell, "--port", port)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("KEYBEARER_KEY_RATE_LIMIT", "fast", "KEYBEARER_KEY_RATE_LIMIT"),
        ("KEYBEARER_NOPE", "1", "KEYBEARER_NOPE is not a setting"),
        ("KEYBEARER_DATABASE_URL", "sqlite:////no/such/k.db", "cannot be written"),
        ("KEYBEARER_WORKERS", "2", "KEYBEARER_REDIS_URL"),
        ("KEYBEARER_HOST", "192.0.2.1", "192.0.2.1"),
        ("KEYBEARER_LOCALES", "en,xx", "KEYBEARER_LOCALES 'en,xx': takes en, de, fr"),
        ("KEYBEARER_TRUSTED_PROXIES", "foo", "of your own proxies. Entry 1: write an IPv4 address"),
    ],
)
def test_a_wrong_setting_is_one_line(shell: Shell, variable: str, value: str, named: str) -> None:
    shell.env[variable] = value
    assert named in refused(shell, "--port", "0")


def test_a_file_that_is_no_database_is_named(shell: Shell) -> None:
    file = shell.folder / "keybearer.db"
    file.write_bytes(b"not a database at all" * 300)
    file.chmod(0o600)
    assert refused(shell, "--port", "0") == (
        f"keybearer: DATABASE_URL: {file} is no SQLite database: name another file, or move this "
        "one away\n"
    )
    assert file.read_bytes() == b"not a database at all" * 300


def test_a_postgresql_that_is_away_is_named(shell: Shell) -> None:
    shell.env |= {
        "KEYBEARER_DATABASE_URL": "postgresql://nobody:word-of-pass@127.0.0.1:1/none",
        "KEYBEARER_SECRET": SECRET,
    }
    told = refused(shell, "--port", "0")
    assert "DATABASE_URL: PostgreSQL at 127.0.0.1:1 cannot be reached (Conn" in told
    assert "word-of-pass" not in told


def test_a_redis_that_is_away_is_told_and_waited_for(shell: Shell) -> None:
    shell.env["KEYBEARER_REDIS_URL"] = "redis://:word-of-pass@127.0.0.1:1"
    with shell.serving() as server:
        assert server.stop() == 0
    (told,) = [line for line in server.said.splitlines() if line.startswith("warning:")]
    assert "Redis at 127.0.0.1:1 cannot be reached" in told
    assert "word-of-pass" not in server.said


def test_many_workers_share_their_changes(shell: Shell, redis_url: str) -> None:
    shell.env |= {"KEYBEARER_REDIS_URL": redis_url, "KEYBEARER_WORKERS": "3"}
    token, _ = shell.service_token(), shell.user()
    id, key = shell.key()
    with shell.serving() as server:
        for _ in range(12):  # each of them has it in its cache
            assert server.verify(token, key)["valid"]
        assert shell.json("keys", "revoke", id)["nodes"] == 3
        for _ in range(12):
            assert not server.verify(token, key)["valid"]
        assert server.stop() == 0
    assert "workers:   3 processes" in server.said


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for those of sockets."""
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as name:
        yield Path(name)


def test_one_scrape_has_the_figures_of_every_worker(
    shell: Shell, redis_url: str, short: Path
) -> None:
    shell.env |= {
        "KEYBEARER_REDIS_URL": redis_url, "KEYBEARER_WORKERS": "2", "TMPDIR": str(short)
    }  # fmt: skip
    token, _ = shell.service_token(), shell.user()
    _, key = shell.key()
    with shell.serving() as server:
        for _ in range(30):
            server.verify(token, key)
        until = time.monotonic() + 20
        seen, text = 0.0, ""
        while seen < 30 and time.monotonic() < until:  # verdicts are a second late at the most
            text = httpx2.get(f"{server.base}/api/auth/metrics").text
            accepted = [
                float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith("keybearer_verdicts_total{")
                and 'kind="key",outcome="accepted"' in line
            ]
            assert sum(accepted) >= seen  # whichever worker answers
            seen = sum(accepted)
        assert seen == 30
        for worker in (1, 2):
            assert f'keybearer_worker_up{{worker="{worker}"}} 1.0' in text
            assert f'keybearer_lease_held{{worker="{worker}"}} 1.0' in text
        assert len(list(short.iterdir())) == 1
        assert server.stop() == 0
    assert list(short.iterdir()) == []


@pytest.mark.parametrize("place", ["/tmp", f"/tmp/{'x' * 90}"])  # noqa: S108 -- never made
def test_where_nothing_can_be_written_each_worker_tells_of_itself(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> str:
        raise FileNotFoundError("no folder")

    monkeypatch.setattr(tempfile, "tempdir", place)
    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with serve._meeting_place(load({}, environ={})) as folder:
        assert folder is None
    assert "set METRICS_DIR" in capsys.readouterr().err
    with serve._meeting_place(load({"metrics_dir": "/run/keys"}, environ={})) as folder:
        assert folder == "/run/keys"


def test_without_token_management_it_says_that_the_key_pages_are_off(shell: Shell) -> None:
    with shell.serving() as server:
        assert httpx2.get(f"{server.base}/en/login").status_code == 200
        assert httpx2.get(f"{server.base}/en/account/api-keys").status_code == 404
        assert server.stop() == 0
    assert "API keys:  their pages are off" in server.said


def test_an_unmigrated_postgresql_says_what_to_run(shell: Shell, fresh_postgres: str) -> None:
    shell.env |= {
        "KEYBEARER_DATABASE_URL": fresh_postgres,
        "KEYBEARER_SECRET": "9bT4xK2vQ7mZ1rW5nH8cJ3pL6sD0yF4g",
    }
    assert "run `keybearer migrate`" in refused(shell, "--port", "0")
    shell.ok("migrate")
    with shell.serving() as server:
        assert "another process" in refused(shell, "--port", "0")
        assert server.stop() == 0


def test_sigterm_writes_what_was_counted(shell: Shell) -> None:
    shell.user()
    id, key = shell.key()
    token = shell.service_token()
    with shell.serving() as server:
        for _ in range(5):
            assert server.verify(token, key)["valid"] is True
        assert server.stop() == 0
    shown = shell.json("keys", "show", id)
    assert shown["requestCount"] == 5
    assert shown["lastRequest"] is not None


def test_a_request_under_way_is_finished(shell: Shell) -> None:
    body = b'{"key":"kb_x"}'
    token = shell.service_token()
    with shell.serving() as server, connect(server) as line:
        line.sendall(
            b"POST /api/auth/api-key/verify HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n"
            b"Authorization: Bearer %s\r\n\r\n" % (len(body), token.encode()) + body[:5]
        )
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(OSError):  # noqa: PT011 -- nobody new comes in
            connect(server)
        line.sendall(body[5:])
        assert line.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.end() == 0


def test_kill_9_loses_no_acknowledged_change(shell: Shell) -> None:
    user = shell.user()
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    token = shell.service_token()
    made: list[str] = []
    with shell.serving() as server:

        def make() -> None:
            with contextlib.suppress(httpx2.TransportError), httpx2.Client() as client:
                while True:
                    answer = client.post(
                        f"{server.base}/api/auth/api-key/create",
                        json={"name": "ci", "userId": user},
                        headers={"authorization": f"Bearer {token}"},
                    )
                    assert answer.status_code == 200, answer.text
                    made.append(answer.json()["key"])

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(made) < 40 and time.monotonic() < until:
            time.sleep(0.01)
        server.kill()
        for thread in threads:
            thread.join()
    assert len(made) >= 40
    shell.ok("audit", "verify")
    with shell.serving() as server:
        assert all(server.verify(token, key)["valid"] for key in made)


def test_when_only_the_parent_is_killed_the_worker_goes_too(shell: Shell) -> None:
    with shell.serving() as server:
        worker = server.worker
        server.process.kill()
        until = time.monotonic() + 10
        while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{worker}").exists()
    with shell.serving() as again:
        assert again.stop() == 0


def test_a_dead_worker_ends_the_server_with_exit_code_1(shell: Shell) -> None:
    with shell.serving() as server:
        os.kill(server.worker, signal.SIGKILL)
        assert server.end() == 1


def test_what_the_command_revokes_the_server_refuses(shell: Shell) -> None:
    shell.user()
    id, key = shell.key()
    token = shell.service_token()
    with shell.serving() as server:
        assert server.verify(token, key)["valid"] is True
        done = shell.ok("keys", "revoke", id)
        assert server.verify(token, key)["error"]["code"] == "KEY_REVOKED"
        assert re.match(r"revoked; stopped on 1 process after \d+\.\d s", done.stderr)
        assert "serves this database" in shell.ok("doctor").stdout


def test_links_that_the_command_mails_lead_to_the_server(shell: Shell, database_url: str) -> None:
    shell.env |= {"KEYBEARER_DATABASE_URL": database_url, "KEYBEARER_SECRET": SECRET}
    shell.ok("migrate")

    def mailed(email: str) -> tuple[str, str]:
        """What the command says of the mail, and the mail."""
        said = shell.ok("users", "create", email, "--name", "Ann").stderr
        (mail,) = shell.json("outbox", "--limit", "1")["mails"]
        assert mail["to"] == email
        return said, mail["text"]

    with shell.serving() as server:
        said, text = mailed("a@example.com")
        assert f"its links begin with {server.base}\n" in said
        assert f"{server.base}/api/auth/reset-password/" in text
        found = shell.ok("doctor").stdout
        assert f"served as {server.base}\n" in found
        assert f"a process serves this database as {server.base}\n" in found
        shell.env["KEYBEARER_BASE_URL"] = "https://auth.example.com"
        assert "https://auth.example.com/api/auth/reset-password/" in mailed("b@example.com")[1]
        found = shell.ok("doctor").stdout
        assert f"warn  serving           a process serves this database as {server.base}" in found
        del shell.env["KEYBEARER_BASE_URL"]
        assert server.stop() == 0
    said, text = mailed("c@example.com")
    assert "its links begin with http://127.0.0.1:8000" in said
    assert "http://127.0.0.1:8000/api/auth/reset-password/" in text


def test_what_the_command_disables_and_rotates_ends_too(shell: Shell) -> None:
    shell.user()
    id, key = shell.key()
    token = shell.service_token()
    (listed,) = shell.json("service-token", "list")["serviceTokens"]
    with shell.serving() as server:
        shell.ok("users", "disable", "ann@example.com")
        assert server.verify(token, key)["error"]["code"] == "OWNER_DISABLED"
        shell.ok("users", "enable", "ann@example.com")
        assert server.verify(token, key)["valid"] is True
        new = shell.ok("keys", "rotate", id, "--grace", "0").stdout.strip()
        assert server.verify(token, key)["valid"] is False
        assert server.verify(token, new)["valid"] is True
        shell.ok("service-token", "revoke", listed["id"])
        answer = httpx2.post(
            f"{server.base}/api/auth/api-key/verify",
            json={"key": new},
            headers={"authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.test", 400), ("127.0.0.1.evil.test", 400), ("", 400), ("localhost:99", 401)],
)
def test_unknown_names_are_turned_away(shell: Shell, host: str, status: int) -> None:
    with shell.serving() as server:
        answer = httpx2.get(f"{server.base}/api/auth/audit", headers={"host": host})
        assert answer.status_code == status
        if status == 400:
            assert answer.json()["code"] == "INVALID_HOST"


@pytest.mark.parametrize(
    "headers",
    [b"".join(b"x%d: y\r\n" % n for n in range(150)), b"x: " + b"y" * 200_000 + b"\r\n"],
    ids=["many", "long"],
)
def test_too_many_or_too_long_headers_are_431(shell: Shell, headers: bytes) -> None:
    with shell.serving() as server, connect(server) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        assert line.recv(65_536).startswith(b"HTTP/1.1 431")


def test_the_log_has_no_secrets(shell: Shell) -> None:
    shell.user()
    _, key = shell.key()
    with shell.serving("--access-log", "--json") as server:
        credentials = {"authorization": f"Bearer {key}", "cookie": "x.session_token=abcdef"}
        httpx2.get(f"{server.base}/api/auth/verify-email?token={key}", headers=credentials)
        httpx2.get(f"{server.base}/api/auth/reset-password/{key[3:46]}", headers=credentials)
        assert server.stop() == 0
    events = [json.loads(line) for line in server.said.splitlines() if line.startswith("{")]
    paths = [event["path"] for event in events if event["event"] == "request"]
    assert "/api/auth/verify-email" in paths
    assert "/api/auth/reset-password/[redacted]" in paths
    assert key[3:46] not in server.said
    assert "token=" not in server.said


def test_examples_need_a_checkout_that_has_them(shell: Shell) -> None:
    if (Path(__file__).parents[2] / "examples/endpoints.py").is_file():
        with shell.serving("--examples") as server:
            answer = httpx2.get(f"{server.base}/api/protected-endpoint")
            assert answer.status_code == 401
            shell.user()
            _, key = shell.key()
            answer = httpx2.get(
                f"{server.base}/api/protected-endpoint", headers={"authorization": f"Bearer {key}"}
            )
            assert answer.status_code == 200
    else:
        assert "examples/endpoints.py" in refused(shell, "--port", "0", "--examples")
