"""Where threads and tasks are, as text for the log."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
from types import FrameType
from typing import Any


def frame_of(thread: int) -> FrameType | None:
    return sys._current_frames().get(thread)


def stack_of(thread: int) -> str:
    frame = frame_of(thread)
    return "(it has ended)" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


def stack_of_task(task: asyncio.Task[Any]) -> str:
    """The stack of a task that waits, the innermost await last."""
    frames, coroutine = [], task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        frames.append((frame, frame.f_lineno))
        coroutine = coroutine.cr_await  # type: ignore[union-attr]
    return "".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip()


def all_stacks() -> str:
    """The stacks of all threads but the caller's own, the main thread's first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    others = sorted((ident for ident in sys._current_frames() if ident != threading.get_ident()), key=lambda ident: ident != main)
    return "\n".join(f"Thread {names.get(ident, ident)!r}:\n{stack_of(ident)}" for ident in others)


def task_in(loop: asyncio.AbstractEventLoop) -> str | None:
    """The name of the task that a loop runs at this moment, asked from any thread."""
    with contextlib.suppress(Exception):  # the loop's thread goes on meanwhile
        task = asyncio.current_task(loop)
        return None if task is None else task.get_name()
    return None
