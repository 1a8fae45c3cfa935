"""What may be run, how it wants to be called, and what it is told."""

from __future__ import annotations

import functools
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import LeaseLost, Run
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.worker import Function


async def told(run: Run) -> None: ...
async def untold() -> None: ...
def plain(run: Run) -> None: ...
def optional(extra: int = 7) -> None: ...
def optional_run(run: Run | None = None) -> None: ...
def anything(*args: Any, **options: Any) -> None: ...
def only_named(*, run: Run) -> None: ...
def two(run: Run, other: int) -> None: ...
def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


class Service:
    async def method(self, run: Run) -> None: ...
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async", "takes_run"),
    [
        (told, True, True),
        (untold, True, False),
        (plain, False, True),
        (optional, False, False),
        (optional_run, False, True),
        (anything, False, False),
        (Service().method, True, True),
        (Service(), True, False),
        (functools.partial(two, other=1), False, True),
        (functools.partial(told), True, True),
        (lambda: None, False, False),
    ],
)
def test_how_a_function_is_called(function: Any, is_async: bool, takes_run: bool) -> None:
    made = Function.of(function, 1500)
    assert (made.call, made.is_async, made.takes_run, made.timeout_ms) == (function, is_async, takes_run, 1500)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (two, InvalidArgument, "needs: run, other"),
        (only_named, InvalidArgument, "needs: run"),
        (generator, InvalidArgument, "is a generator"),
        (async_generator, InvalidArgument, "is a generator"),
        (7, InvalidType, "must be callable, not int"),
        ("job", InvalidType, "must be callable, not str"),
        (dict.update, InvalidArgument, "function"),
    ],
)
def test_what_can_not_be_called_is_refused(wrong: Any, error: type[InvalidArgument], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        Function.of(wrong)
    assert caught.value.argument == "function"


def made(**options: Any) -> Run:
    return Run(job="", slot=datetime(2030, 1, 1, tzinfo=UTC), attempt=2, fence=77, task_id="50%s", **options)


def test_a_run_made_by_hand_goes_on_for_ever_as_tests_of_your_own_functions_want_it() -> None:
    made().heartbeat()


def test_a_run_that_is_to_stop_says_whose_and_why() -> None:
    run = made(owner="me", stopped=lambda: "it was cancelled")
    with pytest.raises(LeaseLost) as caught:
        run.heartbeat()
    lost = caught.value
    assert (lost.key, lost.owner, lost.fence, lost.reason) == ("50%s", "me", 77, "it was cancelled")


def test_why_it_stops_is_no_part_of_what_it_is() -> None:
    assert made(stopped=lambda: "x") == made()
    assert "stopped" not in repr(made())


def test_an_id_with_a_percent_sign_breaks_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="lockbeat.run")
    run = made()
    run.log.info("%d of %d", 1, 2)
    run.log.info("%d", 3, extra={"mine": 1})
    assert caplog.messages == ["50%s: 1 of 2", "50%s: 3"]
    assert [record.__dict__["attempt"] for record in caplog.records] == [2, 2]
    assert caplog.records[1].__dict__["mine"] == 1
    assert run.log is run.log
