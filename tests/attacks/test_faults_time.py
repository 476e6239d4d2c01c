"""Faults of time, randomness and starts (rows F20, F28, F30, F33, F34)."""

import asyncio
import contextlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations.app import App
from keybearer.web.mount import no_app
from tests.attacks.town import API, Town, is_problem
from tests.cli.command import Shell
from tests.people import PASSWORD, SECRET, StandingClock, log_in, make_key, person

DAY = 86_400_000


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """The same, for a server where people manage their keys."""
    shell.env["KEYBEARER_TOKEN_MANAGEMENT"] = "true"
    return shell


def ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (ms(2028, 2, 28, 12), "2028-02-29T12:00:00.000Z"),
        (ms(2027, 2, 28, 12), "2027-03-01T12:00:00.000Z"),
        (ms(2027, 3, 27, 12), "2027-03-28T12:00:00.000Z"),  # clocks change in Europe
        (ms(2027, 10, 30, 12), "2027-10-31T12:00:00.000Z"),
        (ms(2038, 1, 19, 3, 14, 7), "2038-01-20T03:14:07.000Z"),  # 2^31 seconds
        (ms(2106, 2, 7, 6, 28, 15), "2106-02-08T06:28:15.000Z"),  # 2^32 seconds
    ],
)
async def test_f20_a_day_is_a_day_on_every_date(
    town: Town, clock: StandingClock, start: int, end: str
) -> None:
    clock.advance(start - clock.now())
    headers = await log_in(town.client, "u1@example.com")
    made = await make_key(town.client, headers, expiresIn=86_400)
    assert made["expiresAt"] == end
    clock.advance(DAY - 1)
    assert await town.works(made["key"])
    clock.advance(1)
    assert not await town.works(made["key"])


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati", "Europe/Berlin"])
def test_f20_the_zone_of_the_machine_changes_nothing(shell: Shell, zone: str) -> None:
    owner = shell.user()
    shell.env["TZ"] = zone
    before = datetime.now(UTC)
    with shell.serving() as server:
        token = shell.service_token()
        answer = httpx2.post(
            f"{server.base}{API}/api-key/create",
            json={"name": "ci", "userId": owner, "expiresIn": 86_400},
            headers={"authorization": f"Bearer {token}"},
        )
    made = answer.json()
    assert made["createdAt"].endswith("Z")
    created = datetime.fromisoformat(made["createdAt"])
    assert abs((created - before).total_seconds()) < 600
    left = datetime.fromisoformat(made["expiresAt"]) - created
    assert left.total_seconds() == 86_400


# --- several at once --------------------------------------------------------------------------

FIRST = """
import asyncio, sys
from keybearer import Auth
async def main():
    auth = Auth(sys.argv[1], serving=False)
    await auth.start()
    app = await auth.running()
    print(app.ring.newest.id)
    await auth.stop()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


async def started_at_once(url: str, n: int) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", FIRST, url, env=clean,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(n)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    ended = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * n, ended
    return [told.decode().strip() for told, _ in ended]


async def test_f28_of_many_first_starts_one_makes_the_signing_key(ready_url: str) -> None:
    visitors = [Auth(ready_url, secret=SECRET, serving=False) for _ in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        for visitor in visitors:
            await stack.enter_async_context(visitor.lifespan())
        apps = [await visitor.running() for visitor in visitors]
        keys = await asyncio.gather(*(app.signing.signer() for app in apps))
        assert len({key.kid for key in keys}) == 1
        assert len(await apps[0].signing.published()) == 1


async def test_f28_of_many_first_starts_one_makes_the_secret(tmp_path: Path) -> None:
    told = await started_at_once(f"sqlite:///{tmp_path}/k.db", 5)
    assert len(set(told)) == 1
    drafts = [name for name in os.listdir(tmp_path) if name.startswith("k.db-secret-")]
    assert drafts == []


def test_f28_an_empty_secret_is_told_and_not_replaced(shell: Shell) -> None:
    shell.user()
    secret = shell.folder / "keybearer.db-secret"
    secret.write_text("")
    result = shell.run("users", "list")
    assert result.exit_code == 1
    assert "is empty: put the secret back" in result.stderr
    assert secret.read_text() == ""


# --- an SQLite that loses commits --------------------------------------------------------------

OLD = """
import sys
import pysqlite3.dbapi2 as driver
driver.sqlite_version_info, driver.sqlite_version = (3, 51, 2), "3.51.2"
from keybearer.cli import main
sys.argv = ["keybearer", "serve", "--port", "0"]
main()
"""


def test_f30_a_server_on_an_sqlite_that_loses_commits_does_not_start(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OLD], cwd=shell.folder, check=False, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "WAL-reset bug" in done.stderr
    assert not (shell.folder / "keybearer.db").exists()


# --- randomness -------------------------------------------------------------------------------


class NoEntropy:
    """The system's randomness, after it failed."""

    def __call__(self, _n: int) -> bytes:
        raise OSError(5, "Input/output error")


