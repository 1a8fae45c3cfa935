"""How attempts ended, told to the store and to the log."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from lockbeat.errors import ScriptError, StoreError
from lockbeat.leases.keeper import CANCELLED
from lockbeat.leases.lease import monotonic
from lockbeat.process.logs import log
from lockbeat.tasks import Failure, Tasks
from lockbeat.values.payloads import dump
from lockbeat.worker.attempt import LOST, SHUT_DOWN, Attempt, fields

OUTCOME_PATIENCE = 30.0
"""Seconds for which an outcome that the store does not take is offered again."""


class Reports:
    """Ends attempts in the store. `wake` is called with a shard on which there may be something to claim."""

    def __init__(self, tasks: Tasks, wake: Callable[[int], None]) -> None:
        self._tasks = tasks
        self._wake = wake
        self.stopping = False
        """The instance shuts down: it does not wait for a store that is away."""
        self.completed = 0
        """Attempts that ended well, since it started."""
        self.failed = 0
        """Attempts that ended otherwise."""

    async def report(self, attempt: Attempt, failure: Failure | None) -> None:
        """Tell the store how an attempt ended, and the log what is worth a line. Raises StoreError: its outcome is lost."""
        task = attempt.task
        if failure is None and attempt.stopped != CANCELLED:
            self.completed += 1
            result = self._result(attempt)
            if not await self._patiently(lambda: self._tasks.complete(task, result)):
                said = "%s had been taken from this instance before it ended; its writes may come twice"
                log.warning(said, task.id, extra=fields(task))
            return
        self.failed += 1
        if attempt.stopped == CANCELLED:
            log.info("%s was cancelled", task.id, extra=fields(task))
            # Refused, but it ends the lease: the body has stopped, and others need not wait for that.
            await self._tasks.release(task, begun=attempt.running)
        elif attempt.stopped == LOST:
            log.warning("%s was cancelled: its lease was lost", task.id, extra=fields(task))
            self._wake(task.shard)  # no other instance may be there to take it back
        elif attempt.abandoned:
            pass  # its thread still runs: the lease is left to expire
        elif attempt.stopped == SHUT_DOWN:
            await self._tasks.release(task, begun=attempt.running)
        else:
            assert failure is not None
            said = await self._patiently(lambda: self._tasks.fail(task, failure))
            again = said.outcome == "requeued"
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

    def _result(self, attempt: Attempt) -> Any:
        """What it returned, if the store can keep it. The work is done: doing it again for want of a result would be worse."""
        if attempt.task.job or attempt.result is None:
            return None
        try:
            dump("result", attempt.result)
        except Exception as problem:  # noqa: BLE001 - encoding runs the result's own code
            log.error("%s is done, without its result: %s", attempt.task.id, problem)
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
                if self.stopping or (not left if isinstance(problem, ScriptError) else monotonic() > until):
                    raise
                left -= 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries
                pause = min(1.3 * pause, 5.0)
