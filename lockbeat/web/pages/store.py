"""Store: what doctor finds, how much memory and how many keys there are, and which scripts take the server's time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from lockbeat.errors import StoreError
from lockbeat.leases.lease import monotonic
from lockbeat.monitor import Finding, examine, glance
from lockbeat.store import Store
from lockbeat.store.keys import KEYS
from lockbeat.web.look import Look, Page

KEPT = 60.0
"""Seconds for which the findings of a doctor are shown again: it sends some hundred commands."""
EXAMINED = 8.0
"""Seconds that a doctor has for the page: a server that is slow is told of, and not waited for."""
HOLDS = {
    "job": "jobs",
    "job:due": "jobs with a slot to come",
    "job:open": "jobs with a run that has not ended, or slots in line behind one",
    "job:paused": "jobs that are paused",
    "ledger:order": "slots, runs and events that the ledgers keep",
    "task": "tasks that are known",
    "task:ready": "tasks that wait for a worker",
    "task:delayed": "tasks that wait until they are due",
    "task:live": "tasks that run, but for runs of jobs that hold a lock",
    "task:dead": "tasks that are dead",
    "task:ended": "tasks that have ended, until they are forgotten",
    "task:result": "results of tasks",
    "lock:live": "locks, those of the jobs' runs and of holders that ran out among them",
    "lock:queue": "who waits for a lock",
    "claim:live": "claims, those that ran out among them",
    "claim:past": "claims of which is known how the attempt before ended",
    "instance": "instances",
    "calendar": "calendars",
    "backfill": "backfills",
}
"""Keys whose entries are counted, and what they are, for operators."""
_findings: dict[tuple[str, str], tuple[float, list[Finding]]] = {}
_glances: dict[tuple[str, str], tuple[float, list[Finding]]] = {}


class Key(NamedTuple):
    """A key of the store, over all shards."""

    name: str
    what: str
    entries: int


async def glanced(look: Look) -> list[Finding]:
    """What is worth a look at the store's server, as another page tells of it; it is looked at once in KEPT."""
    opened = look.lb.store
    place = opened.connector.location, opened.keys.namespace
    at, findings = _glances.get(place, (-1e9, []))
    if monotonic() - at > KEPT:
        findings = await glance(opened.connector, opened)
        _glances.clear()
        _glances[place] = monotonic(), findings
    return findings


async def store(look: Look) -> Page:
    opened = look.lb.store
    wire = opened.wire(0)
    place = opened.connector.location, opened.keys.namespace
    at, findings = _findings.get(place, (-1e9, []))
    if opened.connector.kind != "memory" and monotonic() - at > KEPT:  # a store in memory has no server to examine
        findings = await examine(opened.connector, opened.keys.namespace, opened.timeout, within=EXAMINED)
        _findings.clear()
        _findings[place] = monotonic(), findings
    info: dict[str, str] = {}
    for section in ("server", "memory", "clients", "stats", "commandstats"):
        try:
            text = await wire.command("INFO", section)
        except StoreError:
            continue
        pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines() if line[:1] not in ("", "#"))
        info |= {name: value for name, _, value in pairs}
    counts = await asyncio.gather(*(entries(opened, name) for name in HOLDS))
    keys = [Key(name, what, many) for (name, what), many in zip(HOLDS.items(), counts, strict=True)]
    return Page(
        "store.html",
        {
            "location": opened.connector.location,
            "shards": opened.shards,
            "findings": findings,
            "info": info,
            "scripts": dict(part.split("=", 1) for part in info.get("cmdstat_evalsha", "").split(",") if "=" in part),
            "keys": sorted(keys, key=lambda key: -key.entries),
            "now": await look.now(),
        },
    )


async def entries(opened: Store, name: str) -> int:
    """How many a key has, over all shards, less the entry that only keeps the key from being empty."""

    async def of_shard(shard: int) -> int:
        key, wire = opened.keys.key(shard, name), opened.wire(shard)
        if KEYS[name].startswith("zset"):
            return int(await wire.command("ZCOUNT", key, "-inf", "(+inf"))
        many, keeper = await asyncio.gather(wire.command("HLEN", key), wire.command("HEXISTS", key, ""))
        return int(many) - int(keeper)

    return sum(await opened.on_every_shard(of_shard))
