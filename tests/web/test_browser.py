"""The page in a real browser: how it looks, by mouse and by keyboard, with and without scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from lockbeat import Beat, Every, Lockbeat
from lockbeat.web import actions, dashboard
from lockbeat.web.serve import listening, serve
from tests.conftest import PATIENCE, needs, only, wait_until

pytestmark = [needs("chromium"), only("valkey")]
expect.set_options(timeout=2 * PATIENCE * 1000)
PAGES = (
    *("", "jobs", "job?name=nightly", "day", "tasks", "dead?queue=default", "leases", "instances", "store"),
    "backfill?name=nightly&start=2026-01-01T00:00&end=2026-01-01T02:00",
)
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}
FAR = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=120_000)
        yield found
        await found.close()


@pytest.fixture
async def at(lb: Lockbeat) -> AsyncIterator[str]:
    """Where the page over the test's store is served."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    board = dashboard(lb, user=lambda scope: "alice", hosts=("127.0.0.1",), show_params=True)
    with listening("127.0.0.1", 0) as bound:
        serving = asyncio.create_task(serve(board, bound, ended, where.set_result))
        yield await where
        ended.set_result(0)
        await serving


@contextlib.asynccontextmanager
async def opened(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """A page of a browser that nobody used before. What its console complains of fails the test."""
    context = await browser.new_context(timezone_id="Europe/Berlin", **options)
    context.set_default_timeout(2 * PATIENCE * 1000)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert complaints == []


async def filled(lb: Lockbeat) -> None:
    """Jobs that ran, one that fails, one that is paused, dead tasks, a lock with one who waits, a claim."""
    beat = Beat(lb)

    @beat.every(1, tags=["billing"], description="Sends what customers owe.")
    async def invoices(run: Any) -> None:
        pass

    @beat.every(1, name="nightly", max_attempts=1, tags=["reports"])
    async def nightly(run: Any) -> None:
        raise ValueError("can't reach postgres://app:hunter2@db/prod <script>alert(1)</script>")

    @beat.cron("0 9 * * mon-fri", name="morning", timezone="Europe/Berlin", jitter=60)
    async def morning(run: Any) -> None:
        pass

    for number in range(8):
        beat.cron("0 0 * * *", name=f"tenant-{number}", tags=["tenants"])(morning)

    async with beat.lifespan():
        await lb.jobs.pause("morning", "the bank is closed", by="bob")
        for number in range(3):
            await lb.tasks.spawn("nightly", {"to": number, "password": "x"}, max_attempts=1)
        await lb.tasks.spawn("unheard-of", queue="slow", delay=3600)
        await lb.locks.try_acquire("deploy", "ci-7", 3600)
        await lb.claims.acquire("row-17", "worker-1", 3600)

        async def failed() -> bool:
            return len(await lb.jobs.ledger("nightly", 5)) > 2 and (await lb.tasks.counts("default")).dead >= 3

        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await failed():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
    await lb.jobs.pause("nightly", "it fails", by="bob")


@pytest.mark.parametrize("look", LOOKS)
async def test_each_page_is_sound_and_fits_and_axe_finds_no_serious_fault(
    lb: Lockbeat, at: str, browser: Browser, look: str, tmp_path: Path
) -> None:
    """$LOCKBEAT_SHOTS keeps the pictures."""
    await filled(lb)
    shots = Path(os.environ.get("LOCKBEAT_SHOTS") or tmp_path)
    serious = set[tuple[str, str, str]]()
    async with opened(browser, **LOOKS[look]) as page:
        for path in PAGES:
            await page.goto(at + path)
            await expect(page.locator("h1")).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
            name = path.partition("?")[0] or "overview"
            await page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
            faults = (await Axe().run(page)).response["violations"]
            serious |= {(path, one["id"], one["nodes"][0]["html"]) for one in faults if one["impact"] in ("serious", "critical")}
    assert serious == set()


class Hand:
    """One who uses the page, by mouse or by keyboard alone."""

    def __init__(self, page: Page, how: str) -> None:
        self.page, self.how = page, how

    async def press(self, what: Locator, key: str = "Enter") -> None:
        if self.how == "mouse":
            await what.click()
        else:
            await self._reach(what)
            await self.page.keyboard.press(key)

    async def write(self, what: Locator, text: str) -> None:
        if self.how == "mouse":
            await what.fill(text)
        else:
            await self._reach(what)
            await self.page.keyboard.press("Control+A")
            await self.page.keyboard.type(text)

    async def _reach(self, what: Locator) -> None:
        await expect(what).to_be_visible()
        for _ in range(200):
            if await what.evaluate("element => element === document.activeElement"):
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError("the keyboard does not get there")


hands = pytest.mark.parametrize("how", ["mouse", "keyboard"])


@hands
async def test_each_thing_that_is_done_to_a_job_is_done(lb: Lockbeat, at: str, browser: Browser, how: str) -> None:
    await lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        hand, name = Hand(page, how), "report"

        async def do(what: str, button: str, **fields: str) -> None:
            await page.goto(f"{at}job?name={name}")
            panel = page.locator(".bar details").filter(has=page.locator("summary", has_text=what)).first
            await hand.press(panel.locator("summary"))
            for label, text in fields.items():
                await hand.write(panel.get_by_label(label.replace("_", " ")), text)
            await hand.press(panel.get_by_role("button", name=button, exact=True))
            await expect(page.locator(".said")).to_be_visible()

        async def last() -> tuple[str, str | None, str | None]:
            change = (await lb.jobs.changes(name))[0]
            return change.what, change.by, change.reason

        await do("Pause", "Pause", Why="the bank is closed", For="2h")
        assert await last() == ("pause", "alice", "the bank is closed")
        await do("Resume", "Resume")
        assert (await last())[:2] == ("resume", "alice")
        await do("Skip next", "Skip", How_many="2", Why="no need")
        assert await last() == ("skip_next", "alice", "no need")
        await do("Resume", "Resume")
        await do("Run it now", "Trigger", Why="a customer asked")
        assert await last() == ("trigger", "alice", "a customer asked")
        await expect(page.locator(".told")).to_contain_text("no worker has begun it")
        await hand.press(page.get_by_role("button", name="Cancel it"))
        await expect(page.locator(".said")).to_have_text("it is cancelled")

        start = datetime.now(UTC) - timedelta(hours=5)
        await page.goto(f"{at}backfill?name={name}&start={start:%Y-%m-%dT%H:%M}")
        await hand.press(page.get_by_label("nobody knows"), "Space")
        await hand.press(page.get_by_role("button", name="Begin the backfill"))
        await expect(page.locator(".said")).to_contain_text("a backfill of report has begun")
        steps = (
            ("Pause it", "is paused", "paused"),
            ("Let it go on", "goes on", "running"),
            ("Cancel it", "is cancelled", "cancelled"),
        )
        for button, said, state in steps:
            await hand.press(page.get_by_role("button", name=button).first)
            await expect(page.locator(".said")).to_have_text(f"the backfill {said}")
            found = await lb.jobs.get_backfill(name)
            assert found is not None
            assert found.state == state


@hands
async def test_each_thing_that_is_done_to_dead_tasks_is_done(lb: Lockbeat, at: str, browser: Browser, how: str) -> None:
    async def dead(number: int) -> list[str]:
        for _ in range(number):
            await lb.tasks.spawn("mail", max_attempts=1)
        for task in await lb.tasks.claim("default", "w", number):
            await lb.tasks.fail(task, ValueError(f"no such address {task.id}"))
        return [info.id for info in await lb.tasks.dead("default")]

    async with opened(browser) as page:
        hand = Hand(page, how)
        [task_id] = await dead(1)
        await page.goto(f"{at}task?id={task_id}")
        await hand.press(page.get_by_role("button", name="Try it again"))
        await expect(page.locator(".said")).to_have_text("it is tried again")
        assert (await lb.tasks.get(task_id)).state == "waiting"
        await hand.press(page.get_by_role("button", name="Cancel it"))
        await expect(page.locator(".said")).to_have_text("it is cancelled")

        await dead(3)
        await page.goto(f"{at}dead")
        await hand.press(page.get_by_role("button", name="Try again"))
        await expect(page.locator(".said")).to_have_text("3 are tried again")
        assert (await lb.tasks.counts("default")).ready == 3
        for task in await lb.tasks.claim("default", "w", 3):
            await lb.tasks.fail(task, ValueError("still"))
        await page.goto(f"{at}dead")
        await hand.press(page.locator("summary", has_text="Forget"))
        await hand.press(page.get_by_role("button", name="Forget 3 for good"))
        await expect(page.locator(".said")).to_contain_text("are forgotten")
        assert (await lb.tasks.counts("default")).dead == 0


async def test_one_press_is_one_change_though_the_page_changes_before_it_is_answered(
    lb: Lockbeat, at: str, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes live had made the button one to press again, and the second answer said that 0 are forgotten."""
    begun, again, go_on, purge = list[str](), list[str](), asyncio.Event(), actions.PATHS["/dead/purge"]

    async def slowly(look: Any, form: Any) -> Any:
        begun.append(form["function"])
        await go_on.wait()
        return await purge.do(look, form)

    async def dead(name: str) -> None:
        await lb.tasks.spawn(name, max_attempts=1)
        [task] = await lb.tasks.claim("default", "w", 1)
        await lb.tasks.fail(task, ValueError("no such address"))

    monkeypatch.setitem(actions.PATHS, "/dead/purge", replace(purge, do=slowly))
    monkeypatch.setattr("lockbeat.web.stream.SECONDS", 0.2)
    await dead("mail")
    async with opened(browser) as page:
        await page.goto(f"{at}dead")
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


async def test_it_is_kept_up_to_date_and_what_is_open_or_being_written_stays(lb: Lockbeat, at: str, browser: Browser) -> None:
    await lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        await page.goto(f"{at}job?name=report")
        panel = page.locator(".bar details", has_text="Pause").first
        await panel.locator("summary").click()
        await panel.get_by_label("Why").fill("half a sen")
        await lb.jobs.pause("report", "the disk is full", by="bob")
        await expect(page.locator(".lead")).to_contain_text("the disk is full")
        await expect(panel.get_by_label("Why")).to_have_value("half a sen")
        await expect(panel.get_by_label("Why")).to_be_focused()
        await expect(page.locator("[data-live]")).to_have_text("live")


async def test_times_are_in_the_readers_zone_and_keys_lead_everywhere(lb: Lockbeat, at: str, browser: Browser) -> None:
    await lb.jobs.put("noon", Every(86_400, datetime(2000, 1, 1, 12, tzinfo=UTC)))
    await lb.jobs.put("report", Every(3600))
    async with opened(browser, color_scheme="light") as page:
        await page.goto(f"{at}jobs")
        await expect(page.locator("[data-live]")).to_have_text("live")  # its script hears keys
        slot = page.locator("tr", has_text="noon").locator("td time").first
        zone = datetime.now().astimezone().tzinfo
        assert zone is not None
        when = datetime.fromisoformat(str(await slot.get_attribute("datetime")))
        assert when.hour == 12
        from zoneinfo import ZoneInfo

        await expect(slot).to_contain_text(f"{when.astimezone(ZoneInfo('Europe/Berlin')):%H:%M:%S}")
        await page.keyboard.press("u")
        await expect(slot).to_contain_text("12:00:00")
        await page.keyboard.press("e")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("/")
        await page.keyboard.type("rep")
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("[data-live]")).to_have_text("live")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_contain_text("report")
        await expect(page.locator("[data-live]")).to_have_text("live")
        await page.keyboard.press("g")
        await page.keyboard.press("d")
        await expect(page.locator("h1")).to_contain_text("Dead")


async def test_without_scripts_everything_can_be_read_and_done(lb: Lockbeat, at: str, browser: Browser) -> None:
    await filled(lb)
    async with opened(browser, java_script_enabled=False) as page:
        for path in PAGES:
            await page.goto(at + path)
            await expect(page.locator("h1")).to_be_visible()
            await expect(page.locator("time").first).to_contain_text("UTC") if path in ("jobs", "tasks") else None
        await page.goto(f"{at}job?name=invoices")
        await page.locator(".bar summary", has_text="Pause").click()
        await page.get_by_role("button", name="Pause", exact=True).click()
        await expect(page.locator(".said")).to_have_text("invoices is paused")
    assert (await lb.jobs.get("invoices")).paused is not None


async def test_another_site_can_neither_read_nor_change_nor_frame_it(lb: Lockbeat, at: str, browser: Browser) -> None:
    """A page of somebody else's, open in the same browser as this one."""
    await lb.jobs.put("report", Every(3600))

    async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = f"""<iframe src="{at}" id=frame></iframe><form method=post action="{at}job/pause" id=form>
            <input name=name value=report><input name=token value=x><button id=go>go</button></form>"""
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(evil, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{at}job?name=report")  # it has the cookie
        await page.goto(f"http://localhost:{port}/")
        assert await page.evaluate(f"fetch('{at}').then(() => 'read', () => 'refused')") == "refused"
        frame = page.frame_locator("#frame")
        assert "lockbeat" not in await frame.locator("body").inner_text()
        await page.click("#go")
        await expect(page.locator(".problem")).to_contain_text("another site sent this")
        await context.close()
    assert (await lb.jobs.get("report")).paused is None


async def test_who_was_never_here_finds_why_last_nights_report_did_not_run_and_runs_it_again(
    lb: Lockbeat, at: str, browser: Browser
) -> None:
    await filled(lb)
    async with opened(browser) as page:
        await page.goto(at)
        row = page.locator("section", has_text="Failed, lost or missed").locator("tbody tr", has_text="nightly").first
        await row.locator("td a").first.click()
        await expect(page.locator(".told")).to_contain_text("failed")
        await expect(page.locator(".told")).to_contain_text("can't reach postgres://***@db/prod")
        before = (await lb.tasks.counts("default")).ready
        await page.get_by_role("button", name="Try this slot again").click()
        await expect(page.locator(".said")).to_have_text("it is tried again")
        assert (await lb.tasks.counts("default")).ready == before + 1
