"""For tests of your own jobs: time that the test moves, and failures that it calls for. Over a store in memory; nothing sleeps.

With the fixtures `lockbeat_beat` and `lockbeat_client` of the pytest plugin, or with `async with rehearse(beat):`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from lockbeat.jobs import Explanation, LedgerEntry
from lockbeat.program import Beat
from lockbeat.testing.rehearsal import MOST_SLOTS, PATIENCE, Rehearsal, When, current
from lockbeat.values.durations import Seconds

__all__ = [
    "Rehearsal",
    "assert_fired",
    "assert_skipped",
    "drain",
    "fire",
    "kill_instance",
    "lose_reply",
    "next_slots",
    "rehearse",
    "store_away",
    "takes",
    "travel",
]

Named = str | Callable[..., Any]
"""A job, by its name or its function."""


def rehearse(beat: Beat | None = None, *, at: When | None = None, patience: Seconds = PATIENCE) -> Rehearsal:
    """`async with rehearse(beat) as rehearsal:` the beat's jobs and tasks over a store of their own, in memory.

    While the block runs, the clock of the process stands still, but for `travel`. `rehearsal.client` is an open Lockbeat of the
    store, `rehearsal.now` what the clock shows.

    beat: as the program has it, whatever store it was made with; None: a new one.
    at: when it begins, an aware datetime or the same in ISO 8601; None: now.
    patience: seconds, by a clock that goes on, after which a function that does not end fails the test.

    Raises: MissingExtra, InvalidArgument and InvalidType. LifespanError when the beat's lifespan fails.
    """
    return Rehearsal(beat, at=at, patience=patience)


async def travel(beat: Beat | None = None, to: When | None = None, *, by: Seconds | None = None, most: int = MOST_SLOTS) -> None:
    """Move time, and run everything that comes due on the way, each at its time and to its end.

    beat: the one that is rehearsed; None: whichever is.
    to: an aware datetime, or the same in ISO 8601. by: seconds or a timedelta, in its place.
    most: how many slots may come due on the way.

    Raises: AssertionError when there are more, and when a function does not end.
    """
    await current(beat).travel(to, by=by, most=most)


async def drain() -> int:
    """Run what is due now, and what that spawns, to its end; time stands still. Returns how many attempts have ended."""
    return await current().drain()


async def fire(job: Named, slot: When) -> LedgerEntry:
    """Have one slot of a job run, to its end; what the ledger has of it.

    A slot that is to come is travelled to, and everything runs that comes due before; one that has passed is backfilled, unless
    it has run.

    Raises: InvalidArgument for an instant that is no slot, and why. AssertionError when it was not fired, and why.
    """
    return await current().fire(job, slot)


async def assert_fired(job: Named, slot: When, *, state: str | None = None) -> LedgerEntry:
    """Raises AssertionError unless this slot of the job was fired, and is in this state: "done", "failed", "lost", "retrying" ...

    The message has what `lockbeat why` says of it. Returns what the ledger has of it.
    """
    return await current().assert_fired(job, slot, state=state)


async def assert_skipped(job: Named, slot: When, reason: str | None = None) -> Explanation:
    """Raises AssertionError unless this slot of the job was skipped or missed.

    reason: the CODE of why, such as overlap, paused, excluded or not_fired, or words of the sentence; None: any.
    """
    return await current().assert_skipped(job, slot, reason)


async def next_slots(job: Named, n: int = 5) -> list[datetime]:
    """The next slots of a job that are to be fired, before jitter."""
    return await current().next_slots(job, n)


def takes(job: Named, duration: Seconds) -> None:
    """From now on an attempt of this job, or of this task's function, takes so long by the clock of the test; 0: no time.

    Its function does its work, and ends when the clock has come so far. Till then it holds its lease and its job's lock.
    """
    current().takes(job, duration)


async def kill_instance(*, during: Named | None = None) -> None:
    """Kill the instance, as kill -9 does; another takes its place. What it ran is lost, or taken over, when its lease ends.

    during: not now, but when the next attempt of this job has done its work, and before anybody is told: it is done again, if
    the job has more attempts.
    """
    await current().kill_instance(during=during)


def lose_reply(script: str | None = None, *, times: int = 1) -> None:
    """The next call is executed, and the connection breaks before its reply comes.

    script: the next call of this one, such as "task/complete"; None: of any. times: so many calls.
    """
    current().lose_reply(script, times=times)


def store_away() -> AbstractContextManager[None]:
    """`with store_away():` while the block runs nobody reaches the store, and leases are not renewed."""
    return current().store_away()
