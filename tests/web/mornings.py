"""Mornings after: the report did not come, each time for another reason."""

from __future__ import annotations

import re
from typing import Any

from lockbeat import Cron, Every, Lockbeat
from lockbeat.jobs import LedgerEntry
from tests.beats import Hands, fired, last_slot, minutely, now_ms, overdue, scheduler


async def failed(lb: Lockbeat, raw: Any, name: str, error: str) -> LedgerEntry:
    """A job whose only slot has failed for good."""
    job, hands = minutely(name), Hands(name)
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of(name))
    [task] = hands.tasks
    await lb.tasks.fail(task, ValueError(error))
    return (await lb.jobs.ledger(name))[0]


async def paused(lb: Lockbeat, raw: Any, **options: Any) -> int:
    """A job that maria paused, and whose slot has come due since; the slot."""
    await lb.jobs.put(minutely(**options))
    await lb.jobs.pause("report", "the warehouse is being moved", by="maria")
    slot = await last_slot(lb, await lb.jobs.get("report"))
    for shard_key in ("job:paused", "job:changes"):
        key = lb.store.keys.key(lb.jobs.shard_of("report"), shard_key)
        line: bytes = raw.hget(key, "report")
        raw.hset(key, "report", re.sub(rb"pause \d+", b"pause %d" % (slot - 1000), line))
    key = lb.store.keys.key(lb.jobs.shard_of("report"), "job:slot")
    place: bytes = raw.hget(key, "report")
    first = b" ".join([b"%d" % slot, *place.split(b" ")[1:]])
    raw.hset(key, "report", first)
    return slot


async def missed(lb: Lockbeat, raw: Any) -> int:
    """A job that catches up with nothing, and nobody was there; the slot."""
    slot = await overdue(lb, raw, job := minutely(catchup="skip", window=1e-3))
    await scheduler(lb, job).tick(lb.jobs.shard_of("report"))
    return slot


async def cancelled(lb: Lockbeat, raw: Any) -> int:
    """A run that maria cancelled while it ran; its slot."""
    task = await fired(lb, raw)
    await lb.tasks.cancel(task.id, by="maria")
    await lb.tasks.release(task, begun=True)
    assert task.slot_ms is not None
    return task.slot_ms


async def moved(lb: Lockbeat, raw: Any) -> int:
    """A job that tom made due at another time, two minutes ago; the last slot that it would have had."""
    await lb.jobs.put("report", Every(60), by="ops")
    await lb.jobs.put("report", Cron("30 40 22 * * *", timezone="America/New_York"), by="tom")
    key, now = lb.store.keys.key(lb.jobs.shard_of("report"), "job:changes"), await now_ms(lb)
    raw.hset(key, "report", re.sub(rb"put \d+", b"put %d" % (now - 120_000), raw.hget(key, "report")))
    return now // 60_000 * 60_000
