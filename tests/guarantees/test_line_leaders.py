"""Who leads a job's line has its lock, or is to have it next: so overlap decides over what runs, whatever that is."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from lockbeat import Every, Fixed, Lockbeat
from lockbeat.errors import LockbeatError
from lockbeat.jobs.firing import first_attempt
from lockbeat.tasks import Task
from tests.backfills import Filler, at, claimed
from tests.beats import MINUTE, backdate, eventually, ledger, minutely, now_ms, shot
from tests.conftest import only
from tests.lines import OVERLAPS, UNFINISHED, Watch, check_fired

here_and_there = only("memory", "valkey", "redis", "cluster")


class Played:
    """A job whose slots come due when the test says so, each a minute after the one before."""

    def __init__(self, lb: Lockbeat, raw: Any) -> None:
        self.lb, self.raw = lb, raw
        self.shard = lb.jobs.shard_of("report")
        self.watch = Watch(lb, raw, "report")
        self.filler = Filler(lb)
        self.slot = 0

    async def declare(self, **options: Any) -> None:
        self.job = minutely(trigger=Every(60), lease=60, keep=1000, **options)
        await self.lb.jobs.put(self.job)
        # Far enough back for all that comes, and within no window.
        self.slot = self.slot or (await now_ms(self.lb) // MINUTE - 500) * MINUTE

    async def come(self, places: int = 0) -> str:
        """The next slot comes due: its task."""
        self.slot += MINUTE
        await backdate(self.lb, self.raw, "report", self.slot)
        row = shot(self.lb, self.job, self.slot, lease_ms=60_000 * places)
        await self.lb.store.call_row(row, self.shard)
        return f"report@{self.slot}"

    async def runs(self) -> Task:
        [task] = await claimed(self.lb)
        return task

    async def died(self) -> str:
        """A slot that failed."""
        task_id = await self.come()
        await self.lb.tasks.fail(await self.runs(), "broken")
        return task_id

    async def stands(self) -> tuple[str | None, list[str]]:
        look = self.watch.look(await now_ms(self.lb))
        return look.leader, look.line

    async def state(self, task_id: str) -> str:
        return str((await self.lb.tasks.get(task_id)).state)


@pytest.fixture
def played(lb: Lockbeat, raw: Any) -> Played:
    return Played(lb, raw)


@here_and_there
async def test_what_is_tried_again_waits_for_the_run_and_begins_at_its_end(played: Played, lb: Lockbeat) -> None:
    await played.declare(overlap="buffer_all")
    again = await played.died()
    first, second, third = [await played.come() for _ in range(3)]
    run = await played.runs()
    assert await lb.tasks.retry(again)
    assert await claimed(lb) == []
    assert await played.stands() == (first, [again, second, third]), "the run leads, and the oldest is next"
    assert await lb.tasks.complete(run)
    for due in (again, second, third):
        task = await played.runs()
        assert task.id == due
        assert await claimed(lb) == []
        assert await lb.tasks.complete(task)
    assert await played.stands() == (None, [])


@here_and_there
async def test_a_slot_ends_the_run_though_others_wait_that_are_tried_again(played: Played, lb: Lockbeat) -> None:
    await played.declare(overlap="cancel_other")
    again = await played.died()
    run_id = (await lb.jobs.trigger("report")).task_id
    run = await played.runs()
    assert await lb.tasks.retry(again)
    assert await claimed(lb) == []
    slot = await played.come(places=1)
    info = await lb.tasks.get(run_id)
    assert (info.state, info.failure and info.failure.message) == ("cancelled", f"overlap: {slot} took its place")
    assert await played.stands() == (run_id, [again, slot])
    later = await played.come()
    assert await played.stands() == (run_id, [again, later]), "of two slots the later; what somebody wants stays"
    assert not await lb.tasks.complete(run)
    assert (await played.runs()).id == again


@here_and_there
@pytest.mark.parametrize("overlap", ["skip", "buffer_one"])
async def test_between_two_attempts_another_may_run_and_the_next_attempt_follows_it(
    played: Played, lb: Lockbeat, overlap: str
) -> None:
    await played.declare(overlap=overlap)
    again = await played.died()
    await played.declare(overlap=overlap, max_attempts=2, retry=Fixed(3600))
    slot = await played.come()
    assert (await lb.tasks.fail(await played.runs(), "broken")).outcome == "requeued"
    assert await played.stands() == (slot, [])
    assert await lb.tasks.retry(again)
    run = await played.runs()
    assert run.id == again, "nothing runs, so it need not wait for an hour"
    assert await played.stands() == (again, [slot])
    later = await played.come(places=1)
    assert await played.stands() == (again, [slot] if overlap == "skip" else [slot, later]), "it was begun, and stays"
    assert await lb.tasks.complete(run)
    assert await claimed(lb) == [], "its hour is not over"
    assert (await played.stands())[0] == slot


@here_and_there
async def test_a_slot_that_leads_and_nobody_has_begun_waits_for_one_that_began_before_it(played: Played, lb: Lockbeat) -> None:
    """It had been fired: so its window does not drop it, nor does overlap."""
    await played.declare()
    again = await played.died()
    await played.declare(queue="reports", window=10 * 3600)
    slot = await played.come()
    assert await played.stands() == (slot, [])
    assert await lb.tasks.retry(again)
    run = await played.runs()
    assert await played.stands() == (again, [slot])
    [entry] = [entry for entry in await ledger(lb, "report") if entry.task_id == slot]
    assert (entry.state, entry.code, entry.in_line, entry.fired_by) == ("fired", "buffered", True, lb.owner)
    assert await lb.tasks.complete(run)
    assert [task.id for task in await lb.tasks.claim("reports", lb.owner)] == [slot]


@here_and_there
async def test_a_triggered_run_that_is_tried_again_waits_in_line(played: Played, lb: Lockbeat) -> None:
    await played.declare(overlap="buffer_one")
    triggered = (await lb.jobs.trigger("report")).task_id
    await lb.tasks.fail(await played.runs(), "broken")
    slot = await played.come()
    run = await played.runs()
    assert await lb.tasks.retry(triggered)
    assert await claimed(lb) == []
    waits = await played.come()
    assert await played.stands() == (slot, [triggered, waits])
    assert (await lb.jobs.get("report")).in_line == 2
    assert await lb.store.call("task/mend", played.shard, limit=100) == 0, "nothing is lost"
    assert await lb.tasks.cancel(triggered)
    assert await played.stands() == (slot, [waits])
    assert await lb.tasks.retry(triggered, cancelled=True)
    assert await claimed(lb) == []
    assert await lb.tasks.complete(run)
    task = await played.runs()
    assert task.id == triggered
    assert await lb.tasks.complete(task)
    assert (await played.runs()).id == waits


@here_and_there
@pytest.mark.parametrize("overlap", ["skip", "cancel_other", "buffer_all"])
async def test_what_runs_of_a_deleted_job_is_the_last_task_of_the_one_that_is_put(
    played: Played, lb: Lockbeat, overlap: str
) -> None:
    await played.declare(overlap=overlap)
    before = await played.come()
    run = await played.runs()
    assert await lb.jobs.delete("report")
    await played.declare(overlap=overlap)
    spawned = await lb.jobs.trigger("report")
    assert (spawned.created, spawned.task_id) == (False, before)
    slot = await played.come(places=1)
    assert await played.stands() == (before, [] if overlap == "skip" else [slot])
    [entry] = [entry for entry in await ledger(lb, "report") if entry.task_id == slot]
    assert (entry.state, entry.code) == (("skipped", "overlap") if overlap == "skip" else ("fired", "buffered"))
    assert await lb.tasks.complete(run) is (overlap != "cancel_other"), "that ended it"
    if overlap != "skip":
        task = await played.runs()
        assert task.id == slot
        assert await lb.tasks.complete(task)
    assert await played.stands() == (None, [])


@here_and_there
async def test_one_that_was_cancelled_is_waited_for_until_it_has_stopped(played: Played, lb: Lockbeat) -> None:
    """Under skip, too; and so is what a backfill has put in line behind it."""
    await played.declare()
    old, before = played.slot, await played.come()
    run = await played.runs()
    await lb.jobs.backfill("report", at(old), at(old) + timedelta(milliseconds=1))
    assert await played.filler.turn() == []
    assert await lb.tasks.cancel(before)
    slot = await played.come(places=1)
    assert await played.stands() == (before, [f"report@{old}", slot])
    assert not await lb.tasks.complete(run)
    for due in (f"report@{old}", slot):
        task = await played.runs()
        assert task.id == due
        assert await lb.tasks.complete(task)


@here_and_there
async def test_nothing_begins_beside_a_function_whose_lease_is_over_but_which_its_process_still_runs(
    played: Played, lb: Lockbeat, raw: Any
) -> None:
    await played.declare()
    again, slot = await played.died(), await played.come()
    run = await played.runs()
    assert await lb.tasks.retry(again)
    raw.zadd(lb.store.keys.key(played.shard, "lock:live"), {"job:report": await now_ms(lb) - 1})

    async def claims(running: list[str]) -> list[bytes]:
        asked: dict[str, Any] = {
            "queues": ["default"],
            "owner": lb.owner,
            "call": lb.store.new_call(),
            "limit": 10,
            "lease_ms": 60_000,
        }
        asked |= {"lost": [], "strangers": [], "after": "{}", "running": running, "clock_ms": 0}
        _, _, _, found = await lb.store.call("task/claim", played.shard, **asked)
        return [task for task, *_ in found]

    assert await claims([run.id]) == []
    assert await played.stands() == (slot, [again])
    assert await claims([]) == [again.encode()], "who claims knows of no such function: the run was lost, and is taken back"


@only("memory", "valkey")
async def test_more_than_the_line_takes_have_their_turn_all_the_same(played: Played, lb: Lockbeat) -> None:
    await played.declare()
    dead = {await played.died() for _ in range(105)}
    await played.come()
    run = await played.runs()
    assert await lb.tasks.redrive() == 105
    for _ in range(105):  # a claim looks at as many as its time allows
        assert await claimed(lb) == []
    assert len((await played.stands())[1]) == 100
    assert await lb.tasks.complete(run)

    async def all_had_it() -> bool:
        for task in await claimed(lb):
            dead.remove(task.id)
            assert await lb.tasks.complete(task)
        return not dead

    await eventually(all_had_it, "those that the line had no room for look again, and run", 60)


@pytest.mark.parametrize("seed", range(3))
@here_and_there
async def test_whatever_is_called_one_runs_at_a_time_and_all_have_their_turn(
    played: Played, lb: Lockbeat, raw: Any, seed: int
) -> None:
    """The model of `test_line_model`, without the moves of its clock: a dead instance's lease is one that ended long ago."""
    pick, running = random.Random(seed), list[Task]()
    policies: dict[str, Any] = {}

    async def declare() -> None:
        policies.update(overlap=pick.choice(OVERLAPS), buffer=pick.randint(1, 3))
        own = policies if policies["overlap"] == "buffer_all" else {"overlap": policies["overlap"]}
        await played.declare(max_attempts=pick.randint(1, 2), **own)

    async def come() -> None:
        before = played.watch.look(await now_ms(lb))
        task_id = await played.come(pick.randint(0, 1))
        after = played.watch.look(await now_ms(lb))
        check_fired(before, after, policies["overlap"], policies["buffer"])
        if (last := after.records[task_id].last) is not None:
            running.append(first_attempt(played.job, played.slot, played.shard, lb.owner, last.fence, 0, 0.0, 60_000))

    await declare()
    for _ in range(40):
        what = pick.choice(
            ["come", "come", "claim", "claim", "end", "cancel", "retry", "retry", "trigger", "backfill", "die", "declare"]
        )
        look = played.watch.look(await now_ms(lb))
        standing = [task for task, record in look.records.items() if record.state in UNFINISHED]
        ended = [task for task, record in look.records.items() if record.state in ("dead", "cancelled")]
        if what == "come":
            await come()
        elif what == "claim":
            running += await claimed(lb, pick.choice([1, 1000]))
        elif what == "end" and running:
            task = running.pop(pick.randrange(len(running)))
            if pick.random() < 0.5 or not await lb.tasks.complete(task):
                await lb.tasks.fail(task, "broken")
        elif what == "cancel" and standing:
            await lb.tasks.cancel(pick.choice(standing))
        elif what == "retry" and ended:
            await lb.tasks.retry(pick.choice(ended), cancelled=True)
        elif what == "trigger":
            await lb.jobs.trigger("report", overlap=pick.choice([None, None, "allow"]))
        elif what == "backfill":
            with suppress(LockbeatError):  # one goes on
                await lb.jobs.backfill("report", at(played.slot - 3 * MINUTE), at(played.slot))
            await played.filler.step()
        elif what == "die":
            running.clear()
            await lb.tasks.release_all(lb.owner)
        elif what == "declare":
            await declare()
        played.watch.check(await now_ms(lb), split=True)

    await lb.tasks.release_all(lb.owner)
    with suppress(LockbeatError):
        await lb.jobs.cancel_backfill("report")
    for _ in range(200):
        for task in await claimed(lb):
            await lb.tasks.complete(task)
        if not (look := played.watch.check(await now_ms(lb), split=True)).of(*UNFINISHED):
            break
    assert (look.of(*UNFINISHED), look.leader, look.line, look.queued, look.holder) == ([], None, [], set(), None)
    slot = await played.come()
    assert await lb.tasks.complete(await played.runs())
    assert played.watch.check(await now_ms(lb), split=True).records[slot].state == "done"
