"""A calendar as data: whole days, each with a name. Pure: no store, no clock."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.values.checks import of_type

MOST_ENTRIES = 4000
"""Of one calendar."""
MOST_DAYS = 40_000
"""That its entries may cover, together."""
MOST_NAME = 200
"""Characters of an entry's name; a longer one is cut."""
FIRST_YEAR, LAST_YEAR = 1970, 2999

_NAME = re.compile(r"[\w.:/+-]{1,64}")
_DAYS = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?(?:\s+(\S.*))?", re.ASCII | re.DOTALL)


def check_calendar(argument: str, value: object) -> str:
    """The name of a calendar: 1 to 64 letters, digits, or any of . _ : / + - . Raises InvalidArgument, InvalidType."""
    of_type(argument, value, str, "a str")
    if not _NAME.fullmatch(str(value)):
        raise InvalidArgument(argument, f"{str(value)[:80]!r} must be 1 to 64 letters, digits, or any of . _ : / + -")
    return str(value)


@dataclass(frozen=True, slots=True, order=True)
class CalendarEntry:
    """A day, or several in a row, and what they are called. `last` is the last of them, included."""

    first: date
    last: date
    name: str = ""

    def __post_init__(self) -> None:
        for argument, day in (("first", self.first), ("last", self.last)):
            if not isinstance(day, date) or isinstance(day, datetime):
                raise InvalidType(argument, f"must be a date, a whole day, not {type(day).__name__}")
            if not FIRST_YEAR <= day.year <= LAST_YEAR:
                raise InvalidArgument(argument, f"{day} is not between {FIRST_YEAR} and {LAST_YEAR}")
        if self.first > self.last:
            raise InvalidArgument("dates", f"{self.first}..{self.last} ends before it begins")
        of_type("name", self.name, str, "a str")
        object.__setattr__(self, "name", " ".join(self.name.split())[:MOST_NAME])

    def __str__(self) -> str:
        days = f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"
        return f"{days} {self.name}".rstrip()

    @classmethod
    def of(cls, days: object, name: str = "") -> CalendarEntry:
        """From a date, a pair of dates, or text: `2026-12-25`, `2026-12-24..2027-01-01`, each with a name behind it or not."""
        if isinstance(days, cls):
            return cls(days.first, days.last, name or days.name)
        if isinstance(days, tuple) and len(days) == 2:
            return cls(days[0], days[1], name)
        if isinstance(days, str):
            found = _DAYS.fullmatch(days.strip())
            if found is None:
                raise InvalidArgument("dates", f"{days[:80]!r} is no day; write 2026-12-25, or 2026-12-24..2027-01-01")
            try:
                first, last = (date.fromisoformat(day) for day in (found[1], found[2] or found[1]))
            except ValueError:
                raise InvalidArgument("dates", f"{days[:80]!r} is no day that there is") from None
            return cls(first, last, name or found[3] or "")
        if isinstance(days, date) and not isinstance(days, datetime):
            return cls(days, days, name)
        raise InvalidType("dates", f"{days!r:.80} must be a date, a whole day")


Dates = Iterable[date | str | tuple[date, date] | CalendarEntry] | Mapping[date | str | tuple[date, date], str]
"""What `put` takes as days: an iterable of them, or a mapping from them to their names."""


def entries_of(dates: Dates) -> tuple[CalendarEntry, ...]:
    """The entries in order, each once. Raises InvalidArgument for none, for too many, and for what is no day."""
    if isinstance(dates, (str, bytes)) or not isinstance(dates, Iterable):
        raise InvalidType("dates", f"must be a list of days, or a mapping from days to names, not {type(dates).__name__}")
    if isinstance(dates, Mapping):
        found = {CalendarEntry.of(days, name) for days, name in dates.items()}
    else:
        found = {CalendarEntry.of(days) for days in dates}
    if not found:
        raise InvalidArgument("dates", "a calendar must have a day")
    if len(found) > MOST_ENTRIES:
        raise InvalidArgument("dates", f"a calendar has at most {MOST_ENTRIES} entries, not {len(found)}")
    if (covered := sum((entry.last - entry.first).days + 1 for entry in found)) > MOST_DAYS:
        raise InvalidArgument("dates", f"a calendar covers at most {MOST_DAYS} days, not {covered}")
    return tuple(sorted(found))


@dataclass(frozen=True)
class Calendar:
    """Days that are excluded by name. Its days are whole ones, in the zone of the job that excludes them."""

    name: str
    entries: tuple[CalendarEntry, ...]
    """In order of their first days."""
    until: date
    """Up to this day it is known which days it has; later ones count as not excluded, with a warning."""
    source: str = "dates"
    """Where they come from: `dates`, `ics FILE`, `holidays DE-BY`."""
    version: str = ""
    """Of the source: what read the file and a digest of it, or the version of the package `holidays`."""
    put_at: float = 0.0
    """When it was put as it is now: seconds since the Unix epoch, by the server's clock."""

    @cached_property
    def head(self) -> str:
        """What the store keeps beside the days, as JSON."""
        said = {"source": self.source, "version": self.version, "until": self.until.isoformat(), "entries": len(self.entries)}
        return json.dumps(said, separators=(",", ":"))

    @cached_property
    def days(self) -> str:
        """Its days as JSON: [first, name], or [first, last, name]."""
        rows = [[str(day) for day in dict.fromkeys((entry.first, entry.last))] + [entry.name] for entry in self.entries]
        return json.dumps(rows, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def rev(self) -> str:
        """A digest of what it says."""
        return hashlib.blake2b(f"{self.head}{self.days}".encode(), digest_size=8).hexdigest()

    @cached_property
    def _by_day(self) -> dict[date, CalendarEntry]:
        found: dict[date, CalendarEntry] = {}
        for entry in self.entries:
            for ordinal in range(entry.first.toordinal(), entry.last.toordinal() + 1):
                found.setdefault(date.fromordinal(ordinal), entry)
        return found

    @cached_property
    def _in_order(self) -> list[date]:
        return sorted(self._by_day)

    def on(self, day: date) -> CalendarEntry | None:
        """The entry that a day belongs to; of several, the one that begins first. None: the day is not excluded."""
        return self._by_day.get(day)

    def after(self, day: date) -> date | None:
        """The first day later than this one that it has; None: it has none."""
        at = bisect_right(self._in_order, day)
        return self._in_order[at] if at < len(self._in_order) else None

    @classmethod
    def of(cls, name: str, line: bytes, days: bytes) -> Calendar:
        """From what `calendar/get` answers. Raises ValueError and its like for what can't be read."""
        _rev, _number, put_ms, text = line.decode().split(" ", 3)
        head = json.loads(text)
        entries = tuple(
            CalendarEntry(date.fromisoformat(row[0]), date.fromisoformat(row[-2]), row[-1]) for row in json.loads(days)
        )
        until = date.fromisoformat(head["until"])
        return cls(name, entries, until, str(head["source"]), str(head["version"]), int(put_ms) / 1000)
