"""The ledger: what became of each slot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from lockbeat.jobs.definition import task_id
from lockbeat.store import reasons
from lockbeat.store.keys import job_of_task, slot_of_task
from lockbeat.store.records import Attempt, Retried, TaskRecord
from lockbeat.tasks import Failure
from lockbeat.values.durations import instant

KNOWN = (
    *("waiting", "in_line", "running", "retrying", "done", "failed", "lost", "cut", "stopping", "cancelled"),
    *("skipped", "missed", "anchored", "unknown"),
)
"""Situations of a slot of which there is an entry."""


class Lateness(NamedTuple):
    """By what a slot's first attempt began later than the slot, in milliseconds. None: that has not ended, or is not known."""

    jitter_ms: int
    """Held back on purpose."""
    firing_ms: int
    """From then until an instance fired it."""
    overlap_ms: int | None
    """In line, until the one before it had ended."""
    queue_ms: int | None
    """In its queue, until a worker began it."""


class Backfilled(NamedTuple):
    """By which backfill a slot was fired."""

    by: str | None
    """Who began that."""
    reason: str | None
    """Why, as they said; the first 200 bytes of it."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What became of a slot, of several that were missed together, or of a run that was triggered."""

    job: str
    slot_ms: int
    """Of a triggered run: when it was triggered."""
    state: str
    """fired: not ended yet. done, failed, lost: how its task ended. skipped, missed: not fired, see `reason`. anchored: no slot,
    but the moment at which the job's next slot was reckoned anew, see `reason`."""
    reason: str | None = None
    by: str | None = None
    """The instance that ran it, or fired it."""
    fence: int | None = None
    attempt: int | None = None
    at_ms: int | None = None
    """When it was fired, skipped, or found missed."""
    started_ms: int | None = None
    ended_ms: int | None = None
    last_ms: int | None = None
    """missed, skipped: the last slot that this entry stands for, where there may be several."""
    count: int | None = None
    """missed, skipped: how many slots it stands for; -1: too many to count, or unknown."""
    code: str | None = None
    """The CODE of `reason`, see `lockbeat.store.reasons`; None: it has none, or an attempt's error is the reason."""
    detail: str = ""
    """What the reason names: a task, an owner, milliseconds; of one that names nothing, see `fired_by`."""
    attempts_made: tuple[Attempt, ...] = ()
    """The last ten attempts, the oldest first."""
    max_attempts: int | None = None
    retry_ms: int | None = None
    """retrying: when the next attempt may begin."""
    lateness: Lateness | None = None
    """Why it began later than its slot; None: it was not fired, or for a backfill, or is no slot's."""
    run: str = ""
    """The id of a triggered run, JOB!ID; empty: it is a slot's."""
    backfill: Backfilled | None = None
    """Of a slot that a backfill fired: which; None: it was fired when it came due, or not at all."""
    in_line: bool = False
    """Whether it waits for the one before it to end."""
    retried: Retried | None = None
    """Who had it tried again, the latest time; None: nobody."""
    cancelled_fired_by: str = ""
    """Of a slot that was cancelled, see `fired_by`."""

    @property
    def slot(self) -> datetime:
        """The slot as an aware datetime, UTC."""
        return instant(self.slot_ms)

    @property
    def last_slot(self) -> datetime | None:
        """missed, skipped: the last slot that this entry stands for (aware, UTC)."""
        return None if self.last_ms is None else instant(self.last_ms)

    @property
    def at(self) -> float | None:
        """When it was fired, skipped, or found missed: seconds since the Unix epoch, by the server's clock."""
        return None if self.at_ms is None else self.at_ms / 1000

    @property
    def started_at(self) -> float | None:
        """When its last attempt began."""
        return None if self.started_ms is None else self.started_ms / 1000

    @property
    def ended_at(self) -> float | None:
        return None if self.ended_ms is None else self.ended_ms / 1000

    @property
    def retry_at(self) -> float | None:
        """retrying: when the next attempt may begin."""
        return None if self.retry_ms is None else self.retry_ms / 1000

    @property
    def fired_by(self) -> str | None:
        """The instance that fired it; None: nobody has, or it is not kept."""
        if self.run or (self.lateness is None and self.backfill is None) or self.state == "unknown":
            return None
        if self.detail and (self.code is None or self.code in reasons.FIRED_BY):
            return self.detail
        if self.cancelled_fired_by:
            return self.cancelled_fired_by
        first = self.attempts_made[0] if self.attempts_made else None
        at_once = self.lateness is not None and self.lateness.queue_ms == 0 and not self.lateness.overlap_ms
        return first.owner if first is not None and first.number == 1 and at_once else None

    @property
    def task_id(self) -> str:
        """JOB@SLOT_MS; of a triggered run JOB!ID."""
        return self.run or task_id(self.job, self.slot_ms)

    @classmethod
    def of(cls, job: str, slot_ms: int, record: bytes, failure: bytes, run: str = "") -> LedgerEntry:
        """From a row of `job/ledger`; or, of a triggered run, of `job/history`."""
        try:
            found = TaskRecord.of(record)
            last, missed = found.last, found.policies if found.state in ("missed", "skipped") else {}
            error = Failure(**json.loads(failure)).text if failure else last.error if last else None
        except (ValueError, TypeError, RecursionError):
            return cls(job, slot_ms, "unknown", reasons.sentence(reasons.UNREADABLE), code=reasons.UNREADABLE, run=run)
        state = found.slot_state
        fired = found.code in (reasons.FIRED, reasons.TOOK_PLACE, reasons.BUFFERED, reasons.BACKFILLED)
        why = reasons.sentence(found.code, found.detail) if found.code else error if state in ("failed", "retrying") else None
        is_run = found.max_attempts > 0
        return cls(
            job,
            found.spawned_ms if run else slot_ms,
            state,
            why or None,
            by=last.owner if last else found.detail if fired else None,
            fence=last.fence if last else None,
            attempt=found.attempts or None,
            at_ms=found.spawned_ms,
            started_ms=found.began_ms or None,
            ended_ms=found.ended_ms or None,
            last_ms=missed.get("last"),
            count=missed.get("count"),
            code=found.code or None,
            detail=found.detail,
            attempts_made=found.made,
            max_attempts=found.max_attempts if is_run else None,
            retry_ms=found.due_ms if state == "retrying" else None,
            lateness=_lateness(slot_ms, found) if is_run and not run and found.backfill is None else None,
            run=run,
            backfill=found.backfill and Backfilled(*(said or None for said in found.backfill)),
            in_line=_in_line(found),
            retried=found.retried,
            cancelled_fired_by=found.fired_by,
        )


