"""From where a request may come: cookies from our own pages, credentials from anywhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from keybearer import Auth, Misuse
from keybearer.domain.model import User
from keybearer.operations.app import App
from keybearer.settings import load
from keybearer.web.mount import no_app
from tests.attacks.town import is_problem
from tests.people import PASSWORD, SECRET, StandingClock, log_in, make_key, person

API = "/api/auth"
ADA = {"email": "ada@example.com", "password": PASSWORD}
PHONE = "capacitor://localhost"
ELSEWHERE = [
    {"origin": PHONE},
    {"origin": "https://elsewhere.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"origin": "https://elsewhere.example", "sec-fetch-site": "same-site"},
]


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app)


async def is_in(client: httpx2.AsyncClient, headers: dict[str, str]) -> bool:
    answer = await client.get(f"{API}/list-sessions", headers=headers)
    return answer.status_code == 200


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_a_request_with_a_credential_may_come_from_anywhere(
    client: httpx2.AsyncClient, ada: User, origin: dict[str, str]
) -> None:
    headers = await log_in(client)
    key = await make_key(client, headers | origin, name="phone")
    changed = {"keyId": key["id"], "name": "pocket"}
    answer = await client.post(f"{API}/api-key/update", json=changed, headers=headers | origin)
    assert (answer.status_code, answer.json()["name"]) == (200, "pocket")
    ended = await client.post(
        f"{API}/api-key/revoke-self", headers={"x-api-key": key["key"]} | origin
    )
    assert ended.status_code == 200
    bad = {"authorization": "Bearer kb_wrong"} | origin
    assert is_problem(await client.post(f"{API}/api-key/update", headers=bad), 401)
    out = await client.post(f"{API}/logout", headers=headers | origin)
    assert out.status_code == 200
    assert not await is_in(client, headers)


async def test_an_access_token_that_is_over_logs_out_from_anywhere(
    client: httpx2.AsyncClient, ada: User, clock: StandingClock
) -> None:
    headers = await log_in(client)
    clock.advance(3_600_000)
    answer = await client.post(f"{API}/logout", headers=headers | {"origin": PHONE})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_no_header_that_a_page_makes_up_opens_what_sets_a_cookie(
    client: httpx2.AsyncClient, ada: User, origin: dict[str, str]
) -> None:
    own = await log_in(client)
    for made_up in ({"authorization": "Bearer made-up"}, {"x-api-key": "kb_made_up"}):
        for path in ("/sign-in/email", "/logout", "/sign-out", "/login"):
            answer = await client.post(API + path, json=ADA, headers=made_up | origin)
            assert is_problem(answer, 403)
            assert "set-cookie" not in answer.headers
    # Not even with a credential of the attacker's own: it would log the visitor in as another.
    answer = await client.post(f"{API}/sign-in/email", json=ADA, headers=own | origin)
    assert is_problem(answer, 403)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_a_cookie_beside_a_credential_is_not_looked_at(
    client: httpx2.AsyncClient, ada: User, origin: dict[str, str]
) -> None:
    signed = await client.post(f"{API}/sign-in/email", json=ADA)
    cookie = {"cookie": signed.headers["set-cookie"].partition(";")[0]}
    client.cookies.clear()
    bad = {"authorization": "Bearer made-up"}
    answer = await client.post(f"{API}/api-key/create", json={}, headers=cookie | bad | origin)
    assert is_problem(answer, 401)
    answer = await client.post(f"{API}/logout", headers=cookie | bad | origin)
    assert is_problem(answer, 403)
    assert await is_in(client, cookie)


@pytest.fixture
async def listed(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A server with an app on phones, whose pages have an origin of their own."""
    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, trusted_origins=PHONE)
    async with auth.lifespan():
        await person(await auth.running())
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50_000))
        base = "http://127.0.0.1:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            yield client


async def test_an_app_on_a_phone_logs_in_once_its_origin_is_listed(
    listed: httpx2.AsyncClient,
) -> None:
    for path in ("/login", "/sign-in/email"):
        answer = await listed.post(API + path, json=ADA, headers={"origin": PHONE})
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == PHONE
    for other in ("capacitor://localhost.evil", "capacitor://evil", "http://localhost"):
        assert is_problem(
            await listed.post(f"{API}/login", json=ADA, headers={"origin": other}), 403
        )


@pytest.mark.parametrize(
    ("origins", "fits"),
    [
        ("capacitor://localhost,chrome-extension://kbfnbcaeplbcioakkpcpgfkobkghlhen", True),
        ("app.acme+x://main", True),
        ("javascript://x", False),
        ("file://", False),
        ("data://x", False),
        ("ftp://x", False),
        ("capacitor://", False),
        ("capacitor://localhost/", False),
        ("capacitor://a@b", False),
        ("Capacitor://localhost", False),
        ("https://a.example/", False),
        ("null", False),
        ("*", False),
    ],
)
def test_apps_may_be_listed_by_their_own_scheme(origins: str, fits: bool) -> None:
    if fits:
        assert load({"trusted_origins": origins}, environ={}).trusted_origins
        return
    with pytest.raises(Misuse, match="origins"):
        load({"trusted_origins": origins}, environ={})
