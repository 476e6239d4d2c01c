"""Servers to measure, each in its own process, and the load on them.

CPU per request is what the worker process spent, from /proc, divided by the requests that were
answered: it does not depend on how fast the load generator is.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx2

from benchmarks.keys import SECRET

SECONDS = 4
START_SECONDS = 60
CONNECTIONS = 32
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, again and again.

    Attributes:
        body: sent by POST; None asks by GET.
    """

    path: str = "/hello"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None

    def on(self, port: int, seconds: float = SECONDS) -> tuple[float, float]:
        """Requests per second, and microseconds of CPU that the worker spent on each."""
        worker = worker_of(port)
        before = _cpu_seconds(worker)
        output = subprocess.run(
            [
                *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"),
                *(part for each in self.headers.items() for part in ("-H", ": ".join(each))),
                *(() if self.body is None else ("-s", str(_POST))),
                f"http://127.0.0.1:{port}{self.path}",
                *(() if self.body is None else ("--", self.body)),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        spent = _cpu_seconds(worker) - before
        if "Non-2xx" in output:
            raise RuntimeError(f"the server refused requests:\n{output}")
        answered = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
        return rate, spent / answered * 1e6


_POST = Path(__file__).with_name("post.lua")


@contextlib.contextmanager
def granian(app: str, folder: Path, *, log: str | None = None, **variables: str) -> Iterator[int]:
    """A granian with one worker that serves an app of `benchmarks.apps`; gives its port.

    Args:
        log: the name of the file for what it says; as the app is called unless given.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--factory"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--log-level", "warning", "--no-ws", f"benchmarks.apps:{app}"),
    ]
    environment = {**os.environ, "BENCH_SECRET": SECRET, **variables}
    folder.mkdir(exist_ok=True)
    with (folder / f"{log or app}.log").open("w") as said, _process(command, environment, said):
        _wait(port)
        yield port


@contextlib.contextmanager
def node(program: Path, *arguments: str, log: Path) -> Iterator[tuple[int, str]]:
    """A program on Node that says `{"port", "key"}` once it listens; gives the two."""
    environment = {**os.environ, "BENCH_SECRET": SECRET, "NODE_ENV": "production"}
    command = ["node", str(program), *arguments]
    with log.open("w") as said, _process(command, environment, said):
        deadline = time.monotonic() + START_SECONDS
        while not (text := log.read_text()).endswith("}\n"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {text}")
            time.sleep(0.1)
        told = json.loads(text)
        yield told["port"], told["key"]


@contextlib.contextmanager
def _process(command: Sequence[str], environment: dict[str, str], log: IO[str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def worker_of(port: int) -> int:
    """The process that listens on a port and spends CPU: granian's worker, not its parent."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    holders = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                holders.append(int(folder.name))
    # The worker was started after its parent.
    return max(holders)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{port}/hello", timeout=1)
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
