"""The words for a key's state, and what values show of themselves."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.changes import Change
from keybearer.domain.instants import MAX_INSTANT
from keybearer.domain.model import (
    ANONYMOUS,
    Anonymous,
    Bars,
    Grant,
    Key,
    KeySecret,
    Kind,
    LoginSession,
    RateLimit,
    Refusal,
    Session,
    User,
    Verdict,
    bars_of,
    pack,
)
from keybearer.domain.networks import AllowList
from keybearer.domain.uses import Batch, Count, LastUse, Sample, SecretUse

NOW = 1_795_000_000_000
DAY_MS = 86_400_000
EXPIRING_MS = 14 * DAY_MS
PLAIN: dict[str, Any] = dict.fromkeys(Key.__struct_fields__) | {
    "id": "k",
    "owner_id": "o",
    "prefix": "kb_",
    "start": "kb_abcd",
    "enabled": True,
    "ip_allow": (),
    "request_count": 0,
}


def key(**fields: Any) -> Key:
    return Key(**{**PLAIN, **fields})


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "active"),
        ({"expires_at": NOW + 14 * DAY_MS}, "active"),
        ({"expires_at": NOW + 14 * DAY_MS - 1}, "expiring"),
        ({"expires_at": NOW + 1}, "expiring"),
        ({"expires_at": NOW}, "expired"),
        ({"enabled": False}, "disabled"),
        ({"rotating_until": NOW + 1}, "rotating"),
        ({"rotating_until": NOW}, "active"),
        ({"revoked_at": 0}, "revoked"),
        # the gravest that applies
        ({"rotating_until": NOW + 1, "expires_at": NOW + 1}, "rotating"),
        ({"enabled": False, "rotating_until": NOW + 1}, "disabled"),
        ({"expires_at": NOW, "enabled": False}, "expired"),
        ({"revoked_at": NOW, "expires_at": NOW, "enabled": False}, "revoked"),
    ],
)
def test_a_status_is_the_gravest_word_that_applies(fields: dict[str, Any], status: str) -> None:
    assert key(**fields).status(NOW) == status


soon = st.none() | st.integers(NOW - 5, NOW + 5)


@given(soon, soon, st.none() | st.integers(NOW + EXPIRING_MS - 5, NOW + EXPIRING_MS + 5))
def test_a_status_stays_until_the_instant_that_is_told(
    rotating: int | None, ends: int | None, later: int | None
) -> None:
    record = key(rotating_until=rotating, expires_at=ends if later is None else later)
    until = record.status_until(NOW)
    for now in range(NOW, min(until, NOW + 20)):
        assert record.status(now) == record.status(NOW)
    assert until > NOW
    told = {record.rotating_until, record.expires_at, (record.expires_at or 0) - EXPIRING_MS + 1}
    assert until in told | {MAX_INSTANT}


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_session_ends_at_the_sooner_of_idle_and_absolute(absolute: int, idle: int) -> None:
    fields: dict[str, Any] = dict.fromkeys(LoginSession.__struct_fields__)
    login = LoginSession(
        **{**fields, "expires_at": NOW + absolute, "last_seen_at": NOW, "idle_ms": idle}
    )
    assert login.ends_at == NOW + min(absolute, idle)


def test_a_users_repr_shows_neither_address_nor_hash() -> None:
    fields: dict[str, Any] = dict.fromkeys(User.__struct_fields__)
    user = User(**{**fields, "id": "u1", "email": "ada@example.com", "password_hash": "$argon2"})
    assert repr(user) == "User(id='u1', role=None)"


def test_only_a_key_has_a_key_id() -> None:
    assert Session(subject="o", kind="key", id="k").key_id == "k"
    assert Session(subject="o", kind="session", id="s").key_id is None


def test_a_refusal_speaks_by_the_table() -> None:
    refusal = Refusal(code="KEY_EXPIRED")
    assert (refusal.status, refusal.message) == (401, "API key has expired")
    failure = refusal.failure()
    assert (failure.code, failure.extra, failure.retry_after_ms) == ("KEY_EXPIRED", {}, None)


def test_a_refusal_tells_what_was_needed_and_when_to_come_again() -> None:
    scope = Refusal(code="INSUFFICIENT_SCOPE", needed=frozenset({"b:x", "a:x"})).failure()
    assert scope.extra == {"neededPermissions": ["a:x", "b:x"]}
    limited = Refusal(
        code="RATE_LIMITED", retry_after_ms=0, limit=RateLimit(maximum=5, window_ms=1000)
    ).failure()
    assert limited.extra == {"details": {"tryAgainIn": 0}, "limit": {"max": 5, "window": 1000}}
    assert limited.retry_after_ms == 0


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("key", ("key:i", "owner:o")),
        ("session", ("session:i", "owner:o")),
        ("access", ("session:i", "owner:o")),
        ("service", ("service:i",)),
    ],
)
def test_a_grant_is_stale_when_its_row_or_its_owner_changes(
    kind: Kind, tags: tuple[str, ...]
) -> None:
    grant = Grant(session=Session(subject="o", kind=kind, id="i"))
    assert grant.tags == tags
    assert [f"{of}:{id}" for of, id in grant.depends_on] == list(tags)
    assert (grant.kind, grant.id, grant.record) == (kind, "i", None)


def test_what_stands_in_nobodys_way_is_nothing() -> None:
    assert bars_of() is None
    for field, value in {
        "usable_until": 0,
        "enabled": False,
        "revoked_at": 0,
        "owner_state": "gone",
        "allow": AllowList(()),
    }.items():
        given: dict[str, Any] = {field: value}
        bars = bars_of(**given)
        assert bars == Bars(**given)
        assert getattr(bars, field) == value


def test_a_packed_record_has_nothing_that_its_session_has() -> None:
    filled: dict[str, Any] = {
        **dict.fromkeys(("config_id", "created_by"), "x"),
        **dict.fromkeys(("created_at", "updated_at"), NOW),
        "rate_limit_enabled": False,
        "deleted": False,
        "metadata": {"a": [1, None]},
    }
    record = key(id="the key's id", owner_id="the owner's id", **filled)
    packed = pack(record)
    assert b"'s id" not in packed
    session = Session(subject="the owner's id", kind="key", id="the key's id")
    assert Grant(session=session, packed=packed).record == record


def test_a_secret_of_a_key_shows_its_start_alone() -> None:
    fields: dict[str, Any] = dict.fromkeys(KeySecret.__struct_fields__)
    secret = KeySecret(**{**fields, "digest": b"d", "start": "kb_ab", "usable_until": 5})
    assert repr(secret) == "KeySecret(start='kb_ab', usable_until=5)"


@pytest.mark.parametrize(("at", "minute"), [(0, 0), (59_999, 0), (60_000, 1), (3_600_000, 60)])
def test_a_sample_is_of_a_minute(at: int, minute: int) -> None:
    sample = Sample(key_id="k", outcome="accepted", at=at, n=1, ip=None, user_agent=None)
    assert sample.minute == minute


@pytest.mark.parametrize(
    ("verdict", "type_"),
    [
        (Session(subject="o", kind="key", id="k"), "session"),
        (Refusal(code="NOT_FOUND"), "refusal"),
        (ANONYMOUS, "anonymous"),
    ],
)
def test_a_verdict_that_is_written_says_which_it_is(verdict: Verdict, type_: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(verdict))["type"] == type_


def test_who_is_a_session_by_default_may_nothing_more() -> None:
    session = Session(subject="o", kind="session", id="s")
    assert (session.permissions, session.role, session.replaced) == (frozenset(), "user", False)
    assert Refusal(code="NOT_FOUND").needed == frozenset()
    assert Grant(session=session).metered is False


@pytest.mark.parametrize(
    "verdict", [Session(subject="o", kind="key", id="k"), Refusal(code="NOT_FOUND"), ANONYMOUS]
)
def test_a_verdict_is_a_value_that_can_be_written_and_read(verdict: Verdict) -> None:
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_nobody_is_equal_to_nobody() -> None:
    assert Anonymous() == ANONYMOUS


def test_what_an_earlier_version_left_on_the_disk_or_sent_over_the_bus_is_read() -> None:
    row = [
        "id",
        [["k", 0, "accepted", 3]],
        [["k", 5, "203.0.113.7", "curl", 3, b"state"], ["l", 5, None, None, 1]],
        [["s", 5, None, None, 1, None]],
        [[b"digest", 5, None, 2]],
        [["k", "accepted", 5, 3, None, "curl"]],
    ]
    batch = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=Batch)
    assert batch == Batch(
        id="id",
        counts=[Count(key_id="k", hour=0, outcome="accepted", n=3)],
        keys=[
            LastUse(id="k", at=5, ip="203.0.113.7", user_agent="curl", n=3, limit_state=b"state"),
            LastUse(id="l", at=5, ip=None, user_agent=None, n=1),
        ],
        sessions=[LastUse(id="s", at=5, ip=None, user_agent=None, n=1)],
        secrets=[SecretUse(digest=b"digest", at=5, ip=None, n=2)],
        samples=[Sample(key_id="k", outcome="accepted", at=5, n=3, ip=None, user_agent="curl")],
    )
    change = msgspec.msgpack.encode([7, ["key:k"], "node"])
    assert msgspec.msgpack.decode(change, type=Change) == Change(7, ("key:k",), "node")
