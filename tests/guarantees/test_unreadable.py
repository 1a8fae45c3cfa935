"""What can't be read under our keys is an error that names it, never "absent"; and it harms no neighbour and stops no loop."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.claims import Claim
from lockbeat.errors import ScriptError, Unreadable
from lockbeat.tasks import NewTask
from tests.beats import Hands, backdate, eventually, ledger, minutely, now_ms, overdue, scheduler
from tests.conftest import only, wait_until
from tests.tasks import NOON, begun, claim_one, died, stopped

here_and_there = only("memory", "valkey", "redis")

DAMAGED = [b"", b"foreign", b"1 2", b"-1 5 t - alice", b"99 x t - alice", b'{"owner": "alice"}', b"\xff\xfe", b"1 2 t -"]

LOCK_VERBS: dict[str, Callable[[Lockbeat], Awaitable[object]]] = {
    "try_acquire": lambda lb: lb.locks.try_acquire("k", "bob", 30),
    "lock": lambda lb: lb.lock("k", wait=0).__aenter__(),
    "renew": lambda lb: lb.locks.renew("k", "alice", 30),
    "release": lambda lb: lb.locks.release("k", "alice"),
    "is_locked": lambda lb: lb.locks.is_locked("k"),
    "owner": lambda lb: lb.locks.owner("k"),
}
CLAIM_VERBS: dict[str, Callable[[Lockbeat, Claim], Awaitable[object]]] = {
    "acquire": lambda lb, _: lb.claims.acquire("c", "bob", 30),
    "renew": lambda lb, claim: lb.claims.renew(claim, 30),
    "complete": lambda lb, claim: lb.claims.complete(claim),
    "fail": lambda lb, claim: lb.claims.fail(claim, "broken"),
    "release": lambda lb, claim: lb.claims.release(claim),
    "is_claimed": lambda lb, _: lb.claims.is_claimed("c"),
}


@here_and_there
@pytest.mark.parametrize("verb", LOCK_VERBS)
async def test_a_lock_whose_entry_is_damaged_is_granted_to_nobody_and_named(lb: Lockbeat, raw: Any, verb: str) -> None:
    key = lb.store.keys.key(0, "lock")
    assert await lb.locks.try_acquire("k", "alice", 300)
    for damage in DAMAGED:
        raw.hset(key, "k", damage)
        # The neighbours of the same run of the script are served.
        others = (lb.locks.try_acquire("free", "bob", 30), lb.locks.owner("free"), lb.locks.renew("free", "bob", 30))
        *answers, problem = await asyncio.gather(*others, LOCK_VERBS[verb](lb), return_exceptions=True)
        assert isinstance(problem, Unreadable)
        assert answers[0] is not None
        assert answers[1:] == ["bob", True]
        assert (problem.key, problem.field) == (key, "k")
        assert raw.hget(key, "k") == damage, "it is left as it is"


@here_and_there
@pytest.mark.parametrize("damaged", ["claim", "claim:past"])
async def test_a_claim_that_ended_and_is_damaged_stands_in_no_other_claims_way(lb: Lockbeat, raw: Any, damaged: str) -> None:
    ended = await lb.claims.acquire("ended", "alice", 30)
    assert isinstance(ended, Claim)
    assert await lb.claims.fail(ended, "broken")
    raw.hset(lb.store.keys.key(0, damaged), b"default\xffended", "foreign")
    other = await lb.claims.acquire("other", "bob", 30)
    assert isinstance(other, Claim)
    assert await lb.claims.complete(other)
    assert await lb.claims.cleanup() == 0
    with pytest.raises(Unreadable):
        await lb.claims.acquire("ended", "bob", 30)


@here_and_there
async def test_counters_that_can_not_be_read_stop_nobody_and_are_named(lb: Lockbeat, raw: Any) -> None:
    statistics = lb.store.keys.key(0, "claim:stats")
    assert await lb.claims.acquire("first", "alice", 7200)
    for what in ("acquired", "completed", "horizon"):
        raw.hset(statistics, what, "foreign")
    claim = await lb.claims.acquire("second", "alice", 30)
    assert isinstance(claim, Claim)
    assert await lb.claims.complete(claim)
    assert raw.pttl(lb.store.keys.key(0, "claim")) > 7200 * 1000, "the first one's key lives as long as before"
    with pytest.raises(Unreadable) as told:
        await lb.claims.stats()
    assert (told.value.key, told.value.field) == (statistics, "acquired")

    raw.hset(lb.store.keys.key(0, "task:stats"), mapping=dict.fromkeys(("spawned", "begun", "done"), "foreign"))
    await lb.tasks.spawn("work")
    assert await lb.tasks.complete(await claim_one(lb))


@here_and_there
@pytest.mark.parametrize("key", ["lock", "lock:owned", "lock:queue", "claim:live", "task:ready", "fence"])
async def test_a_key_of_another_type_is_named(lb: Lockbeat, raw: Any, key: str) -> None:
    wrong = lb.store.keys.key(0, key)
    raw.delete(wrong)
    if key == "fence":
        raw.rpush(wrong, "foreign")
    else:
        raw.set(wrong, "foreign")
    with pytest.raises(Unreadable) as told:
        if key.startswith("claim"):
            await lb.claims.acquire("c", "alice", 30)
        elif key.startswith("task"):
            await lb.tasks.spawn("work")
        else:
            async with lb.lock("k", wait=1):
                pass
    assert told.value.key == wrong
    raw.delete(
        *(lb.store.keys.key(0, name) for name in (key, "lock", "lock:live", "lock:owned"))
    )  # the script had come half its way


@here_and_there
async def test_a_listing_leaves_out_what_it_cannot_read_and_says_so(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        assert await lb.locks.try_acquire(name, "alice", 300)
        assert await lb.claims.acquire(name, "alice", 300)
        await lb.tasks.spawn("job", queue=name)
    for family in ("lock", "claim"):
        raw.hset(lb.store.keys.key(0, family), "b" if family == "lock" else b"default\xffb", "foreign")
    bad = (await lb.tasks.list("b"))[0].id
    raw.hset(lb.store.keys.key(0, "task"), bad, "foreign")
    assert [lease.key for lease in await lb.locks.list()] == ["a", "c"]
    assert [claim.key for claim in await lb.claims.list()] == ["a", "c"]
    assert [task.queue for task in await lb.tasks.list()] == ["a", "c"]
    for entry in ("field 'b' of {", r"field 'default\\xffb' of {", f"field {bad!r} of {{"):
        assert entry in caplog.text
    assert await lb.locks.release_all("alice") == 2
    assert await lb.claims.release_all("alice") == 2
    with pytest.raises(Unreadable):
        await lb.locks.owner("b")


@here_and_there
@pytest.mark.parametrize("what", ["claim", "claim:past"])
@pytest.mark.parametrize("verb", CLAIM_VERBS)
async def test_a_claim_of_which_something_is_damaged_is_given_to_nobody_and_named(
    lb: Lockbeat, raw: Any, verb: str, what: str
) -> None:
    claim = await lb.claims.acquire("c", "alice", 300)
    assert isinstance(claim, Claim)
    if what == "claim:past":
        assert await lb.claims.fail(claim, "broken")
        if verb == "is_claimed":
            assert await lb.claims.acquire("c", "alice", 300)
    key = lb.store.keys.key(0, what)
    for damage in ("foreign", ""):
        raw.hset(key, b"default\xffc", damage)
        with pytest.raises(Unreadable) as raised:
            await CLAIM_VERBS[verb](lb, claim)
        assert (raised.value.key, raised.value.field) == (key, r"default\xffc")
        assert await lb.claims.acquire(damage + "other", "bob", 30), "others are served"


@here_and_there
async def test_what_a_claim_was_left_with_is_named_when_it_can_not_be_read_and_the_claim_is_not_kept(
    lb: Lockbeat, raw: Any
) -> None:
    claim = await lb.claims.acquire("c", "alice", 300)
    assert isinstance(claim, Claim)
    assert await lb.claims.fail(claim, "broken")
    key = lb.store.keys.key(0, "claim:past")
    raw.hset(key, b"default\xffc", raw.hget(key, b"default\xffc").replace(b'"broken"', b"{foreign"))
    with pytest.raises(Unreadable) as raised:
        await lb.claims.acquire("c", "bob", 300)
    assert (raised.value.key, raised.value.field) == (key, r"default\xffc")
    assert await lb.claims.is_claimed("c") is None
    raw.hset(key, b"default\xffc", raw.hget(key, b"default\xffc").replace(b"{foreign", b'"mended"'))
    again = await lb.claims.acquire("c", "bob", 300)
    assert isinstance(again, Claim)
    assert (again.last_error, again.attempt) == ("mended", 2)


@only("memory")
async def test_damaged_claims_stop_no_sweep(lb: Lockbeat, raw: Any) -> None:
    with stopped() as to:
        for n in range(230):  # more than one page
            assert await lb.claims.acquire(f"c{n:03}", "alice", 10)
        for n in range(130):
            raw.hset(lb.store.keys.key(0, "claim"), b"default\xffc%03d" % n, "x")
        to(NOON + 20)
        assert await lb.claims.active() == 0 or True
        assert len(await lb.claims.expired(1000)) == 100
        assert await lb.claims.cleanup() == 100
        with pytest.raises(Unreadable):
            await lb.claims.acquire("c000", "bob", 10)
        assert await lb.claims.release_all("alice") == 0


@here_and_there
@pytest.mark.parametrize("damage", ["not a number", "12x", "9" * 20, ""])
async def test_a_damaged_fence_is_named_and_what_is_held_is_renewed_and_given_back(lb: Lockbeat, raw: Any, damage: str) -> None:
    fence = lb.store.keys.key(0, "fence")
    assert await lb.locks.try_acquire("k", "alice", 300)
    await lb.tasks.spawn("job")
    task = await claim_one(lb)
    await lb.tasks.spawn("job")
    raw.set(fence, damage)
    for call in (
        lb.locks.try_acquire("other", "bob", 30),
        lb.claims.acquire("c", "bob", 30),
        lb.tasks.spawn("job"),
        lb.tasks.claim("default", "bob"),
        lb.tasks.fail(task, "broken"),
        lb.tasks.release(task),
    ):
        with pytest.raises(Unreadable) as raised:
            await call
        assert raised.value.key == fence
    assert raw.get(fence) == damage.encode(), "nothing is written over it"
    assert await lb.locks.renew("k", "alice", 9000)
    assert await lb.tasks.heartbeat(task)
    assert await lb.locks.release("k", "alice")
    assert await lb.tasks.complete(task)
    raw.delete(fence)
    assert await lb.tasks.claim("default", "bob"), "nothing was lost"


@here_and_there
async def test_a_damaged_waiter_is_passed_over(lb: Lockbeat, raw: Any) -> None:
    assert await lb.locks.try_acquire("k", "alice", 300)
    first = asyncio.create_task(lb.lock("k", ttl=30).__aenter__())
    waiters = lb.store.keys.key(0, "lock:waiters")
    await wait_until(lambda: raw.hlen(waiters) == 1, "it waits")
    raw.hset(waiters, raw.hkeys(waiters)[0], "foreign")
    second = asyncio.create_task(lb.lock("k", ttl=30).__aenter__())
    await wait_until(lambda: raw.hlen(waiters) == 2, "so does the next")
    assert await lb.locks.release("k", "alice")
    await second
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@here_and_there
@pytest.mark.parametrize("what", ["task:lease", "task"])
async def test_a_running_task_of_which_something_is_damaged_is_not_begun_beside_itself(lb: Lockbeat, raw: Any, what: str) -> None:
    first = await begun(lb, lease=0.05, retry=None)
    assert await lb.tasks.fail(first, "broken", retry_at=0)
    task = await claim_one(lb, lease=0.05)
    key = lb.store.keys.key(0, what)
    raw.hset(key, task.id, "foreign")
    await eventually(lambda: past(lb, task.expires_at), "its lease is over")
    await lb.tasks.spawn("another")
    claimed = await lb.tasks.claim("default", "bob", 10)
    assert [one.name for one in claimed] == ["another"]
    with pytest.raises(Unreadable) as raised:
        await lb.tasks.complete(task)
    assert (raised.value.key, raised.value.field) == (key, task.id)


async def past(lb: Lockbeat, moment: float) -> bool:
    return await lb.store.server_time() > moment


@only("memory")
async def test_damaged_tasks_stop_neither_a_queue_nor_a_sweep_and_run_once_they_are_repaired(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with stopped() as to:
        spawned = await lb.tasks.spawn_many([NewTask("job", n, retry=None) for n in range(300)])
        records = lb.store.keys.key(0, "task")
        bad = [one.task_id for one in spawned[:250]]
        kept = {task_id: raw.hget(records, task_id) for task_id in bad}
        for task_id in bad:
            raw.hset(records, task_id, "foreign")
        claimed = await lb.tasks.claim("default", "alice", 300)
        assert len(claimed) == 50, "the others are claimed"
        assert f"field {bad[0]!r} of {records}" in caplog.text
        with pytest.raises(Unreadable):
            await lb.tasks.get(bad[0])
        leases = lb.store.keys.key(0, "task:lease")
        for task in claimed[:45]:
            raw.hset(leases, task.id, "foreign")
        to(NOON + 31)
        assert {task.attempt for task in await lb.tasks.claim("default", "bob", 300)} == {2}
        for task_id, record in kept.items():
            raw.hset(records, task_id, record)
        to(NOON + 130)
        again = {task.id for task in await lb.tasks.claim("default", "bob", 300)}
        assert again >= set(bad)


@here_and_there
async def test_a_task_that_ended_and_of_which_something_is_damaged_is_no_new_one(lb: Lockbeat, raw: Any) -> None:
    dead = await died(lb, idempotency_key="once")
    records = lb.store.keys.key(0, "task")
    told = raw.hget(records, dead)
    raw.hset(records, dead, "foreign")
    for call in (lb.tasks.get(dead), lb.tasks.retry(dead), lb.tasks.wait(dead, 5)):
        with pytest.raises(Unreadable) as raised:
            await call
        assert (raised.value.key, raised.value.field) == (records, dead)
    other = await died(lb)
    assert await lb.tasks.redrive() == 1, "the neighbour is"
    assert (await lb.tasks.get(other)).state == "waiting"
    raw.hset(records, dead, told)
    assert await lb.tasks.retry(dead)


@here_and_there
async def test_a_slot_whose_lock_or_whose_last_task_is_damaged_is_skipped_with_the_reason(lb: Lockbeat, raw: Any) -> None:
    for name, family, field in (("a", "lock", "job:a"), ("b", "task", "b@1")):
        job = minutely(name)
        await overdue(lb, raw, job)
        if family == "task":
            raw.hset(lb.store.keys.key(0, "job:open"), name, field)
        raw.hset(lb.store.keys.key(0, family), field, "foreign")
    good = minutely("good")
    await overdue(lb, raw, good)
    await scheduler(lb, minutely("a"), minutely("b"), good, runner=Hands("a", "b", "good")).tick(0)
    assert [(entry.state, "can't be read" in (entry.reason or "")) for entry in await ledger(lb, "a")] == [("skipped", True)]
    assert [(entry.state, "can't be read" in (entry.reason or "")) for entry in await ledger(lb, "b")] == [("skipped", True)]
    assert [entry.state for entry in await ledger(lb, "good")] == ["fired"]


@only("memory")
async def test_a_job_whose_slot_can_not_be_read_stops_no_other_and_is_named_once_a_minute(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = minutely("good"), minutely("bad")
    with stopped() as to:
        one = scheduler(lb, *jobs, runner=Hands())
        await one.register()
        raw.hset(lb.store.keys.key(0, "job:slot"), "bad", "foreign")
        for minute in range(1, 6):
            to(NOON + 60 * minute)
            await one.tick(0)
        assert [entry.state for entry in await ledger(lb, "good")]
    said = [record.message for record in caplog.records if "'bad'" in record.message]
    assert said == ["could not work out what follows 'foreign' of job 'bad'"]


@here_and_there
async def test_a_ledger_entry_that_can_not_be_read_is_shown_as_such(lb: Lockbeat, raw: Any) -> None:
    job = minutely("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(0)
    [entry] = await ledger(lb, "report")
    raw.hset(lb.store.keys.key(0, "task"), entry.task_id, "foreign")
    [entry] = await ledger(lb, "report")
    assert (entry.state, entry.reason) == ("unknown", "what the ledger has of it can't be read")


@here_and_there
async def test_a_fenced_value_and_the_number_of_shards_are_named(lb: Lockbeat, raw: Any, connect: Any) -> None:
    fence = await now_ms(lb) * 1000
    key = lb.store.keys.key(0, "fenced:NAME", "a name")
    for damage in ("foreign", f"{fence} {{foreign"):
        raw.set(key, damage, px=60_000)
        with pytest.raises(Unreadable) as raised:
            await lb.fenced.get("a name")
        assert raised.value.key == key
    shards = lb.store.keys.key(0, "shards")
    raw.set(shards, "some", px=60_000)
    with pytest.raises(Unreadable, match="shards"):
        async with connect():
            pass
    raw.delete(shards)


def test_the_error_is_one_of_scripts_and_survives_copies() -> None:
    problem = Unreadable("{app:0}:lock", "k")
    assert isinstance(problem, ScriptError)
    for again in (pickle.loads(pickle.dumps(problem)), copy.copy(problem)):  # noqa: S301 - our own
        assert (again.key, again.field, str(again)) == ("{app:0}:lock", "k", str(problem))


@here_and_there
@pytest.mark.parametrize("what", ["job", "job:slot"])
async def test_a_job_whose_definition_or_slot_is_damaged_is_named_and_the_others_are_listed(
    lb: Lockbeat, raw: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    await lb.jobs.put(minutely("a"), minutely("b"), minutely("c"))
    key = lb.store.keys.key(0, what)
    raw.hset(key, "b", "foreign")
    for call in (lb.jobs.get("b"), lb.jobs.next("b")):
        with pytest.raises(Unreadable) as raised:
            await call
        assert (raised.value.key, raised.value.field) == (key, "b")
    assert [state.job.name for state in await lb.jobs.list()] == ["a", "c"]
    assert f"field 'b' of {key}" in caplog.text


# -- members of an index that name nothing of ours

FOREIGN = [b"", b"\xff", b"foreign", b"0\xff\xfe"]


@here_and_there
async def test_foreign_members_of_a_queue_stop_none_of_its_tasks_and_no_listing(lb: Lockbeat, raw: Any) -> None:
    key = lb.store.keys.key
    for place in ("task:ready", "task:delayed", "task:dead"):
        raw.zadd(key(0, place), dict.fromkeys([*FOREIGN, *(b"default\xff" + member for member in FOREIGN)], 0))
    raw.zadd(key(0, "task:live"), dict.fromkeys(FOREIGN, 1e15))
    raw.zadd(key(0, "task:ended"), dict.fromkeys(FOREIGN, 1e15))
    dead = await died(lb)
    later = await lb.tasks.spawn("job", delay=0.05)

    async def begun() -> bool:
        return [task.id for task in await lb.tasks.claim("default", "alice", 10)] == [later.task_id]

    await eventually(begun, "what is put off comes due")
    assert {info.id for info in await lb.tasks.list()} == {dead, later.task_id}
    assert [info.id for info in await lb.tasks.dead()] == [dead]
    assert "default" in await lb.tasks.queues()
    assert (await lb.tasks.counts()).running == 1


@here_and_there
async def test_foreign_members_of_a_ledger_stop_neither_its_job_nor_its_bound(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job, hands = minutely(overlap="allow", keep=1), Hands("report")
    await overdue(lb, raw, job)
    order, beat = lb.store.keys.key(0, "ledger:order"), scheduler(lb, job, runner=hands)
    foreign = [b"report\xff", b"report\xff00-"]
    raw.zadd(order, dict.fromkeys([*foreign, *FOREIGN], 0))

    async def dropped() -> bool:
        await backdate(lb, raw, "report", await now_ms(lb))
        await beat.tick(0)
        return bool(raw.zmscore(order, foreign) == [None, None])

    assert await ledger(lb, "report") == []
    assert "ledger:order" in caplog.text
    await eventually(dropped, "the oldest go, whatever they are")
    assert [entry.state for entry in await ledger(lb, "report")][-1] == "fired"
    raw.zadd(order, dict.fromkeys(foreign, 0))
    assert await lb.jobs.delete("report")
    log = re.compile(rb"\xff+[0-9]{15}")  # which names forgotten slots until it is thinned out
    assert {member for member in raw.zrange(order, 0, -1) if not log.match(member)} == set(FOREIGN)


@here_and_there
async def test_foreign_members_of_the_jobs_order_are_left_out_of_lists_and_healing(lb: Lockbeat, raw: Any) -> None:
    beat = scheduler(lb, minutely())
    await beat.register()
    raw.zadd(lb.store.keys.key(0, "job:order"), dict.fromkeys(FOREIGN, 0))
    assert [state.job.name for state in await lb.jobs.list()] == ["report"]
    raw.hdel(lb.store.keys.key(0, "job"), "report")
    await beat.tick(0)
    assert (await lb.jobs.get("report")).next is not None, "what was lost is declared again"
