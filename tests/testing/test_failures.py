"""lockbeat.testing: an instance that is killed, a reply that is lost, a store that is away."""

from __future__ import annotations

import asyncio

import pytest

from lockbeat import Beat, InvalidArgument, LockbeatError, Run, StoreUnavailable
from lockbeat.testing import (
    assert_fired,
    assert_skipped,
    drain,
    kill_instance,
    lose_reply,
    rehearse,
    store_away,
    takes,
    travel,
)

AT = "2027-01-01T08:59Z"
NINE = "2027-01-01T09:00Z"


@pytest.fixture
def beat() -> Beat:
    return Beat(grace=1)


async def test_what_a_killed_instance_ran_is_lost_when_its_lease_ends(beat: Beat) -> None:
    ended = list[str]()

    @beat.cron("0 9 * * *")
    async def report(run: Run) -> None:
        ended.append(run.owner)

    async with rehearse(beat, at=AT) as rehearsal:
        takes(report, 600)
        await travel(beat, to=NINE)
        await kill_instance()
        await travel(beat, by=4)
        assert (await assert_fired(report, NINE, state="fired")).by == "instance-1"
        await travel(beat, by=2)
        entry = await assert_fired(report, NINE, state="lost")
        assert entry.code == "expired"
        assert entry.ended_at == pytest.approx(rehearsal.now.timestamp() - 1)
        assert ended == ["instance-1"]


async def test_what_may_be_tried_again_is_taken_over(beat: Beat) -> None:
    runs = list[tuple[int, int, str]]()

    @beat.cron("0 9 * * *", max_attempts=2)
    def charge(run: Run) -> None:
        runs.append((run.attempt, run.fence, run.owner))

    async with rehearse(beat, at=AT):
        await kill_instance(during=charge)
        await travel(beat, to=NINE)
        await assert_fired(charge, NINE, state="fired")
        assert len(runs) == 1
        await travel(beat, by=6)
        await assert_fired(charge, NINE, state="done")
        (first, fence, owner), (second, greater, other) = runs
        assert (first, second) == (1, 2)
        assert greater > fence
        assert owner != other


async def test_the_next_slot_is_fired_by_another_instance_on_time(beat: Beat) -> None:
    @beat.every(60)
    async def tick() -> None: ...

    async with rehearse(beat, at=AT) as rehearsal:
        await travel(beat, by=60)
        await kill_instance()
        await travel(beat, by=60)
        entries = await rehearsal.client.jobs.ledger("tick")
        assert [(entry.state, entry.by) for entry in entries] == [("done", "instance-2"), ("done", "instance-1")]


@pytest.mark.parametrize("script", ["beat/fire", "beat/due", "task/claim", "task/complete", "task/spawn", None])
async def test_a_lost_reply_doubles_nothing(beat: Beat, script: str | None) -> None:
    ran = list[str]()

    @beat.task
    async def mail(run: Run) -> None:
        ran.append(run.task_id)

    @beat.cron("0 9 * * *")
    async def report(run: Run) -> None:
        ran.append(run.task_id)
        await beat.spawn(mail)

    async with rehearse(beat, at=AT) as rehearsal:
        await drain()
        lose_reply(script)
        await travel(beat, to=NINE)
        await travel(beat, by=1)  # what was handed out, and not fired, is handed out again a moment later
        assert rehearsal.faults.to_lose == 0
        await assert_fired(report, NINE, state="done")
        assert len(ran) == len(set(ran)) == 2
    with pytest.raises(LockbeatError, match=r"nothing is rehearsed"):
        lose_reply()


async def test_only_scripts_lose_replies(beat: Beat) -> None:
    async with rehearse(beat):
        with pytest.raises(InvalidArgument, match=r"script: 'fire' is none of .*beat/fire"):
            lose_reply("fire")


async def test_a_slot_that_came_due_while_the_store_was_away_is_caught_up(beat: Beat) -> None:
    @beat.every(60, catchup="latest")
    async def latest() -> None: ...

    @beat.every(60, catchup="skip")
    async def exact() -> None: ...

    async with rehearse(beat, at=AT) as rehearsal:
        await drain()
        with store_away():
            with pytest.raises(StoreUnavailable):
                await rehearsal.client.jobs.get("latest")
            with pytest.raises(LockbeatError, match=r"nobody reaches the store inside of store_away"):
                await assert_fired("latest", NINE)
            await travel(beat, by=3 * 60 + 30)
        await drain()
        await assert_skipped("latest", "2027-01-01T09:01Z", "not_fired")
        await assert_fired("latest", "2027-01-01T09:02Z", state="done")
        await assert_skipped("exact", "2027-01-01T09:02Z", "late")


async def test_a_lease_that_can_not_be_renewed_is_lost_and_its_body_is_cancelled(beat: Beat) -> None:
    said = list[str]()

    @beat.cron("0 9 * * *")
    async def report(run: Run) -> None:
        said.append("began")

    async with rehearse(beat, at=AT):
        takes(report, 600)
        await travel(beat, to=NINE)
        with store_away():
            await travel(beat, by=4)
            assert said == ["began"]
            await travel(beat, by=20)
        await drain()
        await assert_fired(report, NINE, state="lost")


async def test_a_lock_that_can_not_be_renewed_cancels_its_block(beat: Beat) -> None:
    async with rehearse(beat) as rehearsal:
        lost = asyncio.Event()

        async def hold() -> None:
            try:
                async with rehearsal.client.lock("report", ttl=30):
                    await asyncio.Event().wait()
            except LockbeatError:
                lost.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(hold())
            while not await rehearsal.client.locks.is_locked("report"):
                await asyncio.sleep(0)
            await travel(by=3600)
            assert not lost.is_set()
            with store_away():
                await travel(by=28)
                assert not lost.is_set()
                await travel(by=2)
                assert lost.is_set()


async def test_an_instance_that_dies_while_the_store_is_away_is_replaced_when_it_is_back(beat: Beat) -> None:
    @beat.every(60)
    async def tick() -> None: ...

    async with rehearse(beat, at=AT) as rehearsal:
        takes(tick, 600)
        await travel(beat, to=NINE)
        with store_away():
            await kill_instance()
            await travel(beat, by=3)
        takes(tick, 0)
        await travel(beat, to="2027-01-01T09:01Z")
        assert [entry.state for entry in await rehearsal.client.jobs.ledger("tick")] == ["done", "lost"]
