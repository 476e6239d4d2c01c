"""A key is made by a form: once, within what is allowed, and only by who confirmed."""

import dataclasses
from typing import Any

import pytest

from keybearer import Auth
from keybearer.domain.errors import Failure, Unavailable
from keybearer.operations.declaration import Operation
from keybearer.operations.keys import create_api_key
from keybearer.web.pages import making
from keybearer.web.pages.making import expiry
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, START, StandingClock

DAY = 86_400_000
NEW = "/en/account/api-keys/new"


def secret(surfer: Surfer) -> str:
    """The key on the page."""
    return next(has["value"] for tag, has in surfer.seen.elements if has.get("id") == "key")


# --- when it ends ---


@pytest.mark.parametrize(
    ("fields", "means"),
    [
        ({"expires": "7"}, {"expires_in": 7 * 86_400}),
        ({"expires": "never"}, {"expires_in": None}),
        ({"expires": "keep"}, {}),
        (
            {"expires": "date", "date": "2026-12-31"},
            {"expires_at": "2026-12-31T23:59:59.999Z"},
        ),
    ],
)
def test_a_choice_means_what_it_says(fields: dict[str, str], means: dict[str, object]) -> None:
    assert expiry(fields, START) == means


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"expires": "8"},
        {"expires": "date"},
        {"expires": "date", "date": "2026-11-17"},
        {"expires": "date", "date": "2026-02-30"},
        {"expires": "date", "date": "31.12.2026"},
        {"expires": "date", "date": "2026-12-31T00:00"},
        {"expires": "date", "date": "2026-W01-1"},
        {"expires": "date", "date": "\uff19999-12-31"},
    ],
)
def test_what_is_no_date_to_come_is_refused(fields: dict[str, str]) -> None:
    refused = expiry(fields, START)
    assert isinstance(refused, Failure)
    assert refused.code == "EXPIRES_IN_IS_TOO_SMALL"


async def test_more_than_is_allowed_is_told_and_never_silent(surfer: Surfer) -> None:
    """Others drop a date that is too late without a word, and the key never ends."""
    await surfer.open(NEW)
    await surfer.send("/new", name="CI", expires="date", date="2031-01-01")
    assert surfer.status == 400
    assert "Keys may live for 365 days at most here." in surfer.text
    kept = dict(surfer.seen.form("/new").fields)
    assert (kept["name"], kept["expires"], kept["date"]) == ("CI", "date", "2031-01-01")


