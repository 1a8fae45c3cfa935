"""What tests of the beat share: instances of it, and jobs whose slots came due a while ago."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import time_machine

from lockbeat import Beat, Lockbeat
from lockbeat.jobs import Job, JobState, LedgerEntry, Scheduler
from lockbeat.jobs.scheduler import APART
from lockbeat.store import Store
from lockbeat.store.rows import Row
from lockbeat.tasks import Task
from lockbeat.triggers import Every
from tests.conftest import PATIENCE

MINUTE = 60_000


def shot(lb: Lockbeat, job: Job, slot: int, /, **changes: Any) -> Row:
    """beat/fire as an instance sends it at that slot that has no worker, and knows of none that was missed."""
    following = slot // MINUTE * MINUTE + MINUTE
    given: dict[str, Any] = {
        "job": job.name,
        "expected": f"{slot} {slot} {job.rev}",
        "slot": slot,
        "missed": "",
        "next": f"{following} {following} {job.rev}",
        "record": job.record,
        "policies": job.firing,
        "owner": lb.owner,
        "call": lb.store.new_call(),
        "lease_ms": 0,
        "calendars": "",
        "excluded": "",
    }
    return lb.store.row["beat/fire"](**(given | changes))


class Hands:
    """A runner that takes what it is given and does nothing with it, unless the test does."""

    def __init__(self, *names: str, places: int = 1000) -> None:
        self.names = set(names)
        self.places = places
        self.tasks: list[Task] = []
        self.here: Sequence[bool] = ()

    @property
    def room(self) -> int:
        return self.places

    @contextmanager
    def starting(self, shard: int, call: str, jobs: Sequence[Job]) -> Iterator[Hands]:
        self.here = [number < self.places and job.name in self.names for number, job in enumerate(jobs)]
        yield self

    burst = nullcontext[None]

    def begin(self, task: Task) -> None:
        self.places -= 1
        self.tasks.append(task)

    def put_off(self, task: Task) -> None:
        raise AssertionError("nothing is durable here")


@cache
def _this_second(test: str) -> datetime:
    """When this test first asked; not as a minute began, for then a cron line would say the same, and some are told that."""
    now = datetime.now(UTC).replace(microsecond=0)
    return now - timedelta(seconds=not now.second)


def minutely(name: str = "report", **options: Any) -> Job:
    """A job whose next slot is far enough away for a test to end before it: its minutes begin with the test, unless that moves
    the clock itself."""
    moved = time_machine.escape_hatch.is_travelling()
    anchor = None if moved else _this_second(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
    return Job.declare(name, options.pop("trigger", Every(60, anchor)), **options)


def scheduler(lb: Lockbeat, *jobs: Job, runner: Any = None) -> Scheduler:
    """A scheduler as an instance with these jobs in its code has."""
    return Scheduler(lb.store, lb.jobs, {job.name: job for job in jobs}, runner)


async def backdate(lb: Lockbeat, raw: Any, name: str, slot_ms: int, due_ms: int | None = None) -> None:
    """Let the job's next slot be this one, as if no instance had run since."""
    state = await lb.jobs.get(name)
    shard, due = lb.jobs.shard_of(name), slot_ms if due_ms is None else due_ms
    key = lb.store.keys.key
    raw.hset(key(shard, "job:slot"), name, f"{slot_ms} {due} {state.job.rev}")
    raw.zadd(key(shard, "job:due"), {name: due})


async def now_ms(lb: Lockbeat) -> int:
    """The server's clock."""
    return round(await lb.store.server_time() * 1000)


async def last_slot(lb: Lockbeat, state: JobState, back: int = 0) -> int:
    """The latest slot that has come due, or one `back` periods before it."""
    slot = state.job.trigger.prev(await now_ms(lb))
    for _ in range(back):
        assert slot is not None
        slot = state.job.trigger.prev(slot - 1)
    assert slot is not None
    return slot


async def overdue(lb: Lockbeat, raw: Any, job: Job, back: int = 0) -> int:
    """Declare a job whose slot has come due, and `back` more since; returns the first of them."""
    await lb.jobs.put(job)
    slot = await last_slot(lb, await lb.jobs.get(job.name), back)
    await backdate(lb, raw, job.name, slot)
    return slot


async def fired(lb: Lockbeat, raw: Any, **options: Any) -> Task:
    """An attempt of a job's slot, which this client has started."""
    job, hands = minutely(**options), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of(job.name))
    [task] = hands.tasks
    return task


async def drain(beat: Scheduler, shard: int = 0) -> None:
    """Turns until nothing more is due."""
    for _ in range(50):
        pause = await beat.tick(shard)
        if pause is None or pause > APART:
            return
    raise AssertionError("it does not come to an end")


async def ledger(lb: Lockbeat, name: str) -> list[LedgerEntry]:
    """A job's ledger, oldest first."""
    return (await lb.jobs.ledger(name, 1000))[::-1]


async def states(lb: Lockbeat, name: str) -> list[str]:
    """What became of each slot, oldest first."""
    return [entry.state for entry in await ledger(lb, name)]


async def eventually(
    ask: Callable[[], Awaitable[object]], description: str, timeout: float = PATIENCE, step: float = 0.01
) -> None:
    """Ask again until the answer is true; AssertionError with the description otherwise."""
    deadline = time.monotonic() + timeout
    while not await ask():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened within {timeout:g} s: {description}")
        await asyncio.sleep(step)


def client_of(beat: Beat) -> Lockbeat:
    """Whose keeper looks after what the beat runs."""
    assert beat._client is not None
    return beat._client


def held_by(raw: Any, store: Store, owner: str) -> list[str]:
    """Every lease and lock that an owner has, live or not."""
    found = []
    low, high = f"[{owner}".encode() + b"\xff", f"({owner}".encode() + b"\xff\xff"
    for shard in range(store.shards):
        for index in ("task:owned", "lock:owned"):
            members: list[bytes] = raw.zrangebylex(store.keys.key(shard, index), low, high)
            found += [f"{index} {member!r}" for member in members]
    return found


def tasks_of(raw: Any, lb: Lockbeat) -> list[str]:
    """The ids of all tasks that have not ended."""
    found: list[str] = []
    for shard in range(lb.store.shards):
        records: dict[bytes, bytes] = raw.hgetall(lb.store.keys.key(shard, "task"))
        found += [
            task.decode() for task, text in records.items() if text.partition(b" ")[0] in (b"waiting", b"running", b"stopping")
        ]
    return sorted(found)


class Beats:
    """Makes instances of one beat, as the processes of a service would have them."""

    def __init__(self, url: str, namespace: str, shards: int) -> None:
        self._url = url
        self._settings: dict[str, Any] = {"namespace": namespace, "shards": shards, "grace": 1}

    def __call__(self, **options: Any) -> Beat:
        return Beat(options.pop("url", self._url), **(self._settings | options))
