"""A served site for the tests of the pages, and what a browser must not do on it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
import uvicorn
from playwright.async_api import BrowserContext, Page, Response
from starlette.types import ASGIApp

from examples.endpoints import create_app
from keybearer import Auth, Pages
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.inputs import CreateKey
from keybearer.operations.keywire import CreatedApiKey
from keybearer.web.mount import no_app
from tests.people import PASSWORD, SECRET, StandingClock

ANN = "ann@example.com"


class Site:
    """Where it is served, and by what.

    Attributes:
        base: `http://127.0.0.1:PORT`.
        ann: the id of a verified user.
        cookie: of her session, as `name=value`.
    """

    def __init__(self, auth: Auth, clock: StandingClock, base: str) -> None:
        self.auth = auth
        self.clock = clock
        self.base = base
        self.ann = ""

    async def person(self, email: str, name: str = "Ann") -> str:
        user = await self.auth.api.users.create(email, name=name, password=PASSWORD, verified=True)
        return user.id

    async def cookies(self, email: str = ANN) -> dict[str, str]:
        """The cookie of a new login."""
        async with self.client() as client:
            answer = await client.post(
                "/api/auth/sign-in/email", json={"email": email, "password": PASSWORD}
            )
            assert answer.status_code == 200, answer.text
            return dict(answer.cookies)

    async def log_in(self, context: BrowserContext, email: str = ANN) -> None:
        """Gives a browser the cookie of a new login."""
        await context.add_cookies(
            [
                {"name": name, "value": value, "url": self.base}
                for name, value in (await self.cookies(email)).items()
            ]
        )

    def client(self, cookies: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
        """A client of the served site."""
        return httpx2.AsyncClient(base_url=self.base, cookies=dict(cookies or {}), timeout=10)

    async def key(self, name: str = "Nightly backup", **fields: Any) -> CreatedApiKey:
        """A key of Ann's."""
        return await self.auth.api.create_api_key(CreateKey(name=name, **fields), owner=self.ann)

    async def call(self, key: str, *, path: str = "/api/protected-endpoint") -> int:
        """Presents a key at an endpoint, and gives the status."""
        async with self.client() as client:
            answer = await client.get(path, headers={"x-api-key": key})
            return answer.status_code

    async def use(self, key: str, *, ip: str = "203.0.113.7", agent: str = "curl/8.7") -> bool:
        """Uses a key as an app behind us would see it."""
        headers = [(b"x-api-key", key.encode()), (b"user-agent", agent.encode())]
        return await self.auth.api.get_session(headers, ip=ip) is not None


@asynccontextmanager
async def served(
    url: str,
    *,
    app: Callable[[Auth], ASGIApp] = create_app,
    pages: Pages | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    """A served site with Ann as its user, beside the example endpoints or another app."""
    clock = StandingClock()
    given = {
        "secret": SECRET,
        "token_management": True,
        "permissions": "deploy:run,files:read,files:write,users:read,users:write",
        "user_permissions": "deploy:run,files:read,files:write,users:read",
        **settings,
    }
    server = uvicorn.Server(
        uvicorn.Config(no_app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    )
    # The port is taken before the settings are made: BASE_URL names it.
    config = server.config
    socket = config.bind_socket()
    base = f"http://127.0.0.1:{socket.getsockname()[1]}"
    auth = Auth(url, base_url=base, clock=clock, **given)
    usual = Pages(root=True, example="/api/protected-endpoint")
    config.app = auth.mount(app(auth), pages=pages or usual)
    await auth.start()
    parts = await auth.running()
    parts.hasher.close()
    object.__setattr__(parts, "hasher", Hasher(threads=2, cost=Cost(memory_kib=64, passes=1)))
    # The same ids and keys in each run, so that a picture changes only when a page does.
    object.__setattr__(parts, "entropy", random.Random(7).randbytes)  # noqa: S311 -- on purpose
    config.load()
    serving = asyncio.create_task(server.serve(sockets=[socket]))
    site = Site(auth, clock, base)
    site.ann = await site.person(ANN)
    try:
        yield site
    finally:
        server.should_exit = True
        await serving
        socket.close()
        await auth.stop()


class Watched:
    """A page that must ask no other host for anything, and say nothing on its console."""

    def __init__(self, page: Page, site: Site) -> None:
        self._page = page
        self._base = site.base
        self.messages: list[str] = []
        self.strangers: list[str] = []
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self._ask(request.url))
        page.on("response", self._hear)

    def _hear(self, response: Response) -> None:
        navigates = response.request.is_navigation_request()
        if response.status >= 400 and not navigates:
            self.messages.append(f"{response.status} {response.url}")

    def _ask(self, url: str) -> None:
        if not url.startswith((self._base + "/", "blob:", "data:")):
            self.strangers.append(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            assert not self.strangers, self.strangers
            # Chromium tells of each refusal; those of whole pages are meant, others are heard.
            told = [each for each in self.messages if "Failed to load resource" not in each]
            assert not told, told
