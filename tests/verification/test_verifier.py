"""From headers to a verdict, every way; the database is read once or not at all."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Any

import pytest
from msgspec.structs import replace

from keybearer.domain.credentials import REFRESH_PREFIX, PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.model import (
    ANONYMOUS,
    EXPIRING_MS,
    Key,
    Kind,
    RateLimit,
    Refusal,
    Session,
    Verdict,
)
from keybearer.domain.networks import compile_allow_list
from keybearer.verification import patience
from keybearer.verification.cache import ENTRY_LIFE_MS
from keybearer.verification.coherence import LEASE_MS
from keybearer.verification.verifier import Verified, Verifier
from tests.people import START
from tests.verification.parts import (
    ALL,
    COOKIE,
    Bench,
    bearer,
    header,
    new_key,
    new_service_token,
)
from tests.verification.test_usage import KEY

READ = frozenset({"files:read"})
LIMIT = RateLimit(maximum=2, window_ms=1000)
SERVICE: frozenset[Kind] = frozenset({"service"})


async def verdict_of(bench: Bench, headers: Any, **options: Any) -> Verdict:
    return await bench.verifier.verify(headers, "203.0.113.7", **options)


def code(verdict: Verdict | Verified) -> str:
    return verdict.code if isinstance(verdict, Refusal) else type(verdict).__name__


def session_cookie(bench: Bench, token: str) -> list[tuple[bytes, bytes]]:
    value = bench.ring.sign(token).replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")
    return [(b"cookie", f"{COOKIE}={value}".encode())]


# --- what is presented ----------------------------------------------------------------------


async def test_a_good_key_is_a_session() -> None:
    bench = Bench()
    key = bench.add(permissions=READ, name="ci", expires_at=START + 9, role="admin")
    for headers in (bearer(key), header(key)):
        assert await verdict_of(bench, headers, needed=READ) == Session(
            subject="ann",
            kind="key",
            id="k1",
            permissions=READ,
            name="ci",
            role="admin",
            expires_at=START + 9,
        )


async def test_nothing_presented_is_nobody_and_reads_nothing() -> None:
    bench = Bench()
    assert await verdict_of(bench, []) is ANONYMOUS
    assert bench.rows.reads == []


async def test_two_credentials_are_refused_and_read_nothing() -> None:
    bench = Bench()
    key = bench.add()
    assert code(await verdict_of(bench, bearer(key) + header(key))) == "MULTIPLE_CREDENTIALS"
    assert bench.rows.reads == []


@pytest.mark.parametrize("build", [bearer, header])
async def test_a_credential_above_8_kb_is_refused_and_reads_nothing(build: Any) -> None:
    bench = Bench()
    assert isinstance(await verdict_of(bench, build(b"kb_" + b"a" * 8190)), Refusal)
    assert bench.rows.reads == []


async def test_a_signed_cookie_is_a_session() -> None:
    bench = Bench()
    token = bench.add("session", session_id="s1", id="s1", authenticated_at=5)
    accepted = await verdict_of(bench, session_cookie(bench, token.decode()))
    assert isinstance(accepted, Session)
    assert (accepted.kind, accepted.session_id, accepted.authenticated_at) == ("session", "s1", 5)


async def test_a_cookie_and_a_bearer_of_one_token_share_an_entry() -> None:
    bench = Bench()
    token = bench.add("session")
    await verdict_of(bench, session_cookie(bench, token.decode()))
    await verdict_of(bench, bearer(token))
    assert len(bench.rows.reads) == 1


@pytest.mark.parametrize("value", ["abc", "abc.def", "", "%ff%ff.%ff", "%", "abc.%00"])
async def test_a_cookie_that_we_did_not_sign_is_nobody(value: str) -> None:
    bench = Bench()
    bench.add("session", credential=b"abc")
    headers = [(b"cookie", f"{COOKIE}={value}".encode())]
    assert await verdict_of(bench, headers) is ANONYMOUS
    assert bench.rows.reads == []


async def test_a_cookie_of_another_secret_is_nobody() -> None:
    bench = Bench()
    signed = PepperRing([b"x" * 32]).sign("abc")
    assert await verdict_of(bench, [(b"cookie", f"{COOKIE}={signed}".encode())]) is ANONYMOUS


@pytest.mark.parametrize(
    ("credential", "via", "expected", "reads"),
    [
        (b"kb_" + b"0" * 49, "bearer", "INVALID_API_KEY", 0),
        (b"kb_" + b"0" * 49, "header", "INVALID_API_KEY", 0),
        (b"kb_", "bearer", "INVALID_API_KEY", 0),
        (b"kbs_" + b"0" * 49, "bearer", "INVALID_ACCESS_TOKEN", 0),
        (b"kbs_" + b"0" * 49, "header", "INVALID_API_KEY", 0),
        (REFRESH_PREFIX.encode() + b"0" * 76, "bearer", "INVALID_ACCESS_TOKEN", 0),
        (REFRESH_PREFIX.encode() + b"0" * 76, "header", "INVALID_API_KEY", 0),
        (new_key(), "bearer", "INVALID_API_KEY", 1),
        (new_service_token(), "bearer", "INVALID_ACCESS_TOKEN", 1),
        (b"a.b.c", "bearer", "INVALID_ACCESS_TOKEN", 1),
        (b"a.b.c", "header", "INVALID_API_KEY", 0),
        (b"unknown", "header", "INVALID_API_KEY", 0),
        (b"unknown", "bearer", "INVALID_ACCESS_TOKEN", 1),
        (b"\xff\0", "bearer", "INVALID_ACCESS_TOKEN", 1),
    ],
)
async def test_what_is_no_credential_of_ours(
    credential: bytes, via: str, expected: str, reads: int
) -> None:
    bench = Bench()
    assert await bench.code(credential, via=via, accept=ALL) == expected
    assert len(bench.rows.reads) == reads


async def test_a_storm_of_made_up_keys_reads_nothing_and_keeps_nothing() -> None:
    bench = Bench()
    key = new_key()
    for number in range(2_000):
        forged = key[:-6] + f"{number:06}".encode()
        if forged != key:
            assert await bench.code(forged) == "INVALID_API_KEY"
    assert bench.rows.reads == []
    assert bench.lease.until == 0
    assert len(bench.cache) == 0


async def test_each_kind_is_asked_for_where_it_is_kept() -> None:
    bench = Bench(prefixes=("kb_", "acme_"))
    kinds: tuple[Kind, ...] = ("key", "service", "session", "access")
    for kind in kinds:
        credential = bench.add(kind, id=kind)
        verified = await bench.check(credential, accept=ALL)
        assert isinstance(verified, Verified)
        assert verified.session.kind == kind
    assert [kind for kind, _ in bench.rows.reads] == list(kinds)


@pytest.mark.parametrize(
    ("credential", "kind"),
    [(b"ab", "session"), (b"a.b", "session"), (b"a.b.c", "access"), (b"a.b.c.d", "session")],
)
async def test_two_dots_make_an_access_token(credential: bytes, kind: Kind) -> None:
    bench = Bench()
    await bench.check(credential)
    assert bench.rows.reads == [(kind, credential)]


# --- kinds at the wrong place ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "via", "accept", "expected"),
    [
        ("session", "header", {"key", "session"}, "INVALID_API_KEY"),
        ("access", "header", {"key", "access"}, "INVALID_API_KEY"),
        ("key", "bearer", {"session"}, "SESSION_REQUIRED"),
        ("key", "header", {"session"}, "SESSION_REQUIRED"),
        ("service", "bearer", {"key", "session"}, "INVALID_ACCESS_TOKEN"),
        ("service", "header", {"key", "session"}, "INVALID_API_KEY"),
        ("session", "bearer", {"service"}, "INVALID_ACCESS_TOKEN"),
        ("service", "header", {"service"}, "ok"),
        ("service", "bearer", {"service"}, "ok"),
        ("key", "header", {"key"}, "ok"),
        ("session", "bearer", {"session"}, "ok"),
    ],
)
async def test_a_good_credential_is_good_at_its_place_alone(
    kind: Kind, via: str, accept: set[Kind], expected: str
) -> None:
    bench = Bench()
    credential = bench.add(kind)
    assert await bench.code(credential, via=via, accept=frozenset(accept)) == expected


@pytest.mark.parametrize("kind", ["session", "access"])
async def test_what_is_in_memory_is_no_better_as_an_api_key(kind: Kind) -> None:
    bench = Bench()
    token = bench.add(kind)
    assert await bench.code(token) == "ok"
    assert await bench.code(token, via="header") == "INVALID_API_KEY"
    assert await bench.code(token) == "ok"


async def test_a_login_is_used_though_it_costs_nothing() -> None:
    bench = Bench()
    token = bench.add("session", id="s1", session_id="s1")
    assert await bench.code(token, charge=0) == "ok"
    assert await bench.code(bench.add(), charge=0) == "ok"
    await bench.flush()
    (batch,) = bench.batches
    assert ([(use.id, use.n) for use in batch.sessions], batch.keys) == ([("s1", 1)], [])


async def test_what_is_misplaced_is_neither_charged_nor_counted() -> None:
    bench = Bench()
    key = bench.add(limit=RateLimit(maximum=1, window_ms=1000))
    refusal = await bench.check(key, accept=frozenset({"session"}))
    assert refusal == Refusal(code="SESSION_REQUIRED", id="k1")
    await bench.flush()
    assert bench.counted() == {}
    assert await bench.code(key) == "ok"


async def test_a_service_token_is_not_good_at_guarded_endpoints_by_default() -> None:
    bench = Bench()
    assert await bench.code(bench.add("service")) == "INVALID_ACCESS_TOKEN"


# --- the judgement --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"revoked_at": 1}, "KEY_REVOKED"),
        ({"enabled": False}, "KEY_DISABLED"),
        ({"expires_at": START}, "KEY_EXPIRED"),
        ({"owner_state": "disabled"}, "OWNER_DISABLED"),
        ({"allow": compile_allow_list(["192.0.2.1"])}, "IP_NOT_ALLOWED"),
        ({"permissions": frozenset()}, "INSUFFICIENT_SCOPE"),
    ],
)
async def test_a_refused_key_is_counted_and_takes_nothing(
    fields: dict[str, Any], expected: str
) -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 5
    key = bench.add(**{"permissions": READ, "limit": LIMIT, "metered": True, **fields})
    for _ in range(3):  # cold, then warm
        assert await bench.code(key, needed=READ) == expected
    await bench.flush()
    assert bench.counted() == {expected: 3}
    assert bench.quotas.left == {"k1": 5}
    assert bench.limiter.state("k1") is None
    assert len(bench.rows.reads) == 1


async def test_a_key_ends_on_the_millisecond_while_it_is_cached() -> None:
    bench = Bench()
    key = bench.add(expires_at=START + 1000)
    assert await bench.code(key) == "ok"
    bench.clock.advance(999)
    assert await bench.code(key) == "ok"
    bench.clock.advance(1)
    assert await bench.code(key) == "KEY_EXPIRED"


async def test_a_rotated_keys_old_secret_says_so_until_it_ends() -> None:
    bench = Bench()
    key = bench.add(usable_until=START + EXPIRING_MS, replaced=True)
    verified = await bench.check(key)
    assert isinstance(verified, Verified)
    assert verified.session.replaced


async def test_a_grant_that_is_refused_outright_is_not_kept() -> None:
    bench = Bench()
    bench.rows.rows[b"a.b.c"] = Refusal(code="TOKEN_EXPIRED")
    for _ in range(2):
        assert await bench.code(b"a.b.c") == "TOKEN_EXPIRED"
    assert len(bench.rows.reads) == 2


async def test_time_spent_on_the_read_counts_against_the_expiry() -> None:
    bench = Bench()
    key = bench.add(expires_at=START + 10)
    bench.rows.gate = asyncio.Event()
    request = asyncio.create_task(bench.check(key))
    await asyncio.sleep(0)
    bench.clock.advance(10)
    bench.rows.gate.set()
    assert code(await request) == "KEY_EXPIRED"


# --- limit and quota ------------------------------------------------------------------------


async def test_the_limit_refuses_with_when_to_come_again() -> None:
    bench = Bench()
    key = bench.add(limit=LIMIT)
    assert [await bench.code(key) for _ in range(2)] == ["ok", "ok"]
    refusal = await bench.check(key)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.limit, refusal.id) == ("RATE_LIMITED", LIMIT, "k1")
    assert refusal.retry_after_ms is not None
    assert 0 < refusal.retry_after_ms <= 1000 * 65 / 64 + 1
    bench.clock.advance(refusal.retry_after_ms)
    assert await bench.code(key) == "ok"
    await bench.flush()
    assert bench.counted() == {"accepted": 3, "RATE_LIMITED": 1}


async def test_an_uncharged_check_takes_and_counts_nothing() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 1
    key = bench.add(limit=RateLimit(maximum=1, window_ms=1000), metered=True)
    for _ in range(3):
        accepted = await verdict_of(bench, bearer(key), charge=False)
        assert isinstance(accepted, Session)
        assert await bench.code(key, charge=0) == "ok"
    await bench.flush()
    assert (bench.quotas.left, bench.counted()) == ({"k1": 1}, {})
    assert await bench.code(key) == "ok"


async def test_the_quota_is_taken_and_what_is_left_is_told() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 5
    key = bench.add(metered=True)
    left = []
    for cost in (1, 3):
        verified = await bench.check(key, charge=cost)
        assert isinstance(verified, Verified)
        assert verified.left is not None
        left.append(verified.left.remaining)
    assert left == [4, 1]
    assert await bench.code(key, charge=2) == "USAGE_EXCEEDED"
    assert bench.quotas.taken == [((1,), 0, 0), ((3,), 0, 0), ((2,), 0, 0)]


REFILLED = replace(
    KEY, refill_amount=3, refill_interval_ms=60_000, created_at=START - 59_000, remaining=0
)


@pytest.mark.parametrize(
    ("record", "retry_after_ms", "limit"),
    [
        (REFILLED, 1_000, RateLimit(maximum=3, window_ms=60_000)),
        (replace(REFILLED, last_refill_at=START - 10_000), 50_000, RateLimit(
            maximum=3, window_ms=60_000
        )),
        (replace(REFILLED, refill_amount=None), None, None),
        (replace(REFILLED, refill_interval_ms=None), None, None),
        (None, None, None),
    ],
)  # fmt: skip
async def test_a_spent_quota_says_when_it_is_refilled_if_ever(
    record: Key | None, retry_after_ms: int | None, limit: RateLimit | None
) -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 0
    key = bench.add(metered=True, record=record)
    assert await bench.check(key) == Refusal(
        code="USAGE_EXCEEDED", retry_after_ms=retry_after_ms, limit=limit, id="k1"
    )


async def test_a_record_has_this_use_and_what_the_quota_has_left() -> None:
    bench = Bench()
    bench.quotas.left["k1"], bench.quotas.refilled_at = 5, START - 1
    key = bench.add(metered=True, record=replace(KEY, remaining=9, request_count=7))
    for count in (8, 9):
        verified = await bench.check(key)
        assert isinstance(verified, Verified)
        record = verified.record()
        assert record is not None
        assert (record.request_count, record.remaining) == (count, 12 - count)
        assert (record.last_used_at, record.last_refill_at) == (START, START - 1)


async def test_a_record_that_is_read_anew_has_every_use_that_is_not_written() -> None:
    bench = Bench()
    key = bench.add(record=replace(KEY, request_count=7))
    await bench.check(key)
    await bench.flush()
    verified = await bench.check(key)
    assert isinstance(verified, Verified)
    now = verified.record(replace(KEY, request_count=8, name="new"))
    cached = verified.record()
    assert now is not None
    assert cached is not None
    assert (now.request_count, now.name, now.remaining) == (9, "new", None)
    assert (cached.request_count, cached.name, cached.remaining) == (9, None, None)
    await bench.flush()
    bench.add(credential=key, record=replace(KEY, request_count=9))
    bench.cache.clear()
    verified = await bench.check(key)
    assert isinstance(verified, Verified)
    record = verified.record()
    assert record is not None
    assert record.request_count == 10  # what was written before the read is in it


async def test_what_is_no_key_has_no_record() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 5
    for credential in (bench.add(metered=True), bench.add("session", id="s1")):
        verified = await bench.check(credential)
        assert isinstance(verified, Verified)
        assert verified.record() is None


async def test_the_limit_comes_first_and_keeps_the_quota() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 10
    key = bench.add(limit=LIMIT, metered=True)
    codes = [await bench.code(key) for _ in range(4)]
    assert codes == ["ok", "ok", "RATE_LIMITED", "RATE_LIMITED"]
    assert bench.quotas.left == {"k1": 8}


async def test_what_the_quota_refuses_is_given_back_to_the_limit() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 0
    key = bench.add(limit=LIMIT, metered=True)
    assert [await bench.code(key) for _ in range(5)] == ["USAGE_EXCEEDED"] * 5
    bench.quotas.left["k1"] = 10
    assert [await bench.code(key) for _ in range(3)] == ["ok", "ok", "RATE_LIMITED"]


async def test_a_lost_quota_is_unavailable_and_given_back_to_the_limit() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 10
    key = bench.add(limit=LIMIT, metered=True)
    bench.quotas.lost = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            await bench.check(key)
    bench.quotas.lost = False
    assert [await bench.code(key) for _ in range(3)] == ["ok", "ok", "RATE_LIMITED"]
    await bench.flush()
    assert bench.counted() == {"accepted": 2, "RATE_LIMITED": 1}


async def test_a_lost_quota_of_a_key_without_limit_is_unavailable() -> None:
    bench = Bench()
    bench.quotas.left["k1"], bench.quotas.lost = 1, True
    key = bench.add(metered=True)
    with pytest.raises(Unavailable):
        await bench.check(key)


async def test_a_request_cancelled_at_the_quota_is_given_back_to_the_limit_once() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 10
    key = bench.add(limit=RateLimit(maximum=1, window_ms=1000), metered=True)
    bench.quotas.gate = asyncio.Event()
    request = asyncio.create_task(bench.check(key))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    bench.quotas.gate.set()
    assert [await bench.code(key) for _ in range(2)] == ["ok", "RATE_LIMITED"]
    await bench.flush()
    assert bench.counted() == {"accepted": 1, "RATE_LIMITED": 1}


async def test_under_parallel_requests_the_limit_is_exact() -> None:
    bench = Bench()
    bench.quotas.left["k1"] = 1000
    key = bench.add(limit=RateLimit(maximum=7, window_ms=1000), metered=True)
    codes = await asyncio.gather(*(bench.code(key) for _ in range(50)))
    assert (codes.count("ok"), codes.count("RATE_LIMITED")) == (7, 43)
    assert bench.quotas.left == {"k1": 993}


# --- one read for many ----------------------------------------------------------------------


async def test_50_parallel_cold_checks_of_one_key_read_once() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate = asyncio.Event()
    requests = [asyncio.create_task(bench.code(key)) for _ in range(50)]
    await asyncio.sleep(0.01)
    bench.rows.gate.set()
    assert set(await asyncio.gather(*requests)) == {"ok"}
    assert len(bench.rows.reads) == 1
    assert bench.verifier._finder._flights == {}
    await bench.flush()
    assert bench.counted() == {"accepted": 50}


async def test_different_keys_are_read_beside_each_other() -> None:
    bench = Bench()
    keys = [bench.add(id=f"k{number}") for number in range(5)]
    bench.rows.gate = asyncio.Event()
    requests = [asyncio.create_task(bench.code(key)) for key in keys]
    await asyncio.sleep(0.01)
    assert len(bench.rows.reads) == 5
    bench.rows.gate.set()
    await asyncio.gather(*requests)


async def test_who_goes_away_leaves_the_read_to_the_others() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate = asyncio.Event()
    first, second = (asyncio.create_task(bench.check(key)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    bench.rows.gate.set()
    assert isinstance(await second, Verified)
    assert len(bench.rows.reads) == 1
    assert bench.verifier._finder._flights == {}


async def test_a_read_that_everybody_left_ends_without_a_trace() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate, bench.rows.lost = asyncio.Event(), True
    request = asyncio.create_task(bench.check(key))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    bench.rows.gate.set()
    await asyncio.sleep(0.01)
    assert bench.verifier._finder._flights == {}
    await bench.flush()
    assert bench.batches == []


async def test_a_cancelled_read_is_not_an_answer_for_ever() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate = asyncio.Event()
    request = asyncio.create_task(bench.check(key))
    await asyncio.sleep(0.01)
    ((_, flight),) = bench.verifier._finder._flights.values()
    flight.cancel()  # as a closing event loop does
    await asyncio.gather(request, return_exceptions=True)
    await asyncio.sleep(0)
    bench.rows.gate.set()
    assert bench.verifier._finder._flights == {}
    assert await bench.code(key) == "ok"


async def test_a_read_that_hangs_is_not_waited_for_and_may_still_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    bench = Bench()
    key = bench.add()
    bench.rows.gate = asyncio.Event()
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not answer"):
            await bench.check(key)
    assert len(bench.rows.reads) == 1
    bench.rows.gate.set()
    await asyncio.sleep(0.01)
    assert bench.verifier._finder._flights == {}
    assert await bench.code(key) == "ok"
    assert len(bench.rows.reads) == 1


async def test_a_request_after_an_invalidation_does_not_join_the_read_before_it() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate = asyncio.Event()
    early = asyncio.create_task(bench.code(key))
    await asyncio.sleep(0.01)
    bench.add(credential=key, revoked_at=1)
    bench.cache.invalidate(["key:k1"])
    late = asyncio.create_task(bench.code(key))
    await asyncio.sleep(0.01)
    assert len(bench.rows.reads) == 2
    bench.rows.gate.set()
    assert await late == "KEY_REVOKED"
    await early  # it began before: either answer is right
    # The early read ended in the late one's flight's time, and left that alone.
    assert bench.verifier._finder._flights == {}
    assert await bench.code(key) == "KEY_REVOKED"


@pytest.mark.parametrize("first", ["early", "late"])
async def test_of_two_reads_each_ends_its_own_flight(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    key = bench.add()
    gates = {name: asyncio.Event() for name in ("early", "late")}
    requests = {}
    for name, gate in gates.items():
        bench.rows.gate = gate
        requests[name] = asyncio.create_task(bench.code(key))
        while len(bench.rows.reads) < len(requests):  # noqa: ASYNC110 -- they are tasks
            await asyncio.sleep(0)
        if name == "early":
            bench.cache.invalidate(["key:k1"])
    gates.pop(first).set()
    assert await requests.pop(first) == "ok"
    assert len(bench.verifier._finder._flights) == (first == "early")
    third = asyncio.create_task(bench.code(key))
    for _ in range(20):
        await asyncio.sleep(0)
    for gate in gates.values():
        gate.set()
    assert [await third, *[await each for each in requests.values()]] == ["ok", "ok"]
    assert len(bench.rows.reads) == 2
    assert bench.verifier._finder._flights == {}
    assert caplog.records == []


async def test_a_lost_database_is_unavailable_for_all_who_wait_and_asked_anew_after() -> None:
    bench = Bench()
    key = bench.add()
    bench.rows.gate, bench.rows.lost = asyncio.Event(), True
    requests = [asyncio.create_task(bench.check(key)) for _ in range(10)]
    await asyncio.sleep(0.01)
    bench.rows.gate.set()
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert len(bench.rows.reads) == 1
    with pytest.raises(Unavailable):
        await bench.check(key)
    bench.rows.lost = False
    assert await bench.code(key) == "ok"
    assert len(bench.rows.reads) == 3


# --- what is told, and what is not ----------------------------------------------------------


class Spans:
    """A tracer that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    @contextmanager
    def span(self, name: str) -> Iterator["Spans"]:
        self.told.append((name, {}))
        yield self

    def tell(self, **facts: object) -> None:
        self.told[-1][1].update(facts)


