"""Buttons: each says what it changes, and only those that do something now are shown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from tests.beats import fired
from tests.conftest import only
from tests.web.asking import Ask

both = only("memory", "valkey")


class Buttons(HTMLParser):
    """The buttons of a page: by accessible name, what each sends where, and those that can be seen."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sends = defaultdict[str, set[tuple[str, ...]]](set)
        self.seen: set[str] = set()
        self._form: list[str] = []
        self._hidden, self._in_button, self._label, self._text = False, False, "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "details":
            self._hidden = "hidden" in said
        elif tag == "form":
            self._form = [said.get("method", "get"), said.get("action", "")]
        elif tag == "input" and said.get("type") == "hidden" and said["name"] not in ("token", "once"):
            self._form.append(f"{said['name']}={said['value']}")
        elif tag == "button":
            self._in_button, self._label, self._text = True, said.get("aria-label", ""), ""

    def handle_data(self, data: str) -> None:
        if self._in_button:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "button":
            self._in_button, name = False, self._label or self._text.strip()
            assert self._text.strip() in name, "who says what is written on it has to reach it"
            self.sends[name].add(tuple(self._form))
            if not self._hidden:
                self.seen.add(name)
        elif tag == "form":
            self._form = []
        elif tag == "details":
            self._hidden = False


@both
async def test_no_two_buttons_of_a_page_have_one_name_and_change_different_things(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """A run and a backfill could both be cancelled by `Cancel it`."""
    await lb.jobs.put("report", Every(3600))
    run = await lb.jobs.trigger("report")
    hours = datetime.now(UTC) - timedelta(hours=5)
    await lb.jobs.backfill("report", hours, rate=0.001, confirm=True, unknown=True)
    for name, queue in (("mail", "one"), ("letter", "one"), ("mail", "two")):
        await lb.tasks.spawn(name, queue=queue, max_attempts=1)
    for task in [*await lb.tasks.claim("one", "w", 2), *await lb.tasks.claim("two", "w")]:
        await lb.tasks.fail(task, "no such address")
    [dead] = await lb.tasks.dead("two")
    page, seen = ask(), set[str]()
    paths = (
        *(f"/job?name=report&run={run.task_id}", "/jobs", "/dead", "/dead?queue=one", f"/task?id={dead.id}"),
        *(f"/task?id={run.task_id}", f"/backfill?name=report&start={hours:%Y-%m-%dT%H:%M}", "/"),
    )
    for path in paths:
        found = Buttons(await page.page(path))
        assert {name: sends for name, sends in found.sends.items() if len(sends) > 1} == {}, path
        seen |= found.seen
    assert {"Cancel this run", "Cancel the backfill", "Pause the job", "Pause the backfill", "Cancel this task"} <= seen


@both
@pytest.mark.parametrize("live", [False, True])
async def test_a_job_is_paused_or_resumed_by_what_it_is_now(lb: Lockbeat, ask: Callable[..., Ask], live: bool) -> None:
    """Without scripts, and in the part of the page that is kept up to date."""
    await lb.jobs.put("report", Every(3600))
    page = ask()

    async def shown() -> set[str]:
        text = await page.page("/job?name=report")
        part = text.partition('<div id="live">')[2] if live else text
        return Buttons(part).seen & {"Pause the job", "Resume the job"}

    assert await shown() == {"Pause the job"}
    await lb.jobs.pause("report")
    assert await shown() == {"Resume the job"}
    await lb.jobs.resume("report")
    await lb.jobs.skip_next("report", 2)
    assert await shown() == {"Pause the job", "Resume the job"}, "it can be paused for good, or skip no more"


@both
async def test_of_a_task_that_ended_no_queue_is_said_where_none_is_kept(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    task = await fired(lb, raw)
    page = ask()
    assert "in queue" in await page.page(f"/task?id={task.id}")
    await lb.tasks.complete(task)
    assert "in queue" not in await page.page(f"/task?id={task.id}")


@both
async def test_a_hint_in_a_field_fits_into_it(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    await lb.jobs.put("report", Every(3600))
    text = await ask().page("/job?name=report") + await ask().page(f"/backfill?name=report&start={datetime.now(UTC):%Y-01-01}")
    hints = re.findall(
        r'<input[^>]*size="(\d+)"[^>]*placeholder="([^"]*)"|<input[^>]*placeholder="([^"]*)"[^>]*size="(\d+)"', text
    )
    assert hints
    for size, hint, other, its in hints:
        assert len(hint or other) <= int(size or its), hint or other
