"""Next 24 hours: which slots come when, where they collide, and how many a minute has."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from lockbeat.jobs import JobState
from lockbeat.monitor import soonest
from lockbeat.triggers import Trigger
from lockbeat.triggers.base import jitter_ms
from lockbeat.triggers.english import in_english
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.overview import many

LOOKED = 2000
"""Jobs that are looked at, the soonest first; of more the page says that there are."""
MINUTES = 1440
MINUTE = 60_000
OFTEN = 300
"""A trigger with more slots than this in a day is told as so many a minute, and not slot by slot."""
PEAKS = 8
NAMED, NAMES = 6, 500
LANES = 40


@dataclass
class Peak:
    """A minute in which many slots come due."""

    minute: int
    count: int
    at: datetime
    jobs: list[str]
    spread: str
    """What to do about it; empty: nothing."""


@dataclass
class Lane:
    """One trigger's slots over the day, and the jobs that share it."""

    english: str
    jobs: list[str]
    minutes: list[int] = field(default_factory=list)
    per_minute: float = 0.0


async def day(look: Look) -> Page:
    store = look.lb.store
    now, total, page = await asyncio.gather(look.now(), many(store, "job:order"), soonest(store, LOOKED))
    states = await look.lb.jobs.get_many(page.names)
    start_ms = int(now // 60) * MINUTE
    load = await counted([state for state in states.values() if state.next is not None], start_ms)
    hours = [sum(load.at[hour * 60 : hour * 60 + 60]) + load.steady * 60 for hour in range(24)]
    return Page(
        "day.html",
        {
            "now": now,
            "start_ms": start_ms,
            "total": total,
            "looked": len(states),
            "complete": page.more is None,
            "load": _columns(load, start_ms),
            "hours": [(instant(start_ms + hour * 3_600_000), round(count)) for hour, count in enumerate(hours)],
            "slots": round(sum(hours)),
            "steady": load.steady,
            "peaks": _peaks(load, start_ms),
            "lanes": sorted(load.lanes, key=lambda lane: (not lane.minutes, -len(lane.jobs), lane.english))[:LANES],
            "lanes_more": max(len(load.lanes) - LANES, 0),
        },
    )


@dataclass
class Load:
    """Slots of a day by the minute."""

    at: list[int]
    by_minute: dict[int, list[JobState]]
    steady: float = 0.0
    """Slots a minute of jobs that have one all the time."""
    lanes: list[Lane] = field(default_factory=list)


async def counted(states: list[JobState], start_ms: int) -> Load:
    """All slots of these jobs within a day. Jobs of one trigger are reckoned once."""
    shared = defaultdict[Trigger, list[JobState]](list)
    for state in states:
        shared[state.job.trigger].append(state)
    load = Load([0] * MINUTES, defaultdict(list))
    for number, (trigger, jobs) in enumerate(shared.items()):
        if number % 20 == 19:
            await asyncio.sleep(0)  # others of this event loop go on
        end_ms = start_ms + MINUTES * MINUTE
        first_ms = min(state.next.slot_ms for state in jobs if state.next)
        lane = Lane(in_english(trigger), [state.job.name for state in jobs])
        load.lanes.append(lane)
        slots, slot = list[int](), trigger.next(max(first_ms, start_ms) - 1)
        while slot is not None and slot < end_ms and len(slots) <= OFTEN:
            slots.append(slot)
            slot = trigger.next(slot)
        if len(slots) > OFTEN:
            lane.per_minute = len(slots) / max((slots[-1] - slots[0]) / MINUTE, 1)
            load.steady += lane.per_minute * len(jobs)
            continue
        lane.minutes = sorted({(slot - start_ms) // MINUTE for slot in slots})
        plain = [state for state in jobs if not state.job.jitter_ms and slots and state.next and state.next.slot_ms <= slots[0]]
        for slot in slots:
            minute = (slot - start_ms) // MINUTE
            load.at[minute] += len(plain)
            load.by_minute[minute] += plain[: max(NAMES - len(load.by_minute[minute]), 0)]
        for at, state in enumerate(state for state in jobs if state not in plain):
            if at % 20 == 19:
                await asyncio.sleep(0)
            for slot in slots:
                _enter(load, state, slot, start_ms)
    return load


def _enter(load: Load, state: JobState, slot: int, start_ms: int) -> None:
    job = state.job
    if state.next is None or slot < state.next.slot_ms:
        return
    held = jitter_ms(job.name, slot, job.jitter_ms, job.trigger.next(slot)) if job.jitter_ms else 0
    minute = (slot + held - start_ms) // MINUTE
    if 0 <= minute < MINUTES:
        load.at[minute] += 1
        if len(load.by_minute[minute]) < NAMES:
            load.by_minute[minute].append(state)


def _columns(load: Load, start_ms: int) -> list[tuple[int, str, str]]:
    """Five minutes each, as high as their fullest minute."""
    top = max(load.at, default=0)
    found = []
    for first in range(0, MINUTES, 5):
        most = max(load.at[first : first + 5])
        css = "bad" if most == top and most >= 10 else "busy" if most else "mute"
        found.append((most, f"{instant(start_ms + first * MINUTE):%H:%M} UTC: up to {most} a minute", css))
    return found


def _peaks(load: Load, start_ms: int) -> list[Peak]:
    ranked = sorted((minute for minute in range(MINUTES) if load.at[minute] > 1), key=lambda minute: -load.at[minute])[:PEAKS]
    return [
        Peak(
            minute,
            load.at[minute],
            instant(start_ms + minute * MINUTE),
            [state.job.name for state in load.by_minute[minute][:NAMED]],
            _spread(load.by_minute[minute]) if load.at[minute] >= 5 else "",
        )
        for minute in ranked
    ]


def _spread(states: list[JobState]) -> str:
    fixed = sum(not state.job.jitter_ms for state in states)
    return f"spread {fixed} of them with H in their cron lines, or with jitter=" if fixed > 1 else ""
