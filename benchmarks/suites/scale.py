"""At scale: what 100,000 jobs cost, declared in code and made at run time; and many instances beside one that is busy."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

from harness import Bench, Child, Monitor, Seen, percentile, scripts_seen, server

from suites.beats import start, watch
from suites.registry import used_memory
from tests.servers import Server

PAGE = 100
RARE = 1000
"""One of so many jobs has the tag that is asked for."""
DUE = 1000
BESIDE = 20
"""Instances that have nothing to do, beside one that fires."""


def run(bench: Bench) -> dict[str, Any]:
    jobs, seconds = bench.pick(100_000, 3000), bench.pick(10.0, 2.0)
    scripts: list[dict[str, Any]] = []
    declared = in_code(bench, jobs, scripts)
    made = at_run_time(bench, jobs, scripts)
    shared = {
        how: beside(bench, seconds, scripts, **options)
        for how, options in {"all at once": {}, "one by one": {"spread": True}}.items()
    }
    return {
        "jobs": jobs,
        "page": PAGE,
        "rare": RARE,
        "due": DUE,
        "beside": BESIDE,
        "declared": declared,
        "made": made,
        "shared": shared,
        "scripts": scripts,
    }


def in_code(bench: Bench, jobs: int, scripts: list[dict[str, Any]]) -> dict[str, float]:
    """Start, start again, idle, memory; and a tick among them."""
    bench.log(f"scale: {jobs} jobs in code")
    with server() as it:
        empty = used_memory(it)
        child, first = start("lockbeat", it, 0, yearly=jobs)
        with child:
            occupied = used_memory(it) - empty
        child, again = start("lockbeat", it, 0, yearly=jobs)
        with child, Monitor(it) as monitor:
            time.sleep(2)
            before, watched = Seen.of(it), bench.pick(40.0, 8.0)
            monitor.catch_up()
            monitor.reset()  # what was asked so far, by us
            time.sleep(watched)
            sent = monitor.total()
            idle = {"commands_per_second": sent / watched, "server_cpu": (Seen.of(it).cpu - before.cpu) / watched}
            planned = child.ask("compare")
        scripts.append(scripts_seen(it))
    ticks = {}
    for others in (0, jobs):
        with server() as it:
            child, _ = start("lockbeat", it, DUE, yearly=others)
            with child:
                time.sleep(2)
                ticks[others] = watch("lockbeat", child, it, bench.pick(10.0, 2.0))
            scripts.append(scripts_seen(it))
    return {
        "declare_s": first["declare_s"],
        "start_s": first["setup_s"],
        "again_s": again["setup_s"],
        "store_bytes": occupied / jobs,
        "process_bytes": first["rss"] / jobs,
        "plan_s": planned["as it is"],
        "plan_changed_s": planned["all changed"],
        **idle,
        "fire_us_alone": ticks[0]["server_us_per_fire"],
        "fire_us_among": ticks[jobs]["server_us_per_fire"],
    }


def at_run_time(bench: Bench, jobs: int, scripts: list[dict[str, Any]]) -> dict[str, Any]:
    """Put, put again, list; what an instance has in memory that declares none of them. And the same as the set of an origin."""
    bench.log(f"scale: {jobs} jobs made at run time")
    with server() as it:
        empty = used_memory(it)
        child, _ = start("lockbeat", it, 0)
        with child:
            before = child.ask("stat")["rss"]
            other, _ = start("lockbeat", it, 0)
            with other:
                put = other.ask("put", jobs=jobs, rare=RARE)
                asked: dict[str, dict[str, Any]] = {
                    "a page": {},
                    "a page from the middle": {"after": f"made-{jobs // 2}"},
                    "of a tag that most have": {"tag": "often"},
                    "of a tag that one in a thousand has": {"tag": "rare"},
                    "of those that stand so": {"state": "scheduled"},
                }
                pages = {what: other.ask("page", times=20, limit=PAGE, **wanted) for what, wanted in asked.items()}
            grown = child.ask("stat")["rss"] - before
        occupied = used_memory(it) - empty
        scripts.append(scripts_seen(it))
    with server() as it:
        child, _ = start("lockbeat", it, 0)
        with child:
            applied = child.ask("apply", jobs=jobs, rare=RARE)
        scripts.append(scripts_seen(it))
    return {
        "applied": applied,
        "put_s": put["new"],
        "put_again_s": put["as they were"],
        "store_bytes": occupied / jobs,
        "process_bytes": grown / jobs,
        "pages": {what: {"median": statistics.median(taken), "p90": percentile(taken, 0.9)} for what, taken in pages.items()},
    }


def beside(bench: Bench, seconds: float, scripts: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """One instance with jobs that are due each second; the same with many more; and with one more."""
    found: dict[str, Any] = {}
    for others in (0, 1, BESIDE):
        bench.log(f"scale: {DUE} jobs due every second, {others} instances beside, {options or 'at once'}")
        with server() as it, contextlib.ExitStack() as stack:
            anchor = int(time.time())
            child, _ = start("lockbeat", it, DUE, anchor=anchor, **options)
            stack.enter_context(child)
            crowd = None
            if others:
                crowd, _ = start("lockbeat", it, DUE, anchor=anchor, instances=others, **options)
                stack.enter_context(crowd)
            time.sleep(bench.pick(5, 2))
            found[str(others)] = shares(child, crowd, it, seconds)
            scripts.append(scripts_seen(it))
    return found


def shares(child: Child, crowd: Child | None, it: Server, seconds: float) -> dict[str, float]:
    """What the server paid for a slot, and how much of it was fired by the others."""
    both = [one for one in (child, crowd) if one is not None]
    before, seen = [one.ask("stat") for one in both], Seen.of(it)
    time.sleep(seconds)
    after, now = [one.ask("stat") for one in both], Seen.of(it)
    ran = [late["fired"] - early["fired"] for early, late in zip(before, after, strict=True)]
    return {
        "ran_per_second": sum(ran) / seconds,
        "by_others": sum(ran[1:]) / max(sum(ran), 1),
        "server_cpu": (now.cpu - seen.cpu) / (now.at - seen.at),
        "server_us_per_fire": (now.cpu - seen.cpu) / max(sum(ran), 1) * 1e6,
        "scripts_per_second": (now.scripts - seen.scripts) / (now.at - seen.at),
    }
