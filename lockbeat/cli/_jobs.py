"""ls, next, ledger, why, delete: what is scheduled, and what became of it."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import Any

from lockbeat.cli._attempts import attempt_lines, attempts_json
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import TOLERANCE, Cell, clock, complain, iso, overdue, say, say_json, show, zone_of
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.jobs import Job, JobState, LedgerEntry, Slot
from lockbeat.monitor import instances
from lockbeat.store import reasons
from lockbeat.values.durations import brief, span

STYLES = {
    "done": "green",
    "waiting": "yellow",
    "running": "cyan",
    "failed": "red",
    "lost": "red",
    "skipped": "yellow",
    "cancelled": "yellow",
    "missed": "red bold",
    "anchored": "yellow",
}
ABREAST = 200
"""Ledgers asked for in one go."""
WAITING = "waiting for a worker"
NEGLECTED = 30.0
"""Seconds that a task may wait before `ls` says so."""
MOST_MS = 253_402_300_800_000  # the year 10000


def _entry_json(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "job": entry.job,
        "slot": iso(entry.slot_ms),
        "task_id": entry.task_id,
        "state": entry.state,
        "reason": entry.reason,
        "code": entry.code,
        "by": entry.by,
        "fence": entry.fence,
        "attempt": entry.attempt,
        "at": iso(entry.at_ms),
        "started_at": iso(entry.started_ms),
        "ended_at": iso(entry.ended_ms),
        "last_slot": iso(entry.last_ms),
        "count": entry.count,
        "attempts_made": attempts_json(entry.attempts_made),
    }


def _options(job: Job) -> dict[str, Any]:
    """What a job says beyond its trigger."""
    return {
        "queue": job.queue,
        "overlap": job.overlap,
        "catchup": job.catchup,
        "window_ms": job.window_ms,
        "jitter_ms": job.jitter_ms,
        "timeout_ms": job.timeout_ms,
        "max_attempts": job.max_attempts,
        "lease_ms": job.lease_ms,
        "priority": job.priority,
        "keep": job.keep,
        "limit": job.limit,
        "description": job.description,
        "tags": [*job.tags],
    }


def _state(entry: LedgerEntry) -> str:
    """The state for people: one that is fired either waits or runs."""
    return entry.state if entry.state != "fired" else "waiting" if entry.started_ms is None else "running"


def _neglected(entry: LedgerEntry | None, now: float) -> bool:
    """Whether the job's task has found no worker for long."""
    if entry is None or entry.at_ms is None:
        return False
    # In the place of earlier ones: no worker began those either.
    return _state(entry) == "waiting" and (entry.code == reasons.TOOK_PLACE or now - entry.at_ms / 1000 > NEGLECTED)


async def _nobody_schedules(lb: Lockbeat) -> bool:
    return not any(instance.schedules for instance in await instances(lb.store))


def _last(entry: LedgerEntry | None, now: float) -> Cell:
    """What became of the last slot; what matters most of it where nobody runs the job."""
    if _neglected(entry, now):
        return (WAITING, "red bold")
    return (_state(entry), STYLES.get(_state(entry), "")) if entry else "-"


def _flags(job: Job) -> str:
    """The options that are not as every job has them."""
    flags = []
    if job.catchup != "latest":
        flags.append(f"catchup={job.catchup}")
    if job.window_ms is not None:
        flags.append(f"window={job.window_ms / 1000:g}s")
    if job.jitter_ms:
        flags.append(f"jitter={job.jitter_ms / 1000:g}s")
    if job.timeout_ms:
        flags.append(f"timeout={job.timeout_ms / 1000:g}s")
    if job.max_attempts > 1:
        flags.append(f"attempts={job.max_attempts}")
    if job.queue != "default":
        flags.append(f"queue={job.queue}")
    if job.priority:
        flags.append(f"priority={job.priority}")
    if job.limit is not None:
        flags.append(f"limit={job.limit}")
    if job.tags:
        flags.append(f"tags={','.join(job.tags)}")
    if job.description:
        flags.append(repr(job.description))
    return " ".join(flags) or "-"


async def _latest(lb: Lockbeat, states: list[JobState]) -> list[LedgerEntry | None]:
    """The newest ledger entry of each job."""
    found: list[LedgerEntry | None] = []
    for start in range(0, len(states), ABREAST):
        some = states[start : start + ABREAST]
        pages = await asyncio.gather(*(lb.jobs.ledger(state.job.name, 1) for state in some))
        found += [page[0] if page else None for page in pages]
    return found


