"""Each alert is seen to fire when the thing itself is done, and is silent otherwise: what is scraped is put before promtool."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat, LockbeatError
from lockbeat.health import turning
from lockbeat.metrics import Metrics
from tests.beats import Beats, backdate, last_slot, now_ms
from tests.conftest import needs, only, wait_until
from tests.metrics.conftest import read
from tests.metrics.promtool import RULES, alerts, firing, promtool
from tests.servers import Server

pytestmark = needs("promtool")
PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"


class Scrapes:
    """What Prometheus gets of a beat or client, scrape by scrape."""

    def __init__(self, of: Beat | Lockbeat, folder: Path) -> None:
        self.metrics = Metrics(of)
        self.texts: list[bytes] = []
        self._folder = folder

    async def take(self) -> None:
        self.metrics._measured = None
        self.texts.append(self.metrics.text() + await self.metrics.store_text())

    async def value(self, name: str, **labels: str) -> float:
        self.metrics._measured = None
        return read(await self.metrics.store_text()).get((name, frozenset(labels.items())), 0)

    async def until(self, name: str, **labels: str) -> None:
        """Wait until it is more than 0."""
        async with asyncio.timeout(60):
            while not await self.value(name, **labels):
                await asyncio.sleep(0.02)

    def fire(self, *expected: str, **options: Any) -> None:
        """These fire after the last scrape, and no others; none does before it."""
        firing(self._folder, self.texts, expected, **options)


@pytest.fixture
def beat(beats: Beats) -> Beat:
    """With a job whose slots are far away, and one that is fired while the test runs, late as it may be."""
    beat = beats()
    beat.every(3600 * 24 * 365, name="yearly")(lambda: None)
    beat.every(0.2, name="tick", overlap="allow", catchup="all")(lambda: None)
    return beat


@pytest.fixture
def scrapes(beat: Beat, tmp_path: Path) -> Scrapes:
    return Scrapes(beat, tmp_path)


@contextlib.asynccontextmanager
async def serving(beat: Beat) -> AsyncIterator[None]:
    task = asyncio.create_task(beat.serve())
    try:
        await wait_until(lambda: beat.health.ready().ok or task.done(), "it serves")
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_promtool_is_content_with_the_rules() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", str(RULES))


def test_each_alert_has_a_test_here_and_a_page() -> None:
    here, page = Path(__file__).read_text(), PAGE.read_text()
    assert {name for name in alerts() if f'"{name}"' not in here} == set()
    assert re.findall(r"^## (Lockbeat\w+)$", page, re.MULTILINE) == alerts()
    assert re.findall(r"alerts\.md#(\w+)", RULES.read_text()) == [name.lower() for name in alerts()]
    for text in page.split("\n## Lockbeat")[1:]:
        assert all(f"**{word}**" in text for word in ("It means", "Look at", "Do")), text[:40]


@only("valkey")
async def test_none_fires_while_all_is_well(beat: Beat, scrapes: Scrapes) -> None:
    await scrapes.metrics.store_text()
    async with serving(beat):
        await scrapes.take()
        fired = beat.counting
        assert fired is not None
        before = fired.slots["tick"].fired
        await wait_until(lambda: fired.slots["tick"].fired >= before + 3, "slots are fired")
        await scrapes.take()
        await scrapes.take()
    scrapes.fire()


# Each rule's series, what it is silent at for ever, and what it fires at: the nearest on either side.
EDGES = {
    "LockbeatJobOverdue": ('lockbeat_job_overdue_seconds{job="a"}', 60, 61),
    "LockbeatNoTick": ('lockbeat_turn_late_seconds{loop="firing"}', 60, 61),
    "LockbeatNobodyFires": ('lockbeat_instances{role="scheduler"}', 1, 0),
    "LockbeatNotReady": ("lockbeat_ready", 1, 0),
    "LockbeatQueueWaits": ('lockbeat_queue_oldest_seconds{queue="default"}', 300, 301),
    "LockbeatClockOffset": ("lockbeat_clock_offset_seconds", -5, -6),
    "LockbeatStoreAway": ("lockbeat_store_up", 1, 0),
    "LockbeatStoreAboutToEvict": ('lockbeat_store_memory_bytes{server="0"}', 85, 86),
}
COUNTERS = {
    "LockbeatSlotMissed": 'lockbeat_job_slots_total{job="a",outcome="missed"}',
    "LockbeatJobFails": 'lockbeat_job_slots_total{job="a",outcome="failed"}',
    "LockbeatDeadGrowing": 'lockbeat_queue_tasks{queue="default",state="dead"}',
    "LockbeatLeasesLost": 'lockbeat_leases_lost_total{kind="lock"}',
    "LockbeatStoreEvicts": 'lockbeat_store_evicted_keys_total{server="0"}',
}
"""These fire when they grow: what stands there from before is silent."""


def edge(*fires: str) -> bytes:
    """A scrape in which each series is as high as it may be, but for those of these rules."""
    lines = [f"{series} {above if name in fires else below}" for name, (series, below, above) in EDGES.items()]
    lines += [f"{series} {8 if name in fires else 7}" for name, series in COUNTERS.items()]
    lines += ['lockbeat_store_memory_limit_bytes{server="0"} 100', 'lockbeat_store_memory_bytes{server="1"} 99']
    lines += ['lockbeat_store_memory_limit_bytes{server="1"} 0', 'lockbeat_job_slots_total{job="a",outcome="done"} 7']
    return "\n".join([*lines, ""]).encode()


def test_each_rule_is_silent_at_its_edge_for_ever_and_fires_beyond_it_alone(tmp_path: Path) -> None:
    assert {*EDGES, *COUNTERS} == {*alerts()}
    firing(tmp_path, [edge(), edge()], ())
    for name in alerts():
        firing(tmp_path, [edge(), edge(name)], [name])


def test_what_one_instance_can_not_reach_and_another_can_is_not_away(tmp_path: Path) -> None:
    other = edge() + b'lockbeat_store_up{instance="b:9100"} 0\nlockbeat_instances{instance="b:9100",role="scheduler"} 0\n'
    firing(tmp_path, [other, other], ())


@only("valkey")
@pytest.mark.parametrize("honor_labels", [True, False])
async def test_a_job_that_is_overdue(lb: Lockbeat, raw: Any, scrapes: Scrapes, beat: Beat, honor_labels: bool) -> None:
    """Instances are there, and not one of them fires it: to them it looks as if its time had not come."""
    async with serving(beat):
        await scrapes.take()
        state = await lb.jobs.get("yearly")
        late = await now_ms(lb) - 7_200_000
        raw.hset(lb.store.keys.key(lb.jobs.shard_of("yearly"), "job:slot"), "yearly", f"{late} {late} {state.job.rev}")
        key = lb.store.keys.key(lb.jobs.shard_of("yearly"), "job:due")
        raw.zadd(key, {"yearly": await now_ms(lb) + 900})  # hidden, as by one that takes it again and again
        await scrapes.take()
    said = "The job yearly has been due for 2h 0m"
    scrapes.fire("LockbeatJobOverdue", honor_labels=honor_labels, summaries={"LockbeatJobOverdue": said})


@only("valkey")
async def test_a_slot_that_was_missed(lb: Lockbeat, raw: Any, scrapes: Scrapes, beat: Beat) -> None:
    async with serving(beat):
        await scrapes.take()
        await backdate(lb, raw, "yearly", await last_slot(lb, await lb.jobs.get("yearly"), back=2))
        await scrapes.until("lockbeat_job_slots_total", job="yearly", outcome="missed")
        await scrapes.take()
    scrapes.fire("LockbeatSlotMissed", summaries={"LockbeatSlotMissed": "Slots were missed: job yearly"})


@only("valkey")
async def test_a_slot_that_was_missed_of_a_job_made_at_run_time(lb: Lockbeat, raw: Any, scrapes: Scrapes, beat: Beat) -> None:
    await lb.jobs.put("theirs", beat.declared["yearly"].trigger, function="yearly")
    async with serving(beat):
        await scrapes.take()
        await backdate(lb, raw, "theirs", await last_slot(lb, await lb.jobs.get("theirs"), back=2))
        await scrapes.until("lockbeat_slots_missed_total", reason="not_fired")
        await scrapes.take()
    scrapes.fire("LockbeatSlotMissed", summaries={"LockbeatSlotMissed": "not_fired, of jobs made at run time"})


@only("valkey")
async def test_an_event_loop_that_is_stuck(monkeypatch: pytest.MonkeyPatch, scrapes: Scrapes, beat: Beat) -> None:
    """It stands still while this function does; that this has lasted for two minutes is what a clock says."""
    async with serving(beat):
        await scrapes.take()
        store = await scrapes.metrics.store_text()
        scrapes.metrics.text()  # a scrape asks it to turn
        with monkeypatch.context() as patched:
            patched.setattr(turning, "monotonic", lambda: time.monotonic() + 120)
            scrapes.texts.append(scrapes.metrics.text() + store)
    said = "a:9100: the event loop has stood still for 2m"
    scrapes.fire("LockbeatNoTick", "LockbeatNotReady", summaries={"LockbeatNoTick": said})


@only("valkey")
async def test_nobody_fires(scrapes: Scrapes, beat: Beat, tmp_path: Path) -> None:
    task = asyncio.create_task(beat.serve(schedule=False))
    await wait_until(lambda: beat.health.started().ok or task.done(), "it serves")
    await scrapes.take()
    task.cancel()
    await asyncio.wait([task])
    scrapes.fire("LockbeatNobodyFires")
    firing(tmp_path, [b"lockbeat_unheard_of 1\n"], ["LockbeatNobodyFires"])  # all are gone, and nothing is scraped


@only("valkey")
async def test_a_task_that_failed_for_good(scrapes: Scrapes, beat: Beat) -> None:
    @beat.task(max_attempts=1)
    async def fails() -> None:
        raise ValueError("no")

    async with serving(beat):
        await scrapes.take()
        await beat.spawn(fails)
        await scrapes.until("lockbeat_queue_tasks", queue="default", state="dead")
        await scrapes.take()
    said = "Tasks of the queue default have failed for good"
    scrapes.fire("LockbeatDeadGrowing", summaries={"LockbeatDeadGrowing": said})


@only("valkey")
async def test_a_slot_that_failed(scrapes: Scrapes, beat: Beat) -> None:
    broken = asyncio.Event()

    @beat.every(0.2, max_attempts=1, catchup="all")
    async def breaks() -> None:
        if broken.is_set():
            broken.clear()
            raise ValueError("no")

    async with serving(beat):
        await scrapes.take()
        broken.set()
        await scrapes.until("lockbeat_job_slots_total", job="breaks", outcome="failed")
        await scrapes.take()
    said = "The last attempt at a slot of the job breaks was failed"
    scrapes.fire("LockbeatJobFails", "LockbeatDeadGrowing", summaries={"LockbeatJobFails": said})


@only("memory")
async def test_a_queue_that_nobody_serves(lb: Lockbeat, beats: Beats, tmp_path: Path, time_machine: Any) -> None:
    beat = beats()
    beat.every(3600 * 24 * 365, name="yearly")(lambda: None)
    scrapes = Scrapes(beat, tmp_path)
    async with serving(beat):
        await lb.tasks.spawn("send", queue="mail")
        await scrapes.take()
        time_machine.move_to(time.time() + 400, tick=True)
        await scrapes.until("lockbeat_instances", role="scheduler")  # it has given a sign of life since
        await scrapes.take()
    said = "A task of the queue mail has waited for 6m"
    scrapes.fire("LockbeatQueueWaits", summaries={"LockbeatQueueWaits": said})


@only("valkey")
async def test_a_lease_that_was_lost(scrapes: Scrapes, beat: Beat) -> None:
    async with serving(beat):
        await scrapes.take()
        assert beat.client is not None
        with contextlib.suppress(LockbeatError, asyncio.CancelledError):
            async with beat.client.lock("k", ttl=1):
                await beat.client.locks.release("k", beat.client.owner)
                await asyncio.sleep(60)
        await scrapes.take()
    said = "a:9100 lost a lease on a lock while it held it"
    scrapes.fire("LockbeatLeasesLost", summaries={"LockbeatLeasesLost": said})


@only("valkey")
async def test_a_clock_that_is_off(monkeypatch: pytest.MonkeyPatch, scrapes: Scrapes, beat: Beat) -> None:
    async with serving(beat):
        await scrapes.take()
    monkeypatch.setattr("lockbeat.program.serving.time", SimpleNamespace(time=lambda: time.time() - 90))
    async with serving(beat):
        await wait_until(lambda: beat.counting is not None and beat.counting.clock_offset < -5, "it has compared the clocks")
        await scrapes.take()
    said = "The clocks of a:9100 and of its store differ by 1m"
    scrapes.fire("LockbeatClockOffset", summaries={"LockbeatClockOffset": said})


async def test_a_store_that_goes_away(server: Server, namespace: str, tmp_path: Path) -> None:
    beat = Beat(server.url, namespace=namespace, timeout=1)
    beat.every(0.2, name="tick", overlap="allow", catchup="all")(lambda: None)
    scrapes = Scrapes(beat, tmp_path)
    async with serving(beat):
        await scrapes.take()
        server.kill()
        await wait_until(lambda: not beat.health.ready().ok, "it is not ready")
        await scrapes.take()
    scrapes.fire("LockbeatStoreAway", "LockbeatNotReady")


async def test_a_store_that_fills_up_and_one_that_drops_keys(server: Server, namespace: str, tmp_path: Path) -> None:
    beat = Beat(server.url, namespace=namespace)
    beat.every(3600, name="hourly")(lambda: None)
    scrapes = Scrapes(beat, tmp_path)
    async with serving(beat):
        server.call("CONFIG", "SET", "maxmemory", "1gb")
        await scrapes.take()
        full = int(await scrapes.value("lockbeat_store_memory_bytes", server="0") * 1.1)
        server.call("CONFIG", "SET", "maxmemory", str(full))
        await scrapes.take()
        scrapes.fire("LockbeatStoreAboutToEvict")
        server.call("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        for number in range(400):
            server.call("SET", f"else:{number}", "x" * 5000, "EX", "5")
        assert await scrapes.value("lockbeat_store_evicts", server="0") == 1
        await scrapes.until("lockbeat_store_evicted_keys_total", server="0")
        scrapes.texts.pop()
        await scrapes.take()
    scrapes.fire("LockbeatStoreAboutToEvict", "LockbeatStoreEvicts")
