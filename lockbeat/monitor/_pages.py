"""What pages of a store show, each read within a bound: however much the store holds, so many runs of scripts and no more."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lockbeat.errors import Unreadable
from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.listing import State, Wanted, as_indexed
from lockbeat.jobs.marks import Mark, latest
from lockbeat.store import Store
from lockbeat.store.calls import Calls
from lockbeat.store.keys import shard_of_task
from lockbeat.store.replies import sifted
from lockbeat.tasks.look import PLACES, asked
from lockbeat.tasks.values import State as TaskState
from lockbeat.tasks.values import TaskInfo
from lockbeat.triggers.base import FAR_MS

RUNS = 12
"""Of a script that looks for something, that one page takes of a shard."""
AT_ONCE = 2000
"""As many as a run of `job/list` looks at."""
LOOKED = 4000
"""Tasks that one page looks at, and up to a run more."""
SECOND = 1000


@dataclass(frozen=True, slots=True)
class Strip:
    """The latest slots of a job."""

    marks: tuple[Mark, ...]
    """The newest first."""
    latest: LedgerEntry | None


async def strips(store: Store, shard_of: Callable[[str], int], names: Sequence[str], most: int = 60) -> dict[str, Strip]:
    """The latest slots of several jobs, whichever shards they are on."""
    by_shard, found = defaultdict[int, list[str]](list), dict[str, Strip]()
    for name in names:
        by_shard[shard_of(name)].append(name)

    async def of_shard(shard: int, some: list[str]) -> None:
        for name, (marks, record) in (await latest(store, shard, some, most)).items():
            found[name] = Strip(marks, LedgerEntry.of(name, marks[0].slot_ms, record, b"") if marks else None)

    await asyncio.gather(*(of_shard(shard, some) for shard, some in by_shard.items()))
    return found


@dataclass(frozen=True, slots=True)
class Names:
    """A page of the names of jobs, and where to go on."""

    names: tuple[str, ...]
    more: str | None
    """None: there are no more."""


async def soonest(store: Store, limit: int, after: str | None = None) -> Names:
    """Names of jobs in the order in which they come due (`job/soonest`). after: `more` of the page before."""
    due, _, name = (after or "0 ").partition(" ")
    due_ms = int(due) if due.isascii() and due.isdigit() and len(due) <= 15 else 0

    async def one_shard(shard: int) -> list[tuple[int, bytes]]:
        reply = await store.call("job/soonest", shard, due=due_ms, after=name, limit=limit + 1)
        return [(score, member) for member, score in reply.rows]

    found = sorted(row for rows in await store.on_every_shard(one_shard) for row in rows)
    page = found[:limit]
    more = f"{page[-1][0]} {page[-1][1].decode(errors='replace')}" if len(found) > limit else None
    return Names(tuple(name.decode(errors="replace") for _, name in page), more)


async def named(
    store: Store, limit: int, after: str = "", *, begins: str = "", tag: str | None = None, state: State | None = None
) -> Names:
    """Names of jobs in their order, of those that may be what is asked for (`job/list`).

    A page may have fewer than `limit`, and say `more`: it looks at so many jobs and no more.
    """
    wanted = Wanted.of(tag, None, state)
    args: dict[str, Any] = {"texts": [], "tag": as_indexed(wanted.tag), "state": state or "", "origin": ""}
    first, start = begins.encode(), max(after, begins).encode()
    cursors, found = dict.fromkeys(range(store.shards), start), set[bytes]()
    known: list[bytes] = []
    for run in range(RUNS):
        many = AT_ONCE if run else limit + 1  # few are like that
        replies = await asyncio.gather(
            *(store.call("job/list", shard, after=cursor, limit=many, **args) for shard, cursor in cursors.items())
        )
        for (shard, _), reply in zip([*cursors.items()], replies, strict=True):
            found.update(reply.jobs)
            if reply.cursor:
                cursors[shard] = reply.cursor
            else:
                del cursors[shard]
        # What lies behind the nearest place to which a shard was looked through may still be missing from it.
        known = sorted(name for name in found if all(name <= cursor for cursor in cursors.values()))
        if not cursors or len(known) > limit or (known and not known[-1].startswith(first)):
            break
    names = [name.decode(errors="replace") for name in known if name.startswith(first)]
    if begins and not after:
        names.insert(0, begins)  # a cursor is a name that is left out
    if len(names) > limit:
        return Names(tuple(names[:limit]), names[limit - 1])
    over = not cursors or any(not name.startswith(first) for name in known)
    return Names(tuple(names), None if over else min(cursors.values()).decode(errors="replace"))


async def some(store: Store, state: State, limit: int) -> tuple[list[str], bool]:
    """Names of jobs in this state, and whether these are all: what one run of `job/list` a shard finds."""
    replies = await store.on_every_shard(
        lambda shard: store.call("job/list", shard, after="", limit=limit, texts=[], tag="", state=state, origin="")
    )
    names = sorted(name.decode(errors="replace") for reply in replies for name in reply.jobs)
    return names[:limit], len(names) <= limit and not any(reply.cursor for reply in replies)


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job that nobody has fired in time."""

    job: str
    by: float
    """Seconds since it was due."""


