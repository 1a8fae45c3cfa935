"""Which runs of jobs have not ended, as the store has them."""

from __future__ import annotations

from collections.abc import Sequence

from lockbeat.jobs.ledger import LedgerEntry, entry_of
from lockbeat.jobs.marks import latest
from lockbeat.jobs.unfinished import Unfinished
from lockbeat.store.calls import Calls

MOST = 64
"""Runs of a shard of which it is looked up how long is usual."""
MARKS = 60
"""Slots of a job by which that is known, the newest."""


async def unfinished(store: Calls, shard: int, ids: Sequence[str], now_ms: int) -> list[Unfinished]:
    """Those of these tasks of jobs that have not ended, the one that runs longest first, up to MOST (`job/strips`)."""
    return (await longest(store, shard, ids, now_ms))[0]


async def longest(store: Calls, shard: int, ids: Sequence[str], now_ms: int, least: float = 0.0) -> tuple[list[Unfinished], bool]:
    """The same, and whether these are all.

    ids: up to a thousand, which are read in one command. least: seconds that they have run at least; 0: also those that do not.
    """
    records = await store.wire(shard).command("HMGET", store.keys.key(shard, "task"), *ids) if ids else []
    found = list[LedgerEntry]()
    for task_id, record in zip(ids, records, strict=True):
        entry = entry_of(task_id, record) if record else None
        if entry is not None and (not least or (entry.started_ms is not None and now_ms - entry.started_ms >= least * 1000)):
            found.append(entry)
    looked = sorted(found, key=lambda entry: entry.started_ms or now_ms)[:MOST]
    known = await latest(store, shard, [entry.job for entry in looked], MARKS)
    several = [Unfinished.of(entry, now_ms, known[entry.job].marks if entry.job in known else ()) for entry in looked]
    return [one for one in several if one is not None], len(found) <= MOST
