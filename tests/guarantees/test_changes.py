"""What people do to jobs: it stands in the log, is heard by every instance at once, and can be done to many jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, Run, sync
from lockbeat.errors import InvalidArgument, LockbeatError, UnknownJob
from lockbeat.jobs import Job, Scheduler
from lockbeat.store import messages
from lockbeat.triggers import ByHand, Every
from tests.beats import eventually, minutely
from tests.conftest import Connect, only

here_and_there = only("memory", "valkey")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def told(lb: Lockbeat, name: str = "report") -> list[tuple[str, str | None, str | None]]:
    return [(change.what, change.by, change.reason) for change in await lb.jobs.changes(name)]


@here_and_there
async def test_a_changed_definition_stands_in_the_log_and_a_first_or_equal_one_does_not(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(), by="anna")
    await lb.jobs.put(minutely(), by="bob")
    assert await told(lb) == []
    await lb.jobs.put(minutely(priority=1), by="carl")
    await lb.jobs.put(minutely(priority=1, trigger=Every(120)), by="dora")
    assert await told(lb) == [("put", "dora", "another trigger"), ("put", "carl", None)]


@here_and_there
async def test_a_delete_is_told_under_the_name_also_when_that_is_there_again(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely(), minutely("other"))
    await lb.jobs.pause("report", by="anna")
    assert await lb.jobs.delete("report", by="bob")
    assert await told(lb) == [("delete", "bob", None)], "its own log went with it"
    assert not await lb.jobs.delete("report", by="carl"), "and what was not there is not told"
    await lb.jobs.put(minutely())
    await lb.jobs.pause("report", by="dora")
    assert await told(lb) == [("pause", "dora", None), ("delete", "bob", None)]
    assert await told(lb, "other") == []
    with pytest.raises(UnknownJob):
        await lb.jobs.changes("nobody's")


@only("memory")
async def test_of_deleted_jobs_the_last_fifty_are_remembered(lb: Lockbeat) -> None:
    for number in range(60):
        await lb.jobs.put(minutely(f"job {number}"))
        await lb.jobs.delete(f"job {number}", by="anna")
    with pytest.raises(UnknownJob):
        await lb.jobs.changes("job 9")
    assert await told(lb, "job 10") == [("delete", "anna", None)]


async def drained(waiting: asyncio.Queue[str]) -> list[str]:
    found = []
    while not waiting.empty():
        found.append(waiting.get_nowait())
    return found


VERBS: dict[str, tuple[Callable[[Lockbeat], Awaitable[Any]], str]] = {
    "pause": (lambda lb: lb.jobs.pause("report"), "JobDue"),
    "resume": (lambda lb: lb.jobs.resume("report"), "JobDue"),
    "skip_next": (lambda lb: lb.jobs.skip_next("report"), "JobDue"),
    "resume again": (lambda lb: lb.jobs.resume("report"), "JobDue"),
    "an earlier slot": (lambda lb: lb.jobs.put(Job.declare("report", Every(3600))), "JobDue"),
    "trigger": (lambda lb: lb.jobs.trigger("report"), "TaskWaits"),
    "backfill": (lambda lb: lb.jobs.backfill("report", LONG_AGO, LONG_AGO + timedelta(days=1)), "Backfilling"),
    "pause_backfill": (lambda lb: lb.jobs.pause_backfill("report"), "Backfilling"),
    "resume_backfill": (lambda lb: lb.jobs.resume_backfill("report"), "Backfilling"),
    "cancel_backfill": (lambda lb: lb.jobs.cancel_backfill("report"), "Backfilling"),
}


@only("valkey")
async def test_every_verb_is_heard_by_all_instances_by_one_message(lb: Lockbeat, connect: Connect) -> None:
    """What it did holds from then on, for the script that does it tells it. So it is seen everywhere as soon as a message is."""
    await lb.jobs.put(Job.declare("report", Every(86_400 * 400)))
    shard = lb.jobs.shard_of("report")
    async with contextlib.AsyncExitStack() as stack:
        heard = []
        for _ in range(3):
            instance = await stack.enter_async_context(connect())
            waiting = asyncio.Queue[str]()
            kinds: list[Any] = [messages.JobDue, messages.TaskWaits, messages.Backfilling]
            telling = {kind: (lambda _, waiting=waiting, kind=kind: waiting.put_nowait(kind.__name__)) for kind in kinds}
            stack.callback(instance.store.listen(telling, lambda: None, bell=shard))
            await instance.store.listening(shard)
            heard.append(waiting)
        for name, (verb, word) in VERBS.items():
            await verb(lb)
            assert {await asyncio.wait_for(waiting.get(), 30) for waiting in heard} == {word}, name
        assert [await drained(waiting) for waiting in heard] == [[], [], []], "and by no more than one"


class Counted(Scheduler):
    """Counts its turns."""

    turns = 0

    async def tick(self, shard: int) -> float | None:
        try:
            return await super().tick(shard)
        finally:
            self.turns += 1


@contextlib.asynccontextmanager
async def serving(*schedulers: Scheduler) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one.serve(0)) for one in schedulers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@only("valkey")
async def test_an_instance_that_sleeps_looks_again_when_somebody_steps_in(lb: Lockbeat, connect: Connect) -> None:
    """By itself it would look again after a minute, and the job's slot is far away; the test waits half as long."""
    await lb.jobs.put(Job.declare("report", Every(86_400 * 400)))
    async with connect() as one, connect() as other:
        instances = [Counted(each.store, each.jobs, {}, None) for each in (one, other)]
        for each in (one, other):
            await each.store.listening(0)
        async with serving(*instances):
            for verb in (lb.jobs.pause, lb.jobs.resume, lb.jobs.skip_next):

                async def asleep() -> bool:
                    return all(each.turns and not each._wakeups[0]._rang for each in instances)

                await eventually(asleep, "they have looked, and sleep")
                before = [each.turns for each in instances]
                await verb("report")

                async def looked(before: list[int] = before) -> bool:
                    return all(each.turns > turns for each, turns in zip(instances, before, strict=True))

                await eventually(looked, "each looks again")


