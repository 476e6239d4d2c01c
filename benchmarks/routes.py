"""`verify` and forward-auth over HTTP ÷ a constant answer of the same server.

The constant answer is an ASGI app without a framework on the same granian that sends the same
headers and the same bytes each time, once it has read what it was sent.
"""

import asyncio
import json
import os
from pathlib import Path

import httpx2

from benchmarks.keys import make_keys
from benchmarks.measure import RUNS, Figure
from benchmarks.servers import Load, granian
from keybearer.domain.credentials import SERVICE_PREFIX, mint, service_token_hash


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    database = f"sqlite:///{folder / 'routes.db'}"
    key = asyncio.run(make_keys(database, 1))[0]
    token = mint(SERVICE_PREFIX, os.urandom).reveal()
    loads = {
        "verify": Load(
            path="/api/auth/api-key/verify",
            headers={"Authorization": f"Bearer {token}"},
            body=json.dumps({"key": key}),
        ),
        "forward-auth": Load(path="/api/auth/forward", headers={"Authorization": f"Bearer {key}"}),
    }
    variables = {
        "BENCH_DATABASE": database,
        "BENCH_SERVICE_TOKENS": service_token_hash(token.encode()),
    }
    with granian("routes", folder, **variables) as ours:
        answers = {load.path: _answer_of(ours, load) for load in loads.values()}
        with granian("constant", folder, BENCH_ANSWERS=json.dumps(answers)) as constant:
            return [
                figure
                for name, load in loads.items()
                for figure in _compare(name, load, ours, constant)
            ]


def _answer_of(port: int, load: Load) -> tuple[list[tuple[str, str]], str]:
    """The headers and the body of one answer."""
    headers = {**load.headers, "Content-Type": "application/json"}
    method = "GET" if load.body is None else "POST"
    url = f"http://127.0.0.1:{port}{load.path}"
    answer = httpx2.request(method, url, headers=headers, content=load.body)
    assert answer.status_code == 200, answer.text
    set_by_the_server = ("date", "server")
    told = [
        (name, value) for name, value in answer.headers.items() if name not in set_by_the_server
    ]
    return told, answer.text


def _compare(name: str, load: Load, ours: int, constant: int) -> list[Figure]:
    ratios, rates, costs, added = [], [], [], []
    load.on(ours, 1)
    load.on(constant, 1)
    for _ in range(RUNS):
        constant_rate, constant_cpu = load.on(constant)
        rate, cpu = load.on(ours)
        rates.append(rate)
        ratios.append(rate / constant_rate)
        costs.append(constant_cpu)
        added.append(cpu - constant_cpu)
    return [
        Figure(f"{name} ÷ constant answer, throughput", "×", ratios, "≥ 0.75"),
        Figure(f"{name}: requests", "req/s", rates),
        Figure(f"{name}: CPU of the constant answer", "µs", costs),
        Figure(f"{name}: CPU beyond it", "µs", added),
    ]
