"""Examines a store: every check on every server, and how the shards lie on them."""

from __future__ import annotations

from dataclasses import replace

from lockbeat.connection import Connector
from lockbeat.errors import ScriptError, StoreError, StoreFormatError, StoreUnavailable
from lockbeat.monitor._instances import fields
from lockbeat.monitor._server import Finding, Server, denied
from lockbeat.store.calls import Calls
from lockbeat.store.keys import FORMAT, Keys
from lockbeat.store.wire import Wire

MOST_SERVERS = 32
"""Shards whose servers are looked at; each takes a connection."""
OVERDUE_MS = 10_000
"""So late a job is when nobody fires it; others are a busy moment."""


async def examine(connector: Connector, namespace: str, timeout: float) -> list[Finding]:
    """Every check, on every server of the store. Raises StoreUnavailable, and StoreError when the server refuses us."""
    keys = Keys(namespace)
    calls = Calls(connector, keys, timeout)
    try:
        await _greet(calls.wire(0))
        first = Server(connector, keys, 0, calls.wire(0))
        first.info = await first.read_info()
        if (role := first.role()).state == "fail":
            return [first.version(), role]  # the rest would only tell of a server that can't be the store
        shards = await _shards(calls.wire(0), keys)
        servers: dict[str, Server] = {}
        for shard in range(min(shards, MOST_SERVERS)):
            server = Server(connector, keys, shard, calls.wire(shard))
            server.info = await server.read_info()
            servers.setdefault(server.info.get("run_id", ""), server)
        findings = []
        if connector.embedded is not None:
            findings.append(_embedded(connector.embedded.directory))
        for server in servers.values():
            found = await server.examine()
            if len(servers) > 1:
                where = f"port {server.info.get('tcp_port', '?')}"
                found = [replace(finding, says=f"{where}: {finding.says}") for finding in found]
            findings += found
        findings += [await _spread(next(iter(servers.values())), shards), format_ := await _format(calls, keys, shards)]
        return findings if format_.state == "fail" else [*findings, await _overdue(calls, keys, shards)]
    finally:
        await calls.aclose()


async def _greet(wire: Wire) -> None:
    """Reach the server; that it forbids PING is none of its faults here."""
    try:
        await wire.command("PING")
    except StoreUnavailable:
        raise
    except StoreError as problem:
        if not denied(problem):
            raise


async def _shards(wire: Wire, keys: Keys) -> int:
    try:
        return int(await wire.command("GET", keys.key(0, "shards")) or 1)
    except StoreUnavailable:
        raise
    except StoreError:  # that we may not read it is for the check of rights to say
        return 1


async def _format(calls: Calls, keys: Keys, shards: int) -> Finding:
    """Whether this version reads the keys as those who wrote them."""
    try:
        found = {(await calls.call("store/open", shard, shards=0, format=0)).format for shard in range(shards)} - {0}
    except StoreUnavailable:
        raise
    except ScriptError as problem:
        return Finding("format", "fail", str(problem))
    except StoreError as problem:
        return Finding("format", "unknown", f"which format the store is in can't be read: {problem}")
    if strange := found - {FORMAT}:
        says, _, remedy = str(StoreFormatError(f"namespace {keys.namespace!r}", strange.pop(), FORMAT)).rpartition(": ")
        return Finding("format", "fail", says, remedy)
    return Finding("format", "ok", f"{FORMAT}, which this version speaks" if found else "none yet, the store is unused")


async def _overdue(calls: Calls, keys: Keys, shards: int) -> Finding:
    """Whether jobs are overdue: by their slots, for one that is handed out again and again is hidden each time."""
    late: list[tuple[float, str]] = []
    try:
        for shard in range(shards):
            wire = calls.wire(shard)
            seconds, microseconds = await wire.command("TIME")
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000
            names = await wire.command(
                "ZRANGEBYSCORE", keys.key(shard, "job:due"), "-inf", str(now_ms + 1000), "LIMIT", "0", "1000"
            )
            slots = await wire.command("HMGET", keys.key(shard, "job:slot"), *names) if names else []
            for name, slot in zip(names, slots, strict=True):
                words = slot.split() if slot else []
                if len(words) > 1 and words[0] != b"-1" and int(words[1]) < now_ms - OVERDUE_MS:
                    late.append(((now_ms - int(words[1])) / 1000, name.decode(errors="replace")))
    except StoreUnavailable:
        raise
    except (StoreError, ValueError) as problem:
        return Finding("jobs", "unknown", f"whether jobs are overdue can't be read: {problem}")
    if not late:
        return Finding("jobs", "ok", "none is overdue")
    by, name = max(late)
    several = f"{len(late)} job{'s are' if len(late) > 1 else ' is'} overdue"
    return Finding(
        "jobs", "fail", f"{several}, {name} by {by:.0f} s", "is an instance running that schedules? see lockbeat instances"
    )


def _embedded(directory: object) -> Finding:
    return Finding(
        "store",
        "warn",
        f"the embedded store at {directory} guards this machine only",
        "before running on a second host, set LOCKBEAT_URL to a Redis or Valkey that all of them reach",
    )


async def _spread(server: Server, shards: int) -> Finding:
    """How the shards lie on the servers."""
    several = f"{shards} shard{'s' * (shards != 1)}"
    if server.connector.kind != "cluster":
        return Finding("shards", "ok", f"{several} on one server")
    try:
        state = fields(await server.ask("CLUSTER", "INFO"))
    except StoreError as problem:
        return Finding("shards", "unknown", f"{several}; the server does not tell the cluster's state: {problem}")
    primaries = int(state.get("cluster_size", "0"))
    if state.get("cluster_state") != "ok":
        return Finding(
            "shards", "fail", f"the cluster is {state.get('cluster_state')}: slots are without an owner", "see CLUSTER NODES"
        )
    if shards == 1 and primaries > 1:
        return Finding(
            "shards",
            "warn",
            f"1 shard: one of the {primaries} primaries does all the work",
            f"open a namespace that is not in use yet with shards={primaries * 2}",
        )
    return Finding("shards", "ok", f"{several} on a cluster of {primaries} primaries")
