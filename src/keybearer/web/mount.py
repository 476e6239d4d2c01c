"""keybearer in front of an app: our paths are ours, all else goes on."""

import logging
import re
from typing import TYPE_CHECKING, Any

from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keybearer.domain.errors import KeybearerError, Misuse, Unavailable
from keybearer.operations.app import App
from keybearer.operations.verify import verify_api_key
from keybearer.web.api import routes
from keybearer.web.exchange import header, new_request_id, send_problem, started
from keybearer.web.extras import across_origins, ahead, extra_routes
from keybearer.web.pages.options import Pages
from keybearer.web.problem import MOUNTED_AT, of_loss, problem
from keybearer.web.verify import Verify

if TYPE_CHECKING:
    from keybearer.auth import Auth
    from keybearer.web.pages.site import Site

log = logging.getLogger("keybearer.web")

_BASE = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Mount:
    """The ASGI app that `Auth.mount` gives.

    Args:
        base: below which our paths lie, as `/api/auth`.
        pages: how the account pages look and where they lie; as usual unless given.

    Raises:
        Misuse: the base is no path, or has a slash too many; what the pages need is not installed,
            and they are asked for.
    """

    def __init__(
        self, auth: "Auth", app: ASGIApp, *, base: str, pages: Pages | None = None
    ) -> None:
        if not _BASE.fullmatch(base):
            raise Misuse(f"base {base!r}: takes a path, as /api/auth, without a slash at its end")
        self._auth = auth
        self._app = app
        self._base = base
        self._ours: ASGIApp | None = None
        self._made_for: App | None = None
        self._ahead = ahead(auth, base)
        if verify_api_key in auth.operations:
            self._ahead[base + verify_api_key.path] = Verify(auth, self._below)
        self._site = site_of(auth, pages, base=base, alone=app is no_app)
        self._looks_for_proxies = auth.settings.trusted_proxies is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[MOUNTED_AT] = self._base
            path: str = scope["path"]
            at_once = self._ahead.get(path)
            if b"%" in scope.get("raw_path", b"") and self._hides_a_slash(scope):
                await self._nothing_here(scope, receive, send)
                return
            if at_once is not None:
                await at_once(scope, receive, send)
                return
            if self._is_below(path):
                await self._below(scope, receive, send)
                return
            if self._site is not None and self._site.owns(path):
                await self._site(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_below(self, path: str) -> bool:
        return path.startswith(self._base) and path[len(self._base) :][:1] in ("", "/")

    def _hides_a_slash(self, scope: Scope) -> bool:
        """Whether a path is ours only once %2F is read as a slash, which it is not.

        RFC 3986 section 2.2. A proxy in front that limits or denies by path has seen another one.
        """
        path: str = scope["path"]
        ours = path in self._ahead or self._is_below(path)
        if self._site is not None:
            ours = ours or self._site.owns(path)
        return ours and b"%2f" in scope["raw_path"].lower()

    async def _below(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._looks_for_proxies and header(scope, b"x-forwarded-for") is not None:
            self._looks_for_proxies = False  # said once: a client can make it up
            log.warning("proxy.not_trusted", extra={"setting": "KEYBEARER_TRUSTED_PROXIES"})
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._auth.settings
        try:
            app = await started(self._auth)
        except Unavailable as loss:
            answer = of_loss(loss, scope=scope, request_id=new_request_id())
            await send_problem(send, answer, settings)
            return
        if self._ours is None or self._made_for is not app:
            self._made_for = app  # a stopped Auth that starts again has other parts
            listed = routes(self._auth.operations, app, self._base)
            listed += extra_routes(self._auth, app, self._base)
            self._ours = Router(listed, redirect_slashes=False, default=self._nothing_here)
            self._ours = across_origins(self._ours, self._auth)
        await self._ours(scope, receive, send)

    async def _nothing_here(self, scope: Scope, _receive: Receive, send: Send) -> None:
        answer = problem("NOT_FOUND", scope=scope, request_id=new_request_id())
        await send_problem(send, answer, self._auth.settings)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starts before the app does and stops after it, whether or not it has a lifespan.

        ASGI: an app that raises on this scope, before it hears anything, does not speak it.
        """
        heard = await receive()
        try:
            await self._auth.start()
        except KeybearerError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            if isinstance(error, Misuse):
                return
            raise
        handed: list[str] = []
        answered: list[str] = []

        async def receiving() -> Message:
            message = await receive() if handed else heard
            handed.append(message["type"])
            return message

        async def sending(message: Message) -> None:
            answered.append(message["type"])
            if message["type"] != "lifespan.startup.complete":
                await self._auth.stop()
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except BaseException as error:
            if handed or not isinstance(error, Exception):
                await self._auth.stop()
                raise
        # What the app left unsaid.
        if not answered:
            await sending({"type": "lifespan.startup.complete"})
        if answered == ["lifespan.startup.complete"]:
            if "lifespan.shutdown" not in handed:
                await receive()
            await sending({"type": "lifespan.shutdown.complete"})


def site_of(auth: "Auth", pages: Pages | None, *, base: str, alone: bool) -> "Site | None":
    """The account pages, where what they need is installed: the extra `ui`.

    Raises:
        Misuse: it is not, and somebody has said how the pages shall look.
    """
    try:
        site = import_site()
    except ImportError as error:
        if pages is not None or error.name not in ("jinja2", "markupsafe"):
            raise Misuse("pages need their libraries: pip install 'keybearer[ui]'") from error
        log.debug("pages.off", extra={"hint": "pip install 'keybearer[ui]'"})
        return None
    return site(auth, pages or Pages(), base=base, alone=alone)


def import_site() -> "type[Site]":
    """The pages, and the libraries that they need.

    Raises:
        ImportError: the extra `ui` is not installed.
    """
    from keybearer.web.pages.site import Site  # noqa: PLC0415 -- an extra

    return Site


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An app with nothing in it, for a server that is keybearer alone."""
    if scope["type"] == "lifespan":
        while True:
            message: dict[str, Any] = dict(await receive())
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})
