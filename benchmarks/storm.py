"""`verify` over HTTP while 64 people log in at once, again and again, beside `verify` alone.

The storm comes from a process of its own, as does the server; one client asks `verify` over one
connection, one request after the other.
"""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from benchmarks.keys import SECRET
from benchmarks.measure import RUNS, Figure, percentile
from benchmarks.servers import granian
from keybearer import Auth
from keybearer.domain.credentials import SERVICE_PREFIX, mint, service_token_hash
from keybearer.inputs import CreateKey

_PEOPLE, _ASKED = 64, 1_500
_PASSWORD = "violet tractor sings at noon"


def figures(folder: Path) -> list[Figure]:
    """Every figure of this page."""
    database = f"sqlite:///{folder / 'storm.db'}"
    key = asyncio.run(_settle(database))
    token = mint(SERVICE_PREFIX, os.urandom).reveal()
    hashed = service_token_hash(token.encode())
    idle, stormy, logins = [], [], []
    with granian("accounts", folder, BENCH_DATABASE=database, BENCH_SERVICE_TOKENS=hashed) as port:
        _ask(port, token, key, 200)
        for _ in range(RUNS):
            idle.append(percentile(_ask(port, token, key, _ASKED), 0.99))
            command = [sys.executable, "-m", "benchmarks.storm", str(port)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as storm:
                assert storm.stdin is not None
                assert storm.stdout is not None
                storm.stdout.readline()
                begun = time.perf_counter()
                stormy.append(percentile(_ask(port, token, key, _ASKED), 0.99))
                lasted = time.perf_counter() - begun
                storm.stdin.close()
                logins.append(int(storm.stdout.read()) / lasted)
    ratios = [storm / alone for storm, alone in zip(stormy, idle, strict=True)]
    return [
        Figure("verify, 64 log-ins at once: p99 ÷ idle p99", "×", ratios, "≤ 2"),
        Figure("verify, idle: p99", "ms", idle),
        Figure("verify, 64 log-ins at once: p99", "ms", stormy),
        Figure("log-ins meanwhile", "per s", logins),
    ]


async def _settle(database: str) -> str:
    """Sixty-four people with passwords, and a key."""
    auth = Auth(database, secret=SECRET)
    async with auth.lifespan():
        for number in range(_PEOPLE):
            user = await auth.api.users.create(
                _address(number), name="A", password=_PASSWORD, verified=True
            )
        asked = CreateKey(name="benchmark", rate_limit_enabled=False)
        made = await auth.api.create_api_key(asked, owner=user.id)
    assert made.key is not None
    return made.key


def _address(number: int) -> str:
    return f"person-{number}@example.com"


def _ask(port: int, token: str, key: str, times: int) -> list[float]:
    """Milliseconds of each check."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"key": key})
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        connection.request("POST", "/api/auth/api-key/verify", body, headers)
        answer = connection.getresponse()
        told = answer.read()
        took.append((time.perf_counter() - begun) * 1000)
        if b'"valid":true' not in told:
            raise RuntimeError(f"refused: {answer.status} {told!r}")
    connection.close()
    return took


async def _storm(port: int) -> None:
    """Logs 64 people in at once until stdin is closed; tells when it blows, then how many."""
    done = 0
    over = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", limits=httpx2.Limits(max_connections=_PEOPLE)
    ) as client:

        async def person(number: int) -> None:
            nonlocal done
            login = {"email": _address(number), "password": _PASSWORD}
            for turn in range(10_000):
                if over.done():
                    return
                # Another address each time: people are not one address that guesses.
                ip = f"10.{number}.{turn // 200}.{turn % 200}"
                answer = await client.post(
                    "/api/auth/sign-in/email",
                    json=login,
                    headers={"x-forwarded-for": ip},
                    timeout=60,
                )
                client.cookies.clear()
                if answer.status_code not in (200, 503):  # 503: more wait than may
                    raise RuntimeError(f"a log-in was answered with {answer.status_code}")
                done += answer.status_code == 200
                if done == 1:
                    print("blows", flush=True)

        await asyncio.gather(*(person(number) for number in range(_PEOPLE)))
    print(done)


if __name__ == "__main__":
    asyncio.run(_storm(int(sys.argv[1])))
