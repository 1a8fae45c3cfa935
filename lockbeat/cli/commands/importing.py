"""import crontab: the same crontab with `lockbeat exec` in front of its commands, and its lines as jobs of the store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from lockbeat.cli import _crontab
from lockbeat.cli._command import LOOK, app, command
from lockbeat.cli._errors import Usage
from lockbeat.cli._output import Answer, complain
from lockbeat.cli._store import Where
from lockbeat.cli.commands.exec import EARLY, TTL
from lockbeat.client import Lockbeat
from lockbeat.exec.holding import Request
from lockbeat.jobs.calling import EXEC, declare
from lockbeat.triggers import Called, Cron

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
    for line in lines:
        request = Request(line.name, TTL, 0.0, EARLY, Called(Cron(line.slot, line.timezone)))
        await declare(lb.jobs, request.job().with_origin(EXEC))


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        with open(file) as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise Usage(f"{file} can't be read: {reason}") from None
