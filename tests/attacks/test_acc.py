"""Sign-up, login, verification and passwords, attacked (security rows A131 to A163).

Nobody changes an address, so A133 and A159 ask that there is no way to: neither a path nor a field.
"""

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from sqlalchemy import func, select

from keybearer import Auth, Misuse
from keybearer.adapters.passwords import Cost, Hasher
from keybearer.adapters.sql.tables import (
    api_keys,
    refresh_tokens,
    service_tokens,
    sessions,
    throttles,
    users,
)
from keybearer.domain.errors import Failure
from keybearer.domain.model import Session, User
from keybearer.operations.accounts import (
    AskForLink,
    ConfirmLink,
    SignUp,
    UpdateUser,
    confirm_email,
    send_verification_email,
    sign_up_email,
    verify_email,
)
from keybearer.operations.authentication import authenticate_password, check_new_password
from keybearer.operations.links import OpenLink
from keybearer.operations.recovery import (
    AskForReset,
    ChangePassword,
    ResetPassword,
    change_password,
    request_password_reset,
    reset_password,
)
from keybearer.web.mount import no_app
from tests.attacks.town import Town, is_problem
from tests.operations.house import OTHER, PASSWORD, START, House, open_house
from tests.people import SECRET

ANN = "ann@example.com"


@pytest.fixture
async def house(ready_url: str) -> AsyncIterator[House]:
    async with open_house(ready_url) as opened:
        yield opened


async def log_in(
    house: House, email: str = ANN, password: str = PASSWORD, *, ip: str = "203.0.113.7"
) -> str:
    try:
        await authenticate_password(house.call(ip=ip), email, password)
    except Failure as failure:
        return failure.code
    return "right"


async def sign_up(house: House, email: str = ANN, password: str = PASSWORD) -> object:
    asked = SignUp(name="Ann", email=email, password=password)
    return msgspec.to_builtins(await sign_up_email(house.call(), asked))


async def confirm(house: House, token: str) -> str:
    try:
        await confirm_email(house.call(), ConfirmLink(token=token))
    except Failure as failure:
        return failure.code
    return "done"


async def reset(house: House, token: str, password: str = OTHER) -> str:
    try:
        await reset_password(house.call(), ResetPassword(new_password=password, token=token))
    except Failure as failure:
        return failure.code
    return "done"


@pytest.mark.parametrize("verified_at", [None, START])
async def test_a131_sign_up_answers_alike_whoever_has_the_address(
    house: House, verified_at: int | None
) -> None:
    await house.add_user(email_verified_at=verified_at)
    known, new = await sign_up(house), await sign_up(house, "bob@example.com")
    for answer in (known, new):
        assert isinstance(answer, dict)
        answer["user"].pop("id")
        answer["user"].pop("email")
    assert known == new
    assert [letter.recipient for letter in await house.letters()] == [ANN, "bob@example.com"]
    assert len(await house.rows(select(users))) == 2


async def test_a134_a_hundred_addresses_cannot_guess_nor_lock_the_owner_out(house: House) -> None:
    ann = await house.add_user()
    await house.log_in(ann, ip="203.0.113.7")
    codes = [await log_in(house, password=OTHER, ip=f"198.51.100.{n}") for n in range(100)]
    assert codes == ["INVALID_EMAIL_OR_PASSWORD"] * 5 + ["TOO_MANY_ATTEMPTS"] * 95
    assert await log_in(house, ip="203.0.113.7") == "right"


async def test_a135_one_password_for_many_accounts_stops_at_the_address(house: House) -> None:
    codes = [await log_in(house, f"user{n}@example.com") for n in range(200)]
    assert codes.count("INVALID_EMAIL_OR_PASSWORD") == 50


