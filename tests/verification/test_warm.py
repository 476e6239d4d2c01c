"""The check from memory says what the whole check says, or leaves it to that one."""

from typing import Any

import pytest

from keybearer.domain.model import ANONYMOUS, RateLimit, Refusal, Session
from keybearer.verification.cache import ENTRY_LIFE_MS
from keybearer.verification.coherence import LEASE_MS
from keybearer.verification.presented import Places
from tests.verification.parts import COOKIE, Bench, bearer, header, new_key, new_service_token

IP = "203.0.113.7"
READ = frozenset({"files:read"})


async def warmed(bench: Bench, **grant: Any) -> bytes:
    """A credential whose grant is in the cache."""
    credential = bench.add(**grant)
    await bench.verifier.verify(bearer(credential), IP, charge=False)
    return credential


async def test_a_cached_key_needs_no_coroutine() -> None:
    bench = Bench()
    key = await warmed(bench, permissions=READ)
    for headers in (bearer(key), header(key)):
        verdict = bench.verifier.warm(headers, IP, READ)
        assert isinstance(verdict, Session)
        assert verdict == await bench.verifier.verify(headers, IP, READ)
    await bench.flush()
    assert bench.counted() == {"accepted": 4}
    assert len(bench.rows.reads) == 1


async def test_a_key_in_another_header_is_the_same_key() -> None:
    bench = Bench()
    key = await warmed(bench)
    assert bench.verifier.warm([(b"x-one", key)], IP) is ANONYMOUS
    bench.verifier.places = Places([b"x-one"])
    assert isinstance(bench.verifier.warm([(b"x-one", key)], IP), Session)
    assert isinstance(await bench.verifier.verify([(b"x-one", key)], IP), Session)


def test_nothing_and_too_much_are_answered_at_once() -> None:
    bench = Bench()
    assert bench.verifier.warm([], IP) is ANONYMOUS
    key = new_key()
    twice = bench.verifier.warm(bearer(key) + header(key), IP)
    assert isinstance(twice, Refusal)
    assert twice.code == "MULTIPLE_CREDENTIALS"


async def test_what_is_not_in_memory_is_left_to_the_whole_check() -> None:
    bench = Bench()
    assert bench.verifier.warm(bearer(new_key()), IP) is None
    key = await warmed(bench)
    assert bench.verifier.warm([(b"cookie", b"x=1; kb=y.z")], IP) in (None, ANONYMOUS)
    bench.clock.advance(LEASE_MS)
    assert bench.verifier.warm(bearer(key), IP) is None  # the lease is over
    await bench.verifier.verify(bearer(key), IP)
    bench.clock.advance(ENTRY_LIFE_MS)
    await bench.verifier.lease.hold()
    assert bench.verifier.warm(bearer(key), IP) is None  # the entry is too old


async def test_an_entry_is_too_old_on_the_millisecond() -> None:
    bench = Bench()
    key, token = await warmed(bench), await warmed(bench, kind="service")
    bench.clock.advance(ENTRY_LIFE_MS - 1)
    await bench.lease.renew()
    assert isinstance(bench.verifier.warm(bearer(key), IP), Session)
    assert bench.verifier.warm_service(token)
    bench.clock.advance(1)
    assert bench.verifier.warm(bearer(key), IP) is None
    assert not bench.verifier.warm_service(token)


async def test_a_limit_gives_as_many_warm_as_it_says() -> None:
    bench = Bench()
    key = await warmed(bench, limit=RateLimit(maximum=3, window_ms=1000))
    told = [bench.verifier.warm(bearer(key), IP) for _ in range(4)]
    assert [isinstance(each, Session) for each in told] == [True, True, True, False]


