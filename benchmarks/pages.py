"""The pages of somebody with five hundred keys: how long the server takes for each."""

import asyncio
import time
from pathlib import Path

import httpx2

from benchmarks.keys import SECRET
from benchmarks.measure import RUNS, Figure, percentile
from keybearer import Auth
from keybearer.adapters.sql import usage
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count
from keybearer.inputs import CreateKey
from keybearer.web.mount import no_app

_KEYS, _DAYS, _ASKED = 500, 30, 40
_DAY_MS = 86_400_000
_PASSWORD = "violet tractor sings at noon"
_PAGES = {
    "page: 25 of 500 keys": "/en/account/api-keys",
    "page: 100 of 500 keys": "/en/account/api-keys?size=100",
    "page: 500 keys, searched and sorted": "/en/account/api-keys?q=key&sort=used&dir=asc&size=100",
    "page: one key": "/en/account/api-keys/{id}",
}


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    return asyncio.run(_measure(f"sqlite:///{folder / 'pages.db'}"))


async def _measure(database: str) -> list[Figure]:
    auth = Auth(database, secret=SECRET, token_management=True, max_keys_per_owner=_KEYS)
    async with auth.lifespan():
        user = await auth.api.users.create(
            "a@example.com", name="A", password=_PASSWORD, verified=True
        )
        id = await _fill(auth, user.id)
        transport = httpx2.ASGITransport(app=auth.mount(no_app))
        base = "http://127.0.0.1:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            login = {"email": "a@example.com", "password": _PASSWORD}
            assert (await client.post("/api/auth/sign-in/email", json=login)).status_code == 200
            return [
                Figure(name, "ms", await _times(client, path.format(id=id)), "≤ 50 ms")
                for name, path in _PAGES.items()
            ]


async def _fill(auth: Auth, owner: str) -> str:
    """Five hundred keys with thirty days of use; gives the id of the last."""
    app = await auth.running()
    today = app.clock.now() - app.clock.now() % _DAY_MS
    ids = []
    for number in range(_KEYS):
        asked = CreateKey(name=f"key {number}", description="What it is for, in some words")
        ids.append((await auth.api.create_api_key(asked, owner=owner)).id)
    counts = [
        Count(key_id=id, hour=today - day * _DAY_MS, outcome=outcome, n=1 + day * 7 % 40)
        for id in ids
        for day in range(_DAYS)
        for outcome in ("accepted", "RATE_LIMITED")
    ]

    async def body(tx: Transaction) -> None:
        await usage.add(tx, counts, dialect="sqlite")

    await app.database.write(body)
    return ids[-1]


async def _times(client: httpx2.AsyncClient, path: str) -> list[float]:
    """The median of each run, in milliseconds, the client's own work included."""
    medians = []
    await client.get(path)
    for _ in range(RUNS):
        times = []
        for _ in range(_ASKED):
            begun = time.perf_counter()
            answer = await client.get(path)
            times.append((time.perf_counter() - begun) * 1000)
            assert answer.status_code == 200
        medians.append(percentile(times, 0.5))
    return medians
