"""A guarded endpoint, asked with raw headers as no client library would send them."""

from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keybearer import Auth
from keybearer.integrations.starlette import Guard

RawHeaders = list[tuple[bytes, bytes]]


class Answer(msgspec.Struct, frozen=True):
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        code: str = msgspec.json.decode(self.body)["code"]
        return code


def guarded_app(auth: Auth, permissions: str | None = None) -> Any:
    """`/guarded` behind a guard, all else keybearer's own."""

    async def endpoint(request: Request) -> JSONResponse:
        session = request.state.session
        return JSONResponse({"subject": session.subject, "kind": session.kind})

    guard = Middleware(Guard, auth=auth, permissions=permissions)
    return auth.mount(
        Starlette(routes=[Route("/guarded", endpoint, methods=["GET", "POST"], middleware=[guard])])
    )


async def ask(
    app: Any,
    headers: RawHeaders,
    *,
    path: str = "/guarded",
    method: str = "GET",
    query: bytes = b"",
    body: bytes = b"",
    client: tuple[str, int] | None = ("203.0.113.7", 50_000),
) -> Answer:
    """The answer to one request, sent over bare ASGI."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), *headers],
        "client": client,
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    start = sent[0]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


def bearer(credential: str | bytes) -> RawHeaders:
    """`Authorization: Bearer` with exactly these bytes."""
    raw = credential.encode() if isinstance(credential, str) else credential
    return [(b"authorization", b"Bearer " + raw)]


def api_key(credential: str | bytes) -> RawHeaders:
    """`X-API-Key` with exactly these bytes."""
    return [(b"x-api-key", credential.encode() if isinstance(credential, str) else credential)]