async def test_a136_guesses_in_parallel_evaluate_no_more_than_the_limit(house: House) -> None:
    await house.add_user()
    guesses = [log_in(house, password=OTHER, ip=f"10.0.{n // 250}.{n % 250}") for n in range(1000)]
    codes: list[str] = []
    for start in range(0, 1000, 200):  # the pool of PostgreSQL holds that many callers
        codes += await asyncio.gather(*guesses[start : start + 200])
    assert codes.count("INVALID_EMAIL_OR_PASSWORD") == 5
    assert codes.count("TOO_MANY_ATTEMPTS") == 995


async def test_a137_spellings_of_one_address_are_one_bucket(house: House) -> None:
    spellings = ["A@x.com", "a@X.com", " a@x.com", "a@x.com\t", "a@x.com"]
    assert {await log_in(house, each) for each in spellings} == {"INVALID_EMAIL_OR_PASSWORD"}
    assert await log_in(house, "a@x.com", ip="198.51.100.1") == "TOO_MANY_ATTEMPTS"
    assert await log_in(house, "a\uff20x.com") == "INVALID_EMAIL_OR_PASSWORD"


@pytest.mark.parametrize("length", [72, 128, 255])
async def test_a140_no_password_is_cut_off(house: House, length: int) -> None:
    password = (PASSWORD * 10)[:length]
    await house.add_user(password=password + "a")
    assert await log_in(house, password=password + "b") == "INVALID_EMAIL_OR_PASSWORD"
    assert await log_in(house, password=password) == "INVALID_EMAIL_OR_PASSWORD"
    assert await log_in(house, password=password + "a\0") == "INVALID_EMAIL_OR_PASSWORD"
    assert await log_in(house, password=password + "a") == "right"


@pytest.mark.parametrize(
    ("set_as", "typed_as", "code"),
    [
        ("zwölf Boote am Kai", "zwo\u0308lf Boote am Kai", "right"),
        ("🦦 four otters 🦦 swim", "🦦 four otters 🦦 swim", "right"),
        (" spaces at both ends ", "spaces at both ends", "INVALID_EMAIL_OR_PASSWORD"),
        ("Letters Of Both Cases", "letters of both cases", "INVALID_EMAIL_OR_PASSWORD"),
    ],
)
async def test_a141_a_password_is_its_nfkc_form_and_nothing_less(
    house: House, set_as: str, typed_as: str, code: str
) -> None:
    await house.add_user(email_verified_at=None)
    await request_password_reset(house.call(), AskForReset(email=ANN))
    assert await reset(house, await house.token(), set_as) == "done"
    assert await log_in(house, password=typed_as) == code


@pytest.mark.parametrize(
    "password",
    ["passwordpassword", "ann@example.com", "keybearerkeybearer", "123456789012345678"],
)
async def test_a142_guessable_passwords_are_refused_with_a_reason(
    house: House, password: str
) -> None:
    with pytest.raises(Failure, match="PASSWORD_TOO_COMMON") as refused:
        await sign_up(house, password=password)
    assert len(refused.value.message) > 40


async def test_a143_nothing_must_be_mixed_in_and_nothing_expires(house: House) -> None:
    password = "otterlampmapgreenrain"
    assert await check_new_password(house.call(), password, ()) == password
    await house.add_user(password=password)
    house.clock.time += 400 * 86_400_000
    assert await log_in(house, password=password) == "right"


async def test_a145_an_old_hash_is_renewed_by_the_right_password_alone(house: House) -> None:
    old = Hasher(threads=1, cost=Cost(memory_kib=16, passes=1))
    ann = await house.add_user(password=None, password_hash=await old.hash(PASSWORD))
    old.close()
    await log_in(house, password=OTHER)
    assert await house.user() == ann
    assert await asyncio.gather(*(log_in(house) for _ in range(4))) == ["right"] * 4
    after = await house.user()
    assert after is not None
    assert after.password_hash != ann.password_hash
    assert not house.app.hasher.needs_rehash(after.password_hash or "")