def list_jobs(where: Where, tag: str | None, as_json: bool) -> None:
    """Every job, or those with a tag: trigger, next slot, last outcome."""

    async def question(lb: Lockbeat) -> tuple[list[JobState], list[LedgerEntry | None], float, bool]:
        now = await lb.store.server_time()  # before what it is compared with: a slot is not late because its job was read first
        states = await lb.jobs.list(tag)
        latest = await _latest(lb, states)
        late = any(_is_overdue(state.next, now) for state in states)
        return states, latest, now, late and await _nobody_schedules(lb)

    states, latest, now, unserved = where.ask(question)
    if as_json:
        say_json(
            [
                {
                    "job": state.job.name,
                    "trigger": state.job.trigger.to_json(),
                    "schedule": str(state.job.trigger),
                    "next_slot": iso(state.next.slot_ms) if state.next else None,
                    "due_at": iso(state.next.due_ms) if state.next else None,
                    "due_in": round(state.next.due_ms / 1000 - now, 3) if state.next else None,
                    "overdue": _is_overdue(state.next, now),
                    "open": state.open,
                    "counts": state.counts._asdict(),
                    "waiting_for_a_worker": _neglected(entry, now),
                    "last": _entry_json(entry) if entry else None,
                    **_options(state.job),
                }
                for state, entry in zip(states, latest, strict=True)
            ]
        )
        return
    if not states and tag is not None:
        say(f"no job in namespace {where.namespace} has the tag {tag}")
        return
    if not states:
        say(f"no jobs in namespace {where.namespace}: an instance declares its own when it starts (lockbeat run MODULE:BEAT)")
        return
    rows: list[list[Cell]] = []
    for state, entry in zip(states, latest, strict=True):
        job, coming = state.job, state.next
        rows.append(
            [
                (job.name, "bold"),
                str(job.trigger),
                clock(coming.slot_ms, now) if coming else "ended",
                _soon(coming, now) if coming else "-",
                _last(entry, now),
                clock(entry.slot_ms, now) if entry else "-",
                job.overlap,
                _flags(job),
            ]
        )
    columns = ("JOB", "TRIGGER", "NEXT SLOT", "IN", "LAST", "LAST SLOT", "OVERLAP", "FLAGS")
    show(columns, rows, spare=("OVERLAP", "FLAGS", "LAST SLOT", "NEXT SLOT"), wraps=("JOB", "TRIGGER", "FLAGS"))
    if unserved:
        sys.stdout.flush()
        complain("no instance schedules; start one: lockbeat run MODULE:BEAT")


def _is_overdue(slot: Slot | None, now: float) -> bool:
    return slot is not None and slot.due_ms / 1000 < now - TOLERANCE


def _soon(slot: Slot, now: float) -> Cell:
    text = overdue(slot.due_ms, now)
    return (text, "red") if _is_overdue(slot, now) else text


def next_slots(where: Where, name: str, n: int, as_json: bool) -> None:
    """The slots to come."""

    async def question(lb: Lockbeat) -> tuple[list[datetime], Slot | None, float]:
        now = await lb.store.server_time()
        return await lb.jobs.next(name, n), (await lb.jobs.get(name)).next, now

    slots, coming, now = where.ask(question)
    if as_json:
        say_json([iso(round(slot.timestamp() * 1000)) for slot in slots])
        return
    if not slots:
        say(f"{name} has ended: no slot is left")
        return
    for slot in slots:
        slot_ms = round(slot.timestamp() * 1000)
        # The next one may be held back by its jitter: then it is not late.
        text = overdue(coming.due_ms if coming is not None and coming.slot_ms == slot_ms else slot_ms, now)
        say(f"{clock(slot_ms)}  {'in ' * text[0].isdigit()}{text}")


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
    return f"{job} at {clock(int(slot))}" if slot.isdecimal() and len(slot) < 16 else task_id


def _note(entry: LedgerEntry) -> str:
    """The reason's first line. Task ids and milliseconds are spelled out where they are ours."""
    if entry.code is not None:
        note = reasons.sentence(entry.code, entry.detail, task=_task_at, ms=brief)
    else:
        note = next(iter((entry.reason or "").strip().splitlines()), "")
    if entry.state == "missed" and entry.count is not None and entry.count != 1:
        some = f"{entry.count} slots" if entry.count > 0 else "all slots"
        note = f"{some}, {clock(entry.slot_ms)} to {clock(entry.last_ms)}: {note}"
    return note


def _remark(entry: LedgerEntry) -> str:
    """What the other columns of the ledger do not say."""
    remarks = [f"in attempt {entry.attempt}"] if (entry.attempt or 0) > 1 else []
    if _state(entry) == "waiting":
        remarks.append(f"no worker has begun it{f'; fired by {entry.by}' if entry.by else ''}")
    return ": ".join([*remarks, *filter(None, [_note(entry)])]) or "-"


def show_ledger(where: Where, name: str, n: int, as_json: bool) -> None:
    """What became of a job's slots."""

    async def question(lb: Lockbeat) -> tuple[list[LedgerEntry], Slot | None]:
        coming = (await lb.jobs.get(name)).next
        return await lb.jobs.ledger(name, n), coming

    entries, coming = where.ask(question)
    if as_json:
        say_json([_entry_json(entry) for entry in entries])
        return
    if not entries:
        if coming is None:
            say(f"{name} has ended, and fired nothing: it was declared after its last slot")
        else:
            say(f"no slot of {name} has come due yet")
        return
    rows: list[list[Cell]] = [
        [
            clock(entry.slot_ms),
            (_state(entry), STYLES.get(_state(entry), "")),
            _late(entry),
            _duration(entry),
            entry.by if entry.by and _state(entry) != "waiting" else "-",
            str(entry.fence or "-"),
            _remark(entry),
        ]
        for entry in entries
    ]
    columns = ("SLOT", "STATE", "LATE", "TOOK", "BY", "FENCE", "REASON")
    show(columns, rows, spare=("FENCE", "BY", "LATE"), wraps=("REASON",))


