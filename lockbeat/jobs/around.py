"""Plans around excluded slots: a job that excludes by calendars goes through what came due stretch by stretch. Pure.

An excluded slot stays a slot: it comes due, and is entered in the ledger as skipped. So where a job stands depends on no
calendar, and a change of one moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from lockbeat.calendars import Closed
from lockbeat.jobs import plan
from lockbeat.jobs.definition import Job
from lockbeat.jobs.plan import MOST_COUNTED, Plan, Slot, due
from lockbeat.store import reasons
from lockbeat.triggers.base import FAR_MS
from lockbeat.values.durations import instant


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A slot to come; one that is excluded stands for all of its day."""

    slot_ms: int
    calendar: str = ""
    """That excludes it; empty: it is to be fired."""
    entry: str = ""
    """The name of the calendar's entry."""

    @property
    def why(self) -> str:
        """Why it is not to be fired, in a sentence; empty: it is."""
        return reasons.sentence(reasons.EXCLUDED, f"{self.calendar} {self.entry}".rstrip()) if self.calendar else ""

    @property
    def slot(self) -> datetime:
        """The slot as an aware datetime, UTC, before jitter."""
        return instant(self.slot_ms)


def of(job: Job, slot_ms: int, now_ms: int, closed: Closed | None) -> Plan:
    """As `plan.of`, for a job that excludes: what to do with `slot_ms`, and with what follows up to the next excluded day.

    One stretch at a time, which moves the job on to the next, due by now as well. So each entry of the ledger says one thing of
    slots that follow each other, and the latest slot that catch-up fires is the latest that is not excluded.
    """
    if closed is None:
        return plan.of(job, slot_ms, now_ms)
    if closed.on(slot_ms) is not None:
        return day_of(job, slot_ms, now_ms, closed)
    excluded = closed.next(job.trigger, slot_ms, now_ms)
    if excluded is None:
        return plan.of(job, slot_ms, now_ms)
    last = max(job.trigger.prev(excluded - 1) or slot_ms, slot_ms)
    if job.catchup == "all":
        missed = 0 <= job.fires_within_ms < now_ms - last
    else:
        missed = _open_since(job, excluded, now_ms, closed)
    if not missed:
        found = plan.of(job, slot_ms, now_ms, excluded)
        goes_on = found.next is not None and found.next.slot_ms < excluded  # under catch-up `all`
        return found if goes_on else replace(found, next=_slot(job, excluded))
    # All that came due before is missed: it is too late for it, or there is a later slot to fire.
    count = job.trigger.count(slot_ms, last, MOST_COUNTED)
    return replace(day_of(job, excluded, now_ms, closed), first=slot_ms, last=last, count=-1 if count is None else count + 1)


def _open_since(job: Job, after_ms: int, now_ms: int, closed: Closed) -> bool:
    """Whether a slot after this one is to be fired by now."""
    latest = closed.last_open(job.trigger, after_ms, now_ms)
    if latest is not None and job.jitter_ms and due(job, latest, job.trigger.next(latest)) > now_ms:
        latest = closed.last_open(job.trigger, after_ms, latest - 1)
    return latest is not None


def day_of(job: Job, slot_ms: int, now_ms: int, closed: Closed) -> Plan:
    """Of an excluded slot, and of those of its day that have come due as well."""
    said, day, last, count = closed.on(slot_ms), closed.day(slot_ms), slot_ms, 1
    assert said is not None
    following = job.trigger.next(last)
    while following is not None and following <= now_ms and closed.day(following) == day and count < MOST_COUNTED:
        last, count = following, count + 1
        following = job.trigger.next(last)
    excluded = f"{last} {count} {' '.join(said)}".rstrip()
    return Plan(slot_ms, slot_ms, slot_ms, 0, None if following is None else _slot(job, following), excluded)


def _slot(job: Job, slot_ms: int) -> Slot:
    return Slot(slot_ms, due(job, slot_ms, job.trigger.next(slot_ms)))


def upcoming(job: Job, slot_ms: int, closed: Closed | None) -> Iterator[Upcoming]:
    """From this slot on, what comes before the year 3000; of an excluded day its first slot alone."""
    slot: int | None = slot_ms
    while slot is not None and slot < FAR_MS:
        said = closed.on(slot) if closed else None
        yield Upcoming(slot, *said) if said else Upcoming(slot)
        slot = closed.after_day(job.trigger, slot) if closed and said else job.trigger.next(slot)
