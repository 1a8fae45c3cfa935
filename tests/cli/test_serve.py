"""run, beat, worker and server as processes: they fire, stop on a signal within bounds, and leave nothing behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lockbeat, Start, wait_until

JOBS = """
    import asyncio
    from lockbeat import Beat
    beat = Beat(grace=0.3)

    @beat.every(0.2)
    def tick(run):
        print("tick", run.fence, flush=True)

    @beat.every(0.2)
    async def endless(run):
        print("endless", run.fence, flush=True)
        await asyncio.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_fires_and_stops_on_a_signal_with_nothing_held(
    lockbeat: Lockbeat, start: Start, module: Callable[..., str], store: str, number: int
) -> None:
    process = start("run", f"{module(JOBS)}:beat", "--url", store)
    process.says("tick")
    process.says("endless")
    [instance] = lockbeat("instances", "--url", store, "--json").json
    assert instance["pid"] == process.popen.pid
    assert instance["schedules"]
    assert instance["queues"] == ["default"]
    locks = lockbeat("locks", "--owner", instance["owner"], "--url", store, "--json").json
    assert "job:endless" in [lock["key"] for lock in locks]

    began = time.monotonic()
    assert process.end(number) == 0
    assert time.monotonic() - began < 5
    assert lockbeat("instances", "--url", store, "--json").json == []
    assert lockbeat("locks", "--url", store, "--json").json == []
    assert "shutting down" in process.err

    entries = lockbeat("ledger", "tick", "--url", store, "--json").json
    assert entries[-1]["state"] == "done"
    assert entries[-1]["by"] == instance["owner"]
    assert "no job named" in lockbeat("why", "tock", entries[-1]["slot"], "--url", store).err
    told = lockbeat("why", "tick", entries[-1]["slot"], "--url", store)
    assert told.code == 0
    assert ": done. Attempt 1 of 1, by " in told.out
    cut = lockbeat("ledger", "endless", "--url", store).out
    assert "cut short" in cut
    assert "overlap: " in cut or len(cut.splitlines()) == 2
    [ticking] = [job for job in lockbeat("ls", "--url", store, "--json").json if job["job"] == "tick"]
    assert ticking["last"]["state"] in ("done", "missed")


def test_beat_fires_and_worker_runs(lockbeat: Lockbeat, start: Start, module: Callable[..., str], store: str) -> None:
    path = module("""
        from lockbeat import Beat
        beat = Beat()
        @beat.every(0.3, overlap="allow")
        def tick():
            print("tick", flush=True)
    """)
    scheduler = start("beat", path, "--url", store)
    wait_until(lambda: lockbeat("instances", "--url", store, "--json").json, "the beat serves")
    worker = start("worker", path, LOCKBEAT_URL=store)
    worker.says("tick")
    roles = {one["schedules"]: one["queues"] for one in lockbeat("instances", "--url", store, "--json").json}
    assert roles == {True: [], False: ["default"]}
    assert scheduler.out == ""
    assert (scheduler.end(), worker.end()) == (0, 0)


def test_run_takes_a_dotted_module_from_the_current_directory_and_a_namespace(
    lockbeat: Lockbeat, start: Start, module: Callable[..., str], store: str
) -> None:
    module(JOBS, "their_dotted_jobs")
    process = start("run", "their_dotted_jobs:beat", "--url", store, "--namespace", "elsewhere")
    process.says("tick")
    assert lockbeat("ls", "--url", store, "--json").json == []
    assert len(lockbeat("ls", "--url", store, "--namespace", "elsewhere", "--json").json) == 2
    assert process.end() == 0


LIFESPAN = """
    from contextlib import asynccontextmanager
    from lockbeat import Beat

    @asynccontextmanager
    async def opening(beat):
        print("opened", flush=True)
        if {broken}:
            raise RuntimeError("no configuration")
        yield "the pool"
        print("closed", flush=True)

    beat = Beat(lifespan=opening)

    @beat.every(0.1)
    async def tick(run):
        print("tick with", run.state, flush=True)
"""


def test_run_opens_before_it_runs_and_closes_after(start: Start, module: Callable[..., str], store: str) -> None:
    process = start("run", f"{module(LIFESPAN.format(broken=False))}:beat", "--url", store)
    process.says("tick with the pool")
    assert process.end() == 0
    lines = process.out.splitlines()
    assert (lines[0], lines[-1]) == ("opened", "closed")


def test_a_lifespan_that_fails_is_one_line_and_exit_code_1(start: Start, module: Callable[..., str], store: str) -> None:
    path = module(LIFESPAN.format(broken=True))
    for command in ("run", "worker"):
        process = start(command, f"{path}:beat", "--url", store)
        assert process.popen.wait(90) == 1
        [line] = [line for line in process.err.splitlines() if line.startswith("lockbeat: ")]
        assert f"can't serve {path}:beat, the beat's lifespan did not start: {path}:9: RuntimeError: no configuration" in line
        assert "lockbeat/" not in process.err.replace(path, "")  # of the traceback, only the user's own frames
        assert process.out == "opened\n"


def test_run_verbose_tells_what_it_fires_and_ends(start: Start, module: Callable[..., str], store: str) -> None:
    process = start("run", f"{module(JOBS)}:beat", "--url", store, "-v")
    wait_until(lambda: "ended tick@" in process.err, "the end of a task is logged")
    assert "fired " in process.err
    assert " of tick" in process.err
    assert process.end() == 0


def test_server_keeps_an_embedded_store_up(lockbeat: Lockbeat, start: Start, tmp_path: Path) -> None:
    process = start("server", str(tmp_path / "kept"))
    process.says("serving embedded://")
    assert lockbeat("ls", "--url", f"embedded://{tmp_path}/kept").code == 0
    assert process.end(signal.SIGINT) == 0
    assert not (tmp_path / "kept" / "server.sock").exists()


def test_output_that_nobody_reads_is_no_error(start: Start, store: str, raw: Any) -> None:
    import subprocess
    import sys

    from .conftest import ROOT

    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m lockbeat --help | true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
