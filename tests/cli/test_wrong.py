"""What is wrong now, in the terminal: `top` and `doctor` say what Overview says, in the same words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from lockbeat import Every
from lockbeat import Lockbeat as Client
from lockbeat.embedded import EmbeddedServer
from tests.hanging import hung

from .conftest import Lockbeat, using
from .terminal import LINES, Terminal

KINDS = ["firing", "hanging", "function", "queue", "paused", "silent", "stuck", "dead"]
CHECKS = {
    "hanging": "runs",
    "function": "functions",
    "queue": "queues",
    "paused": "paused",
    "silent": "instances",
    "dead": "dead",
}


@pytest.fixture
def records(server: EmbeddedServer) -> Iterator[Any]:
    """redis-py, which gives records as they are."""
    with redis.Redis(unix_socket_path=server.socket_path, protocol=2) as client:
        yield client


async def heartbeat(lb: Client, owner: str, ttl_ms: int = 30_000, **more: Any) -> None:
    info = {"schedules": False, "queues": ["default"], "tasks": ["report", "other"]} | more
    await lb.store.call("beat/heartbeat", 0, owner=owner, info=json.dumps(info), ttl_ms=ttl_ms, version="")


async def spoil(lb: Client, records: Any) -> str:
    """One of each kind; the task that hangs."""
    task, _ = await hung(lb, records)
    await lb.jobs.put("odd job", Every(3600), function="reports.send")
    await lb.jobs.put("itself", Every(3600), function="other")
    await lb.jobs.pause("itself", "3 failures in a row", by="pause_after")
    await lb.tasks.spawn("other", queue="slow lane")
    await lb.tasks.spawn("other", queue="default", max_attempts=1)
    [mine] = await lb.tasks.claim("default", "host-1", 1)
    await lb.tasks.fail(mine, "no")
    await heartbeat(lb, "host-1")
    await heartbeat(lb, "host-2", ttl_ms=10_000)  # as one that was heard of twenty seconds ago
    await heartbeat(lb, "host-3", stuck_s=9.0)
    return task.id


def test_top_and_doctor_tell_of_all_that_is_wrong_in_the_same_words(lockbeat: Lockbeat, store: str, records: Any) -> None:
    task_id = using(store, lambda lb: spoil(lb, records))
    told = lockbeat("top", "--url", store, "--json").json
    assert told["wrong_complete"] is True
    assert [one["what"] for one in told["wrong"]] == KINDS
    said = {one["what"]: one for one in told["wrong"]}
    assert (said["hanging"]["job"], said["hanging"]["task"]) == ("report", task_id)
    assert " has been running for 7 h" in said["hanging"]["says"]
    assert ", and it usually takes " in said["hanging"]["says"]
    assert said["hanging"]["says"].endswith(" was skipped for it.")
    assert said["function"]["says"].startswith("No living instance has the function reports.send, which odd job runs")
    assert said["queue"]["says"] == "1 task waits in queue slow lane, and no living instance serves it."
    assert said["paused"]["says"].endswith(" ago, after 3 failures in a row: it fires nothing until somebody resumes it.")
    assert said["dead"]["says"] == "1 dead task waits for somebody to look at it."
    text = lockbeat("top", "--url", store, "--utc").out
    _, wrong, *_ = text.split("\n\n")
    assert [line.split()[0] for line in wrong.splitlines()] == ["WRONG", *KINDS], "it comes first"
    for kind in ("function", "queue", "dead"):
        assert said[kind]["says"] in wrong
    checks = {one["check"]: one for one in lockbeat("doctor", "--url", store, "--json").json["checks"]}
    for kind, check in CHECKS.items():
        assert checks[check]["state"] == "warn", check
        assert checks[check]["remedy"] == said[kind]["remedy"]
        begins, _, _ = said[kind]["says"].partition({"hanging": " of 2", "silent": " for "}.get(kind, " itself "))
        assert checks[check]["says"].startswith(begins.removesuffix(".")), check
    assert checks["instances"]["says"].endswith(" And 1 more")


def test_what_remedies_what_is_wrong_are_commands_that_run(lockbeat: Lockbeat, store: str, records: Any) -> None:
    using(store, lambda lb: spoil(lb, records))
    for one in lockbeat("top", "--url", store, "--json").json["wrong"]:
        name, *args = shlex.split(one["remedy"])
        assert name == "lockbeat"
        if one["what"] != "firing":
            answer = lockbeat(*args, "--url", store)
            assert (answer.code, answer.err) == (0, ""), one
    left = [one["what"] for one in lockbeat("top", "--url", store, "--json").json["wrong"]]
    assert "paused" not in left


def test_where_nothing_is_wrong_neither_says_so(lockbeat: Lockbeat, store: str) -> None:
    async def fine(lb: Client) -> None:
        await lb.jobs.put("report", Every(timedelta(hours=1)))
        await heartbeat(lb, "host-1", schedules=True)

    using(store, fine)
    assert lockbeat("top", "--url", store, "--json").json["wrong"] == []
    assert "WRONG" not in lockbeat("top", "--url", store).out
    states = {one["check"]: one["state"] for one in lockbeat("doctor", "--url", store, "--json").json["checks"]}
    assert [states[check] for check in CHECKS.values()] == ["ok"] * len(CHECKS)


def test_doctor_looks_at_the_functions_of_all_jobs_and_top_says_that_it_did_not(
    lockbeat: Lockbeat, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def some(lb: Client) -> None:
        for name, function in (("a", "other"), ("b", "other"), ("c", "lost")):
            await lb.jobs.put(name, Every(3600), function=function)
        await heartbeat(lb, "host-1", schedules=True)

    using(store, some)
    monkeypatch.setattr("lockbeat.monitor._wrong.FUNCTIONS", 1)
    monkeypatch.setattr("lockbeat.monitor._told.FUNCTIONS", 1)
    answer = lockbeat("top", "--url", store)
    assert "lost" not in answer.out
    assert answer.err == "lockbeat: There is more than was looked at: of each shard the functions of the first 1 jobs by name.\n"
    checks = {one["check"]: one for one in lockbeat("doctor", "--url", store, "--json").json["checks"]}
    assert checks["functions"]["says"].startswith("No living instance has the function lost, which c runs")


def test_a_frame_shows_of_what_is_wrong_what_fits(store: str) -> None:
    async def crowd(lb: Client) -> None:
        await heartbeat(lb, "host-1", queues=["served"])
        for number in range(60):
            await lb.tasks.spawn("resize", queue=f"queue-{number:02}")

    using(store, crowd)
    with Terminal("top", "--refresh", "0.1", "--url", store) as terminal:
        terminal.says("No instance fires slots")
        terminal.says("waits in queue queue-00")
        terminal.says(" more: lockbeat top --once")
        terminal.types("\x03")
        assert terminal.ends() == 0
    _, _, after = terminal.said.rpartition("\x1b[?1049l")
    assert len(after.splitlines()) <= LINES, after
