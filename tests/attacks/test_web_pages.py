"""Group WEB on the pages: other sites, redirects, markup in names, secrets that stay."""

import json
import re
import shutil
from pathlib import Path

import httpx2
import pytest

from keybearer import Auth
from keybearer.inputs import CreateKey
from keybearer.web.mount import no_app
from keybearer.web.pages.site import PAGES
from tests.pages.surfer import Surfer, logged_in
from tests.people import PASSWORD, SECRET, StandingClock

ORIGIN = "http://127.0.0.1:8000"
FORMS = [f"/en/{path.replace('*', 'some-id')}" for path, page in PAGES.items() if page.send]
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{7*7}}",
    "${7*7}",
    "{% raise %}",
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "\u202egnp.exe",
]


@pytest.fixture
def ready_url(sqlite_template: Path, tmp_path: Path) -> str:
    """One database: the pages speak with operations, and those are attacked on each."""
    file = tmp_path / "keybearer.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
async def ann(auth: Auth, client: httpx2.AsyncClient) -> str:
    return await logged_in(auth, client)


@pytest.fixture
async def surfer(client: httpx2.AsyncClient, ann: str) -> Surfer:
    return Surfer(client)


# --- A214: the cookie ---


async def test_a214_over_https_the_cookie_is_the_hosts_alone(ready_url: str) -> None:
    auth = Auth(ready_url, secret=SECRET, base_url="https://keys.example.com")
    await auth.start()
    try:
        transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("203.0.113.7", 50000))
        base = "https://keys.example.com"
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            await auth.api.users.create("a@example.com", name="A", password=PASSWORD, verified=True)
            answer = await client.post(
                "/en/login",
                data={"email": "a@example.com", "password": PASSWORD},
                headers={"origin": base},
            )
            (cookie,) = answer.headers.get_list("set-cookie")
            name, _, rest = cookie.partition("=")
            assert name.startswith("__Host-")
            for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
                assert attribute in rest
            assert "Domain" not in cookie
            assert len(cookie.split(";")[0]) < 4096
            assert answer.headers["strict-transport-security"] == (
                "max-age=31536000; includeSubDomains"
            )
            surfer = await Surfer(client).open("/en/account/security")
            form = dict(surfer.seen.form("/logout").fields)
            answer = await client.post("/en/logout", data=form, headers={"origin": base})
            names = {each.partition("=")[0] for each in answer.headers.get_list("set-cookie")}
            assert names == {name, "__Host-keybearer.notice"}
    finally:
        await auth.stop()


# --- A218: a login that was left ---


async def test_a218_a_login_that_idles_or_is_over_leads_to_the_log_in(
    surfer: Surfer, clock: StandingClock
) -> None:
    await surfer.open("/en/account/api-keys")
    assert surfer.path == "/en/account/api-keys"
    clock.advance(86_400_000 + 1)
    await surfer.open("/en/account/api-keys")
    assert surfer.path.startswith("/en/login?next=")


# --- A222 to A224: another site sends the form ---


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "https://sibling.example"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {},
    ],
)
async def test_a222_a_form_of_another_site_changes_nothing(
    client: httpx2.AsyncClient, ann: str, headers: dict[str, str]
) -> None:
    for page in FORMS:
        answer = await client.post(page, data={"name": "CI"}, headers=headers)
        assert answer.status_code == 403, page
        assert "set-cookie" not in answer.headers


async def test_a222_a_form_without_the_token_of_this_login_changes_nothing(
    surfer: Surfer, auth: Auth, ann: str
) -> None:
    await surfer.open("/en/account/api-keys/new")
    for token in ("", "0" * 64, "0" * 128, "ü", "0" * 127, None):
        await surfer.send("/new", name="CI", csrf=token)
        assert surfer.status == 403
        await surfer.open("/en/account/api-keys/new")
    assert (await auth.api.list_api_keys(owner=ann)).total == 0


