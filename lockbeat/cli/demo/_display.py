"""The demo as it is shown: a row a second, what happened in between, and on a terminal how things stand, live, below."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lockbeat.cli.demo import jobs
from lockbeat.cli.demo._check import Slot, Verdict
from lockbeat.cli.demo._stage import Stage, hms, told

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_yellow")
CONDITIONS = {"starting": "dim", "alive": "green", "killed": "bold red", "frozen": "bold bright_blue", "stopped": "dim"}
SETTLED_MS = 900
"""A row is written this long after its second: the slots of a moment are fired by then, though an instance died at it."""


class Display:
    """Writes the stage to stdout, line by line in order of time."""

    def __init__(self, stage: Stage, *, live: bool) -> None:
        self._stage = stage
        self._console = Console(highlight=False)
        self._colours = {member.name: f"bold black on {COLOURS[at]}" for at, member in enumerate(stage.members)}
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._below) if live else None
        self._told = 0
        self._row_ms = 0

    def open(self) -> None:
        if self._live is not None:
            self._live.start()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Write what is new."""
        now_ms = time.time() * 1000
        self._rows(now_ms - SETTLED_MS)
        if not self._row_ms or now_ms > self._stage.t1_ms + SETTLED_MS:
            self._tell()
        if self._live is not None:
            self._live.refresh()

    def end(self, verdict: Verdict) -> None:
        """The summary."""
        self._rows(self._stage.t1_ms)
        self._tell()
        self.close()
        self._console.print()
        for name, count, comment in told(self._stage, verdict):
            good = {"duplicates": count == "0", "missed": count == "0", "early": False, "no slots": False}.get(name)
            style = {None: "bold", True: "bold green", False: "bold red"}[good]
            self._write(Text.assemble(f"{name:<12}", (f"{count:>7}", style), ("  " + comment, "dim")))
        self._console.print()
        counts = f"{verdict.due} slots due, {len(verdict.fired)} fired, {len(verdict.skipped)} skipped by policy"
        sound = f"duplicates {len(verdict.duplicates)}, missed {len(verdict.missed)}"
        self._write(Text.assemble(counts, ": ", (sound, "bold green" if verdict.sound else "bold red")))

    def _rows(self, until_ms: float) -> None:
        """The rows up to a time that are not written yet, and the events before each."""
        stage = self._stage
        if stage.t0_ms and not self._row_ms:
            self._row_ms = stage.t0_ms
            self._tell()
            letters = ", ".join(member.name for member in stage.members)
            self._line("", f"{letters}: the instance that ran it; skip: overlap, the one before had not ended; .: not due")
            self._line("slot", Text("  ".join(stage.job_names), "bold"))
        while self._row_ms and self._row_ms + 1000 <= min(stage.t1_ms, until_ms):
            self._row_ms += 1000
            self._tell(self._row_ms / 1000)
            row = Text()
            for name in stage.job_names:
                cell = self._cell((name, self._row_ms))
                row.append_text(cell).append(" " * (len(name) + 2 - len(cell)))
            self._line(hms(self._row_ms), row)

    def _cell(self, key: Slot) -> Text:
        """What became of a slot."""
        stage = self._stage
        if key not in stage.due(key[1]):
            return Text(".", "bright_black")
        by = stage.begins[key].by if key in stage.begins else "?"
        return {
            "skipped": Text("skip", "yellow"),
            "waiting": Text("?", "dim"),
            "missed": Text("MISSED", "bold white on red"),
            "cut": Text(by, "bold white on red"),
            "fired": Text(by, self._colours.get(by, "")),
        }[stage.cell(key, time.time() * 1000)]

    def _tell(self, until: float | None = None) -> None:
        """The events up to a time; None: all."""
        for event in self._stage.events[self._told :]:
            if until is not None and event.at > until:
                break
            self._line(f"{hms(event.at * 1000)}.{int(event.at * 10 % 10)}", Text(f"* {event.text}", event.style))
            self._told += 1

    def _line(self, when: str, text: Text | str) -> None:
        self._write(Text.assemble((f"{when:<10}  ", "dim"), text))

    def _write(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line, soft_wrap=True)

    def _below(self) -> RenderableType:
        """How things stand: the time, the instances, the slow job's lock, the slots."""
        stage, now = self._stage, time.time()
        gone = min(max(now - stage.t0_ms / 1000, 0), stage.seconds) if stage.t0_ms else 0
        shares, instances = stage.shares(), Text.assemble((f"{gone:>3.0f} / {stage.seconds:g} s  ", "bold"))
        for member in stage.members:
            instances.append(f" {member.name} ", self._colours[member.name])
            instances.append(f" {member.condition} ", CONDITIONS[member.condition]).append(f"{shares[member.name]} fired   ")
        lock = Text.assemble((f"lock job:{jobs.SLOW}  ", "bold"))
        if stage.lock is None:
            lock.append("free", "dim")
        else:
            name, left = stage.letters.get(stage.lock.owner, "?"), max(stage.lock.expires_at - now, 0)
            filled = round(min(left / jobs.LEASE, 1) * 10)
            lock.append(f" {name} ", self._colours.get(name, "")).append(f"  fence {stage.lock.fence}  ")
            lock.append("━" * filled, "green" if left > jobs.LEASE / 3 else "red").append("━" * (10 - filled), "bright_black")
            lock.append(f" {left:.1f} s left", "dim")
        due = stage.due(now * 1000)
        counts = Counter(stage.cell(key, now * 1000) for key in due)
        begun = Counter(effect.key for effect in stage.effects if effect.what == "begin")
        twice = sum(times > 1 for times in begun.values())
        slots = Text(f"slots  {len(due)} due  {counts['fired'] + counts['cut']} fired  {counts['skipped']} skipped  ")
        slots.append(f"{counts['cut']} cut short  ", "red" if counts["cut"] else "")
        slots.append(f"duplicates {twice}  missed {counts['missed']}", "bold red" if twice or counts["missed"] else "bold green")
        return Group(Text(), instances, lock, slots)
