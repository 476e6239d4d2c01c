import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import select

from keybearer.adapters.sql import accounts as sql_accounts
from keybearer.adapters.sql.tables import one_time_tokens, users
from keybearer.domain.errors import Failure
from keybearer.domain.model import Session
from keybearer.operations.accounts import (
    AskForLink,
    ConfirmLink,
    DeleteUser,
    SignUp,
    UpdateUser,
    confirm_email,
    delete_user,
    send_verification_email,
    sign_up_email,
    update_user,
    verify_email,
)
from keybearer.operations.authentication import authenticate_password
from keybearer.operations.links import OpenLink
from tests.operations.house import OTHER, PASSWORD, House, open_house

VERIFY = "Verify your e-mail address"
CHOOSE = "Choose your password"
IN_USE = "You already have an account"


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def sign_up(
    house: House, email: str = "ann@example.com", password: str = PASSWORD, **more: str
) -> dict[str, object]:
    asked = msgspec.convert({"name": "Ann", "email": email, "password": password, **more}, SignUp)
    answer = msgspec.to_builtins(await sign_up_email(house.call(), asked))
    assert isinstance(answer, dict)
    return answer


async def can_log_in(house: House, password: str = PASSWORD) -> bool:
    try:
        await authenticate_password(house.call(), "ann@example.com", password)
    except Failure:
        return False
    return True


# --- sign-up --------------------------------------------------------------------------------


async def test_a_new_user_is_unverified_and_gets_a_link(house: House) -> None:
    answer = await sign_up(house, " Ann@Example.com")
    user = await house.user()
    assert user is not None
    assert (user.role, user.email_verified_at, user.disabled_at) == ("user", None, None)
    assert answer == {
        "token": None,
        "user": {
            "name": "Ann",
            "email": "ann@example.com",
            "emailVerified": False,
            "image": None,
            "createdAt": "2023-11-14T22:13:20.000Z",
            "updatedAt": "2023-11-14T22:13:20.000Z",
            "id": user.id,
            "locale": None,
        },
    }
    assert await house.subjects() == [VERIFY]
    assert (await house.link()).startswith("http://127.0.0.1:8000/api/auth/verify-email?token=")
    assert await house.events() == [("user.signed_up", "success", user.id)]
    assert house.woken == [house.clock.now()]
    assert not await can_log_in(house)


async def test_a_sign_up_chooses_the_language_of_the_mails(house: House) -> None:
    answer = await sign_up(house, locale="de")
    user = await house.user()
    assert user is not None
    assert user.locale == "de"
    assert isinstance(answer["user"], dict)
    assert answer["user"]["locale"] == "de"
    assert await house.subjects() == ["Bestätigen Sie Ihre E-Mail-Adresse"]


async def test_whoever_has_an_account_is_mailed_in_their_own_language(house: House) -> None:
    """Not in that of the stranger who signs up with their address."""
    await house.add_user(locale="fr")
    await sign_up(house, locale="de")
    assert await house.subjects() == ["Vous avez déjà un compte"]


@pytest.mark.parametrize("tag", ["xx", "", "DE", "de\r\nBcc: a@b", "../de"])
async def test_a_language_that_the_server_lacks_is_refused(house: House, tag: str) -> None:
    house.configure(locales=("en", "de"))
    with pytest.raises(Failure) as refused:
        await sign_up(house, locale=tag)
    assert refused.value.code == "VALIDATION_ERROR"
    assert refused.value.message == "locale must be one of: en, de."
    assert await house.user() is None


async def test_where_verification_is_not_required_one_may_log_in_at_once(house: House) -> None:
    house.configure(require_email_verification=False)
    assert (await sign_up(house))["token"] is None
    assert await can_log_in(house)


async def test_the_answer_does_not_tell_whether_the_address_has_an_account(house: House) -> None:
    ann = await house.add_user()
    known, new = await sign_up(house), await sign_up(house, "bob@example.com")
    for answer in (known, new):
        user = answer["user"]
        assert isinstance(user, dict)
        assert user.pop("id") != ann.id
        user.pop("email")
    assert known == new
    assert await house.subjects() == [IN_USE, VERIFY]
    assert await house.user() == ann
    assert ("user.signed_up", "refused", ann.id) in await house.events()


async def test_the_same_sign_up_again_gets_a_fresh_link_and_the_old_one_stops(
    house: House,
) -> None:
    await sign_up(house)
    before, first = await house.user(), await house.token()
    await sign_up(house)
    assert await house.user() == before
    assert await house.subjects() == [VERIFY, VERIFY]
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await confirm_email(house.call(), ConfirmLink(token=first))
    await confirm_email(house.call(), ConfirmLink(token=await house.token()))
    assert await can_log_in(house)


