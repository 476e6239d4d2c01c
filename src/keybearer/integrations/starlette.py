"""Starlette: a middleware and a decorator.

    Route("/report", report, middleware=[Middleware(Guard, auth=auth, permissions="files:read")])

    @requires(auth, "files:read")
    async def report(request): ...

Both leave the caller on `request.state.session` and answer everyone else with problem+json.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import iscoroutinefunction, signature
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keybearer.api import Needs
from keybearer.auth import Auth
from keybearer.domain.errors import Failure, Misuse, Unavailable
from keybearer.domain.model import Anonymous, Refusal, Session
from keybearer.domain.permissions import stated
from keybearer.operations.admission import explicit, identified
from keybearer.web.exchange import check_site, client_ip, header, new_request_id, started
from keybearer.web.problem import of_failure, of_loss

log = logging.getLogger("keybearer.web")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CHARGED = "keybearer.charged"
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class Guard:
    """A middleware that lets nobody through but good credentials.

    Args:
        permissions: what it asks for, as `"files:read"` or `{"files": ["read"]}`.
        optional: whether a request without any credential passes, with `session` None.

    Raises:
        Misuse: `permissions` is no list of permissions.
    """

    def __init__(
        self, app: ASGIApp, *, auth: Auth, permissions: Needs = None, optional: bool = False
    ) -> None:
        self._app = app
        self._auth = auth
        self._needed = stated(permissions, "permissions=")
        self._optional = optional

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            try:
                await admit(self._auth, scope, self._needed, optional=self._optional)
            except (Failure, Unavailable) as error:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                else:
                    await answer(error, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def requires(auth: Auth, permissions: Needs = None) -> Callable[[Callable[..., Any]], Any]:
    """Lets nobody call the decorated endpoint, a function or a method of one, but good credentials.

    Raises:
        Misuse: the endpoint has no `request` (a websocket needs the middleware); `permissions` is
            no list of permissions.
    """
    needed = stated(permissions, "permissions=")

    def guarded(endpoint: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        if "request" not in signature(endpoint).parameters:
            raise Misuse(f"@requires: {endpoint.__name__} takes no `request`")
        place = list(signature(endpoint).parameters).index("request")
        call = endpoint if iscoroutinefunction(endpoint) else partial(run_in_threadpool, endpoint)

        @wraps(endpoint)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            request: Request = kwargs["request"] if "request" in kwargs else args[place]
            try:
                await admit(auth, request.scope, needed)
            except (Failure, Unavailable) as error:
                return answer(error, request.scope)
            return await call(*args, **kwargs)

        return checked

    return guarded


async def admit(
    auth: Auth, scope: Scope, needed: frozenset[str], *, optional: bool = False
) -> Session | None:
    """Who calls, also on `request.state.session`; None where that is optional.

    Without a credential of ours it is whoever `identify` says. Several guards around one
    endpoint charge a key once.

    Raises:
        Failure: refused, nobody, or a cookie in a request that another site made a browser send.
        Unavailable: a dependency is lost.
    """
    app = auth.parts or await started(auth)
    headers, session = scope["headers"], None
    sent = partial(explicit, headers, app.verifier.places)
    ip, charge = client_ip(scope, app.settings), scope.get(_CHARGED) is not auth
    verdict = app.verifier.warm(headers, ip, needed, charge=charge)
    if verdict is None:
        verdict = await app.verifier.verify(headers, ip, needed, charge=charge)
    if isinstance(verdict, Anonymous):
        verdict = await identified(app, headers, needed)
    if isinstance(verdict, Session):
        session = verdict
        scope[_CHARGED] = auth
        if session.kind == "session" and scope.get("method") not in _SAFE and not sent():
            cookie = header(scope, b"cookie") is not None
            check_site(scope, app.settings, with_cookie=cookie)
    elif isinstance(verdict, Refusal) and (sent() or not optional):
        raise verdict.failure()
    elif not optional:
        raise Failure("UNAUTHORIZED")
    scope.setdefault("state", {})["session"] = session
    return session


def answer(error: Failure | Unavailable, scope: Scope) -> Response:
    """A refusal or a loss as problem+json with its headers."""
    request_id = new_request_id()
    if isinstance(error, Failure):
        told = of_failure(error, scope=scope, request_id=request_id)
    else:
        log.error("dependency.lost", extra={"request_id": request_id, "reason": error.reason})
        told = of_loss(error, scope=scope, request_id=request_id)
    response = Response(told.body, told.status)
    response.raw_headers += told.headers
    return response
