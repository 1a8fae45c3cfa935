"""When a job is due: `Cron`, `Every`, `At`, and what can be asked of them. Pure: no clock, no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ..errors import InvalidTrigger
from .at import At
from .base import EPOCH, Missed, Trigger, isoformat, jitter_ms, missed, upcoming
from .cron import Cron
from .every import Every

__all__ = [
    "At",
    "Cron",
    "Every",
    "Missed",
    "Trigger",
    "isoformat",
    "jitter_ms",
    "missed",
    "trigger_from_json",
    "upcoming",
]


def trigger_from_json(data: Mapping[str, Any]) -> Trigger:
    """The trigger that `to_json` wrote. Raises InvalidTrigger for anything else.

    A field that is not known is an error too: it was written by a newer lockbeat, and to leave it out would
    fire at other times than that one does.
    """
    if not isinstance(data, Mapping):
        raise InvalidTrigger("trigger", f"must be a JSON object, not {type(data).__name__}")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise InvalidTrigger("trigger", f"unknown type {_short(kind)}; known: {', '.join(sorted(_READERS))}")
    fields, read = _READERS[kind]
    if data.keys() - {"type"} != fields.keys():
        raise InvalidTrigger("trigger", f"{kind!r} has the fields {', '.join(fields)}, not {_short(sorted(map(str, data)))}")
    for name, wanted in fields.items():
        if type(data[name]) is not wanted:
            raise InvalidTrigger("trigger", f"{name} must be {wanted.__name__}, not {_short(data[name])}")
    try:
        return read(data)
    except OverflowError:
        raise InvalidTrigger("trigger", f"out of range: {_short(dict(data))}") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python is willing to print
        text = "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."


def _cron(data: Mapping[str, Any]) -> Trigger:
    return Cron(data["expression"], data["timezone"])


def _every(data: Mapping[str, Any]) -> Trigger:
    return Every(timedelta(milliseconds=data["period_ms"]), data["anchor_ms"])


def _at(data: Mapping[str, Any]) -> Trigger:
    return At(EPOCH + timedelta(milliseconds=data["when_ms"]))


_READERS: dict[str, tuple[dict[str, type], Callable[[Mapping[str, Any]], Trigger]]] = {
    "cron": ({"expression": str, "timezone": str}, _cron),
    "every": ({"period_ms": int, "anchor_ms": int}, _every),
    "at": ({"when_ms": int}, _at),
}
