"""`lockbeat web` as a server: who does not ask, or does not take the answer, keeps no place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lockbeat.web import serve as served
from tests.conftest import PATIENCE


class Board:
    """Answers /large with more than any pipe holds, and goes on with anything else until it is let go."""

    prefix = ""

    def __init__(self) -> None:
        self.streams, self.go_on, self.sent = self, asyncio.Event(), asyncio.Event()

    def end(self) -> None:
        self.go_on.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/large":
            await send({"type": "http.response.body", "body": b"x" * 50_000_000})
            self.sent.set()  # it is taken, or hung up on
            return
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"and ended"})


@pytest.fixture
async def board(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Board, int]]:
    monkeypatch.setattr(served, "HEARD_WITHIN", 0.5)
    monkeypatch.setattr(served, "LOOK_EVERY", 0.05)
    loop, made = asyncio.get_running_loop(), Board()
    ended: asyncio.Future[int] = loop.create_future()
    ready: asyncio.Future[str] = loop.create_future()
    with served.listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        serving = asyncio.create_task(served.serve(made, bound, ended, ready.set_result))  # type: ignore[arg-type]
        await ready
        yield made, port
        ended.set_result(0)
        await serving


async def gone(reader: asyncio.StreamReader) -> bytes:
    """What came until the server hung up."""
    said = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while part := await reader.read(1 << 20):
                said += part
    return said


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nx: "], ids=["nothing", "a byte at a time"])
async def test_who_does_not_ask_is_hung_up_on(board: tuple[Board, int], said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", board[1])
    writer.write(said)
    hung_up = asyncio.create_task(gone(reader))
    while not hung_up.done():
        if said:
            writer.write(b"x")
        await asyncio.wait([hung_up], timeout=0.02)
    assert await hung_up == b""
    writer.close()


async def test_who_does_not_take_the_answer_is_hung_up_on(board: tuple[Board, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", board[1], limit=1)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE):
        await board[0].sent.wait()
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await gone(reader)) < 50_000_000
    writer.close()


async def test_an_answer_that_goes_on_is_left_alone(board: tuple[Board, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", board[1])
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"begun" in await reader.readuntil(b"begun")
    other, asking = await asyncio.open_connection("127.0.0.1", board[1])
    assert await gone(other) == b""
    board[0].go_on.set()
    assert b"and ended" in await gone(reader)
    for one in (writer, asking):
        one.close()
