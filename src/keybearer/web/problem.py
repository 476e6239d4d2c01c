"""Refusals and losses as problem+json, with the headers that belong to them.

RFC 9457 (the body), RFC 6750 section 3 (WWW-Authenticate), RFC 9110 (Retry-After), and the
RateLimit header fields of draft-ietf-httpapi-ratelimit-headers.
"""

import re
from collections.abc import Mapping

import msgspec
from starlette.types import Scope

from keybearer.domain.errors import PROBLEMS, Failure, Unavailable
from keybearer.domain.limits import rate_limit_headers

RawHeaders = list[tuple[bytes, bytes]]

REALM = "keybearer"
_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_OVERLOADED = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
_ANONYMOUS = "UNAUTHORIZED"
_POLICIES = {"USAGE_EXCEEDED": "quota", "TOO_MANY_ATTEMPTS": "attempts"}
_DAY_SECONDS = 86_400


BASE = "/api/auth"
"""Where our paths lie, unless the app says otherwise."""

MOUNTED_AT = "keybearer.base"
"""In the scope of a request: below which path it finds us."""

_SECRET_IN_PATH = re.compile(r"(/reset-password/|/calendar/(?!(?:create|revoke)$)).*", re.DOTALL)


class ProblemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A ready answer: status, body bytes, and its own headers."""

    status: int
    body: bytes
    headers: RawHeaders


def problem(
    code: str,
    *,
    message: str | None = None,
    extra: Mapping[str, object] | None = None,
    scope: Scope,
    request_id: str,
    headers: RawHeaders | None = None,
    type_: str | None = None,
) -> ProblemAnswer:
    """The answer for one code.

    Args:
        message: one public sentence instead of the table's.
        extra: more members.
        scope: of the request.
        request_id: what a person quotes when asking for help; it is in the log too.
    """
    row = PROBLEMS[code]
    text = message or row.message
    body = {
        "type": type_ or f"{scope.get(MOUNTED_AT, BASE)}/docs#problem-{code}",
        "title": row.title,
        "status": row.status,
        "detail": text,
        "instance": shown_path(scope),
        **(extra or {}),
        "code": code,
        "message": text,
        "requestId": request_id,
    }
    return ProblemAnswer(
        status=row.status,
        body=msgspec.json.encode(body),
        headers=[
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode("latin-1", "replace")),
            *(headers or []),
        ],
    )


def shown_path(scope: Scope) -> str:
    """The path that was asked for, for people and logs: no secret is in it, and no query."""
    path: str = scope.get("path", "")
    return _SECRET_IN_PATH.sub(r"\1***", path)[:200]


def of_failure(failure: Failure, *, scope: Scope, request_id: str) -> ProblemAnswer:
    """The answer for a refusal that an operation raised."""
    headers: RawHeaders = []
    type_ = None
    extra = dict(failure.extra)
    if failure.status == 401:
        headers.append(_challenge(failure.code, failure.message))
    elif failure.code == "INSUFFICIENT_SCOPE":
        needed = extra.get("neededPermissions")
        lacking = " ".join(map(str, needed)) if isinstance(needed, list) else ""
        headers.append(_challenge(failure.code, failure.message, scope=lacking))
    elif failure.code == "MULTIPLE_CREDENTIALS":
        headers.append(_challenge(failure.code, failure.message))
    elif failure.status == 429:
        type_ = _EXCEEDED
        headers += _limit_headers(failure, extra)
    return problem(
        failure.code,
        message=failure.message,
        extra=extra,
        scope=scope,
        request_id=request_id,
        headers=headers,
        type_=type_,
    )


def of_loss(loss: Unavailable, *, scope: Scope, request_id: str) -> ProblemAnswer:
    """The answer for a lost dependency: 503, never a verdict."""
    return problem(
        loss.code,
        message=loss.message,
        scope=scope,
        request_id=request_id,
        headers=[(b"retry-after", str(loss.retry_after_seconds).encode())],
        type_=_OVERLOADED,
    )


def _challenge(code: str, message: str, *, scope: str | None = None) -> tuple[bytes, bytes]:
    """WWW-Authenticate: without `error` when nothing was presented (RFC 6750 section 3.1)."""
    value = f'Bearer realm="{REALM}"'
    if code != _ANONYMOUS:
        error = {
            "INSUFFICIENT_SCOPE": "insufficient_scope",
            "MULTIPLE_CREDENTIALS": "invalid_request",
        }.get(code, "invalid_token")
        value += f', error="{error}", error_description="{PROBLEMS[code].message}"'
    if scope:
        value += f', scope="{scope}"'
    return (b"www-authenticate", value.encode("ascii", "replace"))


def _limit_headers(failure: Failure, extra: dict[str, object]) -> RawHeaders:
    """Which policy was violated, and when to come again.

    Attempts have no fixed window: after the wait there is one. A quota that nobody refills says
    nothing of a time; who asks by `Retry-After` all the same asks once a day.
    """
    policy = _POLICIES.get(failure.code, "default")
    extra["violated-policies"] = [policy]
    wait, limit = failure.retry_after_ms, extra.pop("limit", None)
    if isinstance(limit, dict):
        maximum, window = limit["max"], limit["window"]
    else:
        maximum, window = int(wait is not None), wait
    state, rule = rate_limit_headers(policy, maximum, window, 0, wait)
    return [
        (b"retry-after", str(_DAY_SECONDS if wait is None else -(-wait // 1000)).encode()),
        (b"ratelimit", state.encode()),
        (b"ratelimit-policy", rule.encode()),
    ]
