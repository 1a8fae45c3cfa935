"""An error may be a text, an exception or any JSON value, and is given back as what it was: WorkClaims' map, Absurd's reason."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.claims import Claim, Gate
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.tasks import Failure
from tests.conftest import only
from tests.tasks import begun

here_and_there = only("memory", "valkey")
DETAILS: list[Any] = [
    {"code": 429, "retry_after": 1.5, "what": "too many", "nested": [{"deep": None}, [], {}]},
    ["first", 2, None],
    {},
    [],
    0,
    17.25,
    False,
    {'"failure":': '"failure":{"type":"x"}', "calls": '"', "b\x1b[31m": "\u202e\x00"},
]


@here_and_there
@pytest.mark.parametrize("detail", DETAILS, ids=repr)
async def test_a_detail_comes_back_as_it_was_given(lb: Lockbeat, detail: Any) -> None:
    claim = await lb.claims.acquire("c", "alice", 30)
    assert isinstance(claim, Claim)
    assert await Gate(lb.claims).fail(claim, detail)
    again = await lb.claims.acquire("c", "bob", 30)
    assert isinstance(again, Claim)
    assert again.last_error == detail
    assert type(again.last_error) is type(detail)
    handle = lb.claims.handle(again)
    await handle.fail(detail)
    async with lb.claims.hold("c", owner="carol") as held:
        assert held.last_error == detail

    task = await begun(lb, max_attempts=2, retry=None)
    assert (await lb.tasks.fail(task, detail)).outcome == "requeued"
    waiting = await lb.tasks.get(task.id)
    assert waiting.failure is not None
    assert (waiting.failure.type, waiting.failure.detail) == ("Error", detail)
    [second] = await lb.tasks.claim("default", "bob")
    assert (await lb.tasks.fail(second, detail)).outcome == "dead_lettered"
    [dead] = await lb.tasks.dead()
    assert dead.failure is not None
    assert dead.failure.detail == detail
    assert await lb.tasks.retry(task.id)
    after = await lb.tasks.get(task.id)
    assert after.failure == dead.failure, "what failed last is told while it waits again"


@here_and_there
async def test_text_and_exceptions_are_kept_as_words(lb: Lockbeat) -> None:
    for error, kept in (("out of paper", "out of paper"), (ValueError("no"), "ValueError: no")):
        claim = await lb.claims.acquire("c", "alice", 30)
        assert isinstance(claim, Claim)
        assert await lb.claims.fail(claim, error)
        again = await lb.claims.acquire("c", "alice", 30)
        assert isinstance(again, Claim)
        assert again.last_error == kept
        assert await lb.claims.complete(again)
    assert Failure.of("out of paper").detail is None
    assert Failure.of(ValueError("no")).message == "no"


@only("memory")
async def test_what_json_cannot_say_is_refused_before_anything_is_sent(lb: Lockbeat) -> None:
    task, claim = await begun(lb), await lb.claims.acquire("c", "alice", 30)
    assert isinstance(claim, Claim)
    for detail, error in (
        (object(), InvalidType),
        ({1, 2}, InvalidType),
        (float("nan"), InvalidArgument),
        ({1: 0, "1": 1}, InvalidArgument),
    ):
        for call in (lb.tasks.fail(task, detail), lb.claims.fail(claim, detail), Gate(None).fail(claim, detail)):
            with pytest.raises(error, match="error"):
                await call
    assert await lb.tasks.heartbeat(task)
    assert await lb.claims.renew(claim, 30)