@here_and_there
async def test_many_jobs_are_paused_resumed_skipped_triggered_and_deleted(lb: Lockbeat) -> None:
    await lb.jobs.put(
        *(minutely(name, queue=queue, tags=[queue]) for name, queue in (("a", "x"), ("b", "x"), ("c", "y"))),
        Job.declare("hand", ByHand(), queue="x", tags=["x"]),
    )
    assert await lb.jobs.all(tag="x").pause("moving", by="anna") == {"a": True, "b": True}
    assert await lb.jobs.all(queue="x").pause(by="anna") == {"a": False, "b": False}
    assert await lb.jobs.all().pause() == {"a": False, "b": False, "c": True}
    would = await lb.jobs.all().resume(dry_run=True)
    assert {name: way and way.skipped for name, way in would.items()} == {"a": 0, "b": 0, "c": 0}
    assert await lb.jobs.all(tag="x", queue="y").resume() == {}
    assert [*await lb.jobs.all(tag="x").resume()] == ["a", "b"]
    assert [*await lb.jobs.all().skip_next(2)] == ["a", "b"], "of those that are not paused"
    assert [*await lb.jobs.all(tag="x").trigger({"n": 1})] == ["a", "b", "hand"]
    assert await lb.jobs.all(queue="y").delete(by="bob") == {"c": True}
    assert [state.job.name for state in await lb.jobs.list()] == ["a", "b", "hand"]
    assert await told(lb, "c") == [("delete", "bob", None)]


@here_and_there
async def test_what_can_not_be_done_to_one_of_many_is_done_to_the_others_and_told(lb: Lockbeat) -> None:
    await lb.jobs.put(minutely("a"), minutely("b", catchup="all"))
    assert len(await lb.jobs.all().pause()) == 2
    with pytest.raises(InvalidArgument, match="catchup: job 'a' has catch-up 'latest'"):
        await lb.jobs.all().resume("all")
    assert {state.job.name: state.paused is not None for state in await lb.jobs.list()} == {"a": True, "b": False}
    with pytest.raises(InvalidArgument, match="tag: "):
        lb.jobs.all(tag="")


@here_and_there
async def test_a_job_without_slots_can_not_be_paused_nor_skipped(lb: Lockbeat) -> None:
    await lb.jobs.put(Job.declare("by hand", ByHand()))
    for verb in (lb.jobs.pause, lb.jobs.skip_next):
        with pytest.raises(LockbeatError, match="job 'by hand' has no slots: it runs when it is triggered"):
            await verb("by hand")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("catchup", "all"),
        ("window", 60),
        ("jitter", 5),
        ("limit", 3),
        ("pause_after", 2),
        ("exclude", ["holidays"]),
        ("start", LONG_AGO),
        ("end", LONG_AGO),
    ],
)
def test_what_is_about_slots_is_refused_where_there_are_none(option: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{option}: is for slots, and a job without a trigger has none"):
        Job.declare("report", ByHand(), **{option: value})
    beat = Beat("memory://")
    with pytest.raises(InvalidArgument, match=option):

        @beat.job(**{option: value})
        async def report(run: Run) -> None: ...


def test_many_jobs_are_paused_by_code_that_blocks() -> None:
    with sync.Lockbeat("memory://") as lb:
        lb.jobs.put(Job.declare("a", Every(60), tags=["x"]), Job.declare("b", Every(60)))
        assert lb.jobs.all(tag="x").pause(by="anna") == {"a": True}
        assert lb.jobs.all().resume() is not None
        assert lb.jobs.backfill("b", LONG_AGO, LONG_AGO + timedelta(hours=1)).total == 60
        assert lb.jobs.cancel_backfill("b")
