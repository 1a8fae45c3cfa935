"""Which task a worker takes next, what it leaves to others, and what wakes it: turns, strangers, and no polling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lockbeat import Lockbeat, Run
from lockbeat.monitor import HEARTBEAT
from lockbeat.store.keys import queue_tag, shard_of_task
from lockbeat.tasks import NewTask
from lockbeat.worker import worker as worker_module
from tests.beats import Beats, eventually
from tests.conftest import Backend, Connect, chosen, only, wait_until
from tests.servers import Server
from tests.tasks import end_of

# -- turns


@pytest.mark.parametrize(
    ("queues", "over", "backend"),
    [
        (*of, where)
        for where in chosen("valkey", "memory")
        for of in ((2, 1), (3, 1), (2, 2), (2, 3), (3, 3))[:: 1 if where == "valkey" else 4]
    ],
    indirect=["backend"],
)
async def test_few_tasks_of_one_queue_are_not_starved_by_the_backlog_of_another(
    connect: Connect, beats: Beats, backend: Backend, queues: int, over: int
) -> None:
    """With a single place, and whatever the number of shards that each queue is spread over."""
    beat, order = beats(concurrency=1, shards=over), []
    backlog = 100 if backend.name == "memory" else 200

    def declare(queue: str) -> None:
        @beat.task(name=queue, queue=queue)
        async def body(run: Run) -> None:
            order.append(run.queue)
            await asyncio.sleep(0)

    names = [f"queue-{number}" for number in range(queues)]
    for name in names:
        declare(name)
    async with connect(shards=over) as lb:
        for big in (names[0], names[-1]):
            order.clear()
            await lb.tasks.spawn_many([NewTask(big, queue=big)] * backlog)
            few = [name for name in names if name != big]
            await lb.tasks.spawn_many(NewTask(name, queue=name) for name in few * 9)
            total = backlog + 9 * len(few)
            async with beat.lifespan():
                await wait_until(lambda total=total: len(order) == total, "all of them run")  # type: ignore[misc]
            for name in few:
                last = max(at for at, queue in enumerate(order) if queue == name)
                assert last < 0.6 * backlog, f"{name} had to wait for {last} others, behind {big}"


@only("memory", "valkey")
async def test_shards_and_queues_do_not_go_round_in_step(connect: Connect, beats: Beats) -> None:
    """Were one turn counted for two shards, one of them would always be asked for the same two of four queues first."""
    names: dict[int, list[str]] = {0: [], 1: []}
    for number in range(1000):
        name = f"queue-{number}"
        names[shard_of_task(f"{queue_tag(name)}-0", 2)].append(name)
    backlogs, fews = (names[0][0], names[1][0]), (names[0][1], names[1][1])
    beat, order = beats(concurrency=1, shards=2, queue=backlogs[0]), []

    def declare(queue: str) -> None:
        @beat.task(name=queue, queue=queue)
        async def body(run: Run) -> None:
            order.append(run.queue)

    for name in (backlogs[0], fews[0], backlogs[1], fews[1]):
        declare(name)
    async with connect(shards=2) as lb:
        await lb.tasks.spawn_many([NewTask(name, queue=name) for name in backlogs for _ in range(100)])
        await lb.tasks.spawn_many([NewTask(name, queue=name) for name in fews for _ in range(5)])
        async with beat.lifespan():
            await wait_until(lambda: len(order) == 210, "all of them run")
    for name in fews:
        assert max(at for at, queue in enumerate(order) if queue == name) < 100, name


async def test_a_queue_is_served_by_who_declares_a_function_in_it(lb: Lockbeat, beats: Beats) -> None:
    beat, other, ran = beats(), beats(queue="gpu"), []

    @beat.task(queue="mail")
    async def mail(run: Run) -> None:
        ran.append(("beat", run.queue))

    @other.task
    async def train(run: Run) -> None:
        ran.append(("other", run.queue))

    async with beat.lifespan(), other.lifespan():
        for spawning in (beat.spawn(mail), other.spawn(train), beat.spawn(mail, queue="default")):
            await end_of(lb, (await spawning).task_id)
    assert sorted(ran) == [("beat", "default"), ("beat", "mail"), ("other", "gpu")]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_no_more_run_at_once_than_concurrency_allows(lb: Lockbeat, beats: Beats, kind: str) -> None:
    beat, running, most = beats(concurrency=5), set(), []
    lock, full = threading.Lock(), threading.Event()

    def enter(run: Run) -> None:
        with lock:
            running.add(run.task_id)
            most.append(len(running))
            if len(running) == 5:
                full.set()

    async def job(run: Run) -> None:
        enter(run)
        while not full.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        running.discard(run.task_id)

    def plain(run: Run) -> None:
        enter(run)
        full.wait(60)
        time.sleep(0.01)
        with lock:
            running.discard(run.task_id)

    beat.task(name="job")(job if kind == "async" else plain)
    spawned = await lb.tasks.spawn_many([NewTask("job")] * 120)
    async with beat.lifespan():
        for one in spawned:
            assert (await end_of(lb, one.task_id)).attempts == 1
    assert max(most) == 5


async def test_two_instances_share_a_backlog_and_run_each_task_once(lb: Lockbeat, beats: Beats) -> None:
    instances, ran = [beats(owner=f"i{n}", concurrency=4) for n in range(3)], []

    async def job(run: Run) -> None:
        ran.append((run.task_id, run.owner))
        await asyncio.sleep(0.002)

    for beat in instances:
        beat.task(job)
    spawned = await lb.tasks.spawn_many([NewTask("job")] * 300)
    async with instances[0].lifespan(), instances[1].lifespan(), instances[2].lifespan():
        for one in spawned:
            await end_of(lb, one.task_id)
    assert sorted(task_id for task_id, _ in ran) == sorted(one.task_id for one in spawned)
    assert {owner for _, owner in ran} == {"i0", "i1", "i2"}


# -- functions that an instance lacks


async def test_a_task_whose_function_is_not_here_is_left_to_others_at_once_and_uncounted(
    lb: Lockbeat, beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lockbeat")
    old, new, ran = beats(), beats(), []

    @new.task(max_attempts=1)
    async def fresh(run: Run) -> None:
        ran.append(run.attempt)

    async with old.lifespan():
        spawned = await lb.tasks.spawn("fresh", max_attempts=1)
        await wait_until(lambda: "no function 'fresh' here" in caplog.text, "the old one passes it on")

        async def waits() -> bool:
            info = await lb.tasks.get(spawned.task_id)
            return (info.state, info.attempts, info.failure) == ("waiting", 0, None)

        await eventually(waits, "it waits for another, as if nobody had looked")
        async with new.lifespan():
            info = await end_of(lb, spawned.task_id)
    assert (info.state, ran) == ("done", [1])


@pytest.mark.parametrize("first", ["old", "new"])
async def test_two_programs_on_one_queue_run_all_tasks_of_both(lb: Lockbeat, beats: Beats, first: str) -> None:
    one, other, ran = beats(concurrency=2), beats(concurrency=2), []

    @one.task
    async def ours(run: Run) -> None:
        ran.append(("ours", run.attempt))

    @other.task
    async def theirs(run: Run) -> None:
        ran.append(("theirs", run.attempt))

    names = ("ours", "theirs") if first == "old" else ("theirs", "ours")
    async with one.lifespan(), other.lifespan():
        spawned = await lb.tasks.spawn_many([NewTask(name) for name in names for _ in range(40)])
        for task in spawned:
            await end_of(lb, task.task_id)
    assert sorted(ran) == [("ours", 1)] * 40 + [("theirs", 1)] * 40


@pytest.mark.parametrize("concurrency", [1, 100])
async def test_known_tasks_behind_three_hundred_strangers_are_reached_and_the_strangers_run_once_somebody_knows_them(
    lb: Lockbeat, beats: Beats, concurrency: int
) -> None:
    old, new, ran = beats(concurrency=concurrency), beats(), []

    async def job(run: Run) -> None:
        ran.append((run.name, run.attempt))

    for each in (old, new):
        each.task(name="known")(job)
    new.task(name="strange", max_attempts=1)(job)
    strangers = await lb.tasks.spawn_many([NewTask("strange", max_attempts=1)] * 300)
    known = await lb.tasks.spawn_many([NewTask("known")] * 5)
    async with old.lifespan():
        for one in known:
            await end_of(lb, one.task_id)
        assert ran == [("known", 1)] * 5
        async with new.lifespan():
            for one in strangers:
                assert (await end_of(lb, one.task_id)).attempts == 1
    assert ran.count(("strange", 1)) == 300


# -- waking up


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not told, sleeps on."""
    monkeypatch.setattr(worker_module, "LOOK_AFTER", 3600.0)
    monkeypatch.setattr("lockbeat.store.wakeup.LOOK_IN_MEMORY", 3600.0)


