"""Faults of the database: 503 and not a verdict, and back by itself (rows F07 to F11, F29)."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pysqlite3.dbapi2 as driver
import pytest

from keybearer import Auth
from keybearer.adapters.sql import batches, postgres
from keybearer.domain.errors import Unavailable
from keybearer.domain.uses import Batch
from keybearer.verification.usage import Usage
from keybearer.web.mount import no_app
from tests.adapters.test_postgres import Power, kill_sessions, own_server
from tests.attacks.life import wait_until
from tests.attacks.line import Line
from tests.attacks.town import API, is_problem
from tests.cli.command import Server, Shell
from tests.people import PASSWORD, SECRET, START, fresh_id, log_in, make_key, person
from tests.servers import PostgresServer


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """The same, for a server where people manage their keys."""
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    return shell


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# --- PostgreSQL stops -------------------------------------------------------------------------


class Load:
    """Clients that never stop asking; every answer and every break is counted."""

    def __init__(self, server: Server, token: str, key: str) -> None:
        self.statuses: dict[int, int] = {}
        self.accepted = 0
        self.bad: list[str] = []
        self._server, self._token, self._key = server, token, key
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, n: int) -> None:
        with httpx2.Client(base_url=self._server.base, timeout=60) as client:
            while not self._over.is_set():
                if n % 2:
                    answer = client.get(f"{API}/forward", headers={"x-api-key": self._key})
                else:
                    answer = client.post(
                        f"{API}/api-key/verify",
                        json={"key": self._key},
                        headers=bearer(self._token),
                    )
                self._count(answer)

    def _count(self, answer: httpx2.Response) -> None:
        with self._lock:
            status = answer.status_code
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                self.accepted += 1
                if "verify" in str(answer.url) and answer.json()["valid"] is not True:
                    self.bad.append(answer.text)
            elif status == 503:
                kind = answer.headers.get("content-type")
                if kind != "application/problem+json" or "retry-after" not in answer.headers:
                    self.bad.append(f"{answer.headers} {answer.text}")
                time.sleep(0.05)  # a client that waits a little, and no flood in the log
            else:
                self.bad.append(answer.text)

    def of(self, status: int) -> int:
        return self.statuses.get(status, 0)


@pytest.fixture
def power() -> Iterator[tuple[PostgresServer, Power]]:
    with own_server() as (server, power):
        yield server, power


def test_f08_a_stopped_postgresql_is_503_and_comes_back_by_itself(
    shell: Shell, power: tuple[PostgresServer, Power]
) -> None:
    postgresql, switch = power
    shell.env |= {"KEYBEARER_DATABASE_URL": postgresql.admin_url, "KEYBEARER_SECRET": SECRET}
    shell.ok("migrate")
    shell.user()
    id, key = shell.key("--rate-limit", "off")
    token = shell.service_token()
    with shell.serving() as server:
        assert server.process.stderr is not None
        # The log of an outage is longer than a pipe: somebody has to read it.
        drain = threading.Thread(target=server.process.stderr.read)
        drain.start()
        with Load(server, token, key) as load:
            wait_until(lambda: load.of(200) >= 50)
            switch.off()
            wait_until(lambda: load.of(503) >= 10)
            # From here the lease is over: nobody is let in by what is remembered.
            let_in = load.of(200)
            refused = load.of(503)
            wait_until(lambda: load.of(503) >= refused + 40)
            assert load.of(200) == let_in
            live = httpx2.get(f"{server.base}{API}/health/live")
            ready = httpx2.get(f"{server.base}{API}/health/ready", timeout=60)
            assert (live.status_code, ready.status_code) == (200, 503)
            switch.on()
            wait_until(lambda: load.of(200) >= let_in + 50)
        assert load.bad == []
        assert set(load.statuses) == {200, 503}
        # One look is the answer to all who ask within half a second.
        wait_until(lambda: httpx2.get(f"{server.base}{API}/health/ready").status_code == 200)
        server.process.terminate()
        assert server.process.wait(60) == 0
        drain.join()
    # What was counted while nobody could write it down is not lost.
    assert shell.json("keys", "show", id)["requestCount"] == load.accepted


@contextlib.contextmanager
def talking(server: Server) -> Iterator[None]:
    """Reads what the server says: the log of an outage is longer than a pipe."""
    assert server.process.stderr is not None
    drain = threading.Thread(target=server.process.stderr.read)
    drain.start()
    yield
    server.kill()
    drain.join()


def counts(shell: Shell, postgresql: PostgresServer, id: str) -> tuple[int, int]:
    """The requests of a key, by its own count and by hour."""
    by_hour = postgresql.execute("SELECT sum(n) FROM usage")  # there is no other key
    return shell.json("keys", "show", id)["requestCount"], int(by_hour)


def lose_and_refuse(load: Load, switch: Power) -> None:
    """Stops PostgreSQL, and waits until nobody was let in for more than a second."""
    wait_until(lambda: load.of(200) >= 50)
    switch.off()
    wait_until(lambda: load.of(503) >= 10)
    refused = load.of(503)
    wait_until(lambda: load.of(503) >= refused + 120)  # four clients, each 20 a second


def test_f08_usage_outlives_an_outage_in_which_the_process_is_killed(
    shell: Shell, power: tuple[PostgresServer, Power], tmp_path: Path
) -> None:
    postgresql, switch = power
    folder = tmp_path / "spill"
    shell.env |= {
        "KEYBEARER_DATABASE_URL": postgresql.admin_url,
        "KEYBEARER_SECRET": SECRET,
        "KEYBEARER_SPILL_DIR": str(folder),
    }
    shell.ok("migrate")
    shell.user()
    id, key = shell.key("--rate-limit", "off")
    token = shell.service_token()
    with shell.serving() as server, talking(server):
        with Load(server, token, key) as load:
            lose_and_refuse(load, switch)
        (left,) = folder.iterdir()
        assert (left.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
        server.kill()
    switch.on()
    with left.open("ab") as file:
        file.write(b"\0\0\1\0torn")  # as the end of a record whose append never returned
    with shell.serving() as server, talking(server):
        wait_until(lambda: not left.exists())
        assert counts(shell, postgresql, id) == (load.accepted, load.accepted)
    assert load.bad == []


def test_f08_usage_waits_in_memory_where_the_disk_takes_nothing(
    shell: Shell, power: tuple[PostgresServer, Power]
) -> None:
    postgresql, switch = power
    shell.env |= {"KEYBEARER_DATABASE_URL": postgresql.admin_url, "KEYBEARER_SECRET": SECRET}
    shell.ok("migrate")
    shell.user()
    id, key = shell.key("--rate-limit", "off")
    token = shell.service_token()
    with shell.serving() as server, talking(server):
        before = resource.prlimit(server.worker, resource.RLIMIT_FSIZE)
        resource.prlimit(server.worker, resource.RLIMIT_FSIZE, (4, before[1]))
        with Load(server, token, key) as load:
            lose_and_refuse(load, switch)
            let_in = load.of(200)
            switch.on()
            wait_until(lambda: load.of(200) >= let_in + 50)
        server.process.terminate()
        assert server.process.wait(60) == 0
    assert load.bad == []
    assert counts(shell, postgresql, id) == (load.accepted, load.accepted)


_SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON usage_batches
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()
"""


