"""Durations and instants: seconds (int, float) or a timedelta from callers, whole milliseconds inside, a datetime to show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lockbeat.errors import InvalidArgument, InvalidType

Seconds = float | int | timedelta

TEN_YEARS = 10 * 365.25 * 86_400


def seconds(argument: str, value: object, *, least: float = 0.001, most: float = TEN_YEARS) -> float:
    """The duration in seconds. Raises InvalidArgument or InvalidType, naming `argument`."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
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
