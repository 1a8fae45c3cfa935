"""What happened, of all jobs: the newest first, in pages, and no more than the ledgers keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lockbeat import InvalidArgument, Lockbeat
from lockbeat.errors import UnknownJob
from lockbeat.jobs import Job, past
from lockbeat.values.durations import instant
from tests.beats import MINUTE, Hands, eventually, last_slot, ledger, minutely, now_ms, overdue, scheduler, shot
from tests.conftest import only


async def fire(lb: Lockbeat, raw: Any, *jobs: Job, here: bool = True) -> Hands:
    """Let each job's slot come due, and fire them all."""
    for job in jobs:
        await overdue(lb, raw, job)
    hands = Hands(*(job.name for job in jobs) if here else ())
    beat = scheduler(lb, *jobs, runner=hands)
    for shard in range(lb.store.shards):
        await beat.tick(shard)
    return hands


def names(found: past.History) -> list[str]:
    return [entry.task_id for entry in found.entries]


async def test_it_has_what_the_ledgers_of_all_jobs_have_the_newest_first(lb: Lockbeat, raw: Any) -> None:
    jobs = [minutely(f"job{n}") for n in range(5)]
    for job in jobs:
        await fire(lb, raw, job)
    found = await lb.jobs.history()
    entries = [entry for job in jobs for entry in await ledger(lb, job.name)]
    assert sorted(found.entries, key=lambda one: one.job) == entries
    assert [one.at or 0 for one in found.entries] == sorted((one.at or 0 for one in entries), reverse=True)
    assert found.more is None


async def test_pages_follow_each_other_without_a_gap_or_a_double(lb: Lockbeat, raw: Any) -> None:
    jobs = [minutely(f"job{n:02}") for n in range(23)]
    await fire(lb, raw, *jobs)
    whole, pages, more = names(await lb.jobs.history(limit=100)), [], None
    while True:
        page = await lb.jobs.history(limit=5, after=more)
        assert len(page.entries) <= 5
        pages += names(page)
        more = page.more
        if more is None:
            break
    assert pages == whole
    assert len({*pages}) == 23


async def test_states_that_are_not_good_are_found_among_themselves(lb: Lockbeat, raw: Any) -> None:
    good, bad, late = minutely("good"), minutely("bad"), minutely("late", catchup="skip", window=0.001)
    hands = await fire(lb, raw, good, bad)
    for task in hands.tasks:
        await (lb.tasks.fail(task, "broken") if task.job == "bad" else lb.tasks.complete(task))
    await fire(lb, raw, late)
    assert {one.job for one in (await lb.jobs.history(states=["failed"])).entries} == {"bad"}
    assert {one.job for one in (await lb.jobs.history(states=["failed", "missed"])).entries} == {"bad", "late"}
    assert {one.job for one in (await lb.jobs.history(states=["done"])).entries} == {"good"}
    assert (await lb.jobs.history(states=["lost"])).entries == ()


async def test_a_failed_slot_that_was_retried_and_done_is_no_failure_any_more(lb: Lockbeat, raw: Any) -> None:
    hands = await fire(lb, raw, minutely())
    await lb.tasks.fail(hands.tasks[0], "broken")
    assert names(await lb.jobs.history(states=["failed"])) == [hands.tasks[0].id]
    await lb.tasks.retry(hands.tasks[0].id)
    [again] = await lb.tasks.claim("default", lb.owner, 1, 30)
    await lb.tasks.complete(again)
    assert names(await lb.jobs.history(states=["failed"])) == []
    assert names(await lb.jobs.history(states=["done"])) == [again.id]


