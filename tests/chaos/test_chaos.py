"""Real processes, a real server, real signals. Each mode does its harm over and over; the checker looks at the effects.

`make chaos` runs every mode at length; the short runs are part of the normal suite. LOCKBEAT_CHAOS_SECONDS, _INSTANCES and _JOBS
change the size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Backfill, Lockbeat
from tests import servers
from tests.chaos.checker import Pause, Stretch, Verdict, judge
from tests.chaos.harness import Arena, Instance, Size, arena
from tests.conftest import needs

Harm = Callable[[Arena], None]


def kill_9(field: Arena) -> None:
    """An instance is killed again and again, and another started in its place."""
    while field.left > 4:
        field.ready(*field.running)  # starting takes longer than killing: else nobody would be left
        field.sleep(field.random.uniform(0.1, 1.1))
        field.busiest.kill()
        field.launch()


def rolling_restart(field: Arena) -> None:
    """One after the other is ended with SIGTERM and replaced, as a deployment does."""
    while field.left > 4:
        victim = field.running[0]
        replacement = field.launch()
        field.ready(replacement)
        victim.terminate()
        victim.process.wait(90)
        field.sleep(0.3)


def rolling_deploy(field: Arena) -> None:
    """Instances of two versions of the code take each other's places, now the one and now the other; some are killed."""
    version = 1
    while field.left > 4:
        version = 3 - version if field.random.random() < 0.7 else version
        victim = field.running[0]
        replacement = field.launch(CHAOS_VERSION=str(version))
        field.ready(replacement)
        if field.random.random() < 0.3:
            victim.kill()
        else:
            victim.terminate()
            victim.process.wait(90)
        field.sleep(0.3)


def paused(field: Arena) -> None:
    """Jobs are paused and resumed while instances are killed: by whoever is left, or by themselves at a time."""
    jobs = ["slow", "cron", "thread", *(f"quick-{number}" for number in range(min(field.size.jobs, 7)))]
    while field.left > 4:
        field.ready(*field.running)
        some, until = field.random.sample(jobs, 4), None
        if field.random.random() < 0.4:
            until = (datetime.now(UTC) + timedelta(seconds=field.random.uniform(1, 2))).replace(microsecond=0)

        async def pause(lb: Lockbeat, some: list[str] = some, until: datetime | None = until) -> None:
            for job in some:
                assert await lb.jobs.pause(job, "chaos", until, by="chaos")

        field.ask(pause)
        since = time.time() * 1000
        field.busiest.kill()
        field.launch()
        field.sleep(field.random.uniform(0.5, 2.5))
        catchup = field.random.choice([None, None, "latest"])
        ends = until.timestamp() * 1000 if until else time.time() * 1000

        async def resume(lb: Lockbeat, some: list[str] = some, catchup: Any = catchup) -> None:
            for job in some:
                await lb.jobs.resume(job, catchup, by="chaos")

        if until is None:
            field.ask(resume)
        else:
            servers.wait_until(lambda: not field.ask(still_paused), "the pauses are over", 20)
        field.pauses += [Pause(job, since, ends, until is not None or catchup is None) for job in some]


def backfilled(field: Arena) -> None:
    """Nobody is there for a while. What was missed is backfilled, and all instances are killed thrice meanwhile."""
    field.sleep(2)
    since = datetime.now(UTC)
    replace_all(field, after=max(6.0, field.size.seconds / 3))
    until = datetime.now(UTC)
    jobs = ["cron", "thread", *(f"quick-{number}" for number in range(min(field.size.jobs, 3)))]

    async def begin(lb: Lockbeat) -> None:
        for job in jobs:
            await lb.jobs.backfill(job, since, until, rate=1, by="chaos")

    field.ask(begin)
    for _ in range(3):
        servers.wait_until(partial(more_fired, field, fired(field)), "a backfill goes on", 60)
        replace_all(field)
    servers.wait_until(lambda: all(one.is_over for one in field.ask(backfills)), "the backfills have ended", 120)
    field.backfills += [Stretch(job, since.timestamp() * 1000, until.timestamp() * 1000) for job in jobs]


def replace_all(field: Arena, after: float = 0) -> None:
    """Kill every instance; start as many others after some seconds."""
    for instance in field.running:
        instance.kill()
    field.sleep(after)
    field.ready(*[field.launch() for _ in range(field.size.instances)])


def fired(field: Arena) -> int:
    return sum(one.fired for one in field.ask(backfills))


def more_fired(field: Arena, before: int) -> bool:
    return fired(field) > before


async def backfills(lb: Lockbeat) -> list[Backfill]:
    found = [await lb.jobs.get_backfill(state.job.name) for state in await lb.jobs.list()]
    return [one for one in found if one is not None]


async def still_paused(lb: Lockbeat) -> list[str]:
    return [state.job.name for state in await lb.jobs.list() if state.paused]


def frozen_instance(field: Arena) -> None:
    """An instance is stopped for longer than its leases last, and goes on with what it was doing."""
    while field.left > 6:
        victim = field.busiest
        victim.freeze()
        field.sleep(min(8, field.left - 4))
        victim.thaw()
        field.sleep(2)


