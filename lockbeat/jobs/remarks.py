"""What is remarked of a ledger entry in a line, beside its state. Pure. `why` says it in sentences."""

from __future__ import annotations

from lockbeat.jobs.ledger import LedgerEntry
from lockbeat.jobs.why import Clock, iso, state_of, told_of
from lockbeat.store import reasons
from lockbeat.values.durations import brief
from lockbeat.values.visible import first_line


def remark(entry: LedgerEntry, clock: Clock = iso, most: int | None = None) -> str:
    """Why it is so, and what its state does not say; empty: nothing. most: characters of what a function or a person said."""
    remarks = [f"in attempt {entry.attempt}"] if (entry.attempt or 0) > 1 else []
    if state_of(entry) == "waiting":
        remarks.append(f"no worker has begun it{f'; fired by {entry.by}' if entry.by else ''}")
    note = "" if entry.code == reasons.RETRIED else _note(entry, clock, most)
    if entry.retried:
        again = f"tried again by {entry.retried.by or 'somebody'}"
        note = f"{note}; {again}" if note else again
    if entry.backfill:
        said = f"backfilled by {told_of(entry.backfill)}"
        note = said if note in ("", reasons.SENTENCES[reasons.BACKFILLED]) else f"{note}; {said}"
    return ": ".join([*remarks, *filter(None, [note])])


def _note(entry: LedgerEntry, clock: Clock, most: int | None) -> str:
    """The reason's first line. Task ids and milliseconds are spelled out where they are ours."""

    def task(task_id: str) -> str:
        job, _, slot = task_id.rpartition("@")
        return f"{job} at {clock(int(slot) / 1000)}" if slot.isdecimal() and len(slot) < 16 else task_id

    if entry.code is not None:
        note = reasons.sentence(entry.code, entry.detail, task=task, ms=brief)
    else:
        note = first_line(entry.reason)[:most]
    if entry.state in ("missed", "skipped") and entry.count is not None and entry.count != 1:
        some = f"{entry.count} slots" if entry.count > 0 else "all slots"
        last_ms = entry.slot_ms if entry.last_ms is None else entry.last_ms
        note = f"{some}, {clock(entry.slot_ms / 1000)} to {clock(last_ms / 1000)}: {note}"
    return note