async def test_a146_look_alikes_are_one_account_or_none(house: House) -> None:
    await sign_up(house, "victim@example.com")
    await sign_up(house, "VICTIM@Example.COM")
    for spelling in (
        "victim\uff20example.com",
        "\uff56ictim@example.com",
        "v\u0131ctim@example.com",
    ):
        with pytest.raises(Failure, match="INVALID_EMAIL"):
            await sign_up(house, spelling)
    with pytest.raises(Failure, match="INVALID_EMAIL"):
        await sign_up(house, "victim@ex\u0430mple.com")
    assert len(await house.rows(select(users))) == 1


@pytest.mark.parametrize(
    "email",
    ["a@x.com\r\nBcc: e@evil.example", "a@x.com,e@evil.example", '"a\\"@x"@y.com', "<a@x.com>"],
)
async def test_a147_a_mail_goes_to_one_address(house: House, email: str) -> None:
    with pytest.raises(Failure, match="INVALID_EMAIL"):
        await sign_up(house, email)
    with pytest.raises(Failure, match="INVALID_EMAIL"):
        await request_password_reset(house.call(), AskForReset(email=email))
    with pytest.raises(Failure, match="INVALID_EMAIL"):
        await send_verification_email(house.call(), AskForLink(email=email))
    assert await house.letters() == []


def test_a147_an_array_of_addresses_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "A", "email": ["a@x.com"], "password": PASSWORD}, SignUp)


async def test_a148_of_fifty_that_open_a_link_at_once_one_succeeds(house: House) -> None:
    await sign_up(house)
    token = await house.token()
    codes = await asyncio.gather(*(confirm(house, token) for _ in range(50)))
    assert sorted(codes) == ["INVALID_TOKEN"] * 49 + ["done"]
    events = [event for event, _, _ in await house.events()]
    assert events.count("email.verified") == 1


async def test_a149_a_link_is_for_its_purpose_alone(house: House) -> None:
    await sign_up(house)
    verification = await house.token()
    await request_password_reset(house.call(), AskForReset(email=ANN))
    recovery = await house.token()
    assert await confirm(house, recovery) == "INVALID_TOKEN"
    assert await reset(house, verification) == "INVALID_TOKEN"
    assert await reset(house, recovery) == "done"


async def test_a150_links_end_with_their_time_and_with_a_reset(house: House) -> None:
    await sign_up(house)
    verification = await house.token()
    await request_password_reset(house.call(), AskForReset(email=ANN))
    assert await reset(house, await house.token()) == "done"
    assert await confirm(house, verification) == "INVALID_TOKEN"
    await sign_up(house, "bob@example.com")
    token = await house.token()
    house.clock.time += 24 * 3_600_000
    assert await confirm(house, token) == "INVALID_TOKEN"


async def test_a152_a_scanner_that_opens_links_logs_nobody_in(house: House) -> None:
    await sign_up(house)
    call = house.call()
    answer = await verify_email(call, OpenLink(token=await house.token()))
    user = await house.user()
    assert user is not None
    assert (answer.user, call.reply.session) == (None, None)
    assert await house.live_sessions(user) == set()


@pytest.mark.parametrize("by", ["verification", "reset"])
async def test_a153_what_was_there_before_the_owner_ends_when_the_owner_comes(
    house: House, by: str
) -> None:
    house.configure(require_email_verification=False)
    await sign_up(house, password=OTHER)  # by somebody else
    user = await house.user()
    assert user is not None
    await house.log_in(user)
    key = await house.add_key(user)
    token = await house.token()
    if by == "verification":
        assert await confirm(house, token) == "done"
    else:
        await request_password_reset(house.call(), AskForReset(email=ANN))
        assert await reset(house, await house.token(), PASSWORD) == "done"
        assert await log_in(house, password=OTHER) == "INVALID_EMAIL_OR_PASSWORD"
    assert await house.live_sessions(user) == set()
    assert (await house.key(key)).revoked_at is not None


