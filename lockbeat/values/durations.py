"""Durations and instants: seconds (int, float) or a timedelta from callers, whole milliseconds inside, a datetime to show."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lockbeat.errors import InvalidArgument, InvalidType

Seconds = float | int | timedelta

TEN_YEARS = 10 * 365.25 * 86_400


def seconds(argument: str, value: object, *, least: float = 0.001, most: float = TEN_YEARS) -> float:
    """The duration in seconds. Raises InvalidArgument or InvalidType, naming `argument`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, timedelta):
        number = value.total_seconds()
    else:
        raise InvalidType(argument, f"must be seconds (int or float) or a timedelta, not {type(value).__name__}")
    if not (least <= number <= most):  # also refuses NaN
        limit = "10 years" if most == TEN_YEARS else f"{most:g} s"
        shown = f"{number:g}" if abs(number) < 1e300 else number  # an int may be too large to be a float
        raise InvalidArgument(argument, f"must be between {least:g} s and {limit}, not {shown}")
    return number


def milliseconds(argument: str, value: object, *, least: float = 0.001, most: float = TEN_YEARS) -> int:
    """As `seconds`, rounded to whole milliseconds."""
    return round(seconds(argument, value, least=least, most=most) * 1000)


def instant(ms: int) -> datetime:
    """Milliseconds since the Unix epoch as an aware datetime, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def span(length: float) -> str:
    """A duration in seconds, for people: 0.4 s, 12 s, 3 m 20 s, 2 h 5 m, 4 d 3 h."""
    sign, length = ("-" if length < 0 else ""), abs(length)
    if length < 9.95:
        return f"{sign}{length:.1f}".removesuffix(".0") + " s"
    if length < 60:
        return f"{sign}{length:.0f} s"
    whole = round(length)
    for large, size, small, unit in (("m", 60, "s", 1), ("h", 3600, "m", 60), ("d", 86400, "h", 3600)):
        if whole < size * (60 if large == "m" else 24) or large == "d":
            rest = whole % size // unit
            return f"{sign}{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    raise AssertionError


def brief(ms: float) -> str:
    """A duration in milliseconds, as `span` where it is a second or longer."""
    return f"{ms:.0f} ms" if ms < 1000 else span(ms / 1000)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


def read_span(argument: str, text: str) -> float:
    """A duration as people write it, in seconds: 90, 1.5s, 5m, 2h 30m. Raises InvalidArgument, naming `argument`."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PARTS.findall(text)
    if not parts or _PARTS.sub("", text):
        raise InvalidArgument(argument, f"{text!r} is no duration; write it as 90, 1.5s, 5m or 2h 30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
