"""ls, next, ledger, why, delete, locks, release-all, instances: what they say, plain and as JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.cli._entries import remark
from lockbeat.cli._output import Table
from lockbeat.jobs import Job, LedgerEntry, Scheduler
from lockbeat.triggers import AnyOf, At, Cron, Every

from .conftest import Lockbeat, using
from .terminal import Terminal


@pytest.fixture
def jobs(store: str) -> str:
    """A store with two jobs that nobody serves."""

    async def declare(lb: Client) -> None:
        await lb.jobs.put(
            Job.declare("nightly", Cron("30 2 * * *", "Europe/Berlin"), jitter=60, catchup="skip"),
            Job.declare("tick", Every(3600), overlap="allow", queue="fast"),
        )

    using(store, declare)
    return store


def is_utc(text: str) -> bool:
    return datetime.fromisoformat(text).utcoffset() is not None and text.endswith("Z")


def test_ls_is_a_plain_table_where_no_terminal_reads_it(lockbeat: Lockbeat, jobs: str) -> None:
    answer = lockbeat("ls", "--url", jobs)
    assert (answer.code, answer.err) == (0, "")
    head, nightly, tick = answer.out.splitlines()
    assert head.split() == ["JOB", "TRIGGER", "NEXT", "SLOT", "IN", "LAST", "LAST", "SLOT", "OVERLAP", "FLAGS"]
    assert nightly.startswith("nightly  30 2 * * * Europe/Berlin  ")
    assert nightly.endswith("skip     origin=api catchup=skip jitter=60s")
    assert tick.endswith("allow    origin=api queue=fast")
    assert answer.out.isascii()


def test_ls_json(lockbeat: Lockbeat, jobs: str) -> None:
    nightly, tick = lockbeat("ls", "--url", jobs, "--json").json
    assert nightly["job"] == "nightly"
    assert nightly["trigger"] == {"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}
    assert tick["schedule"] == "every 1h"
    assert is_utc(tick["next_slot"])
    assert 0 < tick["due_in"] <= 3600
    assert tick["last"] is None
    assert (tick["overlap"], tick["queue"], tick["catchup"]) == ("allow", "fast", "latest")


def test_ls_shows_description_and_tags_and_filters_by_a_tag(lockbeat: Lockbeat, jobs: str) -> None:
    told = Job.declare("told", AnyOf(Every(3600), Cron("0 9 * * *")), description="bills of the day", tags=["billing", "eu"])
    using(jobs, lambda lb: lb.jobs.put(told))
    [found] = lockbeat("ls", "--url", jobs, "--tag", "eu", "--json").json
    assert (found["job"], found["description"], found["tags"]) == ("told", "bills of the day", ["billing", "eu"])
    assert found["trigger"]["type"] == "any_of"
    assert len(lockbeat("ls", "--url", jobs, "--json").json) == 3
    _, line = lockbeat("ls", "--url", jobs, "--tag", "billing").out.splitlines()
    assert line.startswith("told  every 1h or 0 9 * * * UTC  ")
    assert line.endswith("tags=billing,eu 'bills of the day'")
    assert lockbeat("ls", "--url", jobs, "--tag", "us").out == "no job in namespace lockbeat has the tag us\n"
    assert (lockbeat("ls", "--url", jobs, "--tag", "").code, lockbeat("ls", "--url", jobs, "--tag", "us", "--json").json) == (
        2,
        [],
    )


def test_ls_comes_in_pages_and_shows_those_that_stand_so(lockbeat: Lockbeat, jobs: str) -> None:
    using(jobs, lambda lb: lb.jobs.put(*(Job.declare(f"z-{n}", Every(3600)) for n in range(3))))
    using(jobs, lambda lb: lb.jobs.pause("z-1"))
    answer = lockbeat("ls", "--url", jobs, "--limit", "3", "--json")
    assert [found["job"] for found in answer.json] == ["nightly", "tick", "z-0"]
    assert "--after z-0" in lockbeat("ls", "--url", jobs, "--limit", "3").err
    rest = lockbeat("ls", "--url", jobs, "--after", "z-0", "--limit", "3")
    assert ([line.split()[0] for line in rest.out.splitlines()], rest.err) == (["JOB", "z-1", "z-2"], "")
    [found] = lockbeat("ls", "--url", jobs, "--state", "paused", "--json").json
    assert (found["job"], found["state"]) == ("z-1", "paused")
    assert lockbeat("ls", "--url", jobs, "--state", "ended").out == "no job in namespace lockbeat is ended\n"
    assert len(lockbeat("ls", "--url", jobs, "--origin", "api", "--json").json) == 5
    assert lockbeat("ls", "--url", jobs, "--origin", "bill").out == "no job in namespace lockbeat is of origin bill\n"
    for wrong in (["--state", "odd"], ["--limit", "0"], ["--after", ""], ["--origin", "a b"]):
        assert lockbeat("ls", "--url", jobs, *wrong).code == 2


def test_an_empty_store_says_so(lockbeat: Lockbeat, store: str) -> None:
    assert lockbeat("ls", "--url", store).out.startswith("no jobs in namespace lockbeat: ")
    assert lockbeat("locks", "--url", store).out == "no locks are held\n"
    assert lockbeat("instances", "--url", store).out == "no instance lives in namespace lockbeat\n"
    for command in ("ls", "locks", "instances"):
        assert lockbeat(command, "--url", store, "--json").json == []


def test_a_namespace_is_a_store_of_its_own(lockbeat: Lockbeat, jobs: str) -> None:
    assert lockbeat("ls", "--url", jobs, "--namespace", "other", "--json").json == []


def test_next_gives_as_many_slots_as_asked_for(lockbeat: Lockbeat, jobs: str) -> None:
    slots = lockbeat("next", "tick", "-n", "3", "--url", jobs, "--json").json
    assert len(slots) == 3
    assert all(is_utc(slot["slot"]) for slot in slots)
    assert len(lockbeat("next", "tick", "--url", jobs).out.splitlines()) == 5


def test_locks_of_all_and_of_one_owner(lockbeat: Lockbeat, store: str) -> None:
    async def take(lb: Client) -> None:
        await lb.locks.try_acquire("a", "me", 60)
        await lb.locks.try_acquire("b", "you", 60)

    using(store, take)
    mine, yours = lockbeat("locks", "--url", store, "--json").json
    assert (mine["key"], mine["owner"], yours["owner"]) == ("a", "me", "you")
    assert mine["fence"] > 0
    assert is_utc(mine["expires_at"])
    assert 50 < mine["expires_in"] <= 60
    assert [lock["key"] for lock in lockbeat("locks", "--owner", "you", "--url", store, "--json").json] == ["b"]
    assert lockbeat("locks", "--url", store).out.splitlines()[1].split()[:2] == ["a", "me"]


def test_release_all_gives_back_what_one_owner_holds(lockbeat: Lockbeat, store: str) -> None:
    async def take(lb: Client) -> None:
        for key in "abc":
            await lb.locks.try_acquire(key, "gone", 60)
        await lb.locks.try_acquire("d", "alive", 60)

    using(store, take)
    assert lockbeat("release-all", "gone", "--url", store).out == "released 3 locks, 0 tasks and 0 claims of gone\n"
    assert lockbeat("release-all", "gone", "--url", store).out == "gone held nothing\n"
    assert lockbeat("release-all", "gone", "--url", store, "--json").json == {
        "owner": "gone",
        "tasks": 0,
        "locks": 0,
        "claims": 0,
    }
    assert [lock["key"] for lock in lockbeat("locks", "--url", store, "--json").json] == ["d"]


def test_delete_forgets_a_job(lockbeat: Lockbeat, jobs: str) -> None:
    assert lockbeat("delete", "tick", "--url", jobs).code == 0
    assert [job["job"] for job in lockbeat("ls", "--url", jobs, "--json").json] == ["nightly"]
    assert lockbeat("delete", "tick", "--url", jobs).code == 1


def test_why_says_what_is_known_of_a_slot(lockbeat: Lockbeat, jobs: str) -> None:
    soon = lockbeat("next", "tick", "-n", "1", "--url", jobs, "--json").json[0]["slot"]
    assert "has not come due" in lockbeat("why", "tick", soon, "--url", jobs).out
    assert "is no slot of tick" in lockbeat("why", "tick", "2020-01-01T00:00:01", "--url", jobs).out
    assert "Nothing is known" in lockbeat("why", "tick", "2020-01-01T00:00:00", "--url", jobs).out
    for far in ("9" * 20, "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59"):
        assert lockbeat("why", "tick", far, "--url", jobs).code == 2


@pytest.fixture
def late(store: str, raw: Any) -> tuple[str, int]:
    """A store with a job that is an hour overdue, and that slot."""
    slot = int(time.time()) // 3600 * 3600_000 - 3600_000
    job = Job.declare("tick", Every(3600))

    async def declare(lb: Client) -> None:
        await lb.jobs.put(job)
        key = lb.store.keys.key(lb.jobs.shard_of("tick"), "job:slot")
        raw.hset(key, "tick", f"{slot} {slot} {job.rev}")
        raw.zadd(key.replace("job:slot", "job:due"), {"tick": slot})

    using(store, declare)
    return store, slot


def test_why_without_a_slot_means_the_newest_or_the_one_that_is_due(
    lockbeat: Lockbeat, jobs: str, late: tuple[str, int], raw: Any
) -> None:
    store, slot = late
    told = lockbeat("why", "tick", "--url", store)
    assert (told.code, told.err) == (1, "")
    assert told.out == lockbeat("why", "tick", slot, "--url", store).out
    assert "is overdue by " in told.out
    fire(store, slot, claim=True)
    newest = lockbeat("ledger", "tick", "-n", "1", "--url", store, "--json").json[0]
    assert lockbeat("why", "tick", "--url", store, "--json").json.items() >= newest.items()
    assert ": running. them has run it since " in lockbeat("why", "tick", "--url", store).out
    before = slot - 5 * 3600_000
    _, _, *words = raw.hget("{lockbeat:0}:job:slot", "tick").split()
    raw.hset("{lockbeat:0}:job:slot", "tick", " ".join([str(before), str(before), *words]))
    assert "is overdue by " in lockbeat("why", "tick", "--url", store).out, "which matters more than the newest"
    assert "has not come due: it is in " in lockbeat("why", "nightly", "--url", store).out
    using(store, lambda lb: lb.jobs.put(Job.declare("past", At(datetime(2020, 1, 1, tzinfo=UTC)))))
    assert "past has ended, and fired nothing" in lockbeat("why", "past", "--url", store).out


def test_why_of_the_newest_slot_says_that_the_job_is_paused_since(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    fire(store, slot, claim=True)
    assert " is paused" not in lockbeat("why", "tick", "--url", store).out
    assert lockbeat("pause", "tick", "--by", "anna", "--reason", "the printer burns", "--url", store).code == 0
    told = lockbeat("why", "tick", "--utc", "--url", store)
    assert (told.code, told.err) == (0, "")
    assert re.search(r": running\. .*\n(  .*\n)*  tick is paused, by anna at 20\S+ \S+Z: the printer burns\n", told.out)
    assert " is paused" not in lockbeat("why", "tick", slot, "--url", store).out, "it was not when that slot came due"


def test_a_listing_leaves_out_what_can_not_be_read_and_names_it(lockbeat: Lockbeat, jobs: str, raw: Any) -> None:
    async def take(lb: Client) -> None:
        for key in "ab":
            await lb.locks.try_acquire(key, "me", 60)
            await lb.claims.acquire(key, "me", 60)

    using(jobs, take)
    key = "{lockbeat:0}:"
    raw.hset(f"{key}job", "tick", "\x1b[2J")
    raw.hset(f"{key}lock", "b", "\x1b[2J")
    raw.hset(f"{key}claim", "default\udcffb".encode(errors="surrogateescape"), "\x1b[2J")
    for command, entry in (("ls", "job 'tick' is left out: "), ("locks", "left out: "), ("claims", "left out: ")):
        answer = lockbeat(command, "--url", jobs)
        assert (answer.code, len(answer.out.splitlines())) == (0, 2), command
        assert answer.err.startswith(f"lockbeat: {entry}")
        assert answer.err.count("\n") == 1
        assert len(lockbeat(command, "--url", jobs, "--json").json) == 1
    assert "held: 0 tasks, 1 lock, 2 claims" in lockbeat("top", "--url", jobs).out


def fire(store: str, slot: int, *, claim: bool) -> None:
    """Fire a slot into its queue, as an instance without a worker does; claim it, too."""

    async def turn(lb: Client) -> None:
        for shard in range(lb.store.shards):
            await Scheduler(lb.store, lb.jobs, {}, None).tick(shard)
        if claim:
            await lb.tasks.claim("default", "them", 1, 60)

    using(store, turn)


def test_a_slot_that_nobody_fires_is_overdue(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    answer = lockbeat("why", "tick", slot, "--url", store)
    assert answer.code == 1
    assert "is overdue by 1 h" in answer.out
    assert "no instance has fired it; when one does, catch-up latest applies. No instance schedules" in answer.out
    told = lockbeat("ls", "--url", store)
    assert "  overdue 1 h" in told.out
    assert told.err == "lockbeat: no instance schedules; start one: lockbeat run MODULE:BEAT\n"
    first, second, *_ = lockbeat("next", "tick", "--url", store).out.splitlines()
    assert "  overdue 1 h" in first
    assert "  overdue " in second or "  now" in second


def test_a_task_that_waits_is_told_from_one_that_runs(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    fire(store, slot, claim=False)
    missed, waiting = lockbeat("ledger", "tick", "--url", store).out.splitlines()[2:0:-1]
    assert " waiting " in waiting
    assert "no worker has begun it; fired by " in waiting
    assert " missed " in missed
    newest = lockbeat("ledger", "tick", "--url", store, "--json").json[0]
    assert newest["state"] == "fired"
    told = lockbeat("why", "tick", newest["slot"], "--url", store)
    assert ": waiting. It was fired by " in told.out
    assert "and no worker has begun it. " in told.out
    fire(store, slot, claim=True)
    assert " running " in lockbeat("ledger", "tick", "--url", store).out.splitlines()[1]
    assert ": running. " in lockbeat("why", "tick", newest["slot"], "--url", store).out


def test_reasons_are_spelled_out() -> None:
    skipped = LedgerEntry("slow", 2000, "skipped", code="overlap", detail="slow@1000")
    assert remark(skipped) == "overlap: slow at 1970-01-01 00:00:01Z had not ended"
    missed = LedgerEntry("slow", 2000, "missed", code="late", detail="10000", last_ms=4000, count=3)
    said = "3 slots, 1970-01-01 00:00:02Z to 1970-01-01 00:00:04Z: more than 10 s late, and catch-up is skip"
    assert remark(missed) == said
    assert remark(LedgerEntry("slow", 2000, "done", attempt=3)) == "in attempt 3"
    assert remark(LedgerEntry("slow", 2000, "failed", "timed out after 1 s\nat", attempt=1)) == "timed out after 1 s"


def test_instances_say_by_which_rules_of_the_zones_they_reckon(lockbeat: Lockbeat, store: str) -> None:
    async def beat(lb: Client) -> None:
        await lb.store.call("beat/heartbeat", 0, owner="old", info='{"tzdata": "2024a"}', ttl_ms=30_000, version="")
        await lb.store.call("beat/heartbeat", 0, owner="new", info='{"tzdata": "2025b"}', ttl_ms=30_000, version="")

    using(store, beat)
    answer = lockbeat("instances", "--url", store)
    assert " 2024a " in answer.out
    assert " 2025b " in answer.out
    assert "reckon by different rules of the time zones: tzdata 2024a, 2025b" in answer.err
    assert {each["tzdata"] for each in lockbeat("instances", "--url", store, "--json").json} == {"2024a", "2025b"}


def test_an_instance_that_is_not_heard_is_silent(lockbeat: Lockbeat, store: str) -> None:
    async def beat(lb: Client) -> None:
        await lb.store.call("beat/heartbeat", 0, owner="alive", info="{}", ttl_ms=30_000, version="")
        await lb.store.call("beat/heartbeat", 0, owner="gone", info="{}", ttl_ms=11_000, version="")

    using(store, beat)
    _, alive, gone = lockbeat("instances", "--url", store).out.splitlines()
    assert "  alive " in alive
    assert "  silent " in gone


def test_a_slot_is_overdue_only_when_it_is_late(
    lockbeat: Lockbeat, store: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's clock, with a tolerance; and one that its jitter holds back is not late."""
    job = Job.declare("tick", Every(0.001))  # any instant is a slot

    async def put_off(lb: Client, slot_s: float, due_s: float) -> str:
        await lb.jobs.put(job)
        now = await lb.store.server_time()
        slot, due = (round((now + seconds) * 1000) for seconds in (slot_s, due_s))
        key = lb.store.keys.key(lb.jobs.shard_of("tick"), "job:slot")
        raw.hset(key, "tick", f"{slot} {due} {job.rev}")
        return str(slot)

    def shown() -> tuple[bool, str]:
        [told] = lockbeat("ls", "--url", store, "--json").json
        return told["overdue"], lockbeat("ls", "--url", store).out.splitlines()[1]

    for module in ("cli.commands.jobs", "jobs.why"):
        monkeypatch.setattr(f"lockbeat.{module}.TOLERANCE", 60)
    slot = using(store, lambda lb: put_off(lb, -1, -1))
    overdue, line = shown()
    assert (overdue, "  now  " in line) == (False, True), line
    assert "has just come due, and is not fired yet" in lockbeat("why", "tick", slot, "--url", store).out
    using(store, lambda lb: put_off(lb, -3600, 630))  # due in ten minutes, an hour after its slot
    assert not shown()[0]
    assert "  in 10 m " in lockbeat("next", "tick", "--url", store).out.splitlines()[0]
    using(store, lambda lb: put_off(lb, -3600, -120))
    overdue, line = shown()
    assert (overdue, "  overdue 2 m" in line) == (True, True), line