async def overdue(store: Calls, at_least: float, limit: int = 200) -> list[Overdue]:
    """Jobs that are overdue, the worst first; of those that have been due the longest."""

    async def one_shard(shard: int) -> list[Overdue]:
        reply = await store.call("job/soonest", shard, due=0, after="", limit=limit)
        names = [name for name, due_ms in reply.rows if due_ms <= reply.now_ms + SECOND]
        slots = await store.wire(shard).command("HMGET", store.keys.key(shard, "job:slot"), *names) if names else []
        # By their slots: one that is handed out again and again is hidden each time.
        late = [(name, int(words[1])) for name, slot in zip(names, slots, strict=True) if _stands(words := (slot or b"").split())]
        return [
            Overdue(name.decode(errors="replace"), (reply.now_ms - due_ms) / 1000)
            for name, due_ms in late
            if due_ms < reply.now_ms - at_least * 1000
        ]

    found = [late for several in await store.on_every_shard(one_shard) for late in several]
    return sorted(found, key=lambda late: -late.by)


def _stands(words: Sequence[bytes]) -> bool:
    return len(words) > 1 and words[0] != b"-1" and words[1].isdigit()


async def triggered(store: Store, shard: int, job: str, most: int = 10) -> list[LedgerEntry]:
    """The latest runs of a job that were triggered, the newest first, as far as four looks reach (`job/history`)."""
    found, until_ms = list[LedgerEntry](), FAR_MS
    for _ in range(4):
        asked = store.call("job/history", shard, odd=1, until=until_ms, since=0, states=[], limit=100, tag="")
        until_ms, rows, _ = await asked
        ids = [(at_ms, task_id.decode(errors="replace"), record, failure) for at_ms, task_id, record, failure in rows]
        found += [
            LedgerEntry.of(job, at, record, failure, run) for at, run, record, failure in ids if run.rpartition("!")[0] == job
        ]
        if until_ms < 0 or len(found) >= most:
            break
    return sorted(found, key=lambda entry: -(entry.at_ms or 0))[:most]


@dataclass(frozen=True, slots=True)
class Tasks:
    """A page of tasks, and where to go on."""

    tasks: tuple[TaskInfo, ...]
    more: str | None
    looked: int
    """How many were looked at."""


async def tasks(
    store: Store,
    state: TaskState | None = None,
    *,
    queue: str | None = None,
    function: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Tasks:
    """Tasks of a state, a queue and a function, in the order of `PLACES` (`task/list`); None: of any.

    after: `more` of the page before, "PLACE SHARD CURSOR".
    """
    steps = [(place, shard) for place in PLACES[state] for shard in range(store.shards)]
    at, cursor = _step(after, steps)
    found, looked = dict[str, TaskInfo](), 0
    for _ in range(max(RUNS, len(steps))):
        if at == len(steps) or len(found) >= limit or looked >= LOOKED:
            break
        place, shard = steps[at]
        page = await store.call(
            "task/list",
            shard,
            place=place,
            queue=queue or "",
            after=cursor.encode("latin-1", "replace"),
            limit=min(100, limit - len(found)),
            **asked(place, state, queue, function),
        )
        looked += page.looked
        for info in await infos(store, shard, [task_id.decode(errors="replace") for task_id in page.ids]):
            if state in (None, info.state) and queue in (None, info.queue) and function in (None, info.name):
                found.setdefault(info.id, info)
        cursor = page.cursor.decode("latin-1")
        if not cursor:
            at, cursor = at + 1, ""
    more = f"{steps[at][0]} {steps[at][1]} {cursor}" if at < len(steps) else None
    return Tasks(tuple(found.values()), more, looked)


def _step(after: str | None, steps: Sequence[tuple[str, int]]) -> tuple[int, str]:
    place, _, rest = (after or "").partition(" ")
    shard, _, cursor = rest.partition(" ")
    for number, step in enumerate(steps):
        if after and step == (place, int(shard) if shard.isdecimal() else -1):
            return number, cursor
    return 0, ""


async def infos(store: Store, shard: int, ids: Sequence[str]) -> list[TaskInfo]:
    """Those of these tasks that are there and can be read (`task/get`)."""
    rows = [store.row["task/get"](id=task_id) for task_id in ids]
    found = []
    for task_id, reply in zip(ids, await store.call_many(rows, shard), strict=True):
        try:
            info = None if isinstance(reply, Unreadable) else TaskInfo.of(task_id, reply, partial(store.keys.key, shard))
        except Unreadable:
            continue
        if info is not None:
            found.append(info)
    return found


async def each_task(store: Store, script: str, ids: Iterable[str], **args: Any) -> Counter[int]:
    """Have a script of one task at a time done to several; how often it answered what, see `store.results`."""
    by_shard = defaultdict[int, list[str]](list)
    for task_id in ids:
        by_shard[shard_of_task(task_id, store.shards)].append(task_id)

    async def one_shard(shard: int, some: list[str]) -> list[int]:
        rows = [store.row[script](id=task_id, call=store.new_call(), **args) for task_id in some]
        return sifted(await store.call_many(rows, shard))

    said = await asyncio.gather(*(one_shard(shard, some) for shard, some in by_shard.items()))
    return Counter(reply for replies in said for reply in replies)
