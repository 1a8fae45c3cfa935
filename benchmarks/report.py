"""Results as Markdown: RESULTS.md next to this file, from results/*.json alone. `chapters` has what is said of each suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chapters
import pages
import pictures
from goals import GOALS, LONGEST_SCRIPT_MS
from tables import number, table

ORDER = (
    *("locks", "blocking", "waiting", "renew", "fire", "lateness", "idle", "control", "registry", "scale"),
    *("sizing", "tasks", "celery", "signals", "web"),
)


def scripts(results: dict[str, Any]) -> str:
    slowest: dict[str, float] = {}
    calls = over = 0
    p999 = 0.0
    for result in results.values():
        found = result.get("scripts", [])
        for one in found if isinstance(found, list) else [found]:
            calls, over, p999 = calls + one["calls"], over + one["over_5_ms"], max(p999, one["p999_ms"])
            for name, ms in one["slowest_ms"].items():
                slowest[name] = max(slowest.get(name, 0.0), ms)
    note = (
        f"Of {calls:,} script calls on lockbeat's stores in the runs above {over} took longer than {LONGEST_SCRIPT_MS:g} ms by "
        "the server's wall clock, which goes on when the machine runs something else: here, the contenders."
    )
    ordered = sorted(slowest.items(), key=lambda pair: -pair[1])[:8]
    return f"{note}\n\n" + table(("script", "longest, ms"), ordered)


def goals(results: dict[str, Any]) -> str:
    rows = []
    for goal in GOALS:
        if goal.suite in results:
            try:
                value, what = goal.measured(results[goal.suite]), goal.what.format(**results[goal.suite])
            except KeyError:  # by a quick run, or because somebody ended
                rows.append((goal.what.partition(" ({")[0], goal.goal, "", "not measured", ""))
                continue
            measured = f"{number(value)} {goal.unit}".rstrip()
            rows.append((what, goal.goal, measured, goal.verdict(value), "" if goal.met(value) else goal.why))
    return table(("what", "goal", "measured", "", "why not"), rows)


TITLES = {
    "locks": "Locks, uncontended",
    "blocking": "Locks, by threads",
    "waiting": "Locks, waiting",
    "renew": "Renewing",
    "fire": "Firing",
    "lateness": "Lateness",
    "idle": "Idle",
    "control": "Stepping in",
    "registry": "Many jobs",
    "scale": "At scale",
    "sizing": "Sizes",
    "tasks": "Tasks",
    "celery": "Celery",
    "signals": "Being watched",
    "web": "The page",
}


def write(directory: Path) -> None:
    """RESULTS.md and the pictures, from whatever results there are."""
    found = {name: directory / f"{name}.json" for name in ORDER}
    results = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
    if not results:
        return
    drawn = pictures.draw(results, directory)
    newest = max(results.values(), key=lambda result: result["at"])
    versions = ", ".join(f"{name} {version}" for name, version in newest["versions"].items())
    oldest = min(result["at"] for result in results.values())
    parts = [
        "# Results",
        f"{newest['machine']}; {oldest} to {newest['at']}. {versions}. Medians of the rounds, with their range. "
        "Server, lockbeat and peers share the cores; compare ratios, not absolutes.",
        "Repeat: `make bench`, or `python benchmarks/run.py all`. [How it is measured](README.md).",
    ]
    if any(result["quick"] for result in results.values()):
        parts.append("> **To be repeated:** some of these are from a `--quick` run on a machine that was busy with other work.")
    parts += ["## Goals", goals(results)]
    for name, result in results.items():
        parts += [f"## {TITLES[name]}", getattr(chapters, name)(result)]
        if name in drawn:
            parts.append(f"![{TITLES[name]}]({directory.name}/{drawn[name]})")
        parts.append(f"`python benchmarks/run.py {name}`, {result['took_s']:.0f} s, load before it {result['load_before']:g}.")
    parts += ["## Scripts", scripts(results), ""]
    (directory.parent / "RESULTS.md").write_text("\n\n".join(parts).rstrip() + "\n")
    pages.write(directory)
