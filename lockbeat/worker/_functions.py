"""A user's function: how it wants to be called, and what it is told."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from lockbeat.errors import InvalidArgument, InvalidType, LeaseLost


def _goes_on() -> str | None:
    return None


class _RunLog(logging.LoggerAdapter[logging.Logger]):
    """Names the task in front of each message, and in the record's `task_id`, `attempt` and `fence`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        task_id = str((self.extra or {})["task_id"])
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
    """Of the function, as it was spawned."""
    queue: str = "default"
    params: Any = None
    """What it was spawned with, from JSON; None for jobs."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    """The instance that runs it."""
    stopped: Callable[[], str | None] = field(default=_goes_on, repr=False, compare=False)
    """Why the attempt is to stop; None: it is not."""

    def heartbeat(self) -> None:
        """Raises LeaseLost once this attempt is to stop: lost, cancelled, timed out, shutting down.

        The lease is renewed without it. Call it in the loops of a plain `def`, which nobody can cancel; it costs nothing.
        """
        reason = self.stopped()
        if reason is not None:
            raise LeaseLost(self.task_id, self.owner, self.fence, reason)

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `lockbeat.run`; each message begins with the task's id, each record has `task_id`, `attempt`, `fence`."""
        extra = {"task_id": self.task_id, "attempt": self.attempt, "fence": self.fence}
        return _RunLog(logging.getLogger("lockbeat.run"), extra)


@dataclass(frozen=True, slots=True)
class Function:
    """A user's function, and how it wants to be called."""

    call: Callable[..., Any]
    is_async: bool
    takes_run: bool
    timeout_ms: int | None = None
    """Cancels a spawned task's attempt that runs longer; a job's tasks say theirs themselves."""

    @classmethod
    def of(cls, function: Callable[..., Any], timeout_ms: int | None = None) -> Function:
        """Raises InvalidArgument or InvalidType for what can't be called with one argument or none."""
        if not callable(function):
            raise InvalidType("function", f"must be callable, not {type(function).__name__}")
        needed = [
            parameter
            for parameter in _parameters(function)
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        wrong = len(needed) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed)
        if wrong:
            names = ", ".join(parameter.name for parameter in needed)
            raise InvalidArgument("function", f"may take one argument, the run, or none; {_name(function)} needs: {names}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument("function", f"{_name(function)} is a generator: called, it would run nothing")
        plain = inspect.isfunction(function) or inspect.ismethod(function) or isinstance(function, partial)
        called = function if plain else type(function).__call__  # an object that can be called
        takes_run = bool(needed) or any(parameter.name == "run" for parameter in _parameters(function))
        return cls(function, inspect.iscoroutinefunction(called), takes_run, timeout_ms)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        raise InvalidArgument("function", f"{_name(function)} does not say what it takes; wrap it in a function") from None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
