"""One value, as several databases and adapters write it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from keybearer.domain import records

AT = 1_795_000_000_000
NAIVE = datetime(2026, 11, 18, 11, 6, 40)  # noqa: DTZ001 -- as a database without zones gives it


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-18T11:06:40.000Z", "2026-11-18 11:06:40", "2026-11-18T11:06:40", AT, AT // 1000,
        float(AT), NAIVE, NAIVE.replace(tzinfo=UTC), "2026-11-18 12:06:40.000000+01:00",
        NAIVE.replace(hour=13, tzinfo=timezone(timedelta(hours=2))),
    ],
)  # fmt: skip
def test_an_instant_is_found(value: object) -> None:
    assert records.instant({"at": value}, "at") == AT
    assert records.moment({"at": value}, "at", otherwise=0) == AT


def test_nothing_is_none() -> None:
    for value in (None, ""):
        assert records.instant({"at": value}, "at") is None
        assert records.text({"at": value}, "at") is None
    assert records.moment({}, "at", otherwise=7) == 7
    assert records.number({}, "n") is None
    assert records.flag({}, "f", otherwise=True)
    assert records.json({"j": ""}, "j") is None
    assert records.json({}, "j") is None


def test_the_first_and_the_last_instant_and_number_are_read() -> None:
    last = 253_402_300_799_999
    assert records.number({"n": last}, "n") == last
    instants = (0, 1, 99_999_999_999, 100_000_000_000, last)
    assert [records.instant({"at": value}, "at") for value in instants] == [
        0, 1_000, 99_999_999_999_000, 100_000_000_000, last,
    ]  # fmt: skip


def test_json_in_json_in_json_is_a_text() -> None:
    assert records.json({"j": json.dumps(json.dumps(json.dumps({})))}, "j") == "{}"


def test_values_are_read() -> None:
    assert records.identifier({"id": 7}, "id") == "7"
    assert records.identifier({"id": "a-b_c.D"}, "id") == "a-b_c.D"
    assert records.flag({"f": 1}, "f", otherwise=False)
    assert not records.flag({"f": False}, "f", otherwise=True)
    assert records.number({"n": 0}, "n") == 0
    assert records.required({"t": "x"}, "t") == "x"
    for value in ('{"a": 1}', '"{\\"a\\": 1}"', {"a": 1}):
        assert records.json({"j": value}, "j") == {"a": 1}


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (records.identifier, None), (records.identifier, True), (records.identifier, "a b"),
        (records.identifier, "*"), (records.identifier, "x" * 65), (records.identifier, ""),
        (records.text, 1), (records.required, None), (records.number, True),
        (records.number, -1), (records.number, "1"), (records.number, 1 << 60),
        (records.instant, "yesterday"), (records.instant, -1), (records.instant, True),
        (records.instant, b"x"), (records.json, "{"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(
    read: Callable[[records.Record, str], Any], value: object
) -> None:
    with pytest.raises(ValueError, match="value "):
        read({"value": value}, "value")


def test_a_truth_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="neither"):
        records.flag({"f": "yes"}, "f", otherwise=False)
