"""A real browser over a store: one browser and one server for all tests of a module, a namespace for each test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from lockbeat import Beat, Lockbeat
from lockbeat.web import dashboard
from lockbeat.web.serve import listening, serve
from tests.conftest import PATIENCE
from tests.servers import Server

expect.set_options(timeout=2 * PATIENCE * 1000)
SPACE = "browser"
"""What the namespaces begin with."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Site:
    """A store, and where its page is served."""

    lb: Lockbeat
    at: str


@contextlib.asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=120_000)
        yield found
        await found.close()


@contextlib.asynccontextmanager
async def served(server: Server) -> AsyncIterator[Site]:
    """The page over a store that nobody used before."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with Lockbeat(server.url, namespace=f"{SPACE}-{next(_numbers)}") as lb:
        board = dashboard(lb, user=lambda scope: "alice", hosts=("127.0.0.1",), show_params=True)
        with listening("127.0.0.1", 0) as bound:
            serving = asyncio.create_task(serve(board, bound, ended, where.set_result))
            yield Site(lb, await where)
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


async def fill(lb: Lockbeat) -> None:
    """Jobs that ran, one that fails, one that is paused, one that holidays exclude, dead tasks, a lock, a claim."""
    beat = Beat(lb)

    @beat.every(0.25, tags=["billing"], description="Sends what customers owe.")
    async def invoices(run: Any) -> None:
        pass

    @beat.every(0.25, name="nightly", max_attempts=1, tags=["reports"])
    async def nightly(run: Any) -> None:
        raise ValueError("can't reach postgres://app:hunter2@db/prod <script>alert(1)</script>")

    @beat.cron("0 9 * * mon-fri", name="morning", timezone="Europe/Berlin", jitter=60)
    async def morning(run: Any) -> None:
        pass

    beat.cron("*/30 * * * *", name="trades", exclude=["holidays"])(morning)
    for number in range(8):
        beat.cron("0 0 * * *", name=f"tenant-{number}", tags=["tenants"])(morning)

    today = datetime.now(UTC).date()
    await lb.calendars.put("holidays", [f"{today + timedelta(days=days)} Carnival" for days in (0, 1)])
    async with beat.lifespan():
        await lb.jobs.pause("morning", "the bank is closed", by="bob")
        for number in range(3):
            await lb.tasks.spawn("nightly", {"to": number, "password": "x"}, max_attempts=1)
        await lb.tasks.spawn("unheard-of", queue="slow", delay=3600)
        await lb.locks.try_acquire("deploy", "ci-7", 3600)
        await lb.claims.acquire("row-17", "worker-1", 3600)

        async def ran() -> bool:
            slots = [len(await lb.jobs.ledger(name, 5)) for name in ("nightly", "invoices")]
            return min(slots) > 2 and (await lb.tasks.counts("default")).dead >= 3

        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await ran():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
    await lb.jobs.pause("nightly", "it fails", by="bob")


class Hand:
    """One who uses the page, by mouse or by keyboard alone."""

    def __init__(self, page: Page, how: str) -> None:
        self.page, self.how = page, how
        self.posted: set[str] = set()
        """The paths of what was sent."""
        self.pressed = 0
        """How often: links and buttons, less the one that leads past the menu."""
        page.on("request", lambda request: self.posted.add(_path(request.url)) if request.method == "POST" else None)

    async def go(self, url: str) -> None:
        await self.page.goto(url)
        await self.begin()

    async def begin(self) -> None:
        """Go to what is the page's own, as keyboards do."""
        if self.how == "keyboard":
            await self.press(self.page.get_by_role("link", name="Skip to the page"))
            self.pressed -= 1

    async def press(self, what: Locator, key: str = "Enter") -> None:
        self.pressed += 1
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
        await what.wait_for(state="attached")
        for _ in range(200):
            if await what.evaluate("element => element === document.activeElement"):
                await expect(what).to_be_visible()
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError("the keyboard does not get there")


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3].partition("?")[0]
