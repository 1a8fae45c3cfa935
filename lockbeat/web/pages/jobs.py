"""Jobs: each with its latest slots as a strip, as it stands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import get_args

from lockbeat.jobs import JobState, LedgerEntry
from lockbeat.jobs.listing import State
from lockbeat.jobs.why import TOLERANCE
from lockbeat.monitor import Strip, named, soonest, strips
from lockbeat.triggers import Called
from lockbeat.triggers.english import in_english
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.overview import many

SHOWN = 25
"""Jobs of a page. With 60 slots of each it costs the store some ten commands, and 50 inside of its scripts."""
SLOTS = 60
STATES = get_args(State)


@dataclass(frozen=True)
class Row:
    """A job as a line of the page."""

    state: JobState
    strip: Strip

    @property
    def latest(self) -> LedgerEntry | None:
        return self.strip.latest

    @property
    def english(self) -> str:
        return in_english(self.state.job.trigger)

    @property
    def late_ms(self) -> int | None:
        """How long after its slot, and its jitter, the latest was fired; None: it was not, or not for its slot."""
        entry = self.latest
        if entry is None or entry.lateness is None or entry.state in ("missed", "skipped"):
            return None
        return entry.lateness.firing_ms

    def next_at(self, now: float) -> float | None:
        """Of one that those run who call for its slots, too."""
        trigger = self.state.job.trigger
        if isinstance(trigger, Called) and trigger.slots is not None:
            slot_ms = trigger.slots.next(round(now * 1000))
            return None if slot_ms is None else slot_ms / 1000
        return self.state.due_at

    def overdue_by(self, now: float) -> float:
        """Seconds; 0: it is not."""
        due = self.state.due_at
        return now - due if due is not None and due < now - TOLERANCE else 0.0


async def jobs(look: Look) -> Page:
    store = look.lb.store
    begins, tag, state = look.text("q"), look.text("tag"), look.one_of("state", *STATES)
    after, sort = look.text("after", 2048), look.one_of("sort", "name", "next") or "name"
    filtered = bool(begins or tag or state)
    wanted: State | None = state  # type: ignore[assignment]
    if sort == "next" and not filtered:
        page = await soonest(store, SHOWN, after)
    else:
        page = await named(store, SHOWN, after or "", begins=begins or "", tag=tag, state=wanted)
    total, now, found = await asyncio.gather(many(store, "job:order"), look.now(), of(look, page.names))
    rows = [row for row in found if (not tag or tag in row.state.job.tags)]
    return Page(
        "jobs.html",
        {
            "rows": rows,
            "now": now,
            "total": total,
            "more": page.more,
            "paged": after is not None,
            "filtered": filtered,
            "q": begins or "",
            "tag": tag or "",
            "state": state or "",
            "sort": sort,
            "states": STATES,
            "may": await look.may("pause", "resume", "trigger"),
        },
    )


async def of(look: Look, names: tuple[str, ...]) -> list[Row]:
    """The rows of these jobs, those that are gone left out."""
    lb = look.lb
    states, marks = await asyncio.gather(lb.jobs.get_many(names), strips(lb.store, lb.jobs.shard_of, names, SLOTS))
    return [Row(states[name], marks.get(name, Strip((), None))) for name in names if name in states]
