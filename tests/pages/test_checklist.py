"""What a person does with a key, from the first click to its end, with a script and without."""

import contextlib
import re
from datetime import UTC, datetime

from playwright.async_api import Error, Page, expect

from tests.pages.site import Site


async def generate(page: Page, name: str, expiration: str = "30 days") -> str:
    """Fills in the form of a new key, and gives what is revealed."""
    await page.goto("/en/account/api-keys")
    await page.get_by_role("link", name="Generate New API Key").click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label(expiration).check()
    await page.get_by_role("button", name="Generate key").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    return await page.locator("#key").input_value()


async def test_the_life_of_a_key(either: Page, site: Site, javascript: bool) -> None:
    page = either

    # 1. Create one with a name of one's own; its date is told before.
    key = await generate(page, "My laptop")
    assert re.fullmatch(r"kb_[0-9A-Za-z]{49}", key)

    # 2. Copy it.
    if javascript:
        await page.get_by_role("button", name="Copy", exact=True).click()
        await expect(page.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == key

    # 3. It is shown this once: neither reloading, nor coming back, nor the list has it.
    await page.reload()
    assert key not in await page.content()
    await page.goto("/en/account/api-keys")
    assert key not in await page.content()
    with contextlib.suppress(Error):  # without a script it is a form's answer: gone, says Chromium
        await page.go_back()
    await page.wait_for_load_state("networkidle")
    assert key not in await page.content()

    # 4. and 5. Call with it, either way.
    async with site.client() as client:
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            answer = await client.get("/api/protected-endpoint", headers=headers)
            assert answer.status_code == 200

        # 6. Without one, and with a wrong one, it is 401.
        assert (await client.get("/api/protected-endpoint")).status_code == 401
        wrong = {"x-api-key": key[:-1] + ("0" if key[-1] != "0" else "1")}
        refused = await client.get("/api/protected-endpoint", headers=wrong)
        assert (refused.status_code, refused.json()["message"]) == (401, "Invalid API key")

        # 7. Other endpoints take it too.
        profile = await client.get("/api/user/profile", headers={"x-api-key": key})
        assert profile.json()["email"] == "ann@example.com"
        deployed = await client.post("/api/deploy", headers={"x-api-key": key}, json={})
        assert deployed.status_code == 403  # it has not that permission

    # 8. Its use is seen.
    site.clock.advance(240_000)
    await page.goto("/en/account/api-keys")
    row = page.get_by_role("row").filter(has_text="My laptop")
    await expect(row).to_contain_text("4 minutes ago")
    await expect(row).to_contain_text("127.0.0.1")
    await expect(row).to_contain_text("4 requests")
    await row.get_by_role("link", name="My laptop").click()
    await expect(page.get_by_role("cell", name="Refused: permission missing")).to_be_visible()

    # 9. It is in the list, by its beginning alone.
    await page.goto("/en/account/api-keys")
    await expect(row).to_contain_text(key[:7])
    assert key[:8] not in await page.content()

    # 10. Revoke it; the receipt says what was done.
    await row.get_by_role("link", name="My laptop").click()
    await page.get_by_role("link", name="Revoke…").click()
    revoke = page.get_by_role("dialog") if javascript else page.get_by_role("main")
    await expect(revoke).to_contain_text("4 requests in the last 24 hours")
    await revoke.get_by_label("Why?").select_option("leaked")
    await revoke.get_by_role("button", name="Revoke key").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("My laptop")
    await expect(page.get_by_role("main")).to_contain_text("Stopped on the one server there is")

    # 11. It opens nothing any more, and stays in the list as revoked.
    assert await site.call(key) == 401
    await page.goto("/en/account/api-keys")
    await expect(row).to_contain_text("Revoked")

    # 12. One that expires: its date is shown, and holds.
    site.clock.advance(-240_000)
    ending = await generate(page, "For a week", "7 days")
    assert await site.call(ending) == 200
    site.clock.advance(7 * 86_400_000 - 1000)
    assert await site.call(ending) == 200
    site.clock.advance(1000)
    assert await site.call(ending) == 401


async def test_a_date_and_never(either: Page, site: Site, javascript: bool) -> None:
    page = either
    await page.goto("/en/account/api-keys/new")
    today = datetime.fromtimestamp(site.clock.now() / 1000, UTC).date()
    await page.get_by_label("Name", exact=True).fill("Until the end of the year")
    await page.get_by_label("Date", exact=True).fill("2026-12-31")
    if not javascript:
        await page.get_by_label("A date").check()
    await page.get_by_role("button", name="Generate key").click()
    await expect(page.get_by_role("main")).to_contain_text("Dec 31, 2026, 11:59")
    assert today.year == 2026
    await page.goto("/en/account/api-keys/new")
    await page.get_by_label("Name", exact=True).fill("For ever")
    await page.get_by_label("Never").check()
    await page.get_by_role("button", name="Generate key").click()
    await expect(page.locator("dl.about dd")).to_have_text("Never")


async def test_a_rotation_from_its_beginning_to_its_end(
    either: Page, site: Site, javascript: bool
) -> None:
    page = either
    made = await site.key("Nightly backup", permissions={"files": ["read"]})
    old = made.key or ""
    await site.use(old)
    await page.goto(f"/en/account/api-keys/{made.id}")
    await page.get_by_role("link", name="Rotate…").click()
    rotate = page.get_by_role("dialog") if javascript else page.get_by_role("main")
    await rotate.get_by_label("Until I finish the rotation").check()
    await rotate.get_by_role("button", name="Rotate key").click()
    new = await page.locator("#key").input_value()
    assert new != old
    assert await site.use(old)
    assert await site.use(new)
    if javascript:
        await page.get_by_role("button", name="Copy", exact=True).click()
        await expect(page.get_by_role("status").filter(has_text="Key copied.")).to_be_visible()
    site.clock.advance(240_000)
    await page.goto(f"/en/account/api-keys/{made.id}")
    bar = page.get_by_role("region", name="Rotation under way")
    await expect(bar).to_contain_text(f"Old secret {old[:7]}… last used 4 minutes ago 203.0.113.7")
    await expect(bar).to_contain_text("(50%)")
    await bar.get_by_role("link", name="Finish…").click()
    facts = page.get_by_role("main")
    await expect(facts).to_contain_text(f"{old[:7]}… last used 4 minutes ago")
    await page.get_by_role("button", name="Finish now").click()
    await expect(page.get_by_role("main")).to_contain_text("only the new secret works")
    assert not await site.use(old)
    assert await site.use(new)


async def test_a_cancelled_rotation_goes_back(either: Page, site: Site) -> None:
    made = await site.key()
    await either.goto(f"/en/account/api-keys/{made.id}/rotate")
    await either.get_by_role("button", name="Rotate key").click()
    new = await either.locator("#key").input_value()
    await either.context.clear_permissions()
    page = await either.context.new_page()
    await page.goto(f"/en/account/api-keys/{made.id}")
    await page.get_by_role("link", name="Extend…").click()
    await page.get_by_label("7 days").check()
    await page.get_by_role("button", name="Extend", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("works longer now")
    await page.get_by_role("link", name="Cancel the rotation…").click()
    assert await site.use(new)  # asked first
    await page.get_by_role("button", name="Cancel the rotation").click()
    await expect(page.get_by_role("status")).to_contain_text("the old secret goes on")
    assert await site.use(made.key or "")
    assert not await site.use(new)


async def test_many_at_once(either: Page, site: Site) -> None:
    keys = [await site.key(f"Key {n}") for n in range(3)]
    await either.goto("/en/account/api-keys")
    for name in ("Key 0", "Key 2"):
        await either.get_by_label(f"Select \u2068{name}\u2069").check()
    await either.get_by_role("button", name="Disable").click()
    await expect(either.get_by_role("status").first).to_contain_text("are disabled")
    assert [await site.call(key.key or "") for key in keys] == [401, 200, 401]
    await either.get_by_label("Select \u2068Key 0\u2069").check()
    await either.get_by_role("button", name="Enable").click()
    assert await site.call(keys[0].key or "") == 200
    for name in ("Key 0", "Key 1"):
        await either.get_by_label(f"Select \u2068{name}\u2069").check()
    await either.get_by_role("button", name="Revoke…").click()
    await expect(either.get_by_role("heading", level=1)).to_have_text("Revoke 2 keys?")
    assert await site.call(keys[0].key or "") == 200  # asked first
    await either.get_by_role("button", name="Revoke 2 keys").click()
    await expect(either.get_by_role("heading", level=1)).to_contain_text("2 keys are revoked")
    assert [await site.call(key.key or "") for key in keys] == [401, 401, 401]


async def test_signing_up_in_a_browser(visitor: Page, site: Site) -> None:
    await visitor.goto("/de/account/api-keys")
    await visitor.locator('a[href="/de/sign-up"]').click()
    await visitor.locator("#name").fill("Bea")
    await visitor.locator("#email").fill("bea@example.com")
    await visitor.locator("#new_password").fill("violet tractor sings at noon")
    await visitor.locator("main button.primary").click()
    await visitor.wait_for_url("**/de/check-mail**")
    async with site.client() as client:
        outbox = (await client.get("/dev/outbox")).text
    link = re.search(r'href="([^"]+verify-email[^"]+)"', outbox)
    assert link is not None
    await visitor.goto(link[1].replace("&amp;", "&"))
    await visitor.wait_for_url("**/de/verified")
    await visitor.locator("main a.primary").click()
    await visitor.locator("#email").fill("bea@example.com")
    await visitor.locator("#password").fill("violet tractor sings at noon")
    await visitor.locator("main button.primary").click()
    await visitor.wait_for_url("**/de/account/api-keys")
