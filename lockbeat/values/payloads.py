"""User data as JSON text: scripts pass it on and never read it, so numbers and empty lists come back as they were."""

from __future__ import annotations

import json
from typing import Any

from lockbeat.errors import InvalidArgument, InvalidType, Unreadable

MOST_BYTES = 1 << 20
MOST_DEPTH = 200
"""Lists and dicts within each other. Python's own limit is a thousand frames, whoever is on the stack: what one can write another
could not read."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def dump(argument: str, value: Any) -> str:
    """The value as JSON, of at most 1 MiB and 200 levels. Raises InvalidType for what JSON can't say, InvalidArgument.

    Both name `argument`. JSON has text for keys: `{1: ..., "1": ...}` would lose one of the two, and is refused.
    """
    if value is None:
        return "null"
    try:
        text = _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(argument, "must be text that UTF-8 can carry, without lone surrogates") from None
    except RecursionError:
        raise InvalidArgument(argument, "is nested too deeply, or holds itself") from None
    except TypeError as problem:
        raise InvalidType(argument, f"must be JSON: {problem}") from None
    except ValueError as problem:  # NaN, or a value that holds itself
        raise InvalidArgument(argument, f"must be JSON: {problem}") from None
    if size > MOST_BYTES:
        raise InvalidArgument(argument, f"must be at most 1 MiB of JSON, not {size} bytes")
    wrong = _problem(value)
    if wrong is not None:
        raise InvalidArgument(argument, wrong)
    return text


def load(text: str | bytes, key: str, field: str = "") -> Any:
    """What `dump` wrote, as the store has it under `key` and `field`. Raises Unreadable."""
    try:
        value = json.loads(text if isinstance(text, str) else text.decode())  # which spares looking for its encoding
    except (ValueError, RecursionError):
        raise Unreadable(key, field) from None
    # Params lie within a payload. What is short can't be nested so deeply: a level takes two characters.
    if len(text) > 2 * MOST_DEPTH and _problem(value, MOST_DEPTH + 2) is not None:
        raise Unreadable(key, field)
    return value


def _problem(value: Any, deepest: int = MOST_DEPTH) -> str | None:
    """What is wrong with a value that JSON can say."""
    if not isinstance(value, (dict, list, tuple)):
        return None
    level = [value]
    for _ in range(deepest):
        below = []
        for node in level:
            if isinstance(node, dict):
                if any(type(key) is not str for key in node) and len(set(map(_spelled, node))) < len(node):
                    return "has keys that are the same in JSON, whose keys are text"
                below += [child for child in node.values() if isinstance(child, (dict, list, tuple))]
            else:
                below += [child for child in node if isinstance(child, (dict, list, tuple))]
        if not below:
            return None
        level = below
    return f"must not be nested more than {MOST_DEPTH} deep"


def _spelled(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)