async def test_f08_a_commit_whose_answer_is_lost_counts_once(
    postgres_server: PostgresServer, postgres_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_SECONDS", 2)
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_SECONDS", 2)
    url = postgres_server.create(postgres_template)
    postgres_server.execute(_SLOW_COMMIT, url=url)
    parts = urlsplit(url)
    async with Line("127.0.0.1", parts.port or 0) as line:
        database = postgres.PostgresDatabase(url.replace(f":{parts.port}/", f":{line.port}/"))

        async def write(batch: Batch, settled: Sequence[str]) -> bool:
            return await database.write(
                lambda tx: batches.write(
                    tx, batch, now=START, settled=settled, dialect="postgresql"
                )
            )

        usage = Usage(write, lambda _: None, new_id=fresh_id)
        usage.tally("k", is_key=True).accept(START, None, None)
        flush = asyncio.create_task(usage.flush(START))
        while not int(await asyncio.to_thread(postgres_server.execute, _COMMITTING)):
            assert not flush.done()
        line.cut()
        with pytest.raises(Unavailable):
            await flush
        line.mend()
        # It waits until the commit has ended.
        drop = "DROP TRIGGER slow ON usage_batches"
        await asyncio.to_thread(postgres_server.execute, drop, url=url)
        assert postgres_server.execute("SELECT n FROM usage", url=url) == "1"
        usage.tally("k", is_key=True).accept(START, None, None)
        await _until(lambda: usage.flush(START))
        await database.close()
    counted = postgres_server.execute("SELECT count(*), sum(n) FROM usage", url=url)
    assert (counted, usage.waiting) == ("1|2", 0)
    postgres_server.drop(url)


_COMMITTING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND state = 'active'"
)


