"""Each event is told in one instance, whoever's call has decided it; and nothing is kept of what nobody listens to."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Beat, Fixed, Lockbeat
from lockbeat.errors import StoreError
from lockbeat.events import Hooks, TaskDead
from lockbeat.jobs import Outbox, outbox
from lockbeat.jobs.happened import Taken
from lockbeat.jobs.outbox import LEASE_MS, LINES
from tests.beats import Beats, Hands, backdate, eventually, fired, minutely, overdue, scheduler
from tests.conftest import Backend, Connect, needs, only, wait_until
from tests.proxy import proxy
from tests.tasks import NOON, claim_one, stopped, until

here_and_there = only("memory", "valkey", "cluster")
Told = list[tuple[str, Any]]


def hear(hooks: Hooks) -> Told:
    """Every event from now on, by the name of its hook."""
    told: Told = []
    for hook in hooks.all:

        def one(event: Any, name: str = hook.name) -> None:
            told.append((name, event))

        hook(one)
    return told


@asynccontextmanager
async def listening(*clients: Lockbeat) -> AsyncIterator[list[Told]]:
    """What each of these clients is told, while an outbox of each is served."""
    for lb in clients:
        for shard in range(lb.store.shards):
            await lb.store.listening(shard)
    told = [hear(lb.events) for lb in clients]
    outboxes = [Outbox(lb.store) for lb in clients]
    for each in outboxes:
        await each.register()
    serving = [asyncio.create_task(each.serve(shard)) for each in outboxes for shard in range(clients[0].store.shards)]
    try:
        yield told
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for each in outboxes:
            await each.aclose()


def kept(lb: Lockbeat, raw: Any) -> int:
    """How many events the store keeps."""
    keys = [lb.store.keys.key(shard, "ledger:order") for shard in range(lb.store.shards)]
    return sum(raw.zlexcount(key, b"[\xff\xff\xff", b"+") for key in keys)


async def take(
    lb: Lockbeat, shard: int, lines: Sequence[str], limit: int, *, lease_ms: int = LEASE_MS, **given: Any
) -> list[Taken]:
    """What the store hands out to one who asks for so many of each of these lines."""
    said: dict[str, Any] = {"told": [], "keeps": [], "back": [], **given}
    reply = await lb.store.call("event/take", shard, lines=[f"{line} {limit}" for line in lines], lease_ms=lease_ms, **said)
    return [Taken(row) for row in reply.events]


async def misses(lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await overdue(lb, raw, job, back=3)
    await scheduler(lb, job).tick(lb.jobs.shard_of("report"))


async def overlaps(lb: Lockbeat, raw: Any) -> None:
    task = await fired(lb, raw)
    await backdate(lb, raw, "report", task.slot_ms + 60_000, task.slot_ms)
    await scheduler(lb, minutely()).tick(lb.jobs.shard_of("report"))


async def loses(lb: Lockbeat, raw: Any) -> None:
    await lb.tasks.spawn("mail", max_attempts=2, retry=Fixed(0))
    await lb.tasks.claim("default", "one that dies", 1, 0.01)
    await until(lb, await lb.store.server_time() + 0.02)
    assert [task.attempt for task in await lb.tasks.claim("default", "another")] == [2]


async def loses_a_slot(lb: Lockbeat, raw: Any) -> None:
    task = await fired(lb, raw)
    assert await lb.tasks.release_all(task.owner) == 1


async def fails(lb: Lockbeat, raw: Any) -> None:
    await lb.tasks.spawn("mail", max_attempts=1)
    await lb.tasks.fail(await claim_one(lb), "no luck")


async def pauses(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(minutely())
    assert await lb.jobs.pause("report", "maintenance", by="anna")
    assert not await lb.jobs.pause("report", "longer", by="bob")


async def fails_too_often(lb: Lockbeat, raw: Any) -> None:
    job, hands = minutely(pause_after=1), Hands("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    await lb.tasks.fail(hands.tasks[0], "no luck")
    await lb.jobs.see_failure("report")


def says(hook: str, /, **fields: Any) -> tuple[str, dict[str, Any]]:
    return hook, fields


HAPPENS: list[tuple[Callable[[Lockbeat, Any], Awaitable[None]], list[tuple[str, dict[str, Any]]]]] = [
    (misses, [says("slot_missed", job="report", slots=3, code="not_fired")]),
    (overlaps, [says("slot_skipped", job="report", slots=1, code="overlap")]),
    (loses, [says("run_lost", name="mail", job="", slot=None, attempt=1, owner="one that dies", code="expired", again=True)]),
    (loses_a_slot, [says("run_lost", job="report", code="released", again=False), says("task_dead", job="report", attempts=1)]),
    (fails, [says("task_dead", name="mail", job="", attempts=1, code="")]),
    (pauses, [says("job_paused", job="report", by="anna", why="maintenance", until=None)]),
    (
        fails_too_often,
        [says("task_dead", job="report"), says("job_paused", job="report", by="pause_after", why="a failure")],
    ),
]


@here_and_there
@pytest.mark.parametrize(("happen", "expected"), HAPPENS, ids=[happen.__name__ for happen, _ in HAPPENS])
async def test_what_anybody_decides_is_told_in_one_instance(
    lb: Lockbeat, raw: Any, connect: Connect, happen: Any, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    async with connect() as one, connect() as other, listening(one, other) as told:
        await happen(lb, raw)
        await wait_until(lambda: len(told[0]) + len(told[1]) >= len(expected), f"{expected}, not {told}")
        await wait_until(lambda: kept(lb, raw) == 0, "the store forgets them")
    both = sorted((*told[0], *told[1]), key=lambda said: said[1].at)
    assert [name for name, _ in both] == [name for name, _ in expected]
    for (_, event), (_, fields) in zip(both, expected, strict=True):
        assert {name: getattr(event, name) for name in fields} == fields
        assert abs(event.at - datetime.now(UTC)) < timedelta(minutes=5)


@here_and_there
@pytest.mark.parametrize("happen", [happen for happen, _ in HAPPENS], ids=lambda happen: happen.__name__)
async def test_nothing_is_kept_while_nobody_listens(lb: Lockbeat, raw: Any, happen: Any) -> None:
    await happen(lb, raw)
    assert kept(lb, raw) == 0


@here_and_there
async def test_what_one_has_taken_that_dies_is_told_by_another(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    for at in range(lb.store.shards):
        await take(lb, at, [*LINES], 0)
    await fails(lb, raw)
    taken = [event for at in range(lb.store.shards) for event in await take(lb, at, [*LINES], 9, lease_ms=1)]
    assert len(taken) == 1
    async with connect() as other, listening(other) as [told]:
        await wait_until(lambda: [name for name, _ in told] == ["task_dead"], f"the other tells it: {told}")
    assert kept(lb, raw) == 0


@only("memory", "valkey")
async def test_events_of_a_job_are_handed_to_one_at_a_time_in_their_order(lb: Lockbeat, raw: Any) -> None:
    async def handed(limit: int, *told: Taken) -> list[Taken]:
        return await take(lb, 0, ["missed", "paused"], limit, told=[f"{one.line} {one.id}" for one in told])

    await handed(0)
    await misses(lb, raw)
    await lb.jobs.pause("report", "maintenance", by="anna")
    await lb.jobs.put(minutely("other"))
    await lb.jobs.pause("other", by="anna")
    [first, other] = await handed(9)
    assert (first.job, first.word) == ("report", "missed")
    assert (other.job, other.word) == ("other", "paused"), "the other's does not wait"
    assert await handed(9) == [], "nor does the first job's next go to somebody else meanwhile"
    [third] = await handed(9, first)
    assert (third.job, third.word) == ("report", "paused")
    assert await handed(9, other, third) == []
    assert kept(lb, raw) == 0


@only("memory", "valkey")
async def test_beyond_its_room_the_store_drops_events_and_whoever_listens_says_how_many(
    lb: Lockbeat, raw: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect() as other:
        telling = Outbox(other.store)
        told = hear(other.events)
        await telling.register()
        key = lb.store.keys.key(0, "ledger:order")
        raw.zadd(key, {b'\xff\xff\xffdead.%028d\xfedead ["x"]' % number: 0 for number in range(10_000)})
        await fails(lb, raw)
        assert kept(lb, raw) == 10_000
        for _ in range(110):
            await telling.tick(0)
        await telling.aclose()
    assert other.events.dropped == 10_001
    assert "events were dropped" in caplog.text
    assert told == []
    assert kept(lb, raw) == 0


@only("memory", "valkey")
async def test_who_has_no_room_for_more_events_asks_for_none_until_it_has(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST", 2)
    may, told = threading.Event(), list[str]()

    @lb.events.task_dead
    def hang(event: TaskDead) -> None:
        may.wait()
        told.append(event.task_id)

    telling = Outbox(lb.store)
    await telling.register()
    for _ in range(5):
        await fails(lb, raw)
    shard = next(
        at for at in range(lb.store.shards) if raw.zlexcount(lb.store.keys.key(at, "ledger:order"), b"[\xff\xff\xff", b"+")
    )
    await telling.tick(shard)
    for _ in range(3):
        pause = await telling.tick(shard)
        assert pause is not None
        assert pause > 1, "it would spin"
    may.set()

    async def all_told() -> bool:
        await telling.tick(shard)
        return len(told) == 5

    await eventually(all_told, "all are told")
    assert len({*told}) == 5
    await telling.aclose()


@only("memory")
async def test_an_event_whose_lease_ends_while_it_is_told_is_not_told_again_beside_that(lb: Lockbeat, raw: Any) -> None:
    may, told = asyncio.Event(), list[str]()

    @lb.events.task_dead
    async def hang(event: TaskDead) -> None:
        told.append(event.task_id)
        await may.wait()

    with stopped() as to:
        telling = Outbox(lb.store)
        await telling.register()
        await fails(lb, raw)
        await telling.tick(0)
        await wait_until(lambda: len(told) == 1, "it is being told")
        # What keeps it is heard, and the reply lost: so its teller does not know until when.
        [event_id] = telling._lines[0]["dead"].telling
        await take(lb, 0, ["dead"], 0, keeps=[f"dead {event_id}"], lease_ms=LEASE_MS + 1)
        to(NOON + 2 * LEASE_MS / 1000)
        await telling.tick(0)
        may.set()
        await wait_until(lambda: not telling.busy, "it has been told")
        await telling.tick(0)
        await telling.aclose()
    assert len(told) == 1
    assert kept(lb, raw) == 0


@only("memory")
async def test_who_has_left_is_kept_nothing_for_after_ten_minutes(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    with stopped() as to:
        async with connect() as other:
            hear(other.events)
            await Outbox(other.store).register()
        to(NOON + 599)
        await fails(lb, raw)
        assert kept(lb, raw) == 1
        to(NOON + 601)
        await fails(lb, raw)
        assert kept(lb, raw) == 1
        async with connect() as third:
            third.events.slot_missed(print)
            await Outbox(third.store).tick(0)
            assert kept(lb, raw) == 0, "nobody listens for it any more"


@only("memory")
async def test_what_is_kept_for_those_who_never_come_back_goes_after_an_hour(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    with stopped() as to:
        async with connect() as other:
            other.events.task_dead(print)
            await Outbox(other.store).register()
        for _ in range(3):
            await fails(lb, raw)
        to(NOON + 3500)
        await fails(lb, raw)
        assert kept(lb, raw) == 3, "somebody may come back for them"
        to(NOON + 3700)
        for _ in range(2):
            await fails(lb, raw)
        assert kept(lb, raw) == 0
        counts = lb.store.keys.key(0, "job:counts")
        assert raw.hget(counts, b"\xff") is None, "nor that somebody listened"
        assert raw.hget(counts, b"\xff\xff") == b"3", "who listens next is told how many"


@only("memory", "valkey")
async def test_what_an_instance_fires_and_runs_is_told_by_it_once(beats: Beats, lb: Lockbeat) -> None:
    told: list[Told] = []

    def instance() -> Beat:
        beat = beats()
        told.append(hear(beat.events))

        @beat.every(1, name="well")
        async def well() -> None: ...

        @beat.every(1, name="badly", max_attempts=2, retry=Fixed(0))
        def badly() -> None:
            raise ValueError("no luck")

        return beat

    def named(name: str) -> list[Any]:
        return [event for said in told for kind, event in said if kind == name]

    async with instance().lifespan(), instance().lifespan():
        await wait_until(lambda: len(named("run_done")) >= 3 and len(named("task_dead")) >= 2, f"runs, not {told}")
    for kind in ("slot_fired", "run_done", "task_dead"):
        ids = [event.task_id for event in named(kind)]
        assert len(ids) == len({*ids}), kind
    assert {event.task_id for event in named("run_done")} <= {event.task_id for event in named("slot_fired")}
    failed = named("run_failed")
    assert len({(event.task_id, event.attempt) for event in failed}) == len(failed)
    assert {(event.attempt, event.again, event.error) for event in failed} == {
        (1, True, "ValueError: no luck"),
        (2, False, "ValueError: no luck"),
    }
    done = {entry.slot for entry in await lb.jobs.ledger("well", 100) if entry.state == "done"}
    assert {event.slot for event in named("run_done")} <= done
    assert all(0 <= event.late < 60 and event.job in ("well", "badly") for event in named("slot_fired"))


@only("memory", "valkey")
async def test_a_lost_lease_is_told_where_it_was_held(lb: Lockbeat, raw: Any) -> None:
    told = hear(lb.events)

    async def hold() -> None:
        async with lb.lock("k", ttl=3):
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await eventually(lambda: lb.locks.is_locked("k"), "it is held")
    await lb.locks.release_all(lb.owner)
    await wait_until(lambda: told, "it is told")
    [(name, event)] = told
    assert (name, event.kind, event.key, event.fence) == ("lease_lost", "lock", "k", None)
    assert event.owner.startswith(lb.owner)
    await asyncio.gather(holder, return_exceptions=True)


@needs("valkey")
@only("valkey")
async def test_an_outage_is_told_once_and_its_end(backend: Backend, namespace: str) -> None:
    async with proxy(backend.servers[0].port) as between, Lockbeat(between.url, namespace=namespace, timeout=1) as lb:
        told = hear(lb.events)

        async def works() -> bool:
            try:
                return await lb.locks.owner("k") is None
            except StoreError:
                return False

        await between.become("refused")
        await eventually(lambda: _not(works()), "it is away")
        await wait_until(lambda: [name for name, _ in told] == ["store_lost"], "it is told")
        await between.listen()
        await eventually(works, "it is back")
        await wait_until(lambda: [name for name, _ in told] == ["store_lost", "store_back"], "that is told")
        assert between.url.rpartition("/")[0].removeprefix("redis://") in told[0][1].location
        assert told[1][1].away > 0


@only("valkey", "redis")
async def test_scripts_that_were_flushed_are_no_outage(lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture) -> None:
    """They are sent again, and the call is answered. Whoever is paged for an outage may sleep on."""
    caplog.set_level(logging.INFO, "lockbeat")
    told = hear(lb.events)
    await lb.locks.owner("k")
    raw.script_flush()
    assert await lb.locks.owner("k") is None
    assert [record.getMessage() for record in caplog.records] == [
        "the server had lost the scripts, as by SCRIPT FLUSH; they are sent again"
    ]
    assert told == []


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer


@only("memory")
async def test_a_beat_of_a_client_has_its_hooks(lb: Lockbeat) -> None:
    assert Beat(lb).events is lb.events
