"""backfill, backfills: past slots that have not run are fired; how far that has come; and what stops it."""

from __future__ import annotations

import asyncio
import shlex
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lockbeat.cli._command import LOOK, By, DryRun, JobName, Yes, command, make_sure
from lockbeat.cli._entries import ago_or_at, instant_at
from lockbeat.cli._errors import Problem, Usage, until_signalled
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, is_terminal, iso, several, styled
from lockbeat.cli._store import Where
from lockbeat.cli.commands.control import Reason
from lockbeat.client import Lockbeat
from lockbeat.errors import UnknownJob
from lockbeat.jobs import UNCONFIRMED, Backfill
from lockbeat.jobs.backfills import Going
from lockbeat.leases.lease import monotonic
from lockbeat.monitor import instances, nobody_runs
from lockbeat.values.visible import visible

COUNTS = "done failed cancelled missed running known excluded unknown left"
BACKFILL = f"job state start end at total fired {COUNTS} rate by reason began_at ended_at"
LOOK_AGAIN = 0.2
"""Seconds between looks at how far it has come."""
LOOK_FOR_SOMEBODY = 1.0
"""Seconds between looks for an instance that goes on with it."""
PATIENCE = 10.0
"""Seconds without one until nobody waits any more: an instance that is started anew is back by then."""
NOBODY = 4
"""The exit code then."""
WORDS = {"known": "known to the ledger", "unknown": "of which nobody knows", "running": "under way"}


@command(LOOK)
def backfill(
    where: Where,
    as_json: bool,
    job: JobName,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="WHEN", help="Slots from then on: 2030-01-31T12:00:00; or so long ago: 24h.", parser=ago_or_at
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="WHEN", help="And before then; else up to now.", parser=ago_or_at)
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Fire at most N slots a second.")] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Also slots of which nobody knows whether they ran.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Let it fire nothing more for now.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it; what it has fired runs.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; on a terminal it does.")] = False,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Answer:
    """Fire past slots that have not run.

    Without --from, show how far that has come.
    With more than 1000 slots it asks first, unless --yes.
    Exit code 4: it was waited for, and there is no instance that goes on with it.
    """
    verbs = [verb for verb, said in (("pause", pause), ("resume", resume), ("cancel", cancel)) if said]
    if len(verbs) + (start is not None) > 1:
        raise Usage("say one of --from, --pause, --resume and --cancel")
    if start is None and (end is not None or rate is not None or unknown or dry_run):
        raise Usage("say --from TIME: the slots from then on")

    async def told(lb: Lockbeat) -> Backfill:
        if (found := await lb.jobs.get_backfill(job)) is None:
            raise Problem(f"{job} has no backfill; --from TIME begins one")
        return found

    async def step_in(lb: Lockbeat) -> Backfill:
        verb = {"pause": lb.jobs.pause_backfill, "resume": lb.jobs.resume_backfill, "cancel": lb.jobs.cancel_backfill}[verbs[0]]
        await verb(job, reason, by=by)
        return await told(lb)

    async def begin(lb: Lockbeat, *, plan: bool, confirm: bool) -> Backfill:
        now = await lb.store.server_time()
        since, before = instant_at(start, now), instant_at(end, now)
        assert since is not None
        if before is not None and since >= before:
            raise Usage(f"--from must lie before --to, which is not included: {iso(since)} is not before {iso(before)}")
        return await lb.jobs.backfill(
            job, since, before, rate=rate, confirm=confirm, unknown=unknown, dry_run=plan, reason=reason, by=by
        )

    async def do(lb: Lockbeat) -> tuple[Backfill, str, bool]:
        found, ended = await (step_in(lb) if verbs else told(lb) if start is None else begin(lb, plan=False, confirm=True)), False
        if (wait or (is_terminal() and not as_json)) and not found.is_over and found.state != "paused":
            found, ended = await _followed(lb, found, shown=is_terminal() and not as_json)
        nobody = "" if found.is_over or found.state == "paused" else await _nobody(lb, found)
        return found, nobody, ended and bool(nobody)

    if start is not None and (dry_run or not yes):
        planned = where.ask(lambda lb: begin(lb, plan=True, confirm=True))
        if dry_run:
            return Answer(fields(planned, BACKFILL) | {"dry_run": True}, _told(planned))
        if planned.total > UNCONFIRMED:
            question = f"{_told(planned)}. Fire them?"
            make_sure(yes, question, "nothing was begun", without_terminal=f"these are {planned.total} slots of {job}")
    found, nobody, given_up = where.ask(do)
    remark = f"{nobody}; start one: lockbeat run MODULE:BEAT" if nobody else ""
    lines = [_told(found), f"  begun{f' at {clock(found.began_at)}' if found.began_at else ''} by {_by(found)}"]
    return Answer(fields(found, BACKFILL), lines, remark, code=NOBODY if given_up else 0)


