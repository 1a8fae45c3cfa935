"""Promise 6: a slot that came due is fired, or ends in the ledger with a reason; none vanishes."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.jobs import MOST_COUNTED, Job
from lockbeat.store import results
from lockbeat.store.records import JobCounts
from lockbeat.triggers import Every
from tests.beats import (
    MINUTE,
    Hands,
    backdate,
    eventually,
    last_slot,
    ledger,
    minutely,
    now_ms,
    overdue,
    scheduler,
    shot,
    states,
    tasks_of,
)
from tests.conftest import Connect
from tests.tasks import until


async def tick(lb: Lockbeat, job: Job, runner: Any = None) -> int:
    """One turn of a fresh instance; how many it fired."""
    beat = scheduler(lb, job, runner=runner)
    await beat.tick(lb.jobs.shard_of(job.name))
    return beat.fired


async def test_latest_fires_the_last_slot_and_names_those_before_it(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    first = await overdue(lb, raw, job, back=5)
    assert await tick(lb, job) == 1
    missed, fired = await ledger(lb, "report")
    assert (missed.state, missed.slot_ms, missed.last_ms, missed.count) == ("missed", first, first + 4 * MINUTE, 5)
    assert missed.reason == "no instance fired it before the next was due"
    assert (fired.state, fired.slot_ms) == ("fired", first + 5 * MINUTE)
    state = await lb.jobs.get("report")
    assert state.next is not None
    assert state.next.slot_ms == first + 6 * MINUTE


async def test_latest_within_a_window_fires_none_that_is_older(lb: Lockbeat, raw: Any) -> None:
    job = minutely(trigger=Every(3600), window=60)
    await lb.jobs.put(job)
    slot = await last_slot(lb, await lb.jobs.get("report"), 2)
    await backdate(lb, raw, "report", slot)
    late = await now_ms(lb) - slot - 2 * 3600_000
    fired = await tick(lb, job)
    entries = await ledger(lb, "report")
    assert (entries[0].slot_ms, entries[0].last_ms, entries[0].count) == (slot, slot + 3600_000, 2)
    if late <= 60_000:
        assert fired == 1
    else:
        assert fired == 0
        assert entries[1].state == "missed"
        assert entries[1].reason is not None
        assert entries[1].reason.startswith("more than 60000 ms late")


async def test_skip_fires_what_is_a_little_late(lb: Lockbeat, raw: Any) -> None:
    """A take-over is no outage."""
    job = minutely(trigger=Every(1), catchup="skip", overlap="allow")
    await overdue(lb, raw, job, back=3)
    assert await tick(lb, job) == 1
    assert await states(lb, "report") == ["missed", "fired"]


async def test_skip_fires_nothing_after_an_outage(lb: Lockbeat, raw: Any) -> None:
    job = Job.declare("report", Every(1000), catchup="skip", window=0.001)
    slot = await overdue(lb, raw, job, back=1)
    assert await tick(lb, job) == 0
    assert tasks_of(raw, lb) == []
    before, last = await ledger(lb, "report")
    assert (before.state, before.slot_ms, before.last_ms) == ("missed", slot, slot)
    assert (last.state, last.slot_ms, last.last_ms) == ("missed", slot + 1_000_000, slot + 1_000_000)
    assert last.reason is not None
    assert "late" in last.reason


async def test_what_holds_a_slot_back_does_not_count_as_late(lb: Lockbeat, raw: Any) -> None:
    """A jitter longer than the window must not make every slot a missed one."""
    job = minutely(trigger=Every(3600), catchup="skip", window=1, jitter=3599)
    await lb.jobs.put(job)
    slot = await last_slot(lb, await lb.jobs.get("report"))
    await backdate(lb, raw, "report", slot, await now_ms(lb))
    assert await tick(lb, job) == 1
    assert await states(lb, "report") == ["fired"]


async def test_a_long_outage_is_one_entry_too_many_to_count(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    first = await overdue(lb, raw, job, back=MOST_COUNTED + 5)
    assert await tick(lb, job) == 1
    missed, fired = await ledger(lb, "report")
    assert (missed.slot_ms, missed.last_ms, missed.count) == (first, fired.slot_ms - MINUTE, -1)


async def test_a_slot_while_the_last_one_runs_is_skipped(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    slot = await overdue(lb, raw, job, back=1)
    await backdate(lb, raw, "report", slot)
    assert await tick(lb, job, hands) == 1
    running = hands.tasks[0]
    await backdate(lb, raw, "report", slot + MINUTE + 1)  # one more that is due
    assert await tick(lb, job, hands) == 0
    entry = (await ledger(lb, "report"))[-1]
    assert (entry.state, entry.reason) == ("skipped", f"overlap: {running.id} had not ended")
    assert await lb.tasks.complete(running)
    await backdate(lb, raw, "report", slot + MINUTE + 2)
    assert await tick(lb, job, hands) == 1


async def test_after_an_hour_without_a_worker_the_latest_slot_runs(lb: Lockbeat, raw: Any) -> None:
    """And not the one that waited longest; the ledger has every one of them."""
    job = minutely(catchup="latest")
    slot = await overdue(lb, raw, job, back=60)
    for number in range(61):
        await backdate(lb, raw, "report", slot + number * MINUTE)
        [row] = await fire_by_hand(lb, job, slot + number * MINUTE)
        assert row[0] == results.WAITING
    entries = await ledger(lb, "report")
    assert [entry.state for entry in entries] == ["missed"] * 60 + ["fired"]
    assert {entry.reason for entry in entries[:-1]} == {"no worker began it before the next was due"}
    assert entries[-1].reason == "no worker began those before it"
    [task] = await lb.tasks.claim("default", "w", 100)
    assert task.id == f"report@{slot + 60 * MINUTE}"
    assert (await ledger(lb, "report"))[-1].reason is None


async def fire_by_hand(lb: Lockbeat, job: Job, slot: int) -> Any:
    """As an instance that has no worker does at that slot."""
    row = shot(lb, job, slot, next=f"{slot + MINUTE} 0 {job.rev}")
    return await lb.store.call_many([row], lb.jobs.shard_of(job.name))


async def test_a_slot_that_takes_the_place_of_one_that_waits_keeps_its_place(lb: Lockbeat, raw: Any) -> None:
    """Or a job that waits for longer than its period would never come to the head of its queue."""
    job = minutely()
    slot = await overdue(lb, raw, job, back=1)
    await fire_by_hand(lb, job, slot)
    shard = lb.jobs.shard_of("report")
    other = next(name for name in (f"other-{n}" for n in range(99)) if lb.jobs.shard_of(name) == shard)
    await lb.jobs.put(minutely(other))
    await backdate(lb, raw, other, slot + 1)
    await fire_by_hand(lb, minutely(other), slot + 1)
    await backdate(lb, raw, "report", slot + MINUTE)
    await fire_by_hand(lb, job, slot + MINUTE)
    tasks = await lb.tasks.claim("default", "w", 1)
    assert [task.id for task in tasks] == [f"report@{slot + MINUTE}"]


async def test_a_slot_that_is_started_here_takes_the_place_of_one_that_waits(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    slot = await overdue(lb, raw, job, back=1)
    await fire_by_hand(lb, job, slot)
    assert await tick(lb, job, hands) == 1
    assert [task.id for task in hands.tasks] == [f"report@{slot + MINUTE}"]
    assert await states(lb, "report") == ["missed", "fired"]
    assert tasks_of(raw, lb) == [f"report@{slot + MINUTE}"]


async def test_under_allow_all_that_wait_run(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="allow")
    slot = await overdue(lb, raw, job, back=2)
    for number in range(3):
        await backdate(lb, raw, "report", slot + number * MINUTE)
        await fire_by_hand(lb, job, slot + number * MINUTE)
    tasks = await lb.tasks.claim("default", "w", 100)
    assert [task.slot_ms for task in tasks] == [slot, slot + MINUTE, slot + 2 * MINUTE]


@pytest.mark.parametrize("overlap", ["skip", "allow"])
async def test_what_waits_of_a_deleted_job_goes_with_it_and_what_runs_goes_on(lb: Lockbeat, raw: Any, overlap: Any) -> None:
    job = minutely(overlap=overlap)
    slot = await overdue(lb, raw, job, back=2)
    await fire_by_hand(lb, job, slot)
    running = await lb.tasks.claim("default", "w", 1) if overlap == "allow" else []
    for number in (1, 2):
        await backdate(lb, raw, "report", slot + number * MINUTE)
        await fire_by_hand(lb, job, slot + number * MINUTE)
    assert len(tasks_of(raw, lb)) > len(running)
    assert await lb.jobs.delete("report")
    assert tasks_of(raw, lb) == [task.id for task in running]
    assert await lb.tasks.claim("default", "w", 10) == []
    for task in running:
        assert await lb.tasks.complete(task)
    assert tasks_of(raw, lb) == []
    assert await ledger(lb, "report") == []


async def test_a_dead_attempt_that_no_index_knows_does_not_silence_its_job(lb: Lockbeat, raw: Any) -> None:
    """task:live was evicted, or deleted by hand: no sweep finds the attempt."""
    job = minutely(lease=0.1)
    slot = await overdue(lb, raw, job, back=1)
    await fire_by_hand(lb, job, slot)
    [task] = await lb.tasks.claim("default", "dead", 1)
    raw.delete(lb.store.keys.key(lb.jobs.shard_of("report"), "task:live"))
    await until(lb, task.expires_at)
    assert await tick(lb, job) == 1
    assert await states(lb, "report") == ["lost", "fired"]


async def test_a_slot_while_the_last_one_waits_to_be_retried_is_skipped(lb: Lockbeat, raw: Any) -> None:
    from lockbeat import Fixed

    job, hands = minutely(max_attempts=2, retry=Fixed(60)), Hands("report")
    slot = await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    assert (await lb.tasks.fail(hands.tasks[0], "no luck")).outcome == "requeued"
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 0
    assert (await states(lb, "report"))[-1] == "skipped"


async def test_under_allow_both_run(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(overlap="allow"), Hands("report")
    slot = await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 1
    first, second = hands.tasks
    assert first.fence < second.fence
    assert await lb.locks.list() == []


async def test_who_holds_the_jobs_lock_keeps_it_from_running(lb: Lockbeat, raw: Any) -> None:
    """A user's own lock of that name: maintenance, say."""
    job, hands = minutely(), Hands("report")
    async with lb.lock("job:report", ttl=30):
        slot = await overdue(lb, raw, job)
        assert await tick(lb, job, hands) == 0
        assert hands.tasks == []
        [entry] = await ledger(lb, "report")
        assert (entry.state, entry.reason) == ("skipped", f"overlap: the job's lock is held by {lb.owner}")
        assert tasks_of(raw, lb) == []
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 1


