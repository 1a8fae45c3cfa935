"""A slot that was cancelled runs under its own time again if somebody says so; and who cancelled and who retried it is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import TaskError
from lockbeat.jobs import Backfiller
from lockbeat.store import results
from lockbeat.store.records import TaskRecord
from lockbeat.tasks import Task
from lockbeat.triggers import Every
from tests.beats import Hands, backdate, eventually, ledger, minutely, overdue, scheduler, states
from tests.conftest import only
from tests.tasks import NOON, claim_one, stopped, until

here_and_there = only("memory", "valkey", "redis", "cluster")
WEEK = 7 * 86_400


async def running(lb: Lockbeat, raw: Any, **options: Any) -> Task:
    """The first attempt of the task of a slot."""
    job, hands = minutely(**options), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    return task


async def waiting(lb: Lockbeat, raw: Any, **options: Any) -> str:
    """The id of the task of a slot that nobody has begun."""
    await overdue(lb, raw, job := minutely(**options))
    await scheduler(lb, job).tick(lb.jobs.shard_of("report"))
    [entry] = await ledger(lb, "report")
    return entry.task_id


async def cancelled(lb: Lockbeat, raw: Any, **options: Any) -> Task:
    """An attempt that ann cancelled, and whose body has stopped."""
    task = await running(lb, raw, **options)
    assert await lb.tasks.cancel(task.id, by="ann")
    assert not await lb.tasks.release(task, begun=True)
    return task


async def why(lb: Lockbeat) -> str:
    [entry] = await ledger(lb, "report")
    return (await lb.jobs.why("report", entry.slot)).text


@here_and_there
@pytest.mark.parametrize("overlap", ["skip", "allow", "buffer_one"])
async def test_a_cancelled_slot_is_done_under_its_own_time_once_it_is_retried(lb: Lockbeat, raw: Any, overlap: str) -> None:
    task = await cancelled(lb, raw, overlap=overlap, params={"customer": 7})
    assert await states(lb, "report") == ["cancelled"]
    counts = (await lb.jobs.get("report")).counts
    assert (counts.fired, counts.cancelled) == (1, 1)
    assert not await lb.tasks.retry(task.id), "to who does not say so, cancelled is final"
    assert await lb.tasks.retry(task.id, cancelled=True, by="bob")
    assert not await lb.tasks.retry(task.id, cancelled=True), "it waits"
    assert await states(lb, "report") == ["retrying"]
    assert (await lb.jobs.get("report")).open == (None if overlap == "allow" else task.id)
    again = await claim_one(lb)
    assert (again.id, again.attempt, again.slot_ms, again.job) == (task.id, 2, task.slot_ms, "report")
    assert again.fence > task.fence
    assert again.params == {"customer": 7}
    assert not await lb.tasks.complete(task), "the attempt that was cancelled stays so"
    assert await lb.tasks.complete(again)
    assert await states(lb, "report") == ["done"]
    counts = (await lb.jobs.get("report")).counts
    assert (counts.fired, counts.done, counts.cancelled) == (1, 1, 1), "counts only grow: monitors take less for a beginning anew"
    assert (await lb.jobs.get("report")).open is None
    assert not await lb.tasks.retry(task.id, cancelled=True), "it is done"


@here_and_there
async def test_who_cancelled_it_and_who_retried_it_is_kept_to_the_end(lb: Lockbeat, raw: Any) -> None:
    task = await cancelled(lb, raw)
    info = await lb.tasks.get(task.id)
    assert (info.state, info.cancelled_by, info.retried) == ("cancelled", "ann", None)
    assert info.failure is not None
    assert info.failure.message == info.attempts_made[0].error == "it was cancelled by ann"
    assert not await lb.tasks.cancel(task.id, by="eve")
    assert not await lb.tasks.retry(task.id, by="eve")
    assert await lb.tasks.get(task.id) == info, "a call that changed nothing is nobody's"
    assert "It was cancelled by ann at 20" in await why(lb)
    assert await lb.tasks.retry(task.id, cancelled=True, by="bob \x1d of \x1f1 2 3")
    told = await why(lb)
    assert "retrying. Attempt 1 of 1" not in told
    assert "bob   of  1 2 3 had it tried again at 20" in told
    assert "It had been cancelled by ann." in told
    assert await lb.tasks.fail(await claim_one(lb), "broken")
    [entry] = await ledger(lb, "report")
    assert (entry.state, entry.reason) == ("failed", "broken"), "and that is its reason"
    assert entry.retried is not None
    assert (entry.retried.by, entry.retried.code, entry.retried.detail) == ("bob   of  1 2 3", "cancelled", "ann")
    assert await lb.tasks.redrive(by="cid") == 1
    assert await lb.tasks.complete(await claim_one(lb))
    told = await why(lb)
    assert "cid had it tried again at 20" in told
    assert "cancelled" not in told, "the latest time"
    assert [one.error for one in (await lb.tasks.get(task.id)).attempts_made][:1] == ["it was cancelled by ann"]


@here_and_there
async def test_that_it_was_tried_again_is_kept_when_it_is_cancelled_once_more(lb: Lockbeat, raw: Any) -> None:
    task_id = await waiting(lb, raw, keep_for=3600)
    assert await lb.tasks.cancel(task_id, by="ann")
    assert await lb.tasks.retry(task_id, cancelled=True, by="bob")
    assert await lb.tasks.cancel(task_id, by="eve \x1d\x1f1 2 3")
    info = await lb.tasks.get(task_id)
    assert info.cancelled_by == "eve   1 2 3"
    assert info.retried is not None
    assert info.retried.by == "bob"
    record = TaskRecord.of(raw.hget(lb.store.keys.key(lb.tasks.shard_of(task_id), "task"), task_id))
    assert record.forget_ms > 0, "nor is forgotten when it is to be forgotten"


@here_and_there
async def test_nobody_in_particular_cancels_and_retries(lb: Lockbeat, raw: Any) -> None:
    task = await running(lb, raw)
    assert await lb.tasks.cancel(task.id)
    assert not await lb.tasks.complete(task)
    info = await lb.tasks.get(task.id)
    assert info.failure is not None
    assert (info.failure.message, info.cancelled_by) == ("it was cancelled", None)
    assert await lb.tasks.retry(task.id, cancelled=True)
    told = await why(lb)
    assert "Somebody had it tried again at 20" in told
    assert "It had been cancelled." in told


@here_and_there
async def test_one_whose_body_has_yet_to_stop_is_refused_until_it_has(lb: Lockbeat, raw: Any) -> None:
    task = await running(lb, raw)
    assert await lb.tasks.cancel(task.id, by="ann")
    with pytest.raises(TaskError, match=r"can't be tried again yet: it was cancelled, and its function has yet to stop"):
        await lb.tasks.retry(task.id, cancelled=True)
    assert not await lb.tasks.retry(task.id)
    assert await states(lb, "report") == ["cancelled"]
    assert not await lb.tasks.complete(task)
    assert await lb.tasks.retry(task.id, cancelled=True)
    assert (await claim_one(lb)).attempt == 2


@here_and_there
async def test_a_slot_that_nobody_had_begun_is_not_missed_or_skipped_when_it_is_retried(lb: Lockbeat, raw: Any) -> None:
    """Its window is over, its job's lock is held, and a later slot comes due: it was wanted all the same."""
    task_id = await waiting(lb, raw, window=3600)
    assert await lb.tasks.cancel(task_id, by="ann")
    slot = int(task_id.rpartition("@")[2])
    await lb.jobs.put(minutely(window=1))
    assert await lb.tasks.retry(task_id, cancelled=True, by="bob")
    [entry] = await ledger(lb, "report")
    assert (entry.state, entry.by) == ("fired", None)
    assert "No worker has begun it. bob had it tried again" in await why(lb)
    lease = await lb.locks.try_acquire("job:report", "somebody", 600)
    assert lease is not None
    assert await lb.tasks.claim("default", "alice", 10, 30) == []
    assert await states(lb, "report") == ["fired"]
    assert await lb.locks.release("job:report", "somebody")
    await until(lb, (await lb.tasks.get(task_id)).due_at)  # when it looks at the lock again
    again = await claim_one(lb)
    assert (again.id, again.attempt) == (task_id, 1)
    assert await lb.tasks.defer(again, 0), "an instance that lacks its function"
    again = await claim_one(lb)
    assert await lb.tasks.complete(again)
    found = next(e for e in await ledger(lb, "report") if e.slot_ms == slot)
    assert found.state == "done"
    assert found.lateness is not None
    assert found.lateness.queue_ms is None, "that nobody began it was nobody's fault"


