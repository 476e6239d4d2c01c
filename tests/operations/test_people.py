from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from keybearer.domain.errors import Failure
from keybearer.domain.model import User
from keybearer.operations import people
from keybearer.operations.authentication import authenticate_password
from keybearer.operations.links import RESET, VERIFY, peek
from tests.operations.house import OTHER, PASSWORD, House, open_house


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def log_in(house: House, password: str = PASSWORD) -> User:
    return await authenticate_password(house.call(), "ann@example.com", password)


async def test_a_verified_user_with_a_password_can_log_in_and_gets_no_mail(house: House) -> None:
    made = await people.create(
        house.operator, "Ann@Example.com ", "Ann", PASSWORD, verified=True, admin=True
    )
    assert (made.email, made.role) == ("ann@example.com", "admin")
    assert await log_in(house) == made
    assert await house.subjects() == []
    assert await house.events() == [("user.created", "success", made.id)]


@pytest.mark.parametrize(
    ("password", "subject", "purpose"),
    [(PASSWORD, "Verify your e-mail address", VERIFY), (None, "Choose your password", RESET)],
)
async def test_an_unverified_user_is_mailed_what_is_missing(
    house: House, password: str | None, subject: str, purpose: str
) -> None:
    made = await people.create(house.operator, "ann@example.com", "Ann", password)
    assert await house.subjects() == [subject]
    assert await peek(house.call(), await house.token(), purpose) == made


@pytest.mark.parametrize(
    ("email", "name", "password", "code"),
    [
        ("ann@example.com", "Ann", PASSWORD, "USER_ALREADY_EXISTS"),
        ("ANN@example.com", "Ann", None, "USER_ALREADY_EXISTS"),
        ("bob", "Bob", PASSWORD, "INVALID_EMAIL"),
        ("bob@example.com", "", PASSWORD, "VALIDATION_ERROR"),
        ("bob@example.com", "Bob", "short", "PASSWORD_TOO_SHORT"),
    ],
)
async def test_what_cannot_be_made_is_refused(
    house: House, email: str, name: str, password: str | None, code: str
) -> None:
    await house.add_user()
    with pytest.raises(Failure, match=code):
        await people.create(house.operator, email, name, password)
    assert await house.subjects() == []
    assert await house.events() == []


async def test_users_are_listed_newest_first_and_found_by_parts(house: House) -> None:
    for n, name in enumerate(("ann", "bob", "c_d")):
        house.clock.time += n
        await house.add_user(f"{name}@example.com", name=name.title(), password=None)
    users, total = await people.page(house.operator, limit=2)
    assert [user.email for user in users] == ["c_d@example.com", "bob@example.com"]
    assert total == 3
    users, _ = await people.page(house.operator, limit=2, offset=2)
    assert [user.email for user in users] == ["ann@example.com"]
    for search, found in (("BOB", 1), ("%", 0), ("_", 1), ("example", 3), ("nobody", 0)):
        users, total = await people.page(house.operator, search=search)
        assert (len(users), total) == (found, found)


async def test_a_user_is_found_by_id_and_by_any_spelling(house: House) -> None:
    ann = await house.add_user()
    for who in (ann.id, "ann@example.com", " ANN@Example.com"):
        assert await people.find(house.operator, who) == ann
    for who in ("bob@example.com", "ann", "", "0190c0de-0000-7000-8000-000000000000"):
        with pytest.raises(Failure, match="USER_NOT_FOUND"):
            await people.find(house.operator, who)


async def test_a_disabled_user_stops_at_once_and_comes_back_when_enabled(house: House) -> None:
    ann = await house.add_user()
    session, key = await house.log_in(ann), await house.add_key(ann)
    cached = house.remember(f"owner:{ann.id}"), house.remember(f"session:{session.id}")
    disabled = await people.disable(house.operator, "ann@example.com")
    assert disabled.disabled_at == house.clock.now()
    assert await house.live_sessions(ann) == set()
    assert [house.cache.get(digest) for digest in cached] == [None, None]
    with pytest.raises(Failure, match="USER_DISABLED"):
        await log_in(house)
    house.clock.time += 1000
    again = await people.disable(house.operator, ann.id)
    assert again.disabled_at == disabled.disabled_at
    refused = house.remember(f"owner:{ann.id}")
    enabled = await people.enable(house.operator, ann.id)
    assert enabled.disabled_at is None
    assert house.cache.get(refused) is None
    assert await log_in(house) == enabled
    assert (await house.key(key)).revoked_at is None
    await people.enable(house.operator, ann.id)
    assert await house.named() == ["user.disabled", "session.ended", "login.failed", "user.enabled"]
    assert await house.targets("session.ended") == [session.id]


async def test_a_deleted_user_is_gone_and_the_trail_stays(house: House) -> None:
    ann = await house.add_user()
    session, key = await house.log_in(ann), await house.add_key(ann)
    cached = house.remember(f"owner:{ann.id}"), house.remember(f"session:{session.id}")
    assert await people.delete(house.operator, ann.id) == ann
    assert await house.user() is None
    assert await house.live_sessions(ann) == set()
    assert (await house.key(key)).revoked_reason == "owner deleted"
    assert [house.cache.get(digest) for digest in cached] == [None, None]
    assert await house.events() == [
        ("key.revoked", "success", ann.id),
        ("session.ended", "success", ann.id),
        ("user.deleted", "success", ann.id),
    ]
    with pytest.raises(Failure, match="USER_NOT_FOUND"):
        await people.delete(house.operator, ann.id)
    made = await people.create(house.operator, "ann@example.com", "Ann", OTHER, verified=True)
    assert made.id != ann.id


async def test_only_the_operator_may(house: House) -> None:
    ann = await house.add_user(role="admin")
    call = house.call(await house.log_in(ann))
    for refused in (
        people.create(call, "eve@example.com", "Eve"),
        people.page(call),
        people.find(call, ann.id),
        people.disable(call, ann.id),
        people.enable(call, ann.id),
        people.delete(call, ann.id),
    ):
        with pytest.raises(Failure, match="ADMIN_REQUIRED"):
            await refused
    house.app = replace(house.app, accounts=False)
    with pytest.raises(Failure, match="NOT_FOUND"):
        await people.page(house.operator)
