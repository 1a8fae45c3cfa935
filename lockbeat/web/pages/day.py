"""Next 24 hours: which slots come when, where they collide, how many a minute has, and which calendars exclude."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lockbeat.calendars import Closed, Copies
from lockbeat.jobs import JobState
from lockbeat.monitor import soonest
from lockbeat.store import reasons
from lockbeat.values.durations import instant
from lockbeat.web.load import MINUTE, MINUTES, Load, Said, counted
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.overview import many
from lockbeat.web.render import rate

LOOKED = 2000
"""Jobs that are looked at, the soonest first; of more the page says that there are."""
CALENDARS = 32
"""Calendars that are read; of jobs that name more the page says that they are not looked at."""
PEAKS, NAMED, LANES, EXCLUDED = 8, 6, 40, 20


@dataclass
class Peak:
    """A minute in which many slots come due."""

    minute: int
    count: int
    at: datetime
    jobs: list[str]
    spread: str
    """What to do about it; empty: nothing."""


async def day(look: Look) -> Page:
    store = look.lb.store
    now, total, page = await asyncio.gather(look.now(), many(store, "job:order"), soonest(store, LOOKED))
    states = await look.lb.jobs.get_many(page.names)
    start_ms = int(now // 60) * MINUTE
    coming = [state for state in states.values() if state.next is not None]
    days, problems = await closed(look, coming)
    load = await counted(coming, start_ms, days)
    steady = load.steady
    hours = [sum(load.at[first : first + 60]) + sum(steady[first : first + 60]) for first in range(0, MINUTES, 60)]
    excluded = sorted(load.excluded.items(), key=lambda each: -each[1].count)
    return Page(
        "day.html",
        {
            "now": now,
            "start_ms": start_ms,
            "total": total,
            "looked": len(states),
            "complete": page.more is None,
            "load": _columns(load, steady, start_ms),
            "base": [max(steady[first : first + 5]) for first in range(0, MINUTES, 5)],
            "hours": [(instant(start_ms + hour * 3_600_000), round(count)) for hour, count in enumerate(hours)],
            "slots": round(sum(hours)),
            "steady": max(steady),
            "peaks": _peaks(load, start_ms),
            "lanes": sorted(load.lanes, key=lambda lane: (not lane.minutes, -len(lane.jobs), lane.english))[:LANES],
            "lanes_more": max(len(load.lanes) - LANES, 0),
            "closed": [(said, round(each.count), instant(each.first_ms), [*each.jobs]) for said, each in excluded[:EXCLUDED]],
            "excluded_count": round(sum(each.count for _, each in excluded)),
            "excluded_more": max(len(excluded) - EXCLUDED, 0),
            "problems": problems,
            "by_whom": by_whom,
        },
    )


async def closed(look: Look, states: Iterable[JobState]) -> tuple[dict[str, Closed | None], list[str]]:
    """The days that these jobs exclude, by job; and what is wrong with their calendars, in a sentence each."""
    copies, wanted = Copies(look.lb.store), defaultdict[int, dict[str, None]](dict)
    found, unread = dict[str, Closed | None](), 0
    asked = dict[str, None]()
    excluding = [state for state in states if state.job.exclude]
    for state in excluding:
        if len(asked | dict.fromkeys(state.job.exclude)) <= CALENDARS:
            asked |= dict.fromkeys(state.job.exclude)
            wanted[look.lb.jobs.shard_of(state.job.name)] |= dict.fromkeys(state.job.exclude)
    for shard, names in wanted.items():
        await copies.read(shard, names)
    problems = dict[str, None]()
    for state in excluding:
        job = state.job
        if not {*job.exclude} <= asked.keys():
            unread += 1
            continue
        view = copies.view(look.lb.jobs.shard_of(job.name), job.exclude, job.trigger.timezone)
        found[job.name] = view.closed
        assert state.next is not None
        problems |= dict.fromkeys(f"{said}: it excludes nothing there." for said in view.problems(state.next.slot_ms))
    told = [*problems][:EXCLUDED]
    if unread:
        told.append(f"More than {CALENDARS} calendars are named: those of {unread} jobs are not looked at.")
    return found, told


def by_whom(said: Said) -> str:
    """Why a slot is not to be fired."""
    return reasons.sentence(reasons.EXCLUDED, " ".join(said).rstrip())


def _columns(load: Load, steady: list[float], start_ms: int) -> list[tuple[float, str, str]]:
    """Five minutes each, as high as their fullest minute and what comes all the time."""
    top = max(load.at, default=0)
    found = []
    for first in range(0, MINUTES, 5):
        most = max(load.at[first : first + 5])
        css = "bad" if most == top and most >= 10 else "busy" if most else "mute"
        base = max(steady[first : first + 5])
        always = f", and {rate(base)} that come all the time" if base else ""
        found.append((most + base, f"{instant(start_ms + first * MINUTE):%H:%M} UTC: up to {most} a minute{always}", css))
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
