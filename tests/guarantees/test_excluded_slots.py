"""A slot on a day of a calendar is skipped, and says by which; every instance decides by the same calendar, at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockbeat import Lockbeat
from lockbeat.calendars import Calendar, CalendarEntry, Copies, mend
from lockbeat.calendars.verbs import write
from lockbeat.errors import CalendarInUse, InvalidArgument
from lockbeat.jobs import Job
from lockbeat.store import results
from lockbeat.triggers import AnyOf, Cron, Every
from tests.beats import Hands, drain, eventually, ledger, overdue, scheduler, shot, states
from tests.conftest import Connect, only
from tests.proxy import Proxy, calls_of
from tests.tasks import NOON, stopped, until

DAY = 86_400
NOON_DAY = datetime.fromtimestamp(NOON, UTC).date()


def day(n: int) -> str:
    """So many days after that of NOON."""
    return f"{NOON_DAY + timedelta(n)}"


def daily(name: str = "report", **options: Any) -> Job:
    return Job.declare(name, Cron("0 1 * * *"), **({"exclude": ["c"], "overlap": "allow"} | options))


def told(entries: list[Any]) -> list[str]:
    """DAY STATE and, where it says so, how many."""
    return [
        f"{(entry.slot.date() - NOON_DAY).days} {entry.state}{f' x{entry.count}' if (entry.count or 1) != 1 else ''}"
        for entry in entries
    ]


TABLE = [
    # catch-up, the days excluded, on which days somebody looks; what becomes of 01:00 each day from today on
    ("latest", [], [0, 1, 2], ["0 fired", "1 fired", "2 fired"]),
    ("latest", [1], [0, 1, 2], ["0 fired", "1 skipped", "2 fired"]),
    ("latest", [0, 2], [0, 1, 2], ["0 skipped", "1 fired", "2 skipped"]),
    ("latest", [2], [2], ["0 missed", "1 fired", "2 skipped"]),
    ("latest", [1], [3], ["0 missed", "1 skipped", "2 missed", "3 fired"]),
    ("latest", [0, 1, 2], [2], ["0 skipped", "1 skipped", "2 skipped"]),
    ("latest", [1, 3], [4], ["0 missed", "1 skipped", "2 missed", "3 skipped", "4 fired"]),
    ("skip", [1], [2], ["0 missed", "1 skipped", "2 missed"]),
    ("all", [1], [3], ["0 fired", "1 skipped", "2 fired", "3 fired"]),
]


@only("memory")
@pytest.mark.parametrize(("catchup", "excluded", "looks", "says"), TABLE)
async def test_slot_by_slot_over_a_stopped_clock(
    lb: Lockbeat, catchup: str, excluded: list[int], looks: list[int], says: list[str]
) -> None:
    with stopped() as go_to:
        await lb.calendars.put(
            "c", [day(n) for n in excluded] or [day(100)], until=datetime.fromtimestamp(NOON + 400 * DAY).date()
        )
        job = daily(catchup=catchup)
        await lb.jobs.put(job)
        for n in looks:
            go_to(NOON + n * DAY + 5400)
            await drain(scheduler(lb, job))
        found = await ledger(lb, "report")
        assert told(found) == says
        skipped = [entry for entry in found if entry.state == "skipped"]
        assert {entry.reason for entry in skipped} <= {"excluded by c"}
        assert (await lb.jobs.get("report")).counts.skipped == len(skipped)


async def test_an_excluded_slot_stands_in_the_ledger_with_the_calendar_and_the_entrys_name(lb: Lockbeat, raw: Any) -> None:
    job = Job.declare("report", Every(60), exclude=["closing", "holidays-de"])
    slot = await overdue(lb, raw, job, back=0)
    today = datetime.fromtimestamp(slot / 1000, UTC).date()
    await lb.calendars.put("closing", [today + timedelta(100)])
    await lb.calendars.put("holidays-de", {today: "Reformationstag  (regional)", today + timedelta(1): "another"})
    beat = scheduler(lb, job)
    await beat.tick(lb.jobs.shard_of("report"))
    assert beat.fired == 0
    entry = (await ledger(lb, "report"))[0]
    assert (entry.slot_ms, entry.state, entry.code) == (slot, "skipped", "excluded")
    assert entry.reason == "excluded by holidays-de: Reformationstag (regional)"
    assert entry.detail == "holidays-de Reformationstag (regional)"
    assert (await lb.jobs.get("report")).counts.skipped >= 1
    assert (await lb.jobs.get("report")).counts.fired == 0


async def test_an_instance_with_an_old_copy_does_not_decide_by_it(lb: Lockbeat, connect: Connect) -> None:
    job = Job.declare("report", Every(1), exclude=["c"], overlap="allow")
    shard, today = lb.jobs.shard_of("report"), datetime.fromtimestamp(await lb.store.server_time(), UTC).date()
    days = [today, today + timedelta(1)]  # it may be midnight soon
    await lb.calendars.put("c", [today + timedelta(50)])
    await lb.jobs.put(job)
    async with connect() as other:
        old = scheduler(lb, job)
        await next_slot(lb)
        await old.tick(shard)
        assert old.fired == 1
        await other.calendars.put("c", [*days, today + timedelta(50)])
        await next_slot(lb)
        await old.tick(shard)  # decides nothing, and reads it anew
        assert (old.fired, await states(lb, "report")) == (1, ["fired"])

        async def skipped() -> bool:
            await old.tick(shard)
            return "skipped" in await states(lb, "report")

        await eventually(skipped, "it decides by the new one")
        assert old.fired == 1
        assert {entry.code for entry in (await ledger(lb, "report"))[1:]} == {"excluded"}
        await other.calendars.put("c", [today + timedelta(50)])

        async def fired() -> bool:
            await old.tick(shard)
            return old.fired > 1

        await eventually(fired, "the days are no longer excluded")


async def next_slot(lb: Lockbeat) -> None:
    """Wait until the job's next slot has come due."""
    await until(lb, (await lb.jobs.get("report")).due_at)


