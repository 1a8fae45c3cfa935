"""Firing: N jobs, each due every second, one instance."""

from __future__ import annotations

import time
from typing import Any

from harness import Bench, Failed, scripts_seen, server, spread

from suites.beats import SCHEDULERS, start, watch

SIZES = (100, 1000, 5000)
NAMES = [name for name in SCHEDULERS if "concurrency" not in name]


def run(bench: Bench) -> dict[str, Any]:
    rounds, seconds, warm = bench.pick(2, 1), bench.pick(10.0, 2.0), bench.pick(2.0, 1.2)
    sizes = bench.pick(SIZES, SIZES[1:])
    measured: dict[str, dict[int, list[dict[str, Any]]]] = {name: {size: [] for size in sizes} for name in NAMES}
    problems: dict[str, str] = {}
    scripts = []
    for size in sizes:
        for number in range(rounds if size == SIZES[-1] else 1):
            bench.log(f"fire: {size} jobs, round {number + 1}")
            for name in NAMES:
                with server() as it:
                    try:
                        child, said = start(name, it, size)
                        with child:
                            time.sleep(warm)
                            measured[name][size].append(watch(name, child, it, seconds) | {"setup_s": said["setup_s"]})
                    except Failed as problem:
                        problems[f"{name}, {size} jobs"] = str(problem)
                    if name.startswith("lockbeat"):
                        scripts.append(scripts_seen(it))

    def summed_up(several: list[dict[str, Any]]) -> dict[str, Any]:
        keys = dict.fromkeys(key for one in several for key in one)
        return {key: spread([one[key] for one in several if key in one]) for key in keys}

    rows = {name: {str(size): summed_up(several) for size, several in by.items() if several} for name, by in measured.items()}
    return {"rows": rows, "problems": problems, "seconds": seconds, "scripts": scripts}
