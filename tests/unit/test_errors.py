"""Every error survives pickle, copy and deepcopy with its words, its fields and its notes, those to come included."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from lockbeat import errors
from lockbeat.errors import ClaimDone, LeaseLost, LifespanError, LockbeatError, LockTimeout, MissingExtra, NotDurable

# ruff: noqa: S301 - what is read was written here


def everyone(kind: type[LockbeatError] = LockbeatError) -> list[type[LockbeatError]]:
    found = [kind]
    for below in kind.__subclasses__():
        found += [each for each in everyone(below) if each.__module__.startswith("lockbeat")]
    return found


KINDS = list(dict.fromkeys(everyone()))


def example(kind: type[LockbeatError]) -> LockbeatError:
    """An instance, whatever the constructor takes."""
    values = {"float": 1.5, "int": 7, "str": "words\nand more", "BaseException": ValueError("inner"), "Any": {"a": [1, None]}}
    values["list[str]"] = ["words", "and more"]
    args: list[Any] = []
    named: dict[str, Any] = {}
    if not inspect.isfunction(kind.__init__):
        return kind("words\nand more")
    for parameter in inspect.signature(kind).parameters.values():
        value = values.get(str(parameter.annotation), {"a": [1, None]})
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.append("words")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            args.append(value)
    error = kind(*args, **named)
    error.add_note("a note")
    return error


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle 0": lambda error: pickle.loads(pickle.dumps(error, 0)),
    "pickle 5": lambda error: pickle.loads(pickle.dumps(error, 5)),
}


def shown(value: Any) -> Any:
    return repr(value) if isinstance(value, BaseException) else value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives(kind: type[LockbeatError]) -> None:
    error = example(kind)
    for way, again in ((way, go(error)) for way, go in WAYS.items()):
        assert type(again) is kind, way
        assert (str(again), again.args) == (str(error), error.args), way
        assert {name: shown(value) for name, value in vars(again).items()} == {
            name: shown(value) for name, value in vars(error).items()
        }, way
        assert again is not error


def test_all_of_them_are_tried() -> None:
    assert {each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, LockbeatError)} <= set(KINDS)


class Theirs(LeaseLost):
    """A user's own, that keeps nothing of what it was made with in `args`."""

    def __init__(self, *, code: int) -> None:
        Exception.__init__(self)
        self.code = code


@pytest.mark.parametrize("way", WAYS)
def test_a_subclass_of_theirs_survives(way: str) -> None:
    assert WAYS[way](Theirs(code=7)).code == 7


@pytest.mark.parametrize("way", [way for way in WAYS if way != "copy"])
def test_what_python_keeps_of_its_own_survives(way: str) -> None:
    assert WAYS[way](MissingExtra("pip install it")).msg == "pip install it"
    assert WAYS[way](LockTimeout("k", 1)).errno is None


class Stubborn(Exception):
    """Can be written, and not be read again: the fault of many a library."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("problem", [Stubborn(1, 2), type("Local", (Exception,), {})("nowhere to be found")])
def test_a_field_that_can_not_travel_arrives_as_its_repr(problem: Exception) -> None:
    again = pickle.loads(pickle.dumps(LifespanError("failed", problem)))
    assert again.problem == repr(problem)
    assert pickle.loads(pickle.dumps(ClaimDone("k", "q", "o", problem, 1.0, 2.0))).result == repr(problem)
    assert pickle.loads(pickle.dumps(NotDurable("late", lambda: None))).args == ("late",)


def fail(number: int) -> None:
    raise example(KINDS[number])


def test_every_error_comes_back_from_a_process() -> None:
    with ProcessPoolExecutor(1) as pool:
        for number, kind in enumerate(KINDS):
            error = pool.submit(fail, number).exception(30)
            assert type(error) is kind
            assert str(error) == str(example(kind))
