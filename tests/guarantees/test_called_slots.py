"""Slots that somebody calls for: each is begun once, whoever calls, early or late; what nobody called for is missed."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Cron, Every, Lockbeat
from lockbeat.errors import LockbeatError, TaskError
from lockbeat.jobs import Job
from lockbeat.jobs.calling import EXEC, Call, Missed, begin, nearest, uncalled
from lockbeat.triggers import Called, Trigger
from lockbeat.values.durations import instant
from tests.conftest import Connect, only
from tests.proxy import Proxy, calls_of
from tests.tasks import NOON, died, stopped

FIVE, EVERY_MINUTE = Cron("*/5 * * * *"), Cron("* * * * *")


def job(slots: Trigger | None = FIVE, least: float = 0, **options: Any) -> Job:
    return Job.declare("report", Called(slots, round(least * 1000)), queue="exec", origin=EXEC, **options)


def call(lb: Lockbeat, slot: float | None, of: Job | None = None, **options: Any) -> Any:
    slot_ms = None if slot is None else round(slot * 1000)
    return begin(lb.store, lb.jobs, lb.tasks, of or job(), slot_ms, **{"lease_ms": 5000, **options})


async def finish(lb: Lockbeat, began: Call) -> None:
    assert began.task is not None
    assert await lb.tasks.complete(began.task)


async def told(lb: Lockbeat) -> list[tuple[str, float, str | None]]:
    """The ledger, the oldest first: state, seconds after noon, code."""
    return [(entry.state, entry.slot.timestamp() - NOON, entry.code) for entry in reversed(await lb.jobs.ledger("report", 100))]


def at(text: str) -> int:
    return round(datetime.fromisoformat(f"2030-01-01T{text}+00:00").timestamp() * 1000)


@pytest.mark.parametrize(
    ("slots", "now", "early", "slot"),
    [
        (FIVE, "12:05:00", 60, "12:05:00"),
        (FIVE, "12:05:30", 60, "12:05:00"),
        (FIVE, "12:09:00", 59, "12:05:00"),
        (FIVE, "12:09:00", 60, "12:10:00"),
        (FIVE, "12:09:30", 60, "12:10:00"),
        (FIVE, "12:09:59.999", 0, "12:05:00"),
        (EVERY_MINUTE, "12:04:29.999", 60, "12:04:00"),
        (EVERY_MINUTE, "12:04:30", 60, "12:05:00"),
        (EVERY_MINUTE, "12:04:30", 29, "12:04:00"),
        (Cron("0 3 * * *"), "17:00:00", 60, "03:00:00"),
        (Cron("0 3 * * *"), "02:59:01", 60, "03:00:00"),
    ],
)
def test_a_call_belongs_to_the_slot_that_is_nearest(slots: Trigger, now: str, early: int, slot: str) -> None:
    assert nearest(slots, at(now), early * 1000) == at(slot)


def test_a_call_belongs_to_no_slot_before_the_first() -> None:
    first = Every(3600, datetime(2030, 1, 1, tzinfo=UTC))
    assert nearest(first, at("00:00:00"), 0) == at("00:00:00")
    assert uncalled(FIVE, at("12:00:00"), at("12:05:00")).count == 0
    assert uncalled(FIVE, at("12:00:00"), at("12:20:00")) == Missed(at("12:05:00"), at("12:15:00"), 3)
    assert uncalled(FIVE, -1, at("12:20:00")).count == 0
    assert uncalled(EVERY_MINUTE, at("12:00:00") - 30 * 86_400_000, at("12:00:00")).count == -1


@only("memory")
@pytest.mark.parametrize("slots", [FIVE, EVERY_MINUTE], ids=str)
async def test_four_hosts_with_skewed_clocks_run_each_slot_once(connect: Connect, slots: Trigger) -> None:
    """Each host's cron calls when its own clock shows a slot: half a minute early to half a minute late by the server's."""
    skews = (-30, -7, 0, 29)
    with stopped() as move:
        async with connect() as lb:
            await lb.jobs.put(job(slots))
            first = slots.next(round(NOON * 1000))
            assert first is not None
            calls, ran, slot = list[tuple[float, int, int]](), list[tuple[int, int]](), first
            for _ in range(30):
                calls += [(slot / 1000 + skew, host, -1) for host, skew in enumerate(skews)]
                slot = slots.next(slot) or 0
            heapq.heapify(calls)
            while calls:
                now, host, waited = heapq.heappop(calls)
                move(now)
                chosen = nearest(slots, round(now * 1000), 60_000) if waited < 0 else waited
                assert chosen is not None
                if chosen > now * 1000:  # its clock is ahead: it waits for the slot
                    heapq.heappush(calls, (chosen / 1000, host, chosen))
                    continue
                came = await call(lb, chosen / 1000, job(slots))
                assert came.said in ("begun", "known"), came
                if came.task is not None:
                    ran.append((chosen, host))
                    await finish(lb, came)
            slots_run = [chosen for chosen, _ in ran]
            assert slots_run == sorted(set(slots_run))
            assert slots_run[:30] == [first + n * (slots_run[1] - slots_run[0]) for n in range(30)]
            assert [state for state, *_ in await told(lb)] == ["done"] * len(slots_run)


@only("memory")
async def test_cronie_197_a_day_without_a_call_is_missed_and_the_next_runs_once(lb: Lockbeat) -> None:
    """A daily line skipped a day, and ran twice on the next."""
    daily = job(Cron("30 18 * * *"))
    with stopped() as move:
        await lb.jobs.put(daily)
        evening = NOON + 18.5 * 3600
        for day in (0, 2, 2, 3):
            move(evening + day * 86_400 + 1)
            came = await call(lb, evening + day * 86_400, daily)
            if came.task is not None:
                await finish(lb, came)
        assert await told(lb) == [
            ("done", 18.5 * 3600, None),
            ("missed", 18.5 * 3600 + 86_400, "not_called"),
            ("done", 18.5 * 3600 + 2 * 86_400, None),
            ("done", 18.5 * 3600 + 3 * 86_400, None),
        ]


@only("memory")
async def test_no_slot_is_begun_before_it_has_come_nor_after_a_later_one(lb: Lockbeat) -> None:
    with stopped() as move:
        await lb.jobs.put(job())
        move(NOON + 299)
        assert (await call(lb, NOON + 300)).said == "soon"
        move(NOON + 600)
        await finish(lb, await call(lb, NOON + 600))
        assert (await call(lb, NOON + 300)).said == "known"
        assert await told(lb) == [("done", 600, None)]


@only("memory")
async def test_a_slot_that_meets_its_unfinished_one_is_skipped_or_left(lb: Lockbeat) -> None:
    with stopped() as move:
        await lb.jobs.put(job())
        move(NOON + 300)
        began = await call(lb, NOON + 300, lease_ms=3_600_000)
        move(NOON + 600)
        left = await call(lb, NOON + 600, skips=False)
        assert (left.said, left.of) == ("busy", began.of)
        assert [state for state, *_ in await told(lb)] == ["fired"]
        skipped = await call(lb, NOON + 600)
        assert (skipped.said, skipped.of) == ("busy", began.of)
        await finish(lb, began)
        assert (await call(lb, NOON + 600)).said == "known"
        assert await told(lb) == [("done", 300, None), ("skipped", 600, "overlap")]


@only("memory")
async def test_what_a_dead_host_had_begun_is_lost_and_the_next_slot_begins(lb: Lockbeat) -> None:
    with stopped() as move:
        await lb.jobs.put(job())
        move(NOON + 300)
        assert (await call(lb, NOON + 300)).said == "begun"
        move(NOON + 600)
        assert (await call(lb, NOON + 600)).said == "begun"
        assert [state for state, *_ in await told(lb)] == ["lost", "fired"]


@only("memory")
async def test_a_slot_that_is_given_back_is_begun_by_the_next_call_for_it(lb: Lockbeat) -> None:
    with stopped() as move:
        await lb.jobs.put(job())
        move(NOON + 300)
        for _ in range(2):
            came = await call(lb, NOON + 300)
            assert came.task is not None
            await lb.tasks.release(came.task)
        assert (await lb.jobs.get("report")).counts.fired == 1
        move(NOON + 600)
        await finish(lb, await call(lb, NOON + 600))
        assert [state for state, *_ in await told(lb)] == ["missed", "done"]
        assert (await lb.jobs.get("report")).open is None


async def test_a_failed_slot_waits_for_no_worker(lb: Lockbeat) -> None:
    """None has its command line: tried again, it waited until a later slot was called for, and was missed."""
    often = job(None, 0.001)
    await lb.jobs.put(often)
    came = await call(lb, None, often)
    assert came.task is not None
    await lb.tasks.fail(came.task, "exit code 1")
    with pytest.raises(TaskError, match="job 'report' is run by those who call for its slots"):
        await lb.tasks.retry(came.of)
    with pytest.raises(TaskError, match=r"none of queue 'exec' can be tried again: what lockbeat exec ran \(1 dead\)"):
        await lb.tasks.redrive("exec")
    assert (await lb.tasks.get(came.of)).state == "dead"
    other = await died(lb, queue="exec")
    assert await lb.tasks.redrive("exec", 1) == 1
    assert (await lb.tasks.get(other)).state == "waiting"
    assert [entry.state for entry in await lb.jobs.ledger("report", 1)] == ["failed"]


@only("memory")
async def test_a_changed_trigger_makes_no_slots_missed_that_were_none(lb: Lockbeat) -> None:
    with stopped() as move:
        await lb.jobs.put(job())
        move(NOON + 300)
        await finish(lb, await call(lb, NOON + 300))
        move(NOON + 570)
        await finish(lb, await call(lb, NOON + 540, job(EVERY_MINUTE)))
        move(NOON + 600)
        await finish(lb, await call(lb, NOON + 600, job(EVERY_MINUTE)))
        assert [state for state, *_ in await told(lb)] == ["done", "done", "done"]


@only("memory")
async def test_at_most_once_in_a_while_is_reckoned_from_the_last_start_by_the_servers_clock(lb: Lockbeat) -> None:
    often = job(None, 300)
    with stopped() as move:
        await lb.jobs.put(often)
        for later, said in ((0, "begun"), (0, "soon"), (299.999, "soon"), (300, "begun"), (599, "soon"), (1000, "begun")):
            move(NOON + later)
            came = await call(lb, None, often)
            assert came.said == said, later
            if came.task is not None:
                await finish(lb, came)
        move(NOON + 100)  # the clock was set back: what lies ahead counts no more
        assert (await call(lb, None, often)).said == "soon"
        move(NOON - 3600)
        assert (await call(lb, None, often)).said == "begun"


@only("memory")
@pytest.mark.parametrize("ends", [None, 450])
async def test_a_paused_job_begins_no_slot_until_it_goes_on(lb: Lockbeat, ends: int | None) -> None:
    with stopped() as move:
        await call(lb, NOON - 300)
        assert await lb.jobs.pause(
            "report", "moving house", None if ends is None else instant(round((NOON + ends) * 1000)), by="ann"
        )
        assert not await lb.jobs.pause(
            "report", "moving house", None if ends is None else instant(round((NOON + ends) * 1000)), by="ann"
        )
        move(NOON + 300)
        for _ in range(2):
            came = await call(lb, NOON + 300, skips=False)
            assert (came.said, came.of) in (("paused", "ann: moving house"), ("known", f"report@{round((NOON + 300) * 1000)}"))
        paused = (await lb.jobs.get("report")).paused
        assert paused is not None
        assert (paused.by, paused.reason) == ("ann", "moving house")
        if ends is None:
            way = await lb.jobs.resume("report", by="bob")
            assert way is not None
            assert way.skipped == 0
        move(NOON + 600)
        await finish(lb, await call(lb, NOON + 600))
        assert (await told(lb))[-2:] == [("skipped", 300, "paused"), ("done", 600, None)]
        assert (await lb.jobs.get("report")).paused is None
        assert next(change.what for change in await lb.jobs.changes("report")) == "resume"


async def test_of_many_that_call_at_once_one_begins_the_slot(lb: Lockbeat, connect: Connect) -> None:
    often = job(Every(1))
    await lb.jobs.put(often)
    slot = await lb.store.server_ms(lb.jobs.shard_of("report")) // 1000 + 1
    async with connect() as other:
        while await lb.store.server_ms(lb.jobs.shard_of("report")) < slot * 1000:
            await asyncio.sleep(0.01)
        came = await asyncio.gather(*(call(each, slot, often, skips=False) for each in (lb, other) * 10))
    assert sorted(one.said for one in came if one.said != "busy") == ["begun", *["known"] * 19]


async def test_a_job_that_instances_fire_is_not_taken_over(lb: Lockbeat) -> None:
    await lb.jobs.put(Job.declare("report", Every(3600)))
    with pytest.raises(LockbeatError, match="is a job that instances fire"):
        await call(lb, NOON)
    assert (await lb.jobs.get("report")).job.trigger == Every(3600)


@only("valkey")
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("busy", [False, True])
async def test_a_call_whose_reply_is_lost_begins_once(
    lb: Lockbeat, client: Lockbeat, lossy: Proxy, busy: bool, skips: bool
) -> None:
    """It is repeated, and given its first outcome."""
    of = job(Every(3600))
    await lb.jobs.put(of)
    slot = await old(lb) // 3_600_000 * 3600
    if busy:
        assert (await call(lb, slot - 3600, of, lease_ms=60_000)).said == "begun"
    lossy.lose_reply(calls_of("job/begin"), times=2)
    came = await call(client, slot, of, lease_ms=60_000, skips=skips)
    assert lossy.lost == 2
    assert came.said == ("busy" if busy else "begun")
    entries = await lb.jobs.ledger("report", 100)
    assert [entry.state for entry in entries] == ["fired"] if not busy else ["skipped", "fired"] if skips else ["fired"]
    if came.task is not None:
        assert await client.tasks.complete(came.task)
        assert (await lb.jobs.get("report")).counts.done == 1


@only("memory", "valkey")
async def test_a_cancelled_call_leaves_nothing_that_runs(connect: Connect, namespace: str) -> None:
    """At every turn of the loop. What it had begun is given back, and the next call for the slot begins it."""
    of = job(Every(3600))
    for steps in itertools.count():
        async with connect(namespace=f"{namespace}-{steps}", owner="alice") as lb:
            slot = await old(lb) // 3_600_000 * 3600
            calling = asyncio.ensure_future(call(lb, slot, of, lease_ms=600_000))
            # Beside busy neighbours an idle loop turns very often until the server has answered: more each time, until it has.
            for _ in range(min(steps, 100) + (int(1.25 ** (steps - 100)) if steps > 100 else 0)):
                await asyncio.sleep(0)
            calling.cancel()
            came = (await asyncio.gather(calling, return_exceptions=True))[0]
            if isinstance(came, Call):
                assert came.said == "begun"
                return
            async with asyncio.timeout(30):
                while (again := await call(lb, slot, of, skips=False)).said != "begun":
                    assert again.said in ("known", "busy"), again
                    await asyncio.sleep(0.002)
            assert again.task is not None
            assert await lb.tasks.complete(again.task)


async def old(lb: Lockbeat) -> int:
    """Have the store begun long ago; its time, in ms."""
    shard = lb.jobs.shard_of("report")
    await lb.jobs.put(Job.declare("another", Every(3600)), job(Every(3600)))
    await lb.store.wire(shard).command("SET", lb.store.keys.key(shard, "epoch"), "1")
    return await lb.store.server_ms(shard)
