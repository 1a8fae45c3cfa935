"""What is lost of where tasks stand is put right by workers: nothing waits in no queue, runs without lease, or stays for ever."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.tasks import NewTask
from lockbeat.worker import worker as worker_module
from tests.beats import Beats, Hands, eventually, ledger, minutely, overdue, scheduler
from tests.conftest import only, wait_until
from tests.tasks import begun, claim_one, died, state

here_and_there = only("memory", "valkey", "redis")


def mend(lb: Lockbeat, shard: int = 0) -> Any:
    return lb.store.call("task/mend", shard, limit=100)


def lose(lb: Lockbeat, raw: Any, *names: str) -> None:
    raw.delete(*(lb.store.keys.key(0, name) for name in names))


@here_and_there
async def test_where_there_are_no_tasks_none_is_lost(lb: Lockbeat) -> None:
    assert await mend(lb) == 0


@here_and_there
async def test_tasks_that_wait_in_no_queue_are_queued_again_in_their_order(lb: Lockbeat, raw: Any) -> None:
    ids = [one.task_id for one in await lb.tasks.spawn_many([NewTask("job", priority=n % 3) for n in range(9)])]
    later = await lb.tasks.spawn("job", delay=300)
    tried = await begun(lb, queue="other")
    assert (await lb.tasks.fail(tried, "broken", retry_at=0)).outcome == "requeued"
    lose(lb, raw, "task:ready", "task:delayed")
    assert await lb.tasks.claim("default", "alice") == []
    assert await mend(lb) == 11
    assert await mend(lb) == 0
    claimed = await lb.tasks.claim("default", "alice", 100)
    assert {task.id for task in claimed} == set(ids), "what is put off is still put off"
    assert {task.id for task in claimed[:3]} == set(ids[2::3]), "the most urgent first"
    assert (await claim_one(lb, "other")).attempt == 2
    assert (await lb.tasks.counts()).delayed == 1
    assert await lb.tasks.cancel(later.task_id)


@here_and_there
@pytest.mark.parametrize("ends", ["running", "stopping"])
@pytest.mark.parametrize("of_job", [True, False])
async def test_an_attempt_of_which_every_lease_is_gone_ends(lb: Lockbeat, raw: Any, ends: str, of_job: bool) -> None:
    """Its instance died as well: nobody else would ever end it."""
    if of_job:
        job, hands = minutely(), Hands("report")
        await overdue(lb, raw, job)
        await scheduler(lb, job, runner=hands).tick(0)
        [task] = hands.tasks
    else:
        task = await begun(lb, max_attempts=1)
    if ends == "stopping":
        assert await lb.tasks.cancel(task.id)
    assert await mend(lb) == 0, "while it is leased it runs"
    table = "lock" if of_job else "task"
    lose(lb, raw, "lock" if of_job else "task:lease", f"{table}:live", f"{table}:owned")
    assert await mend(lb) == 1
    record = raw.hget(lb.store.keys.key(0, "task"), task.id)
    assert record.startswith(b"cancelled " if ends == "stopping" else b"dead ")
    assert await state(lb, task.id) == ("cancelled" if ends == "stopping" else "dead")
    if of_job:
        assert [entry.state for entry in await ledger(lb, "report")] == ["cancelled" if ends == "stopping" else "lost"]


@here_and_there
async def test_what_has_ended_is_forgotten_though_nobody_remembers_when(lb: Lockbeat, raw: Any) -> None:
    dead = await died(lb)
    task = await begun(lb, retention=0)
    assert await lb.tasks.complete(task)
    job, hands = minutely(), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(0)
    assert await lb.tasks.complete(hands.tasks[0])
    lose(lb, raw, "task:ended", "task:dead", "ledger:order")
    assert await mend(lb) == 4
    assert await mend(lb) == 0
    assert [info.id for info in await lb.tasks.dead()] == [dead]
    assert raw.zscore(lb.store.keys.key(0, "task:ended"), task.id) is not None
    assert [entry.state for entry in await ledger(lb, "report")] == ["done"], "its record says what became of it"
    assert await lb.tasks.redrive() == 1


@here_and_there
async def test_a_limit_that_was_lost_is_met_all_the_same(lb: Lockbeat, raw: Any) -> None:
    task = await begun(lb, max_duration=300)
    until = lb.store.keys.key(0, "task:until")
    before = raw.zscore(until, task.id)
    lose(lb, raw, "task:until")
    assert await mend(lb) == 1
    assert raw.zscore(until, task.id) == before


@here_and_there
async def test_a_healthy_store_is_left_as_it_is(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(max_attempts=1), Hands("report")
    await overdue(lb, raw, job, back=2)
    await scheduler(lb, job, runner=hands).tick(0)
    assert (await lb.tasks.fail(hands.tasks[0], "broken")).outcome == "dead_lettered"
    await died(lb)
    assert await lb.tasks.complete(await begun(lb))
    await begun(lb, max_duration=60)
    await lb.tasks.spawn("job", max_delay=60)
    cancelled = await lb.tasks.spawn("job")
    assert await lb.tasks.cancel(cancelled.task_id)
    raw.hset(lb.store.keys.key(0, "task"), "bad", b"foreign")
    await lb.jobs.put(minutely("many", overlap="allow", queue="hand"), minutely("one", queue="hand"))
    triggered = [(await lb.jobs.trigger(name)).task_id for name in ("many", "many", "many", "one")]
    for task in await lb.tasks.claim("hand", "bob", 3):
        assert task.id in triggered
        assert task.id != triggered[0] or await lb.tasks.complete(task)
    assert await mend(lb) == 0


@here_and_there
async def test_a_run_that_was_triggered_by_hand_is_put_right_like_any_other(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(minutely())
    triggered = (await lb.jobs.trigger("report")).task_id
    lose(lb, raw, "task:ready")
    assert await mend(lb) == 1
    assert (await claim_one(lb)).id == triggered
    assert await mend(lb) == 0
    lose(lb, raw, "lock", "lock:live", "lock:owned")
    assert await mend(lb) == 1
    assert await state(lb, triggered) == "dead"


@here_and_there
async def test_a_worker_runs_what_was_lost_from_its_queue(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MEND", 0.0)
    monkeypatch.setattr(worker_module, "LOOK_AFTER", 0.05)
    monkeypatch.setattr("lockbeat.store.wakeup.LOOK_IN_MEMORY", 0.05)
    beat, ran = beats(), []

    @beat.task
    async def job() -> None:
        ran.append(1)

    await lb.tasks.spawn_many([NewTask("job", delay=300)] * 20)
    lose(lb, raw, "task:delayed")
    async with beat.lifespan():

        async def back() -> bool:
            return (await lb.tasks.counts()).delayed == 20

        await eventually(back, "they wait again")
        await lb.tasks.spawn_many([NewTask("job")] * 20)
        lose(lb, raw, "task:ready")
        await wait_until(lambda: len(ran) == 20, "they run")
