"""Every code has one status and one public sentence; log texts stay inside."""

import re

import pytest

from keybearer.domain.errors import PROBLEMS, Failure, KeybearerError, Misuse, Unavailable


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_is_told_in_one_sentence(code: str) -> None:
    problem = PROBLEMS[code]
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", code)
    assert 400 <= problem.status < 600
    assert problem.title
    assert problem.message
    assert "\n" not in problem.message


# What clients go by: a code and its status stay as they are.
TABLE = """
400 VALIDATION_ERROR UNKNOWN_FIELD SERVER_ONLY_PROPERTY INVALID_JSON MULTIPLE_CREDENTIALS
400 INVALID_HOST INVALID_EMAIL PASSWORD_TOO_SHORT PASSWORD_TOO_LONG PASSWORD_TOO_COMMON
400 INVALID_PASSWORD INVALID_TOKEN EXPIRES_IN_IS_TOO_SMALL EXPIRES_IN_IS_TOO_LARGE
400 KEY_EXPIRY_REQUIRED KEY_DISABLED_EXPIRATION METADATA_DISABLED NAME_REQUIRED
400 NO_DEFAULT_API_KEY_CONFIGURATION_FOUND UNKNOWN_CONFIGURATION ORGANIZATION_ID_REQUIRED
400 INVALID_PREFIX INVALID_NAME_LENGTH INVALID_METADATA_TYPE INVALID_PERMISSIONS UNKNOWN_SCOPE
400 INVALID_IP_RANGE INVALID_GRACE_PERIOD INVALID_RATE_LIMIT REFILL_AMOUNT_AND_INTERVAL_REQUIRED
400 REFILL_INTERVAL_AND_AMOUNT_REQUIRED NO_VALUES_TO_UPDATE KEY_NOT_ROTATABLE KEY_NOT_UPDATABLE
401 UNAUTHORIZED INVALID_API_KEY KEY_DISABLED KEY_EXPIRED KEY_REVOKED OWNER_DISABLED
401 INVALID_ACCESS_TOKEN TOKEN_EXPIRED SESSION_ENDED INVALID_EMAIL_OR_PASSWORD
401 INVALID_REFRESH_TOKEN
403 EMAIL_NOT_VERIFIED USER_DISABLED SESSION_NOT_FRESH SESSION_REQUIRED SERVICE_TOKEN_REQUIRED
403 ADMIN_REQUIRED KEY_CREATION_NOT_ALLOWED KEY_LIMIT_REACHED USER_NOT_MEMBER_OF_ORGANIZATION
403 INSUFFICIENT_API_KEY_PERMISSIONS SCOPE_NOT_HELD INSUFFICIENT_SCOPE IP_NOT_ALLOWED
403 INVALID_ORIGIN INVALID_CALLBACK_URL INVALID_REDIRECT_URL MISSING_OR_NULL_ORIGIN LOOPBACK_ONLY
404 NOT_FOUND KEY_NOT_FOUND USER_NOT_FOUND EVENT_NOT_FOUND SESSION_NOT_FOUND
404 SERVICE_TOKEN_NOT_FOUND
405 METHOD_NOT_ALLOWED
409 USER_ALREADY_EXISTS KEY_CHANGED_MEANWHILE KEY_ALREADY_ROTATED KEY_NOT_ROTATING
413 BODY_TOO_LARGE
414 URI_TOO_LONG
415 UNSUPPORTED_MEDIA_TYPE
422 IDEMPOTENCY_KEY_REUSED
429 RATE_LIMITED USAGE_EXCEEDED TOO_MANY_ATTEMPTS
500 INTERNAL_ERROR
503 UNAVAILABLE REVOCATION_PENDING
"""
CODES: dict[int, list[str]] = {}
for line in TABLE.split("\n")[1:-1]:
    status, *codes = line.split()
    CODES.setdefault(int(status), []).extend(codes)

TITLES = {
    400: "The request is not valid",
    401: "Authentication failed",
    403: "Not allowed",
    404: "Not found",
    429: "Too many requests",
}


@pytest.mark.parametrize("status", CODES)
def test_no_code_comes_goes_or_gets_another_status_unnoticed(status: int) -> None:
    assert [code for code in PROBLEMS if PROBLEMS[code].status == status] == CODES[status]


def test_there_are_no_other_codes() -> None:
    assert len(PROBLEMS) == sum(map(len, CODES.values()))


def test_a_status_has_one_title_where_it_has_several_codes() -> None:
    for status, title in TITLES.items():
        assert {PROBLEMS[code].title for code in CODES[status]} == {title}
    titles = {PROBLEMS[code].title for status in CODES.keys() - TITLES for code in CODES[status]}
    assert titles == {
        *("Method not allowed", "Conflict", "Body too large", "URI too long"),
        *("Unsupported media type", "Idempotency-Key reused", "Internal error"),
        *("Unavailable", "Revocation pending"),
    }


def test_words_that_better_auth_has_are_its_own() -> None:
    assert {
        code: PROBLEMS[code].message
        for code in ("UNAUTHORIZED", "INVALID_PASSWORD", "INVALID_ORIGIN", "KEY_NOT_FOUND")
    } == {
        "UNAUTHORIZED": "Unauthorized",
        "INVALID_PASSWORD": "Invalid password",
        "INVALID_ORIGIN": "Invalid origin",
        "KEY_NOT_FOUND": "API Key not found",
    }


def test_a_failure_takes_its_words_from_the_table() -> None:
    failure = Failure("KEY_EXPIRED")
    assert (failure.status, failure.title) == (401, "Authentication failed")
    assert failure.message == "API key has expired"
    assert (failure.extra, failure.retry_after_ms) == ({}, None)
    assert str(failure) == "KEY_EXPIRED: API key has expired"


def test_a_failure_may_have_words_and_members_of_its_own() -> None:
    extra = {"details": 1}
    failure = Failure("RATE_LIMITED", "Slower.", extra=extra, retry_after_ms=5)
    extra["details"] = 2
    assert (failure.message, failure.extra, failure.retry_after_ms) == (
        "Slower.",
        {"details": 1},
        5,
    )


def test_an_unknown_code_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Failure("NO_SUCH_CODE")
    with pytest.raises(KeyError):
        Unavailable("x", code="NO_SUCH_CODE")


def test_a_lost_dependency_keeps_its_reason_for_the_log() -> None:
    lost = Unavailable("password=hunter2 at 10.0.0.1")
    assert (lost.code, lost.retry_after_seconds) == ("UNAVAILABLE", 1)
    assert "hunter2" not in lost.message
    assert "hunter2" in lost.reason


def test_a_lost_dependency_may_have_words_of_its_own() -> None:
    lost = Unavailable("r", retry_after_seconds=7, code="REVOCATION_PENDING", message="Done.")
    assert (lost.code, lost.message, lost.retry_after_seconds) == ("REVOCATION_PENDING", "Done.", 7)


@pytest.mark.parametrize("error", [Failure("NOT_FOUND"), Unavailable("x"), Misuse("x")])
def test_everything_raised_on_purpose_has_one_root(error: Exception) -> None:
    assert isinstance(error, KeybearerError)


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        PROBLEMS["NOT_FOUND"] = PROBLEMS["UNAVAILABLE"]  # type: ignore[index]
