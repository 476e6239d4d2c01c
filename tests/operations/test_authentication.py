import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, update

from keybearer.adapters.passwords import Cost, Hasher
from keybearer.adapters.sql import accounts
from keybearer.adapters.sql.tables import throttles, users
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Session, User
from keybearer.domain.ports import Transaction
from keybearer.operations import throttle
from keybearer.operations.authentication import (
    KNOWN_STOP,
    STRANGERS_STOP,
    authenticate_password,
    check_new_password,
    confirm_password,
    ensure_unchanged,
)
from tests.operations.house import OTHER, PASSWORD, House, open_house

STRANGER = "198.51.100.9"


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def attempt(
    house: House, email: str, password: str, *, ip: str | None = "203.0.113.7"
) -> str | User:
    try:
        return await authenticate_password(house.call(ip=ip), email, password)
    except Failure as failure:
        return failure.code


async def test_the_right_password_gives_its_user(house: House) -> None:
    ann = await house.add_user()
    assert await attempt(house, "ann@example.com", PASSWORD) == ann
    assert await house.events() == []


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ann@example.com", OTHER),
        ("ann@example.com", PASSWORD + "x" * 300),
        ("ann@example.com", PASSWORD + "\0"),
        ("bob@example.com", PASSWORD),
        ("ann@example.com, eve@example.com", PASSWORD),
        ("", ""),
    ],
)
async def test_whatever_is_wrong_the_answer_is_the_same(
    house: House, email: str, password: str
) -> None:
    ann = await house.add_user()
    assert await attempt(house, email, password) == "INVALID_EMAIL_OR_PASSWORD"
    owner = ann.id if email == "ann@example.com" else None
    assert await house.events() == [("login.failed", "refused", owner)]


async def test_a_user_without_a_password_cannot_log_in(house: House) -> None:
    await house.add_user(password=None)
    assert await attempt(house, "ann@example.com", "") == "INVALID_EMAIL_OR_PASSWORD"


@pytest.mark.parametrize(
    "spelling", ["ANN@example.com", "ann@EXAMPLE.com", " ann@example.com", "ann@example.com\t"]
)
async def test_every_spelling_of_an_address_is_one_account_and_one_bucket(
    house: House, spelling: str
) -> None:
    ann = await house.add_user()
    assert await attempt(house, spelling, PASSWORD) == ann
    for email in ["ann@example.com", spelling] * 2:
        await attempt(house, email, OTHER, ip=STRANGER)
    rows = await house.rows(select(throttles.c.attempts).where(throttles.c.attempts == 4))
    assert len(rows) == 3  # two paces of the address, one account


async def test_what_is_wrong_with_an_account_is_told_after_the_right_password_alone(
    house: House,
) -> None:
    await house.add_user(email_verified_at=None)
    await house.add_user("bob@example.com", disabled_at=1, email_verified_at=None)
    assert await attempt(house, "ann@example.com", OTHER) == "INVALID_EMAIL_OR_PASSWORD"
    assert await attempt(house, "bob@example.com", OTHER) == "INVALID_EMAIL_OR_PASSWORD"
    assert await attempt(house, "ann@example.com", PASSWORD) == "EMAIL_NOT_VERIFIED"
    assert await attempt(house, "bob@example.com", PASSWORD) == "USER_DISABLED"
    house.configure(require_email_verification=False)
    assert isinstance(await attempt(house, "ann@example.com", PASSWORD), User)


async def test_the_right_password_forgets_the_failures(house: House) -> None:
    ann = await house.add_user()
    for _ in range(3):
        for _ in range(4):
            await attempt(house, "ann@example.com", OTHER)
        assert await attempt(house, "ann@example.com", PASSWORD) == ann


async def fail(house: House, email: str, ip: str) -> int:
    """One wrong attempt as soon as it may come; gives how long it had to wait."""
    waited = 0
    while True:
        try:
            await authenticate_password(house.call(ip=ip), email, OTHER)
        except Failure as failure:
            if failure.code == "INVALID_EMAIL_OR_PASSWORD":
                return waited
            waited += failure.retry_after_ms or 0
            house.clock.time += failure.retry_after_ms or 0


