"""Examines a store: every check on every server, and how the shards lie on them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import anyio

from lockbeat.connection import Connector
from lockbeat.errors import ScriptError, StoreError, StoreFormatError
from lockbeat.jobs.why import iso
from lockbeat.monitor._instances import fields, instances
from lockbeat.monitor._late import late_jobs
from lockbeat.monitor._overview import counts
from lockbeat.monitor._server import Finding, Said, Server, checked, denied, told
from lockbeat.monitor._told import Kind, Wrong, wrong
from lockbeat.store.calls import Calls
from lockbeat.store.keys import FORMAT, Keys
from lockbeat.store.wire import Wire

MOST_SERVERS = 32
"""Shards whose servers are looked at; each takes a connection."""
JOBS = 1000
"""That one run of calendar/users looks at."""
KNOWN_FOR = timedelta(days=30)
"""A calendar that ends sooner is told of."""
PUT = "put it again: lockbeat calendar put NAME ..."
OVERDUE_MS = 10_000
"""So late a job is when nobody fires it; others are a busy moment."""


async def examine(connector: Connector, namespace: str, timeout: float, *, within: float | None = None) -> list[Finding]:
    """Every check, on every server of the store.

    timeout: seconds that the server has for one answer.
    within: seconds for all; then it tells what it found so far. None: as long as it takes.

    Raises: StoreUnavailable, and StoreError when the server refuses us.
    """
    keys, findings = Keys(namespace), list[Finding]()
    calls = Calls(connector, keys, timeout)
    try:
        with anyio.move_on_after(within) as scope:
            await _examine(connector, keys, calls, findings)
        if scope.cancelled_caught:
            says = f"the store was looked at for {within:g} s, and not all of it was seen"
            findings.append(Finding("time", "unknown", says, "lockbeat doctor takes as long as it needs"))
    finally:
        with anyio.CancelScope(shield=True):  # it ends within the timeout; else the connection would stay open
            await calls.aclose()
    return findings


async def glance(connector: Connector, calls: Calls) -> list[Finding]:
    """What is worth a look at the first server, for a few commands; `examine` looks at all, and further."""
    if connector.kind == "memory":
        return []  # it has no server
    return await (await Server(connector, calls.keys, 0, calls.wire(0)).read_info()).glance()


async def _examine(connector: Connector, keys: Keys, calls: Calls, findings: list[Finding]) -> None:
    """Enter each finding as it is made."""
    # Reach the server; that it forbids PING is none of its faults here.
    if isinstance(problem := await told(calls.wire(0).command("PING")), StoreError) and not denied(problem):
        raise problem
    first = await Server(connector, keys, 0, calls.wire(0)).read_info()
    identified = await first.identify()
    if "fail" in [finding.state for finding in identified]:
        findings += identified
        return  # the rest would only tell of a server that can't be the store
    counted = await first.ask("GET", keys.key(0, "shards"))
    # That we may not read it is for the check of rights to say.
    calls.shards = shards = 1 if isinstance(counted, StoreError) else int(counted or 1)
    servers: dict[str, Server] = {}
    for shard in range(min(shards, MOST_SERVERS)):
        server = await Server(connector, keys, shard, calls.wire(shard)).read_info()
        servers.setdefault(server.info.get("run_id", ""), server)
    if connector.embedded is not None:
        findings.append(_embedded(connector.embedded.directory))
    for server in servers.values():
        where = f"port {server.info.get('tcp_port', '?')}: " if len(servers) > 1 else ""
        async for finding in server.examine():
            findings.append(replace(finding, says=where + finding.says))
    findings.append(await checked("shards", _spread(calls.wire(0), connector.kind, shards)))
    findings.append(format_ := await checked("format", _format(calls, keys, shards)))
    if format_.state != "fail":
        findings.append(await checked("jobs", _overdue(calls, shards)))
        findings += await _now(calls)
        findings.append(await checked("calendars", _calendars(calls, shards)))


async def _format(calls: Calls, keys: Keys, shards: int) -> Said:
    """Whether this version reads the keys as those who wrote them."""
    found = set()
    for shard in range(shards):
        try:
            found.add((await calls.call("store/open", shard, shards=0, format=0)).format)
        except ScriptError as problem:
            return "fail", str(problem)
    if strange := found - {0, FORMAT}:
        says, _, remedy = str(StoreFormatError(f"namespace {keys.namespace!r}", strange.pop(), FORMAT)).rpartition(": ")
        return "fail", says, remedy
    return "ok", f"{FORMAT}, which this version speaks" if FORMAT in found else "none yet, the store is unused"


async def _overdue(calls: Calls, shards: int) -> Said:
    """Whether jobs are overdue."""
    late = [job for shard in range(shards) for job in await late_jobs(calls, shard, OVERDUE_MS)]
    if not late:
        return "ok", "none is overdue"
    by_ms, name = max(late)
    several = f"{len(late)} job{'s are' if len(late) > 1 else ' is'} overdue"
    return "fail", f"{several}, {name} by {by_ms / 1000:.0f} s", "is an instance running that schedules? see lockbeat instances"


NOW: dict[str, tuple[tuple[Kind, ...], str]] = {
    "runs": (("hanging",), "none hangs"),
    "functions": (("function",), "some instance has that of each job, or none works"),
    "queues": (("queue",), "each that holds ready tasks is served, or no instance works"),
    "paused": (("paused",), "no job has paused itself"),
    "instances": (("silent", "stuck"), "none is silent or stuck"),
    "dead": (("dead",), "no task is dead"),
}
"""What of the work is wrong now, by check; and what is said where that is not. That jobs are overdue is a check of its own."""


async def _now(calls: Calls) -> list[Finding]:
    """What goes on in the store and should not, as Overview and `lockbeat top` tell of it."""
    said = await told(_wrong(calls))
    if isinstance(said, StoreError):
        return [Finding(check, "unknown", f"the server does not tell: {said}") for check in NOW]
    lines, findings = [*said.lines()], []
    for check, (kinds, fine) in NOW.items():
        found = [line for line in lines if line.kind in kinds]
        if not found:
            findings.append(Finding(check, "ok", fine))
            continue
        # A sentence of theirs ends in a full stop, or a question mark.
        text, more = found[0].text(iso), len(found) - 1
        says = f"{text} And {more:,} more" if more else text.removesuffix(".")
        findings.append(Finding(check, "warn", says, found[0].remedy))
    return findings


async def _wrong(calls: Calls) -> Wrong:
    living, counted = await asyncio.gather(instances(calls), calls.on_every_shard(lambda shard: counts(calls, shard)))
    ready, dead = Counter[str](), 0
    for name, waits, _, lost in (row for shard in counted for row in shard.queues):
        ready[name.decode(errors="replace")] += waits
        dead += lost
    return await wrong(calls, living, ready.items(), dead, counted[0].now_ms / 1000, whole=True)


async def _calendars(calls: Calls, shards: int) -> Said:
    """Whether the calendars by which jobs exclude are there, the same on each shard, and known for a while."""
    lines: list[dict[str, bytes]] = []
    used: dict[str, int] = {}
    for shard in range(shards):
        now_ms, words = await calls.call("calendar/list", shard)
        lines.append({words[at].decode(errors="replace"): words[at + 1] for at in range(0, len(words), 2)})
        after, more = b"", True
        while more:
            after, users = await calls.call("calendar/users", shard, after=after, limit=JOBS)
            more = bool(after)
            for name in (name for names in users[1::2] for name in json.loads(names)):
                used[name] = used.get(name, 0) + 1
    soon = datetime.fromtimestamp(now_ms / 1000, UTC).date() + KNOWN_FOR
    for name in sorted({*used, *(name for there in lines for name in there)}):
        jobs, copies = used.get(name, 0), {there.get(name) for there in lines}
        by = f"{jobs} job{' excludes' if jobs == 1 else 's exclude'} by it"
        if copies == {None}:
            return "warn", f"calendar {name!r} is missing: {by}, and fire{'s' * (jobs == 1)} every day", PUT
        if len(copies) > 1:
            return "warn", f"calendar {name!r} is not the same on all shards: a put of it stopped half-way", PUT
        try:
            until = date.fromisoformat(json.loads((copies.pop() or b"").decode().split(" ", 3)[3])["until"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return "warn", f"calendar {name!r} can't be read: {by}", PUT
        if jobs and until < soon:
            return "warn", f"calendar {name!r} has no day known after {until}: {by}", PUT
    several = f"{len(lines[0])} calendar{'s' * (len(lines[0]) != 1)}"
    return "ok", f"{several}, {'each that jobs exclude by is known for a month' if used else 'no job excludes by any'}"


def _embedded(directory: object) -> Finding:
    return Finding(
        "store",
        "warn",
        f"the embedded store at {directory} guards this machine only",
        "before running on a second host, set LOCKBEAT_URL to a Redis or Valkey that all of them reach",
    )


async def _spread(wire: Wire, kind: str, shards: int) -> Said:
    """How the shards lie on the servers."""
    several = f"{shards} shard{'s' * (shards != 1)}"
    if kind != "cluster":
        return "ok", f"{several} on one server"
    state = fields(await wire.command("CLUSTER", "INFO"))
    primaries = int(state.get("cluster_size", "0"))
    if state.get("cluster_state") != "ok":
        return "fail", f"the cluster is {state.get('cluster_state')}: slots are without an owner", "see CLUSTER NODES"
    if shards == 1 and primaries > 1:
        remedy = f"open a namespace that is not in use yet with shards={primaries * 2}"
        return "warn", f"1 shard: one of the {primaries} primaries does all the work", remedy
    return "ok", f"{several} on a cluster of {primaries} primaries"
