"""The same guarded endpoint behind keybearer and behind Better Auth, one process each.

The three servers stand side by side and take turns under the same load: wrk with 32 connections.
Better Auth runs on node:http without a framework (`better_auth/server.mjs`), keybearer on granian
without one (`apps.bare_guarded`). Both read the key from X-API-Key, count it against a limit that
never ends, and write the same JSON anew for each request. The load takes its share of the cores,
so the CPU of a request is told beside the requests: it is what does not depend on the load.
"""

import asyncio
import json
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.keys import make_keys
from benchmarks.measure import RUNS, Figure
from benchmarks.servers import Load, granian, node

HERE = Path(__file__).parent / "better_auth"


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    _install()
    database = f"sqlite:///{folder / 'rivals.db'}"
    key = asyncio.run(make_keys(database, 1))[0]
    with (
        granian("bare_guarded", folder, BENCH_DATABASE=database) as ours,
        _better_auth("database", folder) as stored,
        _better_auth("memory", folder) as remembered,
    ):
        return _compare((ours, key), stored, remembered)


def _better_auth(mode: str, folder: Path) -> AbstractContextManager[tuple[int, str]]:
    file = str(folder / f"better-auth-{mode}.db")
    return node(HERE / "server.mjs", mode, file, log=folder / f"better-auth-{mode}.log")


Server = tuple[int, str]
"""A port, and a key that is good there."""


def _compare(ours: Server, stored: Server, remembered: Server) -> list[Figure]:
    servers = (ours, stored, remembered)
    rates: list[list[float]] = [[], [], []]
    costs: list[list[float]] = [[], [], []]
    for port, key in servers:
        _load(key).on(port, 2)
    for _ in range(RUNS):
        for (port, key), rate, cost in zip(servers, rates, costs, strict=True):
            answered, spent = _load(key).on(port)
            rate.append(answered)
            cost.append(spent)
    return [
        Figure(
            "keybearer ÷ Better Auth, database: requests", "×", _over(rates[0], rates[1]), "≥ 40"
        ),
        Figure("keybearer ÷ Better Auth, memory: requests", "×", _over(rates[0], rates[2]), "≥ 10"),
        Figure(
            "Better Auth, database ÷ keybearer: CPU of a request", "×", _over(costs[1], costs[0])
        ),
        Figure("Better Auth, memory ÷ keybearer: CPU of a request", "×", _over(costs[2], costs[0])),
        Figure("keybearer: guarded requests", "req/s", rates[0]),
        Figure("Better Auth, database: guarded requests", "req/s", rates[1]),
        Figure("Better Auth, memory: guarded requests", "req/s", rates[2]),
        Figure("keybearer: CPU of a guarded request", "µs", costs[0]),
        Figure("Better Auth, database: CPU of a guarded request", "µs", costs[1]),
        Figure("Better Auth, memory: CPU of a guarded request", "µs", costs[2]),
    ]


def _over(these: list[float], those: list[float]) -> list[float]:
    return [one / other for one, other in zip(these, those, strict=True)]


def _load(key: str) -> Load:
    return Load(headers={"X-API-Key": key})


def versions() -> dict[str, str]:
    """The rival's versions, as its lock has them."""
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]
    names = ("better-auth", "@better-auth/api-key", "better-sqlite3")
    return {name: locked[f"node_modules/{name}"]["version"] for name in names}


def _install() -> None:
    """Installs the locked packages, unless they are."""
    listed = HERE / "node_modules" / ".package-lock.json"
    lock = HERE / "package-lock.json"
    if not listed.exists() or listed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(["npm", "ci"], cwd=HERE, check=True, stdout=subprocess.DEVNULL)
