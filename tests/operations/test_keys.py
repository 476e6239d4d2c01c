"""Keys are made by the rules, listed to their owners, and shown once."""

import asyncio

import msgspec
import pytest

from keybearer import Failure
from keybearer.domain.model import ANONYMOUS, RateLimit, Refusal, Session, Verdict
from keybearer.operations.app import App
from keybearer.operations.declaration import Call
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RevokeKey, RotateKey, revoke_api_key, rotate_api_key
from keybearer.operations.keys import (
    CreateKey,
    GetKey,
    ListKeys,
    create_api_key,
    get_api_key,
    list_api_keys,
)
from keybearer.operations.keywire import ApiKey, CreatedApiKey
from keybearer.settings import Settings
from tests.people import StandingClock, by, call_of, person


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


def bearer(key: str | None) -> list[tuple[bytes, bytes]]:
    assert key is not None
    return [(b"authorization", b"Bearer " + key.encode())]


async def check(
    app: App,
    key: str | None,
    ip: str | None = "203.0.113.7",
    needed: frozenset[str] = frozenset(),
) -> Verdict:
    return await app.verifier.verify(bearer(key), ip, needed)


async def accepted(app: App, key: str | None, ip: str = "203.0.113.7") -> Session:
    verdict = await check(app, key, ip)
    assert isinstance(verdict, Session), verdict
    return verdict


async def refused(app: App, key: str | None, ip: str = "203.0.113.7") -> str:
    verdict = await check(app, key, ip)
    assert isinstance(verdict, Refusal), verdict
    return verdict.code


async def make(app: App, who: Session, **asked: object) -> CreatedApiKey:
    return await create_api_key(call_of(app, who), CreateKey(**asked))  # type: ignore[arg-type]


async def code_of(awaitable: object) -> str:
    with pytest.raises(Failure) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code


async def test_a_new_key_works_at_once_and_is_shown_once(app: App, ada: Session) -> None:
    made = await make(app, ada, name="ci", description="deploys")
    assert made.key is not None
    assert made.key.startswith("kb_")
    assert len(made.key) == 52
    assert made.start == made.key[:7]
    assert made.status == "active"
    assert isinstance(await check(app, made.key), Session)
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert not hasattr(shown, "key")
    assert shown.name == "ci"
    assert made.key not in repr(made)


async def test_the_default_is_ninety_days_and_the_limit_of_the_settings(
    app: App, ada: Session
) -> None:
    made = await make(app, ada)
    assert made.expires_at == "2027-02-16T11:06:40.000Z"
    assert (made.rate_limit_enabled, made.rate_limit_max) == (True, 1000)
    assert made.rate_limit_time_window == 60_000


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": ""}, "INVALID_NAME_LENGTH"),
        ({"name": "   "}, "INVALID_NAME_LENGTH"),
        ({"name": "x" * 65}, "INVALID_NAME_LENGTH"),
        ({"name": "a\x07b"}, "VALIDATION_ERROR"),
        ({"name": "a\x85b"}, "VALIDATION_ERROR"),
        ({"description": "x" * 501}, "VALIDATION_ERROR"),
        ({"description": "a\x1bb"}, "VALIDATION_ERROR"),
        ({"expires_in": 0}, "EXPIRES_IN_IS_TOO_SMALL"),
        ({"expires_in": -1}, "EXPIRES_IN_IS_TOO_SMALL"),
        ({"expires_in": 366 * 86_400}, "EXPIRES_IN_IS_TOO_LARGE"),
        ({"expires_in": 9_007_199_254_740_993}, "EXPIRES_IN_IS_TOO_LARGE"),
        ({"expires_in": 60, "expires_at": "2026-12-01T00:00:00Z"}, "VALIDATION_ERROR"),
        ({"expires_at": "soon"}, "VALIDATION_ERROR"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "EXPIRES_IN_IS_TOO_SMALL"),
        ({"prefix": "gh_"}, "INVALID_PREFIX"),
        ({"metadata": "text"}, "INVALID_METADATA_TYPE"),
        ({"metadata": {"a": {"b": {"c": {"d": [[1]]}}}}}, "INVALID_METADATA_TYPE"),
        ({"metadata": {"a": "x" * 5000}}, "INVALID_METADATA_TYPE"),
        ({"permissions": {"files": []}}, "INVALID_PERMISSIONS"),
        ({"permissions": {"admin": ["*"]}}, "INVALID_PERMISSIONS"),
        ({"permissions": {"bogus": ["x"]}}, "UNKNOWN_SCOPE"),
        ({"permissions": {"users": ["write"]}}, "SCOPE_NOT_HELD"),
        ({"ip_allow": ["10.0.0.1/8"]}, "INVALID_IP_RANGE"),
        ({"ip_allow": ["0.0.0.0/0"]}, "INVALID_IP_RANGE"),
        ({"user_id": "somebody"}, "SERVER_ONLY_PROPERTY"),
        ({"remaining": None}, "SERVER_ONLY_PROPERTY"),
        ({"rate_limit_max": 999_999}, "SERVER_ONLY_PROPERTY"),
    ],
)
async def test_a_key_that_breaks_a_rule_is_not_made(
    app: App, ada: Session, asked: dict[str, object], code: str
) -> None:
    assert await code_of(make(app, ada, **asked)) == code
    assert (await list_api_keys(call_of(app, ada), ListKeys())).total == 0


