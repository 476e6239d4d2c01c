"""A person signs up, proves the address, logs in, forgets the password, and gets a new one."""

import re

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations import outbox
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, StandingClock

EMAIL = "bea@example.com"
OTHER_PASSWORD = "nine purple kettles whistle softly"


async def mails(auth: Auth) -> list[str]:
    return [letter.text for letter in await outbox.recent(await auth.running(), limit=20)]


async def link_of(auth: Auth, purpose: str = "verify-email") -> str:
    """The address in the one mail for a purpose."""
    (found,) = re.findall(
        rf"http://127\.0\.0\.1:8000(/\S+/{purpose}\S+)", "\n".join(await mails(auth))
    )
    return str(found)


@pytest.fixture
async def surfer(client: httpx2.AsyncClient) -> Surfer:
    return Surfer(client)


async def joined(surfer: Surfer, auth: Auth, *, locale: str = "en") -> Surfer:
    await surfer.open(f"/{locale}/sign-up")
    await surfer.send("/sign-up", name="Bea", email=EMAIL, new_password=PASSWORD)
    assert surfer.path.startswith(f"/{locale}/check-mail")
    return await surfer.open(await link_of(auth))


async def test_who_signs_up_verifies_and_logs_in(surfer: Surfer, auth: Auth) -> None:
    await joined(surfer, auth)
    assert surfer.path == "/en/verified"
    assert "Your address is verified" in surfer.text
    await surfer.open("/en/login")
    await surfer.send("/login", email=EMAIL, password=PASSWORD)
    assert surfer.path == "/en/account/api-keys"
    assert "No keys yet" in surfer.text
    await surfer.send("/logout")
    assert surfer.path == "/en/login"
    assert "You are logged out." in surfer.text
    await surfer.open("/en/account/api-keys")
    assert surfer.path.startswith("/en/login?next=")


async def test_mails_are_in_the_language_of_the_page(surfer: Surfer, auth: Auth) -> None:
    await joined(surfer, auth, locale="de")
    assert surfer.path == "/de/verified"
    mails = await outbox.recent(await auth.running(), limit=5)
    assert "E-Mail" in mails[0].subject


async def test_a_link_that_was_used_says_so_and_offers_another(surfer: Surfer, auth: Auth) -> None:
    await surfer.open("/en/sign-up")
    await surfer.send("/sign-up", name="Bea", email=EMAIL, new_password=PASSWORD)
    link = await link_of(auth)
    await surfer.open(link)
    await surfer.open(link)
    assert surfer.path.startswith("/en/verified?error=")
    assert "This link does not work" in surfer.text
    await surfer.send("/check-mail", email=EMAIL)
    assert "a new mail is on its way" in surfer.text


async def test_before_the_proof_a_login_says_what_is_missing(surfer: Surfer, auth: Auth) -> None:
    await surfer.open("/en/sign-up")
    await surfer.send("/sign-up", name="Bea", email=EMAIL, new_password=PASSWORD)
    await surfer.open("/en/login")
    await surfer.send("/login", email=EMAIL, password=PASSWORD)
    assert surfer.status == 403
    assert "Verify your e-mail address first" in surfer.text
    again = next(link for link in surfer.seen.links if "check-mail" in link)
    await surfer.open(again)
    await surfer.send("/check-mail")
    assert len(await mails(auth)) == 2


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"name": "  "}, 400, "Enter your name."),
        ({"email": "no address"}, 400, "Enter an e-mail address"),
        ({"email": "a@b@c"}, 400, "Enter an e-mail address"),
        ({"new_password": "short"}, 400, "at least 15 characters"),
        ({"new_password": "passwordpassword"}, 400, "too easy to guess"),
        ({"new_password": "a" * 5_000}, 400, "too long"),
        ({"name": "x" * 200}, 400, "can’t be used"),
        ({"email": "e" * 400 + "@example.com"}, 400, "e-mail address"),
    ],
)
async def test_what_cannot_be_used_is_told_at_its_field(
    surfer: Surfer, fields: dict[str, str], status: int, said: str
) -> None:
    await surfer.open("/en/sign-up")
    usual = {"name": "Bea", "email": EMAIL, "new_password": PASSWORD}
    await surfer.send("/sign-up", **{**usual, **fields})
    assert surfer.status == status
    assert said in surfer.text
    kept = dict(surfer.seen.form("/sign-up").fields)
    assert kept["name"] == {**usual, **fields}["name"]
    assert kept["new_password"] == ""


