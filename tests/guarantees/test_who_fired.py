"""The ledger says who fired a slot: while it waits, while it runs, and when it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.jobs.ledger import Lateness
from tests.beats import MINUTE, fired, minutely, overdue, scheduler, shot
from tests.tasks import claim_one, until


async def fire(lb: Lockbeat, raw: Any, job: Job, back: int = 0) -> None:
    """Fire a slot of it; a worker is to claim it."""
    await overdue(lb, raw, job, back)
    await scheduler(lb, job).tick(lb.jobs.shard_of(job.name))


async def fire_two(lb: Lockbeat, raw: Any, job: Job) -> None:
    """One after the other."""
    slot = await overdue(lb, raw, job, 1)
    for at in (slot, slot + MINUTE):
        following = f"{at + MINUTE} {at + MINUTE} {job.rev}"
        await lb.store.call_row(shot(lb, job, at, next=following), lb.jobs.shard_of(job.name))


async def latest(lb: Lockbeat) -> LedgerEntry:
    return (await lb.jobs.ledger("report", 1))[0]


@pytest.mark.parametrize("options", [{}, {"keep_for": 3600}, {"overlap": "allow"}], ids=["plain", "keep_for", "allow"])
async def test_it_stays_when_another_has_begun_it_and_when_that_has_ended(
    lb: Lockbeat, raw: Any, options: dict[str, Any]
) -> None:
    await fire(lb, raw, minutely(max_attempts=2, lease=60, **options))
    assert (await latest(lb)).fired_by == lb.owner
    for attempt in (1, 2):
        task = await claim_one(lb, owner="worker")
        entry = await latest(lb)
        assert (entry.fired_by, entry.by, entry.attempt) == (lb.owner, "worker", attempt)
        assert (entry.code, entry.reason) == (None, None)
        if attempt == 1:
            await lb.tasks.fail(task, "no such address", retry_at=0)
            assert (await latest(lb)).fired_by == lb.owner
    await lb.tasks.complete(task)
    entry = await latest(lb)
    assert (entry.state, entry.fired_by, entry.by) == ("done", lb.owner, "worker")
    assert (entry.code, entry.reason) == (None, None)


async def test_it_stays_of_one_that_is_given_back(lb: Lockbeat, raw: Any) -> None:
    await fire(lb, raw, minutely(max_attempts=2, lease=60))
    await claim_one(lb, owner="worker")
    await lb.tasks.release_all("worker")
    entry = await latest(lb)
    assert (entry.state, entry.code, entry.fired_by) == ("retrying", "released", lb.owner)
    await lb.tasks.complete(await claim_one(lb, owner="worker"))
    assert (await latest(lb)).fired_by == lb.owner


async def test_it_stays_of_one_that_is_lost(lb: Lockbeat, raw: Any) -> None:
    await fire(lb, raw, minutely(max_attempts=2, lease=0.1))
    for state in ("retrying", "lost"):
        task = await claim_one(lb, owner="worker", lease=0.1)
        await until(lb, task.expires_at)
        assert await lb.tasks.claim("other", "another") == []  # what expired is taken back
        entry = await latest(lb)
        assert (entry.state, entry.code, entry.fired_by) == (state, "expired", lb.owner)


async def test_it_stays_of_one_that_nobody_began_and_of_one_that_took_its_place(lb: Lockbeat, raw: Any) -> None:
    job = minutely(lease=60)
    await fire_two(lb, raw, job)
    after, before = await lb.jobs.ledger("report")
    assert (before.state, before.code, before.fired_by) == ("missed", "not_begun", lb.owner)
    assert (after.state, after.code, after.fired_by) == ("fired", "took_place", lb.owner)
    await claim_one(lb, owner="worker")
    assert ((await latest(lb)).fired_by, (await latest(lb)).by) == (lb.owner, "worker")


async def test_it_stays_of_one_that_waited_in_line(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="buffer_all", lease=60)
    await fire_two(lb, raw, job)
    for _ in range(2):
        await lb.tasks.complete(await claim_one(lb, owner="worker"))
    entries = await lb.jobs.ledger("report")
    assert [(entry.state, entry.fired_by, entry.by) for entry in entries] == [("done", lb.owner, "worker")] * 2


async def test_of_one_that_is_begun_as_it_is_fired_it_is_who_runs_it_and_is_not_written_twice(lb: Lockbeat, raw: Any) -> None:
    task = await fired(lb, raw, lease=60)
    await lb.tasks.complete(task)
    entry = await latest(lb)
    assert (entry.fired_by, entry.by) == (task.owner, task.owner)
    record = raw.hget(lb.store.keys.key(lb.jobs.shard_of("report"), "task"), task.id)
    assert record.count(task.owner.encode()) == 1


@pytest.mark.parametrize("options", [{}, {"keep_for": 3600}], ids=["plain", "keep_for"])
async def test_it_stays_of_one_that_somebody_cancelled_and_had_tried_again(
    lb: Lockbeat, raw: Any, options: dict[str, Any]
) -> None:
    await fire(lb, raw, minutely(**options))
    task_id = (await latest(lb)).task_id
    for by in ("ann", None):
        await lb.tasks.cancel(task_id, by=by)
        assert ((await latest(lb)).fired_by, (await lb.tasks.get(task_id)).cancelled_by) == (lb.owner, by)
        await lb.tasks.retry(task_id, cancelled=True, by="bob")
        entry = await latest(lb)
        assert entry.retried is not None
        assert (entry.fired_by, entry.retried.by, entry.retried.detail) == (lb.owner, "bob", by or "")
    task = await claim_one(lb, owner="worker")
    await lb.tasks.cancel(task_id, by="eve")
    assert not await lb.tasks.complete(task), "it was stopped"
    entry = await latest(lb)
    assert (entry.fired_by, entry.by, entry.attempts_made[0].error) == (lb.owner, "worker", "it was cancelled by eve")
    await lb.tasks.retry(task_id, cancelled=True)
    await lb.tasks.complete(await claim_one(lb, owner="worker"))
    assert ((await latest(lb)).state, (await latest(lb)).fired_by) == ("done", lb.owner)


def test_what_an_older_version_wrote_is_read_as_it_was() -> None:
    slot = 1_893_456_000_000

    def entry(began: int) -> LedgerEntry:
        head = f"done 1 1 {slot + 4} {slot} 0 0 {began} {began + 9} - "
        return LedgerEntry.of("report", slot, f"{head}\xff1 77 {began} {began + 9} done worker\xff".encode("latin-1"), b"")

    assert (entry(slot + 4).fired_by, entry(slot + 4).by) == ("worker", "worker"), "begun as it was fired"
    later = entry(slot + 50)
    assert (later.fired_by, later.by, later.lateness) == (None, "worker", Lateness(0, 4, 0, 46))
    missed = LedgerEntry.of("report", slot, f"missed 0 0 {slot} {slot} 0 0 0 {slot} not_fired \xff\xff".encode("latin-1"), b"")
    assert missed.fired_by is None