async def test_a222_a_token_is_another_text_on_each_page(surfer: Surfer) -> None:
    """Pages are compressed: the length of one that repeats a guess would tell the token."""
    seen = set()
    for _ in range(3):
        await surfer.open("/en/account/api-keys/new")
        seen |= {dict(form.fields)["csrf"] for form in surfer.seen.forms if form.method == "post"}
    assert len(seen) == 3
    for token in seen:  # and each is good
        await surfer.open("/en/account/api-keys/new")
        await surfer.send("/new", name="CI", csrf=token)
        assert surfer.status == 200


async def test_the_answer_that_has_a_key_is_not_compressed(surfer: Surfer) -> None:
    await surfer.open("/en/account/api-keys/new")
    assert surfer.headers["content-encoding"] == "gzip"
    await surfer.send("/new", name="CI")
    assert "content-encoding" not in surfer.headers


async def test_a222_a_log_out_needs_its_token_too(surfer: Surfer) -> None:
    await surfer.open("/en/account/api-keys")
    await surfer.send("/logout", csrf="0" * 64)
    assert surfer.status == 403
    await surfer.open("/en/account/api-keys")
    assert surfer.path == "/en/account/api-keys"


async def test_a222_the_token_of_one_login_is_none_for_another(
    client: httpx2.AsyncClient, auth: Auth, ann: str
) -> None:
    surfer = Surfer(client)
    await surfer.open("/en/account/api-keys/new")
    stolen = dict(surfer.seen.form("/new").fields)["csrf"]
    client.cookies.clear()
    await logged_in(auth, client, "mallory@example.com")
    await surfer.open("/en/account/api-keys/new")
    await surfer.send("/new", name="CI", csrf=stolen)
    assert surfer.status == 403


@pytest.mark.parametrize(
    "media_type",
    [
        *("text/plain", "multipart/form-data; boundary=x", "application/json", "", "x"),
        "application/x-www-form-urlencoded+x",
    ],
)
async def test_a223_a_form_is_a_form(client: httpx2.AsyncClient, ann: str, media_type: str) -> None:
    headers = {"origin": ORIGIN, "content-type": media_type}
    for page in FORMS:
        answer = await client.post(page, content=b'{"name":"CI"}', headers=headers)
        assert answer.status_code == 415, page


