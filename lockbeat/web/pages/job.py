"""A job: its slots, one row each, and why each became what it did; what is next; how it is declared, and who changed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from lockbeat.errors import LockbeatError
from lockbeat.jobs import Backfill, Change, Explanation, Job, JobState, LedgerEntry, Upcoming
from lockbeat.jobs.at_work import unfinished
from lockbeat.jobs.past import State, held_ms
from lockbeat.jobs.unfinished import Unfinished
from lockbeat.jobs.why import TOLERANCE
from lockbeat.monitor import Mark, instances, nobody_runs, triggered
from lockbeat.store import reasons
from lockbeat.triggers import ByHand, Called, Trigger, trigger_from_json
from lockbeat.triggers.english import in_english
from lockbeat.triggers.zones import clocks_of
from lockbeat.values.durations import instant, span
from lockbeat.web.look import Look, Page
from lockbeat.web.render import clock

MOMENT = timedelta(milliseconds=1)
SLOTS = 60
NEXT = 10
RUNS = 10
CHANGES = 20
MOVED = 7 * 86_400.0
"""Seconds for which a page says above all that the trigger was changed."""
FARTHEST_MS = 253_402_300_799_000
DID_NOT: tuple[State, ...] = ("skipped", "missed", "cancelled", "failed", "lost")
"""States of what did not run, or not well, in the order in which they are told of."""


@dataclass(frozen=True)
class Coming:
    """A slot to come."""

    slot: datetime
    local: str
    """As the clocks of the job's zone show it."""
    note: str
    """What is odd about it."""
    fires: bool


async def job(look: Look) -> Page:
    lb = look.lb
    name = look.text("name") or ""
    slot_ms, run = look.number("slot", 0, FARTHEST_MS), look.text("run", 1100)
    slot = None if slot_ms is None else instant(slot_ms)
    state = await lb.jobs.get(name)
    told, entries, coming = await asyncio.gather(
        lb.jobs.why(name, slot, run=run, clock=clock), lb.jobs.ledger(name, SLOTS), lb.jobs.upcoming(name, NEXT)
    )
    called = isinstance(state.job.trigger, Called)
    changes, backfill, now, may, runs, nobody = await asyncio.gather(
        lb.jobs.changes(name),
        lb.jobs.get_backfill(name),
        look.now(),
        look.may(*JOB_ACTIONS, target=name),
        triggered(lb.store, lb.jobs.shard_of(name), name, RUNS),
        nobody_runs(lb.store, [] if called else [state.job]),
    )
    at_it, held = await _at_it(look, state, told, now), await _held(look, state, told, now)
    due, found = state.due_at, upcoming(state.job, coming)
    return Page(
        "job.html",
        {
            "state": state,
            "job": state.job,
            "english": in_english(state.job.trigger),
            "zone": state.job.trigger.timezone if clocks_of(state.job.trigger.timezone) else "UTC",
            "told": told,
            "picked": told.at_ms if told.at_ms is not None else -1,
            "entries": entries,
            "marks": [Mark(entry.slot_ms, entry.state) for entry in entries],
            "coming": found,
            "changes": changes[:CHANGES],
            "backfill": backfill,
            "runs": runs,
            "now": now,
            "overdue": now - due if due is not None and due < now - TOLERANCE else 0.0,
            "may": may,
            "by_hand": isinstance(state.job.trigger, ByHand),
            "called": called,
            "nobody": nobody,
            "again": None if isinstance(state.job.trigger, ByHand) else again(told.entry) or (held and held.again),
            "held": held,
            "was": {change: was(state.job, change) for change in changes[:CHANGES] if change.before},
            "last_by": next(((one.by, one.started_at) for one in entries if one.attempts_made and one.by), None),
            "lost_by": await _lost_by(look, told),
            "moved": (move := moved(state.job, changes, now)),
            "since": since(told, held, move, changes),
            "at_it": at_it,
            "stays": slot is None and run is None and (held is not None or pressable(told, may, called)),
            "newer": newer(told, entries),
            "others": others(told, entries),
            "of_one": backfill is not None and backfill.end - backfill.start == MOMENT,
            "of_backfill": "" if backfill is None else backfilled(backfill),
            "noted": any(one.note for one in found),
            "may_end": bool(told.behind and await look.may("cancel", target=told.behind.entry.task_id)),
            "options": options(state.job),
            "fired_by": fired_by,
        },
    )


JOB_ACTIONS = (
    *("pause", "resume", "trigger", "skip_next", "backfill"),
    *("pause_backfill", "resume_backfill", "cancel_backfill", "retry", "cancel"),
)


async def _at_it(look: Look, state: JobState, told: Explanation, now: float) -> Unfinished | None:
    """The job's run that has not ended; None: there is none, or its overlap is `allow`."""
    if state.open is None or (told.unfinished and told.unfinished.entry.task_id == state.open):
        return told.unfinished if state.open else None
    name = state.job.name
    return next(iter(await unfinished(look.lb.store, look.lb.jobs.shard_of(name), [state.open], round(now * 1000))), None)


