"""Signals: what it costs an instance to be watched, by turns in one process: metrics, hooks, logs as JSON."""

from __future__ import annotations

import time
from typing import Any

from harness import Bench, Child, server, spread

JOBS = 1000
WAYS: dict[str, list[str]] = {
    "metrics": ["metrics"],
    "JSON logs": ["JSON logs"],
    "hooks on what goes wrong": ["hooks"],
    "these three together": ["metrics", "hooks", "JSON logs"],
    "and hooks on each slot": ["metrics", "hooks", "hooks on each slot", "JSON logs"],
}
"""A hook on each slot is told twice a slot, that it was fired and that it ran; the others when something goes wrong."""


def run(bench: Bench) -> dict[str, Any]:
    rounds, seconds = bench.pick(30, 4), 2
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}

    with server() as it, Child("signals", url=it.url, jobs=JOBS) as child:
        anchor = child.answer()["anchor"]

        def between() -> None:
            """Wait for the middle between two bursts."""
            time.sleep((anchor - time.time() - 0.4) % 1)

        def cost(ways: list[str]) -> float:
            """µs of processor time a slot, watched in these ways."""
            child.ask("watch", ways=ways)
            before = child.ask("stat")
            time.sleep(seconds - 0.1)
            between()
            after = child.ask("stat")
            return float((after["cpu"] - before["cpu"]) / max(after["fired"] - before["fired"], 1) * 1e6)

        time.sleep(2)
        between()
        for number in range(rounds):
            bench.log(f"signals: round {number + 1}")
            for name, ways in WAYS.items():
                # Whichever comes first: what else the machine does at the time is in both.
                order = [ways, []] if number % 2 else [[], ways]
                costs = {bool(each): cost(each) for each in order}
                found[name].append({"alone": costs[False], "watched": costs[True]})
    return {
        "jobs": JOBS,
        "alone_us": spread([one["alone"] for several in found.values() for one in several]),
        "added_us": {name: spread([one["watched"] - one["alone"] for one in several]) for name, several in found.items()},
        "ratios": {name: spread([one["watched"] / one["alone"] for one in several]) for name, several in found.items()},
    }
