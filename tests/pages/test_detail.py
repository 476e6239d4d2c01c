"""The page of one key: what it tells, and what can be done there."""

import pytest

from keybearer import Auth
from keybearer.inputs import AboutRotation, CreateKey, RotateKey, UpdateKey
from keybearer.operations.keywire import CreatedApiKey
from tests.pages.surfer import Surfer
from tests.people import PASSWORD, StandingClock

DAY = 86_400_000
KEYS = "/en/account/api-keys"


async def make(auth: Auth, owner: str, name: str = "CI", **fields: object) -> CreatedApiKey:
    asked = CreateKey(name=name, **fields)  # type: ignore[arg-type] # fields of all types
    return await auth.api.create_api_key(asked, owner=owner)


async def use(auth: Auth, key: CreatedApiKey, *, ip: str = "203.0.113.7", needs: str = "") -> bool:
    headers = [(b"x-api-key", (key.key or "").encode()), (b"user-agent", b"curl/8.7")]
    return await auth.api.get_session(headers, ip=ip, permissions=needs or None) is not None


# --- what it tells ---


async def test_it_tells_uses_and_the_reasons_of_refusals(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    key = await make(auth, owner, ip_allow=["203.0.113.0/24"])
    await use(auth, key)
    await use(auth, key)
    await use(auth, key, ip="198.51.100.4")
    await use(auth, key, needs="files:read")
    clock.advance(240_000)
    await surfer.open(f"{KEYS}/{key.id}")
    for words in (
        *("Accepted: 2", "4 minutes ago", "curl/8.7"),
        *("Refused: IP address not allowed 1", "Refused: permission missing 1"),
        *("Refused: IP address not allowed", "198.51.100.4", "Refused: permission missing"),
        *("203.0.113.0/24", "1,000 requests in every 1 minute", "API key created"),
    ):
        assert words in surfer.text, words


@pytest.mark.parametrize("range_", ["24h", "7d", "30d", "90d", "1000y", ""])
async def test_the_chart_goes_as_far_as_it_is_asked(
    surfer: Surfer, auth: Auth, owner: str, range_: str
) -> None:
    key = await make(auth, owner)
    await use(auth, key)
    await surfer.open(f"{KEYS}/{key.id}?range={range_}")
    assert surfer.status == 200
    assert "Accepted: 1" in surfer.text


async def test_a_key_that_never_was_used_says_so(surfer: Surfer, auth: Auth, owner: str) -> None:
    key = await make(auth, owner, expires_in=None)
    await surfer.open(f"{KEYS}/{key.id}")
    assert "No requests in this time." in surfer.text
    assert "Nothing yet." in surfer.text


@pytest.mark.parametrize(
    "path", ["", "/rotate", "/revoke", "/settings", "/switch", "/rotation", "/nothing"]
)
async def test_somebody_elses_key_is_as_one_that_does_not_exist(
    surfer: Surfer, auth: Auth, path: str
) -> None:
    other = await auth.api.users.create("other@example.com", name="Other", verified=True)
    theirs = await make(auth, other.id)
    pages = []
    for id in (theirs.id, "01a1eedc-f320-7f31-a200-000000000000"):
        await surfer.open(f"{KEYS}/{id}{path}")
        pages.append((surfer.status, surfer.text.replace(surfer.headers["x-request-id"], "")))
    assert pages[0] == pages[1]
    assert pages[0][0] in (404, 405)


# --- settings ---


async def test_only_what_was_changed_is_changed(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    key = await make(auth, owner, permissions={"files": ["read"]}, ip_allow=["203.0.113.7"])
    clock.advance(1000)
    await surfer.open(f"{KEYS}/{key.id}")
    await surfer.send("/settings")  # nothing changed
    assert "Saved." in surfer.text
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert found.updated_at == key.updated_at
    await surfer.send("/settings", name="New name", description="Two\r\nlines")
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert (found.name, found.description) == ("New name", "Two\nlines")
    assert (found.permissions, found.expires_at) == (key.permissions, key.expires_at)
    assert list(found.ip_allow) == list(key.ip_allow)
    await surfer.send("/settings", permission=["files:write"], networks="", expires="7")
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert found.permissions == {"files": ["write"]}
    assert list(found.ip_allow) == []
    assert found.expires_at != key.expires_at


async def test_a_tab_that_shows_an_older_state_undoes_nothing(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    key = await make(auth, owner)
    await surfer.open(f"{KEYS}/{key.id}")
    clock.advance(1000)
    await auth.api.update_api_key(UpdateKey(key_id=key.id, ip_allow=["203.0.113.0/24"]))
    await surfer.send("/settings", description="from an older tab")
    assert surfer.status == 409
    assert "changed meanwhile" in surfer.text
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert (list(found.ip_allow), found.description) == (["203.0.113.0/24"], None)
    assert dict(surfer.seen.form("/settings").fields)["networks"] == "203.0.113.0/24"
    await surfer.send("/settings", description="looked at again")
    assert "Saved." in surfer.text


async def test_a_rename_takes_no_permission_that_the_form_cannot_show(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    key = await make(auth, owner, permissions={"files": ["read"], "deploy": ["run"]})
    app = await auth.running()

    async def holds_less(_owner: str, _role: object) -> frozenset[str]:
        return frozenset({"files:read"})

    object.__setattr__(app, "holds", holds_less)
    await surfer.open(f"{KEYS}/{key.id}")
    await surfer.send("/settings", name="Renamed")
    assert "Saved." in surfer.text
    found = next(
        each
        for each in (await auth.api.list_api_keys(owner=owner)).api_keys
        if each.name == "Renamed"
    )
    assert found.permissions == {"deploy": ["run"], "files": ["read"]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "Enter a name"),
        ({"networks": "everywhere"}, "Enter IPv4 or IPv6"),
        ({"expires": "date", "date": "2020-01-01"}, "still to come"),
        ({"expires": "date", "date": "2031-01-01"}, "365 days at most"),
        ({"permission": "users:write"}, "permissions that you lack"),
        ({"description": "x" * 501}, "can’t be used"),
    ],
)
async def test_what_cannot_be_used_changes_nothing(
    surfer: Surfer, auth: Auth, owner: str, fields: dict[str, str], said: str
) -> None:
    key = await make(auth, owner, permissions={"files": ["read"]})
    await surfer.open(f"{KEYS}/{key.id}")
    await surfer.send("/settings", **{"name": "Other", **fields})
    assert surfer.status in (400, 403)
    assert said in surfer.text
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert found.name == "CI"


async def test_an_old_login_may_take_away_and_must_confirm_to_give(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    key = await make(auth, owner)
    clock.advance(3_600_000)
    await surfer.open(f"{KEYS}/{key.id}")
    await surfer.send("/switch")
    assert "The key is disabled" in surfer.text
    await surfer.send("/switch")
    assert surfer.status == 403
    assert "Confirm your password first." in surfer.text
    await surfer.send("/switch", password=PASSWORD)
    assert "The key is enabled again." in surfer.text
    clock.advance(3_600_000)
    await surfer.open(f"{KEYS}/{key.id}")
    await surfer.send("/settings", permission=["files:read"])
    assert "Confirm your password first." in surfer.text
    await surfer.send("/settings", permission=["files:read"], password=PASSWORD)
    assert "Saved." in surfer.text


# --- rotation ---


async def test_a_rotation_that_is_sent_twice_rotates_once(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    key = await make(auth, owner)
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    form, path = surfer.seen, surfer.path
    await surfer.send("/rotate", grace="1h")
    assert "The new secret of" in surfer.text
    after = (await auth.api.list_api_keys(owner=owner)).api_keys[0].start
    surfer.seen, surfer.path = form, path
    await surfer.send("/rotate", grace="1h")
    assert surfer.status == 409
    assert "rotated meanwhile" in surfer.text
    assert (await auth.api.list_api_keys(owner=owner)).api_keys[0].start == after


async def test_a_rotation_may_give_a_later_end_as_well(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    key = await make(auth, owner, expires_in=5 * 86_400)
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    await surfer.send("/rotate", grace="0")
    assert (await auth.api.list_api_keys(owner=owner)).api_keys[0].expires_at == key.expires_at
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    await surfer.send("/rotate", grace="0", expires="90")
    after = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert after.expires_at == "2027-02-16T11:06:40.000Z"
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    await surfer.send("/rotate", grace="0", expires="someday")
    assert surfer.status == 400
    assert (await auth.api.list_api_keys(owner=owner)).api_keys[0] == after


@pytest.mark.parametrize("grace", ["", "2y", "-1"])
async def test_a_grace_that_is_not_offered_rotates_nothing(
    surfer: Surfer, auth: Auth, owner: str, grace: str
) -> None:
    key = await make(auth, owner)
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    await surfer.send("/rotate", grace=grace)
    assert surfer.status == 400
    assert await use(auth, key)
    assert (await auth.api.list_api_keys(owner=owner)).api_keys[0].start == key.start


async def test_what_is_over_is_not_rotated_and_the_page_says_why(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock
) -> None:
    key = await make(auth, owner, expires_in=60)
    clock.advance(61_000)
    await surfer.open(f"{KEYS}/{key.id}")
    assert "Expired keys can’t be rotated or changed" in surfer.text
    await surfer.open(f"{KEYS}/{key.id}/rotate")
    assert "Expired and revoked keys can’t be rotated" in surfer.text
    await surfer.open(f"{KEYS}/{key.id}/revoke")
    await surfer.send("/revoke")
    await surfer.open(f"{KEYS}/{key.id}/revoke")
    assert surfer.path.endswith(key.id)  # there is nothing left to end


async def test_a_rotation_that_is_over_cannot_be_steered(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    key = await make(auth, owner)
    await auth.api.rotate_api_key(RotateKey(key_id=key.id))
    await surfer.open(f"{KEYS}/{key.id}/rotation?action=finish")
    form, path = surfer.seen, surfer.path
    await surfer.send("/rotation")
    assert "only the new secret works" in surfer.text
    for action in ("finish", "extend", "cancel"):
        surfer.seen, surfer.path = form, path
        await surfer.send("/rotation", action=action)
        assert surfer.status == 409
        assert "not being rotated any more" in surfer.text
    surfer.seen, surfer.path = form, path
    await surfer.send("/rotation", action="explode")
    assert surfer.status == 400
    await surfer.open(f"{KEYS}/{key.id}/rotation?action=finish")
    assert surfer.path.endswith(key.id)
    await surfer.open(f"{KEYS}/{key.id}/rotation?action=explode")
    assert surfer.status == 400


@pytest.mark.parametrize("action", ["finish", "extend", "cancel"])
async def test_a_tab_that_shows_another_rotation_steers_nothing(
    surfer: Surfer, auth: Auth, owner: str, action: str
) -> None:
    key = await make(auth, owner)
    await auth.api.rotate_api_key(RotateKey(key_id=key.id))
    await surfer.open(f"{KEYS}/{key.id}/rotation?action={action}")
    await auth.api.finish_rotation(AboutRotation(key_id=key.id))
    newest = await auth.api.rotate_api_key(RotateKey(key_id=key.id))
    await surfer.send("/rotation")
    assert surfer.status == 409
    assert "rotated meanwhile" in surfer.text
    assert await use(auth, newest)


@pytest.mark.parametrize("action", ["extend", "cancel"])
async def test_an_old_login_lets_no_old_secret_live_on(
    surfer: Surfer, auth: Auth, owner: str, clock: StandingClock, action: str
) -> None:
    key = await make(auth, owner)
    await auth.api.rotate_api_key(RotateKey(key_id=key.id, grace_period=86_400))
    clock.advance(3_600_000)
    await surfer.open(f"{KEYS}/{key.id}/rotation?action={action}")
    await surfer.send("/rotation", grace="open", password=None)
    assert surfer.status == 403
    assert "Confirm your password first." in surfer.text
    await surfer.send("/rotation", password=PASSWORD)
    assert surfer.path.endswith(key.id)


# --- the end ---


async def test_a_revocation_tells_its_receipt_and_its_reason(
    surfer: Surfer, auth: Auth, owner: str
) -> None:
    key = await make(auth, owner)
    await surfer.open(f"{KEYS}/{key.id}/revoke")
    await surfer.send("/revoke", reason="leaked")
    assert "Stopped on the one server there is, at" in surfer.text
    assert not await use(auth, key)
    await surfer.open(f"{KEYS}/{key.id}")
    assert "It leaked, or may have" in surfer.text
    assert "Rotate…" not in surfer.text


async def test_a_reason_that_is_not_offered_is_none(surfer: Surfer, auth: Auth, owner: str) -> None:
    key = await make(auth, owner)
    await surfer.open(f"{KEYS}/{key.id}/revoke")
    await surfer.send("/revoke", reason="because of <b>")
    found = (await auth.api.list_api_keys(owner=owner)).api_keys[0]
    assert (found.status, found.revoked_reason) == ("revoked", None)


async def test_a_disabled_key_has_its_word(surfer: Surfer, auth: Auth, owner: str) -> None:
    key = await make(auth, owner)
    await auth.api.update_api_key(UpdateKey(key_id=key.id, enabled=False))
    await surfer.open(f"{KEYS}/{key.id}")
    assert "Disabled" in surfer.text
    assert "Enable" in surfer.text
