"""Reminders by mail: to who can act, once, and the most urgent alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from keybearer.adapters.mail import Mail, compose
from keybearer.adapters.sql.outbox import Letter
from keybearer.adapters.sql.tables import api_keys
from keybearer.domain.ports import Transaction
from keybearer.operations import reminders
from keybearer.operations.app import App
from tests.operations.house import House, open_house

DAY = 86_400_000
HOUR = 3_600_000
MINUTE = 60_000


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        opened.configure(token_management=True)
        yield opened


async def change(house: House, id: str, **columns: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(update(api_keys).where(api_keys.c.id == id).values(**columns))

    await house.app.database.write(body)


async def add_key(house: House, owner: str = "ann@example.com", **columns: object) -> str:
    user = await house.user(owner) or await house.add_user(owner)
    id = await house.add_key(user)
    await change(house, id, **columns)
    return id


async def letter(house: House) -> Letter:
    (only,) = await house.letters()
    return only


async def test_each_reminder_is_one_mail_and_the_last_says_that_it_is_over(house: House) -> None:
    ends = house.clock.now() + 40 * DAY
    id = await add_key(house, name="Nightly backup", expires_at=ends)
    for left in (31, 30, 20, 14, 10, 7, 2, 1, 0.5, 0, -1):
        house.clock.time = ends - int(left * DAY)
        await reminders.remind(house.app)
        await reminders.remind(house.app)
    assert await house.subjects() == [
        "An API key expires in 30 days",
        "An API key expires in 14 days",
        "An API key expires in 7 days",
        "An API key expires in 1 day",
        "An API key has expired",
    ]
    assert await house.targets("key.expiry_reminded") == [id] * 5
    assert (await house.key(id)).reminded_days == 0


async def test_the_mail_has_name_start_date_and_the_link_to_the_rotation(house: House) -> None:
    ends = house.clock.now() + 7 * DAY - 9 * MINUTE
    id = await add_key(house, name="Nightly backup", expires_at=ends)
    assert await reminders.remind(house.app) == 1
    told = await letter(house)
    assert told.recipient == "ann@example.com"
    assert told.subject == "An API key expires in 7 days"
    assert told.text == (
        "An API key of yours at http://127.0.0.1:8000 expires soon. What uses it stops working "
        "then.\n\n"
        "Nightly backup\n"
        "Starts with kb_abcd, expires on Nov 21, 2023, 10:04\u202fPM UTC\n"
        f"http://127.0.0.1:8000/en/account/api-keys/{id}/rotate\n\n"
        "To go on with a key, open its link and renew it before then. If you do not need it any "
        "more, you need not do anything."
    )
    assert house.woken == [house.clock.now()]


async def test_a_key_that_is_over_is_linked_itself_as_it_cannot_be_rotated(house: House) -> None:
    id = await add_key(house, name=None, expires_at=house.clock.now() - HOUR)
    await reminders.remind(house.app)
    told = await letter(house)
    assert told.subject == "An API key has expired"
    assert "\n\nkb_abcd…\nStarts with kb_abcd, expired on Nov 14, 2023, 9:13" in told.text
    assert f"\nhttp://127.0.0.1:8000/en/account/api-keys/{id}\n" in told.text
    assert "make a new one" in told.text


@pytest.mark.parametrize("left", [DAY, 0])
async def test_without_the_pages_the_mail_has_facts_and_no_link(house: House, left: int) -> None:
    house.configure(token_management=False)
    await add_key(house, name="ci", expires_at=house.clock.now() + left)
    await reminders.remind(house.app)
    told = await letter(house)
    assert "ci\nStarts with kb_abcd, expire" in told.text
    assert "api-keys" not in told.text
    assert "ask whoever runs http://127.0.0.1:8000" in told.text


async def test_one_mail_has_all_keys_of_one_owner_and_one_reminder(house: House) -> None:
    now = house.clock.now()
    for name, left in (("c", 6 * DAY), ("a", 2 * DAY), ("b", 5 * DAY), ("far", 10 * DAY)):
        await add_key(house, name=name, expires_at=now + left)
    await add_key(house, "bob@example.com", name="bobs", expires_at=now + 3 * DAY)
    assert await reminders.remind(house.app) == 3
    told = {(each.recipient, each.subject): each.text for each in await house.letters()}
    assert set(told) == {
        ("ann@example.com", "3 API keys expire, the first in 2 days"),
        ("ann@example.com", "An API key expires in 10 days"),
        ("bob@example.com", "An API key expires in 3 days"),
    }
    text = told["ann@example.com", "3 API keys expire, the first in 2 days"]
    assert text.index("\n\na\n") < text.index("\n\nb\n") < text.index("\n\nc\n")
    assert "far" not in text
    assert "bobs" not in text


async def test_the_mail_is_in_the_language_of_the_owner_and_so_is_its_link(house: House) -> None:
    await house.add_user(locale="de")
    await add_key(house, name="ci", expires_at=house.clock.now() + DAY)
    await reminders.remind(house.app)
    told = await letter(house)
    assert told.subject == "Ein API-Schlüssel läuft in 1 Tag ab"
    assert "http://127.0.0.1:8000/de/account/api-keys/" in told.text


@pytest.mark.parametrize(
    "columns", [{"disabled_at": 1}, {"email_verified_at": None}], ids=["disabled", "unverified"]
)
async def test_who_cannot_act_is_not_told(house: House, columns: dict[str, Any]) -> None:
    await house.add_user(**columns)
    await add_key(house, expires_at=house.clock.now() + DAY)
    assert await reminders.remind(house.app) == 0
    assert await reminders._remind(house.app, "nobody", 1, house.clock.now()) is False
    user = await house.user()
    assert user is not None
    assert await reminders._remind(house.app, user.id, 1, house.clock.now()) is False
    assert await house.letters() == []


@pytest.mark.parametrize("columns", [{"revoked_at": 1}, {"enabled": False}], ids=["r", "d"])
async def test_a_key_that_opens_nothing_is_not_told_of(
    house: House, columns: dict[str, Any]
) -> None:
    await add_key(house, expires_at=house.clock.now() + DAY, **columns)
    assert await reminders.remind(house.app) == 0
    user = await house.user()
    assert user is not None
    assert await reminders._remind(house.app, user.id, 1, house.clock.now()) is False


async def test_keys_of_a_host_app_are_never_told_of(house: House) -> None:
    await add_key(house, expires_at=house.clock.now() + DAY)
    house.app = replace(house.app, accounts=False)
    assert await reminders.remind(house.app) == 0


async def test_after_weeks_away_the_most_urgent_reminder_comes_alone(house: House) -> None:
    ends = house.clock.now() + 40 * DAY
    await add_key(house, name="a", expires_at=ends)
    await reminders.remind(house.app)
    house.clock.time = ends - 5 * DAY
    await reminders.remind(house.app)
    assert await house.subjects() == ["An API key expires in 5 days"]


async def test_an_end_that_is_a_month_old_is_no_news(house: House) -> None:
    await add_key(house, expires_at=house.clock.now() - 30 * DAY)
    assert await reminders.remind(house.app) == 0


async def test_of_many_that_remind_at_once_one_writes_the_mail(house: House) -> None:
    ids = {await add_key(house, expires_at=house.clock.now() + DAY) for _ in range(5)}
    await asyncio.gather(*(reminders.remind(house.app) for _ in range(5)))
    assert len(await house.letters()) == 1
    assert set(await house.targets("key.expiry_reminded")) == ids
    assert len(await house.targets("key.expiry_reminded")) == len(ids)


async def test_a_process_that_dies_between_loses_and_doubles_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await add_key(house, expires_at=house.clock.now() + DAY)

    async def die(*_: object, **__: object) -> None:
        raise ArithmeticError

    with monkeypatch.context() as patch:
        patch.setattr(reminders, "record", die)  # the last step of the transaction
        with pytest.raises(ArithmeticError):
            await reminders.remind(house.app)
    assert await house.letters() == []
    assert (await house.key(id)).reminded_days is None
    assert await reminders.remind(house.app) == 1
    assert await reminders.remind(house.app) == 0


async def test_pages_and_mails_are_bounded_and_nobody_is_left_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "_PAGE", 3)
    monkeypatch.setattr(reminders, "_IN_ONE_MAIL", 2)
    same = house.clock.now() + DAY
    names = {f"key {n}" for n in range(7)}
    for name in sorted(names):
        await add_key(house, name=name, expires_at=same)
    await add_key(house, "bob@example.com", name="bobs", expires_at=same + 1)
    await reminders.remind(house.app)
    texts = [each.text for each in await house.letters() if each.recipient == "ann@example.com"]
    assert [text.count("Starts with") for text in texts] == [2, 2, 2, 1]
    assert {name for name in names if any(f"\n{name}\n" in text for text in texts)} == names
    assert sum(each.recipient == "bob@example.com" for each in await house.letters()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "a\r\n\r\nFrom: bank@example.com",
        "a\u2028\u2028Your account is locked",
        "a\x85b\x0bc",
        "{site} {0.__class__} {name}",
        "<b>x</b> http://evil.example/",
        "\u202eeman",
    ],
)
async def test_no_name_breaks_the_mail(house: House, name: str) -> None:
    await add_key(house, name="plain", expires_at=house.clock.now() + DAY)
    await reminders.remind(house.app)
    plain = await letter(house)
    id = await add_key(house, "bob@example.com", name=name, expires_at=house.clock.now() + DAY)
    await reminders.remind(house.app)
    (told,) = [each for each in await house.letters() if each.recipient == "bob@example.com"]
    lines = told.text.splitlines()
    assert len(lines) == len(plain.text.splitlines())
    assert lines[2] == " ".join(name.splitlines())
    assert lines[4].endswith(f"/{id}/rotate")
    mail = Mail(to=told.recipient, subject=told.subject, text=told.text)
    message = compose(mail, "keys@example.com")
    assert message.get_all("From") == ["keys@example.com"]
    assert name not in told.subject


async def test_a_key_remembers_from_the_start_what_is_past(app: App) -> None:
    """Keys that are made through the API, on a whole app."""
    from keybearer.operations.keyedits import UpdateKey, update_api_key
    from keybearer.operations.keys import CreateKey, create_api_key
    from tests.people import by, call_of, person

    ada = by(await person(app))

    async def reminded(id: str) -> int | None:
        async def body(tx: Transaction) -> int | None:
            row = await tx.one(api_keys.select().where(api_keys.c.id == id))
            assert row is not None
            return None if row.reminded_days is None else int(row.reminded_days)

        return await app.database.read(body)

    async def made(**asked: int | None) -> str:
        return (await create_api_key(call_of(app, ada), CreateKey(**asked))).id  # type: ignore[arg-type]

    assert await reminded(await made(expires_in=None)) is None
    assert await reminded(await made(expires_in=31 * 86_400)) is None
    assert await reminded(await made(expires_in=30 * 86_400)) == 30
    id = await made(expires_in=3_600)
    assert await reminded(id) == 0
    await update_api_key(call_of(app, ada), UpdateKey(key_id=id, expires_in=10 * 86_400))
    assert await reminded(id) == 14
    await update_api_key(call_of(app, ada), UpdateKey(key_id=id, name="kept"))
    assert await reminded(id) == 14
    await update_api_key(call_of(app, ada), UpdateKey(key_id=id, expires_in=None))
    assert await reminded(id) is None
    assert await reminders.remind(app) == 0
