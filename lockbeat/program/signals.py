"""What SIGTERM, SIGINT and SIGHUP do to a program that serves, and how its process ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from lockbeat.errors import LockbeatError
from lockbeat.process import forks
from lockbeat.process.blame import blame, heard
from lockbeat.process.stacks import all_stacks

log = logging.getLogger("lockbeat")

ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a program to end."""
REPEATED = 0.5
"""Seconds in which a second signal is the first, sent twice: as `timeout` and supervisors do, to us and to our group."""
WIND_UP = 1.0
"""Seconds that tasks which nobody waits for, and asynchronous generators, get to end once nothing is served any more."""


def check_alone(inside: str, elsewhere: str) -> None:
    """Raises LockbeatError where a program can't have an event loop and the signals to itself.

    inside: what to use inside of an event loop, and elsewhere: in another thread than the main one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LockbeatError(f"beat.run() makes an event loop, and blocks: inside of one, use {inside}")
    if threading.current_thread() is not threading.main_thread():
        raise LockbeatError(f"beat.run() waits for signals, which reach the main thread only: in another, use {elsewhere}")


def run(serve: Callable[[], Coroutine[Any, Any, None]], *, patience: float, abandoned: Callable[[], list[str]]) -> None:
    """Run `serve()` in an event loop of its own until it ends, or a signal cancels it. Call it in the main thread.

    patience: seconds from the first signal to the end; then the process is ended with exit code 1. abandoned: the names of
    what `serve()` left running when it ended. Raises SystemExit(1) when there is any, LockbeatError when `serve()` was cancelled
    and no signal had asked for it.
    """
    loop = asyncio.new_event_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(threads)
    asyncio.set_event_loop(loop)
    generation = forks.generation
    serving = loop.create_task(serve(), name="lockbeat serving")
    tasks: set[asyncio.Task[Any]] = set()
    try:
        with Ear(loop, serving, patience) as ear:
            _turn(loop, serving)
            tasks = _wind_up(loop)
    finally:
        if forks.generation != generation:
            forks.leave(sys.exc_info()[1])
        threads.shutdown(wait=False, cancel_futures=True)  # the loop's own way waits for a thread that hangs
        asyncio.set_event_loop(None)
        if not tasks:
            loop.close()
    if ear.ends_at is not None:
        _bound_exit(ear.ends_at, loop, tasks)
    left = dict.fromkeys([*abandoned(), *(task.get_name() for task in tasks)])
    if left:
        log.error("shut down, but these still run, and end with the process: %s", ", ".join(left))
        raise SystemExit(1)
    if serving.cancelled():
        if ear.ends_at is None:
            raise LockbeatError("serving was cancelled, though no signal had asked for it")
        return
    serving.result()


def _turn(loop: asyncio.AbstractEventLoop, until: asyncio.Task[Any]) -> None:
    """Turn the loop until a task has ended, whatever is raised through the loop meanwhile."""
    generation = forks.generation
    while not until.done():
        turned: list[bool] = []
        loop.call_soon(turned.append, True)
        try:
            loop.run_until_complete(until)
        except BaseException as problem:
            if until.done():
                return
            if forks.generation != generation or loop.is_closed():
                raise
            if isinstance(problem, (SystemExit, KeyboardInterrupt)):
                # asyncio lets these out through the loop, from whichever task or callback raised them.
                _blame(problem)
            elif not turned:
                # Its selector's file was closed, say: it would fail again at once, and for ever.
                log.exception("the event loop fails before it has turned")
                _end(1, f"the event loop can't be turned any more: {problem!r}; leases end by themselves")
            else:
                log.exception("a function stopped the event loop, and it is turned again")


def _blame(problem: BaseException) -> None:
    """Tell the function in whose context the loop ran what raised `problem`."""
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is asyncio.Handle._run.__code__:
            context = getattr(trace.tb_frame.f_locals.get("self"), "_context", None)
            told = context.get(blame) if context is not None else None
            if told is not None:
                told(problem.with_traceback(trace.tb_next))
                return
        trace = trace.tb_next
    log.error("%r was raised in the event loop, by no function of ours; it ends nothing", problem, exc_info=problem)


def _wind_up(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Cancel what nobody waits for. Returns the tasks that go on all the same."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    left.add(loop.create_task(loop.shutdown_asyncgens(), name="an asynchronous generator"))
    _turn(loop, loop.create_task(_wait(left)))
    for task in left:
        if task.done() and not task.cancelled() and task.exception() is not None:
            log.error("%s failed: %r", task.get_name(), task.exception(), exc_info=task.exception())
    return {task for task in left if not task.done()}


async def _wait(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=WIND_UP)


def _bound_exit(ends_at: float, *kept: object) -> None:
    """When Python exits, end it by `ends_at`: it would wait for threads that hang, as those of `asyncio.to_thread`.

    `kept`: not destroyed before, for what was abandoned may hang in its `finally`, too.
    """
    exiting = threading.Event()

    def watch(*_: object) -> None:
        exiting.wait()
        select.select([], [], [], max(ends_at - time.monotonic(), WIND_UP))
        _end(1, "the process is ended, though threads still run")

    # Not `threading.main_thread().join()`, which comes after the wait for the threads of executors.
    threading._register_atexit(exiting.set)  # type: ignore[attr-defined]
    threading.Thread(target=watch, args=kept, name="lockbeat exit", daemon=True).start()


def _end(code: int, reason: str) -> None:
    """End the process now. What is said is said in a thread: the program may hang in the very log."""
    extra = {"stacks": all_stacks()}
    saying = threading.Thread(target=log.critical, args=("%s", reason), kwargs={"extra": extra}, daemon=True)
    try:
        saying.start()
        saying.join(WIND_UP)
    except RuntimeError:  # Python is exiting, and starts no more threads
        log.critical("%s", reason, extra=extra)
    os._exit(code)


def _ends() -> tuple[socket.socket, socket.socket]:
    """Where signals are read from, and what Python writes them to."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    return reading, writing


