"""Worker processes that are killed, frozen and blocked while there are tasks: each is done exactly once, and none is lost.

`make chaos` runs every mode at length, with kill -9 for LOCKBEAT_CHAOS_TASKS tasks (20,000) and LOCKBEAT_CHAOS_WORKERS workers
(10); LOCKBEAT_CHAOS_SECONDS is how long tasks come in the other modes. The short runs are part of the normal suite.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.task_checker import Verdict, judge
from tests.chaos.task_harness import KINDS, Load, TaskArena, task_arena
from tests.conftest import needs

Harm = Callable[[TaskArena], None]


def kill_9(arena: TaskArena) -> None:
    """Every few hundred ms a worker is killed and another started, for as long as tasks are left."""
    while arena.goes_on:
        arena.kill_one()
        arena.place.sleep(arena.place.random.uniform(0.2, 0.6))


def frozen_worker(arena: TaskArena) -> None:
    """A worker is stopped for longer than its leases last, and goes on with what it was doing."""
    while arena.goes_on:
        arena.place.sleep(arena.place.random.uniform(0.3, 0.8))
        arena.freeze_one(1.4 * arena.load.lease)


def server_killed(arena: TaskArena) -> None:
    """The server is killed -9 and started again with its append-only file."""
    while arena.goes_on:
        arena.place.sleep(1.5)
        arena.place.server.restart()
        arena.kills += 1


def connections_killed(arena: TaskArena) -> None:
    """All connections are cut, whatever is on its way on them."""
    while arena.goes_on:
        arena.place.sleep(arena.place.random.uniform(0.1, 0.7))
        arena.place.command("CLIENT", "KILL", "TYPE", "normal")
        arena.place.command("CLIENT", "KILL", "TYPE", "pubsub")
        arena.kills += 1


def replies_lost(arena: TaskArena) -> None:
    """What is asked is done, and the connection cut before the answer comes."""
    assert arena.lossy is not None
    while arena.goes_on:
        arena.place.sleep(arena.place.random.uniform(0.02, 0.2))
        arena.lossy.lose_reply()
    arena.kills = arena.lossy.proxy.lost


def loop_blocked(arena: TaskArena) -> None:
    """Some tasks block the event loops of their workers for three leases. They do so by themselves."""
    arena.await_end()


MODES: dict[str, Harm] = {
    "kill_9": kill_9,
    "frozen_worker": frozen_worker,
    "server_killed": server_killed,
    "connections_killed": connections_killed,
    "replies_lost": replies_lost,
    "loop_blocked": loop_blocked,
    "loop_blocked_in_a_claim": loop_blocked,
}
WHILE_BLOCKED = {kind: share for kind, share in KINDS.items() if kind != "hand"}
"""Nobody renews what is claimed by hand: there a blocked loop does lose the lease."""
WHILE_FROZEN = {**KINDS, "hand": 8, "slow_hand": 3, "long": 5}
"""Each worker has some at any time that it is frozen in."""
STEADY = {**KINDS, "long": 1}
"""One in a hundred runs for longer than its lease."""


def full(mode: str) -> Load:
    """The long form of a mode."""
    ask = os.environ.get
    tasks, workers = int(ask("LOCKBEAT_CHAOS_TASKS", "20000")), int(ask("LOCKBEAT_CHAOS_WORKERS", "10"))
    load = Load(tasks, workers, lease=5, limit=120 + tasks / 25)
    if mode == "kill_9":
        return load
    seconds = float(ask("LOCKBEAT_CHAOS_SECONDS", "20"))
    load = replace(
        load, tasks=max(tasks // 10, 200), workers=max(workers // 2, 3), over=seconds, limit=seconds + 120, kinds=STEADY
    )
    if mode == "loop_blocked":
        return replace(load, kinds=WHILE_BLOCKED, blocks=4)
    if mode == "loop_blocked_in_a_claim":
        return replace(load, kinds=WHILE_BLOCKED, blocks=4, blocks_after=(0.0005, 0.002, 0.005), concurrency=100, over=0)
    if mode == "frozen_worker":
        return replace(load, kinds=WHILE_FROZEN)
    return replace(load, proxied=mode == "replies_lost")


def run(mode: str, directory: Path, load: Load, *, wait_for_retention: bool = False) -> Verdict:
    """Have tasks done under harm until none is left, and judge."""
    with task_arena(directory, load) as arena:
        arena.begin()
        MODES[mode](arena)
        return judge(arena.evidence(wait_for_retention))


def hold(verdict: Verdict) -> None:
    """No problem was found, and harm was done."""
    assert not verdict.problems, f"{len(verdict.problems)} problems:\n" + "\n".join(verdict.problems[:20])


@needs("valkey")
@pytest.mark.chaos
@pytest.mark.parametrize("mode", MODES)
def test_each_task_is_done_once_and_none_is_lost_while(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = run(mode, tmp_path, full(mode), wait_for_retention=mode == "kill_9")
    with capsys.disabled():
        print("\n" + verdict.row(mode))
    hold(verdict)
    assert mode.startswith("loop_blocked") or verdict.kills > 0
    assert mode != "frozen_worker" or verdict.refused > 0


SHORT = {
    "kill_9": Load(400, 3, lease=3, limit=120, over=2.5),
    "loop_blocked": Load(150, 2, lease=2, limit=120, kinds=WHILE_BLOCKED, blocks=1, over=1),
}


@needs("valkey")
@pytest.mark.parametrize("mode", SHORT)
def test_in_a_short_run_each_task_is_done_once_and_none_is_lost_while(mode: str, tmp_path: Path) -> None:
    verdict = run(mode, tmp_path, SHORT[mode])
    hold(verdict)
    assert mode.startswith("loop_blocked") or verdict.kills > 0