@dataclass(frozen=True)
class Held:
    """A slot that has come due since the job was paused, and that nobody fires before it is resumed."""

    again: tuple[str, str]
    """From when and to when a backfill has it."""
    fires: bool
    """A resume that catches up with the latest fires it: it lies within the job's window, and no calendar excludes it."""
    skipped: int
    """How many slots a resume skips that does not catch up; -1: too many to count."""


async def _held(look: Look, state: JobState, told: Explanation, now: float) -> Held | None:
    slot_ms = held_ms(state, now)
    if slot_ms is None or told.entry is not None or told.at_ms != slot_ms or told.code != reasons.PAUSED:
        return None
    name, slot = state.job.name, instant(slot_ms)
    plain, latest = [await look.lb.jobs.resume(name, catchup, dry_run=True) for catchup in ("skip", "latest")]
    if plain is None or latest is None:  # somebody has resumed it since
        return None
    within = state.job.fires_within_ms
    fires = latest.next_slot == slot and (within < 0 or now * 1000 - slot_ms < within)
    return Held(_span(slot, slot), fires, plain.skipped)


async def _lost_by(look: Look, told: Explanation) -> str:
    """Whether the instance that lost the run is there still; empty: nothing was lost."""
    if told.entry is None or told.entry.state != "lost" or told.code != reasons.EXPIRED or not told.entry.attempts_made:
        return ""
    owner = told.entry.attempts_made[-1].owner
    if any(one.owner == owner for one in await instances(look.lb.store)):
        return f"{owner} gives signs of life: it did not die."
    return f"{owner} gives no sign of life any more: it was killed or shut down, or can't reach the store."


class Moved(NamedTuple):
    """That somebody has changed when the job is due, and what it had been."""

    change: Change
    english: str
    trigger: str
    slot: datetime | None
    """The latest slot that the job would have had since, by the trigger before; None: none, or it has it still."""


def moved(job: Job, changes: Sequence[Change], now: float) -> Moved | None:
    """The latest change of the trigger, for as long as it may be why something did not run."""
    change = next((one for one in changes if one.before), None)
    if change is None or change.at is None or change.at < now - MOVED or (before := was(job, change)) is None:
        return None
    slot_ms = before.prev(round(now * 1000))
    if slot_ms is not None and (slot_ms < change.at * 1000 or job.trigger.prev(slot_ms) == slot_ms):
        slot_ms = None
    return Moved(change, in_english(before), str(before), None if slot_ms is None else instant(slot_ms))


def by_hand(changes: Sequence[Change], at: float) -> Change | None:
    """The latest by which a job was triggered since then."""
    return next((one for one in changes if one.what == "trigger" and one.at is not None and one.at >= at), None)


def since(told: Explanation, held: Held | None, move: Moved | None, changes: Sequence[Change]) -> Change | None:
    """By which a job was triggered since it did not run: nobody is to run it a second time unawares."""
    if told.entry is not None and told.entry.state in DID_NOT:
        return by_hand(changes, told.entry.at or 0)
    if held is not None and told.at_ms is not None:
        return by_hand(changes, told.at_ms / 1000)
    return by_hand(changes, move.change.at or 0) if move is not None and move.slot is not None else None


def was(job: Job, change: Change) -> Trigger | None:
    """The trigger that a job had before a change; None: nobody knows."""
    try:
        return trigger_from_json(json.loads(change.before or "")).of_job(job.name)
    except (ValueError, LockbeatError):  # a newer version's; or it was broken
        return None


def again(entry: LedgerEntry | None) -> tuple[str, str] | None:
    """From when and to when a backfill has the slots of an entry that did not run; None: they ran, or none would be fired."""
    if entry is None or entry.run or entry.state not in ("skipped", "missed") or entry.code == reasons.EXCLUDED:
        return None
    return stretch(entry, entry)


def stretch(first: LedgerEntry, last: LedgerEntry) -> tuple[str, str]:
    """From when and to when a backfill has the slots of both, and those between."""
    return _span(first.slot, last.last_slot or last.slot)