async def test_f33_without_randomness_nothing_is_made(town: Town, app: App) -> None:
    before = await town.count()
    object.__setattr__(app, "entropy", NoEntropy())
    for answer in (
        await town.create(name="x"),
        await town.post("/api-key/rotate", town.t1, keyId=town.k1["id"], gracePeriod=0),
        await town.post("/login", email="u1@example.com", password=PASSWORD),
        await town.post("/sign-in/email", email="u1@example.com", password=PASSWORD),
        await town.post("/request-password-reset", email="u1@example.com"),
    ):
        assert answer.status_code in (500, 503), answer.text
        assert is_problem(answer, answer.status_code)
        assert "set-cookie" not in answer.headers
    object.__setattr__(app, "entropy", os.urandom)
    assert await town.count() == before
    assert await town.works(town.k1["key"])


FORKS = """
import os, sys
from keybearer.domain.credentials import mint, mint_link_token, mint_session_token
from keybearer.domain.ids import new_id
from keybearer.adapters.clock import SystemClock
clock = SystemClock()
mint("kb_", os.urandom), new_id(clock.now(), os.urandom(10))  # seeded, were there a seed
for _ in range(4):
    if os.fork() == 0:
        made = []
        for _ in range(3000):
            made += [mint("kb_", os.urandom).reveal(), mint_link_token(os.urandom).reveal(),
                     mint_session_token(os.urandom).reveal(), new_id(1, os.urandom(10))]
        with open(f"{sys.argv[1]}/{os.getpid()}", "w") as file:
            file.write("\\n".join(made))
        os._exit(0)
for _ in range(4):
    assert os.wait()[1] == 0
"""


def test_f33_forks_never_make_the_same(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], check=True, timeout=120)
    made = [line for file in tmp_path.iterdir() for line in file.read_text().split()]
    assert len(made) == len(set(made)) == 4 * 3000 * 4


# --- restarts ---------------------------------------------------------------------------------


async def test_f34_many_restarts_change_nothing(ready_url: str, clock: StandingClock) -> None:
    kids, key, session, pair = set(), "", "", ""
    for restart in range(100 if ready_url.startswith("sqlite") else 20):
        auth = Auth(ready_url, secret=SECRET, token_management=True, clock=clock)
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 5000))
        async with (
            auth.lifespan(),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            if restart == 0:
                await person(await auth.running())
                headers = await log_in(client)
                pair = headers["authorization"]
                key = (await make_key(client, headers))["key"]
                signed = await client.post(
                    f"{API}/sign-in/email", json={"email": "ada@example.com", "password": PASSWORD}
                )
                session = f"Bearer {signed.json()['token']}"
                client.cookies.clear()
            for credential in (pair, session, f"Bearer {key}"):
                assert await auth.api.get_session({"authorization": credential}) is not None
            listed = (await client.get(f"{API}/jwks")).json()["keys"]
            kids.add(tuple(each["kid"] for each in listed))
    assert len(kids) == 1


async def test_f34_a_mail_is_sent_once_over_restarts(ready_url: str, clock: StandingClock) -> None:
    from tests.attacks.life import Post, wait_until

    with Post() as post:
        for restart in range(5):
            auth = Auth(ready_url, secret=SECRET, smtp_url=post.url, clock=clock)
            async with auth.lifespan():
                if restart == 0:
                    await person(await auth.running(), verified=False)
                await asyncio.to_thread(wait_until, lambda: post.texts)
    assert len(post.texts) == 1
