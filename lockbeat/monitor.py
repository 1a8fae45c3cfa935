"""Looks at a store from outside and changes nothing: which instances live, and whether the server is fit for its work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import RedisError

from lockbeat.calls import Calls
from lockbeat.connection import Connector
from lockbeat.errors import LockbeatError, StoreError, StoreUnavailable
from lockbeat.keys import Keys
from lockbeat.scripts import load, names
from lockbeat.store import Store
from lockbeat.wire import Wire

HEARTBEAT_TTL_MS = 30_000
"""How long a sign of life counts, see beat/heartbeat."""
MOST_INSTANCES = 1000
PINGS = 21
SLOW_MS = 20.0
"""A fire costs two round trips: with slower ones slots come visibly late."""

State = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process, as it said of itself."""

    owner: str
    pid: int | None
    host: str | None
    schedules: bool
    queues: tuple[str, ...]
    """What its worker serves; none: it has no worker."""
    jobs: int | None
    """How many it declares."""
    concurrency: int | None
    seen_ms: int
    """Its last sign of life."""


async def instances(store: Store) -> list[Instance]:
    """Who lives, by owner (`beat/instances`). One that was killed stays for up to 30 s."""
    found = []
    for owner, text, dead_at_ms in await store.call("beat/instances", 0, (MOST_INSTANCES,)):
        info = json.loads(text)
        found.append(
            Instance(
                owner.decode(),
                info.get("pid"),
                info.get("host"),
                bool(info.get("schedules")),
                tuple(info.get("queues", ())),
                info.get("jobs"),
                info.get("concurrency"),
                dead_at_ms - HEARTBEAT_TTL_MS,
            )
        )
    return sorted(found, key=lambda instance: instance.owner)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a sentence, and what to do about it."""

    check: str
    state: State
    says: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Server:
    """One primary of the store, and what it says of itself."""

    wire: Wire
    info: dict[str, str]
    keys: Keys
    connector: Connector

    async def ask(self, *command: str | bytes) -> Any:
        return await self.wire.command(*command)

    def number(self, name: str) -> int:
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


Check = Callable[[_Server], Awaitable[list[Finding]]]


async def examine(connector: Connector, namespace: str, timeout: float) -> list[Finding]:
    """Every check, on every server of the store. Raises StoreUnavailable when none can be reached, StoreError when it refuses us."""
    keys = Keys(namespace)
    calls = Calls(connector, keys, timeout)
    try:
        await _hold_back(calls.wire(0), timeout)
        found, shards = _store_shards(await _shards(calls.wire(0), keys)), await _shards(calls.wire(0), keys)
        servers: dict[str, _Server] = {}
        for shard in range(max(shards, 1)):
            wire = calls.wire(shard)
            info = await _info(wire)
            servers.setdefault(info.get("run_id", str(shard)), _Server(wire, info, keys, connector))
        several = len(servers) > 1
        found = [] if connector.kind != "cluster" else found
        findings: list[Finding] = []
        if connector.embedded is not None:
            findings.append(_embedded(connector))
        for server in servers.values():
            for check in CHECKS:
                for finding in await check(server):
                    if several:
                        finding = _at(finding, server.info.get("tcp_port", "?"))
                    findings.append(finding)
        findings += [*found, *await _cluster(next(iter(servers.values())), shards)]
        return findings
    finally:
        await calls.aclose()
