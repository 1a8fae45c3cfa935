"""What an instance was telling when it was killed is told by another; no burst, and no service that refuses, loses a slot."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lockbeat import Lockbeat
from lockbeat.alarms import Alarms, Sentry, check_in_id
from lockbeat.events import TaskDead
from lockbeat.jobs import Outbox
from lockbeat.values.durations import instant
from tests.alarms.services import Services
from tests.beats import Hands, eventually, minutely, overdue, scheduler
from tests.conftest import Connect, only, wait_until
from tests.guarantees.test_events import fails, kept

ROOT = Path(__file__).parents[2]
DIES = """
import os, signal, sys
from lockbeat import Beat
from lockbeat.jobs import outbox

outbox.LEASE_MS = 1000  # or another would wait for half a minute
beat = Beat(sys.argv[1], namespace=sys.argv[2])

@beat.events.task_dead
def dies(event):
    print(event.task_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

beat.run(work=False)
"""


def started(url: str, namespace: str) -> subprocess.Popen[bytes]:
    """An instance whose hook kills it."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", DIES, url, namespace], cwd=ROOT, env=env, stdout=subprocess.PIPE)


@only("valkey")
async def test_what_an_instance_was_telling_when_it_was_killed_is_told_by_another(
    url: str, namespace: str, lb: Lockbeat, raw: Any, connect: Connect
) -> None:
    process = started(url, namespace)
    try:
        listens = lb.store.keys.key(0, "job:counts")
        await wait_until(lambda: raw.hexists(listens, b"\xff") or process.poll() is not None, "it listens", 60)
        await fails(lb, raw)
        await fails(lb, raw)
        out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert kept(lb, raw) == 2, "it had forgotten neither"
    async with connect() as other:
        told = list[str]()

        @other.events.task_dead
        async def hook(event: TaskDead) -> None:
            told.append(event.task_id)

        telling = Outbox(other.store)

        async def both() -> bool:
            await telling.tick(0)
            return len(told) == 2

        await eventually(both, "the other tells both")
        await wait_until(lambda: not telling.busy, "it has")
        await telling.tick(0)
        await telling.aclose()
    assert out.decode().strip() in told
    assert len({*told}) == 2
    assert kept(lb, raw) == 0


@only("valkey")
async def test_a_burst_of_slots_is_told_once_each_by_two_instances_though_the_service_refuses_many(
    lb: Lockbeat, raw: Any, connect: Connect, told: Services
) -> None:
    jobs = [minutely(f"job{number}") for number in range(40)]
    hands = Hands(*(job.name for job in jobs))
    async with connect() as other:
        declared = {job.name: job for job in jobs}
        alarms = [Alarms([Sentry(told.dsn)], declared, one.jobs, one.tasks, "default") for one in (lb, other)]
        boxes = [Outbox(one.store, [alarm.tell]) for one, alarm in zip((lb, other), alarms, strict=True)]
        for box in boxes:
            await box.register()
        slots = {job.name: await overdue(lb, raw, job) for job in jobs}
        told.refuse += [500, 429, 503] * 8
        for _ in range(3):
            await scheduler(lb, *jobs, runner=hands).tick(0)
        for task in hands.tasks:
            await lb.tasks.complete(task)

        async def all_told() -> bool:
            await asyncio.gather(*(box.tick(0) for box in boxes))
            return kept(lb, raw) == 0

        await eventually(all_told, "all is told")
        assert [alarm.failed for alarm in alarms] == [0, 0]
        for box, alarm in zip(boxes, alarms, strict=True):
            await box.aclose()
            await alarm.aclose()
    assert told.refuse == []
    seen = {slug: Counter(map(tuple, statuses.values())) for slug, statuses in told.sentry.items()}
    assert seen == {job.name: {("in_progress", "ok"): 1} for job in jobs}
    assert all(check_in_id(name, instant(slot)).hex in told.sentry[name] for name, slot in slots.items())
