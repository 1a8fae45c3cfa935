"""Bad input is an error that names the argument, before anything is sent: the store holds what it held."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from lockbeat import Fixed, Lockbeat
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, UnknownTask
from lockbeat.tasks import NewTask, Task
from tests.conftest import Backend
from tests.tasks import begun, died, dump

NOT_SECONDS: list[Any] = ["5", b"5", True, Decimal(5), [1]]
NO_DURATION: list[Any] = [-1, -0.001, math.nan, math.inf, -math.inf, 10**310, timedelta(seconds=-1), timedelta.max]
NO_LEASE: list[Any] = [*NO_DURATION, 0, 0.0004, timedelta(0), *NOT_SECONDS, None]
NO_NAME: list[Any] = ["", "x" * 1025, "é" * 513, "lone \ud800", b"bytes", 7, True, ["name"]]
NOT_ABOVE_ZERO: list[Any] = [0, -1, 1.0, 1.5, "1", True, [1]]

circular: list[Any] = []
circular.append(circular)
deep: Any = []
for _ in range(100_000):
    deep = [deep]
NOT_JSON: list[Any] = [
    object(),
    {1, 2},
    b"bytes",
    datetime(2030, 1, 1),
    Decimal(1),
    math.nan,
    [1, {"deep": [math.inf]}],
    {"k": {3: {object()}}},
    {("a", "b"): 1},
    circular,
    "x" * (2**20 - 1),
    ["é" * 2**20],
]

SPAWN: dict[str, list[Any]] = {
    "name": [*NO_NAME, None],
    "params": [*NOT_JSON, deep],
    "queue": [*NO_NAME, None],
    "max_attempts": [*NOT_ABOVE_ZERO, 1001, None],
    "retry": [5, "fixed", {"type": "fixed", "seconds": 1}, Fixed, True],
    "idempotency_key": NO_NAME,
    "headers": [[], "h", 5, {1: "not a str"}, {"h": object()}, {"h": math.nan}, {"h": "x" * 2**20}],
    "delay": [*NO_DURATION, *NOT_SECONDS, None],
    "priority": [-50, 50, 1.0, "1", None, True, [1]],
    "max_delay": [*NO_DURATION, *NOT_SECONDS],
    "max_duration": [*NO_DURATION, *NOT_SECONDS],
    "retention": [*NO_DURATION, *NOT_SECONDS, None],
}

Call = Callable[[Lockbeat, Task, Any], Awaitable[Any]]
VERBS: list[tuple[str, str, Call, list[Any]]] = [
    (
        "spawn_many",
        "tasks",
        lambda lb, task, bad: lb.tasks.spawn_many(bad),
        [None, 5, ["job"], [NewTask("job"), None], NewTask("job")],
    ),
    ("claim", "queue", lambda lb, task, bad: lb.tasks.claim(bad, "alice"), [*NO_NAME, None]),
    ("claim", "owner", lambda lb, task, bad: lb.tasks.claim("default", bad), [*NO_NAME, None]),
    ("claim", "limit", lambda lb, task, bad: lb.tasks.claim("default", "alice", bad), [*NOT_ABOVE_ZERO, None]),
    ("claim", "lease", lambda lb, task, bad: lb.tasks.claim("default", "alice", 1, bad), NO_LEASE),
    ("heartbeat", "task", lambda lb, task, bad: lb.tasks.heartbeat(bad), ["id", None, 5]),
    ("heartbeat", "lease", lambda lb, task, bad: lb.tasks.heartbeat(task, bad), NO_LEASE),
    ("complete", "task", lambda lb, task, bad: lb.tasks.complete(bad), ["id", None, 5]),
    ("complete", "result", lambda lb, task, bad: lb.tasks.complete(task, bad), NOT_JSON),
    ("fail", "task", lambda lb, task, bad: lb.tasks.fail(bad, "broken"), ["id", None, 5]),
    ("fail", "error", lambda lb, task, bad: lb.tasks.fail(task, bad), [b"broken", {"broken"}, ValueError, float("nan")]),
    (
        "fail",
        "retry_at",
        lambda lb, task, bad: lb.tasks.fail(task, "broken", retry_at=bad),
        ["soon", True, math.nan, math.inf, 10**310, timedelta(seconds=5), datetime(2030, 1, 1)],
    ),
    ("defer", "task", lambda lb, task, bad: lb.tasks.defer(bad, 1), ["id", None, 5]),
    ("defer", "seconds", lambda lb, task, bad: lb.tasks.defer(task, bad), [*NO_DURATION, *NOT_SECONDS, None]),
    ("release", "task", lambda lb, task, bad: lb.tasks.release(bad), ["id", None, 5]),
    ("cancel", "task_id", lambda lb, task, bad: lb.tasks.cancel(bad), [None, 5, b"id", task_ids := ["id"]]),
    ("retry", "task_id", lambda lb, task, bad: lb.tasks.retry(bad), [None, 5, b"id", task_ids]),
    ("retry", "attempts", lambda lb, task, bad: lb.tasks.retry(task.id, attempts=bad), [*NOT_ABOVE_ZERO, 1001, None]),
    ("retry", "delay", lambda lb, task, bad: lb.tasks.retry(task.id, delay=bad), [*NO_DURATION, *NOT_SECONDS, None]),
    ("get", "task_id", lambda lb, task, bad: lb.tasks.get(bad), [None, 5, b"id", task_ids]),
    ("dead", "queue", lambda lb, task, bad: lb.tasks.dead(bad), [*NO_NAME, None]),
    ("dead", "limit", lambda lb, task, bad: lb.tasks.dead(limit=bad), [*NOT_ABOVE_ZERO, None]),
    ("redrive", "queue", lambda lb, task, bad: lb.tasks.redrive(bad), [*NO_NAME, None]),
    ("redrive", "limit", lambda lb, task, bad: lb.tasks.redrive(limit=bad), NOT_ABOVE_ZERO),
    ("purge", "queue", lambda lb, task, bad: lb.tasks.purge(bad), [*NO_NAME, None]),
    ("purge", "state", lambda lb, task, bad: lb.tasks.purge(state=bad), ["waiting", "running", "nonsense", "", 5]),
    ("counts", "queue", lambda lb, task, bad: lb.tasks.counts(bad), [*NO_NAME, None]),
    ("list", "queue", lambda lb, task, bad: lb.tasks.list(bad), NO_NAME),
    ("list", "state", lambda lb, task, bad: lb.tasks.list(state=bad), ["nonsense", "", 5]),
    ("list", "limit", lambda lb, task, bad: lb.tasks.list(limit=bad), [*NOT_ABOVE_ZERO, None]),
    ("release_all", "owner", lambda lb, task, bad: lb.tasks.release_all(bad), [*NO_NAME, None]),
]


@pytest.fixture
async def task(lb: Lockbeat) -> Task:
    """A running one, in a store that also holds a ready, a delayed and a dead one."""
    await died(lb)
    running = await begun(lb)
    await lb.tasks.spawn("job", idempotency_key="k")
    await lb.tasks.spawn("job", delay=600)
    return running


def refusal(error: BaseException, argument: str) -> str:
    """What is wrong with the error; empty: nothing."""
    if not isinstance(error, InvalidArgument):
        return f"raised {error!r}"
    if error.argument != argument:
        return f"named {error.argument!r}"
    if not str(error).startswith(f"{argument}: ") or len(str(error)) > 400:
        return f"said {str(error)[:500]}"
    return ""


async def complaints(argument: str, values: list[Any], call: Callable[[Any], Awaitable[Any]]) -> list[str]:
    found = []
    for bad in values:
        shown = type(bad).__name__ if isinstance(bad, list) else ascii(bad)[:40]
        try:
            answer = await call(bad)
        except Exception as error:  # noqa: BLE001 - each kind of error is looked at
            if problem := refusal(error, argument):
                found.append(f"{shown}: {problem}")
        else:
            found.append(f"{shown}: accepted, {ascii(answer)[:60]}")
    return found


@pytest.mark.parametrize("argument", SPAWN)
async def test_a_bad_option_is_refused_by_spawn_and_nothing_is_written(
    lb: Lockbeat, backend: Backend, task: Task, argument: str
) -> None:
    before = dump(backend)
    assert not await complaints(argument, SPAWN[argument], lambda bad: lb.tasks.spawn(**{"name": "job", argument: bad}))
    assert dump(backend) == before


@pytest.mark.parametrize("argument", SPAWN)
async def test_a_new_task_validates_when_it_is_made(argument: str) -> None:
    async def make(bad: Any) -> NewTask:
        return NewTask(**{"name": "job", argument: bad})

    assert not await complaints(argument, SPAWN[argument], make)


@pytest.mark.parametrize(("argument", "call", "values"), [row[1:] for row in VERBS], ids=[f"{row[0]}-{row[1]}" for row in VERBS])
async def test_a_bad_argument_is_refused_by_each_verb_and_nothing_is_written(
    lb: Lockbeat, backend: Backend, task: Task, argument: str, call: Call, values: list[Any]
) -> None:
    before = dump(backend)
    assert not await complaints(argument, values, lambda bad: call(lb, task, bad))
    assert dump(backend) == before
    assert await lb.tasks.complete(task)


TYPES: list[tuple[str, Any]] = [
    ("name", 7),
    ("queue", None),
    ("max_attempts", "5"),
    ("max_attempts", True),
    ("retry", 5),
    ("idempotency_key", b"k"),
    ("delay", "1"),
    ("priority", 1.0),
    ("max_delay", "1"),
    ("retention", None),
]


@pytest.mark.parametrize(("argument", "bad"), TYPES)
def test_a_wrong_type_is_a_type_error(argument: str, bad: Any) -> None:
    with pytest.raises(InvalidType) as caught:
        NewTask(**{"name": "job", argument: bad})
    assert isinstance(caught.value, TypeError)
    assert caught.value.argument == argument


UNKNOWN = ["nonsense", "job@1700000000000", "x" * 1024, "}{", "\0", "é", "-1", "1.2.3", " "]


@pytest.mark.parametrize("verb", ["get", "cancel", "retry"])
async def test_an_unknown_id_is_an_unknown_task_and_nothing_is_written(
    lb: Lockbeat, backend: Backend, task: Task, verb: str
) -> None:
    before = dump(backend)
    for task_id in [*UNKNOWN, task.id + "0", "0" + task.id, task.id[:-1]]:
        with pytest.raises(UnknownTask, match=r"^no task ") as caught:
            await getattr(lb.tasks, verb)(task_id)
        assert isinstance(caught.value, LookupError)
        assert isinstance(caught.value, LockbeatError)
    for task_id in ("", "lone \ud800", "x" * 1025):
        with pytest.raises((UnknownTask, InvalidArgument), match=r"^(task_id: |no task )"):
            await getattr(lb.tasks, verb)(task_id)
    assert dump(backend) == before


async def test_one_bad_task_among_many_spawns_none(lb: Lockbeat, backend: Backend, task: Task) -> None:
    before = dump(backend)

    async def tasks() -> AsyncIterator[NewTask]:
        yield NewTask("job")

    for many in ((NewTask("job", n if n < 2 else object()) for n in range(4)), [NewTask("job"), "job"], tasks()):
        with pytest.raises(InvalidArgument):
            await lb.tasks.spawn_many(many)  # type: ignore[arg-type]
    assert dump(backend) == before


GOOD: list[dict[str, Any]] = [
    {"params": "x" * (2**20 - 2)},
    {"headers": {"h": "x" * (2**20 - 10)}},
    {"max_attempts": 1},
    {"max_attempts": 1000},
    {"priority": -49},
    {"priority": 49},
    {"delay": 0},
    {"delay": timedelta(milliseconds=1)},
    {"retention": 0},
    {"retry": None},
    {"max_delay": None, "max_duration": None, "idempotency_key": None, "headers": None},
    {"max_delay": 0.5, "max_duration": timedelta(days=365)},
    {"name": "é" * 512},
]


@pytest.mark.parametrize("options", GOOD, ids=lambda options: ascii(options)[:40])
async def test_what_lies_within_the_bounds_is_taken(lb: Lockbeat, options: dict[str, Any]) -> None:
    spawned = await lb.tasks.spawn(**{"name": "job"} | options)
    assert (await lb.tasks.get(spawned.task_id)).state == "waiting"
