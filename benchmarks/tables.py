"""Figures and tables as Markdown has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def cell(value: Any) -> str:
    """A median with its range, or a plain number."""
    if isinstance(value, dict):
        middle = number(value["median"])
        if value["rounds"] == 1 or number(value["min"]) == number(value["max"]):
            return middle
        return f"{middle} ({number(value['min'])} to {number(value['max'])})"
    return value if isinstance(value, str) else number(value)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def emphasised(name: str) -> str:
    return f"**{name}**" if name.startswith("lockbeat") else name
