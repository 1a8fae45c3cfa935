"""The ledger: what became of each slot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from lockbeat.jobs.definition import task_id
from lockbeat.store import reasons
from lockbeat.store.records import Attempt, TaskRecord
from lockbeat.tasks import Failure
from lockbeat.values.durations import instant


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What became of a slot, or of several that were missed together."""

    job: str
    slot_ms: int
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
    """What the reason names: a task, an owner, milliseconds."""
    attempts_made: tuple[Attempt, ...] = ()
    """The last ten attempts, the oldest first."""

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
    def task_id(self) -> str:
        """JOB@SLOT_MS."""
        return task_id(self.job, self.slot_ms)

    @classmethod
    def of(cls, job: str, slot_ms: int, record: bytes, failure: bytes) -> LedgerEntry:
        """From a row of `job/ledger`."""
        try:
            found = TaskRecord.of(record)
            last, missed = found.last, found.policies if found.state in ("missed", "skipped") else {}
            error = Failure(**json.loads(failure)).text if failure else last.error if last else None
        except (ValueError, TypeError, RecursionError):
            return cls(job, slot_ms, "unknown", reasons.sentence(reasons.UNREADABLE), code=reasons.UNREADABLE)
        state = found.slot_state
        fired = found.code in (reasons.FIRED, reasons.TOOK_PLACE, reasons.BUFFERED)
        why = reasons.sentence(found.code, found.detail) if found.code else error if state in ("failed", "retrying") else None
        return cls(
            job,
            slot_ms,
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
        )
