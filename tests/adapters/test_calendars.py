"""A calendar is one that every program reads, whatever stands in it."""

import sys

import icalendar
import pytest

from keybearer.adapters.calendars import Entry, installed, render
from tests.people import START

DAY = 86_400_000


def entry(**fields: object) -> Entry:
    values = {
        "id": "0193b2f0-0000-7000-8000-000000000001",
        "at": START + 90 * DAY + 999,
        "changed_at": START,
        "summary": "API key “Nightly backup” expires",
        "description": "Starts with kb_abcd: https://auth.example.com/en/x",
        "url": "https://auth.example.com/en/x",
        **fields,
    }
    return Entry(**values)  # type: ignore[arg-type]


def test_an_entry_is_one_event_with_an_alarm_a_week_before() -> None:
    assert render("API keys at x", [entry()]) == (
        "BEGIN:VCALENDAR\r\n"
        "VERSION:2.0\r\n"
        "PRODID:-//keybearer//API keys//EN\r\n"
        "NAME:API keys at x\r\n"
        "X-WR-CALNAME:API keys at x\r\n"
        "REFRESH-INTERVAL;VALUE=DURATION:PT12H\r\n"
        "X-PUBLISHED-TTL:PT12H\r\n"
        "BEGIN:VEVENT\r\n"
        "SUMMARY:API key “Nightly backup” expires\r\n"
        "DTSTART:20270216T110640Z\r\n"
        "DTSTAMP:20261118T110640Z\r\n"
        "UID:0193b2f0-0000-7000-8000-000000000001\r\n"
        "DESCRIPTION:Starts with kb_abcd: https://auth.example.com/en/x\r\n"
        "LAST-MODIFIED:20261118T110640Z\r\n"
        "TRANSP:TRANSPARENT\r\n"
        "URL:https://auth.example.com/en/x\r\n"
        "BEGIN:VALARM\r\n"
        "ACTION:DISPLAY\r\n"
        "DESCRIPTION:API key “Nightly backup” expires\r\n"
        "TRIGGER:-P7D\r\n"
        "END:VALARM\r\n"
        "END:VEVENT\r\n"
        "END:VCALENDAR\r\n"
    )


def test_a_calendar_may_be_empty() -> None:
    assert "VEVENT" not in render("API keys", [])


@pytest.mark.parametrize(
    "hostile",
    [
        "a\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nSUMMARY:b",
        "a\nBEGIN:VALARM",
        "a\rATTACH:file:///etc/passwd",
        "a\\nBEGIN:VEVENT",
        "a;b,c:d\\",
        '"quoted" ^n ^\'',
        "\u2028BEGIN:VEVENT",
        "😀" * 100,
        "x" * 500,
    ],
)
def test_no_text_breaks_out_of_its_line(hostile: str) -> None:
    text = render(hostile, [entry(summary=hostile, description=hostile)])
    for line in text.split("\r\n"):
        assert "\n" not in line
        assert "\r" not in line
        assert len(line.encode()) <= 75
    read = icalendar.Calendar.from_ical(text)
    assert [part.name for part in read.walk()] == ["VCALENDAR", "VEVENT", "VALARM"]
    (event,) = read.walk("VEVENT")
    assert set(event) == {
        "UID", "DTSTART", "DTSTAMP", "LAST-MODIFIED", "SUMMARY", "DESCRIPTION", "URL", "TRANSP",
    }  # fmt: skip
    kept = str(event["SUMMARY"]).replace("\n", "").replace("\\n", "")
    assert kept == hostile.replace("\r", "").replace("\n", "").replace("\\n", "")


def test_without_the_library_there_is_no_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed()
    monkeypatch.setitem(sys.modules, "icalendar", None)
    assert not installed()
