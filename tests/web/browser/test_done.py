"""The page in a real browser: what is done by mouse and by keyboard, and seen in the store."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import redis
from playwright.async_api import Browser, expect

from lockbeat import Every
from lockbeat.web import actions
from tests.conftest import needs, wait_until
from tests.hanging import hung
from tests.servers import Server
from tests.web import mornings
from tests.web.browsing import Hand, Site, opened

pytestmark = [needs("chromium", "valkey"), pytest.mark.asyncio(loop_scope="module")]


hands = pytest.mark.parametrize("how", ["mouse", "keyboard"])
INSTEAD = "/backfill/instead"
OF_JOBS = {path for path in actions.PATHS if path.startswith(("/job/", "/backfill/"))} - {INSTEAD} | {"/task/cancel"}
OF_DEAD = {"/task/retry", "/task/cancel", "/dead/redrive", "/dead/purge"}


async def test_each_way_to_change_something_is_gone_by_hand() -> None:
    assert {*actions.PATHS} == OF_JOBS | OF_DEAD | {INSTEAD}


@hands
async def test_each_thing_that_is_done_to_a_job_is_done(site: Site, browser: Browser, how: str) -> None:
    await site.lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        hand, name = Hand(page, how), "report"

        await page.goto(f"{site.at}job?name={name}")

        async def do(what: str, button: str, **fields: str) -> None:
            await hand.begin()
            panel = page.locator(".bar details").filter(has=page.locator("summary", has_text=what)).first
            await hand.press(panel.locator("summary"))
            for label, text in fields.items():
                await hand.write(panel.get_by_label(label.replace("_", " ")), text)
            async with page.expect_navigation():  # the page before it has said something, too
                await hand.press(panel.get_by_role("button", name=button, exact=True))
            await expect(page.locator(".said")).to_be_visible()

        async def last() -> tuple[str, str | None, str | None]:
            change = (await site.lb.jobs.changes(name))[0]
            return change.what, change.by, change.reason

        await do("Pause", "Pause the job", Why="the bank is closed", For="2h")
        assert await last() == ("pause", "alice", "the bank is closed")
        await do("Resume", "Resume the job")
        assert (await last())[:2] == ("resume", "alice")
        await do("Skip next", "Skip", How_many="2", Why="no need")
        assert await last() == ("skip_next", "alice", "no need")
        await do("Resume", "Resume the job")
        await do("Run it now", "Run now", Why="a customer asked")
        assert await last() == ("trigger", "alice", "a customer asked")
        await expect(page.locator(".told")).to_contain_text("no worker has begun it")
        await hand.press(page.get_by_role("button", name="Cancel this run"))
        await expect(page.locator(".said")).to_contain_text("it is cancelled")

        start = datetime.now(UTC) - timedelta(hours=5)
        await hand.go(f"{site.at}backfill?name={name}&start={start:%Y-%m-%dT%H:%M}")
        await hand.press(page.get_by_label("nobody knows"), "Space")
        await hand.press(page.get_by_role("button", name="Begin the backfill"))
        await expect(page.locator(".said")).to_contain_text("a backfill of report has begun")
        steps = (
            ("Pause the backfill", "is paused", "paused"),
            ("Resume the backfill", "goes on", "running"),
            ("Cancel the backfill", "is cancelled", "cancelled"),
        )
        for button, said, state in steps:
            await hand.press(page.get_by_role("button", name=button))
            await expect(page.locator(".said")).to_have_text(f"the backfill {said}")
            found = await site.lb.jobs.get_backfill(name)
            assert found is not None
            assert found.state == state
        assert hand.posted == OF_JOBS


@hands
async def test_each_thing_that_is_done_to_dead_tasks_is_done(site: Site, browser: Browser, how: str) -> None:
    async def dead(number: int) -> list[str]:
        for _ in range(number):
            await site.lb.tasks.spawn("mail", max_attempts=1)
        for task in await site.lb.tasks.claim("default", "w", number):
            await site.lb.tasks.fail(task, ValueError(f"no such address {task.id}"))
        return [info.id for info in await site.lb.tasks.dead("default")]

    async with opened(browser) as page:
        hand = Hand(page, how)
        [task_id] = await dead(1)
        await hand.go(f"{site.at}task?id={task_id}")
        await hand.press(page.get_by_role("button", name="Try this task again"))
        await expect(page.locator(".said")).to_have_text("it is tried again")
        assert (await site.lb.tasks.get(task_id)).state == "waiting"
        await hand.press(page.get_by_role("button", name="Cancel this task"))
        await expect(page.locator(".said")).to_contain_text("it is cancelled")

        await dead(3)
        await hand.go(f"{site.at}dead")
        await hand.press(page.get_by_role("button", name="Try again"))
        await expect(page.locator(".said")).to_have_text("3 are tried again")
        assert (await site.lb.tasks.counts("default")).ready == 3
        for task in await site.lb.tasks.claim("default", "w", 3):
            await site.lb.tasks.fail(task, ValueError("still"))
        await hand.go(f"{site.at}dead")
        await hand.press(page.locator("summary", has_text="Forget"))
        await hand.press(page.get_by_role("button", name="Forget 3 for good"))
        await expect(page.locator(".said")).to_contain_text("are forgotten")
        assert (await site.lb.tasks.counts("default")).dead == 0

        await dead(2)
        await hand.go(f"{site.at}dead?queue=default")
        await hand.press(page.get_by_role("button", name="Try all that were looked at again"))
        await expect(page.locator(".said")).to_have_text("2 are tried again")
        for task in await site.lb.tasks.claim("default", "w", 2):
            await site.lb.tasks.fail(task, ValueError("still"))
        await hand.go(f"{site.at}dead?queue=default")
        await hand.press(page.get_by_label("I have looked at them"), "Space")
        await hand.press(page.get_by_role("button", name="Forget all that were looked at"))
        await expect(page.locator(".said")).to_have_text("2 are forgotten")
        assert (await site.lb.tasks.counts("default")).dead == 0
        assert hand.posted == OF_DEAD


async def test_one_press_is_one_change_though_the_page_changes_before_it_is_answered(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes live had made the button one to press again, and the second answer said that 0 are forgotten."""
    begun, again, go_on, purge = list[str](), list[str](), asyncio.Event(), actions.PATHS["/dead/purge"]

    async def slowly(look: Any, form: Any) -> Any:
        begun.append(form["function"])
        await go_on.wait()
        return await purge.do(look, form)

    async def dead(name: str) -> None:
        await site.lb.tasks.spawn(name, max_attempts=1)
        [task] = await site.lb.tasks.claim("default", "w", 1)
        await site.lb.tasks.fail(task, ValueError("no such address"))

    monkeypatch.setitem(actions.PATHS, "/dead/purge", replace(purge, do=slowly))
    monkeypatch.setattr("lockbeat.web.stream.SECONDS", 0.2)
    await dead("mail")
    async with opened(browser) as page:
        await page.goto(f"{site.at}dead")
        await expect(page.locator("[data-live]")).to_have_text("live")
        await page.locator("summary", has_text="Forget").click()
        button = page.get_by_role("button", name="Forget 1 for good")
        page.on("console", lambda message: again.append(message.text))
        await button.evaluate(
            """button => new MutationObserver(() => {
                if (!document.getElementById("live").textContent.includes("letter")) return;
                button.click();
                console.log(button.disabled ? "off" : "on");
            }).observe(document.getElementById("live"), {childList: true, subtree: true})"""
        )
        await button.click(no_wait_after=True)
        await wait_until(lambda: begun, "it is asked for")
        await dead("letter")
        await wait_until(lambda: again, "it is pressed again")
        go_on.set()
        await expect(page.locator(".said")).to_have_text("1 are forgotten")
    assert (begun, set(again)) == (["mail"], {"off"})


