"""The contender's end of the line: answers one line of JSON to each line of JSON on stdin."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

OPTIONS: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


def say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def answer(**verbs: Callable[..., Awaitable[Any]]) -> None:
    """Answer until stdin closes; while a verb runs, this loop does nothing else."""
    say("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        say(await verbs[request.pop("do")](**request))


def answer_from_thread(**verbs: Callable[..., Any]) -> None:
    """The same beside a main thread that is busy. The process ends when stdin closes."""

    def listen() -> None:
        for line in sys.stdin:
            request = json.loads(line)
            say(verbs[request.pop("do")](**request))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
