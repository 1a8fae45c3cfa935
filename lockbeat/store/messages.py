"""Every message that a script publishes, taken apart: the counterpart of `scripts_lua/_lib/messages.lua`.

A message is a hint: who hears it asks the store, and acts on the reply to that.
"""

from __future__ import annotations

from typing import NamedTuple


class Granted(NamedTuple):
    """A hand-off made the waiter of this token the owner of its lock. On the waiter's own channel."""

    token: str


class Next(NamedTuple):
    """The waiter of this token is first in the queue; who was granted the lock before it may not live to ask for it.

    On the waiter's own channel.
    """

    token: str
    wait_ms: int
    """When that grant ends."""


class Ended(NamedTuple):
    """A task has ended, or is forgotten. On the own channel of whoever waits for it."""

    task_id: str


class Cancel(NamedTuple):
    """A task that runs was cancelled: its worker stops it. On the bell."""

    task_id: str


class TaskWaits(NamedTuple):
    """A task can be claimed, or will be sooner than was told: workers look. On the bell."""


class JobDue(NamedTuple):
    """A job may come due sooner than was told: schedulers look. On the bell."""


class Backfilling(NamedTuple):
    """A backfill has begun, or goes on: who carries backfills on looks. On the bell."""


class Happened(NamedTuple):
    """Something has happened that is to be told: who has hooks looks. On the bell."""


Message = Granted | Next | Ended | Cancel | TaskWaits | JobDue | Backfilling | Happened


def parse(payload: bytes) -> Message | None:
    """A message; None: it is none of ours, or it is forged."""
    word, _, rest = payload.decode(errors="replace").partition(" ")
    match word:
        case "granted" if rest:
            return Granted(rest)
        case "next":
            token, _, wait_ms = rest.partition(" ")
            return Next(token, int(wait_ms)) if wait_ms.isascii() and wait_ms.isdecimal() and len(wait_ms) < 10 else None
        case "ended" if rest:
            return Ended(rest)
        case "cancel" if rest:
            return Cancel(rest)
        case "task" if not rest:
            return TaskWaits()
        case "job" if not rest:
            return JobDue()
        case "backfill" if not rest:
            return Backfilling()
        case "event" if not rest:
            return Happened()
    return None
