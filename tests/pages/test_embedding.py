"""The pages become those of the app that mounts them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from keybearer import Auth, Misuse, Pages
from keybearer.inputs import CreateKey
from keybearer.web import mount
from tests.pages.conftest import context_of
from tests.pages.site import served
from tests.pages.surfer import Surfer, logged_in
from tests.people import SECRET

CSS = ":root { --accent: rgb(122, 46, 160); --radius: 0; }"


async def theirs(request: Any) -> PlainTextResponse:
    return PlainTextResponse(f"theirs {request.url.path}")


async def stylesheet(_request: Any) -> Response:
    return Response(CSS, media_type="text/css")


def host(_auth: Auth | None = None) -> ASGIApp:
    return Starlette(routes=[Route("/static/acme.css", stylesheet), Route("/{path:path}", theirs)])


def client_of(auth: Auth, **options: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(
        app=auth.mount(host(), pages=Pages(**options)), client=("127.0.0.1", 50000)
    )
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


# --- its looks ---


async def test_the_frame_is_the_apps(auth: Auth) -> None:
    async with client_of(
        auth,
        path="/settings",
        brand="Acme <b>",
        home="/",
        navigation=(("Billing", "/billing"), ("Help", "/help")),
        stylesheet="/static/acme.css",
    ) as client:
        await logged_in(auth, client)
        surfer = await Surfer(client).open("/settings/en/account/api-keys")
        assert "Acme <b>" in surfer.text
        assert {"/", "/billing", "/help"} <= set(surfer.seen.links)
        sheets = [
            has["href"] for tag, has in surfer.seen.elements if has.get("rel") == "stylesheet"
        ]
        assert sheets[-1] == "/static/acme.css"  # after ours
        ours = [link for link in surfer.seen.links if "/account/" in link]
        assert all(link.startswith("/settings/") for link in ours)
        await surfer.open("/settings/en/account/api-keys/new")
        await surfer.send("/new", name="CI")
        assert surfer.path == "/settings/en/account/api-keys/new"
        await surfer.send("/logout")
        assert surfer.path == "/settings/en/login"


async def test_custom_properties_of_the_app_win_over_ours(
    chromium: Browser, ready_url: str
) -> None:
    pages = Pages(stylesheet="/static/acme.css")
    async with (
        served(ready_url, app=host, pages=pages) as site,
        context_of(chromium, site) as context,
    ):
        await site.log_in(context)
        page = await context.new_page()
        await page.goto("/en/account/api-keys")
        button = page.get_by_role("link", name="Generate New API Key")
        colour, radius = await button.evaluate(
            "each => [getComputedStyle(each).backgroundColor, getComputedStyle(each).borderRadius]"
        )
        assert (colour, radius) == ("rgb(122, 46, 160)", "0px")


async def test_a_template_of_the_app_is_taken_before_ours(auth: Auth, tmp_path: Path) -> None:
    (tmp_path / "base.html").write_text(
        "<html><body><p>Acme's frame for {{ page }}</p>{% block main %}{% endblock %}</body></html>"
    )
    async with client_of(auth, templates=tmp_path) as client:
        page = await client.get("/en/login")
        assert "Acme's frame for login" in page.text
        assert 'name="password"' in page.text


async def test_mails_lead_to_where_the_pages_are(auth: Auth) -> None:
    async with client_of(auth, path="/settings"):
        app = await auth.running()
        assert app.page("de/account/api-keys") == (
            "http://127.0.0.1:8000/settings/de/account/api-keys"
        )


# --- its users ---


class TheirUsers:
    """An app that has logged in whoever has its cookie."""

    async def __call__(self, headers: Any) -> str | None:
        cookies = [value for name, value in headers if name == b"cookie"]
        return "user-42" if b"acme=42" in b";".join(cookies) else None


@pytest.fixture
async def own(ready_url: str) -> AsyncIterator[Auth]:
    auth = Auth(
        ready_url, secret=SECRET, accounts=False, identify=TheirUsers(), token_management=True
    )
    await auth.start()
    yield auth
    await auth.stop()


COOKIE = {"acme": "42"}


async def test_keys_are_for_whoever_is_logged_in_to_the_app(own: Auth) -> None:
    async with client_of(own, login="/their-login") as client:
        answer = await client.get("/en/account/api-keys")
        assert (answer.status_code, answer.headers["location"]) == (303, "/their-login")
        client.cookies.update(COOKIE)
        surfer = await Surfer(client).open("/en/account/api-keys/new")
        await surfer.send("/new", name="CI")
        assert "Your new key" in surfer.text
        found = await own.api.list_api_keys(owner="user-42")
        assert [key.name for key in found.api_keys] == ["CI"]
        id = found.api_keys[0].id
        await surfer.open(f"/en/account/api-keys/{id}")
        await surfer.send("/switch")
        assert "The key is disabled" in surfer.text
        await surfer.open("/en/account/security")
        assert "API key created" in surfer.text
        assert "Change your password" not in surfer.text
        await surfer.send("/disown")
        assert surfer.status == 200


async def test_the_pages_of_accounts_are_the_apps_own(own: Auth) -> None:
    async with client_of(own) as client:
        client.cookies.update(COOKIE)
        for path in ("login", "sign-up", "forgot-password", "account/sessions", "check-mail"):
            assert (await client.get(f"/en/{path}")).text == f"theirs /en/{path}"
        page = await client.get("/en/account/api-keys")
        assert "/en/account/sessions" not in page.text
        assert "Log out" not in page.text


async def test_a_form_of_another_user_of_the_app_is_refused(own: Auth) -> None:
    await own.api.create_api_key(CreateKey(name="CI"), owner="user-42")
    async with client_of(own) as client:
        client.cookies.update(COOKIE)
        answer = await client.post(
            "/en/account/api-keys/new",
            data={"name": "CI", "csrf": "0" * 64},
            headers={"origin": "http://127.0.0.1:8000"},
        )
        assert answer.status_code == 403


async def test_without_a_login_of_the_app_a_page_says_so(own: Auth) -> None:
    async with client_of(own) as client:
        answer = await client.get("/en/account/api-keys")
        assert answer.status_code == 401
        assert "Log in first." in answer.text


# --- without the extra ---


async def test_without_the_extra_there_are_no_pages(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_args: object, **_fields: object) -> None:
        raise ImportError("no module", name="jinja2")

    monkeypatch.setattr(mount, "import_site", missing)
    transport = httpx2.ASGITransport(app=auth.mount(host()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        assert (await client.get("/en/login")).text == "theirs /en/login"
        assert (await client.get("/api/auth/ok")).status_code == 200
    with pytest.raises(Misuse, match=r"keybearer\[ui\]"):
        auth.mount(host(), pages=Pages())
