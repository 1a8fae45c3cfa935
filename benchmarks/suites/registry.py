"""Many jobs: how long an instance takes to start, what a job occupies, and whether others that are not due slow a tick down."""

from __future__ import annotations

import time
from typing import Any

from harness import Bench, scripts_seen, server

from suites.beats import start, watch
from tests.servers import Server

YEAR = 31_536_000
DUE = 1000
PEERS = ("RedBeat", "APScheduler 3")


def used_memory(it: Server) -> int:
    with it.client() as client:
        info: Any = client.info("memory")
    return int(info["used_memory"])


def run(bench: Bench) -> dict[str, Any]:
    sizes, most_of_peers = bench.pick((1000, 10_000, 100_000), (1000, 5000)), bench.pick(10_000, 1000)
    starts: dict[str, dict[str, Any]] = {}
    ticks: dict[str, Any] = {}
    scripts = []
    for size in sizes:
        for name in ("lockbeat", *PEERS):
            if name in PEERS and size > most_of_peers:
                continue
            bench.log(f"registry: {name}, {size} jobs")
            options = {"yearly": size} if name == "lockbeat" else {"period": YEAR, "anchor": int(time.time()) + YEAR}
            if name == "RedBeat":
                del options["anchor"]  # an interval of a year is not due either, and cheaper than its rrule
            with server() as it:
                empty = used_memory(it)
                child, first = start(name, it, 0 if name == "lockbeat" else size, **options)
                with child:
                    occupied = used_memory(it) - empty
                again = None
                if name == "lockbeat":  # a restart, which finds every job as it is
                    child, again = start(name, it, 0, **options)
                    child.kill()
                    scripts.append(scripts_seen(it))
                starts.setdefault(name, {})[str(size)] = {
                    "start_s": first["setup_s"],
                    "declare_s": first.get("declare_s"),
                    "again_s": again["setup_s"] if again else None,
                    "bytes_per_job": occupied / size,
                }
    for others in (0, sizes[-1]):
        bench.log(f"registry: {DUE} jobs due every second among {others} others")
        with server() as it:
            child, _ = start("lockbeat", it, DUE, yearly=others)
            with child:
                time.sleep(bench.pick(3, 1.5))
                ticks[str(others)] = watch("lockbeat", child, it, bench.pick(10.0, 2.0))
            scripts.append(scripts_seen(it))
    return {"starts": starts, "ticks": ticks, "due": DUE, "most": sizes[-1], "scripts": scripts}
