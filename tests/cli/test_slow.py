import asyncio
from typing import Any

from keybearer.cli.slow import SlowBodies


async def receives(headers: list[tuple[bytes, bytes]], *chunks: dict[str, Any]) -> list[str]:
    """What the app behind is told, when after `chunks` nothing comes any more."""
    waiting = list(chunks)
    seen: list[str] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await asyncio.wait_for(receive(), timeout=0.2)
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(str(message["status"]))

    try:
        scope = {"type": "http", "headers": headers}
        await SlowBodies(app, seconds=0.05)(scope, receive, send)
    except TimeoutError:
        seen.append("waits")
    return seen


LONG = [(b"content-length", b"10")]


async def test_a_body_that_does_not_come_ends_as_a_client_that_is_gone() -> None:
    part = {"type": "http.request", "body": b"abc", "more_body": True}
    assert await receives(LONG, part) == ["http.request", "http.disconnect", "408"]
    assert await receives([(b"transfer-encoding", b"chunked")]) == ["http.disconnect", "408"]


async def test_after_a_whole_body_nobody_is_hurried() -> None:
    whole = {"type": "http.request", "body": b"abc", "more_body": False}
    assert await receives(LONG, whole) == ["http.request", "waits"]


async def test_without_a_body_nothing_is_watched() -> None:
    assert await receives([]) == ["waits"]


async def test_a_body_that_breaks_off_is_the_clients_mistake() -> None:
    part = {"type": "http.request", "body": b"abc", "more_body": True}
    gone = {"type": "http.disconnect"}
    assert await receives(LONG, part, gone) == ["http.request", "http.disconnect", "400"]