async def test_a_check_that_is_not_answered_from_memory_is_a_span() -> None:
    spans = Spans()
    bench = Bench(verifier=partial(Verifier, tracer=spans))
    key = bench.add()
    session = bench.add("session", id="s1")
    for credential in (key, key, session, new_key(), REFRESH_PREFIX.encode() + b"0" * 76):
        await bench.check(credential)
    assert spans.told == [
        ("keybearer.verify", {"kind": "key", "outcome": "accepted"}),
        ("keybearer.verify", {"kind": "session", "outcome": "accepted"}),
        ("keybearer.verify", {"kind": "key", "outcome": "INVALID_API_KEY"}),
        ("keybearer.verify", {"kind": "none", "outcome": "INVALID_ACCESS_TOKEN"}),
    ]


async def test_only_credentials_of_ours_are_misses() -> None:
    bench = Bench()
    assert bench.verifier.misses == 0
    key = bench.add()
    for credential in (key, key, new_key(), b"a.b.c"):
        await bench.check(credential)
    assert bench.verifier.misses == 1


async def test_while_the_database_is_lost_what_goes_on_is_answered_from_memory() -> None:
    bench = Bench(stale_ms=60_000)
    key = bench.add()
    await bench.check(key)
    bench.log.lost = bench.rows.lost = True
    bench.clock.advance(ENTRY_LIFE_MS)
    assert await bench.code(key) == "ok"  # only this one finds that the lease was over
    misses = bench.verifier.misses
    for _ in range(3):
        assert await bench.code(key) == "ok"
    assert bench.verifier.misses == misses


