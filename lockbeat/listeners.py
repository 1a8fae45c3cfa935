"""What calls the functions that listen to a hook.

Each has a queue and a runner of its own, a task for an `async def`, a thread for a plain function. So whatever one does, neither
those who tell nor the others wait for it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

log = logging.getLogger("lockbeat")

MOST = 1000
"""Events that wait for one function; what comes then is dropped, and counted."""
LIMIT = 30.0
"""Seconds that one call of an `async def` may take; then it is cancelled."""
REMIND = 60.0
"""Seconds between two lines of the log on one function."""


class Told:
    """How far an event has come that a hook's functions are told. done: is called when all have returned, in any thread."""

    __slots__ = ("_calls", "_done", "_left", "_lock", "_withdrawn", "begun_at")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done, self._lock = done, threading.Lock()
        self._left = self._calls = 0
        self._withdrawn = False
        self.begun_at: float | None = None
        """When the first function was called with it, monotonic seconds; None: none was."""

    def by(self, functions: int) -> None:
        """So many are to be called with it."""
        self._left = functions
        if functions == 0:
            self._done()

    @property
    def is_called(self) -> bool:
        """Whether a function is at it."""
        return self._calls > 0

    def begin(self) -> bool:
        """A function is about to be called with it. False: it is to be called with it no more, as it was withdrawn."""
        with self._lock:
            if not self._withdrawn:
                self._calls += 1
                if self.begun_at is None:
                    self.begun_at = time.monotonic()
            return not self._withdrawn

    def withdraw(self) -> bool:
        """Have no function called with it, if none was. Whether none was."""
        with self._lock:
            self._withdrawn = self._withdrawn or self.begun_at is None
            return self._withdrawn

    def end(self) -> None:
        """A function has returned."""
        with self._lock:
            self._calls -= 1
        self.skip()

    def skip(self) -> None:
        """One function less is to be called with it."""
        with self._lock:
            self._left -= 1
            last = self._left == 0 and not self._withdrawn
        if last:
            self._done()


class Listening:
    """What the functions of a program share: the event loop, and what the log is told of them."""

    def __init__(self) -> None:
        self.dropped = 0
        """Events that were not told, as a hook had too many to do. The log says it, too."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0
        self._said: dict[object, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """As a process that is not forked has it, which is given a beat to run."""
        return {**self.__dict__, "dropped": 0, "loop": None, "thread": 0, "_said": {}}

    def drop(self, name: str, function: Callable[..., Any], why: str) -> None:
        """An event is not told."""
        self.dropped += 1
        if self._may(function):
            log.warning("a hook of %s %s: %s; %d events are dropped so far", name, why, _name(function), self.dropped)

    def failed(self, name: str, function: Callable[..., Any]) -> None:
        """It raised."""
        if self._may(function):
            log.exception("a hook of %s failed: %s", name, _name(function))

    def hangs(self, name: str, seconds: float) -> None:
        """A function of it has not returned for so long; if it is one in a thread, nobody can cancel it."""
        if self._may(name):
            log.warning(
                "a hook of %s has not returned for %.0f s: what happens meanwhile waits for it, or is told elsewhere",
                name,
                seconds,
            )

    def took_too_long(self, name: str, function: Callable[..., Any]) -> None:
        """It was cancelled."""
        if self._may(function):
            log.warning("a hook of %s was cancelled, as it took more than %g s: %s", name, LIMIT, _name(function))

    def _may(self, of: object) -> bool:
        now = time.monotonic()
        if now < self._said.get(of, float("-inf")) + REMIND:
            return False
        self._said[of] = now
        return True


class Listener:
    """One function, and what waits for it."""

    def __init__(self, hooks: Listening, name: str, function: Callable[[Any], Any]) -> None:
        self._hooks, self.name, self.function = hooks, name, function
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        return {"_hooks": self._hooks, "name": self.name, "function": self.function}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reset()

    @property
    def waits(self) -> int:
        """How many events wait for it."""
        raise NotImplementedError

    def put(self, event: Any, told: Told | None) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Begin anew: the loop or the process is another one."""
        raise NotImplementedError

    def _drop(self, told: Told | None, why: str) -> None:
        """One is not told."""
        self._hooks.drop(self.name, self.function, why)
        if told is not None:
            told.skip()

    def end(self) -> asyncio.Future[Any] | None:
        """Take no more; what is done when the rest is. None: nothing waits."""
        raise NotImplementedError


