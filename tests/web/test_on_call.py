"""Somebody is called as a report did not come: Overview names it, whatever the reason, and its page runs it again."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from lockbeat import Beat, Every, Lockbeat
from lockbeat.jobs import Job, Lateness, LedgerEntry
from lockbeat.jobs.why import of_entry
from lockbeat.monitor import Instance, changed
from tests.backfills import Filler
from tests.beats import Hands, backdate, eventually, fired, minutely, now_ms, overdue, scheduler
from tests.conftest import Backend, only
from tests.web.asking import Ask
from tests.web.mornings import cancelled, failed, missed, moved, paused
from tests.web.test_cost import MOST
from tests.web.test_wrong import forms, links, words, wrong

both = only("memory", "valkey")
UNRUN = "Did not run, or not well, and nothing of the job has been done since"


def part(text: str, heading: str) -> str:
    """What a page says under a heading."""
    return text.partition(f'id="{heading}"')[2].partition("</section>")[0]


@both
async def test_a_slot_that_a_pause_keeps_back_is_told_of_with_who_paused_it_and_why(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    slot, page = await paused(lb, raw), ask()
    text = wrong(await page.page("/"))
    assert "Nothing is wrong now" not in words(text)
    assert re.search(r"Paused, and slots have come due since: .* report .* maria .* the warehouse is being moved", words(text))
    assert f"/job?name=report&slot={slot}" in links(text)
    told = part(await page.page("/job?name=report"), "why")
    assert re.search(
        r"paused \S+ \S+ UTC was not fired: report is paused, by maria at .*: the warehouse is being moved\.", words(told)
    )
    assert "It is skipped if the job is resumed without catching up." in words(told)
    assert (await lb.jobs.why("report")).at_ms == slot, "not the one before, which ran"


@both
async def test_one_press_resumes_the_job_and_runs_what_the_pause_kept_back(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    slot, page = await paused(lb, raw), ask()
    text = await page.page("/job?name=report")
    panel, told = forms(text, "/job/resume")
    assert "catchup" not in panel, "nothing is chosen before somebody has chosen"
    assert re.search(r"1 slot came due in the pause, the latest .* choose skip it run it", words(text))
    assert told["catchup"] == "latest"
    refused = ask(allow=lambda user, action, target: action != "resume")
    assert not forms(await refused.page("/job?name=report"), "/job/resume")
    assert (await page.post("/job/resume", told)).status_code == 303
    state = await lb.jobs.get("report")
    assert (state.paused, state.next and state.next.slot_ms) == (None, slot)
    assert "Paused, and slots" not in words(wrong(await page.page("/")))


@both
async def test_what_a_pause_kept_back_can_run_while_the_job_stays_paused(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    """A resume would not run it where the job catches up with nothing."""
    slot, page = await paused(lb, raw, catchup="skip", window=1e-3), ask()
    text = await page.page("/job?name=report")
    assert len(forms(text, "/job/resume")) == 1, "the panel alone"
    [form] = forms(text, "/backfill/start")
    found = await page.post("/backfill/start", form)
    assert found.headers["location"] == f"/job?name=report&slot={slot}"
    backfill = await lb.jobs.get_backfill("report")
    assert backfill is not None
    assert (backfill.total, round(backfill.start.timestamp() * 1000)) == (1, slot)
    assert (await lb.jobs.get("report")).state == "paused"
    await Filler(lb).go_on()
    assert "Paused, and slots" not in words(wrong(await page.page("/"))), "a second one would run it again"
    for refused in (ask(read_only=True), ask(allow=lambda user, action, target: action not in ("resume", "backfill"))):
        text = await refused.page("/job?name=report")
        assert not forms(text, "/job/resume")
        assert not forms(text, "/backfill/start")


@both
@pytest.mark.parametrize("looked", [600, 5])
async def test_a_job_that_fails_all_the_time_hides_no_other(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch, looked: int
) -> None:
    """Of the noise each job is one line; and where the noise is all that is looked at, a job is known to fail by itself."""
    monkeypatch.setattr(sys.modules["lockbeat.web.pages.overview"], "ODD_LOOKED", looked)
    report = await failed(lb, raw, "report", 'relation "sales" does not exist')
    job = Job.declare("noise", Every(0.02), max_attempts=1)
    await lb.jobs.put(job)
    hands = Hands("noise")
    beat, shard = scheduler(lb, job, runner=hands), lb.jobs.shard_of("noise")
    while len(await lb.jobs.ledger("noise", 30)) < 15:
        await beat.tick(shard)
        while hands.tasks:
            await lb.tasks.fail(hands.tasks.pop(), ValueError("503"))
    await backdate(lb, raw, "noise", await now_ms(lb) + 3_600_000)
    text = await ask().page("/")
    rows = re.findall(r'<tr data-key="([^"]*)', part(text, "odd"))
    assert sorted(row.strip() for row in rows if " failed" in row) == ["noise failed", "report failed"], "one line each"
    assert re.search(r"report \S+ \S+ UTC failed .*relation", words(wrong(text)))
    assert f"/job?name=report&slot={report.slot_ms}" in links(wrong(text))


@both
async def test_a_run_that_somebody_cancelled_is_told_of_until_the_job_has_run(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    await cancelled(lb, raw)
    page = ask()
    text = wrong(await page.page("/"))
    assert re.search(r"nothing of the job has been done since .*report .*cancelled .*cancelled by maria", words(text))
    [link] = [link for link in links(text) if "slot=" in link]
    [form] = forms(await page.page(link), "/task/retry")
    assert (await page.post("/task/retry", form)).status_code == 303
    [again] = await lb.tasks.claim("default", "worker", 1)
    await lb.tasks.complete(again)
    text = words(await page.page("/"))
    assert UNRUN not in text
    assert "cancelled in the last day None." in text


@both
async def test_a_job_that_was_triggered_since_is_wrong_no_more(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    await cancelled(lb, raw)
    page = ask()
    await lb.jobs.trigger("report", by="alice")
    text = await page.page("/")
    assert UNRUN not in words(text)
    assert "(triggered since by alice)" in words(part(text, "odd"))


@both
async def test_what_was_missed_runs_by_one_press(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    slot, page = await missed(lb, raw), ask()
    [link] = {link for link in links(wrong(await page.page("/"))) if "slot=" in link}
    assert link == f"/job?name=report&slot={slot}"
    text = await page.page(link)
    assert "No instance fired it in time: it was found when it was more than" in words(part(text, "why"))
    [form] = forms(text, "/backfill/start")
    found = await page.post("/backfill/start", form)
    assert (found.status_code, found.headers["location"]) == (303, link)
    backfill = await lb.jobs.get_backfill("report")
    assert backfill is not None
    assert (backfill.total, backfill.by) == (1, "alice")


@both
async def test_what_a_calendar_leaves_out_is_named_and_can_run_all_the_same(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    today = datetime.now(UTC).date()
    await lb.calendars.put("closing-days", [f"{today + timedelta(days=days)} Thanksgiving" for days in (-1, 0, 1)])
    job, page = minutely(exclude=["closing-days"]), ask()
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(lb.jobs.shard_of("report"))
    text = part(await page.page("/"), "skipped")
    assert re.search(r"By calendars: report \S+ \S+ UTC .*\(.*excluded by closing-days: Thanksgiving\)", words(text))
    [link] = [link for link in links(text) if "slot=" in link]
    _, form = forms(await page.page(link), "/job/trigger")
    assert (await page.post("/job/trigger", form)).status_code == 303
    assert (await lb.jobs.changes("report"))[0].what == "trigger"
    assert "by closing-days: Thanksgiving; triggered since by alice)" in words(part(await page.page("/"), "skipped"))
    text = words(part(await page.page(link), "why"))
    assert re.search(r"alice has triggered the job since, at \S+ \S+ UTC ?: see Triggered", text)
    assert "Run the job once more" in text


@both
async def test_a_job_that_somebody_made_due_at_another_time_says_so(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    await moved(lb, raw)
    await lb.jobs.put("quiet", Every(60), by="ops")
    await lb.jobs.pause("quiet", by="ops")
    page, now = ask(), await now_ms(lb)
    assert [name for name, _ in await changed(lb.store, now / 1000 - 3600)] == ["report"]
    assert await changed(lb.store, now / 1000) == [], "that was before"
    text = wrong(await page.page("/"))
    assert re.search(
        r"report is due every day at 22:40:30, .* since tom changed that 2 m .*ago\. Before, it was due every minute", words(text)
    )
    assert "quiet is due" not in words(text)
    text = await page.page("/job?name=report")
    assert re.search(r"tom changed when it is due, at \S+ \S+ UTC \. Before, it was due every minute \( every 1m \)", words(text))
    assert re.search(r", so \S+ \S+ UTC was not fired", words(text))
    assert "another trigger; before: every 1m" in words(part(text, "changes"))
    _, form = forms(text, "/job/trigger")
    assert (await page.post("/job/trigger", form)).status_code == 303
    assert len(forms(await page.page("/job?name=report"), "/job/trigger")) == 1, "it was run: the panel alone"
    text = words(wrong(await page.page("/")))
    assert "(triggered since by alice)" in text


@both
async def test_while_nobody_has_run_what_is_due_at_another_time_the_heading_says_so(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    await moved(lb, raw)
    page, beat = ask(), Beat(lb)
    beat.task(name="report")(lambda: None)
    async with beat.lifespan():

        async def says() -> bool:
            return "Nothing is wrong now, but a job is due at other times than before" in words(wrong(await page.page("/")))

        await eventually(says, "the heading says so", 60, 0.1)
        await lb.jobs.trigger("report", by="alice")
        assert not await says()


@both
async def test_too_many_logs_of_changes_are_not_read(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockbeat.monitor._wrong.CHANGED", 1)
    for name in ("report", "other"):
        await lb.jobs.put(name, Every(60))
        await lb.jobs.put(name, Every(90))
    assert len(await changed(lb.store, 0)) < 2


@both
async def test_a_run_of_a_job_that_left_the_code_is_not_forgotten(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    await lb.jobs.put("report", Every(3600))
    await lb.jobs.trigger("report")
    shard, at = lb.jobs.shard_of("report"), await now_ms(lb)
    place = raw.hget(key := lb.store.keys.key(shard, "job:slot"), "report").decode().split(" ")
    raw.hset(key, "report", f"-1 {at + 3_600_000} {place[2]} - retired {place[0]} {at}")
    text = words(wrong(await ask().page("/")))
    assert "What is wrong now" in text
    assert re.search(r"report left the code: .* A run of it waits, and starts by itself once an instance has its function", text)


@both
async def test_who_waits_in_a_queue_that_nobody_serves_is_named(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    await overdue(lb, raw, job := minutely(queue="reports"))
    await scheduler(lb, job).tick(lb.jobs.shard_of("report"))
    beat, page = Beat(lb), ask()
    async with beat.lifespan():

        async def said() -> bool:
            text = words(wrong(await page.page("/")))
            says = "1 task waits in queue reports , and no living instance serves it. A run of report waits there: start a worker"
            return says in text

        await eventually(said, "Overview says that nobody serves the queue", 60, 0.1)
    text = await page.page("/job?name=report")
    assert "Start a worker that does." in words(text)
    assert "What waits starts by itself once an instance can run it." in words(text)
    assert " so far" in words(part(text, "slots")), "not how late it was fired"


@both
async def test_a_lost_run_says_whether_its_instance_is_there_still(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, page = await fired(lb, raw, lease=1), ask()

    async def lost() -> bool:
        await lb.tasks.claim("default", "another", 1)
        return (await lb.tasks.get(task.id)).state == "dead"

    await eventually(lost, "the lease has run out", 60, 0.1)
    said = words(part(await page.page("/job?name=report"), "why"))
    assert f"{task.owner} gives no sign of life any more" in said
    alive = Instance(str(task.owner), 1, "vm", True, ("default",), 1, 1, (), await now_ms(lb))

    async def instances(store: Any) -> list[Instance]:
        return [alive]

    monkeypatch.setattr(sys.modules["lockbeat.web.pages.job"], "instances", instances)
    assert f"{task.owner} gives signs of life: it did not die." in words(part(await page.page("/job?name=report"), "why"))


def test_a_slot_that_waits_is_told_of_in_whole_sentences() -> None:
    entry = LedgerEntry("report", 1_893_456_000_000, "fired", code="fired", detail="vm-1", lateness=Lateness(0, 40, 0, None))
    assert ". ." not in of_entry(entry, entry.slot_ms).text


@only("valkey")
async def test_overview_costs_as_little_where_much_is_wrong(
    lb: Lockbeat, raw: Any, backend: Backend, ask: Callable[..., Ask]
) -> None:
    for number in range(20):
        await failed(lb, raw, f"job-{number:02}", "it fails")
    for number in range(5):
        await lb.jobs.put(f"shut-{number}", Every(60))
        await lb.jobs.pause(f"shut-{number}", by="bob")
    page = ask()
    await page.page("/")  # scripts are loaded
    before = backend.calls()
    text = await page.page("/")
    after = backend.calls()
    assert after.get("evalsha", 0) - before.get("evalsha", 0) <= MOST
    done = Counter(after) - Counter(before)
    assert sum(many for name, many in done.items() if not name.startswith(("client", "info"))) <= 200, done
    assert "and others whose latest run failed" in words(wrong(text))
    assert unescape(text).count("it fails") <= 2 * 12