class Ear:
    """Hears signals in a thread of its own, so a second one and the end of patience reach a program whose loop is stuck.

    Python's handlers would not do: a library that waits in C for its server never comes back to run them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], patience: float) -> None:
        self.ends_at: float | None = None
        """When the program is to have ended, in monotonic seconds; None: no signal has asked it to."""
        self._loop, self._task, self._patience = loop, task, patience
        self._asked_at, self._asked_by = 0.0, ""
        self._before: dict[signal.Signals, Any] = {}
        self._closed = False
        self._reading, self._writing = _ends()
        self._thread = threading.Thread(target=self._listen, name="lockbeat signals", daemon=True)

    def __enter__(self) -> Self:
        for number in ASKING:
            before = signal.getsignal(number)
            if number == getattr(signal, "SIGHUP", None) and before is signal.SIG_IGN:
                continue  # nohup
            self._before[number] = before
            # The loop's own way, too: it hears where the program gives the loop its wake-up socket back.
            self._loop.add_signal_handler(number, self._hear, number)
            signal.signal(number, heard)
        # In the loop's first turn: uvloop sets its own when it begins to run.
        self._loop.call_soon(self._be_woken)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed = True
        for number, before in self._before.items():
            self._loop.remove_signal_handler(number)
            if before is not None:
                signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        self._rouse()
        self._thread.join(WIND_UP)
        self._reading.close()
        self._writing.close()

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):
            self._writing.send(b"\0")

    def _listen(self) -> None:
        while not self._closed:
            left = None if self.ends_at is None else self.ends_at - time.monotonic()
            if left is not None and left <= 0:
                _end(1, f"{self._asked_by}: not shut down within {self._patience:g} s, and ended; leases end by themselves")
            try:
                self._reading.settimeout(left)
                numbers = self._reading.recv(64)
            except TimeoutError:
                continue
            except OSError:
                numbers = b""
            if not numbers and not self._closed:
                self._mend()
            for number in numbers:
                if number in self._before:
                    self._hear(signal.Signals(number))
            self._tell(lambda: None)  # Python's handlers of other signals run when the main thread wakes

    def _mend(self) -> None:
        """The program has closed a file that it did not open, and no signal is heard: listen to another."""
        time.sleep(WIND_UP)  # it may be at it again
        for end in (self._reading, self._writing):
            end.detach()  # its number may be another's by now
        try:
            self._reading, self._writing = _ends()
        except OSError:
            return  # no file can be opened: looked at again
        # The loop's own file may be closed, too: it does this in its next turn, whatever that is for.
        self._tell(self._be_woken)

    def _be_woken(self) -> None:
        if not self._closed:
            signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)

    def _hear(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self.ends_at is None:
            self._asked_at, self._asked_by = now, number.name
            self.ends_at = now + self._patience
            self._tell(self._shut_down, number)
            self._rouse()
        elif now - self._asked_at >= REPEATED:
            _end(128 + number, f"{number.name} again: ended at once; leases end by themselves")

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *args)

    def _shut_down(self, number: signal.Signals) -> None:
        log.info("%s: shutting down", number.name)
        self._task.cancel()
