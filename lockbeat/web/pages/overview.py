"""Overview: what is wrong now, first; then how much happens."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, NamedTuple

from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.why import state_of
from lockbeat.monitor import TaskStats, changed, instances, some, stats_of, tasks, wrong
from lockbeat.store import Store
from lockbeat.tasks.look import asked
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.job import DID_NOT
from lockbeat.web.pages.odd import Odd, gone, held, hidden, moves, standing
from lockbeat.web.pages.store import glanced
from lockbeat.web.rates import Seen
from lockbeat.web.render import kind

SHOWN = 12
FIRST = 5
NAMED = 1
"""Queues that nobody serves of which it is told what waits there."""
LISTED = 12
"""Jobs and reasons of which it is looked whether they have run since."""
ODD_LOOKED = 600
"""Entries of the last day that did not end well that are looked at."""
ODD_LOOKS = 6
"""Runs of a script that this takes."""
LOOKED = 1000
"""Entries of the last hour that the strip is made from."""
QUEUES = 100
LEASED = 500
"""Running tasks of jobs that are counted, of each shard."""
HOUR = timedelta(hours=1)
DAY = 86_400.0


async def overview(look: Look) -> Page:
    lb = look.lb
    now = await look.now()
    since = instant(round(now * 1000)) - HOUR
    living, counted = await asyncio.gather(instances(lb.store), counts(lb.store))
    ready = [(name, ready) for name, ready, *_ in counted.queues]
    (told, (fail, fail_complete), (retired, _), changes), past, hour, jobs, server = await asyncio.gather(
        asyncio.gather(
            wrong(lb.store, living, ready, counted.dead, now),
            some(lb.store, "failing", SHOWN),
            some(lb.store, "retired", SHOWN),
            changed(lb.store, now - DAY),
        ),
        lb.jobs.history(since - 23 * HOUR, states=DID_NOT, limit=ODD_LOOKED, looks=ODD_LOOKS),
        lb.jobs.history(since, limit=LOOKED, looks=LOOKED // 100),
        many(lb.store, "job:order"),
        glanced(look),
    )
    odd = Odd.of(past.entries)
    lines = {kind: (some, more) for kind, some, more in told.first(SHOWN)}
    others = told.pauses.changes[len(told.paused_itself) :][:SHOWN]
    left, holds, unseen, moved, waits = await asyncio.gather(
        gone(look, retired, now - DAY),
        held(look, others, now),
        hidden(look, fail, {one.newest.job for one in odd.ended}),
        moves(look, changes[:SHOWN], now),
        asyncio.gather(*(_waiting(look, queue) for queue, _ in told.waits[:NAMED])),
    )
    ended, excluded = await asyncio.gather(standing(look, [*unseen, *odd.ended][:LISTED]), standing(look, odd.excluded[:FIRST]))
    unrun = [*{one.newest.job: one for one in reversed(ended) if not one.since}.values()][::-1]
    waiting = {one.job for one in holds}
    return Page(
        "overview.html",
        {
            "now": now,
            "problems": bool(lines or unrun or any(one.open for one in left)),
            "late": told.late[:SHOWN],
            "hangs": told.hangs.runs[:SHOWN],
            "lines": lines,
            "left_out": told.left_out,
            "server": server,
            "held": holds,
            "kept": any(not one.since for one in holds),
            "paused": [one for one in others if one[0] not in waiting],
            "paused_more": told.pauses.many - len(told.paused_itself) - len(others),
            "gone": left,
            "moved": moved,
            "unran": any(due.move.slot and not due.since for due in moved),
            "waits": [job for job in waits if job],
            "unrun": unrun[:SHOWN],
            "unrun_more": len(unrun) > SHOWN or not fail_complete,
            "odd": ended[:SHOWN],
            "odd_more": len(unseen) + len(odd.ended) - SHOWN,
            "odd_reaches": past.entries[-1].at if past.more and past.entries else None,
            "skipped": odd.skipped[:SHOWN],
            "skipped_more": len(odd.skipped) - SHOWN,
            "by_calendar": excluded,
            "by_calendar_more": len(odd.excluded) - FIRST,
            "did_not": [(what, slots) for what in DID_NOT if (slots := odd.slots(what))] + odd.left_out,
            "some_more": bool(past.more) or odd.many,
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


async def _waiting(look: Look, queue: str) -> str:
    """A job of which a run waits in a queue; empty: none was found among the first tasks there."""
    found = await tasks(look.lb.store, "waiting", queue=queue, limit=FIRST)
    return next((info.job for info in found.tasks if info.job), "")


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
