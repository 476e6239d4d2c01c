"""What OpenAPI says apart from the operations: problems, headers, security, other paths."""

from collections.abc import Iterable, Mapping
from typing import Any

from keybearer.domain.errors import PROBLEMS
from keybearer.operations.declaration import Access, Operation
from keybearer.settings import Settings

Json = dict[str, Any]

# --- which codes an operation can answer ----------------------------------------------------

_EVERY = (
    *("VALIDATION_ERROR", "UNKNOWN_FIELD", "INVALID_JSON", "INVALID_HOST", "MULTIPLE_CREDENTIALS"),
    *("BODY_TOO_LARGE", "URI_TOO_LONG", "UNSUPPORTED_MEDIA_TYPE", "INTERNAL_ERROR", "UNAVAILABLE"),
)
_CHANGING = ("INVALID_ORIGIN", "MISSING_OR_NULL_ORIGIN", "REVOCATION_PENDING")
_CREDENTIAL = ("INVALID_API_KEY", "INVALID_ACCESS_TOKEN")
_LOGIN = ("TOKEN_EXPIRED", "SESSION_ENDED")
_KEY = ("KEY_DISABLED", "KEY_EXPIRED", "KEY_REVOKED", "OWNER_DISABLED", "IP_NOT_ALLOWED")
_BY_ACCESS: Mapping[Access, tuple[str, ...]] = {
    Access.PUBLIC: (),
    Access.OPTIONAL: (*_CREDENTIAL, *_LOGIN, "SESSION_REQUIRED"),
    Access.SESSION: ("UNAUTHORIZED", *_CREDENTIAL, *_LOGIN, "SESSION_REQUIRED"),
    Access.MANAGER: ("UNAUTHORIZED", *_CREDENTIAL, *_LOGIN, "SESSION_REQUIRED"),
    Access.KEY: ("UNAUTHORIZED", *_CREDENTIAL, "KEY_REVOKED"),
    Access.OWNER: ("UNAUTHORIZED", *_CREDENTIAL, *_LOGIN, *_KEY),
    Access.SERVICE: (
        *("UNAUTHORIZED", *_CREDENTIAL, *_LOGIN, *_KEY),
        "SERVICE_TOKEN_REQUIRED",
    ),
}
_FORWARD = (
    *("VALIDATION_ERROR", "INVALID_PERMISSIONS", "UNKNOWN_SCOPE", "INVALID_HOST"),
    "MULTIPLE_CREDENTIALS",
    *("UNAUTHORIZED", *_CREDENTIAL, *_LOGIN, *_KEY, "INSUFFICIENT_SCOPE"),
    *("URI_TOO_LONG", "RATE_LIMITED", "USAGE_EXCEEDED", "INTERNAL_ERROR", "UNAVAILABLE"),
)


def codes_of(declared: Operation[Any, Any], method: str) -> tuple[str, ...]:
    """Every code that an operation can answer, its own first."""
    codes = dict.fromkeys((*declared.errors, *_BY_ACCESS[declared.access], *_EVERY))
    if method != "GET":
        codes |= dict.fromkeys(_CHANGING)
    return tuple(codes)


GENERAL: Mapping[str, tuple[str, ...]] = {
    "Every endpoint": (*_EVERY, "METHOD_NOT_ALLOWED"),
    "Endpoints that change something": _CHANGING,
    "Key management, while TOKEN_MANAGEMENT is off": ("NOT_FOUND",),
    **{
        f"For {access.value}": codes
        for access, codes in _BY_ACCESS.items()
        if access is not Access.PUBLIC
    },
}
"""The codes that operations have without declaring them, by what gives them."""


