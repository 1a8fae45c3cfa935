"""What is printed: a command's answer as tables and lines or as JSON, and the one line that says what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from rich import box, table
from rich.console import Console
from rich.text import Text

from lockbeat.values.durations import span
from lockbeat.values.visible import visible, visible_json

Cell = str | tuple[str, str]
"""Text, or text and a rich style that only a terminal shows."""
STYLES = {
    **dict.fromkeys(("done", "ok", "alive"), "green"),
    **dict.fromkeys(("running", "claimed"), "cyan"),
    **dict.fromkeys(("waiting", "skipped", "cancelled", "anchored", "warn"), "yellow"),
    **dict.fromkeys(("failed", "lost", "expired"), "red"),
    **dict.fromkeys(("missed", "dead", "fail"), "red bold"),
    "unknown": "dim",
}
WRAPPED = 20
"""What a column that is wrapped gets at least, in characters."""

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
    sys.stdout.flush()
    sys.stderr.write(f"lockbeat: {visible(' '.join(problem.split()))}\n")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of the same columns: as wide as they need where a program reads them, as wide as the window where a person does.

    Where the window is too narrow, the columns in `wraps` are broken between words, and those in `spare` are left out, the
    first of them first.
    """

    rows: Sequence[Mapping[str, Cell]]
    """By the heading of the column."""
    none: str = ""
    """What is said where there are no rows."""
    spare: Sequence[str] = ()
    wraps: Sequence[str] = ()

    def show(self) -> None:
        if not self.rows:
            say(self.none)
        elif is_terminal():
            console = Console()
            console.print(self.drawn(console.width))
        else:
            widths = self._widths()
            for line in ({name: name for name in widths}, *self.rows):
                say("  ".join(visible(_text(line[name])).ljust(width) for name, width in widths.items()).rstrip())

    def drawn(self, width: int) -> table.Table:
        """What is shown in a window so many characters wide."""
        widths = self._widths()
        for name in self.spare:
            needed = sum(min(length, WRAPPED) if each in self.wraps else length for each, length in widths.items())
            if needed + 3 * len(widths) <= width:
                break
            del widths[name]
        found = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in widths:
            found.add_column(name, overflow="fold" if name in self.wraps else "ellipsis", no_wrap=name not in self.wraps)
        for row in self.rows:
            cells = (row[name] for name in widths)
            found.add_row(*(Text(visible(_text(cell)), "" if isinstance(cell, str) else cell[1]) for cell in cells))
        return found

    def _widths(self) -> dict[str, int]:
        return {name: max(len(name), *(len(visible(_text(row[name]))) for row in self.rows)) for name in self.rows[0]}


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def styled(state: str) -> Cell:
    """A state, in its colour."""
    return state, STYLES.get(state, "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found, or did."""

    document: Any
    """For --json."""
    told: str | Table | Sequence[str | Table]
    """For people: lines and tables."""
    remark: str = ""
    """A line on stderr: it is no part of what was asked for."""
    code: int = 0

    def show(self, as_json: bool) -> int:
        """Print it; the exit code."""
        if as_json:
            # In characters that stdout can carry.
            unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
            sys.stdout.write(visible_json(self.document, indent=2, ascii_only=not unicode) + "\n")
        else:
            for part in [self.told] if isinstance(self.told, (str, Table)) else self.told:
                if isinstance(part, Table):
                    part.show()
                else:
                    say(part)
        if self.remark:
            complain(self.remark)
        return self.code


def fields(thing: Any, names: str = "") -> dict[str, Any]:
    """The attributes with these names, all if none are given, as JSON has them: instants in ISO 8601."""
    chosen = names.split() or _names(thing)
    return {name: _plain(getattr(thing, name), is_time=name == "at" or name.endswith("_at")) for name in chosen}


def _names(thing: Any) -> tuple[str, ...]:
    """Those of a named tuple's or a dataclass's fields; else none."""
    return tuple(getattr(thing, "_fields", ()) or getattr(thing, "__dataclass_fields__", ()))


def _plain(value: Any, *, is_time: bool) -> Any:
    if isinstance(value, datetime) or (is_time and value is not None):
        return iso(value)
    if _names(value):
        return fields(value)
    return [_plain(each, is_time=False) for each in value] if isinstance(value, tuple) else value


def iso(when: datetime | float) -> str:
    """An instant in ISO 8601, UTC, to the millisecond."""
    return _moment(when).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(when: datetime | float) -> datetime:
    return when if isinstance(when, datetime) else datetime.fromtimestamp(round(when, 3), UTC)


def several(count: int, noun: str) -> str:
    """1 task, 2 tasks."""
    return f"{count} {noun}{'s' * (count != 1)}"


def more_than(limit: int, found: Sequence[object]) -> str:
    """What is remarked where there are more than were asked for."""
    return f"there are more than {limit}; --limit N shows up to N" if len(found) > limit else ""


def clock(at: datetime | float | None, now: float | None = None) -> str:
    """An instant for people: in the zone of this machine, or UTC by --utc; milliseconds only where there are some.

    On a terminal without the date, where `now` (seconds) is given and within half a day.
    """
    if at is None:
        return "-"
    when = _moment(at).astimezone(_zone)
    text = when.isoformat(" ", "milliseconds" if when.microsecond >= 1000 else "seconds").replace("+00:00", "Z")
    near = now is not None and is_terminal() and abs(when.timestamp() - now) < 43_200
    return text.partition(" ")[2] if near else text


def ago(when: float, now: float) -> str:
    return f"{span(max(now - when, 0))} ago"
