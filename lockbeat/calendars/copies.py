"""What an instance has read of the calendars. Never what it decides by alone: a script that fires compares the revs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lockbeat.calendars.closed import Closed
from lockbeat.calendars.values import Calendar
from lockbeat.store import Store

_LINE = re.compile(rb"([0-9a-fA-F]+) (\d+) (\d+) \{")  # as _lib/calendar reads it
NONE = "-"
"""The rev of a calendar that is not there, or can't be read."""
MOST_VIEWS = 256


class Copy(NamedTuple):
    """A calendar as a shard has it."""

    rev: str
    calendar: Calendar | None
    """None: see `problem`."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """The calendars of a job, as they were read."""

    closed: Closed | None
    """None: they exclude nothing."""
    words: str
    """"NAME REV NAME REV": what it was read from, for the script to compare."""
    copies: Mapping[str, Copy]

    def problems(self, slot_ms: int) -> list[str]:
        """Why it may be wrong to fire at this slot: in a sentence each."""
        found = [f"calendar {name!r} {copy.problem}" for name, copy in self.copies.items() if copy.problem]
        if self.closed is not None:
            day = self.closed.date_of(slot_ms)
            over = [copy.calendar for copy in self.copies.values() if copy.calendar and copy.calendar.until < day]
            found += [f"calendar {calendar.name!r} has no day known after {calendar.until}" for calendar in over]
        return found


class Copies:
    """Reads calendars once, and again when told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[int, dict[str, Copy]] = {}
        self._views: dict[tuple[str, ...], View] = {}  # by zone, names and revs: thousands of jobs share a few

    async def read(self, shard: int, names: Iterable[str]) -> None:
        """See to it that those of a shard have been read (`calendar/get`)."""
        there = self._read.setdefault(shard, {})
        wanted = [name for name in dict.fromkeys(names) if name not in there]
        rows = [self._store.row["calendar/get"](name=name, known="") for name in wanted]
        for name, reply in zip(wanted, await self._store.call_many(rows, shard), strict=True):
            there[name] = copy_of(name, *reply) if reply else Copy(NONE, None, "is missing")

    def forget(self, shard: int, names: Iterable[str]) -> None:
        """They have changed in the store: read them anew."""
        for name in names:
            self._read.get(shard, {}).pop(name, None)

    def view(self, shard: int, names: Sequence[str], zone: str) -> View:
        """Those of a job, which have been read."""
        there = self._read[shard]
        key = zone, *(word for name in names for word in (name, there[name].rev))
        if (view := self._views.get(key)) is None:
            if len(self._views) >= MOST_VIEWS:
                self._views.clear()
            view = self._views[key] = view_of({name: there[name] for name in names}, zone)
        return view

    def used(self) -> dict[int, set[str]]:
        """The names of those that were read, by shard."""
        return {shard: {*there} for shard, there in self._read.items()}


def copy_of(name: str, line: bytes, days: bytes) -> Copy:
    """From what `calendar/get` answers."""
    found = _LINE.match(line)
    rev = found[1].decode() if found else NONE
    try:
        return Copy(rev, Calendar.of(name, line, days))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return Copy(rev, None, "can't be read")


def view_of(copies: Mapping[str, Copy], zone: str) -> View:
    """Of several calendars, in the order in which a job names them."""
    calendars = tuple(copy.calendar for copy in copies.values() if copy.calendar is not None)
    closed = Closed(calendars, zone) if calendars else None
    return View(closed, " ".join(f"{name} {copy.rev}" for name, copy in copies.items()), copies)


async def read_view(store: Store, shard: int, names: Sequence[str], zone: str) -> View:
    """Of these calendars, read now."""
    copies = Copies(store)
    await copies.read(shard, names)
    return copies.view(shard, names, zone)
