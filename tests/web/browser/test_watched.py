"""The page in a real browser: it is kept up to date, and nothing moves under a hand."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta

import pytest
import redis
from playwright.async_api import Browser, expect

from lockbeat import Every
from tests.conftest import needs
from tests.hanging import hung
from tests.servers import Server
from tests.web.browsing import Site, opened

pytestmark = [needs("chromium", "valkey"), pytest.mark.asyncio(loop_scope="module")]


async def test_it_is_kept_up_to_date_and_what_is_open_or_being_written_stays(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.web.stream.SECONDS", 0.2)
    await site.lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        await page.goto(f"{site.at}job?name=report")
        panel = page.locator(".bar details", has_text="Pause").first
        await panel.locator("summary").click()
        await panel.get_by_label("Why").fill("half a sen")
        await site.lb.jobs.pause("report", "the disk is full", by="bob")
        await expect(page.locator(".lead")).to_contain_text("the disk is full")
        await expect(panel.get_by_label("Why")).to_have_value("half a sen")
        await expect(panel.get_by_label("Why")).to_be_focused()
        await expect(page.locator("[data-live]")).to_have_text("live")


async def test_what_is_shown_first_is_not_made_anew_by_what_is_new(site: Site, browser: Browser) -> None:
    """On a slow machine somebody wrote before the first of it came, and what they wrote was gone with its panel."""
    await site.lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        await page.add_init_script("addEventListener('DOMContentLoaded', () => { first = document.querySelector('#live > *'); })")
        for path in ("", "jobs", "job?name=report", "day", "tasks", "dead", "leases", "instances", "store"):
            await page.goto(f"{site.at}{path}")
            await expect(page.locator("[data-live]")).to_have_text("live")
            assert await page.evaluate("first.isConnected"), path


async def test_a_panel_opens_below_its_buttons_which_stay_and_escape_closes_it(site: Site, browser: Browser) -> None:
    """The button that was pressed had gone into the panel, and its neighbour came under the pointer."""
    await site.lb.jobs.put("report", Every(3600))
    async with opened(browser) as page:
        await page.goto(f"{site.at}job?name=report")
        await expect(page.locator("[data-live]")).to_have_text("live")
        buttons, panel = page.locator(".bar summary:visible"), page.locator(".bar details[open] form")
        before = [await one.bounding_box() for one in await buttons.all()]
        assert len(before) > 2
        await buttons.nth(1).click()
        await expect(panel).to_be_visible()
        assert [await one.bounding_box() for one in await buttons.all()] == before
        below, above = await panel.bounding_box(), before[1]
        assert below is not None
        assert above is not None
        assert below["y"] >= above["y"] + above["height"]
        await panel.locator("input").nth(3).focus()
        await page.keyboard.press("Escape")
        await expect(panel).to_have_count(0)
        await expect(buttons.nth(1)).to_be_focused()


async def test_what_can_be_pressed_does_not_become_another_slot(
    site: Site, browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come since is one link away. Where nothing can be pressed, the page tells of the newest."""
    monkeypatch.setattr("lockbeat.web.stream.SECONDS", 0.2)
    with contextlib.closing(redis.Redis(port=server.port, protocol=2, socket_timeout=30)) as raw:
        await hung(site.lb, raw)
    await site.lb.jobs.put("fine", Every(3600))
    async with opened(browser) as page:
        for name in ("fine", "report"):
            await page.goto(f"{site.at}job?name={name}")
            await expect(page.locator("[data-live]")).to_have_text("live")
            before = await page.locator(".told h2").inner_text()
            await site.lb.jobs.trigger(name, overlap="allow")
            await expect(page.locator("#runs")).to_be_visible()  # it has heard of it
            if name == "fine":
                await expect(page.locator(".told")).to_contain_text("triggered at")
            else:
                await expect(page.locator(".told h2")).to_have_text(before)
                await expect(page.locator(".told button.main")).to_be_visible()


