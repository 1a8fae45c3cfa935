"""Deploys: the newest version of the code decides what a job is, what left the code retires, and no slot is lost or doubled."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.errors import InvalidArgument, LockbeatError
from lockbeat.jobs import Job, JobState, backfiller, known_versions, version_of
from lockbeat.triggers import ByHand, Every
from tests.backfills import Filler, at, told
from tests.beats import Beats, Hands, backdate, eventually, ledger, minutely, now_ms
from tests.conftest import Connect, only, wait_until
from tests.deploys import Instance, came_due, gone, pass_for_versions

DAY = 86_400


def hourly(name: str = "report", period: int = 3600, **options: Any) -> Job:
    return Job.declare(name, Every(period), **options)


def trigger_of(state: JobState) -> str:
    return str(state.job.trigger)


async def declared(lb: Lockbeat, name: str = "report") -> str:
    return trigger_of(await lb.jobs.get(name))


# -- which version is the newer


async def test_restarts_of_old_and_new_instances_never_flip_a_job_back(lb: Lockbeat) -> None:
    old, new = (hourly(), hourly("other")), (hourly(period=7 * DAY), hourly("other"))
    await Instance(lb, *old).start()
    assert await declared(lb) == "every 1h"
    await Instance(lb, *new).start()
    assert await declared(lb) == "every 7d"
    before = await lb.jobs.get("report")
    for _ in range(3):
        for jobs in (old, new, old):
            instance = await Instance(lb, *jobs).start()
            await instance.sign()
            await instance.tick()
            assert await lb.jobs.get("report") == before


async def test_the_order_of_versions_is_that_of_their_first_declaration_whoever_restarts_last(lb: Lockbeat) -> None:
    versions = [hourly(period=period) for period in (60, 120, 180)]
    for job in versions:
        await Instance(lb, job).start()
    for job in reversed(versions):
        await Instance(lb, job).start()
    assert await declared(lb) == "every 3m"


ORDERED = [("1", "2"), ("9", "10"), ("1.9", "1.10"), ("1", "1.0.1"), ("2030.1.31", "2030.2"), ("-", "0"), ("1.2", "1.2.1")]


@pytest.mark.parametrize(("older", "newer"), ORDERED)
async def test_a_version_that_says_its_number_is_compared_by_it(lb: Lockbeat, older: str, newer: str) -> None:
    await Instance(lb, hourly(period=60), number=newer).start()
    await Instance(lb, hourly(period=120), number=older).start()
    assert await declared(lb) == "every 1m"


async def test_of_equal_numbers_the_later_one_is_the_newer(lb: Lockbeat) -> None:
    await Instance(lb, hourly(period=60), number="1.2").start()
    await Instance(lb, hourly(period=120), number="1.2.0").start()
    assert await declared(lb) == "every 2m"


async def test_after_a_rollback_the_old_version_decides_when_no_instance_of_the_newer_lives(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly(), hourly("other")).start()
    new = await Instance(lb, hourly(period=60), hourly("other")).start()
    await old.sign()
    assert await declared(lb) == "every 1m", "the newer one lives"
    await gone(raw, lb, new)
    await old.sign()
    assert await declared(lb) == "every 1h", "without a restart"
    again = await Instance(lb, hourly(period=60), hourly("other")).start()
    assert await declared(lb) == "every 1m"
    await gone(raw, lb, again)
    await Instance(lb, hourly(), hourly("other")).start()
    assert await declared(lb) == "every 1h", "by a restart"


async def test_an_instance_that_was_frozen_or_cut_off_declares_its_version_again(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly()).start()
    new = await Instance(lb, hourly(period=60)).start()
    await gone(raw, lb, new)
    await old.sign()
    assert await declared(lb) == "every 1h"
    await new.sign()
    assert await declared(lb) == "every 1m"


async def test_a_version_by_number_that_was_never_the_newest_takes_over_when_that_has_gone(lb: Lockbeat, raw: Any) -> None:
    new = await Instance(lb, hourly(period=60), number="2").start()
    old = await Instance(lb, hourly(), number="1").start()
    await gone(raw, lb, new)
    await old.sign()
    assert await declared(lb) == "every 1h"


@only("memory", "valkey", "redis")
@pytest.mark.parametrize("lost", ["job", "job:slot", "job:order", "job:due", "version", "job version", "everything"])
async def test_what_is_evicted_or_flushed_heals_from_the_newest_code_whoever_looks_first(
    lb: Lockbeat, raw: Any, lost: str
) -> None:
    jobs = {name: (hourly(period=period), hourly("other")) for name, period in (("old", 3600), ("new", 60))}
    for first, second in (("old", "new"), ("new", "old")):
        instances = {name: await Instance(lb, *jobs[name]).start() for name in ("old", "new")}
        for instance in instances.values():
            await instance.tick()
        if lost == "everything":
            raw.flushall()
        else:
            raw.delete(*(lb.store.keys.key(0, key) for key in lost.split()))
        for name in (first, second, first, second, first):
            await instances[name].tick()
            await instances[name].sign()
        assert await declared(lb) == "every 1m"
        assert len((await lb.jobs.list())[:3]) == 2
        raw.flushall()


async def test_a_deleted_job_that_an_old_instance_declares_again_is_as_the_newest_code_has_it(lb: Lockbeat) -> None:
    await Instance(lb, hourly()).start()
    new = await Instance(lb, hourly(period=60)).start()
    await lb.jobs.delete("report")
    await Instance(lb, hourly()).start()
    await new.sign()
    assert await declared(lb) == "every 1m"


async def test_what_is_put_at_run_time_knows_of_no_versions(lb: Lockbeat) -> None:
    await lb.jobs.put(hourly())
    await Instance(lb, hourly("other")).start()
    await lb.jobs.put(hourly(period=60))
    assert await declared(lb) == "every 1m"


async def test_the_same_jobs_in_another_order_are_the_same_version() -> None:
    assert version_of([hourly("a"), hourly("b")]) == version_of([hourly("b"), hourly("a")])
    assert version_of([hourly("a")]) != version_of([hourly("b")])
    assert version_of([hourly("a")], "1") != version_of([hourly("a")])
    assert version_of([]) is None


@pytest.mark.parametrize("version", ["", "abc", "1.2rc1", "1..2", "-1", -1, True, 1.5, "1" * 20, "1 2"])
def test_a_version_that_can_not_be_compared_is_refused_where_it_is_said(version: Any) -> None:
    with pytest.raises(InvalidArgument, match="version"):
        Beat(version=version)


# -- retiring


async def test_a_job_that_left_the_code_retires_when_no_instance_that_lives_declares_it(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly(), hourly("left")).start()
    new = await Instance(lb, hourly()).start()
    for _ in range(2):
        await new.sign()
        await old.sign()
        assert (await lb.jobs.get("left")).retired_at is None, "an old instance lives"
    await gone(raw, lb, old)
    await new.sign()
    assert (await lb.jobs.get("left")).retired_at is None, "it may be about to restart"
    pass_for_versions(raw, lb, 600, old)
    await new.sign()
    state = await lb.jobs.get("left")
    assert state.retired_at == pytest.approx(await now_ms(lb) / 1000, abs=20)
    assert state.next is None
    assert (await lb.jobs.get("report")).retired_at is None
    assert [change.what for change in await lb.jobs.changes("left")] == ["retire"]


async def test_a_retired_job_fires_nothing_and_keeps_its_ledger(lb: Lockbeat, raw: Any, connect: Connect) -> None:
    left = minutely("left", overlap="allow")
    old, new = Instance(lb, hourly(), left), Instance(lb, hourly())
    await old.start()
    slot = await came_due(lb, raw, left)
    await old.tick()
    assert old.scheduler.fired == 1
    await new.start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    await new.tick()
    assert [entry.slot_ms for entry in await ledger(lb, "left")] == [slot]
    assert (await lb.jobs.get("left")).counts.fired == 1
    assert new.scheduler.fired == 0


async def test_a_job_that_is_declared_again_comes_back_whole_and_its_slots_meanwhile_have_a_reason(
    lb: Lockbeat, raw: Any
) -> None:
    left = minutely("left", overlap="allow")
    old, new = Instance(lb, hourly(), left), Instance(lb, hourly())
    await old.start()
    await new.start()
    first = await came_due(lb, raw, left, 3)
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    assert (await lb.jobs.get("left")).retired_at is not None
    back = await Instance(lb, hourly(), left, hourly("third")).start()
    state = await lb.jobs.get("left")
    assert state.retired_at is None
    assert state.next is not None
    assert state.next.slot_ms > await now_ms(lb) - 1000
    [entry] = await ledger(lb, "left")
    assert (entry.state, entry.code, entry.slot_ms, entry.count) == ("skipped", "retired", first, -1)
    assert entry.last_ms is not None
    assert state.next.slot_ms - 60_000 <= entry.last_ms < state.next.slot_ms
    assert [change.what for change in await lb.jobs.changes("left")] == ["return", "retire"]
    await backdate(lb, raw, "left", state.next.slot_ms, await now_ms(lb))
    await back.tick()
    assert back.scheduler.fired == 1


async def test_a_job_comes_back_with_another_trigger(lb: Lockbeat, raw: Any) -> None:
    left = minutely("left")
    old, new = Instance(lb, hourly(), left), Instance(lb, hourly())
    await old.start()
    await new.start()
    first = await came_due(lb, raw, left, 3)
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    await Instance(lb, hourly(), hourly("left", 90)).start()
    state = await lb.jobs.get("left")
    assert (state.retired_at, trigger_of(state)) == (None, "every 1m30s")
    assert state.next is not None
    [entry] = await ledger(lb, "left")
    assert (entry.code, entry.slot_ms, entry.count) == ("retired", first, -1)


async def test_what_is_paused_stays_paused_through_retirement(lb: Lockbeat, raw: Any) -> None:
    old, new = Instance(lb, hourly(), hourly("left")), Instance(lb, hourly())
    await old.start()
    await lb.jobs.pause("left", "the printer burns", by="ann")
    await new.start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    assert (await lb.jobs.get("left")).retired_at is not None
    await old.start()
    state = await lb.jobs.get("left")
    assert state.retired_at is None
    assert state.paused is not None
    assert state.paused.by == "ann"
    assert await lb.jobs.resume("left") is not None
    assert (await lb.jobs.get("left")).next is not None


async def test_a_job_without_slots_retires_and_comes_back_too(lb: Lockbeat, raw: Any) -> None:
    by_hand = Job.declare("left", ByHand())
    old, new = Instance(lb, hourly(), by_hand), Instance(lb, hourly())
    await old.start()
    await new.start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    assert (await lb.jobs.get("left")).retired_at is not None
    with pytest.raises(LockbeatError, match="is retired"):
        await lb.jobs.trigger("left")
    await old.start()
    assert (await lb.jobs.get("left")).retired_at is None
    assert (await lb.jobs.trigger("left")).created
    assert await ledger(lb, "left") == []


@pytest.mark.parametrize("verb", ["pause", "resume", "skip_next", "trigger"])
async def test_a_person_is_told_that_a_job_is_retired(lb: Lockbeat, raw: Any, verb: str) -> None:
    old, new = Instance(lb, hourly(), hourly("left")), Instance(lb, hourly())
    await old.start()
    await new.start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    with pytest.raises(LockbeatError, match="job 'left' is retired: no instance that lives declares it"):
        await getattr(lb.jobs, verb)("left")


async def test_what_the_api_has_put_or_an_older_release_declared_never_retires(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put(hourly("put"))
    old = await Instance(lb, hourly(), hourly("left")).start()
    shard = lb.jobs.shard_of("left")
    key = lb.store.keys.key(shard, "job")
    line = raw.hget(key, "left").decode()
    assert '"version"' in line
    raw.hset(key, "left", line[: line.index("{") + 1] + line[line.index('"trigger"') :])
    new = await Instance(lb, hourly()).start()
    await gone(raw, lb, old, seconds=2 * DAY)
    await new.sign()
    for name in ("put", "left"):
        assert (await lb.jobs.get(name)).retired_at is None


async def test_another_programs_jobs_stay_for_a_day_though_none_of_its_instances_lives(lb: Lockbeat, raw: Any) -> None:
    """An outage of one program is no change of its code: its slots are caught up with when it is back."""
    other = await Instance(lb, hourly("theirs")).start()
    mine = await Instance(lb, hourly()).start()
    await gone(raw, lb, other, seconds=DAY - 600)
    await mine.sign()
    assert (await lb.jobs.get("theirs")).retired_at is None
    pass_for_versions(raw, lb, 700, other)
    await mine.sign()
    assert (await lb.jobs.get("theirs")).retired_at is not None
    assert (await lb.jobs.get("report")).retired_at is None


async def test_a_program_that_is_alone_retires_nothing_after_its_own_outage(lb: Lockbeat, raw: Any) -> None:
    for _ in range(2):
        instance = await Instance(lb, hourly()).start()
        await instance.sign()
        assert (await lb.jobs.get("report")).retired_at is None
        await gone(raw, lb, instance, seconds=3 * DAY)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_program_that_was_away_for_days_and_is_back_as_a_new_version_catches_up(
    lb: Lockbeat, raw: Any, alone: bool
) -> None:
    """Its jobs have not left the code: nobody was there to declare them. What left it retires with the next sign of life."""
    if not alone:
        other = await Instance(lb, hourly("theirs")).start()
    old, runs = Instance(lb, minutely(), hourly("left")), Hands("report")
    await old.start()
    first = await came_due(lb, raw, minutely(), 3)
    await gone(raw, lb, old, seconds=3 * DAY)
    new = await Instance(lb, minutely(), hourly("new"), runner=runs).start()
    await new.tick()
    [task] = runs.tasks
    assert task.slot_ms == first + 3 * 60_000
    assert [(entry.state, entry.code) for entry in await ledger(lb, "report")] == [("missed", "not_fired"), ("fired", None)]
    await new.sign()
    assert (await lb.jobs.get("left")).retired_at is not None
    if not alone:
        await other.sign()
        assert (await lb.jobs.get("theirs")).retired_at is None


async def test_a_backfill_stops_when_its_job_retires_and_goes_on_when_that_is_back(lb: Lockbeat, raw: Any) -> None:
    """Nobody is there to run what it fires; and what has come due since is told of once, as retired."""
    left = minutely("left")
    old, new = Instance(lb, hourly(), left), Instance(lb, hourly())
    await old.start()
    await new.start()
    first = await came_due(lb, raw, left, 3)
    filler = Filler(lb, "left")
    await lb.jobs.backfill("left", at(first - 2 * 60_000), at(first + 3 * 60_000))
    [task] = await filler.turn()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    await lb.tasks.complete(task)
    assert await filler.turn() == []
    found = await told(lb, "left")
    assert (found.state, found.fired, found.done) == ("paused", 1, 1)
    [change] = [one for one in await lb.jobs.changes("left") if one.what == "pause_backfill"]
    assert (change.by, change.reason) == ("retire", "no instance that lives declares the job")
    assert await lb.jobs.resume_backfill("left")
    assert await filler.turn() == []
    assert (await told(lb, "left")).state == "paused"
    with pytest.raises(LockbeatError, match="job 'left' is retired"):
        await lb.jobs.backfill("left", at(first - 2 * 60_000), at(first), dry_run=True)
    await old.start()
    assert await lb.jobs.resume_backfill("left")
    found = await filler.go_on("left")
    assert (found.state, found.done) == ("done", 5)
    entries = [(entry.slot_ms, entry.state) for entry in await ledger(lb, "left")]
    assert entries[:5] == [(first + n * 60_000, "done") for n in range(-2, 3)]
    assert entries[5:] == [(first + 3 * 60_000, "skipped")]


async def test_a_backfill_goes_through_a_rolling_deploy_and_each_slot_is_as_the_newest_code_has_it(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances of both go on with it in turns, restart, and one dies; the trigger changes with the version."""
    monkeypatch.setattr(backfiller, "HIDE_MS", 0)
    every = [hourly(period=period) for period in (60, 30)]
    old = await Instance(lb, every[0]).start()
    latest = every[0].trigger.prev(await now_ms(lb))
    assert latest is not None
    first, end = latest - 9 * 60_000, latest + 1
    slots, fillers = list[int](), [Filler(lb), Filler(lb)]
    await lb.jobs.backfill("report", at(first), at(end))
    turns = itertools.count()

    async def is_over() -> bool:
        turn = next(turns)
        if turn == 3:
            await Instance(lb, every[1]).start()
        if turn in (4, 6):
            await old.start()
        if turn == 5:
            fillers[0] = Filler(lb)
        for task in await fillers[turn % 2].turn():
            assert task.slot_ms is not None
            slots.append(task.slot_ms)
            await lb.tasks.complete(task)
        return (await told(lb)).is_over

    await eventually(is_over, "the backfill has ended")
    assert next(turns) > 7
    assert (await told(lb)).done == len(slots)
    assert slots == sorted(set(slots)), "none is run twice"
    assert set(slots) >= set(range(first, end, 60_000))
    assert set(slots) > set(range(first + 5 * 60_000, end, 30_000)), "by the new code from then on"