@only("memory", "valkey")
async def test_the_script_refuses_what_was_planned_by_another_calendar(lb: Lockbeat, raw: Any) -> None:
    job = Job.declare("report", Every(60), exclude=["c"])
    slot = await overdue(lb, raw, job)
    expected = raw.hget(lb.store.keys.key(0, "job:slot"), "report").decode()
    put = await lb.calendars.put("c", ["2030-01-01"])
    for words in ("c -", "c 0123", f"c {put.rev} d 0123"):
        row = shot(lb, job, slot, expected=expected, calendars=words)
        assert (await lb.store.call_row(row, 0)).fired == results.TOO_LATE
    assert await states(lb, "report") == []
    assert raw.hget(lb.store.keys.key(0, "job:slot"), "report").decode() == expected
    row = shot(lb, job, slot, expected=expected, calendars=f"c {put.rev} d -")
    assert (await lb.store.call_row(row, 0)).fired > results.NO


@only("memory", "valkey")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", "calendar 'c' is missing: jobs that exclude by it fire, such as report"),
        ("over", "calendar 'c' has no day known after 2001-01-01: jobs that exclude by it fire, such as report"),
        ("line", "calendar 'c' can't be read: jobs"),
        ("head", "calendar 'c' can't be read: jobs"),
        ("days", "calendar 'c' can't be read: jobs"),
    ],
)
async def test_without_a_calendar_that_says_anything_a_job_fires_and_a_warning_says_so(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture, damage: str, says: str
) -> None:
    job = Job.declare("report", Every(1), exclude=["c"], overlap="allow")
    key, beat, today = lb.store.keys.key, scheduler(lb, job), datetime.fromtimestamp(await lb.store.server_time(), UTC).date()
    if damage != "missing":
        put = await lb.calendars.put("c", ["2001-01-01"] if damage == "over" else [today + timedelta(50)])
        if damage == "line":
            raw.hset(key(0, "calendar"), "c", "foreign")
        if damage == "head":
            raw.hset(key(0, "calendar"), "c", f"{put.rev} 7 7 {{")
        if damage == "days":
            raw.hdel(key(0, "calendar:days"), "c")
    await lb.jobs.put(job)
    for fired in (1, 2):
        await next_slot(lb)
        await beat.tick(0)
        assert beat.fired == fired
        assert caplog.text.count(says) == 1, "once for a while"


async def test_what_is_to_come_leaves_excluded_days_out_and_says_which(lb: Lockbeat) -> None:
    job = Job.declare("report", Cron("0 6,18 * * *", "Europe/Berlin"), exclude=["c"])
    await lb.jobs.put(job)
    free = await lb.jobs.next("report", 8)
    skipped = free[2].astimezone().date()
    await lb.calendars.put("c", {free[2].date(): "Christmas"}, until=skipped + timedelta(400))
    coming = await lb.jobs.upcoming("report", 6)
    assert [each.slot for each in coming if not each.calendar] == await lb.jobs.next("report", 6)
    [excluded] = [each for each in coming if each.calendar]
    assert (excluded.calendar, excluded.entry, excluded.why) == ("c", "Christmas", "excluded by c: Christmas")
    assert await lb.jobs.next("report", 6) == [slot for slot in free if slot.date() != free[2].date()][:6]
    state = await lb.jobs.get("report")
    await lb.calendars.put("c", [free[0].date()])
    assert (await lb.jobs.get("report")).next == state.next, "a calendar moves no slot"