async def test_what_is_asked_is_what_is_stored(app: App, ada: Session) -> None:
    made = await make(
        app,
        ada,
        name="ключ \u202e🔑",
        description="two\nlines",
        expires_at="2026-12-01T00:00:00Z",
        metadata={"team": ["a", 1, None]},
        permissions={"files": ["write", "read"]},
        ip_allow=["203.0.113.0/24", "2001:db8::1"],
    )
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert shown.name == "ключ \u202e🔑"
    assert shown.description == "two\nlines"
    assert shown.expires_at == "2026-12-01T00:00:00.000Z"
    assert shown.status == "expiring"
    assert shown.metadata == {"team": ["a", 1, None]}
    assert shown.permissions == {"files": ["read", "write"]}
    assert shown.ip_allow == ["203.0.113.0/24", "2001:db8::1"]
    held = (await accepted(app, made.key)).permissions
    assert held == frozenset({"files:read", "files:write"})
    assert await refused(app, made.key, ip="198.51.100.1") == "IP_NOT_ALLOWED"


async def test_empty_words_mean_none(app: App, ada: Session) -> None:
    made = await make(app, ada, description="", ip_allow=[], permissions=None, metadata=None)
    assert (made.description, made.ip_allow, made.permissions) == (None, [], None)


async def test_null_means_never_where_the_operator_allows_it(app: App, ada: Session) -> None:
    assert (await make(app, ada, expires_in=None)).expires_at is None
    assert (await make(app, ada, expires_at=None)).expires_at is None