REFUSED = """
window.tries = 0;
window.away = false;
window.EventSource = class {
  static CLOSED = 2;
  readyState = 2;
  constructor() { window.tries += 1; }
  addEventListener(name, heard) { if (name === "error") queueMicrotask(heard); }
  close() {}
};
Object.defineProperty(document, "hidden", { get: () => window.away });
"""
"""Each stream is refused, as when too many look on; and the page may be one that nobody sees."""


async def test_a_page_that_is_hidden_does_not_ask_again_and_one_that_is_seen_does(site: Site, browser: Browser) -> None:
    async with opened(browser) as page:
        await page.clock.install()
        await page.add_init_script(REFUSED)
        await page.goto(f"{site.at}jobs")
        seen = "document.dispatchEvent(new Event('visibilitychange')); tries"
        before = await page.evaluate(f"window.away = true; {seen}")
        await page.clock.fast_forward(120_000)
        assert await page.evaluate("tries") == before
        assert await page.evaluate(f"window.away = false; {seen}") == before + 1
        await page.clock.fast_forward(30_000)
        assert await page.evaluate("tries") > before + 1


async def test_nothing_moves_under_a_hand_until_it_rests(site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are in the order of their next slots: each new one has moved those below it, and a click hit another."""
    monkeypatch.setattr("lockbeat.web.stream.SECONDS", 0.2)
    soon, names = datetime.now(UTC) + timedelta(days=2), iter("hgfedcba")

    async def put(name: str, hours: int) -> None:
        await site.lb.jobs.put(name, Every(timedelta(days=3650), soon - timedelta(hours=hours)))

    await put("job", 1)
    async with opened(browser) as page:
        await page.clock.install()
        await page.goto(f"{site.at}jobs?sort=next")
        said, rows = page.locator("[data-live]"), page.locator("tbody tr")
        await expect(said).to_have_text("live")
        await page.clock.pause_at(datetime.now(UTC) + timedelta(days=1))

        async def put_above(shown: int) -> None:
            await put(next(names), 2)
            await expect(said).to_have_text("live, held")
            await expect(said).to_have_attribute("title", re.compile("waits while you are at a row"))
            await expect(rows).to_have_count(shown)

        async def shows(count: int) -> None:
            await expect(rows).to_have_count(count)
            await expect(said).to_have_text("live")

        # The mouse lies on a row: for so long, and while it moves for longer.
        await rows.last.get_by_role("link", name="job").hover()
        await put_above(1)
        await page.clock.run_for(9_000)
        await expect(rows).to_have_count(1)
        await page.clock.run_for(1_250)
        await shows(2)
        await rows.last.hover()
        await put_above(2)
        for aside in range(9):
            await rows.last.hover(position={"x": 20 + aside, "y": 10})
            await page.clock.run_for(6_000)
            await expect(rows).to_have_count(2)
        await rows.last.hover()
        await page.clock.run_for(6_250)
        await shows(3)
        # It goes away.
        await rows.last.hover()
        await put_above(3)
        await page.mouse.move(5, 5)
        await page.clock.run_for(250)
        await shows(4)
        # Text is marked, and then no more.
        await rows.last.locator("td").first.dblclick()
        await page.mouse.move(5, 5)
        await page.clock.run_for(11_000)
        await put_above(4)
        await page.locator("h1").click()
        await page.clock.run_for(250)
        await shows(5)
        # The keyboard stands in a row, and stays in it when that goes elsewhere.
        link = page.locator("tbody tr").get_by_role("link", name="job")
        await link.focus()
        await page.keyboard.press("Shift")
        await put_above(5)
        await put("job", 3)
        await page.clock.run_for(11_000)
        await shows(6)
        await expect(rows.first).to_contain_text("job")
        await expect(link).to_be_focused()
        await put("job", 1)
        await expect(rows.last).to_contain_text("job")
        # What is pressed is what was seen.
        await link.hover()
        box = await link.bounding_box()
        await put_above(6)
        assert await link.bounding_box() == box
        await page.mouse.down()
        await page.mouse.up()
        await expect(page.locator("h1")).to_have_text("job")
