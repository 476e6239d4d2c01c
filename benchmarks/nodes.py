"""Four processes on one PostgreSQL and one Redis: how long a revocation takes, what a check costs.

receipts   a key that all four have in their caches is revoked at the first; then the same with
           one of them paused (SIGSTOP), and with one whose Redis is another, so that it hears
           nothing and is heard by nobody
checks     the CPU of a guarded request: of a process that is alone on its database beside those
           of four that share one, in turns
"""

import asyncio
import http.client
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.keys import auth_on, make_keys
from benchmarks.measure import RUNS, Figure, percentile
from benchmarks.servers import Load, granian, worker_of
from keybearer import Auth, api_key
from keybearer.operations.app import App
from tests.servers import run_postgres, run_redis

NODES = 4
_REVOKED, _REVOKED_CUT_OFF = 200, 4
_CHECKS = 5_000


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    with run_postgres() as server, run_redis() as redis, run_redis() as elsewhere:
        database = server.create()
        keys = asyncio.run(make_keys(database, 5_000, kept=RUNS * (_REVOKED + 50)))
        measured = _receipts(folder, database, redis, elsewhere, keys)
        measured += _cpu(folder, server.create(), server.create(), redis)
        return measured + asyncio.run(_in_process(server.create(), redis))


@contextmanager
def _nodes(folder: Path, database: str, redis: Sequence[str]) -> Iterator[list[int]]:
    """Servers with one process each; gives their ports."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                granian(
                    "nodes",
                    folder,
                    log=f"node-{number}",
                    BENCH_DATABASE=database,
                    KEYBEARER_REDIS_URL=url,
                )
            )
            for number, url in enumerate(redis)
        ]


# --- receipts ---


def _receipts(
    folder: Path, database: str, redis: str, elsewhere: str, keys: list[str]
) -> list[Figure]:
    left = iter(keys)
    with _nodes(folder, database, [redis] * NODES) as ports:
        healthy = [_times(ports, ports, left, _REVOKED) for _ in range(RUNS)]
        paused = [_paused(ports, left) for _ in range(RUNS)]
    with _nodes(folder, database, [*[redis] * (NODES - 1), elsewhere]) as ports:
        deaf = [_times(ports, ports, left, _REVOKED_CUT_OFF) for _ in range(RUNS)]
    return [
        Figure("revoke, 4 processes: median", "ms", [percentile(run, 0.5) for run in healthy]),
        Figure(
            "revoke, 4 processes: p99", "ms", [percentile(run, 0.99) for run in healthy], "≤ 20 ms"
        ),
        Figure(
            "revoke, one of 4 paused: slowest", "ms", [max(run) for run in paused], "≤ 2 500 ms"
        ),
        Figure(
            "revoke, one of 4 cut off from Redis: slowest",
            "ms",
            [max(run) for run in deaf],
            "≤ 2 500 ms",
        ),
    ]


def _paused(ports: list[int], keys: Iterator[str]) -> list[float]:
    """Receipts from the moment on that one is paused; the first finds it with the key cached."""
    paused = worker_of(ports[-1])
    key = next(keys)
    _warm(ports, key)
    os.kill(paused, signal.SIGSTOP)
    try:
        return [_revoke(ports[0], key), *_times(ports, ports[:-1], keys, _REVOKED_CUT_OFF)]
    finally:
        os.kill(paused, signal.SIGCONT)
        time.sleep(3)  # until it serves again


def _times(ports: list[int], warmed: Sequence[int], keys: Iterator[str], count: int) -> list[float]:
    times = []
    for _ in range(count):
        key = next(keys)
        _warm(warmed, key)
        times.append(_revoke(ports[0], key))
        refused = [_status(port, key) for port in warmed]
        if refused != [401] * len(warmed):
            raise RuntimeError(f"a revoked key was answered with {refused}")
    return times


def _warm(ports: Sequence[int], key: str) -> None:
    for port in ports:
        if (status := _status(port, key)) != 200:
            raise RuntimeError(f"a good key was answered with {status}")


def _status(port: int, key: str) -> int:
    return _asked(port, "GET", "/api/auth/forward", key)[0]


def _revoke(port: int, key: str) -> float:
    """Milliseconds from the request to the receipt."""
    status, taken = _asked(port, "POST", "/api/auth/api-key/revoke-self", key)
    if status != 200:
        raise RuntimeError(f"a revocation was answered with {status}")
    return taken


def _asked(port: int, method: str, path: str, key: str) -> tuple[int, float]:
    """The status of an answer, and after how many milliseconds it came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.connect()
        begun = time.perf_counter()
        connection.request(method, path, headers={"X-API-Key": key})
        answer = connection.getresponse()
        answer.read()
        return answer.status, (time.perf_counter() - begun) * 1000
    finally:
        connection.close()


# --- checks ---


def _cpu(folder: Path, alone_on: str, shared: str, redis: str) -> list[Figure]:
    """Two cores cannot show the throughput of four processes beside a load: what a check costs."""
    by_itself, of_four = (
        Load(headers={"Authorization": f"Bearer {key}"})
        for key in (
            asyncio.run(make_keys(database, 1, limited=False))[0] for database in (alone_on, shared)
        )
    )
    ratios, together = [], []
    with (
        _nodes(folder, alone_on, [redis]) as (one,),
        _nodes(folder / "four", shared, [redis] * NODES) as four,
    ):
        for _ in range(RUNS):
            costs = [(by_itself.on(one, 2)[1], of_four.on(port, 2)[1]) for port in four]
            together.append(sum(cost for _, cost in costs) / NODES)
            ratios.append(together[-1] * NODES / sum(cost for cost, _ in costs))
    return [
        Figure("CPU of a guarded request: 4 processes ÷ 1", "×", ratios, "≤ 1.1"),
        Figure("CPU of a guarded request, 4 processes", "µs", together),
    ]


async def _in_process(database: str, redis: str) -> list[Figure]:
    """A check whose limit all processes count together: one round trip."""
    key = (await make_keys(database, 1))[0]
    medians, tails, rates = [], [], []
    auth = Auth(
        database,
        plugins=[api_key(rate_limit="1000000000/1m")],
        accounts=False,
        secret=auth_on(database).settings.secret,
        redis_url=redis,
    )
    async with auth.lifespan():
        app = await auth.running()
        await _checked(app, key, 100)
        for _ in range(RUNS):
            times = await _checked(app, key, _CHECKS)
            medians.append(percentile(times, 0.5))
            tails.append(percentile(times, 0.99))
            begun = time.perf_counter()
            await asyncio.gather(*(_checked(app, key, _CHECKS // 64) for _ in range(64)))
            rates.append(64 * (_CHECKS // 64) / (time.perf_counter() - begun))
    return [
        Figure("in process, limit shared over Redis: median", "µs", medians),
        Figure("in process, limit shared over Redis: p99", "µs", tails),
        Figure("in process, limit shared over Redis, 64 at once", "checks/s", rates),
    ]


async def _checked(app: App, key: str, count: int) -> list[float]:
    headers = [(b"authorization", f"Bearer {key}".encode())]
    times = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        await app.verifier.verify(headers, None)
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times
