"""Contended locks: hand-off from process to process, a crowd at one key, and a dead waiter at the head of the queue."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from typing import Any

from harness import Bench, Child, Monitor, children, percentile, scripts_seen, server, spread

from tests.servers import Server

NAMES = ("redis-py", "pottery", "lockbeat handle")
WAITERS = 50


def handoffs(one: Child, two: Child, turns: int, key: str) -> list[float]:
    """Milliseconds from the call that releases to the return of the other process' acquire."""
    two.send("turns", count=turns, first=False, me="two", other="one", key=key)
    one.send("turns", count=turns, first=True, me="one", other="two", key=key)
    held = sorted([*one.answer(), *two.answer()])
    return [(acquired - released) * 1000 for (_, released), (acquired, _) in itertools.pairwise(held)]


def behind(kill: int, contender: str, it: Server, key: str) -> float:
    """Milliseconds from release to the second waiter's acquire, when the first one was hit by a signal while it waited."""
    with children(*(Child("locks", contender=contender, url=it.url) for _ in range(3))) as (holder, victim, second):
        for child in (holder, victim, second):
            child.answer()
        for child in (holder, victim, second):  # the first lock of a process starts threads and connects
            child.ask("take", key=f"warm {key}")
            child.ask("give")
        holder.ask("take", key=key)
        victim.send("take", key=key)
        time.sleep(0.3)
        second.send("take", key=key)
        time.sleep(0.3)
        os.kill(victim.process.pid, kill)
        time.sleep(0.2)
        released = holder.ask("give")
        return (second.answer() - released) * 1000


def run(bench: Bench) -> dict[str, Any]:
    rounds, turns, watched = bench.pick(4, 1), bench.pick(40, 20), bench.pick(4.0, 1.5)
    found: dict[str, Any] = {name: {} for name in NAMES}
    with server() as it:
        latencies: dict[str, list[list[float]]] = {name: [] for name in NAMES}
        crowds: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
        players = {name: [Child("locks", contender=name, url=it.url) for _ in range(2)] for name in NAMES}
        with children(*(child for pair in players.values() for child in pair)) as everyone:
            for child in everyone:
                child.answer()
                child.ask("take", key="warm")  # the first lock of a process starts threads and connects
                child.ask("give")
            for number in range(rounds):
                bench.log(f"waiting: round {number + 1} of {rounds}")
                for name in NAMES:
                    latencies[name].append(handoffs(*players[name], turns, f"hand-off {number} {name}"))
                for name in NAMES:
                    child = players[name][0]
                    child.ask("crowd", waiters=WAITERS, settle=0.5, key=f"crowd {name}")
                    sent = 0.0
                    if number < 2:
                        with Monitor(it) as monitor:
                            time.sleep(0.2)
                            monitor.reset()
                            started = time.monotonic()
                            time.sleep(watched)
                            sent = monitor.total() / (time.monotonic() - started)
                        crowds[name].append({"commands_per_second": sent})
                    crowds[name].append(child.ask("disperse"))
        for name in NAMES:
            found[name]["handoff_p50_ms"] = spread([statistics.median(one) for one in latencies[name]])
            found[name]["handoff_p99_ms"] = percentile([value for one in latencies[name] for value in one], 0.99)
            found[name]["handoff_max_ms"] = max(value for one in latencies[name] for value in one)
            found[name]["handoffs"] = sum(map(len, latencies[name]))
            for key in ("seconds", "inversions", "commands_per_second"):
                found[name][f"crowd_{key}"] = spread([one[key] for one in crowds[name] if key in one])
        for what, number in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP)):
            for name in NAMES if what == "killed" else NAMES[-1:]:
                bench.log(f"waiting: the first of two waiters {what}, {name}")
                times = [behind(number, name, it, f"{what} {name} {count}") for count in range(bench.pick(5, 1))]
                found[name][f"{what}_waiter_ms"] = spread(times)
        scripts = scripts_seen(it)
    return {"rows": found, "waiters": WAITERS, "pairs_of_waiters": WAITERS * (WAITERS - 1) // 2, "scripts": scripts}
