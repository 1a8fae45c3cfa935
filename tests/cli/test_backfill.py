"""backfill: what it says and refuses, the bar on a terminal, and that it goes on though its instances are killed."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.jobs import Job
from lockbeat.triggers import ByHand, Called, Every

from .conftest import Lockbeat, Start, using, wait_until
from .terminal import Terminal

START, END = "2026-01-01T00:00:00", "2026-01-01T05:00:00"


@pytest.fixture
def jobs(store: str) -> str:
    """Three jobs that nobody serves: one has no slots, one those that `lockbeat exec` calls for."""

    async def declare(lb: Client) -> None:
        await lb.jobs.put(Job.declare("hourly", Every(3600), overlap="allow"), Job.declare("hand", ByHand()))
        await lb.jobs.put(Job.declare("called", Called(Every(5)), queue="exec", origin="exec"))

    using(store, declare)
    return store


def test_it_says_what_it_would_do_begins_and_shows_how_far_it_is(lockbeat: Lockbeat, jobs: str) -> None:
    def said(*args: str) -> Any:
        answer = lockbeat("backfill", "hourly", *args, "--utc", "--url", jobs)
        assert (answer.code, answer.err) == (0, ""), answer
        return answer.json if "--json" in args else answer.out

    head = "hourly: backfill from 2026-01-01 00:00:00Z to 2026-01-01 05:00:00Z"
    assert said("--from", START, "--to", END, "--dry-run") == f"{head}: 5 slots, would fire 5\n"
    plan = said("--from", START, "--to", END, "--dry-run", "--json")
    assert (plan["state"], plan["fired"], plan["dry_run"], plan["start"]) == ("planned", 5, True, "2026-01-01T00:00:00.000Z")
    lockbeat("backfill", "hourly", "--url", jobs).refuses(1, "hourly has no backfill; --from TIME begins one")
    begun = lockbeat(
        "backfill",
        "hourly",
        "--from",
        START,
        "--to",
        END,
        "--by",
        "anna",
        "--reason",
        "a new report",
        "--utc",
        "--rate",
        "2",
        "--url",
        jobs,
    )
    assert begun.code == 0
    assert begun.out.splitlines()[0] == f"{head} running: 5 slots, 0 fired, 5 left"
    assert re.fullmatch(r"  begun at .+Z by anna: a new report", begun.out.splitlines()[1])
    assert begun.err == "lockbeat: no instance schedules, so nothing goes on; start one: lockbeat run MODULE:BEAT\n"
    assert said("--pause", "--by", "bob").startswith(f"{head} paused: 5 slots, 0 fired, 5 left\n")
    found = said("--json")
    assert (found["state"], found["by"], found["rate"], found["left"], found["ended_at"]) == ("paused", "anna", 2, 5, None)
    lockbeat("backfill", "hourly", "--from", START, "--yes", "--url", jobs).refuses(
        1, "job 'hourly' has a backfill that is paused"
    )
    assert lockbeat("backfill", "hourly", "--resume", "--url", jobs).code == 0
    assert said("--cancel", "--json")["state"] == "cancelled"
    lockbeat("backfill", "hourly", "--pause", "--url", jobs).refuses(1, "the backfill of job 'hourly' has ended")
    changes = lockbeat("changes", "hourly", "--url", jobs, "--json").json
    assert [change["what"] for change in changes] == ["cancel_backfill", "resume_backfill", "pause_backfill", "backfill"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["nobody", "--from", START], 1, "no job named 'nobody'"),
        (["hand", "--from", START], 1, "job 'hand' has no slots: it runs when it is triggered"),
        (["called", "--from", START], 1, "job 'called' is run by those who call for its slots"),
        (["hourly", "--from", "1h", "--to", "2h"], 2, "--from must lie before --to"),
        (["hourly", "--from", END, "--to", START], 2, "--from must lie before --to, which is not included"),
        (["hourly", "--from", "2026-11-20", "--to", "2026-11-20"], 2, "--to, which is not included"),
        (["hourly", "--from", "2100-01-01", "--to", "2101-01-01"], 2, "end: lies ahead, by the server's clock"),
        (["hourly", "--from", START, "--rate", "0"], 2, "rate: must be 0.0001 to 1000 slots a second, not 0.0"),
        (["hourly", "--from", "soon"], 2, "'soon' is no time"),
        (["hourly", "--to", END], 2, "say --from TIME: the slots from then on"),
        (["hourly", "--rate", "2"], 2, "say --from TIME: the slots from then on"),
        (["hourly", "--pause", "--cancel"], 2, "say one of --from, --pause, --resume and --cancel"),
        (["hourly", "--from", "2020-01-01", "--to", "2025-01-01"], 2, "these are 43848 slots of hourly; say --yes"),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(
    lockbeat: Lockbeat, jobs: str, args: list[str], code: int, said: str
) -> None:
    lockbeat("backfill", *args, "--utc", "--url", jobs).refuses(code, said)
    assert lockbeat("changes", "hourly", "--url", jobs, "--json").json == []


def test_its_slots_may_be_said_by_how_long_ago_they_were(lockbeat: Lockbeat, jobs: str) -> None:
    assert lockbeat("backfill", "hourly", "--from", "3d", "--to", "2d", "--dry-run", "--json", "--url", jobs).json["total"] == 24


def test_ls_shows_the_one_that_goes_on_and_backfills_lists_all(lockbeat: Lockbeat, jobs: str) -> None:
    async def more(lb: Client) -> None:
        await lb.jobs.put(Job.declare("other", Every(3600)))

    using(jobs, more)
    assert lockbeat("backfills", "--url", jobs).out == "no job has a backfill\n"
    for job in ("hourly", "other"):
        assert lockbeat("backfill", job, "--from", START, "--to", END, "--reason", f"for {job}", "--utc", "--url", jobs).code == 0
    assert lockbeat("backfill", "other", "--pause", "--url", jobs).code == 0
    flags = {line.split()[0]: line for line in lockbeat("ls", "--url", jobs).out.splitlines()}
    assert "backfill=0/5" in flags["hourly"]
    assert "backfill=0/5 (paused)" in flags["other"]
    found = {one["job"]: one["backfill"] for one in lockbeat("ls", "--json", "--url", jobs).json}
    assert (found["hourly"]["state"], found["hourly"]["reason"], found["hand"]) == ("running", "for hourly", None)
    listed = lockbeat("backfills", "--json", "--url", jobs).json
    assert [(one["job"], one["state"], one["reason"]) for one in listed] == [
        ("hourly", "running", "for hourly"),
        ("other", "paused", "for other"),
    ]
    assert [one["job"] for one in lockbeat("backfills", "--state", "paused", "--json", "--url", jobs).json] == ["other"]
    page = lockbeat("backfills", "--limit", "1", "--url", jobs)
    assert "hourly" in page.out
    assert page.err == "lockbeat: there are more: --after hourly\n"
    assert "for other" in lockbeat("backfills", "--after", "hourly", "--url", jobs).out
    lockbeat("backfills", "--state", "odd", "--url", jobs).refuses(2, "'odd' is not one of")
    assert lockbeat("backfill", "hourly", "--cancel", "--url", jobs).code == 0
    assert "backfill" not in lockbeat("ls", "hourly", "--url", jobs).out


def test_nobody_waits_for_one_that_no_instance_goes_on_with(lockbeat: Lockbeat, jobs: str) -> None:
    begun = lockbeat("backfill", "hourly", "--from", START, "--to", END, "--wait", "--utc", "--url", jobs)
    assert (begun.code, begun.out.splitlines()[0][-9:]) == (4, "0 fired, 5 left"[-9:])
    assert begun.err == "lockbeat: no instance schedules, so nothing goes on; start one: lockbeat run MODULE:BEAT\n"


def test_many_slots_are_begun_with_yes(lockbeat: Lockbeat, jobs: str) -> None:
    args = ("backfill", "hourly", "--from", "2020-01-01", "--to", "2025-01-01", "--utc", "--yes", "--json")
    assert lockbeat(*args, "--url", jobs).json["total"] == 43_848


PROGRAM = """
    import json
    import os
    import time

    from lockbeat import Beat

    beat = Beat(grace=1)

    @beat.every(3600, max_attempts=9, lease=0.4, keep=10)
    async def hourly(run):
        line = {"slot": run.slot.isoformat(), "attempt": run.attempt, "fence": run.fence, "pid": os.getpid()}
        with open(os.environ["EFFECTS"], "a") as file:
            file.write(json.dumps(line) + "\\n")
        import asyncio
        await asyncio.sleep(0.03)
