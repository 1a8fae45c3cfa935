"""Processes that are not forked, but sent what they need: by multiprocessing's `spawn` and `forkserver`."""

from __future__ import annotations

import pickle
import subprocess
import sys
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
    copy = sent(lb)
    with copy:
        assert (copy.namespace, copy.url) == (namespace, lb.url)
        assert copy.owner != lb.owner
        assert copy.events.run_done.heard
    assert lb.is_open


@pytest.mark.parametrize("of", [lockbeat, sync])
def test_a_beat_is_sent_with_its_jobs_and_hooks(of: Any) -> None:
    """rq#2348: `Process(target=beat.run)` where processes are not forked, as everywhere from Python 3.14 on."""
    beat = of.Beat(of.Lockbeat("memory://"))
    beat.every(60)(report)
    beat.events.run_done(ended)
    beat.events.run_failed(failed)
    copy = sent(beat)
    assert [hook.name for hook in copy.events.all if hook.heard] == ["run_done", "run_failed"]
    assert [one.function for one in copy.events.run_failed.listeners] == [failed]
    assert sent(copy.run).__self__.events.run_done.heard


async def test_an_open_asynchronous_client_says_that_it_can_not_be_sent(lb: lockbeat.Lockbeat) -> None:
    with pytest.raises(TypeError, match="a Lockbeat that is open can't be copied, nor sent to another process: open one there"):
        pickle.dumps(lb)
