"""What a job's policies make of its slots, slot by slot: over a clock that is moved, and on real servers in real seconds."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.tasks import Task
from tests.beats import backdate, eventually, ledger, now_ms, scheduler, tasks_of
from tests.conftest import only
from tests.policies import Play, moment, table
from tests.tasks import until

# Short enough to be played in real seconds, too.
PLAYS: dict[str, tuple[Play, str]] = {
    "skip: what comes due while it runs is not fired": (
        Play({"overlap": "skip"}, takes=15),
        """
        10: done 10-25
        20: skipped overlap
        30: done 30-45
        40: skipped overlap
        50: fired 50-
        """,
    ),
    "allow: all run, beside each other": (
        Play({"overlap": "allow"}, takes=15),
        """
        10: done 10-25
        20: done 20-35
        30: done 30-45
        40: done 40-55
        50: fired 50-
        """,
    ),
    "buffer_one: one waits, and the latest wins": (
        Play({"overlap": "buffer_one"}, takes=(25, 5, 5, 5)),
        """
        10: done 10-35
        20: skipped overtaken
        30: done 35-40
        40: done 40-45
        50: done 50-55
        """,
    ),
    "buffer_all: all wait, the oldest first": (
        Play({"overlap": "buffer_all"}, takes=(35, 3, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "buffer_all: no more wait than may": (
        Play({"overlap": "buffer_all", "buffer": 1}, takes=(35, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: skipped buffer_full
        40: skipped buffer_full
        50: done 50-53
        """,
    ),
    "buffer_all: what waits was fired in time, and its window does not drop it": (
        Play({"overlap": "buffer_all", "window": 4}, takes=(35, 3, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "cancel_other: what runs is cancelled, and the next begins when it has stopped": (
        Play({"overlap": "cancel_other"}, takes=(15, 5, 15, 5, 5)),
        """
        10: cancelled overtaken 10-23
        20: done 23-28
        30: cancelled overtaken 30-43
        40: done 43-48
        50: done 50-55
        """,
    ),
}
LONGER: dict[str, tuple[Play, str]] = {
    "the same through the queue": (
        Play({"overlap": "buffer_one"}, takes=(25, 5, 5, 5), here=False),
        PLAYS["buffer_one: one waits, and the latest wins"][1],
    ),
    "buffer_one: while no worker is there, the latest takes the place": (
        Play({"overlap": "buffer_one"}, idle=(5, 35)),
        """
        10: missed not_begun
        20: missed not_begun
        30: done 35-40
        40: done 40-45
        50: done 50-55
        """,
    ),
    "buffer_all: while no worker is there, all wait": (
        Play({"overlap": "buffer_all"}, takes=3, idle=(5, 35)),
        """
        10: done 35-38
        20: done 38-41
        30: done 41-44
        40: done 44-47
        50: done 50-53
        """,
    ),
    "buffer_all: one that is tried again keeps its turn": (
        Play({"overlap": "buffer_all", "max_attempts": 2}, takes=(15, 15, 3, 3, 3, 3), fails=(0,)),
        """
        10: done 10-25 25-40
        20: done 40-43
        30: done 43-46
        40: done 46-49
        50: done 50-53
        """,
    ),
    "latest: an outage costs all slots but the latest": (
        Play({"catchup": "latest"}, away=(15, 45)),
        """
        10: done 10-15
        20-30: missed not_fired
        40: done 45-50
        50: done 50-55
        """,
    ),
    "skip: the latest too, if it is late": (
        Play({"catchup": "skip", "window": 3}, away=(15, 45)),
        """
        10: done 10-15
        20-30: missed not_fired
        40: missed late
        50: done 50-55
        """,
    ),
    "all: the missed ones, the oldest first, one at a time": (
        Play({"catchup": "all"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all: beyond the cap the oldest are missed": (
        Play({"catchup": "all", "cap": 2}, takes=3, away=(15, 65), until=79),
        """
        10: done 10-13
        20-40: missed not_fired
        50: done 65-68
        60: done 68-71
        70: skipped overlap
        """,
    ),
    "all: a window bounds it": (
        Play({"catchup": "all", "window": 17}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: missed not_fired
        30: done 45-48
        40: done 48-51
        50: skipped overlap
        """,
    ),
    "all: what is late behind what was missed is not dropped by the window, but waits its turn": (
        Play({"catchup": "all", "window": 17}, takes=9, away=(15, 45), until=79),
        """
        10: done 10-19
        20: missed not_fired
        30: done 45-54
        40: done 54-63
        50: done 63-72
        60: fired 72-
        70: fired buffered
        """,
    ),
    "all and allow: beside each other": (
        Play({"catchup": "all", "overlap": "allow"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 45-48
        40: done 45-48
        50: done 50-53
        """,
    ),
    "all and buffer_one: the missed wait all, as they do under any overlap": (
        Play({"catchup": "all", "overlap": "buffer_one"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all and cancel_other: what is caught up is not cancelled": (
        Play({"catchup": "all", "overlap": "cancel_other"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all: a slot of now is skipped as ever": (
        Play({"catchup": "all"}, takes=15),
        PLAYS["skip: what comes due while it runs is not fired"][1],
    ),
    "all: while no worker is there, all wait": (
        Play({"catchup": "all"}, takes=3, idle=(5, 35)),
        """
        10: done 35-38
        20: done 38-41
        30: done 41-44
        40: done 44-47
        50: done 50-53
        """,
    ),
    "a window: begun within it, or missed": (
        Play({"window": 3}, idle=(15, 25)),
        """
        10: done 10-15
        20: missed not_begun_within
        30: done 30-35
        40: done 40-45
        50: done 50-55
        """,
    ),
    "a limit: fired as often, and no more": (
        Play({"limit": 2}, takes=15),
        """
        10: done 10-25
        20: skipped overlap
        30: done 30-45
        """,
    ),
}
START = datetime(2026, 5, 1, tzinfo=UTC)


@only("memory")
@pytest.mark.parametrize("name", [*PLAYS, *LONGER])
async def test_what_becomes_of_each_slot(lb: Lockbeat, name: str) -> None:
    play, expected = (PLAYS | LONGER)[name]
    with time_machine.travel(START, tick=False) as clock:

        async def move(now: float) -> None:
            clock.move_to(moment(START, 1, now))

        assert await play.play(lb, "job", START, 1, move) == table(expected)


def became(text: str, last: int) -> list[str]:
    """What became of each slot up to the last, and why; when it ran is the machine's affair, and so is what came due later."""
    lines = [re.sub(r"( \d+-\d*)+$", "", line) for line in table(text).splitlines()]
    return [line for line in lines if int(line.partition(":")[0]) <= last]


@only("valkey")
async def test_the_same_in_real_seconds(connect: Any) -> None:
    """All beside each other, on one store, each with an instance and a worker. What is compared lies five units apart."""
    unit = 0.3
    async with connect() as lb:
        start = datetime.fromtimestamp(round(await lb.store.server_time()) + 1, UTC)

        async def move(now: float) -> None:
            await until(lb, moment(start, unit, now).timestamp())

        plays = [dataclasses.replace(play) for play, _ in PLAYS.values()]
        playing = (play.play(lb, f"job-{number}", start, unit, move) for number, play in enumerate(plays))
        found = dict(zip(PLAYS, await asyncio.gather(*playing), strict=True))
    for name, (_, expected) in PLAYS.items():
        last = int(table(expected).splitlines()[-1].partition(":")[0])
        assert became(found[name], last) == became(expected, last), name


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
