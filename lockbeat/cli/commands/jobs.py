"""ls, next, delete: what is scheduled."""

from __future__ import annotations

import shlex
from typing import Annotated, get_args

import typer

from lockbeat.calendars import read_view
from lockbeat.cli._command import LOOK, JobName, command
from lockbeat.cli._entries import ENTRY
from lockbeat.cli._errors import Usage
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, styled
from lockbeat.cli._store import each
from lockbeat.client import Lockbeat
from lockbeat.jobs import CODE, Job, JobState, LedgerEntry, Slot, State
from lockbeat.jobs.why import TOLERANCE, pause, retired, state_of
from lockbeat.monitor import instances
from lockbeat.store import reasons
from lockbeat.triggers import At, ByHand, Called, Trigger
from lockbeat.values.durations import span

OPTIONS = (
    "queue overlap buffer catchup cap window_ms jitter_ms timeout_ms max_attempts lease_ms priority keep keep_for_ms limit "
    "pause_after"
)
"""What a job says beyond its trigger."""
TOLD = "description tags exclude function params origin"
"""And what more it says in JSON."""
GOES_ON = "state start end total fired done failed running left by reason began_at"
"""What JSON says of a job's backfill that has not ended."""
SHOWN = 60
"""Characters of a job's params in a table."""
NEGLECTED = 30.0
"""Seconds that a task may wait before `ls` says so."""
STATES = get_args(State)


@command(LOOK)
async def ls(
    lb: Lockbeat,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Only these.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only jobs with this tag.")] = None,
    origin: Annotated[str | None, typer.Option(metavar="WORD", help="Only jobs of this origin: code, api, ...")] = None,
    state: Annotated[State | None, typer.Option(metavar="STATE", help=f"Only those: {', '.join(STATES)}.")] = None,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Only names after this one.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="How many at most.")] = 1000,
) -> Answer:
    """List jobs: trigger, next slot, last outcome."""
    now = await lb.store.server_time()  # before what it is compared with: a slot is not late because its job was read first
    if jobs and (tag or origin or state or after):
        raise Usage("say names of jobs, or --tag, --origin, --state and --after, not both")
    if jobs:
        states = [await lb.jobs.get(name) for name in dict.fromkeys(jobs)]
    else:
        states = await lb.jobs.list(tag, origin=origin, state=state, after=after, limit=limit + 1)
    states, more = states[:limit], len(states) > limit
    pages = await each(states, lambda state: lb.jobs.ledger(state.job.name, 1))
    found = [(state, page[0] if page else None) for state, page in zip(states, pages, strict=True)]
    problems = await _calendar_problems(lb, states, now)
    namespace = lb.store.keys.namespace
    none = f"no jobs in namespace {namespace}: an instance declares its own when it starts (lockbeat run MODULE:BEAT)"
    unserved = any(_is_overdue(state.next, now) for state in states) and await _nobody_schedules(lb)
    rows: list[dict[str, Cell]] = [
        {
            "JOB": (state.job.name, "bold"),
            "TRIGGER": _trigger(state.job.trigger),
            "NEXT SLOT": _next_slot(state, now),
            "IN": _in(state, now),
            "LAST": _last(entry, now),
            "LAST SLOT": clock(entry.slot, now) if entry else "-",
            "OVERLAP": state.job.overlap,
            "FLAGS": _stopped(state) or _warned(_flags(state), problems[state.job.exclude]),
        }
        for state, entry in found
    ]
    return Answer(
        [
            {
                "job": state.job.name,
                "trigger": state.job.trigger.to_json(),
                "schedule": str(state.job.trigger),
                **fields(state, "state next_slot due_at"),
                "due_in": round(state.next.due_ms / 1000 - now, 3) if state.next else None,
                "overdue": _is_overdue(state.next, now),
                **fields(state, "rev open in_line counts"),
                "paused": state.paused and fields(state.paused, "what at by reason until_at"),
                **fields(state, "retired_at"),
                "backfill": state.backfill and fields(state.backfill, GOES_ON),
                "waiting_for_a_worker": _is_neglected(entry, now),
                "last": entry and fields(entry, ENTRY),
                **fields(state.job, f"{OPTIONS} {TOLD}"),
                "calendar_problems": problems[state.job.exclude],
            }
            for state, entry in found
        ],
        Table(
            rows,
            none=_nothing(namespace, tag, origin, state, after) or none,
            spare=("OVERLAP", "FLAGS", "LAST SLOT", "NEXT SLOT"),
            wraps=("JOB", "TRIGGER", "FLAGS"),
        ),
        "no instance schedules; start one: lockbeat run MODULE:BEAT"
        if unserved
        else f"there are more: --after {shlex.quote(states[-1].job.name)}"
        if more
        else "",
    )


def _trigger(trigger: Trigger) -> str:
    """As tables show instants."""
    return f"at {clock(trigger.when_ms / 1000)}" if isinstance(trigger, At) else str(trigger)


def _nothing(namespace: str, tag: str | None, origin: str | None, state: str | None, after: str | None) -> str:
    """That no job is like that; empty: all were asked for."""
    whose = f"is of origin {origin}" if origin else ""
    said = [f"has the tag {tag}" if tag else "", whose, f"is {state}" if state else "", f"comes after {after}" if after else ""]
    return f"no job in namespace {namespace} {' and '.join(filter(None, said))}" if any(said) else ""


async def _calendar_problems(lb: Lockbeat, states: list[JobState], now: float) -> dict[tuple[str, ...], list[str]]:
    """By the calendars of a job: which of them are missing, or have no day known any more."""
    found: dict[tuple[str, ...], list[str]] = {(): []}
    for state in states:
        if (names := state.job.exclude) not in found:
            view = await read_view(lb.store, lb.jobs.shard_of(state.job.name), names, state.job.trigger.timezone)
            found[names] = view.problems(round(now * 1000))
    return found


