"""A run that somebody triggers: once, beside the slots, under the job's overlap; and jobs that have no slots at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lockbeat import Lockbeat, Run, Task
from lockbeat.errors import InvalidArgument, InvalidType, UnknownJob, Unreadable
from lockbeat.jobs import Job
from lockbeat.store import results
from lockbeat.store.keys import shard_of_task
from lockbeat.triggers import ByHand, Every, trigger_from_json
from tests.beats import Beats, Hands, eventually, ledger, minutely, overdue, scheduler, shot, states
from tests.conftest import only
from tests.tasks import NOON, stopped

here_and_there = only("memory", "valkey", "redis")


async def claimed(lb: Lockbeat, limit: int = 10, lease: float = 30) -> list[Task]:
    """What a worker of every shard would begin."""
    found: list[Task] = []
    for shard in range(lb.store.shards):
        tasks, *_ = await lb.tasks.claim_on(shard, ["default"], lb.owner, limit, round(lease * 1000))
        found += tasks
    return found


async def test_a_run_has_an_identity_of_its_own_and_its_params(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(max_attempts=2, timeout=9))
    spawned = await lb.jobs.trigger("report", {"customer": 7}, by="anna")
    assert spawned.created
    assert spawned.task_id.startswith("report!")
    [task] = await claimed(lb)
    assert (task.id, task.name, task.job, task.params, task.timeout_ms) == (
        spawned.task_id,
        "report",
        "report",
        {"customer": 7},
        9000,
    )
    assert (await lb.jobs.get("report")).open == spawned.task_id
    assert await lb.tasks.complete(task, "seven")
    info = await lb.tasks.get(spawned.task_id)
    assert (info.state, info.result, info.params) == ("done", "seven", {"customer": 7})
    assert (await lb.jobs.get("report")).open is None
    assert await ledger(lb, "report") == [], "it is no slot"
    [change] = await lb.jobs.changes("report")
    assert (change.what, change.by) == ("trigger", "anna")


async def test_it_is_leased_as_the_lock_of_its_job(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    spawned = await lb.jobs.trigger("report")
    [task] = await claimed(lb)
    [lease] = await lb.locks.list()
    assert (lease.key, lease.owner, lease.fence) == ("job:report", lb.owner, task.fence)
    assert await lb.tasks.heartbeat(task, 60)
    assert [info.id for info in await lb.tasks.list(state="running")] == [spawned.task_id]
    assert await lb.tasks.cancel(spawned.task_id)
    assert (await lb.tasks.heartbeat(task, 60)).refusal == "cancelled"
    assert await lb.locks.is_locked("job:report"), "until its body has stopped"
    await lb.tasks.release(task, begun=True)
    assert not await lb.locks.is_locked("job:report")


async def test_nothing_is_triggered_while_a_task_of_the_job_has_not_ended(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    slot = await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    refused = await lb.jobs.trigger("report")
    assert (refused.created, refused.task_id) == (False, f"report@{slot}")
    beside = await lb.jobs.trigger("report", overlap="allow")
    assert beside.created
    [other] = await claimed(lb)
    assert (other.id, other.lock) == (beside.task_id, "")
    assert (await lb.jobs.get("report")).open == task.id
    assert await lb.tasks.complete(other)
    assert (await lb.jobs.get("report")).open == task.id
    assert await lb.tasks.complete(task)
    assert (await lb.jobs.trigger("report")).created
    assert [change.what for change in await lb.jobs.changes("report")] == ["trigger", "trigger"], (
        "what was refused changed nothing"
    )


@pytest.mark.parametrize("begins", [True, False], ids=["it runs", "no worker has begun it"])
async def test_a_slot_is_skipped_for_a_run_that_has_not_ended(lb: Lockbeat, raw: Any, begins: bool) -> None:
    job, shard = minutely(), lb.jobs.shard_of("report")
    slot = await overdue(lb, raw, job, back=1)
    spawned = await lb.jobs.trigger("report")
    tasks = await claimed(lb) if begins else []
    stands = raw.hget(lb.store.keys.key(shard, "job:slot"), "report").decode()
    assert (await lb.store.call_row(shot(lb, job, slot, expected=stands, lease_ms=5000), shard)).fired == results.NO
    [entry] = await ledger(lb, "report")
    assert (entry.state, entry.reason) == ("skipped", f"overlap: {spawned.task_id} had not ended")
    [task] = tasks or await claimed(lb)
    assert task.id == spawned.task_id
    assert await lb.tasks.complete(task)
    stands = raw.hget(lb.store.keys.key(shard, "job:slot"), "report").decode()
    assert (await lb.store.call_row(shot(lb, job, slot + 60_000, expected=stands), shard)).fired == results.WAITING


@here_and_there
@pytest.mark.parametrize(("overlap", "ends"), [("buffer_one", "done"), ("buffer_all", "done"), ("cancel_other", "cancelled")])
async def test_slots_wait_in_line_behind_a_run_or_cancel_it(lb: Lockbeat, raw: Any, overlap: Any, ends: str) -> None:
    job, shard = minutely(overlap=overlap), lb.jobs.shard_of("report")
    slot = await overdue(lb, raw, job)
    spawned = await lb.jobs.trigger("report")
    [task] = await claimed(lb)
    await scheduler(lb, job).tick(shard)
    assert await states(lb, "report") == ["fired"]
    assert await claimed(lb) == [], "it waits for the run to end"
    refused = await lb.jobs.trigger("report")
    assert (refused.created, refused.task_id) == (False, spawned.task_id)
    await lb.tasks.complete(task)
    assert (await lb.tasks.get(spawned.task_id)).state == ends
    [following] = await claimed(lb)
    assert following.id == f"report@{slot}"
    assert await lb.tasks.complete(following)
    assert (await lb.jobs.get("report")).open is None


@here_and_there
async def test_who_holds_the_jobs_lock_keeps_it_waiting(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    assert await lb.locks.try_acquire("job:report", "alice", 300)
    spawned = await lb.jobs.trigger("report")
    assert spawned.created
    assert await claimed(lb) == []
    assert (await lb.tasks.get(spawned.task_id)).state == "waiting"
    assert await lb.locks.release("job:report", "alice")
    found: list[Task] = []

    async def begins() -> bool:
        found.extend(await claimed(lb))
        return bool(found)

    await eventually(begins, "its turn comes")
    assert found[0].id == spawned.task_id


@only("memory")
async def test_a_run_whose_worker_died_is_tried_again_or_dead_and_can_be_retried(lb: Lockbeat) -> None:
    with stopped() as to:
        await lb.jobs.put(Job.declare("report", Every(86_400), max_attempts=2, lease=5))
        spawned = await lb.jobs.trigger("report")
        assert [task.attempt for task in await claimed(lb)] == [1]
        to(NOON + 6)
        assert [(task.id, task.attempt) for task in await claimed(lb)] == [(spawned.task_id, 2)]
        assert not (await lb.jobs.trigger("report")).created
        to(NOON + 12)
        assert await claimed(lb) == []
        assert (await lb.tasks.get(spawned.task_id)).state == "dead"
        assert (await lb.jobs.get("report")).open is None
        assert await lb.tasks.retry(spawned.task_id)
        assert (await lb.jobs.get("report")).open == spawned.task_id
        [task] = await claimed(lb)
        assert await lb.tasks.complete(task)
        counts = (await lb.jobs.get("report")).counts
        assert {*counts} == {0}, "of slots"
        to(NOON + 8 * 86_400)
        await claimed(lb)
        assert await lb.tasks.list() == [], "it is forgotten after a week"


async def test_a_paused_job_can_be_triggered(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    await lb.jobs.pause("report")
    assert (await lb.jobs.trigger("report")).created
    [task] = await claimed(lb)
    assert await lb.tasks.complete(task)
    assert (await lb.jobs.get("report")).paused


async def test_many_who_trigger_at_once_begin_one(lb: Lockbeat, connect: Any) -> None:
    await lb.jobs.put(minutely())
    async with connect() as other:
        spawned = await asyncio.gather(*(one.jobs.trigger("report") for one in [lb, other] * 8))
    assert sum(one.created for one in spawned) == 1
    assert len({one.task_id for one in spawned}) == 1
    assert len(await claimed(lb)) == 1


@here_and_there
async def test_a_job_without_a_trigger_runs_when_it_is_triggered(lb: Lockbeat, beats: Beats) -> None:
    beat, ran = beats(), list[Run]()

    @beat.job
    async def report(run: Run) -> str:
        ran.append(run)
        return "done"

    @beat.job(name="other", overlap="allow", tags=["x"])
    async def another() -> None: ...

    async with beat.lifespan():
        assert await beat.jobs.next("report") == []
        spawned = await beat.jobs.trigger("report", [1, 2])
        ended = await lb.tasks.wait(spawned.task_id, 30)
        several = [await beat.jobs.trigger("other") for _ in range(3)]
        assert {(await lb.tasks.wait(one.task_id, 30)).state for one in several} == {"done"}
    assert (ended.state, ended.result) == ("done", "done")
    [run] = ran
    assert (run.job, run.params, run.task_id, run.attempt) == ("report", [1, 2], spawned.task_id, 1)
    assert ended.spawned_at is not None
    assert run.slot.timestamp() == pytest.approx(ended.spawned_at, abs=0.01), "when it was triggered"
    [other, state] = await lb.jobs.list()
    assert (state.job.trigger, state.next, state.paused) == (ByHand(), None, None)
    assert (other.job.overlap, other.job.tags) == ("allow", ("x",))


@only("memory")
async def test_a_job_without_a_trigger_is_not_forgotten_and_can_be_given_one(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        job = Job.declare("report", ByHand(), origin="code")
        assert trigger_from_json(json.loads(json.dumps(job.trigger.to_json()))) == job.trigger
        beat = scheduler(lb, job, Job.declare("other", Every(86_400 * 30)))
        await beat.register()
        for day in (8, 400):
            to(NOON + day * 86_400)
            await beat.tick(0)
            assert [state.job.name for state in await lb.jobs.list()] == ["other", "report"]
        assert (await lb.jobs.trigger("report")).created
        raw.hdel(lb.store.keys.key(0, "job:slot"), "report")
        await beat.tick(0)
        await beat.register()
        assert [entry for entry in await ledger(lb, "report") if entry.state == "fired"] == []
        await lb.jobs.put(Job.declare("report", Every(10), origin="code"))
        state = await lb.jobs.get("report")
        assert state.next is not None
        await lb.jobs.put(job)
        state = await lb.jobs.get("report")
        assert (state.next, state.paused) == (None, None)


@only("memory")
async def test_an_older_worker_takes_it_for_a_spawned_task(lb: Lockbeat, raw: Any) -> None:
    """It has read the slot's time from the id of a task with a `job`."""
    await lb.jobs.put(minutely())
    spawned = await lb.jobs.trigger("report")
    record = raw.hget(lb.store.keys.key(0, "task"), spawned.task_id)
    said = json.loads(record.rpartition(b"\xff")[2])
    assert "job" not in said
    assert {"name", "queue", "retention_ms"} <= said.keys()


