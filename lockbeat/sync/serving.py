"""One run of a beat in the event loop of a blocking client, and what surrounds it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

from anyio.abc import TaskStatus

from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError
from lockbeat.process import forks
from lockbeat.sync.client import Opened
from lockbeat.sync.turning import Call, Cut

log = logging.getLogger("lockbeat")


class Serving(TaskStatus[None]):
    """Where and how a beat is served. `ours`: the client was opened for it, and is closed with it."""

    def __init__(self, opened: Opened, ours: bool) -> None:
        self.opened, self.ours, self.portal = opened, ours, opened.portal
        self.ended = threading.Event()
        self._started = threading.Event()
        self._call: Call | None = None
        self._stopping = False

    @property
    def is_here(self) -> bool:
        """In this process, and not in the one that it was forked from."""
        return self.opened.generation == forks.generation

    def started(self, value: None = None) -> None:
        self._started.set()

    def start(self, serve: Callable[[], Awaitable[None]], moment: float | None) -> None:
        """Serve in the loop. Returns when it has started, or after a moment. Raises what it could not start for."""
        self._call = call = Call(serve, on_end=self._end)
        self.portal.post(call)
        self._started.wait(moment)
        if self.ended.is_set():
            self._stopping = True
            raise call.problem or LockbeatError("serving has ended by itself")

    def _end(self) -> None:
        self.ended.set()
        if self._started.is_set() and not self._stopping:
            # The program around it goes on, and learns of it when it ends, which may be in weeks.
            problem = None if self._call is None else self._call.problem
            log.error("the beat serves no more: %s", problem, exc_info=problem)
        self._started.set()

    def stop(self, patience: float) -> None:
        """Shut down. Raises what had ended it before."""
        if self._call is None:
            raise LockbeatError("this beat is served by `beat.run()`, which a signal ends")
        told, self._stopping = self._stopping, True
        self.portal.cancel(self._call)
        if not self.ended.wait(patience):
            log.error("not shut down within %g s: its functions go on until the process ends", patience)
        problem = self._call.problem
        if problem is not None and not told and not isinstance(problem, Cut):
            raise problem


def check_lifespan(make: object, name: str = "lifespan", of: str = "beat") -> None:
    """Raises InvalidType or InvalidArgument for what makes no context manager of a beat, or of an application."""
    if not callable(make) or isinstance(make, (AbstractContextManager, AbstractAsyncContextManager)):
        raise InvalidType(name, f"must be a function of the {of}, not {type(make).__name__}")
    if inspect.isgeneratorfunction(make):
        raise InvalidArgument(name, "is a bare generator: put @contextlib.contextmanager above it")
    if inspect.isasyncgenfunction(make) or inspect.iscoroutinefunction(make):
        raise InvalidArgument(name, "is async: lockbeat.sync takes a plain one, under @contextlib.contextmanager")


@asynccontextmanager
async def around(make: Callable[[Any], AbstractContextManager[Any]], beat: object) -> AsyncIterator[Any]:
    """Enter and leave a user's context manager in one thread of its own, as an sqlite3 connection wants it."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "lockbeat lifespan")
    entered: list[tuple[AbstractContextManager[Any], Any]] = []
    error: BaseException | None = None

    def enter() -> None:
        context = make(beat)
        if not isinstance(context, AbstractContextManager):
            raise TypeError(f"lifespan= returned no context manager but something of type {type(context).__name__}")
        entered.append((context, context.__enter__()))

    def leave() -> None:
        for context, _ in entered:
            context.__exit__(None if error is None else type(error), error, None if error is None else error.__traceback__)

    try:
        await loop.run_in_executor(thread, enter)
        yield entered[0][1]
    except BaseException as problem:
        error = problem
        raise
    finally:
        leaving = loop.run_in_executor(thread, leave)  # after `enter`, if that was cancelled
        thread.shutdown(wait=False)
        await leaving


class Stoppable(Protocol):
    def stop(self) -> None: ...


_started: weakref.WeakSet[Any] = weakref.WeakSet()


def stop_at_exit(beat: Stoppable) -> None:
    """Shut it down when Python exits, before the threads that this takes can be started no more; atexit would be too late."""
    if not _started:
        threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
    _started.add(beat)


def _stop_all() -> None:
    for beat in list(_started):
        try:
            beat.stop()
        except Exception:
            log.exception("a beat did not shut down well")
