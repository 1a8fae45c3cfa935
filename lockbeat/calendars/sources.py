"""Where days come from: iCalendar files, and the package `holidays`. Both are of the extra `calendars`; what they say is resolved
here, once, and the store keeps the days: whoever fires a job needs neither, and can't see other ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from lockbeat.calendars.values import FIRST_YEAR, LAST_YEAR, MOST_ENTRIES, CalendarEntry
from lockbeat.errors import InvalidArgument, InvalidType, MissingExtra
from lockbeat.values.checks import of_type

MOST_YEARS = 50
MOST_BYTES = 5_000_000
"""Of an iCalendar file."""
AHEAD = 2
"""Years after this one that are resolved unless others are named."""
_TOO_OFTEN = {"SECONDLY", "MINUTELY", "HOURLY"}


class Found(NamedTuple):
    """Days, and where they come from: fields of `Calendar`."""

    entries: list[CalendarEntry]
    until: date
    source: str
    version: str


def years_of(years: int | Iterable[int] | None, this_year: int) -> range:
    """From the first to the last of these; None: this year and the two after it."""
    if years is None:
        return range(this_year, this_year + AHEAD + 1)
    several = [years] if isinstance(years, int) else [*years]
    if not several or not all(isinstance(year, int) and not isinstance(year, bool) for year in several):
        raise InvalidType("years", f"must be a year or several, not {years!r:.80}")
    found = range(min(several), max(several) + 1)
    if found[0] < FIRST_YEAR or found[-1] > LAST_YEAR or len(found) > MOST_YEARS:
        raise InvalidArgument(
            "years", f"must be at most {MOST_YEARS} from {FIRST_YEAR} to {LAST_YEAR}, not {found[0]}-{found[-1]}"
        )
    return found


def _missing(package: str) -> MissingExtra:
    return MissingExtra(f"{package} is not installed: pip install 'lockbeat[calendars]'")


def holidays_of(country: str, subdivision: str | None, years: range) -> Found:
    """Public holidays, as the package `holidays` has them. Raises InvalidArgument for a country that it does not have."""
    of_type("country", country, str, "a str such as 'DE'")
    of_type("subdivision", subdivision, (str, type(None)), "a str such as 'BY'")
    try:
        import holidays
    except ImportError:
        raise _missing("holidays") from None
    try:
        # In the country's own language: otherwise the names follow the locale of whoever puts them.
        language = holidays.country_holidays(country, subdiv=subdivision).default_language
        days = holidays.country_holidays(country, subdiv=subdivision, years=years, language=language)
    except (NotImplementedError, ValueError, KeyError) as problem:
        raise InvalidArgument("country", str(problem).strip("'\"")) from None
    where = f"{country}-{subdivision}" if subdivision else country
    entries = [CalendarEntry(day, day, name) for day, name in days.items() if day.year in years]
    if not entries:
        raise InvalidArgument("years", f"holidays {version('holidays')} knows no day of {where} from {years[0]} to {years[-1]}")
    return Found(entries, date(years[-1], 12, 31), f"holidays {where}", version("holidays"))


def events_of(ics: str | bytes | Path, years: range) -> Found:
    """The whole-day events of an iCalendar file, given as its path or its content; recurrences are expanded over the years.

    Cancelled events are left out. An event with a time of day is refused: a calendar has whole days.
    """
    try:
        import icalendar
        import recurring_ical_events
    except ImportError:
        raise _missing("icalendar") from None
    content, name = _read(ics)
    try:
        calendars: list[Any] = list(icalendar.Calendar.from_ical(content, multiple=True))
        for event in (event for calendar in calendars for event in calendar.walk("VEVENT")):
            _check(event)
        entries = set[CalendarEntry]()
        for calendar in calendars:
            for event in _occurrences(recurring_ical_events.of(calendar), years):
                if str(event.get("STATUS", "")).upper() != "CANCELLED":
                    entries.add(CalendarEntry(*_days(event), str(event.get("SUMMARY", ""))))
    except InvalidArgument:
        raise
    except Exception as problem:  # whatever two libraries raise about a file of others
        raise InvalidArgument(
            "ics", f"{name} can't be read as iCalendar: {type(problem).__name__}: {problem!s:.200}"
        ) from problem
    if not entries:
        raise InvalidArgument("ics", f"{name} has no whole-day event from {years[0]} to {years[-1]}")
    until = date(max(entry.last.year for entry in entries), 12, 31)
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Found([*entries], until, f"ics {name}", f"sha256:{digest} icalendar {version('icalendar')}")


def _read(ics: str | bytes | Path) -> tuple[bytes, str]:
    if isinstance(ics, str) and ics.lstrip("\ufeff \r\n").startswith("BEGIN:"):
        return ics.encode(), "content"
    if isinstance(ics, bytes):
        return ics, "content"
    of_type("ics", ics, (str, Path), "a path, or the content of a file")
    path = Path(ics).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise InvalidArgument("ics", f"{path} can't be read: {getattr(problem, 'strerror', None) or problem}") from None
    if len(content) > MOST_BYTES:
        raise InvalidArgument("ics", f"{path} has more than {MOST_BYTES} bytes")
    return content, path.name


def _check(event: Any) -> None:
    first = _days(event)[0]
    rules = event.get("RRULE") or []
    for rule in rules if isinstance(rules, list) else [rules]:
        if _TOO_OFTEN & {str(often).upper() for often in rule.get("FREQ", [])}:
            raise InvalidArgument("ics", f"event {event.get('SUMMARY', '')!s:.80} of {first} recurs more often than daily")


def _occurrences(events: Any, years: range) -> Iterator[Any]:
    """Those that touch the years. A year at a time: what recurs without end is refused before it has been counted."""
    found = 0
    for year in years:
        for event in events.between(date(year, 1, 1), date(year + 1, 1, 1)):
            found += 1
            yield event
        if found > MOST_ENTRIES:
            raise InvalidArgument(
                "ics", f"a calendar has at most {MOST_ENTRIES} entries: there are more from {years[0]} to {year}"
            )


def _days(event: Any) -> tuple[date, date]:
    """The first and the last day of an event. One from midnight to midnight has whole days, too."""
    begin, end = event.start, event.end
    if isinstance(begin, datetime) and isinstance(end, datetime):
        if begin.time() != time() or end.time() != time() or end <= begin:
            raise InvalidArgument(
                "ics",
                f"event {event.get('SUMMARY', '')!s:.80} of {begin:%Y-%m-%d %H:%M} has a time of day: a calendar has whole days",
            )
        begin, end = begin.date(), end.date()
    return begin, max(begin, end - timedelta(days=1))  # DTEND is the day after
