"""Forked children: what they inherit, and must not use in their parent's name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import weakref
from typing import NoReturn

from lockbeat.errors import StoreError

log = logging.getLogger("lockbeat")

generation = 0
"""Grows by one in each forked child: what was made under another number is the parent's."""

_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_forking = threading.local()


class OwnLock:
    """`with lock():` a lock of this process: another thread may have held the parent's when this one was forked."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def __call__(self) -> threading.RLock:
        return self._locks.setdefault(generation, threading.RLock())


def keep_from_children(loop: asyncio.AbstractEventLoop) -> None:
    """A child forked from now on neither hears signals for this loop nor turns it."""
    _loops.add(loop)


def foreign(made: int) -> StoreError:
    """The error for a client that was opened under the generation `made`, and is used outside of its event loop."""
    if made != generation:
        return StoreError(
            "this client is the parent process': in a forked child open a Lockbeat of the child's own, "
            "or start the child by multiprocessing's method 'spawn'"
        )
    return StoreError("this client was opened in another event loop; open one per loop")


class OnlyTheParentReturns:
    """A child that was forked within the block, and gets to its end, ends there: the rest of the stack is its parent's."""

    __slots__ = ("_made",)

    def __enter__(self) -> None:
        self._made = generation

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if self._made != generation:
            leave(problem)


def leave(problem: BaseException | None) -> NoReturn:
    """End a forked child as Python does, but for its parent's handlers and threads."""
    code = 0
    if isinstance(problem, SystemExit):
        if problem.code is not None and not isinstance(problem.code, int):
            print(problem.code, file=sys.stderr)  # noqa: T201 - as Python does
        code = problem.code if isinstance(problem.code, int) else int(problem.code is not None)
    elif problem is not None:
        traceback.print_exception(problem)
        code = 1
    _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)


def _came_back() -> None:
    log.error("a forked child came back to the event loop of its parent, and is ended; end it by os._exit()")
    _exit(1)


def _before_fork() -> None:
    """Hold signals back in the thread that forks, and so in the child, until the child has let go of its parent's handlers.

    One that came sooner, as of a `multiprocessing.Pool` that ends at once, would be the parent's, and the child would go on.
    """
    if len(_loops):
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # alone: the next may raise what a handler raises
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _let_signals_in() -> None:
    mask = _forking.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork() -> None:
    global generation
    generation += 1
    loops = list(_loops)
    for loop in loops:
        # The child's SIGTERM would be written to the wake-up socket, which it shares with its parent, and be the parent's.
        for number in signal.valid_signals():
            with contextlib.suppress(Exception):
                loop.remove_signal_handler(number)
        with contextlib.suppress(Exception):
            loop.call_soon(_came_back)  # the next turn of the loop, if there is one, begins with it
    if loops:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
    _let_signals_in()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_let_signals_in, after_in_child=_after_fork)