async def test_two_who_claim_one_address_leave_the_password_to_its_owner(house: House) -> None:
    await sign_up(house, password=OTHER)  # somebody who waits for the owner
    theirs = await house.token()
    await sign_up(house, password=PASSWORD)
    assert await house.subjects() == [VERIFY, CHOOSE]
    assert await house.named() == ["user.signed_up", "user.signed_up", "password.removed"]
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await confirm_email(house.call(), ConfirmLink(token=theirs))
    await send_verification_email(house.call(), AskForLink(email="ann@example.com"))
    await sign_up(house, password=OTHER)
    assert await house.subjects() == [VERIFY, CHOOSE, CHOOSE, CHOOSE]
    house.configure(require_email_verification=False)
    assert not await can_log_in(house, OTHER)
    assert not await can_log_in(house, PASSWORD)


async def test_an_account_in_use_keeps_its_password_where_nobody_must_verify(
    house: House,
) -> None:
    house.configure(require_email_verification=False)
    await sign_up(house)
    await sign_up(house, password=OTHER)
    assert await house.subjects() == [VERIFY, IN_USE]
    assert await can_log_in(house)


async def test_a_disabled_account_gets_no_mail(house: House) -> None:
    await house.add_user(disabled_at=1, email_verified_at=None)
    await sign_up(house)
    await send_verification_email(house.call(), AskForLink(email="ann@example.com"))
    assert await house.subjects() == []


async def test_twenty_sign_ups_at_once_make_one_user(house: House) -> None:
    await asyncio.gather(*(sign_up(house) for _ in range(20)))
    assert len(await house.rows(select(users))) == 1
    assert len(await house.rows(select(one_time_tokens))) == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"email": "ann"}, "INVALID_EMAIL"),
        ({"email": "ann@example.com\r\nBcc: eve@example.com"}, "INVALID_EMAIL"),
        ({"password": "short"}, "PASSWORD_TOO_SHORT"),
        ({"password": "ann@example.com1"}, "PASSWORD_TOO_COMMON"),
        ({"name": ""}, "VALIDATION_ERROR"),
        ({"name": "   "}, "VALIDATION_ERROR"),
        ({"name": "a" * 101}, "VALIDATION_ERROR"),
        ({"name": "a\x1b[2J"}, "VALIDATION_ERROR"),
        ({"image": "javascript:alert(1)"}, "VALIDATION_ERROR"),
        ({"image": "http://example.com/a.png"}, "VALIDATION_ERROR"),
        ({"image": "https://example.com/" + "a" * 2048}, "VALIDATION_ERROR"),
        ({"image": "https://example.com/\n"}, "VALIDATION_ERROR"),
        ({"callbackURL": "https://evil.example"}, "INVALID_CALLBACK_URL"),
    ],
)
async def test_what_cannot_be_signed_up_with_is_refused(
    house: House, asked: dict[str, str], code: str
) -> None:
    fields = {"name": "Ann", "email": "ann@example.com", "password": PASSWORD, **asked}
    with pytest.raises(Failure, match=code):
        await sign_up_email(house.call(), msgspec.convert(fields, SignUp))
    assert await house.rows(select(users)) == []
    assert await house.subjects() == []


async def test_a_picture_is_kept(house: House) -> None:
    await sign_up(house, image="https://example.com/ann.png")
    user = await house.user()
    assert user is not None
    assert user.image == "https://example.com/ann.png"


async def test_an_address_signs_up_a_hundred_times_and_then_slowly(house: House) -> None:
    for _ in range(100):
        with pytest.raises(Failure, match="PASSWORD_TOO_SHORT"):
            await sign_up(house, password="short")
    with pytest.raises(Failure, match="TOO_MANY_ATTEMPTS"):
        await sign_up(house)


async def test_an_inbox_gets_three_mails_a_minute_whoever_asks(house: House) -> None:
    await house.add_user()
    for _ in range(5):
        await sign_up(house)
    assert await house.subjects() == [IN_USE] * 3
    house.clock.time += 20_000
    await sign_up(house)
    await sign_up(house)
    assert await house.subjects() == [IN_USE] * 4


async def test_without_accounts_there_are_no_such_operations(house: House) -> None:
    house.app = replace(house.app, accounts=False)
    with pytest.raises(Failure, match="NOT_FOUND"):
        await sign_up(house)


# --- verification ---------------------------------------------------------------------------


async def test_a_link_verifies_and_logs_nobody_in(house: House) -> None:
    await sign_up(house, callbackURL="/welcome?a=1")
    assert "callbackURL=%2Fwelcome%3Fa%3D1" in await house.link()
    call = house.call()
    answer = await verify_email(call, OpenLink(token=await house.token()))
    assert msgspec.to_builtins(answer) == {"status": True, "user": None}
    assert (call.reply.session, call.reply.location) == (None, None)
    user = await house.user()
    assert user is not None
    assert user.email_verified_at == house.clock.now()
    assert await can_log_in(house)
    assert (await house.events())[-1] == ("email.verified", "success", user.id)


async def test_a_link_leads_on_to_where_it_may(house: House) -> None:
    await sign_up(house)
    token = await house.token()
    for location in ("/welcome", "/welcome?error=INVALID_TOKEN"):
        call = house.call()
        await verify_email(call, OpenLink(token=token, callback_url="/welcome"))
        assert call.reply.location == location
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await verify_email(house.call(), OpenLink(token=token))
    with pytest.raises(Failure, match="INVALID_CALLBACK_URL"):
        await verify_email(house.call(), OpenLink(token=token, callback_url="//evil.example"))