@pytest.mark.parametrize("email", ["ann@example.com", "nobody@example.com"])
async def test_delays_grow_alike_for_accounts_that_exist_and_for_others(
    house: House, email: str
) -> None:
    await house.add_user()
    waits = [await fail(house, email, f"198.51.100.{n}") for n in range(18)]
    assert waits == [0] * 5 + [1000 << n for n in range(10)] + [900_000] * 3


@pytest.mark.parametrize("email", ["ann@example.com", "nobody@example.com"])
async def test_strangers_and_known_addresses_have_100_failures_together(
    house: House, email: str
) -> None:
    ann = await house.add_user()
    await house.log_in(ann)
    for n in range(STRANGERS_STOP):
        await fail(house, email, f"198.51.100.{n}")
    house.clock.time += 365 * 86_400_000
    with pytest.raises(Failure, match="Forgot password") as refused:
        await authenticate_password(house.call(ip=STRANGER), email, PASSWORD)
    assert refused.value.retry_after_ms == 86_400_000
    assert STRANGERS_STOP + KNOWN_STOP == 100
    if email == "ann@example.com":
        assert await attempt(house, email, PASSWORD, ip="203.0.113.7") == ann


async def test_the_known_address_of_an_ipv6_user_is_the_whole_network(house: House) -> None:
    ann = await house.add_user()
    await house.log_in(ann, ip="2001:db8:1:2::7")
    for n in range(6):
        await attempt(house, "ann@example.com", OTHER, ip=f"198.51.100.{n}")
    assert await attempt(house, "ann@example.com", PASSWORD, ip=STRANGER) == "TOO_MANY_ATTEMPTS"
    assert await attempt(house, "ann@example.com", PASSWORD, ip="2001:db8:1:2::99") == ann
    assert await attempt(house, "ann@example.com", PASSWORD, ip=None) == "TOO_MANY_ATTEMPTS"


async def test_success_from_a_known_address_clears_that_bucket_alone(house: House) -> None:
    ann = await house.add_user()
    await house.log_in(ann)
    for n in range(5):
        await attempt(house, "ann@example.com", OTHER, ip=f"198.51.100.{n}")
    assert await attempt(house, "ann@example.com", PASSWORD) == ann
    assert await attempt(house, "ann@example.com", PASSWORD, ip=STRANGER) == "TOO_MANY_ATTEMPTS"


async def test_one_address_tries_50_accounts_and_then_five_a_minute(house: House) -> None:
    codes = [await attempt(house, f"user{n}@example.com", OTHER) for n in range(60)]
    assert codes == ["INVALID_EMAIL_OR_PASSWORD"] * 50 + ["TOO_MANY_ATTEMPTS"] * 10
    house.clock.time += 12_000
    codes = [await attempt(house, f"more{n}@example.com", OTHER) for n in range(2)]
    assert codes == ["INVALID_EMAIL_OR_PASSWORD", "TOO_MANY_ATTEMPTS"]


async def test_right_passwords_do_not_use_up_an_address(house: House) -> None:
    ann = await house.add_user()
    for _ in range(60):
        assert await attempt(house, "ann@example.com", PASSWORD) == ann


# --- an address that many share ---


class Counting(Hasher):
    """Counts how often a password is checked, and may be as busy as it is told."""

    told_busy = False

    def __init__(self) -> None:
        super().__init__(threads=1, cost=Cost(memory_kib=8, passes=1))
        self.checked = 0

    @property
    def busy(self) -> bool:
        return self.told_busy or super().busy

    async def verify(self, hashed: str | None, password: str, *, like: str | None = None) -> bool:
        self.checked += 1
        return await super().verify(hashed, password, like=like)


