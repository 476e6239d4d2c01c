"""What a key takes that was checked: memory beyond what was taken before, divided by the keys.

Each request brings its headers and its address in bytes of its own, as from a server, and what was
counted is written before anything is weighed. What is weighed is what Python has allocated
(tracemalloc) and, in a process that traces nothing, what the system has given it.
"""

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

from benchmarks.keys import auth_on, make_keys
from benchmarks.measure import Figure
from keybearer import Session
from keybearer.operations.app import App

_KEYS, _PARTS = 100_000, 5
_PAGE = 4_096


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    database = f"sqlite:///{folder / 'memory.db'}"
    keys = asyncio.run(make_keys(database, _KEYS, kept=_KEYS))
    file = folder / "memory.keys"
    file.write_text("\n".join(keys))
    cached, windows, reckoned = _run(database, file, "traced")
    (resident,) = _run(database, file, "resident")
    return [
        Figure("memory of a cached key", "bytes", cached, "≤ 1 024"),
        Figure("what the cache reckons for it", "bytes", reckoned),
        Figure("memory of its rate limit, beside the cache", "bytes", windows),
        Figure("both, as the system counts it", "bytes", resident),
    ]


def _run(database: str, keys: Path, how: str) -> list[list[float]]:
    """In a process of its own, which has held nothing before."""
    command = [sys.executable, "-m", "benchmarks.memory", database, str(keys), how]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told: list[list[float]] = json.loads(output)
    return told


async def _measure(database: str, keys: list[str], how: str) -> list[list[float]]:
    auth = auth_on(database, cache_size=2 * len(keys), cache_mb=4_096)
    async with auth.lifespan():
        app = await auth.running()
        await _check(app, keys[:100])
        part = len(keys) // _PARTS
        if how == "traced":
            tracemalloc.start()
        both, windows, reckoned = [], [], []
        for first in range(0, len(keys), part):
            before = _weigh(how)
            await _check(app, keys[first : first + part])
            after = _weigh(how)
            both.append((after - before) / part)
            if how == "traced":
                while len(app.verifier.limiter):
                    app.verifier.limiter.pop()
                windows.append((after - _weigh(how)) / part)
                reckoned.append(app.verifier.cache.bytes / len(app.verifier.cache))
    if how == "resident":
        return [both]
    return [[whole - one for whole, one in zip(both, windows, strict=True)], windows, reckoned]


def _weigh(how: str) -> int:
    gc.collect()
    if how == "traced":
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def _check(app: App, keys: list[str]) -> None:
    for number, key in enumerate(keys):
        headers = [
            (b"host", b"localhost"),
            (b"user-agent", b"benchmark/%d" % (number % 10)),
            (b"authorization", b"Bearer " + key.encode()),
        ]
        verdict = await app.verifier.verify(headers, f"203.0.113.{number % 200}")
        if not isinstance(verdict, Session):
            raise TypeError(f"refused: {verdict}")
    await app.verifier.usage.flush(app.clock.now())


if __name__ == "__main__":
    told = _measure(sys.argv[1], Path(sys.argv[2]).read_text().split(), sys.argv[3])
    print(json.dumps(asyncio.run(told)))