async def test_the_server_sets_limits_quota_and_owner(app: App, ada: Session) -> None:
    made = await create_api_key(
        call_of(app),
        CreateKey(
            user_id=ada.subject,
            refill_amount=5,
            refill_interval=60_000,
            rate_limit_max=3,
            rate_limit_time_window=1000,
            permissions={"files": ["read"]},
        ),
    )
    assert made.reference_id == ada.subject
    assert (made.remaining, made.refill_amount) == (5, 5)
    assert (made.rate_limit_max, made.rate_limit_time_window) == (3, 1000)
    off = await create_api_key(
        call_of(app), CreateKey(user_id=ada.subject, rate_limit_enabled=False, expires_in=None)
    )
    assert off.rate_limit_enabled is False


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"refill_amount": 5}, "REFILL_AMOUNT_AND_INTERVAL_REQUIRED"),
        ({"refill_interval": 1000}, "REFILL_INTERVAL_AND_AMOUNT_REQUIRED"),
        ({"remaining": -1}, "INVALID_RATE_LIMIT"),
        ({"refill_amount": 0, "refill_interval": 5}, "INVALID_RATE_LIMIT"),
        ({"rate_limit_max": -1}, "INVALID_RATE_LIMIT"),
        ({"rate_limit_time_window": 0}, "INVALID_RATE_LIMIT"),
        ({"permissions": {"bogus": ["x"]}}, "UNKNOWN_SCOPE"),
        ({"user_id": "nobody"}, "USER_NOT_FOUND"),
    ],
)
async def test_the_server_too_keeps_the_rules(
    app: App, ada: Session, asked: dict[str, object], code: str
) -> None:
    values = {"user_id": ada.subject, **asked}
    assert await code_of(create_api_key(call_of(app), CreateKey(**values))) == code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"remaining": 10**18}, "remaining must be from 0 to 9007199254740991."),
        ({"refill_amount": 0, "refill_interval": 5},
         "refillAmount must be from 1 to 9007199254740991."),
        ({"rate_limit_max": 2_000_000_000}, "rateLimitMax must be from 0 to 1000000000."),
        ({"rate_limit_time_window": 0},
         "rateLimitTimeWindow must be from 1 to 31622400000, in ms."),
        ({"metadata": {"a": {"b": {"c": {"d": [[1]]}}}}},
         "metadata must be a JSON object of at most 4 KB and five levels."),
    ],
)  # fmt: skip
async def test_what_is_out_of_bounds_is_told_both(
    app: App, ada: Session, asked: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Failure) as failure:
        await create_api_key(call_of(app), CreateKey(**{"user_id": ada.subject, **asked}))  # type: ignore[arg-type]
    assert failure.value.message == sentence


async def test_a_service_names_the_owner(app: App) -> None:
    service = Session(subject="service", kind="service", id="s")
    assert await code_of(make(app, service)) == "VALIDATION_ERROR"


async def test_an_idempotency_key_is_refused_with_another_request(app: App, ada: Session) -> None:
    asked = CreateKey(name="one", metadata={"b": 1, "a": 2})
    made = await create_api_key(call_of(app, ada, idempotency_key="r1"), asked)
    for other in (CreateKey(name="two", expires_in=60), CreateKey(name="one"), CreateKey()):
        with pytest.raises(Failure, match="IDEMPOTENCY_KEY_REUSED") as failure:
            await create_api_key(call_of(app, ada, idempotency_key="r1"), other)
        assert failure.value.status == 422
    same = CreateKey(name="one", metadata={"a": 2, "b": 1})
    again = await create_api_key(call_of(app, ada, idempotency_key="r1"), same)
    assert (again.id, again.key) == (made.id, None)


async def test_a_retry_with_the_same_idempotency_key_makes_no_second_key(
    app: App, ada: Session
) -> None:
    first = await create_api_key(call_of(app, ada, idempotency_key="r1"), CreateKey(name="a"))
    again = await create_api_key(call_of(app, ada, idempotency_key="r1"), CreateKey(name="a"))
    assert again.id == first.id
    assert again.key is None
    assert first.key is not None
    other = await create_api_key(call_of(app, ada, idempotency_key="r2"), CreateKey(name="a"))
    assert other.id != first.id


async def test_parallel_creates_never_pass_the_limit_of_an_owner(app: App, ada: Session) -> None:
    object.__setattr__(app, "settings", _with(app, max_keys_per_owner=3))
    tried = await asyncio.gather(
        *(make(app, ada, name=f"k{n}") for n in range(12)), return_exceptions=True
    )
    refused = [error for error in tried if isinstance(error, Failure)]
    assert len(tried) - len(refused) == 3
    assert {error.code for error in refused} == {"KEY_LIMIT_REACHED"}


def _with(app: App, **changes: object) -> Settings:
    return msgspec.structs.replace(app.settings, **changes)


@pytest.mark.parametrize(
    ("creation", "role", "allowed"),
    [
        ("everyone", "user", True),
        ("admins", "user", False),
        ("admins", "admin", True),
        ("nobody", "admin", False),
    ],
)
async def test_who_may_create_keys_is_a_setting(
    app: App, creation: str, role: str, allowed: bool
) -> None:
    object.__setattr__(app, "settings", _with(app, key_creation=creation))
    user = by(await person(app, admin=role == "admin"))
    if allowed:
        assert (await make(app, user)).key
    else:
        assert await code_of(make(app, user)) == "KEY_CREATION_NOT_ALLOWED"