async def test_a_worker_is_told_of_what_there_is_to_do_and_need_not_look(
    lb: Lockbeat, beats: Beats, never_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a spawn, a delay that is over, a retry, and a task that was given back."""
    monkeypatch.setattr(worker_module, "CLAIM_LEASE_MS", 3_600_000)  # whose end it would look at
    beat, ran = beats(), []

    @beat.task(max_attempts=2, retry=None)
    async def job(run: Run) -> None:
        ran.append((run.params, run.attempt))
        if run.params == "flaky" and run.attempt == 1:
            raise ValueError

    async with beat.lifespan():
        await asyncio.sleep(0.1)  # it has looked, and found nothing
        for params, options in (("later", {"delay": 0.3}), ("now", {}), ("flaky", {})):
            await end_of(lb, (await beat.spawn(job, params, **options)).task_id)  # type: ignore[arg-type]
        await lb.tasks.spawn_many([NewTask("job", n) for n in range(3)])
        await wait_until(lambda: len(ran) == 7, "many at once")
    await lb.tasks.spawn("job", "left")
    [task] = await lb.tasks.claim("default", "alice")
    async with beat.lifespan():
        await asyncio.sleep(0.1)
        assert await lb.tasks.release(task)
        await wait_until(lambda: ("left", 1) in ran, "what was given back")
    assert ran[:4] == [("later", 1), ("now", 1), ("flaky", 1), ("flaky", 2)]


async def test_what_a_dead_instance_held_goes_on_when_its_lease_is_over(lb: Lockbeat, beats: Beats, never_looks: None) -> None:
    """Nobody rings for that: whoever looked last knows when to look again."""
    beat, ran = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.attempt)

    spawned = await lb.tasks.spawn("job", retry=None)
    assert await lb.tasks.claim("default", "mayfly", lease=0.5)
    async with beat.lifespan():
        info = await end_of(lb, spawned.task_id)
    assert (info.state, ran) == ("done", [2])


async def test_a_message_that_was_lost_is_made_up_for_by_looking(
    lb: Lockbeat, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LOOK_AFTER", 0.5)
    monkeypatch.setattr(worker_module.Worker, "wake", lambda self, shard: None)
    beat = beats()

    @beat.task
    async def job() -> None: ...

    async with beat.lifespan():
        assert (await end_of(lb, (await beat.spawn(job)).task_id)).state == "done"


@only("valkey", "redis")
async def test_who_was_hung_up_on_looks_again_when_it_listens_again(
    lb: Lockbeat, raw: Any, beats: Beats, never_looks: None
) -> None:
    beat = beats()

    @beat.task
    async def job() -> None: ...

    async with beat.lifespan():
        for _ in range(5):
            raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert (await end_of(lb, (await beat.spawn(job)).task_id)).state == "done"


@dataclass
class Watch:
    """What clients sent to a server, and when by its clock; what scripts did is not among it."""

    commands: list[tuple[float, str]] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)


_LINE = re.compile(rb'\+(\d+\.\d+) \[\d+ (\S+)\] "([^"]*)"')


@contextlib.contextmanager
def watched(server: Server) -> Iterator[Watch]:
    watch, over = Watch(), f"over-{time.monotonic_ns()}".encode()

    def read() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line, line.makefile("rb") as lines:
            line.sendall(b"MONITOR\r\n")
            for text in lines:
                if text == b"+OK\r\n":
                    watch.ready.set()
                    continue
                if over in text:
                    return
                match = _LINE.match(text)
                command = match[3].decode().upper() if match else ""
                if match and match[2] != b"lua" and command not in ("CLIENT", "ECHO"):  # redis-py's own, and ours
                    watch.commands.append((float(match[1]), command))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert watch.ready.wait(60)
        yield watch
    finally:
        server.call("ECHO", over.decode())
        reader.join()


@only("valkey", "redis")
async def test_an_idle_instance_sends_at_most_one_command_in_five_seconds(lb: Lockbeat, backend: Backend, beats: Beats) -> None:
    beat = beats()

    @beat.task
    async def job() -> None: ...

    @beat.every(3600)
    async def hourly() -> None: ...

    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(job)).task_id)
        await asyncio.sleep(0.5)
        with watched(backend.servers[0]) as watch:
            await asyncio.sleep(5)
    sent = [command for _, command in watch.commands]
    assert len(sent) <= 1, sent
    assert 1 / HEARTBEAT + 1 / worker_module.LOOK_AFTER <= 0.2, "in the long run as well"


@only("valkey", "redis")
async def test_a_delayed_task_is_begun_at_its_time_and_nothing_is_sent_until_then(
    lb: Lockbeat, backend: Backend, beats: Beats, never_looks: None
) -> None:
    beat, began = beats(), []

    @beat.task
    async def job(run: Run) -> None:
        began.append(run.slot.timestamp())

    async with beat.lifespan():
        await end_of(lb, (await beat.spawn(job)).task_id)
        began.clear()
        await asyncio.sleep(0.5)
        with watched(backend.servers[0]) as watch:
            await beat.spawn(job, delay=1.5)
            await wait_until(lambda: began, "it begins")
        info = (await lb.tasks.list())[0]
    early = [command for at, command in watch.commands if at < began[0] - 0.05]
    assert len(early) <= 2, f"the spawn, and the look that it caused: {early}"
    assert info.started_at is not None
    assert began[0] <= info.started_at < began[0] + 1


@only("valkey", "redis")
async def test_a_worker_that_runs_a_long_task_is_silent_but_for_its_renewals(
    lb: Lockbeat, backend: Backend, beats: Beats, never_looks: None
) -> None:
    beat, go = beats(), asyncio.Event()

    @beat.task
    async def long() -> None:
        await go.wait()

    async with beat.lifespan():
        await beat.spawn(long)
        await asyncio.sleep(1)
        with watched(backend.servers[0]) as watch:
            await asyncio.sleep(5)
        go.set()
    sent = [command for _, command in watch.commands]
    # A renewal each 1.7 s; a look each 5 s, when the lease might have ended; a heartbeat each 10 s.
    assert len(sent) <= 7, sent
