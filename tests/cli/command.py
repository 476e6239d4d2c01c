"""Runs the command in this process, and the server in one of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from keybearer.cli.commands import keybearer

COMMAND = str(Path(sys.executable).with_name("keybearer"))
PASSWORD = "quiet otters fold paper maps"
_BASE = re.compile(r" as (http://\S+)")


class Shell:
    """An operator's shell in an empty folder: settings by `env`, nothing else set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str] = {}
        self.command: list[str] = [COMMAND]

    def run(self, *args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(keybearer, args, input=stdin, env=dict(self.env))

    def ok(self, *args: str, stdin: str | None = None) -> Result:
        result = self.run(*args, stdin=stdin)
        assert result.exit_code == 0, (result.stderr, result.exception)
        return result

    def json(self, *args: str, stdin: str | None = None) -> Any:
        return json.loads(self.ok(*args, "--json", stdin=stdin).stdout)

    def ready(self) -> None:
        """Makes the database, unless it is there."""
        if not (self.folder / "keybearer.db").exists():
            self.ok("migrate")

    def user(self, email: str = "ann@example.com", *args: str) -> str:
        self.ready()
        made = self.ok("users", "create", email, "--name", "Ann", "--verified", *args)
        return made.stdout.strip()

    def key(self, *args: str, owner: str = "ann@example.com") -> tuple[str, str]:
        """A new key's id, and the key."""
        made = self.json("keys", "create", "--owner", owner, "--name", "ci", *args)
        return made["id"], made["key"]

    def service_token(self) -> str:
        self.ready()
        return self.ok("service-token", "create", "--name", "app").stdout.strip()

    def start(self, *args: str) -> "Server":
        clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
        process = subprocess.Popen(
            [*self.command, "serve", *args],
            cwd=self.folder,
            env=clean | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        return Server(process)

    @contextlib.contextmanager
    def serving(self, *args: str) -> Iterator["Server"]:
        server = self.start("--port", "0", *args)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.kill()


class Server:
    """A running `keybearer serve`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said = ""
        self.base = ""

    def wait_until_ready(self) -> None:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.said = line
        found = _BASE.search(line)
        assert found, line + self.process.stderr.read()
        self.base = found[1]
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(f"{self.base}/api/auth/ok")
                return
            assert self.process.poll() is None, self.end()
            time.sleep(0.05)
        pytest.fail("the server did not come up")

    def verify(self, token: str, key: str) -> Any:
        answer = httpx2.post(
            f"{self.base}/api/auth/api-key/verify",
            json={"key": key},
            headers={"authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def worker(self) -> int:
        """The id of the process that answers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        self.process.send_signal(how)
        return self.end()

    def end(self) -> int:
        """Waits for the end; what was said is in `said`."""
        code = self.process.wait(timeout=20)
        # Not communicate(): it would miss what readline() has already buffered.
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        with self.process.stderr, self.process.stdout:
            self.said += self.process.stderr.read()
        return code

    def kill(self) -> None:
        """kill -9 for both processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=20)
