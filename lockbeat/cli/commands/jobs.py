"""ls, next, ledger, why, delete: what is scheduled, and what became of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, get_args

import typer

from lockbeat.calendars import read_view
from lockbeat.cli._command import LOOK, JobName, command
from lockbeat.cli._errors import Problem
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, first_line, iso, styled, zone_of
from lockbeat.cli._store import each
from lockbeat.cli.commands.tasks import attempt_lines
from lockbeat.client import Lockbeat
from lockbeat.jobs import CODE, Change, Job, JobState, LedgerEntry, Slot, State, around
from lockbeat.monitor import MOST_FUNCTIONS, instances
from lockbeat.store import reasons
from lockbeat.triggers import ByHand, Called
from lockbeat.values.durations import brief, span

ENTRY = "job slot task_id state reason code by fence attempt at started_at ended_at last_slot count attempts_made"
OPTIONS = "queue overlap buffer catchup cap window_ms jitter_ms timeout_ms max_attempts lease_ms priority keep limit pause_after"
"""What a job says beyond its trigger."""
TOLD = "description tags exclude function params origin"
"""And what more it says in JSON."""
TOLERANCE = 5.0
"""Seconds, by the server's clock, within which a slot that has come due is not late: whoever fires it may be about to."""
SHOWN = 60
"""Characters of a job's params in a table."""
NEGLECTED = 30.0
"""Seconds that a task may wait before `ls` says so."""
STATES = get_args(State)
MOST_MS = 253_402_300_800_000  # the year 10000


@command(LOOK)
async def ls(
    lb: Lockbeat,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only jobs with this tag.")] = None,
    state: Annotated[State | None, typer.Option(metavar="STATE", help=f"Only those: {', '.join(STATES)}.")] = None,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Only names after this one.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="How many at most.")] = 1000,
) -> Answer:
    """List jobs: trigger, next slot, last outcome."""
    now = await lb.store.server_time()  # before what it is compared with: a slot is not late because its job was read first
    states = await lb.jobs.list(tag, state=state, after=after, limit=limit + 1)
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
            "TRIGGER": str(state.job.trigger),
            "NEXT SLOT": _next_slot(state, now),
            "IN": _in(state, now),
            "LAST": _last(entry, now),
            "LAST SLOT": clock(entry.slot, now) if entry else "-",
            "OVERLAP": state.job.overlap,
            "FLAGS": _stopped(state) or _warned(_flags(state.job), problems[state.job.exclude]),
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
                "waiting_for_a_worker": _is_neglected(entry, now),
                "last": entry and fields(entry, ENTRY),
                **fields(state.job, f"{OPTIONS} {TOLD}"),
                "calendar_problems": problems[state.job.exclude],
            }
            for state, entry in found
        ],
        Table(
            rows,
            none=_nothing(namespace, tag, state, after) or none,
            spare=("OVERLAP", "FLAGS", "LAST SLOT", "NEXT SLOT"),
            wraps=("JOB", "TRIGGER", "FLAGS"),
        ),
        "no instance schedules; start one: lockbeat run MODULE:BEAT"
        if unserved
        else f"there are more: --after {shlex.quote(states[-1].job.name)}"
        if more
        else "",
    )


def _nothing(namespace: str, tag: str | None, state: str | None, after: str | None) -> str:
    """That no job is like that; empty: all were asked for."""
    said = [f"has the tag {tag}" if tag else "", f"is {state}" if state else "", f"comes after {after}" if after else ""]
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
        return f"retired at {clock(state.retired_at)}: no instance that lives declares it"
    return _paused(state.paused) if state.paused else ""


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


def _state(entry: LedgerEntry) -> str:
    """The state for people: one that is fired either waits or runs."""
    return entry.state if entry.state != "fired" else "waiting" if entry.started_ms is None else "running"


def _is_neglected(entry: LedgerEntry | None, now: float) -> bool:
    """Whether the job's task has found no worker for long."""
    if entry is None or entry.at_ms is None or entry.code == reasons.BUFFERED:
        return False
    # In the place of earlier ones: no worker began those either.
    return _state(entry) == "waiting" and (entry.code == reasons.TOOK_PLACE or now - entry.at_ms / 1000 > NEGLECTED)


def _last(entry: LedgerEntry | None, now: float) -> Cell:
    """What became of the last slot; what matters most of it where nobody runs the job."""
    if _is_neglected(entry, now):
        return "waiting for a worker", "red bold"
    return styled(_state(entry)) if entry else "-"


