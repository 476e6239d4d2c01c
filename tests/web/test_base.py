"""Below another path everything goes by that path: mails, problems, documents, cookies."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from keybearer import Auth
from keybearer.integrations.starlette import requires
from keybearer.operations import outbox
from keybearer.web.host import KnownHosts
from keybearer.web.mount import no_app
from keybearer.web.openapi import document
from tests.people import PASSWORD, SECRET, StandingClock, person

ADA = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
OTHER = "seven lamps under green rain"
BASE = "https://acme.example"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Auth]:
    auth = Auth(
        f"sqlite:///{tmp_path / 'k.db'}", secret=SECRET, base_url=BASE, clock=StandingClock()
    )
    async with auth.lifespan():
        yield auth


@pytest.fixture
async def client(house: Auth) -> AsyncIterator[httpx2.AsyncClient]:
    guarded = Starlette(routes=[Route("/x", requires(house)(no_request))])
    transport = httpx2.ASGITransport(
        house.mount(guarded, base="/iam"), client=("127.0.0.1", 50_000)
    )
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def no_request(request: object) -> None:
    """An endpoint that nobody gets to."""


async def links(auth: Auth) -> list[str]:
    """The paths that the mails lead to."""
    letters = await outbox.recent(await auth.running())
    return [path for letter in letters for path in re.findall(rf"{BASE}(/\S+)", letter.text)]


async def test_whoever_follows_a_mail_gets_there(house: Auth, client: httpx2.AsyncClient) -> None:
    assert (await client.post("/iam/sign-up/email", json=ADA)).status_code == 200
    (verify,) = await links(house)
    assert verify.startswith("/iam/verify-email?token=")
    assert (await client.get(verify)).json() == {"status": True, "user": None}

    await client.post("/iam/request-password-reset", json={"email": ADA["email"]})
    reset = next(path for path in await links(house) if "reset" in path)
    assert reset.startswith("/iam/reset-password/")
    assert (await client.get(reset)).status_code == 200
    new = {"token": reset.rpartition("/")[2], "newPassword": OTHER}
    assert (await client.post("/iam/reset-password", json=new)).status_code == 200
    login = {"email": ADA["email"], "password": OTHER}
    assert (await client.post("/iam/login", json=login)).status_code == 200


async def test_the_cookie_is_good_below_it(house: Auth, client: httpx2.AsyncClient) -> None:
    await person(await house.running())
    login = {"email": "ada@example.com", "password": PASSWORD}
    signed = await client.post("/iam/sign-in/email", json=login, headers={"origin": BASE})
    assert "Path=/;" in signed.headers["set-cookie"]
    cookie = {"cookie": signed.headers["set-cookie"].partition(";")[0]}
    answer = await client.get("/iam/get-session", headers=cookie)
    assert answer.json()["user"]["email"] == "ada@example.com"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/iam/login", 400),
        ("PUT", "/iam/login", 405),
        ("GET", "/iam/nothing", 404),
        ("POST", "/iam/ok", 405),
        ("GET", "/iam/forward", 401),
        ("GET", "/iam/forward?x=1", 400),
        ("GET", "/x", 401),
    ],
)
async def test_a_problem_leads_to_the_reference_that_is_there(
    client: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    where = answer.json()["type"]
    assert where == f"/iam/docs#problem-{answer.json()['code']}"
    page = (await client.get("/iam/docs")).text
    assert f'id="{where.partition("#")[2]}"' in page


async def test_an_unknown_host_is_told_so_below_it(house: Auth) -> None:
    known = KnownHosts(house.mount(no_app, base="/iam"), house.settings, base="/iam")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(known), base_url="https://evil.example"
    ) as client:
        answer = await client.get("/iam/ok")
    assert answer.json()["type"] == "/iam/docs#problem-INVALID_HOST"


async def test_the_document_says_where_it_is(client: httpx2.AsyncClient, house: Auth) -> None:
    described = (await client.get("/iam/openapi.json")).json()
    assert described["servers"] == [{"url": f"{BASE}/iam"}]
    assert house.base == "/iam"


def test_a_server_below_a_path_says_so_in_its_document() -> None:
    auth = Auth("sqlite:////nowhere/k.db", secret=SECRET, base_url=f"{BASE}/auth")
    described = document(auth.operations, auth.settings, auth.base)
    assert described["servers"] == [{"url": f"{BASE}/auth/api/auth"}]
