"""Each run's lateness, taken apart: jitter, firing, the one before, the queue."""

from __future__ import annotations

from typing import Any

from lockbeat import Lockbeat
from lockbeat.jobs import LedgerEntry, Scheduler, plan
from lockbeat.store.records import TaskRecord
from tests.beats import MINUTE, Hands, backdate, eventually, ledger, minutely, now_ms, overdue, scheduler, shot
from tests.conftest import only


async def tick(lb: Lockbeat, beat: Scheduler) -> None:
    for shard in range(lb.store.shards):
        await beat.tick(shard)


def adds_up(entry: LedgerEntry) -> bool:
    """Whether the parts are all the time from the slot to when it began."""
    assert entry.lateness is not None
    first = round(entry.attempts_made[0].started_at * 1000)
    return sum(part or 0 for part in entry.lateness) == first - entry.slot_ms


async def test_what_begins_where_it_was_fired_was_only_fired_late(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    slot = await overdue(lb, raw, job)
    await tick(lb, scheduler(lb, job, runner=Hands("report")))
    [entry] = await ledger(lb, "report")
    assert entry.lateness is not None
    assert entry.lateness == (0, (entry.at_ms or 0) - slot, 0, 0)
    assert adds_up(entry)


async def test_jitter_is_no_delay_of_the_instance_sidekiq_2373(lb: Lockbeat, raw: Any) -> None:
    job = minutely(jitter=30)
    slot = await overdue(lb, raw, job)
    await backdate(lb, raw, "report", slot, slot + 1234)
    await lb.tasks.claim("none", lb.owner, 1, 30)

    async def due() -> bool:
        return await now_ms(lb) >= slot + 1234

    await eventually(due, "the slot's jitter is over")
    await tick(lb, scheduler(lb, job, runner=Hands("report")))
    [entry] = await ledger(lb, "report")
    assert entry.lateness is not None
    assert entry.lateness.jitter_ms == 1234
    assert entry.lateness.firing_ms == (entry.at_ms or 0) - slot - 1234
    assert adds_up(entry)


async def test_after_an_outage_the_latest_slots_own_jitter_counts(lb: Lockbeat, raw: Any) -> None:
    job = minutely(jitter=0.05)
    first = await overdue(lb, raw, job, 3)
    await backdate(lb, raw, "report", first, first + 40)
    await tick(lb, scheduler(lb, job, runner=Hands("report")))
    fired, missed = (await ledger(lb, "report"))[::-1]
    assert missed.lateness is None
    assert fired.lateness is not None
    assert fired.lateness.jitter_ms == plan.due(job, fired.slot_ms, job.trigger.next(fired.slot_ms)) - fired.slot_ms
    assert adds_up(fired)


async def test_in_the_queue_it_waits_for_a_worker(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await overdue(lb, raw, job)
    await tick(lb, scheduler(lb, job))
    [entry] = await ledger(lb, "report")
    assert entry.lateness is not None
    assert entry.lateness.queue_ms is None
    assert not entry.in_line
    await lb.tasks.claim("default", lb.owner, 1, 30)
    [entry] = await ledger(lb, "report")
    assert entry.lateness is not None
    assert entry.lateness.queue_ms == (entry.started_ms or 0) - (entry.at_ms or 0)
    assert adds_up(entry)


async def test_behind_the_one_before_it_waits_in_line_and_then_in_the_queue(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="buffer_all")
    slot, shard = await overdue(lb, raw, job, 1), lb.jobs.shard_of("report")
    following = f"{slot + MINUTE} {slot + MINUTE} {job.rev}"
    await lb.store.call_row(shot(lb, job, slot, next=following), shard)
    [first] = await lb.tasks.claim("default", lb.owner, 1, 30)
    await lb.store.call_row(shot(lb, job, slot + MINUTE), shard)
    [_, waits] = await ledger(lb, "report")
    assert waits.in_line
    assert waits.lateness is not None
    assert waits.lateness[2:] == (None, None)
    await lb.tasks.complete(first)
    [_, waits] = await ledger(lb, "report")
    assert not waits.in_line
    assert waits.lateness is not None
    assert waits.lateness.overlap_ms is not None
    assert waits.lateness.queue_ms is None
    [second] = await lb.tasks.claim("default", lb.owner, 1, 30)
    [_, entry] = await ledger(lb, "report")
    assert adds_up(entry)
    await lb.tasks.complete(second)
    [_, ended] = await ledger(lb, "report")
    assert ended.lateness == entry.lateness


async def test_a_retry_does_not_change_it_sidekiq_datadog_6_kestra_17774(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(max_attempts=3, jitter=0.05), Hands("report")
    slot = await overdue(lb, raw, job)
    await backdate(lb, raw, "report", slot, slot + 20)
    await tick(lb, scheduler(lb, job, runner=hands))
    [before] = await ledger(lb, "report")
    await lb.tasks.fail(hands.tasks[0], "broken")
    [retrying] = await ledger(lb, "report")
    assert retrying.lateness == before.lateness
    assert retrying.retry_at is not None
    [again] = await lb.tasks.claim("default", lb.owner, 1, 30)
    await lb.tasks.complete(again)
    [done] = await ledger(lb, "report")
    assert done.lateness == before.lateness
    assert (done.attempt, done.max_attempts, done.retry_at) == (2, 3, None)


@only("memory")
async def test_a_detail_that_looks_like_times_is_kept_apart(lb: Lockbeat) -> None:
    text = b"waiting 0 1 5 5 0 0 0 0 buffered host\x1f10 20 30\xff\xff{}"
    record = TaskRecord.of(text)
    assert (record.detail, record.fire_ms, record.turn_ms, record.forget_ms) == ("host", 10, 20, 30)
    assert TaskRecord.of(text.replace(b"\x1f10 20 30", b"")).fire_ms == 0