async def test_the_last_day_that_is_offered_is_taken(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    await surfer.open(NEW)
    (picker,) = (has for _, has in surfer.seen.elements if has.get("type") == "date")
    for day in (picker["min"], picker["max"]):
        await surfer.open(NEW)
        await surfer.send("/new", name=day, expires="date", date=day)
        assert surfer.status == 200, day
    found = await auth.api.list_api_keys(owner=owner)
    assert {key.expires_at for key in found.api_keys} == {
        "2026-11-18T23:59:59.999Z",
        "2027-11-17T23:59:59.999Z",
    }


# --- once ---


async def test_a_form_that_is_sent_again_shows_nothing_twice(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    await surfer.open(NEW)
    form = surfer.seen
    await surfer.send("/new", name="CI")
    key = secret(surfer)
    surfer.seen, surfer.path = form, NEW
    await surfer.send("/new", name="CI")
    assert "This key was shown already" in surfer.text
    assert key not in surfer.seen.html
    assert (await auth.api.list_api_keys(owner=owner)).total == 1


async def test_a_changed_form_that_made_a_key_already_makes_another_when_asked_again(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    await surfer.open(NEW)
    form = surfer.seen
    await surfer.send("/new", name="One")
    surfer.seen, surfer.path = form, NEW
    await surfer.send("/new", name="Two")
    assert "This form has made a key already" in surfer.text
    await surfer.send("/new")
    assert secret(surfer).startswith("kb_")
    found = await auth.api.list_api_keys(owner=owner)
    assert {key.name for key in found.api_keys} == {"One", "Two"}


# --- what it may ---


async def test_permissions_are_ticked_or_preset(surfer: Surfer, auth: Auth, owner: str) -> None:
    wanted = {
        "custom": {"files": ["write"]},
        "read": {"files": ["read"]},
        "all": {"deploy": ["run"], "files": ["read", "write"]},
    }
    for preset, permissions in wanted.items():
        await surfer.open(NEW)
        await surfer.send("/new", name=preset, preset=preset, permission="files:write")
        assert surfer.status == 200, surfer.text
        (key,) = (
            key
            for key in (await auth.api.list_api_keys(owner=owner)).api_keys
            if key.name == preset
        )
        assert key.permissions == permissions


@pytest.mark.parametrize("permission", ["users:write", "root:everything", "nonsense", "a:b:c", ""])
async def test_a_permission_that_is_not_offered_is_refused(
    surfer: Surfer, auth: Auth, owner: str, permission: str
) -> None:
    await surfer.open(NEW)
    await surfer.send("/new", name="CI", permission=permission)
    assert surfer.status in (400, 403)
    assert (await auth.api.list_api_keys(owner=owner)).total == 0


async def test_networks_are_read_a_line_each(surfer: Surfer, auth: Auth, owner: str) -> None:
    await surfer.open(NEW)
    await surfer.send("/new", name="CI", networks="203.0.113.7\r\n2001:db8::/32, 198.51.100.0/24")
    (key,) = (await auth.api.list_api_keys(owner=owner)).api_keys
    assert set(key.ip_allow) == {"203.0.113.7/32", "2001:db8::/32", "198.51.100.0/24"} or set(
        key.ip_allow
    ) == {"203.0.113.7", "2001:db8::/32", "198.51.100.0/24"}
    await surfer.open(NEW)
    await surfer.send("/new", name="CI", networks="everywhere")
    assert surfer.status == 400
    assert "Enter IPv4 or IPv6 addresses" in surfer.text
    assert dict(surfer.seen.form("/new").fields)["networks"] == "everywhere"


# --- a link that fills it in ---


async def test_a_link_fills_the_form_in_and_the_page_says_so(surfer: Surfer) -> None:
    await surfer.open(f"{NEW}?name=CI&description=Deploys&expires=7&permission=files:write&once=x")
    assert "A link has filled in this form." in surfer.text
    fields = dict(surfer.seen.form("/new").fields)
    assert (fields["name"], fields["description"], fields["expires"]) == ("CI", "Deploys", "7")
    assert fields["once"] != "x"
    assert "permission" not in fields  # a link gives nobody permissions
    await surfer.open(NEW)
    assert "A link has filled in this form." not in surfer.text


# --- the password, once more ---


async def test_an_old_login_gives_the_password_once_more(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    clock.advance(3_600_000)
    await surfer.open(NEW)
    assert "Confirm that it is you." in surfer.text
    await surfer.send("/new", name="CI")
    assert surfer.status == 403
    assert "Confirm your password first." in surfer.text
    await surfer.send("/new", name="CI", password="not the right one")
    assert "The password is wrong." in surfer.text
    assert (await auth.api.list_api_keys(owner=owner)).total == 0
    before = dict(surfer.client.cookies)
    await surfer.send("/new", name="CI", password=PASSWORD)
    assert secret(surfer).startswith("kb_")
    assert dict(surfer.client.cookies) != before
    await surfer.open(NEW)  # the login goes on by its new token, and is fresh
    assert "Confirm that it is you." not in surfer.text


async def test_a_login_that_was_renewed_outlives_what_fails_after_it(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.advance(3_600_000)
    await surfer.open(NEW)

    async def lost(*_args: object) -> None:
        raise Unavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(making, "create_api_key", with_function(create_api_key, lost))
        await surfer.send("/new", name="CI", password=PASSWORD)
    assert surfer.status == 503
    assert 'href=""' not in surfer.seen.html  # the form would be gone
    await surfer.open(NEW)
    assert surfer.path == NEW
    assert "Confirm that it is you." not in surfer.text


def with_function(declared: Operation[Any, Any], function: Any) -> Operation[Any, Any]:
    """The same operation with another function."""
    return dataclasses.replace(declared, function=function)
