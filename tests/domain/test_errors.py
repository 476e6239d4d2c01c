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