@command(LOOK)
async def backfills(
    lb: Lockbeat,
    state: Annotated[Going | None, typer.Option(metavar="STATE", help=f"Only those: {', '.join(get_args(Going))}.")] = None,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Only of jobs after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=100_000, help="How many at most.")] = 1000,
) -> Answer:
    """List the backfills of all jobs, the last of each in a week."""
    now = await lb.store.server_time()
    found = await lb.jobs.backfills(state=state, after=after, limit=limit + 1)
    found, more = found[:limit], len(found) > limit
    rows: list[dict[str, Cell]] = [
        {
            "JOB": (each.job, "bold"),
            "STATE": styled(each.state),
            "FROM": clock(each.start),
            "TO": clock(each.end),
            "SLOTS": str(each.total),
            "FIRED": str(each.fired),
            "LEFT": str(each.left),
            "RESULT": _counted(each, skip=("left",)) or "-",
            "BEGUN": clock(each.began_at, now),
            "BY": each.by or "-",
            "REASON": each.reason or "-",
        }
        for each in found
    ]
    none = f"no job has {'a backfill' if state is None else f'one that is {state}'}{f' after {after}' if after else ''}"
    return Answer(
        [fields(each, BACKFILL) for each in found],
        Table(rows, none, spare=("BEGUN", "BY", "REASON", "TO"), wraps=("JOB", "RESULT", "REASON")),
        f"there are more: --after {shlex.quote(found[-1].job)}" if more else "",
    )


async def _nobody(lb: Lockbeat, found: Backfill) -> str:
    """That no instance carries it on, or runs what it has fired, if none does."""
    if not any(one.schedules for one in await instances(lb.store)):
        return "no instance schedules, so nothing goes on"
    try:
        return await nobody_runs(lb.store, [(await lb.jobs.get(found.job)).job])
    except UnknownJob:  # it was deleted meanwhile, and its backfill with it
        return ""


def _by(found: Backfill) -> str:
    return f"{found.by or 'somebody'}{f': {found.reason}' if found.reason else ''}"


def _counted(found: Backfill, skip: tuple[str, ...] = ()) -> str:
    counts = {name: getattr(found, name) for name in COUNTS.split() if name not in skip}
    return ", ".join(f"{number} {WORDS.get(name, name)}" for name, number in counts.items() if number)


def _told(found: Backfill) -> str:
    """How far it has come, in a line."""
    fires = f"would fire {found.fired}" if found.state == "planned" else f"{found.fired} fired"
    rest = _counted(found, skip=("left",) if found.state == "planned" else ())
    rest = f", {rest}" if rest else ""
    head = f"{found.job}: backfill from {clock(found.start)} to {clock(found.end)}"
    return f"{head}{'' if found.state == 'planned' else f' {found.state}'}: {several(found.total, 'slot')}, {fires}{rest}"


async def _followed(lb: Lockbeat, found: Backfill, *, shown: bool) -> tuple[Backfill, bool]:
    """As it stands when it has ended, or was paused; or when a signal comes, which ends the looking alone. And whether none of
    these came: for so long no instance was there that would go on with it.
    """
    alone_since, look = None, monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with until_signalled() as ended, Progress(*columns, console=Console(), disable=not shown, transient=True) as progress:
        bar = progress.add_task(visible(found.job), total=found.total or 1)
        while not found.is_over and found.state != "paused":
            progress.update(bar, completed=found.total - found.left, total=found.total or 1)
            await asyncio.wait((ended,), timeout=LOOK_AGAIN)
            if ended.done():
                break
            now = await lb.jobs.get_backfill(found.job)
            if now is None:
                raise Problem(f"{found.job} has no backfill any more: it was deleted, or the store was emptied")
            found = now
            if monotonic() >= look:
                alone = bool(await _nobody(lb, found))
                alone_since, look = (alone_since or monotonic()) if alone else None, monotonic() + LOOK_FOR_SOMEBODY
                if alone_since is not None and monotonic() - alone_since >= PATIENCE:
                    return found, True
        progress.update(bar, completed=found.total - found.left)
    return found, False
