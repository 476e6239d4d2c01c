"""The reference page: whole without script, and nothing on it from elsewhere."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import httpx2
import pytest

from keybearer import Auth
from keybearer.domain.errors import PROBLEMS
from keybearer.web.openapi import document
from keybearer.web.page import STATIC
from keybearer.web.reference import render
from tests.people import SECRET


@pytest.fixture(scope="module")
def html() -> str:
    auth = Auth("sqlite:////nowhere/keybearer.db", secret=SECRET, token_management=True)
    return render(document(auth.operations, auth.settings, "/api/auth"), base="/api/auth")


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.attributes |= found.keys()
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "a":
            self.links.append(found["href"] or "")
        elif tag in ("script", "link", "img"):
            self.loaded.append(found.get("src") or found.get("href") or "")


def test_every_code_has_its_anchor(html: str) -> None:
    assert {f"problem-{code}" for code in PROBLEMS} <= set(Tags(html).ids)


def test_links_within_lead_somewhere_and_ids_are_unique(html: str) -> None:
    tags = Tags(html)
    assert len(tags.ids) == len(set(tags.ids))
    for link in tags.links:
        assert not link.startswith("#") or link[1:] in tags.ids


def test_nothing_comes_from_elsewhere_or_stands_inline(html: str) -> None:
    tags = Tags(html)
    assert all(each.startswith("/api/auth/static/") for each in tags.loaded)
    assert not {name for name in tags.attributes if name.startswith("on") or name == "style"}
    assert "<style" not in html


def test_header_and_body_fields_are_told(html: str) -> None:
    article = html.split('id="createApiKey"')[1].split("</article>", maxsplit=1)[0]
    assert "Idempotency-Key" in article
    assert "expiresIn" in article


def test_no_example_has_a_secret(html: str) -> None:
    assert not re.search(r"kb[rs]?_[0-9A-Za-z]{8}|eyJ", html)


def test_the_script_is_short_and_needs_no_trusted_type() -> None:
    script = (files("keybearer.web") / "static" / "reference.js").read_text()
    assert len(script.splitlines()) <= 150
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


async def test_the_page_and_its_files_are_served(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/auth/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name, media_type in STATIC.items():
        found = await client.get(f"/api/auth/static/{name}")
        assert (found.status_code, found.headers["content-type"]) == (200, media_type)
    assert (await client.get("/api/auth/static/../page.py")).status_code == 404
