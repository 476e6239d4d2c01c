"""Auth starts, stops and starts again; work goes on beside the requests."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from keybearer import Auth, Misuse, Refusal, Session, Unavailable, inputs
from keybearer.domain.ports import Transaction
from keybearer.jobs import Jobs
from keybearer.operations.app import App
from keybearer.web.mount import no_app
from tests.people import PASSWORD, SECRET
from tests.servers import PostgresServer

IP = "203.0.113.7"


def made(url: str, **settings: Any) -> Auth:
    """A keybearer for an app that has its own users."""
    return Auth(url, **{"secret": SECRET, "accounts": False, **settings})


async def new_key(auth: Auth, owner: str = "ada") -> tuple[str, dict[str, str]]:
    """A key's id, and the headers of who presents it."""
    key = await auth.api.create_api_key(inputs.CreateKey(name="ci"), owner=owner)
    assert key.key is not None
    return key.id, {"x-api-key": key.key}


def tasks_of(auth: Auth) -> list[asyncio.Task[None]]:
    assert auth._jobs is not None
    return auth._jobs.tasks


async def used(auth: Auth, id: str) -> int:
    return (await auth.api.get_api_key(inputs.GetKey(id=id), owner="ada")).request_count


async def rename(app: App, table: str, name: str) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(text(f"ALTER TABLE {table} RENAME TO {name}"))

    await app.database.write(body)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():  # noqa: ASYNC110 -- what is waited for sets no event
            await asyncio.sleep(0.02)


# --- start and stop -------------------------------------------------------------------------


async def test_it_starts_stops_and_starts_again(ready_url: str) -> None:
    auth = made(ready_url)
    first = await auth.running()
    await auth.start()
    assert auth.parts is first
    _, key = await new_key(auth)
    await auth.stop()
    await auth.stop()
    assert tasks_of(auth) == []

    assert await auth.running() is not first
    assert all(not task.done() for task in tasks_of(auth))
    assert await auth.api.get_session(key) is not None
    await auth.stop()


async def test_a_lifespan_starts_and_stops_whatever_happens_within(ready_url: str) -> None:
    auth = made(ready_url)

    async def broken() -> None:
        async with auth.lifespan(object()):
            assert auth.parts is not None
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await broken()
        assert auth.parts is None


async def test_whoever_comes_first_without_a_lifespan_starts_it_once(ready_url: str) -> None:
    auth = made(ready_url)
    found = await asyncio.gather(*(auth.running() for _ in range(8)))
    assert all(app is auth.parts for app in found)
    assert len(tasks_of(auth)) == 8
    await auth.stop()


async def test_a_start_while_it_stops_waits_for_the_end(ready_url: str) -> None:
    auth = made(ready_url)
    await auth.start()
    first = auth.parts
    stopping = asyncio.create_task(auth.stop())
    await asyncio.sleep(0)
    await auth.start()
    await stopping
    assert auth.parts is not first
    assert await auth.api.get_session({}) is None
    await auth.stop()


async def test_a_job_that_rests_first_holds_up_neither_start_nor_stop() -> None:
    jobs, rounds = Jobs(), list[int]()

    async def job() -> None:
        rounds.append(1)

    patient = asyncio.create_task(jobs.every(600, "patient", job, rest=600))
    brief = asyncio.create_task(jobs.every(600, "brief", job, rest=0.01))

    async def begun() -> bool:
        return len(rounds) == 1

    await until(begun)
    jobs.stopping.set()
    await asyncio.wait_for(asyncio.gather(patient, brief), 30)
    assert rounds == [1]