@only("memory")
@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "buffer_all"])
async def test_it_gives_way_to_no_later_slot_though_nobody_has_begun_it(lb: Lockbeat, raw: Any, overlap: str) -> None:
    with stopped() as to:
        task_id = await waiting(lb, raw, overlap=overlap)
        assert await lb.tasks.cancel(task_id)
        assert await lb.tasks.retry(task_id, cancelled=True)
        await backdate(lb, raw, "report", int(task_id.rpartition("@")[2]) + 60_000)
        to(NOON + 100)
        await scheduler(lb, minutely(overlap=overlap)).tick(0)
        assert sorted(await states(lb, "report")) == ["fired", "skipped" if overlap == "skip" else "fired"]
        assert (await claim_one(lb)).id == task_id


@here_and_there
async def test_it_is_among_the_cancelled_and_never_among_the_dead(lb: Lockbeat, raw: Any) -> None:
    task = await cancelled(lb, raw, queue="reports")
    assert [info.id for info in await lb.tasks.list("reports", state="cancelled")] == [task.id]
    assert await lb.tasks.dead("reports") == []
    assert (await lb.tasks.counts("reports")).dead == 0
    assert await lb.tasks.redrive("reports") == 0
    shard = lb.tasks.shard_of(task.id)
    args: dict[str, Any] = {"id": task.id, "attempts": 0, "delay_ms": 0, "by": "", "cancelled": 0}
    assert await lb.store.call("task/retry", shard, call=lb.store.new_call(), **args) == results.NO, "as redrive would"
    assert await lb.tasks.purge("reports", state="cancelled") == 1
    assert await states(lb, "report") == ["cancelled"], "the ledger keeps it"
    assert not await lb.tasks.retry(task.id, cancelled=True), "but it can be retried no more"


