"""Spawned under `durability=` a task is where it was asked to be before anybody can claim it.

A worker under it begins nothing that could be lost.

A replica that is frozen keeps its connection and acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Beat, Durability, Lockbeat, NotDurable, Run
from lockbeat.errors import InvalidArgument, UnknownTask
from lockbeat.tasks import NewTask
from tests import servers
from tests.beats import eventually, states
from tests.conftest import needs, wait_until
from tests.guarantees.conftest import Pair, started
from tests.proxy import calls_of, proxy
from tests.tasks import end_of, until

ROOT = Path(__file__).parents[2]
ONE = Durability(replicas=1, timeout=20)
SOON = Durability(replicas=1, timeout=0.05)
MAY_STAY = {
    "task:stats",
    "fence",
    "durable",
    "format",
    "shards",
    "epoch",
    "instance",
    "instance:live",
    "reply:0",
    "reply:1",
    "reply:2",
}


def left(pair: Pair) -> set[str]:
    """The kinds of keys that hold something."""
    keys = pair.primary.call("KEYS", "*")
    assert isinstance(keys, list)
    return {str(key).partition("}:")[2] for key in keys} - MAY_STAY


@contextlib.asynccontextmanager
async def claiming(lb: Lockbeat) -> AsyncIterator[list[str]]:
    """Somebody who claims whatever can be claimed, all the time."""
    got: list[str] = []

    async def claim() -> None:
        while True:
            for task in await lb.tasks.claim("default", "greedy", 100):
                got.append(task.id)
                await lb.tasks.complete(task)
            await asyncio.sleep(0.002)

    claimer = asyncio.create_task(claim())
    try:
        yield got
    finally:
        claimer.cancel()
        await asyncio.gather(claimer, return_exceptions=True)


# -- spawning


async def test_a_task_that_is_durable_can_be_claimed_at_once(pair: Pair, lb: Lockbeat) -> None:
    spawned = await lb.tasks.spawn("job", {"n": 1}, durability=ONE, headers={"a": 1})
    [task] = await lb.tasks.claim("default", "alice")
    assert (task.id, task.params, task.headers, task.attempt) == (spawned.task_id, {"n": 1}, {"a": 1}, 1)
    assert spawned.created
    assert spawned.task_id in str(pair.replica.call("HKEYS", lb.store.keys.key(0, "task")))


async def test_its_delay_counts_from_its_spawning_not_from_when_it_was_durable(pair: Pair, lb: Lockbeat) -> None:
    pair.replica.freeze()
    spawning = asyncio.create_task(lb.tasks.spawn("job", durability=ONE, delay=2))
    await wait_until(pair.blocked, "the server waits for the replica")
    pair.replica.thaw()
    info = await lb.tasks.get((await spawning).task_id)
    assert round((info.due_at or 0) - (info.spawned_at or 0), 3) == 2
    assert await lb.tasks.claim("default", "alice") == []
    await until(lb, info.due_at)
    assert len(await lb.tasks.claim("default", "alice")) == 1


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"max_delay": 60}, {"max_duration": 60}, {"retention": 0}], ids=str)
async def test_what_is_not_durable_in_time_is_withdrawn_and_nobody_could_claim_it(
    pair: Pair, lb: Lockbeat, other: Lockbeat, options: dict[str, Any], keyed: bool
) -> None:
    pair.replica.freeze()
    key: dict[str, Any] = {"idempotency_key": "order-7"} if keyed else {}
    async with claiming(other) as got:
        with pytest.raises(NotDurable, match="0 of 1 replicas"):
            await lb.tasks.spawn("job", [1], durability=SOON, headers={"a": 1}, **options, **key)
        assert await lb.tasks.list() == []
        assert left(pair) == set()
    assert got == []


async def test_many_are_withdrawn_together(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    pair.replica.freeze()
    async with claiming(other) as got:
        with pytest.raises(NotDurable):
            await lb.tasks.spawn_many([NewTask("job", n) for n in range(150)], durability=SOON)
        assert left(pair) == set()
    assert got == []
    pair.replica.thaw()
    spawned = await lb.tasks.spawn_many([NewTask("job", n) for n in range(150)], durability=ONE)
    assert [task.params for task in await lb.tasks.claim("default", "alice", 200)] == list(range(150))
    assert len({one.task_id for one in spawned}) == 150


async def test_nobody_claims_a_task_while_its_replica_is_waited_for(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    pair.replica.freeze()
    async with claiming(other) as got:
        spawning = asyncio.create_task(lb.tasks.spawn("job", durability=ONE))
        await wait_until(pair.blocked, "the server waits for the replica")
        await asyncio.sleep(0.3)
        assert got == []
        assert len(await lb.tasks.list(state="waiting")) == 1
        pair.replica.thaw()
        spawned = await spawning
        await wait_until(lambda: got, "it is claimed at once")
    assert got == [spawned.task_id]


async def test_a_spawn_that_is_cancelled_meanwhile_is_withdrawn(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    pair.replica.freeze()
    async with claiming(other) as got:
        spawning = asyncio.create_task(lb.tasks.spawn("job", durability=ONE))
        await wait_until(pair.blocked, "the server waits for the replica")
        spawning.cancel()
        await asyncio.gather(spawning, return_exceptions=True)

        async def withdrawn() -> bool:
            return left(pair) == set()

        await eventually(withdrawn, "nothing is left")
        pair.replica.thaw()
    assert got == []


async def test_the_first_of_a_key_stays_when_another_spawns_it_durably(pair: Pair, lb: Lockbeat) -> None:
    first = await lb.tasks.spawn("job", 1, idempotency_key="k")
    pair.replica.freeze()
    with contextlib.suppress(NotDurable):
        again = await lb.tasks.spawn("job", 2, idempotency_key="k", durability=SOON)
        assert (again.task_id, again.created) == (first.task_id, False)
    pair.replica.thaw()
    [task] = await lb.tasks.claim("default", "alice")
    assert (task.id, task.params) == (first.task_id, 1)


async def test_after_it_was_withdrawn_a_key_makes_a_new_task(pair: Pair, lb: Lockbeat) -> None:
    pair.replica.freeze()
    with pytest.raises(NotDurable):
        await lb.tasks.spawn("job", 1, idempotency_key="k", durability=SOON)
    pair.replica.thaw()
    again = await lb.tasks.spawn("job", 2, idempotency_key="k", durability=ONE)
    assert again.created
    [task] = await lb.tasks.claim("default", "alice")
    assert (task.id, task.params) == (again.task_id, 2)


async def test_who_is_told_that_a_key_has_a_task_can_count_on_it(pair: Pair, lb: Lockbeat, other: Lockbeat) -> None:
    """One that is not durable yet may be withdrawn by who spawned it: who found it must not be told that it is there."""
    pair.replica.freeze()
    first = asyncio.create_task(lb.tasks.spawn("job", 1, idempotency_key="k", durability=Durability(replicas=1, timeout=0.5)))
    await wait_until(pair.blocked, "the server waits for the replica")
    outcomes = await asyncio.gather(
        other.tasks.spawn("job", 2, idempotency_key="k", durability=Durability(replicas=1, timeout=0.6)),
        first,
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], NotDurable)
    if isinstance(outcomes[0], NotDurable):
        return
    assert not isinstance(outcomes[0], BaseException)
    await lb.tasks.list()  # behind whatever withdraws it
    assert (await other.tasks.get(outcomes[0].task_id)).state == "waiting"


SPAWNER = """
import asyncio, sys
from lockbeat import Durability, Lockbeat
async def main():
    async with Lockbeat(sys.argv[1], namespace=sys.argv[2], timeout=0.5) as lb:
        await lb.tasks.spawn("job", "orphan", durability=Durability(replicas=1, timeout=1.0))
