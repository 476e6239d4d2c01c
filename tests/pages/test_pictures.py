"""A picture of every page and state: `make screenshots` keeps them in docs/screenshots/."""

import os
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.pages.conftest import context_of
from tests.pages.site import Site
from tests.pages.states import MEMBERS, VISITORS, populate

VARIANTS = {
    "wide": ("en", "light", 1280),
    "narrow": ("en", "light", 390),
    "dark": ("en", "dark", 1280),
    "arabic": ("ar", "light", 1280),
}
EMPTY = {"keys-empty": "account/api-keys"}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_every_page_has_its_picture(
    chromium: Browser, site: Site, tmp_path: Path, variant: str
) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path)) / variant
    folder.mkdir(parents=True, exist_ok=True)
    locale, scheme, width = VARIANTS[variant]
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
    drawn = {file.stem for file in folder.glob("*.png") if file.stat().st_size > 5_000}
    assert drawn == {"keys-empty", *VISITORS, *MEMBERS}