async def test_without_a_catalogue_only_the_server_sets_permissions(app: App, ada: Session) -> None:
    object.__setattr__(app, "catalogue", frozenset())
    asked = {"permissions": {"anything": ["goes"]}}
    assert await code_of(make(app, ada, **asked)) == "SERVER_ONLY_PROPERTY"
    made = await create_api_key(call_of(app), CreateKey(user_id=ada.subject, **asked))  # type: ignore[arg-type]
    assert made.permissions == {"anything": ["goes"]}


async def test_keys_without_expiry_can_be_forbidden(app: App, ada: Session) -> None:
    object.__setattr__(app, "settings", _with(app, key_allow_no_expiry=False))
    assert await code_of(make(app, ada, expires_in=None)) == "KEY_EXPIRY_REQUIRED"


# --- list and get ---


async def test_a_list_is_sorted_filtered_searched_and_paged(
    app: App, ada: Session, clock: StandingClock
) -> None:
    for name in ("alpha", "beta_1", "gamma"):
        await make(app, ada, name=name)
        clock.advance(1000)
    call = call_of(app, ada)
    newest = await list_api_keys(call, ListKeys())
    assert [key.name for key in newest.api_keys] == ["gamma", "beta_1", "alpha"]
    assert (newest.total, newest.limit, newest.offset) == (3, 100, 0)
    by_name = await list_api_keys(
        call, ListKeys(sort_by="name", sort_direction="asc", limit=1, offset=1)
    )
    assert ([key.name for key in by_name.api_keys], by_name.total) == (["beta_1"], 3)
    for asked, names in (
        (ListKeys(sort_by="name"), ["alpha", "beta_1", "gamma"]),  # upwards, as in Better Auth
        (ListKeys(sort_by="name", sort_direction="desc"), ["gamma", "beta_1", "alpha"]),
        (ListKeys(sort_direction="asc"), ["alpha", "beta_1", "gamma"]),
    ):
        assert [key.name for key in (await list_api_keys(call, asked)).api_keys] == names
    found = await list_api_keys(call, ListKeys(search="TA_"))
    assert [key.name for key in found.api_keys] == ["beta_1"]
    off = await update_api_key(call, UpdateKey(key_id=newest.api_keys[0].id, enabled=False))
    disabled = await list_api_keys(call, ListKeys(status=("disabled", "revoked")))
    assert [key.id for key in disabled.api_keys] == [off.id]


DAY = 86_400


async def test_a_list_finds_what_ends_soon_what_is_unused_and_what_is_permitted(
    app: App, ada: Session, clock: StandingClock
) -> None:
    async def names(**asked: object) -> set[str | None]:
        page = await list_api_keys(call_of(app, ada), ListKeys(**asked))  # type: ignore[arg-type]
        assert page.total == len(page.api_keys)
        return {key.name for key in page.api_keys}

    made = {
        name: await make(app, ada, name=name, expires_in=days * DAY, permissions=permissions)
        for name, days, permissions in (
            ("soon", 95, {"files": ["read"]}),
            ("later", 200, {"files": ["read", "write"]}),
            ("off", 95, {"deploy": ["run"]}),
            ("gone", 95, None),
            ("over", 80, None),
        )
    }
    await update_api_key(call_of(app, ada), UpdateKey(key_id=made["off"].id, enabled=False))
    await revoke_api_key(call_of(app, ada), RevokeKey(key_id=made["gone"].id))
    clock.advance(90 * DAY * 1000)
    await make(app, ada, name="new", expires_in=None)
    assert await names(expiring_within=7 * DAY) == {"soon", "off"}
    assert await names(expiring_within=5 * DAY) == set()  # it must end before, not then
    assert await names(expiring_within=5 * DAY + 1) == {"soon", "off"}
    assert await names(expiring_within=7 * DAY, status=("disabled",)) == {"off"}
    assert await names(unused_for=90 * DAY) == {"soon", "later", "off"}
    assert await names(unused_for=90 * DAY + 1) == set()
    assert await names(expiring_within=7 * DAY, unused_for=DAY, search="so") == {"soon"}
    await accepted(app, made["later"].key)  # counted in memory, and seen at once
    assert await names(unused_for=90 * DAY) == {"soon", "off"}
    assert await names(permission="files:read") == {"soon", "later"}
    assert await names(permission="files:write") == {"later"}
    assert await names(permission="deploy:run") == {"off"}
    assert await names(permission="deploy:ru") == await names(permission="file:read") == set()
    assert len(await names()) == len(await names(permission="")) == 6


