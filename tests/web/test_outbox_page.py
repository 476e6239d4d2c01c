"""The outbox: for whoever develops on this machine, and nobody else."""

import re
from typing import Any

import httpx2
import pytest

from keybearer import Auth
from keybearer.adapters.sql.outbox import Letter
from keybearer.web.mount import no_app
from keybearer.web.outbox import linkified, render
from tests.people import PASSWORD, SECRET

PATH = "/dev/outbox"
BASE = "http://127.0.0.1:8000"
SIGN_UP = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}


def letter(subject: str = "Verify", text: str = "x", to: str = "ada@example.com") -> Letter:
    return Letter(
        id="1", recipient=to, subject=subject, text=text, created_at=0, next_attempt_at=None,
        attempts=1, sent_at=0, error=None,
    )  # fmt: skip


async def test_the_link_of_a_sign_up_can_be_clicked_and_works(client: httpx2.AsyncClient) -> None:
    assert "No mail yet" in (await client.get(PATH)).text
    assert (await client.post("/api/auth/sign-up/email", json=SIGN_UP)).status_code == 200
    answer = await client.get(PATH)
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    link = re.search(r'class="button" href="([^"]+)"', answer.text)
    assert link is not None
    assert (await client.get(link[1].replace("&amp;", "&"))).status_code in (200, 302)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8000"},
    ],
)
async def test_through_a_proxy_or_by_another_name_there_is_nothing(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.get(PATH, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "peer", [("198.51.100.7", 1), ("::ffff:198.51.100.7", 1), ("socket", 0), None]
)
async def test_from_elsewhere_there_is_nothing(auth: Auth, peer: tuple[str, int] | None) -> None:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=peer)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        assert (await client.get(PATH)).status_code == 404


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"])
async def test_from_this_machine_it_is_there(auth: Auth, peer: str, host: str) -> None:
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=(peer, 1))
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        assert (await client.get(PATH, headers={"host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/dev/outbox/", "/dev/outbox/x", "/api/auth/dev/outbox"])
async def test_only_the_exact_path_is_it(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_it_is_only_read(client: httpx2.AsyncClient) -> None:
    assert (await client.post(PATH)).status_code == 404


@pytest.mark.parametrize(
    "given",
    [
        {"smtp_url": "smtp://mail.example.com", "mail_from": "keys@example.com"},
        {"accounts": False},
    ],
)
async def test_where_no_mail_is_printed_the_path_is_the_apps(given: dict[str, Any]) -> None:
    auth = Auth("sqlite:////nowhere/k.db", secret=SECRET, **given)
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        answer = await client.get(PATH)
    assert (answer.status_code, b"Outbox" in answer.content) == (404, False)


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/x",
        f"{BASE}.evil.example/x",
        f"{BASE}@evil.example/x",
        f"{BASE}evil",
        "javascript:alert(1)",
        "//127.0.0.1:8000/x",
    ],
)
def test_no_other_link_can_be_clicked(text: str) -> None:
    assert "<a " not in linkified(text, BASE)


def test_a_link_ends_before_the_full_stop_and_stays_whole() -> None:
    url = f"{BASE}/verify?token=aB3&callbackURL=%2Fen"
    html = linkified(f"Open {url}.", BASE)
    assert f'href="{url.replace("&", "&amp;")}"' in html
    assert html.endswith("</a>.")


@pytest.mark.parametrize("hostile", ["<img src=x onerror=alert(1)>", '"><svg onload=x>', "</pre>"])
def test_what_people_wrote_is_text(hostile: str) -> None:
    plain = render([letter()], base_url=BASE, base="/api/auth")
    html = render([letter(hostile, hostile, hostile)], base_url=BASE, base="/api/auth")
    assert hostile not in html or plain.count(hostile) == html.count(hostile)
    assert html.count("<img") == html.count("<svg") == 0


def test_a_wiped_text_is_told() -> None:
    assert "was wiped" in render([letter(text="")], base_url=BASE, base="/api/auth")
