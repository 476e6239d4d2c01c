"""A calendar of instants, as programs subscribe to it (RFC 5545, RFC 7986).

The library escapes and folds: no text ends its line, whatever it is made of.
"""

import importlib.util
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

MEDIA_TYPE = "text/calendar; charset=utf-8"
_REFRESH = timedelta(hours=12)
_ALARM = timedelta(days=-7)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One instant of a calendar.

    Attributes:
        id: the same whenever the calendar is read, so that an entry moves instead of doubling.
        at, changed_at: milliseconds since the epoch.
    """

    id: str
    at: int
    changed_at: int
    summary: str
    description: str
    url: str


def installed() -> bool:
    """Whether the library is there: it comes with the extra `ui`."""
    return importlib.util.find_spec("icalendar") is not None


def render(name: str, entries: Iterable[Entry]) -> str:
    """The calendar as text: an event for each entry, with an alarm seven days before."""
    from icalendar import Alarm, Calendar, Event, vDuration, vText  # noqa: PLC0415 -- an extra

    calendar = Calendar()
    calendar.add("prodid", "-//keybearer//API keys//EN")
    calendar.add("version", "2.0")
    for property_ in ("name", "x-wr-calname"):
        calendar.add(property_, vText(name))
    calendar.add("refresh-interval", _REFRESH, parameters={"VALUE": "DURATION"})
    calendar.add("x-published-ttl", vDuration(_REFRESH))
    for entry in entries:
        event = Event()
        event.add("uid", entry.id)
        event.add("dtstart", _utc(entry.at))
        # Without METHOD this says when the entry was last changed (RFC 5545 section 3.8.7.2).
        event.add("dtstamp", _utc(entry.changed_at))
        event.add("last-modified", _utc(entry.changed_at))
        event.add("summary", entry.summary)
        event.add("description", entry.description)
        event.add("url", entry.url)
        event.add("transp", "TRANSPARENT")  # nobody is busy by it
        alarm = Alarm()
        alarm.add("action", "DISPLAY")
        alarm.add("description", entry.summary)
        alarm.add("trigger", _ALARM)
        event.add_component(alarm)
        calendar.add_component(event)
    return str(calendar.to_ical(), "utf-8")


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)