async def test_a_list_by_status_begins_with_what_asks_for_something(app: App, ada: Session) -> None:
    for name, days in (("active", 90), ("expiring", 3), ("disabled", 90), ("rotating", 90)):
        made = await make(app, ada, name=name, expires_in=days * DAY)
        if name == "disabled":
            await update_api_key(call_of(app, ada), UpdateKey(key_id=made.id, enabled=False))
        if name == "rotating":
            await rotate_api_key(call_of(app, ada), RotateKey(key_id=made.id))
    for direction, expected in (
        (None, ["rotating", "expiring", "active", "disabled"]),
        ("desc", ["disabled", "active", "expiring", "rotating"]),
    ):
        asked = {} if direction is None else {"sort_direction": direction}
        page = await list_api_keys(
            call_of(app, ada), ListKeys(sort_by="status", **asked)  # type: ignore[arg-type]
        )  # fmt: skip
        assert [key.name for key in page.api_keys] == expected
        assert [key.status for key in page.api_keys] == expected


@pytest.mark.parametrize(
    "permission",
    ["files", "files:", ":read", "files:*", "*", "files:read,files:write", "a:b:c", "Files:read",
     '"files":["read"', "files:re.d ", ".*:.*", "' OR 1=1 --", "files:read\n"],
)  # fmt: skip
async def test_a_list_is_asked_for_one_permission(app: App, ada: Session, permission: str) -> None:
    await make(app, ada, permissions={"files": ["read"]})
    asked = list_api_keys(call_of(app, ada), ListKeys(permission=permission))
    if permission == "files:re.d ":  # as a setting takes it, without its spaces; no pattern
        assert (await asked).total == 0
    else:
        assert await code_of(asked) == "VALIDATION_ERROR"


async def test_only_the_server_lists_other_peoples_keys(app: App, ada: Session) -> None:
    eve = by(await person(app, "eve@example.com"))
    await make(app, ada)
    await make(app, eve)
    assert (await list_api_keys(call_of(app, eve), ListKeys())).total == 1
    assert (
        await code_of(list_api_keys(call_of(app, eve), ListKeys(user_id=ada.subject)))
        == "SERVER_ONLY_PROPERTY"
    )
    assert (await list_api_keys(call_of(app), ListKeys())).total == 2
    assert (await list_api_keys(call_of(app), ListKeys(user_id=ada.subject))).total == 1


async def test_somebody_elses_key_is_not_found(app: App, ada: Session) -> None:
    eve = by(await person(app, "eve@example.com"))
    made = await make(app, ada)
    for id in (made.id, "0193b2f0-0000-7000-8000-000000000000", "x"):
        assert await code_of(get_api_key(call_of(app, eve), GetKey(id=id))) == "KEY_NOT_FOUND"


async def test_a_key_sees_itself_and_no_other(app: App, ada: Session) -> None:
    made, other = await make(app, ada, name="me"), await make(app, ada)
    itself = await check(app, made.key)
    assert isinstance(itself, Session)
    assert itself.key_id == made.id
    assert (await get_api_key(call_of(app, itself), GetKey())).name == "me"
    assert await code_of(get_api_key(call_of(app, itself), GetKey(id=other.id))) == "KEY_NOT_FOUND"
    assert await code_of(get_api_key(call_of(app, ada), GetKey())) == "VALIDATION_ERROR"


async def test_nobody_is_unauthorized(app: App) -> None:
    call: Call = call_of(app, ANONYMOUS)
    assert await code_of(get_api_key(call, GetKey(id="x"))) == "UNAUTHORIZED"
    assert call.trusted is False