"""


def test_a_bar_shows_it_on_a_terminal(
    lockbeat: Lockbeat, start: Start, module: Callable[..., str], store: str, tmp_path: Path
) -> None:
    start("run", f"{module(PROGRAM)}:beat", "--url", store, EFFECTS=str(tmp_path / "effects"))
    wait_until(lambda: lockbeat("ls", "--url", store, "--json").json, "the job is declared")
    with Terminal("backfill", "hourly", "--from", START, "--to", END, "--utc", "--url", store) as terminal:
        terminal.says("/5")
        terminal.says("done: 5 slots, 5 fired, 5 done")
        assert terminal.ends() == 0
    with Terminal("backfill", "hourly", "--from", "2020-01-01", "--to", "2025-01-01", "--utc", "--url", store) as terminal:
        terminal.says("43848 slots, would fire 43848. Fire them? [y/N]:")
        terminal.types("y\n")
        terminal.says("/43848")
        terminal.types("\x03")
        terminal.says("running: 43848 slots")
        assert terminal.ends() == 0


def test_it_goes_on_though_its_instances_are_killed(
    lockbeat: Lockbeat, start: Start, module: Callable[..., str], store: str, tmp_path: Path
) -> None:
    """Thrice the process that ran the latest slot, which is the one that carried the backfill on, too, for there is no other."""
    effects = tmp_path / "effects"
    effects.touch()
    program = f"{module(PROGRAM)}:beat"

    def ran() -> list[dict[str, Any]]:
        return [json.loads(line) for line in effects.read_text().splitlines() if line.endswith("}")]

    process = start("run", program, "--url", store, EFFECTS=str(effects))
    wait_until(lambda: lockbeat("ls", "--url", store, "--json").json, "the job is declared")
    begun = lockbeat("backfill", "hourly", "--from", START, "--to", "2026-01-03T12:00:00", "--utc", "--url", store, "--json")
    assert begun.json["total"] == 60
    for _ in range(3):
        before = len(ran())
        wait_until(partial(lambda before: len(ran()) >= before + 8, before), "it goes on")
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        process = start("run", program, "--url", store, EFFECTS=str(effects))
    done = lockbeat("backfill", "hourly", "--wait", "--url", store, "--json").json
    assert (done["state"], done["fired"], done["done"], done["known"], done["left"]) == ("done", 60, 60, 0, 0)
    wanted = {datetime(2026, 1, 1 + hour // 24, hour % 24, tzinfo=UTC).isoformat() for hour in range(60)}
    assert {line["slot"] for line in ran()} == wanted
    counts = Counter((line["slot"], line["attempt"]) for line in ran())
    assert set(counts.values()) == {1}
    assert sum(number > 1 for _, number in counts) <= 3, "only what a killed process ran was tried again"
