"""put, apply: jobs that are made at run time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from lockbeat.cli._command import LOOK, DryRun, Yes, command, make_sure
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._jobfile import job_of, read_jobs
from lockbeat.cli._output import Answer, clock, fields, several
from lockbeat.cli._store import Where
from lockbeat.cli.commands.tasks import params_of
from lockbeat.client import Lockbeat
from lockbeat.errors import Conflict
from lockbeat.jobs import API, Applied
from lockbeat.monitor import nobody_runs
from lockbeat.values.visible import visible

SHOWN = 20
"""Names of each kind that people are shown."""
SIGNS = {"added": "+", "changed": "~", "removed": "-"}

Origin = Annotated[str, typer.Option(metavar="WORD", help="Whose the jobs are: what another origin has is left alone.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Jobs of other origins as well, which are this one's then.")]


@command(LOOK)
def put(
    where: Where,
    name: Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="PARAMS", help="`run.params`, as JSON: '{\"customer\": 7}'; -: from stdin."),
    ] = None,
    cron: Annotated[str | None, typer.Option(metavar="LINE", help="When: '0 9 * * mon-fri'.")] = None,
    timezone: Annotated[str | None, typer.Option(metavar="ZONE", help="Of that line: Europe/Berlin; else UTC.")] = None,
    every: Annotated[float | None, typer.Option(metavar="S", help="When: every so many seconds.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When: once, 2030-01-31T12:00:00+01:00.")] = None,
    function: Annotated[str | None, typer.Option(metavar="NAME", help="What runs; else what has the job's name.")] = None,
    queue: Annotated[str, typer.Option(metavar="QUEUE", help="Which its tasks go to.")] = "default",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="overlap=allow, jitter=5, 'tags=[\"a\"]'; may be repeated."),
    ] = None,
    origin: Origin = API,
    if_rev: Annotated[
        str | None, typer.Option(metavar="REV", help="Only if it has this rev; empty: only if there is no such job.")
    ] = None,
    take_over: TakeOver = False,
) -> Answer:
    """Make a job at run time, or change it.

    Without --cron, --every and --at it has no slots, and runs when it is triggered.
    """
    said: dict[str, Any] = {"cron": cron, "timezone": timezone, "every": every, "at": at, "function": function}
    said["params"] = params_of("put", name, params or [])
    given = {word: value for word, value in said.items() if value is not None}
    job = job_of({"name": name, "queue": queue, **dict(map(_option, option or ())), **given})

    async def question(lb: Lockbeat) -> Answer:
        with _of_another(take_over):
            done = await lb.jobs.put_one(job.with_origin(origin), if_rev=if_rev, take_over=take_over)
        state = await lb.jobs.get(name)
        coming = f"; next is {clock(state.next_slot)}" if state.next_slot else ""
        document = {"job": name, "outcome": done.outcome, "rev": done.rev, "origin": origin, **fields(state, "next_slot")}
        return Answer(document, f"{done.outcome} {name}, rev {done.rev}{coming}", await nobody_runs(lb.store, [job]))

    return where.ask(question)


def _option(text: str) -> tuple[str, Any]:
    word, equals, value = text.partition("=")
    if not word or not equals:
        raise Usage(f"--option: {visible(text)!r} must be NAME=VALUE")
    try:
        return word, json.loads(value)
    except (ValueError, RecursionError):
        return word, value


@command(LOOK)
def apply(
    where: Where,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Jobs as JSON or, in a .toml, as TOML; -: JSON from stdin.")],
    origin: Origin,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the jobs of this origin that are not in it.")] = False,
    dry_run: DryRun = False,
    take_over: TakeOver = False,
    yes: Yes = False,
) -> Answer:
    """Make the jobs of an origin what a file says.

    All of it is looked at before anything is changed.
    """
    jobs = read_jobs(file)
    if prune and not jobs and not dry_run:
        question = f"{file} has no jobs. Remove all of origin {origin}?"
        make_sure(yes, question, "nothing was removed", without_terminal="this removes all jobs of the origin")

    async def question_of(lb: Lockbeat) -> Answer:
        with _of_another(take_over):
            done = await lb.jobs.apply(jobs, origin=origin, prune=prune, dry_run=dry_run, take_over=take_over)
        remark = "" if dry_run else await nobody_runs(lb.store, jobs)
        return Answer(fields(done), [*_lines(done), _summary(done)], remark)

    return where.ask(question_of)


@contextlib.contextmanager
def _of_another(take_over: bool) -> Iterator[None]:
    """What to do about a job that belongs to another origin."""
    try:
        yield
    except Conflict as problem:
        if take_over or "belongs to origin" not in str(problem):
            raise
        raise Problem(f"{problem}: give it another name; or --take-over, and it is no longer theirs") from None


def _lines(done: Applied) -> list[str]:
    lines = []
    for kind, sign in SIGNS.items():
        names: tuple[str, ...] = getattr(done, kind)
        lines += [f"{sign} {name}" for name in names[:SHOWN]]
        lines += [f"{sign} and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return lines


def _summary(done: Applied) -> str:
    counts = ", ".join(f"{len(getattr(done, kind))} {kind}" for kind in (*SIGNS, "unchanged"))
    total = len(done.added) + len(done.changed) + len(done.unchanged)
    return f"{'would apply' if done.dry_run else 'applied'} {several(total, 'job')} of origin {done.origin}: {counts}"
