"""Operations become ASGI routes: who may, what came in, what goes out.

management off?  ->  404          it has no routes, so that nothing shows it exists
another site?    ->  403          cookies, log-ins; not where a header has the credential
who calls?       ->  400 401 403 429
what is asked?   ->  400 413 415  after who, so that strangers learn no field names
the operation    ->  its answer, or its Failure
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from keybearer.domain.errors import Failure
from keybearer.domain.model import Anonymous, Refusal, RequestFacts, Session, Verdict
from keybearer.operations.admission import admit, explicit, looks
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Call, Operation, Reply
from keybearer.web.exchange import (
    ClientGone,
    answer_to,
    check_site,
    convert,
    facts,
    header,
    is_form,
    new_request_id,
    read_body,
    read_form,
    read_json,
    read_query,
    send_answer,
    send_problem,
)
from keybearer.web.problem import RawHeaders, problem

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_encode = msgspec.json.Encoder().encode


def routes(operations: Iterable[Operation[Any, Any]], app: App, base: str) -> list[BaseRoute]:
    """One route for each operation and each of its other names."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for declared in operations:
        if declared.management and not app.settings.token_management:
            continue  # not even 405 for another method
        endpoint = Endpoint(declared, app)
        for method, path in ((declared.method, declared.path), *declared.aliases):
            by_path.setdefault(path, {})[method] = endpoint
            # Not for links in mails: a scanner that only looks must not use one up.
            if method == "GET" and not declared.redirects:
                by_path[path]["HEAD"] = endpoint
    return [
        Route(base + path, Methods(endpoints, app), methods=None, include_in_schema=False)
        for path, endpoints in by_path.items()
    ]


class Methods:
    """The endpoints of one path by method; others are 405 with Allow."""

    def __init__(self, endpoints: "dict[str, Endpoint]", app: App) -> None:
        self._endpoints = endpoints
        self._app = app
        self._allow = ", ".join(sorted(endpoints)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        settings = self._app.settings
        answer = problem(
            "METHOD_NOT_ALLOWED",
            scope=scope,
            request_id=new_request_id(),
            headers=[(b"allow", self._allow)],
        )
        await send_problem(send, answer, settings)


class Endpoint:
    """One operation over HTTP."""

    def __init__(self, declared: Operation[Any, Any], app: App) -> None:
        self.operation = declared
        self._app = app
        fields = msgspec.structs.fields(declared.input)
        self._several = frozenset(
            field.encode_name for field in fields if isinstance(field.default, tuple)
        )
        self._in_query = declared.method in ("GET", "DELETE")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._app.settings
        request_id = new_request_id()
        try:
            told = facts(scope, settings, request_id)
            status, body, headers = await self._answer(scope, receive, told)
            await send_answer(send, status, body, headers, settings)
            return
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 -- the last resort
            answer = answer_to(error, scope, request_id)
        await send_problem(send, answer, settings)

    async def _answer(
        self, scope: Scope, receive: Receive, told: RequestFacts
    ) -> tuple[int, bytes, RawHeaders]:
        declared, app = self.operation, self._app
        caller, verdict = await self._caller(scope, told)
        asked = await self._asked(scope, receive)
        call = Call(app=app, caller=caller, facts=told, now=app.clock.now(), verdict=verdict)
        output = await declared(call, asked)
        return _answer_of(declared, output, call.reply, app, told)

    async def _caller(
        self, scope: Scope, told: RequestFacts
    ) -> tuple[Session | Anonymous, Verdict]:
        """Who calls.

        Raises:
            Failure: the caller is nobody, refused, or not one who may.
        """
        declared, app, headers = self.operation, self._app, scope["headers"]
        if scope["method"] in _SAFE:
            return await admit(app, declared, headers, told.ip)
        if not explicit(headers, app.verifier.places, look=looks(declared)):
            cookie = header(scope, b"cookie") is not None
            check_site(scope, app.settings, with_cookie=cookie)
            return await admit(app, declared, headers, told.ip)
        caller, verdict = await admit(app, declared, headers, told.ip)
        if declared.access is Access.PUBLIC and not _by_credential(declared, verdict):
            check_site(scope, app.settings, with_cookie=False)
        return caller, verdict

    async def _asked(self, scope: Scope, receive: Receive) -> Any:
        """The input: body or query, and what the path names."""
        declared = self.operation
        body = await read_body(scope, receive)
        value: Any
        if declared.form or (declared.forms and is_form(scope)):
            value = read_form(scope, body)
            query = read_query(scope, self._several)
            if query:
                raise Failure("VALIDATION_ERROR", "Send the fields in the body, not the query.")
            return convert(value, declared.input, strict=False)
        if self._in_query and not body:
            value = read_query(scope, self._several)
            value.update(scope.get("path_params", {}))
            return convert(value, declared.input, strict=False)
        value = read_json(scope, body)
        if read_query(scope, frozenset()):
            raise Failure("UNKNOWN_FIELD", "Send the fields in the body, not the query.")
        return convert(value, declared.input, strict=True)


def _by_credential(declared: Operation[Any, Any], verdict: Verdict) -> bool:
    """Whether a public operation goes by the credential that was presented on purpose.

    That is a log-out with one of ours, good or over: no page of another site has one. Where the
    operation looks at none, or begins a session, a page could make up any header.
    """
    ours = isinstance(verdict, Session) or (isinstance(verdict, Refusal) and verdict.id is not None)
    return declared.session == "ends" and ours


def _answer_of(
    declared: Operation[Any, Any], output: object, reply: Reply, app: App, told: RequestFacts
) -> tuple[int, bytes, RawHeaders]:
    cache = (
        b"no-store"
        if declared.cache_seconds is None
        else f"public, max-age={declared.cache_seconds}".encode()
    )
    headers: RawHeaders = [
        (b"content-type", declared.media_type.encode()),
        (b"cache-control", cache),
        (b"x-request-id", told.id.encode()),
        *session_headers(reply, app),
    ]
    if reply.jwt is not None:
        headers.append((b"set-auth-jwt", reply.jwt.encode()))
        headers.append((b"access-control-expose-headers", b"set-auth-jwt"))
    if reply.onward is not None:
        headers.append((b"location", reply.onward.encode("ascii", "replace")))
    if reply.location is not None:
        headers.append((b"location", reply.location.encode("ascii", "replace")))
        return 302, b"", headers
    return 200, output.encode() if isinstance(output, str) else _encode(output), headers


def session_headers(reply: Reply, app: App) -> RawHeaders:
    """Set-Cookie and `set-auth-token` for a session that begins or ends."""
    if reply.session is None:
        return []
    name = app.cookie
    attributes = "Path=/; HttpOnly; " + ("Secure; " if app.settings.secure else "") + "SameSite=Lax"
    if isinstance(reply.session, str):
        return [
            (b"set-cookie", f"{name}=; Max-Age=0; {attributes}".encode()),
            (b"clear-site-data", b'"cache", "storage"'),
        ]
    signed = app.ring.sign(reply.session.reveal())
    wire = signed.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    age = f"Max-Age={app.settings.session_ttl // 1000}; " if reply.persistent else ""
    return [
        (b"set-cookie", f"{name}={wire}; {age}{attributes}".encode()),
        (b"set-auth-token", signed.encode()),
        (b"access-control-expose-headers", b"set-auth-token"),
    ]
