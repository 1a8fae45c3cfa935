"""The portal: an event loop in a thread of its own, and calls into it that block their own thread alone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lockbeat.errors import LockbeatError, StoreError
from lockbeat.events import Hooks
from lockbeat.process import forks

log = logging.getLogger("lockbeat")
T = TypeVar("T")

SETTLE = 1.0
"""Seconds that a caller who was interrupted waits until the store has heard that what it asked for is taken back."""
WIND_UP = 1.0
"""Seconds that tasks get to end when the loop does."""

MOST_UNSEEN = 8
"""Turns of the loop in a row that look for nothing new, as long as there is something to do."""
CLOSED = "this client was closed"


class Cut(StoreError):
    """A call was cancelled in the loop."""


class Call:
    """One call: what is asked for, and what came of it."""

    __slots__ = ("_ended", "ask", "begun", "context", "on_end", "over", "problem", "result", "task", "undo", "wait")

    def __init__(
        self,
        ask: Callable[[], Awaitable[Any]],
        undo: Callable[[], Awaitable[Any]] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.ask = ask
        self.undo = undo
        """Takes back what was done, for a caller who was interrupted and never gets to know of it."""
        self.on_end = on_end
        self._ended = threading.Lock()
        self._ended.acquire()
        self.wait = self._ended.acquire
        """Returns once it has ended; to one caller alone."""
        self.context: contextvars.Context | None = None
        """Of the caller, where it is to go along; a copy of it costs each call some time."""
        self.begun = self.over = False
        self.task: asyncio.Task[None] | None = None
        self.result: Any = None
        self.problem: BaseException | None = None

    async def run(self) -> None:
        """Whatever it ends with is its caller's: nothing is raised through the loop."""
        self.begun = True
        try:
            self.result = await self.ask()
        except asyncio.CancelledError:
            self.problem = Cut(CLOSED)
        except BaseException as problem:  # noqa: BLE001 - raised again in the caller's thread
            self.problem = problem
        self.over = True

    def end(self) -> None:
        """Tell the caller that it is over."""
        self._ended.release()
        if self.on_end is not None:
            self.on_end()

    def refuse(self) -> None:
        """It was never begun, or cancelled before its first step."""
        if not self.over:
            self.problem, self.over = Cut(CLOSED), True
            self.end()


class Waiting(selectors.DefaultSelector):
    """What the loop waits with: it hears a bell that any thread may ring, and tells callers of what has ended.

    A call takes the loop several turns. asyncio looks for news in each, which is a system call that lets go of the interpreter
    and takes it back; here it does where there is nothing else to do, and every few turns. Callers are told at the very end,
    just before the loop lets go of the interpreter: one that woke sooner would have to wait for it.
    """

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self.ended: list[Call] = []
        self._heard, self._unseen = heard, 0
        self._ear, self._bell = socket.socketpair()
        for end in (self._ear, self._bell):
            end.setblocking(False)
        self._key = self.register(self._ear, selectors.EVENT_READ)

    def ring(self) -> bool:
        """Have `heard` called in the loop. False: it is closed."""
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it has been rung many times, and will be heard
        except OSError:
            return False
        return True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0 and not self.ended and self._unseen < MOST_UNSEEN:
            self._unseen += 1
            return []
        self._unseen = 0
        self.tell()
        events = super().select(timeout)
        for at, (key, _) in enumerate(events):
            if key is self._key:
                self._ear.recv(4096)
                del events[at]
                self._heard()
                break
        return events

    def tell(self) -> None:
        """Tell the callers of what has ended."""
        ended, self.ended = self.ended, []
        for call in ended:
            call.end()

    def close(self) -> None:
        self.tell()
        super().close()
        self._bell.close()
        self._ear.close()


