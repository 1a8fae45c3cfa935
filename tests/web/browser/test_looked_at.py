"""The page in a real browser: how it looks, what it says to whom, with and without scripts."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, expect

from lockbeat import Every
from tests.conftest import needs
from tests.web.browsing import Site, opened

pytestmark = [needs("chromium", "valkey"), pytest.mark.asyncio(loop_scope="module")]
PAGES = (
    *("", "jobs", "job?name=nightly", "day", "tasks", "task?id={dead}", "dead?queue=default", "leases", "instances", "store"),
    "backfill?name=nightly&start=2026-01-01T00:00&end=2026-01-01T00:30",
)
LOOKS: dict[str, tuple[dict[str, int], Any, dict[str, Any]]] = {
    "light": ({"width": 1280, "height": 800}, "light", {}),
    "dark": ({"width": 1280, "height": 800}, "dark", {"runOnly": ["color-contrast"]}),
    "phone": ({"width": 390, "height": 844}, "light", {}),
}
"""Size, colours, and what axe looks at: what colours decide is all that differs in the dark."""


async def pages_of(site: Site) -> list[str]:
    [dead, *_] = await site.lb.tasks.dead("default", 1)
    return [path.format(dead=dead.id) for path in PAGES]


async def test_each_page_is_sound_and_fits_and_axe_finds_no_serious_fault(filled: Site, browser: Browser, tmp_path: Path) -> None:
    """$LOCKBEAT_SHOTS keeps the pictures."""
    shots = Path(os.environ.get("LOCKBEAT_SHOTS") or tmp_path)
    serious = set[tuple[str, str, str, str]]()
    async with opened(browser) as page:
        for path in await pages_of(filled):
            await page.goto(filled.at + path)
            await expect(page.locator("h1")).to_be_visible()
            assert path or await page.locator(".alarm tbody tr", has_text="report").count()  # what hangs is looked at, too
            await page.evaluate(AXE_SCRIPT)
            for look, (size, colours, wanted) in LOOKS.items():
                await page.set_viewport_size(size)  # type: ignore[arg-type]
                await page.emulate_media(color_scheme=colours)
                assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, look)
                name = path.partition("?")[0] or "overview"
                await page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
                found = await page.evaluate("options => axe.run({resultTypes: ['violations'], ...options})", wanted)
                serious |= {
                    (path, look, one["id"], one["nodes"][0]["html"])
                    for one in found["violations"]
                    if one["impact"] in ("serious", "critical")
                }
    assert serious == set()


async def test_times_are_in_the_readers_zone_and_keys_lead_everywhere(site: Site, browser: Browser) -> None:
    await site.lb.jobs.put("noon", Every(86_400, datetime(2000, 1, 1, 12, tzinfo=UTC)))
    await site.lb.jobs.put("report", Every(3600))
    async with opened(browser, color_scheme="light") as page:
        await page.goto(f"{site.at}jobs")
        await expect(page.locator("[data-live]")).to_have_text("live")  # its script hears keys
        slot = page.locator("tr", has_text="noon").locator("td time").first
        when = datetime.fromisoformat(str(await slot.get_attribute("datetime")))
        assert when.hour == 12
        await expect(slot).to_contain_text(f"{when.astimezone(ZoneInfo('Europe/Berlin')):%H:%M:%S}")
        await page.keyboard.press("u")
        await expect(slot).to_contain_text("12:00:00")
        await page.keyboard.press("e")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        cyrillic = "new KeyboardEvent('keydown', {key: 'у', code: 'KeyE', bubbles: true})"  # noqa: RUF001 - bulwarkmail PR541
        await page.evaluate(f"document.body.dispatchEvent({cyrillic})")
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
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


async def test_without_scripts_everything_can_be_read_and_done(filled: Site, browser: Browser) -> None:
    async with opened(browser, java_script_enabled=False) as page:
        for path in await pages_of(filled):
            await page.goto(filled.at + path)
            await expect(page.locator("h1")).to_be_visible()
            await expect(page.locator("time").first).to_contain_text("UTC") if path in ("jobs", "tasks") else None
        await page.goto(f"{filled.at}job?name=invoices")
        await page.locator(".bar summary", has_text="Pause").click()
        await page.get_by_role("button", name="Pause the job").click()
        await expect(page.locator(".said")).to_have_text("invoices is paused")
    assert (await filled.lb.jobs.get("invoices")).paused is not None


async def test_another_site_can_neither_read_nor_change_nor_frame_it(site: Site, browser: Browser) -> None:
    """A page of somebody else's, open in the same browser as this one."""
    await site.lb.jobs.put("report", Every(3600))

    async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = f"""<iframe src="{site.at}" id=frame></iframe><form method=post action="{site.at}job/pause" id=form>
            <input name=name value=report><input name=token value=x><button id=go>go</button></form>"""
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(evil, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{site.at}job?name=report")  # it has the cookie
        await page.goto(f"http://localhost:{port}/")
        assert await page.evaluate(f"fetch('{site.at}').then(() => 'read', () => 'refused')") == "refused"
        frame = page.frame_locator("#frame")
        assert "lockbeat" not in await frame.locator("body").inner_text()
        await page.click("#go")
        await expect(page.locator(".problem")).to_contain_text("another site sent this")
        await context.close()
    assert (await site.lb.jobs.get("report")).paused is None
