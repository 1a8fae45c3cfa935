"""What surrounds the serving of a beat: its user's start and stop, and a store that may be away when it starts."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskStatus

from lockbeat.connection.outage import REMIND, Pace
from lockbeat.errors import InvalidArgument, InvalidType, LifespanError, LockbeatError, StoreError, StoreUnavailable
from lockbeat.leases.lease import monotonic

log = logging.getLogger("lockbeat")

LONGEST_PAUSE = 5.0
"""Seconds between two tries to reach a store that was away when the beat was started, at most."""
MOMENT = 1.0
"""Seconds that a block which does not wait for the store gives it."""


def check_lifespan(make: object, name: str = "lifespan", of: str = "beat") -> None:
    """Raises InvalidType or InvalidArgument for what makes no async context manager of a beat, or of an application."""
    if isinstance(make, Lifespan):
        return
    if not callable(make) or isinstance(make, AbstractAsyncContextManager):  # contextlib's can be called, as decorators
        raise InvalidType(name, f"must be a function of the {of}, not {type(make).__name__}")
    if inspect.isasyncgenfunction(make) or inspect.isgeneratorfunction(make):
        raise InvalidArgument(name, "is a bare generator: put @contextlib.asynccontextmanager above it")
    if inspect.iscoroutinefunction(make):
        raise InvalidArgument(name, "must yield once, under @contextlib.asynccontextmanager; what it returns can't be left")


class Lifespan(AbstractAsyncContextManager[Any]):
    """What `beat.lifespan()` gives: a block to enter, and a function of an application that makes such a block.

    Web frameworks differ in which of the two they want, and contextlib's own context managers are not the second: called with an
    application, they would decorate it. It can be entered again when it was left, as by an application that is started again.
    """

    def __init__(self, make: Callable[[Any], AbstractAsyncContextManager[Any]], app: Any = None) -> None:
        self._make, self._app = make, app
        self._within: AbstractAsyncContextManager[Any] | None = None

    def __call__(self, app: Any = None) -> Lifespan:
        return Lifespan(self._make, app)

    async def __aenter__(self) -> Any:
        if asyncio._get_running_loop() is None:
            raise LockbeatError("a beat serves on asyncio, and here no event loop of asyncio's runs")
        if self._within is not None:
            raise LockbeatError("this lifespan was entered already")
        self._within = self._make(self._app)
        try:
            return await self._within.__aenter__()
        except BaseException:
            self._within = None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        within, self._within = self._within, None
        assert within is not None
        return await within.__aexit__(kind, error, trace)


@asynccontextmanager
async def entered(make: Callable[[Any], AbstractAsyncContextManager[Any]], beat: object, seconds: float) -> AsyncIterator[Any]:
    """Enter the lifespan that a user made for the beat; its value. It gets `seconds` to leave.

    A beat ends by being cancelled. That is no error of its user's, so what comes after his `yield` runs without one.
    Raises LifespanError for whatever goes wrong in it; StoreError as it is.
    """
    try:
        context = make(beat)
        if not isinstance(context, AbstractAsyncContextManager):
            raise TypeError(f"lifespan= returned no async context manager but something of type {type(context).__name__}")
        state = await context.__aenter__()
    except StoreError:
        raise
    except Exception as problem:
        raise LifespanError("did not start", problem) from problem
    error: BaseException | None = None
    try:
        yield state
    except BaseException as problem:
        error = None if isinstance(problem, asyncio.CancelledError) else problem
        raise
    finally:
        await _leave(context, error, seconds)


async def _leave(context: AbstractAsyncContextManager[Any], error: BaseException | None, seconds: float) -> None:
    # Shielded: a caller that cancels again and again, as anyio does, would cut the user's clean-up short.
    with anyio.move_on_after(seconds, shield=True) as scope:
        try:
            await context.__aexit__(None if error is None else type(error), error, None if error is None else error.__traceback__)
        except Exception as problem:
            if problem is not error:
                raise LifespanError("did not end well", problem) from problem
    if scope.cancelled_caught:
        log.error("the lifespan had not ended after %g s, and was cancelled", seconds)


class Started(TaskStatus[None]):
    """Says when the beat serves, and passes it on."""

    def __init__(self, told: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        self.event = asyncio.Event()
        self._told = told

    def started(self, value: None = None) -> None:
        self.event.set()
        self._told.started()


async def once_there(serve: Callable[[TaskStatus[None]], Awaitable[None]], told: TaskStatus[None]) -> None:
    """Serve as soon as the store can be reached, be it away when the beat is started. Nothing is given up, and nothing spins."""
    pace, said_at = Pace(LONGEST_PAUSE), float("-inf")
    while True:
        started = Started(told)
        try:
            return await serve(started)
        except StoreError as problem:
            if started.event.is_set():
                raise
            # That it is away is said by its outage, once a minute; a refusal is not one.
            if monotonic() - said_at >= (float("inf") if isinstance(problem, StoreUnavailable) else REMIND):
                said_at = monotonic()
                log.warning("can't serve yet, and go on trying: %s", problem)
        pace.failed()
        await asyncio.sleep(pace.wait())


@asynccontextmanager
async def alongside(serve: Coroutine[Any, Any, None], started: Started, moment: float | None) -> AsyncIterator[None]:
    """Serve while the block runs. It begins once `started` says so, or after `moment` seconds. Raises what `serve` raises."""
    serving = asyncio.ensure_future(serve)
    serving.add_done_callback(lambda _: started.event.set())
    try:
        with anyio.move_on_after(moment):
            await started.event.wait()
        if serving.done():
            await serving  # it could not start, and says why
        serving.add_done_callback(_tell_why_it_ended)
        yield
    finally:
        serving.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([serving])
    if not serving.cancelled() and (problem := serving.exception()) is not None:
        raise problem


def _tell_why_it_ended(serving: asyncio.Future[None]) -> None:
    """The program around it goes on, and learns of it when it ends, which may be in weeks."""
    if not serving.cancelled() and (problem := serving.exception()) is not None:
        log.error("the beat serves no more: %s", problem, exc_info=problem)
