"""A command runs once for a slot, however many hosts call for it, and the ledger knows it like the slots of any job."""

from __future__ import annotations

import signal
from datetime import datetime
from typing import Any

import pytest

from lockbeat.triggers import Every
from tests.cli.conftest import using
from tests.conftest import needs
from tests.servers import FAKETIME

from .conftest import Exec, Lockbeat, alive, wait_until

pytestmark = pytest.mark.usefixtures("old")

SLOT = ("--slot", "1h", "--early", "0")
SCRIPT = 'echo "$LOCKBEAT_KEY $LOCKBEAT_SLOT $LOCKBEAT_TASK"; echo working >&2'


def clock(seconds: float) -> dict[str, str]:
    """A host whose clock is ahead by so much."""
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{seconds:+g}s", "DONT_FAKE_MONOTONIC": "1"}


@needs("faketime")
def test_four_hosts_whose_clocks_differ_run_a_slot_once(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    hosts = [execute("report", *SLOT, "--", "sh", "-c", SCRIPT, **clock(skew)) for skew in (-30, -10, 0, 30)]
    assert sorted((host.ends(), host.err) for host in hosts) == [*[(0, "")] * 3, (0, "working\n")]
    [ran] = [host for host in hosts if host.out]
    assert [host.err for host in hosts if host is not ran] == ["", "", ""]
    key, slot, task_id = ran.out.split()
    [entry] = lockbeat("ledger", "report", "--url", store, "--json").json
    assert (entry["state"], entry["task_id"], entry["count"]) == ("done", task_id, None)
    assert datetime.fromisoformat(entry["slot"]) == datetime.fromisoformat(slot)
    assert key == "job:report"
    [job] = lockbeat("ls", "--url", store, "--json").json
    assert (job["schedule"], job["last"]["state"], job["open"]) == ("every 1h, when called", "done", None)
    assert job["counts"]["fired"] == job["counts"]["done"] == 1
    assert lockbeat("locks", "--url", store, "--json").json == []

    again = execute("report", *SLOT, "-v", "--", "sh", "-c", SCRIPT)
    assert again.ends() == 0
    assert again.out == ""
    assert f"slot {slot} of 'report' was run before, or is being run" in again.err


def test_a_failed_command_stands_in_the_ledger_with_the_end_of_its_output(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    script = "seq 1 5000; printf 'disk \\377 full\\n' >&2; exit 3"
    host = execute("report", *SLOT, "--", "sh", "-c", script)
    assert host.ends() == 3
    assert host.out.startswith("1\n2\n")
    [entry] = lockbeat("ledger", "report", "--url", store, "--json").json
    assert entry["state"] == "failed"
    assert entry["reason"].startswith("exit code 3: disk ")

    async def look(lb: Any) -> Any:
        return await lb.tasks.get(entry["task_id"])

    info = using(store, look)
    assert info.failure.detail["exit_code"] == 3
    output = info.failure.detail["output"]
    assert 3900 < len(output.encode()) <= 4100
    assert "\n4999\n5000\n" in output
    told = lockbeat("why", "report", "--url", store)
    assert "exit code 3" in told.out
    assert "  | 5000\n  | disk \N{REPLACEMENT CHARACTER} full\n" in told.out
    assert lockbeat("why", "report", "--url", store, "--json").json["exit_code"] == 3
    assert [each["job"] for each in lockbeat("history", "--url", store, "--json").json["entries"]] == ["report"]
    assert "disk \N{REPLACEMENT CHARACTER} full\n" in output

    again = lockbeat("retry", entry["task_id"], "--url", store)
    assert (again.code, again.out) == (1, "")
    assert "job 'report' is run by those who call for its slots" in again.err
    for dry_run in ((), ("--dry-run",)):
        again = lockbeat("redrive", "--queue", "exec", *dry_run, "--url", store)
        assert (again.code, again.out) == (1, "")
        assert "none of queue 'exec' can be tried again" in again.err
    assert lockbeat("ledger", "report", "--url", store, "--json").json == [entry]


def test_what_a_command_wrote_that_succeeded_is_kept_as_well_unless_it_is_not_to_be(
    execute: Exec, lockbeat: Lockbeat, store: str
) -> None:
    async def result(lb: Any) -> Any:
        entries = [await lb.jobs.ledger(name) for name in ("report", "secret")]
        return [(await lb.tasks.get(entry.task_id)).result for [entry] in entries]

    calls = [
        execute("report", *SLOT, "--", "echo", "3 rows"),
        execute("secret", *SLOT, "--no-output", "--", "echo", "the password"),
    ]
    assert [call.ends() for call in calls] == [0, 0]
    assert [call.out for call in calls] == ["3 rows\n", "the password\n"]
    assert using(store, result) == [{"exit_code": 0, "output": "3 rows\n"}, {"exit_code": 0, "output": ""}]


def test_a_slot_that_meets_an_unfinished_one_is_skipped(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    """Its own task has not ended: another's lock on the job's name would do the same."""
    holder = execute("job:report", "--", "sh", "-c", "echo pid=$$; exec sleep 600")
    holder.says("pid=")
    late = execute("report", *SLOT, "--", "echo", "ran")
    assert late.ends() == 75
    assert late.out + late.err == ""
    [entry] = lockbeat("ledger", "report", "--url", store, "--json").json
    assert (entry["state"], entry["code"]) == ("skipped", "lock_held")
    holder.signal(signal.SIGTERM)
    assert holder.ends() == 128 + signal.SIGTERM
    assert execute("report", *SLOT, "--", "echo", "ran").ends() == 0  # the ledger knows it
    assert len(lockbeat("ledger", "report", "--url", store, "--json").json) == 1


def test_a_cancelled_slot_ends_its_command(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    host = execute("report", *SLOT, "--ttl", "2", "--", "sh", "-c", "echo pid=$$; exec sleep 600")
    pid = host.number("pid")
    [entry] = lockbeat("ledger", "report", "--url", store, "--json").json
    assert entry["state"] == "fired"
    assert lockbeat("cancel", entry["task_id"], "--url", store).code == 0
    assert host.ends() == 70
    assert "was cancelled" in host.err
    assert not alive(pid)
    assert [each["state"] for each in lockbeat("ledger", "report", "--url", store, "--json").json] == ["cancelled"]
    assert lockbeat("locks", "--url", store, "--json").json == []


def test_a_host_that_dies_loses_the_slot_and_the_next_call_says_so(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    host = execute("report", "--at-most-once-per", "1ms", "--ttl", "2", "--", "sh", "-c", "echo pid=$$; exec sleep 600")
    pid = host.number("pid")
    host.signal(signal.SIGKILL)
    host.popen.wait()
    wait_until(lambda: not alive(pid), "the command is gone")
    waits = execute("report", "--at-most-once-per", "1ms", "--wait", "1m", "--", "echo", "ran")
    assert waits.ends() == 0
    assert waits.out == "ran\n"
    states = [each["state"] for each in lockbeat("ledger", "report", "--url", store, "--json").json]
    assert states == ["done", "lost"]


def test_a_paused_job_is_not_run_on_any_host(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    often = ("report", "--at-most-once-per", "1ms")
    assert execute(*often, "--", "true").ends() == 0
    assert lockbeat("pause", "report", "--by", "ann", "--url", store).code == 0
    host = execute(*often, "-v", "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == ""
    assert "is paused by ann" in host.err
    [job] = lockbeat("ls", "--url", store, "--json").json
    assert job["paused"]["by"] == "ann"
    assert lockbeat("resume", "report", "--url", store).code == 0
    again = execute(*often, "--", "echo", "ran")
    assert again.ends() == 0
    assert again.out == "ran\n"


def test_at_most_once_in_a_while(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    """ShedLock #6: a second host that comes a little later runs it again."""
    first = execute("report", "--at-most-once-per", "5m", "--", "sh", "-c", "exit 3")
    assert first.ends() == 3
    for verbose in ((), ("-v",)):
        again = execute("report", "--at-most-once-per", "5m", *verbose, "--", "echo", "ran")
        assert again.ends() == 0
        assert again.out == ""
        assert ("at most once per 5m" in again.err) == bool(verbose)
    [job] = lockbeat("ls", "--url", store, "--json").json
    assert (job["schedule"], job["counts"]["failed"]) == ("at most once per 5m", 1)
    ran = execute("report", "--at-most-once-per", "1ms", "--", "sh", "-c", 'echo "slot $LOCKBEAT_SLOT"')
    assert ran.ends() == 0
    assert ran.out.startswith("slot 20")


def test_a_job_that_instances_fire_is_left_alone(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    from lockbeat.jobs import Job

    using(store, lambda lb: lb.jobs.put(Job.declare("report", Every(60))))
    host = execute("report", *SLOT, "--", "echo", "ran")
    assert host.ends() == 1
    assert host.out == ""
    assert "'report' is a job that instances fire (every 1m)" in host.err
    [job] = lockbeat("ls", "--url", store, "--json").json
    assert job["schedule"] == "every 1m"


def test_no_instance_fires_its_slots_and_nobody_triggers_it(execute: Exec, lockbeat: Lockbeat, store: str) -> None:
    assert execute("report", "--slot", "1s", "--", "true").ends() == 0
    said = lockbeat("trigger", "report", "--url", store)
    assert said.code == 1
    assert "run by those who call for its slots" in said.err
    listed = lockbeat("ls", "--url", store).out
    assert "every 1s, when called" in listed
    assert "overdue" not in listed
    assert len(lockbeat("next", "report", "-n", "3", "--url", store, "--json").json) == 3


def test_a_store_that_was_emptied_does_not_run_the_slot_again(execute: Exec, lockbeat: Lockbeat, store: str, raw: Any) -> None:
    assert execute("report", *SLOT, "--", "echo", "ran").ends() == 0
    raw.flushall()
    host = execute("report", *SLOT, "--", "echo", "ran")
    assert host.ends() == 0
    assert host.out == ""
    assert "it may have run" in host.err
    [entry] = lockbeat("ledger", "report", "--url", store, "--json").json
    assert (entry["state"], entry["code"]) == ("missed", "emptied")


def test_on_a_new_store_a_call_waits_for_the_next_slot(execute: Exec, lockbeat: Lockbeat, store: str, raw: Any) -> None:
    raw.flushall()
    host = execute("report", "--slot", "2s", "--", "sh", "-c", "echo $LOCKBEAT_TASK")
    assert host.ends() == 0
    assert host.out.startswith("report@")