@here_and_there
@pytest.mark.parametrize("reached", ["waiting", "running"])
async def test_a_spawned_task_that_was_cancelled_is_the_same_task_again(lb: Lockbeat, reached: str) -> None:
    spawned = await lb.tasks.spawn("job", {"n": 1}, idempotency_key="k", max_attempts=3)
    task = await claim_one(lb) if reached == "running" else None
    assert await lb.tasks.cancel(spawned.task_id, by="ann")
    assert task is None or not await lb.tasks.complete(task)
    assert not await lb.tasks.retry(spawned.task_id)
    assert await lb.tasks.retry(spawned.task_id, cancelled=True, attempts=2, by="bob")
    known = await lb.tasks.spawn("job", {"n": 2}, idempotency_key="k")
    assert (known.task_id, known.created) == (spawned.task_id, False), "the key names it still"
    again = await claim_one(lb)
    begun_before = 1 if reached == "running" else 0
    assert (again.id, again.params, again.attempt, again.max_attempts) == (
        spawned.task_id,
        {"n": 1},
        begun_before + 1,
        begun_before + 2,
    )
    assert await lb.tasks.complete(again, "a result")
    info = await lb.tasks.wait(spawned.task_id, 30)
    assert (info.state, info.result, info.failure) == ("done", "a result", None)
    assert info.retried is not None
    assert (info.retried.by, info.retried.code, info.retried.detail) == ("bob", "cancelled", "ann")


@here_and_there
async def test_one_that_its_limits_cancelled_has_them_anew(lb: Lockbeat) -> None:
    spawned = await lb.tasks.spawn("job", max_delay=0.001)
    await until(lb, await lb.store.server_time() + 0.002)
    assert await lb.tasks.claim("default", "alice") == []
    info = await lb.tasks.get(spawned.task_id)
    assert (info.state, info.cancelled_by) == ("cancelled", None)
    assert await lb.tasks.retry(spawned.task_id, cancelled=True)
    assert await lb.tasks.complete(await claim_one(lb))


