"""What the servers serve: an endpoint unguarded and guarded, our routes, constant answers."""

import json
import os
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keybearer import Auth, Session, api_key
from keybearer.integrations import fastapi, starlette
from keybearer.web.mount import no_app

BODY = {"message": "Hello from behind the guard", "items": [1, 2, 3]}


def _auth() -> Auth:
    return Auth(
        os.environ["BENCH_DATABASE"],
        plugins=[api_key(rate_limit="1000000000/1m")],
        accounts=False,
        secret=os.environ["BENCH_SECRET"],
        service_tokens=os.environ.get("BENCH_SERVICE_TOKENS", "").split(),
    )


async def hello(_request: Request) -> JSONResponse:
    return JSONResponse(BODY)


def starlette_plain() -> Any:
    return Starlette(routes=[Route("/hello", hello)])


def starlette_guarded() -> Any:
    auth = _auth()
    guarded = Route("/hello", hello, middleware=[Middleware(starlette.Guard, auth=auth)])
    return Starlette(routes=[guarded], lifespan=auth.lifespan)


def bare_guarded() -> Any:
    """The same endpoint without a framework, as the rival's has none, guarded by the middleware."""
    auth = _auth()

    async def endpoint(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise TypeError
        answer = msgspec.json.encode(BODY)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return auth.mount(starlette.Guard(endpoint, auth=auth))


def nodes() -> Any:
    """The guarded endpoint and our own routes; the settings of the environment count."""
    auth = _auth()
    guarded = Route("/hello", hello, middleware=[Middleware(starlette.Guard, auth=auth)])
    return auth.mount(Starlette(routes=[guarded]))


def accounts() -> Any:
    """Our own routes with log-ins, as many from each address as there are addresses told."""
    return Auth(
        os.environ["BENCH_DATABASE"],
        secret=os.environ["BENCH_SECRET"],
        service_tokens=os.environ["BENCH_SERVICE_TOKENS"].split(),
        trusted_proxies="127.0.0.1",
    ).mount(no_app)


def fastapi_plain() -> Any:
    app = FastAPI()

    @app.get("/hello")
    async def endpoint() -> dict[str, Any]:
        return BODY

    return app


def fastapi_guarded() -> Any:
    auth = _auth()
    app = FastAPI(lifespan=auth.lifespan)

    @app.get("/hello")
    async def endpoint(session: Annotated[Session, Depends(fastapi.Guard(auth))]) -> dict[str, Any]:
        return BODY

    return app


def routes() -> Any:
    """Our own routes, and nothing behind them."""
    return _auth().mount(no_app)


def constant() -> Any:
    """Answers with what our routes have answered once: the same headers and bytes each time."""
    answers = {
        path: (
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in headers],
            },
            {"type": "http.response.body", "body": body.encode()},
        )
        for path, (headers, body) in json.loads(os.environ["BENCH_ANSWERS"]).items()
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise TypeError
        start, body = answers[scope["path"]]
        if scope["method"] == "POST":
            await receive()
        await send(start)
        await send(body)

    return app
