"""What goes on when Python's main thread has ended, as threads do that outlive it, and functions of `atexit`.

asyncio looks names up in threads of an executor, which takes nothing any more from then on: no host could be connected to again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


def has_executors() -> bool:
    """Whether `asyncio.to_thread` and its like still work."""
    return threading.main_thread().is_alive()


def in_own_thread(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Call a function in a thread of its own; at once in this one, where none can be started any more."""
    future = loop.create_future()

    def end(result: Any, problem: BaseException | None) -> None:
        if future.done():
            return  # cancelled
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)

    def run() -> None:
        result, problem = None, None
        try:
            result = function(*args)
        except BaseException as raised:  # noqa: BLE001 - it is of whoever awaits
            problem = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, result, problem)

    try:
        threading.Thread(target=run, name="lockbeat name", daemon=True).start()
    except RuntimeError:  # Python 3.12 starts none any more
        run()
    return future


class Lasting(asyncio.SelectorEventLoop):
    """What is to run in a thread, by no executor that somebody names, gets one of its own once the main thread has ended."""

    def run_in_executor(  # type: ignore[override]  # mypy knows no name for what binds the arguments to the function
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        if executor is not None or has_executors():
            return super().run_in_executor(executor, func, *args)
        return in_own_thread(self, func, *args)
