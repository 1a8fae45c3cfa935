"""When a job is due: `Cron`, `Every`, `At`, `AnyOf` of them, `ByHand`; and what can be asked of them. No clock, no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ..errors import InvalidTrigger
from .any_of import AnyOf
from .at import At
from .base import EPOCH, Missed, Trigger, isoformat, jitter_ms, missed, upcoming
from .between import Between, between
from .by_hand import ByHand, Called
from .cron import Cron
from .every import Every
from .solar import Solar

__all__ = [
    "AnyOf",
    "At",
    "Between",
    "ByHand",
    "Called",
    "Cron",
    "Every",
    "Missed",
    "Solar",
    "Trigger",
    "between",
    "isoformat",
    "jitter_ms",
    "missed",
    "trigger_from_json",
    "upcoming",
]


def trigger_from_json(data: Mapping[str, Any], depth: int = 0) -> Trigger:
    """The trigger that `to_json` wrote. Raises InvalidTrigger for anything else.

    A field that is not known is an error too: it was written by a newer lockbeat, and to leave it out would
    fire at other times than that one does.
    """
    if not isinstance(data, Mapping):
        raise InvalidTrigger("trigger", f"must be a JSON object, not {type(data).__name__}")
    if depth > _DEEPEST:
        raise InvalidTrigger("trigger", f"more than {_DEEPEST} triggers within each other")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise InvalidTrigger("trigger", f"unknown type {_short(kind)}; known: {', '.join(sorted(_READERS))}")
    fields, optional, read = _READERS[kind]
    known, given = fields | optional, {name: value for name, value in data.items() if name != "type"}
    if not fields.keys() <= given.keys() <= known.keys():
        raise InvalidTrigger("trigger", f"{kind!r} has the fields {', '.join(known)}, not {_short(sorted(map(str, data)))}")
    for name, value in given.items():
        if type(value) is not known[name]:
            raise InvalidTrigger("trigger", f"{name} must be {known[name].__name__}, not {_short(value)}")
    try:
        return read(given, depth + 1)
    except OverflowError:
        raise InvalidTrigger("trigger", f"out of range: {_short(dict(data))}") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python is willing to print
        text = "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."


def _cron(data: Mapping[str, Any], _depth: int) -> Trigger:
    return Cron(**data)


def _every(data: Mapping[str, Any], _depth: int) -> Trigger:
    return Every(timedelta(milliseconds=data["period_ms"]), data["anchor_ms"])


def _at(data: Mapping[str, Any], _depth: int) -> Trigger:
    return At(EPOCH + timedelta(milliseconds=data["when_ms"]))


def _any_of(data: Mapping[str, Any], depth: int) -> Trigger:
    return AnyOf(*(trigger_from_json(one, depth) for one in data["triggers"]))


def _between(data: Mapping[str, Any], depth: int) -> Trigger:
    return Between(trigger_from_json(data["trigger"], depth), data.get("start_ms"), data.get("end_ms"))


def _called(data: Mapping[str, Any], depth: int) -> Trigger:
    return Called(trigger_from_json(data["slots"], depth) if "slots" in data else None, data.get("least_ms", 0))


def _solar(data: Mapping[str, Any], _depth: int) -> Trigger:
    return Solar(data["event"], data["lat"], data["lon"])


_DEEPEST = 8
_READERS: dict[str, tuple[dict[str, type], dict[str, type], Callable[[Mapping[str, Any], int], Trigger]]] = {
    "any_of": ({"triggers": list}, {}, _any_of),
    "at": ({"when_ms": int}, {}, _at),
    "between": ({"trigger": dict}, {"start_ms": int, "end_ms": int}, _between),
    "by_hand": ({}, {}, lambda _data, _depth: ByHand()),
    "called": ({}, {"slots": dict, "least_ms": int}, _called),
    "cron": ({"expression": str, "timezone": str}, {"gap": str, "fold": str, "days": str}, _cron),
    "solar": ({"event": str, "lat": float, "lon": float}, {}, _solar),
    "every": ({"period_ms": int, "anchor_ms": int}, {}, _every),
}
"""By kind: the fields that it has, those that it may have, and what reads them."""
