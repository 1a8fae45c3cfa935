"""put, apply: jobs that are made at run time, from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockbeat.jobs import Job
from lockbeat.triggers import AnyOf, Called, Cron, Every

from .conftest import Lockbeat, left, using
from .test_doctor import finding
from .test_look import fire

Written = Callable[..., str]

SET = """
[[jobs]]
name = "bill-2"
cron = "0 9 1 * *"
timezone = "Europe/Berlin"
function = "bill"
params = {customer = 2}
start = 2030-01-01T00:00:00+01:00
retry = {type = "fixed", seconds = 5}
tags = ["money"]

[[jobs]]
name = "often"
any_of = [{every = 60}, {cron = "7 * * * *", timezone = "UTC"}]

[[jobs]]
name = "by hand"
"""


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file; its name."""

    def write(text: str, name: str = "jobs.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


async def job_of(name: str, lb: Any) -> Any:
    return await lb.jobs.get(name)


def names(lockbeat: Lockbeat, store: str) -> list[str]:
    return [job["job"] for job in lockbeat("ls", "--url", store, "--json").json]


def test_a_job_is_put_shown_and_changed_only_as_it_is_expected(lockbeat: Lockbeat, store: str) -> None:
    put = ("put", "report-7", '{"customer": 7}', "--every", "60", "--function", "send", "--url", store)
    first = lockbeat(*put, "--option", "overlap=allow", "--option", 'tags=["a"]', "--json").json
    assert (first["job"], first["outcome"], first["origin"]) == ("report-7", "added", "api")
    assert first["next_slot"].endswith("Z")
    again = lockbeat(*put)
    assert again.out.startswith("changed report-7, rev ")
    assert "; next is " in again.out
    assert again.err == "lockbeat: no instance serves queue 'default'\n"
    assert lockbeat(*put).out.startswith("unchanged report-7")
    [job] = lockbeat("ls", "--url", store, "--json").json
    assert (job["function"], job["params"], job["origin"]) == ("send", {"customer": 7}, "api")
    assert 'origin=api function=send params={"customer":7}' in lockbeat("ls", "--url", store).out
    lockbeat(*put, "--if-rev", first["rev"]).refuses(1, f"job 'report-7' has rev '{job['rev']}', not '{first['rev']}'")
    lockbeat(*put, "--if-rev", "").refuses(1, "job 'report-7' is there already")
    lockbeat(*put, "--origin", "billing").refuses(1, "job 'report-7' belongs to origin 'api'")
    assert lockbeat(*put, "--origin", "billing", "--take-over", "--json").json["outcome"] == "changed"


def test_a_set_is_applied_from_a_file(lockbeat: Lockbeat, store: str, written: Written, raw: Any) -> None:
    file = written(SET)
    apply = ("apply", file, "--origin", "billing", "--prune", "--url", store)
    would = lockbeat(*apply, "--dry-run")
    assert would.out == (
        "+ bill-2\n+ by hand\n+ often\nwould apply 3 jobs of origin billing: 3 added, 0 changed, 0 removed, 0 unchanged\n"
    )
    assert not [key for key in left(raw) if ":job" in key]
    assert lockbeat(*apply).out.endswith("applied 3 jobs of origin billing: 3 added, 0 changed, 0 removed, 0 unchanged\n")
    found: dict[str, Job] = {}
    for name in ("bill-2", "often", "by hand"):
        found[name] = using(store, partial(job_of, name)).job
    assert (found["bill-2"].function, found["bill-2"].params, found["bill-2"].tags) == ("bill", {"customer": 2}, ("money",))
    assert str(found["bill-2"].trigger).startswith(f"{Cron('0 9 1 * *', 'Europe/Berlin')} from 2029-12-31T23:00")
    assert found["often"].trigger == AnyOf(Every(60), Cron("7 * * * *"))
    assert str(found["by hand"].trigger) == "by hand"
    less = written(json.dumps([{"name": "often", "every": 60}, {"name": "new", "at": "2031-01-01T00:00:00Z"}]), "jobs.json")
    done = lockbeat("apply", less, "--origin", "billing", "--prune", "--url", store, "--json").json
    assert done == {
        "origin": "billing",
        "added": ["new"],
        "changed": ["often"],
        "removed": ["bill-2", "by hand"],
        "unchanged": [],
        "dry_run": False,
    }
    assert names(lockbeat, store) == ["new", "often"]


def test_an_empty_file_removes_all_only_when_that_is_said(lockbeat: Lockbeat, store: str, written: Written) -> None:
    lockbeat("apply", written(SET), "--origin", "billing", "--url", store)
    empty = ("apply", written('{"jobs": []}', "none.json"), "--origin", "billing", "--prune", "--url", store)
    lockbeat(*empty).refuses(2, "this removes all jobs of the origin; say --yes")
    assert lockbeat(*empty, "--dry-run", "--json").json["removed"] == ["bill-2", "by hand", "often"]
    assert len(names(lockbeat, store)) == 3
    assert "3 removed" in lockbeat(*empty, "--yes").out
    assert names(lockbeat, store) == []


def test_long_lists_are_cut_for_people_only(lockbeat: Lockbeat, store: str, written: Written) -> None:
    file = written(json.dumps([{"name": f"job {n:03}", "every": 60} for n in range(250)]), "jobs.json")
    would = lockbeat("apply", file, "--origin", "billing", "--dry-run", "--url", store)
    assert would.out.splitlines()[-2:] == [
        "+ and 230 more",
        "would apply 250 jobs of origin billing: 250 added, 0 changed, 0 removed, 0 unchanged",
    ]
    done = lockbeat("apply", file, "--origin", "billing", "--url", store, "--json").json
    assert len(done["added"]) == 250


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs", "can't be read"),
        ('{"job": []}', "has no list of jobs"),
        ('["report"]', "job 1: job: must be a table of its options, not 'report'"),
        ('[{"every": 60}]', "job 1: name: the job has none"),
        ('[{"name": "a", "every": 60}, {"name": "b", "every": 0}]', "job 2, b: every: must be 0.001 s"),
        ('[{"name": "b", "cron": "61 * * * *"}]', "job 1, b: cron: "),
        ('[{"name": "b", "cron": "* * * * *", "every": 60}]', "job 1, b: every: can't go with cron"),
        ('[{"name": "b", "every": 60, "timezone": "UTC"}]', "job 1, b: timezone: can't go with every"),
        ('[{"name": "b", "timezone": "UTC"}]', "job 1, b: timezone: goes with a trigger"),
        ('[{"name": "b", "any_of": [{"name": "x"}]}]', "job 1, b: any_of: has what is no trigger"),
        ('[{"name": "b", "any_of": 7}]', "job 1, b: any_of: must be a list of triggers"),
        ('[{"name": "b", "at": "soon"}]', "job 1, b: at: 'soon' is no time"),
        (
            '[{"name": "b", "at": "2030-01-31T12:00:00"}]',
            "job 1, b: at: 2030-01-31T12:00:00 has no time zone; write it as 2030-01-31",
        ),
        ('[{"name": "b", "cron": "* * * * *", "cron": "0 9 * * *"}]', "'cron' stands twice in one object"),
        ('{"jobs": [{"name": "b", "every": 60}], "jobs": []}', "'jobs' stands twice in one object"),
        ('[{"name": "b", "evry": 60}]', "job 1, b: evry: no such option of a job; did you mean 'every'?"),
        ('[{"name": "b", "every": 60, "parms": 7}]', "job 1, b: parms: no such option of a job; did you mean 'params'?"),
        ('[{"name": "b", "every": 60, "retry": {"type": "moon"}}]', "job 1, b: retry: can't be read"),
        ('[{"name": "b", "every": 60}, {"name": "b", "every": 70}]', "jobs: two of them are named 'b'"),
        ('[{"name": "b", "every": 60, "origin": "other"}]', "jobs: 'b' says that it is of origin 'other', not 'billing'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    lockbeat: Lockbeat, store: str, written: Written, raw: Any, text: str, said: str
) -> None:
    lockbeat("apply", written(text, "jobs.json"), "--origin", "billing", "--url", store).refuses(2, said)
    assert not [key for key in left(raw) if ":job" in key]


@pytest.mark.parametrize(
    ("file", "text"), [("jobs.json", '[{"name": "b", "every": 60}]'), ("jobs.toml", '[[jobs]]\nname = "b"\nevery = 60\n')]
)
def test_a_mark_that_editors_on_windows_put_first_is_none_of_the_file(
    lockbeat: Lockbeat, store: str, written: Written, file: str, text: str
) -> None:
    """hermes-agent#66607, BurntSushi/toml#233."""
    lockbeat("apply", written("\ufeff" + text, file), "--origin", "billing", "--url", store)
    assert names(lockbeat, store) == ["b"]


def test_why_says_what_a_job_runs_and_that_nobody_can(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    slot = int(time.time()) // 3600 * 3600_000

    async def overdue(lb: Any) -> None:
        put = await lb.jobs.put("report", Every(3600), function="send", params={"customer": 7})
        raw.hset(lb.store.keys.key(0, "job:slot"), "report", f"{slot} {slot} {put.rev}")
        raw.zadd(lb.store.keys.key(0, "job:due"), {"report": slot})

    using(store, overdue)
    fire(store, slot, claim=False)
    out = lockbeat("why", "report", slot, "--url", store).out
    assert "no worker has begun it" in out
    assert "  no instance serves queue 'default'\n" in out
    assert out.endswith('  report runs send with {"customer":7}; origin: api\n')


def test_doctor_says_that_no_instance_has_a_jobs_function(lockbeat: Lockbeat, store: str) -> None:
    def functions() -> dict[str, Any]:
        return finding(lockbeat("doctor", "--url", store, "--json"), "functions")

    async def live(lb: Any) -> None:
        await lb.jobs.put("report", Every(60), function="send")
        await lb.jobs.put("other", Every(60))
        triggers = (Called(Every(5)), Called(least_ms=5000))  # of `lockbeat exec`, which runs a command
        called = [Job.declare(f"sweep-{n}", trigger, queue="exec", origin="exec") for n, trigger in enumerate(triggers)]
        await lb.jobs.put(*called)
        info = json.dumps({"queues": ["default"], "tasks": ["other"]})
        await lb.store.call("beat/heartbeat", 0, owner="alice", info=info, ttl_ms=60_000, version="")

    assert functions()["state"] == "ok"  # no instance works
    using(store, live)
    assert (functions()["state"], functions()["says"]) == (
        "warn",
        "No living instance has the function send, which report runs: is the version deployed that has it?",
    )
    using(store, lambda lb: lb.jobs.delete("report"))
    assert functions()["state"] == "ok"
