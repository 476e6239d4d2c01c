"""Keys made elsewhere are looked for where nothing else is meant, and where there are any."""

from typing import Any

import pytest

from keybearer.domain.foreign import TAG, Scheme
from keybearer.domain.model import Anonymous, Session
from keybearer.verification.cache import Cache
from keybearer.verification.coherence import LEASE_MS
from keybearer.verification.foreign import Schemes
from keybearer.verification.presented import Places
from keybearer.verification.verifier import Verifier
from tests.verification.parts import Bench, grant

THEIRS = b"ak_live_elsewhere"


class Database:
    """Has keys of some schemes."""

    def __init__(self, *schemes: Scheme) -> None:
        self.schemes = frozenset(schemes)
        self.reads = 0

    async def read(self, _body: object) -> frozenset[Scheme]:
        self.reads += 1
        return self.schemes


async def bench_with(*schemes: Scheme, **options: Any) -> tuple[Bench, Database]:
    database: Any = Database(*schemes)

    def verifier(**wiring: Any) -> Verifier:
        return Verifier(**wiring, schemes=Schemes(database, wiring["cache"]), **options)

    bench = Bench(verifier=verifier)
    await bench.lease.renew()
    return bench, database


@pytest.mark.parametrize("via", ["bearer", "header"])
async def test_what_is_none_of_ours_may_be_one_from_elsewhere(via: str) -> None:
    bench, _ = await bench_with("sha256")
    bench.rows.rows[b"foreign " + THEIRS] = grant()
    assert await bench.code(THEIRS, via=via) == "ok"
    refusal = "INVALID_API_KEY" if via == "header" else "INVALID_ACCESS_TOKEN"
    assert await bench.code(THEIRS + b"x", via=via) == refusal


async def test_a_cookie_and_what_we_alone_make_are_never_from_elsewhere() -> None:
    bench, _ = await bench_with("sha256")
    tries = [
        (THEIRS, "cookie"), (b"kbs_elsewhere", "bearer"), (b"kbr_elsewhere", "bearer"),
        (b"kbs_elsewhere", "header"), (b"a.b.c", "bearer"),
    ]  # fmt: skip
    for credential, via in tries:
        bench.rows.rows[b"foreign " + credential] = grant()
        assert (await bench.code(credential, via=via)).startswith("INVALID"), credential


async def test_a_key_with_our_checksum_is_none_from_elsewhere() -> None:
    bench, _ = await bench_with("sha256")
    ours = bench.add()
    bench.rows.rows[b"foreign " + ours] = bench.rows.rows.pop(ours)
    assert await bench.code(ours) == "INVALID_API_KEY"
    bare = ours[:-1] + (b"0" if ours[-1:] != b"0" else b"1")
    bench.rows.rows[b"foreign " + bare] = grant()
    assert await bench.code(bare) == "ok"


async def test_where_nothing_was_imported_nothing_is_looked_for() -> None:
    bench, database = await bench_with()
    bench.rows.rows[b"foreign " + THEIRS] = grant()
    for _ in range(3):
        assert await bench.code(THEIRS, via="header") == "INVALID_API_KEY"
    assert database.reads == 1


async def test_what_was_imported_meanwhile_is_found_under_the_next_lease() -> None:
    bench, database = await bench_with()
    assert await bench.code(THEIRS) == "INVALID_ACCESS_TOKEN"
    database.schemes = frozenset({"sha256"})
    bench.rows.rows[b"foreign " + THEIRS] = grant()
    bench.log.change(TAG)
    assert await bench.code(THEIRS, via="header") == "INVALID_API_KEY"
    bench.clock.advance(LEASE_MS)
    assert await bench.code(THEIRS, via="header") == "ok"


async def test_the_apps_own_way_says_what_can_be_a_key() -> None:
    bench, _ = await bench_with(readable=lambda credential: credential == b"kb_own")
    for credential in (b"kb_own", b"kb_other"):
        bench.add(credential=credential)
    assert await bench.code(b"kb_own") == "ok"
    assert await bench.code(b"kb_other") == "INVALID_API_KEY"


async def test_what_the_apps_own_generator_made_may_be_from_elsewhere_too() -> None:
    bench, _ = await bench_with("sha256", readable=lambda credential: True)
    bench.rows.rows[b"foreign kb_own"] = grant()
    assert await bench.code(b"kb_own") == "ok"


async def test_a_login_is_one_beside_its_like_and_never_in_the_header_of_keys() -> None:
    bench, _ = await bench_with("sha256")
    login = bench.add("session")
    assert await bench.code(login, via="header") == "INVALID_API_KEY"
    assert await bench.code(login) == "ok"


async def test_schemes_are_known_once_they_are_read() -> None:
    database: Any = Database("sha256")
    cache = Cache(10)
    schemes = Schemes(database, cache)
    told = [schemes.known, await schemes.read(), schemes.known]
    cache.invalidate([TAG])
    assert [*told, schemes.known] == [None, {"sha256"}, {"sha256"}, None]


async def test_a_key_may_stand_where_the_app_says() -> None:
    def verifier(**wiring: Any) -> Verifier:
        return Verifier(**wiring, places=Places([b"x-one"]))

    bench = Bench(verifier=verifier)
    key = bench.add()
    for name, type_ in ((b"x-one", Session), (b"x-two", Anonymous)):
        assert isinstance(await bench.verifier.verify([(name, key)], "203.0.113.7"), type_)
