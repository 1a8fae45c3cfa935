"""One instance of lockbeat that is watched in different ways, by turns: metrics, hooks, logs as JSON."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from datetime import UTC, datetime
from typing import Any

from child import OPTIONS, answer_from_thread, say

JOBS: int = OPTIONS["jobs"]
HOOKS = (
    *("slot_fired", "slot_missed", "slot_skipped", "run_done", "run_failed", "run_lost", "task_dead"),
    *("lease_lost", "job_paused", "store_lost", "store_back"),
)
OFTEN = ("slot_fired", "run_done")
"""What happens at each slot."""


class Counts:
    ran = 0
    told = 0


def main() -> None:
    from lockbeat import Beat, Lockbeat
    from lockbeat.logs import JsonFormatter, RunFilter
    from lockbeat.metrics import Metrics

    beat, anchor = Beat(OPTIONS["url"]), datetime.fromtimestamp(time.time(), UTC)

    async def job() -> None:
        Counts.ran += 1

    for number in range(JOBS):
        beat.every(OPTIONS["period"], anchor=anchor, name=f"job-{number}")(job)
    metrics = Metrics(beat)
    counting = beat.counting

    handler = logging.StreamHandler(open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
    handler.setFormatter(JsonFormatter())
    handler.addFilter(RunFilter())
    log = logging.getLogger("lockbeat")
    log.setLevel(logging.INFO)
    log.propagate = False

    def told(_: Any) -> None:
        Counts.told += 1

    def watch(lb: Lockbeat, ways: list[str]) -> int:
        """Be watched in these ways from now on, and in no other."""
        store = lb.store
        store.counting = store.connector.counting = counting if "metrics" in ways else None
        for wire in store._wires.values():
            wire.traffic = counting.traffic() if counting is not None and "metrics" in ways else None
        for name in HOOKS:
            hook = getattr(beat.events, name)
            hook.drop(told)
            if ("hooks" in ways and name not in OFTEN) or ("hooks on each slot" in ways and name in OFTEN):
                hook.at_once(told)
        log.handlers = [handler] if "JSON logs" in ways else [logging.NullHandler()]
        return len(metrics.text())

    async def serve() -> None:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        async with beat.lifespan():
            lb = beat.client
            assert lb is not None

            async def asked(ways: list[str]) -> int:
                return watch(lb, ways)

            say({"setup_s": time.monotonic() - started, "anchor": anchor.timestamp()})
            answer_from_thread(
                ran=lambda: Counts.ran,
                watch=lambda ways: asyncio.run_coroutine_threadsafe(asked(ways), loop).result(),
            )
            await asyncio.sleep(math.inf)

    asyncio.run(serve())


main()
