"""Start and stop: what a program opens for its functions, in which order, and a store that is away when it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from lockbeat import Beat, LifespanError, Lockbeat, Run, StoreUnavailable
from lockbeat.errors import InvalidArgument, InvalidType
from tests.conftest import Connect, needs, only, wait_until
from tests.servers import Server


class Program:
    """A beat whose lifespan and functions note what they do."""

    def __init__(self, store: str | Lockbeat, **options: Any) -> None:
        self.notes: list[str] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.beat = Beat(store, lifespan=self.open, **options)
        self.beat.task(self.work)
        self.beat.task(self.plain)

    @asynccontextmanager
    async def open(self, beat: Beat) -> AsyncIterator[dict[str, str]]:
        assert beat is self.beat
        self.notes.append("opened")
        yield {"pool": "open"}
        await asyncio.sleep(0)  # closing takes an await
        self.notes.append("closed")  # no try: a shutdown is no error of this function's

    async def work(self, run: Run) -> None:
        self.notes.append(f"begun with {run.state['pool']}")
        self.begun.set()
        await self.may_end.wait()
        self.notes.append("ended")

    async def has_begun(self) -> None:
        async with asyncio.timeout(30):
            await self.begun.wait()

    def plain(self, run: Run) -> None:
        self.notes.append(f"plain with {run.state['pool']}")


async def by_lifespan(program: Program) -> None:
    async with program.beat.lifespan():
        await program.has_begun()
        asyncio.get_running_loop().call_later(0.05, program.may_end.set)


async def by_serve(program: Program) -> None:
    serving = asyncio.create_task(program.beat.serve())
    await program.has_begun()
    asyncio.get_running_loop().call_later(0.05, program.may_end.set)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def by_task_group(program: Program) -> None:
    """anyio cancels at every await, the clean-up's included, unless it is shielded."""
    async with anyio.create_task_group() as group:
        group.start_soon(program.beat.serve)
        await program.has_begun()
        asyncio.get_running_loop().call_later(0.05, program.may_end.set)
        group.cancel_scope.cancel()


@only("memory", "valkey")
@pytest.mark.parametrize("serve", [by_lifespan, by_serve, by_task_group])
async def test_it_is_entered_before_the_first_claim_and_left_after_the_last_body(
    lb: Lockbeat, serve: Callable[[Program], Any]
) -> None:
    program = Program(lb, grace=30)
    await lb.tasks.spawn("plain", priority=1)
    await lb.tasks.spawn("work")
    await serve(program)
    assert program.notes == ["opened", "plain with open", "begun with open", "ended", "closed"] or program.notes == [
        "opened",
        "begun with open",  # a plain function's thread may be slower than the loop
        "plain with open",
        "ended",
        "closed",
    ]


@only("memory")
async def test_a_beat_that_only_schedules_opens_nothing(lb: Lockbeat) -> None:
    program = Program(lb)
    async with program.beat.lifespan(work=False):
        pass
    assert program.notes == []


@only("memory")
async def test_it_may_use_the_beat_and_the_state_is_of_one_run(lb: Lockbeat) -> None:
    states: list[int] = []
    done = asyncio.Event()

    @asynccontextmanager
    async def opening(beat: Beat) -> AsyncIterator[int]:
        await beat.spawn("job")
        await beat.jobs.list()
        yield len(states)

    beat = Beat(lb, lifespan=opening)

    @beat.task
    async def job(run: Run) -> None:
        states.append(run.state)
        done.set()

    for _ in range(2):
        done.clear()
        async with beat.lifespan():
            await wait_until(done.is_set, "the job is done")
    assert states == [0, 1]


CONFIGURED: bool = False


@asynccontextmanager
async def broken(beat: Beat) -> AsyncIterator[None]:
    if not CONFIGURED:
        raise RuntimeError("no configuration\nat all")
    yield


@asynccontextmanager
async def never_entered(beat: Beat) -> AsyncIterator[None]:
    if CONFIGURED:
        yield


def returns_nothing(beat: Beat) -> Any:
    return None


def takes_nothing() -> Any:
    return broken(Beat())


