"""What SIGTERM and SIGINT do to a program that serves: the first asks it to end, the second ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from lockbeat.errors import LockbeatError

log = logging.getLogger("lockbeat")

REPEATED = 0.5
"""Seconds in which a second signal is the first, sent twice: as `timeout` and supervisors do, to us and to our group."""


def check_alone() -> None:
    """Raises LockbeatError where a program can't have an event loop and the signals to itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LockbeatError(
            "beat.run() makes an event loop, and blocks: inside of one, use `await beat.serve()` or `async with beat.lifespan():`"
        )
    if threading.current_thread() is not threading.main_thread():
        raise LockbeatError(
            "beat.run() waits for signals, which reach the main thread only: in another, use `asyncio.run(beat.serve())`"
        )


async def until_signal(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `serve()` until it ends, or a signal cancels it."""
    loop, asked = asyncio.get_running_loop(), 0.0
    serving = asyncio.ensure_future(serve())

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked
        if asked:
            if loop.time() - asked < REPEATED:
                return
            log.warning("%s again: ending at once; leases end by themselves", number.name)
            os._exit(128 + number)
        asked = loop.time()
        log.info("%s: shutting down", number.name)
        serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await serving
    except asyncio.CancelledError:
        if not asked:
            raise
