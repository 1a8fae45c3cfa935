"""Tracebacks as text that is never too long: an exception's words may be the 50 MB of an INSERT that failed."""

from __future__ import annotations

import traceback
from types import TracebackType

MOST = 64 * 1024
"""Characters of a traceback, or of another text for people; of a longer one, both ends."""
MARK = "\n[…]\n"


def traceback_of(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> str:
    """As Python writes it."""
    try:
        text = "".join(traceback.format_exception(kind, error, trace))
    except Exception:  # noqa: BLE001 - RecursionError by groups within groups, or what is no exception's own code
        return f"{getattr(kind, '__qualname__', kind)}, whose traceback can't be written"
    return both_ends(text.rstrip("\n"))


def both_ends(text: str) -> str:
    """The text, or of a long one the beginning and the end."""
    half = (MOST - len(MARK)) // 2
    return text if len(text) <= MOST else f"{text[:half]}{MARK}{text[-half:]}"
