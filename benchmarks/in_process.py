"""The check itself: warm from the cache, cold from the database, few keys and many, and quotas.

Cold checks on PostgreSQL are in `ten_million.py`.
"""

import asyncio
import time
from pathlib import Path

from benchmarks.keys import auth_on, make_keys
from benchmarks.measure import RUNS, Figure, percentile
from keybearer import Auth, Session
from keybearer.inputs import CreateKey
from keybearer.operations.app import App
from tests.servers import run_postgres

_FEW, _MANY = 10_000, 1_000_000
_WARM, _COLD = 20_000, 1_000
_CALLERS = 64


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    few = f"sqlite:///{folder / 'few.db'}"
    many = f"sqlite:///{folder / 'many.db'}"
    measured = asyncio.run(_sqlite(few, many))
    with run_postgres() as server:
        measured += asyncio.run(_postgres(server.create()))
    return measured


async def _sqlite(few: str, many: str) -> list[Figure]:
    few_keys = await make_keys(few, _FEW)
    many_keys = await make_keys(many, _MANY)
    return [
        *await _warm(few, few_keys[0]),
        *await cold("SQLite", few, few_keys, many, many_keys),
        *await _metered("SQLite", few),
    ]


async def _postgres(database: str) -> list[Figure]:
    await make_keys(database, 1)
    return await _metered("PostgreSQL", database)


async def _warm(database: str, key: str) -> list[Figure]:
    medians, tails = [], []
    auth = auth_on(database)
    async with auth.lifespan():
        app = await auth.running()
        await _times(app, [key] * 100)
        for _ in range(RUNS):
            times = await _times(app, [key] * _WARM)
            medians.append(percentile(times, 0.5))
            tails.append(percentile(times, 0.99))
    return [
        Figure("in process, warm: median", "µs", medians, "≤ 5 µs"),
        Figure("in process, warm: p99", "µs", tails, "≤ 50 µs"),
    ]


async def cold(
    engine: str,
    few: str,
    few_keys: list[str],
    many: str,
    many_keys: list[str],
    *,
    how_many: str = "1 M",
) -> list[Figure]:
    """Checks that read the database: with 10 000 keys, and how many times that with more.

    They take turns key by key, so that whatever else the machine does hits both.
    """
    medians, tails, ratios = [], [], []
    small, large = auth_on(few), auth_on(many)
    async with small.lifespan(), large.lifespan():
        small_app, large_app = await small.running(), await large.running()
        await _cold_times(small_app, few_keys[:50])
        await _cold_times(large_app, many_keys[:50])
        for _ in range(RUNS):
            small_app.verifier.cache.clear()
            large_app.verifier.cache.clear()
            with_few, with_many = [], []
            for one, other in zip(few_keys[:_COLD], many_keys[:_COLD], strict=True):
                with_few += await _times(small_app, [one])
                with_many += await _times(large_app, [other])
            medians.append(percentile(with_few, 0.5))
            tails.append(percentile(with_few, 0.99))
            ratios.append(percentile(with_many, 0.5) / percentile(with_few, 0.5))
    return [
        Figure(f"in process, cold, {engine}, 10 k keys: median", "µs", medians),
        Figure(f"in process, cold, {engine}, 10 k keys: p99", "µs", tails, "≤ 1 000 µs"),
        Figure(f"cold, {engine}: {how_many} keys ÷ 10 k keys", "×", ratios, "≤ 1.3"),
    ]


async def _metered(engine: str, database: str) -> list[Figure]:
    """One key with a quota: in plenty by one caller, and to its end by many at once."""
    plenty, end = [], []
    auth = auth_on(database)
    async with auth.lifespan():
        app = await auth.running()
        for _ in range(RUNS):
            plenty.append(await _spend(auth, app, 10_000_000, requests=_WARM, callers=1))
            end.append(await _spend(auth, app, 900, requests=900, callers=_CALLERS))
    return [
        Figure(f"one key with a quota of 10 M, one caller, {engine}", "req/s", plenty),
        Figure(f"the last 900 of a quota, {_CALLERS} callers, {engine}", "req/s", end),
    ]


async def _spend(auth: Auth, app: App, remaining: int, *, requests: int, callers: int) -> float:
    """Requests a second."""
    asked = CreateKey(user_id="owner", remaining=remaining, rate_limit_enabled=False)
    made = await auth.api.create_api_key(asked)
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {made.key}".encode())]
    turns = iter(range(requests))
    verifier = app.verifier

    async def call() -> None:
        for _ in turns:
            verdict = verifier.warm(headers, None) or await verifier.verify(headers, None)
            if not isinstance(verdict, Session):
                raise TypeError(f"refused: {verdict}")

    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return requests / (time.perf_counter() - begun)


async def _cold_times(app: App, keys: list[str]) -> list[float]:
    app.verifier.cache.clear()
    return await _times(app, keys)


async def _times(app: App, keys: list[str]) -> list[float]:
    """Microseconds of each check."""
    times = []
    verify, clock = app.verifier.verify, time.perf_counter
    for key in keys:
        headers = [
            (b"host", b"localhost"),
            (b"user-agent", b"benchmark/1"),
            (b"accept", b"*/*"),
            (b"authorization", b"Bearer " + key.encode()),
        ]
        begun = clock()
        verdict = await verify(headers, "127.0.0.1")
        times.append((clock() - begun) * 1e6)
        if not isinstance(verdict, Session):
            raise TypeError(f"refused: {verdict}")
    return times
