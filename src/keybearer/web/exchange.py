"""One HTTP request and its answer, on bare ASGI."""

import json
import logging
import math
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from keybearer.domain.errors import Failure, Misuse, Unavailable
from keybearer.domain.model import RequestFacts
from keybearer.domain.networks import client_address
from keybearer.operations.app import App
from keybearer.operations.sentences import refusal_of, whole_numbers
from keybearer.settings import Settings
from keybearer.verification.presented import user_agent
from keybearer.web.problem import ProblemAnswer, RawHeaders, of_failure, of_loss, problem

if TYPE_CHECKING:
    from keybearer.auth import Auth

log = logging.getLogger("keybearer.web")

MAX_BODY = 65_536
MAX_QUERY = 8_192
MAX_FIELDS = 128
MAX_DEPTH = 20
_DIGITS = re.compile(r"-?[0-9]+")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a name, as bytes."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def takes_gzip(scope: Scope) -> bool:
    """Whether the client reads gzip (RFC 9110 section 12.5.3)."""
    accepted = header(scope, b"accept-encoding") or b""
    return any(coding.strip() == b"gzip" for coding in accepted.split(b","))


def new_request_id() -> str:
    """What a person quotes when asking for help: 64 random bits in hex."""
    return os.urandom(8).hex()


def facts(scope: Scope, settings: Settings, request_id: str) -> RequestFacts:
    """Where a request came from; forwarded addresses only from trusted proxies.

    Raises:
        Failure: VALIDATION_ERROR, for an Idempotency-Key that is none.
    """
    idempotency = header(scope, b"idempotency-key")
    return RequestFacts(
        id=request_id,
        ip=client_ip(scope, settings),
        user_agent=user_agent(scope["headers"]),
        idempotency_key=None if idempotency is None else _idempotency(idempotency),
    )


def client_ip(scope: Scope, settings: Settings) -> str | None:
    """The client's address, or None where it cannot be told."""
    client = scope.get("client")
    peer = client[0] if client else None
    if settings.trusted_proxies is None:
        return peer
    forwarded = [
        value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
    ]
    return client_address(peer, forwarded, settings.trusted_proxies)


def _idempotency(raw: bytes) -> str:
    if not 1 <= len(raw) <= 255 or not raw.decode("latin-1").isprintable():
        raise Failure("VALIDATION_ERROR", "Idempotency-Key takes 1 to 255 printable characters.")
    return raw.decode("latin-1")


async def started(auth: "Auth") -> App:
    """The parts that answer a request; the first one starts them where no lifespan did.

    Raises:
        Unavailable: a dependency is lost, or the start is refused, which no client can mend.
    """
    try:
        return await auth.running()
    except Misuse as error:
        log.error("start.refused", extra={"reason": str(error)})
        raise Unavailable(str(error)) from None


