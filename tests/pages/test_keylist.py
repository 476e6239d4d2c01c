"""The list: filters, orders and pages by its URL, many keys at once, and files."""

import csv
import io
from collections.abc import Mapping

import msgspec
import pytest

from keybearer import Auth
from keybearer.inputs import CreateKey, RevokeKey, UpdateKey
from keybearer.web.pages.keylist import Filters, filters_of
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, StandingClock

DAY = 86_400_000
LIST = "/en/account/api-keys"


async def make(auth: Auth, owner: str, name: str, **fields: object) -> str:
    asked = CreateKey(name=name, **fields)  # type: ignore[arg-type] # fields of all types
    return (await auth.api.create_api_key(asked, owner=owner)).id


def names(surfer: Surfer) -> list[str]:
    """The keys on the page, from top to bottom."""
    html = surfer.seen.html.split("<tbody>", 1)[-1]
    return [part.split("<")[0] for part in html.split('<a class="name"')[1:]
            for part in [part.split("<bdi>", 1)[1]]]  # fmt: skip


# --- what a URL asks ---


@pytest.mark.parametrize(
    "query",
    [
        {"status": "nothing", "sort": "secret", "dir": "sideways", "size": "7", "page": "-1"},
        {"page": "0x1"},
        {"page": "99999"},
        {"page": "²"},
        {"expires": "8", "unused": "all"},
        {},
    ],
)
def test_what_a_url_asks_in_vain_is_as_usual(query: Mapping[str, str]) -> None:
    assert filters_of(query) == Filters()


def test_a_url_says_only_what_is_not_as_usual() -> None:
    assert Filters().query() == {}
    filters = filters_of({"q": " backup ", "status": "active", "page": "3"})
    assert filters.query() == {"q": "backup", "status": "active", "page": "3"}
    assert filters.query(page=1) == {"q": "backup", "status": "active"}


def test_a_second_click_on_a_column_turns_the_order_round() -> None:
    once = filters_of(Filters(page=4).sorted_by("name"))
    assert (once.sort, once.dir, once.page) == ("name", "asc", 1)
    twice = filters_of(once.sorted_by("name"))
    assert (twice.sort, twice.dir) == ("name", "desc")
    assert filters_of(twice.sorted_by("used")).dir == "desc"


# --- the page ---


async def test_there_is_nothing_at_first(surfer: Surfer) -> None:
    await surfer.open(LIST)
    assert "No keys yet" in surfer.text
    assert "Generate New API Key" in surfer.text


