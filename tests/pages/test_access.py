"""Everybody can use the pages: by keyboard, and with the colours of the system.

What axe can tell of them stands in test_pictures.py, for every state.
"""

from playwright.async_api import Browser, Page

from tests.pages.conftest import context_of
from tests.pages.site import Site
from tests.pages.states import MEMBERS, populate


async def test_everything_is_reached_by_keyboard(ann: Page, site: Site) -> None:
    await site.key()
    await ann.goto("/en/account/api-keys")
    await ann.keyboard.press("Tab")
    assert await ann.evaluate("document.activeElement.className") == "skip"
    await ann.keyboard.press("Enter")
    assert await ann.evaluate("document.activeElement.id") == "main"
    wanted: int = await ann.evaluate(
        """() => [...document.querySelectorAll("main a, main button, main input, main select,"
           + " main summary, main time[tabindex]")]
           .filter(each => each.checkVisibility() && !each.disabled && each.type !== "hidden")
           .length"""
    )
    seen: set[str] = set()
    for _ in range(wanted + 20):
        await ann.keyboard.press("Tab")
        seen.add(
            await ann.evaluate(
                """() => { const at = document.activeElement; if (!at.closest("main")) return "";
                   at.dataset.n ??= String(Math.random()); return at.dataset.n; }"""
            )
        )
    assert len(seen - {""}) >= wanted


async def test_colours_that_the_system_forces_leave_every_word(
    chromium: Browser, site: Site
) -> None:
    town = await populate(site)
    async with context_of(chromium, site) as context:
        await site.log_in(context)
        page = await context.new_page()
        await page.emulate_media(forced_colors="active", reduced_motion="reduce")
        await MEMBERS["key-active"](page, town, "en")
        moving: list[str] = await page.evaluate(
            """() => [...document.querySelectorAll("*")]
               .filter(each => getComputedStyle(each).transitionDuration !== "0s")
               .map(each => each.outerHTML.slice(0, 60))"""
        )
        assert moving == []
        status = page.locator("h1 .status")
        assert await status.inner_text() == "Active"
        assert await status.evaluate("each => getComputedStyle(each).borderStyle") == "solid"
