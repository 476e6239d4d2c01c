"""Quotas, attacked by several processes, crashes, edits and refills (rows A101, F26)."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, cast

import httpx2
import pytest

from keybearer import Auth
from keybearer.adapters.sql.database import open_database
from keybearer.domain.limits import CHUNK_MAX, CHUNK_SHARE
from keybearer.domain.model import Key
from keybearer.operations.app import App
from keybearer.operations.keyedits import UpdateKey
from keybearer.operations.keyends import RevokeKey, RotateKey
from keybearer.operations.keys import CreateKey, GetKey, ListKeys
from keybearer.operations.keywire import ApiKey, CreatedApiKey
from keybearer.operations.rotation import AboutRotation
from keybearer.operations.verify import VerifyKey
from keybearer.verification.quota import CHUNK_LIFE_MS
from tests.adapters.test_keys_sql import AnyDatabase, add, key_of, stored
from tests.attacks.spender import CALLERS
from tests.attacks.town import API, Town
from tests.cli.command import Shell
from tests.people import StandingClock

TRIALS = int(os.environ.get("KEYBEARER_QUOTA_TRIALS", "200"))
"""How many last units are raced for; the long run takes 100 000."""

ROOT = Path(__file__).parents[2]
PLENTY = 40_000


# --- several processes ------------------------------------------------------------------------


@pytest.fixture
async def database(ready_url: str) -> AsyncIterator[AnyDatabase]:
    opened, _lock = open_database(ready_url)
    yield opened
    await opened.close()


Process = subprocess.Popen[bytes]


@contextlib.contextmanager
def spenders(n: int, how: str, url: str, *ids: str) -> Iterator[list[Process]]:
    """Processes that are about to spend, and begin at the same time."""
    command = [sys.executable, "-m", "tests.attacks.spender", how, url, *ids]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(n)
    ]
    try:
        for process in processes:
            assert _out(process).readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _out(process: Process) -> IO[bytes]:
    return cast(IO[bytes], process.stdout)


async def said(process: Process) -> bytes:
    """What a process says until it ends."""
    return await asyncio.to_thread(_out(process).read)


async def left(database: AnyDatabase, key: Key) -> int:
    return (await stored(database, key.id)).remaining or 0


async def test_f26_of_two_processes_one_gets_the_last_unit(
    database: AnyDatabase, ready_url: str
) -> None:
    for begin in range(0, TRIALS, 1000):
        keys = [key_of(remaining=1) for _ in range(min(1000, TRIALS - begin))]
        await add(database, *keys)
        with spenders(2, "each", ready_url, *(key.id for key in keys)) as processes:
            won = [await said(process) for process in processes]
        numbers = sorted(int(number) for text in won for number in text.split())
        assert numbers == list(range(len(keys)))
        assert [await left(database, key) for key in keys] == [0] * len(keys)


async def test_several_processes_spend_all_and_no_more(
    database: AnyDatabase, ready_url: str
) -> None:
    key = key_of(remaining=10_007)
    await add(database, key)
    with spenders(2, "out", ready_url, key.id) as processes:
        spent = sum([len(await said(process)) for process in processes])
        assert [process.wait() for process in processes] == [0] * 2
    # Whoever ended first may not have seen what another one gave back.
    assert spent + await left(database, key) == 10_007
    with spenders(1, "out", ready_url, key.id) as (last,):
        spent += len(await said(last))
    assert (spent, await left(database, key)) == (10_007, 0)


async def test_kill_9_leaves_a_chunk_and_what_was_under_way_unused_at_the_most(
    database: AnyDatabase, ready_url: str
) -> None:
    amount = 2_000_000
    key = key_of(remaining=amount)
    await add(database, key)
    with spenders(1, "out", ready_url, key.id) as (process,):
        spent = len(await asyncio.to_thread(_out(process).read, 3_000))
        process.kill()
        spent += len(await said(process))
    unused = amount - await left(database, key) - spent
    assert 0 <= unused <= min(CHUNK_MAX, amount // CHUNK_SHARE) + CALLERS


def test_kill_9_of_a_server_leaves_a_chunk_unused_and_sigterm_nothing(shell: Shell) -> None:
    shell.user()
    id, key = shell.key("--remaining", str(PLENTY))
    token = shell.service_token()

    def use(times: int) -> list[int]:
        headers = {"authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=server.base, headers=headers) as client:
            return [
                client.post(f"{API}/api-key/verify", json={"key": key}).json()["key"]["remaining"]
                for _ in range(times)
            ]

    with shell.serving() as server:
        assert use(60)[-1] == PLENTY - 60
        assert server.stop() == 0
    assert shell.json("keys", "show", id)["remaining"] == PLENTY - 60
    with shell.serving() as server:
        assert use(60)[-1] == PLENTY - 120
        server.kill()
    after = shell.json("keys", "show", id)["remaining"]
    assert PLENTY - 120 - PLENTY // CHUNK_SHARE <= after <= PLENTY - 120


# --- one process, with a chunk out ------------------------------------------------------------


async def busy(town: Town, **asked: object) -> tuple[str, str]:
    """A key's id and the key, of whose quota this process has a chunk."""
    made = await town.auth.api.create_api_key(
        CreateKey(user_id=town.u1, remaining=PLENTY, rate_limit_enabled=False, **asked)  # type: ignore[arg-type]
    )
    assert made.key is not None
    for n in range(1, 31):
        assert await use(town, made.key) == PLENTY - n
    while not town.app.verifier.quota.has(made.id, town.app.clock.now(), 3):
        await use(town, made.key)
    return made.id, made.key


