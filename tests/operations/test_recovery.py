import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import update

from keybearer.adapters.sql.tables import users
from keybearer.domain.errors import Failure
from keybearer.domain.model import Session, User
from keybearer.domain.ports import Transaction
from keybearer.operations.accounts import ConfirmLink, confirm_email
from keybearer.operations.authentication import authenticate_password
from keybearer.operations.links import OpenLink
from keybearer.operations.recovery import (
    AskForReset,
    ChangePassword,
    ResetPassword,
    change_password,
    open_reset_link,
    request_password_reset,
    reset_password,
)
from tests.operations.house import OTHER, PASSWORD, House, open_house

RESET = "Set a new password"
CHANGED = "Your password was changed"


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def ask(house: House, email: str = "ann@example.com", to: str | None = None) -> object:
    answer = await request_password_reset(house.call(), AskForReset(email=email, redirect_to=to))
    return msgspec.to_builtins(answer)


async def reset(house: House, token: str, password: str = OTHER) -> str:
    try:
        await reset_password(house.call(), ResetPassword(new_password=password, token=token))
    except Failure as failure:
        return failure.code
    return "done"


async def test_a_link_is_mailed_and_the_answer_is_the_same_for_everybody(house: House) -> None:
    await house.add_user()
    await house.add_user("bob@example.com", disabled_at=1)
    answers: list[object] = []
    for name in ("ann", "bob", "nobody"):
        house.clock.time += 1
        answers.append(await ask(house, f"{name}@example.com"))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] == {
        "status": True,
        "message": "If this email exists in our system, check your email for the reset link",
    }
    assert await house.subjects() == [RESET]
    assert [letter.recipient for letter in await house.letters()] == ["ann@example.com"]
    assert [outcome for _, outcome, _ in await house.events()] == ["success", "refused", "refused"]


async def test_reset_links_are_throttled_without_telling(house: House) -> None:
    await house.add_user()
    for _ in range(5):
        await ask(house)
    assert await house.subjects() == [RESET] * 3


async def test_a_reset_sets_the_password_and_ends_every_login(house: House) -> None:
    ann = await house.add_user()
    session, key = await house.log_in(ann), await house.add_key(ann)
    cached = house.remember(f"owner:{ann.id}"), house.remember(f"session:{session.id}")
    await ask(house)
    assert await reset(house, await house.token()) == "done"
    assert await house.live_sessions(ann) == set()
    assert [house.cache.get(digest) for digest in cached] == [None, None]
    assert (await house.key(key)).revoked_at is None  # the address was proven before
    assert await house.subjects() == [RESET, CHANGED]
    assert (await house.events())[-1] == ("password.reset", "success", ann.id)
    user = await authenticate_password(house.call(), "ann@example.com", OTHER)
    assert user.id == ann.id


async def test_what_a_reset_ends_is_on_the_trail(house: House) -> None:
    ann = await house.add_user(email_verified_at=None)
    over = await house.log_in(ann)
    key = await house.add_key(ann)
    house.clock.time += 86_400_000  # that login is over by itself: nobody ends it
    one, other = await house.log_in(ann), await house.log_in(ann)
    await ask(house)
    assert await reset(house, await house.token()) == "done"
    assert await house.live_sessions(ann) == {over.id}
    assert await house.targets("session.ended") == [one.id, other.id]
    assert await house.targets("key.revoked") == [key]
    for n in range(2):  # an address that was proven before, too
        third = await house.log_in(ann)
        house.clock.time += 60_000
        await ask(house)
        assert await reset(house, await house.token(), f"{n} lamps under green rain") == "done"
        assert (await house.targets("session.ended"))[2 + n :] == [third.id]
    assert (await house.named()).count("password.reset") == 3


async def test_a_link_works_once_and_only_the_newest(house: House) -> None:
    await house.add_user()
    await ask(house)
    first = await house.token()
    await ask(house)
    assert await reset(house, first) == "INVALID_TOKEN"
    assert await reset(house, await house.token()) == "done"
    assert await reset(house, first) == "INVALID_TOKEN"


async def test_a_refused_password_does_not_use_the_link_up(house: House) -> None:
    await house.add_user()
    await ask(house)
    token = await house.token()
    assert await reset(house, token, "short") == "PASSWORD_TOO_SHORT"
    assert await reset(house, token, "ann@example.com1") == "PASSWORD_TOO_COMMON"
    assert await reset(house, token) == "done"


async def test_of_fifty_resets_at_once_one_succeeds(house: House) -> None:
    await house.add_user()
    await ask(house)
    token = await house.token()
    codes = await asyncio.gather(*(reset(house, token) for _ in range(50)))
    assert sorted(codes) == ["INVALID_TOKEN"] * 49 + ["done"]
    assert (await house.subjects()).count(CHANGED) == 1


async def test_a_link_lives_for_an_hour(house: House) -> None:
    await house.add_user()
    await ask(house)
    token = await house.token()
    house.clock.time += 3_600_000
    assert await reset(house, token) == "INVALID_TOKEN"


@pytest.mark.parametrize(
    "columns", [{"email": "anna@example.com"}, {"disabled_at": 5}, {"id": "somebody else"}]
)
async def test_a_link_is_for_one_user_and_one_address(
    house: House, columns: dict[str, object]
) -> None:
    await house.add_user()
    await ask(house)

    async def body(tx: Transaction) -> None:
        await tx.run(update(users).values(**columns))

    await house.app.database.write(body)
    assert await reset(house, await house.token()) == "INVALID_TOKEN"


