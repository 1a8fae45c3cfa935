"""User data as JSON text: scripts pass it on and never read it, so numbers and empty lists come back as they were."""

from __future__ import annotations

import json
from typing import Any

from lockbeat.errors import InvalidArgument, InvalidType

MOST_BYTES = 1 << 20


def dump(argument: str, value: Any) -> str:
    """The value as JSON of at most 1 MiB. Raises InvalidType for what JSON can't say, InvalidArgument; naming `argument`."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
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
    return text
