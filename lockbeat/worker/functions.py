"""A user's function: how it wants to be called, and what it is told."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import Any, get_args

from lockbeat.errors import InvalidArgument, InvalidType, LeaseLost
from lockbeat.values.visible import visible


def _goes_on() -> str | None:
    return None


class _RunLog(logging.LoggerAdapter[logging.Logger]):
    """Names the task in front of each message, and the attempt in the record's fields."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        task_id = visible(str((self.extra or {})["task_id"]))
        # A message without arguments is not formatted.
        super().log(level, f"{task_id.replace('%', '%%') if args else task_id}: {msg}", *args, **kwargs)


@dataclass(frozen=True)
class Run:
    """What a function is told of the attempt that it is."""

    job: str
    """The job's name; empty: the task was spawned."""
    slot: datetime
    """The nominal instant, UTC; it may run later, never earlier. Of a spawned task: when it was due."""
    attempt: int
    """1 for the first."""
    fence: int
    """Grows with each attempt of any task of the shard: hand it to whatever the function writes to."""
    task_id: str
    name: str = ""
    """Of the function, as it was spawned or as its job says."""
    queue: str = "default"
    params: Any = None
    """What it was spawned or triggered with, from JSON; of a slot: the job's."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    """The instance that runs it."""
    state: Any = field(default=None, repr=False, compare=False)
    """What the beat's `lifespan` has yielded in this process; None without one."""
    stopped: Callable[[], str | None] = field(default=_goes_on, repr=False, compare=False)
    """Why the attempt is to stop; None: it is not."""

    def heartbeat(self) -> None:
        """Look whether this attempt is to stop. Call it in the loops of a plain `def`, which nobody can cancel; it costs nothing.

        The lease is renewed without it.

        Raises: LeaseLost once the attempt was lost, was cancelled, has timed out, or its instance shuts down.
        """
        reason = self.stopped()
        if reason is not None:
            raise LeaseLost(self.task_id, self.owner, self.fence, reason)

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `lockbeat.run`; messages begin with the task's id, records have `task_id` `job` `slot` `attempt` `fence`."""
        slot = self.slot.isoformat(timespec="milliseconds") if self.job else None
        extra = {"task_id": self.task_id, "job": self.job or None, "slot": slot, "attempt": self.attempt, "fence": self.fence}
        return _RunLog(logging.getLogger("lockbeat.run"), extra)


@dataclass(frozen=True, slots=True)
class Function:
    """A user's function, and how it wants to be called."""

    call: Callable[..., Any]
    is_async: bool
    takes_run: bool
    timeout_ms: int | None = None
    """Cancels a spawned task's attempt that runs longer; a job's tasks say theirs themselves."""
    keyword: str | None = None
    """By which it takes the run; None: as its first argument."""
    state: Any = None
    """Of the program that it is run in: `run.state`."""
    then: Callable[[Any], Awaitable[None]] | None = None
    """Awaited with the attempt when it has returned, and before anybody is told; for tests."""

    @classmethod
    def of(cls, function: Callable[..., Any], timeout_ms: int | None = None) -> Function:
        """Raises InvalidArgument or InvalidType for what can't be called with one argument or none."""
        if _takes_nothing(function):
            return cls(function, inspect.iscoroutinefunction(function), False, timeout_ms)
        if isinstance(function, staticmethod):
            function = function.__func__
        if isinstance(function, classmethod):
            raise InvalidArgument("function", _needs_owner(function, "class"))
        if not callable(function):
            raise InvalidType("function", f"must be callable, not {type(function).__name__}")
        # A wrapper made with functools.wraps pretends to take what the function behind it takes, be it all or in part the wrapper
        # that gives it. What counts is what the wrapper itself takes.
        behind = _parameters(function)
        given = _ANYTHING if _is_proxy(function) else _parameters(function, follow_wrapped=False)
        if owner := _missing_owner(function, behind):
            raise InvalidArgument("function", _needs_owner(function, owner))
        needed = [one for one in given if one.default is one.empty and one.kind not in _ANY]
        bound = function.keywords if isinstance(function, partial) else {}
        if bound and [one.name for one in needed] == ["run"]:
            needed = []  # what is bound by name makes keywords of all that follow
        if len(needed) > 1 or any(one.kind is one.KEYWORD_ONLY for one in needed):
            names = ", ".join(one.name for one in needed)
            raise InvalidArgument("function", f"may take one argument, the run, or none; {_name(function)} needs: {names}")
        plain = inspect.isfunction(function) or inspect.ismethod(function) or isinstance(function, partial)
        called = function if plain else type(function).__call__  # an object that can be called
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            raise InvalidArgument("function", f"{_name(function)} is a generator: called, it would run nothing")
        takes_run, keyword = (True, None) if needed else _place_of_run(given, behind)
        takes_run = takes_run and "run" not in bound
        return cls(function, inspect.iscoroutinefunction(called), takes_run, timeout_ms, keyword)

    def with_run(self, run: Callable[[], Run]) -> Callable[[], Any]:
        """What to call, with nothing."""
        if not self.takes_run:
            return self.call
        return partial(self.call, **{self.keyword: run()}) if self.keyword is not None else partial(self.call, run())


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_ANYTHING = [inspect.Parameter("args", _ANY[0]), inspect.Parameter("options", _ANY[1])]


