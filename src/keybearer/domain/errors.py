"""Everything that can go wrong, and how it is told.

    KeybearerError
    ├── Failure        a refusal the caller can understand and act on: `code` -> 4xx
    ├── Unavailable    a dependency is lost or overloaded: 503 with Retry-After, never a verdict
    │   └── PlaceLost  another process may serve in our place: nothing declared covers that
    └── Misuse         the app or the operator did something wrong: told at the start, in one line

The table below is the only place where a code meets its HTTP status and its public words.
Codes that Better Auth has keep its spelling. Log texts are apart from public ones.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Problem(msgspec.Struct, frozen=True, gc=False):
    """One row of the table: HTTP `status`, short `title`, and one public sentence."""

    status: int
    title: str
    message: str


_BAD = "The request is not valid"
_WHO = "Authentication failed"
_MAY = "Not allowed"
_GONE = "Not found"
_MANY = "Too many requests"

PROBLEMS: Mapping[str, Problem] = MappingProxyType(
    {
        # 400: the request itself
        "VALIDATION_ERROR": Problem(400, _BAD, "The request is not valid."),
        "UNKNOWN_FIELD": Problem(400, _BAD, "The request has a field that this endpoint lacks."),
        "SERVER_ONLY_PROPERTY": Problem(400, _BAD, "This property can only be set by the server."),
        "INVALID_JSON": Problem(400, _BAD, "The body must be one JSON object in UTF-8."),
        "MULTIPLE_CREDENTIALS": Problem(
            400, _BAD, "Send one credential: either Authorization or X-API-Key, and only once."
        ),
        "INVALID_HOST": Problem(400, _BAD, "The Host header is not one this server answers to."),
        "INVALID_EMAIL": Problem(400, _BAD, "The e-mail address is not valid."),
        "PASSWORD_TOO_SHORT": Problem(400, _BAD, "The password is too short."),
        "PASSWORD_TOO_LONG": Problem(400, _BAD, "The password is too long."),
        "PASSWORD_TOO_COMMON": Problem(400, _BAD, "The password is too easy to guess."),
        "INVALID_PASSWORD": Problem(400, _BAD, "Invalid password"),
        "INVALID_TOKEN": Problem(
            400, _BAD, "The link is invalid, used or expired. Ask for a new one."
        ),
        "EXPIRES_IN_IS_TOO_SMALL": Problem(400, _BAD, "The key must live for at least one second."),
        "EXPIRES_IN_IS_TOO_LARGE": Problem(400, _BAD, "The key would live longer than is allowed."),
        "KEY_EXPIRY_REQUIRED": Problem(400, _BAD, "Keys without expiry are not allowed here."),
        "KEY_DISABLED_EXPIRATION": Problem(
            400, _BAD, "Nobody but the server says here when a key expires."
        ),
        "METADATA_DISABLED": Problem(400, _BAD, "Metadata is disabled."),
        "NAME_REQUIRED": Problem(400, _BAD, "A key needs a name here."),
        "NO_DEFAULT_API_KEY_CONFIGURATION_FOUND": Problem(
            400, _BAD, "No configuration of keys is the default: name one by configId."
        ),
        "UNKNOWN_CONFIGURATION": Problem(400, _BAD, "configId names no configuration of keys."),
        "ORGANIZATION_ID_REQUIRED": Problem(
            400, _BAD, "These keys belong to organizations: name one by organizationId."
        ),
        "INVALID_PREFIX": Problem(400, _BAD, "The prefix is not one of this server's."),
        "INVALID_NAME_LENGTH": Problem(400, _BAD, "The name must have 1 to 64 characters."),
        "INVALID_METADATA_TYPE": Problem(
            400, _BAD, "metadata must be a JSON object of at most 4 KB and five levels."
        ),
        "INVALID_PERMISSIONS": Problem(400, _BAD, "permissions must map resources to actions."),
        "UNKNOWN_SCOPE": Problem(400, _BAD, "A permission is not in this server's catalogue."),
        "INVALID_IP_RANGE": Problem(400, _BAD, "ipAllow takes IPv4 and IPv6 addresses and CIDRs."),
        "INVALID_GRACE_PERIOD": Problem(400, _BAD, "gracePeriod is 0 to 30 days, in seconds."),
        "INVALID_RATE_LIMIT": Problem(400, _BAD, "The rate limit is not valid."),
        "REFILL_AMOUNT_AND_INTERVAL_REQUIRED": Problem(
            400, _BAD, "refillAmount needs a refillInterval beside it."
        ),
        "REFILL_INTERVAL_AND_AMOUNT_REQUIRED": Problem(
            400, _BAD, "refillInterval needs a refillAmount beside it."
        ),
        "NO_VALUES_TO_UPDATE": Problem(400, _BAD, "No values to update."),
        "KEY_NOT_ROTATABLE": Problem(400, _BAD, "An expired or revoked key cannot be rotated."),
        "KEY_NOT_UPDATABLE": Problem(400, _BAD, "An expired or revoked key never comes back."),
        # 401: who is calling
        "UNAUTHORIZED": Problem(401, _WHO, "Unauthorized"),
        "INVALID_API_KEY": Problem(401, _WHO, "Invalid API key"),
        "KEY_DISABLED": Problem(401, _WHO, "API key is disabled"),
        "KEY_EXPIRED": Problem(401, _WHO, "API key has expired"),
        "KEY_REVOKED": Problem(401, _WHO, "Invalid API key: it was revoked"),
        "OWNER_DISABLED": Problem(401, _WHO, "Invalid API key: its owner is not active"),
        "INVALID_ACCESS_TOKEN": Problem(401, _WHO, "Invalid token"),
        "TOKEN_EXPIRED": Problem(401, _WHO, "Token expired"),
        "SESSION_ENDED": Problem(401, _WHO, "Invalid token: the session has ended"),
        "INVALID_EMAIL_OR_PASSWORD": Problem(401, _WHO, "Invalid email or password"),
        "INVALID_REFRESH_TOKEN": Problem(401, _WHO, "Invalid refresh token"),
        # 403: known, but not allowed
        "EMAIL_NOT_VERIFIED": Problem(403, _MAY, "Email not verified"),
        "USER_DISABLED": Problem(403, _MAY, "This account is disabled."),
        "SESSION_NOT_FRESH": Problem(
            403, _MAY, "Confirm your password first: it was given too long ago."
        ),
        "SESSION_REQUIRED": Problem(403, _MAY, "An API key cannot do this: log in instead."),
        "SERVICE_TOKEN_REQUIRED": Problem(403, _MAY, "Only a service token may call this."),
        "ADMIN_REQUIRED": Problem(403, _MAY, "Only administrators may do this."),
        "KEY_CREATION_NOT_ALLOWED": Problem(403, _MAY, "You may not create API keys here."),
        "KEY_LIMIT_REACHED": Problem(403, _MAY, "You have as many keys as you may: revoke one."),
        "USER_NOT_MEMBER_OF_ORGANIZATION": Problem(
            403, _MAY, "You are not a member of this organization."
        ),
        "INSUFFICIENT_API_KEY_PERMISSIONS": Problem(
            403, _MAY, "Your role in the organization does not allow this with its keys."
        ),
        "SCOPE_NOT_HELD": Problem(403, _MAY, "A key cannot have permissions its owner lacks."),
        "INSUFFICIENT_SCOPE": Problem(403, _MAY, "The credential lacks a permission for this."),
        "IP_NOT_ALLOWED": Problem(403, _MAY, "The key may not be used from this address."),
        "INVALID_ORIGIN": Problem(403, _MAY, "Invalid origin"),
        "INVALID_CALLBACK_URL": Problem(403, _MAY, "Invalid callbackURL"),
        "INVALID_REDIRECT_URL": Problem(403, _MAY, "Invalid redirectURL"),
        "MISSING_OR_NULL_ORIGIN": Problem(403, _MAY, "Missing or null Origin"),
        "LOOPBACK_ONLY": Problem(403, _MAY, "This is answered on loopback or to a service token."),
        # 404, 405, 409, 413, 415, 422, 429: the rest of the caller's side
        "NOT_FOUND": Problem(404, _GONE, "There is nothing at this address."),
        "KEY_NOT_FOUND": Problem(404, _GONE, "API Key not found"),
        "USER_NOT_FOUND": Problem(404, _GONE, "User not found"),
        "EVENT_NOT_FOUND": Problem(404, _GONE, "Event not found"),
        "SESSION_NOT_FOUND": Problem(404, _GONE, "Session not found"),
        "SERVICE_TOKEN_NOT_FOUND": Problem(404, _GONE, "Service token not found"),
        "METHOD_NOT_ALLOWED": Problem(
            405, "Method not allowed", "Use a method of the Allow header."
        ),
        "USER_ALREADY_EXISTS": Problem(409, "Conflict", "A user with this address exists."),
        "KEY_CHANGED_MEANWHILE": Problem(
            409, "Conflict", "The key was changed meanwhile: look at it again."
        ),
        "KEY_ALREADY_ROTATED": Problem(
            409, "Conflict", "The key has another secret by now: it was rotated."
        ),
        "KEY_NOT_ROTATING": Problem(409, "Conflict", "The key is not being rotated."),
        "IDEMPOTENCY_KEY_REUSED": Problem(
            422, "Idempotency-Key reused", "This Idempotency-Key was sent with another request."
        ),
        "BODY_TOO_LARGE": Problem(413, "Body too large", "The body may have 64 KB at most."),
        "URI_TOO_LONG": Problem(414, "URI too long", "The query may have 8 KB at most."),
        "UNSUPPORTED_MEDIA_TYPE": Problem(
            415, "Unsupported media type", "Send the body as application/json."
        ),
        "RATE_LIMITED": Problem(429, _MANY, "Rate limit exceeded."),
        "USAGE_EXCEEDED": Problem(429, _MANY, "API Key has reached its usage limit"),
        "TOO_MANY_ATTEMPTS": Problem(429, _MANY, "Too many attempts. Try again later."),
        # 5xx: ours
        "INTERNAL_ERROR": Problem(500, "Internal error", "Something went wrong on our side."),
        "UNAVAILABLE": Problem(503, "Unavailable", "A dependency is lost. Try again shortly."),
        "REVOCATION_PENDING": Problem(
            503, "Revocation pending", "Done in the database; other processes stop a little later."
        ),
    }
)


class KeybearerError(Exception):
    """Root of every error that keybearer raises on purpose."""


class Failure(KeybearerError):
    """A refusal that the caller can understand: becomes problem+json of `code`'s status.

    Args:
        code: a name from `PROBLEMS`.
        message: one public sentence instead of the table's; never holds a secret.
        extra: more members for the answer (RFC 9457 section 3.2), JSON values only.
        retry_after_ms: milliseconds until a retry makes sense, for 429.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        extra: Mapping[str, object] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        problem = PROBLEMS[code]
        self.code = code
        self.status = problem.status
        self.title = problem.title
        self.message = message or problem.message
        self.extra = dict(extra or {})
        self.retry_after_ms = retry_after_ms
        super().__init__(f"{code}: {self.message}")


class Unavailable(KeybearerError):
    """A dependency is lost or overloaded: the answer is 503, never a verdict.

    Args:
        reason: for the log alone; the public text says nothing of our inside.
        retry_after_seconds: what Retry-After says.
        code: `UNAVAILABLE`, or `REVOCATION_PENDING` for a change that holds but is not spread.
        message: one public sentence instead of the table's.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after_seconds: int = 1,
        code: str = "UNAVAILABLE",
        message: str | None = None,
    ) -> None:
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.code = code
        self.message = message or PROBLEMS[code].message
        super().__init__(reason)


class PlaceLost(Unavailable):
    """This process holds the serving lock no more, and another one may."""


class Misuse(KeybearerError):
    """A wrong setting or call by the app or the operator; the text says what to do."""