def situation(entry: LedgerEntry) -> str:
    """One of KNOWN."""
    last = entry.attempts_made[-1] if entry.attempts_made else None
    if entry.state == "fired":
        return "running" if entry.started_ms is not None else "in_line" if entry.in_line else "waiting"
    if entry.state == "failed" and last is not None and last.how == "cut":
        return "cut"
    if entry.state == "cancelled" and last is not None and last.how == "running":
        return "stopping"
    return entry.state if entry.state in KNOWN else "unknown"


def entry_of(task_id: str, record: bytes, failure: bytes = b"") -> LedgerEntry | None:
    """Of the task of a slot, or of a triggered run; None: it is neither."""
    job, slot_ms = job_of_task(task_id), slot_of_task(task_id)
    return LedgerEntry.of(job, slot_ms or 0, record, failure, task_id if slot_ms is None else "") if job else None


def _in_line(record: TaskRecord) -> bool:
    return record.code == reasons.BUFFERED and not record.turn_ms


def _lateness(slot_ms: int, record: TaskRecord) -> Lateness:
    """Of a slot that was fired. Attempts that a shutdown took back before they began did not count, and nor do they here."""
    fire_ms, in_line = record.fire_ms or slot_ms, _in_line(record)
    turn_ms = record.turn_ms or record.spawned_ms
    first = record.made[0] if record.made and record.made[0].number == 1 else None
    began_ms = None if first is None else round(first.started_at * 1000)
    if began_ms is not None and record.retried and began_ms >= record.retried.at * 1000:
        began_ms = None  # it had been cancelled before anybody began it: that says nothing of its queue
    return Lateness(
        fire_ms - slot_ms,
        max(record.spawned_ms - fire_ms, 0),
        None if in_line else max(turn_ms - record.spawned_ms, 0),
        None if in_line or began_ms is None else max(began_ms - turn_ms, 0),
    )
