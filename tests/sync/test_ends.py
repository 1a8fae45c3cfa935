"""When Python ends: functions of `atexit`, threads that outlive the main one, and what is destroyed last."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from lockbeat.process.lasting import Lasting
from tests.conftest import PATIENCE, only

HEAD = """
import atexit, sys, threading
from lockbeat.sync import Lockbeat
url, namespace = sys.argv[1:]
lb = Lockbeat(url, namespace=namespace)
"""
AT_EXIT = {
    "close": "lb.locks.owner('k'); atexit.register(lb.close)",
    "a lock": """
lock = lb.lock("k", ttl=20)
lock.__enter__()
atexit.register(lb.close)
atexit.register(lock.__exit__, None, None, None)
""",
    "called before": "lb.locks.owner('k'); atexit.register(lambda: lb.locks.release('k', 'me'))",
}
OUTLIVES = """
import redis, time
def late():
    threading.main_thread().join()
    with lb.lock("k", ttl=60) as lease:  # it connects by a name only now, and again when it has lost all connections
        other = threading.Thread(target=waits)
        other.start()
        with redis.Redis.from_url(url) as server:
            server.client_kill_filter(_type="normal")
        [first] = lb.locks.list(lb.owner)
        keeper = lb.reach().lb.keeper
        for held in list(keeper._held):
            held.renew_at = 0.0  # a third of the lease has passed
        keeper._rouse()
        while not [one for one in lb.locks.list(lb.owner) if one.expires_at > first.expires_at]:
            time.sleep(0.02)
        lease.check()
    other.join()
    lb.close()
    print("closed")
def waits():
    with lb.lock("k"):
        pass
threading.Thread(target=late).start()
"""
AWAITS = """
import asyncio
from lockbeat import Lockbeat as Asynchronous
async def main():
    threading.main_thread().join()
    async with Asynchronous(url, namespace=namespace) as lb, lb.lock("k", ttl=60):
        pass
    print("closed")
threading.Thread(target=lambda: asyncio.run(main())).start()
"""
DESTROYED = """
lb.locks.owner("k")
class Last:
    def __del__(self):
        try:
            lb.locks.owner("k")
        except Exception as problem:
            print(type(problem).__name__, problem, flush=True)
        lb.close()
        print("closed", flush=True)
last = Last()
"""


def ran(url: str, namespace: str, program: str) -> str:
    """What a program says that ends well. It knows the store by a name, which is to be looked up."""
    command = [sys.executable, "-c", HEAD + program, url.replace("127.0.0.1", "localhost"), namespace]
    done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "Error" not in done.stderr.decode()
    return done.stdout.decode()


@only("valkey")
@pytest.mark.parametrize("what", AT_EXIT)
def test_it_is_used_and_closed_by_functions_of_atexit(url: str, namespace: str, what: str) -> None:
    """apscheduler#985, python-driver#209: cannot schedule new futures after shutdown."""
    ran(url, namespace, AT_EXIT[what])


@only("valkey")
@pytest.mark.parametrize("how", [OUTLIVES, AWAITS], ids=["blocks", "awaits"])
def test_threads_that_outlive_the_main_one_connect_wait_and_keep_their_leases(url: str, namespace: str, how: str) -> None:
    """apscheduler#632, #918."""
    assert ran(url, namespace, how) == "closed\n"


@only("valkey")
def test_what_python_destroys_last_is_told_so_and_does_not_hang(url: str, namespace: str) -> None:
    """pottery#272, spdl#1591: the loop's thread stands still by then, and nobody would be answered."""
    refused, closed = ran(url, namespace, DESTROYED).splitlines()
    assert refused.startswith("StoreError Python has ended")
    assert closed == "closed"


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lasting]:
    """One whose main thread has ended."""
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    loop = Lasting()
    yield loop
    loop.close()


def test_what_is_to_run_in_a_thread_runs_in_one_of_its_own(lasting: Lasting) -> None:
    async def asked() -> None:
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        gate = threading.Event()
        waits = asyncio.create_task(asyncio.to_thread(gate.wait))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        gate.set()

    lasting.run_until_complete(asked())
    assert lasting._default_executor is None  # type: ignore[attr-defined]  # Python's own takes nothing any more


def test_where_no_thread_can_be_started_it_runs_at_once(lasting: Lasting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert lasting.run_until_complete(asyncio.wait_for(asyncio.to_thread(time.monotonic), PATIENCE)) > 0
