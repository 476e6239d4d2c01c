"""One visit of a page: who comes, in which language, and what the operations say.

    GET    who? ▸ operations ▸ a page
    POST   another site? 403 ▸ the form's token ▸ operations ▸ a page, or 303 to one

A page asks the same operations as the API, as whoever sent the request. It never presents more
than the request did, and so can do nothing that the API would refuse.
"""

import hmac
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from starlette.types import Receive, Scope

from keybearer.adapters.languages import Language
from keybearer.domain.credentials import Secret
from keybearer.domain.errors import Failure
from keybearer.domain.model import Anonymous, Session, Verdict
from keybearer.operations.admission import admit
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Call, Operation, Reply
from keybearer.operations.reports import list_audit
from keybearer.operations.sessions import AskSession, get_session
from keybearer.operations.wire import UserRecord
from keybearer.web.api import session_headers
from keybearer.web.exchange import check_site, facts, header, read_body
from keybearer.web.problem import RawHeaders

if TYPE_CHECKING:
    from keybearer.web.pages.site import Site

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

MAX_FIELDS = 400
_TOKEN_BYTES = 32
_OF_MEMBERS = frozenset({Access.SESSION, Access.MANAGER, Access.OWNER})
"""What a login may do: admitted once in a visit, it may do all of it."""

