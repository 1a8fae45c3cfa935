"""How the page is laid out: nothing shifts from page to page, all of it is in view on a phone, and buttons show their state."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from lockbeat import Every
from tests import servers
from tests.conftest import needs
from tests.web.browsing import launched, opened, served

pytestmark = needs("chromium", "valkey")
PHONE = {"width": 390, "height": 844}
BOXES = "all => all.map(one => one.getBoundingClientRect().toJSON())"
NAV = ".top nav a"


async def test_nothing_shifts_and_a_phone_shows_all_and_no_more() -> None:
    with servers.standalone(servers.valkey_binary()) as started:
        async with served(started) as site, launched() as browser, opened(browser, color_scheme="light") as page:
            await site.lb.jobs.put("report", Every(3600))
            await site.lb.tasks.spawn("mail")

            async def boxes(where: str) -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = await page.locator(where).evaluate_all(BOXES)
                return found

            # Tabs stand where they stood, whichever is chosen and whether or not there is a scroll bar.
            seen = []
            for path in ("jobs?q=re", "tasks", "leases"):
                await page.goto(site.at + path)
                await expect(page.locator("[data-live]")).to_have_text("live")
                seen.append([box["left"] for box in await boxes(NAV)])
            assert seen[0] == seen[1] == seen[2]
            assert await page.evaluate("getComputedStyle(document.documentElement).scrollbarGutter") == "stable"
            assert max(box["right"] for box in await boxes(NAV)) <= min(box["left"] for box in await boxes(".tools"))

            # Labels and fields of a filter are in line, and what shows all again.
            await page.goto(f"{site.at}jobs?q=re")
            assert len({box["top"] for box in await boxes(".filter label")}) == 1
            assert len({box["bottom"] for box in await boxes(".filter input, .filter select, .filter button, .filter > a")}) == 1

            # Buttons say what is so.
            theme, zone = page.get_by_role("button", name="Theme: light"), page.get_by_role("button", name="Times: Berlin")
            await theme.click()
            await expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
            await zone.click()
            await expect(page.get_by_role("button", name="Times: UTC")).to_be_visible()

            # A phone has all tabs in view, fields without a value left out, and labels beside what they name.
            await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
            await page.goto(f"{site.at}tasks")
            assert all(box["left"] >= 0 and box["right"] <= PHONE["width"] for box in await boxes(NAV))
            cells = page.locator("tbody td")
            assert await cells.evaluate_all("all => all.filter(one => one.textContent.trim() === '-').length") == 1
            await expect(page.locator("tbody td[data-label='By']")).to_be_hidden()
            lefts = await cells.evaluate_all(
                """all => all.filter(one => one.offsetParent).map(one => {
                    const range = document.createRange();
                    range.selectNodeContents(one);
                    return Math.round(range.getClientRects()[0].left);
                })"""
            )
            assert len(lefts) >= 4
            assert max(lefts) - min(lefts) <= 10, "all begin at one line, but for the room in a badge"
            await page.goto(site.at)
            tiles = await boxes("#live > .figures >> nth=0 >> div")
            assert max(box["right"] for box in tiles) == tiles[-1]["right"], "the last row of tiles is full"
