"""One instance of the chaos tier, as a process: `python -m tests.chaos.instance`, told by the environment what to do.

Each body writes what it did as one line in one O_APPEND write: the evidence needs neither lockbeat nor the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time

from lockbeat import Beat, Fixed, Run

NAME = os.environ.get("CHAOS_NAME", "?")
# Real time for a process whose wall clock is faked: the monotonic clock is not, and is one for the whole machine.
CLOCK_OFFSET = float(os.environ.get("CHAOS_CLOCK_OFFSET", "0"))
BLOCKS_FOR = 3.0
"""Seconds; three leases of the job that blocks."""


def real_ms() -> float:
    """Wall-clock time as the harness has it, whatever this process's own clock says."""
    return (time.monotonic() + CLOCK_OFFSET) * 1000


class Effects:
    """The file that all instances append to."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def record(self, run: Run, event: str) -> None:
        """One line; the kernel keeps lines of several processes apart."""
        slot = None if run.slot is None else round(run.slot.timestamp() * 1000)
        line = {
            "event": event,
            "job": run.job,
            "slot": slot,
            "attempt": run.attempt,
            "fence": run.fence,
            "at": real_ms(),
            "instance": NAME,
            "pid": os.getpid(),
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")


def declare_version(beat: Beat, effects: Effects, version: int) -> None:
    """What two versions of the code declare otherwise: of each job another definition, and a job that only one of them has."""

    @beat.every((1, 2)[version - 1], name="changed", keep=2000)
    async def changed(run: Run) -> None:
        effects.record(run, "start")

    @beat.every(1, name="tuned", keep=2000, priority=version, timeout=5 * version, description=f"of version {version}")
    async def tuned(run: Run) -> None:
        effects.record(run, "start")
        await asyncio.sleep(0.2)
        effects.record(run, "end")

    @beat.every(1, name=f"of-version-{version}", keep=2000)
    async def own(run: Run) -> None:
        effects.record(run, "start")


def declare(beat: Beat, effects: Effects, jobs: int, blocking: bool) -> None:
    """The jobs of every instance: mostly quick ones each second, and one of each kind that may go wrong."""

    def quick(name: str) -> None:
        @beat.every(1, name=name, keep=2000)
        async def body(run: Run) -> None:
            effects.record(run, "start")
            await asyncio.sleep(0.01)
            effects.record(run, "end")

    for number in range(jobs):
        quick(f"quick-{number}")

    @beat.cron("*/2 * * * * *", name="cron", keep=2000)
    async def cron(run: Run) -> None:
        effects.record(run, "start")

    @beat.every(1, name="slow", keep=2000)
    async def slow(run: Run) -> None:
        effects.record(run, "start")
        await asyncio.sleep(2.3)
        effects.record(run, "end")

    @beat.every(1, name="both", overlap="allow", keep=2000)
    async def both(run: Run) -> None:
        effects.record(run, "start")
        await asyncio.sleep(1.3)
        effects.record(run, "end")

    @beat.every(2, name="thread", lease=2, keep=2000)
    def thread(run: Run) -> None:
        effects.record(run, "start")
        threading.Event().wait(0.3)  # libfaketime breaks time.sleep in threads
        effects.record(run, "end")

    @beat.every(1, name="retried", max_attempts=5, retry=Fixed(0.1), lease=2, keep=2000)
    async def retried(run: Run) -> None:
        effects.record(run, "start")
        await asyncio.sleep(0.5)
        effects.record(run, "end")

    if blocking:

        @beat.every(5, name="blocking", lease=1, keep=2000)
        async def block(run: Run) -> None:
            effects.record(run, "start")
            time.sleep(BLOCKS_FOR)  # noqa: ASYNC251 - blocking the loop is what is tested
            effects.record(run, "end")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    beat = Beat(os.environ["CHAOS_URL"], namespace=os.environ["CHAOS_NAMESPACE"], grace=3)
    effects = Effects(os.environ["CHAOS_EFFECTS"])
    declare(beat, effects, int(os.environ["CHAOS_JOBS"]), bool(os.environ.get("CHAOS_BLOCKING")))
    if version := int(os.environ.get("CHAOS_VERSION", "0")):
        declare_version(beat, effects, version)
    beat.run()


if __name__ == "__main__":
    main()
