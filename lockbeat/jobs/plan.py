"""Plans: which slot of a job is to be fired, which were missed, and where it stands next. Pure: no store, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lockbeat.jobs.definition import Job
from lockbeat.store import reasons
from lockbeat.store.records import NEVER_MS
from lockbeat.triggers import ByHand, isoformat, jitter_ms, missed
from lockbeat.triggers.rules import UNKNOWN, rules_version

MOST_COUNTED = 1000
"""Missed slots are counted up to here; a longer outage says "too many to count"."""


class Slot(NamedTuple):
    """A slot, and when it is to be fired: later than the slot by its jitter."""

    slot_ms: int
    due_ms: int


@dataclass(slots=True)
class Plan:
    """One slot to fire; those before it, from `first` to `last`, that are missed; and the next one."""

    fire: int
    first: int
    last: int
    count: int
    """How many are missed; 0: none; -1: too many to count."""
    next: Slot | None
    excluded: str = ""
    """`fire` is not to be fired, calendars exclude it: "LAST COUNT CALENDAR ENTRY", up to which slot of its day, and how many."""


def due(job: Job, slot_ms: int, next_ms: int | None) -> int:
    """When a slot is to be fired: itself plus its jitter."""
    return slot_ms + (jitter_ms(job.name, slot_ms, job.jitter_ms, next_ms) if job.jitter_ms else 0)


def none(job: Job) -> Slot:
    """Where a job stands that has no slot: it has ended, and is forgotten in a while; or it never has one, and is kept."""
    return Slot(-1, NEVER_MS if isinstance(job.trigger, ByHand) else -1)


def first(job: Job, after_ms: int) -> Slot | None:
    """The first slot after an instant."""
    return _slot(job, job.trigger.next(after_ms))


def again(job: Job, slot_ms: int, now_ms: int, rules: str = UNKNOWN) -> tuple[Slot | None, str, str] | None:
    """Where a job stands instead of a stored slot that it can't have, and the CODE and detail of why; None: the slot is right.

    `rules`: version of the time zones' rules by which it was reckoned. What newer rules than ours made is right.
    """
    trigger, mine = job.trigger, rules_version()
    if not trigger.zoned or trigger.prev(slot_ms) == slot_ms:
        if slot_ms <= now_ms or (first := trigger.next(now_ms)) == slot_ms:
            return None
        return _slot(job, first), reasons.CLOCK_SET_BACK, isoformat(slot_ms)
    first = trigger.next(now_ms)
    if UNKNOWN not in (rules, mine) and rules > mine and (first is None or slot_ms <= (trigger.next(first) or slot_ms)):
        return None
    # The nearest slot stands in its place, which may be one that should have been fired by now.
    before, after = trigger.prev(slot_ms), trigger.next(slot_ms)
    if before is not None and before <= now_ms and (after is None or slot_ms - before < after - slot_ms):
        first = before
    elif after is not None and after <= now_ms:
        first = after
    return _slot(job, first), reasons.RULES_CHANGED, f"{isoformat(slot_ms)} {rules} {mine}"


def of(job: Job, slot_ms: int, now_ms: int, before_ms: int | None = None) -> Plan:
    """What to fire when `slot_ms` has come due by `now_ms`: the latest slot, under catch-up `all` the first that is within `cap`
    and window. And what follows. `before_ms`: of the slots before that alone.
    """
    trigger, until_ms = job.trigger, now_ms if before_ms is None else before_ms - 1
    following = trigger.next(slot_ms)
    if following is None or following > until_ms:
        return Plan(slot_ms, slot_ms, slot_ms, 0, _slot(job, following))
    late = missed(trigger, slot_ms, until_ms, MOST_COUNTED)
    latest, following, count = late.last, late.next, late.count
    if job.jitter_ms and due(job, latest, following) > now_ms:
        # The latest slot is held back still: it is the next, and the one before it is to be fired.
        following, latest = latest, max(trigger.prev(latest - 1) or slot_ms, slot_ms)
        count = None if count is None else count - 1
    if job.catchup == "all":
        latest, following = _first_of_all(job, slot_ms, latest, now_ms, following)
        rest = trigger.count(slot_ms, latest, MOST_COUNTED)
        count = None if count is None or rest is None else rest + 1
    if latest == slot_ms:
        return Plan(slot_ms, slot_ms, slot_ms, 0, _slot(job, following))
    last_missed = max(trigger.prev(latest - 1) or slot_ms, slot_ms)
    return Plan(latest, slot_ms, last_missed, -1 if count is None else count - 1, _slot(job, following))


def _first_of_all(job: Job, slot_ms: int, latest: int, now_ms: int, following: int | None) -> tuple[int, int | None]:
    """Of what came due from `slot_ms` to `latest` the first that is within cap and window; and the slot after it."""
    oldest = now_ms - job.fires_within_ms if job.fires_within_ms >= 0 else slot_ms
    for _ in range(job.cap - 1):
        before = max(job.trigger.prev(latest - 1) or slot_ms, slot_ms)
        if before >= latest or before < oldest:
            break
        latest, following = before, latest
    return latest, following


def _slot(job: Job, slot_ms: int | None) -> Slot | None:
    if slot_ms is None:
        return None
    return Slot(slot_ms, due(job, slot_ms, job.trigger.next(slot_ms) if job.jitter_ms else None))
