"""Uncontended locks: pairs of acquire and release a second, by one caller and by 64."""

from __future__ import annotations

from typing import Any

from harness import Bench, Child, children, scripts_seen, server, spread

NAMES = ("pings", "raw", "redis-py", "pottery", "lockbeat pings", "lockbeat locks", "lockbeat handle")
CALLERS = (1, 64)


def run(bench: Bench) -> dict[str, Any]:
    rounds, seconds = bench.pick(5, 2), bench.pick(1.2, 0.3)
    with server() as it:
        measured: dict[str, dict[int, list[float]]] = {name: {callers: [] for callers in CALLERS} for name in NAMES}
        with children(*(Child("locks", contender=name, url=it.url) for name in NAMES)) as contenders:
            for child in contenders:
                child.answer()
                child.ask("pairs", callers=CALLERS[-1], seconds=0.2)  # warm
            for number in range(rounds):
                bench.log(f"locks: round {number + 1} of {rounds}")
                for callers in CALLERS:
                    for name, child in zip(NAMES, contenders, strict=True):
                        measured[name][callers].append(child.ask("pairs", callers=callers, seconds=seconds))
        scripts = scripts_seen(it)
    rows = {name: {str(callers): spread(values) for callers, values in by.items()} for name, by in measured.items()}

    def ratio(over: str, under: str, callers: int) -> dict[str, float]:
        """How much more time a pair takes; within each round, so that a slow moment of the machine hits both sides."""
        pairs = zip(measured[over][callers], measured[under][callers], strict=True)
        return spread([fast / slow for slow, fast in pairs])

    ratios = {
        "time ÷ two PINGs of redis-py": {name: ratio(name, "pings", 1) for name in NAMES},
        "time ÷ two PINGs of the same client": {
            name: ratio(name, "lockbeat pings" if name.startswith("lockbeat") else "pings", 1) for name in NAMES
        },
        "times redis-py's Lock, 1 caller": {name: ratio("redis-py", name, 1) for name in NAMES},
        "times redis-py's Lock, 64 callers": {name: ratio("redis-py", name, 64) for name in NAMES},
    }
    return {"pairs_per_second": rows, "ratios": ratios, "seconds": seconds, "scripts": scripts}
