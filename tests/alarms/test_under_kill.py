"""Five instances, killed and started again, and a time in which there is none: each slot is told to each service once."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from lockbeat import Lockbeat
from tests.alarms.services import Services
from tests.alarms.test_monitors import ends, expected, settled
from tests.conftest import only, wait_until

ROOT = Path(__file__).parents[2]


class Fleet:
    """Processes that serve the same beat."""

    def __init__(self, url: str, namespace: str, port: int, log: Path) -> None:
        self._args = [sys.executable, "-m", "tests.alarms.instance", url, namespace, str(port)]
        self._log = log
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            with self._log.open("ab") as log:
                self.running.append(
                    subprocess.Popen(self._args, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
                )

    def kill(self, count: int) -> None:
        """kill -9, the oldest first."""
        for _ in range(count):
            process = self.running.pop(0)
            process.kill()
            process.wait()

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(60)
        self.running.clear()


def has_more(told: Services, count: int) -> bool:
    """Whether more slots were told than so many."""
    return len(told.sentry["quick"]) > count


@contextmanager
def fleet(url: str, namespace: str, port: int, log: Path) -> Iterator[Fleet]:
    made = Fleet(url, namespace, port, log)
    try:
        yield made
    finally:
        made.kill(len(made.running))


@pytest.mark.long
@only("valkey")
async def test_each_slot_is_told_once_by_five_instances_that_are_killed(
    url: str, namespace: str, lb: Lockbeat, told: Services, tmp_path: Path
) -> None:
    jobs = ("quick", "slow", "fails")
    with fleet(url, namespace, told.port, tmp_path / "log") as instances:
        instances.start(5)
        await wait_until(lambda: len(told.sentry["slow"]) >= 2, "they have begun", 60)
        for _ in range(4):
            instances.kill(1)
            instances.start(1)
            before = len(told.sentry["quick"])
            await wait_until(partial(has_more, told, before), "the others go on", 60)
        instances.kill(5)  # whatever they were at
        before = len(told.sentry["quick"])
        await asyncio.sleep(2.5)  # nobody is there: these slots are missed
        instances.start(5)
        await wait_until(partial(has_more, told, before + 2), "they are back", 60)
        await asyncio.to_thread(instances.stop)
        instances.start(1)  # and tells what those have left
        ids: dict[str, dict[str, str]] = {}
        for job in jobs:
            ledger = await lb.jobs.ledger(job, 1000)
            ids[job] = expected(entry for entry in ledger if (entry.at or 0) < (ledger[0].at or 0) - 5)
        try:
            await wait_until(lambda: all(settled(told, job, ids[job]) for job in jobs), "all are told", 90)
        except AssertionError as problem:
            services = {"sentry": told.sentry, "pings": told.pings, "cronitor": told.cronitor}
            lacking = {
                (name, job, one, status, tuple(service[job][one]))
                for name, service in services.items()
                for job in jobs
                for one, status in ids[job].items()
                if not ends(service[job][one])
            }
            raise AssertionError(f"{problem}: {len(lacking)} are not, such as {sorted(lacking)[:8]}") from None
    assert {"missed"} <= {entry.state for job in jobs for entry in await lb.jobs.ledger(job, 1000)}
    for service, job in itertools.product((told.sentry, told.pings, told.cronitor), jobs):
        of_slots = {one: ends(statuses) for one, statuses in service[job].items()}
        assert all(len(found) <= 1 for found in of_slots.values()), f"one end each: {of_slots}"
        assert set(ids[job]) <= set(of_slots), "none is lacking"
        known = expected(await lb.jobs.ledger(job, 1000))
        strange = {one for one, found in of_slots.items() if found and one not in known}
        assert not strange, f"of no slot: {strange}"