async def test_a_job_whose_name_has_a_line_end_is_changed_as_any_other(site: Site, browser: Browser) -> None:
    """Browsers make two characters of a line end in a form."""
    name = "two\nlines\tand\x00 more"
    await site.lb.jobs.put(name, Every(3600))
    async with opened(browser) as page:
        await page.goto(f"{site.at}job?name={quote(name)}")
        await page.locator(".bar summary", has_text="Pause").click()
        await page.get_by_role("button", name="Pause the job").click()
        await expect(page.locator(".said")).to_contain_text("is paused")
    assert (await site.lb.jobs.get(name)).paused is not None


@hands
async def test_who_was_never_here_finds_why_last_nights_report_did_not_run_and_runs_it_again(
    filled: Site, browser: Browser, how: str
) -> None:
    async with opened(browser) as page:
        hand = Hand(page, how)
        await hand.go(filled.at)
        row = page.locator("section", has_text="Failed, lost, missed").locator("tbody tr", has_text="nightly")
        await hand.press(row.first.locator("td a").first)
        await expect(page.locator(".told")).to_contain_text("failed")
        await expect(page.locator(".told")).to_contain_text("can't reach postgres://***@db/prod")
        before = (await filled.lb.tasks.counts("default")).ready
        await hand.begin()
        await hand.press(page.get_by_role("button", name=re.compile(r"Try .*\d\d:\d\d:\d\d again")))
        await expect(page.locator(".said")).to_have_text("it is tried again")
        assert hand.pressed == 2
        assert (await filled.lb.tasks.counts("default")).ready == before + 1


