"""What the mails say, in the language of whom they go to."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec
import pytest

from keybearer.adapters.mail import Mail, compose
from keybearer.adapters.sql.reminders import Expiring
from keybearer.domain.credentials import Secret
from keybearer.domain.model import User
from keybearer.operations import mails
from keybearer.operations.app import App
from keybearer.settings import Settings
from tests.operations.house import START, House, open_house

LOCALES = Settings().locales
TOKEN = Secret("T" * 43)
LEFT_OVER = re.compile(r"[{}]")


def keys(n: int) -> list[Expiring]:
    return [
        Expiring(
            id=f"key-{each}", owner_id="ann", name=f"key {each}", start="kb_abcd",
            expires_at=START + (each + 1) * 86_400_000, reminded_days=None,
        )
        for each in range(n)
    ]  # fmt: skip


def without_pages(app: App) -> App:
    return replace(app, settings=msgspec.structs.replace(app.settings, token_management=False))


def with_pages(app: App) -> App:
    return replace(app, settings=msgspec.structs.replace(app.settings, token_management=True))


Write = Callable[[App, User], Mail]
MAILS: list[Write] = [
    lambda app, user: mails.verify_address(app, user, TOKEN, START, "/done"),
    lambda app, user: mails.choose_password(app, user, TOKEN, START, "/done"),
    lambda app, user: mails.address_in_use(app, user, START),
    lambda app, user: mails.reset_password(app, user, TOKEN, START, "/done"),
    lambda app, user: mails.password_changed(app, user, START),
    lambda app, user: mails.refresh_reused(app, user, START),
    lambda app, user: mails.account_deleted(app, user, START),
    lambda app, user: mails.keys_expire(with_pages(app), user, keys(1), START),
    lambda app, user: mails.keys_expire(without_pages(app), user, keys(3), START),
    lambda app, user: mails.keys_expired(with_pages(app), user, keys(2), START),
    lambda app, user: mails.keys_expired(without_pages(app), user, keys(11), START),
]


@pytest.fixture
async def house(tmp_path: object) -> AsyncIterator[House]:
    async with open_house(f"sqlite:///{tmp_path}/k.db") as opened:
        yield opened


@pytest.mark.parametrize("write", MAILS)
async def test_every_mail_is_whole_in_every_language(house: House, write: Write) -> None:
    user = await house.add_user()
    seen: set[str] = set()
    for locale in LOCALES:
        mail = write(house.app, msgspec.structs.replace(user, locale=locale))
        assert not LEFT_OVER.search(mail.subject + mail.text), locale
        assert "http://127.0.0.1:8000" in mail.text
        message = compose(mail, "keys@example.com")
        assert message.get_content().replace("\r\n", "\n").rstrip("\n") == mail.text
        assert message["Subject"].strip() == mail.subject
        seen |= {mail.subject, mail.text}
    assert len(seen) == 2 * len(LOCALES)


@pytest.mark.parametrize("write", [MAILS[0], MAILS[1], MAILS[3]])
@pytest.mark.parametrize("locale", LOCALES)
async def test_a_link_stands_on_a_line_of_its_own(house: House, write: Write, locale: str) -> None:
    user = await house.add_user(locale=locale)
    lines = write(house.app, user).text.split("\n")
    (link,) = [line for line in lines if TOKEN.reveal() in line]
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/api/auth/[!-~]+callbackURL=%2Fdone", link)


async def test_dates_are_those_of_the_language(house: House) -> None:
    user = await house.add_user(locale="de")
    assert "Am 14.11.2023, 22:13 UTC wurde" in mails.account_deleted(house.app, user, START).text


@pytest.mark.parametrize("locale", [None, "fr", "xx"])
async def test_who_reads_no_language_of_ours_gets_the_first(
    house: House, locale: str | None
) -> None:
    house.configure(locales=("es", "en"))
    user = await house.add_user(locale=locale)
    assert mails.address_in_use(house.app, user, START).subject == "Ya tiene una cuenta"
