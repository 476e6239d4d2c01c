"""The pages in a real browser: a server in the test's own loop, and Chromium.

| fixture    | lives for | gives                                                     |
|------------|-----------|-----------------------------------------------------------|
| `chromium` | session   | the system's Chromium, headless                           |
| `site`     | test      | a served `Auth` with everything on, its clock, and people |
| `visitor`  | test      | a page of somebody who is not logged in                   |
| `ann`      | test      | a page of Ann, logged in, whose console must stay silent  |
| `either`   | test      | the same, once with a script and once without             |
| `owner`    | test      | the id of somebody logged in, in process                  |
| `surfer`   | test      | the browser of that person, without a script              |
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from keybearer import Auth
from tests.pages.site import Site, Watched, served
from tests.pages.surfer import Surfer, logged_in


@pytest.fixture
def ready_url(sqlite_template: Path, tmp_path: Path) -> str:
    """One database: the pages speak with operations, and those are tested on each."""
    file = tmp_path / "keybearer.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
async def owner(auth: Auth, client: httpx2.AsyncClient) -> str:
    """The id of somebody who is logged in with the client in process."""
    return await logged_in(auth, client)


@pytest.fixture
async def surfer(client: httpx2.AsyncClient, owner: str) -> Surfer:
    """The same, with a browser that has neither script nor window."""
    return Surfer(client)


@pytest.fixture(scope="session")
async def chromium(anyio_backend: str) -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program is not None, "Chromium is not installed: `make system`"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--font-render-hinting=none"]
        )
        yield browser
        await browser.close()


@pytest.fixture
async def site(ready_url: str) -> AsyncIterator[Site]:
    async with served(ready_url) as site:
        yield site


@asynccontextmanager
async def context_of(
    chromium: Browser, site: Site, *, javascript: bool = True
) -> AsyncIterator[BrowserContext]:
    """A browser of somebody's own, with nobody logged in yet."""
    context = await chromium.new_context(
        base_url=site.base, java_script_enabled=javascript, locale="en-US", timezone_id="UTC"
    )
    context.set_default_timeout(10_000)
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.base)
    yield context
    await context.close()


@pytest.fixture(params=["with script", "without script"])
def javascript(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "with script")


@pytest.fixture
async def visitor(chromium: Browser, site: Site) -> AsyncIterator[Page]:
    async with context_of(chromium, site) as context:
        page = await context.new_page()
        with Watched(page, site):
            yield page


@pytest.fixture
async def ann(chromium: Browser, site: Site) -> AsyncIterator[Page]:
    async with context_of(chromium, site) as context:
        await site.log_in(context)
        page = await context.new_page()
        with Watched(page, site):
            yield page


@pytest.fixture
async def either(chromium: Browser, site: Site, javascript: bool) -> AsyncIterator[Page]:
    """Ann's page, with JavaScript and without."""
    async with context_of(chromium, site, javascript=javascript) as context:
        await site.log_in(context)
        page = await context.new_page()
        with Watched(page, site):
            yield page
