"""What the demo's instances run: jobs that note, outside of the store, that they ran.

Each begin and end is one line appended to a file, so the demo counts what the jobs did and not what lockbeat says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time

from lockbeat import Beat, Run

EFFECTS, NAME = "LOCKBEAT_DEMO_EFFECTS", "LOCKBEAT_DEMO_INSTANCE"
LEASE = 2
"""Seconds after which a dead instance's running job may start anew elsewhere."""
SLOW, SLOW_TAKES = "backup", 2.6

beat = Beat(grace=5)


def note(what: str, run: Run) -> None:
    """Append one line; O_APPEND keeps those of several processes apart."""
    assert run.slot is not None
    line = {
        "what": what,
        "job": run.job,
        "slot": round(run.slot.timestamp() * 1000),
        "by": os.environ[NAME],
        "fence": run.fence,
        "at": time.time(),
    }
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


@beat.every(1, name="mail", lease=LEASE)
@beat.every(1, name="metrics", lease=LEASE)
@beat.every(1, name="invoices", lease=LEASE)
@beat.cron("*/2 * * * * *", name="report", lease=LEASE)
@beat.cron("*/3 * * * * *", name="sync", lease=LEASE)
async def quick(run: Run) -> None:
    note("begin", run)
    await asyncio.sleep(0.02)
    note("end", run)


@beat.every(2, name=SLOW, lease=LEASE, overlap="skip")
async def slow(run: Run) -> None:
    """Takes longer than its period: while it runs it holds the lock `job:backup`, and slots that come due are skipped."""
    note("begin", run)
    try:
        ends = time.monotonic() + SLOW_TAKES
        while time.monotonic() < ends:  # noqa: ASYNC110 - work in small steps
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        note("cut", run)
        raise
    note("end", run)


def _end_with_the_demo() -> None:
    """However the demo ends, its end of our stdin closes with it."""
    while os.read(0, 1024):  # past sys.stdin, whose lock would have the interpreter abort when it ends first
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if NAME in os.environ:
    threading.Thread(target=_end_with_the_demo, daemon=True).start()
