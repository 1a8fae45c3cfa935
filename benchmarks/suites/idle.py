"""Idle: jobs that are not due for long. What instances send, and what they burn; all wait at once, each on its own server."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from harness import Bench, Monitor, Seen, scripts_seen, server

from suites.beats import start

YEAR = 31_536_000
MANY = 100_000


def run(bench: Bench) -> dict[str, Any]:
    watched, many = bench.pick(40.0, 8.0), bench.pick(MANY, 5000)
    plans: dict[str, tuple[str, int, dict[str, Any]]] = {
        "lockbeat, 100 jobs": ("lockbeat", 0, {"yearly": 100}),
        f"lockbeat, {many:,} jobs": ("lockbeat", 0, {"yearly": many}),
        "RedBeat, 100 jobs": ("RedBeat", 100, {"period": YEAR}),
        "RedBeat (lock 5 s, loop 1 s), 100 jobs": ("RedBeat (lock 5 s, loop 1 s)", 100, {"period": YEAR}),
        "APScheduler 3, 100 jobs": ("APScheduler 3", 100, {"period": YEAR, "anchor": int(time.time()) + YEAR}),
    }
    rows: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for label, (name, jobs, options) in plans.items():
            it = stack.enter_context(server())
            child, said = start(name, it, jobs, **options)
            stack.enter_context(child)
            running[label] = (it, child, said, stack.enter_context(Monitor(it)))
        time.sleep(bench.pick(5, 2))
        before = {}
        for label, (it, child, _, monitor) in running.items():
            before[label] = Seen.of(it), child.ask("stat")["cpu"]
            time.sleep(0.1)
            monitor.reset()
        bench.log(f"idle: {len(plans)} instances for {watched:g} s")
        started = time.monotonic()
        time.sleep(watched)
        sent = {label: dict(monitor.commands) for label, (*_, monitor) in running.items()}
        took = time.monotonic() - started
        for label, (it, child, said, _) in running.items():
            seen, cpu = Seen.of(it), child.ask("stat")["cpu"]
            rows[label] = {
                "commands_per_second": sum(sent[label].values()) / took,
                "commands": sent[label],
                "instance_cpu_ms_per_second": (cpu - before[label][1]) / took * 1000,
                "server_cpu_ms_per_second": (seen.cpu - before[label][0].cpu) / took * 1000,
                "setup_s": said["setup_s"],
                "declare_s": said.get("declare_s"),
            }
        scripts = [scripts_seen(it) for label, (it, *_) in running.items() if label.startswith("lockbeat")]
    return {"rows": rows, "most": many, "watched_s": took, "scripts": scripts}
