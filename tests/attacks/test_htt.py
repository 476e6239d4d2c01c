"""What a request says, attacked (rows A282 to A290)."""

import itertools
import re
from importlib.metadata import version

import httpx2
import pytest

from keybearer.adapters.mail import Mail, compose
from keybearer.domain.model import Session
from keybearer.operations import outbox
from keybearer.operations.keys import CreateKey
from keybearer.web.forward import headers_of
from tests.attacks.guarded import ask, guarded_app
from tests.attacks.town import API, Town, is_problem
from tests.people import PASSWORD

Headers = dict[str, str]
JSON = "application/json"


# --- A282 -------------------------------------------------------------------------------------


RANGES = (
    "bytes=" + ",".join(["0-"] * 5_000),
    "bytes=" + ",".join(f"{n}-{n}" for n in range(5_000)),
    "bytes=-1",
    "bytes=5-2",
    "bytes=" + "9" * 5_000 + "-",
    "bytes=" + "0" * 10_000,
    "items=0-5",
    "\xff",
)


async def test_a282_a_range_changes_nothing_however_many(client: httpx2.AsyncClient) -> None:
    for path in ("/static/page.css", "/static/reference.js", "/docs", "/openapi.json"):
        whole = await client.get(API + path)
        for wanted in RANGES:
            raw = [(b"range", wanted.encode("latin-1"))]
            answer = await client.get(API + path, headers=[*raw, (b"if-range", b'"x"')])
            assert answer.content == whole.content
            answer = await client.get(API + path, headers=raw)
            assert answer.status_code == 200
            assert answer.content == whole.content
            assert not answer.headers.keys() & {"content-range", "accept-ranges"}


def test_a282_starlette_is_one_that_reads_ranges_in_linear_time() -> None:
    assert tuple(map(int, version("starlette").split(".")[:3])) >= (0, 49, 1)  # CVE-2025-62727


# --- A283 -------------------------------------------------------------------------------------

EVIL: list[Headers] = [
    {"host": "evilevil.test"},
    {"host": "evilevil.test:80@127.0.0.1"},
    {"host": "127.0.0.1:8000/evilevil?"},
    {"host": "", "x-forwarded-host": "evilevil.test"},
    {"host": "127.0.0.1:8000", "x-forwarded-host": "evilevil.test", "x-forwarded-proto": "ftp"},
    {"host": "127.0.0.1:8000", "forwarded": "for=evilevil;host=evilevil.test;proto=https"},
    {"host": "127.0.0.1:8000", "x-original-url": "/evilevil", "x-rewrite-url": "/evilevil"},
    {"host": "127.0.0.1:8000", "x-host": "evilevil.test", "x-forwarded-prefix": "/evilevil"},
]


async def test_a283_links_redirects_and_cookies_know_no_name_but_our_own(town: Town) -> None:
    """Behind somebody's app, where any Host comes through."""
    for evil in EVIL:
        await _show_no_evil(town, evil)
    letters = await outbox.recent(town.app)
    assert len(letters) >= 3
    for letter in letters:
        assert "evilevil" not in letter.text
        for link in re.findall(r"https?://\S+", letter.text):
            assert link.startswith("http://127.0.0.1:8000")


async def _show_no_evil(town: Town, evil: Headers) -> None:
    signed_up = {"name": "Eve", "email": "eve@example.com", "password": PASSWORD}
    login = {"email": "u1@example.com", "password": PASSWORD}
    answers = [
        await town.post("/sign-up/email", evil, **signed_up),
        await town.post("/request-password-reset", evil, email="u1@example.com", redirectTo="/a"),
        await town.post("/send-verification-email", evil, email="eve@example.com"),
        await town.post("/login", evil, **login),
        await town.post("/sign-in/email", evil, **login, callbackURL="/a"),
    ]
    town.client.cookies.clear()
    paths = ("/docs", "/openapi.json", "/jwks", "/forward", "/nothing", "/reset-password/x")
    answers += [await town.get(path, evil) for path in paths]
    answers.append(await town.get("/verify-email", evil, token="x", callbackURL="/after"))
    for answer in answers:
        assert answer.status_code < 500
        assert "evilevil" not in answer.text.lower()
        assert "evilevil" not in str(answer.headers.raw).lower()
    assert answers[-1].headers["location"] == "/after?error=INVALID_TOKEN"


# --- A286 -------------------------------------------------------------------------------------

BREAKS = ("\r\n", "\n", "\r", "\x00", "\x0b", "\x1b[2J", "\x85", "\x7f")


