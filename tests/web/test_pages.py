"""What single pages say: how much happens in a second, what calendars exclude, who fired, and what can be run after all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from lockbeat import Beat, Cron, Every, Lockbeat
from lockbeat.calendars import Calendar, CalendarEntry, Closed
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.jobs.calling import EXEC, begin
from lockbeat.store import reasons
from lockbeat.triggers import Called
from lockbeat.web.load import MINUTE, MINUTES, counted, stretches
from lockbeat.web.pages.job import again
from tests.beats import Hands, eventually, fired, minutely, overdue, scheduler
from tests.conftest import only
from tests.tasks import died
from tests.web.asking import Ask

both = only("memory", "valkey")


def words(text: str) -> str:
    """What a page says, without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def live(text: str) -> str:
    """The part of a page that changes."""
    return text.partition('<div id="live">')[2]


def rest(zone: str) -> Closed:
    """One day off, by the clocks of that zone."""
    return Closed([Calendar("holidays", (CalendarEntry.of("2030-01-02 Rest"),), date(2031, 1, 1))], zone)


@both
async def test_rates_are_told_at_the_second_look_by_what_the_store_counts(
    lb: Lockbeat, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.web.rates.LEAST", 0.001)
    page = ask()
    assert "Known at the second look" in words(await page.page("/"))
    for _ in range(3):
        await lb.tasks.spawn("mail")
    await died(lb, queue="other")
    text = words(await page.page("/"))
    assert "Known at the second look" not in text
    found = dict(re.findall(r"(Slots fired|Tasks made|Attempts begun|Done|Failed or lost) (1 in [\d.]+ \w+|[\d.,]+)", text))
    assert found["Slots fired"] == found["Done"] == "0"
    assert "0" not in (found["Tasks made"], found["Attempts begun"], found["Failed or lost"])
    assert "4 tasks made, 0 done, 0 tried again, 1 failed" in text
    assert "Known at the second look" in words(await ask().page("/")), "another server has not looked before"


@both
async def test_slots_that_were_fired_are_counted_apart_and_among_the_tasks(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    await lb.tasks.spawn("mail")
    await fired(lb, raw)
    stats = raw.hgetall(lb.store.keys.key(0, "task:stats"))
    assert (stats[b"spawned"], stats[b"fired"]) == (b"1", b"1")
    assert "2 tasks made" in words(await ask().page("/"))


@both
async def test_the_next_day_shows_excluded_slots_with_calendar_and_entry_and_fires_the_others(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    today = datetime.now(UTC).date()
    await lb.calendars.put("holidays", [f"{today + timedelta(days=days)} Carnival" for days in (-1, 0, 1, 2)])
    await lb.calendars.put("some-day", ["1999-12-31 Long ago"])
    for name, exclude in (("open", []), ("closed", ["holidays"]), ("both", ["some-day", "holidays"]), ("past", ["some-day"])):
        await lb.jobs.put(name, Cron("*/10 * * * *"), exclude=exclude)
    await lb.jobs.put("lost", Cron("*/10 * * * *"), exclude=["no-such"])
    await lb.jobs.put("often", Cron("* * * * *"), exclude=["holidays"])
    text = await ask().page("/day")
    said = words(live(text))
    assert re.search(r"holidays Carnival 1,7\d\d ", said), said
    assert "calendar 'no-such' is missing: it excludes nothing there." in said
    assert "1 a minute, but where it is excluded" in said
    assert re.search(r"4[23]\d slots of 6 jobs. 1,7\d\d slots more are excluded by calendars", said), said
    assert "<title>excluded by holidays: Carnival</title>" in text
    for name in ("closed", "both", "often"):
        assert f'name={name}"' in text.partition("Excluded by calendars")[2].partition("By schedule")[0]


def test_excluded_stretches_of_a_day_begin_and_end_at_midnight_of_the_zone() -> None:
    days = Closed(
        [Calendar("holidays", (CalendarEntry(date(2030, 1, 2), date(2030, 1, 2), "Rest"),), date(2031, 1, 1))], "Asia/Kolkata"
    )
    start_ms = round(datetime(2030, 1, 1, 12, 7, tzinfo=UTC).timestamp() * 1000)
    begins = round(datetime(2030, 1, 1, 18, 30, tzinfo=UTC).timestamp() * 1000 - start_ms) // MINUTE
    assert stretches(days, start_ms) == [(0, begins, None), (begins, MINUTES, ("holidays", "Rest"))]
    assert stretches(None, start_ms) == [(0, MINUTES, None)]


@both
async def test_a_day_of_a_job_that_excludes_has_the_slots_of_the_other_days(lb: Lockbeat) -> None:
    """By the minute and by the stretch: half of the day is excluded."""
    start_ms = round(datetime(2030, 1, 1, 12, tzinfo=UTC).timestamp() * 1000)
    days = rest("UTC")
    for name, trigger in (("seldom", Every(3600)), ("often", Every(60))):
        await lb.jobs.put(name, trigger)
    found = await counted([*(await lb.jobs.get_many(["seldom", "often"])).values()], start_ms, {"seldom": days, "often": days})
    assert (sum(found.at), round(sum(found.steady))) == (12, 720)
    [(said, excluded)] = found.excluded.items()
    assert said == ("holidays", "Rest")
    assert (round(excluded.count), {*excluded.jobs}) == (12 + 720, {"seldom", "often"})
    assert excluded.first_ms == start_ms + 12 * 3_600_000


@both
async def test_what_lockbeat_exec_ran_has_no_button_and_is_refused(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """No worker has its command line."""
    job = Job.declare("dump", Called(None, 1), queue="exec", origin=EXEC)
    await lb.jobs.put(job)
    called = await begin(lb.store, lb.jobs, lb.tasks, job, None, lease_ms=30_000)
    assert called.task is not None
    await lb.tasks.fail(called.task, "exit code 1: disk full")
    page = ask()
    for path in (f"/job?name=dump&slot={called.of.rpartition('@')[2]}", f"/task?id={called.of}", "/dead", "/dead?queue=exec"):
        text = await page.page(path)
        assert "call the command again" in words(text), path
        assert "retry" not in text, path
        assert "dead/redrive" not in text, path
    token = await page.token("/dead")
    refused = {
        "/task/retry": ({"id": called.of}, "can't be tried again: job 'dump' is run by those who call for its slots"),
        "/dead/redrive": ({"queue": "exec"}, "none of queue 'exec' can be tried again"),
    }
    for path, (form, why) in refused.items():
        found = await page.post(path, form | {"token": token})
        assert found.status_code == 409
        assert why in words(found.text)
    await died(lb, queue="exec")
    assert (await page.post("/dead/redrive", {"queue": "exec", "token": token})).status_code == 303
    assert "1 are tried again; 1 stay dead, which lockbeat exec ran" in words(await page.page("/dead"))


@both
async def test_who_fired_a_slot_is_named_when_it_has_ended_or_said_not_to_be_kept(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    job = minutely(max_attempts=2, lease=60)
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(lb.jobs.shard_of(job.name))
    page = ask()

    async def said() -> str:
        [who] = re.findall(r'data-label="Fired by" class="who">\s*(?:<span[^>]*>)?([^<]*)', await page.page("/job?name=report"))
        return str(who)

    assert await said() == lb.owner
    [task] = await lb.tasks.claim("default", "worker")
    assert await said() == lb.owner
    await lb.tasks.fail(task, "no such address", retry_at=0)
    assert await said() == lb.owner
    [task] = await lb.tasks.claim("default", "worker")
    await lb.tasks.cancel(task.id)
    assert await said() == lb.owner
    key = lb.store.keys.key(lb.jobs.shard_of(job.name), "task")
    raw.hset(key, task.id, re.sub(b"\x1c[^\x1d-\x1f\xff]*", b"", raw.hget(key, task.id)))  # as an older version cancels
    assert await said() == "not kept"


@both
async def test_that_nobody_can_run_a_job_is_said_until_somebody_can(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """A function that the deployed version does not have."""
    await lb.jobs.put("report", Every(3600))
    page, nobody = ask(), "Nobody can run it now: "

    async def said(what: str) -> bool:
        return what in words(await page.page("/job?name=report"))

    assert await said(f"{nobody}no instance serves queue 'default'")
    older, newer = Beat(lb), Beat(lb)

    @older.task
    async def other(run: Any) -> None: ...

    @newer.task
    async def report(run: Any) -> None: ...

    lacks = f"{nobody}no instance that serves queue 'default' has a function 'report'"
    async with older.lifespan():
        await eventually(lambda: said(lacks), "the page says what is lacking", step=0.1)
    async with newer.lifespan():

        async def can() -> bool:
            return not await said(nobody)

        await eventually(can, "the page says no more that nobody can", step=0.1)


@both
async def test_what_comes_is_shown_by_the_clocks_that_the_column_names(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """Hangfire#1407, RecurringJobAdmin#31."""
    for name, zone in (("india", "+05:30"), ("tokyo", "Asia/Tokyo"), ("here", "UTC")):
        await lb.jobs.put(name, Cron("30 9 * * *", timezone=zone))
        coming = (await ask().page(f"/job?name={name}")).partition('id="next"')[2].partition("</section>")[0]
        assert 'data-label="Note"' not in coming, "there is none"
        if zone == "UTC":
            assert len(re.findall(r"09:30:00 UTC</time>", coming)) == 10
            assert 'data-label="UTC"' not in coming, "the same time stood twice"
            continue
        assert f'<th scope="col">{zone}</th>' in coming
        assert re.findall(rf'<td data-label="{re.escape(zone)}">[^<]*(\d\d:\d\d:\d\d)</td>', coming) == ["09:30:00"] * 10
        assert coming.count(f"09:30:00 {zone}") == 10  # in the titles


@both
async def test_slots_that_did_not_run_can_be_run_after_all(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    job = minutely(catchup="skip")
    first = await overdue(lb, raw, job, 2)
    await scheduler(lb, job).tick(lb.jobs.shard_of(job.name))
    page = ask()
    told = await page.page(f"/job?name=report&slot={first}")
    assert "Its task" not in told  # they were never fired
    [(link, said)] = re.findall(r'<a class="button" href="([^"]*)">([^<]*)', told)
    plan = words(await page.page(unescape(link)))
    entry = (await lb.jobs.ledger("report"))[-1]
    assert (entry.state, entry.count) == ("missed", 2)
    assert said == "Run these slots after all"
    assert "Slots 2 Would be fired 2 " in plan
    assert "Run these slots" not in await ask(allow=lambda *_: False).page(f"/job?name=report&slot={first}")


def test_what_ran_or_is_excluded_is_not_run_by_a_backfill() -> None:
    entry = LedgerEntry("report", 1_893_456_000_000, "skipped", code="overlap")
    assert again(entry) == ("2030-01-01T00:00:00.000", "2030-01-01T00:00:00.001")
    for other in (None, replace(entry, code=reasons.EXCLUDED), replace(entry, state="done"), replace(entry, run="report!1")):
        assert again(other) is None


@both
async def test_an_attempt_of_milliseconds_did_not_take_no_time(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task = await fired(lb, raw)
    await lb.tasks.complete(task)
    page = ask()
    for path in (f"/job?name={task.job}", f"/task?id={task.id}"):
        took = re.findall(r'data-label="Took">([^<]*)', await page.page(path))
        assert took, path
        assert "0 s" not in took, path


@both
async def test_a_slot_is_cancelled_and_tried_again_from_its_page_which_says_who_did_it(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    await overdue(lb, raw, job := minutely())
    await scheduler(lb, job, runner=(hands := Hands("report"))).tick(lb.jobs.shard_of(job.name))
    [task] = hands.tasks
    page, path = ask(), f"/job?name=report&slot={task.slot_ms}"
    assert "It ends, and its function is told to stop. It can be tried again." in words(await page.page(path))
    form = {"id": task.id, "token": await page.token(path)}
    assert (await page.post("/task/cancel", form)).status_code == 303
    for shown in (path, f"/task?id={task.id}"):
        text = await page.page(shown)
        assert "its function has yet to do so" in words(text) or "Its function is told to stop." in words(text)
        assert 'action="/task/retry"' not in text
    assert (await page.post("/task/retry", form)).status_code == 409, "its function has yet to stop"
    assert not await lb.tasks.release(task, begun=True)
    text = await page.page(path)
    assert "It was cancelled by alice at" in words(text)
    assert re.search(r"Try \d{4}-\S+ \S+ UTC again", words(text))
    assert "Try this task again" in words(await page.page(f"/task?id={task.id}"))
    assert (await page.post("/task/retry", form)).status_code == 303
    assert "alice had it tried again at" in words(await page.page(path))
    assert "tried again by alice" in words(await page.page(f"/task?id={task.id}"))
    assert (await lb.tasks.get(task.id)).state == "waiting"
