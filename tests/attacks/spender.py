"""A process that spends quotas until they are spent: `python -m tests.attacks.spender HOW URL ID…`.

It says `ready`, waits for a line, and then spends with 16 callers at once:
`out` says a dot for each unit of one key, and gives back what it has when nothing is left;
`each` takes one unit of every key, and says the numbers of those where it got one.
"""

import asyncio
import os
import sys

from keybearer.adapters.clock import SystemClock
from keybearer.adapters.sql.database import open_database
from keybearer.adapters.sql.quotas import StoredQuotas
from keybearer.verification.cache import Cache
from keybearer.verification.quota import Quota
from tests.verification.parts import MemoryLog, grant, lease_on

CALLERS = 16


async def _spend_out(quota: Quota, id: str) -> None:
    async def call() -> None:
        while await quota.take(grant(id=id, metered=True), 1) is not None:
            os.write(1, b".")

    await asyncio.gather(*(call() for _ in range(CALLERS)))


async def _take_each(quota: Quota, ids: list[str]) -> None:
    numbers = iter(range(len(ids)))

    async def call() -> None:
        for number in numbers:
            if await quota.take(grant(id=ids[number], metered=True), 1) is not None:
                os.write(1, b"%d " % number)

    await asyncio.gather(*(call() for _ in range(CALLERS)))


async def main(how: str, url: str, *ids: str) -> None:
    """Waits for the word, spends, and gives back what it has."""
    database, _ = open_database(url)
    cache, clock = Cache(1), SystemClock()
    lease = lease_on(MemoryLog(), cache, clock)
    lease.until = 1 << 60
    quota = Quota(quotas=StoredQuotas(database), cache=cache, lease=lease, clock=clock)
    os.write(1, b"ready\n")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if how == "out":
        await _spend_out(quota, *ids)
    else:
        await _take_each(quota, list(ids))
    await quota.end()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
