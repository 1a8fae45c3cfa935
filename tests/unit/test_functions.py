"""What may be run, how it wants to be called, and what it is told."""

from __future__ import annotations

import functools
import inspect
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
    @classmethod
    async def of_class(cls, run: Run) -> None: ...
    @staticmethod
    async def of_nobody(run: Run) -> None: ...


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
        (functools.cache(plain), False, True),
        (functools.cache(lambda: None), False, False),
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


def passes_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


def opens_first(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **options: Any) -> Any:
        return await function("db", *args, **options)

    return wrapper


def opens_by_name(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, db="db", **options)

    return wrapper


def opens_for_the_run(function: Any) -> Any:
    """As APScheduler's bug report has it (#363): the wrapper's own arguments, not those behind it, are what counts."""

    @functools.wraps(function)
    async def wrapper(attempt: Run) -> Any:
        return await function("db", attempt.attempt)

    return wrapper


def opens_alone(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper() -> Any:
        return function(db="db")

    return wrapper


def opens_positionally(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function("db", *args)

    return wrapper


def by_names_alone(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(**options: Any) -> Any:
        return function(db="db", **options)

    return wrapper


async def run_then_db(run: Run, db: str) -> tuple[Any, ...]:
    return run, db


async def db_then_run(db: str, run: Run) -> tuple[Any, ...]:
    return run, db


async def db_then_annotated(db: str, attempt: Run) -> tuple[Any, ...]:
    return attempt, db


async def number_and_db(db: str, number: int) -> tuple[Any, ...]:
    return number, db


async def db_alone(db: str) -> tuple[Any, ...]:
    return None, db


def late_run(extra: str = "db", run: Run | None = None) -> tuple[Any, ...]:
    return run, extra


def named_run(*, run: Run | None = None) -> tuple[Any, ...]:
    return run, "db"


class Proxy:
    """As wrapt has it: no function, though it says so of itself and shows what the one behind it takes."""

    def __init__(self, function: Any) -> None:
        self.__wrapped__ = function

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__wrapped__(*args, db="db", **options)


ITS_OWN: Any = "its own"


class Opened:
    async def method(self, db: str, run: Run) -> tuple[Any, ...]:
        return run, db

    wrapped = opens_first(method)

    @passes_on
    def passed_on(self, run: Run) -> tuple[Any, ...]:
        return run, "db"

    async def __call__(self, run: Run, db: str = "db") -> tuple[Any, ...]:
        return run, db


@pytest.mark.parametrize(
    ("function", "told_of"),
    [
        (opens_by_name(run_then_db), "run"),
        (opens_by_name(db_then_run), "run"),
        (opens_first(db_then_run), "run"),
        (opens_first(db_then_annotated), "run"),
        (opens_positionally(db_then_run), "run"),
        (by_names_alone(run_then_db), "run"),
        (passes_on(opens_by_name(run_then_db)), "run"),
        (opens_by_name(passes_on(db_then_run)), "run"),
        (Proxy(run_then_db), "run"),
        (Proxy(db_then_run), "run"),
        (Proxy(db_alone), None),
        (opens_for_the_run(number_and_db), 2),
        (opens_by_name(db_alone), None),
        (opens_first(db_alone), None),
        (opens_alone(db_alone), None),
        (functools.partial(db_then_run, "db"), "run"),
        (functools.partial(db_then_run, db="db"), "run"),
        (functools.partial(opens_first(db_then_run)), "run"),
        (functools.update_wrapper(functools.partial(db_then_run, "db"), db_then_run), "run"),
        (functools.partial(db_then_run, "db", ITS_OWN), ITS_OWN),
        (functools.partial(run_then_db, db="db", run=ITS_OWN), ITS_OWN),
        (functools.partial(Opened()), "run"),
        (functools.partial(Opened().method, "db"), "run"),
        (Opened().passed_on, "run"),
        (Opened(), "run"),
        (late_run, "run"),
        (named_run, "run"),
    ],
)
async def test_what_wraps_a_function_gives_it_what_is_its_own_and_the_run_is_ours(function: Any, told_of: Any) -> None:
    run = made()
    said = Function.of(function).with_run(lambda: run)()
    assert (await said if inspect.isawaitable(said) else said) == (run if told_of == "run" else told_of, "db")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Service.method, "Service.method is called on an instance, and there is none yet: declare it after the class"),
        (Service.method, r"as in beat.every\(10\)\(Service\(\).method\)"),
        (Opened.passed_on, r"\(Opened\(\).passed_on\)"),
        (Opened.wrapped, r"\(Opened\(\).method\)"),
        (vars(Service)["of_class"], r"is called on the class, .* beat.every\(10\)\(Service.of_class\)"),
        (vars(Service)["of_class"].__func__, r"beat.every\(10\)\(Service.of_class\)"),
    ],
)
def test_a_method_that_has_nothing_to_be_called_on_is_refused_with_the_way_to_do_it(method: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Function.of(method)


async def test_methods_that_have_something_to_be_called_on_are_functions() -> None:
    for method in (Service().method, Service.of_class, Service.of_nobody, vars(Service)["of_nobody"]):
        made_of = Function.of(method)
        assert (made_of.is_async, made_of.takes_run) == (True, True)
        await made_of.with_run(made)()


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
