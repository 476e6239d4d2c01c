"""The first page is light, and asks nobody else for anything."""

import pytest
from playwright.async_api import Page, Response

from tests.pages.site import Site
from tests.pages.states import history

LIMIT = 60_000


@pytest.mark.parametrize("path", ["/en/login", "/en/account/api-keys"])
async def test_the_first_page_is_under_sixty_kilobytes(ann: Page, site: Site, path: str) -> None:
    for n in range(25):
        key = await site.key(f"Key {n}", description="What it is for, in some words")
        await site.use(key.key or "")
        await history(site, key.id, 30)
    site.clock.advance(29 * 86_400_000)
    await ann.context.clear_cookies()
    await site.log_in(ann.context)
    sizes: dict[str, int] = {}

    async def weigh(response: Response) -> None:
        found = await response.request.sizes()
        sizes[response.url] = found["responseBodySize"] + found["responseHeadersSize"]

    ann.on("response", weigh)
    if path == "/en/login":
        await ann.context.clear_cookies()
    await ann.goto(path, wait_until="networkidle")
    ann.remove_listener("response", weigh)
    assert len(sizes) == 4, sizes  # the page, its style, its script, its icon
    assert sum(sizes.values()) < LIMIT, sizes
