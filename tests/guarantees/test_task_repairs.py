"""What once took the work of others with it, or was lost on the way, and must not again: mends in tasks and their workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run
from lockbeat.cli.commands import leases
from lockbeat.monitor import instances
from lockbeat.program import serving
from lockbeat.store import results
from lockbeat.store.rows import Row
from lockbeat.tasks import NewTask, Task, Tasks
from lockbeat.worker import worker as worker_module
from tests.beats import Beats, Hands, eventually, fired, minutely, overdue, scheduler, states
from tests.conftest import only, wait_until
from tests.tasks import NOON, claim_one, end_of, stopped

here_and_there = only("memory", "valkey")


# -- beats that share a Lockbeat


@here_and_there
async def test_a_beat_that_shuts_down_leaves_what_others_have_begun_on_its_lockbeat(lb: Lockbeat) -> None:
    ends, stays, begun, go = Beat(lb, queue="a", grace=1), Beat(lb, queue="b", grace=1), [], asyncio.Event()

    @stays.task(max_attempts=1)
    async def job(run: Run) -> str:
        begun.append(run.attempt)
        await go.wait()
        return "undisturbed"

    async with stays.lifespan():
        async with ends.lifespan():
            spawned = await stays.spawn(job)
            await lb.tasks.spawn("by hand", queue="mine", max_attempts=1)
            mine = await claim_one(lb, "mine", lb.owner)
            await wait_until(lambda: begun, "it runs")
        assert await lb.tasks.heartbeat(mine)
        assert await lb.tasks.complete(mine)
        go.set()
        info = await end_of(lb, spawned.task_id)
    assert (info.state, info.result, begun) == ("done", "undisturbed", [1])


@here_and_there
async def test_an_instance_of_two_beats_lives_as_long_as_one_of_them_serves(lb: Lockbeat) -> None:
    async with Beat(lb, queue="b", grace=1).lifespan():
        async with Beat(lb, queue="a", grace=1).lifespan():

            async def known() -> bool:
                return bool(await instances(lb.store))

            await eventually(known, "it says that it lives")
        assert [one.owner for one in await instances(lb.store)] == [lb.owner]


# -- repeated calls


@here_and_there
@pytest.mark.parametrize("leased", [True, False])
async def test_a_repeated_cancel_of_a_jobs_task_is_answered_as_the_first_time(lb: Lockbeat, raw: Any, leased: bool) -> None:
    task = await fired(lb, raw)
    if not leased:
        assert await lb.tasks.release(task)
    args: dict[str, Any] = {"id": task.id, "call": lb.store.new_call(), "by": "ann"}
    assert [await lb.store.call("task/cancel", 0, **args) for _ in range(3)] == [results.DONE] * 3
    said = await lb.store.call("task/cancel", 0, **args | {"call": lb.store.new_call()})
    assert said == results.FINISHED, "another call finds it ended"
    assert await states(lb, "report") == ["cancelled"]


def failing(lb: Lockbeat, task: Task) -> dict[str, Any]:
    args: dict[str, Any] = {
        "id": task.id,
        "owner": task.owner,
        "fence": task.fence,
        "error": "broken",
        "failure": '{"type":"Error","message":"broken","traceback":null}',
        "retry_at": -1,
    }
    return args | {"call": lb.store.new_call()}


@here_and_there
async def test_a_repeated_fail_of_a_jobs_last_attempt_is_answered_as_the_first_time(lb: Lockbeat, raw: Any) -> None:
    task = await fired(lb, raw, max_attempts=1)
    args = failing(lb, task)
    assert [await lb.store.call("task/fail", 0, **args) for _ in range(3)] == [results.DEAD] * 3
    assert await lb.store.call("task/fail", 0, **failing(lb, task)) == results.NOT_YOURS, "another call ends nothing"
    assert await states(lb, "report") == ["failed"]


@here_and_there
async def test_a_repeated_fail_of_a_jobs_earlier_attempt_names_the_same_retry_and_leaves_the_next_alone(
    lb: Lockbeat, raw: Any
) -> None:
    task = await fired(lb, raw, max_attempts=3, retry=None)
    args = failing(lb, task)
    first = await lb.store.call("task/fail", 0, **args)
    assert first > 0
    following = await claim_one(lb)
    assert await lb.store.call("task/fail", 0, **args) == first
    assert following.attempt == 2
    assert await lb.tasks.complete(following)


@here_and_there
@pytest.mark.parametrize(
    ("begun", "most", "answer"), [(0, 1, results.WAITING), (1, 3, results.WAITING), (1, 1, results.FINISHED)]
)
async def test_a_repeated_release_of_a_jobs_attempt_is_answered_as_the_first_time(
    lb: Lockbeat, raw: Any, begun: int, most: int, answer: int
) -> None:
    task = await fired(lb, raw, max_attempts=most)
    args: dict[str, Any] = {
        "id": task.id,
        "owner": task.owner,
        "fence": task.fence,
        "begun": begun,
        "delay_ms": 0,
        "call": lb.store.new_call(),
    }
    assert await lb.store.call("task/release", 0, **args) == answer
    following = await claim_one(lb) if answer == results.WAITING else None
    assert [await lb.store.call("task/release", 0, **args) for _ in range(2)] == [answer, answer]
    if following is not None:
        assert following.attempt == 1 + begun
        assert await lb.tasks.complete(following), "it is the next attempt's"


@only("memory")
async def test_what_the_calls_on_a_jobs_task_were_answered_is_forgotten_when_none_can_be_repeated(lb: Lockbeat, raw: Any) -> None:
    key = lb.store.keys.key
    with stopped() as to:
        task = await fired(lb, raw)
        assert await lb.tasks.cancel(task.id)
        assert not await lb.tasks.release(task)  # its body has stopped
        to(NOON + 19)
        await lb.tasks.claim("default", "sweeper")
        assert any(raw.exists(key(0, f"reply:{n}")) for n in range(3))
        to(NOON + 60)
        await lb.tasks.claim("default", "sweeper")
        assert not raw.exists(*(key(0, f"reply:{n}") for n in range(3)))
        to(NOON + 7 * 86_400 + 1)  # when it can be tried again no more
        await lb.tasks.claim("default", "sweeper")
        assert not raw.exists(key(0, "task:ended"))
        assert await states(lb, "report") == ["cancelled"]


# -- waiting for an end


@here_and_there
async def test_more_than_a_hundred_programs_that_wait_for_one_task_are_all_told(lb: Lockbeat, raw: Any) -> None:
    spawned = await lb.tasks.spawn("job")
    channels = {lb.store.keys.channel(f"to:program-{n}") for n in range(110)}
    rows = [lb.store.row["task/await"](id=spawned.task_id, channel=channel) for channel in channels]
    assert set(await lb.store.call_many(rows, 0)) == {1}
    told: list[str] = []
    listening = raw.pubsub(ignore_subscribe_messages=True)
    try:
        listening.subscribe(*channels)
        for _ in channels:
            listening.get_message(timeout=1)  # that it is subscribed
        assert await lb.tasks.complete(await claim_one(lb), 1)
        while (message := listening.get_message(timeout=0.5)) is not None:
            assert message["data"] == f"ended {spawned.task_id}".encode()
            told.append(message["channel"].decode())
    finally:
        listening.close()
    assert sorted(told) == sorted(channels)
    assert raw.zcard(lb.store.keys.key(0, "task:awaited")) == 0


# -- what can't be read


@here_and_there
@pytest.mark.parametrize("what", ["payload", "record", "lease"])
async def test_a_task_of_which_something_is_unreadable_harms_no_other(lb: Lockbeat, raw: Any, beats: Beats, what: str) -> None:
    beat, ran = beats(concurrency=100), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.task_id)

    spawned = await lb.tasks.spawn_many([NewTask("job", n, max_attempts=1) for n in range(30)])
    ids = [one.task_id for one in spawned]
    bad = ids.pop(10)
    key = lb.store.keys.key
    raw.hset(key(0, {"payload": "task:params", "record": "task"}.get(what, f"task:{what}")), bad, "{foreign")
    if what == "lease":
        raw.zadd(key(0, "task:live"), {bad: 1})
    async with beat.lifespan():
        for task_id in ids:
            assert (await end_of(lb, task_id)).state == "done"
        late = await lb.tasks.spawn("job")
        assert (await end_of(lb, late.task_id)).state == "done", "the queue goes on"
        if what == "payload":
            await wait_until(lambda: raw.zcard(key(0, "task:dead")) == 1, "it can be looked for among the dead")
            assert b"\xfdwhat the store has of it can't be read" in raw.hget(key(0, "task"), bad), "it failed, and was not lost"
        if what == "lease":
            await wait_until(lambda: (raw.hget(key(0, "task"), bad) or b"").startswith(b"done "), "it ends as well")
    assert sorted(set(ran) - {bad}) == sorted([*ids, late.task_id])
    assert len(ran) == len(set(ran))
    assert (bad in ran) is (what == "lease"), "what can be made good runs as well"


# -- cancelled bodies


@only("memory")
async def test_a_cancelled_task_whose_body_still_runs_is_remembered_for_as_long_as_its_lease_stands(
    lb: Lockbeat, raw: Any
) -> None:
    key, options = lb.store.keys.key, {"idempotency_key": "k", "retention": 0}

    async def created() -> bool:
        await lb.tasks.claim("other", "sweeper")
        return (await lb.tasks.spawn("job", **options)).created  # type: ignore[arg-type]

    with stopped() as to:
        first = await lb.tasks.spawn("job", **options)  # type: ignore[arg-type]
        await claim_one(lb, lease=300)
        assert await lb.tasks.cancel(first.task_id)
        for later in (0, 10, 21, 45, 299):
            to(NOON + later)
            assert not await created(), f"{later} s later"
            assert await lb.tasks.purge() == 0
            assert await lb.tasks.claim("default", "bob") == [], "nothing runs beside it"
            assert raw.hexists(key(0, "task:lease"), first.task_id)
        to(NOON + 300)
        assert await created(), "its owner is dead by now"
        assert raw.exists(key(0, "task:owned"), key(0, "task:lease"), key(0, "task:live")) == 0
        assert (await claim_one(lb, owner="bob")).id == first.task_id


# -- limits


@only("memory")
@pytest.mark.parametrize("verb", ["retry", "redrive"])
async def test_max_duration_holds_for_a_dead_task_that_is_tried_again(lb: Lockbeat, verb: str) -> None:
    with stopped() as to:
        spawned = await lb.tasks.spawn("job", max_attempts=1, max_duration=60)
        assert (await lb.tasks.fail(await claim_one(lb), "broken")).outcome == "dead_lettered"
        to(NOON + 500)
        if verb == "retry":
            assert await lb.tasks.retry(spawned.task_id)
        else:
            assert await lb.tasks.redrive() == 1
        to(NOON + 1000)
        task = await claim_one(lb, lease=5000)
        assert task.ends_in == 60, "from when it is begun anew"
        to(NOON + 1059)
        assert await lb.tasks.heartbeat(task, 5000)
        to(NOON + 1060)
        assert (await lb.tasks.heartbeat(task, 5000)).refusal == "cancelled"
        assert (await lb.tasks.get(task.id)).state == "cancelled"


@here_and_there
async def test_a_worker_without_room_sees_to_what_time_has_brought(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the only one there is."""
    monkeypatch.setattr(worker_module, "SWEEP", 0.05)
    beat, begun, go = beats(concurrency=1), [], asyncio.Event()

    @beat.task
    async def long(run: Run) -> None:
        begun.append(run.params)
        await go.wait()

    async with beat.lifespan():
        busy = await beat.spawn(long, "busy")
        await wait_until(lambda: begun, "there is no room for more")
        late = await beat.spawn(long, "late", max_delay=0.3)
        lost = await lb.tasks.spawn("lost", queue="dead", max_attempts=1)
        slow = await lb.tasks.spawn("slow", queue="alive", max_duration=1.5)
        await claim_one(lb, "dead", "mayfly", lease=0.3)
        await claim_one(lb, "alive", "tortoise", lease=300)
        ends = await asyncio.gather(*(lb.tasks.wait(one.task_id, 30) for one in (late, lost, slow)))
        assert [info.state for info in ends] == ["cancelled", "dead", "cancelled"]
        reasons = [info.failure.message.partition(":")[0] for info in ends if info.failure is not None]
        assert reasons == ["max_delay", "its lease was not renewed in time", "max_duration"]
        assert begun == ["busy"]
        go.set()
        assert (await end_of(lb, busy.task_id)).state == "done"


