"""What ends a command: Usage (exit code 2) and Problem (1, or as it says)."""

from __future__ import annotations


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