async def test_who_holds_the_jobs_lock_keeps_a_worker_from_claiming_it(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await overdue(lb, raw, job)
    assert await tick(lb, job) == 1
    shard = lb.jobs.shard_of("report")
    async with lb.lock("job:report", ttl=30):
        tasks, *_ = await lb.tasks.claim_on(shard, ["default"], "w", 10, 5000)
        assert tasks == []
    assert tasks_of(raw, lb) == []
    [entry] = await ledger(lb, "report")
    assert entry.state == "skipped"
    assert entry.reason is not None
    assert lb.owner in entry.reason


async def test_the_attempt_of_an_instance_that_died_is_lost(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    job, hands = minutely(lease=0.1), Hands("report")
    async with connect(owner="doomed") as doomed:
        slot = await overdue(lb, raw, job)
        assert await tick(doomed, job, hands) == 1
        shard = lb.jobs.shard_of("report")

    async def swept() -> bool:
        await lb.tasks.claim_on(shard, ["default"], "w", 10, 5000)
        return await states(lb, "report") == ["lost"]

    await eventually(swept, "the lease ends and the ledger says so")
    [entry] = await ledger(lb, "report")
    assert (entry.slot_ms, entry.by, entry.fence, entry.attempt) == (slot, "doomed", hands.tasks[0].fence, 1)
    assert entry.reason is not None
    assert entry.reason.startswith("its lease was not renewed in time: the instance died, was frozen or cut off")
    assert tasks_of(raw, lb) == []
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 1, "a lost attempt does not block the next slot"


async def test_a_slot_is_not_skipped_for_one_whose_instance_is_dead(lb: Lockbeat, connect: Connect, raw: Any) -> None:
    """Its lease has ended though no worker has swept it yet."""
    job, hands = minutely(lease=0.1), Hands("report")
    async with connect(owner="doomed") as doomed:
        slot = await overdue(lb, raw, job)
        assert await tick(doomed, job, hands) == 1

    async def ended() -> bool:
        return not await lb.locks.is_locked("job:report")

    await eventually(ended, "its lease ends")
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 1
    assert await states(lb, "report") == ["lost", "fired"]


async def test_it_says_when_who_and_how_it_ended(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(overlap="allow"), Hands("report")
    before = await now_ms(lb)
    slot = await overdue(lb, raw, job)
    await tick(lb, job, hands)
    await backdate(lb, raw, "report", slot + 1)
    await tick(lb, job, hands)
    good, bad = hands.tasks
    assert await lb.tasks.complete(good)
    assert (await lb.tasks.fail(bad, "Traceback …\nValueError: äöü \x00")).outcome == "dead_lettered"
    after = await now_ms(lb)
    done, failed = await ledger(lb, "report")
    for entry, task, state in ((done, good, "done"), (failed, bad, "failed")):
        assert (entry.state, entry.by, entry.fence, entry.attempt) == (state, lb.owner, task.fence, 1)
        assert entry.at_ms is not None
        assert entry.started_ms is not None
        assert entry.ended_ms is not None
        assert before <= entry.at_ms <= entry.started_ms <= entry.ended_ms <= after
        assert entry.task_id == task.id
        assert entry.slot.timestamp() * 1000 == entry.slot_ms
    assert done.reason is None
    assert failed.reason == "Traceback …\nValueError: äöü \x00"


async def test_a_trigger_changed_while_a_slot_was_due_leaves_a_reason(lb: Lockbeat, raw: Any) -> None:
    slot = await overdue(lb, raw, minutely())
    await lb.jobs.put(minutely(trigger=Every(3600)))
    [entry] = await ledger(lb, "report")
    assert (entry.slot_ms, entry.state) == (slot, "missed")
    assert entry.reason == "the trigger was changed before it was fired"


async def test_it_keeps_as_many_entries_as_the_job_says(lb: Lockbeat, raw: Any) -> None:
    job = minutely(overlap="allow", keep=5)
    slot = await overdue(lb, raw, job)
    hands = Hands("report")
    for number in range(100):
        await backdate(lb, raw, "report", slot + number)
        assert await tick(lb, job, hands) == 1
        assert await lb.tasks.complete(hands.tasks[-1])
    found = [entry.slot_ms for entry in await ledger(lb, "report")]
    assert found == list(range(slot + 100 - len(found), slot + 100))
    assert 5 <= len(found) < 90  # old ones go in handfuls


async def test_jobs_that_are_to_keep_less_forget_a_hundred_entries_a_run(lb: Lockbeat, raw: Any) -> None:
    """However many they are: a run that forgot them all would stop the server for as long."""
    jobs = [minutely(f"job {n}", overlap="allow", keep=1) for n in range(64)]
    mine = [job for job in jobs if lb.jobs.shard_of(job.name) == 0][:16]
    await lb.jobs.put(*mine)
    order = lb.store.keys.key(0, "ledger:order")
    raw.zadd(order, {job.name.encode() + b"\xff%015d" % at: 0 for job in mine for at in range(80)})
    slot, dropped = await now_ms(lb), []
    for back in range(4):
        for job in mine:
            await backdate(lb, raw, job.name, slot - back)
        before = raw.zlexcount(order, "-", b"(\xff")  # behind them is the history
        fired = await lb.store.call_many([shot(lb, job, slot - back) for job in mine], 0)
        assert [reply.fired for reply in fired] == [results.WAITING] * len(mine)
        dropped.append(before + len(mine) - raw.zlexcount(order, "-", b"(\xff"))
    assert dropped[0] == max(dropped) == 100, "two jobs are looked at, with eighty to forget each"


@pytest.mark.parametrize("name", ["a@b", "ünïcode job", "new\nline", "{tag}", "x" * 1024])
async def test_any_name_will_do(lb: Lockbeat, raw: Any, name: str) -> None:
    job, hands = minutely(name), Hands(name)
    slot = await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    assert await lb.tasks.complete(hands.tasks[0])
    [entry] = await ledger(lb, name)
    assert (entry.job, entry.slot_ms, entry.state) == (name, slot, "done")
    assert await lb.jobs.delete(name)
    assert await ledger(lb, name) == []


async def test_a_jobs_counts_outlive_its_ledger_and_go_with_the_job(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(keep=2, max_attempts=1), Hands("report")
    slot = await overdue(lb, raw, job, back=3)
    assert await tick(lb, job, hands) == 1, "three are missed, and the latest is fired"
    assert await lb.tasks.complete(hands.tasks[-1])
    for number in range(1, 20):
        await backdate(lb, raw, "report", slot + 3 * MINUTE + number)
        assert await tick(lb, job, hands) == 1
        task = hands.tasks[-1]
        assert (await lb.tasks.complete(task)) if number % 2 else (await lb.tasks.fail(task, "no luck"))
    await backdate(lb, raw, "report", slot + 3 * MINUTE + 30)
    assert await tick(lb, job, hands) == 1
    await backdate(lb, raw, "report", slot + 3 * MINUTE + 40)
    assert await tick(lb, job, hands) == 0, "the last one runs"
    wanted = JobCounts(fired=21, done=11, failed=9, lost=0, skipped=1, missed=3, cancelled=0)
    assert (await lb.jobs.get("report")).counts == wanted
    assert len(await ledger(lb, "report")) < 25
    assert await lb.tasks.cancel(hands.tasks[-1].id)
    assert (await lb.jobs.get("report")).counts == wanted._replace(cancelled=1)
    assert await lb.jobs.delete("report")
    assert raw.hlen(lb.store.keys.key(lb.jobs.shard_of("report"), "job:counts")) == 0
    await lb.jobs.put(job)
    assert (await lb.jobs.get("report")).counts == JobCounts()


async def test_a_slot_that_is_tried_again_is_counted_by_each_of_its_ends(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    assert (await lb.tasks.fail(hands.tasks[0], "no luck")).outcome == "dead_lettered"
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=1, failed=1)
    assert await lb.tasks.redrive() == 1
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=1, failed=1), "a counter that falls is one that began anew"
    [task] = await lb.tasks.claim("default", "w", 1)
    assert await lb.tasks.complete(task)
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=1, done=1, failed=1)


async def test_what_ends_after_its_job_was_deleted_leaves_no_counts(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(), Hands("report")
    await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    assert await lb.jobs.delete("report")
    assert await lb.tasks.complete(hands.tasks[0])
    assert raw.hlen(lb.store.keys.key(lb.jobs.shard_of("report"), "job:counts")) == 0
    assert raw.hlen(lb.store.keys.key(lb.jobs.shard_of("report"), "task")) == 0, "nor anything else"


@pytest.mark.parametrize("ends", ["done", "failed", "cancelled", "tried again"])
async def test_what_a_deleted_job_left_running_is_not_counted_by_one_of_its_name(lb: Lockbeat, raw: Any, ends: str) -> None:
    job, hands = minutely(overlap="allow", max_attempts=2, retry=None), Hands("report")
    slot = await overdue(lb, raw, job)
    assert await tick(lb, job, hands) == 1
    assert await lb.jobs.delete("report")
    await lb.jobs.put(job)
    await backdate(lb, raw, "report", slot + 1)
    assert await tick(lb, job, hands) == 1
    old, new = hands.tasks
    if ends == "cancelled":
        assert await lb.tasks.cancel(old.id)
    elif ends != "done":
        assert await lb.tasks.fail(old, "no luck")
        [old] = await lb.tasks.claim("default", "w", 10)
    if ends == "failed":
        assert (await lb.tasks.fail(old, "no luck")).outcome == "dead_lettered"
    elif ends != "cancelled":
        assert await lb.tasks.complete(old)
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=1)
    assert await lb.tasks.complete(new)
    assert (await lb.jobs.get("report")).counts == JobCounts(fired=1, done=1)
    assert await states(lb, "report") == ["done"]


async def test_a_long_ledger_goes_with_its_job_a_hundred_entries_a_run(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lb.jobs.put(minutely(keep=1000))
    order = lb.store.keys.key(lb.jobs.shard_of("report"), "ledger:order")
    raw.zadd(order, {b"report\xff%015d" % at: 0 for at in range(350)})
    left, call = [], lb.store.call

    async def noted(*name: Any, **args: Any) -> Any:
        reply = await call(*name, **args)
        left.append(raw.zcard(order))
        return reply

    monkeypatch.setattr(lb.store, "call", noted)
    assert await lb.jobs.delete("report")
    assert left == [250, 150, 50, 0]