async def _until(done: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await done()


# --- PostgreSQL hangs -------------------------------------------------------------------------


async def test_f09_a_dead_line_is_503_in_time_and_leaves_no_connection_stuck(
    postgres_server: PostgresServer, postgres_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "COMMAND_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "POOL_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(postgres, "POOL_SIZE", 3)
    url = postgres_server.create(postgres_template)
    parts = urlsplit(url)
    async with Line("127.0.0.1", parts.port or 0) as line:
        auth = Auth(
            url.replace(f":{parts.port}/", f":{line.port}/"), secret=SECRET, token_management=True
        )
        async with auth.lifespan():
            transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 5000))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8000"
            ) as client:
                await person(await auth.running())
                headers = await log_in(client)
                key = await make_key(client, headers)
                line.cut()
                asked = {"email": "ada@example.com", "password": PASSWORD}
                many = [client.get(f"{API}/api-key/list", headers=headers) for _ in range(30)]
                async with asyncio.timeout(60):
                    answers = await asyncio.gather(*many, client.post(f"{API}/login", json=asked))
                assert all(is_problem(answer, 503, "UNAVAILABLE") for answer in answers)
                assert (await client.get(f"{API}/health/live")).status_code == 200
                async with asyncio.timeout(60):  # until the lease is over, memory answers
                    while (await client.get(f"{API}/health/ready")).status_code == 200:
                        pass
                line.mend()
                async with asyncio.timeout(60):
                    while True:
                        answer = await client.get(f"{API}/api-key/list", headers=headers)
                        if answer.status_code == 200:
                            break
                        assert is_problem(answer, 503, "UNAVAILABLE")
                answers = await asyncio.gather(
                    *(client.get(f"{API}/api-key/list", headers=headers) for _ in range(20))
                )
                assert {answer.status_code for answer in answers} == {200}
                forwarded = await client.get(f"{API}/forward", headers={"x-api-key": key["key"]})
                assert forwarded.status_code == 200
    postgres_server.drop(url)


# --- PostgreSQL turns read-only ---------------------------------------------------------------


async def test_f11_a_read_only_postgresql_answers_checks_and_refuses_changes(
    postgres_server: PostgresServer, postgres_template: str
) -> None:
    url = postgres_server.create(postgres_template)
    name = urlsplit(url).path[1:]

    def read_only(state: str) -> None:
        postgres_server.execute(
            f'ALTER DATABASE "{name}" SET default_transaction_read_only = {state}'
        )
        assert kill_sessions(postgres_server, url) > 0

    auth = Auth(url, secret=SECRET, token_management=True)
    async with auth.lifespan():
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 5000))
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000"
        ) as client:
            await person(await auth.running())
            headers = await log_in(client)
            key = await make_key(client, headers)
            read_only("on")
            for path, asked in (
                ("/api-key/create", {"name": "x"}),
                ("/api-key/delete", {"keyId": key["id"]}),
                ("/api-key/update", {"keyId": key["id"], "name": "y"}),
                ("/logout", {}),
            ):
                answer = await client.post(API + path, json=asked, headers=headers)
                assert is_problem(answer, 503, "UNAVAILABLE"), path
            forwarded = await client.get(f"{API}/forward", headers={"x-api-key": key["key"]})
            assert forwarded.status_code == 200
            read_only("off")
            async with asyncio.timeout(60):
                while (await client.post(f"{API}/api-key/create", headers=headers)).is_error:
                    pass
    postgres_server.drop(url)


# --- a damaged SQLite file --------------------------------------------------------------------


def file(shell: Shell) -> Path:
    return shell.folder / "keybearer.db"


