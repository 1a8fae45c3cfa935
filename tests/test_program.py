"""A program: how its beat is found or made, and where it can run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from lockbeat import Beat, Lockbeat, LockbeatError, Run
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._load import load_beat
from lockbeat.errors import InvalidArgument, InvalidType
from tests.conftest import Connect, only, wait_until


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "factories.py"
    path.write_text("""
from lockbeat import Beat
beat = Beat(queue="made before")

def make():
    return Beat(queue="made when asked")

class Factories:
    @staticmethod
    def make():
        return Beat(queue="made by a method")

def wants(settings):
    return beat

async def late():
    return beat

def nothing():
    pass

def broken():
    raise RuntimeError("no configuration")
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(path)


@pytest.mark.parametrize(
    ("name", "factory", "queue"),
    [
        ("beat", False, "made before"),
        ("make()", False, "made when asked"),
        ("make", True, "made when asked"),
        ("make()", True, "made when asked"),
        ("Factories.make()", False, "made by a method"),
    ],
)
def test_a_beat_is_found_or_made(module: str, name: str, factory: bool, queue: str) -> None:
    assert load_beat(f"{module}:{name}", factory=factory).queue == queue


@pytest.mark.parametrize(
    ("name", "factory", "words"),
    [
        ("make", False, r"is no Beat but of type function; .* write '.*:make\(\)'"),
        ("beat", True, "is a Beat, no factory"),
        ("beat()", False, "is a Beat, no factory"),
        ("late()", False, "is async"),
        ("nothing()", False, "made no Beat but something of type NoneType"),
        ("__doc__()", False, "can't be called"),
        ("gone()", False, "has no 'gone'"),
        ("", True, "names no factory"),
        ("()", False, "names no factory"),
    ],
)
def test_what_makes_no_beat_is_wrong_usage(module: str, name: str, factory: bool, words: str) -> None:
    with pytest.raises(Usage, match=words):
        load_beat(f"{module}:{name}", factory=factory)


@pytest.mark.parametrize(
    ("name", "words"), [("broken()", r"factories.py:\d+: RuntimeError: no configuration"), ("wants()", "settings")]
)
def test_a_factory_that_fails_says_where(module: str, name: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        load_beat(f"{module}:{name}")


async def test_run_inside_of_an_event_loop_says_what_to_use() -> None:
    with pytest.raises(LockbeatError, match=r"await beat.serve\(\)"):
        Beat("memory://").run()


def test_run_in_another_thread_says_what_to_use() -> None:
    said: list[str] = []

    def serve() -> None:
        with pytest.raises(LockbeatError) as caught:
            Beat("memory://").run()
        said.append(str(caught.value))

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert "main thread only" in said[0]
    assert "asyncio.run(beat.serve())" in said[0]


@only("memory", "valkey")
async def test_a_client_that_is_not_open_is_opened_and_closed_by_the_beat(connect: Connect) -> None:
    lb, ran = connect(), asyncio.Event()
    beat = Beat(lb)

    @beat.task
    async def job() -> None:
        assert await lb.locks.try_acquire("of the job", lb.owner, 60)  # what the program has is the client that serves
        ran.set()

    for _ in range(2):
        ran.clear()
        async with beat.lifespan():
            await beat.spawn(job)
            await wait_until(ran.is_set, "the job is run")
        assert not lb.is_open
    async with lb:
        assert await lb.locks.list() == []  # it was the beat's to give back


async def test_a_client_that_is_open_stays_open(lb: Lockbeat) -> None:
    async with Beat(lb).lifespan():
        pass
    assert await lb.locks.list() == []
    assert lb.is_open


def test_what_a_worker_is_narrowed_to_is_checked() -> None:
    beat = Beat("memory://")
    for error, options in (
        (InvalidType, {"queues": "gpu"}),
        (InvalidArgument, {"queues": []}),
        (InvalidArgument, {"queues": [""]}),
        (InvalidArgument, {"concurrency": 0}),
        (InvalidType, {"concurrency": "2"}),
    ):
        with pytest.raises(error):
            beat.narrow(**options)


@only("memory")
async def test_a_worker_serves_the_queues_that_it_is_narrowed_to(lb: Lockbeat) -> None:
    beat, ran = Beat(lb), []

    @beat.task
    async def job(run: Run) -> None:
        ran.append(run.queue)

    await lb.tasks.spawn("job", queue="default")
    await lb.tasks.spawn("job", queue="gpu", delay=0.01)
    beat.narrow(queues=["gpu"], concurrency=1)
    async with beat.lifespan():
        await wait_until(lambda: ran, "the one of queue gpu is run, though the other came first")
        with pytest.raises(LockbeatError, match="serving already"):
            beat.narrow(concurrency=2)
    assert ran == ["gpu"]
    assert (await lb.tasks.counts("default")).ready == 1