async def use_up(house: House) -> Counting:
    """Somebody else at 203.0.113.7 makes addresses up until that address has no attempts left."""
    for n in range(50):
        await attempt(house, f"made{n}@example.com", OTHER)
    assert await attempt(house, "made-up@example.com", OTHER) == "TOO_MANY_ATTEMPTS"
    hasher = Counting()
    house.app.hasher.close()
    house.app = dataclasses.replace(house.app, hasher=hasher)
    return hasher


async def refusal(house: House, email: str, password: str) -> tuple[str, str, int | None]:
    with pytest.raises(Failure) as refused:
        await authenticate_password(house.call(), email, password)
    return refused.value.code, refused.value.message, refused.value.retry_after_ms


async def test_nobody_locks_out_those_who_share_an_address(house: House) -> None:
    ann = await house.add_user()
    await house.add_user("bob@example.com")
    session = await house.log_in(ann)
    hasher = await use_up(house)
    for _ in range(10):
        assert await attempt(house, "ann@example.com", PASSWORD) == ann
    assert await confirm_password(house.call(session), PASSWORD) == ann
    # Who has never logged in from here waits, as every stranger does.
    assert await attempt(house, "bob@example.com", PASSWORD) == "TOO_MANY_ATTEMPTS"
    hasher.close()


@pytest.mark.parametrize("password", [OTHER, OTHER + "\0"])
async def test_a_used_up_address_does_not_tell_who_logs_in_from_it(
    house: House, password: str
) -> None:
    ann = await house.add_user()
    await house.add_user("bob@example.com")
    await house.log_in(ann)
    hasher = await use_up(house)
    before = await house.events()
    told = set()
    for email in ("ann@example.com", "bob@example.com", "nobody@example.com"):
        for tries in range(1, 8):  # the sixth is more than an account's own delays let through
            hasher.checked = 0
            told.add(await refusal(house, email, password))
            assert hasher.checked == 1, (email, tries)
    assert told == {("TOO_MANY_ATTEMPTS", "Too many attempts. Try again later.", 12_000)}
    assert await house.events() == before
    assert await attempt(house, "no address", OTHER) == "TOO_MANY_ATTEMPTS"
    hasher.close()


async def test_guesses_beyond_an_address_are_those_that_the_account_has_left(house: House) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    hasher = await use_up(house)
    for _ in range(5):
        with pytest.raises(Failure, match="TOO_MANY_ATTEMPTS"):
            await confirm_password(house.call(session), OTHER)
    assert await attempt(house, "ann@example.com", PASSWORD) == "TOO_MANY_ATTEMPTS"
    house.clock.time += 1000
    assert await attempt(house, "ann@example.com", PASSWORD) == ann
    hasher.close()


async def test_what_is_beyond_an_address_leaves_no_rows_behind(house: House) -> None:
    hasher = await use_up(house)
    before = len(await house.rows(select(throttles.c.bucket)))
    for n in range(30):
        await attempt(house, f"more{n}@example.com", OTHER)
    assert len(await house.rows(select(throttles.c.bucket))) == before
    hasher.close()


async def test_what_is_beyond_an_address_gives_way_to_other_log_ins(house: House) -> None:
    ann = await house.add_user()
    await house.log_in(ann)
    await house.log_in(ann, ip="192.0.2.1")
    hasher = await use_up(house)
    hasher.told_busy = True
    for email in ("ann@example.com", "nobody@example.com"):
        assert await attempt(house, email, PASSWORD) == "TOO_MANY_ATTEMPTS"
    assert hasher.checked == 0
    assert await attempt(house, "ann@example.com", PASSWORD, ip="192.0.2.1") == ann
    hasher.told_busy = False
    assert await attempt(house, "ann@example.com", PASSWORD) == ann
    hasher.close()


async def test_an_attempt_beyond_an_address_that_was_not_evaluated_does_not_count(
    house: House,
) -> None:
    ann = await house.add_user()
    await house.log_in(ann)
    hasher = await use_up(house)
    hasher.close()
    before = await house.rows(select(throttles).order_by(throttles.c.bucket))
    for email in ["ann@example.com", "bob@example.com"] * 6:
        with pytest.raises(Unavailable):
            await authenticate_password(house.call(), email, PASSWORD)
    after = await house.rows(select(throttles).order_by(throttles.c.bucket))
    assert [row.attempts for row in after if row.attempts] == [row.attempts for row in before]


