"""The same endpoint, unguarded and guarded, in Starlette and in FastAPI."""

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keybearer import Auth, Session, api_key
from keybearer.integrations import fastapi, starlette

BODY = {"message": "Hello from behind the guard", "items": [1, 2, 3]}


def _auth() -> Auth:
    return Auth(
        os.environ["BENCH_DATABASE"],
        plugins=[api_key(rate_limit="1000000000/1m")],
        accounts=False,
        secret=os.environ["BENCH_SECRET"],
    )


async def hello(_request: Request) -> JSONResponse:
    return JSONResponse(BODY)


def starlette_plain() -> Any:
    return Starlette(routes=[Route("/hello", hello)])


def starlette_guarded() -> Any:
    auth = _auth()
    guarded = Route("/hello", hello, middleware=[Middleware(starlette.Guard, auth=auth)])
    return Starlette(routes=[guarded], lifespan=auth.lifespan)


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