async def test_a286_a_line_break_in_what_is_echoed_is_refused(town: Town) -> None:
    before = await town.rows()
    for line_break in BREAKS:
        await _echo_nothing(town, line_break)
    assert await town.rows() == before
    assert not await outbox.recent(town.app)


async def _echo_nothing(town: Town, line_break: str) -> None:
    evil = f"a{line_break}Set-Cookie: evilevil=1"
    person = {"name": "Eve", "email": "eve@example.com", "password": PASSWORD}
    for path, headers, body in (
        ("/api-key/create", town.t1, {"name": evil}),
        ("/api-key/create", town.t1, {"prefix": evil}),
        ("/api-key/create", town.t1, {"permissions": {evil: ["read"]}}),
        ("/api-key/create", town.t1, {"permissions": {"files": [evil]}}),
        ("/api-key/create", town.t1, {"ipAllow": [f"192.0.2.1{line_break}"]}),
        ("/api-key/update", town.t1, {"keyId": town.k1["id"], "name": evil}),
        ("/update-user", town.t1, {"name": evil}),
        ("/update-user", town.t1, {"image": f"https://example.com/{evil}"}),
        ("/update-user", town.t1, {"locale": evil}),
        ("/sign-up/email", None, {**person, "name": evil}),
        ("/sign-up/email", None, {**person, "email": f"eve@example.com{line_break}.evilevil.test"}),
        ("/sign-up/email", None, {**person, "email": f"eve{line_break}Bcc:x@example.com"}),
        ("/login", None, {"email": "u1@example.com", "password": PASSWORD, "clientId": evil}),
    ):
        answer = await town.post(path, headers, **body)
        assert is_problem(answer, 400), (path, body)
        assert "set-cookie" not in answer.headers
    for answer in (
        await town.post("/sign-up/email", None, **person, callbackURL=f"/{evil}"),
        await town.post("/request-password-reset", email="u1@example.com", redirectTo=f"/{evil}"),
        await town.get("/verify-email", token="x", callbackURL=f"/{evil}"),
    ):
        assert answer.status_code in (400, 403)
        assert "location" not in answer.headers