async def test_a_pace_that_refuses_takes_nothing_of_the_others(house: House) -> None:
    both = (
        throttle.Pace(name="short", times=5, within_ms=5000),
        throttle.Pace(name="long", times=1, within_ms=1_000_000),
    )

    async def body(tx: Transaction) -> int | None:
        return await throttle.pace(house.call(), tx, both, "value")

    waits = [await house.app.database.write(body) for _ in range(10)]
    assert waits == [None] + [1_000_000] * 9


async def test_a_thousand_guesses_at_once_evaluate_no_more_than_are_left(house: House) -> None:
    await house.add_user()
    codes = await asyncio.gather(
        *(
            attempt(house, "ann@example.com", OTHER, ip=f"198.51.{n // 200}.{n % 200}")
            for n in range(100)
        )
    )
    assert codes.count("INVALID_EMAIL_OR_PASSWORD") == 5
    assert codes.count("TOO_MANY_ATTEMPTS") == 95


async def test_an_attempt_that_was_not_evaluated_does_not_count(house: House) -> None:
    await house.add_user()
    house.app.hasher.close()
    for email in ["ann@example.com"] * 6 + ["no address"]:
        with pytest.raises(Unavailable):
            await authenticate_password(house.call(), email, PASSWORD)
    rows = await house.rows(select(throttles.c.attempts))
    assert {row.attempts for row in rows} == {0}


async def test_an_old_hash_is_renewed_by_the_right_password_alone(house: House) -> None:
    old = Hasher(threads=1, cost=Cost(memory_kib=16, passes=1))
    hashed = await old.hash(PASSWORD)
    old.close()
    await house.add_user(password=None, password_hash=hashed)
    await attempt(house, "ann@example.com", OTHER)
    before = await house.user()
    assert before is not None
    assert before.password_hash == hashed
    given = await attempt(house, "ann@example.com", PASSWORD)
    after = await house.user()
    assert after is not None
    assert after.password_hash != hashed
    assert given == after
    assert isinstance(await attempt(house, "ann@example.com", PASSWORD), User)


async def test_a_renewed_hash_never_overwrites_a_new_password(house: House) -> None:
    ann = await house.add_user()

    async def body(tx: Transaction) -> bool:
        return await accounts.rehash(tx, ann.id, old="another", new="new")

    assert not await house.app.database.write(body)
    assert await house.user() == ann


async def test_a_password_that_changes_during_the_renewal_is_left_alone(house: House) -> None:
    old = Hasher(threads=1, cost=Cost(memory_kib=16, passes=1))
    hashed = await old.hash(PASSWORD)
    old.close()
    await house.add_user(password=None, password_hash=hashed)
    changed = asyncio.Event()

    class Slow(Hasher):
        async def hash(self, password: str) -> str:
            made = await super().hash(password)
            await change(house, password_hash="changed meanwhile")
            changed.set()
            return made

    slow = Slow(threads=1, cost=Cost(memory_kib=8, passes=1))
    app = house.app
    house.app = dataclasses.replace(app, hasher=slow)
    given = await attempt(house, "ann@example.com", PASSWORD)
    slow.close()
    assert changed.is_set()
    assert isinstance(given, User)
    assert given.password_hash == hashed
    with pytest.raises(Failure, match="INVALID_EMAIL_OR_PASSWORD"):
        await app.database.write(lambda tx: ensure_unchanged(tx, given))