@only("memory")
@pytest.mark.parametrize(
    ("lifespan", "said"),
    [
        (broken, "the beat's lifespan did not start: RuntimeError: no configuration"),
        (never_entered, "did not start: RuntimeError: generator didn't yield"),
        (returns_nothing, "did not start: TypeError: lifespan= returned no async context manager"),
        (takes_nothing, "did not start: TypeError: takes_nothing"),
    ],
)
async def test_what_fails_at_the_start_is_one_error_and_nothing_is_begun(connect: Connect, lifespan: Any, said: str) -> None:
    client = connect()
    beat, ran = Beat(client, lifespan=lifespan), []
    beat.task(name="job")(lambda: ran.append(1))
    async with client:
        await client.tasks.spawn("job")
    for start in (beat.serve, beat.lifespan().__aenter__):
        with pytest.raises(LifespanError) as caught:
            await start()
        assert str(caught.value).startswith(said) or said in str(caught.value)
        assert caught.value.__cause__ is caught.value.problem
        assert "\n" not in str(caught.value)
        assert not client.is_open
    assert ran == []


@only("memory")
async def test_what_fails_at_the_end_is_not_lost(lb: Lockbeat) -> None:
    @asynccontextmanager
    async def opening(beat: Beat) -> AsyncIterator[None]:
        yield
        raise RuntimeError("can't close")

    with pytest.raises(LifespanError, match="did not end well: RuntimeError: can't close"):
        async with Beat(lb, lifespan=opening).lifespan():
            pass


@only("memory")
async def test_a_clean_up_that_hangs_is_cut_short(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    cut = []

    @asynccontextmanager
    async def opening(beat: Beat) -> AsyncIterator[None]:
        yield
        try:
            await asyncio.Event().wait()
        finally:
            cut.append(True)

    client = connect(timeout=0.1)
    async with Beat(client, lifespan=opening, grace=0).lifespan():
        pass
    assert cut == [True]
    assert "the lifespan had not ended after 0.1 s" in caplog.text


@pytest.mark.parametrize(
    ("lifespan", "error", "words"),
    [
        (7, InvalidType, "must be a function of the beat, not int"),
        (broken(Beat()), InvalidType, "must be a function of the beat"),
        (broken.__wrapped__, InvalidArgument, "put @contextlib.asynccontextmanager above it"),  # type: ignore[attr-defined]
        (asyncio.sleep, InvalidArgument, "must yield once"),
    ],
)
def test_what_makes_no_context_is_refused_where_it_is_given(lifespan: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Beat("memory://", lifespan=lifespan)


@needs("valkey")
@pytest.mark.parametrize("where", ["beat", "lifespan"])
async def test_a_web_application_starts_while_the_store_is_away_and_serves_when_it_is_back(
    server: Server, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="lockbeat")
    server.kill()
    options: dict[str, Any] = {"wait_for_store": False}
    program, tries = Program(server.url, timeout=1, **(options if where == "beat" else {})), []
    serve = program.beat._serve

    async def try_to_serve(*args: Any) -> None:
        tries.append(args)
        await serve(*args)

    monkeypatch.setattr(program.beat, "_serve", try_to_serve)
    async with program.beat.lifespan(None, **(options if where == "lifespan" else {})):
        assert program.notes == []
        with pytest.raises(StoreUnavailable, match="does not serve yet"):
            await program.beat.spawn("work")
        with pytest.raises(StoreUnavailable, match="does not serve yet"):
            _ = program.beat.jobs
        await wait_until(lambda: "can't serve yet, and go on trying" in caplog.text, "it says that it can't serve yet")
        await wait_until(lambda: len(tries) > 3, "it tries again and again")
        server.restart()
        await wait_until(lambda: "serving 2 tasks" in caplog.text, "it serves")
        await program.beat.spawn("work")
        await program.has_begun()
        program.may_end.set()
    assert program.notes == ["opened", "begun with open", "ended", "closed"]
    assert caplog.text.count("can't serve yet") == 1
    assert caplog.text.count("the store is away, trying again") == 1, "of however many tries"


async def test_without_it_a_store_that_is_away_is_an_error_at_the_start() -> None:
    program = Program("redis://127.0.0.1:1", timeout=0.1)
    with pytest.raises(StoreUnavailable):
        async with program.beat.lifespan():
            pass
    assert program.notes == []


async def test_a_wrong_url_is_an_error_whatever_is_waited_for() -> None:
    with pytest.raises(InvalidArgument):
        async with Beat("http://localhost", wait_for_store=False).lifespan():
            pass
