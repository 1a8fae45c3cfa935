"""What a task's record says and what is decided by it, as tables; and calls of one run that name the same task."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.store import results
from tests.conftest import only
from tests.scripts.decisions import Decisions, text
from tests.tasks import begun, died

NOW = 1_800_000_000_000
HEAD = f"waiting 1 5 {NOW - 9} {NOW - 5} 17 0 {NOW - 7} 0 expired "
JSON = '{"name":"job","queue":"q"}'


def tried(number: int, how: str = "failed", error: str = "") -> str:
    return f"{number} 7{number} {NOW - 7} {NOW - 6} {how} alice{error}"


@pytest.mark.parametrize("head", [HEAD, HEAD + "why it is so, äöü".encode().decode("latin-1")])
@pytest.mark.parametrize(
    "tries", ["", tried(1), "\xfe".join([tried(1, error="\xfdno"), tried(2, "lost", "\xfdexpired"), tried(3)])]
)
@pytest.mark.parametrize("json", ["", JSON])
def test_a_record_is_written_as_it_was_read(head: str, tries: str, json: str) -> None:
    lua, line = Decisions("_lib/record", now=NOW), "\xff".join([head, tries, json])
    assert lua.call("record_text", lua.call("record_parse", line)) == line


@pytest.mark.parametrize(
    "line",
    ["", "waiting", HEAD, f"{HEAD}\xff\xff"[1:].replace(" ", "  "), f"{HEAD.replace('17', 'x')}\xff\xff{JSON}", "\xff\xff"],
)
def test_what_is_no_record_is_none(line: str) -> None:
    assert Decisions("_lib/record", now=NOW).call("record_parse", line) is None


def test_ten_attempts_are_kept_and_the_newest_says_who_may_end_the_task() -> None:
    lua = Decisions("_lib/record", now=NOW)
    record = lua.table({"state": "running", "tries": "", "attempts": 0})
    for number in range(1, 14):
        record["attempts"] = number
        lua.call("try_begin", record, 100 + number, f"owner-{number}")
        assert lua.call("is_at", record, f"owner-{number}", 100 + number)
        assert not lua.call("is_at", record, f"owner-{number - 1}", 100 + number)
        assert not lua.call("is_at", record, f"owner-{number}", 99 + number)
        lua.call("try_end", record, "failed" if number < 13 else "lost", f"no {number}")
        assert lua.call("last_tried", record) == (f"{NOW:.0f}", f"{NOW:.0f}", "failed" if number < 13 else "lost")
    stored = {"state": "running", "tries": record["tries"]}
    assert lua.call("is_at", stored, "owner-13", 113), "the newest, also of a record that was read"
    assert not lua.call("is_at", stored, "owner-4", 104)
    kept = record["tries"].split("\xfe")
    assert [line.split(" ")[0] for line in kept] == [str(number) for number in range(4, 14)]
    assert kept[-1] == f"13 113 {NOW} {NOW} lost owner-13\xfdno 13"
    lua.call("try_drop", record)
    assert record["tries"].split("\xfe") == kept[:-1]
    for state in ("waiting", "done", "dead", "cancelled"):
        record["state"] = state
        assert not lua.call("is_at", record, "owner-12", 112)


@pytest.mark.parametrize(
    ("error", "kept"), [("x" * 500, 500), ("x" * 501, 500), (text("ä") * 300, 500), ("x" + text("ä") * 300, 499)]
)
def test_the_text_of_an_error_is_cut_between_characters(error: str, kept: int) -> None:
    lua = Decisions("_lib/record", now=NOW)
    record = lua.table({"state": "running", "tries": "", "attempts": 1})
    lua.call("try_begin", record, 1, "alice")
    lua.call("try_end", record, "failed", error)
    said = record["tries"].partition("\xfd")[2]
    assert (len(said), error.startswith(said)) == (kept, True)
    said.encode("latin-1").decode()


@pytest.mark.parametrize(
    ("task_id", "json", "place"),
    [
        ("0df-a.1", JSON, ("task:lease", "0df-a.1", "-")),
        ("a@b@17", '{"overlap":"skip"}', ("lock", "job:a@b", "17")),
        ("a@-17", "", ("lock", "job:a", "-17")),
        ("a@17", '{"overlap":"allow"}', ("task:lease", "a@17", "-")),
        ("a@17", r'{"name":"\"overlap\":\"allow\""}', ("lock", "job:a", "17")),
    ],
)
def test_an_attempt_is_leased_as_its_jobs_lock_unless_overlap_is_allowed(task_id: str, json: str, place: Any) -> None:
    lua = Decisions("_lib/attempt", now=NOW)
    table, key, note = lua.call("attempt_place", task_id, {"json": json})
    assert (table["records"][0], key, note) == place


@pytest.mark.parametrize(
    ("state", "ended", "over"),
    [
        ("waiting", 0, False),
        ("running", 0, False),
        ("stopping", NOW - 9_000_000, False),
        ("done", NOW - 999, False),
        ("done", NOW - 1_000, True),
        ("cancelled", NOW - 1_000, True),
        ("dead", NOW - 1_000, False),
        ("dead", NOW - 7 * 86_400_000, True),
    ],
)
def test_a_task_is_over_when_its_retention_is(state: str, ended: int, over: bool) -> None:
    record = {"state": state, "ended": ended, "policies": {"retention_ms": 1_000}}
    assert bool(Decisions("_lib/ending", now=NOW).call("task_over", "id", record)) is over


# -- calls of one run see each other

here_and_there = only("memory", "valkey")


async def run(lb: Lockbeat, script: str, *rows: dict[str, Any]) -> list[Any]:
    return [*await lb.store.call_many([lb.store.row[script](**row) for row in rows], 0)]


@here_and_there
async def test_a_task_that_is_spawned_twice_in_one_run_is_spawned_once(lb: Lockbeat) -> None:
    row: dict[str, Any] = {
        "id": "0df-one",
        "record": f'1 {JSON[:-1]},"retention_ms":0}}',
        "queue": "q",
        "priority": 0,
        "delay_ms": 0,
    }
    rows = [row | {"max_delay_ms": 0, "payload": "", "call": call} for call in ("a", "b", "a")]
    assert [reply[0] for reply in await run(lb, "task/spawn", *rows)] == [results.DONE, results.NO, results.DONE]
    assert [task.id for task in await lb.tasks.claim("q", "alice", 5)] == ["0df-one"]


@here_and_there
async def test_an_attempt_that_is_ended_twice_in_one_run_is_ended_once(lb: Lockbeat) -> None:
    task = await begun(lb)
    row = {"id": task.id, "owner": task.owner, "fence": task.fence}
    said = await run(lb, "task/complete", row | {"result": "1"}, row | {"result": "2"}, row | {"owner": "bob", "result": "3"})
    assert said == [results.DONE, results.DONE, results.NOT_YOURS]
    assert (await lb.tasks.get(task.id)).result == 1


@here_and_there
async def test_an_attempt_that_is_given_back_twice_in_one_run_is_given_back_once(lb: Lockbeat) -> None:
    task = await begun(lb)
    row = {"id": task.id, "owner": task.owner, "fence": task.fence, "begun": 0, "delay_ms": 0}
    said = await run(lb, "task/release", row | {"call": "a"}, row | {"call": "b"}, row | {"call": "a"})
    assert said == [results.WAITING, results.NOT_YOURS, results.WAITING]
    assert len(await lb.tasks.claim("default", "alice", 5)) == 1


@here_and_there
async def test_a_task_that_is_cancelled_or_retried_twice_in_one_run_is_so_once(lb: Lockbeat) -> None:
    task, dead = await begun(lb), await died(lb)
    rows: list[dict[str, Any]] = [{"id": task.id, "call": call, "by": "ann"} for call in ("a", "b", "a")]
    assert await run(lb, "task/cancel", *rows) == [results.DONE, results.FINISHED, results.DONE]
    rows = [{"id": dead, "call": call, "attempts": 1, "delay_ms": 0, "by": "ann", "cancelled": 0} for call in ("c", "d", "c")]
    assert await run(lb, "task/retry", *rows) == [results.DONE, results.NO, results.DONE]