def _flags(job: Job) -> str:
    """The options that are not as every job has them."""
    flags = {
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


def _paused(change: Change) -> str:
    """By whom a job is paused, since when, until when, and why."""
    what = "paused" if change.what == "pause" else "skipping"
    until = f" until {clock(change.until_at)}" if change.until_at else ""
    at = f" at {clock(change.at)}" if change.at else ""
    return f"{what}{until}, by {change.by or 'somebody'}{at}{f': {change.reason}' if change.reason else ''}"


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
    return Answer([iso(slot.slot) for slot in slots if not slot.calendar], lines or f"{job} {none}")


@command(LOOK)
async def ledger(
    lb: Lockbeat,
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=100_000, help="How many, the latest first.")] = 20,
) -> Answer:
    """Show what became of a job's slots."""
    state, entries = await lb.jobs.get(job), await lb.jobs.ledger(job, n)
    rows: list[dict[str, Cell]] = [
        {
            "SLOT": clock(entry.slot),
            "STATE": styled(_state(entry)),
            "LATE": _late(entry),
            "TOOK": _duration(entry),
            "BY": entry.by if entry.by and _state(entry) != "waiting" else "-",
            "FENCE": str(entry.fence or "-"),
            "REASON": _remark(entry),
        }
        for entry in entries
    ]
    begun = state.next or _stopped(state) or _by_hand(state.job)
    none = f"no slot of {job} has come due yet" if begun else _fired_nothing(job)
    return Answer(
        [fields(entry, ENTRY) for entry in entries], Table(rows, none, spare=("FENCE", "BY", "LATE"), wraps=("REASON",))
    )


def _fired_nothing(job: str) -> str:
    return f"{job} has ended, and fired nothing: it was declared after its last slot"


def _duration(entry: LedgerEntry) -> str:
    if entry.started_ms is None or entry.ended_ms is None or entry.state == "lost":  # when it ended, nobody saw
        return "-"
    return brief(entry.ended_ms - entry.started_ms)


def _late(entry: LedgerEntry) -> str:
    """How long after the slot it was fired."""
    if entry.at_ms is None or entry.state in ("missed", "skipped"):
        return "-"
    return brief(entry.at_ms - entry.slot_ms)


def _task_at(task_id: str) -> str:
    job, _, slot = task_id.rpartition("@")
    return f"{job} at {clock(int(slot) / 1000)}" if slot.isdecimal() and len(slot) < 16 else task_id


def _note(entry: LedgerEntry) -> str:
    """The reason's first line. Task ids and milliseconds are spelled out where they are ours."""
    if entry.code is not None:
        note = reasons.sentence(entry.code, entry.detail, task=_task_at, ms=brief)
    else:
        note = first_line(entry.reason)
    if entry.state in ("missed", "skipped") and entry.count is not None and entry.count != 1:
        some = f"{entry.count} slots" if entry.count > 0 else "all slots"
        note = f"{some}, {clock(entry.slot)} to {clock(entry.last_slot)}: {note}"
    return note


def _remark(entry: LedgerEntry) -> str:
    """What the other columns of the ledger do not say."""
    remarks = [f"in attempt {entry.attempt}"] if (entry.attempt or 0) > 1 else []
    if _state(entry) == "waiting":
        remarks.append(f"no worker has begun it{f'; fired by {entry.by}' if entry.by else ''}")
    return ": ".join([*remarks, *filter(None, [_note(entry)])]) or "-"


def instant_of(text: str) -> int:
    """An instant as people write it: ISO 8601, in the zone that tables show unless it says otherwise; or ms, as in a task id."""
    if text.isascii() and text.isdigit() and len(text) > 8:
        ms = int(text)
    else:
        try:
            when = datetime.fromisoformat(text.strip())
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no time; write it as 2030-01-31T12:00:00") from None
        ms = round((when if when.tzinfo else zone_of(when)).timestamp() * 1000)
    if not 0 <= ms < MOST_MS:  # also of a date that another zone moves over the edge
        raise typer.BadParameter(f"{text!r} is no time between 1970 and the year 10000")
    return ms


SlotTime = Annotated[
    int | None,
    typer.Argument(
        metavar="SLOT",
        help="2030-01-31T12:00:00, local or --utc; or ms. Else the newest, or the one that is due.",
        parser=instant_of,
    ),
]


@command(LOOK)
async def why(lb: Lockbeat, job: JobName, slot: SlotTime = None) -> Answer:
    """Say what became of one slot, and why."""
    state, now = await lb.jobs.get(job), await lb.store.server_time()
    slot_ms = await _newest(lb, state, now) if slot is None else slot
    entry = next(iter(await lb.jobs.ledger(job, 1, slot_ms + 1)), None)
    if entry is None or max(entry.slot_ms, entry.last_ms or 0) < slot_ms:
        raise Problem(await _untold(lb, state, slot_ms, entry, now))
    nobody = await nobody_runs(lb, [state.job]) if _state(entry) == "waiting" else ""
    attempts = [f"  {line}" for line in attempt_lines(entry.attempts_made)]
    return Answer(
        fields(entry, ENTRY),
        [_told(entry, slot_ms), *([f"  {nobody}"] if nobody else []), *attempts, *_runs(state.job)],
    )