async def test_each_process_has_an_index_that_nobody_can_reckon() -> None:
    key = new_key()
    indexes = set()
    for _ in range(2):
        bench = Bench()
        await bench.check(bench.add(credential=key))
        (index,) = bench.cache._entries
        assert len(index) == 16
        assert index != blake2b(key, digest_size=16).digest()
        indexes.add(index)
    assert len(indexes) == 2


# --- the cache and the lease ----------------------------------------------------------------


async def test_a_warm_check_reads_nothing() -> None:
    bench = Bench()
    key = bench.add()
    for _ in range(10):
        assert await bench.code(key) == "ok"
    assert len(bench.rows.reads) == 1


async def test_an_entry_is_read_again_when_it_is_old() -> None:
    bench = Bench()
    key = bench.add()
    await bench.check(key)
    bench.add(credential=key, enabled=False)  # in SQL, behind our back
    bench.clock.advance(ENTRY_LIFE_MS - 1)
    await bench.lease.renew()
    assert await bench.code(key) == "ok"
    bench.clock.advance(1)
    assert await bench.code(key) == "KEY_DISABLED"


async def test_without_a_lease_nothing_is_answered_from_the_cache() -> None:
    bench = Bench()
    key = bench.add()
    await bench.check(key)
    bench.clock.advance(LEASE_MS)
    bench.log.lost = True
    with pytest.raises(Unavailable):
        await bench.check(key)
    bench.log.lost = False
    assert await bench.code(key) == "ok"


