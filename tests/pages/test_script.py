"""What the pages do beyond HTML: copy, reveal, wait, guard, dialogs, shortcuts."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Dialog, Page, expect

from tests.pages.site import Site

NO_CLIPBOARD = """
Object.defineProperty(navigator, "clipboard", {
  value: { writeText: () => Promise.reject(new Error("denied")) },
});
"""


async def reveal(page: Page, name: str = "CI job") -> str:
    """Makes a key on the page, and gives it as it stands there."""
    await page.goto("/en/account/api-keys/new")
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Generate key").click()
    return await page.locator("#key").input_value()


async def copied(page: Page) -> str:
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


def saying(page: Page, words: str) -> object:
    return page.get_by_role("status").filter(has_text=words)


async def is_masked(page: Page) -> bool:
    style: str = await page.locator("#key").evaluate(
        "field => getComputedStyle(field).webkitTextSecurity"
    )
    return style == "disc"


# --- the key, this once ---


async def test_copying_works_without_revealing(ann: Page) -> None:
    key = await reveal(ann)
    assert await is_masked(ann)
    await ann.get_by_role("button", name="Copy", exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    assert await copied(ann) == key
    assert await is_masked(ann)
    await ann.get_by_role("button", name="Reveal").click()
    assert not await is_masked(ann)
    await ann.get_by_role("button", name="Hide").click()
    assert await is_masked(ann)


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        (".env", "API_KEY=kb_"),
        ("curl", 'curl -H "Authorization: Bearer kb_'),
    ],
)
async def test_the_key_is_copied_in_the_form_that_is_needed(
    ann: Page, form: str, begins: str
) -> None:
    key = await reveal(ann)
    await ann.get_by_role("button", name=form, exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    text = await copied(ann)
    assert text.startswith(begins)
    assert key in text


@pytest.mark.parametrize(
    ("form", "begins"), [("Python", "import os"), ("GitHub Actions", "gh secret set API_KEY")]
)
async def test_code_is_copied_without_the_key_and_says_so(
    ann: Page, form: str, begins: str
) -> None:
    key = await reveal(ann)
    await ann.get_by_role("button", name=form, exact=True).click()
    said = ann.get_by_role("status").filter(has_text="The key itself is not in it")
    await expect(said).to_be_visible()
    text = await copied(ann)
    assert text.startswith(begins)
    assert key not in text
    assert await leave(ann) == ["beforeunload"]  # the key is still not kept


async def test_the_curl_that_is_copied_works_as_it_is(ann: Page, site: Site) -> None:
    await reveal(ann)
    await ann.get_by_role("button", name="curl", exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    header, url = re.findall(r'"Authorization: (.+)" (\S+)', await copied(ann))[0]
    async with site.client() as client:
        assert (await client.get(url, headers={"authorization": header})).status_code == 200


async def test_the_key_is_saved_as_a_file(ann: Page, tmp_path: Path) -> None:
    key = await reveal(ann)
    async with ann.expect_download() as saved:
        await ann.get_by_role("button", name="Download .env").click()
    file = await saved.value
    await file.save_as(tmp_path / "key")
    assert file.suggested_filename == "api-key.env"
    assert (tmp_path / "key").read_text() == f"API_KEY={key}\n"
    await expect(ann.get_by_role("status").filter(has_text="File saved.")).to_be_visible()


async def test_a_clipboard_that_fails_is_no_success(ann: Page) -> None:
    await ann.add_init_script(NO_CLIPBOARD)
    key = await reveal(ann)
    await ann.get_by_role("button", name="Copy", exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="press Ctrl+C")).to_be_visible()
    assert "Key copied." not in await ann.inner_text("main")
    assert await ann.evaluate("getSelection().toString()") == key
    asked = await leave(ann)
    assert asked == ["beforeunload"]


async def leave(page: Page) -> list[str]:
    """Tries to leave, stays when asked, and gives what was asked."""
    asked: list[str] = []

    async def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)
    await page.get_by_role("link", name="Done").click(no_wait_after=True)
    await page.wait_for_timeout(300)
    page.remove_listener("dialog", stay)
    return asked


async def test_leaving_asks_while_nothing_was_copied(ann: Page) -> None:
    key = await reveal(ann)
    assert await leave(ann) == ["beforeunload"]
    assert await ann.locator("#key").input_value() == key  # nothing is lost by staying
    await ann.get_by_role("button", name="Copy", exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    assert await leave(ann) == []
    await expect(ann.get_by_role("heading", level=1)).to_contain_text("CI job")


async def test_nothing_brings_the_key_back(ann: Page) -> None:
    key = await reveal(ann)
    await ann.get_by_role("button", name="Copy", exact=True).click()
    await expect(ann.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    assert re.search(r"/account/api-keys/[0-9a-f-]{36}$", ann.url)
    await ann.reload()
    assert key not in await ann.content()
    assert not await ann.locator("#key").count()
    await ann.go_back()
    assert key not in await ann.content()
    await ann.go_forward()
    assert key not in await ann.content()
    stored = await ann.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert key not in stored


async def test_the_key_stands_in_no_attribute_but_its_fields_value(ann: Page) -> None:
    key = await reveal(ann)
    attributes = await ann.evaluate(
        """key => [...document.querySelectorAll("*")].flatMap(each => [...each.attributes]
             .filter(one => one.value.includes(key)).map(one => `${each.id}.${one.name}`))""",
        key,
    )
    assert attributes == ["key.value"]
    assert key not in await ann.inner_text("body")


async def test_the_first_request_is_told_when_it_comes(ann: Page, site: Site) -> None:
    key = await reveal(ann)
    waits = ann.locator("[data-first-call]")
    await expect(waits).to_contain_text("Waiting for the first request…")
    assert await site.call(key) == 200
    await expect(waits).to_contain_text("It works: first request at")
    await expect(waits).to_contain_text("from \u2068127.0.0.1\u2069")


# --- dialogs ---


@pytest.mark.parametrize("name", ["Rotate…", "Revoke…"])
async def test_a_dialog_closes_by_keyboard_and_gives_the_focus_back(
    ann: Page, site: Site, name: str
) -> None:
    made = await site.key()
    await ann.goto(f"/en/account/api-keys/{made.id}")
    opener = ann.get_by_role("link", name=name)
    await opener.focus()
    await ann.keyboard.press("Enter")
    dialog = ann.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    if name == "Rotate…":
        await expect(dialog.get_by_label("24 hours")).to_be_focused()
    if name == "Revoke…":
        await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    for _ in range(20):  # the focus stays within, or on the browser's own
        await ann.keyboard.press("Tab")
        within: bool = await ann.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert within
    await ann.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(opener).to_be_focused()
    await ann.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Cancel").press("Space")
    await expect(dialog).to_be_hidden()
    await expect(opener).to_be_focused()


# --- the list ---


async def test_selecting_says_how_many(ann: Page, site: Site) -> None:
    for n in range(3):
        await site.key(f"Key {n}")
    await ann.goto("/en/account/api-keys")
    disable = ann.get_by_role("button", name="Disable")
    await expect(disable).to_be_disabled()
    await ann.get_by_label("Select all on this page").check()
    await expect(ann.get_by_text("3 selected")).to_be_visible()
    await ann.get_by_label("Select \u2068Key 1\u2069").uncheck()
    await expect(ann.get_by_text("2 selected")).to_be_visible()
    await expect(disable).to_be_enabled()


async def test_shortcuts_work_and_can_be_switched_off(ann: Page, site: Site) -> None:
    await site.key()
    await ann.goto("/en/account/api-keys")
    await ann.keyboard.press("/")
    await expect(ann.get_by_role("searchbox")).to_be_focused()
    await ann.keyboard.type("n/")  # typed, not obeyed
    await expect(ann.get_by_role("searchbox")).to_have_value("n/")
    await ann.goto("/en/account/api-keys")
    await ann.get_by_text("Keyboard shortcuts").click()
    await ann.get_by_label("Use shortcuts on this device").uncheck()
    await ann.goto("/en/account/api-keys")
    await ann.keyboard.press("n")
    await ann.wait_for_timeout(200)
    assert ann.url.endswith("/account/api-keys")
    await ann.get_by_text("Keyboard shortcuts").click()
    await ann.get_by_label("Use shortcuts on this device").check()
    await ann.locator("h1").click()
    await ann.keyboard.press("n")
    await expect(ann.get_by_role("heading", level=1)).to_have_text("Generate New API Key")


async def test_a_switch_of_the_language_keeps_the_page(ann: Page, site: Site) -> None:
    await site.key()
    await ann.goto("/en/account/api-keys?status=active&sort=name&dir=asc")
    await ann.get_by_role("link", name="Deutsch").click()
    await ann.wait_for_url("**/de/account/api-keys?status=active&sort=name&dir=asc")


# --- forms ---


async def test_the_first_field_in_error_has_the_focus(ann: Page) -> None:
    await ann.goto("/en/account/api-keys/new")
    await ann.get_by_label("Name", exact=True).fill("   ")
    await ann.get_by_label("A date").check()
    await ann.get_by_role("button", name="Generate key").click()
    name = ann.get_by_label("Name", exact=True)
    await expect(name).to_be_focused()
    await expect(name).to_have_attribute("aria-invalid", "true")
    described = await name.get_attribute("aria-describedby") or ""
    told = " ".join([await ann.inner_text(f"#{id}") for id in described.split()])
    assert "Enter a name of 1 to 64 characters." in told
    date = ann.get_by_label("Date", exact=True)  # told at once, not after the next try
    await expect(date).to_have_attribute("aria-invalid", "true")
    await expect(ann.get_by_text("Choose a time that is still to come.")).to_be_visible()


async def test_permissions_are_searched_and_a_tick_means_custom(ann: Page) -> None:
    await ann.goto("/en/account/api-keys/new")
    await ann.get_by_label("Read only").check()
    await ann.get_by_placeholder("Search permissions").fill("write")
    await expect(ann.get_by_role("group", name="files")).to_be_visible()
    await expect(ann.get_by_role("group", name="deploy")).to_be_hidden()
    await ann.get_by_role("group", name="files").get_by_label("write").check()
    await expect(ann.get_by_label("As ticked below")).to_be_checked()


async def test_a_form_that_is_sent_twice_makes_one_key(ann: Page, site: Site) -> None:
    await ann.goto("/en/account/api-keys/new")
    await ann.get_by_label("Name", exact=True).fill("Only one")
    await ann.evaluate(
        """() => {
          const form = document.querySelector("form[data-creates]");
          form.querySelector("button.primary").click();
          form.querySelector("button.primary").click();
        }"""
    )
    await ann.wait_for_selector("#key")
    await asyncio.sleep(0.2)
    found = await site.auth.api.list_api_keys(owner=site.ann)
    assert found.total == 1


async def test_times_are_in_the_zone_of_whoever_looks(ann: Page, site: Site) -> None:
    made = await site.key()
    context = await ann.context.browser.new_context(  # type: ignore[union-attr] # it has one
        base_url=site.base, timezone_id="Asia/Tokyo", locale="en-US"
    )
    await site.log_in(context)
    page = await context.new_page()
    await page.goto(f"/en/account/api-keys/{made.id}")
    created = page.locator("dt:text-is('Created') + dd time")
    await expect(created).to_have_text("Nov 18, 2026, 8:06\u202fPM")
    assert "11:06" in (await created.get_attribute("title") or "")
    await context.close()
