"""Guarded ÷ unguarded endpoint on granian, one process; and the CPU that the guard adds.

Two servers stand side by side and take turns under the same load, so that a noisy machine hits
both. CPU per request is what the worker process spent, from /proc, divided by the requests that
were answered: it does not depend on how fast the load generator is.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from benchmarks.keys import SECRET, make_keys
from benchmarks.measure import RUNS, Figure

SECONDS = 4
CONNECTIONS = 32
_TICKS = os.sysconf("SC_CLK_TCK")


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    database = f"sqlite:///{folder / 'guarded.db'}"
    key = asyncio.run(make_keys(database, 1))[0]
    measured: list[Figure] = []
    for framework, aim in (("starlette", "≥ 0.90"), ("fastapi", "≥ 0.96")):
        with (
            _server(f"{framework}_plain", folder, database) as plain,
            _server(f"{framework}_guarded", folder, database) as guarded,
        ):
            measured += _compare(framework, aim, plain, guarded, key)
    return measured


def _compare(framework: str, aim: str, plain: int, guarded: int, key: str) -> list[Figure]:
    ratios, added, unguarded_cost, rates = [], [], [], []
    _load(plain, key, 1)
    _load(guarded, key, 1)
    for _ in range(RUNS):
        plain_rate, plain_cpu = _load(plain, key, SECONDS)
        guarded_rate, guarded_cpu = _load(guarded, key, SECONDS)
        rates.append(guarded_rate)
        ratios.append(guarded_rate / plain_rate)
        unguarded_cost.append(plain_cpu)
        added.append(guarded_cpu - plain_cpu)
    ratio_cpu = [cost / (cost + more) for cost, more in zip(unguarded_cost, added, strict=True)]
    return [
        Figure(f"{framework}: guarded ÷ unguarded throughput", "×", ratios, aim),
        Figure(f"{framework}: unguarded ÷ guarded CPU per request", "×", ratio_cpu, aim),
        Figure(f"{framework}: CPU of an unguarded request", "µs", unguarded_cost),
        Figure(f"{framework}: CPU that the guard adds", "µs", added,
               "≤ 4 µs" if framework == "starlette" else ""),
        Figure(f"{framework}: guarded requests", "req/s", rates),
    ]  # fmt: skip


@contextlib.contextmanager
def _server(app: str, folder: Path, database: str) -> Iterator[int]:
    """A granian with one worker; gives its port."""
    port = _free_port()
    own = f"{database}-{app}" if "guarded" in app else database
    if own != database:
        shutil.copy(database.removeprefix("sqlite:///"), own.removeprefix("sqlite:///"))
    environment = {**os.environ, "BENCH_DATABASE": own, "BENCH_SECRET": SECRET}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "granian", "--interface", "asgi", "--factory"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--log-level", "warning", "--no-ws", f"benchmarks.apps:{app}"),
        ],
        env=environment,
        stdout=(folder / f"{app}.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        _wait(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _load(port: int, key: str, seconds: int) -> tuple[float, float]:
    """Requests per second, and microseconds of CPU that the worker spent on each."""
    worker = _worker_of(port)
    before = _cpu_seconds(worker)
    output = subprocess.run(
        [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"),
            *("-H", f"Authorization: Bearer {key}", f"http://127.0.0.1:{port}/hello"),
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


def _worker_of(port: int) -> int:
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
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.get(f"http://127.0.0.1:{port}/hello", timeout=1)
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
