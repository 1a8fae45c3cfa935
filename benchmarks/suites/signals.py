"""Signals: what it costs an instance to be watched, by turns in one process: metrics, hooks, logs as JSON.

It counts instructions, by callgrind (Debian's package valgrind): processor time varies by more than the few per cent in question.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Bench, Child, Failed, server, spread

JOBS = 500
PERIOD = 20
"""Seconds from burst to burst; under callgrind an instance is some 50 times slower."""
SETTLED = 3.0
"""Seconds without a further run: what ran has been ended."""
WAYS: dict[str, list[str]] = {
    "metrics": ["metrics"],
    "JSON logs": ["JSON logs"],
    "hooks on what goes wrong": ["hooks"],
    "these three together": ["metrics", "hooks", "JSON logs"],
    "and hooks on each slot": ["metrics", "hooks", "hooks on each slot", "JSON logs"],
}
"""A hook on each slot is told twice a slot, that it was fired and that it ran; the others when something goes wrong."""


def run(bench: Bench) -> dict[str, Any]:
    if not shutil.which("valgrind"):
        raise Failed("signals: needs valgrind (apt install valgrind)")
    alone: list[float] = []
    watched: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as kept, server() as it:
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={kept}/dump"]
        with Child("signals", under=callgrind, url=it.url, jobs=JOBS, period=PERIOD) as child:
            child.answer()
            dumps = 0

            def counted() -> int:
                """Instructions since the last time."""
                nonlocal dumps
                dumps += 1
                subprocess.run(["callgrind_control", "-d", str(child.process.pid)], check=True, capture_output=True)
                found = re.search(r"^(?:totals|summary): (\d+)", Path(f"{kept}/dump.{dumps}").read_text(), re.MULTILINE)
                assert found is not None
                return int(found[1])

            def quiet() -> int:
                """Wait until what was due has run and been ended; how many slots have run so far."""
                seen, since = -1, time.monotonic()
                while time.monotonic() - since < SETTLED:
                    if (now := child.ask("ran")) != seen:
                        seen, since = now, time.monotonic()
                    time.sleep(0.2)
                return seen

            def cost(ways: list[str]) -> float:
                """Instructions a slot, watched in these ways, from quiet to quiet."""
                child.ask("watch", ways=ways)
                before = quiet()
                counted()
                while child.ask("ran") == before:
                    time.sleep(0.2)
                ran = quiet() - before
                return counted() / ran

            for ways in ([], WAYS["and hooks on each slot"]):  # what is imported or remembered at first
                cost(ways)
            for number in range(bench.pick(5, 1)):
                bench.log(f"signals: round {number + 1}")
                alone.append(cost([]))
                for name, ways in WAYS.items():
                    watched[name].append(cost(ways))
    return {
        "jobs": JOBS,
        "alone": spread(alone),
        "added": {name: spread([b - a for a, b in zip(alone, each, strict=True)]) for name, each in watched.items()},
        "ratios": {name: spread([b / a for a, b in zip(alone, each, strict=True)]) for name, each in watched.items()},
    }
