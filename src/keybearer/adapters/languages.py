"""Words, dates and numbers in the languages that people read.

    msgid in English  ──▶  locales/de.po  ──▶  the words        (gettext, plurals by its header)
    milliseconds      ──▶  CLDR           ──▶  "vor 3 Minuten"  (Babel, the extra `ui`)

English needs no file: its words are the msgids. Where Babel is not installed there is English
alone, with dates in ISO 8601.

Words are found in the code by the name that they are called by: `say("…")`, `say.plural("…",
"…", n)` with `say = language(…)`, `N_("…")` for those that are said elsewhere, and in templates
`_("…")` and `ngettext("…", "…", n)`. `make messages` brings the files up to them.
"""

import functools
import gettext
import io
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Literal

from keybearer.domain.instants import iso

ENGLISH = "en"
_NAMES = {"zh-CN": "简体中文"}  # CLDR's says the country too
RIGHT_TO_LEFT = frozenset({"ar"})
_DAY_MS = 86_400_000
_Unit = Literal["year", "month", "day", "hour", "minute", "second"]
_UNITS_MS: tuple[tuple[_Unit, int, int], ...] = (
    ("year", 365 * 86_400_000, 365 * 86_400_000),
    ("month", 30 * 86_400_000, 60 * 86_400_000),
    ("day", 86_400_000, 86_400_000),
    ("hour", 3_600_000, 3_600_000),
    ("minute", 60_000, 60_000),
    ("second", 1_000, 0),
)
"""Units, how long they are, and from how long on they are used: people count days up to sixty."""


class Language:
    """One language: what a page or a mail says in it.

    Args:
        tag: as in the settings and in paths: `en`, `pt-BR`.
        words: its translations.
        locale: CLDR's data for it; None where Babel is not installed.

    Attributes:
        direction: `ltr` or `rtl`, as HTML takes it.
    """

    def __init__(self, tag: str, words: gettext.NullTranslations, locale: Any) -> None:
        self.tag = tag
        self.words = words
        self.direction = "rtl" if tag in RIGHT_TO_LEFT else "ltr"
        self._locale = locale

    def __call__(self, message: str) -> str:
        """A message in this language; in English where it has no translation."""
        return self.words.gettext(message)

    def plural(self, one: str, many: str, n: int) -> str:
        """The form for `n` of a message that counts something."""
        return self.words.ngettext(one, many, n)

    @property
    def name(self) -> str:
        """What its speakers call it."""
        if self._locale is None:
            return "English"
        if self.tag in _NAMES:
            return _NAMES[self.tag]
        named: str = self._locale.get_display_name(self._locale) or self.tag
        return named[:1].upper() + named[1:]

    def date(self, ms: int) -> str:
        """A day, UTC: `5 December 2026`."""
        return iso(ms)[:10] if self._locale is None else _day(self._locale, ms // _DAY_MS)

    def instant(self, ms: int) -> str:
        """A day and a time, UTC, and that it is UTC."""
        if self._locale is None:
            return f"{iso(ms)[:16].replace('T', ' ')} UTC"
        return _minute(self._locale, ms // 60_000)

    def relative(self, ms: int, now: int) -> str:
        """How long ago, or in how long, in whole units."""
        apart = ms - now
        unit, size, _ = next(each for each in _UNITS_MS if abs(apart) >= each[2])
        n = abs(apart) // size
        if self._locale is None:
            units = f"{n} {unit}{'' if n == 1 else 's'}"
            return f"in {units}" if apart > 0 else f"{units} ago"
        return _apart(self._locale, unit, n * size // 1000 * (1 if apart > 0 else -1))

    def number(self, n: float) -> str:
        """A number with this language's separators."""
        return f"{n:,}" if self._locale is None else _number(self._locale, n)

    def percent(self, part: float) -> str:
        """A part of one as a percentage, without decimals."""
        return f"{part:.0%}" if self._locale is None else _percent(self._locale, part)


# A page says the same few days, spans and numbers again and again, and CLDR takes its time.
_remembered = functools.lru_cache(maxsize=4_096)


@_remembered
def _day(locale: Any, day: int) -> str:
    from babel.dates import format_date  # noqa: PLC0415 -- an extra

    return format_date(_utc(day * _DAY_MS), "long", locale=locale)


@_remembered
def _minute(locale: Any, minute: int) -> str:
    from babel.dates import (  # noqa: PLC0415 -- an extra
        format_date,
        format_time,
        get_datetime_format,
    )

    at = _utc(minute * 60_000)
    day = format_date(at, "medium", locale=locale)
    time = format_time(at, "short", locale=locale)
    together = str(get_datetime_format("medium", locale=locale))
    return f"{together.replace('{1}', day).replace('{0}', time)} UTC"


@_remembered
def _apart(locale: Any, unit: _Unit, seconds: int) -> str:
    from babel.dates import format_timedelta  # noqa: PLC0415 -- an extra

    return format_timedelta(
        seconds, granularity=unit, threshold=float("inf"), add_direction=True, locale=locale
    )


@_remembered
def _number(locale: Any, n: float) -> str:
    from babel.numbers import format_decimal  # noqa: PLC0415 -- an extra

    return format_decimal(n, locale=locale)


@_remembered
def _percent(locale: Any, part: float) -> str:
    from babel.numbers import format_percent  # noqa: PLC0415 -- an extra

    return format_percent(part, locale=locale)


@functools.cache
def language(tag: str | None) -> Language:
    """The language of a tag; English for None, for an unknown one, and without Babel."""
    tag = tag or ENGLISH
    try:
        import babel  # noqa: PLC0415 -- an extra
    except ImportError:
        return Language(ENGLISH, gettext.NullTranslations(), None)
    words = translations(tag)
    if words is None:
        tag, words = ENGLISH, gettext.NullTranslations()
    return Language(tag, words, babel.Locale.parse(tag, sep="-"))


def N_(message: str) -> str:  # noqa: N802 -- gettext's name for it
    """A message as it is, marked to be found: it is translated where it is said."""
    return message


def translations(tag: str) -> gettext.NullTranslations | None:
    """What a language's file holds; None where there is no such file."""
    from babel.messages.mofile import write_mo  # noqa: PLC0415 -- an extra
    from babel.messages.pofile import read_po  # noqa: PLC0415 -- an extra

    file = files("keybearer") / "locales" / f"{tag}.po"
    if not tag.replace("-", "").isalpha() or not file.is_file():
        return None
    with file.open("rb") as text:
        catalog = read_po(text, locale=tag.replace("-", "_"))
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