def problem_answers(codes: Iterable[str]) -> Json:
    """One answer for each status, with the codes that it can have."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        str(status): {
            "description": "\n".join(f"- `{code}`: {PROBLEMS[code].message}" for code in codes),
            "headers": {**COMMON_HEADERS, **_HEADERS_BY_STATUS.get(status, {})},
            "content": {
                "application/problem+json": {
                    "schema": {
                        "allOf": [{"$ref": "#/components/schemas/Problem"}],
                        "properties": {"code": {"enum": codes}, "status": {"const": status}},
                    }
                }
            },
        }
        for status, codes in sorted(by_status.items())
    }


SCHEMAS: Mapping[str, Json] = {
    "Problem": {
        "title": "Problem",
        "description": "A refusal or a loss (RFC 9457). Decide by `code`; show `message`.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": {"type": "string", "enum": list(PROBLEMS)},
            "message": {"type": "string"},
            "requestId": {"type": "string"},
            "neededPermissions": {"type": "array", "items": {"type": "string"}},
            "details": {"type": "object"},
        },
        "required": [
            "type",
            "title",
            "status",
            "detail",
            "instance",
            "code",
            "message",
            "requestId",
        ],
    },
    "Health": {
        "title": "Health",
        "type": "object",
        "properties": {"status": {"const": "ok"}},
        "required": ["status"],
    },
    "Readiness": {
        "title": "Readiness",
        "description": (
            "What is needed to answer. Without `lease` it is `failing`, with 503; whatever else is "
            "lost makes it `degraded`, with 200. `redis` is there where REDIS_URL is set."
        ),
        "type": "object",
        "properties": {
            "status": {"enum": ["ok", "degraded", "failing"]},
            "database": {"enum": ["ok", "failing"]},
            "lease": {"enum": ["ok", "stretched", "failing"]},
            "clock": {"enum": ["ok", "failing"]},
            "usage": {"enum": ["ok", "failing"]},
            "redis": {"enum": ["ok", "failing"]},
        },
        "required": ["status", "database", "lease", "clock", "usage"],
    },
}

# --- headers --------------------------------------------------------------------------------


def _described(text: str, type_: str = "string") -> Json:
    return {"description": text, "schema": {"type": type_}}


HEADERS: Mapping[str, Json] = {
    "X-Request-Id": _described("What to quote when asking for help; the log has it too."),
    "Cache-Control": _described("`no-store`, except where anyone may keep the answer."),
    "WWW-Authenticate": _described("RFC 6750 section 3; no `error` where nothing was presented."),
    "Retry-After": _described("Seconds until a retry makes sense.", "integer"),
    "RateLimit": _described("What is left of the key's limit (IETF RateLimit header fields)."),
    "RateLimit-Policy": _described("The key's limit (IETF RateLimit header fields)."),
    "set-auth-token": _described("The session token, for programs: good as Bearer."),
    "Set-Cookie": _described("The session cookie: HttpOnly, SameSite=Lax, Secure over https."),
    "Location": _described("Where it leads on to."),
    "X-Auth-Subject": _described("Who calls: the owner's id, percent-encoded where not ASCII."),
    "X-Auth-Key-Id": _described("The API key's id; blank for a login."),
    "X-Auth-Permissions": _described(
        "What the caller may do, as `files:read,files:write`; blank for nothing, and for a login "
        "that permissions do not limit."
    ),
}


def header(*names: str) -> Json:
    """Headers by name, as references."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


COMMON_HEADERS = header("X-Request-Id", "Cache-Control")
SESSION_HEADERS = header("Set-Cookie", "set-auth-token")
_HEADERS_BY_STATUS = {
    401: header("WWW-Authenticate"),
    403: header("WWW-Authenticate"),
    429: header("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: header("Retry-After"),
}
IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A retry of the same request with the same value makes no second key; "
    "its answer has `key: null`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

# --- who may --------------------------------------------------------------------------------

_COOKIE: Json = {"sessionCookie": []}
_BEARER: Json = {"bearer": []}
API_KEY: Json = {"apiKey": []}
_SERVICE: Json = {"serviceToken": []}
_NOBODY: Json = {}

SECURITY: Mapping[tuple[Access, bool], list[Json]] = {
    (Access.PUBLIC, False): [],
    (Access.PUBLIC, True): [_NOBODY, _COOKIE, _BEARER],
    (Access.OPTIONAL, False): [_NOBODY, _COOKIE, _BEARER],
    (Access.SESSION, False): [_COOKIE, _BEARER],
    (Access.MANAGER, False): [_COOKIE, _BEARER, _SERVICE],
    (Access.KEY, False): [API_KEY, _BEARER],
    (Access.OWNER, False): [_COOKIE, _BEARER, API_KEY, _SERVICE],
    (Access.SERVICE, False): [_SERVICE],
}


def security_schemes(settings: Settings, headers: Mapping[str, str] = {}) -> Json:
    """How credentials are presented.

    Args:
        headers: more headers for keys, by the name of the scheme.
    """
    prefix = "__Host-" if settings.secure else ""
    return {
        "sessionCookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": f"{prefix}keybearer.session_token",
            "description": "What a browser has after a login.",
        },
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An access token, a session token, or an API key.",
        },
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "An API key, or a service token. The same as Bearer in every respect.",
        },
        "serviceToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "A service token: what a trusted service of yours has (`kbs_…`).",
        },
        **{
            scheme: {"type": "apiKey", "in": "header", "name": name, "description": "An API key."}
            for scheme, name in headers.items()
        },
    }


