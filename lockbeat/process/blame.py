"""Which function is told of a SystemExit that left through the event loop, and whether a program of ours hears the signals."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType


def heard(number: int, frame: FrameType | None) -> None:
    """Python's handler of the signals that ask a program to end. It does nothing: they are read from the wake-up socket."""


blame: ContextVar[Callable[[BaseException], None]] = ContextVar("blame")
"""In the context of a function that is run, and of what it started: told of a SystemExit that nobody else can be told of."""