async def change(house: House, **columns: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(update(users).values(**columns))

    await house.app.database.write(body)


@pytest.mark.parametrize(
    "columns", [{"password_hash": "another"}, {"disabled_at": 5}, {"id": "somebody else"}]
)
async def test_a_login_does_not_end_after_its_password_did(
    house: House, columns: dict[str, object]
) -> None:
    ann = await house.add_user()
    await house.app.database.write(lambda tx: ensure_unchanged(tx, ann))
    await change(house, **columns)
    with pytest.raises(Failure, match="INVALID_PASSWORD"):
        await house.app.database.write(
            lambda tx: ensure_unchanged(tx, ann, code="INVALID_PASSWORD")
        )


async def test_the_current_password_is_asked_like_a_login(house: House) -> None:
    ann = await house.add_user()
    session = await house.log_in(ann)
    assert await confirm_password(house.call(session), PASSWORD) == ann
    for _ in range(5):
        with pytest.raises(Failure, match="INVALID_PASSWORD"):
            await confirm_password(house.call(session), OTHER)
    with pytest.raises(Failure, match="TOO_MANY_ATTEMPTS"):
        await confirm_password(house.call(session), PASSWORD)
    assert await attempt(house, "ann@example.com", PASSWORD) == "TOO_MANY_ATTEMPTS"
    assert await house.events() == [("password.refused", "refused", ann.id)] * 5


async def test_a_key_and_a_deleted_user_confirm_nothing(house: House) -> None:
    ann = await house.add_user()
    with pytest.raises(Failure, match="UNAUTHORIZED"):
        await confirm_password(house.call(), PASSWORD)
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await confirm_password(house.call(Session(subject=ann.id, kind="key", id="k")), PASSWORD)
    with pytest.raises(Failure, match="UNAUTHORIZED"):
        await confirm_password(house.call(Session(subject="x", kind="session", id="s")), PASSWORD)


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("a" * 14, "PASSWORD_TOO_SHORT"),
        ("a" * 257, "PASSWORD_TOO_LONG"),
        ("ﷺ" * 20, "PASSWORD_TOO_LONG"),
        ("a" * 20 + "\0", "INVALID_PASSWORD"),
        ("passwordpassword", "PASSWORD_TOO_COMMON"),
        ("ann.archer.example", "PASSWORD_TOO_COMMON"),
    ],
)
async def test_a_new_password_is_refused_with_the_reason(
    house: House, password: str, code: str
) -> None:
    with pytest.raises(Failure, match=code) as refused:
        await check_new_password(house.call(), password, ("ann.archer@example.com", "Ann"))
    assert refused.value.message.endswith(".")


async def test_a_new_password_is_given_in_normal_form(house: House) -> None:
    given = await check_new_password(house.call(), "\uff51uiet otters fold paper maps", ())
    assert given == PASSWORD


async def test_old_counts_are_swept_and_closed_accounts_stay_closed(house: House) -> None:
    for n in range(STRANGERS_STOP):
        await fail(house, "ann@example.com", f"198.51.100.{n}")
    house.clock.time += 31 * 86_400_000
    now = house.clock.now()
    await house.app.database.write(lambda tx: accounts.sweep(tx, now=now))
    rows = await house.rows(select(throttles.c.attempts))
    assert [row.attempts for row in rows] == [STRANGERS_STOP]
    assert await attempt(house, "ann@example.com", PASSWORD) == "TOO_MANY_ATTEMPTS"


async def test_a_refused_transaction_counts_nothing(house: House) -> None:
    only = (throttle.Pace(name="once", times=1, within_ms=1000),)

    async def body(tx: Transaction) -> None:
        await throttle.limit_here(house.call(), tx, only)

    await house.app.database.write(body)
    for _ in range(3):
        with pytest.raises(Failure) as refused:
            await house.app.database.write(body)
        assert refused.value.retry_after_ms == 1000
    house.clock.time += 1000
    await house.app.database.write(body)


@pytest.mark.parametrize("hashed", ["garbage", "$argon2id$", "$scrypt$ln=0,r=8,p=1$c2FsdA$c2FsdA"])
async def test_a_hash_that_nobody_can_read_is_a_wrong_password_for_all(
    house: House, hashed: str
) -> None:
    await house.add_user("bob@example.com", password=None, password_hash=hashed)
    for email in ("bob@example.com", "ann@example.com"):
        assert await attempt(house, email, PASSWORD) == "INVALID_EMAIL_OR_PASSWORD"
