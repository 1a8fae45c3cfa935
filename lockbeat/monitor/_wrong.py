"""What is wrong now, as far as a page looks: runs that hang, functions nobody has, queues nobody serves, paused jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lockbeat.jobs.at_work import longest
from lockbeat.jobs.control import Change, paused_by
from lockbeat.jobs.unfinished import LEAST, Unfinished
from lockbeat.monitor._instances import MOST_FUNCTIONS, SILENT, Instance
from lockbeat.store.calls import Calls
from lockbeat.store.keys import job_of_task
from lockbeat.tasks.look import asked

LEASED = 500
"""Leases of a shard that are looked at, of jobs' locks and of tasks each: those of the runs that are under way."""
FUNCTIONS = 1000
"""Jobs of a shard, by name, of which it is looked whether somebody has their functions."""
PAUSED = 200
"""Paused jobs of a shard; of more it is only said how many they are."""
CHANGED = 100
"""Logs of changes of a shard, each of fifty changes at most; of more it is not looked what was changed."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """Runs of jobs that hang."""

    runs: tuple[Unfinished, ...]
    """The one that runs longest first."""
    complete: bool
    """False: there are more runs than were looked at."""


async def hanging(store: Calls, now_ms: int) -> Hanging:
    """Runs that hang, see `Unfinished.hangs`; of the first LEASED runs of a shard, those that have run for longest."""

    async def of_shard(shard: int) -> tuple[list[Unfinished], bool]:
        # Those of overlap `allow` have a lease as tasks that were spawned.
        jobs, others = await asyncio.gather(
            *(
                store.call("task/list", shard, place=place, queue="", after="", limit=LEASED, **asked(place))
                for place in ("jobs", "running")
            )
        )
        ids = [task_id.decode(errors="replace") for task_id in (*jobs.ids, *others.ids)]
        found, all_of_them = await longest(store, shard, [task_id for task_id in ids if job_of_task(task_id)], now_ms, LEAST)
        return [run for run in found if run.hangs], all_of_them and not (jobs.cursor or others.cursor)

    shards = await store.on_every_shard(of_shard)
    runs = sorted((run for found, _ in shards for run in found), key=lambda run: -(run.seconds or 0))
    return Hanging(tuple(runs), all(complete for _, complete in shards))


@dataclass(frozen=True, slots=True)
class Lacking:
    """Functions of jobs that no living instance has."""

    functions: tuple[tuple[str, str], ...]
    """Each with a job that runs it, by name."""
    complete: bool
    """False: there are more jobs than were looked at."""


async def lacking(store: Calls, living: Sequence[Instance], *, whole: bool = False) -> Lacking:
    """Functions that nobody has, of the first FUNCTIONS jobs of each shard (`job/functions`). None where no instance works.

    whole: of all jobs.
    """
    workers = [instance for instance in living if instance.queues]
    if not workers or any(len(instance.tasks) >= MOST_FUNCTIONS for instance in workers):
        return Lacking((), True)
    known = {name for instance in workers for name in instance.tasks}
    found, complete = dict[str, str](), True

    async def of_shard(shard: int) -> None:
        nonlocal complete
        after, more = b"", True
        while more:
            after, words = await store.call("job/functions", shard, after=after, limit=FUNCTIONS)
            for at in range(0, len(words), 2):
                if (name := words[at].decode(errors="replace")) not in known:
                    found.setdefault(name, words[at + 1].decode(errors="replace"))
            more = whole and bool(after)
        complete = complete and not after

    await store.on_every_shard(of_shard)
    return Lacking(tuple(sorted(found.items())), complete)


def unserved(ready: Iterable[tuple[str, int]], living: Sequence[Instance], now: float) -> list[tuple[str, int]]:
    """The queues that hold ready tasks and that no living instance serves, of (name, ready); none where no instance works."""
    served = {queue for instance in living if now - instance.seen_at <= SILENT for queue in instance.queues}
    return [(name, count) for name, count in ready if count and name not in served]


@dataclass(frozen=True, slots=True)
class Paused:
    """Jobs that are paused."""

    many: int
    """Where they are too many to look at, those are counted that have retired since."""
    changes: tuple[tuple[str, Change], ...]
    """Of each the change by which it is; those that were paused by themselves first, and then the latest first."""
    complete: bool
    """False: there are too many to look at."""


async def paused(store: Calls) -> Paused:
    """Paused jobs, read at once where a shard has no more than PAUSED; else only counted."""

    async def of_shard(shard: int) -> tuple[int, list[tuple[str, Change]]]:
        wire, key = store.wire(shard), store.keys.key(shard, "job:paused")
        many = int(await wire.command("HLEN", key))
        if not 0 < many <= PAUSED:
            return many, []
        said = await wire.command("HGETALL", key)
        lines = dict(said.items() if isinstance(said, dict) else zip(said[::2], said[1::2], strict=True))
        places = await wire.command("HMGET", store.keys.key(shard, "job:slot"), *lines)
        read = ((name, _change(place or b"", line)) for (name, line), place in zip(lines.items(), places, strict=True))
        found = [(name.decode(errors="replace"), change) for name, change in read if change is not None]
        return len(found), found

    shards = await store.on_every_shard(of_shard)
    changes = sorted((one for _, some in shards for one in some), key=lambda one: (not by_itself(one[1]), -(one[1].at or 0)))
    return Paused(sum(many for many, _ in shards), tuple(changes), all(many <= PAUSED for many, _ in shards))


async def changed(store: Calls, since: float) -> list[tuple[str, Change]]:
    """Jobs that were given another trigger since then, the latest first; none of a shard that has more than CHANGED logs."""

    async def of_shard(shard: int) -> list[tuple[str, Change]]:
        wire, key = store.wire(shard), store.keys.key(shard, "job:changes")
        if not 0 < int(await wire.command("HLEN", key)) <= CHANGED:
            return []
        said = await wire.command("HGETALL", key)
        pairs = said.items() if isinstance(said, dict) else zip(said[::2], said[1::2], strict=True)
        logs = [(name.decode(errors="replace"), text.split(b"\xff")) for name, text in pairs if name]
        changes = [(name, change) for name, lines in logs for line in lines if (change := _read(line)) is not None]
        return [(name, change) for name, change in changes if change.before and (change.at or 0) >= since]

    shards = await store.on_every_shard(of_shard)
    latest = {name: change for some in shards for name, change in some}
    return sorted(latest.items(), key=lambda one: -(one[1].at or 0))


def by_itself(change: Change) -> bool:
    """Whether a job was paused by its failures."""
    return change.by == "pause_after"


def _read(line: bytes) -> Change | None:
    try:
        return Change.of(line.decode("latin-1"))
    except ValueError:
        return None


def _change(place: bytes, line: bytes) -> Change | None:
    """By which a job is paused that stands so; one that has retired keeps its pause, and is not told of."""
    try:
        return paused_by(place.decode(), line.decode("latin-1"))
    except ValueError:
        return None
