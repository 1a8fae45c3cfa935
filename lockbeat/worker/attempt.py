"""One attempt: runs the function under the lease, and stops it when there is reason to."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from lockbeat.counting import Outcome
from lockbeat.errors import LeaseLost
from lockbeat.leases.keeper import CANCELLED, OVERRUN
from lockbeat.leases.lease import Held, Holder, monotonic
from lockbeat.logs import fields, running
from lockbeat.process import forks
from lockbeat.process.blame import blame, heard
from lockbeat.process.stacks import stack_of, stack_of_task
from lockbeat.store.scripts import row
from lockbeat.tasks import Failure, Task
from lockbeat.tasks.failure import own_trace
from lockbeat.values.durations import brief, instant
from lockbeat.worker.functions import Function, Run

log = logging.getLogger("lockbeat")

LOST, TIMED_OUT, SHUT_DOWN = "its lease is lost", "timed out", "the instance is shut down"
BLAMED = "what it started raised SystemExit or KeyboardInterrupt"


class Attempt(Holder):
    """One attempt: its lease, and why it is to stop, if it is."""

    __slots__ = (
        *("_grace", "abandoned", "became", "began", "ended", "took", "function", "held", "limit"),
        *("problem", "result", "runner", "running", "span", "stopped", "task"),
    )

    def __init__(self, task: Task, function: Function, asked_at: float, grace: float) -> None:
        self.task = task
        self.function = function
        renewal = row["task/renew"](id=task.id, owner=task.owner, fence=task.fence, lease_ms=task.lease_ms, lock=task.lock)
        self.held = Held(renewal, task.shard, task.lease_ms / 1000, 0.0, self)
        self.held.taken(asked_at)
        self._grace = grace
        self.began = 0.0  # monotonic
        self.took = 0.0  # seconds
        self.limit: asyncio.TimerHandle | None = None  # when its max_duration should be over
        self.runner: asyncio.Task[None] | None = None
        self.running = False
        self.span: Any = None
        """What is traced of it; None: nothing is."""
        self.abandoned = False
        self.ended = False  # what is left is to report the outcome, which no loss makes untrue
        self.stopped: str | None = None
        self.became: Outcome = "done"
        """How it ended, as the store was told; of one that has not ended it says nothing."""
        self.result: Any = None
        self.problem: BaseException | None = None
        """What the function raised, for the log."""

    def on_overrun(self, blocks: str) -> None:
        """Called in the keeper's thread, for the event loop may be what is stuck."""
        if self.stopped is not None or not blocks:  # it was told to stop, so the loop has turned
            blocks = self.stack()
        said = "%s (%s) still runs %g s after its timeout: its lease is let go, and it may be begun again beside it"
        log.error(said, self.task.id, self.task.name, self._grace, extra={"stacks": blocks, **fields(self.task)})

    def on_lost(self, reason: str) -> None:
        if reason == OVERRUN and self.stopped is not None and not self.ended:
            self.stopped = LOST  # whatever it was told to stop for, its end is not its own to report any more
        self.stop(CANCELLED if reason == CANCELLED else LOST)

    def stop(self, reason: str) -> None:
        """Cancel the function, once; one that has not begun never does."""
        if self.stopped is None and not self.ended:
            self.stopped = reason
            if self.running and self.runner is not None:
                self.runner.cancel()

    def why(self) -> str | None:
        """Why it is to stop, asked from any thread: the event loop may be too busy to say so."""
        return LOST if self.stopped is None and monotonic() >= self.held.trusted_until else self.stopped

    def raised(self) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
        """What the function raised, as `exc_info=` takes it: without the frames of ours that called it."""
        problem = self.problem
        return None if problem is None else (type(problem), problem, own_trace(problem))

    def stack(self) -> str:
        """Where the function is."""
        for thread in threading.enumerate():
            if thread.name == self.task.id and thread.ident is not None:
                return stack_of(thread.ident)
        return "" if self.runner is None else stack_of_task(self.runner)

    async def outcome(self) -> Failure | None:
        """Run the function. What went wrong; None: nothing, and `result` is what it returned."""
        loop, task = asyncio.get_running_loop(), self.task
        timeout_ms = task.timeout_ms or self.function.timeout_ms
        self.began = monotonic()
        if self.began >= self.held.trusted_until:
            self.stop(LOST)  # the process was frozen, or the answer came late: it may be another's by now
        if timeout_ms:
            self.held.until = self.began + timeout_ms / 1000 + self._grace
        timer = loop.call_later(timeout_ms / 1000, self.stop, TIMED_OUT) if timeout_ms else None
        try:
            if self.stopped is not None:
                return Failure("Cancelled", "it was not begun")
            self.running = True
            blame.set(self._blame)
            running.set(task)
            call = self.function.with_run(self._run)
            if self.function.is_async:
                with forks.OnlyTheParentReturns():
                    self.result = await call()
            else:
                self.result = await self._in_thread(call)
            if self.function.then is not None:
                await self.function.then(self)
        except (asyncio.CancelledError, LeaseLost) as problem:
            if isinstance(problem, LeaseLost) and problem.key != task.id:
                return self._failed(problem)  # of another lease, that the function held
            if self.problem is not None:
                return Failure.of(self.problem)
            if self.stopped is None or self.runner is None:
                return Failure("Cancelled", "the function was cancelled")
            if self.stopped == TIMED_OUT:
                return Failure("TimedOut", f"timed out after {brief(timeout_ms or 0)}")
            return Failure("Cancelled", self.stopped)
        except _Raised as problem:
            return self._failed(problem.error)
        except KeyboardInterrupt as problem:
            if signal.getsignal(signal.SIGINT) is not heard and threading.current_thread() is threading.main_thread():
                log.error("%s (%s) is interrupted, and the program with it", task.id, task.name, extra=fields(task))
                raise  # Ctrl-C in a program that leaves it to Python, and hit while this function ran
            return self._failed(problem)
        except BaseException as problem:  # noqa: BLE001 - whatever a function raises is its outcome, sys.exit() too
            return self._failed(problem)
        finally:
            self.ended = True
            self.took = monotonic() - self.began
            self.held.until = float("inf")
            if self.stopped is not None and self.runner is not None:
                self.runner.uncancel()  # whatever the function made of it
            if timer is not None:
                timer.cancel()
        return None

    def _failed(self, problem: BaseException) -> Failure:
        self.problem = problem
        return Failure.of(problem)

    def _blame(self, problem: BaseException) -> None:
        """Something that the function started raised SystemExit or KeyboardInterrupt: asyncio would end the program by it."""
        log.error("%s (%s) started what raised %r", self.task.id, self.task.name, problem, extra=fields(self.task))
        if self.stopped is None and not self.ended and self.runner is not None:
            self.problem = problem
            self.stopped = BLAMED
            self.runner.cancel()

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        thread = _in_thread(self.task.id, partial(contextvars.copy_context().run, call))
        try:
            result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread can't be stopped. Its lease is kept until it ends, or another would start beside it; what it returns by
            # then is its result, as if it were a coroutine that had seen to its end.
            await asyncio.wait([thread])
            result = thread.result()
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError("the function returned a generator, which nobody runs")
        if inspect.isawaitable(result):  # a lambda around an async function
            return await result
        return result

    def _run(self) -> Run:
        task = self.task
        return Run(
            job=task.job,
            slot=instant(task.slot_ms),
            attempt=task.attempt,
            fence=task.fence,
            task_id=task.id,
            name=task.name,
            queue=task.queue,
            params=task.params,
            headers=task.headers,
            owner=task.owner,
            state=self.function.state,
            stopped=self.why,
        )


class _Raised(Exception):
    """Carries what a function raised in its thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _in_thread(name: str, call: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run a plain function in a thread of its own. A pool's threads are waited for when Python exits: one that hangs would
    hold up a shutdown for ever, a daemon's does not.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(result: Any, problem: BaseException | None) -> None:
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)

    def run() -> None:
        result: Any = None
        problem: BaseException | None = None
        try:
            with forks.OnlyTheParentReturns():
                result = call()
        except StopIteration as error:  # no future can carry it
            problem = RuntimeError(f"the function raised {error!r}")
        except (GeneratorExit, KeyboardInterrupt) as error:  # in the loop they would mean more than the failure of a function
            problem = _Raised(error)
        except BaseException as error:  # noqa: BLE001 - carried over to the loop
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            pass  # the loop has ended: the shutdown did not wait for us

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
