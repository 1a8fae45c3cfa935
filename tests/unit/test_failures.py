"""What is kept of an error, and how it is told in one line."""

from __future__ import annotations

import pytest

from lockbeat.tasks import Failure
from lockbeat.tasks.failure import MOST_ERROR
from lockbeat.values.tracebacks import MOST, traceback_of


class DatabaseError(Exception):
    """As SQLAlchemy says it: the last line is an advertisement."""

    def __str__(self) -> str:
        return "(sqlite3.IntegrityError) UNIQUE failed\n[SQL: INSERT ...]\n(Background on this error at: https://sqlalche.me/e/20/gkpj)"


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Odd(Exception):
    def __getattribute__(self, name: str) -> object:
        if name == "__cause__":
            raise RecursionError
        return super().__getattribute__(name)


def noted(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


GROUP = ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("one\nmore"), ExceptionGroup("in", [OSError("two")])])
MANY = ExceptionGroup("many", [ValueError(str(number)) for number in range(5)])


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (ValueError("no luck"), "ValueError: no luck"),
        (ValueError(), "ValueError"),
        (ValueError("\n\n  first\nsecond"), "ValueError: first"),
        (ValueError("first\r\nsecond"), "ValueError: first"),
        (KeyError("k"), "KeyError: 'k'"),
        (DatabaseError(), "DatabaseError: (sqlite3.IntegrityError) UNIQUE failed"),
        (Silent(), "Silent: its message can't be read"),
        (noted(ValueError("bad"), "row 7"), "ValueError: bad"),
        (GROUP, "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions): ValueError: one; OSError: two"),
        (MANY, "ExceptionGroup: many (5 sub-exceptions): ValueError: 0; ValueError: 1; ValueError: 2; and 2 more"),
        ("by hand\nmore", "Error: by hand"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_is_its_type_and_first_line(error: BaseException | str, summary: str) -> None:
    failure = Failure.of(error)
    assert failure.summary == summary
    if isinstance(error, BaseException):
        assert failure.text.splitlines()[0] == summary


def test_notes_and_the_errors_of_a_group_are_kept() -> None:
    failure = Failure.of(noted(ValueError("bad"), "row 7", "of two"))
    assert failure.message == "bad\nrow 7\nof two"
    assert failure.traceback is not None
    assert failure.traceback.endswith("ValueError: bad\nrow 7\nof two")
    traceback = Failure.of(GROUP).traceback
    assert traceback is not None
    assert "ValueError: one" in traceback
    assert "OSError: two" in traceback


@pytest.mark.parametrize("notes", [None, 7, "text", [7, "kept"]])
def test_notes_of_another_type_are_no_obstacle(notes: object) -> None:
    error = ValueError("bad")
    error.__notes__ = notes  # type: ignore[assignment]
    assert Failure.of(error).summary == "ValueError: bad"


def test_of_a_long_error_the_first_line_and_both_ends_of_the_traceback_are_kept() -> None:
    try:
        try:
            raise OSError("the cause")
        except OSError as cause:
            raise ValueError("first\n" + "x" * 10_000 + "\nlast") from cause
    except ValueError as error:
        failure = Failure.of(error)
    assert failure.summary == "ValueError: first"
    assert failure.traceback is not None
    for text in (failure.message, failure.traceback, failure.text):
        assert len(text) <= MOST_ERROR
    assert "the cause" in failure.traceback
    assert failure.traceback.endswith("last")
    assert failure.text.startswith("ValueError: first\nTraceback")


def test_groups_within_groups_are_a_failure_however_deep_they_lie() -> None:
    error: Exception = ValueError("at the bottom")
    for _ in range(3000):  # deeper than Python calls
        error = ExceptionGroup("in", [error])
    assert Failure.of(error).summary == "ExceptionGroup: in (1 sub-exception): ValueError: at the bottom"


def test_an_error_whose_traceback_can_not_be_written_is_one_all_the_same() -> None:
    failure = Failure.of(Odd("odd"))
    assert failure.summary == "Odd: odd"
    assert failure.traceback is not None
    assert failure.traceback.endswith("whose traceback can't be written")


def test_words_of_many_megabytes_are_cut_to_both_ends() -> None:
    error = ValueError("INSERT\n" + "x" * 10_000_000 + " failed")
    text = traceback_of(ValueError, error, None)
    assert len(text) <= MOST
    assert (text.startswith("ValueError: INSERT\n"), text.endswith(" failed")) == (True, True)
    failure = Failure.of(error)
    assert (failure.summary, len(failure.message)) == ("ValueError: INSERT", MOST_ERROR)
