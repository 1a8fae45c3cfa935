"""pause, resume, skip-next, changes: what they say, plain and as JSON, and what ls, next, ledger and why say of a paused job."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.jobs import Job
from lockbeat.triggers import At, ByHand, Called, Every

from .conftest import Lockbeat, using

Say = Callable[..., Any]


@pytest.fixture
def jobs(store: str) -> str:
    """Three jobs that nobody serves."""

    async def declare(lb: Client) -> None:
        await lb.jobs.put(
            *(Job.declare(name, Every(86_400), queue=of, tags=[of]) for name, of in (("a", "x"), ("b", "x"), ("c", "y")))
        )

    using(store, declare)
    return store


@pytest.fixture
def said(lockbeat: Lockbeat, jobs: str) -> Say:
    """What a command says on stdout; or, as JSON."""

    def say(*args: str) -> Any:
        answer = lockbeat(
            *args, "--utc", *(["--by", "anna"] if args[0] in ("pause", "resume", "skip-next") else []), "--url", jobs
        )
        assert (answer.code, answer.err) == (0, "")
        return answer.json if "--json" in args else answer.out

    return say


def test_a_job_is_paused_shown_as_paused_and_resumed(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    assert said("pause", "a", "--reason", "the printer burns") == "paused a\n"
    assert said("pause", "a", "--reason", "it still does") == "paused a, which was paused before\n"
    row = said("ls").splitlines()[1]
    assert re.search(r"^a +every 1d +- +paused .*paused, by anna at 20\S+ \S+Z: it still does$", row), row
    assert said("next", "a").startswith("a is paused, by anna at ")
    assert said("next", "a", "--json") == []
    assert said("ledger", "a") == "no slot of a has come due yet\n"
    shown = said("ls", "--json")[0]
    assert (shown["next_slot"], shown["paused"]["by"], shown["paused"]["reason"]) == (None, "anna", "it still does")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    why = lockbeat("why", "a", tomorrow.isoformat(), "--utc", "--url", jobs)
    assert why.code == 1
    assert re.match(r"20\S+ 00:00:00Z is skipped if a is not resumed before: it is paused, by anna at ", why.out)
    assert re.fullmatch(r"a: no slot is skipped; next is 20\S+ 00:00:00Z\nresumed 1 job\n", said("resume", "a"))
    again = lockbeat("resume", "a", "--url", jobs)
    assert (again.code, again.err) == (1, "lockbeat: not paused: a\n")
    words = [line.split()[2:4] for line in said("changes", "a").splitlines()[1:]]
    assert words == [["resume", "anna"], ["pause", "anna"], ["pause", "anna"]]
    assert [change["what"] for change in said("changes", "a", "--json")] == ["resume", "pause", "pause"]


def test_resume_says_what_it_skips_before_it_does_it(said: Say, jobs: str, raw: Any) -> None:
    said("pause", "a")
    day = 86_400_000
    place = raw.hget("{lockbeat:0}:job:slot", "a").split()
    place[0] = str(int(place[0]) - 3 * day)  # as if three days had passed
    raw.hset("{lockbeat:0}:job:slot", "a", " ".join(place))
    told = said("resume", "a", "--dry-run")
    assert re.fullmatch(r"a: 3 slots skipped, (\S+ \S+) to (\S+ \S+); next is \S+ \S+\nwould resume 1 job\n", told)
    latest = said("resume", "a", "--catchup", "latest", "--dry-run", "--json")
    assert [(way["skipped"], way["dry_run"]) for way in latest] == [(2, True)]
    assert said("resume", "a").splitlines() == [told.splitlines()[0], "resumed 1 job"]
    assert [change["what"] for change in said("changes", "a", "--json")] == ["resume", "pause"]
    assert "3 slots, 20" in said("ledger", "a")
    assert said("ledger", "a").splitlines()[1].endswith(": paused by anna")


def test_a_pause_ends_at_the_time_that_was_said(said: Say) -> None:
    when = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    local = when.replace(tzinfo=None).isoformat()
    assert said("pause", "a", "--until", local) == f"paused a until {local.replace('T', ' ')}Z\n"
    [state, *_] = said("ls", "--json")
    assert state["paused"]["until_at"] == local + ".000Z"
    assert state["next_slot"] > local


def test_many_are_paused_by_queue_and_resumed_by_all(said: Say) -> None:
    would = said("pause", "--queue", "x", "--dry-run", "--json")
    assert [(one["job"], one["was_paused"], one["dry_run"]) for one in would] == [("a", False, True), ("b", False, True)]
    assert said("resume", "--all") == "no job is paused\n"
    assert said("pause", "--queue", "x") == "paused a\npaused b\n"
    assert [state["job"] for state in said("ls", "--json") if state["paused"]] == ["a", "b"]
    assert said("pause", "--queue", "nobody's") == said("pause", "--tag", "nobody's") == "no job to pause\n"
    assert said("pause", "--tag", "y", "--dry-run") == "would pause c\n"
    assert said("resume", "--all").endswith("resumed 2 jobs\n")
    assert not [state for state in said("ls", "--json") if state["paused"]]


def test_the_next_slots_are_skipped(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    slots = [coming["slot"] for coming in said("next", "a", "--json")]
    would = said("skip-next", "a", "-n", "2", "--dry-run", "--json")
    assert would == [{"job": "a", "last_slot": slots[1], "dry_run": True}]
    assert [coming["slot"] for coming in said("next", "a", "--json")] == slots, "it was only said"
    assert re.fullmatch(r"skips 2 slots of a, the last at \S+ 00:00:00Z\n", said("skip-next", "a", "-n", "2"))
    assert [coming["slot"] for coming in said("next", "a", "-n", "3", "--json")] == slots[2:5]
    assert "skipping until " in said("ls").splitlines()[1]
    assert said("skip-next", "--all", "--json")[0]["last_slot"] == slots[2]
    said("pause", "a")
    refused = lockbeat("skip-next", "a", "--url", jobs)
    assert (refused.code, refused.err) == (1, "lockbeat: job 'a' is paused: its slots are skipped anyway\n")


def test_what_can_not_be_paused_is_one_line(lockbeat: Lockbeat, jobs: str) -> None:
    async def end(lb: Client) -> None:
        await lb.jobs.put(Job.declare("past", At(datetime(2020, 1, 1, tzinfo=UTC))))

    using(jobs, end)
    ended = lockbeat("pause", "past", "--url", jobs)
    assert (ended.code, ended.err) == (1, "lockbeat: job 'past' has no slot left\n")
    early = lockbeat("pause", "a", "--until", "2020-01-01", "--utc", "--url", jobs)
    assert (early.code, early.err) == (2, "lockbeat: until: is over by the server's clock: 2020-01-01 00:00:00+00:00\n")
    odd = lockbeat("resume", "a", "--catchup", "some", "--url", jobs)
    assert (odd.code, "catchup: must be one of" in odd.err) == (2, True)
    assert lockbeat("changes", "a", "--url", jobs).out == "nobody has changed a\n"


def test_a_job_is_triggered(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    answer = lockbeat("trigger", "a", '{"customer": 7}', "--url", jobs)
    found = re.fullmatch(r"triggered (a![0-9a-f]+)\n", answer.out)
    assert found
    assert (answer.code, answer.err) == (0, "lockbeat: no instance serves queue 'x'\n")
    task = said("task", found[1], "--json")
    assert (task["name"], task["params"], task["state"]) == ("a", {"customer": 7}, "waiting")
    again = lockbeat("trigger", "a", "--url", jobs)
    assert (again.code, again.out) == (1, "")
    assert again.err == f"lockbeat: nothing was triggered: {found[1]} has not ended; --overlap allow runs beside it\n"
    beside = lockbeat("trigger", "a", "--overlap", "allow", "--reason", "now", "--by", "anna", "--url", jobs, "--json")
    assert beside.json["task_id"].startswith("a!")
    assert [(one["what"], one["reason"]) for one in said("changes", "a", "--json")] == [("trigger", "now"), ("trigger", None)]


def test_those_of_a_tag_are_triggered_or_it_is_only_said(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    dry = lockbeat("trigger", "--tag", "x", "--dry-run", "--url", jobs)
    assert (dry.code, dry.out) == (0, "would trigger a\nwould trigger b\n")
    assert said("tasks", "--json")["tasks"] == []
    [first] = [row["task_id"] for row in lockbeat("trigger", "--queue", "y", '{"n": 1}', "--url", jobs, "--json").json]
    assert said("task", first, "--json")["params"] == {"n": 1}
    answer = lockbeat("trigger", "--all", "--url", jobs)
    assert (answer.code, answer.err) == (0, "lockbeat: no instance serves queue 'x', 'y'\n")
    assert re.fullmatch(rf"triggered a!\w+\ntriggered b!\w+\nnot c: {first} has not ended\n", answer.out), answer.out
    lockbeat("trigger", "--url", jobs).refuses(2, "say which: names of jobs, or --all, --queue QUEUE or --tag TAG")
    lockbeat("trigger", "a", "--tag", "x", "--url", jobs).refuses(2, "PARAMS: a is not JSON")


def test_several_are_deleted_when_somebody_is_sure(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    def left() -> list[str]:
        return [row["job"] for row in said("ls", "--json")]

    assert said("delete", "--tag", "x", "--dry-run") == "would delete a and its ledger\nwould delete b and its ledger\n"
    assert said("delete", "c", "--dry-run", "--json") == [{"job": "c", "dry_run": True}]
    lockbeat("delete", "--tag", "x", "--url", jobs).refuses(2, "this forgets jobs and their ledgers; say --yes")
    lockbeat("delete", "--url", jobs).refuses(2, "say which")
    assert left() == ["a", "b", "c"]
    assert said("delete", "--queue", "y", "--yes", "--json") == [{"job": "c", "dry_run": False}]
    lockbeat("delete", "a", "nobody", "--url", jobs).refuses(1, "no job named 'nobody'; deleted: a")
    assert left() == ["b"]
    assert said("delete", "b", "--json") == {"job": "b"}
    assert said("delete", "--all", "--yes") == "no job to delete\n"


def test_a_job_without_a_trigger_is_shown_as_one(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    async def declare(lb: Client) -> None:
        await lb.jobs.put(Job.declare("d", ByHand()))

    using(jobs, declare)
    assert said("ls").splitlines()[4].split()[:5] == ["d", "by", "hand", "-", "-"]
    assert said("next", "d") == "d has no slots: it runs when it is triggered\n"
    assert said("ledger", "d") == "no slot of d has come due yet\n"
    assert lockbeat("why", "d", "--url", jobs).out == "d has no slots: it runs when it is triggered.\n"
    for verb in ("pause", "skip-next"):
        refused = lockbeat(verb, "a", "d", "--url", jobs)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == "lockbeat: job 'd' has no slots: it runs when it is triggered\n"
    state = said("ls", "--json")[0]
    assert (state["job"], state["paused"]) == ("a", None), "one that can't be had stops all"


def test_deletes_and_changed_definitions_stand_in_the_log_of_changes(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    async def change(lb: Client) -> None:
        await lb.jobs.put(Job.declare("a", Every(86_400), queue="x", tags=["x"], priority=3), by="bob")
        await lb.jobs.put(Job.declare("a", Every(3600), queue="x", tags=["x"], priority=3), by="carl")

    using(jobs, change)
    assert lockbeat("delete", "a", "--by", "dora", "--url", jobs).code == 0
    assert [(one["what"], one["by"], one["reason"]) for one in said("changes", "a", "--json")] == [("delete", "dora", None)]
    using(jobs, change)
    told = [(one["what"], one["by"], one["reason"]) for one in said("changes", "a", "--json")]
    assert told == [("put", "carl", "another trigger"), ("delete", "dora", None)]
    assert lockbeat("changes", "b", "--url", jobs).out == "nobody has changed b\n"
    lockbeat("changes", "nobody", "--url", jobs).refuses(1, "no job named 'nobody'")


def test_a_job_that_exec_calls_for_is_said_to_go_on_with_the_next_call(said: Say, lockbeat: Lockbeat, jobs: str) -> None:
    using(jobs, lambda lb: lb.jobs.put(Job.declare("sweep", Called(Every(5)), queue="exec", origin="exec")))
    assert said("pause", "sweep") == "paused sweep\n"
    assert said("resume", "sweep") == "sweep: goes on with the next call, by lockbeat exec\nresumed 1 job\n"
    refused = lockbeat("skip-next", "sweep", "--url", jobs)
    assert refused.code == 1
    assert refused.err == "lockbeat: job 'sweep' is run by those who call for its slots, not by an instance: lockbeat exec\n"
