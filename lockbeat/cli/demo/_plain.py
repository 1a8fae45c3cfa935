"""The demo as lines of text: a row a second, and what happened in between."""

from __future__ import annotations

import sys
import time

from lockbeat.cli.demo._check import Verdict
from lockbeat.cli.demo._stage import Stage, hms, told

SETTLED_MS = 900
"""A row is written this long after its second: the slots of a moment are fired by then, though an instance died at it."""


class Plain:
    """Writes to stdout, a line at a time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._told = 0
        self._row_ms = 0

    def open(self) -> None:
        """Say what is to come."""

    def close(self) -> None:
        """Nothing is left to put right."""

    def update(self) -> None:
        """Write what is new, in order of time."""
        stage, now_ms = self._stage, time.time() * 1000
        if stage.t0_ms and not self._row_ms:
            self._row_ms = stage.t0_ms
            self._tell()
            letters = ", ".join(member.name for member in stage.members)
            self._line("", f"{letters}: the instance that ran it; skip: overlap, the one before had not ended; .: not due")
            self._line("slot", "  ".join(stage.job_names))
        self._rows(now_ms, now_ms - SETTLED_MS)
        if not self._row_ms or now_ms > stage.t1_ms + SETTLED_MS:
            self._tell()

    def _rows(self, now_ms: float, until_ms: float) -> None:
        """The rows up to a time that are not written yet."""
        while self._row_ms and self._row_ms + 1000 <= min(self._stage.t1_ms, until_ms):
            self._row_ms += 1000
            self._tell(self._row_ms / 1000)
            self._row(now_ms)

    def _row(self, now_ms: float) -> None:
        stage = self._stage
        due = {name for name, slot in stage.due(self._row_ms) if slot == self._row_ms}
        cells = []
        for name in stage.job_names:
            key = (name, self._row_ms)
            state = stage.cell(key, now_ms) if name in due else None
            by = stage.begins[key].by if key in stage.begins else "?"
            text = {None: ".", "skipped": "skip", "waiting": "?", "missed": "MISSED"}.get(state, by)
            cells.append(text.ljust(len(name)))
        self._line(hms(self._row_ms), "  ".join(cells).rstrip())

    def _tell(self, until: float | None = None) -> None:
        """The events up to a time; None: all."""
        events = self._stage.events
        while self._told < len(events) and (until is None or events[self._told].at <= until):
            event = events[self._told]
            self._line(f"{hms(event.at * 1000)}.{int(event.at * 10 % 10)}", f"* {event.text}")
            self._told += 1

    def _line(self, when: str, text: str) -> None:
        sys.stdout.write(f"{when:<10}  {text}\n")
        sys.stdout.flush()

    def end(self, verdict: Verdict) -> None:
        """The summary."""
        self._rows(time.time() * 1000, self._stage.t1_ms)
        self._tell()
        sys.stdout.write("\n")
        for name, count, comment in told(self._stage, verdict):
            sys.stdout.write(f"{name:<12}{count:>7}  {comment}\n")
        sys.stdout.write(
            f"\n{verdict.due} slots due, {len(verdict.fired)} fired, {len(verdict.skipped)} skipped by policy: "
            f"duplicates {len(verdict.duplicates)}, missed {len(verdict.missed)}\n"
        )
        sys.stdout.flush()
