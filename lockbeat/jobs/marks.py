"""Slots as marks: of many slots at once what became of each, in a word (`job/strips`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lockbeat.errors import Unreadable
from lockbeat.store.calls import Calls
from lockbeat.store.records import as_slot
from lockbeat.store.scripts import row


class Mark(NamedTuple):
    """A slot as one mark among many."""

    slot_ms: int
    state: str
    """As `LedgerEntry.state`."""
    code: str = ""
    """skipped: the CODE of why."""
    took_ms: int | None = None
    """From the begin to the end of its last attempt; None: it has not ended, or nobody saw."""

    @classmethod
    def of(cls, text: bytes) -> Mark:
        """From "SLOT STATE HOW TOOK", as `job/strips` has it."""
        slot, state, how, took = text.decode(errors="replace").split(" ")
        how = "" if how == "-" else how
        try:
            return cls(int(slot), as_slot(state, how), how if state == "skipped" else "", None if took == "-" else int(took))
        except ValueError:
            return cls(int(slot), "unknown")


class Latest(NamedTuple):
    """The latest slots of a job."""

    marks: tuple[Mark, ...]
    """The newest first."""
    record: bytes
    """The newest one's, as the store has it."""


async def latest(calls: Calls, shard: int, names: Iterable[str], most: int) -> dict[str, Latest]:
    """The latest slots of jobs of a shard, `most` of each (`job/strips`). One that can't be read is left out."""
    jobs = [*dict.fromkeys(names)]
    replies = await calls.call_many([row["job/strips"](job=name, limit=most) for name in jobs], shard)
    return {
        name: Latest(tuple(map(Mark.of, reply.marks)), reply.record)
        for name, reply in zip(jobs, replies, strict=True)
        if not isinstance(reply, Unreadable)
    }
