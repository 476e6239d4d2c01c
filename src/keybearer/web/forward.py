"""Forward-auth: a reverse proxy asks whether a request may pass.

    client ──GET /files──▶ proxy ──GET /api/auth/forward?permissions=files:read──▶ here
                             │◀── 200, X-Auth-Subject, X-Auth-Key-Id, X-Auth-Permissions ──┘
                             ▼                      or 401 403 429 (the client's), 400 503
                            app

What is needed stands in the query, which the proxy's configuration writes; nothing of the client's
own request line is looked at, so that no path or query of a client can change what is asked. A
need that this server does not know is 400: a typing error in the guard must not go unseen.
"""

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from keybearer.domain.errors import Failure
from keybearer.domain.model import Anonymous, Refusal, Verdict
from keybearer.domain.permissions import parse_needs
from keybearer.operations.admission import identified
from keybearer.operations.app import App
from keybearer.web.exchange import (
    answer_to,
    client_ip,
    new_request_id,
    read_query,
    send_problem,
    started,
)
from keybearer.web.problem import RawHeaders

if TYPE_CHECKING:
    from keybearer.auth import Auth

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
            needed = self._needs.get(scope.get("query_string", b""))
            if needed is None:
                needed = self._remembered(app, scope)
            headers, ip = scope["headers"], client_ip(scope, app.settings)
            verdict = app.verifier.warm(headers, ip, needed)
            if verdict is None:
                verdict = await app.verifier.verify(headers, ip, needed)
            if isinstance(verdict, Anonymous):
                verdict = await identified(app, headers, needed)
            told = headers_of(verdict)
        except Exception as error:  # noqa: BLE001 -- the last resort: never a 200
            answer = answer_to(error, scope, new_request_id())
            await send_problem(send, answer, self._auth.settings)
            return
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": b""})

    def _remembered(self, app: App, scope: Scope) -> frozenset[str]:
        needed = _read_needs(app, scope)
        if len(self._needs) < _REMEMBERED:
            self._needs[scope.get("query_string", b"")] = needed
        return needed


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
    return [*_identity(verdict.subject, verdict.key_id, verdict.permissions), *_REST]


@lru_cache(maxsize=4_096)
def _identity(
    subject: str, key_id: str | None, permissions: frozenset[str] | None
) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-auth-subject", quote(subject, safe=_VISIBLE).encode()),
        (b"x-auth-key-id", (key_id or "").encode()),
        (b"x-auth-permissions", ",".join(sorted(permissions or ())).encode()),
    )


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