# -- strangers


@here_and_there
async def test_tasks_that_others_lack_the_function_for_are_run_in_their_order_and_never_put_off(
    lb: Lockbeat, raw: Any, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    without, having, ran, delayed = beats(concurrency=10), beats(concurrency=2), [], []
    ready, later = (lb.store.keys.key(0, name) for name in ("task:ready", "task:delayed"))

    @without.task
    async def other() -> None: ...

    @having.task
    async def work(run: Run) -> None:
        ran.append((run.task_id, run.attempt))
        delayed.append(raw.zcard(later))

    caplog.set_level("INFO", logger="lockbeat")
    async with without.lifespan():
        # Of a name that it has not met it takes a task, and gives it back: behind those that came meanwhile.
        await lb.tasks.spawn("work")
        await wait_until(lambda: "no function 'work' here" in caplog.text, "it knows that it lacks the function")
        await wait_until(lambda: raw.zcard(ready) == 1, "it has given it back")
        assert await lb.tasks.complete(await claim_one(lb))
        spawned = await lb.tasks.spawn_many([NewTask("work")] * 300)
        await end_of(lb, (await lb.tasks.spawn("other")).task_id)
        assert (raw.zcard(ready), raw.zcard(later)) == (300, 0), "it has passed them all, and they stay where they are"
        async with having.lifespan():
            await wait_until(lambda: len(ran) == 300, "they run")
    assert ran == [(one.task_id, 1) for one in spawned]
    assert set(delayed) == {0}


@only("valkey")
@pytest.mark.parametrize("concurrency", [1, 100])
async def test_a_known_task_behind_five_hundred_strangers_is_reached_and_they_keep_waiting(
    lb: Lockbeat, raw: Any, beats: Beats, concurrency: int
) -> None:
    beat = beats(concurrency=concurrency)

    @beat.task
    async def known() -> None: ...

    await lb.tasks.spawn_many([NewTask("strange")] * 500)
    spawned = await lb.tasks.spawn("known")
    async with beat.lifespan():
        assert (await end_of(lb, spawned.task_id)).state == "done"
        key = lb.store.keys.key
        await wait_until(lambda: raw.zcard(key(0, "task:ready")) == 500, "none is put off")
        urgent = await lb.tasks.spawn("known", priority=1)
        assert (await end_of(lb, urgent.task_id)).state == "done", "in front of what was passed"


# -- instances


@here_and_there
async def test_foreign_data_under_epoch_ends_no_instance(
    lb: Lockbeat, raw: Any, beats: Beats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "HEARTBEAT", 0.05)
    beat, signs = beats(), set()
    epoch, live = (lb.store.keys.key(0, name) for name in ("epoch", "instance:live"))

    @beat.every(60)
    async def job() -> None: ...

    @beat.task
    async def task() -> None: ...

    def lives() -> bool:
        signs.update(raw.zrange(live, 0, -1, withscores=True))
        return len(signs) >= 4

    async with beat.lifespan():
        raw.set(epoch, "foreign")
        await wait_until(lives, "it says again and again that it lives")
        assert (await end_of(lb, (await beat.spawn(task)).task_id)).state == "done"
    assert "the heartbeat failed" not in caplog.text


@here_and_there
async def test_a_heartbeat_that_fails_for_a_reason_unforeseen_ends_no_instance(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "HEARTBEAT", 0.02)
    beat, asked, call = Beat(lb, grace=1), [], lb.store.call_row

    @beat.task
    async def job() -> None: ...

    async def odd(row: Row, shard: int, **options: Any) -> Any:
        if row.script != "beat/heartbeat":
            return await call(row, shard, **options)
        asked.append(1)
        return ["a reply that nobody expects"]

    monkeypatch.setattr(lb.store, "call_row", odd)
    async with beat.lifespan():
        await wait_until(lambda: len(asked) >= 3, "it tries again")
        assert (await end_of(lb, (await beat.spawn(job)).task_id)).state == "done"
    assert "the heartbeat failed, and goes on" in caplog.text


# -- jobs


@here_and_there
@pytest.mark.parametrize("slot", ["foreign", "1 2", ""])
async def test_a_job_whose_slot_is_unreadable_stops_no_other_of_its_shard(lb: Lockbeat, raw: Any, slot: str) -> None:
    names = ["before", "broken", "after"]
    jobs = [minutely(name) for name in names]
    for job in jobs:
        await overdue(lb, raw, job)
    key = lb.store.keys.key
    raw.hset(key(0, "job:slot"), "broken", slot)
    for due, name in enumerate(names):
        raw.zadd(key(0, "job:due"), {name: due})
    await scheduler(lb, *jobs).tick(0)
    assert [await states(lb, name) for name in names] == [["fired"], [], ["fired"]]


# -- keys that were lost


@only("memory")
@pytest.mark.parametrize("lost", ["task:lease", "task:live", "task:owned"])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_attempt_of_a_dead_worker_ends_though_a_key_of_its_lease_was_lost(
    lb: Lockbeat, raw: Any, lost: str, cancelled: bool
) -> None:
    """Nobody renews it, and nobody reports of it: the sweep alone can end it."""
    with stopped() as at:
        spawned = await lb.tasks.spawn("job", max_attempts=1)
        await claim_one(lb, owner="dead", lease=30)
        if cancelled:
            assert await lb.tasks.cancel(spawned.task_id)
        raw.delete(lb.store.keys.key(0, lost))
        for moment in (29, 60, 90):  # without its expiry the lease is found first, and ends its whole length later
            at(NOON + moment)
            assert await lb.tasks.claim("default", "bob", 1, 30) == []
        text = raw.hget(lb.store.keys.key(0, "task"), spawned.task_id)
    assert text.startswith(b"cancelled " if cancelled else b"dead ")


@only("memory")
@pytest.mark.parametrize("lost", ["lock", "lock:live", "lock:owned", "job:open"])
async def test_the_slot_of_a_dead_instance_ends_though_a_key_of_its_lease_was_lost(lb: Lockbeat, raw: Any, lost: str) -> None:
    """No further slot comes due, which would see to it."""
    with stopped() as at:
        job = minutely()
        await overdue(lb, raw, job)
        hands = Hands("report", places=1)
        await scheduler(lb, job, runner=hands).tick(0)
        [task] = hands.tasks
        raw.delete(lb.store.keys.key(0, lost))
        for moment in (4, 10, 16):
            at(NOON + moment)
            assert await lb.tasks.claim("default", "bob", 1, 30) == []
        assert await states(lb, "report") == ["lost"]
        assert (await lb.tasks.get(task.id)).state == "dead"
        assert not await lb.locks.is_locked("job:report")


# -- release-all


@only("valkey")
async def test_release_all_of_an_owner_that_lives_leaves_the_lock_of_its_next_attempt(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its task is free it begins the next attempt, at once."""
    task, following, release_all = await fired(lb, raw, overlap="skip", max_attempts=3, retry=None), [], Tasks.release_all

    async def and_claim(tasks: Tasks, owner: str) -> int:
        count = await release_all(tasks, owner)
        following.extend(await tasks.claim("default", owner))
        return count

    monkeypatch.setattr(Tasks, "release_all", and_claim)
    assert (await leases.release_all(lb, task.owner)).told == f"released 0 locks, 1 task and 0 claims of {task.owner}"
    [attempt] = following
    assert (attempt.id, attempt.attempt) == (task.id, 2)
    assert await lb.locks.owner("job:report") == task.owner
    assert await lb.tasks.heartbeat(attempt)


@here_and_there
@pytest.mark.parametrize("before", [True, False])
async def test_foreign_data_under_epoch_stops_no_job(
    lb: Lockbeat, raw: Any, beats: Beats, caplog: pytest.LogCaptureFixture, before: bool
) -> None:
    beat, ran = beats(), []

    @beat.every(0.2)
    async def job() -> None:
        ran.append(1)

    epoch = lb.store.keys.key(0, "epoch")
    if before:
        raw.set(epoch, "foreign")
    async with beat.lifespan():
        await wait_until(lambda: ran, "it fires")
        raw.set(epoch, "foreign")
        await wait_until(lambda: len(ran) >= 4, "it fires on")
    assert "failed, and goes on" not in caplog.text
