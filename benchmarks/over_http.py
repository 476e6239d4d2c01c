"""Guarded ÷ unguarded endpoint on granian, one process; and the CPU that the guard adds.

Two servers stand side by side and take turns under the same load, so that a noisy machine hits
both.
"""

import asyncio
from pathlib import Path

from benchmarks.keys import make_keys
from benchmarks.measure import RUNS, Figure
from benchmarks.servers import Load, granian


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    measured: list[Figure] = []
    for framework, aim in (("starlette", "≥ 0.90"), ("fastapi", "≥ 0.96")):
        database = f"sqlite:///{folder / framework}.db"
        key = asyncio.run(make_keys(database, 1))[0]
        with (
            granian(f"{framework}_plain", folder) as plain,
            granian(f"{framework}_guarded", folder, BENCH_DATABASE=database) as guarded,
        ):
            measured += _compare(framework, aim, plain, guarded, key)
    return measured


def _compare(framework: str, aim: str, plain: int, guarded: int, key: str) -> list[Figure]:
    ratios, added, unguarded_cost, rates = [], [], [], []
    load = Load(headers={"Authorization": f"Bearer {key}"})
    load.on(plain, 1)
    load.on(guarded, 1)
    for _ in range(RUNS):
        plain_rate, plain_cpu = load.on(plain)
        guarded_rate, guarded_cpu = load.on(guarded)
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
