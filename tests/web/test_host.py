import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.settings import load
from keybearer.web.host import KnownHosts, host_name

SETTINGS = load(
    {"base_url": "https://auth.example.com", "trusted_origins": "https://app.example.com:8443"},
    environ={},
)


async def answer(*hosts: bytes, path: str = "/api/auth/ok") -> Any:
    """None when the request went through, else the answer."""
    sent: list[Any] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        sent.append(None)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope: Any = {"type": "http", "path": path, "headers": [(b"host", host) for host in hosts]}
    await KnownHosts(behind, SETTINGS)(scope, receive, send)
    return None if sent == [None] else (sent[0]["status"], json.loads(sent[1]["body"])["code"])


@pytest.mark.parametrize(
    "host",
    [
        b"auth.example.com",
        b"AUTH.example.com:443",
        b"auth.example.com.",
        b"app.example.com",
        b"localhost:8000",
        b"127.0.0.1",
        b"[::1]:8000",
        b"[::1]",
    ],
)
async def test_known_names_pass_with_any_port(host: bytes) -> None:
    assert await answer(host) is None


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"",),
        (b"evil.example.com",),
        (b"auth.example.com.evil.example",),
        (b"evil@auth.example.com",),
        (b"auth.example.com:80:80",),
        (b"auth.example.com:http",),
        (b"[::1",),
        (b"[::1]x",),
        (b"\xff",),
        (b"auth.example.com", b"auth.example.com"),
        (b"auth.example.com", b"evil.example.com"),
    ],
)
async def test_other_names_are_refused(hosts: tuple[bytes, ...]) -> None:
    assert await answer(*hosts) == (400, "INVALID_HOST")


async def test_health_is_answered_under_any_name() -> None:
    assert await answer(b"10.0.0.7:8000", path="/api/auth/health/ready") is None
    assert await answer(b"10.0.0.7:8000", path="/api/auth/healthy") == (400, "INVALID_HOST")


async def test_what_is_remembered_is_bounded() -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        return None

    hosts = KnownHosts(behind, SETTINGS)
    for port in range(1000):
        scope: Any = {"type": "http", "path": "/", "headers": [(b"host", b"localhost:%d" % port)]}
        await hosts(scope, behind, behind)  # type: ignore[arg-type]
        await hosts(scope, behind, behind)  # type: ignore[arg-type]
    assert len(hosts._passed) == 256


@given(st.binary(max_size=40))
def test_hostile_bytes_are_a_name_or_nothing(raw: bytes) -> None:
    name = host_name(raw)
    assert name is None or name == name.lower()