async def test_last_use_shows_at_once_and_does_not_move_updated_at(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    clock.advance(5000)
    await check(app, made.key)
    shown = await get_api_key(call_of(app, ada), GetKey(id=made.id))
    assert shown.last_request == "2026-11-18T11:06:45.000Z"
    assert (shown.last_used_ip, shown.request_count) == ("203.0.113.7", 1)
    assert shown.updated_at == made.updated_at


# --- update ---


async def test_an_edit_holds_for_the_next_check(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada, permissions={"files": ["read", "write"]})
    await check(app, made.key)
    clock.advance(1000)
    changed = await update_api_key(
        call_of(app, ada),
        UpdateKey(
            key_id=made.id,
            name="renamed",
            description="d",
            permissions={"files": ["read"]},
            ip_allow=["198.51.100.0/24"],
            metadata={"x": 1},
            expires_in=3600,
        ),
    )
    assert (changed.name, changed.description, changed.metadata) == ("renamed", "d", {"x": 1})
    assert changed.updated_at != made.updated_at
    assert await refused(app, made.key) == "IP_NOT_ALLOWED"
    held = (await accepted(app, made.key, ip="198.51.100.9")).permissions
    assert held == frozenset({"files:read"})


async def test_disabled_keys_are_refused_until_enabled(app: App, ada: Session) -> None:
    made = await make(app, ada)
    call = call_of(app, ada)
    await check(app, made.key)
    assert (await update_api_key(call, UpdateKey(key_id=made.id, enabled=False))).status == (
        "disabled"
    )
    assert await refused(app, made.key) == "KEY_DISABLED"
    await update_api_key(call, UpdateKey(key_id=made.id, enabled=True))
    assert isinstance(await check(app, made.key), Session)


async def test_an_update_may_say_whose_key_it_is(app: App) -> None:
    ada = await person(app)
    made = await create_api_key(call_of(app, by(ada)), CreateKey(name="ci"))
    call = call_of(app, by(ada))
    other = UpdateKey(key_id=made.id, user_id="another", name="x")
    assert await code_of(update_api_key(call, other)) == "KEY_NOT_FOUND"
    own = UpdateKey(key_id=made.id, user_id=ada.id, name="x")
    assert (await update_api_key(call, own)).name == "x"
    alone = UpdateKey(key_id=made.id, user_id=ada.id)
    assert await code_of(update_api_key(call, alone)) == "NO_VALUES_TO_UPDATE"


async def test_an_expired_key_never_comes_back(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada, expires_in=60)
    clock.advance(59_999)
    assert isinstance(await check(app, made.key), Session)
    clock.advance(1)
    assert await refused(app, made.key) == "KEY_EXPIRED"
    revive = UpdateKey(key_id=made.id, expires_in=None)
    assert await code_of(update_api_key(call_of(app, ada), revive)) == "KEY_NOT_UPDATABLE"


async def test_an_edit_says_what_it_changes(app: App, ada: Session) -> None:
    made = await make(app, ada)
    call = call_of(app, ada)
    assert await code_of(update_api_key(call, UpdateKey(key_id=made.id))) == "NO_VALUES_TO_UPDATE"
    for asked in ({"remaining": None}, {"rate_limit_max": 5}):
        change = UpdateKey(key_id=made.id, **asked)
        assert await code_of(update_api_key(call, change)) == "SERVER_ONLY_PROPERTY"


async def test_an_edit_of_what_the_caller_saw_is_done(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    clock.advance(1000)
    change = UpdateKey(key_id=made.id, name="a", if_updated_at=made.updated_at)
    changed = await update_api_key(call_of(app, ada), change)
    assert (changed.name, changed.updated_at) == ("a", "2026-11-18T11:06:41.000Z")
    clock.advance(1000)
    # The same instant in other words; a use of the key meanwhile is no change.
    assert isinstance(await check(app, made.key), Session)
    again = UpdateKey(key_id=made.id, name="b", if_updated_at="2026-11-18T12:06:41+01:00")
    assert (await update_api_key(call_of(app, ada), again)).name == "b"


async def test_an_edit_of_a_key_that_was_changed_meanwhile_changes_nothing(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    for advance in (1000, 1):
        clock.advance(advance)
        await update_api_key(call_of(app, ada), UpdateKey(key_id=made.id, description="theirs"))
        before = await get_api_key(call_of(app, ada), GetKey(id=made.id))
        change = UpdateKey(
            key_id=made.id, name="mine", enabled=False, if_updated_at=made.updated_at
        )
        with pytest.raises(Failure) as refusal:
            await update_api_key(call_of(app, ada), change)
        assert (refusal.value.code, refusal.value.status) == ("KEY_CHANGED_MEANWHILE", 409)
        assert await get_api_key(call_of(app, ada), GetKey(id=made.id)) == before
        assert isinstance(await check(app, made.key), Session)
        made = msgspec.structs.replace(made, updated_at=before.updated_at)


async def test_of_many_edits_at_once_of_the_same_state_one_is_done(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    clock.advance(1000)
    done = await asyncio.gather(
        *(
            update_api_key(
                call_of(app, ada),
                UpdateKey(key_id=made.id, name=f"n{n}", if_updated_at=made.updated_at),
            )
            for n in range(8)
        ),
        return_exceptions=True,
    )
    [changed] = [each for each in done if isinstance(each, ApiKey)]
    assert [each.code for each in done if isinstance(each, Failure)] == (
        ["KEY_CHANGED_MEANWHILE"] * 7
    )
    assert (await get_api_key(call_of(app, ada), GetKey(id=made.id))).name == changed.name


async def test_what_was_seen_is_no_change_by_itself_and_an_instant(app: App, ada: Session) -> None:
    made = await make(app, ada)
    call = call_of(app, ada)
    alone = UpdateKey(key_id=made.id, if_updated_at=made.updated_at)
    assert await code_of(update_api_key(call, alone)) == "NO_VALUES_TO_UPDATE"
    for text in ("", "now", "0", "2026-11-18", "2026-11-18T11:06:40", "\u202e", "9" * 5000):
        change = UpdateKey(key_id=made.id, name="x", if_updated_at=text)
        with pytest.raises(Failure, match="ifUpdatedAt") as refusal:
            await update_api_key(call, change)
        assert refusal.value.code == "VALIDATION_ERROR"


async def test_the_server_edits_limits_and_quota(
    app: App, ada: Session, clock: StandingClock
) -> None:
    made = await make(app, ada)
    operator = call_of(app)
    changed = await update_api_key(
        operator,
        UpdateKey(key_id=made.id, remaining=1, rate_limit_max=7, rate_limit_time_window=5000),
    )
    assert (changed.remaining, changed.rate_limit_max) == (1, 7)
    assert changed.rate_limit_time_window == 5000
    assert isinstance(await check(app, made.key), Session)
    assert await refused(app, made.key) == "USAGE_EXCEEDED"
    refilled = await update_api_key(
        operator, UpdateKey(key_id=made.id, refill_amount=2, refill_interval=1000)
    )
    assert (refilled.remaining, refilled.refill_amount) == (0, 2)
    clock.advance(1000)
    assert isinstance(await check(app, made.key), Session)
    off = await update_api_key(
        operator,
        UpdateKey(
            key_id=made.id, remaining=None, refill_amount=None, refill_interval=None,
            rate_limit_enabled=False,
        ),
    )  # fmt: skip
    assert (off.remaining, off.rate_limit_enabled) == (None, False)
    started = await update_api_key(
        operator, UpdateKey(key_id=made.id, refill_amount=4, refill_interval=1000)
    )
    assert started.remaining == 4


async def test_a_limit_goes_on_after_an_edit(app: App, ada: Session) -> None:
    made = await make(app, ada)
    operator = call_of(app)
    await update_api_key(operator, UpdateKey(key_id=made.id, rate_limit_max=2))
    assert isinstance(await check(app, made.key), Session)
    await update_api_key(operator, UpdateKey(key_id=made.id, rate_limit_max=3))
    assert isinstance(await check(app, made.key), Session)
    assert isinstance(await check(app, made.key), Session)
    over = await check(app, made.key)
    assert isinstance(over, Refusal)
    assert over.limit == RateLimit(maximum=3, window_ms=60_000)
