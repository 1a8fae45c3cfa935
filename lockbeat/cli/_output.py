"""What is printed: tables, JSON, and the one line that says what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lockbeat.values.durations import span
from lockbeat.values.visible import visible, visible_json

Cell = str | tuple[str, str]
"""Text, or text and a rich style that only a terminal shows."""
WRAPPED = 20
"""What a column that is wrapped gets at least, in characters."""
TOLERANCE = 5.0
"""Seconds, by the server's clock, within which a slot that has come due is not late: whoever fires it may be about to."""

_zone: tzinfo | None = None  # None: the local one


def show_utc(wanted: bool) -> None:
    """Whether people are shown UTC; else the zone of this machine."""
    global _zone
    _zone = UTC if wanted else None


def zone_of(when: datetime) -> datetime:
    """A time that says no zone, as people read those that are shown."""
    return when.replace(tzinfo=_zone) if _zone is not None else when.astimezone()


def is_terminal() -> bool:
    """Whether stdout is a person's terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def say(line: str = "") -> None:
    """A line on stdout, and nothing but a line whatever it tells of."""
    sys.stdout.write(visible(line) + "\n")


def complain(problem: str) -> None:
    """The line on stderr that says what went wrong."""
    sys.stderr.write(f"lockbeat: {visible(' '.join(problem.split()))}\n")


def say_json(document: Any) -> None:
    """One JSON document on stdout, in characters that it can carry."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(visible_json(document, indent=2, ascii_only=not unicode) + "\n")


def show(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, spare: Sequence[str] = (), wraps: Sequence[str] = ()) -> None:
    """A table: as wide as it needs where it is read by a program, as wide as the window where by a person.

    Where the window is too narrow, the columns in `wraps` are broken between words, and those in `spare` are left
    out, the first of them first.
    """
    if is_terminal():
        console = Console()
        console.print(table(columns, rows, console.width, spare=spare, wraps=wraps))
        return
    plain = _plain(columns, rows)
    widths = _widths(plain)
    for row in plain:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, *, spare: Sequence[str] = (), wraps: Sequence[str] = ()
) -> Table:
    """What `show` shows in a window so many characters wide."""
    widths, shown = _widths(_plain(columns, rows)), list(range(len(columns)))
    for name in spare:
        needed = sum(min(widths[at], WRAPPED) if columns[at] in wraps else widths[at] for at in shown)
        if needed + 3 * len(shown) <= width:
            break
        shown.remove(columns.index(name))
    found = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for at in shown:
        wrapped = columns[at] in wraps
        found.add_column(columns[at], overflow="fold" if wrapped else "ellipsis", no_wrap=not wrapped)
    for row in rows:
        styled = ((cell, "") if isinstance(cell, str) else cell for cell in (row[at] for at in shown))
        found.add_row(*(Text(visible(text), style) for text, style in styled))
    return found


def _plain(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    return [list(columns), *([visible(cell if isinstance(cell, str) else cell[0]) for cell in row] for row in rows)]


def _widths(plain: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*plain, strict=True)]


def several(count: int, noun: str) -> str:
    """1 task, 2 tasks."""
    return f"{count} {noun}{'s' * (count != 1)}"


def iso(ms: int | None) -> str | None:
    """An instant in ISO 8601, UTC, to the millisecond."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(ms: int | None, now: float | None = None) -> str:
    """An instant for people: in the zone of this machine, or UTC by --utc; milliseconds only where there are some.

    On a terminal without the date, where `now` (seconds) is given and within half a day.
    """
    if ms is None:
        return "-"
    when = datetime.fromtimestamp(ms // 1000, UTC).astimezone(_zone)
    fraction = f".{ms % 1000:03}" if ms % 1000 else ""
    offset = when.isoformat()[19:]
    text = f"{when:%Y-%m-%d %H:%M:%S}{fraction}{'Z' if offset == '+00:00' else offset}"
    near = now is not None and is_terminal() and abs(ms / 1000 - now) < 43_200
    return text.partition(" ")[2] if near else text


def overdue(ms: float, now: float) -> str:
    """How far off an instant is that ought to come: 0.4 s, now, overdue 9 m 33 s. `now`: seconds."""
    left = ms / 1000 - now
    if left >= 0:
        return span(left)
    return "now" if left > -TOLERANCE else f"overdue {span(-left)}"