def why(where: Where, name: str, when: str, as_json: bool) -> None:
    """What is known of one slot, in a sentence."""
    slot_ms = _instant(when)

    async def question(lb: Lockbeat) -> tuple[JobState, list[LedgerEntry], list[LedgerEntry], float, bool]:
        state = await lb.jobs.get(name)
        found = await lb.jobs.ledger(name, 1, slot_ms + 1)
        oldest = (await lb.jobs.ledger(name, state.job.keep))[-1:] if not found else []
        return state, found, oldest, await lb.store.server_time(), await _nobody_schedules(lb)

    state, found, oldest, now, unserved = where.ask(question)
    entry = found[0] if found else None
    covered = entry is not None and (entry.slot_ms == slot_ms or (entry.last_ms is not None and entry.last_ms >= slot_ms))
    if entry is not None and covered:
        if as_json:
            say_json(_entry_json(entry))
        else:
            say(_told(entry, slot_ms))
            if len(entry.attempts_made) > 1:
                for line in attempt_lines(entry.attempts_made):
                    say(f"  {line}")
        return
    trigger = state.job.trigger
    if trigger.prev(slot_ms) != slot_ms:
        before, after = trigger.prev(slot_ms), trigger.next(slot_ms)
        near = " and ".join(clock(ms) for ms in (before, after) if ms is not None)
        raise Problem(f"{clock(slot_ms)} is no slot of {name} ({trigger}); the nearest: {near or 'none'}")
    if slot_ms > now * 1000:
        raise Problem(f"{clock(slot_ms)} has not come due: it is in {span(slot_ms / 1000 - now)}")
    if state.next is not None and state.next.slot_ms <= slot_ms:
        if state.next.slot_ms == slot_ms and state.next.due_ms > now * 1000:
            held = span(state.next.due_ms / 1000 - now)
            raise Problem(f"{clock(slot_ms)} of {name} is held back by its jitter for another {held}")
        if state.next.slot_ms == slot_ms and not _is_overdue(state.next, now):
            raise Problem(f"{clock(slot_ms)} of {name} has just come due, and is not fired yet")
        nobody = "; no instance schedules" if unserved else ""
        raise Problem(
            f"{clock(slot_ms)} of {name} is overdue by {span(now - slot_ms / 1000)}: no instance has fired it; "
            f"when one does, catch-up {state.job.catchup} applies{nobody}"
        )
    if oldest:
        raise Problem(f"the ledger of {name} begins at {clock(oldest[0].slot_ms)}; it keeps {state.job.keep} entries")
    raise Problem(f"nothing is known of {clock(slot_ms)}: {name} was not declared then, or by another definition")


def _told(entry: LedgerEntry, slot_ms: int) -> str:
    late = f" {_late(entry)} late" if entry.at_ms is not None else ""
    head = f"{entry.job} at {clock(slot_ms)}: {_state(entry)}"
    if entry.state in ("skipped", "missed", "anchored"):
        return f"{head}, {_note(entry)}"
    if _state(entry) == "waiting":
        fired = f"; fired{late}, by {entry.by}" if entry.by else f"; fired{late}"
        return f"{head}, no worker has begun it{fired}"
    head += f" in attempt {entry.attempt}" if (entry.attempt or 0) > 1 else ""
    by = f", by {entry.by} with fence {entry.fence}" if entry.by else ""
    took = f", took {_duration(entry)}" if _duration(entry) != "-" else ""
    reason = f": {_note(entry)}" if entry.reason else ""
    return f"{head}{reason}; fired{late}{by}{took}"


def _instant(text: str) -> int:
    """An instant as people write it: ISO 8601, in the zone that tables show unless it says otherwise; or ms, as in a task id."""
    if text.isascii() and text.isdigit() and len(text) > 8:
        if int(text) >= MOST_MS:
            raise Usage(f"SLOT: {text} ms is no time before the year 10000")
        return int(text)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Usage(f"SLOT: {text!r} is no time; write it as 2030-01-31T12:00:00") from None
    when = when if when.tzinfo else zone_of(when)
    ms = round(when.timestamp() * 1000)
    if not 0 <= ms < MOST_MS:  # also of a date that another zone moves over the edge
        raise Usage(f"SLOT: {text!r} is no time between 1970 and the year 10000")
    return ms


def delete_job(where: Where, name: str) -> None:
    """Forget a job and its ledger."""

    async def question(lb: Lockbeat) -> bool:
        return await lb.jobs.delete(name)

    if not where.ask(question):
        raise Problem(f"no job named {name!r}")
    say(f"deleted {name} and its ledger")
