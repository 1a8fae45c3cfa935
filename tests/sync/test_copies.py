"""Processes that are not forked, but sent what they need: by multiprocessing's `spawn` and `forkserver`."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lockbeat
from lockbeat import sync
from lockbeat.events import RunDone, RunFailed
from tests.conftest import PATIENCE, only
from tests.sync.conftest import Blocking

SENT = """
import multiprocessing, sys
from lockbeat.sync import Lockbeat

def work(lb, owners):
    with lb, lb.lock("k", ttl=20):
        owners.put(lb.owner)

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    owners = spawn.SimpleQueue()
    with Lockbeat(sys.argv[1], namespace=sys.argv[2]) as lb:
        children = [spawn.Process(target=work, args=(lb, owners)) for _ in range(2)]
        for child in children:
            child.start()
        print(len({lb.owner, owners.get(), owners.get()}))
        for child in children:
            child.join()
            assert child.exitcode == 0
"""


def sent(what: Any) -> Any:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(what))  # noqa: S301 - it is our own


def report(run: lockbeat.Run) -> None:
    pass


def ended(event: RunDone) -> None:
    pass


async def failed(event: RunFailed) -> None:
    pass


@only("valkey")
def test_a_client_is_sent_to_other_processes_which_open_it_under_names_of_their_own(
    url: str, namespace: str, tmp_path: Path
) -> None:
    """redis-py#1931, django-q#424: cannot pickle '_thread.lock' object."""
    program = tmp_path / "program.py"
    program.write_text(SENT)
    done = subprocess.run([sys.executable, str(program), url, namespace], capture_output=True, timeout=2 * PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"3\n", b"")


@only("valkey")
def test_a_copy_of_an_open_client_is_a_closed_one(blocking: Blocking, namespace: str) -> None:
    lb = blocking(log_url="https://logs.test/?q={task_id}").open()
    lb.events.run_done(ended)
    again = sent(lb)
    with again:
        assert (again.namespace, again.url) == (namespace, lb.url)
        assert again.owner != lb.owner
        assert again.events.run_done.heard
    assert lb.is_open


@pytest.mark.parametrize("of", [lockbeat, sync])
def test_a_beat_is_sent_with_its_jobs_and_hooks(of: Any) -> None:
    """rq#2348: `Process(target=beat.run)` where processes are not forked, as everywhere from Python 3.14 on."""
    beat = of.Beat(of.Lockbeat("memory://"))
    beat.every(60)(report)
    beat.events.run_done(ended)
    beat.events.run_failed(failed)
    again = sent(beat)
    assert [hook.name for hook in again.events.all if hook.heard] == ["run_done", "run_failed"]
    assert [one.function for one in again.events.run_failed.listeners] == [failed]
    assert sent(again.run).__self__.events.run_done.heard


async def test_an_open_asynchronous_client_says_that_it_can_not_be_sent(lb: lockbeat.Lockbeat) -> None:
    with pytest.raises(TypeError, match="a Lockbeat that is open can't be copied, nor sent to another process: open one there"):
        pickle.dumps(lb)


COPY: dict[str, Callable[[Any], Any]] = {"pickle": pickle.dumps, "copy": copy.copy, "deepcopy": copy.deepcopy}
BLOCK = "a block can't be copied, nor sent to another process: make one there"
OPEN = "what belongs to an open Lockbeat can't be copied, nor sent to another process: open one there"
SERVES = "a Beat that serves can't be copied, nor sent to another process: send it before it does"


@pytest.mark.parametrize("way", COPY)
def test_a_block_says_that_it_can_not_be_copied_and_keeps_its_lease(blocking: Blocking, way: str) -> None:
    """A copy that was dropped gave the lease back, in the midst of the block."""
    with blocking() as lb:
        lock, claim = lb.lock("k"), lb.claims.hold("k")
        for block in (lock, claim):
            with pytest.raises(TypeError, match=BLOCK):
                COPY[way](block)
        with lock as lease, claim:
            for block in (lock, claim):
                with pytest.raises(TypeError, match=BLOCK):
                    COPY[way](block)
            lease.check()
            claim.check()
            again = sent(lease)
            assert type(again) is lockbeat.Lease
            assert again == lease


@pytest.mark.parametrize("way", COPY)
async def test_an_asynchronous_block_says_that_it_can_not_be_copied(lb: lockbeat.Lockbeat, way: str) -> None:
    for block in (lb.lock("k"), lb.claims.hold("k")):
        with pytest.raises(TypeError, match=BLOCK):
            COPY[way](block)


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
async def test_what_belongs_to_an_open_client_says_that_it_can_not_be_copied(lb: lockbeat.Lockbeat, way: str) -> None:
    parts = (lb.locks, lb.claims, lb.fenced, lb.calendars, lb.tasks, lb.jobs, lockbeat.Gate(lb.claims))
    for part in parts:
        with pytest.raises(TypeError, match=OPEN):
            COPY[way](part)
    beat = lockbeat.Beat(lb)
    with pytest.raises(TypeError, match="a Lockbeat that is open"):
        COPY[way](beat)


@pytest.mark.parametrize("way", COPY)
async def test_a_beat_that_serves_says_that_it_can_not_be_copied(way: str) -> None:
    beat, blocking_one = lockbeat.Beat("memory://"), sync.Beat("memory://")
    async with beat.lifespan():
        with pytest.raises(TypeError, match=SERVES):
            COPY[way](beat)
    with blocking_one.lifespan(), pytest.raises(TypeError, match=SERVES):
        (COPY[way] if way != "copy" else copy.deepcopy)(blocking_one)


@only("valkey")
def test_the_parts_of_a_blocking_client_are_sent_as_it_is(blocking: Blocking, namespace: str) -> None:
    with blocking() as lb:
        lb.locks.try_acquire("k", "me", 60)
        for part in (lb.fenced, lb.calendars, lb.tasks, lb.jobs, lb.claims, sync.Gate(lb.claims), sync.Gate(None)):
            assert type(sent(part)) is type(part)
        again = sent(lb.locks)
        assert again.owner("k") == "me"
        again._reach.args[0].close()  # the client that was made there


@contextmanager
def around(beat: sync.Beat) -> Iterator[str]:
    yield beat.namespace


def test_a_blocking_beat_is_sent_with_its_lifespan() -> None:
    again = sent(sync.Beat("memory://", namespace="theirs", lifespan=around))
    states, looked = list[Any](), threading.Event()

    def look(run: lockbeat.Run) -> None:
        states.append(run.state)
        looked.set()

    again.every(0.05)(look)
    with again.lifespan():
        assert looked.wait(PATIENCE)
    assert states[0] == "theirs"