def test_at_80_columns_ls_keeps_what_matters(lockbeat: Lockbeat, late: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    store, slot = late
    fire(store, slot, claim=False)

    async def more(lb: Client) -> None:
        report = Cron("0 9 * * mon-fri", "America/Argentina/Ushuaia")
        await lb.jobs.put(Job.declare("billing.nightly_report", report, jitter=60, timeout=30, catchup="skip", queue="reports"))

    using(store, more)
    monkeypatch.setattr("lockbeat.cli.commands.jobs.NEGLECTED", -1)
    monkeypatch.setattr("lockbeat.cli._output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    out = lockbeat("ls", "--url", store).out
    assert max(map(len, out.splitlines())) <= 80
    head, _, report, *rest = out.strip().splitlines()
    for column in ("JOB", "TRIGGER", "IN", "LAST"):
        assert column in head.split()
    assert "waiting for a worker" in out
    assert "every 1h" in out
    assert "0 9 * * mon-fri" in report
    assert "America/Argentina/U" in "".join([report, *rest])
    assert "…" not in out
    assert lockbeat("ls", "--url", store, "--json").json[1]["waiting_for_a_worker"]


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kolkata")
def test_people_are_shown_their_own_time_or_utc_and_programs_utc(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    fire(store, slot, claim=True)
    told = lockbeat("ledger", "tick", "--url", store, "--json").json[0]
    assert is_utc(told["slot"])
    assert is_utc(told["started_at"])
    moment = datetime.fromisoformat(told["slot"])
    utc, local = f"{moment:%Y-%m-%d %H:%M:%S}Z", f"{moment + timedelta(hours=5, minutes=30):%Y-%m-%d %H:%M:%S}+05:30"
    for args in (["ledger", "tick"], ["ls"], ["why", "tick", told["slot"]]):
        assert local in lockbeat(*args, "--url", store).out
        assert utc in lockbeat(*args, "--url", store, "--utc").out
    for args in (["next", "tick"], ["task", told["task_id"]]):
        assert "+05:30" in lockbeat(*args, "--url", store).out
        assert "+05:30" not in lockbeat(*args, "--url", store, "--utc").out
    assert "+05:30" in lockbeat("top", "--url", store).out.splitlines()[0]
    assert "Z  " in lockbeat("top", "--url", store, "--utc").out.splitlines()[0]
    # What is shown can be asked for again, with its zone or without.
    for shown in (local, local.removesuffix("+05:30")):
        assert lockbeat("why", "tick", shown, "--url", store).code == 0
    assert lockbeat("why", "tick", utc.removesuffix("Z"), "--url", store, "--utc").code == 0


def test_unlock_gives_back_a_lock_whoever_holds_it_and_says_who(lockbeat: Lockbeat, store: str) -> None:
    async def take(lb: Client) -> int:
        lease = await lb.locks.try_acquire("report", "gone-1", 600)
        assert lease is not None
        return lease.fence

    fence = using(store, take)
    asked = lockbeat("unlock", "report", "--url", store)
    assert asked.code == 2
    assert f"'report' is held by gone-1, with fence {fence}, for another " in asked.err
    assert "say --yes" in asked.err
    assert len(lockbeat("locks", "--url", store, "--json").json) == 1
    done = lockbeat("unlock", "report", "--yes", "--url", store)
    assert (done.code, done.out) == (0, f"gave back report, which gone-1 held with fence {fence}\n")
    free = lockbeat("unlock", "report", "--yes", "--url", store)
    assert (free.code, free.out, free.err) == (1, "", "lockbeat: nobody holds 'report'\n")
    fence = using(store, take)
    told = lockbeat("unlock", "report", "--yes", "--url", store, "--json").json
    assert told == {"key": "report", "owner": "gone-1", "fence": fence}


def test_unlock_asks_who_has_a_terminal(lockbeat: Lockbeat, store: str) -> None:
    async def take(lb: Client) -> None:
        await lb.locks.try_acquire("job:report", "gone-1", 600)

    using(store, take)
    with Terminal("unlock", "job:report", "--url", store) as terminal:
        terminal.says("'job:report' is held by gone-1, with fence ")
        terminal.says("the slots of job report are skipped no more. Give it back? [y/N]")
        terminal.types("n\r")
        assert terminal.ends() == 1
    assert len(lockbeat("locks", "--url", store, "--json").json) == 1
    with Terminal("unlock", "job:report", "--url", store) as terminal:
        terminal.says("Give it back?")
        terminal.types("y\r")
        terminal.says("gave back job:report, which gone-1 held")
        assert terminal.ends() == 0
    assert lockbeat("locks", "--url", store, "--json").json == []


def test_unlock_leaves_an_attempt_its_lease_and_says_what_ends_it(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    fire(store, slot, claim=True)
    [task] = lockbeat("tasks", "--state", "running", "--url", store, "--json").json["tasks"]
    said = "lockbeat: 'job:tick' is held by them for an attempt of its job: "
    gone = "; if that instance is gone, lockbeat release-all them takes it back\n"
    for yes in ([], ["--yes"]):
        refused = lockbeat("unlock", "job:tick", *yes, "--url", store)
        assert (refused.code, refused.err) == (1, f"{said}lockbeat cancel {task['task_id']} ends it{gone}")
    lockbeat("cancel", task["task_id"], "--url", store)  # its body has yet to stop
    refused = lockbeat("unlock", "job:tick", "--yes", "--url", store)
    assert (refused.code, refused.err) == (1, f"{said}it is given back when that has stopped{gone}")
    assert [lock["key"] for lock in lockbeat("locks", "--url", store, "--json").json] == ["job:tick"]
    assert "1 task" in lockbeat("release-all", "them", "--url", store).out
    assert lockbeat("locks", "--url", store, "--json").json == []


def test_the_task_of_a_slot_shows_the_slot(lockbeat: Lockbeat, late: tuple[str, int]) -> None:
    store, slot = late
    fire(store, slot, claim=True)
    [task] = lockbeat("tasks", "--url", store, "--json").json["tasks"]
    at = datetime.fromtimestamp(int(task["task_id"].removeprefix("tick@")) / 1000, UTC)
    assert f"slot      {at:%Y-%m-%d %H:%M:%S}Z, " in lockbeat("task", task["task_id"], "--utc", "--url", store).out
    lockbeat("cancel", task["task_id"], "--by", "ann", "--url", store)
    assert lockbeat("tasks", "--url", store).out.endswith("  it was cancelled by ann\n")


def test_on_a_narrow_terminal_columns_are_left_out_and_no_word_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lockbeat.cli._output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    row = {
        "SLOT": "2026-11-22 09:03:35Z",
        "STATE": "skipped",
        "BY": "host-4711-c0b3932f",
        "FENCE": "1795338215004781",
        "REASON": "overlap: the one before had not ended",
    }
    Table([row], spare=("FENCE", "BY"), wraps=("REASON",)).show()
    out = capsys.readouterr().out
    assert "FENCE" not in out
    assert max(map(len, out.splitlines())) <= 60
    assert {"overlap:", "before", "ended", "2026-11-22", "skipped"} <= set(out.split())


def test_a_table_is_not_cut_at_the_width_of_a_terminal(lockbeat: Lockbeat, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "a-very-long-name-of-a-job-" * 8

    async def declare(lb: Client) -> None:
        await lb.jobs.put(Job.declare(name, Every(60)))

    using(store, declare)
    assert name in lockbeat("ls", "--url", store).out.splitlines()[1]


def test_the_ledger_of_a_job_that_was_declared_too_late_says_that_nothing_will_come(lockbeat: Lockbeat, store: str) -> None:
    using(store, lambda lb: lb.jobs.put(Job.declare("past", At(datetime(2020, 1, 1, tzinfo=UTC)))))
    assert (
        lockbeat("ledger", "past", "--url", store).out
        == "past has ended, and fired nothing: it was declared after its last slot\n"
    )
    using(store, lambda lb: lb.jobs.put(Job.declare("later", Every(timedelta(days=3000)))))
    assert lockbeat("ledger", "later", "--url", store).out == "no slot of later has come due yet\n"
