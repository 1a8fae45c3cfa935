"""Store: what doctor finds, how much memory and how many keys there are, and which scripts take the server's time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from lockbeat.errors import StoreError
from lockbeat.leases.lease import monotonic
from lockbeat.monitor import Finding, examine
from lockbeat.store.keys import KEYS
from lockbeat.web.look import Look, Page

KEPT = 60.0
"""Seconds for which the findings of a doctor are shown again: it sends some hundred commands."""
EXAMINED = 8.0
"""Seconds that a doctor has for the page: a server that is slow is told of, and not waited for."""
COUNTED = {"zset": "ZCARD", "hash": "HLEN"}
KEYS_SHOWN = (
    *("job", "job:due", "job:open", "job:paused", "ledger:order", "task", "task:ready", "task:delayed", "task:live", "task:dead"),
    *("task:ended", "task:result", "lock", "lock:queue", "claim", "claim:past", "instance", "calendar", "backfill"),
)
_findings: dict[tuple[str, str], tuple[float, list[Finding]]] = {}


class Key(NamedTuple):
    """A key of the store, over all shards."""

    name: str
    what: str
    entries: int


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
    kinds = {name: KEYS[name].split()[0] for name in KEYS_SHOWN}
    entries = await asyncio.gather(*(_entries(look, name, kind) for name, kind in kinds.items()))
    keys = [Key(name, KEYS[name].partition("  ")[2].strip(), many) for name, many in zip(kinds, entries, strict=True)]
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


async def _entries(look: Look, name: str, kind: str) -> int:
    opened = look.lb.store
    return sum(await opened.on_every_shard(lambda shard: opened.wire(shard).command(COUNTED[kind], opened.keys.key(shard, name))))
