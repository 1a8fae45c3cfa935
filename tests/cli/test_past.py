"""ledger, history, why: plain, and as JSON."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.cli._entries import counted
from lockbeat.jobs import Job
from lockbeat.store.records import JobCounts
from lockbeat.triggers import Every
from tests.beats import Hands, backdate, scheduler

from .conftest import Lockbeat, using


@pytest.fixture
def past(store: str, raw: Any) -> str:
    """Of two jobs a slot each: one was done, the other failed; and a third that is to come."""

    async def play(lb: Client) -> None:
        jobs = [Job.declare(name, Every(86_400), tags=[name], max_attempts=1) for name in ("good", "bad")]
        await lb.jobs.put(*jobs, Job.declare("other", Every(86_400)))
        for job in jobs:
            slot = job.trigger.prev(round(await lb.store.server_time() * 1000))
            assert slot is not None
            await backdate(lb, raw, job.name, slot)
        hands = Hands("good", "bad")
        for shard in range(lb.store.shards):
            await scheduler(lb, *jobs, runner=hands).tick(shard)
        for task in hands.tasks:
            await (lb.tasks.complete(task) if task.job == "good" else lb.tasks.fail(task, "no such customer"))

    using(store, play)
    return store


def test_history_shows_all_jobs_and_what_is_asked_for(lockbeat: Lockbeat, past: str) -> None:
    head, *rows = lockbeat("history", "--url", past).out.splitlines()
    assert head.split() == ["WHEN", "JOB", "SLOT", "STATE", "LATE", "TOOK", "BY", "REASON"]
    assert sorted(re.search(r" (good|bad) .* (done|failed) ", row).groups() for row in rows) == [  # type: ignore[union-attr]
        ("bad", "failed"),
        ("good", "done"),
    ]
    for args in (["--state", "failed,missed"], ["--job", "bad"], ["--tag", "bad"], ["--since", "1h", "--state", "failed"]):
        [entry] = lockbeat("history", *args, "--url", past, "--json").json["entries"]
        assert (entry["job"], entry["state"], entry["reason"]) == ("bad", "failed", "no such customer")
    assert lockbeat("history", "--until", "1h", "--url", past).out == "nothing of that has happened\n"
    assert lockbeat("history", "--job", "other", "--url", past, "--json").json == {"entries": [], "more": None}


def test_history_goes_on_after_an_answer(lockbeat: Lockbeat, past: str) -> None:
    first = lockbeat("history", "-n", "1", "--url", past, "--json")
    more = first.json["more"]
    assert f"--after '{more}'" in first.err
    rest = lockbeat("history", "--limit", "1", "--after", more, "--url", past, "--json").json
    assert rest["more"] is None
    assert {entry["job"] for entry in first.json["entries"] + rest["entries"]} == {"good", "bad"}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--since", "yesterday"], 2, "'yesterday' is no time"),
        (["--state", "asleep"], 2, "no such state: 'asleep'"),
        (["--limit", "0"], 2, "--limit"),
        (["--after", "there"], 2, "after"),
        (["--since", "1h", "--until", "2h"], 2, "until"),
        (["--job", "good", "--tag", "x"], 2, "tag"),
        (["--job", "nobody"], 1, "no job named 'nobody'"),
    ],
)
def test_history_refuses_what_makes_no_sense(lockbeat: Lockbeat, past: str, args: list[str], code: int, said: str) -> None:
    lockbeat("history", *args, "--url", past).refuses(code, said)


def test_people_are_told_what_the_ledger_may_have_forgotten(
    lockbeat: Lockbeat, past: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lockbeat("ledger", "bad", "--url", past).err == ""
    monkeypatch.setattr("lockbeat.cli.commands.past.is_terminal", lambda: True)
    assert lockbeat("ledger", "bad", "--url", past).err == "lockbeat: since bad was declared: 1 fired, 1 failed\n"


def test_lateness_is_taken_apart_in_json_and_by_why(lockbeat: Lockbeat, past: str) -> None:
    [entry] = lockbeat("ledger", "good", "--url", past, "--json").json
    parts = entry["lateness"]
    assert [*parts] == ["jitter_ms", "firing_ms", "overlap_ms", "queue_ms"]
    assert (parts["jitter_ms"], parts["overlap_ms"], parts["queue_ms"]) == (0, 0, 0)
    assert re.search(r"It began .* after its slot: .* until an instance fired it\.", lockbeat("why", "good", "--url", past).out)


def test_why_is_a_paragraph_and_a_document(lockbeat: Lockbeat, past: str) -> None:
    told = lockbeat("why", "bad", "--url", past)
    assert told.code == 0
    assert re.search(r"^bad at \S+ \S+: failed\. Attempt 1 of 1, by \S+, failed after .*: no such customer\.", told.out)
    found = lockbeat("why", "bad", "--url", past, "--json").json
    assert (found["situation"], found["state"], found["code"]) == ("failed", "failed", None)
    assert found["text"].startswith("bad at ")
    none = lockbeat("why", "bad", "2020-01-01T00:00:01Z", "--url", past, "--json")
    assert none.code == 1
    assert (none.json["situation"], none.json["code"], none.json["state"]) == ("no_slot", "period", None)
    assert (none.json["before"], none.json["after"]) == ("2020-01-01T00:00:00.000Z", "2020-01-02T00:00:00.000Z")


def test_why_tells_of_a_triggered_run(lockbeat: Lockbeat, past: str) -> None:
    lockbeat("trigger", "other", "--url", past)
    [run] = [entry["task_id"] for entry in lockbeat("history", "--job", "other", "--url", past, "--json").json["entries"]]
    told = lockbeat("why", run, "--url", past)
    assert (told.code, told.out.startswith(f"{run}, triggered at ")) == (0, True)
    assert "no worker has begun it" in told.out
    gone = lockbeat("why", "other!000000000000", "--url", past)
    assert (gone.code, "a triggered run is known for a week" in gone.out) == (1, True)


def test_what_was_skipped_or_missed_is_counted_as_that_when_due() -> None:
    """A backfill may have fired it since."""
    assert counted(JobCounts(fired=3, done=3, skipped=2, missed=1)) == "3 fired, 3 done, 2 skipped when due, 1 missed when due"
