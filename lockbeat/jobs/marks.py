"""Slots as marks: of many slots at once what became of each, in a word (`job/strips`)."""

from __future__ import annotations

from typing import NamedTuple

from lockbeat.store.records import as_slot


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
