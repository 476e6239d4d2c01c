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
OTHER_NAMES = [
    *(b"x-real-ip", b"forwarded", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip"),
    *(b"x_forwarded_for", b"x-forwarded", b"forwarded-for", b"x-cluster-client-ip", b"via"),
    *(b"x-original-forwarded-for", b"x-envoy-external-address", b"fastly-client-ip"),
]
"""Where other proxies put the client's address; nothing of it is read."""


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


async def record_of(town: Town, key: str) -> dict[str, Any]:
    """The key's record, as its owner sees it; found by what is shown of the key."""
    listed = (await town.get("/api-key/list", town.t1)).json()["apiKeys"]
    (found,) = [each for each in listed if key.startswith(each["start"])]
    return dict(found)


async def test_a116_from_an_allowed_address_a_key_works(town: Town, site: Any) -> None:
    key = await bound_key(town)
    assert await status(site, key, INSIDE) == 200
    assert (await record_of(town, key))["lastUsedIp"] == INSIDE


async def test_a117_from_another_address_it_is_refused_and_counted(town: Town, site: Any) -> None:
    key = await bound_key(town)
    refused = await ask(site, bearer(key), client=(OUTSIDE, 1))
    assert (refused.status, refused.code) == (403, "IP_NOT_ALLOWED")
    before = await record_of(town, key)
    assert (before["lastRequest"], before["lastUsedIp"], before["requestCount"]) == (None, None, 0)
    usage = await town.get("/api-key/usage", town.t1, keyId=before["id"])
    assert usage.json()["total"] == {"IP_NOT_ALLOWED": 1}


async def test_a117_the_trail_names_the_peer_and_not_what_it_says_of_itself(
    town: Town, site: Any
) -> None:
    key = await bound_key(town)
    forged: RawHeaders = [(b"x-forwarded-for", b"192.0.2.99"), (b"x-real-ip", b"192.0.2.99")]
    headers = [*bearer(key), (b"content-type", b"application/json"), *forged]
    path = "/api/auth/api-key/"
    refused = await ask(site, headers, path=f"{path}rotate", method="POST", client=(OUTSIDE, 1))
    assert (refused.status, refused.code) == (403, "IP_NOT_ALLOWED")
    assert await town.events("key.rotated") == []
    # Whoever finds a key may end it, from wherever that is.
    ended = await ask(site, headers, path=f"{path}revoke-self", method="POST", client=(OUTSIDE, 1))
    assert ended.status == 200
    assert [event.ip for event in await town.events("key.revoked")] == [OUTSIDE]


async def test_a118_nobody_talks_himself_inside(town: Town, site: Any) -> None:
    key = await bound_key(town)
    for value in (INSIDE, f"{INSIDE}, {OUTSIDE}", f"{OUTSIDE}, {INSIDE}", "::ffff:" + INSIDE):
        assert await status(site, key, OUTSIDE, (b"x-forwarded-for", value.encode())) == 403


async def test_a121_no_other_header_says_who_calls(town: Town, site: Any) -> None:
    key = await bound_key(town)
    for name in OTHER_NAMES:
        for value in (
            INSIDE.encode(),
            b"for=" + INSIDE.encode(),
            b'for="' + INSIDE.encode() + b'"',
        ):
            assert await status(site, key, OUTSIDE, (name, value)) == 403, name
            assert await status(site, key, INSIDE, (name, OUTSIDE.encode())) == 200, name
            twice = ((b"x-forwarded-for", INSIDE.encode()), (name, value), (name, value))
            assert await status(site, key, OUTSIDE, *twice) == 403, name


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


async def test_a121_behind_a_trusted_proxy_one_header_counts_joined_in_its_order(
    ready_url: str, clock: StandingClock
) -> None:
    auth = Auth(ready_url, secret=SECRET, trusted_proxies="10.0.0.0/8", accounts=False, clock=clock)
    async with auth.lifespan():
        asked = CreateKey(user_id="u", ip_allow=["203.0.113.0/24"])
        key = (await auth.api.create_api_key(asked)).key or ""
        site = guarded_app(auth)

        async def forwarded(*values: str, name: bytes = b"x-forwarded-for") -> int:
            headers: RawHeaders = [(name, value.encode()) for value in values]
            return await status(site, key, "10.0.0.1", *headers)

        # The last one that no proxy of ours has is who calls, over however many headers.
        for values in ((OUTSIDE, INSIDE), (OUTSIDE, f"{INSIDE}, 10.1.1.1"), (INSIDE, "10.1.1.1")):
            assert await forwarded(*values) == 200, values
        for values in ((INSIDE, OUTSIDE), (f"{INSIDE}, {INSIDE}", OUTSIDE), (INSIDE, "garbage")):
            assert await forwarded(*values) == 403, values
        for name in OTHER_NAMES:
            assert await forwarded(INSIDE, name=name) == 403, name


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
