"""Why an attempt failed, as text: what the store keeps of an exception."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lockbeat.values.payloads import dump
from lockbeat.values.tracebacks import traceback_of

MOST_ERROR = 4000
"""Characters of an error's text that are kept."""
MOST_LEAVES = 3
"""Errors of a group that its summary names."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, as text: nothing of the error itself is kept but its words."""

    type: str
    """The exception's class; "Lost": its lease ended; "CutShort": a shutdown; "Cancelled"; "Error": only a text was given."""
    message: str
    """The exception's words. A group's are followed, in the same line, by what is in it; notes come after them, a line each."""
    traceback: str | None = None
    detail: Any = None
    """The JSON value that was given as the error, if it was neither a text nor an exception; then `message` is its JSON."""

    @classmethod
    def of(cls, error: Any) -> Failure:
        """From a text, an exception or any JSON value. Raises InvalidType, InvalidArgument for what JSON can't say."""
        if isinstance(error, Failure):
            return error
        if isinstance(error, BaseException):
            trace = traceback_of(type(error), error, own_trace(error)).rstrip()
            message = "\n".join([_words(error), *_notes(error)])
            return cls(type(error).__qualname__, _clip(message, MOST_ERROR), _clip(trace, MOST_ERROR // 4))
        if not isinstance(error, str):
            text = dump("error", error)
            return cls("Error", _clip(text, MOST_ERROR), detail=json.loads(text))
        return cls("Error", _clip(error, MOST_ERROR))

    @property
    def summary(self) -> str:
        """What happened, in one line: the type and the first line of the message."""
        return ": ".join(filter(None, [self.type, _first_line(self.message)]))

    @property
    def text(self) -> str:
        """What the ledger keeps; its first line is the summary, where there is a traceback."""
        return _clip(f"{self.summary}\n{self.traceback}", MOST_ERROR // 4) if self.traceback else self.message

    def to_json(self) -> str:
        data = {"type": self.type, "message": self.message, "traceback": self.traceback}
        return dump("error", data if self.detail is None else data | {"detail": self.detail})


def own_trace(error: BaseException) -> TracebackType | None:
    """An error's traceback without the frames of ours that called the function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("lockbeat.worker"):
        trace = trace.tb_next
    return trace


def _words(error: BaseException) -> str:
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "its message can't be read"
    if not isinstance(error, BaseExceptionGroup):
        return words
    leaves = _leaves(error)
    inside = [": ".join(filter(None, [type(leaf).__qualname__, _first_line(_words(leaf))])) for leaf in leaves[:MOST_LEAVES]]
    left = len(leaves) - len(inside)
    return f"{_first_line(words)}: {'; '.join(inside)}{f'; and {left} more' if left else ''}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """In the order of the traceback. Groups may lie deeper in each other than Python calls."""
    leaves, left = [], [*reversed(group.exceptions)]
    while left:
        error = left.pop()
        if isinstance(error, BaseExceptionGroup):
            left.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return leaves


def _notes(error: BaseException) -> list[str]:
    notes = error.__dict__.get("__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list | tuple) else []


def _first_line(text: str) -> str:
    return next((line.strip() for line in text[:MOST_ERROR].splitlines() if line.strip()), "")


def _clip(text: str, head: int) -> str:
    """At most MOST_ERROR characters: so many from the beginning, the rest from the end."""
    if len(text) > 2 * MOST_ERROR:
        text = text[:MOST_ERROR] + text[-MOST_ERROR:]  # what is left out below need not be read
    text = text.encode(errors="backslashreplace").decode()  # a file name may hold what UTF-8 can't carry
    if len(text) <= MOST_ERROR:
        return text
    mark = "\n[…]\n"
    tail = max(MOST_ERROR - head - len(mark), 0)
    return f"{text[:head]}{mark}{text[-tail:]}" if tail else text[:MOST_ERROR]
