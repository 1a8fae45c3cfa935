"""Overview: what is wrong now, first; then how much happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.past import State
from lockbeat.jobs.why import state_of
from lockbeat.monitor import TaskStats, instances, stats_of, wrong
from lockbeat.store import Store, reasons
from lockbeat.tasks.look import asked
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.store import glanced
from lockbeat.web.rates import Seen
from lockbeat.web.render import kind

ODD: tuple[State, ...] = ("failed", "lost", "missed", "skipped")
SHOWN = 12
ODD_LOOKED = 600
"""Entries of the last day that did not end well that are looked at."""
ON_PURPOSE = (reasons.EXCLUDED,)
"""Why slots are skipped of which nothing needs to be told."""
LOOKED = 1000
"""Entries of the last hour that the strip is made from."""
QUEUES = 100
LEASED = 500
"""Running tasks of jobs that are counted, of each shard."""
HOUR = timedelta(hours=1)


async def overview(look: Look) -> Page:
    lb = look.lb
    now = await look.now()
    since = instant(round(now * 1000)) - HOUR
    living, counted = await asyncio.gather(instances(lb.store), counts(lb.store))
    ready = [(name, ready) for name, ready, *_ in counted.queues]
    told, odd, hour, jobs, server = await asyncio.gather(
        wrong(lb.store, living, ready, counted.dead, now),
        lb.jobs.history(since - 23 * HOUR, states=ODD, limit=ODD_LOOKED, looks=ODD_LOOKED // 100),
        lb.jobs.history(since, limit=LOOKED, looks=LOOKED // 100),
        many(lb.store, "job:order"),
        glanced(look),
    )
    failed, skipped = [entry for entry in odd.entries if entry.state != "skipped"], skips(odd.entries)
    lines = {kind: (some, more) for kind, some, more in told.first(SHOWN)}
    others = told.pauses.changes[len(told.paused_itself) :]
    return Page(
        "overview.html",
        {
            "now": now,
            "problems": bool(lines),
            "late": told.late[:SHOWN],
            "hangs": told.hangs.runs[:SHOWN],
            "lines": lines,
            "left_out": told.left_out,
            "server": server,
            "paused": others[:SHOWN],
            "paused_more": told.pauses.many - len(told.paused_itself) - len(others[:SHOWN]),
            "odd": failed[:SHOWN],
            "odd_more": len(failed) > SHOWN,
            "odd_reaches": odd.entries[-1].at if odd.more and odd.entries else None,
            "skipped": skipped[:SHOWN],
            "skipped_more": len(skipped) - SHOWN,
            "skips": sum(one.slots for one in skipped),
            "misses": sum(max(entry.count or 1, 1) for entry in odd.entries if entry.state == "missed"),
            "some_more": odd.more or any(one.many for one in skipped) or any((entry.count or 0) < 0 for entry in odd.entries),
            "schedulers": told.schedulers,
            "workers": sum(bool(one.queues) for one in living if one not in told.silent),
            "instances": len(living),
            "jobs": jobs,
            "counted": counted,
            "rates": look.looks.rates(counted.seen),
            "minutes": minutes(hour.entries, now),
            "hour": Counter(state_of(entry) for entry in hour.entries),
            "reaches": hour.entries[-1].at if hour.more and hour.entries else None,
        },
    )


class Skips(NamedTuple):
    """The slots of a job that were skipped for one reason, as far as they were looked at."""

    newest: LedgerEntry
    slots: int
    many: bool
    """There were more than could be counted."""


def skips(entries: Iterable[LedgerEntry]) -> list[Skips]:
    """By job and reason, the newest first: a job that skips often is one line, and hides no other."""
    found = dict[tuple[str, str | None], Skips]()
    for entry in entries:
        if entry.state == "skipped" and entry.code not in ON_PURPOSE:
            before = found.get((entry.job, entry.code), Skips(entry, 0, False))
            count = entry.count or 1
            found[entry.job, entry.code] = before._replace(slots=before.slots + max(count, 1), many=before.many or count < 0)
    return [*found.values()]


def minutes(entries: tuple[LedgerEntry, ...], now: float) -> list[tuple[int, str, str]]:
    """For each minute of the last hour: how many were entered, what a title says, and the worst kind of them."""
    last, found = int(now // 60), [Counter[str]() for _ in range(60)]
    for entry in entries:
        back = last - int((entry.at or 0) // 60)
        if 0 <= back < 60:
            found[59 - back][state_of(entry)] += 1
    columns = []
    for place, counter in enumerate(found):
        kinds = {kind(state) for state in counter}
        worst = next((one for one in ("bad", "warn", "busy", "good") if one in kinds), "mute")
        said = ", ".join(f"{count} {state}" for state, count in counter.items()) or "nothing"
        columns.append((counter.total(), f"{instant((last - 59 + place) * 60_000):%H:%M} UTC: {said}", worst))
    return columns


class Counted(NamedTuple):
    """What all queues hold, and how often what happened to tasks."""

    ready: int
    delayed: int
    running: int
    dead: int
    queues: list[tuple[str, int, int, int]]
    """Name, ready, delayed, dead; the fullest first."""
    complete: bool
    stats: TaskStats
    fired: int
    """Slots, as far as they were counted: of those that an older version fired it is not known."""
    at: float
    """By the server's clock."""

    @property
    def seen(self) -> Seen:
        said = self.stats
        return Seen(self.at, self.fired, said.spawned, said.begun, said.done, said.retried + said.failed + said.lost)


async def counts(store: Store) -> Counted:
    """The first queues of each shard, by name (`task/counts`)."""
    replies = await store.on_every_shard(lambda shard: store.call("task/counts", shard, queue="", after="", limit=QUEUES))
    held: dict[str, list[int]] = {}
    for reply in replies:
        for name, *numbers in reply.queues:
            before = held.setdefault(name.decode(errors="replace"), [0, 0, 0])
            held[name.decode(errors="replace")] = [a + b for a, b in zip(before, numbers, strict=True)]
    ready, delayed, dead = (sum(numbers[place] for numbers in held.values()) for place in range(3))
    jobs = await store.on_every_shard(
        lambda shard: store.call("task/list", shard, place="jobs", queue="", after="", limit=LEASED, **asked("jobs"))
    )
    stats, fired = stats_of(reply.stats for reply in replies)
    rows: list[Any] = sorted(((name, *numbers) for name, numbers in held.items()), key=lambda row: -sum(row[1:]))
    return Counted(
        ready,
        delayed,
        sum(reply.running for reply in replies) + sum(len(page.ids) for page in jobs),
        dead,
        rows,
        not any(reply.cursor for reply in (*replies, *jobs)),
        stats,
        fired,
        max(reply.now_ms for reply in replies) / 1000,
    )


async def many(store: Store, key: str) -> int:
    """How many a sorted set holds, over all shards."""
    return sum(await store.on_every_shard(lambda shard: store.wire(shard).command("ZCARD", store.keys.key(shard, key))))