async def test_a_definition_that_excludes_needs_this_version_and_others_are_as_ever(lb: Lockbeat) -> None:
    assert "exclude" not in Job.declare("report", Every(60)).definition
    job = Job.declare("report", Every(60), exclude=["c", "d", "c"])
    assert job.definition.startswith('{"needs":2,')
    assert json.loads(job.definition)["exclude"] == ["c", "d"]
    await lb.jobs.put(job)
    assert (await lb.jobs.get("report")).job == job
    before = (await lb.jobs.get("report")).next
    await lb.jobs.put(Job.declare("report", Every(60), exclude=["e"]))
    assert (await lb.jobs.get("report")).next == before, "what it excludes by does not move it"


@pytest.mark.parametrize("exclude", ["c", ["a b"], [""], 7, [7], [f"c{n}" for n in range(21)]])
def test_what_is_no_list_of_names_is_refused(exclude: Any) -> None:
    with pytest.raises(InvalidArgument, match="exclude"):
        Job.declare("report", Every(60), exclude=exclude)


async def test_the_days_are_those_of_the_zone_that_the_trigger_has() -> None:
    berlin, utc = Cron("0 0 * * *", "Europe/Berlin"), Every(3600)
    assert AnyOf(berlin, Cron("30 0 * * *", "Europe/Berlin")).timezone == "Europe/Berlin"
    assert AnyOf(berlin, utc).timezone == utc.timezone == "UTC"


async def test_a_calendar_by_which_a_job_excludes_is_in_use(lb: Lockbeat) -> None:
    await lb.jobs.put(
        *(Job.declare(name, Every(3600), exclude=["c", "holidays"]) for name in ("b", "a")), daily("plain", exclude=[])
    )
    await lb.calendars.put("c", ["2030-01-01"])
    assert await lb.calendars.users("c") == ["a", "b"]
    with pytest.raises(CalendarInUse):
        await lb.calendars.delete("c")
    await lb.jobs.delete("a")
    await lb.jobs.put(Job.declare("b", Every(3600), exclude=["holidays"]))
    assert await lb.calendars.users("c") == []
    assert await lb.calendars.delete("c")


@only("cluster")
async def test_the_copies_of_a_put_that_stopped_half_way_are_finished_by_whoever_uses_them(
    lb: Lockbeat, connect: Connect
) -> None:
    jobs = [Job.declare(f"job{n}", Every(3600), exclude=["c"]) for n in range(8)]
    await lb.jobs.put(*jobs)
    before = await lb.calendars.put("c", ["2030-01-01"])
    after = Calendar("c", (CalendarEntry.of("2030-05-01"),), before.until)
    await write(lb.store, after, 0)  # and its process died
    async with connect() as other:
        beat = scheduler(other, *jobs)
        await beat.mend_calendars()
    for shard in range(lb.store.shards):
        copies = Copies(lb.store)
        await copies.read(shard, ["c"])
        assert copies.view(shard, ["c"], "UTC").words == f"c {after.rev}"


@only("cluster")
async def test_what_shard_0_has_lost_is_not_taken_from_the_others(lb: Lockbeat) -> None:
    put = await lb.calendars.put("c", ["2030-01-01"])
    await lb.store.call("calendar/delete", 0, name="c", number=0, call="x.1")
    await mend(lb.store, {shard: {"c"} for shard in range(lb.store.shards)})
    copies = Copies(lb.store)
    await copies.read(1, ["c"])
    assert copies.view(1, ["c"], "UTC").words == f"c {put.rev}"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("go on"), st.integers(1, 50)),
        st.tuples(st.just("put"), st.sets(st.integers(0, 12), max_size=5)),
        st.tuples(st.just("delete"), st.just(0)),
        st.tuples(st.just("tick"), st.integers(0, 1)),
        st.tuples(st.just("look"), st.integers(0, 1)),
    ),
    max_size=25,
)


@only("memory")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_becomes_of_the_calendar_each_slot_has_one_fate_by_the_calendar_of_that_moment(
    backend: Any, namespace: str, steps: list[tuple[str, Any]]
) -> None:
    """Two instances, each with copies of its own. The job is due each six hours; what is due is decided by what the store has."""
    with contextlib.closing(backend.client()) as raw:
        raw.flushall()
        asyncio.run(_model(backend.url, namespace, raw, steps))


