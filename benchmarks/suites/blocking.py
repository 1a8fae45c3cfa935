"""Uncontended locks of blocking clients: pairs of acquire and release a second, by one thread and by 16."""

from __future__ import annotations

from typing import Any

from harness import Bench, Child, children, scripts_seen, server, spread

NAMES = ("pings", "redis-py", "pottery", "anyio's portal", "lockbeat locks", "lockbeat handle")
CALLERS = (1, 16)


def run(bench: Bench) -> dict[str, Any]:
    rounds, seconds = bench.pick(7, 3), bench.pick(1.2, 0.3)
    measured: dict[str, dict[int, list[float]]] = {name: {callers: [] for callers in CALLERS} for name in NAMES}
    with server() as it, children(*(Child("blocking", contender=name, url=it.url) for name in NAMES)) as contenders:
        for child in contenders:
            child.answer()
            child.ask("pairs", callers=CALLERS[-1], seconds=0.2)  # warm
        for number in range(rounds):
            bench.log(f"blocking: round {number + 1} of {rounds}")
            for callers in CALLERS:
                for name, child in zip(NAMES, contenders, strict=True):
                    measured[name][callers].append(child.ask("pairs", callers=callers, seconds=seconds))
        scripts = scripts_seen(it)
    rows = {name: {str(callers): spread(values) for callers, values in by.items()} for name, by in measured.items()}

    def ratio(over: str, under: str, callers: int) -> dict[str, float]:
        pairs = zip(measured[over][callers], measured[under][callers], strict=True)
        return spread([fast / slow for slow, fast in pairs])

    ratios = {
        "time ÷ redis-py's Lock, 1 thread": {name: ratio(name, "redis-py", 1) for name in NAMES},
        "times redis-py's Lock, 16 threads": {name: ratio("redis-py", name, 16) for name in NAMES},
    }
    return {"pairs_per_second": rows, "ratios": ratios, "seconds": seconds, "scripts": scripts}