async def test_a153_the_owner_who_signs_up_second_does_not_verify_the_first_password(
    house: House,
) -> None:
    await sign_up(house, password=OTHER)  # by somebody else
    first = await house.token()
    await sign_up(house, password=PASSWORD)
    assert await confirm(house, first) == "INVALID_TOKEN"
    assert await reset(house, await house.token(), PASSWORD) == "done"
    assert await log_in(house, password=OTHER) == "INVALID_EMAIL_OR_PASSWORD"
    assert await log_in(house, password=PASSWORD) == "right"


async def test_a154_only_the_right_password_hears_that_the_address_is_unverified(
    house: House,
) -> None:
    await house.add_user(email_verified_at=None)
    assert await log_in(house, password=OTHER) == "INVALID_EMAIL_OR_PASSWORD"
    assert await log_in(house) == "EMAIL_NOT_VERIFIED"
    for _ in range(10):
        await send_verification_email(house.call(), AskForLink(email=ANN))
    assert len(await house.letters()) == 3


async def test_a155_links_begin_with_the_base_url(house: House) -> None:
    await house.add_user()
    await request_password_reset(house.call(), AskForReset(email=ANN))
    assert (await house.link()).startswith("http://127.0.0.1:8000/api/auth/reset-password/")
    for target in ("https://evil.example", "//evil.example"):
        asked = AskForReset(email=ANN, redirect_to=target)
        with pytest.raises(Failure, match="INVALID_REDIRECT_URL"):
            await request_password_reset(house.call(), asked)


async def test_a156_of_fifty_resets_at_once_one_succeeds_and_every_login_ends(
    house: House,
) -> None:
    ann = await house.add_user()
    for _ in range(3):
        await house.log_in(ann)
    await request_password_reset(house.call(), AskForReset(email=ANN))
    token = await house.token()
    codes = await asyncio.gather(*(reset(house, token) for _ in range(50)))
    assert sorted(codes) == ["INVALID_TOKEN"] * 49 + ["done"]
    assert await house.live_sessions(ann) == set()


async def test_a158_a_password_is_changed_with_the_current_one_alone(house: House) -> None:
    ann = await house.add_user()
    session, other = await house.log_in(ann), await house.log_in(ann)
    asked = ChangePassword(new_password=OTHER, current_password=PASSWORD)
    wrong = ChangePassword(new_password=OTHER, current_password=OTHER)
    with pytest.raises(Failure, match="INVALID_PASSWORD"):
        await change_password(house.call(session), wrong)
    key = Session(subject=ann.id, kind="key", id="key")
    with pytest.raises(Failure, match="SESSION_REQUIRED"):
        await change_password(house.call(key), asked)
    assert await house.live_sessions(ann) == {session.id, other.id}
    call = house.call(session)
    answer = await change_password(call, asked)
    # A new token for whoever changed it; the one of before is dead like all others (R-SES-02).
    live = await house.live_sessions(ann)
    assert len(live) == 1
    assert live.isdisjoint({session.id, other.id})
    assert call.reply.session is not None
    assert answer.token is not None


async def test_a133_no_path_changes_an_address_and_none_tells_who_has_one(town: Town) -> None:
    for path in ("/change-email", "/update-email", "/change-email/confirm", "/email/change"):
        answers = [
            await town.post(path, town.t1, newEmail=address, email=address)
            for address in ("u2@example.com", "free@example.com")
        ]
        told = [{**answer.json(), "requestId": ""} for answer in answers]
        assert all(is_problem(answer, 404, "NOT_FOUND") for answer in answers)
        assert told[0] == told[1]
    assert [each.path for each in town.auth.operations if "change-email" in each.path] == []


async def test_a159_an_address_stays_whoever_asks_to_change_it(town: Town) -> None:
    for field in ("email", "newEmail", "emailVerified"):
        for value in ("u2@example.com", "free@example.com", None):
            answer = await town.post("/update-user", town.t1, **{field: value, "name": "New"})
            assert is_problem(answer, 400, "UNKNOWN_FIELD"), field
    user = (await town.get("/get-session", town.t1)).json()["user"]
    assert (user["email"], user["name"]) == ("u1@example.com", "Ada")
    assert await town.events("user.updated") == []