# --- reading --------------------------------------------------------------------------------


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        Failure: BODY_TOO_LARGE, as soon as that is known.
    """
    declared = header(scope, b"content-length")
    # By length first: Python refuses to read a number of thousands of digits.
    if declared is not None and declared.isdigit() and _exceeds(declared.lstrip(b"0"), MAX_BODY):
        raise Failure("BODY_TOO_LARGE")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise Failure("BODY_TOO_LARGE")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _exceeds(digits: bytes, limit: int) -> bool:
    return len(digits) > 9 or int(digits or b"0") > limit


class ClientGone(Exception):
    """The client hung up before its request was whole: nobody waits for an answer."""


def read_json(scope: Scope, body: bytes) -> object:
    """The value of a JSON body; an empty body is an empty object.

    Strict, as nobody must read another request than we do: UTF-8 alone, no member twice, no NaN,
    20 levels at most, no NUL and no half of a surrogate pair in any text.

    Raises:
        Failure: UNSUPPORTED_MEDIA_TYPE, INVALID_JSON.
    """
    if not body:
        return {}
    _check_media_type(scope, "application/json")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        _check_value(value, 0)
    except Failure:
        raise
    except (ValueError, RecursionError):
        raise Failure("INVALID_JSON") from None
    return value


def is_form(scope: Scope) -> bool:
    """Whether the body says that it is a form."""
    media = (header(scope, b"content-type") or b"").partition(b";")[0]
    return media.strip().lower() == b"application/x-www-form-urlencoded"


def read_form(scope: Scope, body: bytes) -> dict[str, str]:
    """The fields of a form body (RFC 7009 and RFC 7662 ask for forms).

    Raises:
        Failure: UNSUPPORTED_MEDIA_TYPE, INVALID_JSON.
    """
    _check_media_type(scope, "application/x-www-form-urlencoded")
    try:
        pairs = _pairs(body)
    except ValueError:
        pairs = []
    fields = dict(pairs)
    if len(fields) != len(pairs) or (body and not pairs):
        raise Failure("INVALID_JSON", "The body must be a form, each field once, in UTF-8.")
    return fields


def read_query(scope: Scope, several: frozenset[str]) -> dict[str, object]:
    """The fields of the query; only those in `several` may stand more than once.

    Raises:
        Failure: URI_TOO_LONG, VALIDATION_ERROR.
    """
    raw: bytes = scope.get("query_string", b"")
    if len(raw) > MAX_QUERY:
        raise Failure("URI_TOO_LONG")
    try:
        pairs = _pairs(raw)
    except ValueError:
        raise Failure("VALIDATION_ERROR", "The query is not valid UTF-8 in %-form.") from None
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in several:
            many = values.setdefault(name, [])
            if isinstance(many, list):
                many.append(value)
        elif name in values:
            raise Failure("VALIDATION_ERROR", f"{name[:64]} may stand in the query once only.")
        else:
            values[name] = value
    return values


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    """The fields of a query or form; ValueError for what is not UTF-8, for NUL, for too many."""
    pairs = parse_qsl(
        raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
    )
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise ValueError("NUL")
    return pairs


def _check_media_type(scope: Scope, wanted: str) -> None:
    media, _, parameters = (header(scope, b"content-type") or b"").decode("latin-1").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media.strip().lower() != wanted or charset not in ("", "utf-8", "utf8"):
        raise Failure("UNSUPPORTED_MEDIA_TYPE", f"Send the body as {wanted}.")


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        raise Failure("INVALID_JSON", "A member stands twice in an object of the body.")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large")  # 1e999 would come back as null
    return number


def _check_value(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(value, str):
        _check_str(value)
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_str(name)
            _check_value(member, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth + 1)


def _check_str(text: str) -> None:
    if "\0" in text:
        raise Failure("INVALID_JSON", "Text must not have NUL characters.")
    text.encode("utf-8")  # raises on half a surrogate pair


def convert(value: object, type_: type[Any], *, strict: bool) -> Any:
    """A value as a struct.

    Args:
        strict: False where it came as texts alone: then numbers are read, in digits alone.

    Raises:
        Failure: UNKNOWN_FIELD, VALIDATION_ERROR, with a sentence that says what is right.
    """
    try:
        if not strict and isinstance(value, dict):
            whole = whole_numbers(type_)  # type: ignore[arg-type] # mypy 2.4: types are hashable
            for name, text in value.items():
                if name in whole and not _DIGITS.fullmatch(text):  # msgspec reads 1e2 as 100
                    raise msgspec.ValidationError(f"Expected `int` - at `$.{name}`")
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        raise refusal_of(error, type_, texts=not strict) from None


# --- who may send what ----------------------------------------------------------------------


def check_site(scope: Scope, settings: Settings, *, with_cookie: bool) -> None:
    """Refuses a state-changing request that another site made a browser send.

    Fetch metadata decides where the browser sends it, the Origin else. With a cookie one of the
    two is needed; without, a program that sends neither may pass.

    Raises:
        Failure: INVALID_ORIGIN, MISSING_OR_NULL_ORIGIN.
    """
    origin = header(scope, b"origin")
    site = header(scope, b"sec-fetch-site")
    if origin is not None and trusted_origin(origin.decode("latin-1"), settings):
        return
    if site is not None:
        if site in (b"same-origin", b"none"):
            return
        raise Failure("INVALID_ORIGIN")
    if origin is not None and origin != b"null":
        raise Failure("INVALID_ORIGIN")
    if with_cookie or origin is not None:
        raise Failure("MISSING_OR_NULL_ORIGIN")


def trusted_origin(origin: str, settings: Settings) -> bool:
    """Whether an origin is ours or one of TRUSTED_ORIGINS, exactly.

    On loopback the names of the loopback are one: people type localhost.
    """
    if origin == settings.origin or origin in settings.trusted_origins:
        return True
    try:
        theirs, ours = urlsplit(origin), urlsplit(settings.origin)
        return (
            theirs.scheme == ours.scheme
            and theirs.hostname in _LOOPBACK
            and ours.hostname in _LOOPBACK
            and theirs.port == ours.port
            and origin == f"{theirs.scheme}://{theirs.netloc}"
        )
    except ValueError:
        return False


# --- answering ------------------------------------------------------------------------------

_COMMON: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
]
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


def common_headers(settings: Settings) -> RawHeaders:
    """The headers that every answer of ours has, unless it says otherwise."""
    return [*_COMMON, _HSTS] if settings.secure else _COMMON


async def send_answer(
    send: Send, status: int, body: bytes, headers: RawHeaders, settings: Settings
) -> None:
    """Sends one whole answer with the headers that every answer of ours has."""
    names = {name for name, _ in headers}
    all_headers = [*headers, *(pair for pair in common_headers(settings) if pair[0] not in names)]
    all_headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def answer_to(error: Exception, scope: Scope, request_id: str) -> ProblemAnswer:
    """The answer to a request that came to nothing: it never succeeds, and never ends the process.

    A lost dependency and a bug are told in the log.
    """
    if isinstance(error, Failure):
        return of_failure(error, scope=scope, request_id=request_id)
    if isinstance(error, Unavailable):
        log.error("dependency.lost", extra={"request_id": request_id, "reason": error.reason})
        return of_loss(error, scope=scope, request_id=request_id)
    log.error("request.failed", exc_info=error, extra={"request_id": request_id})
    return problem("INTERNAL_ERROR", scope=scope, request_id=request_id)


async def send_problem(send: Send, answer: ProblemAnswer, settings: Settings) -> None:
    """Sends a refusal or a loss."""
    await send_answer(send, answer.status, answer.body, answer.headers, settings)