_MORE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _takes_nothing(function: object) -> bool:
    """A plain function without any arguments: there is nothing to look for in its signature, which takes a while to make."""
    if type(function) is not FunctionType or function.__dict__:  # what functools.wraps wrote, a signature of its own
        return False
    code = function.__code__
    return not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _MORE)


def _is_proxy(function: Callable[..., Any]) -> bool:
    """A wrapper that is no function, as those of wrapt and functools.cache: it pretends to take what is behind it."""
    return hasattr(function, "__wrapped__") and type(function) not in (FunctionType, MethodType)


def _place_of_run(given: list[inspect.Parameter], behind: list[inspect.Parameter]) -> tuple[bool, str | None]:
    """Whether a function that needs nothing takes the run, and by which keyword if not as its first argument."""
    kinds = {one.kind for one in given}
    # What a wrapper that takes anything has behind it: other arguments may be the wrapper's to give.
    for own, parameters in ((True, given), (False, behind if kinds.intersection(_ANY) else [])):
        for at, one in enumerate(parameters):
            if one.kind in _ANY or not (one.name == "run" or (not own and _is_run(one.annotation))):
                continue
            positional = one.kind is not one.KEYWORD_ONLY and (own or one.VAR_POSITIONAL in kinds)
            named = one.kind is not one.POSITIONAL_ONLY and (own or one.VAR_KEYWORD in kinds)
            if named and not (positional and at == 0):
                return True, one.name
            return positional, None
    return False, None


def _is_run(annotation: object) -> bool:
    if isinstance(annotation, str):  # from __future__ import annotations
        return re.search(r"\bRun\b", annotation) is not None
    return annotation is Run or any(one is Run for one in get_args(annotation))


def _missing_owner(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> str | None:
    """What a function of a class is to be called on, and is not: an "instance", or the "class"."""
    _, _, where = getattr(function, "__qualname__", "").rpartition("<locals>.")
    if "." not in where or inspect.ismethod(function) or not parameters:
        return None
    return {"self": "instance", "cls": "class"}.get(parameters[0].name)


def _needs_owner(function: Any, owner: str) -> str:
    name = _name(function)
    of, _, method = name.rpartition(".")
    on = f"{of.rpartition('.')[2]}{'()' if owner == 'instance' else ''}.{method}"
    whose = "an instance" if owner == "instance" else "the class"
    return f"{name} is called on {whose}, and there is none yet: declare it after the class, as in beat.every(10)({on})"


def _parameters(function: Callable[..., Any], *, follow_wrapped: bool = True) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, follow_wrapped=follow_wrapped).parameters.values())
    except ValueError:
        raise InvalidArgument("function", f"{_name(function)} does not say what it takes; wrap it in a function") from None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
