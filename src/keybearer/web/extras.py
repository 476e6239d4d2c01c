"""Routes that are no operations: forward-auth, health, metrics, reference, outbox."""

import functools
import gzip
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from keybearer.domain.errors import Failure
from keybearer.operations.app import App
from keybearer.settings import Settings
from keybearer.web.exchange import (
    ClientGone,
    new_request_id,
    read_body,
    send_answer,
    send_problem,
    takes_gzip,
)
from keybearer.web.forward import Forward
from keybearer.web.health import OK, Live, Ready
from keybearer.web.metrics import Metrics
from keybearer.web.openapi import document
from keybearer.web.outbox import PATH as OUTBOX
from keybearer.web.outbox import Outbox
from keybearer.web.page import PAGE_CSP, STATIC, static
from keybearer.web.problem import RawHeaders, of_failure, problem
from keybearer.web.reference import render

if TYPE_CHECKING:
    from keybearer.auth import Auth

_CACHE_SECONDS = 300
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")


def ahead(auth: "Auth", base: str) -> dict[str, ASGIApp]:
    """By whole path what is answered before anything is routed, or even started.

    Forward-auth stands before every request of somebody's app; `live` is told while the database
    is lost; the outbox lies outside of `base`, and only where mail is printed.

    Not across origins: metrics and outbox, which are no page's business, and forward-auth, as a
    proxy may hand on a preflight, and would let pass what is only told that it may ask.
    """
    settings = auth.settings
    found: dict[str, ASGIApp] = {
        f"{base}/forward": Forward(auth),
        f"{base}/metrics": Reading(Metrics(auth), settings),
    }
    told: dict[str, ASGIApp]
    told = {"ok": Live(auth, OK), "health/live": Live(auth), "health/ready": Ready(auth)}
    for path, health in told.items():
        found[f"{base}/{path}"] = across_origins(Reading(health, settings), auth)
    if settings.smtp_url is None and auth.accounts:
        found[OUTBOX] = Outbox(auth, base=base)
    return found


def across_origins(app: ASGIApp, auth: "Auth") -> ASGIApp:
    """An app that pages of TRUSTED_ORIGINS may call, with cookies."""
    settings = auth.settings
    more = [name.decode() for plugin in auth.plugins for name in plugin.headers]
    if not settings.trusted_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.trusted_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "idempotency-key", "x-api-key", *more],
        allow_credentials=True,
        expose_headers=[
            *("set-auth-token", "set-auth-jwt", "x-request-id"),
            *("retry-after", "ratelimit", "ratelimit-policy"),
        ],
    )


def extra_routes(auth: "Auth", app: App, base: str) -> list[BaseRoute]:
    """The routes beside the operations."""
    settings = app.settings
    headers = [name.decode() for plugin in auth.plugins for name in plugin.headers]

    @functools.cache
    def described() -> bytes:
        return msgspec.json.encode(document(auth.operations, settings, base, headers=headers))

    @functools.cache
    def rendered() -> bytes:
        return render(
            document(auth.operations, settings, base, headers=headers), base=base
        ).encode()

    html = [(b"content-security-policy", PAGE_CSP)]
    served: dict[str, ASGIApp] = {
        "/openapi.json": File("application/json", described, settings),
        "/docs": File("text/html; charset=utf-8", rendered, settings, headers=html),
    }
    for name, media_type in STATIC.items():
        served[f"/static/{name}"] = File(media_type, functools.partial(static, name), settings)
    return [
        Route(base + path, Reading(file, settings), methods=None, include_in_schema=False)
        for path, file in served.items()
    ]


class File:
    """Bytes that are the same for everybody, made when they are first asked for."""

    def __init__(
        self,
        media_type: str,
        content: Callable[[], bytes],
        settings: Settings,
        *,
        headers: RawHeaders | None = None,
    ) -> None:
        self._content = content
        self._settings = settings
        self._headers: RawHeaders = [
            (b"content-type", media_type.encode()),
            (b"cache-control", f"public, max-age={_CACHE_SECONDS}".encode()),
            *(headers or []),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # Nobody asked for it. But a server that closes with a body unread may cut the answer.
            await read_body(scope, receive)
        except Failure as failure:
            answer = of_failure(failure, scope=scope, request_id=new_request_id())
            await send_problem(send, answer, self._settings)
            return
        except ClientGone:
            return
        headers, body = list(self._headers), self._content()
        if takes_gzip(scope):
            # Nobody's secret is in it, so that its length tells nothing.
            body = _gzipped(body)
            headers.append((b"content-encoding", b"gzip"))
        headers.append((b"vary", b"accept-encoding"))
        if scope.get("query_string", b"").startswith(b"v="):
            headers[1] = _FOR_EVER  # the address changes when the file does
        await send_answer(send, 200, body, headers, self._settings)


@functools.lru_cache(maxsize=16)
def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


class Reading:
    """GET and HEAD go on; any other method is 405."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        answer = problem(
            "METHOD_NOT_ALLOWED",
            scope=scope,
            request_id=new_request_id(),
            headers=[(b"allow", b"GET, HEAD")],
        )
        await send_problem(send, answer, self._settings)
