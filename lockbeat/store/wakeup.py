"""The one thing that a loop of ours waits on, and how such a loop goes on whatever happens to the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from lockbeat.connection import outage
from lockbeat.errors import NotDurable, StoreError

if TYPE_CHECKING:
    from lockbeat.connection import Connector

log = logging.getLogger("lockbeat")

LOOK_IN_MEMORY = 0.1
"""Seconds. Against `memory://` a test may move time, which wakes nobody: look again this often."""


def at_most(seconds: float | None, limit: float | None) -> float | None:
    """The shorter of two waits, either of which may be without limit."""
    if seconds is None or limit is None:
        return limit if seconds is None else seconds
    return min(seconds, limit)


def _release(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class Turns:
    """How a loop turns, for other threads to read. Times: monotonic seconds."""

    __slots__ = ("began_at", "due_at", "failing_since", "problem")

    def __init__(self) -> None:
        self.began_at: float | None = None
        """When the turn began that it is in; None: it waits for the next."""
        self.due_at = monotonic()
        """By when the next one is to begin; a ring may make it sooner."""
        self.problem: Exception | None = None
        """Why the last one failed; None: it went well."""
        self.failing_since: float | None = None
        """Of the failures in a row of which that is one, when the first was."""

    def begin(self) -> None:
        self.began_at = monotonic()

    def end(self, problem: Exception | None = None) -> None:
        self.problem = problem
        if problem is None:
            self.failing_since = None
        elif self.failing_since is None:
            self.failing_since = monotonic()

    def wait(self, seconds: float) -> None:
        """It waits for so long, unless it is rung for."""
        self.due_at, self.began_at = monotonic() + seconds, None

    def late(self, now: float) -> float:
        """Seconds for which it has been in one turn, or should have begun the next."""
        began_at = self.began_at
        return now - (self.due_at if began_at is None else began_at)


class Wakeup:
    """Wakes one loop. A ring while it is at work is not lost: the next wait returns at once."""

    def __init__(self) -> None:
        self._rang = False
        self._waiter: asyncio.Future[None] | None = None
        self.turns = Turns()
        """Of the loop that it wakes."""

    def ring(self) -> None:
        """Wake the loop, now or when it next waits."""
        self._rang = True
        _release(self._waiter)

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a ring, for at most `seconds` (None: without limit). Whether it rang."""
        if not self._rang and (seconds is None or seconds > 0):
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, _release, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        rang, self._rang = self._rang, False
        return rang

    async def serve(
        self,
        connector: Connector,
        tick: Callable[[], Awaitable[float | None]],
        *,
        doing: str,
        blocked: str,
        look: float,
        longest_pause: float = 1.0,
    ) -> NoReturn:
        """`keep_turning` for a store, whose outage tells of itself. `look`: seconds, where nobody can move its time."""
        await self.keep_turning(
            tick,
            doing=doing,
            blocked=blocked,
            longest_pause=longest_pause,
            look=LOOK_IN_MEMORY if connector.kind == "memory" else look,
            told=lambda: connector.outage.away,
        )

    async def keep_turning(
        self,
        tick: Callable[[], Awaitable[float | None]],
        *,
        doing: str,
        blocked: str,
        longest_pause: float,
        look: float | None,
        told: Callable[[], bool],
    ) -> NoReturn:
        """Take turns, and wait between them for as long as each says (None: for a ring), for at most `look` seconds.

        Until cancelled: losing the store ends nothing, it is asked again after 0.05 s to `longest_pause`, and an error of ours
        is logged. `doing` ("firing") and `blocked` ("can't ask what is due") are for the log, unless it is `told` of the outage.

        A turn that goes well soon after one that failed proves little: what can't be read in the store may stop every other turn.
        It is back when a turn has gone well a while after the last failure. Until then the log has one line a minute.
        """
        pace = outage.Pace(longest_pause)
        failed_at: float | None = None
        told_at: float | None = None
        turns = self.turns
        while True:
            turns.begin()
            tell = told_at is None or monotonic() >= told_at + outage.REMIND
            try:
                again = await tick()
                turns.end()
                if failed_at is not None and monotonic() < failed_at + outage.STEADY:
                    again = at_most(again, outage.STEADY)
                elif failed_at is not None:
                    if told_at is not None:
                        log.info("%s again", doing)
                    pace, failed_at, told_at = outage.Pace(longest_pause), None, None
            except StoreError as problem:
                turns.end(problem)
                failed_at = monotonic()
                if tell and (isinstance(problem, NotDurable) or not told()):
                    told_at = failed_at
                    log.warning("%s: %s", blocked, problem)
                pace.failed()
                again = pace.wait()
            except Exception as problem:
                turns.end(problem)
                failed_at = monotonic()
                if tell:
                    told_at = failed_at
                    log.exception("%s failed, and goes on", doing)
                again = 1.0
            pause = at_most(again, look)
            turns.wait(float("inf") if pause is None else pause)
            await self.wait(pause)