async def test_after_a_lease_that_was_over_what_is_cached_and_unchanged_is_good_still() -> None:
    bench = Bench()
    key, other = bench.add(), bench.add(id="k2")
    await bench.check(key)
    await bench.check(other)
    bench.add(credential=other, id="k2", revoked_at=1)
    bench.log.change("key:k2")
    bench.clock.advance(LEASE_MS)
    bench.rows.reads.clear()
    assert [await bench.code(key), await bench.code(other)] == ["ok", "KEY_REVOKED"]
    assert bench.rows.reads == [("key", other)]


@pytest.mark.parametrize("declared_ms", [0, 60_000])
async def test_while_the_database_is_lost_what_is_cached_goes_on_as_long_as_declared(
    declared_ms: int,
) -> None:
    bench = Bench(stale_ms=declared_ms)
    key, unknown = bench.add(), bench.add(id="k2")
    await bench.check(key)
    bench.log.lost = bench.rows.lost = True
    bench.clock.advance(LEASE_MS)
    for passed in (0, ENTRY_LIFE_MS):
        bench.clock.advance(passed)
        if declared_ms:
            assert await bench.code(key) == "ok"
            assert bench.verifier.warm(bearer(key), None) is not None
        else:
            with pytest.raises(Unavailable):
                await bench.check(key)
        with pytest.raises(Unavailable):
            await bench.check(unknown)
    bench.clock.advance(declared_ms)
    with pytest.raises(Unavailable):
        await bench.check(key)
    bench.log.lost = bench.rows.lost = False
    bench.log.change("key:k1")
    bench.add(credential=key, revoked_at=1)
    assert await bench.code(key) == "KEY_REVOKED"


