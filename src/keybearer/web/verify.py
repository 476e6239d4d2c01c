"""`verify` on bare ASGI: it stands before every request of somebody's app.

    a service token in memory, one plain body ──▶ the operation ──▶ its answer
    anything else                             ──▶ the route that every operation has (api.py)

Plain is what every reader reads alike: nothing here decides what is refused, or how.
"""

from typing import TYPE_CHECKING

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keybearer.domain.errors import Failure
from keybearer.operations.verdicts import Verdicts
from keybearer.operations.verify import VerifyKey
from keybearer.web.exchange import MAX_BODY, answer_to, common_headers, new_request_id, send_problem
from keybearer.web.problem import RawHeaders

if TYPE_CHECKING:
    from keybearer.auth import Auth

# Beside the header that has the service token.
_CREDENTIALS = (b"x-api-key", b"cookie")
_decode = msgspec.json.Decoder(VerifyKey).decode


class Verify:
    """The endpoint for what is plain; `others` answers all else."""

    def __init__(self, auth: "Auth", others: ASGIApp) -> None:
        self._auth = auth
        self._others = others
        self._verdicts = Verdicts()
        settings = auth.settings
        self._headers: RawHeaders = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            *common_headers(settings),
        ]
        # What the other route has something to say about, if only in the log.
        self._unusual = {b"origin", b"idempotency-key", b"transfer-encoding", *_CREDENTIALS}
        if settings.trusted_proxies is None:
            self._unusual.add(b"x-forwarded-for")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, headers = self._auth.parts, self._plain(scope)
        if app is None or headers is None or not app.verifier.warm_service(_bearer(headers)):
            await self._others(scope, receive, send)
            return
        message = await receive()
        asked = read(message, headers[b"content-length"])
        if asked is None:
            await self._others(scope, _again(message, receive), send)
            return
        request_id = new_request_id()
        try:
            answer = await self._verdicts.verify(app, asked)
        except Failure:
            # Raised before anything is counted: for what cannot be asked.
            await self._others(scope, _again(message, receive), send)
            return
        except Exception as error:  # noqa: BLE001 -- the last resort
            problem = answer_to(error, scope, request_id)
            await send_problem(send, problem, self._auth.settings)
            return
        told = [
            *self._headers,
            (b"x-request-id", request_id.encode()),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": answer})

    def _plain(self, scope: Scope) -> dict[bytes, bytes] | None:
        """The headers of a request that has nothing unusual, and each of them once."""
        if scope["method"] != "POST" or scope.get("query_string"):
            return None
        headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or not self._unusual.isdisjoint(headers):
            return None
        if headers.get(b"content-type") != b"application/json":
            return None
        return headers if b"content-length" in headers else None


def _bearer(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, credential = headers.get(b"authorization", b"").partition(b" ")
    return credential if scheme == b"Bearer" else b""


def read(message: Message, length: bytes) -> VerifyKey | None:
    """What a body asks, whole in its first message and plain; None for every other.

    msgspec takes the last of two members of one name, where `read_json` refuses them. Without a
    backslash each string lies between two quotes: if there are as many as the value has strings,
    no member stands twice.

    Args:
        length: what Content-Length says. A server may not know yet that nothing more comes.
    """
    body: bytes = message.get("body", b"")
    size = len(body)
    if size > MAX_BODY or length != b"%d" % size or not body.isascii() or b"\\" in body:
        return None
    try:
        asked = _decode(body)
    except msgspec.MsgspecError:
        return None
    strings = 2
    if asked.ip is not None:
        strings += 2
    if asked.config_id is not None:
        strings += 2
    if asked.cost != 1:
        strings += 1
    if asked.permissions is not None:
        strings += 1 + sum(1 + len(actions) for actions in asked.permissions.values())
    return asked if body.count(b'"') == 2 * strings else None


def _again(message: Message, receive: Receive) -> Receive:
    """What gives a message that was received, and then the next ones."""
    waiting = [message]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving
