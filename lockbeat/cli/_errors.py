"""What ends a command: Usage (exit code 2), Problem (1, or as it says), and signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class Problem(Exception):
    """Ends the command with one line, after `details` that need more."""

    def __init__(self, message: str, *, code: int = 1, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Usage(Problem):
    """The command was called in a way that can't work."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=2)


def only_error(error: BaseException) -> BaseException:
    """The one error inside a group of one, however deep."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def until_signalled() -> Iterator[asyncio.Future[int]]:
    """The first signal that asks for the end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield ended
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
