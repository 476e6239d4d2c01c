"""Three lines in a Starlette app. Run: uvicorn examples.starlette_app:app"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keybearer import Auth, api_key, bearer
from keybearer.integrations.starlette import Guard, requires

auth = Auth(database="sqlite:///app.db", plugins=[api_key(), bearer()], token_management=True)  # 1


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse({"subject": request.state.session.subject})


@requires(auth)  # 2: a decorator, or the middleware below
async def report(request: Request) -> JSONResponse:
    return JSONResponse({"report": "all is well", "for": request.state.session.subject})


async def hello(_request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world"})


app = auth.mount(  # 3
    Starlette(
        routes=[
            Route("/", hello),
            Route("/report", report),
            Route("/whoami", whoami, middleware=[Middleware(Guard, auth=auth)]),
        ]
    )
)
