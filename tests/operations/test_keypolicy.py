"""A page knows how the caller's keys stand, and what a new one may be, before it asks."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from keybearer import Auth
from keybearer.domain.model import Session
from keybearer.inputs import CreateKey, ListKeys
from keybearer.operations.app import App
from keybearer.operations.declaration import Empty
from keybearer.operations.keybulk import RevokeKeys, UpdateKeys, revoke_api_keys, update_api_keys
from keybearer.operations.keypolicy import (
    KeyPolicy,
    KeyRate,
    KeySummary,
    get_key_policy,
    summarize_keys,
)
from keybearer.operations.keys import list_api_keys
from tests.operations.test_keys import accepted, make
from tests.people import SECRET, StandingClock, by, call_of, person

DAY = 86_400
HELD = {"deploy": ["run"], "files": ["read", "write"]}
ALL = {**HELD, "users": ["write"]}


@pytest.fixture
async def ada(app: App) -> Session:
    return by(await person(app))


def settle(app: App, **settings: object) -> None:
    object.__setattr__(app, "settings", msgspec.structs.replace(app.settings, **settings))


async def summary(app: App, who: Session | None = None) -> KeySummary:
    return await summarize_keys(call_of(app, who), Empty())


async def policy(app: App, who: Session | None = None) -> KeyPolicy:
    return await get_key_policy(call_of(app, who), Empty())


async def test_a_summary_counts_as_the_list_does(
    app: App, ada: Session, clock: StandingClock
) -> None:
    assert await summary(app, ada) == KeySummary(total=0, live=0, limit=100, expiring=0, unused=0)
    made = [await make(app, ada, expires_in=days * DAY) for days in (1, 92, 93, 200, 200, 200)]
    await update_api_keys(call_of(app, ada), UpdateKeys(key_ids=[made[1].id], enabled=False))
    await revoke_api_keys(call_of(app, ada), RevokeKeys(key_ids=[made[5].id]))
    eve = by(await person(app, "eve@example.com"))
    await make(app, eve)
    clock.advance(90 * DAY * 1000)
    await accepted(app, made[3].key)
    await make(app, ada, expires_in=DAY)
    told = await summary(app, ada)
    assert told == KeySummary(total=7, live=5, limit=100, expiring=3, unused=3)

    async def listed(**asked: Any) -> int:
        return (await list_api_keys(call_of(app, ada), ListKeys(**asked))).total

    assert told.total == await listed()
    assert told.expiring == await listed(expiring_within=604_800)
    assert told.unused == await listed(unused_for=7_776_000)
    assert (await summary(app)).total == 8  # the operator's are everyone's


async def test_a_policy_says_what_create_will_take(app: App, ada: Session) -> None:
    await make(app, ada)
    assert await policy(app, ada) == KeyPolicy(
        may_create=True,
        prefixes=["kb_"],
        default_lifetime=90 * DAY,
        max_lifetime=365 * DAY,
        allow_no_expiry=True,
        custom_expiry=True,
        config_id="default",
        permissions=HELD,
        rate_limit=KeyRate(max=1000, time_window=60_000),
        max_keys=100,
        live_keys=1,
    )
    await make(app, ada, permissions=HELD, expires_in=365 * DAY)  # to the very border


async def test_a_policy_is_the_settings_and_the_callers(app: App, ada: Session) -> None:
    settle(
        app,
        key_prefix=("kb_live_", "kb_test_"),
        key_rate_limit=None,
        key_allow_no_expiry=False,
        max_keys_per_owner=3,
        key_creation="admins",
    )
    told = await policy(app, ada)
    assert told.prefixes == ["kb_live_", "kb_test_"]
    assert (told.rate_limit, told.allow_no_expiry, told.max_keys) == (None, False, 3)
    assert told.may_create is False
    root = by(await person(app, "root@example.com", admin=True))
    told = await policy(app, root)
    assert (told.may_create, told.permissions) == (True, ALL)
    settle(app, key_creation="nobody")
    assert (await policy(app, root)).may_create is False
    told = await policy(app)
    assert (told.may_create, told.allow_no_expiry, told.permissions) == (True, True, ALL)


async def test_without_a_catalogue_the_caller_gives_no_permissions(app: App, ada: Session) -> None:
    object.__setattr__(app, "catalogue", frozenset())
    assert (await policy(app, ada)).permissions is None


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (None, ALL),
        (frozenset(), {}),
        (frozenset({"files:read", "gone:since"}), {"files": ["read"]}),
    ],
)
async def test_the_policy_gives_what_is_in_the_catalogue_and_held(
    app: App, ada: Session, held: frozenset[str] | None, told: Mapping[str, object]
) -> None:
    async def holds(_owner: str, _role: str) -> frozenset[str] | None:
        return held

    object.__setattr__(app, "holds", holds)
    assert (await policy(app, ada)).permissions == told


async def test_the_app_asks_for_an_owner_of_its_own_or_of_ours(
    auth: Auth, app: App, ready_url: str, clock: StandingClock
) -> None:
    root, eve = await person(app, "root@example.com", admin=True), await person(app)
    assert (await auth.api.get_key_policy(owner=root.id)).permissions == ALL
    assert (await auth.api.get_key_policy(owner=eve.id)).permissions == HELD
    assert (await auth.api.get_key_policy(owner="nobody")).permissions == HELD
    await auth.api.create_api_key(CreateKey(), owner=eve.id)
    assert (await auth.api.summarize_keys(owner=eve.id)).total == 1
    assert (await auth.api.summarize_keys(owner=root.id)).total == 0


async def test_with_owners_of_the_apps_the_policy_is_theirs(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, accounts=False, clock=clock, permissions="files:read")
    async with auth.lifespan():
        told = await auth.api.get_key_policy(owner="host-7")
        assert told.permissions == {"files": ["read"]}
