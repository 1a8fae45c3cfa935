"""What is wrong now: runs that hang and what is skipped for them, functions nobody has, queues nobody serves, paused jobs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest

from lockbeat import Beat, Every, Lockbeat, monitor
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.jobs.backfiller import Backfiller
from lockbeat.monitor import hanging, instances, lacking, paused
from lockbeat.values.durations import instant
from lockbeat.web.pages.odd import Odd
from tests.beats import Hands, eventually, now_ms, scheduler
from tests.conftest import only
from tests.hanging import HOURS, began, hung
from tests.web.asking import Ask

both = only("memory", "valkey")


def words(text: str) -> str:
    """What a page says, without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def wrong(text: str) -> str:
    """What Overview says is wrong now."""
    return text.partition('id="wrong"')[2].partition("</section>")[0]


def links(text: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'href="([^"]*)"', text)]


def forms(text: str, action: str) -> list[dict[str, str]]:
    """The fields of the forms that are posted there."""
    found = re.findall(rf'<form method="post" action="{action}">(.*?)</form>', text, re.S)
    return [{name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)} for form in found]


@both
async def test_overview_names_a_run_that_hangs_how_long_it_usually_takes_and_what_is_skipped_for_it(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    task, skipped = await hung(lb, raw, skipped=2)
    text = wrong(await ask().page("/"))
    assert "What is wrong now" in words(text)
    assert re.search(r"Hanging: .* report \d{4}-.* UTC 7 h (\d m )?\d+ m?s? .*UTC and 1 before it", words(text)), words(text)
    slot = task.id.rpartition("@")[2]
    assert f"/job?name=report&slot={slot}" in links(text)
    assert f"/job?name=report&slot={skipped[0].slot_ms}" in links(text), "one click to the slot that did not run"
    await lb.tasks.cancel(task.id)
    text = words(wrong(await ask().page("/")))
    assert "cancelled, and does not stop" in text, "it keeps the others out until its function stops"
    await lb.tasks.release(task)
    assert "Hanging" not in words(wrong(await ask().page("/")))


@both
async def test_a_skipped_slot_names_the_run_that_hangs_and_one_press_ends_that_and_runs_the_slot(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    task, [skipped, *_] = await hung(lb, raw)
    page, path = ask(), f"/job?name=report&slot={skipped.slot_ms}"
    text = await page.page(path)
    assert re.search(r"has not ended yet: running for 7 h[^;]*; it usually takes \d+ ms\. It hangs: end it first\.", words(text))
    assert f"/job?name=report&slot={task.id.rpartition('@')[2]}" in links(
        text.partition('id="why"')[2].partition("</section>")[0]
    )
    assert "hanging" in words(text.partition('id="slots"')[2]), "its row says so, too"
    assert forms(await ask(allow=lambda user, action, target: action != "cancel").page(path), "/backfill/instead") == []
    assert forms(await ask(allow=lambda user, action, target: action != "backfill").page(path), "/backfill/instead") == []
    assert forms(await ask(read_only=True).page(path), "/backfill/instead") == []
    [form] = forms(text, "/backfill/instead")
    found = await page.post("/backfill/instead", form)
    assert (found.status_code, found.headers["location"]) == (303, path)
    assert (await lb.tasks.get(task.id)).state == "cancelled"
    backfill = await lb.jobs.get_backfill("report")
    assert backfill is not None
    assert (backfill.total, backfill.by, backfill.state) == (1, "alice", "running")
    text = words(await page.page(path))
    assert "has not ended yet: it was cancelled, and its function has yet to stop" in text
    assert "It waits until the run of" in text, "the backfill does"


@both
async def test_the_slot_runs_when_the_run_that_hung_has_stopped(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    beat, at_it, go_on, ran = Beat(lb), asyncio.Event(), asyncio.Event(), list[int]()

    @beat.every(0.2, name="report", catchup="skip")
    async def report(run: Any) -> None:
        ran.append(round(run.slot.timestamp() * 1000))
        if len(ran) == 4:
            at_it.set()
            await go_on.wait()

    async def skipped() -> list[LedgerEntry]:
        # On a busy machine slots are skipped for the runs before it, too.
        return [entry for entry in await lb.jobs.ledger("report") if entry.code == "overlap" and entry.slot_ms > ran[3]]

    async with beat.lifespan():
        async with asyncio.timeout(60):
            await at_it.wait()
        await eventually(skipped, "a slot is skipped", 60)
        [*_, first] = await skipped()
        began(lb, raw, f"report@{ran[3]}", await now_ms(lb) - HOURS * 1000)
        page, path = ask(), f"/job?name=report&slot={first.slot_ms}"
        [form] = forms(await page.page(path), "/backfill/instead")
        assert (await page.post("/backfill/instead", form)).status_code == 303

        async def done() -> bool:
            return "report at" in (said := words(await page.page(path))) and "done." in said and first.slot_ms in ran

        await eventually(done, "the slot that was skipped is done", 60, 0.1)
    assert ran.count(first.slot_ms) == 1


@both
async def test_where_the_backfill_is_refused_the_run_goes_on(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task, [skipped, *_] = await hung(lb, raw)
    page = ask()
    [form] = forms(await page.page(f"/job?name=report&slot={skipped.slot_ms}"), "/backfill/instead")
    for wrong_form in (form | {"start": "2999-01-01T00:00"}, form | {"id": "other@1"}, form | {"name": "no-such"}):
        assert (await page.post("/backfill/instead", wrong_form)).status_code in (400, 404)
    assert (await lb.tasks.get(task.id)).state == "running"
    assert await lb.jobs.get_backfill("report") is None


@both
async def test_a_run_of_usual_length_or_of_which_nothing_is_known_does_not_hang(lb: Lockbeat, raw: Any) -> None:
    """Nobody is called for it. One that holds up its slots for an hour hangs, though nobody knows how long it usually takes."""
    usual, _ = await hung(lb, raw, "usual", seconds=50, skipped=4)
    new, _ = await hung(lb, raw, "new", done=0, skipped=4)
    await hung(lb, raw, "alone", done=0, skipped=0)

    async def names() -> list[str]:
        return [run.entry.job for run in (await hanging(lb.store, await now_ms(lb))).runs]

    assert await names() == ["new"]
    began(lb, raw, new.id, await now_ms(lb) - 3_500_000)
    began(lb, raw, usual.id, await now_ms(lb) - 61_000)
    assert await names() == ["usual"]
    told = await lb.jobs.why("alone")
    assert told.unfinished is not None
    assert not told.unfinished.hangs
    assert "It has run for 7 h" in told.text
    assert "usually" not in told.text


@both
async def test_runs_of_overlap_allow_and_triggered_ones_are_told_of_too(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    await hung(lb, raw, "beside", overlap="allow", skipped=0)
    await lb.jobs.put("by-hand", Every(3600))
    spawned = await lb.jobs.trigger("by-hand", by="bob")
    [task] = await lb.tasks.claim("default", "host.1", 1)
    began(lb, raw, task.id, await now_ms(lb) - HOURS * 1000)
    text = wrong(await ask().page("/"))
    assert "beside" in words(text)
    assert "by-hand" not in words(text), "how long it takes is not known"
    told = await lb.jobs.why("by-hand", run=spawned.task_id)
    assert "It has run for 7 h" in told.text


@both
async def test_a_function_that_nobody_has_and_a_queue_that_nobody_serves_are_told_of(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    await lb.jobs.put("report", Every(3600), function="reports.send")
    page = ask()
    assert "reports.send" not in words(wrong(await page.page("/"))), "there is no worker at all"
    older, newer = Beat(lb), Beat(lb)

    @older.task
    async def other(run: Any) -> None: ...

    @newer.task(name="reports.send")
    async def send(run: Any) -> None: ...

    lacks = "No living instance has the function reports.send , which report runs"
    await lb.tasks.spawn("other", queue="slow")

    async def said(what: str) -> bool:
        return what in words(wrong(await page.page("/")))

    async with older.lifespan():
        await eventually(lambda: said(lacks), "Overview says what is lacking", step=0.1)
        assert await said("1 task waits in queue slow , and no living instance serves it")
    async with newer.lifespan():

        async def can() -> bool:
            return not await said(lacks)

        await eventually(can, "it says so no more", step=0.1)


@both
async def test_a_job_that_paused_itself_is_wrong_and_one_that_somebody_paused_is_told_of(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    for name in ("itself", "by-bob", "gone"):
        await lb.jobs.put(name, Every(3600))
    await lb.jobs.pause("by-bob", "the bank is closed", by="bob")
    page = ask()
    text = words(wrong(await page.page("/")))
    assert "Paused: by-bob by bob (the bank is closed)." in text
    assert "paused itself" not in text
    await lb.jobs.pause("itself", "3 failures in a row", by="pause_after")
    await lb.jobs.pause("gone", by="bob")
    shard = lb.jobs.shard_of("gone")
    place = raw.hget(key := lb.store.keys.key(shard, "job:slot"), "gone").decode().split(" ")
    raw.hset(key, "gone", f"-1 {await now_ms(lb) + 3_600_000} {place[2]} - retired {place[0]} {await now_ms(lb)}")
    text = words(wrong(await page.page("/")))
    assert re.search(
        r"itself has paused itself .* ago, after 3 failures in a row: it fires nothing until somebody resumes it", text
    )
    assert "gone" not in text.partition("Paused:")[2], "a retired job keeps its pause, and fires nothing anyway"
    assert re.search(r"gone left the code, and retired \d", text)


@both
async def test_more_paused_jobs_than_are_looked_at_are_counted(
    lb: Lockbeat, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.monitor._wrong.PAUSED", 2)
    for number in range(3):
        await lb.jobs.put(f"job-{number}", Every(3600))
        await lb.jobs.pause(f"job-{number}", by="bob")
    found = await paused(lb.store)
    assert (found.many, found.changes, found.complete) == (3, (), False)
    assert "Paused: 3 jobs ." in words(wrong(await ask().page("/")))


@both
async def test_a_retired_job_lacks_no_function(lb: Lockbeat, raw: Any) -> None:
    await lb.jobs.put("report", Every(3600))
    beat = Beat(lb)

    @beat.task
    async def other(run: Any) -> None: ...

    async with beat.lifespan():

        async def lives() -> bool:
            return any(one.queues for one in await instances(lb.store))

        await eventually(lives, "the instance has said that it lives", step=0.05)
        living = await instances(lb.store)
        assert (await lacking(lb.store, living)).functions == (("report", "report"),)
        place = raw.hget(key := lb.store.keys.key(lb.jobs.shard_of("report"), "job:slot"), "report").decode().split(" ")
        raw.hset(key, "report", f"-1 {await now_ms(lb) + 3_600_000} {place[2]} - retired {place[0]} {await now_ms(lb)}")
        assert (await lacking(lb.store, living)).functions == ()


def test_skipped_slots_are_one_line_a_job_and_reason() -> None:
    """A job that skips each second does not hide another's."""

    def entry(job: str, slot: int, code: str, **more: Any) -> LedgerEntry:
        return LedgerEntry(job, slot, "skipped", code=code, **more)

    often = [entry("often", 9000 - second, "overlap") for second in range(500)]
    told = [*often, entry("report", 1, "paused", count=7), entry("report", 0, "overlap"), entry("shut", 1, "excluded")]
    found = Odd.of(told)
    assert [(one.newest.job, one.newest.slot_ms, one.slots, one.many) for one in found.skipped] == [
        ("often", 9000, 500, False),
        ("report", 1, 7, False),
        ("report", 0, 1, False),
    ]
    assert [one.newest.job for one in found.excluded] == ["shut"], "on purpose, by a calendar"
    assert Odd.of([entry("report", 1, "paused", count=-1)]).many


@both
async def test_runs_beyond_those_that_are_looked_at_are_said_to_be_left_out(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    await hung(lb, raw, "a", skipped=0)
    await hung(lb, raw, "b", skipped=0, seconds=HOURS + 3600)
    found = await hanging(lb.store, await now_ms(lb))
    assert ([run.entry.job for run in found.runs], found.complete) == (["b", "a"], True)
    monkeypatch.setattr("lockbeat.jobs.at_work.MOST", 1)
    found = await hanging(lb.store, await now_ms(lb))
    assert ([run.entry.job for run in found.runs], found.complete) == (["b"], False)
    assert "There is more than was looked at" in words(wrong(await ask().page("/")))


@both
async def test_a_button_names_the_slot_that_it_runs_and_what_ending_does(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task, [skipped, *_] = await hung(lb, raw)
    page, path = ask(), f"/job?name=report&slot={skipped.slot_ms}"
    text = await page.page(path)
    run, slot = (f"{instant(int(ms)):%Y-%m-%d %H:%M:%S} UTC" for ms in (task.id.rpartition("@")[2], skipped.slot_ms))
    assert f"End the run of {run} , and run {slot}" in words(text)
    assert f"Run {slot} when that has ended" in words(text)
    assert "what it has done stays done" in words(text)
    [form] = forms(text, "/backfill/instead")
    await page.post("/backfill/instead", form)
    text = words(await page.page(path))
    assert f"{run} is told to stop; {slot} runs when it has" in text
    assert f"Asked for by alice: one slot, {slot} ." in text
    assert "0 of 1 slot: none is fired yet." in text


@both
async def test_where_something_can_be_pressed_the_page_stays_at_that_slot(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    """It had become the next slot under a still pointer."""
    await hung(lb, raw, skipped=2)
    newest, before, *_ = await lb.jobs.ledger("report")
    page = ask()

    def stays(text: str) -> list[str]:
        return [unescape(link) for link in re.findall(r'data-at="([^"]*)"', text)]

    assert stays(await page.page("/job?name=report")) == [f"/job?name=report&slot={newest.last_ms or newest.slot_ms}"]
    assert stays(await ask(read_only=True).page("/job?name=report")) == [], "nothing can be pressed"
    text = await page.page(f"/job?name=report&slot={before.slot_ms}")
    assert stays(text) == []
    assert f"A newer slot: {instant(newest.slot_ms):%Y-%m-%d %H:%M:%S} UTC skipped" in words(text)
    assert "A newer slot" not in words(await page.page("/job?name=report"))
    await lb.jobs.put("fine", Every(3600))
    assert stays(await page.page("/job?name=fine")) == []


@both
async def test_those_that_were_skipped_with_it_are_told_of_though_one_was_run(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    task, skipped = await hung(lb, raw, skipped=3)
    one, rest, page = skipped[1], len(skipped) - 1, ask()
    path = f"/job?name=report&slot={one.slot_ms}"
    said = f"{rest} others that were skipped for that run stay so: what a backfill would run"
    text = await page.page(path)
    assert said in words(text)
    await lb.tasks.complete(task)
    [form] = forms(await page.page(path), "/backfill/instead") or [{}]
    assert form == {}, "the run has ended"
    await lb.jobs.backfill("report", one.slot, one.slot + timedelta(milliseconds=1), by="bob")
    beat = scheduler(lb, Job.declare("report", Every(0.05)), runner=(hands := Hands("report")))

    async def ran() -> bool:
        await beat.tick(lb.jobs.shard_of("report"))
        for claimed in await lb.tasks.claim("default", "host.1", 1):
            await lb.tasks.complete(claimed)
        for claimed in hands.tasks:
            await lb.tasks.complete(claimed)
        hands.tasks.clear()
        await backfiller.tick(lb.jobs.shard_of("report"))
        found = await lb.jobs.get_backfill("report")
        return found is not None and found.done == 1

    backfiller = Backfiller(lb.store)
    await eventually(ran, "the slot is run", 60, 0.05)
    text = await page.page(path)
    assert re.search(r"\d others? that w\w+ (skipped for that run|missed) stays? so: what a backfill would run", words(text))
    assert "1 of 1 slot: 1 fired (1 done)." in words(text)
    [link] = [link for link in links(text) if "/backfill?" in link]
    assert re.search(r"Would be fired [1-9]\d* Known already [01] (1 done )?Excluded 0", words(await page.page(link)))
    wide = f"/backfill?name=report&start={skipped[-1].slot:%Y-%m-%dT%H:%M:%S.%f}&end={skipped[0].slot:%Y-%m-%dT%H:%M:%S.%f}"
    assert "Known already 1 1 done Excluded 0" in words(await page.page(wide))


@both
async def test_overview_says_quietly_that_slots_did_not_run(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task, skipped = await hung(lb, raw, skipped=2)
    beat, page = Beat(lb), ask()

    @beat.task(name="report")
    async def report(run: Any) -> None: ...

    said = rf"{len(skipped)} slots were skipped(, [\d,]+ missed)? in the last day: see below\."
    assert not re.search(said, words(await page.page("/"))), "something is wrong now"
    await lb.tasks.complete(task)
    async with beat.lifespan():

        async def calm() -> bool:
            return "Nothing is wrong now" in words(await page.page("/"))

        await eventually(calm, "nothing is wrong now", 60, 0.1)
        assert re.search(said, words(wrong(await page.page("/"))))


@both
async def test_overview_says_it_in_the_words_of_the_terminal(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    """But for what is overdue and what hangs, which are tables."""
    await hung(lb, raw)
    await lb.jobs.put("report", Every(3600), function="reports.send")
    await lb.jobs.pause("report", "failures", by="pause_after")
    for queue in ("slow", "default"):
        await lb.tasks.spawn("other", queue=queue, max_attempts=1)
    [mine] = await lb.tasks.claim("default", "host.1", 1)
    await lb.tasks.fail(mine, "no")
    for owner, ttl_ms in (("a", 30_000), ("b", 10_000)):
        info = json.dumps({"queues": ["default"], "tasks": ["other"], "stuck_s": 9.0})
        await lb.store.call("beat/heartbeat", 0, owner=owner, info=info, ttl_ms=ttl_ms, version="")
    shown = "".join(words(wrong(await ask().page("/"))).split())
    living = await instances(lb.store)
    told = await monitor.wrong(lb.store, living, [("slow", 1)], 1, await lb.store.server_time())
    kinds = set[str]()
    for line in told.lines():
        if line.kind not in ("overdue", "hanging"):
            kinds.add(line.kind)
            # Of those that have a length of time in them, what comes before it.
            said = line.text(str).partition({"paused": " itself ", "silent": " for "}.get(line.kind, "\n"))[0]
            assert "".join(said.split()) in shown, said
    assert kinds == {"firing", "function", "queue", "paused", "silent", "stuck", "dead"}


@both
async def test_overview_names_what_is_worth_a_look_at_the_server(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask], url: str
) -> None:
    text = words(wrong(await ask().page("/")))
    if url.startswith("memory"):
        assert "The server:" not in text
    else:
        assert (
            "The server: persistence none: a restart forgets the jobs' slots and the ledger. Store says what to do about it."
            in text
        )


@both
async def test_the_button_that_cancels_a_slot_names_it(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task, _ = await hung(lb, raw)
    slot = int(task.id.rpartition("@")[2])
    text = words(await ask().page(f"/job?name=report&slot={slot}"))
    assert f"Cancel {instant(slot):%Y-%m-%d %H:%M:%S} UTC" in text
    assert "Cancel this slot" not in text