async def test_a_link_lives_for_a_day(house: House) -> None:
    await sign_up(house)
    house.clock.time += 86_400_000
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await confirm_email(house.call(), ConfirmLink(token=await house.token()))
    now = house.clock.now()
    assert await house.app.database.write(lambda tx: sql_accounts.sweep(tx, now=now)) == 1


async def test_the_first_proof_ends_everything_of_before(house: House) -> None:
    house.configure(require_email_verification=False)
    await sign_up(house)
    user = await house.user()
    assert user is not None
    session, key = await house.log_in(user), await house.add_key(user)
    cached = house.remember(f"owner:{user.id}"), house.remember(f"session:{session.id}")
    await confirm_email(house.call(), ConfirmLink(token=await house.token()))
    assert await house.live_sessions(user) == set()
    assert (await house.key(key)).revoked_at == house.clock.now()
    assert [house.cache.get(digest) for digest in cached] == [None, None]


async def test_a_link_of_somebody_verified_already_ends_nothing(house: House) -> None:
    await sign_up(house)
    token = await house.token()
    user = await house.user()
    assert user is not None
    await house.app.database.write(
        lambda tx: sql_accounts.save_user(tx, user.id, {"email_verified_at": 5})
    )
    await house.log_in(user)
    await confirm_email(house.call(), ConfirmLink(token=token))
    assert len(await house.live_sessions(user)) == 1


async def test_a_new_link_is_sent_to_the_unverified_alone(house: House) -> None:
    await house.add_user("bob@example.com")
    await sign_up(house)
    first = await house.token()
    for email in ("ann@example.com", "bob@example.com", "nobody@example.com"):
        house.clock.time += 1
        call = house.call()
        answer = await send_verification_email(call, AskForLink(email=email, callback_url="/"))
        assert msgspec.to_builtins(answer) == {"status": True}
    assert await house.subjects() == [VERIFY, VERIFY]
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await confirm_email(house.call(), ConfirmLink(token=first))
    outcomes = [outcome for _, outcome, _ in await house.events()][1:]
    assert outcomes == ["success", "refused", "refused"]


async def test_new_links_are_throttled_without_telling(house: House) -> None:
    await house.add_user(email_verified_at=None)
    for _ in range(5):
        await send_verification_email(house.call(), AskForLink(email="ann@example.com"))
    assert await house.subjects() == [VERIFY] * 3
    for n in range(55):
        await send_verification_email(house.call(), AskForLink(email=f"user{n}@example.com"))
    with pytest.raises(Failure, match="TOO_MANY_ATTEMPTS"):
        await send_verification_email(house.call(), AskForLink(email="ann@example.com"))


# --- what is shown, and the end -------------------------------------------------------------


async def test_a_user_changes_what_is_shown(house: House) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    house.clock.time += 1000
    asked = UpdateUser(name=" Anna ", image="https://example.com/a.png", locale="de")
    assert (await update_user(house.call(session), asked)).status
    user = await house.user()
    assert user is not None
    assert (user.name, user.image, user.locale) == ("Anna", "https://example.com/a.png", "de")
    assert user.updated_at == house.clock.now()
    await update_user(house.call(session), UpdateUser(image=None, locale=None))
    user = await house.user()
    assert user is not None
    assert (user.name, user.image, user.locale) == ("Anna", None, None)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "NO_VALUES_TO_UPDATE"),
        ({"name": ""}, "VALIDATION_ERROR"),
        ({"locale": "xx"}, "VALIDATION_ERROR"),
        ({"image": "ftp://example.com"}, "VALIDATION_ERROR"),
    ],
)
async def test_what_cannot_be_shown_is_refused(
    house: House, asked: dict[str, object], code: str
) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    with pytest.raises(Failure, match=code):
        await update_user(house.call(session), msgspec.convert(asked, UpdateUser))
    assert await house.user() == ann


async def test_a_key_changes_nothing_of_its_owner(house: House) -> None:
    ann = await house.add_user()
    caller = Session(subject=ann.id, kind="key", id="key")
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await update_user(house.call(caller), UpdateUser(name="Eve"))


async def test_a_user_who_leaves_takes_keys_and_logins_along(house: House) -> None:
    ann = await house.add_user()
    session, key = await house.log_in(ann), await house.add_key(ann)
    cached = house.remember(f"owner:{ann.id}")
    with pytest.raises(Failure, match="INVALID_PASSWORD"):
        await delete_user(house.call(session), DeleteUser(password=OTHER))
    call = house.call(session)
    answer = await delete_user(call, DeleteUser(password=PASSWORD))
    assert msgspec.to_builtins(answer) == {"success": True, "message": "User deleted"}
    assert call.reply.session == "end"
    assert await house.user() is None
    assert await house.live_sessions(ann) == set()
    assert (await house.key(key)).revoked_reason == "owner deleted"
    assert house.cache.get(cached) is None
    assert await house.subjects() == ["Your account was deleted"]
    assert (await house.events())[-1] == ("user.deleted", "success", ann.id)
