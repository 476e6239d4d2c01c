"""The card of API keys of Better Auth's component library, in a browser."""

import re
from pathlib import Path

from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.pages.site import Watched, served


async def test_a_key_is_made_seen_once_listed_and_deleted(
    chromium: Browser, ready_url: str, card: Path
) -> None:
    files = Starlette(routes=[Mount("/card", StaticFiles(directory=card, html=True))])
    async with served(ready_url, app=lambda _auth: files) as site:
        context = await chromium.new_context()
        await site.log_in(context)
        page = await context.new_page()
        watched = Watched(page, site)
        await page.goto(f"{site.base}/card/")

        await page.get_by_role("button", name="Create API Key").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("Deploy from CI")
        await dialog.get_by_role("button", name="Create API Key").click()

        shown = page.get_by_text(re.compile(r"^kb_\w{49}$"))
        await expect(shown).to_be_visible()
        key = await shown.inner_text()
        assert await site.use(key)
        await page.get_by_role("button", name="Done").click()
        await expect(shown).to_have_count(0)
        await expect(page.get_by_text("Deploy from CI")).to_be_visible()
        await expect(page.get_by_text(f"{key[:7]}******")).to_be_visible()

        await page.reload()
        await expect(page.get_by_text("Deploy from CI")).to_be_visible()
        assert key not in await page.content()

        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(page.get_by_text("Deploy from CI")).to_have_count(0)
        assert not await site.use(key)
        assert watched.messages == []
        assert watched.strangers == []
        await context.close()