async def test_of_one_job_and_of_those_with_a_tag(lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await fire(lb, raw, minutely("a", tags=["x"]), minutely("b", tags=["x", "y"]), minutely("c"))
    assert {one.job for one in (await lb.jobs.history(job="b")).entries} == {"b"}
    for few in (20, 0):  # by their ledgers; by going through all
        monkeypatch.setattr(past, "FEW_JOBS", few)
        assert {one.job for one in (await lb.jobs.history(tag="x")).entries} == {"a", "b"}
        assert (await lb.jobs.history(tag="z")).entries == ()


async def test_triggered_runs_are_part_of_it(lb: Lockbeat, raw: Any) -> None:
    await fire(lb, raw, minutely(overlap="allow"))
    spawned = await lb.jobs.trigger("report")
    for found in (await lb.jobs.history(), await lb.jobs.history(job="report"), await lb.jobs.history(states=["fired"])):
        [run, slot] = found.entries
        assert (run.run, run.task_id, run.job) == (spawned.task_id, spawned.task_id, "report")
        assert (slot.run, run.lateness) == ("", None)
    [task] = await lb.tasks.claim("default", lb.owner, 1, 30)
    await lb.tasks.complete(task)
    assert spawned.task_id in names(await lb.jobs.history(states=["done"])) or task.id != spawned.task_id


async def test_since_and_until_bound_it_by_when_it_happened(lb: Lockbeat, raw: Any) -> None:
    await fire(lb, raw, minutely("early"))
    [early] = await ledger(lb, "early")
    assert early.at_ms is not None

    async def later() -> bool:
        return await now_ms(lb) > (early.at_ms or 0)

    await eventually(later, "the clock goes on")
    await fire(lb, raw, minutely("late"))
    [late] = await ledger(lb, "late")
    assert late.at_ms is not None
    assert names(await lb.jobs.history(since=instant(late.at_ms))) == [late.task_id]
    assert names(await lb.jobs.history(until=instant(early.at_ms))) == [early.task_id]
    assert names(await lb.jobs.history(instant(early.at_ms), instant(late.at_ms))) == [late.task_id, early.task_id]


async def test_what_the_ledger_has_forgotten_is_no_part_of_it_and_takes_no_room_for_long(lb: Lockbeat, raw: Any) -> None:
    job = minutely(keep=3, overlap="allow")
    await lb.jobs.put(job)
    slot = await last_slot(lb, await lb.jobs.get("report"), 400)
    shard = lb.jobs.shard_of("report")
    raw.hset(lb.store.keys.key(shard, "job:slot"), "report", f"{slot} {slot} {job.rev}")
    for at in range(slot, slot + 400 * MINUTE, MINUTE):
        following = f"{at + MINUTE} {at + MINUTE} {job.rev}"
        await lb.store.call_row(shot(lb, job, at, next=following), shard)
    kept = {entry.task_id for entry in await ledger(lb, "report")}
    assert {*names(await lb.jobs.history(limit=100))} == kept
    lines = raw.zlexcount(lb.store.keys.key(shard, "ledger:order"), b"[\xff", b"+")
    assert lines < 150, "of 400 that were written"


async def test_a_job_that_is_deleted_leaves_nothing_of_it_mindsdb_8081(lb: Lockbeat, raw: Any) -> None:
    hands = await fire(lb, raw, minutely("report"), minutely("other"))
    for task in hands.tasks:
        await lb.tasks.fail(task, "broken")
    await lb.jobs.delete("report")
    assert {one.job for one in (await lb.jobs.history()).entries} == {"other"}
    await lb.jobs.delete("other")
    for shard in range(lb.store.shards):
        assert raw.zcard(lb.store.keys.key(shard, "ledger:order")) == 0


async def test_an_answer_that_would_take_too_long_says_where_to_go_on(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [minutely(f"job{n}") for n in range(6)]
    for job in jobs:
        await fire(lb, raw, job)
    monkeypatch.setattr(past, "LOOK", 1)
    monkeypatch.setattr(past, "MOST_LOOKED", 2)
    found, more, turns = [], None, 0
    while turns == 0 or more:
        page = await lb.jobs.history(states=["fired"], after=more)
        found += names(page)
        more, turns = page.more, turns + 1
    assert turns > 1
    assert {*found} == {entry.task_id for job in jobs for entry in await ledger(lb, job.name)}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("asked", "argument"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"states": ["asleep"]}, "states"),
        ({"after": "yesterday"}, "after"),
        ({"job": "report", "tag": "x"}, "tag"),
        ({"since": instant(2000), "until": instant(1000)}, "until"),
        ({"since": instant(2000).replace(tzinfo=None)}, "since"),
    ],
)
@only("memory")
async def test_bad_input_is_named(lb: Lockbeat, asked: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument) as problem:
        await lb.jobs.history(**asked)
    assert problem.value.argument == argument


@only("memory")
async def test_of_a_job_that_is_unknown_there_is_none(lb: Lockbeat) -> None:
    with pytest.raises(UnknownJob):
        await lb.jobs.history(job="nobody")
    assert (await lb.jobs.history(since=instant(0) + timedelta(days=1))).entries == ()
