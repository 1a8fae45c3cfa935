"""What did not run, or not well: of each job and reason one line, so that a job that fails often hides no other."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from lockbeat.jobs import Change, JobState, LedgerEntry
from lockbeat.jobs.past import held_ms
from lockbeat.monitor import strips
from lockbeat.store import reasons
from lockbeat.triggers.english import in_english
from lockbeat.values.durations import instant
from lockbeat.web.look import Look
from lockbeat.web.pages.job import Moved, by_hand, moved

LATEST = 5
"""Entries of a job among which the one that failed is looked for, and one that ran since."""


class Several(NamedTuple):
    """The slots of a job that ended alike, as far as they were looked at."""

    newest: LedgerEntry
    slots: int
    many: bool
    """There were more than could be counted."""


def several(entries: Iterable[LedgerEntry]) -> list[Several]:
    """By job, state and reason, the newest first."""
    found = dict[tuple[str, str, str | None], Several]()
    for entry in entries:
        before = found.get(alike := (entry.job, entry.state, entry.code), Several(entry, 0, False))
        count = entry.count or 1
        found[alike] = before._replace(slots=before.slots + max(count, 1), many=before.many or count < 0)
    return [*found.values()]


@dataclass(frozen=True)
class Odd:
    """What did not run well in the last day, by job and reason."""

    ended: list[Several]
    """Failed, lost, missed or cancelled."""
    skipped: list[Several]
    excluded: list[Several]
    """By calendars."""

    @classmethod
    def of(cls, entries: Sequence[LedgerEntry]) -> Odd:
        """From entries of a history, the newest first."""
        found = several(entries)
        skipped = [one for one in found if one.newest.state == "skipped"]
        return cls(
            [one for one in found if one.newest.state != "skipped"],
            [one for one in skipped if one.newest.code != reasons.EXCLUDED],
            [one for one in skipped if one.newest.code == reasons.EXCLUDED],
        )

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """What calendars left out, as DID_NOT is counted."""
        slots = sum(one.slots for one in self.excluded)
        return [("left out by calendars", slots)] if slots else []

    def slots(self, state: str) -> int:
        return sum(one.slots for one in (*self.ended, *self.skipped) if one.newest.state == state)

    @property
    def many(self) -> bool:
        return any(one.many for one in (*self.ended, *self.skipped))


@dataclass(frozen=True)
class Standing:
    """What did not run well, and whether its job has run since."""

    several: Several
    since: str = ""
    """What the job did since; empty: it has not run."""

    @property
    def newest(self) -> LedgerEntry:
        return self.several.newest


async def standing(look: Look, some: Sequence[Several]) -> list[Standing]:
    """Those whose jobs have not run since first: the others have got over it."""
    lb = look.lb
    names = [*dict.fromkeys(one.newest.job for one in some)]
    marks = await strips(lb.store, lb.jobs.shard_of, names, LATEST) if names else {}

    async def since(one: Several) -> Standing:
        newest = one.newest
        strip = marks.get(newest.job)
        if strip is None:
            return Standing(one, "it is deleted")
        if any(mark.state == "done" and mark.slot_ms > newest.slot_ms for mark in strip.marks):
            return Standing(one, "it has run since")
        if any(mark.state in ("fired", "retrying") for mark in strip.marks):
            return Standing(one, "a run of it has not ended")
        change = by_hand(await lb.jobs.changes(newest.job), newest.at or 0)
        return Standing(one, f"triggered since by {change.by or 'somebody'}" if change else "")

    found = await asyncio.gather(*map(since, some))
    return sorted(found, key=lambda one: (bool(one.since), -(one.newest.at or 0)))


async def hidden(look: Look, names: Collection[str], told: Collection[str]) -> list[Several]:
    """Of failing jobs that others' failures hide: the slot that failed, one line each."""
    found = list[Several]()
    for name in names:
        if name not in told:
            entries = await look.lb.jobs.ledger(name, LATEST)
            found += [Several(entry, 1, False) for entry in entries if entry.state in ("failed", "lost")][:1]
    return found


async def gone(look: Look, names: Sequence[str], since: float) -> list[JobState]:
    """Of jobs that have retired those that did so since then, the latest first."""
    states = await look.lb.jobs.get_many(names) if names else {}
    left = [state for state in states.values() if state.retired_at is not None and state.retired_at >= since]
    return sorted(left, key=lambda state: -(state.retired_at or 0))


class Due(NamedTuple):
    """A job that is due at other times than before."""

    job: str
    english: str
    """When it is due now."""
    move: Moved
    since: Change | None
    """By which it was triggered since."""


async def moves(look: Look, changes: Sequence[tuple[str, Change]], now: float) -> list[Due]:
    """Jobs that are due at other times than before."""
    states = await look.lb.jobs.get_many([name for name, _ in changes]) if changes else {}
    found = [(states[name].job, moved(states[name].job, [change], now)) for name, change in changes if name in states]
    lost = [(job, move) for job, move in found if move is not None and move.trigger != str(job.trigger)]
    logs = await asyncio.gather(*(look.lb.jobs.changes(job.name) for job, _ in lost))
    return [
        Due(job.name, in_english(job.trigger), move, by_hand(log, move.change.at or 0))
        for (job, move), log in zip(lost, logs, strict=True)
    ]


class Held(NamedTuple):
    """A job whose slots have come due since somebody paused it: nobody fires them before it is resumed."""

    job: str
    change: Change
    slot_ms: int
    """The latest of them."""
    since: Change | None
    """By which it was triggered since."""

    @property
    def slot(self) -> datetime:
        return instant(self.slot_ms)


async def held(look: Look, stopped: Iterable[tuple[str, Change]], now: float) -> list[Held]:
    """Of paused jobs those whose slots have come due since, unless the latest of them was backfilled."""
    lb, several = look.lb, [*stopped]
    states = await lb.jobs.get_many([name for name, _ in several])
    due = {name: held_ms(states[name], now) for name, _ in several if name in states}
    marks = await strips(lb.store, lb.jobs.shard_of, [name for name, slot_ms in due.items() if slot_ms is not None], LATEST)
    found = [
        (name, change, slot_ms)
        for name, change in several
        if (slot_ms := due.get(name)) is not None
        and not (name in marks and any(mark.slot_ms == slot_ms for mark in marks[name].marks))
    ]
    logs = await asyncio.gather(*(lb.jobs.changes(name) for name, *_ in found))
    return [Held(*one, by_hand(log, one[2] / 1000)) for one, log in zip(found, logs, strict=True)]