class Portal:
    """Runs calls of any thread as tasks of one loop, so that those of one turn share a write.

    A queue, and a lock a call, in place of anyio's portal: that makes a future, a scope and a context a call, and Python waits
    for its thread when it exits.
    """

    def __init__(self) -> None:
        self._waiting = Waiting(self._begin)
        self.loop = asyncio.SelectorEventLoop(self._waiting)
        self.settle: Callable[[], Awaitable[Any]] | None = None
        """Waits until the store has heard all that was sent so far."""
        self.events: Hooks | None = None
        """Those of the client; they say whether calls are traced."""
        self._posted: deque[Call] = deque()
        self._begun: set[Call] = set()
        self._closed = self._roused = False
        self._generation = forks.generation
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._turn, name="lockbeat sync", daemon=True)
        self._thread.start()

    def call(self, ask: Callable[[], Awaitable[T]], undo: Callable[[], Awaitable[Any]] | None = None) -> T:
        """Run `ask()` in the loop; wait for what it returns, or raise what it raises.

        Interrupted, as by Ctrl-C, it cancels the call, or has it undone when that is too late, and waits for that.

        Raises: LockbeatError in the loop's own thread, which would wait for itself. StoreError once the portal is closed, and in
        a forked child, which has the loop but not its thread.
        """
        if self._generation != forks.generation:
            raise forks.foreign(self._generation)
        if asyncio._get_running_loop() is self.loop:
            raise LockbeatError(
                "this call blocks, and was made in the very event loop that is to answer it: make it in another thread, "
                "or await the asynchronous client's"
            )
        call = Call(ask, undo)
        if self.events is not None and self.events.spans is not None:
            call.context = contextvars.copy_context()  # the span that is current
        try:
            self.post(call)
            call.wait()
            if call.problem is None:
                return call.result  # type: ignore[no-any-return]  # nothing may come between: its caller owns the result now
        except BaseException:
            self._give_up(call)
            raise
        try:
            raise call.problem
        finally:
            call.problem = None  # its traceback leads back to the call

    def post(self, call: Call) -> None:
        self._posted.append(call)
        # Whoever came before has roused the loop for all. Not the main thread: a signal may hit it between these two lines.
        if self._roused and threading.get_ident() != self._main:
            return
        self._roused = True
        if not self._waiting.ring():
            self._roused = False  # first: whoever posts from now on finds out by itself
            self._refuse()

    def _begin(self) -> None:
        """Begin what was posted."""
        self._roused = False
        while self._posted:
            call = self._posted.popleft()
            self._begun.add(call)
            call.task = self.loop.create_task(self._run(call), context=call.context)

    async def _run(self, call: Call) -> None:
        # No callback of the task: it would cost each call another turn of the loop.
        try:
            await call.run()
        finally:
            self._begun.discard(call)
            self._waiting.ended.append(call)

    def _refuse(self) -> None:
        while True:
            try:
                call = self._posted.popleft()
            except IndexError:  # of several threads each refuses some
                return
            call.refuse()

    def cancel(self, call: Call) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the call has ended
            self.loop.call_soon_threadsafe(self._cancel, call)

    def _cancel(self, call: Call) -> None:
        self._begin()  # it may have been posted only just now
        if call.task is not None:
            call.task.cancel()
            if not call.begun:
                call.refuse()  # it will not get to its first step
                self._begun.discard(call)

    def _give_up(self, call: Call) -> None:
        """The caller was interrupted. Wait until its call has ended, and what it took is given back."""

        async def take_back() -> None:
            self._cancel(call)
            if call.task is None:
                return  # interrupted before it was posted
            await asyncio.wait([call.task])
            if call.problem is None and call.undo is not None:
                await call.undo()
            if self.settle is not None:
                await self.settle()

        back = Call(take_back)
        self.post(back)
        back.wait(timeout=SETTLE)
        if isinstance(back.problem, Exception):
            log.warning("could not take back a call that was interrupted: %s", back.problem)

    async def attend(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Run `serve()` in this portal's loop, and wait for it in another. Cancelled, it is cancelled there, and waited for."""
        here = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
                here.call_soon_threadsafe(ended.set)

        call = Call(serve, on_end=tell)
        self.post(call)
        cancelled: asyncio.CancelledError | None = None
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError as problem:
                cancelled = problem
                self.cancel(call)
        if cancelled is not None:
            raise cancelled
        if call.problem is not None:
            raise call.problem

    def close(self, last: Callable[[], Awaitable[None]], patience: float) -> None:
        """Cancel what is called, run `last()` in the loop, and end the thread, within `patience` and two moments. Idempotent."""

        async def end() -> None:
            others = [other for other in self._begun if other is not call]
            for other in others:
                self._cancel(other)
            if tasks := [other.task for other in others if other.task is not None]:
                await asyncio.wait(tasks, timeout=WIND_UP)
            try:
                await asyncio.wait_for(last(), patience)
            finally:
                self._closed = True
                self.loop.call_soon(self.loop.stop)

        if self._closed:
            return
        call = Call(end)
        self.post(call)
        if not call.wait(timeout=patience + 2 * WIND_UP):
            log.error("the event loop of a client does not turn any more; it ends with the process")
            return
        self._thread.join(WIND_UP)
        if call.problem is not None:
            raise call.problem

    def _turn(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closed:
            try:
                self.loop.run_forever()
            except BaseException:  # asyncio lets a SystemExit out through the loop, whichever task raised it
                log.exception("a function stopped the event loop of a client, and it is turned again")
                time.sleep(0.05)  # if it is the loop itself that fails
        try:
            if left := asyncio.all_tasks(self.loop):
                for task in left:
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(left, timeout=WIND_UP))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
            self._roused = False
            self._refuse()
            for call in self._begun:
                call.refuse()


class Inline(Portal):
    """Without a loop, for what never waits."""

    def __init__(self) -> None:
        pass

    def call(self, ask: Callable[[], Awaitable[T]], undo: Callable[[], Awaitable[Any]] | None = None) -> T:
        try:
            next(ask().__await__())
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise AssertionError("it waits")
