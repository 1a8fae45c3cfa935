"""top: one snapshot where nobody watches; on a terminal, a picture that follows the store until it is told to end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Claim
from lockbeat import Lockbeat as Client
from lockbeat.embedded import EmbeddedServer
from lockbeat.jobs import Job, Scheduler
from lockbeat.monitor import Overview, TaskStats, overview
from lockbeat.triggers import Every

from .conftest import Lockbeat, left, using
from .terminal import LINES, Terminal

SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"
"""The cursor."""
OTHER, OWN = "\x1b[?1049h", "\x1b[?1049l"
"""Which screen of the terminal is shown."""


async def fill(lb: Client) -> None:
    """Tasks in two queues, an instance that serves one of them and another, leases of all kinds."""
    for _ in range(3):
        await lb.tasks.spawn("resize")
    await lb.tasks.spawn("report", queue="slow", delay=600)
    await lb.tasks.claim("default", "host-1", lease=60)
    info = {"pid": 7, "host": "host", "schedules": True, "queues": ["default", "mail"], "jobs": 1, "concurrency": 10}
    await lb.store.call("beat/heartbeat", 0, owner="host-1", info=json.dumps(info), ttl_ms=30_000, version="")
    await lb.locks.try_acquire("a", "host-1", 60)
    await lb.locks.try_acquire("b", "elsewhere", 60)
    await lb.claims.acquire("c", "host-1", 60)


@pytest.fixture
def busy(store: str) -> str:
    using(store, fill)
    return store


def test_top_is_one_snapshot_where_no_terminal_watches(lockbeat: Lockbeat, busy: str) -> None:
    answer = lockbeat("top", "--url", busy)
    assert (answer.code, answer.err) == (0, "")
    title, stats, queues, instances = answer.out.split("\n\n")
    assert title.endswith(f"Z  {busy}  1 instance; held: 1 task, 2 locks, 1 claim")
    assert [line.split() for line in stats.splitlines()] == [
        ["TASKS", "SPAWNED", "BEGUN", "DONE", "RETRIED", "FAILED", "LOST", "CANCELLED", "LEFT"],
        ["in", "all", "4", "1", "0", "0", "0", "0", "0", "0"],
    ]
    assert [line.split() for line in queues.splitlines()] == [
        ["QUEUE", "READY", "DELAYED", "RUNNING", "DEAD", "WORKERS"],
        ["default", "2", "0", "1", "0", "1"],
        ["mail", "0", "0", "0", "0", "1"],
        ["slow", "0", "1", "0", "0", "0"],
    ]
    assert [line.split() for line in instances.splitlines()] == [
        ["OWNER", "QUEUES", "SCHEDULES", "RUNNING", "LOCKS", "STATE"],
        ["host-1", "default", "mail", "yes", "1/10", "1", "alive"],
    ]


def test_top_json(lockbeat: Lockbeat, busy: str) -> None:
    told = lockbeat("top", "--url", busy, "--json").json
    assert (told["store"], told["namespace"]) == (busy, "lockbeat")
    assert datetime.fromisoformat(told["at"]).utcoffset() is not None
    assert (told["running"], told["locks"], told["locks_complete"], told["claims"]) == (1, 2, True, 1)
    assert told["tasks"]["spawned"] == 4
    assert told["queues"][0] == {"queue": "default", "ready": 2, "delayed": 0, "running": 1, "dead": 0, "workers": 1}
    [instance] = told["instances"]
    assert (instance["owner"], instance["running"], instance["locks"], instance["concurrency"]) == ("host-1", 1, 1, 10)


def test_what_is_held_counts_each_lease_once_and_no_claim_that_ran_out(lockbeat: Lockbeat, store: str) -> None:
    async def hold(lb: Client) -> None:
        await lb.jobs.put(Job.declare("tick", Every(0.05)))
        while not (taken := await lb.tasks.claim("default", "host-1", 1, 60)):
            await Scheduler(lb.store, lb.jobs, {}, None).tick(0)
        assert taken[0].lock == "job:tick", "it is a lock as well"
        await lb.locks.try_acquire("a", "host-1", 60)
        await lb.claims.acquire("live", "host-1", 60)
        claim = await lb.claims.acquire("past", "host-1", 0.001)
        assert isinstance(claim, Claim)
        while await lb.store.server_time() <= claim.expires_at:
            await asyncio.sleep(0.001)

    using(store, hold)
    told = lockbeat("top", "--url", store, "--json").json
    assert (told["running"], told["locks"], told["claims"]) == (1, 1, 1)
    assert lockbeat("top", "--url", store).out.splitlines()[0].endswith("held: 1 task, 1 lock, 1 claim")


def test_top_of_an_empty_store_writes_nothing(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    answer = lockbeat("top", "--url", store)
    assert answer.code == 0
    assert "0 instances; held: 0 tasks, 0 locks, 0 claims" in answer.out
    assert left(raw) == set()


@pytest.mark.parametrize("end", ["ctrl-c", "SIGTERM"])
def test_top_on_a_terminal_follows_the_store_until_it_is_told_to_end(busy: str, end: str) -> None:
    with Terminal("top", "--refresh", "0.1", "--url", busy) as terminal:
        terminal.says(OTHER)
        terminal.says("held: 1 task,")
        terminal.says("a second")
        using(busy, lambda lb: lb.tasks.claim("default", "host-2", 2, lease=60))
        terminal.says("held: 3 tasks,")
        assert OWN not in terminal.said
        if end == "ctrl-c":
            terminal.types("\x03")
        else:
            terminal.signals(signal.SIGTERM)
        assert terminal.ends() == 0
    _, _, after = terminal.said.rpartition(OWN)
    assert "held: 3 tasks," in after  # what was seen last stays
    assert "Traceback" not in terminal.said
    assert terminal.said.rindex(SHOWN) > terminal.said.rindex(HIDDEN)


def test_top_gives_the_screen_back_while_it_is_stopped_and_goes_on(busy: str) -> None:
    with Terminal("top", "--refresh", "0.1", "--url", busy) as terminal:
        terminal.says(OTHER)
        terminal.says("held: 1 task,")
        terminal.types("\x1a")  # Ctrl-Z
        terminal.says(OWN)
        terminal.stops()
        assert terminal.said.rindex(SHOWN) > terminal.said.rindex(HIDDEN)
        using(busy, lambda lb: lb.tasks.claim("default", "host-2", 2, lease=60))
        terminal.signals(signal.SIGCONT)
        terminal.says(OTHER)
        terminal.says("held: 3 tasks,")
        terminal.types("\x03")
        assert terminal.ends() == 0
    assert terminal.said.rindex(SHOWN) > terminal.said.rindex(HIDDEN)


def test_top_shows_what_fits_and_says_how_much_does_not(store: str) -> None:
    async def crowd(lb: Client) -> None:
        for number in range(60):
            await lb.tasks.spawn("resize", queue=f"queue-{number:02}")
        await lb.tasks.spawn("resize", queue="queue-59")

    using(store, crowd)
    with Terminal("top", "--refresh", "0.1", "--url", store) as terminal:
        terminal.says(" queues more")
        terminal.types("\x03")
        assert terminal.ends() == 0
    _, _, after = terminal.said.rpartition(OWN)
    assert len(after.splitlines()) <= LINES
    assert "queue-00" in after
    assert "queue-50" not in after
    assert "queue-59" in after


def test_top_once_on_a_terminal_is_a_snapshot(busy: str) -> None:
    with Terminal("top", "--once", "--url", busy) as terminal:
        assert terminal.ends() == 0
    assert OTHER not in terminal.said
    assert "host-1" in terminal.said


def test_top_outlives_a_store_that_is_restarted(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with EmbeddedServer.open(path, persist=True) as server:
        url = f"embedded://{server.directory}"
        using(url, fill)
        with Terminal("top", "--refresh", "0.1", "--url", f"unix://{server.socket_path}") as terminal:
            terminal.says("held: 1 task,")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            terminal.says("can't look since then: ")
            server.ensure_running()
            using(url, lambda lb: lb.tasks.claim("default", "host-2", 2, lease=60))
            terminal.says("held: 3 tasks,")
            terminal.types("\x03")
            assert terminal.ends() == 0
    assert "can't look" not in terminal.said.rpartition(OWN)[2]
    assert "Traceback" not in terminal.said


# -- what it asks


def seen(store: str, **options: Any) -> Overview:
    found: Overview = using(store, lambda lb: overview(lb.store), **options)
    return found


def test_an_overview_adds_up_the_shards(store: str) -> None:
    async def crowd(lb: Client) -> None:
        for number in range(30):
            await lb.tasks.spawn("resize", queue="a")
            await lb.locks.try_acquire(f"lock-{number}", "host-1", 60)
            await lb.claims.acquire(f"claim-{number}", "host-1", 60)
        await lb.tasks.claim("a", "host-1", 10, lease=60)

    using(store, crowd, shards=3)
    found = seen(store)
    [load] = found.queues
    assert (load.queue, load.ready, load.running) == ("a", 20, 10)
    assert (found.locks, found.claims, found.running) == (30, 30, 10)
    assert (found.stats.spawned, found.stats.begun) == (30, 10)
    assert found.running_by == {"host-1": 10}
    assert found.locks_by == {"host-1": 30}


def test_what_was_left_to_others_was_not_begun(store: str) -> None:
    async def hand_over(lb: Client) -> None:
        for _ in range(3):
            await lb.tasks.spawn("resize")
        kept, left, put_off = await lb.tasks.claim("default", "host-1", 3)
        assert await lb.tasks.release(left)
        assert await lb.tasks.defer(put_off, 60)
        assert await lb.tasks.release(kept, begun=True)

    using(store, hand_over)
    found = seen(store).stats
    assert (found.begun, found.left, found.retried) == (1, 2, 1)


def test_an_overview_pages_through_queues(store: str) -> None:
    async def crowd(lb: Client) -> None:
        for number in range(205):
            await lb.tasks.spawn("resize", queue=f"queue-{number:03}")

    using(store, crowd)
    assert [load.queue for load in seen(store).queues] == [f"queue-{number:03}" for number in range(205)]


def test_an_overview_looks_at_so_many_and_says_that_it_did(
    lockbeat: Lockbeat, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.monitor._overview.MOST_RUNNING", 0)
    monkeypatch.setattr("lockbeat.monitor._overview.MOST_LOCKS", 1)
    monkeypatch.setattr("lockbeat.monitor._overview.PAGE_LOCKS", 1)
    found = seen(busy)
    assert (found.running, found.running_by) == (1, None)
    assert {load.running for load in found.queues} == {None}
    assert (found.locks, found.locks_complete) == (1, False)
    out = lockbeat("top", "--url", busy).out
    assert "more than 1 locks" in out
    assert "?/10" in out


def test_a_queue_that_only_runs_is_in_the_overview(store: str) -> None:
    async def begin(lb: Client) -> None:
        await lb.tasks.spawn("resize", queue="only")
        await lb.tasks.claim("only", "host-1", lease=60)

    using(store, begin)
    assert [(load.queue, load.running) for load in seen(store).queues] == [("only", 1)]


def test_rates_are_differences_over_the_servers_time(store: str) -> None:
    before = replace(seen(store), at=100.0, stats=TaskStats(10, 0, 0, 0, 0, 0, 0))
    after = replace(before, at=102.5, stats=TaskStats(15, 5, 0, 0, 0, 0, 0))
    rates = after.rates_since(before)
    assert rates is not None
    assert (rates["spawned"], rates["begun"], rates["done"]) == (2.0, 2.0, 0.0)
    assert before.rates_since(before) is None
    left = replace(after, at=105.0, stats=TaskStats(15, 3, 0, 0, 0, 0, 0, 2))
    rates = left.rates_since(after)
    assert rates is not None, "fewer were begun, as two were left to others"
    assert (rates["spawned"], rates["begun"], rates["left"]) == (0.0, 0.0, 0.8)
    emptied = replace(after, stats=TaskStats(0, 0, 0, 0, 0, 0, 0))
    assert emptied.rates_since(before) is None
