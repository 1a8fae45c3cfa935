"""Entries of the ledger, and instants, as people read and write them."""

from __future__ import annotations

import re
from datetime import datetime

import typer

from lockbeat.cli._output import clock, zone_of
from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.remarks import remark as remarked
from lockbeat.jobs.why import became, state_of
from lockbeat.store.records import JobCounts
from lockbeat.values.durations import brief, instant

ENTRY = (
    "job slot task_id state reason code fired_by by fence attempt max_attempts at started_at ended_at retry_at last_slot count "
    "lateness attempts_made backfill retried"
)
"""What JSON says of one."""
MOST_MS = 253_402_300_800_000  # the year 10000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def late(entry: LedgerEntry) -> str:
    """How long after the slot it was fired."""
    if entry.at_ms is None or entry.run or entry.backfill or entry.state in ("missed", "skipped"):
        return "-"
    return brief(entry.at_ms - entry.slot_ms)


def who(entry: LedgerEntry) -> str:
    """Who ran it, or runs it."""
    return entry.by if entry.by and state_of(entry) != "waiting" else "-"


def remark(entry: LedgerEntry) -> str:
    """What the other columns of a table do not say."""
    return remarked(entry, clock) or "-"


def counted(counts: JobCounts) -> str:
    """How often what became of a job's slots. What a backfill has fired since was skipped or missed when it came due."""
    return ", ".join(f"{number} {became(what)}" for what, number in counts._asdict().items() if number or what == "fired")


def instant_of(text: str) -> int:
    """An instant as people write it: ISO 8601, in the zone that tables show unless it says otherwise; or ms, as in a task id."""
    if text.isascii() and text.isdigit() and len(text) > 8:
        ms = int(text)
    else:
        try:
            when = datetime.fromisoformat(text.strip())
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no time; write it as 2030-01-31T12:00:00") from None
        ms = round((when if when.tzinfo else zone_of(when)).timestamp() * 1000)
    if not 0 <= ms < MOST_MS:  # also of a date that another zone moves over the edge
        raise typer.BadParameter(f"{text!r} is no time between 1970 and the year 10000")
    return ms


def ago_or_at(text: str) -> str:
    """How long ago (or from now), as 90s, 30m, 24h, 7d, 2w; or an instant. Kept as text: it is reckoned by the store's clock."""
    if not re.fullmatch(r"\d{1,9}[smhdw]", text):
        instant_of(text)
    return text


def instant_at(text: str | None, now: float, *, ahead: bool = False) -> datetime | None:
    """What `ago_or_at` let through, as an instant. `ahead`: 24h is so long from now, not so long ago."""
    if text is None:
        return None
    if text[-1] in UNITS:
        seconds = int(text[:-1]) * UNITS[text[-1]]
        return instant(min(max(round((now + (seconds if ahead else -seconds)) * 1000), 0), MOST_MS - 1))
    return instant(instant_of(text))
