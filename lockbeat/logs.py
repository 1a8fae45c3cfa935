"""Logs: which run a record belongs to, and lines of JSON.

`handler.addFilter(RunFilter())` gives each record of a function that a worker runs `task_id`, `job`, `slot`, `attempt` and
`fence`, whichever logger it came by, also from what the function has started: tasks, and threads by `asyncio.to_thread`.
`handler.setFormatter(JsonFormatter())` makes one line of JSON of a record. `lockbeat run --log-format json` does both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Protocol

FIELDS = ("task_id", "job", "slot", "attempt", "fence")
"""What a record says of its run."""
MOST = 64 * 1024
"""Characters of one field; of more, the beginning."""


class Running(Protocol):
    """What is run."""

    id: str
    job: str
    slot_ms: int
    attempt: int
    fence: int


running: ContextVar[Running | None] = ContextVar("running", default=None)
"""The attempt whose function this is, and what that has started."""


def fields(task: Running) -> dict[str, Any]:
    """What a record says of a run, each in a field of its own."""
    slot = None
    if task.job:
        slot = datetime.fromtimestamp(task.slot_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {"task_id": task.id, "job": task.job or None, "slot": slot, "attempt": task.attempt, "fence": task.fence}


class RunFilter(logging.Filter):
    """For handlers and loggers of the program's own: lets everything pass, and says of each record which run it belongs to.

    Outside of a run the fields are None, so that a format may name them. What a record says itself stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.__dict__
        if "task_id" not in said:
            task = running.get()
            for name, value in (_NONE if task is None else fields(task)).items():
                said.setdefault(name, value)
        return True


_NONE = dict.fromkeys(FIELDS)
_SAID = {"at", "level", "logger", "exception", "stack"}
_OWN = {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "stacks", "color_message"}
"""What each record has, and what stands in the line under another name."""


class JsonFormatter(logging.Formatter):
    """One line of JSON a record: at, level, logger, message; task_id, job, slot, attempt and fence where it has a run;
    exception and stack where it has one; and what was given as `extra`: with a `_` behind its name where one of these has it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:MOST],
        }
        for name, value in record.__dict__.items():
            if name not in _OWN and value is not None:
                line[f"{name}_" if name in _SAID else name] = value
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text[:MOST]
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)[:MOST]
        try:
            text = json.dumps(line, default=_shown, skipkeys=True, allow_nan=False)
        except (ValueError, RecursionError):  # no number of JSON's, too deep, or within itself
            line = {name: value if isinstance(value, str) else _shown(value) for name, value in line.items()}
            text = json.dumps(line)
        if len(text) <= MOST:
            return text
        return json.dumps({name: _cut(value) for name, value in line.items()}, default=_shown, skipkeys=True)


class TextFormatter(logging.Formatter):
    """As logging.Formatter; a record that names its run otherwise than by its message ends in it."""

    def format(self, record: logging.LogRecord) -> str:
        message, said = record.getMessage(), record.__dict__
        task_id = said.get("task_id")
        if task_id is None or str(task_id) in message:
            return super().format(record)
        own = logging.makeLogRecord(said | {"msg": "%s [%s attempt %s fence %s]", "args": (message, task_id, *_which(said))})
        return super().format(own)


def _which(said: Mapping[str, Any]) -> tuple[Any, Any]:
    return said.get("attempt"), said.get("fence")


def _cut(value: Any) -> Any:
    """A field that is too long, as the beginning of its text."""
    if isinstance(value, str):
        return value[:MOST]
    text = json.dumps(value, default=_shown, skipkeys=True)
    return value if len(text) <= MOST else text[:MOST]


def _shown(value: object) -> str:
    """What JSON has no form for."""
    try:
        return str(value)[:MOST]
    except Exception:  # noqa: BLE001 - an object's own __str__
        return f"<{type(value).__name__}, which can't be shown>"