def _span(first: datetime, last: datetime) -> tuple[str, str]:
    """From when and to when a backfill has these slots and those between, as a form says it."""
    start, end = (at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") for at in (first, last + MOMENT))
    return start, end


def pressable(told: Explanation, may: Collection[str], called: bool) -> bool:
    """Whether what is told of can be run, or tried again, by a button: then it does not become another slot under a hand."""
    if told.entry is None or told.entry.run or called:
        return False
    ended = told.entry.state in ("failed", "lost", "cancelled")
    return ("retry" in may and ended) or ("backfill" in may and again(told.entry) is not None)


def newer(told: Explanation, entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """The newest slot, where an older one is told of."""
    if told.at_ms is None or told.entry is None or told.entry.run:
        return None
    newest = next((one for one in entries if one.state != "anchored"), None)
    return newest if newest is not None and newest.slot_ms > told.at_ms else None


class Others(NamedTuple):
    """Slots that did not run for the same reason as one that is told of."""

    slots: int
    more: bool
    """There may be more than were looked at."""
    what: str
    """skipped or missed."""
    behind: bool
    """They were skipped for a run that had not ended."""
    start: str
    end: str


def others(told: Explanation, entries: Sequence[LedgerEntry]) -> Others | None:
    """What did not run as the one that is told of did not; of one that a backfill has fired since: what lies about it.

    entries: the latest, the newest first.
    """
    entry = told.entry
    if entry is None or entry.run:
        return None
    if again(entry):
        same = [one for one in entries if again(one) and _alike(one, entry)]
    elif entry.backfill:
        same = _about(entry, entries)
    else:
        return None
    same = [one for one in same if one.task_id != entry.task_id]
    if not same:
        return None
    more = len(entries) == SLOTS and same[-1].task_id == entries[-1].task_id
    more = more or any((one.count or 1) < 0 for one in same)
    slots, first = sum(max(one.count or 1, 1) for one in same), same[0]
    return Others(slots, more, first.state, first.code == reasons.OVERLAP, *stretch(same[-1], first))


def _about(entry: LedgerEntry, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Those beside it that did not run for one reason. Others beside it were fired by a backfill as well."""
    at = next((place for place, one in enumerate(entries) if one.task_id == entry.task_id), None)
    if at is None:
        return []
    found = list[LedgerEntry]()
    for beside in (reversed(entries[:at]), iter(entries[at + 1 :])):
        for one in beside:
            if again(one):
                found += [one] if not found or _alike(one, found[0]) else []
            elif not one.backfill:
                break
    return sorted(found, key=lambda one: -one.slot_ms)


def _alike(one: LedgerEntry, other: LedgerEntry) -> bool:
    return (one.state, one.code, one.detail) == (other.state, other.code, other.detail)


def backfilled(backfill: Backfill) -> str:
    """What became of its slots; what there is none of is not told."""

    def some(**counts: int) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    ended = some(
        done=backfill.done,
        failed=backfill.failed,
        cancelled=backfill.cancelled,
        missed=backfill.missed,
        running=backfill.running,
    )
    fired = f"{backfill.fired:,} fired{f' ({ended})' if ended else ''}" if backfill.fired else ""
    left = some(known=backfill.known, excluded=backfill.excluded, unknown=backfill.unknown)
    return ", ".join(filter(None, (fired, left))) or "none is fired yet"


def fired_by(entry: LedgerEntry) -> str | None:
    """The instance that fired it; None: that is not kept; empty: nobody has fired it."""
    fired = entry.lateness is not None or entry.attempts_made or entry.backfill is not None
    return entry.fired_by if fired else ""


def upcoming(job: Job, found: list[Upcoming]) -> list[Coming]:
    """What comes, as the clocks of the job's zone show it, and where these are changed."""
    zone = clocks_of(job.trigger.timezone) or UTC
    local = [one.slot.astimezone(zone) for one in found]
    notes = [""] + [_change(before, after) for before, after in pairwise(local)]
    return [
        Coming(one.slot, f"{when:%a %d %b %H:%M:%S}", "; ".join(filter(None, (one.why, note))), not one.calendar)
        for one, when, note in zip(found, local, notes, strict=False)
    ]


def _change(before: datetime, after: datetime) -> str:
    moved = ((after.utcoffset() or before.utcoffset()) or (after - after)) - (before.utcoffset() or (after - after))
    if not moved:
        return ""
    return f"clocks go {'forward' if moved.total_seconds() > 0 else 'back'} by {span(abs(moved.total_seconds()))} before this"


def options(job: Job) -> list[tuple[str, str]]:
    """What its definition says, in words."""
    ms = {
        "window": job.window_ms,
        "jitter": job.jitter_ms or None,
        "timeout": job.timeout_ms,
        "lease": job.lease_ms,
        "keep_for": job.keep_for_ms,
    }
    plain = {
        "queue": job.queue,
        "function": job.function,
        "overlap": job.overlap,
        "catchup": job.catchup,
        "max_attempts": job.max_attempts,
        "retry": str(job.retry) if job.retry else None,
        "priority": job.priority or None,
        "keep": job.keep,
        "limit": job.limit,
        "pause_after": job.pause_after,
        "exclude": ", ".join(job.exclude) or None,
        "origin": job.origin,
        "version": job.version,
    }
    lines = [(name, str(value)) for name, value in plain.items() if value is not None]
    return lines + [(name, span(value / 1000)) for name, value in ms.items() if value is not None]
