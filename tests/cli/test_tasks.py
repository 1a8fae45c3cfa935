"""tasks, task, spawn, dead, redrive, cancel, retry, purge: what they say, what they change, and what they refuse."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.jobs import Job, Scheduler
from lockbeat.triggers import Every
from lockbeat.values.visible import visible
from tests.beats import Hands, backdate, scheduler

from .conftest import Lockbeat, Start, left, using, wait_until
from .terminal import Terminal


def raised() -> ValueError:
    """An error with a traceback."""
    try:
        raise ValueError("no such host:\nmail.example")
    except ValueError as error:
        return error


async def died(lb: Client, queue: str = "default", name: str = "send") -> str:
    """The id of a task whose only attempt failed."""
    spawned = await lb.tasks.spawn(name, {"to": "ann"}, queue=queue, max_attempts=1)
    [task] = await lb.tasks.claim(queue, "gone-1")
    failed = await lb.tasks.fail(task, raised())
    assert failed.outcome == "dead_lettered"
    return spawned.task_id


@pytest.fixture
def busy(store: str) -> str:
    """Three queues: default with one running, two ready; slow with one delayed; mail with one dead, one done."""

    async def fill(lb: Client) -> None:
        for number in range(3):
            await lb.tasks.spawn("resize", number)
        await lb.tasks.claim("default", "host-1", lease=60)
        await lb.tasks.spawn("report", queue="slow", delay=600)
        await died(lb, "mail")
        await lb.tasks.spawn("count", queue="mail")
        [task] = await lb.tasks.claim("mail", "host-1")
        await lb.tasks.complete(task, {"found": []})

    using(store, fill)
    return store


def ids(answer: Any) -> list[str]:
    return [task["task_id"] for task in answer]


# -- looking


def test_tasks_says_first_how_many_each_queue_holds(lockbeat: Lockbeat, busy: str) -> None:
    answer = lockbeat("tasks", "--url", busy)
    assert (answer.code, answer.err) == (0, "")
    counts, _, tasks = answer.out.partition("\n\n")
    assert [line.split() for line in counts.splitlines()] == [
        ["QUEUE", "READY", "DELAYED", "RUNNING", "DEAD", "WORKERS"],
        ["default", "2", "0", "1", "0", "0"],
        ["mail", "0", "0", "0", "1", "0"],
        ["slow", "0", "1", "0", "0", "0"],
    ]
    head, *rows = tasks.splitlines()
    assert head.split() == ["TASK", "NAME", "QUEUE", "STATE", "ATTEMPTS", "WHEN", "OWNER", "NOTE"]
    assert [row.split()[1:5] for row in rows[:4]] == [
        ["resize", "default", "running", "1/5"],
        ["resize", "default", "waiting", "0/5"],
        ["resize", "default", "waiting", "0/5"],
        ["report", "slow", "waiting", "0/5"],
    ]
    assert {row.split()[3] for row in rows[4:]} == {"dead", "done"}
    assert "  due in " in rows[3]
    assert "  begun " in rows[0]
    assert "  host-1 " in rows[0]
    assert answer.out.isascii()


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["--queue", "slow"], ["report"]),
        (["--state", "dead"], ["send"]),
        (["--state", "waiting"], ["resize", "resize", "report"]),
        (["--queue", "mail", "--state", "done"], ["count"]),
    ],
)
def test_tasks_with_a_filter_shows_those_and_no_counts(
    lockbeat: Lockbeat, busy: str, filters: list[str], names: list[str]
) -> None:
    head, *rows = lockbeat("tasks", *filters, "--url", busy).out.splitlines()
    assert head.startswith("TASK ")
    assert [row.split()[1] for row in rows] == names
    assert [task["name"] for task in lockbeat("tasks", *filters, "--url", busy, "--json").json["tasks"]] == names


def test_tasks_json_has_counts_and_tasks(lockbeat: Lockbeat, busy: str) -> None:
    told = lockbeat("tasks", "--url", busy, "--json").json
    assert told["queues"][0] == {"queue": "default", "ready": 2, "delayed": 0, "running": 1, "dead": 0, "workers": 0}
    running = told["tasks"][0]
    assert (running["name"], running["state"], running["attempts"], running["owner"]) == ("resize", "running", 1, "host-1")
    assert running["fence"] > 0
    assert datetime.fromisoformat(running["expires_at"]).utcoffset() is not None
    assert running["ended_at"] is None
    only = lockbeat("tasks", "--queue", "slow", "--url", busy, "--json").json
    assert [load["queue"] for load in only["queues"]] == ["slow"]


def test_tasks_says_when_there_are_more_than_it_shows(lockbeat: Lockbeat, busy: str) -> None:
    answer = lockbeat("tasks", "--limit", "2", "--state", "waiting", "--url", busy)
    assert len(answer.out.splitlines()) == 3
    assert answer.err == "lockbeat: there are more than 2; --limit N shows up to N\n"
    assert answer.code == 0
    assert lockbeat("tasks", "--limit", "3", "--state", "waiting", "--url", busy).err == ""


def test_an_attempt_whose_lease_expired_is_told_so(lockbeat: Lockbeat, store: str) -> None:
    async def lose(lb: Client) -> None:
        await lb.tasks.spawn("resize")
        [task] = await lb.tasks.claim("default", "gone-1", lease=0.001)
        while await lb.store.server_time() <= task.expires_at:
            await asyncio.sleep(0.001)

    using(store, lose)
    assert "  its lease expired " in lockbeat("tasks", "--url", store).out


def test_an_empty_store_has_no_tasks(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    assert lockbeat("tasks", "--url", store).out == "no tasks\n"
    assert lockbeat("tasks", "--queue", "mail", "--state", "dead", "--url", store).out == "no dead tasks in queue mail\n"
    assert lockbeat("dead", "--url", store).out == "no dead tasks\n"
    assert lockbeat("tasks", "--url", store, "--json").json == {"queues": [], "tasks": []}
    assert lockbeat("dead", "--url", store, "--json").json == []
    assert left(raw) == set()


def test_task_shows_all_of_one_that_died(lockbeat: Lockbeat, store: str) -> None:
    task_id = using(store, died)
    lines = lockbeat("task", task_id, "--url", store).out.splitlines()
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if not line.startswith(" ")}
    assert [*said] == [
        "task",
        "name",
        "queue",
        "state",
        "priority",
        "spawned",
        "due",
        "begun",
        "ended",
        "owner",
        "fence",
        "params",
        "failure",
        "traceback",
    ]
    assert said["task"] == task_id
    assert said["state"] == "dead; begun 1 of 1 time"
    assert said["ended"].endswith(" ago")
    assert said["params"] == '{"to": "ann"}'
    assert said["failure"] == "ValueError: no such host:"
    assert said["traceback"] == "Traceback (most recent call last):"
    assert any("test_tasks.py" in line for line in lines)
    told = lockbeat("task", task_id, "--url", store, "--json").json
    assert told["failure"]["type"] == "ValueError"
    assert told["failure"]["message"] == "no such host:\nmail.example"
    assert "test_tasks.py" in told["failure"]["traceback"]


def test_task_shows_lease_and_headers_of_one_that_runs(lockbeat: Lockbeat, store: str) -> None:
    async def begin(lb: Client) -> str:
        spawned = await lb.tasks.spawn("resize", [10**30, []], headers={"trace": "7"}, priority=3)
        await lb.tasks.claim("default", "host-1", lease=60)
        return spawned.task_id

    task_id = using(store, begin)
    out = lockbeat("task", task_id, "--url", store).out
    assert f"params    [{10**30}, []]\n" in out
    assert 'headers   {"trace": "7"}\n' in out
    assert "priority  3\n" in out
    assert "lease     expires " in out
    told = lockbeat("task", task_id, "--url", store, "--json").json
    assert (told["params"], told["headers"], told["failure"]) == ([10**30, []], {"trace": "7"}, None)


def test_task_shows_the_result(lockbeat: Lockbeat, busy: str) -> None:
    [done] = lockbeat("tasks", "--state", "done", "--url", busy, "--json").json["tasks"]
    assert done["result"] == {"found": []}
    assert 'result    {"found": []}\n' in lockbeat("task", done["task_id"], "--url", busy).out


def test_what_others_wrote_can_not_drive_the_terminal(lockbeat: Lockbeat, store: str) -> None:
    async def spawn(lb: Client) -> str:
        spawned = await lb.tasks.spawn("bad\x1b[2J\nname", "\x9b2J", max_attempts=1)
        [task] = await lb.tasks.claim("default", "host-1")
        await lb.tasks.fail(task, "\x1b]0;title\x07 one\ntwo\r")
        return spawned.task_id

    task_id = using(store, spawn)
    told = [lockbeat("tasks", "--url", store).out, lockbeat("task", task_id, "--url", store).out]
    for out in told:
        assert not set(out) & set("\x1b\x9b\x07\r")
    assert "bad\\x1b[2J\\nname" in told[0]
    assert "          two" in told[1]
    assert visible("plain \u00fc") == "plain \u00fc"


# -- spawning


def test_spawn_puts_a_task_with_its_options_into_a_queue(lockbeat: Lockbeat, store: str) -> None:
    options = [
        "--queue",
        "mail",
        "--delay",
        "60",
        "--priority",
        "-5",
        "--max-attempts",
        "2",
        "--header",
        "a=1=2",
        "--header",
        "b=",
    ]
    answer = lockbeat("spawn", "send", '{"to": "ann", "n": [1.5, null]}', *options, "--url", store)
    assert (answer.code, answer.err) == (0, "lockbeat: no instance serves queue 'mail'\n")
    word, task_id = answer.out.split()
    assert word == "spawned"
    told = lockbeat("task", task_id, "--url", store, "--json").json
    assert (told["name"], told["queue"], told["priority"], told["max_attempts"]) == ("send", "mail", -5, 2)
    assert told["params"] == {"to": "ann", "n": [1.5, None]}
    assert told["headers"] == {"a": "1=2", "b": ""}
    late = datetime.fromisoformat(told["due_at"]) - datetime.fromisoformat(told["spawned_at"])
    assert late.total_seconds() == 60


def test_spawn_warns_of_what_is_true_alone(lockbeat: Lockbeat, store: str, start: Start, module: Callable[..., str]) -> None:
    path = module("""
        from lockbeat import Beat
        beat = Beat()
        @beat.every(3600)
        def nightly(run):
            print("run", repr(run.job), flush=True)
        @beat.task
        def send(): ...
    """)
    process = start("run", f"{path}:beat", "--url", store)
    wait_until(lambda: lockbeat("instances", "--url", store, "--json").json, "it serves")
    assert lockbeat("spawn", "nightly", "--url", store).err == "", "the function of a job is run when it is spawned"
    process.says("run ''")
    assert lockbeat("spawn", "send", "--url", store).err == ""
    said = lockbeat("spawn", "sent", "--key", "one", "--url", store).err
    assert said == "lockbeat: no instance that serves queue 'default' has a task 'sent'\n"
    assert lockbeat("spawn", "sent", "--key", "one", "--url", store).err == "", "it was there already, and may have ended"
    process.end()


def test_spawn_does_not_warn_of_a_function_that_may_be_one_of_very_many(lockbeat: Lockbeat, store: str) -> None:
    said = json.dumps({"queues": ["default"], "tasks": [f"task-{number}" for number in range(1000)]})
    using(store, lambda lb: lb.store.call("beat/heartbeat", 0, owner="large", info=said, ttl_ms=30_000, version=""))
    assert lockbeat("spawn", "task-1001", "--url", store).err == ""


def test_spawn_with_a_key_is_the_same_task(lockbeat: Lockbeat, store: str) -> None:
    first = lockbeat("spawn", "send", "--key", "order 1", "--url", store, "--json").json
    again = lockbeat("spawn", "send", "--key", "order 1", "--url", store, "--json").json
    assert (first["created"], again["created"]) == (True, False)
    assert first["task_id"] == again["task_id"]
    assert again["attempt"] == 1
    assert "was there already" in lockbeat("spawn", "send", "--key", "order 1", "--url", store).out


def test_spawn_reads_params_from_stdin(lockbeat: Lockbeat, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('["' + "x" * 200_000 + '"]\n'))
    task_id = lockbeat("spawn", "send", "-", "--url", store, "--json").json["task_id"]
    assert lockbeat("task", task_id, "--url", store, "--json").json["params"] == ["x" * 200_000]


@pytest.mark.parametrize(
    "params",
    [
        ["{to:"],
        ["{to:", "ann}"],
        ["ann"],
        [""],
        ["{'a': 1}"],
        ["1" * 5000],
        ["[" * 100_000],
        ["\udcff"],
    ],
)
def test_params_that_are_not_json_are_told_how_to_be_quoted(lockbeat: Lockbeat, store: str, raw: Any, params: list[str]) -> None:
    answer = lockbeat("spawn", "send it", *params, "--url", store)
    answer.refuses(2)
    assert answer.err.startswith("lockbeat: PARAMS: ")
    assert " is not JSON (" in answer.err
    assert """quote it for the shell: lockbeat spawn 'send it' '{"to": "ann"}'\n""" in answer.err
    assert len(answer.err) < 400
    assert left(raw) == set()


# -- changing


def test_cancel_ends_what_waits_and_what_runs(lockbeat: Lockbeat, busy: str) -> None:
    running, waiting, *_ = ids(lockbeat("tasks", "--url", busy, "--json").json["tasks"])
    for task_id in (running, waiting):
        assert lockbeat("cancel", task_id, "--url", busy).out == f"cancelled {task_id}\n"
        answer = lockbeat("cancel", task_id, "--url", busy)
        assert (answer.code, answer.out, answer.err) == (1, "", f"lockbeat: {task_id} had ended: cancelled\n")
    [done] = ids(lockbeat("tasks", "--state", "done", "--url", busy, "--json").json["tasks"])
    assert lockbeat("cancel", done, "--url", busy).err == f"lockbeat: {done} had ended: done\n"


def test_retry_gives_a_dead_task_more_attempts(lockbeat: Lockbeat, store: str) -> None:
    task_id = using(store, died)
    answer = lockbeat("retry", task_id, "--attempts", "3", "--url", store)
    assert answer.out == f"{task_id} waits again, for up to 3 attempts\n"
    told = lockbeat("task", task_id, "--url", store, "--json").json
    assert (told["state"], told["attempts"], told["max_attempts"]) == ("waiting", 1, 4)
    answer = lockbeat("retry", task_id, "--url", store)
    assert (answer.code, answer.err) == (1, f"lockbeat: {task_id} is neither dead nor cancelled but waiting\n")


def test_retry_takes_a_cancelled_task_too_and_tells_who_did_what(lockbeat: Lockbeat, store: str) -> None:
    async def spawn(lb: Client) -> str:
        return (await lb.tasks.spawn("job")).task_id

    task_id = using(store, spawn)
    said = lockbeat("cancel", task_id, "--by", "ann", "--url", store, "--json").json
    assert said == {"task_id": task_id, "by": "ann"}
    assert lockbeat("task", task_id, "--url", store, "--json").json["cancelled_by"] == "ann"
    assert lockbeat("retry", task_id, "--url", store, "--json").json == {
        "task_id": task_id,
        "attempts": 1,
        "by": getpass.getuser(),
    }
    answer = lockbeat("task", task_id, "--url", store)
    assert re.search(rf"retried   by {getpass.getuser()} at .*; before, it was cancelled by ann\n", answer.out)
    assert lockbeat("task", task_id, "--url", store, "--json").json["retried"]["detail"] == "ann"


def test_what_was_never_fired_is_left_to_a_backfill(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    async def skip(lb: Client) -> str:
        job = Job.declare("tick", Every(3600))
        await lb.jobs.put(job)
        slot = job.trigger.prev(round(await lb.store.server_time() * 1000))
        assert slot is not None
        await backdate(lb, raw, "tick", slot)
        assert await lb.locks.try_acquire("job:tick", "a deploy", 60)
        await scheduler(lb, job, runner=Hands("tick")).tick(lb.jobs.shard_of("tick"))
        return f"tick@{slot}"

    task_id = using(store, skip)
    answer = lockbeat("retry", task_id, "--url", store)
    assert answer.err == f"lockbeat: {task_id} can't be tried again: that slot was skipped, and lockbeat backfill runs it\n"


def test_a_failed_slot_is_shown_as_dead_and_retried_until_only_the_ledger_knows(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    slot = int(time.time()) // 3600 * 3600_000
    job = Job.declare("tick", Every(3600))

    async def fail(lb: Client) -> str:
        await lb.jobs.put(job)
        key = lb.store.keys.key(lb.jobs.shard_of("tick"), "job:slot")
        raw.hset(key, "tick", f"{slot} {slot} {job.rev}")
        raw.zadd(key.replace("job:slot", "job:due"), {"tick": slot})
        await Scheduler(lb.store, lb.jobs, {}, None).tick(0)
        [task] = await lb.tasks.claim("default", "host-1")
        await lb.tasks.fail(task, "boom")
        return task.id

    task_id = using(store, fail)
    assert task_id == f"tick@{slot}"
    assert "state     dead" in lockbeat("task", task_id, "--url", store).out
    assert lockbeat("cancel", task_id, "--url", store).err == f"lockbeat: {task_id} had ended: dead\n"
    for command in (("tasks", "--state", "dead"), ("dead",), ("dead", "--queue", "default")):
        assert task_id in lockbeat(*command, "--url", store).out
    assert lockbeat("retry", task_id, "--url", store).out == f"{task_id} waits again, for up to 1 attempt\n"
    assert "retrying" in lockbeat("ledger", "tick", "--url", store).out

    async def fail_again(lb: Client) -> None:
        [task] = await lb.tasks.claim("default", "host-1")
        await lb.tasks.fail(task, "boom")

    using(store, fail_again)
    assert lockbeat("purge", "--state", "dead", "--yes", "--url", store).code == 0
    answer = lockbeat("retry", task_id, "--url", store)
    assert (answer.code, answer.err) == (1, f"lockbeat: {task_id} can't be tried again: only the ledger still knows of it\n")


def test_dead_lists_all_queues_or_one_with_the_failure(lockbeat: Lockbeat, store: str) -> None:
    async def fill(lb: Client) -> list[str]:
        return [await died(lb, queue) for queue in ("mail", "files", "mail")]

    first, second, third = using(store, fill)
    head, *rows = lockbeat("dead", "--url", store).out.splitlines()
    assert head.split()[0] == "TASK"
    assert [row.split()[0] for row in rows] == [second, first, third]
    assert all(row.endswith("  ValueError: no such host:") for row in rows)
    assert ids(lockbeat("dead", "--queue", "mail", "--url", store, "--json").json) == [first, third]
    short = lockbeat("dead", "--queue", "mail", "--limit", "1", "--url", store)
    assert len(short.out.splitlines()) == 2
    assert "more than 1" in short.err
    assert lockbeat("dead", "--queue", "other", "--url", store).out == "no dead tasks in queue other\n"


def test_redrive_lets_the_dead_of_one_queue_be_tried_again(lockbeat: Lockbeat, store: str) -> None:
    async def fill(lb: Client) -> list[str]:
        return [await died(lb, "mail") for _ in range(3)]

    first, *_ = using(store, fill)
    assert lockbeat("redrive", "--url", store).out == "no dead tasks in queue default; mail has 3\n"
    dry = lockbeat("redrive", "--queue", "mail", "--dry-run", "--url", store)
    assert dry.out == "3 dead tasks of queue mail would wait again, with all attempts\n"
    one = lockbeat("redrive", "--queue", "mail", "--limit", "1", "--url", store)
    assert one.out == "1 dead task of queue mail waits again, with all attempts\n"
    assert ids(lockbeat("tasks", "--state", "waiting", "--url", store, "--json").json["tasks"]) == [first]
    assert lockbeat("redrive", "--queue", "mail", "--url", store, "--json").json == {"queue": "mail", "redriven": 2}
    assert lockbeat("redrive", "--queue", "mail", "--url", store).out == "no dead tasks in queue mail\n"


def test_purge_forgets_what_has_ended(lockbeat: Lockbeat, busy: str) -> None:
    for state, many in ((None, 2), ("done", 1), ("dead", 1), ("cancelled", 0)):
        which = ("--state", state) if state else ()
        dry = lockbeat("purge", "--queue", "mail", *which, "--dry-run", "--url", busy, "--json").json
        assert dry == {"queue": "mail", "state": state, "purged": many, "dry_run": True}
    only = lockbeat("purge", "--queue", "mail", "--state", "done", "--yes", "--url", busy)
    assert only.out == "forgot 1 done task of queue mail\n"
    assert lockbeat("purge", "--yes", "--url", busy).out == "forgot 0 ended tasks of queue default\n"
    told = lockbeat("purge", "--queue", "mail", "-y", "--url", busy, "--json").json
    assert told == {"queue": "mail", "state": None, "purged": 1}
    assert {task["state"] for task in lockbeat("tasks", "--url", busy, "--json").json["tasks"]} == {"running", "waiting"}


def test_purge_without_a_terminal_does_nothing_unless_told_yes(lockbeat: Lockbeat, busy: str) -> None:
    assert lockbeat("purge", "--queue", "mail", "--url", busy).code == 2
    assert len(lockbeat("dead", "--url", busy, "--json").json) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("n\r", 1, 1), ("\r", 1, 1), ("\x03", 130, 1), ("y\r", 0, 0)])
def test_purge_on_a_terminal_asks_first(lockbeat: Lockbeat, busy: str, answer: str, code: int, left: int) -> None:
    with Terminal("purge", "--queue", "mail", "--url", busy) as terminal:
        terminal.says("Forget the tasks of queue mail that are done, dead or cancelled? 1 of them is dead. [y/N]: ")
        terminal.types(answer)
        assert terminal.ends() == code
        assert "Traceback" not in terminal.said
    assert len(lockbeat("dead", "--url", busy, "--json").json) == left


def test_on_a_terminal_tasks_are_tables_as_wide_as_the_window(busy: str) -> None:
    with Terminal("tasks", "--url", busy) as terminal:
        assert terminal.ends() == 0
    assert "QUEUE" in terminal.said
    assert "\x1b[" in terminal.said
    assert "ValueError:" in terminal.said