async def test_a_sign_up_does_not_tell_whether_there_is_an_account(
    surfer: Surfer, auth: Auth
) -> None:
    await joined(surfer, auth)
    pages = []
    for email in (EMAIL, "nobody@example.com"):
        await surfer.open("/en/sign-up")
        await surfer.send("/sign-up", name="Bea", email=email, new_password=PASSWORD)
        pages.append((surfer.status, surfer.text))
    assert pages[0] == pages[1]


async def test_a_reset_does_not_tell_whether_there_is_an_account(
    surfer: Surfer, auth: Auth
) -> None:
    await joined(surfer, auth)
    pages = []
    for email in (EMAIL, "nobody@example.com"):
        await surfer.open("/en/forgot-password")
        await surfer.send("/forgot-password", email=email)
        pages.append((surfer.status, surfer.text))
    assert pages[0] == pages[1]


async def test_who_forgot_the_password_sets_a_new_one(surfer: Surfer, auth: Auth) -> None:
    await joined(surfer, auth)
    await surfer.open("/en/forgot-password")
    await surfer.send("/forgot-password", email=EMAIL)
    link = await link_of(auth, "reset-password")
    await surfer.open(link)
    assert surfer.path.startswith("/en/reset-password?token=")
    await surfer.send("/reset-password", new_password="short")
    assert surfer.status == 400
    assert "at least 15 characters" in surfer.text
    await surfer.send("/reset-password", new_password=OTHER_PASSWORD)
    assert surfer.path == "/en/login"
    assert "Your password is set" in surfer.text
    await surfer.send("/login", email=EMAIL, password=PASSWORD)
    assert (surfer.status, "is wrong" in surfer.text) == (401, True)
    await surfer.send("/login", email=EMAIL, password=OTHER_PASSWORD)
    assert surfer.path == "/en/account/api-keys"
    await surfer.open(link)
    assert "This link does not work" in surfer.text


@pytest.mark.parametrize("path", ["/en/reset-password", "/en/reset-password?token=made-up"])
async def test_a_reset_without_a_good_token_sets_nothing(surfer: Surfer, path: str) -> None:
    await surfer.open(path)
    if "token" in path:
        await surfer.send("/reset-password", new_password=OTHER_PASSWORD)
        assert surfer.status == 400
    assert "This link does not work" in surfer.text


async def test_a_wrong_password_and_an_unknown_address_look_the_same(
    surfer: Surfer, auth: Auth
) -> None:
    await joined(surfer, auth)
    pages = []
    for email in (EMAIL, "nobody@example.com"):
        await surfer.open("/en/login")
        await surfer.send("/login", email=email, password=OTHER_PASSWORD)
        assert surfer.status == 401
        pages.append(surfer.seen.html.replace(email, "…"))
    assert pages[0] == pages[1]


async def test_too_many_attempts_are_told_and_not_a_verdict(surfer: Surfer, auth: Auth) -> None:
    await joined(surfer, auth)
    for _ in range(60):
        await surfer.open("/en/login")
        await surfer.send("/login", email=EMAIL, password=OTHER_PASSWORD)
        if surfer.status == 429:
            break
    assert "Too many attempts" in surfer.text


async def test_whoever_is_logged_in_needs_no_log_in(
    surfer: Surfer, auth: Auth, clock: StandingClock
) -> None:
    await joined(surfer, auth)
    await surfer.open("/en/login?next=/en/account/sessions")
    await surfer.send("/login", email=EMAIL, password=PASSWORD)
    assert surfer.path == "/en/account/sessions"
    await surfer.open("/en/login?next=/en/account/security")
    assert surfer.path == "/en/account/security"
    await surfer.open("/en/sign-up")
    assert surfer.path == "/en/account/api-keys"


async def test_a_cookie_ends_with_the_browser_unless_it_shall_stay(
    surfer: Surfer, auth: Auth
) -> None:
    await joined(surfer, auth)
    for remember, lasting in ((None, False), ("yes", True)):
        origin = {"origin": "http://127.0.0.1:8000"}
        data = {"email": EMAIL, "password": PASSWORD}
        if remember:
            data["remember"] = remember
        answer = await surfer.client.post("/en/login", data=data, headers=origin)
        (cookie,) = (c for c in answer.headers.get_list("set-cookie") if "session" in c)
        assert ("Max-Age" in cookie) == lasting
        assert "set-auth-token" not in answer.headers
