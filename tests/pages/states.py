"""Every page in every state that it has: what is looked at, checked for access, and drawn."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from playwright.async_api import Page
from sqlalchemy import text

from keybearer.adapters.sql import usage
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count
from keybearer.inputs import RevokeKey, RotateKey, UpdateKey
from tests.pages.site import Site
from tests.people import PASSWORD

HOUR, DAY = 3_600_000, 86_400_000
LONG = "A name of sixty-four characters, as long as a name can ever get."


class Town:
    """The keys of Ann: one in each state.

    Attributes:
        ids: by state: `active`, `expiring`, `expired`, `disabled`, `revoked`, `rotating`, `new`.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ids: dict[str, str] = {}


async def populate(site: Site) -> Town:
    """Makes the town; the clock goes on by forty days."""
    town, api = Town(site), site.auth.api
    expired = await site.key("Trial of the new billing export", expires_in=30 * 86_400)
    disabled = await site.key("Old laptop", expires_in=None)
    revoked = await site.key("GitHub Actions", description="Deploys to production", expires_in=None)
    rotating = await site.key(
        "Nightly backup",
        description="Runs on the backup host at two in the morning",
        permissions={"files": ["read", "write"]},
        expires_in=None,
    )
    expiring = await site.key("Grafana dashboard", permissions={"users": ["read"]}, expires_in=None)
    active = await site.key(
        "Mobile app",
        description="The app in the shops.\nAsk before you touch it.",
        permissions={"files": ["read"], "deploy": ["run"]},
        ip_allow=["203.0.113.0/24", "2001:db8::/32"],
        expires_in=300 * 86_400,
    )
    await history(site, active.id, 40)
    await history(site, rotating.id, 12)
    site.clock.advance(40 * DAY)
    for key, uses in ((disabled, 3), (revoked, 2), (expiring, 5), (active, 7)):
        for _ in range(uses):
            await site.use(key.key or "")
    await site.use(active.key or "", ip="198.51.100.4", agent="python-requests/2.32")
    await api.update_api_key(UpdateKey(key_id=disabled.id, enabled=False))
    await site.use(disabled.key or "")
    await api.update_api_key(UpdateKey(key_id=expiring.id, expires_in=5 * 86_400))
    await api.revoke_api_key(RevokeKey(key_id=revoked.id, reason="leaked"))
    rotated = await api.rotate_api_key(RotateKey(key_id=rotating.id, grace_period=7 * 86_400))
    for secret, uses in ((rotating.key, 3), (rotated.key, 22)):
        for _ in range(uses):
            await site.use(secret or "", ip="203.0.113.9")
    new = await site.key(LONG, expires_in=90 * 86_400)
    site.clock.advance(4 * 60_000)
    town.ids = {
        "active": active.id,
        "disabled": disabled.id,
        "expired": expired.id,
        "expiring": expiring.id,
        "new": new.id,
        "revoked": revoked.id,
        "rotating": rotating.id,
    }
    return town


async def history(site: Site, id: str, days: int) -> None:
    """Requests of the days to come, as they will have been counted."""
    start = site.clock.now() - site.clock.now() % HOUR

    async def body(tx: Transaction) -> None:
        counts = [
            Count(key_id=id, hour=start + day * DAY, outcome=outcome, n=n)
            for day in range(days)
            for outcome, n in (
                ("accepted", 20 + 13 * (day * 7 % 11)),
                *((("RATE_LIMITED", 4 + day % 3),) if day % 4 == 0 else ()),
                *((("IP_NOT_ALLOWED", 9),) if day % 9 == 4 else ()),
                *((("KEY_DISABLED", 14),) if day % 10 == 8 else ()),
            )
        ]
        await usage.add(tx, counts, dialect="sqlite")

    await (await site.auth.running()).database.write(body)


State = Callable[[Page, Town, str], Awaitable[None]]
"""Brings a page, in a locale, to a state."""


def _at(path: str) -> State:
    async def go(page: Page, town: Town, locale: str) -> None:
        await page.goto(f"/{locale}/{path.format(**town.ids)}")

    return go


def _dialog(name: str, key: str) -> State:
    async def go(page: Page, town: Town, locale: str) -> None:
        await page.goto(f"/{locale}/account/api-keys/{town.ids[key]}")
        await page.locator(f'[data-dialog="{name}"]').click()

    return go