async def test_nothing_declared_covers_a_process_whose_place_another_took() -> None:
    bench = Bench(stale_ms=60_000)
    key = bench.add()
    await bench.check(key)
    bench.log.taken = True
    bench.clock.advance(LEASE_MS)
    for _ in range(2):
        with pytest.raises(Unavailable, match="another process"):
            await bench.check(key)


async def test_what_another_node_changed_is_read_anew() -> None:
    bench = Bench()
    key = bench.add()
    await bench.check(key)
    bench.add(credential=key, revoked_at=1)
    bench.log.change("key:k1")
    bench.clock.advance(LEASE_MS)
    assert await bench.code(key) == "KEY_REVOKED"


async def test_an_access_tokens_use_is_its_sessions() -> None:
    bench = Bench()
    token = bench.add("access", id="jti", session_id="s1")
    await bench.check(token)
    await bench.flush()
    (batch,) = bench.batches
    assert ([use.id for use in batch.sessions], batch.keys, batch.counts) == (["s1"], [], [])


async def test_address_and_user_agent_go_into_the_tally() -> None:
    bench = Bench()
    key = bench.add(limit=LIMIT)
    await bench.check(key, ip="203.0.113.9")
    await bench.flush()
    (use,) = bench.batches[0].keys
    assert (use.id, use.at, use.ip, use.user_agent) == ("k1", START, "203.0.113.9", "tests")
    assert use.limit_state == bench.limiter.state("k1") is not None
