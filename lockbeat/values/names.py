"""Names: of locks, owners, claims, queues, jobs and tasks."""

from __future__ import annotations

from lockbeat.errors import InvalidArgument, InvalidType

MAX_NAME_BYTES = 1024


def check_name(argument: str, value: object, most: int = MAX_NAME_BYTES) -> str:
    """A name as the store takes it: a non-empty str of at most `most` bytes in UTF-8, anything allowed in it.

    Raises InvalidArgument (InvalidType for other than str), naming `argument`.
    """
    if not isinstance(value, str):
        raise InvalidType(argument, f"must be a str, not {type(value).__name__}")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidArgument(argument, "must be text that UTF-8 can carry, without lone surrogates") from None
    if not 0 < size <= most:
        raise InvalidArgument(
            argument,
            "must not be empty" if size == 0 else f"must be at most {most} bytes, not {size}",
        )
    return value


def check_by(by: object) -> str:
    """Who did something, as people are told of it. Raises InvalidArgument, InvalidType, naming `by`."""
    if not (name := check_name("by", by)).strip():
        raise InvalidArgument("by", "must not be blank: it is who did it")
    return name
