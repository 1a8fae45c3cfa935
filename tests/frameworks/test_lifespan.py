"""`beat.lifespan` as web frameworks take it: a function of the application, or a block, around the application's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette

from lockbeat import Beat, Lockbeat, LockbeatError, Run, sync
from lockbeat.errors import InvalidArgument, InvalidType, StoreUnavailable
from tests.conftest import PATIENCE, only
from tests.sync.conftest import until


class Site:
    """A beat, and an application's own lifespan, which note what they do."""

    def __init__(self, store: Lockbeat, **options: Any) -> None:
        self.notes: list[str] = []
        self.beat = Beat(store, **options)
        self.store = store
        self.begun = asyncio.Event()
        self.opened_by: Any = None
        self.beat.task(self.work)

    async def work(self, run: Run) -> None:
        self.notes.append(f"begun with {run.state}")
        self.begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.notes.append("ended")

    @asynccontextmanager
    async def opening(self, app: Any) -> AsyncIterator[dict[str, Any]]:
        self.notes.append("opened")
        self.opened_by = app
        yield {"pool": "open"}
        self.notes.append("closed")

    async def has_begun(self) -> None:
        await self.store.tasks.spawn("work", max_attempts=1)
        await asyncio.wait_for(self.begun.wait(), PATIENCE)


@asynccontextmanager
async def running(app: Callable[..., Any]) -> AsyncIterator[dict[str, Any]]:
    """Start an ASGI application as a server does, and stop it; the state of its requests."""
    said: asyncio.Queue[str] = asyncio.Queue()
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def receive() -> dict[str, str]:
        return {"type": f"lifespan.{await said.get()}"}

    serving = asyncio.create_task(app(scope, receive, told.put))
    for word in ("startup", "shutdown"):
        said.put_nowait(word)
        answer = await asyncio.wait_for(told.get(), PATIENCE)
        assert answer["type"] == f"lifespan.{word}.complete", answer
        if word == "startup":
            yield scope["state"]
    await serving


def fastapi(site: Site) -> Callable[..., Any]:
    return FastAPI(lifespan=site.beat.lifespan(inner=site.opening))


def a_router_of_fastapi(site: Site) -> Callable[..., Any]:
    app = FastAPI(lifespan=site.opening)
    router = APIRouter(lifespan=site.beat.lifespan)
    app.include_router(router)
    return app


def starlette(site: Site) -> Callable[..., Any]:
    return Starlette(lifespan=site.beat.lifespan(inner=site.opening))


def litestar(site: Site) -> Callable[..., Any]:
    return Litestar([], lifespan=[site.opening, site.beat.lifespan])


def litestar_with_a_block(site: Site) -> Callable[..., Any]:
    return Litestar([], lifespan=[site.opening, site.beat.lifespan(wait_for_store=False)])


def quart(site: Site) -> Callable[..., Any]:
    app = Quart(__name__)

    @app.while_serving
    async def serving() -> AsyncGenerator[None, None]:
        async with site.beat.lifespan(inner=site.opening):
            yield

    return app


@only("memory")
@pytest.mark.parametrize("make", [fastapi, a_router_of_fastapi, starlette, litestar, litestar_with_a_block, quart])
async def test_the_applications_own_lifespan_is_entered_before_and_left_after(
    lb: Lockbeat, make: Callable[[Site], Callable[..., Any]]
) -> None:
    site = Site(lb, grace=0)
    async with running(make(site)):
        await site.has_begun()
    assert [note.partition(" ")[0] for note in site.notes] == ["opened", "begun", "ended", "closed"]


@only("memory")
@pytest.mark.parametrize("make", [fastapi, starlette])
async def test_what_it_yields_is_the_state_of_requests_and_of_functions(
    lb: Lockbeat, make: Callable[[Site], Callable[..., Any]]
) -> None:
    site = Site(lb, grace=0)
    app = make(site)
    async with running(app) as state:
        await site.has_begun()
        assert state == {"pool": "open"}
        assert site.opened_by is app
    assert "begun with {'pool': 'open'}" in site.notes


