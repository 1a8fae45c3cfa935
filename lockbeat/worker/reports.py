"""How attempts ended, told to the store and to the log."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from lockbeat.counting import Outcome
from lockbeat.errors import ScriptError, StoreError
from lockbeat.events import RunDone, RunFailed
from lockbeat.leases.keeper import CANCELLED
from lockbeat.leases.lease import monotonic
from lockbeat.logs import fields
from lockbeat.process import chance
from lockbeat.process.logs import log
from lockbeat.store import Store, results
from lockbeat.tasks import Failure, Tasks
from lockbeat.values.durations import instant
from lockbeat.values.payloads import dump
from lockbeat.worker.attempt import LOST, SHUT_DOWN, Attempt

OUTCOME_PATIENCE = 30.0
"""Seconds for which an outcome that the store does not take is offered again."""
ENDS_WAIT, NEXT_HANDFUL, LOOK_AGAIN = 0.05, 0.005, 0.005
"""Seconds for which what has succeeded is not ended while slots are being fired: those of a burst begin first, and are less late.
Seconds after which the next handful of a burst would be on its way; and between two looks whether it is."""


BECAME: dict[str, Outcome] = {"requeued": "retried", "dead_lettered": "dead", "cancelled": "cancelled", "refused": "lost"}
"""What an attempt is counted as that failed, by what the store says to it."""


class Reports:
    """Ends attempts in the store. `wake` is called with a shard on which there may be something to claim; `ended`, with each
    attempt when the store knows how it ended, or will not be told.
    """

    def __init__(self, store: Store, tasks: Tasks, wake: Callable[[int], None], ended: Callable[[Attempt], None]) -> None:
        self._store, self._loop = store, store.loop
        self._tasks = tasks
        self._wake = wake
        self._ended = ended
        self.failed_slot: Callable[[str], Awaitable[None]] | None = None
        """Is told the job of a slot that has failed for good."""
        self._stopping = False
        self._done: list[Attempt] = []  # succeeded, and not told yet
        self._tell_by = 0.0  # the loop's time, as the next
        self._fired_at = -math.inf
        self._firing = 0  # handfuls, each of another shard
        self.completed = 0
        """Attempts that ended well, since it started."""
        self.failed = 0
        """Attempts that ended otherwise."""

    def shut_down(self) -> None:
        """From now on nothing waits: neither for a burst to begin, nor for a store that is away."""
        self._stopping = True

    # -- those that succeeded, many at a time

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Slots are being fired."""
        self._firing += 1
        try:
            yield
        finally:
            self._firing -= 1
            self._fired_at = self._loop.time()

    def _wait(self) -> bool:
        """Whether what is being fired is to begin first."""
        return (self._firing > 0 or self._loop.time() < self._fired_at + NEXT_HANDFUL) and not self._stopping

    def done(self, attempt: Attempt) -> None:
        """Complete an attempt: now, or when the slots that are being fired have begun."""
        attempt.runner = None
        if not self._wait():
            self._complete(attempt)
            return
        self._done.append(attempt)
        if len(self._done) == 1:
            self._tell_by = self._loop.time() + ENDS_WAIT
            self._loop.call_later(LOOK_AGAIN, self._tell)

    def _tell(self) -> None:
        if self._wait() and self._loop.time() < self._tell_by:
            self._loop.call_later(LOOK_AGAIN, self._tell)
            return
        done, self._done = self._done, []
        for attempt in done:
            self._complete(attempt)

    def _complete(self, attempt: Attempt) -> None:
        row = self._tasks.completing(attempt.task, self._result(attempt))
        try:
            telling = self._store.submit(row, attempt.task.shard)
        except StoreError:  # closed
            self._again(attempt)
        else:
            telling.add_done_callback(partial(self._told, attempt))

    def _told(self, attempt: Attempt, telling: asyncio.Future[int]) -> None:
        if telling.cancelled() or telling.exception() is not None or telling.result() != results.DONE:
            self._again(attempt)
        else:
            self._completed(attempt)
            self._ended(attempt)

    def _completed(self, attempt: Attempt) -> None:
        self.completed += 1
        hook = self._store.events.run_done
        if hook.heard:
            hook.tell(RunDone(*_which(attempt)))

    def _again(self, attempt: Attempt) -> None:
        """The store has not taken the outcome, or refused it. Offer it again, patiently."""
        attempt.runner = self._loop.create_task(self.report(attempt, None), name=attempt.task.id)

    # -- each by itself

    async def report(self, attempt: Attempt, failure: Failure | None) -> None:
        """Tell the store how an attempt ended, and the log what is worth a line."""
        task = attempt.task
        try:
            await self._report(attempt, failure)
        except StoreError as problem:
            attempt.became = "lost"
            log.error("the outcome of %s is lost: %s", task.id, problem, extra=fields(task))
            self._wake(task.shard)  # its lease stands until it ends: a claim says when, and takes it back then
        except asyncio.CancelledError:
            attempt.became = "cut"  # the worker is closed, its grace is over: release_all has the last word
        finally:
            self._ended(attempt)

    async def _report(self, attempt: Attempt, failure: Failure | None) -> None:
        task = attempt.task
        if failure is None and attempt.stopped != CANCELLED:
            result = self._result(attempt)
            if await self._patiently(lambda: self._tasks.complete(task, result)):
                self._completed(attempt)
            else:
                self.completed += 1
                attempt.became = "lost"
                said = "%s had been taken from this instance before it ended; its writes may come twice"
                log.warning(said, task.id, extra=fields(task))
            return
        self.failed += 1
        if attempt.stopped == CANCELLED:
            attempt.became = "cancelled"
            log.info("%s was cancelled", task.id, extra=fields(task))
            # Refused, but it ends the lease: the body has stopped, and others need not wait for that.
            await self._tasks.release(task, begun=attempt.running)
        elif attempt.stopped == LOST:
            attempt.became = "lost"
            log.warning("%s was cancelled: its lease was lost", task.id, extra=fields(task))
            self._wake(task.shard)  # no other instance may be there to take it back
        elif attempt.abandoned:
            attempt.became = "cut"  # its thread still runs: the lease is left to expire
        elif attempt.stopped == SHUT_DOWN:
            attempt.became = "cut"
            await self._tasks.release(task, begun=attempt.running)
        else:
            assert failure is not None
            said = await self._patiently(lambda: self._tasks.fail(task, failure))
            again = said.outcome == "requeued"
            attempt.became = BECAME[said.outcome]
            if said and self._store.events.run_failed.heard:
                self._store.events.run_failed.tell(RunFailed(*_which(attempt), failure.summary, again))
            log.log(
                logging.WARNING if again else logging.ERROR,
                "%s (%s) failed in attempt %d, %s: %s",
                task.id,
                task.name,
                task.attempt,
                "and is tried again" if again else "its last",
                failure.summary,
                exc_info=attempt.raised(),
                extra=fields(task),
            )
            if said.outcome == "dead_lettered" and task.job and self.failed_slot is not None:
                await self.failed_slot(task.job)

    def _result(self, attempt: Attempt) -> Any:
        """What it returned, if the store can keep it. The work is done: doing it again for want of a result would be worse."""
        if attempt.result is None or not attempt.task.keeps_result:
            return None
        try:
            dump("result", attempt.result)
        except Exception as problem:  # noqa: BLE001 - encoding runs the result's own code
            log.error("%s is done, without its result: %s", attempt.task.id, problem, extra=fields(attempt.task))
            return None
        return attempt.result

    async def _patiently(self, report: Callable[[], Any]) -> Any:
        """An outcome is worth more patience than a question: the work is done.

        A refusal is as quick as an answer, and passes: while passwords are changed, for one.
        """
        until, pause, left = monotonic() + OUTCOME_PATIENCE, 0.5, 5
        while True:
            try:
                return await report()
            except StoreError as problem:
                # What can't be read seldom heals by itself.
                if self._stopping or (not left if isinstance(problem, ScriptError) else monotonic() > until):
                    raise
                left -= 1
                await asyncio.sleep(pause * chance.between(0.5, 1.0))
                pause = min(1.3 * pause, 5.0)


def _which(attempt: Attempt) -> tuple[str, str, str, datetime | None, int, int, float]:
    """What an event says of an attempt that has ended."""
    task = attempt.task
    slot = None if task.keeps_result else instant(task.slot_ms)
    return task.id, task.name, task.job, slot, task.attempt, task.fence, monotonic() - attempt.began
