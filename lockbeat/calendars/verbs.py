"""The verbs of `lb.calendars`."""

from __future__ import annotations

import asyncio
import builtins
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from lockbeat.calendars.sources import Found, events_of, holidays_of, years_of
from lockbeat.calendars.values import Calendar, Dates, check_calendar, entries_of
from lockbeat.errors import CalendarInUse, InvalidArgument, InvalidType, StoreError, UnknownCalendar, Unreadable
from lockbeat.store import Store, results

log = logging.getLogger("lockbeat")

MOST_CALENDARS = 256
"""That a store keeps."""
JOBS = 1000
"""That one run of calendar/users looks at."""


class Calendars:
    """The calendars of a store. Shard 0 is their home; each other shard has a copy, for the jobs that live there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(
        self,
        name: str,
        dates: Dates | None = None,
        *,
        ics: str | bytes | Path | None = None,
        country: str | None = None,
        subdivision: str | None = None,
        years: int | Iterable[int] | None = None,
        until: date | None = None,
    ) -> Calendar:
        """Keep a calendar, in the place of the one of that name (`calendar/put`). Jobs that exclude by it see it at once.

        One of these says which days it has:
        dates: days, or a mapping from days to their names. A day is a `date`, a pair of dates (the first and the last), or text:
            "2026-12-25", "2026-12-24..2027-01-01 closing".
        ics: an iCalendar file, by its path or its content. It needs the extra `calendars`, and so does
        country: public holidays, such as "DE"; with `subdivision`, such as "BY".

        years: those that recurrences and holidays are worked out for, at most 50; None: this year and the two after it.
        until: up to this day the dates are complete; None: up to the last of them. Files and holidays are to the end of a year.

        Raises: InvalidArgument for what is no day, no day at all, or too many. MissingExtra. StoreError: there are 256 calendars.
        """
        check_calendar("name", name)
        if sum(source is not None for source in (dates, ics, country)) != 1:
            raise InvalidArgument("dates", "give one of dates, ics and country")
        if country is None and subdivision is not None:
            raise InvalidArgument("subdivision", "belongs to a country")
        if dates is not None:
            if years is not None:
                raise InvalidArgument("years", "belong to ics or country: dates say their own")
            entries = entries_of(dates)
            last = max(entry.last for entry in entries)
            if until is not None and (not isinstance(until, date) or isinstance(until, datetime)):
                raise InvalidType("until", f"must be a date, not {type(until).__name__}")
            if until is not None and until < last:
                raise InvalidArgument("until", f"{until} lies before the last of the dates, {last}")
            return await self._put(Calendar(name, entries, until or last))
        if until is not None:
            raise InvalidArgument("until", "belongs to dates: say which years")
        span = years_of(years, datetime.fromtimestamp(await self._store.server_time(), UTC).year)
        # In a thread: a big file, and importing the packages, takes longer than an event loop should stand still.
        found: Found
        if ics is not None:
            found = await asyncio.to_thread(events_of, ics, span)
        else:
            assert country is not None
            found = await asyncio.to_thread(holidays_of, country, subdivision, span)
        return await self._put(Calendar(name, entries_of(found.entries), found.until, found.source, found.version))

    async def _put(self, calendar: Calendar) -> Calendar:
        """Home first: what stops half-way is finished from there, by whoever fires a job or puts again."""
        said = await write(self._store, calendar, 0)
        if said.code == results.BUSY:
            raise StoreError(f"the store keeps at most {MOST_CALENDARS} calendars: delete one")
        others = range(1, self._store.shards)
        await asyncio.gather(*(write(self._store, calendar, shard, said.number, said.put_ms) for shard in others))
        return replace(calendar, put_at=said.put_ms / 1000)

    async def get(self, name: str) -> Calendar:
        """A calendar with its days (`calendar/get`). Raises UnknownCalendar, Unreadable."""
        check_calendar("name", name)
        found = await self._store.call("calendar/get", 0, name=name, known="")
        if found is None:
            raise UnknownCalendar(f"no calendar named {name!r} in {self._store.connector.location}")
        return self._read(name, *found)

    def _read(self, name: str, line: bytes, days: bytes) -> Calendar:
        try:
            return Calendar.of(name, line, days)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise Unreadable(self._store.keys.key(0, "calendar" if days else "calendar:days"), name) from None

    async def list(self) -> builtins.list[Calendar]:
        """Every calendar with its days, in order of name (`calendar/list`).

        One that can't be read is left out, and the log says so.
        """
        names = [*await heads(self._store, 0)]
        replies = await self._store.call_many([self._store.row["calendar/get"](name=name, known="") for name in names], 0)
        found = []
        for name, reply in zip(names, replies, strict=True):
            try:
                if reply:  # else it has been deleted meanwhile
                    found.append(self._read(name, *reply))
            except Unreadable as problem:
                log.warning("calendar %r is left out: %s", name, problem)
        return found

    async def delete(self, name: str, *, force: bool = False) -> bool:
        """Forget a calendar; whether there was one (`calendar/delete`).

        force: though jobs exclude by it. They fire on its days from then on, and say so.

        Raises: CalendarInUse, unless `force`. A job that is declared at this very moment is not seen.
        """
        check_calendar("name", name)
        if not force and (jobs := await self.users(name)):
            raise CalendarInUse(name, jobs)
        # Home first, which says what the copies are older than: one that is put meanwhile stays.
        home = await self._forget(name, 0, 0)
        others = range(1, self._store.shards)
        copies = await asyncio.gather(*(self._forget(name, home.number, shard) for shard in others))
        return any(said.code == results.DONE for said in (home, *copies))

    async def _forget(self, name: str, number: int, shard: int) -> Any:
        return await self._store.call("calendar/delete", shard, name=name, number=number, call=self._store.new_call())

    async def users(self, name: str) -> builtins.list[str]:
        """The jobs that exclude by a calendar, in order of name, whether there is one or not (`calendar/users`, in pages)."""
        check_calendar("name", name)
        return sorted(job for job, names in (await excluding(self._store)).items() if name in names)


async def excluding(store: Store) -> dict[str, builtins.list[str]]:
    """Of each job of the store that excludes, the calendars by which it does."""
    found = dict[str, builtins.list[str]]()
    for shard in range(store.shards):
        async for page in store.pages("calendar/users", shard, limit=JOBS):
            for at in range(0, len(page.users), 2):
                found[page.users[at].decode()] = json.loads(page.users[at + 1])
    return found


async def write(store: Store, calendar: Calendar, shard: int, number: int = 0, put_ms: int = 0) -> Any:
    """`calendar/put`, on shard 0; or of a copy, with what that answered."""
    return await store.call(
        "calendar/put",
        shard,
        name=calendar.name,
        rev=calendar.rev,
        head=calendar.head,
        days=calendar.days,
        number=number,
        put_ms=put_ms,
        most=MOST_CALENDARS,
        call=store.new_call(),
    )


async def mend(store: Store, used: Mapping[int, Collection[str]]) -> None:
    """Finish the copies of a put that stopped half-way. `used`: by shard, the calendars that are of interest there."""
    if not any(used.values()):
        return
    home = await heads(store, 0)
    for shard, names in used.items():
        there = await heads(store, shard) if names and shard else {}
        for name in names if shard else ():
            if (number := number_of(home.get(name, b""))) > number_of(there.get(name, b"")):
                calendar = await Calendars(store).get(name)
                await write(store, calendar, shard, number, round(calendar.put_at * 1000))
                log.warning("calendar %r was not the same on shard %d: it is now", name, shard)


async def heads(store: Store, shard: int) -> dict[str, bytes]:
    """By name, what stands in a shard beside the days (`calendar/list`)."""
    lines = (await store.call("calendar/list", shard)).lines
    return {lines[at].decode(errors="replace"): lines[at + 1] for at in range(0, len(lines), 2)}


def number_of(line: bytes) -> int:
    """What its put was numbered; -1: there is none, or it can't be read."""
    words = line.split(b" ", 3)
    return int(words[1]) if len(words) == 4 and words[1].isdigit() else -1