async def test_filters_and_orders_are_in_the_url(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    await make(auth, owner, "Bravo", expires_in=3 * 86_400)
    clock.advance(1000)
    alpha = await make(auth, owner, "alpha", permissions={"files": ["read"]})
    clock.advance(1000)
    await make(auth, owner, "Charlie", description="nightly backup")
    await auth.api.update_api_key(UpdateKey(key_id=alpha, enabled=False))
    for query, found in (
        ("", ["Charlie", "alpha", "Bravo"]),
        ("?sort=created&dir=asc", ["Bravo", "alpha", "Charlie"]),
        ("?sort=expires&dir=asc", ["Bravo", "alpha", "Charlie"]),
        ("?sort=status&dir=asc", ["Bravo", "Charlie", "alpha"]),
        ("?status=disabled", ["alpha"]),
        ("?status=active", ["Charlie"]),
        ("?q=backup", ["Charlie"]),
        ("?q=BRAV", ["Bravo"]),
        ("?expires=7", ["Bravo"]),
        ("?permission=files:read", ["alpha"]),
        ("?permission=not%20one", ["Charlie", "alpha", "Bravo"]),
    ):
        await surfer.open(LIST + query)
        assert surfer.status == 200, query
        assert names(surfer) == found, query
    await surfer.open(f"{LIST}?q=nothing")
    assert "No matching keys" in surfer.text


async def test_the_strip_leads_to_what_it_counts(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    await make(auth, owner, "Unused", expires_in=None)
    clock.advance(91 * DAY)
    surfer.client.cookies.clear()
    await surfer.client.post(
        "/api/auth/sign-in/email",
        json={"email": "ann@example.com", "password": PASSWORD},
    )
    await make(auth, owner, "Ending", expires_in=6 * 86_400)
    await make(auth, owner, "Ending too", expires_in=5 * 86_400)
    await surfer.open(LIST)
    assert "2 keys expire within 7 days" in surfer.text
    assert "One key unused for 90 days" in surfer.text
    for words, found in (("expires=7", {"Ending", "Ending too"}), ("unused=90", {"Unused"})):
        link = next(link for link in surfer.seen.links if link.endswith(words))
        assert set(names(await Surfer(surfer.client).open(link))) == found


async def test_pages_follow_each_other(surfer: Surfer, auth: Auth, owner: str) -> None:
    for n in range(30):
        await make(auth, owner, f"Key {n:02}")
    await surfer.open(f"{LIST}?sort=name&dir=asc")
    assert names(surfer) == [f"Key {n:02}" for n in range(25)]
    assert "1 to 25 of 30" in surfer.text
    onward = next(link for link in surfer.seen.links if "page=2" in link)
    await surfer.open(onward)
    assert names(surfer) == [f"Key {n:02}" for n in range(25, 30)]
    await surfer.open(f"{LIST}?page=77")  # a page that was there before keys were revoked
    assert "page=2" in surfer.path
    await surfer.open(f"{LIST}?size=50")
    assert len(names(surfer)) == 30


async def test_limits_are_told_before_they_are_met(
    surfer: Surfer, auth: Auth, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await auth.running()
    few = msgspec.structs.replace(app.settings, max_keys_per_owner=1)
    monkeypatch.setattr(type(app), "settings", few)
    await make(auth, owner, "Only")
    await surfer.open(LIST)
    assert "1 of 1 keys: revoke one to make another." in surfer.text
    assert "Generate New API Key" not in [link.rsplit("/", 1)[-1] for link in surfer.seen.links]
    await surfer.open(f"{LIST}/new")
    assert "1 of 1 keys" in surfer.text
    nobody = msgspec.structs.replace(app.settings, key_creation="nobody")
    monkeypatch.setattr(type(app), "settings", nobody)
    await surfer.open(LIST)
    assert "You may not create API keys here" in surfer.text


# --- many at once ---


async def test_nothing_selected_is_told(surfer: Surfer, auth: Auth, owner: str) -> None:
    await make(auth, owner, "Key")
    await surfer.open(f"{LIST}?q=K")
    await surfer.send("/api-keys", action="disable", key=None)
    assert "Select at least one key first." in surfer.text
    assert surfer.path == f"{LIST}?q=K"


async def test_somebody_elses_key_is_none_of_the_selected(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    mine = await make(auth, owner, "Mine")
    other = await auth.api.users.create("other@example.com", name="Other", verified=True)
    theirs = await make(auth, other.id, "Theirs")
    await surfer.open(LIST)
    await surfer.send("/api-keys", action="revoke", key=[mine, theirs])
    assert "Revoke one key?" in surfer.text
    assert "Theirs" not in surfer.text
    await surfer.open(LIST)
    await surfer.send("/api-keys", action="revoke", sure="yes", key=[mine, theirs])
    assert "One key is revoked" in surfer.text
    assert theirs not in surfer.seen.html
    found = await auth.api.list_api_keys(owner=other.id)
    assert found.api_keys[0].status == "active"


async def test_a_key_that_cannot_be_changed_is_told_beside_those_that_were(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    good, gone = await make(auth, owner, "Good"), await make(auth, owner, "Gone")
    await auth.api.revoke_api_key(RevokeKey(key_id=gone))
    await surfer.open(LIST)
    await surfer.send("/api-keys", action="disable", key=[good, gone])
    assert "Not all keys were changed" in surfer.text
    assert "Expired and revoked keys can’t be changed" in surfer.text
    await surfer.open(LIST)
    await surfer.send("/api-keys", action="revoke", sure="yes", key=["nobodys"])
    assert "Select at least one key first." in surfer.text


async def test_an_old_login_confirms_to_enable_many(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    ids = [await make(auth, owner, f"Key {n}") for n in range(2)]
    clock.advance(3_600_000)
    await surfer.open(LIST)
    await surfer.send("/api-keys", action="disable", key=ids)
    assert "The selected keys are disabled." in surfer.text
    await surfer.send("/api-keys", action="enable", key=ids)
    assert surfer.status == 403
    assert "Enable 2 keys?" in surfer.text
    await surfer.send("/api-keys", password=PASSWORD)
    assert "The selected keys are enabled." in surfer.text


@pytest.mark.parametrize("action", ["", "delete-everything"])
async def test_another_action_is_refused(
    surfer: Surfer, auth: Auth, owner: str, action: str
) -> None:
    id = await make(auth, owner, "Key")
    await surfer.open(LIST)
    await surfer.send("/api-keys", action=action, key=id)
    assert surfer.status == 400


# --- files ---


async def test_an_export_has_what_the_filters_leave_and_no_secret(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    made = await auth.api.create_api_key(CreateKey(name="One"), owner=owner)
    for n in range(120):
        await make(auth, owner, f"Key {n}")
    gone = await make(auth, owner, "Gone")
    await auth.api.revoke_api_key(RevokeKey(key_id=gone))
    answer = await surfer.client.get(f"{LIST}/export?format=csv&status=active")
    assert answer.headers["content-disposition"] == 'attachment; filename="api-keys.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert len(rows) == 121
    assert made.key is not None
    assert made.key not in answer.text
    answer = await surfer.client.get(f"{LIST}/export?format=json&status=revoked")
    assert [key["name"] for key in answer.json()["apiKeys"]] == ["Gone"]
    assert (await surfer.client.get(f"{LIST}/export?format=exe")).status_code == 404
