"""A backfill: a job's slots in a stretch of the past are fired where they have not run. Pure: no store, no clock."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from lockbeat.calendars import Closed
from lockbeat.errors import LockbeatError
from lockbeat.jobs import around
from lockbeat.jobs.definition import Job
from lockbeat.store.records import BackfillLine, ChangeLine, seconds_of
from lockbeat.triggers import Trigger, trigger_from_json
from lockbeat.values.durations import instant

MOST_SLOTS = 1_000_000
"""So many at most in one backfill."""
UNCONFIRMED = 1000
"""So many at most that nobody has to confirm."""
MOST_RATE = 1000.0
COUNTED = 2000
"""Slots that are worked out in one go: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far a backfill of a job has come. Each of its slots is fired, known, excluded or unknown, or still left."""

    job: str
    state: str
    """running, paused, done or cancelled; planned: it was only asked what it would do."""
    start: datetime
    """Its slots are those of the job from then on (aware, UTC) ..."""
    end: datetime
    """... and before then."""
    at: datetime
    """Slots before this were looked at."""
    total: int
    """How many slots there were when it began."""
    fired: int
    """How many it has fired; of a plan: would fire. They are done, failed (or lost), cancelled, missed, or running."""
    done: int
    failed: int
    cancelled: int
    missed: int
    """Fired, and not begun: an instance of an older version let a later slot go before."""
    running: int
    """Fired, and not ended yet."""
    known: int
    """How many were not fired, since the ledger has what became of them."""
    excluded: int
    """How many calendars exclude."""
    unknown: int
    """How many were not fired, since nobody knows whether they ran."""
    rate: float | None
    """Slots that it fires in a second, at most; None: as the job's overlap lets it."""
    by: str | None
    """Who began it."""
    reason: str | None
    began_at: float | None
    """Seconds since the Unix epoch, by the server's clock."""
    ended_at: float | None

    @property
    def left(self) -> int:
        """How many slots it has yet to look at, of those that there were when it began."""
        seen = self.fired * (self.state != "planned") + self.known + self.excluded + self.unknown
        return max(self.total - seen, 0) if self.state != "done" else 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and all that it fired."""
        return self.state in ("done", "cancelled") and not self.running

    @classmethod
    def of(cls, job: str, text: bytes) -> Backfill:
        """From what the store has. Raises ValueError."""
        line = BackfillLine.of(text)
        return cls(
            job,
            line.state,
            instant(line.from_ms),
            instant(line.to_ms),
            instant(min(line.at_ms, line.to_ms)),
            line.total,
            line.fired,
            line.done,
            line.failed,
            line.cancelled,
            line.missed,
            line.running,
            line.known,
            line.excluded,
            line.left,
            1e6 / line.every_us if line.every_us else None,
            line.by or None,
            line.why or None,
            seconds_of(line.began_ms),
            seconds_of(line.ended_ms),
        )


class Era(NamedTuple):
    """A time in which a job had another trigger."""

    until_ms: int
    trigger: Trigger

    @classmethod
    def several(cls, job: str, changes: str) -> list[Era]:
        """The eras of a job before its present one, the oldest first, as far as its log of changes tells of them."""
        found = list[Era]()
        for line in filter(None, changes.split("\xff")):
            with contextlib.suppress(ValueError, LockbeatError):  # a newer version's; or it was broken
                change = ChangeLine.of(line)
                if change.before:
                    found.append(cls(change.at_ms, trigger_from_json(json.loads(change.before)).of_job(job)))
        return found

    def around(self, slot_ms: int) -> str:
        """Its slots before and after an instant, as `backfill/step` takes them."""
        before, after = self.trigger.prev(slot_ms - 1), self.trigger.next(slot_ms)
        return f":{-1 if before is None else max(before, -1)}:{-1 if after is None else after}"


class Stretch(NamedTuple):
    """Slots that a backfill comes to next."""

    items: list[str]
    """"SLOT", in an era "SLOT:BEFORE:AFTER"; of a day that is excluded "SLOT LAST COUNT CALENDAR ENTRY"."""
    before_ms: int
    """The slot before the first; -1: there is none."""
    following_ms: int
    """The slot after the last; -1: there is none."""


def stretch(job: Job, at_ms: int, end_ms: int, most: int, closed: Closed | None, eras: Iterable[Era] = ()) -> Stretch:
    """Up to `most` slots, or excluded days, from an instant on and before the end. eras: in which it had other triggers."""
    slot, items = job.trigger.next(at_ms - 1), list[str]()
    before = None if slot is None else job.trigger.prev(slot - 1)
    while slot is not None and slot < end_ms and len(items) < most:
        if closed is not None and closed.on(slot):
            day = around.day_of(job, slot, end_ms - 1, closed)
            items.append(f"{slot} {day.excluded}")
            slot = day.next.slot_ms if day.next else None
        else:
            era = next((era for era in eras if slot <= era.until_ms), None)
            items.append(f"{slot}{era.around(slot) if era else ''}")
            slot = job.trigger.next(slot)
    return Stretch(items, -1 if before is None or before < 0 else before, -1 if slot is None else slot)


def count(trigger: Trigger, at_ms: int, end_ms: int) -> tuple[int, int]:
    """How many slots there are from an instant on and before the end, up to COUNTED; and from where to go on counting."""
    found = trigger.count(at_ms - 1, end_ms - 1, COUNTED)
    if found is not None:
        return found, end_ms
    slot, number = trigger.next(at_ms - 1), 0
    while slot is not None and slot < end_ms and number < COUNTED:
        slot, number = trigger.next(slot), number + 1
    return number, end_ms if slot is None else min(slot, end_ms)
