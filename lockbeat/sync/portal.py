"""The portal: an event loop in a thread of its own, and calls into it that block their own thread alone.

Going to another thread and back costs a call more than all the rest. So where one caller comes after the other, the thread lends
the loop: who calls turns it, as its leader, until its own call is over. As soon as two calls meet, or nobody has called for a
moment, the thread has it again. Whoever turns the loop holds one lock meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lockbeat.errors import LockbeatError, StoreError
from lockbeat.events import Hooks
from lockbeat.process import forks
from lockbeat.sync.calm import Calm
from lockbeat.sync.turning import OVER, UNHEARD, Call, Loop, Waiting

log = logging.getLogger("lockbeat")
T = TypeVar("T")

SETTLE = 1.0
"""Seconds that a caller who was interrupted waits until the store has heard that what it asked for is taken back."""
WIND_UP = 1.0
"""Seconds that tasks get to end when the loop does."""

GREENLETS = (
    "greenlets stand in the place of threads here, as under gevent and eventlet, and they share one event loop: lockbeat.sync "
    "needs threads of its own; serve by threads (gunicorn's gthread), or await the asynchronous client"
)
MOMENT = 0.01
"""Seconds without a call, or two times that, after which its thread turns the loop again."""

WITHIN = (
    "this call blocks, and was made in the very event loop that is to answer it: make it in another thread, "
    "or await the asynchronous client's"
)


def check_lives() -> None:
    """Raises StoreError when Python has ended, as in a `__del__` that runs then: the loop's thread stands still for ever."""
    if sys.is_finalizing():
        raise StoreError(OVER)


