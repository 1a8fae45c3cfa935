"""The demo on a terminal: a grid of jobs and slots, live."""

from __future__ import annotations

import time

from rich.box import ROUNDED
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lockbeat.cli.demo import jobs
from lockbeat.cli.demo._check import Verdict
from lockbeat.cli.demo._stage import Stage, hms, told

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_yellow")
CONDITIONS = {
    "starting": ("◌", "dim"),
    "alive": ("●", "green"),
    "killed": ("✖", "red"),
    "frozen": ("❄", "bright_blue"),
    "stopped": ("○", "dim"),
}
LEGEND = Text("letter: the instance that ran it   † cut short   - skipped   ○ waiting   · not due", "dim")
EVENTS = 7
"""Lines of the story that are shown."""


class Screen:
    """Draws the stage in place, and leaves its last frame with the summary below."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self._stage = stage
        self._console = console
        self._colours = {member.name: COLOURS[at % len(COLOURS)] for at, member in enumerate(stage.members)}
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._draw, vertical_overflow="crop")

    def open(self) -> None:
        """Begin to draw."""
        self._live.start()

    def close(self) -> None:
        """Give the terminal back; the last frame stays."""
        self._live.stop()

    def update(self) -> None:
        """Draw anew."""
        self._live.refresh()

    def end(self, verdict: Verdict) -> None:
        """The summary."""
        self.close()
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="left")
        table.add_column(justify="right")
        table.add_column(style="dim", overflow="fold")
        for name, count, comment in told(self._stage, verdict):
            bad = name in ("duplicates", "missed", "early", "no slots") and count != "0"
            good = name in ("duplicates", "missed") and count == "0"
            style = "bold red" if bad else "bold green" if good else "bold"
            table.add_row(name, Text(count, style), comment)
        sound = verdict.sound
        title = Text("each slot fired once" if sound else "NOT as promised", "bold green" if sound else "bold red")
        self._console.print(
            Panel(table, title=title, title_align="left", box=ROUNDED, border_style="green" if sound else "red", expand=False)
        )

    def _draw(self) -> RenderableType:
        now = time.time()
        return Group(
            Panel(
                Group(self._instances(), Text(), self._grid(now), LEGEND, Text(), self._lock(now), self._counts(now)),
                title=Text.assemble(("lockbeat demo", "bold"), self._clock(now)),
                title_align="left",
                subtitle=Text("every instance runs the beat; the store's clock decides", "dim"),
                subtitle_align="right",
                box=ROUNDED,
                border_style="dim",
            ),
            self._story(),
        )

    def _clock(self, now: float) -> str:
        stage = self._stage
        if not stage.t0_ms:
            return "  starting"
        gone = min(max(now - stage.t0_ms / 1000, 0), stage.seconds)
        return f"  {gone:.0f} / {stage.seconds:g} s"

    def _instances(self) -> Table:
        shares, row = self._stage.shares(), Table.grid(padding=(0, 4 if self._console.width > 90 else 2, 0, 0))
        cells = []
        for member in self._stage.members:
            sign, style = CONDITIONS[member.condition]
            text = Text(f" {member.name} ", f"bold black on {self._colours[member.name]}")
            text.append(f" {sign} {member.condition:<8}", style)
            cells.append(text.append(f"{shares[member.name]:>4} fired", "dim"))
        abreast = max(self._console.width // 30, 1)
        for start in range(0, len(cells), abreast):
            row.add_row(*cells[start : start + abreast])
        return row

    def _grid(self, now: float) -> Table:
        """Jobs down, seconds across, the newest at the right."""
        stage = self._stage
        label = max(map(len, stage.job_names)) + 2
        room = max(min((self._console.width - label - 6) // 3, 24), 4)
        newest = min(int(now) * 1000, stage.t1_ms) if stage.t0_ms else int(now) * 1000
        seconds = [newest - 1000 * back for back in reversed(range(room))]
        due = set(stage.due(newest))
        table = Table.grid()
        table.add_column(width=label)
        table.add_column()
        head = Text()
        for ms in seconds:
            head.append(f" {time.strftime('%S', time.localtime(ms / 1000))}" if ms > stage.t0_ms > 0 else "   ", "dim")
        table.add_row(Text("slot", "dim"), head)
        for name in stage.job_names:
            line = Text()
            for ms in seconds:
                idle = Text("  ·" if ms > stage.t0_ms > 0 else "   ", "bright_black")
                line.append_text(self._cell((name, ms), now * 1000) if (name, ms) in due else idle)
            table.add_row(Text(name, "bold"), line)
        return table

    def _cell(self, key: tuple[str, int], now_ms: float) -> Text:
        stage = self._stage
        state = stage.cell(key, now_ms)
        by = stage.begins[key].by if key in stage.begins else ""
        if state == "fired":
            return Text.assemble(" ", (f"{by} ", f"bold black on {self._colours[by]}"))
        if state == "cut":
            return Text.assemble(" ", (f"{by or '?'}†", "bold white on red"))
        if state == "skipped":
            return Text("  -", "yellow")
        if state == "missed":
            return Text.assemble(" ", ("!!", "bold white on red"))
        return Text("  ○", "dim")

    def _lock(self, now: float) -> Text:
        lease, line = self._stage.lock, Text()
        line.append(f"lock job:{jobs.SLOW}  ", "bold")
        if lease is None:
            return line.append("free", "dim")
        name = self._stage.letters.get(lease.owner, "?")
        line.append(f" {name} ", f"bold black on {self._colours.get(name, 'white')}")
        line.append(f"  fence {lease.fence}")
        left = max(lease.expires_at - now, 0)
        filled = round(min(left / jobs.LEASE, 1) * 10)
        line.append("  ")
        line.append("━" * filled, "green" if left > jobs.LEASE / 3 else "red")
        line.append("━" * (10 - filled), "bright_black")
        line.append(f" {left:.1f} s left", "dim")
        return line

    def _counts(self, now: float) -> Text:
        counts, line = self._stage.counts(now * 1000), Text()
        line.append("slots  ", "bold")
        fired = counts["fired"] + counts["cut"]
        for text, style in (
            (f"{counts['due']} due", ""),
            (f"{fired} fired", ""),
            (f"{counts['skipped']} - skipped", "yellow"),
            (f"{counts['cut']} † cut", "red" if counts["cut"] else "dim"),
            (f"duplicates {counts['duplicates']}", "bold red" if counts["duplicates"] else "bold green"),
            (f"missed {counts['missed']}", "bold red" if counts["missed"] else "bold green"),
        ):
            line.append(text, style)
            line.append("  ")
        line.rstrip()
        return line

    def _story(self) -> RenderableType:
        lines = []
        for event in self._stage.events[-EVENTS:]:
            line = Text(f" {hms(event.at * 1000)} ", "dim", no_wrap=True, overflow="ellipsis")
            lines.append(line.append(event.text, event.style))
        lines += [Text()] * (EVENTS - len(lines))  # a frame of one height does not jump
        return Group(*lines)
