"""What a graph shows of a whole store: bounded, and cheap enough to be asked every few seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.monitor._instances import SILENT, fields, instances
from lockbeat.monitor._late import late_jobs
from lockbeat.store import Store

MOST_QUEUES = 100
"""Queues that are told of one by one; the others are summed up under no name."""
PAGE, MOST_PAGES = 100, 10
COUNTED = ("fired", "done", "failed", "lost", "skipped", "missed", "cancelled")
"""What a job's lifetime counts say, in their order (`_lib/counts`)."""


@dataclass(slots=True)
class Queue:
    """How many tasks a queue holds."""

    ready: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_ms: int = 0
    """Since when its oldest ready task could be claimed; 0: none is ready."""
    workers: int = 0
    """Instances that serve it."""


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What a server says of itself; None: it does not."""

    used_bytes: int | None
    most_bytes: int | None
    """0: there is no limit."""
    policy: str | None
    """What it does at the limit."""
    evicted: int | None
    script_calls: int | None
    script_seconds: float | None


@dataclass(slots=True)
class Measures:
    """A store at one moment."""

    now_ms: int = 0
    queues: dict[str, Queue] = field(default_factory=dict)
    """By name; "": those beyond MOST_QUEUES."""
    late: list[tuple[int, str]] = field(default_factory=list)
    """Jobs that are due and not fired: by how many ms, and which."""
    stats: Counter[str] = field(default_factory=Counter)
    """What happened to tasks and slots, since the store was first used."""
    jobs: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """Of the jobs that were asked for: what became of their slots."""
    instances: int = 0
    scheduling: int = 0
    """Instances that fire slots, and whose event loops turn."""
    stuck: int = 0
    servers: dict[str, ServerLoad] = field(default_factory=dict)
    """By the number of the first of its shards."""


async def measure(store: Store, named: Sequence[str] = ()) -> Measures:
    """Look at a store; changes nothing.

    named: jobs of which to tell what became of their slots. O(queues + late jobs + instances + named). Raises StoreError.
    """
    found = Measures()
    await asyncio.gather(*(_of_shard(store, shard, named, found) for shard in range(store.shards)))
    for instance in await instances(store):
        found.instances += 1
        alive = found.now_ms - instance.seen_ms <= SILENT * 1000 and instance.stuck_s is None
        found.stuck += instance.stuck_s is not None
        found.scheduling += alive and instance.schedules
        for queue in instance.queues if alive else ():
            if (held := found.queues.get(queue)) is not None or len(found.queues) < MOST_QUEUES:
                held = held or found.queues.setdefault(queue, Queue())
                held.workers += 1
    return found


async def _of_shard(store: Store, shard: int, named: Sequence[str], found: Measures) -> None:
    wire, key = store.wire(shard), store.keys.key
    found.now_ms = max(found.now_ms, await store.server_ms(shard))
    found.late += await late_jobs(store, shard)
    stats = await wire.command("HGETALL", key(shard, "task:stats"))
    pairs = stats.items() if isinstance(stats, dict) else zip(stats[::2], stats[1::2], strict=True)  # fakeredis' client makes one
    for what, count in pairs:
        found.stats[what.decode(errors="replace")] += int(count) if count.isdigit() else 0
        if what == b"fired":  # the others were spawned by programs, or triggered
            found.stats["spawned"] += int(count) if count.isdigit() else 0
    here = [name for name in named if store.shard_of(f"job:{name}") == shard]
    counts = await wire.command("HMGET", key(shard, "job:counts"), *here) if here else []
    for name, text in zip(here, counts, strict=True):
        words = (text or b"").split()
        numbers = [int(word) if word.isdigit() else 0 for word in words] + [0] * len(COUNTED)
        found.jobs[name] = dict(zip(COUNTED, numbers, strict=False))
    names = await _queues(store, shard, found)
    await asyncio.gather(*(_age(store, shard, name, found) for name in names))
    if store.place(shard) == shard:
        load = await _load(store, shard)
        if load is not None:
            found.servers[str(shard)] = load


async def _queues(store: Store, shard: int, found: Measures) -> list[str]:
    """Count the tasks of a shard's queues; those that hold ready ones."""
    after, ready = b"", list[str]()
    for _ in range(MOST_PAGES):
        page = await store.call("task/counts", shard, queue="", after=after, limit=PAGE)
        for name, *counts in page.queues:
            queue = name.decode(errors="replace")
            if queue not in found.queues and len(found.queues) >= MOST_QUEUES:
                queue = ""
            held = found.queues.setdefault(queue, Queue())
            held.ready, held.delayed, held.dead = held.ready + counts[0], held.delayed + counts[1], held.dead + counts[2]
            if counts[0] and queue:
                ready.append(queue)
        after = page.cursor
        if not after:
            break
    return ready


async def _age(store: Store, shard: int, queue: str, found: Measures) -> None:
    """Since when a queue's oldest ready task waits: the first of its highest priority, or of its lowest (`_lib/places`)."""
    wire, key = store.wire(shard), store.keys.key
    low, high = f"[{queue}".encode() + b"\xff", f"({queue}".encode() + b"\xff\xff"
    name = key(shard, "task:ready")
    first, last, due = await asyncio.gather(
        wire.command("ZRANGEBYLEX", name, low, high, "LIMIT", "0", "1"),
        wire.command("ZREVRANGEBYLEX", name, high, low, "LIMIT", "0", "1"),
        wire.command("ZRANGEBYLEX", key(shard, "task:delayed"), low, high, "LIMIT", "0", "1"),
    )
    at = len(low) - 1
    times = [member[at + 2 : at + 17] for member in first] + [member[at : at + 15] for member in due]
    if last:
        lowest = await wire.command("ZRANGEBYLEX", name, low + last[0][at : at + 2], high, "LIMIT", "0", "1")
        times += [member[at + 2 : at + 17] for member in lowest]
    since = [int(time) for time in times if time.isdigit() and int(time) <= found.now_ms]
    held = found.queues[queue]
    if since:
        held.oldest_ms = min(since) if not held.oldest_ms else min(held.oldest_ms, *since)


async def _load(store: Store, shard: int) -> ServerLoad | None:
    """What the shard's server says of itself; None: INFO is forbidden, or there is no server."""
    if store.connector.kind == "memory":
        return None
    try:
        said = [fields(await store.wire(shard).command("INFO", part)) for part in ("memory", "stats", "commandstats")]
    except StoreUnavailable:
        raise
    except StoreError:
        return None
    info = said[0] | said[1]
    calls, micros = 0, 0
    for name, text in said[2].items():
        if name.lower() in ("cmdstat_evalsha", "cmdstat_eval"):
            pairs = dict(pair.partition("=")[::2] for pair in text.split(","))
            calls, micros = calls + int(pairs.get("calls", "0")), micros + int(pairs.get("usec", "0"))
    return ServerLoad(
        _number(info.get("used_memory")),
        _number(info.get("maxmemory")),
        info.get("maxmemory_policy"),
        _number(info.get("evicted_keys")),
        calls if said[2] else None,
        micros / 1e6 if said[2] else None,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
