"""Which addresses are ours, in which language, and what every page has in common."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from keybearer import Auth, Pages
from keybearer.inputs import CreateKey
from keybearer.settings import Settings
from keybearer.web.mount import no_app
from keybearer.web.pages.site import PAGES
from tests.pages.surfer import Surfer, logged_in
from tests.people import SECRET
from tests.web.losses import lose_database

LOCALES = Settings().locales
OPEN = [path for path, page in PAGES.items() if page.show and not page.members]
MEMBERS = [
    path.replace("*", "some-id") for path, page in PAGES.items() if page.show and page.members
]


def client_of(auth: Auth, app: Any = no_app, **options: Any) -> httpx2.AsyncClient:
    mounted = auth.mount(app, pages=Pages(**options))
    transport = httpx2.ASGITransport(app=mounted, client=("127.0.0.1", 50000))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.fixture
async def alone(auth: Auth) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(auth, root=True) as client:
        yield client


# --- languages and addresses ---


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("path", OPEN)
async def test_each_page_is_there_in_each_language(
    alone: httpx2.AsyncClient, locale: str, path: str
) -> None:
    answer = await alone.get(f"/{locale}/{path}")
    assert answer.status_code == 200
    direction = "rtl" if locale == "ar" else "ltr"
    assert f'<html lang="{locale}" dir="{direction}">' in answer.text
    for other in LOCALES:
        assert f'hreflang="{other}" href="/{other}/{path}"' in answer.text


@pytest.mark.parametrize(
    ("path", "accepted", "to"),
    [
        ("/", "de", "/de/account/api-keys"),
        ("/", "", "/en/account/api-keys"),
        ("/login", "ja, en;q=0.5", "/ja/login"),
        ("/account/api-keys", "pt", "/pt-BR/account/api-keys"),
        ("/account/api-keys?status=active&q=a%20b", "fr", None),
        ("/account/api-keys/some-id/rotate", "ar", "/ar/account/api-keys/some-id/rotate"),
        ("/en", "de", "/en/account/api-keys"),
        ("/en/", "de", "/en/account/api-keys"),
        ("/en/login/", "de", "/en/login"),
        ("/en/account/api-keys/?status=active", "de", "/en/account/api-keys?status=active"),
    ],
)
async def test_without_a_locale_the_best_one_is_found(
    alone: httpx2.AsyncClient, path: str, accepted: str, to: str | None
) -> None:
    answer = await alone.get(path, headers={"accept-language": accepted})
    assert answer.status_code == 303
    wanted = to or "/fr/account/api-keys?status=active&q=a%20b"
    assert answer.headers["location"] == wanted


@pytest.mark.parametrize(
    "path",
    [
        *("/xx/login", "/EN/login", "/de-AT/login", "/en/nothing", "/nothing", "/en/account"),
        *("/en/account/api-keys/", "/en//login", "/en/login/x", "/pt_BR/login", "/en/%2e%2e/login"),
        "/en/account/api-keys/" + "x" * 65,
    ],
)
async def test_an_unknown_address_is_404_in_a_language(
    alone: httpx2.AsyncClient, path: str
) -> None:
    answer = await alone.get(path)
    if answer.status_code == 303:  # a slash too many
        assert answer.headers["location"] == path.rstrip("/")
        return
    assert answer.status_code == 404
    assert "Not found" in answer.text


async def test_beside_an_app_only_the_pages_are_ours(auth: Auth) -> None:
    async def theirs(request: Any) -> PlainTextResponse:
        return PlainTextResponse(f"theirs {request.url.path}")

    app = Starlette(routes=[Route("/{path:path}", theirs)])
    async with client_of(auth, app) as client:
        for path in (
            *("/", "/en", "/en/", "/xx/login", "/en/about", "/account", "/nothing"),
            *("/login", "/sign-up", "/account/api-keys"),
        ):
            assert (await client.get(path)).text == f"theirs {path}"
        assert "Log in" in (await client.get("/en/login")).text
    async with client_of(auth, app, path="/settings") as client:
        for path in (
            *("/en/login", "/login", "/settings", "/settings-en/login", "/settings_login"),
            *("/settingsXaccount/api-keys", "/settings/about", "/settings/xx/login"),
        ):
            assert (await client.get(path)).text == f"theirs {path}"
        assert (await client.post("/settings_login")).status_code == 405  # theirs
        page = await client.get("/settings/en/login")
        assert 'action="/settings/en/login"' in page.text
        assert (await client.get("/settings/login")).headers["location"] == "/settings/en/login"
        front = await client.get("/settings/en")
        assert front.headers["location"] == "/settings/en/account/api-keys"


@pytest.mark.parametrize("locale", LOCALES)
async def test_without_token_management_no_page_of_keys_is_there(
    ready_url: str, locale: str
) -> None:
    off = Auth(ready_url, secret=SECRET)
    await off.start()
    try:
        async with client_of(off, root=True) as client:
            for path in PAGES:
                if not PAGES[path].keys:
                    continue
                answer = await client.get(f"/{locale}/{path.replace('*', 'some-id')}")
                assert answer.status_code == 404, path
                answer = await client.post(f"/{locale}/{path.replace('*', 'some-id')}")
                assert answer.status_code == 404, path
            assert (await client.get(f"/{locale}")).headers["location"].endswith("/sessions")
            await logged_in(off, client)
            page = await client.get(f"/{locale}/account/security")
            assert page.status_code == 200
            assert "api-keys" not in page.text
    finally:
        await off.stop()


# --- who ---


async def test_a_refused_form_leaves_the_switch_of_languages_on_a_page(
    auth: Auth, alone: httpx2.AsyncClient
) -> None:
    await logged_in(auth, alone)
    surfer = await Surfer(alone).open("/en/account/security")
    await surfer.send("/password", password="wrong one", new_password="x")
    assert "/de/account/security" in surfer.seen.links
    await surfer.open("/en/account/api-keys/some-id")
    assert surfer.status == 404
    assert "/de/account/api-keys/some-id" in surfer.seen.links


async def test_a_form_of_somebody_logged_out_leads_back_to_its_page(
    auth: Auth, alone: httpx2.AsyncClient
) -> None:
    await logged_in(auth, alone)
    surfer = await Surfer(alone).open("/en/account/security")
    alone.cookies.clear()
    await surfer.send("/password", password="x", new_password="y")
    assert surfer.path == "/en/login?next=%2Fen%2Faccount%2Fsecurity"


@pytest.mark.parametrize("path", MEMBERS)
async def test_pages_of_members_lead_to_the_log_in_and_back(
    alone: httpx2.AsyncClient, path: str
) -> None:
    answer = await alone.get(f"/de/{path}?x=1")
    assert answer.status_code == 303
    where, _, back = answer.headers["location"].partition("?next=")
    assert where == "/de/login"
    if path.endswith("/export"):
        assert back == ""  # a file is nothing to go on to
        return
    assert back == f"%2Fde%2F{path.replace('/', '%2F')}%3Fx%3D1"


async def test_a_key_opens_no_page(auth: Auth, alone: httpx2.AsyncClient) -> None:
    owner = (await auth.api.users.create("k@example.com", name="K", verified=True)).id
    made = await auth.api.create_api_key(CreateKey(name="ci"), owner=owner)
    for headers in ({"x-api-key": made.key or ""}, {"authorization": f"Bearer {made.key}"}):
        answer = await alone.get("/en/account/api-keys", headers=headers)
        assert answer.status_code in (303, 403)
        assert "API keys</h1>" not in answer.text


# --- what every page has ---


@pytest.mark.parametrize("path", ["/en/login", "/en/nothing", "/xx/y", "/"])
async def test_every_answer_has_the_headers_of_a_page(alone: httpx2.AsyncClient, path: str) -> None:
    headers = (await alone.get(path)).headers
    policy = headers["content-security-policy"]
    for rule in (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "object-src 'none'"),
        *("base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    ):
        assert rule in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"
    assert len(headers["x-request-id"]) == 16


async def test_head_is_get_without_a_body(alone: httpx2.AsyncClient) -> None:
    got, head = await alone.get("/en/login"), await alone.head("/en/login")
    assert head.status_code == 200
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_another_method_is_405(alone: httpx2.AsyncClient, method: str) -> None:
    answer = await alone.request(method, "/en/login")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_a_lost_database_is_503_on_a_page(auth: Auth, alone: httpx2.AsyncClient) -> None:
    await logged_in(auth, alone)
    app = await auth.running()
    await lose_database(app)
    app.verifier.lease.end()
    answer = await alone.get("/en/account/api-keys")
    assert answer.status_code == 503
    assert "Back in a moment" in answer.text
    assert '<a class="button primary" href="">Try again</a>' in answer.text
    assert "retry-after" in answer.headers


async def test_a_bug_is_a_page_that_says_nothing_of_it(
    alone: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_visit: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setitem(
        PAGES,
        "login",
        PAGES["login"].__class__(show=broken, members=False),  # type: ignore[arg-type]
    )
    answer = await alone.get("/en/login")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.text


# --- files ---


async def test_files_are_kept_for_ever_under_their_contents_name(
    alone: httpx2.AsyncClient,
) -> None:
    page = (await alone.get("/en/login")).text
    for name in ("pages.css", "pages.js"):
        (address,) = {part for part in page.split('"') if f"/{name}?v=" in part}
        answer = await alone.get(address)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        plain = await alone.get(address, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
