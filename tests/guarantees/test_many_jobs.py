"""Many jobs: a start with what was declared before is cheap and misses nothing, lists come in pages, memory is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job, Scheduler, known
from lockbeat.triggers import ByHand, Cron
from tests.beats import Hands, backdate, eventually, ledger, minutely, now_ms, overdue, scheduler
from tests.conftest import Connect, only

MANY = 200
"""More than one run of job/put takes."""


def hourly(name: str, **options: Any) -> Job:
    return Job.declare(name, Cron("0 * * * *"), **options)


def the_many(**options: Any) -> list[Job]:
    return [hourly(f"job-{n:03}", **options) for n in range(MANY)]


def sent(raw: Any) -> int:
    """Bytes that the server has read."""
    return int(raw.info("stats")["total_net_input_bytes"])


@only("valkey")
async def test_an_instance_that_starts_again_sends_digests_and_no_definitions(lb: Lockbeat, raw: Any) -> None:
    jobs = the_many(description="x" * 1000)
    before = sent(raw)
    epochs = await lb.jobs.put(*jobs)
    first = sent(raw) - before
    assert await lb.jobs.put(*the_many(description="x" * 1000)) == epochs
    assert sent(raw) - before - first < first / 3


def line_of(raw: Any, lb: Lockbeat, name: str) -> dict[str, Any]:
    key = lb.store.keys.key
    return {
        **{part: raw.hget(key(0, part), name) for part in ("job", "job:slot")},
        **{part: raw.zscore(key(0, part), name) for part in ("job:due", "job:order")},
    }


def to_another_slot(raw: Any, key: Any) -> None:
    slot, due, rest = raw.hget(key(0, "job:slot"), "job-077").split(b" ", 2)
    later = b"%d %d " % (int(slot) + 3_600_000, int(due) + 3_600_000)
    raw.hset(key(0, "job:slot"), "job-077", later + rest)
    raw.zadd(key(0, "job:due"), {"job-077": int(due) + 3_600_000})


def by_other_rules(raw: Any, key: Any) -> None:
    place = raw.hget(key(0, "job:slot"), "job-077").rpartition(b" ")[0]
    raw.hset(key(0, "job:slot"), "job-077", place + b" 1999a")


def retired(raw: Any, key: Any) -> None:
    slot, due, rest = raw.hget(key(0, "job:slot"), "job-077").split(b" ", 2)
    raw.hset(key(0, "job:slot"), "job-077", b"-1 %d %s retired %s %s" % (int(due) + 10**9, rest, slot, slot))


def redeclared(raw: Any, key: Any, text: bytes) -> None:
    raw.hset(key(0, "job"), "job-077", text + b" " + raw.hget(key(0, "job"), "job-077").partition(b" ")[2])


@only("memory", "valkey")
@pytest.mark.parametrize(
    "lose",
    [
        lambda raw, key: raw.hdel(key(0, "job"), "job-077"),
        lambda raw, key: raw.hdel(key(0, "job:slot"), "job-077"),
        lambda raw, key: raw.zrem(key(0, "job:due"), "job-077"),
        lambda raw, key: raw.zrem(key(0, "job:order"), "job-077"),
        to_another_slot,
        retired,
        lambda raw, key: redeclared(raw, key, b"0000.0000"),
    ],
)
async def test_what_does_not_stand_as_declared_is_put_though_the_others_do(lb: Lockbeat, raw: Any, lose: Any) -> None:
    await lb.jobs.put(*the_many())
    before = line_of(raw, lb, "job-077")
    lose(raw, lb.store.keys.key)
    assert line_of(raw, lb, "job-077") != before
    await lb.jobs.put(*the_many())
    assert line_of(raw, lb, "job-077") == before
    assert len(await lb.jobs.list()) == MANY


@only("memory", "valkey")
async def test_a_slot_that_came_due_and_was_not_fired_stays_where_it_is(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(*the_many())
    slot = await overdue(lb, raw, hourly("job-077"))
    by_other_rules(raw, lb.store.keys.key)
    await lb.jobs.put(*the_many())
    assert (await lb.jobs.get("job-077")).next_slot is not None
    assert int(raw.hget(lb.store.keys.key(0, "job:slot"), "job-077").split()[0]) == slot


@only("memory", "valkey")
@pytest.mark.parametrize("lost", ["epoch", "job:slot/"])
async def test_a_shard_that_lost_what_it_knows_of_itself_is_declared_to_anew(lb: Lockbeat, raw: Any, lost: str) -> None:
    [epoch] = (await lb.jobs.put(*the_many())).values()
    name, _, field = lost.partition("/")
    key = lb.store.keys.key(0, name)
    raw.hdel(key, field) if "/" in lost else raw.delete(key)
    [again] = (await lb.jobs.put(*the_many())).values()
    assert again > 0
    assert (again == epoch) is (lost != "epoch")
    assert raw.hget(lb.store.keys.key(0, "job:slot"), "") is not None


async def test_lists_come_in_pages_in_order_of_name_over_all_shards(lb: Lockbeat) -> None:
    names = sorted([*(f"job-{n:03}" for n in range(25)), "émile", "zoë", "Zoë"])
    await lb.jobs.put(*map(minutely, names))
    found, after = list[str](), None
    while page := await lb.jobs.list(after=after, limit=7):
        assert len(page) == 7 or len(found) == 21
        after = page[-1].job.name
        found += [state.job.name for state in page]
    assert found == names
    assert [state.job.name for state in await lb.jobs.list()] == names


@pytest.mark.parametrize(
    ("given", "what"),
    [({"limit": 0}, "limit"), ({"after": ""}, "after"), ({"state": "odd"}, "state"), ({"origin": "a b"}, "origin")],
)
async def test_a_page_that_can_not_be_is_refused(lb: Lockbeat, given: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        await lb.jobs.list(**given)


async def test_jobs_are_found_by_how_they_stand(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(
        *map(minutely, ("busy", "broken", "mended", "idle", "held")),
        Job.declare("manual", ByHand()),
        minutely("once", limit=1),
        minutely("lies", description='{"tags":["eu"]} "eu"', queue="eu"),
        minutely("told", tags=["eu"]),
    )
    await lb.jobs.pause("held")

    async def runs(name: str, *, well: bool | None) -> None:
        job = (await lb.jobs.get(name)).job
        hands = Hands(name)
        await backdate(lb, raw, name, await now_ms(lb))
        await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of(name))
        [task] = hands.tasks
        if well is not None:
            await (lb.tasks.complete(task) if well else lb.tasks.fail(task, "no"))

    await runs("busy", well=None)
    await runs("broken", well=True)
    await runs("broken", well=False)
    await runs("mended", well=False)
    await runs("mended", well=True)
    await runs("once", well=True)

    async def named(**wanted: Any) -> list[str]:
        return [state.job.name for state in await lb.jobs.list(**wanted)]

    assert await named(state="scheduled") == ["broken", "busy", "idle", "lies", "mended", "told"]
    assert await named(state="paused") == ["held"]
    assert await named(state="ended") == ["once"]
    assert await named(state="by_hand") == ["manual"]
    assert await named(state="open") == ["busy"]
    assert await named(state="failing") == ["broken"]
    assert await named(tag="eu") == ["told"]
    assert await named(tag="eu", state="paused") == []
    assert await named(state="scheduled", after="busy", limit=2) == ["idle", "lies"]
    told = {state.job.name: state.state for state in await lb.jobs.list()}
    assert (told.pop("held"), told.pop("manual"), told.pop("once")) == ("paused", "by_hand", "ended")
    assert set(told.values()) == {"scheduled"}


async def test_jobs_are_found_by_their_origin(lb: Lockbeat) -> None:
    for name, origin in (("a", "billing"), ("b", "billing"), ("c", "bill"), ("d", "api"), ("e", "billing2")):
        await lb.jobs.put(name, Every(3600), origin=origin, tags=["eu"] if name == "b" else [], params={"origin": "bill"})
    await lb.jobs.declare([minutely("mine", description='"origin":"api"')])
    await lb.jobs.pause("a")

    async def named(origin: str, **wanted: Any) -> list[str]:
        return [state.job.name for state in await lb.jobs.list(origin=origin, **wanted)]

    assert [await named(origin) for origin in ("billing", "bill", "api", "code", "nobody")] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["mine"],
        [],
    ]
    assert await named("billing", after="a") == ["b"]
    assert await named("billing", limit=1) == ["a"]
    assert await named("billing", tag="eu") == ["b"]
    assert await named("billing", state="paused") == ["a"]
    await lb.jobs.put("a", Every(3600), origin="bill", take_over=True)
    await lb.jobs.delete("c")
    assert (await named("billing"), await named("bill")) == (["b"], ["a"])


@only("valkey")
async def test_one_among_many_is_found_though_a_run_looks_at_some_only(lb: Lockbeat, raw: Any) -> None:
    jobs = [hourly(f"job-{n:05}") for n in range(4100)]
    await lb.jobs.put(*jobs, hourly("job-02500x", tags=["rare"]), hourly("job-04099x", tags=["rare"]))
    raw.delete(lb.store.keys.key(0, "job:tag"))
    reply = await lb.store.call("job/list", 0, after="", limit=10, texts=[], state="", origin="", tag="rare")
    assert not reply.jobs
    assert reply.cursor
    for limit in (1, 10):
        found = [state.job.name for state in await lb.jobs.list("rare", limit=limit)]
        assert found == ["job-02500x", "job-04099x"][:limit]


@only("memory", "valkey")
async def test_what_an_instance_remembers_of_jobs_that_others_made_is_bounded(
    lb: Lockbeat, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "MOST_READ", 3)
    names = [f"job-{n}" for n in range(8)]
    for name in names:
        await overdue(lb, raw, minutely(name))
    beat = scheduler(lb, minutely("mine"))
    await beat.tick(0)
    assert beat.fired == 8
    assert len(beat._known._read) == 3
    for name in names:
        await backdate(lb, raw, name, await now_ms(lb))
    await beat.tick(0)
    assert [len(await ledger(lb, name)) for name in names] == [2] * 8
    assert len(beat._known._read) == 3


async def test_whoever_fires_may_stop_at_any_time_and_another_fires_on(lb: Lockbeat, connect: Connect) -> None:
    """One fires on time, the others look in its wake. Each slot is fired once, or the ledger says why it was not."""
    job = Job.declare("often", Every(0.05), overlap="allow", keep=1000)
    await lb.jobs.put(job)
    shard = lb.jobs.shard_of(job.name)
    async with connect() as b, connect() as c, asyncio.TaskGroup() as group:
        beats = [scheduler(client, job) for client in (lb, b, c)]
        serving = {beat: group.create_task(beat.serve(shard)) for beat in beats}
        while serving:
            before = {beat: beat.fired for beat in serving}

            async def ten_more(before: dict[Scheduler, int] = before) -> bool:
                return sum(beat.fired - count for beat, count in before.items()) >= 10

            await eventually(ten_more, "what is left of them fires on")
            most = max(before, key=lambda beat: beat.fired - before[beat])
            serving.pop(most).cancel()
    entries = await ledger(lb, "often")
    assert {entry.state for entry in entries} <= {"fired", "missed"}
    fired = [entry.slot_ms for entry in entries if entry.state == "fired"]
    # One that is cancelled while it fires does not hear what it has fired, and has not counted it.
    assert sum(beat.fired for beat in beats) <= len(fired)
    told = sum(entry.count or 1 for entry in entries)
    assert told == (entries[-1].slot_ms - entries[0].slot_ms) // 50 + 1, "no slot is without a word"