@pytest.mark.parametrize("field", ["role", "emailVerified", "id", "permissions", "isAdmin"])
def test_a160_nobody_signs_up_with_more_than_is_asked_for(field: str) -> None:
    asked = {"name": "Ann", "email": ANN, "password": PASSWORD, field: "admin"}
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(asked, SignUp)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"name": "Ann", field: "admin"}, UpdateUser)


async def test_a160_who_signs_up_is_an_unverified_user(house: House) -> None:
    await sign_up(house)
    user = await house.user()
    assert isinstance(user, User)
    assert (user.role, user.email_verified_at) == ("user", None)


async def test_the_table_of_attempts_names_nobody(house: House) -> None:
    await house.add_user()
    await log_in(house, password=OTHER)
    for row in await house.rows(select(throttles.c.bucket)):
        assert len(bytes(row.bucket)) == 32
        assert b"ann" not in bytes(row.bucket)


async def test_a163_a_fresh_install_knows_nobody(ready_url: str) -> None:
    auth = Auth(ready_url, secret=SECRET, token_management=True)
    async with auth.lifespan():
        found = await auth.running()
        for table in (users, api_keys, service_tokens, sessions, refresh_tokens):
            statement = select(func.count().label("n")).select_from(table)
            row = await found.database.read(lambda tx, s=statement: tx.one(s))  # type: ignore[misc]
            assert row is not None
            assert row.n == 0, table.name
        site = auth.mount(no_app)
        transport = httpx2.ASGITransport(app=site, client=("127.0.0.1", 50000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for name in ("admin", "root", "keybearer", "test"):
                asked = {"email": f"{name}@example.com", "password": name}
                answer = await client.post("/api/auth/login", json=asked)
                assert is_problem(answer, 401, "INVALID_EMAIL_OR_PASSWORD")


async def test_a163_each_install_has_a_secret_of_its_own(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        auth = Auth(f"sqlite:///{tmp_path / name}.db", accounts=False)
        async with auth.lifespan():
            file = tmp_path / f"{name}.db-secret"
            assert file.stat().st_mode & 0o777 == 0o600
            made.append(file.read_text().strip())
    assert made[0] != made[1]
    assert {len(bytes.fromhex(each)) for each in made} == {48}
    with pytest.raises(Misuse, match="SECRET"):
        Auth("postgresql://nobody@127.0.0.1:9/keybearer")


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        "x" * 64,
        "ab" * 32,
        "0123456789" * 4,
        "12345678901234567890123456789012",
        "0123456789abcdef0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz123456",
        "change-me-change-me-change-me-change-me",
        "changeme-to-32-bytes-of-randomness",
        "your-secret-key-of-at-least-32-bytes",
        "better-auth-secret-12345678901234567890",
        "replace-this-with-openssl-rand-base64-48",
        "EXAMPLE-KEY-0d41-not-for-production-use",
        f"{SECRET},change-me-change-me-change-me-change-me",
    ],
)
async def test_a163_no_server_starts_with_a_weak_or_example_secret(
    secret: str, tmp_path: Path
) -> None:
    with pytest.raises(Misuse, match="openssl rand -base64 48") as told:
        Auth(f"sqlite:///{tmp_path}/k.db", secret=secret)
    assert secret not in str(told.value)
    (tmp_path / "k.db-secret").write_text(secret.replace(",", "\n"))
    (tmp_path / "k.db-secret").chmod(0o600)
    auth = Auth(f"sqlite:///{tmp_path}/k.db")
    with pytest.raises(Misuse, match="openssl rand -base64 48"):
        await auth.start()


def test_a163_random_secrets_are_taken() -> None:
    for _ in range(300):
        raw = os.urandom(48)
        for secret in (raw.hex(), raw[:16].hex(), b64encode(raw).decode(), raw[:24].hex().upper()):
            assert Auth("sqlite:///k.db", secret=secret).settings.secret == (secret,)
