"""Words, dates and numbers by CLDR; English alone where Babel is missing."""

import gettext
import sys

import babel
import pytest

from keybearer.adapters.languages import Language, language
from tests.people import START

DAY = 86_400_000


def german() -> Language:
    return Language("de", gettext.NullTranslations(), babel.Locale.parse("de"))


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (-40_000, "vor 40 Sekunden"),
        (-4 * 60_000, "vor 4 Minuten"),
        (-25 * 3_600_000, "vor 1 Tag"),
        (12 * DAY, "in 12 Tagen"),
        (59 * DAY, "in 59 Tagen"),
        (90 * DAY, "in 3 Monaten"),
        (400 * DAY, "in 1 Jahr"),
    ],
)
def test_relative_times_are_cldrs(apart: int, said: str) -> None:
    assert german().relative(START + apart, START) == said


def test_dates_and_numbers_are_cldrs() -> None:
    assert german().date(START) == "18. November 2026"
    assert german().instant(START) == "18.11.2026, 11:06 UTC"
    assert german().number(12_345) == "12.345"
    assert german().percent(0.12) == "12\xa0%"
    assert german().name == "Deutsch"


def test_arabic_is_written_from_right_to_left() -> None:
    assert Language("ar", gettext.NullTranslations(), None).direction == "rtl"
    assert german().direction == "ltr"


@pytest.mark.parametrize("tag", [None, "en", "xx", "../../etc/passwd", "ar/../en"])
def test_what_is_no_language_is_english(tag: str | None) -> None:
    assert language(tag).tag == "en"
    assert language(tag)("Log in") == "Log in"
    assert language(tag).plural("{n} key", "{n} keys", 2) == "{n} keys"


def test_without_babel_there_is_english_with_iso_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "babel", None)
    language.cache_clear()
    plain = language("de")
    language.cache_clear()
    assert plain.tag == "en"
    assert plain.name == "English"
    assert plain.date(START) == "2026-11-18"
    assert plain.instant(START) == "2026-11-18 11:06 UTC"
    assert plain.relative(START - 60_000, START) == "1 minute ago"
    assert plain.relative(START + 3 * DAY, START) == "in 3 days"
    assert plain.number(12_345) == "12,345"
    assert plain.percent(0.12) == "12%"
