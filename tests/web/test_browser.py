"""The page in a real browser: how it looks, by mouse and by keyboard, with and without scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
import redis
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, expect

from lockbeat import Every
from lockbeat.web import actions
from tests import servers
from tests.conftest import leaks, needs, wait_until
from tests.hanging import hung
from tests.servers import Server
from tests.web import mornings
from tests.web.browsing import SPACE, Hand, Site, fill, launched, opened, served

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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.standalone(servers.valkey_binary()) as started:
        yield started
        with contextlib.closing(redis.Redis(port=started.port, protocol=2, socket_timeout=30)) as client:
            assert [*leaks(client, SPACE)] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(server: Server) -> AsyncIterator[Site]:
    """A store that was in use, with a run that hangs. Tests look at it, and change what no other looks at."""
    async with served(server) as site:
        await fill(site.lb)
        with contextlib.closing(redis.Redis(port=server.port, protocol=2, socket_timeout=30)) as raw:
            task, _ = await hung(site.lb, raw, lease=3600)
        yield site
        await site.lb.tasks.release(task)


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server) -> AsyncIterator[Site]:
    async with served(server) as made:
        yield made


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
