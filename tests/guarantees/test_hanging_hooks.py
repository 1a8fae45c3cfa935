"""What hangs in one hook silences nobody else: neither the other hooks, nor monitors, nor the other instances."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.events import Event, JobPaused, TaskDead, name_of
from lockbeat.jobs import Outbox, outbox
from lockbeat.jobs.outbox import LEASE_MS, MOST
from tests.beats import eventually, minutely
from tests.conftest import Connect, only, wait_until
from tests.guarantees.test_events import fails, fails_too_often, kept, take
from tests.tasks import NOON, stopped

here_and_there = only("memory", "valkey")


class Hook:
    """A plain function that hangs in its thread, until it may go on."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.at, self.told = list[str](), list[str]()

    def __call__(self, event: TaskDead) -> None:
        self.at.append(event.task_id)
        self.may.wait()
        self.told.append(event.task_id)


@pytest.fixture
def hangs() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.may.set()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is taken to hang at once."""
    monkeypatch.setattr(outbox, "HANGS", 0.0)
    monkeypatch.setattr(outbox, "KEEP", 0.0)


@asynccontextmanager
async def telling(lb: Lockbeat, *consumers: outbox.Consumer) -> AsyncIterator[Outbox]:
    """Its outbox, listening; it takes its turns by hand."""
    made = Outbox(lb.store, consumers)
    await made.register()
    try:
        yield made
    finally:
        for lines in made._lines:
            for line in lines.values():
                await line.drain()
        await made.aclose()


async def turns(made: Outbox, *, shards: int) -> None:
    for shard in range(shards):
        await made.tick(shard)


@here_and_there
async def test_a_hook_that_hangs_for_ever_keeps_neither_other_hooks_nor_monitors_from_being_told(
    lb: Lockbeat, hangs: Hook
) -> None:
    paused, seen = list[str](), Counter[str]()
    lb.events.task_dead(hangs)

    @lb.events.job_paused
    async def one(event: JobPaused) -> None:
        paused.append(event.job)

    async def monitor(event: Event, event_id: str) -> None:
        seen[name_of(event)] += 1

    async with telling(lb, monitor) as made:
        for _ in range(MOST + 5):
            await fails(lb, None)
        await lb.jobs.put(minutely())
        await lb.jobs.pause("report", by="anna")

        async def all_told() -> bool:
            await made.tick(0)
            return paused == ["report"] and seen == {"task_dead": MOST + 5, "job_paused": 1}

        await eventually(all_told, "the others are told")
        assert (len(hangs.at), hangs.told) == (1, []), "and it still hangs"
        assert len(made._lines[0]["dead"].telling) == MOST, "with its own places, and no more"
        hangs.may.set()

        async def told_too() -> bool:
            await made.tick(0)
            return len(hangs.told) == MOST + 5

        await eventually(told_too, "then it is told the rest")
    assert len({*hangs.told}) == MOST + 5, "each once"


@here_and_there
@pytest.mark.usefixtures("soon")
async def test_what_hangs_over_a_job_does_not_keep_its_next_event_from_another_hook(lb: Lockbeat, raw: Any, hangs: Hook) -> None:
    paused = list[str]()
    lb.events.task_dead(hangs)

    @lb.events.job_paused
    async def one(event: JobPaused) -> None:
        paused.append(event.job)

    async with telling(lb) as made:
        await fails_too_often(lb, raw)

        async def told() -> bool:
            await turns(made, shards=lb.store.shards)
            return paused == ["report"]

        await eventually(told, "its pause is told")
        assert hangs.told == []


@here_and_there
async def test_monitors_are_told_of_a_job_at_whose_hook_something_hangs(lb: Lockbeat, raw: Any, hangs: Hook) -> None:
    seen = Counter[str]()
    lb.events.task_dead(hangs)

    async def monitor(event: Event, event_id: str) -> None:
        seen[name_of(event)] += 1

    async with telling(lb, monitor) as made:
        await fails_too_often(lb, raw)

        async def told() -> bool:
            await turns(made, shards=lb.store.shards)
            return seen["task_dead"] == 1 and seen["job_paused"] == pauses

        pauses = 1
        await eventually(told, "they are told")
        await wait_until(lambda: hangs.at, "it hangs")
        assert await lb.jobs.resume("report")
        assert await lb.jobs.pause("report", by="anna")
        pauses = 2
        await eventually(told, "and of what comes then")
        assert hangs.told == []


@here_and_there
@pytest.mark.usefixtures("soon")
async def test_what_waits_behind_a_hook_that_hangs_is_told_by_another_instance_once(
    lb: Lockbeat, raw: Any, connect: Connect, hangs: Hook
) -> None:
    lb.events.task_dead(hangs)
    async with connect() as other, telling(lb) as here:
        told = list[str]()

        @other.events.task_dead
        async def works(event: TaskDead) -> None:
            told.append(event.task_id)

        for _ in range(5):
            await fails(lb, raw)
        await here.tick(0)
        await wait_until(lambda: hangs.at, "it hangs")
        async with telling(other) as there:

            async def all_but_one() -> bool:
                await here.tick(0)
                await there.tick(0)
                return len(told) == 4

            await eventually(all_but_one, "the other has told the rest")
            assert kept(lb, raw) == 1, "the one at which it hangs, in case its instance dies"
        hangs.may.set()
        await wait_until(lambda: hangs.told, "it returns")

        async def forgotten() -> bool:
            await here.tick(0)
            return kept(lb, raw) == 0

        await eventually(forgotten, "that is forgotten")
    assert hangs.told == hangs.at
    assert len({*told, *hangs.told}) == 5


@here_and_there
@pytest.mark.usefixtures("soon")
async def test_another_function_of_the_same_hook_is_told_all_while_one_hangs(lb: Lockbeat, raw: Any, hangs: Hook) -> None:
    told = list[str]()
    lb.events.task_dead(hangs)

    @lb.events.task_dead
    async def works(event: TaskDead) -> None:
        told.append(event.task_id)

    async with telling(lb) as made:
        for _ in range(MOST + 3):
            await fails(lb, raw)

        async def all_told() -> bool:
            await made.tick(0)
            return len(told) == MOST + 3

        await eventually(all_told, "it is told all, though they are more than there are places")
        assert len(hangs.at) == 1
        hangs.may.set()
        await wait_until(lambda: len(hangs.told) == MOST + 3, "the other has them in its queue")
    assert len({*told}) == len({*hangs.told}) == MOST + 3, "each once"


@here_and_there
async def test_many_of_a_kind_at_the_front_hide_no_other_kind(lb: Lockbeat, raw: Any, hangs: Hook) -> None:
    paused = list[str]()
    lb.events.task_dead(hangs)

    @lb.events.job_paused
    async def one(event: JobPaused) -> None:
        paused.append(event.job)

    async with telling(lb) as made:
        key, now = lb.store.keys.key(0, "ledger:order"), int(await lb.store.server_time())
        text = b'%010d%018d\xfedead ["x","",1,"",""]'
        raw.zadd(key, {b"\xff\xff\xffdead." + text % (now, number): 0 for number in range(2500)})
        await lb.jobs.put(minutely())
        await lb.jobs.pause("report", by="anna")
        await made.tick(0)
        await wait_until(lambda: paused == ["report"], "at the first turn")
        raw.zremrangebylex(key, b"[\xff\xff\xffdead.", b"(\xff\xff\xffdead/")


@here_and_there
async def test_however_many_ask_a_line_hands_out_a_bounded_number_and_of_a_job_to_one_at_a_time(lb: Lockbeat, raw: Any) -> None:
    await take(lb, 0, ["dead"], 0)
    key, now = lb.store.keys.key(0, "ledger:order"), int(await lb.store.server_time())
    text = b'%010d%018djob%d\xfedead ["x"]'
    raw.zadd(key, {b"\xff\xff\xffdead." + text % (now, number, number // 3): 0 for number in range(900)})
    taken = [await take(lb, 0, ["dead"], 1000) for _ in range(10)]
    every = [one for some in taken for one in some]
    assert len(every) == 160
    assert [one.id for one in every] == sorted({one.id for one in every})
    by_job = [{one.job for one in some} for some in taken]
    assert sum(map(len, by_job)) == len(set().union(*by_job)), "those of a job to one"
    again = await take(lb, 0, ["dead"], 1000, told=[f"dead {one.id}" for one in taken[0]])
    assert again, "there is room again"
    assert {one.job for one in again}.isdisjoint(set().union(*by_job[1:]))
    raw.delete(key)


@only("memory")
async def test_what_is_kept_after_a_reply_was_lost_goes_to_nobody_else(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    may, told = asyncio.Event(), list[str]()
    with stopped() as to:
        async with connect() as other, telling(lb) as here, telling(other) as there:
            for lb_ in (lb, other):

                @lb_.events.task_dead
                async def waits(event: TaskDead) -> None:
                    told.append(event.task_id)
                    await may.wait()

            await here.register()
            await fails(lb, raw)
            await here.tick(0)
            await wait_until(lambda: len(told) == 1, "it is being told")
            [event_id] = here._lines[0]["dead"].telling
            to(NOON + 10)
            await take(lb, 0, ["dead"], 0, keeps=[f"dead {event_id}"])  # as if nobody had heard the reply
            here._lines[0]["dead"]._keep_at = 0
            to(NOON + LEASE_MS / 1000 - 1)
            await here.tick(0)  # it does not know until when it has it
            to(NOON + LEASE_MS / 1000 + 25)
            await there.tick(0)
            may.set()
            await wait_until(lambda: not here.busy, "it has been told")
            await here.tick(0)
            await there.tick(0)
            await here.aclose()
    assert len(told) == 1
    assert kept(lb, raw) == 0


@only("memory")
async def test_who_listened_before_the_clock_was_set_back_is_kept_events_for_ten_minutes(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        await take(lb, 0, ["dead"], 0)
        to(NOON - 7200)
        await fails(lb, raw)
        assert kept(lb, raw) == 1, "it is not known yet whether anybody still listens"
        to(NOON - 7200 + 601)
        await fails(lb, raw)
        assert kept(lb, raw) == 1, "nobody does"
        to(NOON - 3500)
        await fails(lb, raw)
        assert kept(lb, raw) == 0


@only("valkey")
async def test_what_a_shutdown_has_not_told_is_told_by_another(lb: Lockbeat, raw: Any, connect: Connect, hangs: Hook) -> None:
    lb.events.task_dead(hangs)
    async with telling(lb) as here:
        for _ in range(3):
            await fails(lb, raw)
        await here.tick(0)
        await wait_until(lambda: hangs.at, "it hangs at the first")
    assert kept(lb, raw) == 2, "the first has been told"
    async with connect() as other:
        told = list[str]()

        @other.events.task_dead
        async def works(event: TaskDead) -> None:
            told.append(event.task_id)

        async with telling(other) as there:
            await there.tick(0)
            await wait_until(lambda: len(told) == 2, "the other tells the rest")
    assert {*told}.isdisjoint(hangs.at)
