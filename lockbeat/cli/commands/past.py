"""ledger, history, why: what became of jobs' slots and triggered runs."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, get_args

import typer

from lockbeat.cli._command import LOOK, JobName, command
from lockbeat.cli._entries import ENTRY, ago_or_at, counted, instant_at, instant_of, late, remark, who
from lockbeat.cli._errors import Usage
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, is_terminal, iso, styled
from lockbeat.cli.commands.tasks import attempt_lines
from lockbeat.client import Lockbeat
from lockbeat.errors import UnknownTask
from lockbeat.jobs import Explanation, Job
from lockbeat.jobs.past import State
from lockbeat.jobs.why import pause, state_of, took
from lockbeat.monitor import nobody_runs
from lockbeat.triggers import ByHand, Called
from lockbeat.values.durations import instant

WROTE = 20
"""Lines that are shown of what a command wrote last; JSON has all that is kept."""


SlotTime = Annotated[
    int | None,
    typer.Argument(
        metavar="SLOT",
        help="2030-01-31T12:00:00, local or --utc; or ms. Else the newest, or the one that is due.",
        parser=instant_of,
    ),
]
When = "24h, 7d: so long ago; or a time."


@command(LOOK)
async def ledger(
    lb: Lockbeat,
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=100_000, help="How many, the latest first.")] = 20,
) -> Answer:
    """Show what became of a job's slots.

    On a terminal it says below how often what became of them since the job was declared, also of those that are forgotten.
    """
    state, entries = await lb.jobs.get(job), await lb.jobs.ledger(job, n)
    rows: list[dict[str, Cell]] = [
        {
            "SLOT": clock(entry.slot),
            "STATE": styled(state_of(entry)),
            "LATE": late(entry),
            "TOOK": took(entry),
            "BY": who(entry),
            "FENCE": str(entry.fence or "-"),
            "REASON": remark(entry),
        }
        for entry in entries
    ]
    none = f"no slot of {job} has come due yet"
    if not (state.next or state.paused or state.retired_at or isinstance(state.job.trigger, ByHand)):
        none = f"{job} has ended, and fired nothing: it was declared after its last slot"
    return Answer(
        [fields(entry, ENTRY) for entry in entries],
        Table(rows, none, spare=("FENCE", "BY", "LATE"), wraps=("REASON",)),
        f"since {job} was declared: {counted(state.counts)}" if rows and is_terminal() else "",
    )


@command(LOOK)
async def history(
    lb: Lockbeat,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help=When, parser=ago_or_at)] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help=When, parser=ago_or_at)] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="Only of this job.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only of jobs with this tag.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATES", help="Only these, as failed,missed: see the states of `ledger`.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="MORE", help="Go on after an answer: what it named as `more`.")] = None,
) -> Answer:
    """Show what became of all jobs, the newest first.

    Slots and triggered runs, by when they were fired, skipped, found missed or triggered; as far back as each ledger keeps.
    """
    now = await lb.store.server_time()
    states = [word for text in state or () for word in text.split(",") if word]
    unknown = [word for word in states if word not in get_args(State)]
    if unknown:
        raise Usage(f"no such state: {unknown[0]!r}; there are {', '.join(get_args(State))}")
    wanted: Any = states
    found = await lb.jobs.history(
        instant_at(since, now), instant_at(until, now), job=job, tag=tag, states=wanted, limit=limit, after=after
    )
    rows: list[dict[str, Cell]] = [
        {
            "WHEN": clock(entry.at, now),
            "JOB": (entry.job, "bold"),
            "SLOT": "triggered" if entry.run else clock(entry.slot, now),
            "STATE": styled(state_of(entry)),
            "LATE": late(entry),
            "TOOK": took(entry),
            "BY": who(entry),
            "REASON": remark(entry),
        }
        for entry in found.entries
    ]
    none = "nothing has happened" if not (since or until or job or tag or states) else "nothing of that has happened"
    return Answer(
        {"entries": [fields(entry, ENTRY) for entry in found.entries], "more": found.more},
        Table(rows, none, spare=("BY", "LATE", "SLOT"), wraps=("JOB", "REASON")),
        f"there is more: --after '{found.more}' shows it" if found.more else "",
    )


@command(LOOK)
async def why(lb: Lockbeat, job: JobName, slot: SlotTime = None) -> Answer:
    """Say what became of one slot, or will, and why.

    Of a run that was triggered, say its id, JOB!ID, in the place of JOB. Exit code 1: nothing has become of it.
    """
    name, bang, run = job.rpartition("!")
    if bang and slot is None and re.fullmatch("[0-9a-f]{12}", run):
        told = await lb.jobs.why(name, run=job, clock=clock)
    else:
        told = await lb.jobs.why(job, None if slot is None else instant(slot), clock=clock)
    lines, wrote = [told.text], dict[str, Any]()
    if told.entry is not None:
        state = await lb.jobs.get(told.job) if not told.entry.run else None
        job_of = state.job if state else None
        nobody = await nobody_runs(lb.store, [job_of]) if job_of and told.situation == "waiting" else ""
        lines += [f"  {line}" for line in (nobody, *attempt_lines(told.entry.attempts_made)) if line]
        lines += _behind(told)
        lines += _runs(job_of) if job_of else []
        if slot is None and state and state.paused:  # the newest slot is from before
            lines.append(f"  {job} is {pause(state.paused, clock)}")
        lines += [f"  logs: {told.log_url}"] if told.log_url else []
        if job_of is not None and isinstance(job_of.trigger, Called):
            wrote = await _wrote(lb, told.entry.task_id)
            lines += [f"  | {line}" for line in wrote.get("output", "").splitlines()[-WROTE:]]
    return Answer({**_document(told), **wrote}, lines, code=int(told.entry is None))


def _behind(told: Explanation) -> list[str]:
    """How to end the run for which a slot was skipped, or behind which it waits."""
    return [f"  end that: lockbeat cancel {shlex.quote(told.behind.entry.task_id)}"] if told.behind else []


async def _wrote(lb: Lockbeat, task_id: str) -> dict[str, Any]:
    """Of a command that `lockbeat exec` ran: its exit code, and the end of what it wrote."""
    try:
        info = await lb.tasks.get(task_id)
    except UnknownTask:  # of a slot that was not run, or is forgotten since
        return {}
    said = info.result or (info.failure and info.failure.detail)
    return {name: said[name] for name in ("exit_code", "output")} if isinstance(said, dict) else {}


def _runs(job: Job) -> list[str]:
    """What a job runs, where its name does not say it; and whose it is."""
    if job.function == job.name and job.params is None:
        return []
    given = f" with {job.params_text}" if job.params is not None else ""
    return [f"  {job.name} runs {job.function}{given}{f'; origin: {job.origin}' if job.origin else ''}"]


def _document(told: Explanation) -> dict[str, Any]:
    """An explanation as JSON has it: the entry's fields, and what more there is to say."""
    blank: dict[str, Any] = {**dict.fromkeys(ENTRY.split()), "job": told.job, "slot": told.slot and iso(told.slot)}
    known = blank if told.entry is None else fields(told.entry, ENTRY)
    more: dict[str, Any] = {"before": told.before and iso(told.before), "after": told.after and iso(told.after)}
    run = told.unfinished
    more["unfinished"] = run and {
        "id": run.entry.task_id,
        "situation": run.situation,
        "seconds": run.seconds,
        "usual": run.usual,
        "hangs": run.hangs,
    }
    return {**known, "code": told.code, "situation": told.situation, "text": told.text, "log_url": told.log_url, **more}