async def test_an_old_version_that_has_gone_is_forgotten_and_newest_when_it_is_deployed_again(lb: Lockbeat, raw: Any) -> None:
    """A revert weeks later is a deploy like another."""
    old = await Instance(lb, hourly()).start()
    new = await Instance(lb, hourly(period=60)).start()
    for _ in range(3):
        await gone(raw, lb, old, seconds=DAY)
        await new.sign()
    assert set(await known_versions(lb.store, None)) == {new.version.id} if new.version else set()
    await Instance(lb, hourly()).start()
    assert await declared(lb) == "every 1h"


async def test_through_several_deploys_what_left_long_ago_retires(lb: Lockbeat, raw: Any) -> None:
    instances = [await Instance(lb, hourly(), hourly(f"left-{n}")).start() for n in range(4)]
    for instance in instances * 2:  # so that each shard knows what the others do
        await instance.sign()
    await gone(raw, lb, *instances[:3], seconds=700)
    await instances[3].sign()
    retired = [(await lb.jobs.get(f"left-{n}")).retired_at is not None for n in range(4)]
    assert retired == [True, True, True, False]


async def test_a_walk_that_was_broken_off_is_begun_again(lb: Lockbeat, raw: Any) -> None:
    old = await Instance(lb, hourly(), *(hourly(f"left-{n}") for n in range(12))).start()
    new = await Instance(lb, hourly()).start()
    await new.sign()
    await new.sign()
    await gone(raw, lb, old, seconds=700)
    shard = lb.jobs.shard_of("left-3")
    page = await lb.store.call("job/retire", shard, after="", limit=2, by="dead")
    assert page.cursor
    await new.sign()
    key = lb.store.keys.key(shard, "version")
    head, _, lines = raw.get(key).decode().partition("\n")
    since, busy = head.split(" ")
    assert int(busy) > await now_ms(lb), "it is another's turn"
    raw.set(key, f"{since} 1\n{lines}")
    await new.sign()
    assert all([(await lb.jobs.get(f"left-{n}")).retired_at for n in range(12)])


