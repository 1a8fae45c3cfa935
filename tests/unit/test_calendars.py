"""Calendars as data: which days they have, and where those come from."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.calendars import Calendar, CalendarEntry
from lockbeat.calendars.sources import events_of, holidays_of, years_of
from lockbeat.calendars.values import check_calendar, entries_of
from lockbeat.errors import InvalidArgument

XMAS = date(2026, 12, 25)
DAYS = st.dates(date(2020, 1, 1), date(2040, 12, 31))
ENTRIES = st.builds(
    lambda first, days, name: CalendarEntry(first, first + timedelta(days), name),
    DAYS,
    st.integers(0, 40),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)


@pytest.mark.parametrize(
    ("dates", "says"),
    [
        ([XMAS], ["2026-12-25"]),
        (["2026-12-25"], ["2026-12-25"]),
        ([" 2026-12-25   Christmas  Day "], ["2026-12-25 Christmas Day"]),
        (["2026-12-24..2027-01-01 closing"], ["2026-12-24..2027-01-01 closing"]),
        ([(XMAS, date(2026, 12, 26))], ["2026-12-25..2026-12-26"]),
        ({XMAS: "Christmas", "2026-12-31..2027-01-01": "Eve"}, ["2026-12-25 Christmas", "2026-12-31..2027-01-01 Eve"]),
        ({"2026-12-25": "Christmas"}, ["2026-12-25 Christmas"]),
        ([CalendarEntry(XMAS, XMAS, "a\nb")], ["2026-12-25 a b"]),
        (["2027-01-01", "2026-12-25", "2026-12-25"], ["2026-12-25", "2027-01-01"]),
    ],
)
def test_days_are_dates_pairs_or_text_with_a_name_or_without(dates: Any, says: list[str]) -> None:
    assert [str(entry) for entry in entries_of(dates)] == says


@pytest.mark.parametrize(
    ("dates", "says"),
    [
        ([], "must have a day"),
        ({}, "must have a day"),
        ("2026-12-25", "must be a list"),
        (7, "must be a list"),
        (["tomorrow"], "'tomorrow' is no day"),
        (["2026-02-30"], "is no day that there is"),
        (["2026-12-26..2026-12-25"], "ends before it begins"),
        ([datetime(2026, 12, 25, 8)], "a whole day"),
        ([7], "a whole day"),
        (["1969-12-31"], "not between 1970"),
        ([(XMAS, "2026-12-26")], "must be a date"),
        ({XMAS: 7}, "must be a str"),
        ([XMAS + timedelta(n) for n in range(4001)], "at most 4000 entries"),
        (["1980-01-01..2200-01-01"], "at most 40000 days"),
    ],
)
def test_what_is_no_day_is_one_clear_line(dates: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        entries_of(dates)


@pytest.mark.parametrize("name", ["", "a b", "a\n", 'a"b', "a]b", "x" * 65, None, 7])
def test_a_name_that_a_definition_could_not_carry_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_calendar("name", name)


@given(st.lists(ENTRIES, min_size=1, max_size=8), DAYS)
def test_a_calendar_has_the_days_of_its_entries_and_finds_the_next(entries: list[CalendarEntry], day: date) -> None:
    """Against the entries themselves; and what the store keeps gives the same calendar back."""
    found = entries_of(entries)
    calendar = Calendar("c", found, date(2041, 1, 1), "ics x", "1", 1.5)
    having = [entry for entry in found if entry.first <= day <= entry.last]
    assert calendar.on(day) == (having[0] if having else None)
    later = [entry.first if entry.first > day else day + timedelta(1) for entry in found if entry.last > day]
    assert calendar.after(day) == min(later, default=None)
    line = f"{calendar.rev} 17 1500 {calendar.head}"
    again = Calendar.of("c", line.encode(), calendar.days.encode())
    assert (again, again.rev) == (calendar, calendar.rev)


@given(st.lists(ENTRIES, min_size=1, max_size=4), st.lists(ENTRIES, min_size=1, max_size=4))
def test_its_rev_changes_with_its_days_and_with_nothing_else(some: list[CalendarEntry], others: list[CalendarEntry]) -> None:
    one, other = (Calendar("c", entries_of(each), date(2041, 1, 1)) for each in (some, others))
    assert (one.rev == other.rev) == (one.entries == other.entries)
    assert Calendar("another", one.entries[::1], one.until, put_at=7).rev == one.rev
    assert Calendar("c", one.entries, date(2042, 1, 1)).rev != one.rev


def event(*lines: str) -> str:
    return "\r\n".join(["BEGIN:VEVENT", f"UID:{hash(lines)}", *lines, "END:VEVENT"])


def ics(*events: str) -> str:
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//a//b//EN", *events, "END:VCALENDAR", ""])


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([event("DTSTART;VALUE=DATE:20261225", "SUMMARY:Christmas")], ["2026-12-25 Christmas"]),
        ([event("DTSTART;VALUE=DATE:20261224", "DTEND;VALUE=DATE:20261227", "SUMMARY:X")], ["2026-12-24..2026-12-26 X"]),
        ([event("DTSTART:20261224T000000", "DTEND:20261226T000000", "SUMMARY:X")], ["2026-12-24..2026-12-25 X"]),
        (
            [event("DTSTART;VALUE=DATE:20000101", "RRULE:FREQ=YEARLY", "SUMMARY:New Year")],
            ["2026-01-01 New Year", "2027-01-01 New Year"],
        ),
        (
            [event("DTSTART;VALUE=DATE:20261201", "RRULE:FREQ=WEEKLY;COUNT=4", "EXDATE;VALUE=DATE:20261208", "SUMMARY:W")],
            ["2026-12-01 W", "2026-12-15 W", "2026-12-22 W"],
        ),
        ([event("DTSTART;VALUE=DATE:20251231", "DTEND;VALUE=DATE:20260102", "SUMMARY:over")], ["2025-12-31..2026-01-01 over"]),
        (
            [event("DTSTART;VALUE=DATE:20261225", "STATUS:CANCELLED"), event("DTSTART;VALUE=DATE:20261226")],
            ["2026-12-26"],
        ),
    ],
)
def test_an_icalendar_file_gives_its_whole_days_of_the_years(events: list[str], says: list[str]) -> None:
    found = events_of(ics(*events), range(2026, 2028))
    assert [str(entry) for entry in entries_of(found.entries)] == says
    assert found.until == date(max(entry.last.year for entry in found.entries), 12, 31)
    assert found.version.startswith("sha256:")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("/nowhere/at/all.ics", "No such file"),
        (b"rubbish", "can't be read as iCalendar"),
        (b"", "no whole-day event from 2026 to 2027"),
        (ics(event("DTSTART;VALUE=DATE:20200101")), "no whole-day event"),
        (ics(event("DTSTART:20261224T100000", "SUMMARY:Meeting")), "event Meeting of 2026-12-24 10:00 has a time of day"),
        (ics(event("DTSTART;VALUE=DATE:20261224", "RRULE:FREQ=SECONDLY")), "recurs more often than daily"),
        (ics(*[event("DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=DAILY", f"SUMMARY:{n}") for n in range(12)]), "at most 4000"),
        (7, "must be a path"),
    ],
)
def test_a_file_that_gives_no_days_is_one_clear_line(content: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        events_of(content, range(2026, 2028))


def test_a_file_is_named_and_its_digest_kept(tmp_path: Path) -> None:
    path = tmp_path / "feiertage.ics"
    path.write_text(ics(event("DTSTART;VALUE=DATE:20261225")))
    assert events_of(path, range(2026, 2027)).source == "ics feiertage.ics"
    assert events_of(str(path), range(2026, 2027)) == events_of(path, range(2026, 2027))


def test_holidays_are_those_of_the_country_in_its_own_language_whatever_this_hosts_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for language in ("en_US.UTF-8", "de_DE.UTF-8"):
        monkeypatch.setenv("LANGUAGE", language)
        found = holidays_of("DE", "BY", range(2026, 2028))
        named = {entry.first: entry.name for entry in found.entries}
        assert named[date(2026, 12, 25)] == "Erster Weihnachtstag"
        assert named[date(2027, 1, 6)] == "Heilige Drei Könige"
    assert (found.source, found.until) == ("holidays DE-BY", date(2027, 12, 31))
    assert found.version
    assert date(2026, 1, 6) not in {entry.first for entry in holidays_of("DE", "BE", range(2026, 2027)).entries}


@pytest.mark.parametrize(("country", "part"), [("XX", None), ("DE", "QQ"), (7, None)])
def test_an_unknown_country_is_one_clear_line(country: Any, part: str | None) -> None:
    with pytest.raises(InvalidArgument, match=r"country|subdivision"):
        holidays_of(country, part, range(2026, 2027))


@pytest.mark.parametrize(
    ("years", "span"),
    [
        (None, range(2026, 2029)),
        (2027, range(2027, 2028)),
        ([2028, 2026], range(2026, 2029)),
        (range(2026, 2028), range(2026, 2028)),
    ],
)
def test_years_are_this_and_the_two_after_it_unless_they_are_named(years: Any, span: range) -> None:
    assert years_of(years, 2026) == span


@pytest.mark.parametrize("years", [[], "2026", [True], 1969, 3000, range(2026, 2126)])
def test_years_that_would_go_on_for_ever_are_refused(years: Any) -> None:
    with pytest.raises(InvalidArgument, match="years"):
        years_of(years, 2026)