def _warned(flags: str, problems: list[str]) -> Cell:
    return (f"{flags} ({'; '.join(problems)})", "red") if problems else flags


async def _nobody_schedules(lb: Lockbeat) -> bool:
    return not any(instance.schedules for instance in await instances(lb.store))


def _is_overdue(slot: Slot | None, now: float) -> bool:
    return slot is not None and slot.due_ms / 1000 < now - TOLERANCE


def _in(state: JobState, now: float) -> tuple[str, str]:
    if state.retired_at is not None:
        return "-", ""
    return ("paused", "yellow") if state.paused else _until(state.due_at or _called_for(state.job, now), now)


def _stopped(state: JobState) -> str:
    """Why no slot of a job is fired; empty: some are."""
    if state.retired_at is not None:
        return retired(state.retired_at, clock)
    return pause(state.paused, clock) if state.paused else ""


def _next_slot(state: JobState, now: float) -> str:
    if state.retired_at is not None:
        return "retired"
    if (called := _called_for(state.job, now)) is not None:
        return clock(called, now)
    if state.next is None:
        return "-" if state.paused or _by_hand(state.job) else "ended"
    return clock(state.next_slot, now)


def _called_for(job: Job, now: float) -> float | None:
    """The next slot of a job that is run by those who call for its slots, in seconds since the Unix epoch."""
    slots = job.trigger.slots if isinstance(job.trigger, Called) else None
    slot_ms = None if slots is None else slots.next(round(now * 1000))
    return None if slot_ms is None else slot_ms / 1000


def _until(due_at: float | None, now: float) -> tuple[str, str]:
    """How far off an instant is that ought to come: 0.4 s, now, overdue 9 m 33 s."""
    if due_at is None:
        return "-", ""
    if due_at < now:
        return (f"overdue {span(now - due_at)}", "red") if now - due_at > TOLERANCE else ("now", "")
    return span(due_at - now), ""


def _is_neglected(entry: LedgerEntry | None, now: float) -> bool:
    """Whether the job's task has found no worker for long."""
    if entry is None or entry.at_ms is None or entry.code == reasons.BUFFERED:
        return False
    # In the place of earlier ones: no worker began those either.
    return state_of(entry) == "waiting" and (entry.code == reasons.TOOK_PLACE or now - entry.at_ms / 1000 > NEGLECTED)


def _last(entry: LedgerEntry | None, now: float) -> Cell:
    """What became of the last slot; what matters most of it where nobody runs the job."""
    if _is_neglected(entry, now):
        return "waiting for a worker", "red bold"
    return styled(state_of(entry)) if entry else "-"


def _flags(state: JobState) -> str:
    """The options that are not as every job has them; and its backfill, as far as it has come."""
    job, fills = state.job, state.backfill
    flags = {
        "backfill": fills and f"{fills.total - fills.left}/{fills.total}{' (paused)' * (fills.state == 'paused')}",
        "origin": job.origin if job.origin != CODE else None,
        "catchup": job.catchup if job.catchup != "latest" else None,
        "window": job.window_ms and f"{job.window_ms / 1000:g}s",
        "jitter": job.jitter_ms and f"{job.jitter_ms / 1000:g}s",
        "timeout": job.timeout_ms and f"{job.timeout_ms / 1000:g}s",
        "attempts": job.max_attempts if job.max_attempts > 1 else None,
        "queue": job.queue if job.queue != "default" else None,
        "priority": job.priority,
        "buffer": job.buffer if job.buffer != 100 else None,
        "cap": job.cap if job.cap != 100 else None,
        "keep_for": job.keep_for_ms and span(job.keep_for_ms / 1000),
        "limit": job.limit,
        "pause_after": job.pause_after,
        "tags": ",".join(job.tags),
        "exclude": ",".join(job.exclude),
        "function": job.function if job.function != job.name else None,
        "params": job.params_text if len(job.params_text) <= SHOWN else f"{job.params_text[:SHOWN]}...",
    }
    given = [f"{name}={value}" for name, value in flags.items() if value]
    return " ".join([*given, *([repr(job.description)] if job.description else [])]) or "-"


NO_SLOTS = "has no slots: it runs when it is triggered"
NOT_CALLED = "has no slots: it runs when it is called, by lockbeat exec"


def _by_hand(job: Job) -> bool:
    """Whether it has no slots, and only runs when somebody triggers it."""
    return isinstance(job.trigger, ByHand)


@command(LOOK, "next")
async def next_slots(
    lb: Lockbeat, job: JobName, n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=10_000, help="How many.")] = 5
) -> Answer:
    """Show a job's next slots."""
    now = await lb.store.server_time()
    slots, state = await lb.jobs.upcoming(job, n), await lb.jobs.get(job)
    none = f"is {stopped}" if (stopped := _stopped(state)) else "has ended: no slot is left"
    if _by_hand(state.job) and not stopped:
        none = NOT_CALLED if isinstance(state.job.trigger, Called) else NO_SLOTS
    lines = []
    for slot in slots:
        # The next one may be held back by its jitter: then it is not late.
        text, _ = _until(state.due_at if slot.slot == state.next_slot else slot.slot.timestamp(), now)
        lines.append(f"{clock(slot.slot)}  {slot.why or 'in ' * text[0].isdigit() + text}")
    return Answer([fields(slot, "slot calendar entry why") for slot in slots], lines or f"{job} {none}")