@hands
async def test_who_was_never_here_ends_the_run_that_hangs_and_runs_the_skipped_slot_by_two_presses(
    site: Site, browser: Browser, server: Server, how: str
) -> None:
    """Overview names the job and the cause; one press leads to the slot, and one ends the run and runs the slot."""
    with contextlib.closing(redis.Redis(port=server.port, protocol=2, socket_timeout=30)) as raw:
        task, [skipped, *_] = await hung(site.lb, raw)
    async with opened(browser) as page:
        hand = Hand(page, how)
        await hand.go(site.at)
        row = page.locator(".alarm tbody tr", has_text="report")
        await expect(row).to_contain_text("7 h")
        await hand.press(row.locator("td[data-label='Skipped for it'] a"))
        await expect(page.locator(".told")).to_contain_text("has not ended yet: running for 7 h")
        await expect(page.locator(".told")).to_contain_text("It hangs: end it first.")
        await hand.begin()
        await hand.press(page.get_by_role("button", name=re.compile(r"End the run of .*\d, and run .*\d")))
        await expect(page.locator(".said")).to_have_text(re.compile(r"\d is told to stop; .*\d runs when it has"))
        assert hand.pressed == 2
        assert hand.posted == {INSTEAD}
    assert (await site.lb.tasks.get(task.id)).state == "cancelled"
    backfill = await site.lb.jobs.get_backfill("report")
    assert backfill is not None
    assert (round(backfill.start.timestamp() * 1000), backfill.total) == (skipped.slot_ms, 1)
    await site.lb.tasks.release(task)


@pytest.mark.parametrize(
    ("how", "morning", "said", "cure"),
    [
        ("keyboard", mornings.paused, "maria", r"^Resume the job, and run .*\d"),
        ("mouse", mornings.missed, "catch-up is skip", r"^Run .*\d after all"),
        ("keyboard", mornings.cancelled, "cancelled by maria", r"^Try .*\d again"),
        ("mouse", mornings.moved, "tom changed that", r"^Run the job all the same"),
    ],
)
async def test_who_was_never_here_finds_the_cause_on_overview_and_runs_the_report_by_two_presses(
    site: Site, browser: Browser, server: Server, how: str, morning: Callable[..., Awaitable[int]], said: str, cure: str
) -> None:
    with contextlib.closing(redis.Redis(port=server.port, protocol=2, socket_timeout=30)) as raw:
        await morning(site.lb, raw)
    async with opened(browser) as page:
        hand = Hand(page, how)
        await hand.go(site.at)
        row = page.locator("#live section").first.locator("tbody tr, p", has_text="report").filter(has_text=said)
        await hand.press(row.locator("a").last)
        await hand.begin()
        await hand.press(page.get_by_role("button", name=re.compile(cure)))
        await expect(page.locator(".said")).to_be_visible()
        assert hand.pressed == 2
        assert len(hand.posted) == 1
