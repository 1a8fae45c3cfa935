"""Celery's beats under trouble: three of each, one killed every five seconds, the broker away for five; what the worker ran."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import Bench

from tests.celery.arena import LOCKBEAT, PLAIN, REDBEAT, Arena, arena, judge
from tests.celery.storms import BEATS, storm
from tests.servers import wait_until

ENTRIES = 20
TUNED = {"beat_max_loop_interval": 1, "redbeat_lock_timeout": 5}
CONTENDERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "lockbeat": (LOCKBEAT, BEATS, {}),
    "RedBeat": (REDBEAT, BEATS, {}),
    "RedBeat (lock 5 s, loop 1 s)": (REDBEAT, BEATS, TUNED),
    "celery beat, one of three": (PLAIN, 1, {}),
    "celery beat, three": (PLAIN, BEATS, {}),
}


def run(bench: Bench) -> dict[str, Any]:
    seconds = bench.pick(60.0, 15.0)
    rows: dict[str, Any] = {}
    for name, (scheduler, beats, conf) in CONTENDERS.items():
        bench.log(f"celery: {name} for {seconds:g} s")
        with tempfile.TemporaryDirectory() as directory, arena(Path(directory)) as field:
            field.conf |= {"redbeat_redis_url": field.store.url, **conf}
            first, last = asyncio.run(
                storm(field, entries=ENTRIES, seconds=seconds, kill_every=5, away=5, scheduler=scheduler, beats=beats)
            )
            wait_until(lambda field=field: field.waiting == 0, "the worker has run all", 60)
            rows[name] = {"beats": beats, **_counted(field, first, last)}
            if scheduler == LOCKBEAT:
                rows[name] |= _judged(field, first, last)
    return {"rows": rows, "seconds": seconds, "entries": ENTRIES, "kill_every_s": 5, "broker_away_s": 5, "scripts": []}


def _counted(field: Arena, first_ms: int, last_ms: int) -> dict[str, Any]:
    """By when they were sent. A message that is later than its slot counts as much as one in time."""
    begin, end = first_ms / 1000, last_ms / 1000
    silences, sent, extra = list[float](), 0, 0
    by_entry: dict[str, list[float]] = {f"entry-{number}": [] for number in range(ENTRIES)}
    for line in field.ran:
        if begin <= line["sent_at"] <= end:
            by_entry[line["what"]].append(line["sent_at"])
    wanted = round(end - begin)
    for times in by_entry.values():
        times.sort()
        sent += len(times)
        extra += max(len(times) - wanted, 0)
        silences.append(max(after - before for before, after in pairwise([begin, *times, end])))
    return {
        "wanted": wanted * ENTRIES,
        "ran": sent,
        "too_many": extra,
        "longest_silence_s": max(silences),
    }


def _judged(field: Arena, first_ms: int, last_ms: int) -> dict[str, Any]:
    found = judge(field, [f"entry-{number}" for number in range(ENTRIES)], 1000, first_ms, last_ms)
    return {
        "slots": found.slots,
        "once": found.once,
        "twice": len(found.twice),
        "in_ledger": found.told,
        "unknown": len(found.lost) + len(found.unknown),
    }
