"""The worker: claims tasks under a lease and runs their functions."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from lockbeat.beat.registry import instant
from lockbeat.errors import InvalidArgument, InvalidType, StoreError
from lockbeat.keeper import Keeper
from lockbeat.lease import Held, monotonic
from lockbeat.store import Store
from lockbeat.tasks import Task, Tasks
from lockbeat.wakeup import LOOK_IN_MEMORY, Wakeup

log = logging.getLogger("lockbeat")

HANDFUL = 50
"""Tasks that one claim takes; keeps its script under 5 ms."""
CLAIM_LEASE_MS = 5000
LOOK_AFTER = 15.0
"""Seconds. Looks again after this time though nobody rang: a message can be lost with the instance that was to send it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a function is told of the attempt that it is."""

    job: str
    slot: datetime
    """The nominal instant, UTC; it may run later, never earlier."""
    attempt: int
    """1 for the first."""
    fence: int
    """Grows with each attempt of any task of the shard: hand it to whatever the function writes to."""
    task_id: str


@dataclass(frozen=True, slots=True)
class Function:
    """A user's function, and how it wants to be called."""

    call: Callable[..., Any]
    is_async: bool
    takes_run: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Function:
        """Raises InvalidArgument or InvalidType for what can't be called with one argument or none."""
        if not callable(function):
            raise InvalidType("function", f"must be callable, not {type(function).__name__}")
        needed = [
            parameter
            for parameter in _parameters(function)
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        wrong = len(needed) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed)
        if wrong:
            names = ", ".join(parameter.name for parameter in needed)
            raise InvalidArgument("function", f"may take one argument, the run, or none; {_name(function)} needs: {names}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument("function", f"{_name(function)} is a generator: called, it would run nothing")
        plain = inspect.isfunction(function) or inspect.ismethod(function) or isinstance(function, partial)
        called = function if plain else type(function).__call__  # an object that can be called
        takes_run = bool(needed) or any(parameter.name == "run" for parameter in _parameters(function))
        return cls(function, inspect.iscoroutinefunction(called), takes_run)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        raise InvalidArgument("function", f"{_name(function)} does not say what it takes; wrap it in a function") from None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


class _Attempt:
    """One attempt: its lease, and why it is to stop, if it is."""

    __slots__ = ("abandoned", "ended", "held", "runner", "running", "stopped", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        args = (task.id, task.owner, task.fence, task.lease_ms, task.lock)
        self.held = Held("task/renew", task.shard, args, task.lease_ms / 1000, 0.0, lambda reason: self.stop(LOST))
        self.held.taken(task.asked_at)
        self.runner: asyncio.Task[None] | None = None
        self.running = False
        self.abandoned = False
        self.ended = False  # what is left is to report the outcome, which no loss makes untrue
        self.stopped: str | None = None

    def stop(self, reason: str) -> None:
        """Cancel the function, once; one that has not begun never does."""
        if self.stopped is None and not self.ended:
            self.stopped = reason
            if self.running and self.runner is not None:
                self.runner.cancel()


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
            result = call()
        except StopIteration as error:  # which a future can't carry
            problem = RuntimeError(f"the function raised {error!r}")
        except KeyboardInterrupt as error:  # the job's own: signals reach the main thread only
            problem = RuntimeError(f"the function raised {error!r}")
        except BaseException as error:  # noqa: BLE001 - carried over to the loop
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            pass  # the loop has ended: the shutdown did not wait for us

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


LOST, TIMED_OUT, SHUT_DOWN = "lost", "timed out", "shut down"


class Worker:
    """Runs tasks of some queues, at most `concurrency` at a time."""

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        tasks: Tasks,
        functions: Mapping[str, Function],
        queues: Iterable[str],
        concurrency: int,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._tasks = tasks
        self._functions = functions
        self._queues = tuple(dict.fromkeys(queues))
        self._concurrency = concurrency
        self._attempts: dict[Task, _Attempt] = {}
        self._strangers: set[str] = set()  # functions that others have: older or newer code, another program
        self._reserved = 0
        self._claiming: set[asyncio.Future[tuple[list[Task], float | None]]] = set()
        self._stopping = False
        self._room = Wakeup()  # an attempt has ended
        self._wakeups: dict[int, list[Wakeup]] = {}
        self.completed = 0
        """Attempts that ended well, since it started."""
        self.failed = 0
        """Attempts that ended otherwise."""
        self.abandoned = 0
        """Attempts that a shutdown left running in their threads."""

    @property
    def room(self) -> int:
        """How many more attempts it would take now."""
        return 0 if self._stopping else self._concurrency - len(self._attempts) - self._reserved

    def reserve(self, queue: str, name: str) -> bool:
        """Keep a place for an attempt of this function; False: it would not run it now."""
        if self.room <= 0 or queue not in self._queues or name not in self._functions:
            return False
        self._reserved += 1
        return True

    def unreserve(self, places: int = 1) -> None:
        """Give up places; who waits for one is told."""
        self._reserved -= places
        self._room.ring()

    def knows(self, name: str) -> bool:
        """Whether it has the function."""
        return name in self._functions

    @property
    def running(self) -> int:
        """Attempts that are running now."""
        return len(self._attempts)

    def begin(self, task: Task) -> None:
        """Run an attempt that has been claimed, or started by `beat/fire`, in this instance's name, in a reserved place."""
        self._reserved -= 1
        attempt = self._attempts[task] = _Attempt(task)
        self._keeper.hold(attempt.held)  # from here on: its function may have to wait for one that blocks the event loop
        attempt.runner = self._store.loop.create_task(self._execute(attempt), name=task.id)

    def reply_lost(self, shard: int, calls: Sequence[str]) -> None:
        """These calls may have started attempts in this instance's name; the next claim brings them."""
        self._tasks.reply_lost(shard, calls)
        self.wake(shard)

    def wake(self, shard: int) -> None:
        """There may be something to claim on a shard."""
        for wakeup in self._wakeups.get(shard, ()):
            wakeup.ring()

    async def serve(self, queue: str, shard: int) -> None:
        """Claim and run, until cancelled. Losing the store ends nothing."""
        wakeup = Wakeup()
        self._wakeups.setdefault(shard, []).append(wakeup)
        await wakeup.keep_turning(
            lambda: self.tick(queue, shard),
            doing="claiming",
            blocked=f"can't claim from queue {queue!r}",
            longest_pause=2.0,
            look=LOOK_IN_MEMORY if self._store.connector.kind == "memory" else LOOK_AFTER,
        )

    async def tick(self, queue: str, shard: int) -> float | None:
        """Claim what there is room for. Seconds until there may be more; None: when rung for. Raises StoreError."""
        while self.room <= 0:
            await self._room.wait(None)
        limit = min(self.room, HANDFUL)
        self._reserved += limit
        # A cancelled claim would leave tasks leased to an instance that does not run them.
        claim = self._tasks.claim(queue, self._store.owner, shard, limit, CLAIM_LEASE_MS, self._strangers)
        claiming = asyncio.ensure_future(claim)
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        tasks: list[Task] = []
        try:
            tasks, wake = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._give_back)
            raise
        finally:
            self.unreserve(limit - len(tasks))
        if tasks and log.isEnabledFor(logging.DEBUG):
            log.debug("claimed %d", len(tasks))
        for task in tasks:
            if self.knows(task.name) and not self._stopping:
                self.begin(task)
                continue
            self.unreserve()
            if not self._stopping:
                self._strangers.add(task.name)
                log.info("task %s is left to others: no function %r here", task.id, task.name)
            self._store.undo("task/release", shard, (task.id, task.owner, task.fence, 0, 0))
        return 0 if len(tasks) == limit else wake

    def _give_back(self, claiming: asyncio.Future[tuple[list[Task], float | None]]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            for task in claiming.result()[0]:
                self._store.undo("task/release", task.shard, (task.id, task.owner, task.fence, 0, 0))

    async def _execute(self, attempt: _Attempt) -> None:
        task = attempt.task
        began = monotonic() if log.isEnabledFor(logging.DEBUG) else None
        try:
            await self._report(attempt, await self._outcome(attempt))
        except StoreError as problem:
            log.error("the outcome of %s is lost: %s", task.id, problem)
        except asyncio.CancelledError:
            pass  # the worker is closed, its grace is over: release_all has the last word
        finally:
            if began is not None:
                log.debug("ended %s in %.0f ms", task.id, (monotonic() - began) * 1000)
            self._keeper.drop(attempt.held)
            del self._attempts[task]
            self._room.ring()

    async def _outcome(self, attempt: _Attempt) -> str | None:
        """Run the function. What went wrong, as text; None: nothing."""
        task, function = attempt.task, self._functions[attempt.task.name]
        if monotonic() >= attempt.held.trusted_until:
            attempt.stop(LOST)  # the process was frozen, or the answer came late: it may be another's by now
        timer = self._store.loop.call_later(task.timeout_ms / 1000, attempt.stop, TIMED_OUT) if task.timeout_ms else None
        try:
            if attempt.stopped is not None:
                return "it was not begun"
            attempt.running = True
            await self._call(function, task)
        except asyncio.CancelledError:
            runner = attempt.runner
            if attempt.stopped is not None and runner is not None:
                runner.uncancel()
            return "the function was cancelled"
        except KeyboardInterrupt:
            raise  # Ctrl-C in a program that left it to Python, and hit while this function ran
        except BaseException as problem:  # noqa: BLE001 - whatever a function raises is its outcome, sys.exit() too
            text = "".join(traceback.format_exception(problem)).rstrip()
            return text.encode(errors="backslashreplace").decode()  # a file name may hold what UTF-8 can't carry
        finally:
            attempt.ended = True
            if timer is not None:
                timer.cancel()
        return None

    async def _report(self, attempt: _Attempt, error: str | None) -> None:
        task = attempt.task
        if error is None:
            self.completed += 1
            if not await self._patiently(lambda: self._tasks.complete(task)):
                log.warning("%s had been taken from this instance before it ended; its writes may come twice", task.id)
            return
        self.failed += 1
        if attempt.stopped == LOST:
            log.warning("%s was cancelled: its lease was lost", task.id)
        elif attempt.abandoned:
            pass  # its thread still runs: the lease is left to expire
        elif attempt.stopped == SHUT_DOWN:
            await self._tasks.release(task, begun=attempt.running)
        else:
            if attempt.stopped == TIMED_OUT:
                error = f"timed out after {task.timeout_ms or 0:g} ms"
            log.error("%s failed in attempt %d: %s", task.id, task.attempt, error)
            await self._patiently(lambda: self._tasks.fail(task, error[-4000:]))

    async def _patiently(self, report: Callable[[], Any]) -> Any:
        """An outcome is worth more patience than a question: the work is done."""
        left = 5
        while True:
            try:
                return await report()
            except StoreError:
                if not left or self._stopping:
                    raise
                left -= 1
                await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries

    async def _call(self, function: Function, task: Task) -> None:
        args: tuple[Run, ...] = ()
        if function.takes_run:
            args = (Run(task.job, instant(task.slot_ms), task.attempt, task.fence, task.id),)
        if function.is_async:
            await function.call(*args)
            return
        thread = _in_thread(task.id, partial(contextvars.copy_context().run, function.call, *args))
        try:
            result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread can't be stopped. Its lease is kept until it ends, or another would start beside it.
            await asyncio.wait([thread])
            raise
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError("the function returned a generator, which nobody runs")
        if inspect.isawaitable(result):  # a lambda around an async function
            await result

    async def drain(self, grace: float) -> None:
        """Stop claiming, let what runs end within `grace` seconds, cancel the rest and give it back."""
        self._stopping = True
        self._room.ring()
        if self._claiming:  # what they claim is given back, before release_all takes it for begun
            await asyncio.wait(self._claiming, timeout=self._store.timeout)
        await self._wait_for_attempts(grace)
        for attempt in list(self._attempts.values()):
            attempt.stop(SHUT_DOWN)
        await self._wait_for_attempts(self._store.timeout)
        for attempt in list(self._attempts.values()):
            log.warning("%s still runs and can't be stopped; its lease is left to expire", attempt.task.id)
            attempt.abandoned = True
            self.abandoned += 1
            if attempt.runner is not None:
                attempt.runner.cancel()

    async def _wait_for_attempts(self, seconds: float) -> None:
        runners = [attempt.runner for attempt in self._attempts.values() if attempt.runner is not None]
        if runners:
            await asyncio.wait(runners, timeout=seconds)