asyncio.run(main())
"""


async def test_a_task_whose_spawner_died_before_it_could_let_it_go_goes_by_itself(
    pair: Pair, lb: Lockbeat, namespace: str
) -> None:
    pair.replica.freeze()
    spawner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SPAWNER, pair.primary.url, namespace), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:

        async def there() -> bool:
            return bool(await lb.tasks.list())

        await eventually(there, "it is spawned", step=0.005)
    finally:
        spawner.kill()
        await spawner.wait()
    pair.replica.thaw()
    [info] = await lb.tasks.list()
    assert info.due_at is not None
    assert info.spawned_at is not None
    assert 1.0 < info.due_at - info.spawned_at < 5.0, "longer than its durability was waited for"
    assert await lb.tasks.claim("default", "alice") == []
    assert await lb.store.server_time() < info.due_at
    await until(lb, info.due_at)
    [task] = await lb.tasks.claim("default", "alice")
    assert task.params == "orphan"


@pytest.mark.parametrize("script", ["task/spawn", "task/confirm"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_durable_spawn_whose_reply_was_lost_is_one_task(
    pair: Pair, lb: Lockbeat, namespace: str, script: str, times: int
) -> None:
    async with proxy(pair.primary.port) as lossy, Lockbeat(lossy.url, namespace=namespace, timeout=2) as client:
        lossy.lose_reply(calls_of(script), times)
        spawned = await client.tasks.spawn("job", durability=ONE)
        assert lossy.lost == times
    [task] = await lb.tasks.claim("default", "alice", 10)
    assert (task.id, spawned.created) == (spawned.task_id, True)


@needs("valkey")
async def test_a_task_that_was_acknowledged_outlives_the_primary(namespace: str) -> None:
    with started(servers.valkey_binary()) as pair:
        async with Lockbeat(pair.primary.url, namespace=namespace, timeout=1) as lb:
            spawned = await lb.tasks.spawn("job", 7, durability=ONE, idempotency_key="k")
            pair.primary.kill()
        pair.replica.call("REPLICAOF", "NO", "ONE")
        async with Lockbeat(pair.replica.url, namespace=namespace) as lb:
            assert not (await lb.tasks.spawn("job", 8, idempotency_key="k")).created
            info = await lb.tasks.get(spawned.task_id)
            await until(lb, info.due_at)
            [task] = await lb.tasks.claim("default", "alice")
            assert (task.id, task.params) == (spawned.task_id, 7)


async def test_a_store_in_memory_refuses_and_keeps_nothing(namespace: str) -> None:
    async with Lockbeat(f"memory://{namespace}", namespace=namespace) as lb:
        with pytest.raises(NotDurable, match="memory"):
            await lb.tasks.spawn("job", durability=ONE)
        assert await lb.tasks.list() == []
        assert await lb.tasks.claim("default", "alice") == []


# -- serving


def serving(pair: Pair, namespace: str, **options: Any) -> Beat:
    settings: dict[str, Any] = {"durability": Durability(replicas=1, timeout=0.2), "grace": 1} | options
    return Beat(pair.primary.url, namespace=namespace, **settings)


async def test_a_beat_takes_a_durability_and_nothing_else() -> None:
    wrong: Any = 1
    with pytest.raises(InvalidArgument, match="durability"):
        Beat(durability=wrong)


async def asked_again(pair: Pair) -> None:
    """Wait until the primary was asked several times more whether the replica has it."""
    before = pair.calls("wait")
    await wait_until(lambda: pair.calls("wait") > before + 2, "it asks again", step=0.05)


async def test_without_a_replica_no_spawned_task_begins_and_the_log_says_why(
    pair: Pair, lb: Lockbeat, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And with it each begins, once, its attempts uncounted until then."""
    beat, ran = serving(pair, namespace), []

    @beat.task(max_attempts=1)
    async def job(run: Run) -> None:
        ran.append((run.params, run.attempt))

    pair.replica.freeze()
    async with beat.lifespan():
        spawned = [await beat.spawn(job, n) for n in range(20)]
        await wait_until(lambda: "0 of 1 replicas have it after 0.2 s" in caplog.text, "the log says why")
        assert "can't claim from 'default'" in caplog.text
        await asked_again(pair)
        assert ran == []
        assert {(await lb.tasks.get(one.task_id)).state for one in spawned} <= {"waiting", "running"}
        pair.replica.thaw()
        infos = [await end_of(lb, one.task_id) for one in spawned]
    assert {(info.state, info.attempts) for info in infos} == {("done", 1)}
    assert sorted(ran) == [(n, 1) for n in range(20)]