class Portal:
    """Runs calls of any thread as tasks of one loop, so that those of one turn share a write.

    A queue, and a lock a call, in place of anyio's portal: that makes a future, a scope and a context a call, and Python waits
    for its thread when it exits.
    """

    def __init__(self) -> None:
        self._waiting = Waiting(self._begin, self._stop, self._lend)
        self.loop = Loop(self._waiting)
        self.loop.roused, self.loop.stray = self._call_back, self._stray
        self.settle: Callable[[], Awaitable[Any]] | None = None
        """Waits until the store has heard all that was sent so far."""
        self.doubt: Callable[[], None] | None = None
        """Called when a thread that turned the loop was stopped within it: what it was at may be half done."""
        self.events: Hooks | None = None
        """Those of the client; they say whether calls are traced, and whether functions of the program's run in the loop."""
        self.lends = True
        """Whether callers may turn the loop."""
        self._posted: deque[Call] = deque()
        self._begun: set[Call] = set()
        self._closed = self._roused = False
        self._turning: Any = threading.RLock()  # it knows whose it is, which no name could be told in the same instant
        """Held by whoever turns the loop."""
        self._turner: int | None = None
        """In which thread it is turned."""
        self._lent = False
        """Nobody turns it but its callers."""
        self._used = False
        """One has, since the thread last looked."""
        self._wanted = threading.Lock()
        self._wanted.acquire()
        self._calm = Calm(self._waiting.ring)
        self._strayed: BaseException | None = None
        self._generation = forks.generation
        self._main = threading.main_thread().ident
        check_lives()
        self._thread = threading.Thread(target=self._turn, name="lockbeat sync", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as problem:  # Python 3.12 starts none in a function of `atexit`
            raise StoreError(OVER) from problem
        self._own = self._thread.ident

    def call(self, ask: Callable[[], Awaitable[T]], undo: Callable[[], Awaitable[Any]] | None = None) -> T:
        """Run `ask()` in the loop; wait for what it returns, or raise what it raises.

        Interrupted, as by Ctrl-C, it cancels the call, or has it undone when that is too late, and waits for that.

        Raises: LockbeatError in the loop's own thread, which would wait for itself. StoreError once the portal is closed, once
        Python has ended, and in a forked child, which has the loop but not its thread.
        """
        if self._generation != forks.generation:
            raise forks.foreign(self._generation)
        check_lives()
        if asyncio._get_running_loop() is self.loop:
            raise LockbeatError(GREENLETS if threading.get_ident() != self._turner else WITHIN)
        if self._turning._is_owned() or (threading.get_ident() == self._own and not self._closed):
            raise LockbeatError(
                WITHIN
            )  # a `__del__`, which runs wherever garbage is collected: just before the loop turns, as well
        call = Call(ask, undo)
        if self.events is not None and self.events.spans is not None:
            call.context = contextvars.copy_context()  # the span that is current
        try:
            if not self._lent or not self._lead(call):
                self.post(call)
            while not call.wait(timeout=UNHEARD):
                pass
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
        self._call_back()

    def _begin(self) -> None:
        """Begin what was posted."""
        self._roused = False
        while self._posted:
            self._start(self._posted.popleft())

    def _start(self, call: Call) -> None:
        self._begun.add(call)
        call.task = self.loop.create_task(self._run(call), context=call.context)

    def _lead(self, call: Call) -> bool:
        """Turn the loop in this thread, until the call is over or another is to begin. False: the call was not begun."""
        if self._posted or asyncio._get_running_loop() is not None or not self._calm.begin():
            return False
        try:  # calm from here on: a handler that calls us must not find the lock held by the thread that it runs in
            return self._turning.acquire(blocking=False) and self._turn_for(call)
        finally:
            self._calm.end()

    def _turn_for(self, call: Call) -> bool:
        waiting, self._strayed, begun = self._waiting, None, False
        try:
            if self._lent and not self._closed:
                self._used = begun = True
                waiting.leader, waiting.busy = call, False
                self._start(call)
                self._turner = threading.get_ident()
                self.loop.run_forever()
                if self._strayed is not None:
                    raise self._strayed
                if call.problem is not None and not isinstance(call.problem, Exception):
                    self._suspect()
        except BaseException:
            self._suspect()
            raise
        finally:
            waiting.leader = self._turner = None
            if waiting.ended:
                waiting.tell()
            self._turning.release()
            if begun and (not call.over or self._begun or self._posted or waiting.busy):
                self._call_back()
        return begun

    def _suspect(self) -> None:
        """Another thread has raised something in this one, perhaps in the midst of a turn. Once is enough."""
        self.lends, self._waiting.busy = False, True
        if self.doubt is not None:
            self.loop.call_soon(self.doubt)

    def _stray(self, problem: BaseException) -> bool:
        """Whether what a callback has raised was meant for the leader, who is to have it."""
        if self._waiting.leader is None:
            return False
        self._strayed = problem
        self._stop()
        return True

    def _lend(self) -> bool:
        """Let callers turn the loop, if nothing else is to be done in it."""
        self._waiting.alone = 0
        heard = self.events is not None and any(hook.heard for hook in self.events.all)
        if self._begun or self._posted or self._closed or heard or not self.lends:
            return False
        self._wanted.acquire(blocking=False)  # of an earlier time
        self._used = self._lent = True
        self._stop()
        return True

    def _call_back(self) -> None:
        """Have the thread turn the loop, if it has lent it."""
        if self._lent:
            self._lent = False
            with contextlib.suppress(RuntimeError):  # somebody has
                self._wanted.release()

    def _stop(self) -> None:
        self.loop.stop()

    async def _run(self, call: Call) -> None:
        # No callback of the task: it would cost each call another turn of the loop.
        try:
            await call.run()
        finally:
            self._begun.discard(call)
            self._waiting.ended.append(call)
            if self._waiting.leader is call and not self.loop.more:
                self._stop()  # a turn sooner than when it looks for news

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

        if self._closed or sys.is_finalizing():
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
            with self._turning:
                self._lent, self._waiting.alone, self._turner = False, 0, threading.get_ident()
                self.loop.call_soon(self._begin)  # a leader may have heard the bell
                try:
                    self.loop.run_forever()
                except BaseException:  # asyncio lets a SystemExit out through the loop, whichever task raised it
                    log.exception("a function stopped the event loop of a client, and it is turned again")
                    time.sleep(0.05)  # if it is the loop itself that fails
            while self._lent and not self._posted and self._used:
                self._used = False
                if self._wanted.acquire(timeout=MOMENT):
                    break
        with self._turning:
            self._end()

    def _end(self) -> None:
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
