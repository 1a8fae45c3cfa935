"""Live pages: what is new is sent, in bounds, and a reader who does not read is hung up on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.web import dashboard, pages, stream
from lockbeat.web.board import Dashboard
from lockbeat.web.guard import COOKIE
from tests.conftest import PATIENCE, only, wait_until
from tests.web.asking import KEY


class Reader:
    """One who looks on: what it was sent, and whether it takes more."""

    def __init__(self, board: Any, path: str, query: str = "") -> None:
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.left = asyncio.Event()
        headers = [(b"host", b"page.test"), (b"accept", b"text/event-stream"), (b"cookie", f"{COOKIE}={KEY}".encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "scheme": "http",
        }
        self.task = asyncio.create_task(board(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent else 0


@contextlib.asynccontextmanager
async def looking(board: Dashboard, path: str, query: str = "") -> AsyncIterator[Reader]:
    reader = Reader(board, path, query)
    try:
        yield reader
    finally:
        reader.left.set()
        reader.takes.set()
        await asyncio.wait_for(reader.task, PATIENCE)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SECONDS", 0.05)
    monkeypatch.setattr(stream, "EVERY", {})


@only("memory", "valkey")
async def test_what_is_new_is_sent_and_what_is_the_same_is_not(lb: Lockbeat) -> None:
    await lb.jobs.put("report", Every(365 * 86_400))
    async with looking(dashboard(lb, user=lambda scope: "alice"), "/leases") as reader:
        await wait_until(lambda: ": the same" in reader.text, "nothing has changed")
        assert reader.text.count("event: page") == 1
        await lb.locks.try_acquire("deploy", "ci-7", 3600)
        await wait_until(lambda: "ci-7" in reader.text, "who holds the lock is told")


@only("memory")
async def test_each_reader_has_a_token_of_its_own_and_what_was_read_is_shared(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lb.tasks.spawn("mail", max_attempts=1)
    [task] = await lb.tasks.claim("default", "w", 1)
    await lb.tasks.fail(task, ValueError("no"))
    made = list[int]()
    board = dashboard(lb, user=lambda scope: "alice")
    rendered = board._rendered

    def counted(*args: Any, **options: Any) -> str:
        made.append(1)
        return rendered(*args, **options)

    monkeypatch.setattr(board, "_rendered", counted)
    monkeypatch.setattr(stream, "SECONDS", 600.0)
    async with looking(board, "/dead") as one, looking(board, "/dead") as two:
        await wait_until(lambda: "no" in one.text and "event: page" in two.text, "both see it")
    assert len(made) == 1
    assert 'name="token" value="' in one.text
    assert "token-" not in one.text


@only("memory")
async def test_so_many_may_look_on_and_no_more(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_OF_ONE", 3)
    board = dashboard(lb, user=lambda scope: "alice")
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(looking(board, "/leases")) for _ in range(3)]
        await wait_until(lambda: all("event: page" in reader.text for reader in readers), "three look on")
        fourth = await stack.enter_async_context(looking(board, "/leases"))
        await wait_until(lambda: fourth.task.done(), "the fourth is sent away")
        assert fourth.status == 503
    async with looking(board, "/leases") as again:
        await wait_until(lambda: "event: page" in again.text, "there is room again")
    assert not board.streams._shared
    assert not board.streams._of


@only("memory")
async def test_a_reader_who_takes_nothing_is_hung_up_on(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_WITHIN", 0.2)
    board = dashboard(lb)
    async with looking(board, "/leases") as reader:
        await wait_until(lambda: "event: page" in reader.text, "it is sent the page")
        reader.takes.clear()
        await wait_until(reader.task.done, "it is hung up on")
    assert not board.streams._of


@only("memory")
async def test_one_that_lasts_is_ended_and_asked_again_who_it_is(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LASTS", 0.2)
    async with looking(dashboard(lb), "/leases") as reader:
        await wait_until(reader.task.done, "it is ended")
    assert reader.sent[-1] == {"type": "http.response.body", "body": b""}


@only("memory")
async def test_shutting_down_ends_them(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SECONDS", 600.0)
    board = dashboard(lb)
    async with looking(board, "/leases") as reader:
        await wait_until(lambda: "event: page" in reader.text, "it is sent the page")
        board.streams.end()
        await wait_until(reader.task.done, "it is ended")


@only("memory")
async def test_a_page_that_can_not_be_made_now_says_so_and_goes_on(lb: Lockbeat) -> None:
    async with looking(dashboard(lb), "/job", "name=later") as reader:
        await wait_until(lambda: "event: away" in reader.text, "there is no such job")
        await lb.jobs.put("later", Every(365 * 86_400))
        await wait_until(lambda: "event: page" in reader.text, "now there is")


@only("memory")
async def test_a_job_that_was_deleted_is_said_to_be_gone_and_not_the_store(lb: Lockbeat) -> None:
    await lb.jobs.put("report", Every(365 * 86_400))
    async with looking(dashboard(lb), "/job", "name=report") as reader:
        await wait_until(lambda: "event: page" in reader.text, "it is there")
        await lb.jobs.delete("report")
        await wait_until(lambda: "event: away" in reader.text, "it is gone")
    away = reader.text.partition("event: away")[2]
    assert "no job" in away
    assert "store" not in away


@only("memory")
async def test_a_page_of_ours_that_fails_is_logged_once_and_not_at_each_look(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(look: Any) -> Any:
        raise KeyError("a fault of ours")

    monkeypatch.setitem(pages.PAGES, "/leases", fails)
    async with looking(dashboard(lb), "/leases") as reader:
        await wait_until(lambda: reader.text.count("event: away") >= 3, "three looks")
    assert "this page has failed" in reader.text
    assert [bool(record.exc_info) for record in caplog.records] == [True]


@only("memory")
async def test_those_who_look_on_are_told_to_come_again_at_different_moments(lb: Lockbeat) -> None:
    """All lose a server that is restarted at the same moment (hermes-webui#2661)."""
    board = dashboard(lb)
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(looking(board, "/leases")) for _ in range(8)]
        await wait_until(lambda: all("retry: " in reader.text for reader in readers), "each is told when")
    told = {int(reader.text.partition("retry: ")[2].partition("\n")[0]) for reader in readers}
    assert len(told) > 1
    assert all(4000 <= one <= 8000 for one in told)


@only("memory")
async def test_who_may_not_see_the_page_may_not_look_on(lb: Lockbeat) -> None:
    async with looking(dashboard(lb, user=lambda scope: None), "/leases") as reader:
        await wait_until(reader.task.done, "it is sent away")
    assert reader.status == 401
