"""ls, next, ledger, why, delete: what is scheduled, and what became of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from lockbeat.beat.registry import JobState, LedgerEntry
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Cell, clock, iso, say, say_json, show, span
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.jobs import Job

STYLES = {
    "done": "green",
    "fired": "cyan",
    "running": "cyan",
    "failed": "red",
    "lost": "red",
    "skipped": "yellow",
    "missed": "red bold",
}
ABREAST = 200
"""Ledgers asked for in one go."""


def _entry_json(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "job": entry.job,
        "slot": iso(entry.slot_ms),
        "task_id": entry.task_id,
        "state": entry.state,
        "reason": entry.reason,
        "by": entry.by,
        "fence": entry.fence,
        "attempt": entry.attempt,
        "at": iso(entry.at_ms),
        "started": iso(entry.started_ms),
        "ended": iso(entry.ended_ms),
        "last_slot": iso(entry.last_ms),
        "count": entry.count,
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
    }


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
    return " ".join(flags) or "-"


async def _latest(lb: Lockbeat, states: list[JobState]) -> list[LedgerEntry | None]:
    """The newest ledger entry of each job."""
    found: list[LedgerEntry | None] = []
    for start in range(0, len(states), ABREAST):
        some = states[start : start + ABREAST]
        pages = await asyncio.gather(*(lb.jobs.ledger(state.job.name, 1) for state in some))
        found += [page[0] if page else None for page in pages]
    return found


def list_jobs(where: Where, as_json: bool) -> None:
    """Every job: trigger, next slot, last outcome."""

    async def question(lb: Lockbeat) -> tuple[list[JobState], list[LedgerEntry | None], float]:
        states = await lb.jobs.list()
        return states, await _latest(lb, states), await lb.store.server_time()

    states, latest, now = where.ask(question)
    if as_json:
        say_json(
            [
                {
                    "job": state.job.name,
                    "trigger": state.job.trigger.to_json(),
                    "schedule": str(state.job.trigger),
                    "next_slot": iso(state.next.slot_ms) if state.next else None,
                    "due": iso(state.next.due_ms) if state.next else None,
                    "due_in": round(state.next.due_ms / 1000 - now, 3) if state.next else None,
                    "running": state.open,
                    "last": _entry_json(entry) if entry else None,
                    **_options(state.job),
                }
                for state, entry in zip(states, latest, strict=True)
            ]
        )
        return
    if not states:
        say("no jobs: an instance declares its own when it starts (lockbeat run MODULE:BEAT)")
        return
    rows: list[list[Cell]] = []
    for state, entry in zip(states, latest, strict=True):
        job, coming = state.job, state.next
        rows.append(
            [
                (job.name, "bold"),
                str(job.trigger),
                clock(coming.slot_ms, now) if coming else "ended",
                span(coming.due_ms / 1000 - now) if coming else "-",
                (entry.state, STYLES.get(entry.state, "")) if entry else "-",
                clock(entry.slot_ms, now) if entry else "-",
                job.overlap,
                _flags(job),
            ]
        )
    show(("JOB", "TRIGGER", "NEXT SLOT", "IN", "LAST", "LAST SLOT", "OVERLAP", "FLAGS"), rows)


def next_slots(where: Where, name: str, n: int, as_json: bool) -> None:
    """The slots to come."""

    async def question(lb: Lockbeat) -> tuple[list[datetime], float]:
        return await lb.jobs.next(name, n), await lb.store.server_time()

    slots, now = where.ask(question)
    if as_json:
        say_json([iso(round(slot.timestamp() * 1000)) for slot in slots])
        return
    if not slots:
        say(f"{name} has ended: no slot is left")
        return
    for slot in slots:
        say(f"{clock(round(slot.timestamp() * 1000))}  in {span(slot.timestamp() - now)}")


def _duration(entry: LedgerEntry) -> str:
    if entry.started_ms is None or entry.ended_ms is None:
        return "-"
    took = entry.ended_ms - entry.started_ms
    return f"{took} ms" if took < 1000 else span(took / 1000)


def _late(entry: LedgerEntry) -> str:
    """How long after the slot it was fired."""
    if entry.at_ms is None or entry.state in ("missed", "skipped"):
        return "-"
    late = entry.at_ms - entry.slot_ms
    return f"{late} ms" if late < 1000 else span(late / 1000)


def _note(entry: LedgerEntry) -> str:
    """The reason, in one line; of a traceback its last."""
    lines = (entry.reason or "").strip().splitlines()
    note = lines[-1] if lines else ""
    if entry.state == "missed" and entry.count is not None and entry.count != 1:
        some = f"{entry.count} slots" if entry.count > 0 else "all slots"
        note = f"{some} to {clock(entry.last_ms)}: {note}"
    return note or "-"


def show_ledger(where: Where, name: str, n: int, as_json: bool) -> None:
    """What became of a job's slots."""

    async def question(lb: Lockbeat) -> list[LedgerEntry]:
        await lb.jobs.get(name)
        return await lb.jobs.ledger(name, n)

    entries = where.ask(question)
    if as_json:
        say_json([_entry_json(entry) for entry in entries])
        return
    if not entries:
        say(f"no slot of {name} has come due yet")
        return
    rows: list[list[Cell]] = [
        [
            clock(entry.slot_ms),
            (entry.state, STYLES.get(entry.state, "")),
            _late(entry),
            _duration(entry),
            entry.by or "-",
            str(entry.fence or "-"),
            _note(entry),
        ]
        for entry in entries
    ]
    show(("SLOT", "STATE", "LATE", "TOOK", "BY", "FENCE", "REASON"), rows)