class _InLoop(Listener):
    """An `async def`: called in a task of its own, one event after the other."""

    def reset(self) -> None:
        self._queue: deque[tuple[Any, Told | None] | None] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def waits(self) -> int:
        return len(self._queue)

    def put(self, event: Any, told: Told | None) -> None:
        loop = self._hooks.loop
        if loop is None or len(self._queue) >= MOST:
            self._drop(told, "is too slow")
            return
        self._queue.append((event, told))
        if threading.get_ident() == self._hooks.thread:
            self._rouse()
        else:
            try:
                loop.call_soon_threadsafe(self._rouse)
            except RuntimeError:
                pass  # the loop has ended, and the program with it

    def _rouse(self) -> None:
        if self._task is not None:
            self._wake.set()
        elif self._hooks.loop is not None:
            self._task = self._hooks.loop.create_task(self._run(), name=f"hook of {self.name}")

    def end(self) -> asyncio.Future[Any] | None:
        if self._task is not None:
            self._queue.append(None)
            self._wake.set()
        return self._task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while self._queue:
                try:
                    async with asyncio.timeout(LIMIT) as limit:
                        if not await self._some(limit):
                            return
                except TimeoutError:
                    self._hooks.took_too_long(self.name, self.function)
            await self._wake.wait()

    async def _some(self, limit: asyncio.Timeout) -> bool:
        """Tell what waits, until it is time to set the limit anew, which costs more than a quick hook. False: that was all."""
        loop, since = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        while self._queue:
            waiting = self._queue.popleft()
            if waiting is None:
                return False
            event, told = waiting
            if told is not None and not told.begin():
                continue
            if loop.time() > since + 1:
                since = loop.time()
                limit.reschedule(since + LIMIT)
            try:
                await self.function(event)
            except asyncio.CancelledError:
                if limit.expired() or (self._task is not None and self._task.cancelling()):
                    raise
                self._hooks.failed(self.name, self.function)
            except BaseException:  # noqa: BLE001 - a hook's own sys.exit() must not end the program
                self._hooks.failed(self.name, self.function)
            finally:
                if told is not None:
                    told.end()
            if limit.expired():  # it was cancelled and has returned all the same: the next one needs a limit of its own
                self._hooks.took_too_long(self.name, self.function)
                return True
        return True


class _InThread(Listener):
    """A plain function, which may block: called in a thread of its own, one event after the other."""

    def reset(self) -> None:
        self._queue: SimpleQueue[tuple[Any, Told | None] | Callable[[], None]] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()

    @property
    def waits(self) -> int:
        return self._queue.qsize()

    def put(self, event: Any, told: Told | None) -> None:
        if self._queue.qsize() >= MOST:
            self._drop(told, "is too slow")
        elif not self._started and not self._start():
            self._drop(told, "has no thread, as none can be started")
        else:
            self._queue.put((event, told))

    def _start(self) -> bool:
        """False: the process has as many threads as it may, or ends. The next event tries again."""
        with self._lock:
            if not self._started:
                thread = threading.Thread(target=self._run, args=(self._queue,), name=f"hook of {self.name}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._started = True
            return True

    def end(self) -> asyncio.Future[Any] | None:
        if not self._started:
            return None
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def last() -> None:
            try:
                loop.call_soon_threadsafe(_settle, ended)
            except RuntimeError:
                pass  # nobody waits any more

        queue = self._queue
        self.reset()
        queue.put(last)
        return ended

    def _run(self, queue: SimpleQueue[tuple[Any, Told | None] | Callable[[], None]]) -> None:
        while True:
            waiting = queue.get()
            if not isinstance(waiting, tuple):
                waiting()
                return
            event, told = waiting
            if told is not None and not told.begin():
                continue
            try:
                self.function(event)
            except BaseException:  # noqa: BLE001 - a hook's own sys.exit() must not end its thread
                self._hooks.failed(self.name, self.function)
            finally:
                if told is not None:
                    told.end()


def listener(hooks: Listening, name: str, function: Callable[[Any], Any]) -> Listener:
    """What calls a function with the events of a hook."""
    called = function if inspect.isroutine(function) else type(function).__call__
    of = _InLoop if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called) else _InThread
    return of(hooks, name, function)


def _settle(ended: asyncio.Future[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
