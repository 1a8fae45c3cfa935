"""Numbers and words from callers, within their bounds."""

from __future__ import annotations

from lockbeat.errors import InvalidArgument, InvalidType

MOST_FENCE = 2**53 - 1
"""From the next number on a fence can't be told from its neighbours in Lua."""


def of_type(argument: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    """Raises InvalidType for a value that is not `what`, an instance of `kind`."""
    if not isinstance(value, kind):
        raise InvalidType(argument, f"must be {what}, not {type(value).__name__}")


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises InvalidArgument for a value that is none of them."""
    if value not in allowed:
        raise InvalidArgument(argument, f"must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def whole(argument: str, value: object, least: int, most: int) -> int:
    """An int within bounds. Raises InvalidType or InvalidArgument, naming `argument`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(argument, f"must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidArgument(argument, f"must be between {least} and {most}, not {value}")
    return value
