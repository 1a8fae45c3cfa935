"""A job's line and its failures: who has the next turn, and when so many failures pause it. The tables: test_policy_tables.py."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.tasks import Task
from tests.beats import backdate, eventually, ledger, now_ms, scheduler, tasks_of
from tests.tasks import until


class Line:
    """A job whose first slot runs, with slots in line behind it."""

    def __init__(self, lb: Lockbeat, job: Job) -> None:
        self.lb = lb
        self.job = job
        self.shard = lb.jobs.shard_of(job.name)

    async def fire(self, raw: Any, slots: int = 1) -> None:
        """Let so many slots come due, one after the other, a second apart; each is fired by an instance of its own."""
        for _ in range(slots):
            kept = [entry.slot_ms for entry in await ledger(self.lb, self.job.name)]
            await backdate(self.lb, raw, self.job.name, (max(kept) if kept else await now_ms(self.lb) - 30_000) + 1000)
            await scheduler(self.lb, self.job).tick(self.shard)

    async def claim(self) -> list[Task]:
        return await self.lb.tasks.claim("default", "alice", 10, 30)

    async def states(self) -> list[tuple[str, str | None]]:
        return [(entry.state, entry.code) for entry in await ledger(self.lb, self.job.name)]


async def line(lb: Lockbeat, raw: Any, slots: int, **options: Any) -> tuple[Line, Task]:
    """Such a job, and the attempt of its first slot."""
    far = datetime.fromtimestamp(await lb.store.server_time() + 3600, UTC).replace(microsecond=0)
    made = Line(lb, Job.declare("job", Every(7200, far), **({"overlap": "buffer_all"} | options)))
    await lb.jobs.put(made.job)
    await made.fire(raw)
    [first] = await made.claim()
    await made.fire(raw, slots)
    state = await lb.jobs.get("job")
    assert (state.open, state.in_line) == (first.id, slots)
    assert await made.claim() == []
    return made, first


async def test_a_slot_in_line_begins_when_the_one_before_has_ended_however_it_did(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 4)
    await lb.tasks.complete(first)
    [second] = await made.claim()
    assert second.slot_ms == (first.slot_ms or 0) + 1000
    await lb.tasks.fail(second, "broken")
    assert len(await made.claim()) == 1
    assert await lb.tasks.release_all("alice") == 1
    [fourth] = await made.claim()
    assert await lb.tasks.cancel(fourth.id)
    assert await made.claim() == [], "its body has yet to stop"
    await lb.tasks.release(fourth, begun=True)
    [fifth] = await made.claim()
    assert fifth.slot_ms == (first.slot_ms or 0) + 4000
    state = await lb.jobs.get("job")
    assert (state.open, state.in_line) == (fifth.id, 0)
    await lb.tasks.complete(fifth)
    assert (await lb.jobs.get("job")).open is None
    assert [state for state, _ in await made.states()] == ["done", "failed", "lost", "cancelled", "done"]


async def test_one_in_line_can_be_cancelled_and_the_others_keep_their_turn(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 3)
    entries = await ledger(lb, "job")
    assert [entry.code for entry in entries[1:]] == ["buffered"] * 3
    assert [(entry.state, entry.by, entry.reason) for entry in entries[1:2]] == [
        ("fired", lb.owner, "overlap: it waits for the one before to end")
    ]
    assert await lb.tasks.cancel(entries[2].task_id)
    assert (await lb.jobs.get("job")).in_line == 2
    await lb.tasks.complete(first)
    [second] = await made.claim()
    await lb.tasks.complete(second)
    [last] = await made.claim()
    assert [second.id, last.id] == [entries[1].task_id, entries[3].task_id]


async def test_a_job_is_deleted_with_its_line(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 3)
    raw.delete(lb.store.keys.key(made.shard, "ledger:order"))  # it keeps fewer than wait
    assert await lb.jobs.delete("job")
    await lb.tasks.complete(first)
    assert await made.claim() == []
    assert tasks_of(raw, lb) == []


async def test_what_waited_its_turn_waits_for_a_lock_that_somebody_else_holds(lb: Lockbeat, raw: Any) -> None:
    """It was fired, so it is not skipped for it: the lock was handed to whoever waited."""
    made, first = await line(lb, raw, 2)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(lb.lock("job:job", ttl=30).__aenter__())
        await eventually(lambda: _waits(lb, raw, made.shard), "it waits for the lock")
        await lb.tasks.complete(first)
        await waiter
    assert await made.claim() == []
    assert [state for state, _ in await made.states()] == ["done", "fired", "fired"]
    assert await lb.locks.release("job:job", lb.owner)
    found: list[Task] = []

    async def claimed() -> bool:
        found.extend(await made.claim())
        return bool(found)

    await eventually(claimed, "it is claimed when the lock is free")
    assert [task.slot_ms for task in found] == [(first.slot_ms or 0) + 1000]
    assert (await lb.jobs.get("job")).in_line == 1


async def _waits(lb: Lockbeat, raw: Any, shard: int) -> bool:
    return bool(raw.zcard(lb.store.keys.key(shard, "lock:queue")))


async def test_when_the_policy_changes_those_in_line_still_have_their_turn(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 2)
    await lb.jobs.put(dataclasses.replace(made.job, overlap="allow"))
    await lb.tasks.complete(first)
    for _ in range(2):
        [task] = await made.claim()
        await lb.tasks.complete(task)
    assert [state for state, _ in await made.states()] == ["done"] * 3


async def test_what_an_older_version_has_ended_does_not_hold_the_line(lb: Lockbeat, raw: Any) -> None:
    """It knows of no line: the next slot finds the one that is done, and lets the line go on."""
    made, first = await line(lb, raw, 2)
    key = lb.store.keys.key(made.shard, "job:open")
    before = raw.hget(key, "job")
    await lb.tasks.complete(first)
    [second] = await made.claim()
    await lb.tasks.complete(second)
    raw.hset(key, "job", before)
    await made.fire(raw)
    [third] = await made.claim()
    assert third.slot_ms == (first.slot_ms or 0) + 2000
    assert (await lb.jobs.get("job")).in_line == 1


async def test_a_dead_slot_that_is_retried_does_not_run_beside_the_line(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 1)
    await lb.tasks.fail(first, "broken")
    [second] = await made.claim()
    await lb.tasks.retry(first.id)
    assert await made.claim() == [], "the next in line has the job's lock"
    await lb.tasks.complete(second)
    found: list[Task] = []

    async def claimed() -> bool:
        found.extend(await made.claim())
        return bool(found)

    await eventually(claimed, "it is tried again")
    assert [task.id for task in found] == [first.id]


async def test_a_line_that_was_lost_from_the_store_still_runs_one_after_the_other(lb: Lockbeat, raw: Any) -> None:
    made, first = await line(lb, raw, 2)
    assert await lb.store.call("task/mend", made.shard, limit=100) == 0, "in line a task stands where it should"
    raw.delete(lb.store.keys.key(made.shard, "job:open"))
    assert await lb.store.call("task/mend", made.shard, limit=100) == 2
    ran = [first]

    async def claimed() -> bool:
        found = await made.claim()
        assert len(found) <= 1
        ran.extend(found)
        return bool(found)

    for _ in range(2):
        assert await made.claim() == [], "the one before has the job's lock"
        await lb.tasks.complete(ran[-1])
        await eventually(claimed, "the next has its turn")
    assert len({task.id for task in ran}) == 3


class Failing:
    """A job whose slots come due, one after the other, and end as they are told to."""

    def __init__(self, lb: Lockbeat, raw: Any, job: Job) -> None:
        self.lb, self.raw, self.job = lb, raw, job
        self.line = Line(lb, job)

    async def slot(self, *ends: str) -> list[str]:
        """So many slots; what became of each: how it ended, or that it was not fired."""
        found = []
        for end in ends:
            if (await self.lb.jobs.get(self.job.name)).paused is not None:
                found.append("paused")
                continue
            await self.line.fire(self.raw)
            tasks = await self.line.claim()
            for task in tasks:
                if end == "lost":
                    await self.lb.tasks.release_all("alice")
                elif end == "cancelled":
                    await self.lb.tasks.cancel(task.id)
                    await self.lb.tasks.release(task, begun=True)
                else:
                    await (self.lb.tasks.complete(task) if end == "done" else self.lb.tasks.fail(task, "broken"))
            found.append(end if tasks else "not fired")
        return found


async def failing(lb: Lockbeat, raw: Any, **options: Any) -> Failing:
    far = datetime.fromtimestamp(await lb.store.server_time() + 3600, UTC).replace(microsecond=0)
    job = Job.declare("job", Every(7200, far), **({"pause_after": 3} | options))
    await lb.jobs.put(job)
    return Failing(lb, raw, job)


@pytest.mark.parametrize(
    "ends",
    [
        "failed failed failed !",
        "failed lost failed !",
        "failed failed done failed failed done",
        "failed failed done failed failed failed !",
        "failed failed cancelled failed !",
        "failed cancelled failed done failed",
    ],
)
async def test_so_many_failures_in_a_row_pause_a_job(lb: Lockbeat, raw: Any, ends: str) -> None:
    made, told = await failing(lb, raw), ends.replace("!", "not fired paused")
    asked = ends.replace("!", "done done").split(" ")
    assert await made.slot(*asked) == re.findall("not fired|[a-z]+", told)
    paused = (await lb.jobs.get("job")).paused
    if "!" in ends:
        assert paused is not None
        assert (paused.what, paused.by, paused.reason, paused.until_at) == ("pause", "pause_after", "3 failures in a row", None)
    else:
        assert paused is None


@pytest.mark.parametrize("catchup", ["skip", "latest"])
async def test_a_job_that_was_resumed_may_fail_as_often_again(lb: Lockbeat, raw: Any, catchup: Any) -> None:
    made = await failing(lb, raw)
    assert (await made.slot(*["failed"] * 4))[-1] == "not fired"
    assert await lb.jobs.resume("job", catchup, by="Ada") is not None
    await until(lb, await lb.store.server_time() + 0.01)
    if catchup == "latest":
        await scheduler(lb, made.job).tick(made.line.shard)
        [task] = await made.line.claim()
        await lb.tasks.fail(task, "still broken")
    else:
        assert await made.slot("failed") == ["failed"]
    assert await made.slot("failed", "failed", "failed", "done") == ["failed", "failed", "not fired", "paused"]
    assert [change.what for change in await lb.jobs.changes("job")] == ["pause", "resume", "pause"]


async def test_a_job_that_has_moved_on_is_not_paused_by_who_saw_it_before(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = await failing(lb, raw, pause_after=1)
    assert await made.slot("failed") == ["failed"]
    assert await lb.jobs.pause_failing(made.job, "1 1 1.1 -")
    assert (await lb.jobs.get("job")).paused is None
    assert await made.slot("failed", "failed") == ["not fired", "paused"]
    assert "job 'job' is paused: a failure; when" in caplog.text


def test_pause_after_needs_as_many_entries() -> None:
    with pytest.raises(ValueError, match="pause_after: needs a ledger of as many entries, and keep is 2"):
        Job.declare("job", Every(7), pause_after=3, keep=2)
    with pytest.raises(ValueError, match="pause_after: "):
        Job.declare("job", Every(7), pause_after=0)
    assert Job.declare("job", Every(7), pause_after=3).definition.startswith('{"needs":2')