def server_killed(field: Arena) -> None:
    """The server is killed -9 and started again with its append-only file."""
    while field.left > 4:
        field.sleep(1.5)
        field.server.restart()
        field.sleep(min(2, field.left))


def server_frozen(field: Arena) -> None:
    """The server holds its connections and answers nothing for ten seconds."""
    field.sleep(2)
    field.server.freeze()
    field.sleep(min(10, field.left - 4))
    field.server.thaw()


def server_away(field: Arena) -> None:
    """The server is gone for ten seconds."""
    field.sleep(2)
    field.server.kill()
    field.sleep(min(10, field.left - 4))
    field.server.restart()


def emptied(field: Arena) -> None:
    """FLUSHALL: every job, task, lease and fence is gone."""
    while field.left > 4:
        field.sleep(field.random.uniform(1, 3))
        field.empty()


def clocks_off(field: Arena) -> None:
    """One instance is an hour ahead, another an hour behind: they were started so. Nothing else is done."""
    field.sleep(field.left - 1)


def pubsub_killed(field: Arena) -> None:
    """The connections on which instances are told of changes are cut."""
    while field.left > 3:
        field.sleep(0.4)
        field.command("CLIENT", "KILL", "TYPE", "pubsub")


def connections_killed(field: Arena) -> None:
    """All connections are cut, whatever is on its way on them."""
    while field.left > 3:
        field.sleep(field.random.uniform(0.1, 0.7))
        field.command("CLIENT", "KILL", "TYPE", "normal")
        field.command("CLIENT", "KILL", "TYPE", "pubsub")


def loop_blocked(field: Arena) -> None:
    """A job blocks the event loop of its instance for three leases. It does so by itself."""
    field.sleep(field.left - 1)


MODES: dict[str, tuple[Harm, float | None]] = {
    "kill_9": (kill_9, 1000),
    "rolling_restart": (rolling_restart, 1000),
    "rolling_deploy": (rolling_deploy, None),
    "paused": (paused, None),
    "backfilled": (backfilled, None),
    "frozen_instance": (frozen_instance, 1000),
    "server_killed": (server_killed, None),
    "server_frozen": (server_frozen, None),
    "server_away": (server_away, None),
    "emptied": (emptied, None),
    "clocks_off": (clocks_off, 1000),
    "pubsub_killed": (pubsub_killed, 1000),
    "connections_killed": (connections_killed, None),
    "loop_blocked": (loop_blocked, None),
}
"""What is done, and how late the 99th of 100 starts may be, in ms."""


def modes(names: Iterable[str]) -> list[object]:
    """As parameters of a test."""
    return [pytest.param(name, marks=needs("faketime") if name == "clocks_off" else ()) for name in names]


def run(mode: str, directory: Path, size: Size, *, punctual: bool = True) -> Verdict:
    """Do harm to a running beat, end it, and judge; how late it is, too, if it must be `punctual`."""
    harm, p99_ms = MODES[mode]
    versions = mode == "rolling_deploy"
    with arena(directory, size, blocking=mode == "loop_blocked", versions=versions) as field:
        first: list[Instance] = []
        for number in range(size.instances):
            environment = {"CHAOS_VERSION": "1"} if versions else {}
            if mode == "clocks_off" and number < 2:
                environment = {
                    "LD_PRELOAD": str(servers.FAKETIME),
                    "FAKETIME": ("+1h", "-1h")[number],
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                }
            first.append(field.launch(**environment))
        field.ready(*first)
        since_ms = time.time() * 1000
        field.started = time.monotonic()
        harm(field)
        # Time to come back, and for every lease of a dead owner to be taken over.
        field.sleep(max(field.left, 1.0))
        until_ms = time.time() * 1000 - 1000
        field.end()
        return judge(field.evidence(since_ms, until_ms), p99_ms=p99_ms if punctual else None)


@needs("valkey")
@pytest.mark.chaos
@pytest.mark.parametrize("mode", modes(MODES))
def test_each_slot_runs_once_and_none_vanishes_while(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = run(mode, tmp_path, Size.full())
    with capsys.disabled():
        print("\n" + verdict.row(mode))
    assert not verdict.problems, f"{len(verdict.problems)} problems:\n" + "\n".join(verdict.problems[:20])
    assert verdict.ran > verdict.expected * 0.2


SHORT = {"kill_9": 5.5, "paused": 7.0, "server_killed": 5.5, "emptied": 5.5, "clocks_off": 4.0}


@needs("valkey")
@pytest.mark.parametrize("mode", modes(SHORT))
def test_in_a_short_run_each_slot_runs_once_and_none_vanishes_while(mode: str, tmp_path: Path) -> None:
    verdict = run(mode, tmp_path, Size(seconds=SHORT[mode], instances=3, jobs=10), punctual=False)
    assert not verdict.problems, f"{len(verdict.problems)} problems:\n" + "\n".join(verdict.problems[:20])
    assert verdict.ran > verdict.expected * 0.2
