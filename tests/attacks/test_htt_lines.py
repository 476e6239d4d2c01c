"""Connections that are slow, idle, or gone (rows A278, A295, A300)."""

import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import httpx2

from tests.attacks.wire import (
    CHUNKED,
    GET,
    HOST,
    JSON,
    PATIENCE,
    POST,
    connect,
    health,
    status,
    told,
    wait_for,
)
from tests.cli.command import COMMAND, Server, Shell

# --- A278 -------------------------------------------------------------------------------------

HURRIED = """
import sys
from keybearer.cli import main, serve, slow
serve.IDLE_SECONDS = 2
slow.SlowBodies.__init__.__kwdefaults__["seconds"] = 2
main()
"""
"""The server, with less patience than it has: 30 and 10 seconds are long for a test."""


def drip(server: Server, lines: list[socket.socket]) -> dict[socket.socket, bytes]:
    """Sends a byte at a time on each line until the server has closed them all."""
    heard = dict.fromkeys(lines, b"")
    left = set(lines)
    until = time.monotonic() + 3 * PATIENCE
    for line in lines:
        line.setblocking(False)
    while left:
        assert time.monotonic() < until, f"{len(left)} lines are still open"
        assert health(server) == 200
        for line in list(left):
            try:
                line.send(b"a")
                chunk = line.recv(65_536)
                heard[line] += chunk
                if not chunk:
                    left.discard(line)
            except BlockingIOError:
                pass
            except OSError:
                left.discard(line)
        time.sleep(0.05)
    return heard


def test_a278_who_is_slow_is_cut_off_and_nobody_else_waits(shell: Shell) -> None:
    shell.command = [sys.executable, "-c", HURRIED]
    post = POST.replace(b"sign-out", b"login")
    heads = {
        "headers": GET + HOST + b"X-Slow: ",
        "body": post + b"Content-Length: 60000\r\n\r\n{",
        "chunks": post + CHUNKED + b"\r\nfff\r\n{",
    }
    with shell.serving() as server, contextlib.ExitStack() as open_lines:
        lines: dict[socket.socket, str] = {}
        for name, _ in itertools.product(heads, range(60)):
            line = open_lines.enter_context(connect(server))
            line.sendall(heads[name])
            lines[line] = name
        heard = drip(server, list(lines))
        for line, name in lines.items():
            answer = heard[line]
            # The answer may be lost where our last byte crossed the end of the connection.
            assert not answer or status(answer) == 408 or name == "headers", answer
            assert b" 200 " not in answer
        assert any(heard[line] for line in lines if lines[line] == "body")
        silent = connect(server)
        silent.sendall(GET + HOST + b"\r\n")
        assert told(silent).endswith(b'{"ok":true}')  # and is closed, as nothing more comes
        silent.close()
        assert server.stop() == 0


# --- A295 -------------------------------------------------------------------------------------

FILES = 256


def idle(server: Server, lines: contextlib.ExitStack) -> socket.socket:
    line = lines.enter_context(connect(server))
    line.sendall(GET + HOST + b"\r\n")
    return line


def answered(line: socket.socket) -> bool:
    line.settimeout(PATIENCE)
    return line.recv(65_536).startswith(b"HTTP/1.1 200")


def seconds_of_cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a295_idle_connections_leave_files_for_the_database_and_accepting_recovers(
    shell: Shell,
) -> None:
    shell.command = ["sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', COMMAND]
    with shell.serving() as server:
        worker = server.worker
        with contextlib.ExitStack() as lines:
            first = idle(server, lines)
            assert answered(first)
            for _ in range(300):
                idle(server, lines)
            files = Path(f"/proc/{worker}/fd")
            wait_for(lambda: len(list(files.iterdir())) >= FILES // 2)
            before = seconds_of_cpu(worker)
            time.sleep(1)
            # Accepting again and again what no file is left for takes a whole processor.
            assert seconds_of_cpu(worker) - before < 0.7
            assert len(list(files.iterdir())) < FILES - 20
            first.sendall(GET.replace(b"/ok", b"/health/ready") + HOST + b"\r\n")
            assert answered(first)
            body = b'{"name":"Ann","email":"ann@example.com","password":"quiet otters fold paper"}'
            first.sendall(
                b"POST /api/auth/sign-up/email HTTP/1.1\r\n" + HOST + JSON
                + b"Content-Length: %d\r\n\r\n" % len(body) + body
            )  # fmt: skip
            assert answered(first)
        assert health(server) == 200
        assert server.stop() == 0
        assert "Traceback" not in server.said
    assert [user["email"] for user in shell.json("users", "list")["users"]] == ["ann@example.com"]


# --- A300 -------------------------------------------------------------------------------------


def hang_up(line: socket.socket) -> None:
    """Closes without a goodbye: the server hears of it by a reset."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def test_a300_who_hangs_up_takes_nobody_elses_answer_along(shell: Shell) -> None:
    """Three in four hang up: in the head, in the body, or when all is sent."""
    users = {email: shell.user(email) for email in ("ann@example.com", "bob@example.com")}
    keys = [(shell.key(owner=email)[1], id) for email, id in users.items()]
    token = shell.service_token()
    wrong: list[str] = []
    with shell.serving() as server:

        def request(key: str) -> bytes:
            body = json.dumps({"key": key}).encode()
            return (
                b"POST /api/auth/api-key/verify HTTP/1.1\r\n" + HOST + JSON
                + b"Authorization: Bearer %s\r\n" % token.encode()
                + b"Content-Length: %d\r\n\r\n" % len(body) + body
            )  # fmt: skip

        def attack() -> None:
            for n in range(150):
                key, _ = keys[n % 2]
                sent = request(key)
                with connect(server) as line:
                    line.sendall(sent[: (len(sent) // 3, len(sent) - 5, None)[n % 3]])
                    hang_up(line)

        def ask() -> None:
            with httpx2.Client(base_url=server.base, timeout=PATIENCE) as client:
                for n in range(100):
                    key, owner = keys[n % 2]
                    answer = client.post(
                        "/api/auth/api-key/verify",
                        json={"key": key},
                        headers={"authorization": f"Bearer {token}"},
                    ).json()
                    if answer["key"]["referenceId"] != owner:
                        wrong.append(answer["key"]["referenceId"])
                done.append(n)

        done: list[int] = []
        files = Path(f"/proc/{server.worker}/fd")
        assert health(server) == 200
        before = len(list(files.iterdir()))
        threads = [threading.Thread(target=work) for work in (attack, attack, attack, ask, ask)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (wrong, len(done)) == ([], 2)
        # No connection is left behind, neither theirs nor one to the database.
        wait_for(lambda: len(list(files.iterdir())) <= before + 4)
        assert server.stop() == 0
        assert "Traceback" not in server.said
