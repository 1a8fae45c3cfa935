"""Stepping in: from the call of a verb until the last of several idle instances has asked the store what is to be done now.

The server says when (MONITOR). A pause needs nobody to hear of it: from its script on no instance is handed the slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from harness import Bench, percentile, scripts_seen, server

from lockbeat import Every, Lockbeat
from lockbeat.store.scripts import load
from suites.beats import start
from tests.servers import Server

INSTANCES = 5
JOBS = 100
MISSED = 5.0
"""Seconds after which an instance that has not asked counts as one that did not hear."""


class Asked:
    """When which connection last ran one of these scripts."""

    def __init__(self, it: Server, *scripts: str) -> None:
        self._names = {load(name).sha: name for name in scripts}
        self._client = it.client()
        self._client.connection_pool.connection_kwargs["socket_timeout"] = None
        self._ended = False
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self.by: dict[str, dict[str, float]] = {name: {} for name in scripts}
        """Script -> connection -> seconds since the epoch."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for entry in self._monitor.listen():
                word, _, rest = entry["command"].partition(" ")
                name = self._names.get(rest.partition(" ")[0]) if word.upper() == "EVALSHA" else None
                if name:
                    self.by[name][f"{entry['client_address']}:{entry['client_port']}"] = entry["time"]
        except Exception:
            if not self._ended:
                raise

    def since(self, script: str, at: float) -> list[float]:
        """Of each connection that has run it since then, when."""
        return [when for when in list(self.by[script].values()) if when >= at]

    def close(self) -> None:
        self._ended = True
        with contextlib.suppress(Exception):
            self._monitor.connection.disconnect()


async def measured(lb: Lockbeat, asked: Asked, rounds: int) -> dict[str, Any]:
    name, made = "yearly-1", "made"
    calls: dict[str, tuple[str, Callable[[], Awaitable[Any]]]] = {
        "pause": ("beat/due", lambda: lb.jobs.pause(name)),
        "resume": ("beat/due", lambda: lb.jobs.resume(name)),
        "trigger": ("task/claim", lambda: lb.jobs.trigger(name)),
        "put": ("beat/due", lambda: lb.jobs.put(made, Every(3600, datetime.now(UTC)), function="made")),
    }
    took: dict[str, list[float]] = {verb: [] for verb in calls}
    seen: dict[str, list[float]] = {verb: [] for verb in calls}
    missed = dict.fromkeys(calls, 0)
    for _ in range(rounds):
        for verb, (script, call) in calls.items():
            await asyncio.sleep(0.1)  # what the one before it has set off is over
            began = time.time()
            await call()
            took[verb].append((time.time() - began) * 1000)
            while len(found := asked.since(script, began)) < INSTANCES and time.time() < began + MISSED:
                await asyncio.sleep(0.001)
            if len(found) < INSTANCES:
                missed[verb] += 1
            else:
                seen[verb].append((max(found) - began) * 1000)
        await lb.jobs.delete(made)
    return {
        verb: {
            "call_ms": percentile(took[verb], 0.5),
            "p50_ms": percentile(seen[verb], 0.5),
            "p99_ms": percentile(seen[verb], 0.99),
            "max_ms": max(seen[verb]),
            "missed": missed[verb],
        }
        for verb in calls
    }


def run(bench: Bench) -> dict[str, Any]:
    rounds = bench.pick(200, 20)
    with server() as it, contextlib.ExitStack() as stack:
        for _ in range(INSTANCES):
            stack.enter_context(start("lockbeat", it, 0, yearly=JOBS)[0])
        asked = Asked(it, "beat/due", "task/claim")
        stack.callback(asked.close)
        time.sleep(2)
        bench.log(f"control: {rounds} times each verb")

        async def ask() -> dict[str, Any]:
            async with Lockbeat(it.url) as lb:
                return await measured(lb, asked, rounds)

        return {"rows": asyncio.run(ask()), "instances": INSTANCES, "jobs": JOBS, "rounds": rounds, "scripts": scripts_seen(it)}