def test_it_lives_where_its_job_does() -> None:
    for name in ("report", "a@b", "x!1", "é"):
        shards = {shard_of_task(task_id, 64) for task_id in (f"{name}@17", f"{name}!0a1b")}
        assert len(shards) == 1


@here_and_there
async def test_a_job_that_is_deleted_takes_back_the_run_that_waits(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    spawned = await lb.jobs.trigger("report")
    assert await lb.jobs.delete("report")
    assert (await lb.tasks.get(spawned.task_id)).state == "cancelled"
    assert await claimed(lb) == []


@here_and_there
async def test_what_can_not_be_read_of_the_last_task_is_named_and_nothing_is_triggered(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(minutely())
    spawned = await lb.jobs.trigger("report")
    raw.hset(lb.store.keys.key(0, "task"), spawned.task_id, "foreign")
    with pytest.raises(Unreadable) as raised:
        await lb.jobs.trigger("report")
    assert raised.value.field == spawned.task_id
    assert len(await lb.jobs.changes("report")) == 1
    assert await states(lb, "report") == []


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda jobs: jobs.trigger("nobody"), UnknownJob, "no job named 'nobody'"),
        (lambda jobs: jobs.trigger("report", object()), InvalidType, "params: must be JSON"),
        (lambda jobs: jobs.trigger("report", float("nan")), InvalidArgument, "params: must be JSON"),
        (lambda jobs: jobs.trigger("report", overlap="some"), InvalidArgument, "overlap: must be one of 'allow'"),
        (lambda jobs: jobs.trigger("report", reason=""), InvalidArgument, "reason: must not be empty"),
    ],
)
@only("memory", "valkey")
async def test_what_is_wrong_is_one_clear_line(
    lb: Lockbeat, wrong: Callable[[Any], Awaitable[object]], error: type[Exception], said: str
) -> None:
    await lb.jobs.put(minutely())
    with pytest.raises(error, match=said):
        await wrong(lb.jobs)
    assert await lb.tasks.list() == []
