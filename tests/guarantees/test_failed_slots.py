"""A slot that failed for good is shown like any dead task, and can be tried again, while the ledger keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import UnknownTask
from lockbeat.tasks import Task
from tests.beats import Hands, backdate, ledger, minutely, overdue, scheduler, states
from tests.conftest import only
from tests.tasks import NOON, claim_one, stopped

here_and_there = only("memory", "valkey", "cluster")


async def failed(lb: Lockbeat, raw: Any, **options: Any) -> Task:
    """The last attempt of the task of a slot, which failed."""
    job, hands = minutely(**options), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    [task] = hands.tasks
    assert (await lb.tasks.fail(task, {"code": 7})).outcome == "dead_lettered"
    return task


@here_and_there
@pytest.mark.parametrize("overlap", ["skip", "allow"])
async def test_a_failed_slot_is_dead_everywhere_and_is_done_once_it_is_retried(lb: Lockbeat, raw: Any, overlap: str) -> None:
    task = await failed(lb, raw, queue="reports", overlap=overlap)
    told = await lb.tasks.get(task.id)
    assert (told.state, told.queue, told.name, told.attempts) == ("dead", "reports", "report", 1)
    assert told.failure is not None
    assert told.failure.detail == {"code": 7}
    for found in (await lb.tasks.dead("reports"), await lb.tasks.list(state="dead"), await lb.tasks.list("reports")):
        assert [info.id for info in found] == [task.id]
    assert (await lb.tasks.counts("reports")).dead == 1
    assert await lb.tasks.retry(task.id)
    assert not await lb.tasks.retry(task.id), "it is dead no more"
    [entry] = await ledger(lb, "report")
    assert (entry.state, entry.attempt, entry.ended_ms) == ("retrying", 1, None)
    assert (await lb.jobs.get("report")).open == (task.id if overlap == "skip" else None)
    again = await claim_one(lb, "reports")
    assert (again.id, again.attempt, again.job, again.slot_ms) == (task.id, 2, "report", task.slot_ms)
    assert again.fence > task.fence
    assert await lb.locks.is_locked("job:report") is (overlap == "skip")
    assert await lb.tasks.complete(again)
    assert await states(lb, "report") == ["done"]
    assert (await lb.jobs.get("report")).open is None
    assert (await lb.tasks.counts("reports")).dead == 0
    assert await lb.tasks.dead("reports") == await lb.tasks.list(state="dead") == []


@here_and_there
async def test_a_slot_that_fails_again_is_dead_again_and_redrive_takes_it_along(lb: Lockbeat, raw: Any) -> None:
    task = await failed(lb, raw, window=1000, max_attempts=1)
    assert await lb.tasks.retry(task.id, attempts=2)
    for outcome in ("requeued", "dead_lettered"):
        assert (await lb.tasks.fail(await claim_one(lb), "again", retry_at=0)).outcome == outcome
    assert await states(lb, "report") == ["failed"]
    counts = (await lb.jobs.get("report")).counts
    assert (counts.fired, counts.failed) == (1, 2), "counts only grow: monitors take less for a beginning anew"
    assert await lb.tasks.redrive() == 1
    again = await claim_one(lb)
    assert (again.id, again.attempt) == (task.id, 1), "with all its attempts anew"
    assert await lb.tasks.complete(again)
    assert await states(lb, "report") == ["done"]


@only("memory")
async def test_a_slot_that_waits_to_be_tried_again_makes_no_way_and_its_window_is_no_matter(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        task = await failed(lb, raw, window=1)
        to(NOON + 100)
        assert await lb.tasks.redrive() == 1
        job = minutely(window=1000)
        slot = task.slot_ms + 60_000
        await backdate(lb, raw, "report", slot)
        await scheduler(lb, job).tick(0)
        assert (await lb.tasks.get(task.id)).state == "waiting"
        assert await lb.tasks.complete(await claim_one(lb))
        assert (await states(lb, "report"))[0] == "done"


@only("memory")
@pytest.mark.parametrize("anew", [True, False])
async def test_a_slot_that_is_tried_again_waits_for_the_one_that_runs(lb: Lockbeat, raw: Any, anew: bool) -> None:
    with stopped() as to:
        task = await failed(lb, raw)
        lock = await lb.locks.try_acquire("job:report", "another slot", 600)
        assert lock is not None
        assert await (lb.tasks.redrive() if anew else lb.tasks.retry(task.id)) == 1
        for second in (0, 1, 2):
            to(NOON + second)
            assert await lb.tasks.claim("default", "alice", 10, 30) == []
            assert await states(lb, "report") == ["retrying"]
        slot = task.slot_ms + 60_000
        await backdate(lb, raw, "report", slot)
        to(NOON + 100)
        await scheduler(lb, minutely()).tick(0)
        [skipped] = [entry for entry in await ledger(lb, "report") if entry.slot_ms == slot]
        assert (skipped.state, skipped.reason) == ("skipped", f"overlap: {task.id} had not ended")
        assert await lb.locks.release("job:report", "another slot")
        to(NOON + 110)
        again = await claim_one(lb)
        assert (again.id, again.attempt) == (task.id, 1 if anew else 2)
        assert await lb.tasks.complete(again)
        assert (await lb.jobs.get("report")).open is None


@only("memory")
async def test_what_is_kept_of_a_failed_slot_goes_with_its_ledger_entry_its_job_or_after_a_week(lb: Lockbeat, raw: Any) -> None:
    key = lb.store.keys.key

    def kept() -> list[int]:
        return [
            raw.hlen(key(0, "task")),
            raw.hlen(key(0, "task:failure")),
            raw.zcard(key(0, "task:dead")),
            raw.zcard(key(0, "task:ended")),
        ]

    with stopped() as to:
        await failed(lb, raw)
        assert kept() == [1, 1, 1, 1]
        assert await lb.jobs.delete("report")
        assert kept() == [0, 0, 0, 0]
        task = await failed(lb, raw)
        to(NOON + 7 * 86400 + 1)
        await lb.tasks.claim("default", "sweeper")
        assert kept() == [1, 0, 0, 0], "the slot's line, and nothing to try it again by"
        assert (await lb.tasks.get(task.id)).state == "dead", "the ledger goes on telling of it"
        assert not await lb.tasks.retry(task.id)
        job, hands = minutely(keep=2), Hands("report")
        for n in range(1, 40):
            to(NOON + 8 * 86400 + 60 * n + n / 1_000_000)
            await overdue(lb, raw, job)
            await scheduler(lb, job, runner=hands).tick(0)
            await lb.tasks.fail(hands.tasks[-1], "broken")
        assert kept()[0] == kept()[2] == len(await ledger(lb, "report")) < 15


@here_and_there
async def test_purge_forgets_a_failed_slot_and_leaves_the_ledger(lb: Lockbeat, raw: Any) -> None:
    task = await failed(lb, raw)
    assert await lb.tasks.purge(state="dead") == 1
    assert await states(lb, "report") == ["failed"]
    assert (await lb.tasks.get(task.id)).state == "dead"
    assert not await lb.tasks.retry(task.id)
    with pytest.raises(UnknownTask):
        await lb.tasks.retry("report@1")


@here_and_there
@pytest.mark.parametrize("overlap", ["skip", "allow"])
async def test_the_ledger_and_the_task_tell_of_both_attempts_of_a_slot_that_was_retried(
    lb: Lockbeat, raw: Any, overlap: str
) -> None:
    first = await failed(lb, raw, overlap=overlap)
    assert await lb.tasks.retry(first.id)
    second = await claim_one(lb)
    [entry] = await ledger(lb, "report")
    assert [one.how for one in entry.attempts_made] == ["failed", "running"]
    assert await lb.tasks.complete(second)
    [entry] = await ledger(lb, "report")
    assert entry.attempts_made == (await lb.tasks.get(first.id)).attempts_made
    before, after = entry.attempts_made
    assert (before.number, before.owner, before.fence, before.how) == (1, first.owner, first.fence, "failed")
    assert before.error == '{"code":7}'
    assert (after.number, after.owner, after.fence, after.how, after.error) == (2, second.owner, second.fence, "done", None)
    assert before.ended_at is not None
    assert after.ended_at is not None
    assert before.started_at <= before.ended_at <= after.started_at <= after.ended_at