async def _model(url: str, namespace: str, raw: Any, steps: list[tuple[str, Any]]) -> None:
    hour = 3600
    with stopped() as go_to:
        async with Lockbeat(url, namespace=namespace) as one, Lockbeat(url, namespace=namespace) as two:
            job = Job.declare("report", Every(6 * hour), exclude=["c"], overlap="allow", catchup="latest", keep=1000)
            await one.jobs.put(job)
            beats = [scheduler(one, job, runner=Hands()), scheduler(two, job, runner=Hands())]
            now, days, decided = NOON, set[int](), NOON
            expected: dict[int, str] = {}

            async def settle(which: int) -> None:
                """It has looked: what has come due was decided by the calendar as it was."""
                nonlocal decided
                for _ in range(60):
                    state = await one.jobs.get("report")
                    assert state.next is not None
                    if state.next.slot_ms > now * 1000:
                        break
                    await beats[which].tick(0)
                    if (await one.jobs.get("report")).next == state.next:  # the calendar was another: it is hidden for a moment
                        raw.zadd(one.store.keys.key(0, "job:due"), {"report": state.next.due_ms})
                else:
                    raise AssertionError("it does not come to an end")
                due = [at for at in range(int(decided) + 1, int(now) + 1) if at % (6 * hour) == 0]
                closed = {at for at in due if (datetime.fromtimestamp(at, UTC).date() - NOON_DAY).days in days}
                kept = [at for at in due if at not in closed]
                expected.update(
                    dict.fromkeys(closed, "skipped") | dict.fromkeys(kept[:-1], "missed") | dict.fromkeys(kept[-1:], "fired")
                )
                decided = now

            for step, what in steps:
                if step == "go on":
                    now += what * hour
                    go_to(now)
                elif step == "put":
                    days = what
                    await one.calendars.put("c", [day(n) for n in what] or [day(500)])
                elif step == "delete":
                    days = set()
                    await two.calendars.delete("c", force=True)
                elif step == "tick":
                    await settle(what)
                else:
                    await (one, two)[what].jobs.next("report", 3)
            await settle(0)
            found: dict[int, str] = {}
            for entry in await ledger(one, "report"):
                for at in range(entry.slot_ms // 1000, (entry.last_ms or entry.slot_ms) // 1000 + 1, 6 * hour):
                    assert at not in found, "doubled"
                    found[at] = entry.state
            assert found == expected


@only("valkey")
async def test_an_excluded_slot_whose_reply_was_lost_is_entered_once(lb: Lockbeat, raw: Any, lossy: Proxy) -> None:
    job = Job.declare("report", Every(60), exclude=["c"])
    slot = await overdue(lb, raw, job)
    today = datetime.fromtimestamp(slot / 1000, UTC).date()
    await lb.calendars.put("c", [today, today + timedelta(1)])
    async with Lockbeat(lossy.url, namespace=lb.store.keys.namespace, timeout=10) as client:
        beat = scheduler(client, job)
        await client.jobs.get("report")
        lossy.lose_reply(calls_of("beat/fire"), 2)
        await beat.tick(0)
    assert lossy.lost == 2
    assert [(entry.slot_ms, entry.state) for entry in await ledger(lb, "report")] == [(slot, "skipped")]
    assert (await lb.jobs.get("report")).counts.skipped == 1
    assert beat.fired == 0


@only("valkey")
@pytest.mark.parametrize("catchup", ["latest", "all"])
async def test_slot_by_slot_in_real_seconds(lb: Lockbeat, connect: Connect, catchup: str) -> None:
    """Days can't be hurried: it is the calendar that is changed under the same day."""
    job = Job.declare("report", Every(1), exclude=["c"], overlap="allow", catchup=catchup)
    today = datetime.fromtimestamp(await lb.store.server_time(), UTC).date()
    free, closed = [today + timedelta(50)], [today, today + timedelta(1), today + timedelta(50)]
    await lb.calendars.put("c", free)
    await lb.jobs.put(job)
    async with connect() as other:
        beats = [scheduler(lb, job), scheduler(other, job)]
        wanted: dict[int, str] = {}
        for days, state in [(free, "fired"), (closed, "skipped"), (free, "fired"), (closed, "skipped")]:
            await other.calendars.put("c", days)
            coming = (await lb.jobs.get("report")).next
            assert coming is not None

            async def decided(slot: int = coming.slot_ms) -> bool:
                for beat in beats:
                    await beat.tick(0)
                return any((entry.last_ms or entry.slot_ms) >= slot for entry in await ledger(lb, "report"))

            await eventually(decided, "the slot has its fate")
            wanted[coming.slot_ms] = state
        found = await ledger(lb, "report")
        fates = [(at, entry.state) for entry in found for at in range(entry.slot_ms, (entry.last_ms or entry.slot_ms) + 1, 1000)]
        slots = [at for at, _ in fates]
        assert slots == [*range(slots[0], slots[-1] + 1, 1000)], "each once, none left out"
        assert all(state in (wanted.get(at, state), "missed") for at, state in fates)