async def test_a_retired_job_is_found_by_name_after_its_slot_was_lost(lb: Lockbeat, raw: Any) -> None:
    """It stands again then, for a moment: whoever heals looks whether it is to retire."""
    old, new = Instance(lb, hourly(), hourly("left")), Instance(lb, hourly())
    await old.start()
    await new.start()
    await gone(raw, lb, old, seconds=700)
    await new.sign()
    raw.hdel(lb.store.keys.key(lb.jobs.shard_of("left"), "job:slot"), "left")
    await new.tick()
    assert (await lb.jobs.get("left")).retired_at is not None


# -- a deploy as its users see it


async def test_two_jobs_with_the_same_function_and_trigger_are_two_jobs(beats: Beats) -> None:
    """prefect #17494, hatchet PR1101: one of them ran."""
    ran: list[str] = []
    beat = beats()

    async def work(run: Any) -> None:
        ran.append(run.job)

    for name in ("a", "b"):
        beat.every(1, name=name)(work)
    async with beat.lifespan():
        await eventually(lambda: _both(ran), "both have run twice")


async def _both(ran: list[str]) -> bool:
    return min(ran.count("a"), ran.count("b")) >= 2


async def test_a_rolling_deploy_of_real_instances_neither_loses_nor_doubles_a_slot(beats: Beats, lb: Lockbeat) -> None:
    ran: list[tuple[str, int]] = []

    def made(*names: str) -> Beat:
        beat = beats()

        async def work(run: Any) -> None:
            ran.append((run.job, round(run.slot.timestamp() * 1000)))

        for name in names:
            beat.every(1, name=name, overlap="allow", keep=1000)(work)
        return beat

    async with made("kept", "left").lifespan():
        await _runs_on(ran, "left")
        for _ in range(2):
            async with made("kept", "new").lifespan():
                await _runs_on(ran, "new")
            async with made("kept", "left").lifespan():
                await _runs_on(ran, "left")
    assert len(ran) == len(set(ran)), "a slot was doubled"
    slots = sorted(slot for job, slot in ran if job == "kept")
    missed = [
        entry for entry in await ledger(lb, "kept") if entry.state == "missed"
    ]  # on a busy machine an instance stands still
    known = {slot for entry in missed for slot in range(entry.slot_ms, (entry.last_ms or entry.slot_ms) + 1, 1000)}
    assert known.isdisjoint(slots)
    assert {*range(slots[0], slots[-1] + 1, 1000)} <= {*slots, *known}, "a slot vanished"


async def _runs_on(ran: list[tuple[str, int]], job: str) -> None:
    def times() -> int:
        return sum(name == job for name, _ in ran)

    before = times()
    await wait_until(lambda: times() > before, f"{job} runs")


async def test_serving_tells_the_store_its_version_and_instances_show_it(beats: Beats, lb: Lockbeat) -> None:
    from lockbeat.monitor import instances

    beat = beats(version="2030.1")
    beat.every(3600, name="report")(lambda: None)
    async with beat.lifespan():
        [known] = (await known_versions(lb.store, None)).values()
        assert beat.version is not None
        assert (known.id, known.number) == beat.version
        assert [instance.version for instance in await instances(lb.store)] == ["2030.1"]
        assert (await lb.jobs.get("report")).job.version == known.id


async def test_signs_of_life_cost_the_same_however_many_jobs_there_are(lb: Lockbeat, backend: Any) -> None:
    sizes = []
    for count in (1, 300):
        instance = await Instance(lb, *(hourly(f"job-{n}") for n in range(count))).start()
        sizes.append(len(instance.scheduler.deployed.said))
    assert sizes[0] == sizes[1]
