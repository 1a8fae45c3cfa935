"""import: what other schedulers have, as jobs of the store.

A crontab is printed with `lockbeat exec` in front of its commands. Entries of Celery's schedulers become what
`lockbeat.celery:Scheduler` makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockbeat.cli import _crontab
from lockbeat.cli._command import LOOK, app, command
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._input import text_of
from lockbeat.cli._load import own_error
from lockbeat.cli._output import Answer, Table, complain
from lockbeat.cli._store import Where, each
from lockbeat.cli.commands.applying import TakeOver
from lockbeat.cli.commands.exec import EARLY, TTL
from lockbeat.client import Lockbeat
from lockbeat.errors import LockbeatError, MissingExtra
from lockbeat.exec.holding import Request
from lockbeat.jobs.calling import EXEC, declare
from lockbeat.triggers import Called, Cron

if TYPE_CHECKING:
    from lockbeat.celery.importing import Entry

App = Annotated[str, typer.Argument(metavar="APP", help="The Celery app, as `celery -A` takes it: proj, or proj.celery:app.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each entry.")]

importing = typer.Typer(help="Bring in what another scheduler has.", no_args_is_help=True)
app.add_typer(importing, name="import", rich_help_panel=LOOK)


@importing.callback()
def group() -> None:
    """Bring in what another scheduler has."""


@command(LOOK, of=importing)
def crontab(
    where: Where,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Its path; -: from stdin, as `crontab -l` writes it.")],
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of its schedules, where no line CRON_TZ= says another.")] = "UTC",
    system: Annotated[bool, typer.Option("--system", help="With a column for the user, as /etc/crontab.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the crontab.")] = False,
) -> Answer:
    """Print a crontab whose commands run once for all hosts.

    Its lines become jobs of the store, which `ls` shows; what is printed goes into the crontab of each host. Lines that can't be
    are left as they are, and told of on stderr.
    """
    lines = list(_crontab.read(_text(file), timezone=timezone, system=system))
    found = [line for line in lines if line.name]
    if not found:
        raise Usage(f"{file} has no line that calls a command; each begins with five fields, or @daily and its like")
    for line in lines:
        if line.left:
            complain(f"line {line.number} is left as it is: {line.left}")
    if not dry_run:
        where.ask(partial(_put, found))
    return Answer(
        [
            {
                "line": line.number,
                "job": line.name or None,
                "slot": line.slot or None,
                "crontab": line.wrapped or line.text,
                "left": line.left or None,
            }
            for line in lines
        ],
        [line.wrapped or line.text for line in lines],
    )


async def _put(lines: Sequence[_crontab.Line], lb: Lockbeat) -> None:
    async def one(line: _crontab.Line) -> None:
        request = Request(line.name, TTL, 0.0, EARLY, Called(Cron(line.slot, line.timezone)))
        await declare(lb.jobs, request.job().with_origin(EXEC))

    await each(lines, one)


def _text(file: str) -> str:
    try:
        return text_of(file)
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise Usage(f"{file} can't be read: {reason}") from None


@command(LOOK, of=importing)
def celery(where: Where, app: App, take_over: TakeOver = False, dry_run: Dry = False) -> Answer:
    """Entries of an app's beat_schedule, and of add_periodic_task.

    For a schedule that leaves the code: what stays in it, lockbeat.celery:Scheduler declares by itself.
    """
    return _import(where, "of_celery", app, take_over, dry_run)


@command(LOOK, of=importing)
def redbeat(where: Where, app: App, take_over: TakeOver = False, dry_run: Dry = False) -> Answer:
    """Entries that RedBeat keeps in Redis, as the app's settings say where.

    Those of the code's beat_schedule are left: lockbeat.celery:Scheduler declares them.
    """
    return _import(where, "of_redbeat", app, take_over, dry_run)


@command(LOOK, of=importing)
def django_celery_beat(where: Where, app: App, take_over: TakeOver = False, dry_run: Dry = False) -> Answer:
    """Periodic tasks of django-celery-beat's tables, read through Django.

    Those of the code's beat_schedule are left: lockbeat.celery:Scheduler declares them.
    """
    return _import(where, "of_django", app, take_over, dry_run)


def _import(where: Where, source: str, target: str, take_over: bool, dry_run: bool) -> Answer:
    try:
        from lockbeat.celery import importing as entries
    except ImportError as problem:
        raise MissingExtra(str(problem)) from None
    try:
        app = entries.app_of(target)
    except LockbeatError:
        raise
    except (Exception, SystemExit) as problem:
        raise own_error(target, problem) from problem
    try:
        found = sorted(getattr(entries, source)(app), key=lambda entry: entry.name)
    except LockbeatError:
        raise
    except Exception as problem:  # its database, its Redis
        raise Problem(f"the entries of {target} can't be read: {type(problem).__name__}: {problem}") from problem
    if not found:
        raise Usage(f"{target} has no entries there")
    if not dry_run:
        found = where.ask(lambda lb: each(found, partial(entries.put, lb, take_over=take_over, by="import")))
    for entry in found:
        if entry.left:
            complain(f"{entry.name} is left: {entry.left}")
        for fault in entry.faults:
            complain(f"{entry.name}: {fault}")
    return Answer([_row(entry) for entry in found], [Table([_cells(entry) for entry in found], wraps=["NOTES"])])


def _row(entry: Entry) -> dict[str, Any]:
    job = entry.job
    return {
        "entry": entry.name,
        "task": entry.task or None,
        "job": None if job is None else job.name,
        "schedule": None if job is None else str(job.trigger),
        "params": None if job is None else job.params,
        "paused": entry.paused or None,
        "left": entry.left or None,
        "notes": list(entry.notes),
        "faults": list(entry.faults),
    }


def _cells(entry: Entry) -> dict[str, str]:
    said = "left" if entry.job is None else "paused" if entry.paused else "job"
    schedule = "-" if entry.job is None else str(entry.job.trigger)
    notes = "; ".join(filter(None, (entry.paused, *entry.notes, *entry.faults)))
    return {"ENTRY": entry.name, "BECOMES": said, "SCHEDULE": schedule, "TASK": entry.task or "-", "NOTES": notes or "-"}
