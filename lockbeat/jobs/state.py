"""How a job stands, as people are told: its definition, its next slot, and what else is known of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lockbeat.errors import StoreError, Unreadable
from lockbeat.jobs import plan
from lockbeat.jobs.backfill import Backfill
from lockbeat.jobs.control import Change, paused_by
from lockbeat.jobs.definition import Job
from lockbeat.jobs.plan import Slot
from lockbeat.jobs.standing import Standing, standings
from lockbeat.store import Store
from lockbeat.store.records import JobCounts, Retirement, SlotLine
from lockbeat.triggers import ByHand
from lockbeat.values.durations import instant

log = logging.getLogger("lockbeat")

Stands = Literal["scheduled", "paused", "ended", "by_hand", "retired"]


@dataclass(frozen=True, slots=True)
class JobState:
    """A job, and where it stands."""

    job: Job
    next: Slot | None
    """The next slot that is to be fired; None: it has ended, or is paused until somebody resumes it."""
    open: str | None
    """The task that has not ended, unless overlap is `allow`."""
    counts: JobCounts
    """How often what became of its slots since it was declared, also of those that the ledger has forgotten."""
    paused: Change | None = None
    """By what it is paused; None: it is not. One that is retired and was paused before comes back so."""
    rev: str = ""
    """Of its definition, as the store has it: `put(..., if_rev=state.rev)` changes it only if nobody has since."""
    in_line: int = 0
    """How many slots wait for that task to end: under overlap `buffer_one`, `buffer_all`, `cancel_other`, and catch-up `all`."""
    retired_at: float | None = None
    """When it retired, for no instance that lives declares it any more: seconds since the Unix epoch. None: it has not."""
    backfill: Backfill | None = None
    """Its backfill; None: it has none that goes on, or is paused."""

    @property
    def state(self) -> Stands:
        """How it stands."""
        if self.retired_at is not None:
            return "retired"
        if self.paused is not None:
            return "paused"
        if self.next is not None:
            return "scheduled"
        return "by_hand" if isinstance(self.job.trigger, ByHand) else "ended"

    @property
    def next_slot(self) -> datetime | None:
        """Its next slot (aware, UTC); None: it has ended."""
        return None if self.next is None else instant(self.next.slot_ms)

    @property
    def due_at(self) -> float | None:
        """When that slot is to be fired, later than itself by its jitter: seconds since the Unix epoch."""
        return None if self.next is None else self.next.due_ms / 1000


async def states(store: Store, shard: int, names: Iterable[str], *, strict: bool = False) -> list[JobState]:
    """How jobs of a shard stand. Left out is one that is unknown, or can't be read; `strict`: StoreError is raised for that."""
    found = []
    for name, standing in (await standings(store, shard, names)).items():
        state = _state(store, shard, standing) if isinstance(standing, Standing) else standing
        if isinstance(state, JobState):
            found.append(state)
        elif strict:
            raise state
        else:
            log.warning("job %r is left out: %s", name, state)
    return found


def _state(store: Store, shard: int, standing: Standing) -> JobState | StoreError:
    job, place = standing.job, standing.place
    try:
        entry = "job:slot"
        at = Slot(*SlotLine.of(place)[:2]) if place and place[0] != "-" else None
        retired = Retirement.of(place)
        entry = "job:counts"
        counts = JobCounts.of(standing.counts)
        entry = "job:paused"
        paused = paused_by(place, standing.paused) if retired is None else _paused_before(standing.paused)
        entry = "backfill"
        backfill = Backfill.of(job.name, standing.backfill) if standing.backfill else None
    except (ValueError, TypeError):
        return Unreadable(store.keys.key(shard, entry), job.name)
    if paused is not None and at is not None:
        at = after_pause(job, at, paused)
    opened, *in_line = standing.open.split(b"\xff")
    since = retired and retired.at_ms / 1000
    goes_on = None if backfill is None or backfill.is_over else backfill
    return JobState(job, at, opened.decode() or None, counts, paused, standing.rev, len(in_line), since, goes_on)


def _paused_before(paused: str) -> Change | None:
    """By what a job was paused when it retired: it is so still when it returns."""
    return Change.of(paused) if paused else None


def after_pause(job: Job, at: Slot, paused: Change) -> Slot | None:
    """The first slot that a paused job is to fire; None: none, until it is resumed."""
    return None if paused.last_ms is None else plan.first(job, max(paused.last_ms, at.slot_ms - 1))