def _runs(job: Job) -> list[str]:
    """What a job runs, where its name does not say it; and whose it is."""
    if job.function == job.name and job.params is None:
        return []
    given = f" with {job.params_text}" if job.params is not None else ""
    return [f"  {job.name} runs {job.function}{given}{f'; origin: {job.origin}' if job.origin else ''}"]


async def nobody_runs(lb: Lockbeat, jobs: Sequence[Job]) -> str:
    """That no living instance can run one of these jobs, if none can."""
    living = await instances(lb.store) if jobs else []
    for job in jobs:
        serving = [instance for instance in living if job.queue in instance.queues]
        if not serving:
            return f"no instance serves queue {job.queue!r}"
        if not any(job.function in instance.tasks or len(instance.tasks) >= MOST_FUNCTIONS for instance in serving):
            return f"no instance that serves queue {job.queue!r} has a function {job.function!r}"
    return ""


async def _newest(lb: Lockbeat, state: JobState, now: float) -> int:
    """The slot that is meant where none is named: the one that has come and is not fired, or else the newest in the ledger."""
    coming, newest = state.next, await lb.jobs.ledger(state.job.name, 1)
    if newest and (coming is None or coming.slot_ms > now * 1000):
        return newest[0].last_ms or newest[0].slot_ms
    if coming is None:
        if (stopped := _stopped(state)) or not _by_hand(state.job):
            raise Problem(f"{state.job.name} is {stopped}" if stopped else _fired_nothing(state.job.name))
        raise Problem(f"{state.job.name} {NO_SLOTS}")
    return coming.slot_ms


async def _untold(lb: Lockbeat, state: JobState, slot_ms: int, before: LedgerEntry | None, now: float) -> str:
    """Why the ledger says nothing of a slot. `before`: the entry before it."""
    job, coming, paused, at = state.job, state.next, state.paused, clock(slot_ms / 1000)
    if job.trigger.prev(slot_ms) != slot_ms:
        near = " and ".join(clock(ms / 1000) for ms in (job.trigger.prev(slot_ms), job.trigger.next(slot_ms)) if ms is not None)
        return f"{at} is no slot of {job.name} ({job.trigger}); the nearest: {near or 'none'}"
    if paused and slot_ms >= (paused.at or 0) * 1000 and (coming is None or slot_ms < coming.slot_ms):
        return f"{at} is skipped if {job.name} is not resumed before: it is {_paused(paused)}"
    if state.retired_at is not None and slot_ms >= state.retired_at * 1000:
        return f"{at} is skipped if {job.name} is not declared again before: it is {_stopped(state)}"
    if slot_ms > now * 1000:
        view = await read_view(lb.store, lb.jobs.shard_of(job.name), job.exclude, job.trigger.timezone)
        excluded = next(around.upcoming(job, slot_ms, view.closed)).why
        return f"{at} has not come due: it is in {span(slot_ms / 1000 - now)}{excluded and f', and {excluded}'}"
    if coming is not None and coming.slot_ms == slot_ms and not _is_overdue(coming, now):
        held = coming.due_ms / 1000 - now
        why = f"is held back by its jitter for another {span(held)}" if held > 0 else "has just come due, and is not fired yet"
        return f"{at} of {job.name} {why}"
    if coming is not None and coming.slot_ms <= slot_ms:
        nobody = "; no instance schedules" if await _nobody_schedules(lb) else ""
        return (
            f"{at} of {job.name} is overdue by {span(now - slot_ms / 1000)}: no instance has fired it; "
            f"when one does, catch-up {job.catchup} applies{nobody}"
        )
    if before is None and (entries := await lb.jobs.ledger(job.name, job.keep)):
        return f"the ledger of {job.name} begins at {clock(entries[-1].slot)}; it keeps {job.keep} entries"
    return f"nothing is known of {at}: {job.name} was not declared then, or by another definition"


def _told(entry: LedgerEntry, slot_ms: int) -> str:
    """What became of a slot, in a sentence."""
    late = f" {_late(entry)} late" if entry.at_ms is not None else ""
    head = f"{entry.job} at {clock(slot_ms / 1000)}: {_state(entry)}"
    if entry.state in ("skipped", "missed", "anchored"):
        return f"{head}, {_note(entry)}"
    if _state(entry) == "waiting":
        return f"{head}, no worker has begun it; fired{late}{f', by {entry.by}' if entry.by else ''}"
    head += f" in attempt {entry.attempt}" if (entry.attempt or 0) > 1 else ""
    by = f", by {entry.by} with fence {entry.fence}" if entry.by else ""
    took = f", took {_duration(entry)}" if _duration(entry) != "-" else ""
    reason = f": {_note(entry)}" if entry.reason else ""
    return f"{head}{reason}; fired{late}{by}{took}"


@command(LOOK)
async def delete(lb: Lockbeat, job: JobName) -> Answer:
    """Forget a job and its ledger.

    An instance that declares it in code does so again when it starts.
    """
    if not await lb.jobs.delete(job):
        raise Problem(f"no job named {job!r}")
    return Answer({"job": job}, f"deleted {job} and its ledger")