def test_it_starts_in_another_loop_too(ready_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As test clients do it: each has an event loop of its own, the app is one."""
    auth = made(ready_url)
    for _ in range(2):
        assert asyncio.run(_working_jobs(auth)) == 8
    gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio"] == []


async def _working_jobs(auth: Auth) -> int:
    async with auth.lifespan():
        app = await auth.running()
        since = app.verifier.lease.until

        async def renewed() -> bool:
            return app.verifier.lease.until > since

        await until(renewed)
        app.wake_mail()
        await asyncio.sleep(0.05)
        return sum(not task.done() for task in tasks_of(auth))


def test_a_loop_that_ends_before_us_loses_nothing(
    ready_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Test clients without `with`, and Django's `async_to_sync`: a loop for each request."""
    auth = made(ready_url)
    id, key = asyncio.run(new_key(auth))
    assert auth.parts is None
    client = TestClient(auth.mount(no_app))
    for _ in range(3):
        assert client.get("/api/auth/forward", headers=key).status_code == 200
    assert auth.parts is None
    assert asyncio.run(used(auth, id)) == 3
    gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio"] == []


def test_many_may_come_first_in_each_loop(ready_url: str) -> None:
    auth = made(ready_url)

    async def many() -> int:
        return len(set(map(id, await asyncio.gather(*(auth.running() for _ in range(5))))))

    assert [asyncio.run(many()) for _ in range(2)] == [1, 1]


async def test_after_the_end_the_database_is_closed(ready_url: str) -> None:
    auth = made(ready_url)
    app = await auth.running()
    await auth.stop()
    with pytest.raises((Unavailable, RuntimeError)):
        await app.hasher.hash(PASSWORD)
    if auth.settings.sqlite_path is not None:
        with pytest.raises(Unavailable, match="closed"):
            await app.database.read(read_epoch_of)


async def read_epoch_of(tx: Transaction) -> object:
    return await tx.one(text("SELECT 1"))


# --- one process serves ---------------------------------------------------------------------


async def test_a_second_one_is_refused_with_its_reason_and_changes_nothing(ready_url: str) -> None:
    first, second = made(ready_url), made(ready_url)
    async with first.lifespan():
        _, key = await new_key(first)
        for _ in range(2):
            with pytest.raises(Misuse, match="another process already serves this database"):
                await second.start()
        assert second.parts is None
        assert await first.api.get_session(key) is not None
    async with second.lifespan():
        assert await second.api.get_session(key) is not None


async def test_a_start_that_fails_lets_go_of_everything(ready_url: str) -> None:
    wrong = made(ready_url, smtp_url="smtp://ада@mail.example.com", mail_from="keys@example.com")
    for _ in range(2):
        with pytest.raises(Misuse, match="SMTP_URL"):
            await wrong.start()
        assert wrong.parts is None
    async with made(ready_url).lifespan():
        pass


async def test_user_permissions_outside_the_catalogue_are_told(ready_url: str) -> None:
    auth = made(ready_url, permissions="files:read", user_permissions="files:read,files:write")
    with pytest.raises(Misuse, match="KEYBEARER_USER_PERMISSIONS names files:write, which"):
        await auth.start()
    async with made(ready_url).lifespan():
        pass


async def test_an_empty_postgresql_says_what_to_run(fresh_postgres: str) -> None:
    with pytest.raises(Misuse, match="the database is empty: run `keybearer migrate`"):
        await made(fresh_postgres).start()


async def test_a_postgresql_of_another_version_says_what_to_run(
    postgres_server: PostgresServer, postgres_template: str
) -> None:
    url = postgres_server.create(postgres_template)
    postgres_server.execute("UPDATE alembic_version SET version_num = '0000'", url=url)
    with pytest.raises(Misuse, match=r"has version 0000, this is .*: run `keybearer migrate`"):
        await made(url).start()
    postgres_server.drop(url)


async def test_an_empty_sqlite_is_made_ready(tmp_path: Path) -> None:
    async with made(f"sqlite:///{tmp_path / 'new.db'}").lifespan():
        assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


async def test_a_lost_server_is_unavailable_and_may_come_back(ready_url: str) -> None:
    auth = made("postgresql://127.0.0.1:9/nobody")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await auth.running()
        assert auth.parts is None


# --- beside the serving one -----------------------------------------------------------------


async def test_a_visitors_change_waits_until_the_serving_one_goes_by_it(ready_url: str) -> None:
    serving, visiting = made(ready_url), made(ready_url, serving=False)
    async with serving.lifespan(), visiting.lifespan():
        assert not tasks_of(visiting)
        id, key = await new_key(visiting)
        assert isinstance(await serving.api.authenticate(key), Session)
        receipt = await visiting.api.revoke_api_key(inputs.RevokeKey(key_id=id), owner="ada")
        verdict = await serving.api.authenticate(key)
        assert isinstance(verdict, Refusal)
        assert verdict.code == "KEY_REVOKED"
        assert (receipt.nodes, receipt.waited_ms > 0) == (1, True)


async def test_a_visitor_alone_waits_for_nobody(ready_url: str) -> None:
    visiting = made(ready_url, serving=False)
    async with visiting.lifespan():
        id, _ = await new_key(visiting)
        receipt = await visiting.api.revoke_api_key(inputs.RevokeKey(key_id=id), owner="ada")
        assert (receipt.nodes, receipt.waited_ms) == (0, 0)
        async with made(ready_url).lifespan():
            pass


# --- usage, and work beside the requests ----------------------------------------------------


async def test_what_was_counted_is_written_at_the_end(ready_url: str) -> None:
    auth = made(ready_url)
    async with auth.lifespan():
        id, key = await new_key(auth)
        for _ in range(3):
            assert await auth.api.get_session(key, ip=IP) is not None
    async with auth.lifespan():
        assert await used(auth, id) == 3


async def test_a_lost_database_does_not_keep_it_from_stopping(
    ready_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    auth = made(ready_url)
    app = await auth.running()
    id, key = await new_key(auth)
    await rename(app, "usage", "lost")
    assert await auth.api.get_session(key, ip=IP) is not None
    await auth.stop()
    told = [record.message for record in caplog.records]
    assert (told.count("usage.left"), told.count("usage.lost")) == (1, 0)
    second = made(ready_url)
    async with second.lifespan():
        await rename(await second.running(), "lost", "usage")
    async with second.lifespan():
        assert await used(second, id) == 1


async def test_jobs_wait_out_a_lost_database_and_go_on(
    ready_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="keybearer")

    def waits() -> list[str]:
        found = [each for each in caplog.records if each.message == "job.waits"]
        return [each.__dict__["job"] for each in found]

    async def both_wait() -> bool:
        return {"usage", "lease"} <= {*waits()}

    auth = made(ready_url, stale_if_database_lost="1h")
    async with auth.lifespan():
        app = await auth.running()
        id, key = await new_key(auth)
        await rename(app, "usage", "lost_usage")
        await rename(app, "coherence", "lost_coherence")
        assert await auth.api.get_session(key, ip=IP) is not None
        await until(both_wait)
        assert app.verifier.lease.stretched
        await rename(app, "lost_coherence", "coherence")
        await rename(app, "lost_usage", "usage")

        async def goes_on() -> bool:
            return not app.verifier.lease.stretched and await used(auth, id) == 1

        await until(goes_on)
        assert await auth.api.get_session(key, ip=IP) is not None
        # Told once, not with every round.
        assert waits().count("lease") == 1
        assert waits().count("usage") == 1
        assert all(not task.done() for task in tasks_of(auth))


async def test_a_job_with_a_mistake_is_told_and_goes_on(
    ready_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    auth = made(ready_url)
    async with auth.lifespan():
        rounds: list[int] = []
        assert auth._jobs is not None

        async def job() -> None:
            rounds.append(1)
            raise ValueError("a bug")

        task = asyncio.create_task(auth._jobs.every(0.01, "buggy", job))

        async def twice() -> bool:
            return len(rounds) >= 2

        await until(twice)
        assert not task.done()
    await task  # ends with the others
    assert [each.__dict__["job"] for each in caplog.records if each.message == "job.failed"]
