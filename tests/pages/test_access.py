"""Everybody can use every page: WCAG 2.2 AA as far as axe can tell, and what it cannot."""

from importlib.resources import files

import pytest
from playwright.async_api import Browser, Page

from tests.pages.conftest import context_of
from tests.pages.site import Site
from tests.pages.states import MEMBERS, VISITORS, populate

AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """rules => axe.run(document, { runOnly: { type: "tag", values: rules } })
  .then(found => found.violations.flatMap(each => each.nodes.map(
    node => `${each.id}: ${node.target} ${node.failureSummary}`)))"""


async def violations(page: Page) -> list[str]:
    await page.evaluate(AXE)
    found: list[str] = await page.evaluate(RUN, RULES)
    return found


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en"), ("dark", "ar")])
async def test_axe_finds_nothing(chromium: Browser, site: Site, scheme: str, locale: str) -> None:
    town = await populate(site)
    found: dict[str, list[str]] = {}
    async with context_of(chromium, site) as context:
        page = await context.new_page()
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of two
        for states in (VISITORS, MEMBERS):
            for name, state in states.items():
                if states is MEMBERS:
                    await context.clear_cookies()
                    await site.log_in(context)
                await state(page, town, locale)
                if problems := await violations(page):
                    found[name] = problems
    assert not found, found


@pytest.mark.parametrize("locale", ["en", "ar"])
async def test_nothing_is_cut_off_at_four_hundred_percent(
    chromium: Browser, site: Site, locale: str
) -> None:
    """WCAG 1.4.10: 320 CSS pixels, and no scrolling sideways but within tables and code."""
    town = await populate(site)
    wide: dict[str, int] = {}
    async with context_of(chromium, site) as context:
        await site.log_in(context)
        page = await context.new_page()
        await page.set_viewport_size({"width": 320, "height": 640})
        for name, state in {**MEMBERS, **VISITORS}.items():
            await state(page, town, locale)
            width: int = await page.evaluate("document.documentElement.scrollWidth")
            if width > 320:
                wide[name] = width
    assert not wide, wide


async def test_targets_are_large_enough(chromium: Browser, site: Site) -> None:
    """WCAG 2.5.8: 24 by 24 CSS pixels, but for links within a sentence."""
    town = await populate(site)
    async with context_of(chromium, site) as context:
        await site.log_in(context)
        page = await context.new_page()
        small: dict[str, list[str]] = {}
        for name, state in MEMBERS.items():
            await state(page, town, "en")
            found: list[str] = await page.evaluate(
                """() => [...document.querySelectorAll("button, .button, input, select, summary,"
                   + " nav a, .sort, .pages a")]
                   .filter(each => each.checkVisibility() && each.type !== "hidden")
                   .map(each => [each, (each.closest("label") ?? each).getBoundingClientRect()])
                   .filter(([, box]) => box.width && (box.width < 24 || box.height < 24))
                   .map(([each, box]) => `${each.outerHTML.slice(0, 80)} ${box.height}`)"""
            )
            if found:
                small[name] = found
    assert not small, small


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