async def _new_with_errors(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/api-keys/new")
    await page.locator("#name").fill("  ")
    await page.locator("#expires-date").check()
    await page.locator("details.advanced summary").click()
    await page.locator("form button.primary").last.click()


async def _revealed(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/api-keys/new")
    await page.locator("#name").fill("CI job")
    password = page.locator("#password")
    if await password.count():
        await password.fill(PASSWORD)
    await page.locator("form button.primary").last.click()
    await page.locator("#key").wait_for()
    await page.locator('[data-copy="plain"]').click()  # so that leaving asks nothing


async def _login_refused(page: Page, town: Town, locale: str) -> None:
    await page.context.clear_cookies()
    await page.goto(f"/{locale}/login")
    await page.locator("#email").fill("ann@example.com")
    await page.locator("#password").fill("not the right one")
    await page.locator("main button.primary").click()


async def _many(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/api-keys")
    await page.locator("[data-select-all]").check()
    await page.locator('button[value="revoke"]').click()


async def _receipt(page: Page, town: Town, locale: str) -> None:
    made = await town.site.key("To be revoked")
    await page.goto(f"/{locale}/account/api-keys/{made.id}/revoke")
    await page.locator("main .danger").click()
    await page.locator("[data-receipt]").wait_for()


async def _disowned(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/api-keys/new")
    await page.locator("#name").fill("Not mine")
    await page.locator("form button.primary").last.click()
    await page.locator('[data-copy="plain"]').click()
    await _disown(page, town, locale)
    await page.locator(".disown .danger").first.click()
    await page.locator("main ol li").first.wait_for()


async def _calendar(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/api-keys")
    await page.locator("details.more summary").first.click()
    await page.locator('button[value="make"]').click()
    await page.locator('[data-copy="plain"]').click()


async def _old_login(page: Page, town: Town, locale: str) -> None:
    town.site.clock.advance(20 * 60_000)
    await page.goto(f"/{locale}/account/api-keys/{town.ids['disabled']}")
    await page.locator(".head form button").click()
    await page.locator("#password").wait_for()
    town.site.clock.advance(-20 * 60_000)


async def _disown(page: Page, town: Town, locale: str) -> None:
    await page.goto(f"/{locale}/account/security")
    await page.locator(".disown summary").first.click()


def _with(path: str, **settings: Any) -> State:
    """At a server that has other settings meanwhile."""

    async def go(page: Page, town: Town, locale: str) -> None:
        parts = await town.site.auth.running()
        usual = parts.settings
        object.__setattr__(parts, "settings", msgspec.structs.replace(usual, **settings))
        await page.goto(f"/{locale}/{path}")
        object.__setattr__(parts, "settings", usual)

    return go


async def _database_lost(page: Page, town: Town, locale: str) -> None:
    database = (await town.site.auth.running()).database
    for name, other in (("api_keys", "lost"), ("lost", "api_keys")):
        renamed = text(f"ALTER TABLE {name} RENAME TO {other}")
        await database.write(lambda tx, renamed=renamed: tx.run(renamed))  # type: ignore[misc]
        if other == "lost":
            await page.goto(f"/{locale}/account/api-keys")


_KEYS = "account/api-keys"
MEMBERS: Mapping[str, State] = {
    "keys": _at(_KEYS),
    "keys-filtered-empty": _at(f"{_KEYS}?q=nothing-like-this"),
    "keys-bulk-revoke": _many,
    "key-new": _at(f"{_KEYS}/new"),
    "key-new-by-link": _at(f"{_KEYS}/new?name=CI&description=Deploys&expires=7"),
    "key-new-errors": _new_with_errors,
    "key-revealed": _revealed,
    "key-active": _at(f"{_KEYS}/{{active}}"),
    "key-active-hours": _at(f"{_KEYS}/{{active}}?range=24h"),
    "key-rotating": _at(f"{_KEYS}/{{rotating}}"),
    "key-expired": _at(f"{_KEYS}/{{expired}}"),
    "key-disabled": _at(f"{_KEYS}/{{disabled}}"),
    "key-revoked": _at(f"{_KEYS}/{{revoked}}"),
    "key-never-used": _at(f"{_KEYS}/{{new}}"),
    "key-enable-with-password": _old_login,
    "rotation-finish": _at(f"{_KEYS}/{{rotating}}/rotation?action=finish"),
    "rotation-extend": _at(f"{_KEYS}/{{rotating}}/rotation?action=extend"),
    "rotation-cancel": _at(f"{_KEYS}/{{rotating}}/rotation?action=cancel"),
    "calendar-address": _calendar,
    "rotate": _at(f"{_KEYS}/{{active}}/rotate"),
    "rotate-dialog": _dialog("rotate", "active"),
    "revoke": _at(f"{_KEYS}/{{active}}/revoke"),
    "revoke-dialog": _dialog("revoke", "expiring"),
    "revoked-receipt": _receipt,
    "sessions": _at("account/sessions"),
    "security": _at("account/security"),
    "security-this-was-not-me": _disown,
    "security-disowned": _disowned,
    "key-new-limit-reached": _with(f"{_KEYS}/new", max_keys_per_owner=6),
    "key-new-not-allowed": _with(f"{_KEYS}/new", key_creation="nobody"),
    "database-lost": _database_lost,
    "not-found": _at("nothing"),
}
"""What somebody who is logged in sees."""

VISITORS: Mapping[str, State] = {
    "sign-up": _at("sign-up"),
    "login": _at("login"),
    "login-refused": _login_refused,
    "check-mail": _at("check-mail?email=ann@example.com"),
    "verified": _at("verified"),
    "verified-failed": _at("verified?error=INVALID_TOKEN"),
    "forgot-password": _at("forgot-password"),
    "reset-password": _at("reset-password?token=abc"),
    "reset-password-failed": _at("reset-password?error=INVALID_TOKEN"),
}
"""What somebody who is not logged in sees."""
