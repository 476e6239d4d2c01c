"""Which names a server answers to: DNS rebinding ends here.

A page of somebody else's can make a browser call a name of theirs that points to our address;
such a request has their name in `Host`. Nothing here is ever built from `Host` (links come from
BASE_URL), and who does not know our name gets 400.
"""

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from keybearer.settings import Settings
from keybearer.web.exchange import new_request_id, send_problem
from keybearer.web.problem import BASE, MOUNTED_AT, problem

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_REMEMBERED = 256


class KnownHosts:
    """An ASGI app in front of another one that turns away requests for unknown names.

    Known are BASE_URL's name, those of TRUSTED_ORIGINS, and loopback; ports do not matter. Health
    is answered under any name, for probes that come by address.
    """

    def __init__(self, app: ASGIApp, settings: Settings, *, base: str = BASE) -> None:
        self._app = app
        self._settings = settings
        self._base = base
        self._health = f"{base}/health/"
        self._names = LOOPBACK | {
            urlsplit(origin).hostname or ""
            for origin in (settings.base_url, *settings.trusted_origins)
        }
        self._passed: set[bytes] = set()  # values of Host that were good, as they came

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        scope[MOUNTED_AT] = self._base
        answer = problem("INVALID_HOST", scope=scope, request_id=new_request_id())
        await send_problem(send, answer, self._settings)

    def _may_pass(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1 and hosts[0] in self._passed:
            return True
        # RFC 9112 section 3.2: exactly one.
        if len(hosts) == 1 and host_name(hosts[0]) in self._names:
            if len(self._passed) < _REMEMBERED:
                self._passed.add(hosts[0])
            return True
        path: str = scope["path"]
        return path.startswith(self._health)


def host_name(raw: bytes) -> str | None:
    """The name in a Host header, lower case and without port; None where it is none."""
    try:
        text = raw.decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket:
            return None
    else:
        name, colon, port = text.partition(":")
        rest = colon + port
    if rest and not (rest.startswith(":") and (rest[1:].isdigit() or rest == ":")):
        return None
    return name.removesuffix(".")