async def test_a_cookie_is_left_to_the_whole_check_though_its_token_is_in_memory() -> None:
    bench = Bench()
    token = await warmed(bench, kind="session", session_id="s1")
    unsigned = [(b"cookie", COOKIE.encode() + b"=" + token)]
    assert isinstance(bench.verifier.warm(bearer(token), IP), Session)
    assert bench.verifier.warm(unsigned, IP) is None
    assert await bench.verifier.verify(unsigned, IP) is ANONYMOUS


async def test_a_key_with_a_quota_is_left_to_the_whole_check() -> None:
    bench = Bench()
    key = await warmed(bench, metered=True)
    assert bench.verifier.warm(bearer(key), IP) is None


@pytest.mark.parametrize(
    ("grant", "headers", "code"),
    [
        ({"enabled": False}, bearer, "KEY_DISABLED"),
        ({"limit": RateLimit(maximum=0, window_ms=1000)}, bearer, "RATE_LIMITED"),
        ({"permissions": frozenset()}, bearer, "INSUFFICIENT_SCOPE"),
    ],
)
async def test_a_refusal_is_the_same_and_counted(
    grant: dict[str, Any], headers: Any, code: str
) -> None:
    bench = Bench()
    key = await warmed(bench, **{"permissions": READ, **grant})
    refused = bench.verifier.warm(headers(key), IP, READ)
    assert isinstance(refused, Refusal)
    assert refused.code == code
    await bench.flush()
    assert bench.counted()[code] >= 1


async def test_what_is_misplaced_is_refused() -> None:
    bench = Bench()
    token = await warmed(bench, kind="session", session_id="s1")
    refused = bench.verifier.warm(header(token), IP)
    assert isinstance(refused, Refusal)
    assert refused.code == "INVALID_API_KEY"
    key = await warmed(bench)
    misplaced = bench.verifier.warm(bearer(key), IP, accept=frozenset({"session"}))
    assert isinstance(misplaced, Refusal)
    assert misplaced.code == "SESSION_REQUIRED"


async def test_looking_without_charge_counts_only_a_login() -> None:
    bench = Bench()
    key = await warmed(bench)
    assert isinstance(bench.verifier.warm(bearer(key), IP, charge=False), Session)
    token = await warmed(bench, kind="session", session_id="s1", id="s1")
    await bench.flush()
    bench.batches.clear()
    assert isinstance(bench.verifier.warm(bearer(token), IP, charge=False), Session)
    await bench.flush()
    assert bench.counted() == {}
    assert [(use.id, use.n) for use in bench.batches[-1].sessions] == [("s1", 1)]
    assert bench.batches[-1].keys == []


async def test_the_secret_of_a_rotating_key_is_counted_warm_and_cold() -> None:
    bench = Bench()
    key = await warmed(bench, secret_digest=b"stored")
    assert isinstance(bench.verifier.warm(bearer(key), IP), Session)
    assert await bench.code(key) == "ok"
    await bench.flush()
    assert [(use.digest, use.n) for use in bench.batches[-1].secrets] == [(b"stored", 2)]
    plain = await warmed(bench, id="k2")
    assert isinstance(bench.verifier.warm(bearer(plain), IP), Session)
    await bench.flush()
    assert bench.batches[-1].secrets == []


async def test_a_service_token_in_memory_calls() -> None:
    bench = Bench()
    token = await warmed(bench, kind="service")
    assert bench.verifier.warm_service(token)
    bench.clock.advance(LEASE_MS)
    assert not bench.verifier.warm_service(token)  # the lease is over
    await bench.verifier.lease.hold()
    bench.clock.advance(ENTRY_LIFE_MS)
    await bench.verifier.lease.hold()
    assert not bench.verifier.warm_service(token)  # the entry is too old


async def test_nobody_else_is_a_service() -> None:
    bench = Bench()
    await warmed(bench, kind="service")
    revoked = await warmed(bench, kind="service", revoked_at=1)
    key = await warmed(bench)
    for credential in (b"", new_service_token(), revoked, key):
        assert not bench.verifier.warm_service(credential)