def test_f07_a_cut_or_garbled_end_of_the_wal_goes_back_to_the_last_whole_commit(
    shell: Shell,
) -> None:
    owner = shell.user()
    token = shell.service_token()
    made = []
    with (
        shell.serving() as server,
        httpx2.Client(base_url=server.base, headers=bearer(token)) as client,
    ):
        for _ in range(20):
            answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
            made.append(answer.json()["id"])
        server.kill()
    wal = Path(f"{file(shell)}-wal").read_bytes()
    assert len(wal) > 100_000
    whole = file(shell).read_bytes()
    for damaged in (wal[:-1000], wal[: len(wal) // 2], wal[:-3000] + b"\0" * 3000):
        file(shell).write_bytes(whole)
        Path(f"{file(shell)}-wal").write_bytes(damaged)
        Path(f"{file(shell)}-shm").unlink(missing_ok=True)
        with shell.serving() as server:
            assert server.stop() == 0
        with contextlib.closing(driver.connect(str(file(shell)))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            there = [id for (id,) in connection.execute("SELECT id FROM api_keys ORDER BY id")]
        assert there == sorted(made)[: len(there)]  # from the front, without a hole
        assert len(there) < len(made)
        shell.ok("audit", "verify")


def test_f07_a_garbled_table_is_503_and_never_a_verdict(shell: Shell) -> None:
    shell.user()
    _, key = shell.key()
    token = shell.service_token()
    with contextlib.closing(driver.connect(str(file(shell)))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        pages = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('api_keys', 'api_key_secrets')"
        ).fetchall()
    raw = bytearray(file(shell).read_bytes())
    for (page,) in pages:
        raw[(page - 1) * size : page * size] = b"\xa5" * size
    file(shell).write_bytes(bytes(raw))
    doctor = shell.run("doctor")
    assert doctor.exit_code == 1
    with shell.serving() as server:
        for answer in (
            httpx2.post(
                f"{server.base}{API}/api-key/verify", json={"key": key}, headers=bearer(token)
            ),
            httpx2.get(f"{server.base}{API}/forward", headers={"x-api-key": key}),
        ):
            assert is_problem(answer, 503, "UNAVAILABLE")
        assert server.stop() == 0


# --- the file is replaced while it is served ---------------------------------------------------


def replaced(shell: Shell) -> None:
    """A backup is moved over the file, as a restore does that forgets to stop the server."""
    backup(shell).rename(file(shell))
    for end in ("-wal", "-shm"):
        Path(f"{file(shell)}{end}").unlink()


def replaced_by_one_of_before(shell: Shell) -> None:
    """The same with a backup from when nobody served."""
    with contextlib.closing(driver.connect(str(backup(shell)))) as connection:
        connection.execute("DELETE FROM nodes")
        connection.commit()
    replaced(shell)


def backup(shell: Shell) -> Path:
    path = shell.folder / "backup.db"
    if not path.exists():
        with contextlib.closing(driver.connect(str(file(shell)))) as connection:
            connection.execute(f"VACUUM INTO '{path}'")
        path.chmod(0o600)
    return path


def deleted(shell: Shell) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{file(shell)}{end}").unlink()


def moved_away(shell: Shell) -> None:
    file(shell).rename(shell.folder / "elsewhere.db")


def moved_back(shell: Shell) -> None:
    (shell.folder / "elsewhere.db").rename(file(shell))


def log_deleted(shell: Shell) -> None:
    Path(f"{file(shell)}-wal").unlink()


def forwarded(server: Server, key: str) -> httpx2.Response:
    return httpx2.get(f"{server.base}{API}/forward", headers={"x-api-key": key}, timeout=60)


def is_lost(answer: httpx2.Response) -> bool:
    return is_problem(answer, 503, "UNAVAILABLE") and int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("lose", [replaced, deleted, moved_away])
def test_a_file_that_is_not_there_any_more_acknowledges_nothing_and_is_503(
    shell: Shell, lose: Callable[[Shell], None]
) -> None:
    owner = shell.user()
    id, key = shell.key()
    token = shell.service_token()
    with (
        shell.serving() as server,
        httpx2.Client(base_url=server.base, headers=bearer(token)) as client,
    ):
        asked = {"name": "x", "userId": owner}
        assert client.post(f"{API}/api-key/create", json=asked).status_code == 200
        assert server.verify(token, key)["valid"]
        backup(shell)
        lose(shell)
        assert is_lost(client.post(f"{API}/api-key/create", json=asked))
        assert is_lost(client.post(f"{API}/api-key/delete", json={"keyId": id}))
        assert is_lost(client.get(f"{API}/api-key/list", params={"userId": owner}))
        assert client.get(f"{API}/health/ready").json()["database"] == "failing"
        time.sleep(2)  # the lease
        for answer in (
            client.post(f"{API}/api-key/verify", json={"key": key}),
            forwarded(server, key),
        ):
            assert is_lost(answer)
        assert client.get(f"{API}/health/ready").status_code == 503
        assert client.get(f"{API}/health/live").status_code == 200
        if lose is moved_away:
            moved_back(shell)
            wait_until(lambda: client.get(f"{API}/health/ready").status_code == 200)
            assert server.verify(token, key)["valid"]
            assert client.post(f"{API}/api-key/create", json=asked).status_code == 200
        assert server.stop() == 0
    assert "Traceback" not in server.said
    assert "dependency.lost" in server.said
    assert str(file(shell)) in server.said


@pytest.mark.parametrize("replace", [replaced, replaced_by_one_of_before])
def test_who_revokes_in_the_file_that_replaced_it_is_not_told_too_early(
    shell: Shell, replace: Callable[[Shell], None]
) -> None:
    shell.user()
    id, key = shell.key()
    with shell.serving() as server:
        assert forwarded(server, key).status_code == 200
        backup(shell)
        replace(shell)
        assert "stopped on 1 process" in shell.ok("keys", "revoke", id).stderr
        assert is_lost(forwarded(server, key))
        assert server.stop() == 0
    with shell.serving() as server:
        assert forwarded(server, key).status_code == 401
        assert server.stop() == 0


def test_what_was_acknowledged_before_the_log_was_deleted_is_kept_by_an_orderly_stop(
    shell: Shell,
) -> None:
    owner = shell.user()
    token = shell.service_token()
    with (
        shell.serving() as server,
        httpx2.Client(base_url=server.base, headers=bearer(token)) as client,
    ):
        made = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner}).json()
        log_deleted(shell)
        asked = {"name": "y", "userId": owner}
        assert is_lost(client.post(f"{API}/api-key/create", json=asked))
        wait_until(lambda: client.get(f"{API}/health/ready").status_code == 503)
        assert server.stop() == 0
    with shell.serving() as server:
        assert server.verify(token, made["key"])["valid"]


# --- many at one SQLite file ------------------------------------------------------------------

WRITER = """
import asyncio, sys
from keybearer import Auth
from keybearer.domain.model import RequestFacts, Session
from keybearer.operations.declaration import Call
from keybearer.operations.keys import CreateKey, create_api_key
async def main():
    auth = Auth(sys.argv[1], serving=False)
    await auth.start()
    app = await auth.running()
    caller = Session(subject="*", kind="operator", id="writer")
    for number in range(25):
        call = Call(app=app, caller=caller, facts=RequestFacts(id="w"), now=app.clock.now())
        await create_api_key(call, CreateKey(user_id=sys.argv[2], name=f"{number}"))
    await auth.stop()
sys.stdin.readline()
asyncio.run(main())
"""


def test_f29_eight_writers_a_reader_and_a_backup_beside_a_server_lock_nobody_out(
    shell: Shell,
) -> None:
    shell.env["KEYBEARER_SECRET"] = SECRET
    shell.env["KEYBEARER_MAX_KEYS_PER_OWNER"] = "1000"
    owner = shell.user()
    token = shell.service_token()
    url = f"sqlite:///{file(shell)}"
    with (
        shell.serving() as server,
        httpx2.Client(base_url=server.base, headers=bearer(token), timeout=60) as client,
        contextlib.closing(driver.connect(str(file(shell)), isolation_level=None)) as reader,
    ):
        clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, url, owner],
                cwd=shell.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                env=clean | shell.env,
            )
            for _ in range(7)
        ]  # fmt: skip
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM api_keys").fetchone()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        for _ in range(25):
            answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
            assert answer.status_code == 200, answer.text
        for writer in writers:
            _, said = writer.communicate(timeout=120)
            assert (writer.returncode, said) == (0, b"")
        with contextlib.closing(driver.connect(str(file(shell)))) as backup:
            backup.execute(f"VACUUM INTO '{shell.folder}/copy.db'")
        reader.execute("ROLLBACK")
        # Once nobody reads an old state, the log is written back and used again.
        for _ in range(100):
            answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
            assert answer.status_code == 200, answer.text
        grown = Path(f"{file(shell)}-wal").stat().st_size
        for _ in range(100):
            client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
        assert Path(f"{file(shell)}-wal").stat().st_size == grown
        assert server.stop() == 0
    with contextlib.closing(driver.connect(str(file(shell)))) as connection:
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (400,)
    with contextlib.closing(driver.connect(str(shell.folder / "copy.db"))) as connection:
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (200,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    shell.ok("audit", "verify")


def test_the_command_writes_beside_a_serving_process_under_load(shell: Shell) -> None:
    owner = shell.user()
    token = shell.service_token()
    made: list[str] = []
    over = threading.Event()

    def work(server: Server) -> None:
        with httpx2.Client(base_url=server.base, headers=bearer(token), timeout=60) as client:
            while not over.is_set():
                answer = client.post(f"{API}/api-key/create", json={"name": "x", "userId": owner})
                assert answer.status_code == 200, answer.text
                made.append(answer.json()["id"])
                if len(made) > 80:  # an owner has 100 keys at the most, and the command needs some
                    return

    with shell.serving() as server:
        thread = threading.Thread(target=work, args=(server,))
        thread.start()
        ids = [shell.key()[0] for _ in range(5)]
        shell.ok("keys", "revoke", ids[0])
        over.set()
        thread.join()
        assert made
        assert server.stop() == 0
    assert {*made, *ids} <= {
        each["id"] for each in shell.json("keys", "list", "--limit", "100")["apiKeys"]
    }
    shell.ok("audit", "verify")
