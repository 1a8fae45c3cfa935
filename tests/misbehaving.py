"""A program whose functions do what functions should not: `python -m tests.misbehaving URL NAMESPACE GRACE STALL`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from lockbeat import Beat, Lockbeat, LockbeatError, Run

beat = Beat(
    sys.argv[1],
    namespace=sys.argv[2],
    grace=float(sys.argv[3]),
    stall=float(sys.argv[4]),
    timeout=0.5,
    owner="program",
)
FORK = multiprocessing.get_context("fork")
for_ever = threading.Event().wait


def double(number: int) -> int:
    return 2 * number


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork(kind: str) -> Any:
    """Have children in one of many ways; what came of them."""
    if kind == "pool":
        with FORK.Pool(1) as pool:
            return pool.map(double, [1, 2])
    if kind == "executor":
        with ProcessPoolExecutor(1, mp_context=FORK) as executor:
            return list(executor.map(double, [1, 2]))
    if kind == "terminate":
        ready = FORK.Event()

        def run() -> None:
            ready.set()
            for_ever()

        process = FORK.Process(target=run)
        process.start()
        ready.wait()
        process.terminate()
        process.join()
        return process.exitcode
    if kind == "terminate at once":  # before the child has run a line of Python
        children = [FORK.Process(target=for_ever) for _ in range(10)]
        for child in children:
            child.start()
            child.terminate()
        for child in children:
            child.join()
        return sorted({child.exitcode for child in children})
    if kind == "preexec":
        sleeping = subprocess.Popen(["sleep", "60"], preexec_fn=os.setsid)
        sleeping.terminate()
        return sleeping.wait()
    if kind == "client":
        heard, says = FORK.Pipe(duplex=False)

        def use() -> None:
            async def ask() -> None:
                assert beat._client is not None
                await beat._client.locks.try_acquire("k", "child", 5)

            try:
                asyncio.run(ask())
            except LockbeatError as error:
                says.send(f"{type(error).__name__}: {error}")

        FORK.Process(target=use).start()
        return heard.recv()
    if kind == "own client":
        heard, says = FORK.Pipe(duplex=False)

        async def ask() -> None:
            async with Lockbeat(sys.argv[1], namespace=sys.argv[2]) as lb:
                says.send((await lb.locks.try_acquire("k", "child", 5)) is not None)

        FORK.Process(target=lambda: asyncio.run(ask())).start()
        return heard.recv()
    pid = os.fork()
    if pid:
        return exit_code(pid)
    if kind == "exit":
        sys.exit(7)
    elif kind == "raise":
        raise ValueError("in the child")
    elif kind == "return":
        return None
    elif kind == "daemon":
        os.setsid()
        if grandchild := os.fork():
            os._exit(0 if exit_code(grandchild) == -signal.SIGTERM else 1)
        os.kill(os.getpid(), signal.SIGTERM)
        for_ever()
    return None


@beat.task(max_attempts=1)
def forks(run: Run) -> Any:
    return fork(run.params)


@beat.task(max_attempts=1)
async def forks_in_the_loop(run: Run) -> Any:
    if run.params != "await":
        return fork(run.params)
    pid = os.fork()
    await asyncio.sleep(0)
    return await asyncio.to_thread(exit_code, pid)


async def raising(error: BaseException) -> None:
    raise error


@beat.task(max_attempts=1)
async def raises(run: Run) -> Any:
    how, name = run.params
    error: BaseException = {"SystemExit": SystemExit(0), "KeyboardInterrupt": KeyboardInterrupt()}[name]
    if how == "itself":
        raise error
    if how == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(raising(error))
    if how == "awaited":
        await asyncio.create_task(raising(error))
    if how == "left alone":
        with contextlib.suppress(Exception):
            alone = asyncio.create_task(raising(error))
            await asyncio.sleep(60)
            del alone
    if how == "callback":
        asyncio.get_running_loop().call_soon(lambda: (_ for _ in ()).throw(error))
        await asyncio.sleep(60)


@beat.task(max_attempts=1)
def raises_in_a_thread(run: Run) -> Any:
    raise {"SystemExit": SystemExit(0), "KeyboardInterrupt": KeyboardInterrupt()}[run.params[1]]


@beat.task(max_attempts=1)
async def stops_the_loop(run: Run) -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "goes on"


@beat.task(max_attempts=1)
async def closes(run: Run) -> str:
    """As code that closes a file twice, or all there are, does to files that it did not open."""
    mine = asyncio.get_running_loop()._selector.fileno()  # type: ignore[attr-defined]
    if run.params == "selector":
        print("began", flush=True)
        os.close(mine)
        return "closed"
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            if run.params in os.readlink(f"/proc/self/fd/{name}") and int(name) not in (0, 1, 2, mine):
                os.close(int(name))
    return "closed"


@beat.task(max_attempts=2, lease=1)
async def outlives_its_lease(run: Run) -> int:
    await asyncio.sleep(4)
    return run.attempt


@beat.task(max_attempts=1)
async def hangs(run: Run) -> None:
    print("began", flush=True)
    if run.params == "sleep":
        time.sleep(600)  # noqa: ASYNC251 - what is tested
    elif run.params == "spin":
        while True:
            pass
    elif run.params == "receive":
        one, _other = socket.socketpair()
        one.recv(1)
    elif run.params == "except":
        while True:
            try:
                await asyncio.sleep(60)
            except:  # noqa: E722, S110 - what is tested
                pass
    elif run.params == "to_thread":
        await asyncio.to_thread(for_ever)


@beat.task(timeout=0.1)
async def hangs_past_its_timeout(run: Run) -> None:
    if run.attempt == 1:
        await hangs(run)


@beat.task(timeout=0.1)
def hangs_in_a_thread_past_its_timeout(run: Run) -> None:
    if run.attempt == 1:
        for_ever()


@beat.task
async def frozen() -> int:
    return gc.get_freeze_count()


@beat.task
async def waits() -> None:
    print("began", flush=True)
    await asyncio.sleep(600)


@beat.task(max_attempts=1)
def hangs_in_a_thread(run: Run) -> None:
    print("began", flush=True)
    for_ever()


def end_with_parent() -> None:
    """Whatever becomes of the test, this program does not outlive it."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would be held in every forked child
    os._exit(9)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s")
    beat.run()
