"""Forward-auth: a reverse proxy asks whether a request may pass.

    client ──GET /files──▶ proxy ──GET /api/auth/forward?permissions=files:read──▶ here
                             │◀── 200, X-Auth-Subject, X-Auth-Key-Id, X-Auth-Permissions ──┘
                             ▼                      or 401 403 429 (the client's), 400 503
                            app

What is needed stands in the query, which the proxy's configuration writes; nothing of the client's
own request line is looked at, so that no path or query of a client can change what is asked. A
need that this server does not know is 400: a typing error in the guard must not go unseen.
"""

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import Anonymous, Refusal, Verdict
from keybearer.domain.permissions import parse_needs
from keybearer.operations.admission import identified
from keybearer.operations.app import App
from keybearer.web.exchange import client_ip, new_request_id, read_query, send_problem, started
from keybearer.web.problem import RawHeaders, of_failure, of_loss, problem

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger(__name__)

_SEVERAL = frozenset({"permissions"})
_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_REMEMBERED = 256
_REST: RawHeaders = [(b"cache-control", b"no-store"), (b"content-length", b"0")]


class Forward:
    """The endpoint, on bare ASGI: it stands before every request of somebody's app."""

    def __init__(self, auth: "Auth") -> None:
        self._auth = auth
        self._needs: dict[bytes, frozenset[str]] = {b"": frozenset()}

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            app = self._auth.parts or await started(self._auth)
            headers = headers_of(await self._verdict(app, scope))
        except Failure as failure:
            answer = of_failure(failure, scope=scope, request_id=new_request_id())
        except Unavailable as loss:
            log.error("dependency.lost", extra={"reason": loss.reason})
            answer = of_loss(loss, scope=scope, request_id=new_request_id())
        except Exception:
            # The last resort, as in web/api.py: never a 200.
            request_id = new_request_id()
            log.exception("request.failed", extra={"request_id": request_id})
            answer = problem("INTERNAL_ERROR", scope=scope, request_id=request_id)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await send_problem(send, answer, self._auth.settings)

    async def _verdict(self, app: App, scope: Scope) -> Verdict:
        raw: bytes = scope.get("query_string", b"")
        needed = self._needs.get(raw)
        if needed is None:
            needed = _read_needs(app, scope)
            if len(self._needs) < _REMEMBERED:
                self._needs[raw] = needed
        headers = scope["headers"]
        verdict = await app.verifier.verify(headers, client_ip(scope, app.settings), needed)
        if isinstance(verdict, Anonymous):
            return await identified(app, headers, needed)
        return verdict


def headers_of(verdict: Verdict) -> RawHeaders:
    """The headers for the app behind the proxy, each exactly once, blank where empty.

    Blank permissions mean none, or a login that permissions do not limit: an app that reads them
    can only be too strict.

    Raises:
        Failure: the verdict is not an accepted one.
    """
    if isinstance(verdict, Refusal):
        raise verdict.failure()
    if isinstance(verdict, Anonymous):
        raise Failure("UNAUTHORIZED")
    return [
        (b"x-auth-subject", quote(verdict.subject, safe=_VISIBLE).encode()),
        (b"x-auth-key-id", (verdict.key_id or "").encode()),
        (b"x-auth-permissions", ",".join(sorted(verdict.permissions or ())).encode()),
        *_REST,
    ]


def _read_needs(app: App, scope: Scope) -> frozenset[str]:
    query = read_query(scope, _SEVERAL)
    if query.keys() - _SEVERAL:
        raise Failure("VALIDATION_ERROR", "forward takes nothing but permissions.")
    asked = query.get("permissions", [])
    needed: set[str] = set()
    try:
        for text in asked if isinstance(asked, list) else []:
            needed |= parse_needs(text)
    except ValueError as error:
        raise Failure("INVALID_PERMISSIONS", f"permissions: {error}") from None
    unknown = needed - app.catalogue if app.catalogue else frozenset()
    if unknown:
        raise Failure("UNKNOWN_SCOPE", f"Not in this server's catalogue: {min(unknown)}.")
    return frozenset(needed)
