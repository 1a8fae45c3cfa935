"""`lockbeat plan`: what a deploy would do, said before; it changes nothing in the store, and says what then happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.jobs import Job, heads
from lockbeat.program.comparing import Comparison, Difference
from lockbeat.triggers import ByHand, Cron, Every
from tests.beats import Beats, minutely
from tests.conftest import Backend, only
from tests.deploys import Instance, came_due, gone
from tests.tasks import dump, stopped


def program(beats: Beats, *jobs: Job, version: Any = None) -> Beat:
    """A beat with these jobs in its code."""
    beat = beats(version=version)
    beat.declared.update({job.name: job for job in jobs})
    return beat


def hourly(name: str = "report", period: int = 3600, **options: Any) -> Job:
    return Job.declare(name, Every(period), origin="code", **options)


def one(found: Comparison) -> Difference:
    [difference] = found.differences
    return difference


async def test_it_writes_nothing_to_an_empty_store_and_lists_all_as_added(beats: Beats, backend: Backend) -> None:
    found = await program(beats, hourly(), hourly("other"), Job.declare("by hand", ByHand())).compare()
    assert [(each.job, each.kind, len(each.after)) for each in found.differences] == [
        ("by hand", "added", 0),
        ("other", "added", 3),
        ("report", "added", 3),
    ]
    assert (found.unchanged, found.lost, found.doubled) == (0, [], [])
    assert dump(backend) == {}


async def test_it_writes_nothing_to_a_store_in_use(beats: Beats, lb: Lockbeat, raw: Any, backend: Backend) -> None:
    jobs = hourly(), hourly("changed"), hourly("left"), hourly("retired"), minutely("due")
    old = await Instance(lb, *jobs).start()
    new = await Instance(lb, *jobs[:3], jobs[4]).start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    await came_due(lb, raw, jobs[4])
    before = dump(backend)
    beat = program(beats, hourly(), hourly("changed", 60), hourly("retired"), hourly("due", 77), hourly("added"))
    found = await beat.compare()
    assert dump(backend) == before
    assert {each.job: each.kind for each in found.differences} == {
        "added": "added",
        "changed": "changed",
        "due": "changed",
        "left": "removed",
        "retired": "returns",
    }


async def test_there_is_nothing_to_do_where_the_store_has_what_the_code_says(beats: Beats, lb: Lockbeat) -> None:
    past = Job.declare("past", Cron("0 0 1 1 *"), end=datetime.fromisoformat("2001-01-01T00:00Z"))
    jobs = hourly(), Job.declare("by hand", ByHand()), past
    await Instance(lb, *jobs).start()
    found = await program(beats, *jobs).compare()
    assert (found.differences, found.unchanged, found.others) == ((), 3, 0)


async def test_a_change_says_which_options_and_which_slots(beats: Beats, lb: Lockbeat) -> None:
    await Instance(lb, hourly(overlap="skip")).start()
    found = one(await program(beats, hourly(period=60, overlap="allow")).compare())
    assert found.kind == "changed"
    assert found.changed == {"trigger": ("every 1h", "every 1m"), "overlap": ("skip", "allow")}
    assert [after - before for before, after in zip(found.before, found.before[1:], strict=False)] == [timedelta(hours=1)] * 2
    assert [after - before for before, after in zip(found.after, found.after[1:], strict=False)] == [timedelta(minutes=1)] * 2


async def test_a_job_whose_trigger_stays_keeps_its_next_slot(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    job = minutely()
    await Instance(lb, job).start()
    await came_due(lb, raw, job)
    found = one(await program(beats, minutely(overlap="allow")).compare())
    assert found.before == found.after
    assert found.lost == ()


async def test_what_it_says_of_slots_is_what_then_happens(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    changed, due = hourly("changed"), minutely("due")
    await Instance(lb, changed, due).start()
    slot = await came_due(lb, raw, due)
    jobs = hourly("changed", 86_400), hourly("due", 86_400), hourly("added", 86_400)
    found = await program(beats, *jobs).compare()
    assert [(job, at.timestamp() * 1000) for job, at in found.lost] == [("due", slot)]
    await Instance(lb, *jobs).start()
    for each in found.differences:
        assert await lb.jobs.next(each.job, 3) == list(each.after)
    [entry] = await lb.jobs.ledger("due")
    assert (entry.state, entry.code, entry.slot_ms) == ("missed", "trigger_changed", slot)


async def test_what_is_removed_says_when_it_retires_and_who_declares_it_still(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    served = beats()
    served.every(86_400, name="report")(lambda: None)
    served.every(86_400, name="left")(lambda: None)
    after = program(beats, Job.declare("report", Every(86_400), origin="code"))
    async with served.lifespan():
        found = one(await after.compare())
        assert (found.job, found.kind, found.retires_at) == ("left", "removed", None)
        assert found.remarks == ("1 living instance declares it",)
        assert len(found.before) == 3
    await gone(raw, lb)
    found = one(await after.compare())
    assert found.retires_at is not None
    assert found.remarks == ("no living instance declares it",)


async def test_jobs_of_other_programs_and_of_the_api_are_left_alone(beats: Beats, lb: Lockbeat) -> None:
    await Instance(lb, hourly("theirs")).start()
    await lb.jobs.put(Job.declare("put", Every(60)))
    await Instance(lb, hourly()).start()
    found = await program(beats, hourly()).compare()
    assert (found.differences, found.others) == ((), 2)


async def test_what_left_several_deploys_ago_and_has_not_retired_is_removed_still(beats: Beats, lb: Lockbeat) -> None:
    for n in range(3):
        await Instance(lb, hourly(), hourly(f"left-{n}")).start()
    found = await program(beats, hourly()).compare()
    assert [(each.job, each.kind) for each in found.differences] == [(f"left-{n}", "removed") for n in range(3)]


async def test_a_renamed_job_is_said_to_be_one(beats: Beats, lb: Lockbeat) -> None:
    """Under the store's eyes it is a new job: while old instances live, the same runs under both names."""
    await Instance(lb, hourly(), hourly("old")).start()
    found = await program(beats, hourly(), hourly("new")).compare()
    assert [(each.job, each.kind) for each in found.differences] == [("new", "added"), ("old", "removed")]
    assert found.doubled == [("new", "old")]