_NOTICE = "keybearer.notice"
_FORM = "application/x-www-form-urlencoded"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a page answers."""

    status: int = 200
    body: bytes = b""
    headers: RawHeaders = []


class Visit:
    """One request for one page.

    Attributes:
        app, site: what answers it.
        language: of the page.
        page: its path behind the locale, as `account/api-keys`.
        named: the id in its path, or "".
        now: milliseconds, when it came.
        fields: of the form, the last one of each name; see `several`.
    """

    def __init__(
        self, scope: Scope, site: "Site", app: App, *, language: Language, page: str, named: str
    ) -> None:
        self.scope = scope
        self.site = site
        self.app = app
        self.language = language
        self.page = page
        self.named = named
        self.now = app.clock.now()
        self.facts = facts(scope, app.settings, site.request_id(scope))
        self.fields: dict[str, str] = {}
        self.replies: list[Reply] = []
        self.user: UserRecord | None = None
        self._several: dict[str, list[str]] = {}
        self._headers = scope["headers"]
        self._session: Session | None = None
        self._csrf = ""

    # --- who ---

    async def known(self) -> Session | None:
        """Whoever is logged in, or None; a credential that is no good is nobody's."""
        if self._session is None:
            try:
                return await self.member()
            except Failure:
                return None
        return self._session

    async def member(self) -> Session:
        """Whoever is logged in.

        Raises:
            Failure: nobody is, or a credential was presented that cannot use the pages.
        """
        if self._session is None:
            caller, _ = await admit(self.app, list_audit, self._headers, self.facts.ip)
            if not isinstance(caller, Session):
                raise Failure("UNAUTHORIZED")
            self._session = caller
            if self.app.accounts:
                shown = await self.ask(get_session, AskSession())
                self.user = None if shown is None else shown.user
        return self._session

    async def ask(self, declared: Operation[I, O], asked: I) -> O:
        """Calls an operation as whoever sent the request.

        Raises:
            Failure: refused.
            Unavailable: a dependency is lost.
        """
        if self._session is not None and declared.access in _OF_MEMBERS:
            caller: Session | Anonymous = self._session
            verdict: Verdict = self._session
        else:
            caller, verdict = await admit(self.app, declared, self._headers, self.facts.ip)
            if isinstance(caller, Session) and declared.access in _OF_MEMBERS:
                self._session = caller
        call = Call(app=self.app, caller=caller, facts=self.facts, now=self.now, verdict=verdict)
        output = await declared(call, asked)
        if call.reply.session is not None:
            self.replies.append(call.reply)
            self._go_on_as(call.reply.session)
        return output

    def _go_on_as(self, token: Secret | str) -> None:
        """What is asked next goes by the new login: the token that came is over."""
        self._session, self._csrf = None, ""
        kept = [pair for pair in self._headers if pair[0] != b"cookie"]
        if isinstance(token, Secret):
            signed = quote(self.app.ring.sign(token.reveal()), safe="")
            kept.append((b"cookie", f"{self.app.cookie}={signed}".encode()))
        self._headers = kept

    # --- what came ---

    async def read(self, receive: Receive) -> None:
        """Takes the form, when it is one of our own pages that sent it.

        Raises:
            Failure: another site sent it, or it is none.
        """
        check_site(self.scope, self.app.settings, with_cookie=True)
        body = await read_body(self.scope, receive)
        media, _, _ = (header(self.scope, b"content-type") or b"").partition(b";")
        if media.strip().lower() != _FORM.encode():
            raise Failure("UNSUPPORTED_MEDIA_TYPE", f"Send the form as {_FORM}.")
        for name, value in _pairs(body):
            # Browsers send CRLF for a line break (HTML, form submission).
            self._several.setdefault(name, []).append(value.replace("\r\n", "\n"))
        self.fields = {name: values[-1] for name, values in self._several.items()}

    def check_token(self, session: Session) -> None:
        """Makes sure that the form came from a page of this login.

        Raises:
            Failure: INVALID_ORIGIN.
        """
        if not self._is_ours(session, self.fields.get("csrf", "")):
            raise Failure("INVALID_ORIGIN")

    def several(self, name: str) -> list[str]:
        """Every value of a form's field."""
        return self._several.get(name, [])

    @property
    def query(self) -> dict[str, str]:
        """The fields of the query; of one that stands twice the last."""
        return dict(_pairs(self.scope.get("query_string", b"")))

    # --- the token in forms: beside Fetch metadata and Origin, for browsers that send neither ---

    @property
    def csrf(self) -> str:
        """What a form of this login must bring along; another text each time.

        Pages are compressed: were it the same text each time, its length would tell it (BREACH).
        """
        if self._session is None:
            return ""
        if not self._csrf:
            mask = self.app.entropy(_TOKEN_BYTES)
            token = _tokens(self.app, self._session)[0]
            self._csrf = mask.hex() + _xor(mask, token).hex()
        return self._csrf

    def _is_ours(self, session: Session, token: str) -> bool:
        try:
            sent = bytes.fromhex(token)
        except ValueError:
            return False
        if len(sent) != 2 * _TOKEN_BYTES:
            return False
        bare = _xor(sent[:_TOKEN_BYTES], sent[_TOKEN_BYTES:])
        return any(hmac.compare_digest(each, bare) for each in _tokens(self.app, session))

    # --- addresses ---

    def url(self, page: str, /, **query: str) -> str:
        """The address of a page in this language."""
        return self.site.url(self.language.tag, page, **query)

    @property
    def here(self) -> str:
        """The address that was asked for, with its query."""
        query: bytes = self.scope.get("query_string", b"")
        path = self.url(self.page)
        return f"{path}?{query.decode('ascii', 'replace')}" if query else path

    def next_page(self, otherwise: str) -> str:
        """Where a form leads in the end: one of our own pages, or `otherwise`."""
        asked = self.fields.get("next") or self.query.get("next") or ""
        return asked if self.site.is_page(asked) else self.url(otherwise)

    # --- answers ---

    def html(self, template: str, *, status: int = 200, **values: Any) -> Answer:
        """A page."""
        body = self.site.render(self, template, values).encode()
        headers = [(b"content-type", b"text/html; charset=utf-8"), *self.cookies()]
        if self.noticed is not None:
            headers.append((b"set-cookie", self._notice("", 0)))
        return Answer(status=status, body=body, headers=headers)

    def go(self, address: str, *, notice: str | None = None) -> Answer:
        """To another page; `notice` is the word for what that one says first."""
        headers = [(b"location", address.encode("ascii", "replace")), *self.cookies()]
        if notice is not None:
            headers.append((b"set-cookie", self._notice(notice, 30)))
        return Answer(status=303, headers=headers)

    def file(self, name: str, media_type: str, body: bytes) -> Answer:
        """Something to keep."""
        return Answer(
            body=body,
            headers=[
                (b"content-type", media_type.encode()),
                (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            ],
        )

    @property
    def noticed(self) -> str | None:
        """What the page before has left to say. In a cookie, where no link can put it."""
        for name, value in self.scope["headers"]:
            if name == b"cookie":
                cookies: str = value.decode("latin-1")
                for part in cookies.split(";"):
                    key, _, said = part.strip().partition("=")
                    if key == self._notice_name and said:
                        return said
        return None

    @property
    def _notice_name(self) -> str:
        return f"__Host-{_NOTICE}" if self.app.settings.secure else _NOTICE

    def _notice(self, said: str, seconds: int) -> bytes:
        secure = "; Secure" if self.app.settings.secure else ""
        attributes = f"Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}"
        return f"{self._notice_name}={said}; {attributes}".encode()

    def cookies(self) -> RawHeaders:
        """The cookie of the last login that began or ended; no token goes into another header."""
        kept = (b"set-cookie", b"clear-site-data")
        replies = [session_headers(reply, self.app) for reply in self.replies[-1:]]
        return [pair for pairs in replies for pair in pairs if pair[0] in kept]


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    """The fields of a query or form.

    Raises:
        Failure: INVALID_JSON, for what is no form in UTF-8, or has too many fields.
    """
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Failure("VALIDATION_ERROR", "The form must be in UTF-8.") from None
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise Failure("VALIDATION_ERROR", "Text must not have NUL characters.")
    return pairs


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _tokens(app: App, session: Session) -> list[bytes]:
    """For one login, under every pepper, newest first.

    Of the login's id, not of its token: a page in another tab stays good when that is renewed.
    """
    named = f"form|{session.kind}|{session.session_id or session.id}".encode()
    return app.ring.digests(named)


def with_query(address: str, **query: str) -> str:
    """An address with a query; fields without a value are left out."""
    told = {name: value for name, value in query.items() if value}
    return f"{address}?{urlencode(told)}" if told else address
