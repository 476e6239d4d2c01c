"""Templates become HTML: one environment for each language, everything escaped."""

import functools
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import escape
from starlette.types import Scope

from keybearer.adapters.languages import Language, language
from keybearer.domain.errors import PROBLEMS
from keybearer.domain.instants import iso, parse_iso
from keybearer.web.page import versioned
from keybearer.web.pages import icons, words
from keybearer.web.pages.options import Pages
from keybearer.web.pages.visit import Answer, Visit

if TYPE_CHECKING:
    from keybearer.web.pages.site import Site

_EMPTY_MENU: list[tuple[str, str]] = []


class Templates:
    """The templates of one site, the host app's own before ours."""

    def __init__(self, options: Pages) -> None:
        loaders: list[Any] = [PackageLoader("keybearer.web.pages")]
        if options.templates is not None:
            loaders.insert(0, FileSystemLoader(options.templates))
        self._loader = ChoiceLoader(loaders)

    @functools.lru_cache(maxsize=16)  # noqa: B019 -- one site lives as long as the app
    def environment(self, say: Language) -> Environment:
        """The templates in one language."""
        made = Environment(
            loader=self._loader,
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.globals.update(
            _=say,
            ngettext=say.plural,
            language=say,
            language_of=language,
            words=words,
        )
        made.filters.update(
            called=words.called,
            filled=lambda message, **parts: escape(message).format(**parts),
            iso=lambda at: iso(_ms(at)),
            instant=lambda at: say.instant(_ms(at)),
            day=lambda at: say.date(_ms(at)),
            number=say.number,
            percent=say.percent,
        )
        return made

    def render(self, site: "Site", visit: Visit, template: str, values: dict[str, Any]) -> str:
        """A page as HTML."""
        now = visit.now
        say = visit.language
        menu = _menu(site, visit) if visit.csrf else _EMPTY_MENU
        drawn = icons.Drawn()
        notice = None if visit.noticed is None else words.NOTICES.get(visit.noticed)
        about = {
            "ago": lambda at: words.ago(say, _ms(at), now),
            "csrf": visit.csrf,
            "icon": drawn,
            "symbols": drawn.symbols,
            "locales": _locales(site, visit),
            "menu": menu,
            "notice": None if notice is None else say(notice),
            "now": now,
            "page": visit.page,
            "site": site,
            "url": visit.url,
            "user": visit.user,
            **_files(site),
        }
        made = self.environment(say).get_template(template)
        return made.render({**about, **values})

    def problem(
        self,
        site: "Site",
        scope: Scope,
        say: Language,
        code: str,
        *,
        visit: Visit | None = None,
    ) -> Answer:
        """The page for what went wrong; it needs neither a login nor a database."""
        status, drawn = PROBLEMS[code].status, icons.Drawn()
        text = (
            self.environment(say)
            .get_template("problem.html")
            .render(
                {
                    "again": status == 503 and scope["method"] == "GET",
                    "csrf": "" if visit is None else visit.csrf,
                    "icon": drawn,
                    "symbols": drawn.symbols,
                    "locales": [] if visit is None else _locales(site, visit),
                    "menu": _EMPTY_MENU if visit is None or not visit.csrf else _menu(site, visit),
                    "message": words.problem(say, code, site.settings),
                    "notice": None,
                    "page": "",
                    "request_id": site.request_id(scope),
                    "site": site,
                    "status": status,
                    "url": functools.partial(site.url, say.tag),
                    "user": None if visit is None else visit.user,
                    **_files(site),
                }
            )
        )
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        if visit is not None:
            headers += visit.cookies()  # a login that was renewed before something was lost
        if status == 503:
            headers.append((b"retry-after", b"2"))
        return Answer(status=status, body=text.encode(), headers=headers)


def _files(site: "Site") -> dict[str, str]:
    return {
        "css": versioned(site.base, "pages.css"),
        "favicon": versioned(site.base, "icon.svg"),
        "script": versioned(site.base, "pages.js"),
    }


def _locales(site: "Site", visit: Visit) -> list[tuple[Language, str]]:
    """The same page in each language, with its query; of a form's answer the page of the form."""
    page = site.shown(visit.page)
    query: bytes = visit.scope.get("query_string", b"")
    tail = f"?{query.decode('ascii', 'replace')}" if query and page == visit.page else ""
    return [(language(tag), site.url(tag, page) + tail) for tag in site.settings.locales]


def _menu(site: "Site", visit: Visit) -> list[tuple[str, str]]:
    """What whoever is logged in can go to: (page, text)."""
    say, menu = visit.language, []
    if site.settings.token_management:
        menu.append(("account/api-keys", say("API keys")))
    if visit.app.accounts:
        menu.append(("account/sessions", say("Sessions")))
    menu.append(("account/security", say("Security")))
    return menu


@functools.lru_cache(maxsize=4_096)
def _ms(at: int | str) -> int:
    return at if isinstance(at, int) else parse_iso(at)
