"""Instants come back as they went, and only RFC 3339 is read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.instants import MAX_INSTANT, MIN_INSTANT, iso, parse_iso

instants = st.integers(MIN_INSTANT, MAX_INSTANT)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_795_478_957_089, "2026-11-24T00:09:17.089Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (MIN_INSTANT, "0001-01-01T00:00:00.000Z"),
        (MAX_INSTANT, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_has_one_text(ms: int, text: str) -> None:
    assert iso(ms) == text
    assert parse_iso(text) == ms


@given(instants)
def test_every_instant_comes_back(ms: int) -> None:
    assert parse_iso(iso(ms)) == ms


@given(st.integers(0, 4_102_444_800_000))
def test_the_text_is_that_of_the_standard_library(ms: int) -> None:
    then = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    assert iso(ms) == then.replace("+00:00", "Z")


@pytest.mark.parametrize("ms", [MAX_INSTANT + 1, MIN_INSTANT - 1, 10**30, -(10**30)])
def test_there_are_no_instants_outside_four_digit_years(ms: int) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        iso(ms)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01t00:00:01z", 1_000),
        ("1970-01-01T00:00:01.5Z", 1_500),
        ("1970-01-01T00:00:01.123456789Z", 1_123),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T18:30:00-05:30", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-02T23:59:00+23:59", 86_400_000),
    ],
)
def test_other_forms_of_rfc_3339_are_read(text: str, ms: int) -> None:
    assert parse_iso(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1795478957089",
        "2026-11-24",
        "2026-11-24T00:09Z",
        "2026-11-24T00:09:17",
        "2026-11-24 00:09:17Z",
        "2026-11-24T00:09:17.Z",
        "2026-11-24T00:09:17,5Z",
        "2026-11-24T00:09:17.1234567890Z",
        "2026-11-24T00:09:17+0100",
        "2026-11-24T00:09:17+01",
        "2026-11-24T00:09:17+24:00",
        "2026-11-24T00:09:17+01:60",
        "2026-11-24T24:00:00Z",
        "2026-11-24T00:09:60Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "20261124T000917Z",
        "+2026-11-24T00:09:17Z",
        "2026-W48-2T00:09:17Z",
        "2026-11-24T00:09:17Z\n",
        " 2026-11-24T00:09:17Z",
        "\u0662026-11-24T00:09:17Z",
        "2026-11-24T00:09:17Z" + " " * 100_000,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"2026-11-24T00:09:17\.089Z"):
        parse_iso(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"])
def test_an_offset_does_not_lead_out_of_the_years(text: str) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        parse_iso(text)


@given(st.text(max_size=50))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    try:
        ms = parse_iso(text)
    except ValueError:
        return
    assert MIN_INSTANT <= ms <= MAX_INSTANT