@here_and_there
async def test_what_went_with_its_job_is_not_retried(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    run = (await lb.jobs.trigger("report")).task_id
    assert await lb.jobs.delete("report")
    info = await lb.tasks.get(run)
    assert (info.state, info.failure and info.failure.message) == ("cancelled", "its job was deleted")
    assert not await lb.tasks.retry(run, cancelled=True)
    assert (await lb.tasks.get(run)).state == "cancelled"


@here_and_there
async def test_a_triggered_run_that_was_cancelled_takes_its_jobs_lock_again(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely())
    run = (await lb.jobs.trigger("report")).task_id
    assert await lb.tasks.cancel(run, by="ann")
    assert (await lb.jobs.get("report")).open is None
    assert await lb.tasks.retry(run, cancelled=True)
    assert (await lb.jobs.get("report")).open == run
    again = await claim_one(lb)
    assert await lb.locks.is_locked("job:report")
    assert await lb.tasks.complete(again)
    assert not await lb.locks.is_locked("job:report")


@only("memory")
async def test_it_can_be_retried_for_a_week_and_no_longer_than_its_ledger_keeps_it(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        task = await cancelled(lb, raw)
        to(NOON + WEEK - 1)
        await lb.tasks.claim("other", "alice")
        assert await lb.tasks.retry(task.id, cancelled=True)
        assert await lb.tasks.cancel(task.id)
        to(NOON + 2 * WEEK)
        await lb.tasks.claim("other", "alice")
        assert await states(lb, "report") == ["cancelled"]
        assert not await lb.tasks.retry(task.id, cancelled=True)


@only("memory")
async def test_one_that_its_ledger_keeps_for_less_goes_in_time(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        task = await cancelled(lb, raw, keep_for=600)
        assert await lb.tasks.retry(task.id, cancelled=True)
        assert await lb.tasks.cancel(task.id)
        to(NOON + 601)
        await lb.tasks.claim("other", "alice")
        assert await states(lb, "report") == []
        assert await lb.tasks.list(state="cancelled") == []


@only("memory", "valkey")
async def test_where_it_stands_is_put_right_if_that_was_lost(lb: Lockbeat, raw: Any) -> None:
    """Else what it needs to run again would be kept for as long as its ledger keeps it."""
    task = await cancelled(lb, raw)
    shard = lb.tasks.shard_of(task.id)
    key = lb.store.keys.key(shard, "task:ended")
    assert raw.zrem(key, task.id) == 1
    assert await lb.store.call("task/mend", shard, limit=100) == 1
    assert raw.zscore(key, task.id) is not None
    assert await lb.store.call("task/mend", shard, limit=100) == 0


@here_and_there
async def test_a_cancelled_slot_is_known_to_a_backfill(lb: Lockbeat, raw: Any) -> None:
    """That fires what nobody decided on; a person retries what a person cancelled."""
    task = await cancelled(lb, raw)
    [entry] = await ledger(lb, "report")
    begun = await lb.jobs.backfill("report", entry.slot, entry.slot + timedelta(milliseconds=1))
    backfiller = Backfiller(lb.store)
    await backfiller.tick(lb.jobs.shard_of("report"))
    found = await lb.jobs.get_backfill("report")
    assert found is not None
    assert (begun.total, found.fired, found.known) == (1, 0, 1)
    assert await lb.tasks.retry(task.id, cancelled=True)
    assert await lb.tasks.complete(await claim_one(lb))


@only("memory", "valkey")
async def test_what_an_older_version_cancelled_can_be_read_and_not_retried(lb: Lockbeat, raw: Any) -> None:
    """It kept neither who did it nor what the slot needs to run."""
    task = await cancelled(lb, raw)
    key = lb.store.keys.key(lb.tasks.shard_of(task.id), "task")
    head, tries, _ = raw.hget(key, task.id).split(b"\xff")
    older = head.replace(b"cancelled ann", b"cancelled ", 1), tries.partition(b"\xfd")[0], b""
    raw.hset(key, task.id, b"\xff".join(older))
    info = await lb.tasks.get(task.id)
    assert (info.state, info.cancelled_by, info.attempts_made[0].how, info.attempts_made[0].error) == (
        "cancelled",
        None,
        "cancelled",
        None,
    )
    assert "It was cancelled at 20" in await why(lb)
    assert not await lb.tasks.retry(task.id, cancelled=True)


@here_and_there
@pytest.mark.parametrize("overlap", ["buffer_all", "cancel_other"])
async def test_slots_wait_for_what_runs_though_one_that_was_to_run_again_behind_it_is_cancelled(
    lb: Lockbeat, raw: Any, overlap: str
) -> None:
    often = Every(0.2)
    task = await cancelled(lb, raw, overlap=overlap, trigger=often)
    await lb.jobs.trigger("report")
    run = await claim_one(lb)
    assert await lb.tasks.retry(task.id, cancelled=True)
    assert await lb.tasks.claim("default", "host.2") == [], "it waits for the run, in line"
    assert ((await lb.jobs.get("report")).open, (await lb.jobs.get("report")).in_line) == (run.id, 1)
    assert await lb.tasks.cancel(task.id)
    assert (await lb.jobs.get("report")).open == run.id
    beat = scheduler(lb, minutely(overlap=overlap, trigger=often))

    async def come() -> bool:
        await beat.tick(lb.jobs.shard_of("report"))
        return (await ledger(lb, "report"))[-1].task_id != task.id

    await eventually(come, "the next slot comes due")
    newest = (await ledger(lb, "report"))[-1]
    assert (newest.state, newest.in_line) == ("fired", True), "nothing starts beside the run, and nothing is skipped for it"
    assert await lb.tasks.claim("default", "host.2") == []
    assert (await lb.tasks.get(run.id)).state == ("cancelled" if overlap == "cancel_other" else "running")
    assert await lb.tasks.complete(run) is (overlap == "buffer_all")
    if overlap == "cancel_other":
        await lb.tasks.release(run, begun=True)
    after = await claim_one(lb)
    assert after.id == newest.task_id
    await lb.tasks.complete(after)
    assert (await lb.jobs.get("report")).open is None