def why(where: Where, name: str, when: str, as_json: bool) -> None:
    """What is known of one slot, in a sentence."""
    slot_ms = _instant(when)

    async def question(lb: Lockbeat) -> tuple[JobState, list[LedgerEntry], list[LedgerEntry], float]:
        state = await lb.jobs.get(name)
        found = await lb.jobs.ledger(name, 1, slot_ms + 1)
        oldest = (await lb.jobs.ledger(name, state.job.keep))[-1:] if not found else []
        return state, found, oldest, await lb.store.server_time()

    state, found, oldest, now = where.ask(question)
    entry = found[0] if found else None
    covered = entry is not None and (entry.slot_ms == slot_ms or (entry.last_ms is not None and entry.last_ms >= slot_ms))
    if entry is not None and covered:
        if as_json:
            say_json(_entry_json(entry))
        else:
            say(_told(entry, slot_ms))
        return
    trigger = state.job.trigger
    if trigger.prev(slot_ms) != slot_ms:
        before, after = trigger.prev(slot_ms), trigger.next(slot_ms)
        near = " and ".join(clock(ms) for ms in (before, after) if ms is not None)
        raise Problem(f"{clock(slot_ms)} is no slot of {name} ({trigger}); the nearest: {near or 'none'}")
    if slot_ms > now * 1000:
        raise Problem(f"{clock(slot_ms)} has not come due: it is in {span(slot_ms / 1000 - now)}")
    if oldest:
        raise Problem(f"the ledger of {name} begins at {clock(oldest[0].slot_ms)}; it keeps {state.job.keep} entries")
    raise Problem(f"nothing is known of {clock(slot_ms)}: {name} was not declared then, or by another definition")


def _told(entry: LedgerEntry, slot_ms: int) -> str:
    late = f" {_late(entry)} late" if entry.at_ms is not None else ""
    head = f"{entry.job} at {clock(slot_ms)}: {entry.state}"
    if entry.state in ("skipped", "missed"):
        return f"{head}, {_note(entry)}"
    by = f", by {entry.by} with fence {entry.fence}" if entry.by else ""
    took = f", took {_duration(entry)}" if entry.ended_ms else ""
    reason = f": {_note(entry)}" if entry.reason else ""
    return f"{head}{reason}; fired{late}{by}{took}"


def _instant(text: str) -> int:
    """An instant as people write it: ISO 8601, UTC unless it says otherwise; or milliseconds, as in a task id."""
    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Usage(f"SLOT: {text!r} is no time; write it as 2030-01-31T12:00:00") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1000)


def delete_job(where: Where, name: str) -> None:
    """Forget a job and its ledger."""

    async def question(lb: Lockbeat) -> bool:
        return await lb.jobs.delete(name)

    if not where.ask(question):
        raise Problem(f"no job named {name!r}")
    say(f"deleted {name} and its ledger")