async def test_of_many_that_are_renamed_each_is_said_to_be_another(beats: Beats, lb: Lockbeat) -> None:
    """By what they do; and by function, where that has the name of neither or of the old one."""
    olds = [hourly(f"old-{n}") for n in range(3)]
    await Instance(
        lb, hourly(), *olds, hourly("send", 60), hourly("odd", 60, function="work"), hourly("rest", 60, function="some")
    ).start()
    news = [hourly(f"new-{n}") for n in range(3)]
    others = [hourly("post", 60, function="send"), hourly("even", 60, function="work"), hourly("alone", 60, function="other")]
    found = await program(beats, hourly(), *news, *others).compare()
    pairs = [(f"new-{n}", f"old-{n}") for n in range(3)]
    assert sorted(found.doubled) == sorted([*pairs, ("post", "send"), ("even", "odd")])
    remarks = {each.job: each.remarks for each in found.differences}
    assert "the same is declared as new-1" in remarks["old-1"]


@only("valkey")
async def test_of_what_is_as_it_is_declared_heads_are_read_alone(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    jobs = [hourly(f"job-{n:03}", description="x" * 1000) for n in range(2 * heads.PAGE)]
    await Instance(lb, *jobs).start()
    before = raw.info("stats")["total_net_output_bytes"]
    found = await program(beats, hourly("job-000"), *jobs[1:]).compare()
    read = raw.info("stats")["total_net_output_bytes"] - before
    assert [(each.job, each.kind) for each in found.differences] == [("job-000", "changed")]
    assert found.unchanged == len(jobs) - 1
    assert read < 200 * len(jobs)


async def test_what_a_newer_lockbeat_has_declared_is_said_to_stay(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    await Instance(lb, hourly()).start()
    key = lb.store.keys.key(lb.jobs.shard_of("report"), "job")
    line = raw.hget(key, "report")
    raw.hset(key, "report", line.replace(b"{", b'{"needs":99,', 1).replace(b" ", b"x ", 1))
    found = one(await program(beats, hourly()).compare())
    assert (found.kind, "it stays as it is" in found.remarks[0]) == ("changed", True)


async def test_a_version_that_is_older_than_what_lives_is_said_to_be_one(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    new = await Instance(lb, hourly(period=60), number="2").start()
    beat = program(beats, hourly(), version=1)
    assert (await beat.compare()).newer == ("2",)
    await gone(raw, lb, new)
    assert (await beat.compare()).newer == ()


@pytest.mark.parametrize(
    ("before", "after", "hour", "said"),
    [
        ("5 9 * * *", "0 9 * * *", 9.03, "from 2030-06-14T09:05:00+00:00 to 2030-06-16T09:00:00+00:00 there is no slot"),
        ("0 9 * * *", "5 9 * * *", 9.03, "2030-06-15T09:00:00+00:00 by the old trigger and 2030-06-15T09:05:00+00:00 by the new"),
        ("0 9 * * *", "30 9 * * *", 12, ""),
        ("0 9 * * *", "* * * * *", 12, ""),
        ("* * * * *", "0 9 * * *", 12, ""),
    ],
)
async def test_a_gap_or_two_slots_between_old_and_new_trigger_are_pointed_at(
    namespace: str, before: str, after: str, hour: float, said: str
) -> None:
    with stopped() as go_to:
        go_to(datetime(2030, 6, 15, tzinfo=UTC).timestamp() + hour * 3600)
        url = f"memory://{namespace}"
        async with Lockbeat(url) as lb:
            await Instance(lb, Job.declare("report", Cron(before))).start()
            beat = Beat(url)
            beat.cron(after, name="report")(lambda: None)
            found = one(await beat.compare())
    assert [remark[: len(said)] for remark in found.remarks] == ([said] if said else [])


async def test_a_paused_job_is_said_to_stay_paused(beats: Beats, lb: Lockbeat) -> None:
    await Instance(lb, hourly()).start()
    await lb.jobs.pause("report")
    found = one(await program(beats, hourly(period=60)).compare())
    assert found.remarks == ("it is paused, and stays so",)


async def test_a_retired_job_that_was_paused_comes_back_paused_and_plan_says_so(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly("kept"), hourly("report"), hourly("free")).start()
    await lb.jobs.pause("report", "the printer burns", by="bob")
    new = await Instance(lb, hourly("kept")).start()
    await gone(raw, lb, old, seconds=700)
    for _ in range(2):  # a shard where it has no job is told of the one where it has
        await new.sign()
    state = await lb.jobs.get("report")
    assert (state.state, state.paused and state.paused.reason) == ("retired", "the printer burns")
    assert await lb.jobs.all().resume() == {}
    assert await lb.jobs.all().pause(by="bob") == {"kept": True}, "those that are retired are left out"
    found = {each.job: each for each in (await program(beats, *old.jobs).compare(clock=lambda at: "then")).differences}
    remarks = (
        "retired since then: its slots since then are skipped",
        "it was paused before, and comes back so",
    )
    assert found["report"].remarks == remarks
    assert (found["report"].after, len(found["free"].after), len(found["free"].remarks)) == ((), 3, 1)
    await Instance(lb, *old.jobs).start()
    assert (await lb.jobs.get("report")).state == "paused"
    assert (await lb.jobs.get("free")).state == "scheduled"
