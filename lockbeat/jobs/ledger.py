"""The ledger: what became of each slot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockbeat.jobs.definition import task_id
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
    """missed: the last slot that this entry stands for."""
    count: int | None = None
    """missed: how many slots it stands for; -1: too many to count, or unknown."""

    @property
    def slot(self) -> datetime:
        """The slot as an aware datetime, UTC."""
        return instant(self.slot_ms)

    @property
    def last_slot(self) -> datetime | None:
        """missed: the last slot that this entry stands for (aware, UTC)."""
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
    def of(cls, job: str, slot_ms: int, text: str | bytes) -> LedgerEntry:
        try:
            data: dict[str, Any] = {**json.loads(text)}
        except (ValueError, TypeError, RecursionError):
            return cls(job, slot_ms, "unknown", reason="what the ledger has of it can't be read")
        return cls(
            job,
            slot_ms,
            data.get("state", "unknown"),
            reason=data.get("reason"),
            by=data.get("by"),
            fence=int(data["fence"]) if "fence" in data else None,
            attempt=data.get("attempt"),
            at_ms=data.get("at"),
            started_ms=data.get("started"),
            ended_ms=data.get("ended"),
            last_ms=data.get("last"),
            count=data.get("count"),
        )
