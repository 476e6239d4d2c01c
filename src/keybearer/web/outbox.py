"""The mails of a server that has no mail server, as a page for whoever develops on it.

    http://127.0.0.1:8000/dev/outbox     on this machine, asked for by a loopback name, directly

It shows links that open accounts. So it is there only while SMTP_URL is not set, and only for
somebody at this machine; anybody else is told that there is nothing.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from keybearer.adapters.sql.outbox import Letter
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.instants import iso
from keybearer.operations import outbox
from keybearer.web.exchange import new_request_id, send_answer, send_problem, started
from keybearer.web.local import asked_locally
from keybearer.web.page import PAGE_CSP, page
from keybearer.web.problem import of_failure, of_loss

if TYPE_CHECKING:
    from keybearer.auth import Auth

PATH = "/dev/outbox"
SHOWN = 50
_REFRESH_SECONDS = 5


class Outbox:
    """The page."""

    def __init__(self, auth: "Auth", *, base: str) -> None:
        self._auth = auth
        self._base = base

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        settings = self._auth.settings
        request_id = new_request_id()
        try:
            hidden = settings.smtp_url is not None or scope["method"] not in ("GET", "HEAD")
            if hidden or not asked_locally(scope):
                raise Failure("NOT_FOUND")
            letters = await outbox.recent(await started(self._auth), limit=SHOWN)
        except Failure as failure:
            answer = of_failure(failure, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        except Unavailable as loss:
            answer = of_loss(loss, scope=scope, request_id=request_id)
            await send_problem(send, answer, settings)
            return
        body = render(letters, base_url=settings.base_url, base=self._base).encode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            (b"content-security-policy", PAGE_CSP),
        ]
        await send_answer(send, 200, body, headers, settings)


def render(letters: Sequence[Letter], *, base_url: str, base: str) -> str:
    """The page as HTML. Only links below `base_url` become links: others we did not write."""
    if letters:
        body = "\n".join(_letter(letter, base_url) for letter in letters)
    else:
        body = (
            '<p class="empty">No mail yet. Sign up, and the link to verify the address '
            "will be here.</p>"
        )
    return page(
        title="Outbox",
        base=base,
        head=f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">',
        body=f"""\
<main class="narrow">
<h1>Outbox</h1>
<p class="lead">Mail that would go out if <code>SMTP_URL</code> were set. Only you, on this
machine, can see it. The page renews itself every {_REFRESH_SECONDS} seconds.</p>
{body}
</main>""",
    )


def _letter(letter: Letter, base_url: str) -> str:
    at = iso(letter.created_at)
    found = _links(letter.text, base_url)
    action = ""
    if found:
        action = (
            f'<p><a class="button" href="{escape(found[0])}" rel="noreferrer">'
            f"{escape(_action(letter.subject))}</a></p>"
        )
    text = linkified(letter.text, base_url) if letter.text else "<i>The text was wiped.</i>"
    return f"""\
<article class="mail" id="mail-{escape(letter.id)}">
<header><h2><bdi>{escape(letter.subject)}</bdi></h2>
<p class="meta">to <bdi>{escape(letter.recipient)}</bdi> · <time datetime="{at}">{_readable(at)}
</time></p></header>
{action}
<pre>{text}</pre>
</article>"""


def linkified(text: str, base_url: str) -> str:
    """Text as HTML in which the links below `base_url`, and no others, can be clicked."""
    parts = []
    at = 0
    for match in _pattern(base_url).finditer(text):
        url = escape(match[0])
        parts += [escape(text[at : match.start()]), f'<a href="{url}" rel="noreferrer">{url}</a>']
        at = match.end()
    return "".join([*parts, escape(text[at:])])


def _links(text: str, base_url: str) -> list[str]:
    return [match[0] for match in _pattern(base_url).finditer(text)]


def _pattern(base_url: str) -> re.Pattern[str]:
    # A slash must follow: "http://127.0.0.1:8000.evil.example/" begins with our address too.
    return re.compile(re.escape(base_url) + r"/[A-Za-z0-9_.~/?&=%+#:-]*[A-Za-z0-9_/=%#-]")


def _action(subject: str) -> str:
    return f"{subject} →"


def _readable(at: str) -> str:
    return f"{at[:10]} {at[11:19]} UTC"
