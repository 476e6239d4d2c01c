"""The mobile client: stays logged in, refreshes once, tells nothing."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx2
import pytest

from examples.endpoints import create_app
from examples.mobile_client import LoggedOut, Memory, MobileClient
from keybearer import Auth
from tests.cli.command import PASSWORD as TYPED
from tests.cli.command import Server, Shell
from tests.examples.conftest import EMAIL, ROOT
from tests.people import PASSWORD, StandingClock, person

PROFILE = "/api/user/profile"
REFRESH = "/api/auth/refresh"
LIFE_MS = 5 * 60_000


class Counting(httpx2.AsyncBaseTransport):
    """Counts what is asked for, and loses the first answers to a refresh where told to."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self.paths: list[str] = []
        self.refreshes = asyncio.Event()
        self.lose = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.paths.append(request.url.path)
        if request.url.path == REFRESH:
            self.refreshes.set()
        answer = await self._inner.handle_async_request(request)
        if self.lose and request.url.path == REFRESH:
            self.lose -= 1
            await answer.aread()
            raise httpx2.ReadError("lost")
        return answer


@pytest.fixture
def wire(auth: Auth) -> Counting:
    return Counting(httpx2.ASGITransport(auth.mount(create_app(auth)), client=("127.0.0.1", 50000)))


@pytest.fixture
async def http(auth: Auth, wire: Counting) -> AsyncIterator[httpx2.AsyncClient]:
    await person(await auth.running())
    async with httpx2.AsyncClient(transport=wire, base_url="http://127.0.0.1:8000") as http:
        yield http


@pytest.fixture
async def store() -> Memory:
    return Memory()


@pytest.fixture
async def client(http: httpx2.AsyncClient, store: Memory) -> MobileClient:
    client = MobileClient(http, store)
    assert (await client.log_in("ada@example.com", PASSWORD))["name"] == "Ada"
    return client


async def test_calls_in_parallel_refresh_an_expired_token_once(
    client: MobileClient, wire: Counting, clock: StandingClock
) -> None:
    clock.advance(LIFE_MS)
    answers = await asyncio.gather(*(client.request("GET", PROFILE) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert wire.paths.count(REFRESH) == 1


async def test_each_expiry_is_one_refresh(
    client: MobileClient, wire: Counting, clock: StandingClock
) -> None:
    for _ in range(3):
        clock.advance(LIFE_MS)
        assert (await client.request("GET", PROFILE)).status_code == 200
    assert wire.paths.count(REFRESH) == 3


async def test_a_lost_answer_to_a_refresh_is_asked_for_again(
    client: MobileClient, wire: Counting, clock: StandingClock
) -> None:
    clock.advance(LIFE_MS)
    wire.lose = 1
    assert (await client.request("GET", PROFILE)).status_code == 200
    assert wire.paths.count(REFRESH) == 2


async def test_a_call_that_is_given_up_does_not_end_the_refresh_of_others(
    client: MobileClient, wire: Counting, clock: StandingClock
) -> None:
    clock.advance(LIFE_MS)
    given_up = asyncio.create_task(client.request("GET", PROFILE))
    other = asyncio.create_task(client.request("GET", PROFILE))
    await wire.refreshes.wait()
    given_up.cancel()
    assert (await other).status_code == 200
    assert wire.paths.count(REFRESH) == 1


async def test_after_a_restart_the_store_is_enough(
    client: MobileClient, http: httpx2.AsyncClient, store: Memory
) -> None:
    again = MobileClient(http, store)
    assert (await again.request("GET", PROFILE)).json()["email"] == "ada@example.com"


async def test_logging_out_ends_it_here_and_there(
    client: MobileClient, http: httpx2.AsyncClient, store: Memory
) -> None:
    kept = Memory()
    kept.save(store.load())
    await client.log_out()
    assert store.load() is None
    with pytest.raises(LoggedOut):
        await client.request("GET", PROFILE)
    with pytest.raises(LoggedOut):  # somebody who copied the token
        await MobileClient(http, kept).request("GET", PROFILE)
    assert kept.load() is None
    await client.log_out()


async def test_other_refusals_are_the_callers(client: MobileClient, wire: Counting) -> None:
    assert (await client.request("POST", "/api/deploy", content=b"{")).status_code == 400
    assert (await client.request("GET", "/nowhere")).status_code == 404
    assert REFRESH not in wire.paths


async def test_a_wrong_password_is_told(http: httpx2.AsyncClient) -> None:
    with pytest.raises(LoggedOut, match="Invalid email or password"):
        await MobileClient(http).log_in("ada@example.com", "wrong")


async def test_it_shows_no_token(client: MobileClient, store: Memory) -> None:
    secret = store.load()
    assert secret is not None
    assert secret not in repr(client) + str(vars(client)) + repr(store)


def test_it_runs_against_a_server(server: Server, shell: Shell) -> None:
    shell.ok("users", "create", EMAIL, "--name", "Ann", "--verified", "--password-stdin",
             stdin=TYPED + "\n")  # fmt: skip

    def run(password: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, str(ROOT / "examples/mobile_client.py")]
        return subprocess.run(
            [*program, "--base", server.base, "--email", EMAIL],
            input=password, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run(TYPED + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Logged in as Ann.")
    assert done.stdout.endswith("Logged out.\n")
    assert "kbr_" not in done.stdout + done.stderr
    assert "eyJ" not in done.stdout + done.stderr

    refused = run("wrong\n")
    assert (refused.returncode, refused.stderr) == (1, "Invalid email or password\n")
