"""How many keys one process makes in a second on PostgreSQL, each with its line in the trail.

The server keeps what it has acknowledged: fsync, full_page_writes and synchronous_commit are on.
"""

import asyncio
import itertools
import time
from pathlib import Path

from benchmarks.keys import auth_on, make_keys
from benchmarks.measure import RUNS, Figure
from keybearer import Auth
from keybearer.inputs import CreateKey
from tests.servers import run_postgres

_CALLERS, _MADE = 64, 1_000


def figures(_folder: Path) -> list[Figure]:
    """Every figure of this page."""
    with run_postgres(fsync="on", full_page_writes="on") as server:
        return asyncio.run(_measure(server.create()))


async def _measure(database: str) -> list[Figure]:
    await make_keys(database, 1)
    auth = auth_on(database)
    rates, costs = [], []
    async with auth.lifespan():
        await _make(auth, _MADE // 10)
        for _ in range(RUNS):
            begun, spent = time.perf_counter(), time.process_time()
            await _make(auth, _MADE)
            rates.append(_MADE / (time.perf_counter() - begun))
            costs.append((time.process_time() - spent) / _MADE * 1e6)
    return [
        Figure("creates, PostgreSQL, 64 at once", "keys/s", rates, "≥ 1 000"),
        Figure("creates: CPU of our process for each", "µs", costs),
    ]


async def _make(auth: Auth, number: int) -> None:
    """Makes keys of as many owners, 64 at once."""
    owners = iter(range(number))

    async def caller() -> None:
        for owner in owners:
            await auth.api.create_api_key(CreateKey(name="benchmark"), owner=f"owner-{owner}")

    await asyncio.gather(*itertools.starmap(caller, [()] * _CALLERS))
