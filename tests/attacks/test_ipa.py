"""Addresses and proxy headers, attacked (rows A116 to A128)."""

from typing import Any

import httpx2
import pytest

from keybearer import Auth, Misuse
from keybearer.operations.keys import CreateKey
from keybearer.operations.verify import VerifyKey
from tests.attacks.guarded import RawHeaders, ask, bearer, guarded_app
from tests.attacks.town import Town, is_problem
from tests.people import SECRET, StandingClock

INSIDE, OUTSIDE = "203.0.113.7", "198.51.100.1"


@pytest.fixture
def site(town: Town) -> Any:
    return guarded_app(town.auth)


async def bound_key(town: Town, *allowed: str) -> str:
    made = await town.auth.api.create_api_key(
        CreateKey(user_id=town.u1, ip_allow=list(allowed) or ["203.0.113.0/24"])
    )
    assert made.key is not None
    return made.key


async def status(site: Any, key: str, peer: str | None, *headers: tuple[bytes, bytes]) -> int:
    client = None if peer is None else (peer, 1)
    return (await ask(site, [*bearer(key), *headers], client=client)).status


async def test_a116_a117_the_peer_decides(town: Town, site: Any) -> None:
    key = await bound_key(town)
    assert await status(site, key, INSIDE) == 200
    refused = await ask(site, bearer(key), client=(OUTSIDE, 1))
    assert (refused.status, refused.code) == (403, "IP_NOT_ALLOWED")


async def test_a118_a121_nobody_talks_himself_inside(town: Town, site: Any) -> None:
    key = await bound_key(town)
    for name in (
        *(b"x-forwarded-for", b"x-real-ip", b"forwarded", b"true-client-ip", b"cf-connecting-ip"),
        *(b"x-client-ip", b"x_forwarded_for", b"x-forwarded", b"forwarded-for"),
    ):
        for value in (INSIDE.encode(), b"for=" + INSIDE.encode()):
            assert await status(site, key, OUTSIDE, (name, value)) == 403, name


async def test_a122_mapped_addresses_are_the_same(town: Town, site: Any) -> None:
    key = await bound_key(town)
    assert await status(site, key, "::ffff:203.0.113.7") == 200
    assert await status(site, key, "::ffff:198.51.100.1") == 403
    mapped = await bound_key(town, "2001:db8::/32")
    assert await status(site, mapped, "2001:db8::5") == 200


async def test_a123_only_canonical_ranges_are_taken(town: Town) -> None:
    for entry in (
        *("010.0.0.1", "0x0a000001", "167772161", "1.2.3", "0.0.0.0/0", "::/0", "1.2.3.4/33"),
        *(" 1.2.3.4", "1.2.3.4/24", "fe80::1%eth0", "", "1.2.3.4/", "localhost", "1.2.3.4-9"),
    ):
        answer = await town.create(ipAllow=[entry])
        assert is_problem(answer, 400, "INVALID_IP_RANGE"), entry
    too_many = [f"10.0.{n // 256}.{n % 256}" for n in range(101)]
    assert is_problem(await town.create(ipAllow=too_many), 400, "INVALID_IP_RANGE")
    assert await town.count() == 1


@pytest.mark.parametrize("trusted", ["*", "0.0.0.0/0", "::/0", "10.0.0.1/8", "nonsense"])
def test_a124_whom_to_believe_is_never_everyone(trusted: str) -> None:
    with pytest.raises(Misuse, match="trusted_proxies"):
        Auth("sqlite:///x.db", trusted_proxies=trusted)


async def test_a125_without_a_peer_a_bound_key_is_refused(town: Town, site: Any) -> None:
    assert await status(site, await bound_key(town), None) == 403
    assert await status(site, await bound_key(town), "/run/app.sock") == 403


async def test_behind_a_trusted_proxy_the_first_untrusted_hop_is_the_client(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, trusted_proxies="10.0.0.0/8", accounts=False, clock=clock)
    async with auth.lifespan():
        made = await auth.api.create_api_key(CreateKey(ip_allow=["203.0.113.0/24"]), owner="u")
        site, key = guarded_app(auth), made.key or ""

        async def forwarded(*values: str, peer: str = "10.0.0.1") -> int:
            headers: RawHeaders = [(b"x-forwarded-for", value.encode()) for value in values]
            return await status(site, key, peer, *headers)

        assert await forwarded(INSIDE) == 200
        assert await forwarded(f"{OUTSIDE}, {INSIDE}") == 200
        assert await forwarded(f"{INSIDE}, {OUTSIDE}") == 403
        assert await forwarded(f"{INSIDE}, 10.1.2.3") == 200
        assert await forwarded(OUTSIDE, INSIDE) == 200
        assert await forwarded(INSIDE, "garbage") == 403
        assert await forwarded("a") == 403
        assert await forwarded("") == 403
        assert await forwarded(INSIDE, peer=OUTSIDE) == 403


async def test_a127_verify_takes_the_address_that_the_service_says(town: Town) -> None:
    key = await bound_key(town)
    verify = town.auth.api.verify_api_key
    assert (await verify(VerifyKey(key=key, ip=INSIDE))).valid
    assert not (await verify(VerifyKey(key=key, ip=OUTSIDE))).valid
    unknown = await verify(VerifyKey(key=key))
    assert unknown.error is not None
    assert unknown.error.code == "IP_NOT_ALLOWED"


async def test_a128_the_login_throttle_counts_the_peer(town: Town) -> None:
    codes = []
    for n in range(70):
        answer: httpx2.Response = await town.client.post(
            "/api/auth/login",
            json={"email": f"nobody{n}@example.com", "password": "wrong-wrong-wrong"},
            headers={"x-forwarded-for": f"198.51.100.{n}"},
        )
        codes.append(answer.json()["code"])
    assert codes[0] == "INVALID_EMAIL_OR_PASSWORD"
    assert codes[-1] == "TOO_MANY_ATTEMPTS"