async def test_a_reset_link_verifies_nothing_at_the_other_door(house: House) -> None:
    await house.add_user(email_verified_at=None)
    await ask(house)
    token = await house.token()
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await confirm_email(house.call(), ConfirmLink(token=token))
    assert await reset(house, token) == "done"


async def test_a_reset_proves_the_address_and_the_first_proof_revokes_the_keys(
    house: House,
) -> None:
    ann = await house.add_user(email_verified_at=None)
    key = await house.add_key(ann)
    await ask(house)
    assert await reset(house, await house.token()) == "done"
    user = await house.user()
    assert user is not None
    assert user.email_verified_at == house.clock.now()
    assert (await house.key(key)).revoked_at == house.clock.now()


async def test_a_reset_forgets_the_wrong_passwords(house: House) -> None:
    await house.add_user()
    for _ in range(5):
        with pytest.raises(Failure, match="INVALID_EMAIL_OR_PASSWORD"):
            await authenticate_password(house.call(), "ann@example.com", OTHER)
    with pytest.raises(Failure, match="TOO_MANY_ATTEMPTS"):
        await authenticate_password(house.call(), "ann@example.com", PASSWORD)
    await ask(house)
    assert await reset(house, await house.token()) == "done"
    assert isinstance(await authenticate_password(house.call(), "ann@example.com", OTHER), User)


async def test_made_up_links_are_throttled(house: House) -> None:
    codes = [await reset(house, f"token{n}") for n in range(61)]
    assert codes == ["INVALID_TOKEN"] * 60 + ["TOO_MANY_ATTEMPTS"]


async def test_an_opened_link_leads_to_the_page_and_changes_nothing(house: House) -> None:
    await house.add_user()
    await ask(house, to="/reset?x=1#top")
    assert "callbackURL=%2Freset%3Fx%3D1%23top" in await house.link()
    token = await house.token()
    call = house.call()
    await open_reset_link(call, OpenLink(token=token, callback_url="/reset?x=1#top"))
    assert call.reply.location == f"/reset?x=1&token={token}#top"
    call = house.call()
    answer = await open_reset_link(call, OpenLink(token="made up", callback_url="/reset"))
    assert call.reply.location == "/reset?error=INVALID_TOKEN"
    assert not answer.status
    call = house.call()
    assert (await open_reset_link(call, OpenLink(token=token))).status
    assert call.reply.location is None
    with pytest.raises(Failure, match="INVALID_TOKEN"):
        await open_reset_link(house.call(), OpenLink(token="made up"))
    assert await reset(house, token) == "done"


async def change(house: House, session: Session, *, others: bool = True, **more: str) -> object:
    asked = ChangePassword(
        current_password=more.get("current", PASSWORD),
        new_password=more.get("new", OTHER),
        revoke_other_sessions=others,
    )
    return msgspec.to_builtins(await change_password(house.call(session), asked))


async def test_changing_the_password_ends_every_login_and_begins_one(house: House) -> None:
    ann = await house.add_user()
    here, there = await house.log_in(ann), await house.log_in(ann)
    await ask(house)
    token = await house.token()
    cached = house.remember(f"session:{there.id}")
    answer = await change(house, here)
    assert isinstance(answer, dict)
    assert answer["user"]["id"] == ann.id
    live = await house.live_sessions(ann)
    assert len(live) == 1
    assert live.isdisjoint({here.id, there.id})
    assert house.cache.get(cached) is None
    assert (await house.named())[-4:] == [
        "password.changed", "session.ended", "session.ended", "session.opened",
    ]  # fmt: skip
    assert await house.subjects() == [RESET, CHANGED]
    assert await reset(house, token) == "INVALID_TOKEN"
    user = await authenticate_password(house.call(), "ann@example.com", OTHER)
    assert user.id == ann.id


async def test_the_other_logins_stay_when_that_is_asked_for(house: House) -> None:
    ann = await house.add_user()
    here, there = await house.log_in(ann), await house.log_in(ann)
    answer = await change(house, here, others=False)
    assert isinstance(answer, dict)
    assert answer["token"] is None
    assert await house.live_sessions(ann) == {here.id, there.id}


async def test_a_caller_without_a_login_begins_none(house: House) -> None:
    ann = await house.add_user()
    await house.log_in(ann)
    answer = await change(house, Session(subject=ann.id, kind="session", id="of the host"))
    assert isinstance(answer, dict)
    assert answer["token"] is None
    assert await house.live_sessions(ann) == set()


async def test_a_password_is_not_changed_without_the_current_one(house: House) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    with pytest.raises(Failure, match="INVALID_PASSWORD"):
        await change(house, session, current=OTHER)
    with pytest.raises(Failure, match="PASSWORD_TOO_SHORT"):
        await change(house, session, new="short")
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await change(house, Session(subject=ann.id, kind="key", id="key"))
    assert await house.user() == ann
    assert await house.subjects() == []


async def test_of_two_changes_at_once_one_succeeds(house: House) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    results = await asyncio.gather(
        change(house, session, new=OTHER),
        change(house, session, new="nine copper bells at noon"),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Failure) for result in results) == 1
