"""Four hosts as four loops that do what cron does: call when their own clocks show a slot."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import using

from .conftest import Exec, Lockbeat

pytestmark = pytest.mark.usefixtures("old")

PERIOD, SLOTS = 4.0, 5
SKEWS = (-1.5, -0.4, 0.0, 1.5)
"""Seconds by which a host's cron calls before or after the slot: of half a minute and a period of eighty seconds, a twentieth."""


@pytest.mark.long
def test_each_slot_is_run_once_or_stands_in_the_ledger(execute: Exec, lockbeat: Lockbeat, store: str, tmp_path: Path) -> None:
    async def server_time(lb: object) -> float:
        return await lb.store.server_time()  # type: ignore[attr-defined, no-any-return]

    asked_at = time.monotonic()
    begins = using(store, server_time) // PERIOD * PERIOD + 2 * PERIOD
    offset = using(store, server_time) - time.monotonic()
    assert time.monotonic() - asked_at < 60
    ran = tmp_path / "ran"
    codes: list[int] = []

    def cron(skew: float) -> None:
        for n in range(SLOTS):
            time.sleep(max(begins + n * PERIOD + skew - offset - time.monotonic(), 0))
            host = execute("report", "--slot", f"{PERIOD:g}s", "--", "sh", "-c", f"echo $LOCKBEAT_SLOT $LOCKBEAT_FENCE >> {ran}")
            codes.append(host.ends())

    hosts = [threading.Thread(target=cron, args=(skew,)) for skew in SKEWS]
    for thread in hosts:
        thread.start()
    for thread in hosts:
        thread.join()
    lines = [line.split() for line in ran.read_text().splitlines()]
    slots, fences = [slot for slot, _ in lines], [int(fence) for _, fence in lines]
    assert slots == sorted(set(slots))
    assert fences == sorted(set(fences))
    assert set(codes) <= {0, 75}  # 75: the slot before had not ended, on a machine that is busy
    entries = lockbeat("ledger", "report", "-n", "100", "--url", store, "--json").json
    assert sorted(entry["slot"].replace(".000", "") for entry in entries if entry["state"] == "done") == slots
    assert {entry["state"] for entry in entries} <= {"done", "missed", "skipped"}
    # From the first to the last that was begun none is left out.
    known = sum(1 if entry["count"] is None else entry["count"] for entry in entries)
    first, last = (time.mktime(time.strptime(slots[at], "%Y-%m-%dT%H:%M:%SZ")) for at in (0, -1))
    assert known >= (last - first) / PERIOD + 1
