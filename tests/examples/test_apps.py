"""The three-line apps, served by uvicorn and by granian as their first lines say."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.command import COMMAND
from tests.examples.conftest import ROOT

SERVERS = {
    "uvicorn": ["uvicorn", "--port"],
    "granian": ["granian", "--interface", "asgi", "--port"],
}


@contextlib.contextmanager
def serving(server: str, app: str, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[server], port, f"examples.{app}:app"],
            cwd=folder, env={**clean, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until = time.monotonic() + 20
        base = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(base)
                break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        yield base
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


def run(folder: Path, *command: str) -> str:
    """What the operator's command says."""
    clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
    done = subprocess.run(
        [COMMAND, *command],
        cwd=folder, env={**clean, "KEYBEARER_DATABASE_URL": "sqlite:///app.db"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("app", ["starlette_app", "fastapi_app"])
def test_the_three_lines_guard_an_app(server: str, app: str, tmp_path: Path) -> None:
    with serving(server, app, tmp_path) as base:
        run(tmp_path, "users", "create", "ann@example.com", "--name", "Ann", "--verified")
        key = run(tmp_path, "keys", "create", "--owner", "ann@example.com", "--name", "x")
        headers = {"x-api-key": key}

        assert httpx2.get(base).json()["hello"] in ("world", "stranger")
        answer = httpx2.get(f"{base}/report", headers=headers)
        assert (answer.status_code, answer.json()["report"]) == (200, "all is well")
        answer = httpx2.get(f"{base}/report")
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
        if app == "starlette_app":
            assert httpx2.get(f"{base}/whoami", headers=headers).status_code == 200
        else:
            answer = httpx2.post(f"{base}/report", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "INSUFFICIENT_SCOPE")
            assert httpx2.get(base, headers=headers).json()["hello"] != "stranger"
