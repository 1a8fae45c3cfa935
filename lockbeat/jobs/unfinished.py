"""Runs that have not ended: for how long they run, beside how long the job's runs take, and whether one hangs. Pure.

This is told to people; nothing is decided by it. `Unfinished.hangs` has the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lockbeat.jobs.ledger import LedgerEntry, situation
from lockbeat.jobs.marks import Mark
from lockbeat.store import reasons
from lockbeat.values.durations import brief, instant, span

LEAST, TIMES = 60.0, 10
"""A run of less than LEAST seconds does not hang, nor one that has run for less than TIMES as long as usual."""
ENOUGH = 3
"""Of fewer done slots nobody knows how long is usual."""
LONG, SKIPPED = 3600.0, 3
"""Where that is not known, one hangs that has run for so many seconds while so many slots were skipped for it."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run of a job that has not ended."""

    entry: LedgerEntry
    situation: str
    """running; stopping: it was cancelled, and its function has yet to stop; waiting, in_line, retrying: no attempt runs."""
    seconds: float | None
    """For how long its attempt has run; None: none does."""
    took_ms: tuple[int, ...] = ()
    """How long the slots took that were done, of those that were looked at."""
    skipped_ms: tuple[int, ...] = ()
    """The slots that were skipped for it, the newest first, of those that were looked at."""
    looked: int = 0
    """How many slots were looked at."""

    @classmethod
    def of(cls, entry: LedgerEntry, now_ms: int, marks: Sequence[Mark]) -> Unfinished | None:
        """marks: the job's latest slots, the newest first. None: it has ended."""
        stands = situation(entry)
        if stands not in ("running", "stopping", "waiting", "in_line", "retrying"):
            return None
        runs = stands in ("running", "stopping") and entry.started_ms is not None
        seconds = max(now_ms - (entry.started_ms or 0), 0) / 1000 if runs else None
        took = tuple(mark.took_ms for mark in marks if mark.state == "done" and mark.took_ms is not None)
        # What was skipped before it was tried again was so for others; and for one that is backfilled no slot is skipped.
        since = max(entry.slot_ms, round(entry.retried.at * 1000) if entry.retried else 0)
        newer = [mark for mark in marks if mark.slot_ms > since and not entry.backfill]
        skipped = tuple(mark.slot_ms for mark in newer if mark.state == "skipped" and mark.code == reasons.OVERLAP)
        return cls(entry, stands, seconds, took, skipped, len(marks))

    @property
    def usual(self) -> float | None:
        """Seconds that the job's runs take: the median of those that were done. None: too few are known."""
        return sorted(self.took_ms)[len(self.took_ms) // 2] / 1000 if len(self.took_ms) >= ENOUGH else None

    @property
    def hangs(self) -> bool:
        """Whether somebody should look at it.

        It has run for a minute at least, ten times as long as usual, and longer than all runs but one that are known, so that a
        job of which some runs are long is not told of each time. Where usual is not known: for an hour at least, while three of
        its slots were skipped.
        """
        if self.seconds is None or self.seconds < LEAST:
            return False
        if self.usual is None:
            return self.seconds >= LONG and len(self.skipped_ms) >= SKIPPED
        return self.seconds >= TIMES * self.usual and self.seconds * 1000 > sorted(self.took_ms)[-2]

    @property
    def skipped_more(self) -> bool:
        """Whether more slots may have been skipped for it than were looked at."""
        return len(self.skipped_ms) == self.looked

    @property
    def slot(self) -> datetime:
        """Its slot, or when it was triggered (aware, UTC)."""
        return instant(self.entry.slot_ms)

    @property
    def last_skipped(self) -> datetime | None:
        """The newest slot that was skipped for it (aware, UTC)."""
        return instant(self.skipped_ms[0]) if self.skipped_ms else None

    @property
    def usually(self) -> str:
        """How long a run takes, in words; empty: nobody knows."""
        return "" if self.usual is None else f"it usually takes {brief(self.usual * 1000)}"

    @property
    def text(self) -> str:
        """How it stands, in words, without its slot."""
        if self.seconds is None:
            said = {"waiting": "no worker has begun it", "in_line": "it waits in line itself"}
            return said.get(self.situation, "its attempt failed, and it is to be tried again")
        stopping = "it was cancelled, and its function has yet to stop; " if self.situation == "stopping" else ""
        return f"{stopping}running for {span(self.seconds)}{'; ' if self.usually else ''}{self.usually}"