async def use(town: Town, key: str, cost: int = 1) -> int | None:
    """What is left after a request; None where it is refused."""
    verdict = await town.auth.api.verify_api_key(VerifyKey(key=key, cost=cost))
    return None if verdict.key is None else verdict.key.remaining


async def in_database(app: App, id: str) -> int | None:
    return (await stored(cast(AnyDatabase, app.database), id)).remaining


async def test_whoever_looks_sees_what_is_left_exactly(town: Town) -> None:
    id, key = await busy(town)
    api = town.auth.api
    looks: list[Callable[[], Awaitable[ApiKey]]] = [
        lambda: api.get_api_key(GetKey(id=id)),
        lambda: api.update_api_key(UpdateKey(key_id=id, name="new")),
        lambda: api.rotate_api_key(RotateKey(key_id=id)),
        lambda: api.finish_rotation(AboutRotation(key_id=id)),
    ]
    for look in looks:
        before = await use(town, key)
        shown = await look()
        assert shown.remaining == before
        if isinstance(shown, CreatedApiKey):
            key = shown.key or ""
        for _ in range(9):
            await use(town, key)
    before = await use(town, key)
    listed = await api.list_api_keys(ListKeys(user_id=town.u1))
    assert before in {each.remaining for each in listed.api_keys}
    await use(town, key)
    last = await use(town, key)
    assert await use(town, key, cost=0) == last


async def test_a_number_that_is_set_counts_whatever_was_taken_of_the_old_one(town: Town) -> None:
    id, key = await busy(town)
    await town.auth.api.update_api_key(UpdateKey(key_id=id, remaining=3))
    assert [await use(town, key) for _ in range(5)] == [2, 1, 0, None, None]
    await town.app.verifier.quota.give_back()
    assert await in_database(town.app, id) == 0


async def test_any_other_edit_costs_no_unit(town: Town) -> None:
    id, key = await busy(town)
    await use(town, key)
    before = await use(town, key)
    assert before is not None
    await town.auth.api.update_api_key(UpdateKey(key_id=id, name="new"))
    assert await use(town, key) is not None
    await town.app.verifier.quota.give_back()
    assert await in_database(town.app, id) == before - 1


async def test_a_revoked_key_spends_nothing_of_its_chunk(town: Town) -> None:
    id, key = await busy(town)
    before = await use(town, key)
    await town.auth.api.revoke_api_key(RevokeKey(key_id=id))
    assert await use(town, key) is None
    await town.app.verifier.quota.give_back_old()
    assert await in_database(town.app, id) == before


async def test_a_refill_adds_its_amount_and_nothing_of_a_chunk(
    town: Town, clock: StandingClock
) -> None:
    _, key = await busy(town, refill_amount=PLENTY, refill_interval=60_000)
    clock.advance(60_000)
    assert await use(town, key, cost=PLENTY - 2) == 2
    await town.app.verifier.quota.give_back()
    assert [await use(town, key) for _ in range(3)] == [1, 0, None]


async def test_what_was_not_spent_in_time_goes_back_by_itself(
    town: Town, clock: StandingClock
) -> None:
    id, key = await busy(town)
    before = await use(town, key)
    assert await in_database(town.app, id) != before
    clock.advance(CHUNK_LIFE_MS)
    async with asyncio.timeout(30):
        # The work beside the requests comes by every second.
        while await in_database(town.app, id) != before:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.05)


async def test_what_is_unspent_at_the_end_is_there_for_the_next_process(
    auth: Auth, town: Town
) -> None:
    _, key = await busy(town)
    before = await use(town, key)
    assert before is not None
    await auth.stop()
    await auth.start()
    verdict = await auth.api.verify_api_key(VerifyKey(key=key))
    assert verdict.key is not None
    assert verdict.key.remaining == before - 1
