"""Commands about jobs and what became of their slots."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli._store import Where
from lockbeat.cli.commands.shared import LOOK, AsJson, JobName, Namespace, Url, Utc, app


@app.command("ls", rich_help_panel=LOOK)
def ls(
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only jobs with this tag.", show_default=False)] = None,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """List jobs: trigger, next slot, last outcome."""
    from lockbeat.cli._jobs import list_jobs

    list_jobs(Where(url, namespace), tag, as_json)


@app.command("next", rich_help_panel=LOOK)
def next_(
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=10_000, help="How many.")] = 5,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's next slots."""
    from lockbeat.cli._jobs import next_slots

    next_slots(Where(url, namespace), job, n, as_json)


@app.command(rich_help_panel=LOOK)
def ledger(
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=100_000, help="How many, the latest first.")] = 20,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show what became of a job's slots."""
    from lockbeat.cli._jobs import show_ledger

    show_ledger(Where(url, namespace), job, n, as_json)


@app.command(rich_help_panel=LOOK)
def why(
    job: JobName,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="2030-01-31T12:00:00, local or --utc; or ms.", show_default=False)],
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Say what became of one slot, and why."""
    from lockbeat.cli._jobs import why as tell

    tell(Where(url, namespace), job, slot, as_json)


@app.command(rich_help_panel=LOOK)
def delete(job: JobName, url: Url = None, namespace: Namespace = "lockbeat") -> None:
    """Forget a job and its ledger.

    An instance that declares it in code does so again when it starts.
    """
    from lockbeat.cli._jobs import delete_job

    delete_job(Where(url, namespace), job)
