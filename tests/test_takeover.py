"""A second process takes over from one that does not know it yet: no stale accept, on any of both.

old one     serves, and has the key cached ── loses the lock ──▶ its lease goes on
new one                                         takes over ── revokes ── waits ──▶ "revoked"
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keybearer import Auth, Misuse, Session, Unavailable
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey
from keybearer.verification.coherence import LEASE_MS
from tests.people import SECRET, StandingClock
from tests.servers import PostgresServer
from tests.takeover import lose_lock


def made(url: str, clock: StandingClock | None = None, *, serving: bool = True) -> Auth:
    return Auth(url, secret=SECRET, accounts=False, clock=clock, serving=serving)


@pytest.fixture
def server(request: pytest.FixtureRequest, ready_url: str) -> PostgresServer | None:
    if ready_url.startswith("sqlite"):
        return None
    found: PostgresServer = request.getfixturevalue("postgres_server")
    return found


@contextlib.asynccontextmanager
async def passing(clock: StandingClock) -> AsyncIterator[None]:
    """Time passes, ten times as fast as outside."""

    async def pass_time() -> None:
        while True:
            await asyncio.sleep(0.01)
            clock.advance(100)

    ticking = asyncio.create_task(pass_time())
    yield
    ticking.cancel()


async def new_key(auth: Auth) -> tuple[str, dict[str, str]]:
    key = await auth.api.create_api_key(CreateKey(name="ci"), owner="ada")
    return key.id, {"x-api-key": key.key or ""}


async def accepts(auth: Auth, headers: dict[str, str]) -> bool:
    try:
        return isinstance(await auth.api.authenticate(headers), Session)
    except Unavailable:
        return False


async def take_over(auth: Auth) -> None:
    """As soon as the lock is free."""
    async with asyncio.timeout(60):
        while auth.parts is None:
            with contextlib.suppress(Misuse, Unavailable):
                await auth.start()


async def stop_jobs(auth: Auth) -> None:
    """It renews its lease only when a request needs it, so that nothing depends on the moment."""
    assert auth._jobs is not None
    auth._jobs.stopping.set()
    await asyncio.wait(auth._jobs.tasks, timeout=60)


async def test_f14_a_change_after_taking_over_waits_out_the_lease_of_the_old_one(
    ready_url: str, clock: StandingClock, server: PostgresServer | None
) -> None:
    old, new = made(ready_url, clock), made(ready_url, clock)
    await old.start()
    id, key = await new_key(old)
    assert await accepts(old, key)
    await stop_jobs(old)
    lose_lock(ready_url, server)
    await take_over(new)
    assert await accepts(old, key)  # by its lease: time stands still
    async with passing(clock):
        receipt = await new.api.revoke_api_key(RevokeKey(key_id=id))
        assert not await accepts(old, key)
        assert not await accepts(new, key)
    assert receipt.waited_ms >= LEASE_MS
    await new.stop()
    await old.stop()


async def test_f14_what_one_changes_that_lost_the_lock_holds_for_whoever_has_it(
    ready_url: str, clock: StandingClock, server: PostgresServer | None
) -> None:
    old, new = made(ready_url, clock), made(ready_url, clock)
    await old.start()
    id, key = await new_key(old)
    await stop_jobs(old)
    lose_lock(ready_url, server)
    await take_over(new)
    assert await accepts(new, key)
    await stop_jobs(new)
    async with passing(clock):
        receipt = await old.api.revoke_api_key(RevokeKey(key_id=id))
        assert not await accepts(new, key)
    assert (receipt.nodes, receipt.waited_ms >= LEASE_MS) == (2, True)
    clock.advance(LEASE_MS)
    assert not await accepts(old, key)  # 503: another one serves
    await old.stop()
    await new.stop()


async def test_who_was_killed_makes_nobody_wait_for_long(
    ready_url: str, clock: StandingClock, server: PostgresServer | None
) -> None:
    killed, new = made(ready_url, clock), made(ready_url, clock)
    await killed.start()
    await accepts(killed, {})
    await stop_jobs(killed)
    lose_lock(ready_url, server)  # as the kernel does; it says no last word
    await take_over(new)
    app = await new.running()
    async with passing(clock), asyncio.timeout(60):
        while await app.spread.members():  # noqa: ASYNC110 -- what is waited for sets no event
            await asyncio.sleep(0.01)
    id, _ = await new_key(new)
    receipt = await new.api.revoke_api_key(RevokeKey(key_id=id))
    assert (receipt.nodes, receipt.waited_ms) == (1, 0)
    await new.stop()
    await killed.stop()


async def test_f14_a_command_waits_for_whoever_lost_the_lock(
    ready_url: str, clock: StandingClock, server: PostgresServer | None
) -> None:
    old, command = made(ready_url, clock), made(ready_url, clock, serving=False)
    await old.start()
    id, key = await new_key(old)
    assert await accepts(old, key)
    await command.start()
    await stop_jobs(old)
    lose_lock(ready_url, server)
    async with passing(clock):
        receipt = await command.api.revoke_api_key(RevokeKey(key_id=id))
        assert not await accepts(old, key)
    assert receipt.waited_ms >= LEASE_MS
    await command.stop()
    await old.stop()


async def test_after_an_orderly_end_nobody_waits(ready_url: str, clock: StandingClock) -> None:
    for _ in range(2):
        auth = made(ready_url, clock)
        async with auth.lifespan():
            id, _key = await new_key(auth)
            receipt = await auth.api.revoke_api_key(RevokeKey(key_id=id))
        assert (receipt.nodes, receipt.waited_ms) == (1, 0)
    command = made(ready_url, clock, serving=False)
    async with command.lifespan():
        id, _key = await new_key(command)
        receipt = await command.api.revoke_api_key(RevokeKey(key_id=id))
    assert (receipt.nodes, receipt.waited_ms) == (0, 0)


async def test_what_was_remembered_is_not_answered_after_the_end(
    ready_url: str, clock: StandingClock
) -> None:
    auth = made(ready_url, clock)
    app = await auth.running()
    _, key = await new_key(auth)
    raw = [(b"x-api-key", key["x-api-key"].encode())]
    assert isinstance(await app.verifier.verify(raw, None), Session)
    await auth.stop()
    assert app.verifier.warm(raw, None) is None
    with pytest.raises(Unavailable):
        await app.verifier.verify(raw, None)


# --- one file, several names ----------------------------------------------------------------


async def test_f13_a_file_is_one_file_by_whichever_link_one_comes(
    tmp_path: Path, clock: StandingClock
) -> None:
    file, link, folder = tmp_path / "a" / "k.db", tmp_path / "l.db", tmp_path / "b"
    file.parent.mkdir()
    link.symlink_to(file)
    folder.symlink_to(file.parent)
    first = made(f"sqlite:///{link}", clock)  # the link comes first: nothing is there yet
    async with first.lifespan():
        id, key = await new_key(first)
        for name in (file, link, folder / "k.db"):
            with pytest.raises(Misuse, match="already serves"):
                await made(f"sqlite:///{name}").start()
        assert await accepts(first, key)
        command = made(f"sqlite:///{folder / 'k.db'}", clock, serving=False)
        async with command.lifespan(), passing(clock):
            receipt = await command.api.revoke_api_key(RevokeKey(key_id=id))
            assert receipt.nodes == 1
            assert not await accepts(first, key)
    assert sorted(os.listdir(file.parent)) == ["k.db", "k.db-serving"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "l.db"]


async def test_f13_the_secret_lies_beside_the_file_itself(tmp_path: Path) -> None:
    file, link = tmp_path / "a" / "k.db", tmp_path / "l.db"
    file.parent.mkdir()
    link.symlink_to(file)
    async with Auth(f"sqlite:///{link}", accounts=False).lifespan():
        pass
    assert (file.parent / "k.db-secret").exists()
    assert not (tmp_path / "l.db-secret").exists()


async def test_f13_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    file, other = tmp_path / "k.db", tmp_path / "l.db"
    async with made(f"sqlite:///{file}").lifespan():
        pass
    os.link(file, other)
    for name in (file, other):
        for serving in (True, False):
            with pytest.raises(Misuse, match="has 2 names"):
                await made(f"sqlite:///{name}", serving=serving).start()
    other.unlink()
    async with made(f"sqlite:///{file}").lifespan():
        pass
