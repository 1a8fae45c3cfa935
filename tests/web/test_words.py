"""What pages say to one who sees them for the first time: true, in one word for one thing, and of the right size."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from lockbeat import Beat, Cron, Every, Lockbeat
from lockbeat.web import dashboard
from lockbeat.web.render import ASSETS
from tests.beats import eventually, fired
from tests.conftest import only
from tests.tasks import died
from tests.web.asking import Ask
from tests.web.test_pages import live, words

both = only("memory", "valkey")


def heights(text: str, css: str) -> list[int]:
    """Of the columns of that colour."""
    columns = text.partition('class="columns"')[2].partition("</svg>")[0]
    return [int(high) for high in re.findall(rf'<rect class="{css}"[^>]* height="(\d+)"', columns)]


@both
async def test_what_comes_all_the_time_is_drawn_below_what_comes_at_its_minute_and_told_of_apart(
    lb: Lockbeat, ask: Callable[..., Ask]
) -> None:
    await lb.jobs.put("often", Every(3))
    text = await ask().page("/day")
    assert "Apart from the 20 a minute that come all the time, no two slots share a minute." in words(live(text))
    assert {*heights(text, "mute")} == {80}
    for name in ("a", "b", "c", "d"):
        await lb.jobs.put(name, Cron("0 * * * *"))
    text = await ask().page("/day")
    assert "Apart from the 20 a minute that come all the time. Minute Slots Jobs" in words(live(text))
    assert heights(text, "busy") in ([80] * 24, [80] * 23), "in the first minute of an hour its slot has passed"
    assert {*heights(text, "mute")} == {67}, "20 of 24, below each"
    for name in ("often", "a", "b", "c", "d"):
        await lb.jobs.delete(name)
    assert "No two slots share a minute." in words(live(await ask().page("/day")))


@both
async def test_jobs_that_are_filtered_say_how_many_of_all_are_shown(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    for number in range(30):
        await lb.jobs.put(f"tenant-{number:02}", Every(3600))
    for query, said in (("", "30"), ("?q=tenant-0", "10 of 30"), ("?q=t", r"2\d\+ of 30"), ("?q=0", "0 of 30")):
        text = await ask().page(f"/jobs{query}")
        assert re.fullmatch(f"Jobs {said}", words(text.partition("<h1>")[2].partition("</h1>")[0])), query
    assert "No job here is like that. Names are found by how they begin." in words(await ask().page("/jobs?q=0"))


@both
async def test_tasks_say_what_is_listed_and_call_it_by_the_word_of_the_filter(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    page = ask()
    assert "No task is waiting." in words(await page.page("/tasks?state=waiting"))
    assert "No task of mail in queue slow is dead." in words(await page.page("/tasks?state=dead&queue=slow&function=mail"))
    await lb.tasks.spawn("mail")
    await lb.tasks.spawn("mail", delay=3600)
    said = words(live(await page.page("/tasks")))
    assert said.startswith("2 waiting 1 of them until they are due 0 running 0 dead Listed are tasks that wait, run or are dead,")
    assert "Slots that have ended stand on the page of their job ." in said


@both
async def test_a_tasks_page_is_headed_by_what_it_is_and_says_what_its_button_does(
    lb: Lockbeat, raw: Any, ask: Callable[..., Ask]
) -> None:
    task, page = await fired(lb, raw), ask()

    async def shown(task_id: str) -> tuple[str, str, str]:
        text = await page.page(f"/task?id={task_id}")
        title, heading = text.partition("<title>")[2].partition("</title>")[0], text.partition("<h1>")[2].partition("</p>")[0]
        return title, words(heading), text

    title, heading, text = await shown(task.id)
    assert re.match(rf"{task.job}, slot \d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC · ", title), title
    assert re.fullmatch(rf"{task.job}, slot [-\d]+ [:\d]+ UTC {re.escape(task.id)}", heading), heading
    assert "Hidden: lockbeat web --show-params shows them." in words(text)
    await lb.tasks.cancel(task.id)
    assert not await lb.tasks.release(task, begun=True)
    once = "It gets one more attempt, by a worker of its queue"
    _, _, text = await shown(task.id)
    assert f"{once}, under its own slot." in words(text)
    assert 'class="main"' not in text
    dead = await died(lb)
    title, heading, text = await shown(dead)
    assert (title.partition(" · ")[0], heading) == ((await lb.tasks.get(dead)).name, f"{(await lb.tasks.get(dead)).name} {dead}")
    assert f"{once}." in words(text)
    assert 'class="main"' in text


@both
async def test_dead_and_locks_say_what_they_are(lb: Lockbeat, raw: Any, ask: Callable[..., Ask]) -> None:
    page = ask()
    assert "A task is dead when its last attempt has failed or was lost" in words(await page.page("/dead"))
    assert "in all queues" not in words(await page.page("/leases"))
    await lb.claims.acquire("row-17", "worker-1", 3600)
    task = await fired(lb, raw)
    said = words(live(await page.page("/leases")))
    assert "Claims in default 1 in all queues" in said
    assert "A run of a job holds the lock job:NAME , unless its overlap is allow." in said
    assert f"job:{task.job} {task.owner} " in said
    assert "1 lock:live" in words(await page.page("/store")), "as many as are listed"
    await lb.tasks.release(task)


@both
async def test_an_instance_says_what_its_columns_are_and_leads_to_its_jobs(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    beat, page = Beat(lb), ask()

    @beat.every(3600)
    async def report(run: Any) -> None: ...

    @beat.task
    async def mail(run: Any) -> None: ...

    async with beat.lifespan():

        async def said() -> str:
            return await page.page(f"/instances?owner={lb.owner}")

        async def known() -> bool:
            return "Functions that it can run" in await said()

        await eventually(known, "it says what it can run", step=0.1)
        text = await said()
    assert "Last sign: when it last said that it lives." in words(text)
    assert re.search(r'Functions that it can run: .*name=report">report</a>', text)
    assert re.search(r"Functions that it can run: (.*, )?mail[,.]", text), "no job is called so"


@only("valkey")
async def test_the_store_is_told_of_in_words_of_operators(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    said = words(await ask().page("/store"))
    assert "What lockbeat doctor finds" in said
    assert "memory limit no limit" in said
    assert re.search(r"up for [\d.]+ [smhd]", said), said
    assert "jobs that are paused 0 job:paused" in said
    assert "nothing fires" not in said


async def test_the_namespace_is_named_where_it_is_not_the_default(ask: Callable[..., Ask]) -> None:
    for namespace, title in (("lockbeat", "Jobs · lockbeat"), ("shop", "Jobs · shop · lockbeat")):
        async with Lockbeat("memory://", namespace=namespace) as lb:
            text = await ask(dashboard(lb, user=lambda scope: "root")).page("/jobs")
        assert f"<title>{title}</title>" in text
        assert ("namespace shop" in words(text)) == (namespace == "shop")
        assert "you are root" in words(text)


@both
async def test_cells_without_a_value_are_known_as_such(lb: Lockbeat, ask: Callable[..., Ask]) -> None:
    """A phone leaves them out."""
    await lb.tasks.spawn("mail")
    text = await ask().page("/tasks")
    assert '<td data-label="By" data-none>-</td>' in text
    assert text.count("data-none") == 1


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("number", [0, 1, 2], ids=["light", "dark by itself", "dark by hand"])
def test_bars_stand_out_from_all_grounds(number: int) -> None:
    """WCAG 1.4.11, which axe does not look at: 3 to 1."""
    themes = re.findall(r"\{\s*(--paper:.*?)\}", ASSETS["/page.css"].content.decode(), re.S)
    assert len(themes) == 3
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", themes[number]))
    bars = [name for name in colours if name.endswith("-bar")]
    for bar, ground in product(bars, ("paper", "raised", "hover", "mute-soft", "accent-soft")):
        low, high = sorted((luminance(colours[bar]), luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 3, (bar, ground)
    assert len(bars) == 5