async def test_a224_nobody_is_logged_in_by_another_site(client: httpx2.AsyncClient) -> None:
    answer = await client.post(
        "/en/login",
        data={"email": "mallory@example.com", "password": PASSWORD},
        headers={"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    )
    assert answer.status_code == 403


async def test_a_body_that_is_too_large_or_broken_is_refused(
    client: httpx2.AsyncClient, ann: str
) -> None:
    form = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    for body, status in (
        (b"name=" + b"x" * 70_000, 413),
        (b"name=%ff%fe", 400),
        (b"name=%00", 400),
        (b"\xff\xfe", 400),
        (b"&".join(b"a%d=b" % n for n in range(500)), 400),
    ):
        answer = await client.post("/en/login", content=body, headers=form)
        assert answer.status_code == status


# --- A227: markup in what people write ---


@pytest.mark.parametrize("name", HOSTILE)
async def test_a227_a_name_is_text_on_every_page(
    surfer: Surfer, auth: Auth, ann: str, name: str
) -> None:
    asked = CreateKey(name=name, description=name, metadata={name: name})
    made = await auth.api.create_api_key(asked, owner=ann)
    keys = "/en/account/api-keys"
    for path in (
        *(keys, f"{keys}?q={httpx2.QueryParams({'x': name})['x']}", f"{keys}/{made.id}"),
        *(f"{keys}/{made.id}/rotate", f"{keys}/{made.id}/revoke", "/en/account/security"),
        f"{keys}/new?{httpx2.QueryParams({'name': name, 'description': name})}",
    ):
        await surfer.open(path)
        assert surfer.status == 200, path
        _is_harmless(surfer)
        if "?q=" not in path and "security" not in path:
            assert name in surfer.text or any(
                name in value for _, has in surfer.seen.elements for value in has.values()
            ), path
    await surfer.open(keys)
    await surfer.send("/api-keys", action="revoke", key=made.id)
    _is_harmless(surfer)
    await surfer.open(f"{keys}/{made.id}/revoke")
    await surfer.send("/revoke")
    _is_harmless(surfer)


def _is_harmless(surfer: Surfer) -> None:
    """No element and no attribute of the page is made of the name."""
    for tag, has in surfer.seen.elements:
        assert tag not in ("img", "iframe", "object"), tag
        assert not any(attribute.startswith("on") for attribute in has), has
        for attribute in ("href", "src", "action", "formaction"):
            assert not has.get(attribute, "").lower().startswith(("javascript:", "data:")), has
    scripts = [has for tag, has in surfer.seen.elements if tag == "script"]
    assert [set(has) for has in scripts] == [{"type", "src"}]
    assert "49" not in re.sub(r"[^ ]*[0-9a-f-]{8,}[^ ]*", "", surfer.text).split()


async def test_a227_a_bidi_trick_stays_within_its_name(
    surfer: Surfer, auth: Auth, ann: str
) -> None:
    await auth.api.create_api_key(CreateKey(name="\u202eevil"), owner=ann)
    await surfer.open("/en/account/api-keys")
    assert "<bdi>\u202eevil</bdi>" in surfer.seen.html


# --- A229 and A230: where one is led ---


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.example/account", "/%2Fevil.example", "/%5cevil.example", "/\\evil.example"),
        *("/en/..//evil.example", "/%09/evil.example", "/en//evil.example", "/account//evil"),
        *("/%2f%2fevil.example/login", "/en/%2e%2e/%2e%2e/evil", "/.//evil.example", "/en%2flogin"),
    ],
)
async def test_a229_no_path_leads_to_another_origin(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(httpx2.URL(f"{ORIGIN}/", raw_path=path.encode()))
    if answer.status_code in (301, 302, 303, 307, 308):
        to = answer.headers["location"]
        assert re.match(r"/[A-Za-z]", to), to
        assert "evil" not in to
    else:
        assert answer.status_code in (400, 404)


async def test_a229_the_host_header_leads_nowhere(client: httpx2.AsyncClient) -> None:
    for path in ("/", "/account/api-keys", "/en"):
        answer = await client.get(path, headers={"host": "evil.example"})
        assert answer.headers.get("location", "/").startswith("/")
        assert "evil" not in answer.headers.get("location", "")


@pytest.mark.parametrize(
    "to",
    [
        *("//evil.example", "https:evil.example", "/\\\\evil.example", "%09//evil.example"),
        *(
            "https://ok@evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "\uff0f\uff0fevil.example",
        ),
        *("/en/account/api-keys%0d%0aset-cookie:x=1", "/en/account\r\nx: y", "\t//evil.example"),
        *("/en/account/api-keys/../../../evil", "/xx/account/api-keys", "/en/logout", "/evil"),
        *(
            "/en/account/api-keys/export",
            "/en/account/api-keys#//evil",
            "/en/account/api-keys/" + "x" * 10_000,
            "/en/login",
            "",
        ),
        *("http://127.0.0.1:8000/en/account/api-keys", "///en/account/api-keys", "en/account"),
        "/api/auth/sign-out",
    ],
)
async def test_a230_the_log_in_leads_to_our_own_pages_alone(
    client: httpx2.AsyncClient, auth: Auth, ann: str, to: str
) -> None:
    client.cookies.clear()
    shown = await client.get("/en/login", params={"next": to})
    if shown.status_code == 200:
        assert 'name="next" value=""' in shown.text
    answer = await client.post(
        "/en/login",
        data={"email": "ann@example.com", "password": PASSWORD, "next": to},
        headers={"origin": ORIGIN},
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == "/en/account/api-keys"
    assert len([name for name in answer.headers if name.lower() == "set-cookie"]) == 1


@pytest.mark.parametrize(
    "to",
    [
        *("/en/account/api-keys", "/de/account/sessions", "/en/account/api-keys?status=active"),
        "/ar/account/api-keys/01a1eedc-f320-7f31-a200-13874586393b/rotate",
    ],
)
async def test_a230_our_own_pages_are_gone_on_to(
    client: httpx2.AsyncClient, ann: str, to: str
) -> None:
    client.cookies.clear()
    answer = await client.post(
        "/en/login",
        data={"email": "ann@example.com", "password": PASSWORD, "next": to},
        headers={"origin": ORIGIN},
    )
    assert answer.headers["location"] == to


# --- A235: the secret is gone ---


async def test_a235_no_later_page_has_the_secret(surfer: Surfer, auth: Auth, ann: str) -> None:
    await surfer.open("/en/account/api-keys/new")
    await surfer.send("/new", name="CI")
    assert surfer.headers["cache-control"] == "no-store"
    key = next(has["value"] for _, has in surfer.seen.elements if has.get("id") == "key")
    id = (await auth.api.list_api_keys(owner=ann)).api_keys[0].id
    for path in (
        *("", f"/{id}", f"/{id}/rotate", f"/{id}/revoke", "/new", "/export?format=csv"),
        "/export?format=json",
    ):
        answer = await surfer.client.get(f"/en/account/api-keys{path}")
        assert answer.status_code == 200
        assert key not in answer.text
        assert key[10:] not in answer.text
    trail = await surfer.client.get("/en/account/security")
    assert key not in trail.text


# --- A237: passwords ---


async def test_a237_password_fields_help_whoever_fills_them_in(
    client: httpx2.AsyncClient, auth: Auth
) -> None:
    wanted = {
        "/en/login": {"current-password"},
        "/en/sign-up": {"new-password"},
        "/en/reset-password?token=x": {"new-password"},
        "/en/account/security": {"current-password", "new-password"},
    }
    surfer = Surfer(client)
    for path, completes in wanted.items():
        if "account" in path:
            await logged_in(auth, client)
        await surfer.open(path)
        fields = [
            has for tag, has in surfer.seen.elements
            if tag == "input" and has.get("type") == "password"
        ]  # fmt: skip
        assert {has["autocomplete"] for has in fields} == completes
        for has in fields:
            assert not {"onpaste", "maxlength", "pattern"} & set(has)
            assert "value" not in has


# --- A240: nothing from elsewhere ---


@pytest.mark.parametrize("path", [path for path, page in PAGES.items() if page.show])
async def test_a240_everything_comes_from_our_origin(
    surfer: Surfer, auth: Auth, ann: str, path: str
) -> None:
    made = await auth.api.create_api_key(CreateKey(name="CI"), owner=ann)
    await surfer.open(f"/en/{path.replace('*', made.id)}")
    for tag, has in surfer.seen.elements:
        for attribute in ("src", "href", "action"):
            to = has.get(attribute, "")
            assert not to.startswith("//"), (tag, to)
            assert "://" not in to, (tag, to)
        assert "style" not in has, (tag, has)


# --- the notice that no link can put ---


async def test_a_link_puts_no_words_on_a_page(surfer: Surfer) -> None:
    await surfer.open("/en/account/api-keys?notice=password&keybearer.notice=password")
    assert "Your password is changed" not in surfer.text
    surfer.client.cookies.set("keybearer.notice", "<b>made up</b>")
    await surfer.open("/en/account/api-keys")
    assert "made up" not in surfer.text


async def test_json_is_never_made_of_a_form(client: httpx2.AsyncClient, ann: str) -> None:
    """What the API takes as JSON it takes from no simple request (CVE-2021-32677)."""
    body = json.dumps({"name": "CI"})
    for media_type in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await client.post(
            "/api/auth/api-key/create",
            content=body,
            headers={"origin": ORIGIN, "content-type": media_type},
        )
        assert answer.status_code == 415
