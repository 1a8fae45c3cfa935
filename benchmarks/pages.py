"""The tables of docs/ that hold measured figures: made from results/*.json alone, so that none of them can age.

A page has a pair of marks for each: `<!-- measured: NAME -->` and `<!-- end -->`. `python benchmarks/run.py report` writes what
lies between.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tables import cell, number, table

DOCS = Path(__file__).resolve().parent.parent / "docs"
_BETWEEN = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def comparison(results: dict[str, Any]) -> str:
    """lockbeat beside the peers of docs/comparison.md: medians."""
    fire, late, celery = (results[suite]["rows"] for suite in ("fire", "lateness", "celery"))
    tasks, idle, versions = results["tasks"], results["idle"]["rows"], results["fire"]["versions"]

    def fires(name: str) -> str:
        return number(fire[name]["5000"]["fires_per_second"]["median"])

    def p99(name: str) -> str:
        return f"{number(late[name]['p99_ms']['median'])} ms"

    def ran(name: str) -> str:
        return number(celery[name]["ran"])

    def began(name: str) -> str:
        row = tasks["latency"][name]
        return f"{number(row['p50_ms']['median'])}, {number(row['p99_ms'])} ms"

    tuned, wanted = "RedBeat (lock 5 s, loop 1 s)", celery["lockbeat"]["wanted"]

    def rate(name: str) -> str:
        return number(tasks["rows"][name]["run"]["100"]["tasks_per_second"]["median"])

    return table(
        (
            *("", "lockbeat", f"RedBeat {versions['celery-redbeat']}", f"APScheduler {versions['APScheduler']}"),
            f"docket {versions['pydocket']}",
        ),
        [
            (
                "5,000 jobs due every second: fires/s of one instance",
                f"{fires('lockbeat')}, and runs them; {fires('lockbeat, enqueue only')} sent",
                f"{fires('RedBeat')} sent",
                f"{fires('APScheduler 3')}, or {fires('APScheduler 3 (no misfires)')} with misfires allowed",
                "-",
            ),
            ("1,000 due at once: p99 of lateness", p99("lockbeat"), p99("RedBeat"), p99("APScheduler 3"), "-"),
            (
                f"of {wanted:,} slots of Celery in a minute of kills, with the broker away for 5 s: ran",
                ran("lockbeat"),
                f"{ran('RedBeat')}, or {ran(tuned)} with a lock of 5 s",
                "-",
                "-",
            ),
            ("from spawn to start: p50, p99", began("lockbeat"), "-", "-", began("docket")),
            (
                "tasks/s of one worker, 100 at a time",
                rate("lockbeat"),
                "-",
                "-",
                f"{rate('docket')}, or {rate('docket (keeps nothing, checks every 5 ms)')} keeping nothing",
            ),
            (
                "commands/s when nothing is due",
                number(idle["lockbeat, 100 jobs"]["commands_per_second"]),
                f"{number(idle['RedBeat, 100 jobs']['commands_per_second'])}; "
                f"{number(idle[f'{tuned}, 100 jobs']['commands_per_second'])} with a lock of 5 s",
                number(idle["APScheduler 3, 100 jobs"]["commands_per_second"]),
                number(tasks["idle"]["docket"]["commands_per_second"]),
            ),
        ],
    )


def sizes(results: dict[str, Any]) -> str:
    return table(("in the store", "bytes"), [(what, number(each)) for what, each in results["sizing"]["bytes"].items()])


def links(results: dict[str, Any]) -> str:
    rows = results["sizing"]["connections"].items()
    return table(("a process with", "connections to the store"), [(what, str(count)) for what, count in rows])


def load(results: dict[str, Any]) -> str:
    """What goes on costs, in processor time and commands."""
    fire, idle, scale, sizing = (results[suite] for suite in ("fire", "idle", "scale", "sizing"))
    rows = fire["rows"]["lockbeat"]

    def cpu(size: str) -> str:
        row = rows[size]
        return f"{cell(row['server_us_per_fire'])} µs, {cell(row['instance_us_per_fire'])} µs"

    def sent(size: str) -> str:
        return cell(rows[size]["round_trips_per_fire"])

    code, shared, most = scale["declared"], scale["shared"]["all at once"], scale["beside"]
    starts = f"{number(code['start_s'])} s, {number(code['again_s'])} s"
    beside = shared[str(most)]["server_cpu"] / shared["0"]["server_cpu"]
    return table(
        ("", "measured"),
        [
            *(
                (f"a slot, {int(size):,} due a second: processor time of the server, and of the instance", cpu(size))
                for size in rows
            ),
            *((f"… round trips for it, {int(size):,} due a second", sent(size)) for size in rows),
            ("an instance with nothing to do: commands a second", idle["rows"]["lockbeat, 100 jobs"]["commands_per_second"]),
            (f"an instance that starts with {scale['jobs']:,} jobs, for the first time, and again", starts),
            ("a job of the program's own, in its process", f"{number(code['process_bytes'])} bytes"),
            (f"an instance with {sizing['jobs']} jobs: memory", f"{number(sizing['instance_bytes'] / 1e6)} MB"),
            (
                f"{most} instances more, beside one that fires {scale['due']:,} a second: the server's processor time",
                f"{number(beside)} x",
            ),
        ],
    )


TABLES = {"comparison": comparison, "sizes": sizes, "connections": links, "load": load}


def refreshed(text: str, results: dict[str, Any]) -> str:
    """A page with its tables as the results have them. A table whose suite has not run stays as it is."""

    def between(found: re.Match[str]) -> str:
        try:
            made = TABLES[found[2]](results)
        except KeyError:
            return found[0]
        return f"{found[1]}\n{made}\n\n{found[3]}"

    return _BETWEEN.sub(between, text)


def read(directory: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def write(directory: Path) -> None:
    """Refresh docs/ from the results in a directory."""
    results = read(directory)
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        if (new := refreshed(text, results)) != text:
            page.write_text(new)
