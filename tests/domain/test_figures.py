"""Times and sizes are those that the manual tells: whoever changes one changes a promise."""

from keybearer.domain import durations, emails, jwt, limits, model, passwords

MINUTE_MS = 60_000


def test_the_life_of_signing_keys() -> None:
    assert jwt.JWKS_MAX_AGE_SECONDS == 300
    assert (jwt.AHEAD_MS, jwt.OVERLAP_MS) == (10 * MINUTE_MS, 10 * MINUTE_MS)
    assert jwt.MAX_LENGTH == 8 * 1024


def test_what_is_taken_ahead_of_a_quota() -> None:
    assert (limits.CHUNK_SHARE, limits.CHUNK_MAX) == (1_000, 10_000)


def test_the_greatest_numbers() -> None:
    assert limits.MAX_AMOUNT == 9_007_199_254_740_991  # Number.MAX_SAFE_INTEGER of JavaScript
    assert (durations.MAX_DURATION, durations.MAX_RATE) == (315_360_000_000, 1_000_000_000)
    # Of SMTP and DNS: RFC 5321 section 4.5.3.1 and its erratum 1690, RFC 1035 section 2.3.4.
    assert (emails.MAX_ADDRESS, emails.MAX_LOCAL_PART, emails.MAX_LABEL) == (254, 64, 63)
    assert (passwords.MAX_CODE_POINTS, passwords.MIN_GUESSES) == (256, 100_000_000)


def test_a_window_is_cut_into_64_pieces() -> None:
    assert limits.PIECES == 64


def test_a_secret_that_is_replaced_may_go_on_until_the_last_instant() -> None:
    assert model.UNTIL_FINISHED == 253_402_300_799_999  # 9999-12-31T23:59:59.999Z


def test_an_operator_who_acts_for_nobody_in_particular_is_written_down_as_ever() -> None:
    assert model.ANYONE == "*"