@only("memory")
async def test_a_beat_with_a_lifespan_of_its_own_keeps_run_state_for_that(lb: Lockbeat) -> None:
    @asynccontextmanager
    async def own(beat: Beat) -> AsyncIterator[str]:
        yield "the beat's"

    site = Site(lb, grace=0, lifespan=own)
    async with site.beat.lifespan(inner=site.opening) as state:
        await site.has_begun()
        assert state == {"pool": "open"}
    assert "begun with the beat's" in site.notes


@only("memory")
async def test_an_application_can_be_started_again_and_nothing_is_kept_of_the_time_before(lb: Lockbeat) -> None:
    site = Site(lb, grace=0)
    lifespan = site.beat.lifespan(inner=site.opening)
    for _ in range(2):
        async with lifespan:
            with pytest.raises(LockbeatError, match="entered already"):
                await lifespan.__aenter__()
    assert site.beat.given is None
    async with site.beat.lifespan():
        await site.has_begun()
    assert site.notes == ["opened", "closed"] * 2 + ["begun with None", "ended"]


@only("memory")
async def test_beats_stand_around_each_other(lb: Lockbeat) -> None:
    one, other = Site(lb, grace=0, queue="one"), Site(lb, grace=0, queue="other")
    async with one.beat.lifespan(inner=other.beat.lifespan(inner=other.opening)) as state:
        assert state == {"pool": "open"}
        for site in (one, other):
            await site.beat.spawn("work")
            await asyncio.wait_for(site.begun.wait(), PATIENCE)
    assert (other.notes[0], other.notes[-1]) == ("opened", "closed")


@only("memory")
async def test_the_applications_own_errors_are_its_own(lb: Lockbeat) -> None:
    @asynccontextmanager
    async def broken(app: Any) -> AsyncIterator[str]:
        yield app["no configuration"]

    site = Site(lb)
    with pytest.raises(KeyError, match="no configuration"):
        async with site.beat.lifespan({}, inner=broken):
            pass
    with pytest.raises(ZeroDivisionError):
        async with site.beat.lifespan(inner=site.opening):
            raise ZeroDivisionError


async def test_it_is_left_when_the_beat_does_not_start() -> None:
    beat, notes = Beat("redis://127.0.0.1:1", timeout=0.1), list[str]()

    @asynccontextmanager
    async def opening(app: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            notes.append("closed")

    with pytest.raises(StoreUnavailable):
        async with beat.lifespan(inner=opening):
            notes.append("entered")
    assert notes == ["closed"]


async def a_bare_generator(app: Any) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("inner", "error", "words"),
    [
        (7, InvalidType, "inner: must be a function of the application, not int"),
        (contextlib.nullcontext(), InvalidType, "inner: must be a function of the application"),
        (a_bare_generator, InvalidArgument, "inner: is a bare generator"),
        (asyncio.sleep, InvalidArgument, "inner: must yield once"),
    ],
)
def test_what_makes_no_context_is_refused_where_it_is_given(inner: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Beat("memory://").lifespan(inner=inner)


def test_without_asyncio_it_says_so() -> None:
    with pytest.raises(LockbeatError, match="serves on asyncio"):
        Beat("memory://").lifespan().__aenter__().send(None)


@contextmanager
def plainly(app: Any) -> Iterator[dict[str, str]]:
    yield {"pool": "open", "app": app}


def test_a_beat_that_blocks_takes_a_plain_one() -> None:
    beat, states = sync.Beat("memory://plain"), list[Any]()

    @beat.task
    def work(run: Run) -> Any:
        states.append(run.state)

    with beat.lifespan("site", inner=plainly) as state:
        beat.spawn(work)
        until(lambda: states, "it runs")
    assert states == [state] == [{"pool": "open", "app": "site"}]
    with pytest.raises(InvalidArgument, match="inner: is async"):
        beat.lifespan(inner=a_bare_generator).__enter__()  # type: ignore[arg-type]
