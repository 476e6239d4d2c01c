"""The site: which addresses are ours, and what answers them.

/en/account/api-keys      ours, if `en` is one of LOCALES
/account/api-keys         303 to the best locale of Accept-Language; below `Pages.path`, or with
                          `Pages.root`: elsewhere another app could have it
/xx/account/api-keys      nobody's: the host app answers, or our 404 where there is none
/                         as a path without locale, where `Pages.root` says so
"""

import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from keybearer.adapters.languages import language
from keybearer.domain.errors import Failure, Unavailable
from keybearer.web.exchange import (
    ClientGone,
    header,
    new_request_id,
    send_answer,
    started,
    takes_gzip,
)
from keybearer.web.pages import account, detail, joining, keylist, making
from keybearer.web.pages.locales import best_locale
from keybearer.web.pages.options import Pages
from keybearer.web.pages.rendering import Templates
from keybearer.web.pages.visit import Answer, Visit, with_query

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger("keybearer.pages")

CSP = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    b"img-src 'self'; font-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CSP),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"x-frame-options", b"DENY"),
]
_KEYS = "account/api-keys"
_LONGEST_NEXT = 1_000

Handler = Callable[[Visit], Awaitable[Answer]]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One address: what GET and POST do there.

    Attributes:
        members: only for whoever is logged in.
        accounts: only where keybearer keeps the users.
        keys: only while TOKEN_MANAGEMENT is on.
        file: something to keep, not to look at.
    """

    show: Handler | None = None
    send: Handler | None = None
    members: bool = True
    accounts: bool = True
    keys: bool = False
    file: bool = False

    @property
    def allow(self) -> str:
        """The methods, for Allow."""
        shown = ["GET", "HEAD"] if self.show is not None else []
        return ", ".join([*shown, *(["POST"] if self.send is not None else [])])


def _key_page(
    show: Handler | None = None, send: Handler | None = None, *, file: bool = False
) -> Page:
    return Page(show=show, send=send, accounts=False, keys=True, file=file)


PAGES: Mapping[str, Page] = {
    "sign-up": Page(show=joining.show_sign_up, send=joining.sign_up, members=False),
    "login": Page(show=joining.show_login, send=joining.log_in, members=False),
    "logout": Page(send=joining.log_out, members=False),
    "check-mail": Page(show=joining.show_check_mail, send=joining.mail_again, members=False),
    "verified": Page(show=joining.show_verified, members=False),
    "forgot-password": Page(show=joining.show_forgot, send=joining.forgot, members=False),
    "reset-password": Page(show=joining.show_reset, send=joining.reset, members=False),
    "account/sessions": Page(show=account.show_sessions, send=account.end_sessions),
    "account/security": Page(show=account.show_security, accounts=False),
    "account/security/password": Page(send=account.change_password),
    "account/security/language": Page(send=account.change_language),
    "account/security/disown": Page(send=account.disown, accounts=False),
    f"{_KEYS}": _key_page(keylist.show, keylist.act),
    f"{_KEYS}/new": _key_page(making.show, making.make),
    f"{_KEYS}/export": _key_page(keylist.export, file=True),
    f"{_KEYS}/calendar": _key_page(send=account.change_calendar),
    f"{_KEYS}/*": _key_page(detail.show),
    f"{_KEYS}/*/settings": _key_page(detail.show, detail.change),
    f"{_KEYS}/*/switch": _key_page(send=detail.switch),
    f"{_KEYS}/*/rotate": _key_page(detail.show_rotate, detail.rotate),
    f"{_KEYS}/*/rotation": _key_page(detail.show_rotation, detail.steer_rotation),
    f"{_KEYS}/*/revoke": _key_page(detail.show_revoke, detail.revoke),
}
"""Every page by its path behind the locale; `*` is an id."""


class Site:
    """The pages of one mounted keybearer.

    Args:
        base: below which the API and our files lie, as `/api/auth`.
        alone: whether there is no other app that could answer what we do not.
    """

    def __init__(self, auth: "Auth", options: Pages, *, base: str, alone: bool = False) -> None:
        self.options = options
        self.base = base
        self.settings = auth.settings
        self._auth = auth
        self._alone = alone
        self._templates = Templates(options)
        self._locales = frozenset(auth.settings.locales)
        self._prefix = options.path
        self._heads = {path.partition("/")[0] for path in PAGES}

    # --- addresses ---

    def owns(self, path: str) -> bool:
        """Whether we answer this address, rather than the host app."""
        if not path.startswith(f"{self._prefix}/"):
            return self._alone
        head, _, rest = path[len(self._prefix) + 1 :].partition("/")
        every = self._alone or self.options.root
        if head in self._locales:
            return every or self._find(rest) or (bool(self._prefix) and not rest)
        if head in self._heads and (every or self._prefix):
            return self._find(f"{head}/{rest}" if rest else head)
        return self._alone or (self.options.root and not head)

    def _find(self, rest: str) -> bool:
        return self._page(rest.removesuffix("/"))[0] is not None

    def _page(self, rest: str) -> tuple[Page | None, str]:
        """The page at a path behind the locale, where it is served here, and the id in it."""
        found, id = PAGES.get(rest), ""
        if found is None and rest.startswith(f"{_KEYS}/"):
            id, slash, more = rest[len(_KEYS) + 1 :].partition("/")
            found = PAGES.get(f"{_KEYS}/*{slash}{more}") if 1 <= len(id) <= 64 else None
        if found is None or (found.keys and not self.settings.token_management):
            return None, ""
        if found.accounts and not self._auth.accounts:
            return None, ""
        return found, id

    def url(self, locale: str, page: str, /, **query: str) -> str:
        """The address of a page."""
        address = f"{self._prefix}/{locale}/{quote(page)}" if page else f"{self._prefix}/{locale}"
        return with_query(address, **query)

    def is_page(self, address: str) -> bool:
        """Whether an address that came with a request is one of our pages to look at."""
        if len(address) > _LONGEST_NEXT or not address.isascii() or not address.isprintable():
            return False
        # Browsers read `//x`, and `/\x`, as another host.
        path = address.partition("?")[0]
        if "\\" in address or "%" in path or "//" in path:
            return False
        try:
            parts = urlsplit(address)
        except ValueError:
            return False
        if parts.scheme or parts.netloc or parts.fragment or not address.startswith("/"):
            return False
        locale, _, rest = parts.path.removeprefix(f"{self._prefix}/").partition("/")
        ours = parts.path.startswith(f"{self._prefix}/") and locale in self._locales
        page, _ = self._page(rest) if ours else (None, "")
        return page is not None and page.members and page.show is not None and not page.file

    def shown(self, page: str) -> str:
        """The page itself, or where it is none to look at, the nearest one above it that is."""
        while page:
            found, _ = self._page(page)
            if found is not None and found.show is not None and not found.file:
                return page
            page = page.rpartition("/")[0]
        return self.front

    @staticmethod
    def request_id(scope: Scope) -> str:
        """What a person quotes when asking for help; the same for one request."""
        made: str = scope.setdefault("keybearer.request_id", new_request_id())
        return made

    # --- answering ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an address that we own."""
        path: str = scope["path"][len(self._prefix) + 1 :]
        head, _, rest = path.partition("/")
        try:
            if head in self._locales:
                answer = await self._answer(scope, receive, head, rest)
            else:
                answer = self._with_locale(scope, path)
        except ClientGone:
            return
        headers, body = [*answer.headers, *_HEADERS], answer.body
        headers.append((b"x-request-id", self.request_id(scope).encode()))
        # The answer to a form may hold a new key, whose length must tell nothing of it.
        if scope["method"] != "POST" and body and takes_gzip(scope):
            body = gzip.compress(body, compresslevel=5, mtime=0)
            headers.append((b"content-encoding", b"gzip"))
        await send_answer(send, answer.status, body, headers, self.settings)

    def _with_locale(self, scope: Scope, path: str) -> Answer:
        """To the same page in the best language; 404 for what is no page in any."""
        rest = path.removesuffix("/")
        locale = best_locale(header(scope, b"accept-language"), self.settings.locales)
        if (rest and not self._find(rest)) or scope["method"] not in ("GET", "HEAD"):
            return self._templates.problem(self, scope, language(locale), "NOT_FOUND")
        answer = self._moved(scope, self.url(locale, rest or self.front))
        return msgspec.structs.replace(
            answer, headers=[*answer.headers, (b"vary", b"accept-language")]
        )

    @staticmethod
    def _moved(scope: Scope, address: str) -> Answer:
        """To another address of the same page, with the query that came."""
        query = scope.get("query_string", b"").decode("ascii", "ignore")
        address = f"{address}?{query}" if query else address
        return Answer(status=303, headers=[(b"location", address.encode("ascii", "replace"))])

    @property
    def front(self) -> str:
        """The first page: the keys, where there are any."""
        if self.settings.token_management:
            return _KEYS
        return "account/sessions" if self._auth.accounts else "account/security"

    async def _answer(self, scope: Scope, receive: Receive, locale: str, rest: str) -> Answer:
        say = language(locale)
        visit: Visit | None = None
        try:
            page, named = self._page(rest)
            if not rest.strip("/") or (page is None and rest.endswith("/") and self._find(rest)):
                return self._moved(scope, self.url(locale, rest.strip("/") or self.front))
            if page is None:
                raise Failure("NOT_FOUND")
            app = await started(self._auth)
            visit = Visit(scope, self, app, language=say, page=rest, named=named)
            return await self._perform(page, visit, receive)
        except Failure as failure:
            if failure.status == 401 and visit is not None:
                return self._to_login(visit)
            return self._templates.problem(self, scope, say, failure.code, visit=visit)
        except Unavailable as loss:
            log.error("dependency.lost", extra={"request_id": self.request_id(scope),
                                                "reason": loss.reason})  # fmt: skip
            return self._templates.problem(self, scope, say, loss.code, visit=visit)
        except ClientGone:
            raise
        except Exception:
            log.exception("request.failed", extra={"request_id": self.request_id(scope)})
            return self._templates.problem(self, scope, say, "INTERNAL_ERROR", visit=visit)

    async def _perform(self, page: Page, visit: Visit, receive: Receive) -> Answer:
        method = visit.scope["method"]
        handler = page.show if method in ("GET", "HEAD") else page.send
        if handler is None or method not in ("GET", "HEAD", "POST"):
            answer = self._templates.problem(
                self, visit.scope, visit.language, "METHOD_NOT_ALLOWED", visit=visit
            )
            return msgspec.structs.replace(
                answer, headers=[*answer.headers, (b"allow", page.allow.encode())]
            )
        if method == "POST":
            await visit.read(receive)
        if page.members:
            session = await visit.member()
            if method == "POST":
                visit.check_token(session)
        return await handler(visit)

    def _to_login(self, visit: Visit) -> Answer:
        """Whoever is not logged in, to where one logs in, and back."""
        if self._auth.accounts:
            reading = visit.scope["method"] in ("GET", "HEAD")
            # A form is lost, but not where it stood.
            back = visit.here if reading else visit.url(self.shown(visit.page))
            return visit.go(visit.url("login", next=back if self.is_page(back) else ""))
        if self.options.login is not None:
            return visit.go(self.options.login)
        return self._templates.problem(self, visit.scope, visit.language, "UNAUTHORIZED")

    def render(self, visit: Visit, template: str, values: dict[str, Any]) -> str:
        """A page as HTML."""
        return self._templates.render(self, visit, template, values)