async def test_without_a_replica_no_slot_begins_and_the_log_says_why(
    pair: Pair, lb: Lockbeat, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    beat, ran = serving(pair, namespace), []

    @beat.at(datetime.now(UTC) + timedelta(seconds=0.5))
    async def launch(run: Run) -> None:
        ran.append((run.slot, run.attempt))

    pair.replica.freeze()
    async with beat.lifespan():
        await wait_until(lambda: "fired, and put off: 0 of 1 replicas" in caplog.text, "the log says why")
        await wait_until(lambda: "can't claim from" in caplog.text, "it is put off again")
        assert ran == []
        assert await states(lb, "launch") == ["fired"]
        pair.replica.thaw()

        async def done() -> bool:
            return await states(lb, "launch") == ["done"]

        await eventually(done, "it runs once the replica is there")
    assert len(ran) == 1
    assert ran[0][1] == 1


async def test_a_job_that_is_due_often_runs_each_slot_once_whatever_its_replica_does(
    pair: Pair, lb: Lockbeat, namespace: str
) -> None:
    beat, slots = serving(pair, namespace), []

    @beat.every(0.2, overlap="allow")
    async def often(run: Run) -> None:
        slots.append(run.slot)

    async with beat.lifespan():
        await wait_until(lambda: len(slots) > 2, "it runs")
        pair.replica.freeze()
        await asked_again(pair)
        before = len(slots)
        await asked_again(pair)
        assert len(slots) == before, "nothing begins that could be lost"
        pair.replica.thaw()
        await wait_until(lambda: len(slots) > before + 3, "it goes on")
    assert len(slots) == len(set(slots))


@needs("valkey")
async def test_a_replica_that_comes_later_lets_it_begin(namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    with servers.standalone(servers.valkey_binary()) as primary:
        beat = Beat(primary.url, namespace=namespace, grace=1, durability=Durability(replicas=1, timeout=0.2))

        @beat.task(max_attempts=1)
        async def job() -> str:
            return "ran"

        async with beat.lifespan(), Lockbeat(primary.url, namespace=namespace) as lb:
            spawned = await beat.spawn(job)
            await wait_until(lambda: "0 of 1 replicas" in caplog.text, "the log says why")
            with servers.replica(primary):
                info = await end_of(lb, spawned.task_id)
    assert (info.result, info.attempts) == ("ran", 1)


@needs("valkey")
@pytest.mark.parametrize("ended", [True, False], ids=["after it ended", "while it runs"])
async def test_a_slot_that_began_does_not_begin_again_on_the_replica_that_took_over(namespace: str, ended: bool) -> None:
    ran: list[Any] = []
    spawned_ran: list[Any] = []
    go = asyncio.Event()

    def declared(url: str) -> Beat:
        beat = Beat(
            url, namespace=namespace, timeout=0.5, grace=0.2, durability=Durability(replicas=1, timeout=5) if not ran else None
        )

        @beat.at(when, lease=1)
        async def launch(run: Run) -> None:
            ran.append(run.slot)
            if not ended:
                await go.wait()

        @beat.task(max_attempts=1)
        async def once(run: Run) -> None:
            spawned_ran.append(run.params)
            if not ended:
                await go.wait()

        return beat

    with started(servers.valkey_binary()) as pair:
        when = datetime.now(UTC) + timedelta(seconds=2)
        async with declared(pair.primary.url).lifespan(), Lockbeat(pair.primary.url, namespace=namespace, timeout=2) as lb:
            spawned = await lb.tasks.spawn("once", 1, max_attempts=1, durability=ONE)
            await wait_until(lambda: ran and spawned_ran, "they run")
            if ended:
                await end_of(lb, spawned.task_id)

                async def done() -> bool:
                    return await states(lb, "launch") == ["done"]

                await eventually(done, "it is done")
                lagging = time.monotonic() + 30
                while str(pair.replica.call("HGET", lb.store.keys.key(0, "job:counts"), "launch"))[:3] != "1 1":
                    assert time.monotonic() < lagging
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(pair.primary.kill)
        go.set()
        pair.replica.call("REPLICAOF", "NO", "ONE")
        async with declared(pair.replica.url).lifespan(), Lockbeat(pair.replica.url, namespace=namespace) as lb:

            async def over() -> bool:
                return await states(lb, "launch") in (["done"], ["lost"])

            await eventually(over, "the slot is over")
            with contextlib.suppress(UnknownTask):
                await end_of(lb, spawned.task_id)
            again = await lb.tasks.spawn("once", 2)
            await end_of(lb, again.task_id)
    assert len(ran) == 1
    assert spawned_ran == [1, 2]
