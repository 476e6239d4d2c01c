"""We start before the app and stop after it, whether or not it has a lifespan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keybearer import Auth, Misuse, Unavailable
from keybearer.web.mount import no_app
from tests.people import SECRET

STARTUP, SHUTDOWN = "lifespan.startup", "lifespan.shutdown"
WHOLE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class Server:
    """What an ASGI server does with the lifespan of an app; notes whether `auth` is started."""

    def __init__(self, auth: Auth, app: ASGIApp) -> None:
        self._auth = auth
        self._app = auth.mount(app)
        self.said: list[Message] = []
        self.started: list[bool] = []

    async def run(self) -> list[str]:
        """From start to stop; gives the types of what was said."""
        asks: asyncio.Queue[Message] = asyncio.Queue()
        asks.put_nowait({"type": STARTUP})

        async def receive() -> Message:
            if not asks.empty():
                return asks.get_nowait()
            raise AssertionError("asked for more than there is")

        async def send(message: Message) -> None:
            self.said.append(message)
            self.started.append(self._auth.parts is not None)
            if message["type"] == "lifespan.startup.complete":
                asks.put_nowait({"type": SHUTDOWN})

        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self._app(scope, receive, send)
        return self.types

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.said]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Auth]:
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, accounts=False)
    yield auth
    await auth.stop()


async def test_it_passes_to_an_app_that_has_one(here: Auth) -> None:
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        seen.append(("starts", here.parts is not None))
        await here.api.get_session({})  # it may call us already, and still
        yield {"of": "the app"}
        await here.api.get_session({})
        seen.append(("stops", here.parts is not None))

    server = Server(here, Starlette(lifespan=lifespan))
    assert await server.run() == WHOLE
    assert seen == [("starts", True), ("stops", True)]
    assert server.started == [True, False]


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """As Django: it knows no lifespan."""
    raise ValueError(scope["type"])


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """As small apps do."""


async def hears_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def leaves_the_end_to_others(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def says_no_goodbye(scope: Scope, receive: Receive, send: Send) -> None:
    await leaves_the_end_to_others(scope, receive, send)
    await receive()


@pytest.mark.parametrize(
    "app",
    [raises_at_once, returns_at_once, hears_and_returns, leaves_the_end_to_others,
     says_no_goodbye, no_app],
)  # fmt: skip
async def test_an_app_without_one_is_as_good(here: Auth, app: ASGIApp) -> None:
    server = Server(here, app)
    assert await server.run() == WHOLE
    assert server.started == [True, False]
    assert await server.run() == WHOLE * 2


@pytest.mark.parametrize("error", [ValueError("no"), Misuse("no"), Unavailable("no")])
async def test_a_startup_of_the_app_that_fails_is_told_once_and_stops_us(
    here: Auth, error: Exception
) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if here.parts is not None:
            raise error
        yield

    server = Server(here, Starlette(lifespan=lifespan))
    with pytest.raises(type(error)):
        await server.run()
    assert server.types == ["lifespan.startup.failed"]
    assert here.parts is None


@pytest.mark.parametrize("error", [ValueError("no"), Unavailable("no")])
async def test_a_shutdown_of_the_app_that_fails_stops_us_too(here: Auth, error: Exception) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        raise error

    server = Server(here, Starlette(lifespan=lifespan))
    with pytest.raises(type(error)):
        await server.run()
    assert server.types == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert server.started == [True, False]


async def test_an_app_that_breaks_in_the_midst_stops_us(here: Auth) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError

    server = Server(here, app)
    with pytest.raises(ValueError):  # noqa: PT011 -- the app's own
        await server.run()
    assert (server.said, here.parts) == ([], None)


async def test_a_cancelled_lifespan_stops_us(here: Auth) -> None:
    up = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        up.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Server(here, app).run())
    await up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert here.parts is None


async def test_a_misuse_at_the_start_is_told_and_the_app_does_not_start(tmp_path: Path) -> None:
    first, second = (Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET) for _ in range(2))
    called: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["type"])

    async with first.lifespan():
        server = Server(second, app)
        assert await server.run() == ["lifespan.startup.failed"]
        assert "another process already serves" in server.said[0]["message"]
        assert called == []
        assert second.parts is None


async def test_a_lost_database_at_the_start_is_told_and_raised() -> None:
    server = Server(Auth("postgresql://127.0.0.1:9/nobody", secret=SECRET), no_app)
    with pytest.raises(Unavailable):
        await server.run()
    assert server.types == ["lifespan.startup.failed"]
