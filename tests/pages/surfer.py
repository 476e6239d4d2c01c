"""A browser without JavaScript and without a window: it reads pages, and fills in their forms."""

from html.parser import HTMLParser
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx2

from keybearer import Auth
from tests.people import PASSWORD


class Form:
    """A form: where it goes, and what stands in its fields already."""

    def __init__(self, action: str, method: str) -> None:
        self.action = action
        self.method = method
        self.fields: list[tuple[str, str]] = []
        self.buttons: list[tuple[str, str]] = []


class Seen(HTMLParser):
    """What a page says: its text, forms, links, and the attributes of every element."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._words: list[str] = []
        self._form: Form | None = None
        self._select: str | None = None
        self._area: str | None = None
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    def form(self, ends: str) -> Form:
        """The first form to send whose action ends so."""
        return next(
            form
            for form in self.forms
            if form.method == "post" and urlsplit(form.action).path.endswith(ends)
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.elements.append((tag, has))
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        if tag == "form":
            self._form = Form(has.get("action", ""), has.get("method", "get"))
            self.forms.append(self._form)
        if self._form is None:
            return
        name = has.get("name", "")
        if tag == "input" and name and "disabled" not in has:
            ticked = has.get("type") not in ("checkbox", "radio") or "checked" in has
            if ticked and has.get("type") != "submit":
                self._form.fields.append((name, has.get("value", "")))
        elif tag == "button" and name:
            self._form.buttons.append((name, has.get("value", "")))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select is not None:
            given = [field for field, _ in self._form.fields]
            if "selected" in has or self._select not in given:
                self._form.fields = [pair for pair in self._form.fields if pair[0] != self._select]
                self._form.fields.append((self._select, has.get("value", "")))
        elif tag == "textarea":
            self._area = name
            self._form.fields.append((name, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea":
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._form is not None:
            name, before = self._form.fields.pop()
            self._form.fields.append((name, before + data))
        self._words.append(data)


class Surfer:
    """Somebody with a browser: follows redirects, keeps cookies, sends Origin as browsers do.

    Attributes:
        seen: the page that is open.
        status, path, headers: of its answer.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client
        self.seen = Seen("")
        self.status = 0
        self.path = ""
        self.headers = httpx2.Headers()

    @property
    def text(self) -> str:
        return self.seen.text

    async def open(self, path: str, **headers: str) -> Self:
        """Goes to an address."""
        return await self._take(await self.client.get(path, headers=headers))

    async def send(self, ends: str, **fields: str | list[str] | None) -> Self:
        """Fills in the form that goes to an address ending so, and sends it; None empties."""
        form = self.seen.form(ends)
        pairs = [(name, value) for name, value in form.fields if name not in fields]
        for name, value in fields.items():
            many = [] if value is None else value if isinstance(value, list) else [value]
            pairs += [(name, each) for each in many]
        origin = str(self.client.base_url).rstrip("/")
        data: dict[str, list[str]] = {}
        for name, value in pairs:
            data.setdefault(name, []).append(value)
        address = urljoin(self.path, form.action)
        answer = await self.client.post(address, data=data, headers={"origin": origin})
        return await self._take(answer)

    async def _take(self, answer: httpx2.Response) -> Self:
        for _ in range(5):
            if answer.status_code not in (302, 303):
                break
            answer = await self.client.get(answer.headers["location"])
        self.status = answer.status_code
        self.headers = answer.headers
        self.path = answer.url.raw_path.decode()
        self.seen = Seen(answer.text)
        return self


async def logged_in(auth: Auth, client: httpx2.AsyncClient, email: str = "ann@example.com") -> str:
    """Makes somebody who is logged in with this client, and gives the id."""
    user = await auth.api.users.create(email, name="Ann", password=PASSWORD, verified=True)
    answer = await client.post(
        "/api/auth/sign-in/email", json={"email": email, "password": PASSWORD}
    )
    assert answer.status_code == 200, answer.text
    return user.id
