"""Slots of the next day by the minute: those that are to be fired, and those that calendars exclude. It asks no store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from lockbeat.calendars import Closed
from lockbeat.jobs import JobState
from lockbeat.triggers import Trigger
from lockbeat.triggers.base import jitter_ms
from lockbeat.triggers.english import in_english

MINUTES = 1440
MINUTE = 60_000
OFTEN = 300
"""A trigger with more slots than this in a day is told as so many a minute, and not slot by slot."""
NAMES = 500
"""Jobs of a minute that are known by name."""
QUARTER = 15
"""Minutes: days of all zones begin and end at a quarter of an hour."""

Said = tuple[str, str]
"""A calendar, and the name of its entry."""


@dataclass
class Lane:
    """One trigger's slots over the day, and the jobs that share it."""

    english: str
    jobs: list[str]
    minutes: list[int] = field(default_factory=list)
    per_minute: float = 0.0
    off: list[tuple[int, int, Said]] = field(default_factory=list)
    """Excluded: from which minute on, how many minutes, and by what."""


@dataclass
class Excluded:
    """Slots that an entry of a calendar excludes."""

    first_ms: int
    count: float = 0
    jobs: dict[str, None] = field(default_factory=dict)

    def add(self, count: float, slot_ms: int, jobs: Sequence[JobState]) -> None:
        self.count, self.first_ms = self.count + count, min(self.first_ms, slot_ms)
        for state in jobs[: max(NAMES - len(self.jobs), 0)]:
            self.jobs[state.job.name] = None


@dataclass
class Load:
    """Slots of a day by the minute."""

    start_ms: int
    at: list[int] = field(default_factory=lambda: [0] * MINUTES)
    by_minute: dict[int, list[JobState]] = field(default_factory=lambda: defaultdict(list))
    steps: list[float] = field(default_factory=lambda: [0.0] * (MINUTES + 1))
    """Where the number of slots a minute changes, of jobs that have one all the time."""
    lanes: list[Lane] = field(default_factory=list)
    excluded: dict[Said, Excluded] = field(default_factory=dict)

    @property
    def steady(self) -> list[float]:
        """Slots a minute of jobs that have one all the time."""
        return [max(each, 0.0) for each in accumulate(self.steps[:MINUTES])]

    def exclude(self, said: Said, count: float, slot_ms: int, jobs: Sequence[JobState]) -> None:
        if jobs:
            self.excluded.setdefault(said, Excluded(slot_ms)).add(count, slot_ms, jobs)


async def counted(states: Sequence[JobState], start_ms: int, closed: Mapping[str, Closed | None]) -> Load:
    """All slots of these jobs within a day. Jobs of one trigger and the same calendars are reckoned once. closed: by job."""
    shared = defaultdict[tuple[Trigger, Closed | None], list[JobState]](list)
    for state in states:
        shared[state.job.trigger, closed.get(state.job.name)].append(state)
    load = Load(start_ms)
    for number, ((trigger, days), jobs) in enumerate(shared.items()):
        if number % 20 == 19:
            await asyncio.sleep(0)  # others of this event loop go on
        first_ms = min(state.next.slot_ms for state in jobs if state.next)
        end_ms = start_ms + MINUTES * MINUTE
        slots, slot = list[int](), trigger.next(max(first_ms, start_ms) - 1)
        while slot is not None and slot < end_ms and len(slots) <= OFTEN:
            slots.append(slot)
            slot = trigger.next(slot)
        lane = Lane(in_english(trigger), [state.job.name for state in jobs])
        load.lanes.append(lane)
        if len(slots) > OFTEN:
            lane.per_minute = (len(slots) - 1) * MINUTE / max(slots[-1] - slots[0], 1)
            _steadily(load, lane, jobs, days)
        else:
            await _one_by_one(load, lane, jobs, slots, days)
    return load


def _steadily(load: Load, lane: Lane, jobs: list[JobState], days: Closed | None) -> None:
    for first, last, said in stretches(days, load.start_ms):
        if said is None:
            load.steps[first] += lane.per_minute * len(jobs)
            load.steps[last] -= lane.per_minute * len(jobs)
        else:
            lane.off.append((first, last - first, said))
            load.exclude(said, lane.per_minute * (last - first) * len(jobs), load.start_ms + first * MINUTE, jobs)


def stretches(days: Closed | None, start_ms: int) -> list[tuple[int, int, Said | None]]:
    """The minutes of the day, from one to before another, and what excludes them; None: nothing does."""
    if days is None:
        return [(0, MINUTES, None)]
    edges = [0, *range(QUARTER - start_ms // MINUTE % QUARTER, MINUTES, QUARTER)]
    found = [(edge, days.on(start_ms + edge * MINUTE)) for edge in edges]
    kept = [found[0], *(after for before, after in pairwise(found) if after[1] != before[1]), (MINUTES, None)]
    return [(first, last, said) for (first, said), (last, _) in pairwise(kept)]


async def _one_by_one(load: Load, lane: Lane, jobs: list[JobState], slots: list[int], days: Closed | None) -> None:
    said = {slot: why for slot in slots if days is not None and (why := days.on(slot)) is not None}
    lane.minutes = sorted({(slot - load.start_ms) // MINUTE for slot in slots if slot not in said})
    lane.off = [((slot - load.start_ms) // MINUTE, 1, why) for slot, why in said.items()]
    plain = [state for state in jobs if not state.job.jitter_ms and slots and state.next and state.next.slot_ms <= slots[0]]
    for slot in slots:
        if slot in said:
            load.exclude(said[slot], len(plain), slot, plain)
            continue
        minute = (slot - load.start_ms) // MINUTE
        load.at[minute] += len(plain)
        load.by_minute[minute] += plain[: max(NAMES - len(load.by_minute[minute]), 0)]
    known = {id(state) for state in plain}
    for number, state in enumerate(state for state in jobs if id(state) not in known):
        if number % 20 == 19:
            await asyncio.sleep(0)
        for slot in slots:
            _enter(load, state, slot, said.get(slot))


def _enter(load: Load, state: JobState, slot: int, said: Said | None) -> None:
    job = state.job
    if state.next is None or slot < state.next.slot_ms:
        return
    if said is not None:
        load.exclude(said, 1, slot, [state])
        return
    held = jitter_ms(job.name, slot, job.jitter_ms, job.trigger.next(slot)) if job.jitter_ms else 0
    minute = (slot + held - load.start_ms) // MINUTE
    if 0 <= minute < MINUTES:
        load.at[minute] += 1
        if len(load.by_minute[minute]) < NAMES:
            load.by_minute[minute].append(state)