async def test_a286_headers_in_and_out_stay_one_line(town: Town) -> None:
    site = guarded_app(town.auth)
    evil = b"x\r\nSet-Cookie: evilevil=1"
    for name in (b"user-agent", b"x-request-id", b"idempotency-key", b"origin", b"x-api-key",
                 b"authorization", b"accept-language", b"x-forwarded-for"):  # fmt: skip
        headers = [(name, evil), (b"x-api-key", town.k1["key"].encode())]
        for path in ("/guarded", f"{API}/api-key/get", f"{API}/forward"):
            answer = await ask(site, headers, path=path)
            assert answer.status < 500
            assert "evilevil" not in "".join(answer.headers.values())
            assert "set-cookie" not in answer.headers
    shown = (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()
    assert shown["lastUsedUserAgent"] is None or shown["lastUsedUserAgent"].isprintable()


@pytest.mark.parametrize("line_break", BREAKS, ids=repr)
def test_a286_a_hosts_odd_owner_and_a_mails_odd_subject_are_one_line(line_break: str) -> None:
    evil = f"a{line_break}Set-Cookie: evilevil=1"
    named = dict(headers_of(Session(subject=evil, kind="session", id="s")))
    assert re.fullmatch(rb"[!-~]+", named[b"x-auth-subject"])
    try:
        message = compose(Mail(to="ann@example.com", subject=evil, text="x"), "kb@example.com")
    except ValueError:
        return
    assert message["Set-Cookie"] is None
    assert message["To"] == "ann@example.com"
    assert not set(str(message["Subject"])) & set("\r\n")


# --- A288 -------------------------------------------------------------------------------------

RENAME = '{"keyId":"%s","name":"Zoë"}'


MEDIA: tuple[tuple[str | None, str, int], ...] = (
    ("application/json", "utf-8", 200),
    ("application/json; charset=utf-8", "utf-8", 200),
    ('Application/JSON;charset="UTF-8"', "utf-8", 200),
    ("application/json", "utf-8-sig", 400),
    ("application/json", "utf-16", 400),
    ("application/json", "utf-16-le", 400),
    ("application/json", "utf-16-be", 400),
    ("application/json", "utf-32", 400),
    ("application/json", "latin-1", 400),
    ("application/json", "cp037", 400),
    ("application/json; charset=utf-16", "utf-16", 415),
    ("application/json; charset=utf-16", "utf-8", 415),
    ("application/json; charset=utf-7", "utf-7", 415),
    ("application/json; charset=latin-1", "latin-1", 415),
    ("application/json; charset=utf-8; charset=utf-16", "utf-8", 415),
    ("application/json, text/plain", "utf-8", 415),
    ("text/json", "utf-8", 415),
    ("text/plain", "utf-8", 415),
    ("application/jsonp", "utf-8", 415),
    ("application/x-www-form-urlencoded", "utf-8", 415),
    ("multipart/form-data; boundary=x", "utf-8", 415),
    ("", "utf-8", 415),
    (None, "utf-8", 415),
)


async def name_of(town: Town) -> str:
    name: str = (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()["name"]
    return name


async def test_a288_json_is_utf_8_and_says_so(town: Town) -> None:
    for media_type, encoding, status in MEDIA:
        await town.post("/api-key/update", town.t1, keyId=town.k1["id"], name="k1")
        headers = town.t1 | ({} if media_type is None else {"content-type": media_type})
        sent = (RENAME % town.k1["id"]).encode(encoding)
        answer = await town.client.post(f"{API}/api-key/update", content=sent, headers=headers)
        assert answer.status_code == status, (media_type, encoding)
        assert await name_of(town) == ("Zoë" if status == 200 else "k1")


NO_TEXT = (
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\\ud800",
    b"\\udc00\\ud800", b"\\u0000", b"a\0b",
)  # fmt: skip


async def test_a288_bytes_that_are_no_text_are_400(town: Town) -> None:
    headers = town.t1 | {"content-type": JSON}
    for name in NO_TEXT:
        sent = b'{"keyId":"%s","name":"%s"}' % (town.k1["id"].encode(), name)
        answer = await town.client.post(f"{API}/api-key/update", content=sent, headers=headers)
        assert is_problem(answer, 400, "INVALID_JSON"), name
    assert await name_of(town) == "k1"


# --- A290 -------------------------------------------------------------------------------------


PAGES = (
        "limit=1&limit=100000", "limit=1&limit=1", "limit=100000", "limit=101", "limit=0",
        "limit=-1", "limit=1.5", "limit=0x10", "limit=", "limit=null", "limit=NaN",
        "limit=%D9%A1", "limit[]=1", "limit=" + "9" * 400, "offset=-1", "offset=1e9",
        "offset=1000000000", "offset=" + "9" * 40, "LIMIT=5", "page=1",
)  # fmt: skip
ORDERS = (
        "sort=key;DROP", "sort=name", "order=asc", "sortBy=hash", "sortBy=digest", "sortBy=key",
        "sortBy=secret", "sortBy=metadata", "sortBy=name;DROP TABLE api_keys", "sortBy=name,id",
        "sortBy=NAME", "sortBy=1", "sortBy=", "sortBy=(SELECT(1))", "sortBy=name&sortBy=name",
        "sortDirection=up", "sortDirection=asc;DROP", "sortDirection=", "status=x",
        "status=active'--", "fields=digest", "include=secrets", "userId=%s", "referenceId=%s",
)  # fmt: skip


async def test_a290_a_page_is_a_whole_number_in_its_bounds(town: Town) -> None:
    for query, path in itertools.product(PAGES, ("/api-key/list", "/audit")):
        answer = await town.client.get(f"{API}{path}?{query}", headers=town.t1)
        assert is_problem(answer, 400), query


async def test_a290_what_to_sort_by_is_one_of_a_list(town: Town) -> None:
    for order in ORDERS:
        query = order.replace("%s", town.u2).replace(" ", "%20")
        answer = await town.client.get(f"{API}/api-key/list?{query}", headers=town.t1)
        assert is_problem(answer, 400), query
    assert await town.count() == 1


async def test_a290_a_page_has_100_at_the_most(town: Town) -> None:
    for n in range(105):
        await town.auth.api.create_api_key(CreateKey(user_id=town.u1, name=f"n{n}"))
    for query in ({}, {"limit": 100}):
        page = (await town.get("/api-key/list", town.t1, **query)).json()
        assert (len(page["apiKeys"]), page["total"]) == (100, 106)
        assert len((await town.get("/audit", town.t1, **query)).json()["events"]) <= 100
    rest = (await town.get("/api-key/list", town.t1, limit=100, offset=100)).json()
    assert len(rest["apiKeys"]) == 6
    assert (await town.get("/api-key/list", town.t1, offset=1_000_000)).json()["apiKeys"] == []