# --- beside the operations ------------------------------------------------------------------


def _plain(media_type: str, schema: Json, description: str) -> Json:
    return {
        "description": description,
        "headers": header("Cache-Control"),
        "content": {media_type: {"schema": schema}},
    }


_HEALTH = {"$ref": "#/components/schemas/Health"}
_READINESS = {"$ref": "#/components/schemas/Readiness"}
_STRANGE = problem_answers(["INVALID_HOST"])
_LOST = problem_answers(["INVALID_HOST", "UNAVAILABLE"])
_FILE = problem_answers(["INVALID_HOST", "BODY_TOO_LARGE", "UNAVAILABLE"])

PATHS: Mapping[str, Json] = {
    "/forward": {
        "get": {
            "operationId": "forward",
            "x-who": "an API key, or a logged-in user (cookie, session token or access token)",
            "summary": "Checks a request for a reverse proxy (forward-auth).",
            "description": (
                "For nginx `auth_request`, Traefik ForwardAuth, Caddy `forward_auth`. Any method; "
                "a body is not read. A key's use counts against its limit and quota."
            ),
            "tags": ["Verification"],
            "security": [API_KEY, _BEARER, _COOKIE],
            "parameters": [
                {
                    "name": "permissions",
                    "in": "query",
                    "required": False,
                    "description": "What the caller needs, all of it; commas or repeated.",
                    "schema": {"type": "array", "items": {"type": "string"}},
                    "style": "form",
                    "explode": True,
                }
            ],
            "responses": {
                "200": {
                    "description": "Let it pass. Each of the headers stands once; hand them on.",
                    "headers": header(
                        "X-Auth-Subject", "X-Auth-Key-Id", "X-Auth-Permissions", "Cache-Control"
                    ),
                },
                **problem_answers(_FORWARD),
            },
        }
    },
    "/ok": {
        "get": {
            "operationId": "ok",
            "summary": "Tells that the process runs, as Better Auth does.",
            "description": "",
            "tags": ["Server"],
            "security": [],
            "responses": {
                "200": _plain(
                    "application/json",
                    {
                        "type": "object",
                        "properties": {"ok": {"const": True}},
                        "required": ["ok"],
                    },
                    "It runs.",
                ),
                **_STRANGE,
            },
        }
    },
    "/health/live": {
        "get": {
            "operationId": "live",
            "summary": "Tells that the process runs.",
            "description": "",
            "tags": ["Server"],
            "security": [],
            "responses": {"200": _plain("application/json", _HEALTH, "It runs.")},
        }
    },
    "/health/ready": {
        "get": {
            "operationId": "ready",
            "summary": "Tells whether requests can be answered.",
            "description": "",
            "tags": ["Server"],
            "security": [],
            "responses": {
                "200": _plain("application/json", _READINESS, "It can answer."),
                "503": _plain("application/json", _READINESS, "It cannot, for now."),
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "x-who": "whoever is on this machine, or a service token",
            "summary": "Counters for Prometheus.",
            "description": "On loopback (not through a proxy), or with a service token.",
            "tags": ["Server"],
            "security": [_NOBODY, _SERVICE],
            "responses": {
                "200": _plain("text/plain", {"type": "string"}, "The exposition."),
                **problem_answers(
                    ["INVALID_HOST", "MULTIPLE_CREDENTIALS", *_CREDENTIAL, *_LOGIN, *_KEY,
                     "LOOPBACK_ONLY", "NOT_FOUND", "INTERNAL_ERROR", "UNAVAILABLE"]
                ),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document.",
            "description": "",
            "tags": ["Server"],
            "security": [],
            "responses": {
                "200": _plain("application/json", {"type": "object"}, "OpenAPI 3.1."),
                **_FILE,
            },
        }
    },
    "/docs": {
        "get": {
            "operationId": "docs",
            "summary": "This document as a page for people.",
            "description": "",
            "tags": ["Server"],
            "security": [],
            "responses": {
                "200": _plain("text/html", {"type": "string"}, "The page."),
                **_FILE,
            },
        }
    },
}  # fmt: skip
