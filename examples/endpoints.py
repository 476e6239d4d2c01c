"""The example endpoints that `make run` mounts beside keybearer.

GET  /api/protected-endpoint    any good credential
GET  /api/user/profile          who the caller is
POST /api/deploy                what a CI job calls; asks for deploy:run where that exists
"""

from typing import Annotated

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keybearer import Auth, Failure, Session, Unavailable
from keybearer.integrations.starlette import Guard, answer

MAX_BODY = 16_384


Word = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$")]


class Deployment(msgspec.Struct, forbid_unknown_fields=True):
    """What to deploy, and where."""

    ref: Word = "main"
    environment: Word = "production"


def create_app(auth: Auth) -> Starlette:
    """The endpoints, guarded by `auth`; mount the app with `auth.mount(app)`."""
    guard = [Middleware(Guard, auth=auth)]
    needed = "deploy:run" if "deploy:run" in auth.catalogue else None
    deploy_guard = [Middleware(Guard, auth=auth, permissions=needed)]

    async def profile(request: Request) -> Response:
        session: Session = request.state.session
        about = described(session)
        user = await auth.api.get_user(session.subject)
        if user is not None:
            about |= {"name": user.name, "email": user.email}
        return JSONResponse(about)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/protected-endpoint", protected, middleware=guard),
            Route("/api/user/profile", profile, middleware=guard),
            Route("/api/deploy", deploy, methods=["POST"], middleware=deploy_guard),
        ],
        exception_handlers={Failure: problem, Unavailable: problem},
    )


async def index(_request: Request) -> Response:
    """Where things are."""
    return JSONResponse(
        {
            "signUp": "POST /api/auth/sign-up/email",
            "mail": "GET /dev/outbox, as long as no mail server is set",
            "logIn": "POST /api/auth/login",
            "createKey": "POST /api/auth/api-key/create",
            "examples": [
                "GET /api/protected-endpoint",
                "GET /api/user/profile",
                "POST /api/deploy",
            ],
            "reference": "GET /api/auth/docs",
        }
    )


async def protected(request: Request) -> Response:
    """Answers whoever has a good credential."""
    session: Session = request.state.session
    return JSONResponse({"message": "You are in.", **described(session)})


async def deploy(request: Request) -> Response:
    """Says what it would deploy; a real one would start it here."""
    session: Session = request.state.session
    body = await bounded_body(request)
    try:
        asked = msgspec.json.decode(body or b"{}", type=Deployment)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Failure("VALIDATION_ERROR", f"{error}.") from None
    return JSONResponse(
        {"wouldDeploy": asked.ref, "environment": asked.environment, **described(session)}
    )


async def problem(request: Request, error: Exception) -> Response:
    """Our own refusals look like keybearer's."""
    told = error if isinstance(error, Failure | Unavailable) else Failure("INTERNAL_ERROR")
    return answer(told, request.scope)


async def bounded_body(request: Request) -> bytes:
    """The body, if it is small.

    Raises:
        Failure: BODY_TOO_LARGE.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Failure("BODY_TOO_LARGE", "The body may have 16 KB at most.")
    return body


def described(session: Session) -> dict[str, object]:
    """What an answer tells callers about themselves."""
    held = session.permissions
    return {
        "subject": session.subject,
        "credential": session.kind,
        "keyId": session.key_id,
        "permissions": None if held is None else sorted(held),
    }
