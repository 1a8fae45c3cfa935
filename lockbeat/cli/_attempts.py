"""The attempts of a task, as `why` and `tasks ID` show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lockbeat.cli._output import clock, iso
from lockbeat.store.records import Attempt
from lockbeat.values.durations import brief


def attempts_json(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    return [
        {
            "number": one.number,
            "owner": one.owner,
            "fence": one.fence,
            "started_at": iso(_ms(one.started_at)),
            "ended_at": iso(_ms(one.ended_at)),
            "how": one.how,
            "error": one.error,
        }
        for one in attempts
    ]


def attempt_lines(attempts: Sequence[Attempt]) -> list[str]:
    """A line for each attempt: when it began, how long it took, who made it, and how it ended."""
    return [_line(one) for one in attempts]


def _line(one: Attempt) -> str:
    # When a lost one ended, nobody saw.
    took = f" after {brief(round((one.ended_at - one.started_at) * 1000))}" if one.ended_at and one.how != "lost" else ""
    error = next(iter((one.error or "").strip().splitlines()), "")
    head = f"attempt {one.number} at {clock(_ms(one.started_at))} by {one.owner}, fence {one.fence}: {one.how}{took}"
    return f"{head}: {error}" if error else head


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
