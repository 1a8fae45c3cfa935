"""calendars, calendar: days on which the jobs that exclude by them don't fire."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lockbeat.calendars import Calendar, excluding
from lockbeat.cli._command import LOOK, app, command
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, several
from lockbeat.client import Lockbeat
from lockbeat.errors import CalendarInUse

CALENDAR = "name source version until put_at entries"


class _OrShow(TyperGroup):
    """`calendar NAME` is `calendar show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


one = typer.Typer(cls=_OrShow)
app.add_typer(one, name="calendar", rich_help_panel=LOOK, help="Show, put or delete a calendar: `calendar NAME` shows it.")

CalendarName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the calendar.")]


def _document(calendar: Calendar, jobs: list[str]) -> dict[str, Any]:
    days = [{"first": str(entry.first), "last": str(entry.last), "name": entry.name} for entry in calendar.entries]
    return fields(calendar, CALENDAR) | {"until": str(calendar.until), "entries": days, "jobs": jobs, "missing": False}


def _missing(name: str, jobs: list[str]) -> dict[str, Any]:
    return {"name": name, **dict.fromkeys(CALENDAR.split()[1:-1]), "entries": [], "jobs": jobs, "missing": True}


def _source(calendar: Calendar) -> str:
    return f"{calendar.source} {calendar.version}".rstrip()


def _among(jobs: list[str]) -> str:
    return ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "") or "-"


@command(LOOK)
async def calendars(lb: Lockbeat) -> Answer:
    """List calendars, and which jobs exclude by them."""
    found, used = await lb.calendars.list(), await excluding(lb.store)
    today = datetime.fromtimestamp(await lb.store.server_time(), UTC).date()
    missing = sorted({name for names in used.values() for name in names} - {calendar.name for calendar in found})
    rows: list[Mapping[str, Cell]] = []
    for calendar in found:
        coming = next((str(entry) for entry in calendar.entries if entry.last >= today), "-")
        rows.append(
            {
                "CALENDAR": (calendar.name, "bold"),
                "UNTIL": str(calendar.until) if calendar.until >= today else (f"{calendar.until}, over", "red"),
                "NEXT": coming,
                "JOBS": _among(_users(used, calendar.name)),
                "SOURCE": _source(calendar),
            }
        )
    for name in missing:
        jobs = _among(_users(used, name))
        rows.append({"CALENDAR": (name, "bold"), "UNTIL": ("missing", "red bold"), "NEXT": "-", "JOBS": jobs, "SOURCE": "-"})
    documents = [_document(calendar, _users(used, calendar.name)) for calendar in found]
    none = f"no calendars in namespace {lb.store.keys.namespace}: lockbeat calendar put NAME 2026-12-25 keeps one"
    return Answer(
        documents + [_missing(name, _users(used, name)) for name in missing],
        Table(rows, none, spare=("SOURCE", "NEXT"), wraps=("JOBS", "SOURCE", "NEXT")),
    )


def _users(used: Mapping[str, Iterable[str]], name: str) -> list[str]:
    return sorted(job for job, names in used.items() if name in names)


@command(LOOK, of=one)
async def show(lb: Lockbeat, name: CalendarName) -> Answer:
    """Show a calendar's days, and which jobs exclude by it."""
    calendar, jobs = await lb.calendars.get(name), await lb.calendars.users(name)
    over = calendar.until < datetime.fromtimestamp(await lb.store.server_time(), UTC).date()
    return Answer(
        _document(calendar, jobs),
        [
            f"{name}: {_source(calendar)}, put {clock(calendar.put_at)}",
            f"  known until {calendar.until}{': it is over, and its jobs fire every day' if over else ''}",
            f"  excluded by: {', '.join(jobs) or 'no job'}",
            *(f"  {entry}" for entry in calendar.entries),
        ],
    )


@command(LOOK, of=one)
async def put(
    lb: Lockbeat,
    name: CalendarName,
    dates: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATES]...",
            help="2026-12-25, 2026-12-24..2027-01-01 or, with a name, '2026-12-25 Christmas'.",
        ),
    ] = None,
    ics: Annotated[str | None, typer.Option("--ics", metavar="FILE", help="Whole-day events of an iCalendar file.")] = None,
    country: Annotated[str | None, typer.Option("--country", metavar="CODE", help="Public holidays: DE, or DE-BY.")] = None,
    years: Annotated[
        str | None,
        typer.Option(metavar="YEARS", help="2026 or 2026-2028; else this year and the two after it."),
    ] = None,
) -> Answer:
    """Keep a calendar, in the place of the one of that name."""
    if sum(source is not None for source in (dates or None, ics, country)) != 1:
        raise Usage("say which days: DATES, --ics FILE or --country CODE")
    span = None if years is None else _years(years)
    if country is not None:
        code, _, subdivision = country.partition("-")
        calendar = await lb.calendars.put(name, country=code, subdivision=subdivision or None, years=span)
    else:
        calendar = await lb.calendars.put(name, dates or None, ics=ics, years=span)
    jobs = await lb.calendars.users(name)
    days = f"{len(calendar.entries)} {'entry' if len(calendar.entries) == 1 else 'entries'}"
    source = "" if calendar.source == "dates" else f", from {_source(calendar)}"
    used = f"; {several(len(jobs), 'job')} {'exclude' if len(jobs) > 1 else 'excludes'} by it" if jobs else ""
    return Answer(_document(calendar, jobs), f"put {name}: {days}, known until {calendar.until}{source}{used}")


def _years(text: str) -> range:
    found = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", text, re.ASCII)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise Usage(f"--years: {text!r} is no year and no span of years; write 2026 or 2026-2028")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


@command(LOOK, of=one)
async def delete(
    lb: Lockbeat,
    name: CalendarName,
    force: Annotated[bool, typer.Option("--force", help="Though jobs exclude by it: they fire on its days then.")] = False,
) -> Answer:
    """Forget a calendar."""
    try:
        deleted = await lb.calendars.delete(name, force=force)
    except CalendarInUse as problem:
        raise Problem(f"{problem}; --force deletes it, and they fire on its days") from None
    if not deleted:
        raise Problem(f"no calendar named {name!r}")
    return Answer({"name": name}, f"deleted calendar {name}")
