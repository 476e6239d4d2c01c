"""A body that never ends holds nothing, and one that is no body is told so."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 10


class SlowBodies:
    """An ASGI app in front of another one that gives up on a body which does not come.

    The server below has a time limit for headers and none for bodies. When the time is over the
    app is told that the client is gone, and the client gets 408 (RFC 9110 section 15.5.9).

    A body that breaks off, its chunks no chunks or its end too early, looks to the app as a client
    that is gone too. Who is still there gets 400: from the server below it would be 500.
    """

    def __init__(self, app: ASGIApp, *, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        whole = late = broken = started = False

        async def receiving() -> Message:
            nonlocal whole, late, broken
            if whole:  # what comes next is the end of the client, and may take its time
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                late = True
                return {"type": "http.disconnect"}
            broken = message["type"] == "http.disconnect"
            whole = not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self._app(scope, receiving, sending)
        if (late or broken) and not started:
            status = 408 if late else 400
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
