"""Lateness: 1,000 jobs due at once, from the nominal slot to the start of the function (RedBeat: to the end of its sending)."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from harness import Bench, Failed, percentile, scripts_seen, server, spread

from suites.beats import start

JOBS = 1000
PERIOD = 3
CONTENDERS = (("lockbeat", 1), ("lockbeat (concurrency 1,000)", 1), ("lockbeat", 3), ("RedBeat", 1), ("APScheduler 3", 1))


def run(bench: Bench) -> dict[str, Any]:
    rounds, bursts = bench.pick(2, 1), bench.pick(3, 1)
    found: dict[str, list[list[float]]] = {}
    problems: dict[str, str] = {}
    scripts = []
    for number in range(rounds):
        for name, instances in CONTENDERS:
            label = f"{name}, {instances} instances" if instances > 1 else name
            bench.log(f"lateness: round {number + 1}, {label}")
            with server() as it, contextlib.ExitStack() as stack:
                # Far enough ahead for every job to be declared before the first burst.
                anchor = math.ceil(time.time()) + bench.pick(6, 4)
                try:
                    several = [start(name, it, JOBS, period=PERIOD, anchor=anchor, lateness=True)[0] for _ in range(instances)]
                    for child in several:
                        stack.enter_context(child)
                    if time.time() > anchor - 0.5:
                        raise Failed("its jobs were not declared in time")
                    # The first burst is cold, and not counted.
                    time.sleep(max(anchor + PERIOD - 0.3 - time.time(), 0))
                    for child in several:
                        child.ask("lateness")
                    time.sleep(bursts * PERIOD)
                    samples = [value for child in several for value in child.ask("lateness")]
                    found.setdefault(label, []).append(samples)
                except Failed as problem:
                    problems[label] = str(problem)
                if name.startswith("lockbeat"):
                    scripts.append(scripts_seen(it))
    rows = {}
    for label, runs in found.items():
        together = [value for one in runs for value in one]
        rows[label] = {
            "p50_ms": spread([percentile(one, 0.5) for one in runs]),
            "p99_ms": spread([percentile(one, 0.99) for one in runs]),
            "max_ms": max(together),
            "fired_of_due": len(together) / (JOBS * bursts * len(runs)),
            "curve_ms": [round(percentile(together, share / 100), 2) for share in range(1, 101)],
        }
    return {"rows": rows, "problems": problems, "jobs": JOBS, "bursts": bursts, "scripts": scripts}
