"""pause, resume, skip-next, trigger, delete, changes: a person steps in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated, Any, cast

import typer

from lockbeat.cli._command import LOOK, By, DryRun, JobName, Yes, command, make_sure
from lockbeat.cli._entries import ago_or_at, instant_at
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Answer, Table, clock, fields, iso, say, several
from lockbeat.cli._store import Where, each
from lockbeat.cli.commands.tasks import params_of
from lockbeat.client import Lockbeat
from lockbeat.jobs import Change, JobState, Resumed
from lockbeat.jobs.control import PAUSE, RETIRED
from lockbeat.monitor import instances
from lockbeat.tasks import Spawned
from lockbeat.tasks.look import CALLED
from lockbeat.triggers import ByHand, Called, upcoming
from lockbeat.values.durations import instant

CHANGE = "what at by reason until_at"

Names = Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Names of jobs.")]
Every = Annotated[bool, typer.Option("--all", help="Every job.")]
OfQueue = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Every job of this queue.")]
Tag = Annotated[str | None, typer.Option(metavar="TAG", help="Every job with this tag.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="For those who look later.")]
Until = Annotated[
    str | None, typer.Option(metavar="WHEN", help="30m, 24h: so long from now; or 2030-01-31T12:00:00.", parser=ago_or_at)
]


async def _chosen(
    lb: Lockbeat, names: list[str] | None, every: bool, queue: str | None, tag: str | None, unfit: Callable[[JobState], str]
) -> list[JobState]:
    """The jobs of those names, or those of the others that are fit. `unfit`: why a job is not; one that is named is an error."""
    if bool(names) == (every or queue is not None or tag is not None):
        raise Usage(f"say which: names of jobs, or --all, --queue QUEUE or --tag TAG{' (not both)' * bool(names)}")
    if not names:
        return [state for state in await lb.jobs.list(tag) if queue in (None, state.job.queue) and not unfit(state)]
    states = [await lb.jobs.get(name) for name in dict.fromkeys(names)]
    for state in states:
        if why := unfit(state):
            raise Problem(f"job {state.job.name!r} {why}")
    return states


def _is_over(state: JobState) -> str:
    if state.retired_at is not None:
        return RETIRED
    if state.next is not None or state.paused is not None or isinstance(state.job.trigger, Called):
        return ""
    return "has no slots: it runs when it is triggered" if isinstance(state.job.trigger, ByHand) else "has no slot left"


def _has_none_to_skip(state: JobState) -> str:
    if state.retired_at is not None:
        return RETIRED
    if state.paused is not None and state.paused.what == PAUSE:
        return "is paused: its slots are skipped anyway"
    if isinstance(state.job.trigger, Called):
        return CALLED
    return _is_over(state) or ("" if state.next else "has no slot to skip")


def _is_not_paused(state: JobState) -> str:
    return "" if state.paused is not None and state.retired_at is None else "is not paused"


@command(LOOK)
async def pause(
    lb: Lockbeat,
    jobs: Names = None,
    every: Every = False,
    queue: OfQueue = None,
    tag: Tag = None,
    until: Until = None,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
) -> Answer:
    """Fire no slot of jobs until they are resumed.

    What runs goes on.
    """
    states = await _chosen(lb, jobs, every, queue, tag, _is_over)
    ends = instant_at(until, await lb.store.server_time(), ahead=True)

    async def one(state: JobState) -> tuple[str, bool]:
        name, new = state.job.name, state.paused is None
        return name, new if dry_run else await lb.jobs.pause(name, reason, ends, by=by)

    done = await each(states, one)
    verb, ending = "would pause" if dry_run else "paused", f" until {clock(ends)}" if ends else ""
    return Answer(
        [{"job": name, "was_paused": not new, "until_at": ends and iso(ends), "dry_run": dry_run} for name, new in done],
        [f"{verb} {name}{ending}{'' if new else ', which was paused before'}" for name, new in done] or "no job to pause",
    )


@command(LOOK)
async def resume(
    lb: Lockbeat,
    as_json: bool,
    jobs: Names = None,
    every: Every = False,
    queue: OfQueue = None,
    tag: Tag = None,
    catchup: Annotated[
        str, typer.Option(metavar="HOW", help="The slots of the pause: `skip` them, fire the `latest`, or `all`.")
    ] = "skip",
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
) -> Answer:
    """Let paused jobs go on.

    It says first which slots are skipped, and which comes next.
    """
    states = await _chosen(lb, jobs, every, queue, tag, lambda state: "" if jobs else _is_not_paused(state))
    how = cast("Any", catchup)  # `resume` looks at it
    would = [way for way in await each(states, lambda one: lb.jobs.resume(one.job.name, how, dry_run=True)) if way]
    if jobs and not would:
        raise Problem(f"not paused: {', '.join(jobs)}")
    done, called = would, {state.job.name for state in states if isinstance(state.job.trigger, Called)}
    if not dry_run:
        for way in would:
            if not as_json:
                say(_told(way, called))
        there = {way.job for way in would}
        again = [state for state in states if state.job.name in there]
        done = [way for way in await each(again, lambda one: lb.jobs.resume(one.job.name, how, reason=reason, by=by)) if way]
    lines = [_told(way, called) if dry_run else f"meanwhile {_told(way, called)}" for way in done if dry_run or way not in would]
    return Answer(
        [fields(way, "job skipped first_slot last_slot next_slot") | {"dry_run": dry_run} for way in done],
        [
            *lines,
            f"{'would resume' if dry_run else 'resumed'} {several(len(done), 'job')}" if done else "no job is paused",
        ],
    )


def _told(way: Resumed, called: Collection[str]) -> str:
    """How a job goes on."""
    if way.job in called:
        return f"{way.job}: goes on with the next call, by lockbeat exec"
    first, last, coming = (slot and clock(slot) for slot in (way.first_slot, way.last_slot, way.next_slot))
    count = "all slots" if way.skipped < 0 else several(way.skipped, "slot")
    skipped = f"{count} skipped, {first}{f' to {last}' * (first != last)}" if way.skipped else "no slot is skipped"
    return f"{way.job}: {skipped}; {f'next is {coming}' if coming else 'none is left'}"


@command(LOOK)
async def skip_next(
    lb: Lockbeat,
    jobs: Names = None,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=1000, help="How many slots of each.")] = 1,
    every: Every = False,
    queue: OfQueue = None,
    tag: Tag = None,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
) -> Answer:
    """Skip the next slots of jobs; `resume` takes it back."""

    async def one(state: JobState) -> tuple[str, datetime]:
        name = state.job.name
        if not dry_run:
            return name, await lb.jobs.skip_next(name, n, reason, by=by)
        assert state.next is not None
        return name, instant(upcoming(state.job.trigger, state.next.slot_ms - 1, n)[-1])

    done = await each(await _chosen(lb, jobs, every, queue, tag, _has_none_to_skip), one)
    what = f"{'would skip' if dry_run else 'skips'} {several(n, 'slot')} of"
    return Answer(
        [{"job": name, "last_slot": iso(last), "dry_run": dry_run} for name, last in done],
        [f"{what} {name}, the last at {clock(last)}" for name, last in done] or "no job has a slot to skip",
    )


@command(LOOK)
async def trigger(
    lb: Lockbeat,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Name of the job.")] = None,
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PARAMS]", help='`run.params`, as JSON: \'{"to": "ann"}\'; -: from stdin.'),
    ] = None,
    every: Every = False,
    queue: OfQueue = None,
    tag: Tag = None,
    overlap: Annotated[str | None, typer.Option(metavar="allow", help="Also while a task of it has not ended.")] = None,
    reason: Reason = None,
    by: By = None,
    dry_run: DryRun = False,
) -> Answer:
    """Run a job now, beside its slots.

    Or each of a tag, of a queue, or all.
    """
    many = every or queue is not None or tag is not None
    words = [*filter(None, [job]), *(params or [])] if many else params or []
    said = params_of("trigger", "--tag TAG" if many else job or "JOB", words)
    states = await _chosen(lb, None if many or job is None else [job], every, queue, tag, _can_not_be_triggered)
    how = cast("Any", overlap)  # `trigger` looks at it

    async def one(state: JobState) -> tuple[JobState, Spawned | None]:
        name = state.job.name
        return state, None if dry_run else await lb.jobs.trigger(name, said, overlap=how, reason=reason, by=by)

    done, living = await each(states, one), await instances(lb.store)
    served = {each_queue for instance in living for each_queue in instance.queues}
    unserved = sorted({state.job.queue for state in states} - served)
    nobody = f"no instance serves queue {', '.join(map(repr, unserved))}" if unserved else ""
    if not many and not dry_run:
        [(_, spawned)] = done
        assert spawned is not None
        if not spawned.created:
            raise Problem(f"nothing was triggered: {_is_under_way(spawned)}; --overlap allow runs beside it")
        return Answer({"job": job, "task_id": spawned.task_id}, f"triggered {spawned.task_id}", nobody)
    return Answer(
        [
            {
                "job": state.job.name,
                "task_id": spawned and spawned.task_id,
                "triggered": spawned is not None and spawned.created,
                "dry_run": dry_run,
            }
            for state, spawned in done
        ],
        [_triggered(state, spawned) for state, spawned in done] or "no job to trigger",
        nobody,
    )


def _can_not_be_triggered(state: JobState) -> str:
    return RETIRED if state.retired_at is not None else CALLED if isinstance(state.job.trigger, Called) else ""


def _is_under_way(spawned: Spawned) -> str:
    return f"{spawned.task_id} has not ended"


def _triggered(state: JobState, spawned: Spawned | None) -> str:
    if spawned is None:
        return f"would trigger {state.job.name}"
    return f"triggered {spawned.task_id}" if spawned.created else f"not {state.job.name}: {_is_under_way(spawned)}"


@command(LOOK)
def delete(
    where: Where,
    jobs: Names = None,
    every: Every = False,
    queue: OfQueue = None,
    tag: Tag = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Answer:
    """Forget jobs and their ledgers.

    Asks first where they are not named, unless --yes. An instance that declares one in code does so again when it starts.
    """
    many = every or queue is not None or tag is not None
    names = [*dict.fromkeys(jobs or ())]
    if many or dry_run or not names:
        names = [state.job.name for state in where.ask(lambda lb: _chosen(lb, jobs, every, queue, tag, lambda _: ""))]
    if dry_run:
        return Answer(
            [{"job": name, "dry_run": True} for name in names],
            [f"would delete {name} and its ledger" for name in names] or "no job to delete",
        )
    if many and names:
        question = f"Forget {several(len(names), 'job')}, and what their ledgers say?"
        make_sure(yes, question, "nothing was deleted", without_terminal="this forgets jobs and their ledgers")
    done = dict(zip(names, where.ask(lambda lb: each(names, lambda name: lb.jobs.delete(name, by=by))), strict=True))
    deleted = [name for name in names if done[name]]
    if not many and (missing := [name for name in names if not done[name]]):
        rest = f"; deleted: {', '.join(deleted)}" if deleted else ""
        raise Problem(f"no job named {', '.join(map(repr, missing))}{rest}")
    lines = [f"deleted {name} and its ledger" for name in deleted] or ["no job to delete"]
    one = not many and len(names) == 1
    return Answer({"job": names[0]} if one else [{"job": name, "dry_run": False} for name in deleted], lines)


@command(LOOK)
async def changes(lb: Lockbeat, job: JobName) -> Answer:
    """Show who has paused, resumed, skipped or triggered a job."""
    found = await lb.jobs.changes(job)
    rows = [
        {
            "AT": clock(change.at),
            "WHAT": change.what.replace("_", "-"),
            "BY": change.by or "-",
            "UNTIL": clock(change.until_at),
            "REASON": _why(change),
        }
        for change in found
    ]
    return Answer([fields(change, CHANGE) for change in found], Table(rows, f"nobody has changed {job}", wraps=("REASON",)))


def _why(change: Change) -> str:
    return change.reason or ("its pause was over" if change.by is None else "-")
