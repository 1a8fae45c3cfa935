"""Tags find their jobs by an index, which says what the definitions say; and where it can't, all jobs are looked at."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.jobs.listing import as_indexed
from lockbeat.triggers import At
from lockbeat.values.durations import instant
from tests.beats import backdate, minutely, now_ms, overdue, scheduler
from tests.conftest import only
from tests.deploys import Instance
from tests.guarantees.test_history import fire

here_and_there = only("memory", "valkey")
STRANGE = ['"', "a]b", '\\"],"', "é", "a,b", '"tags":["eu"]', "x\\", "line\nbreak", "\udfffx".encode("utf-8", "replace").decode()]


def indexed(lb: Lockbeat, raw: Any) -> tuple[set[bytes], int]:
    """The members of the index, and of how many jobs it knows."""
    found, known = set[bytes](), 0
    for shard in range(lb.store.shards):
        rows = dict(raw.zrange(lb.store.keys.key(shard, "job:tag"), 0, -1, withscores=True))
        known += int(rows.pop(b"\xff", 0))
        found |= rows.keys()
    return found, known


async def as_defined(lb: Lockbeat) -> tuple[set[bytes], int]:
    """The same by the definitions."""
    states = await lb.jobs.list()
    pairs = {(tag, state.job.name) for state in states for tag in state.job.tags}
    return {as_indexed(tag).encode() + b"\xff" + name.encode() for tag, name in pairs}, len(states)


async def named(lb: Lockbeat, tag: str, **wanted: Any) -> list[str]:
    return [state.job.name for state in await lb.jobs.list(tag, **wanted)]


async def test_jobs_are_found_by_their_tag_in_order_and_in_pages(lb: Lockbeat) -> None:
    await lb.jobs.put(*(minutely(f"job-{n:02}", tags=["eu"] if n % 2 else ["us", "eu-west"]) for n in range(20)))
    await lb.jobs.apply([minutely(f"bill-{n}", tags=["eu", "bill"]) for n in range(3)], origin="billing")
    eu = [f"bill-{n}" for n in range(3)] + [f"job-{n:02}" for n in range(1, 20, 2)]
    assert await named(lb, "eu") == eu
    assert await named(lb, "eu", limit=4) == eu[:4]
    assert await named(lb, "eu", after=eu[3], limit=4) == eu[4:8]
    assert await named(lb, "eu", origin="billing") == eu[:3]
    assert await named(lb, "e") == []
    await lb.jobs.pause("job-03")
    assert await named(lb, "eu", state="paused") == ["job-03"]


@here_and_there
async def test_the_index_says_what_the_definitions_say_whatever_was_done(lb: Lockbeat, raw: Any) -> None:
    chance, names = random.Random(7), [f"job-{n}" for n in range(8)]
    for _ in range(120):
        name, tags = chance.choice(names), chance.sample([*STRANGE, "eu", "us"], chance.randint(0, 3))
        verb = chance.choice(["put", "put", "one", "apply", "delete", "code"])
        if verb == "put":
            some = [minutely(each, tags=tags) for each in sorted({name, chance.choice(names)}) if await _is_ours(lb, each)]
            await lb.jobs.put(*some)
        elif verb == "one":
            await lb.jobs.put(name, Every(60), tags=tags, description='"tags":["us"]', take_over=True)
        elif verb == "apply":
            some = [minutely(each, tags=tags) for each in chance.sample(names, 3)]
            await lb.jobs.apply(some, origin="billing", prune=chance.random() < 0.5, take_over=True)
        elif verb == "delete":
            await lb.jobs.delete(name)
        else:
            await lb.jobs.declare([minutely(name, tags=tags)])
        assert indexed(lb, raw) == await as_defined(lb)
        for tag in tags:
            assert await named(lb, tag) == [state.job.name for state in await lb.jobs.list() if tag in state.job.tags]
    for name in names:
        await lb.jobs.delete(name)
    assert not raw.exists(lb.store.keys.key(0, "job:tag"))


async def _is_ours(lb: Lockbeat, name: str) -> bool:
    states = {state.job.name: state.job.origin for state in await lb.jobs.list()}
    return states.get(name, "api") == "api"


@here_and_there
async def test_a_job_that_is_forgotten_after_its_end_leaves_the_index(lb: Lockbeat, raw: Any) -> None:
    ended = Job.declare("ended", At(instant(await now_ms(lb) - 1000)), tags=["eu"])
    await lb.jobs.put(ended, minutely("stays", tags=["eu"]))
    shard = lb.jobs.shard_of("ended")
    key = lb.store.keys.key
    place = raw.hget(key(shard, "job:slot"), "ended").split(b" ", 2)
    raw.hset(key(shard, "job:slot"), "ended", b"-1 1 " + place[2])
    raw.zadd(key(shard, "job:due"), {"ended": 1})
    await scheduler(lb).tick(shard)
    assert [state.job.name for state in await lb.jobs.list()] == ["stays"]
    assert indexed(lb, raw) == await as_defined(lb)


def lost(raw: Any, lb: Lockbeat) -> None:
    for shard in range(lb.store.shards):
        raw.delete(lb.store.keys.key(shard, "job:tag"))


async def older(raw: Any, lb: Lockbeat) -> None:
    """A job that a version has put which keeps no index."""
    await lb.jobs.put(minutely("elder", tags=["eu"]))
    shard = lb.jobs.shard_of("elder")
    raw.zrem(lb.store.keys.key(shard, "job:tag"), b"eu\xffelder")
    raw.zincrby(lb.store.keys.key(shard, "job:tag"), -1, b"\xff")


async def test_where_the_index_was_lost_jobs_are_found_all_the_same_and_an_instance_makes_it_anew(lb: Lockbeat, raw: Any) -> None:
    instance = await Instance(lb, *(minutely(f"job-{n}", tags=["eu", *STRANGE][: n + 1]) for n in range(8))).start()
    await lb.jobs.put(*(minutely(f"api-{n}", tags=["eu"]) for n in range(30)))
    eu = sorted(state.job.name for state in await lb.jobs.list())
    lost(raw, lb)
    assert await named(lb, "eu") == eu
    assert await named(lb, "eu", after="api-3", limit=2) == ["api-4", "api-5"]
    assert len((await lb.jobs.history(tag="eu")).entries) == 0
    await lb.jobs.put(minutely("later", tags=["eu"]))
    assert await named(lb, "eu") == sorted([*eu, "later"])
    await instance.sign()
    assert indexed(lb, raw) == await as_defined(lb)
    assert await named(lb, "eu") == sorted([*eu, "later"])


async def test_what_an_older_version_has_declared_beside_is_found_and_entered(lb: Lockbeat, raw: Any) -> None:
    instance = await Instance(lb, minutely("mine", tags=["eu"])).start()
    await older(raw, lb)
    assert await named(lb, "eu") == ["elder", "mine"]
    await lb.jobs.put(minutely("other"))
    assert await named(lb, "eu") == ["elder", "mine"]
    await instance.sign()
    assert indexed(lb, raw) == await as_defined(lb)


@only("memory", "valkey")
async def test_who_makes_it_anew_may_die_and_what_is_done_meanwhile_counts(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(*(minutely(f"job-{n:02}", tags=["eu"]) for n in range(30)))
    key = lb.store.keys.key(0, "job:tag")
    raw.zadd(key, {b"eu\xffstale": 0})
    raw.zincrby(key, 5, b"\xff")
    page = await lb.store.call("job/tags", 0, after="", limit=10)
    assert (page.cursor, page.done) == (b"job-09", 0)
    assert (await lb.store.call("job/tags", 0, after="", limit=10)).cursor == b"", "somebody is at it"
    await lb.jobs.put(minutely("job-05", tags=["us"]), minutely("job-07x", tags=["eu"]))
    await lb.jobs.delete("job-03")
    await lb.jobs.delete("job-25")
    eu = [f"job-{n:02}" for n in range(30) if n not in (3, 5, 25)]
    assert await named(lb, "eu") == sorted([*eu, "job-07x"])
    while page.cursor:
        page = await lb.store.call("job/tags", 0, after=page.cursor, limit=10)
    assert page.done
    assert indexed(lb, raw) == await as_defined(lb)
    raw.zadd(key, {b"\xff": -1})  # one who died at it, a minute ago
    done = []
    async for page in lb.store.pages("job/tags", 0, limit=10):
        assert await named(lb, "eu") == sorted([*eu, "job-07x"])
        done.append(page.done)
    assert done == [0, 0, 1]
    assert indexed(lb, raw) == await as_defined(lb)


@only("memory", "valkey")
async def test_what_was_lost_of_the_order_is_looked_for_before_the_index_counts(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(*(minutely(f"job-{n:02}", tags=["eu"]) for n in range(5)))
    lost(raw, lb)
    raw.zrem(lb.store.keys.key(0, "job:order"), "job-03")
    [page] = [page async for page in lb.store.pages("job/tags", 0, limit=10)]
    assert not page.done


@pytest.mark.parametrize("whole", [True, False], ids=["by the index", "the index was lost"])
async def test_history_of_a_tag_that_many_jobs_have_is_theirs_alone(lb: Lockbeat, raw: Any, whole: bool) -> None:
    jobs = [minutely(f"job-{n:02}", tags=["eu"] if n % 2 else ["us"]) for n in range(60)]
    await fire(lb, raw, *jobs, here=False)
    await lb.jobs.trigger("job-01", overlap="allow")
    await lb.jobs.trigger("job-02", overlap="allow")
    if not whole:
        lost(raw, lb)
    found, more = list[Any](), None
    while True:
        page = await lb.jobs.history(tag="eu", limit=7, after=more)
        found += page.entries
        if (more := page.more) is None:
            break
    everything = (await lb.jobs.history(limit=1000)).entries
    assert [one.task_id for one in found] == [one.task_id for one in everything if int(one.job[4:]) % 2]
    assert len(found) == 31
    assert {one.job for one in (await lb.jobs.history(tag="eu", states=["failed"])).entries} == set()


@only("valkey")
async def test_history_of_a_tag_looks_past_many_entries_of_others(lb: Lockbeat, raw: Any) -> None:
    """Of which one run of the script reads only the names, and no more than it may."""
    others = [Job.declare(f"other-{n:04}", Every(60), overlap="allow") for n in range(900)]
    mine = [minutely(f"mine-{n:02}", tags=["eu"]) for n in range(25)]
    await fire(lb, raw, *mine, here=False)
    for _ in range(3):
        await fire(lb, raw, *others, here=False)
        now = await now_ms(lb)
        await asyncio.gather(*(backdate(lb, raw, job.name, now - n) for n, job in enumerate(others)))
    found = await lb.jobs.history(tag="eu", limit=100)
    assert sorted(one.job for one in found.entries) == [job.name for job in mine]
    assert found.more is None


@here_and_there
async def test_a_tag_that_is_taken_from_a_job_finds_it_no_more(lb: Lockbeat, raw: Any) -> None:
    job = minutely("report", tags=["eu", "us"])
    await lb.jobs.put(job)
    await overdue(lb, raw, replace(job, tags=("us",)))
    assert (await named(lb, "eu"), await named(lb, "us")) == ([], ["report"])
