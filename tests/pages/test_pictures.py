"""Every page in every state is looked at: its picture, its access, its bounds.

`make screenshots` keeps the pictures in docs/screenshots/.
"""

import os
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.pages.conftest import context_of
from tests.pages.site import Site
from tests.pages.states import MEMBERS, VISITORS, populate

VARIANTS = {
    "wide": ("en", "light", 1280),
    "narrow": ("en", "light", 390),
    "dark": ("en", "dark", 1280),
    "arabic": ("ar", "light", 1280),
}
AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """rules => axe.run(document, { runOnly: { type: "tag", values: rules } })
  .then(found => found.violations.flatMap(each => each.nodes.map(
    node => `${each.id}: ${node.target} ${node.failureSummary}`)))"""
# WCAG 2.5.8: 24 by 24 CSS pixels, but for links within a sentence.
SMALL = """() => [...document.querySelectorAll("button, .button, input, select, summary,"
   + " nav a, .sort, .pages a")]
   .filter(each => each.checkVisibility() && each.type !== "hidden")
   .map(each => [each, (each.closest("label") ?? each).getBoundingClientRect()])
   .filter(([, box]) => box.width && (box.width < 24 || box.height < 24))
   .map(([each, box]) => `small: ${each.outerHTML.slice(0, 80)} ${box.height}`)"""


async def problems_of(page: Page) -> list[str]:
    """What axe finds, targets that are too small, and what is wider than the window.

    At 320 pixels, which is 400 % of 1280 (WCAG 1.4.10): tables and code may scroll by themselves.
    """
    await page.evaluate(AXE)
    found: list[str] = await page.evaluate(RUN, RULES)
    found += await page.evaluate(SMALL)
    size = page.viewport_size or {"width": 1280, "height": 800}
    await page.set_viewport_size({"width": 320, "height": size["height"]})
    width: int = await page.evaluate("document.documentElement.scrollWidth")
    if width > 320:
        found.append(f"{width} pixels wide at 320")
    await page.set_viewport_size(size)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
async def test_every_page_has_its_picture_and_nothing_is_found_on_it(
    chromium: Browser, site: Site, tmp_path: Path, variant: str
) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path)) / variant
    folder.mkdir(parents=True, exist_ok=True)
    locale, scheme, width = VARIANTS[variant]
    found: dict[str, list[str]] = {}
    async with context_of(chromium, site) as context:
        page = await context.new_page()
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type] # one of two
        await page.set_viewport_size({"width": width, "height": 800})
        await site.log_in(context)
        await page.goto(f"/{locale}/account/api-keys")
        await page.screenshot(path=folder / "keys-empty.png", full_page=True)
        town = await populate(site)
        for states in (VISITORS, MEMBERS):
            await context.clear_cookies()
            if states is MEMBERS:
                await site.log_in(context)
            for name, state in states.items():
                await state(page, town, locale)
                dialog = name.endswith("-dialog")
                await page.screenshot(path=folder / f"{name}.png", full_page=not dialog)
                if problems := await problems_of(page):
                    found[name] = problems
    assert not found, found
    drawn = {file.stem for file in folder.glob("*.png") if file.stat().st_size > 5_000}
    assert drawn == {"keys-empty", *VISITORS, *MEMBERS}
