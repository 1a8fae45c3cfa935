"""Rules that need no server, as tables in, tables out."""

from __future__ import annotations

from typing import Any

import pytest

from lockbeat.store import results
from tests.scripts.decisions import Decisions, Unasked, plain, text, unreadable

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("retry", "attempt", "delay_ms"),
    [
        (None, 1, 0),
        ({"type": "fixed", "seconds": 2}, 1, 2_000),
        ({"type": "fixed", "seconds": 2}, 9, 2_000),
        ({"type": "exponential", "base": 0, "factor": 2}, 3, 0),
        ({"type": "exponential", "base": 1, "factor": 2}, 1, 1_000),
        ({"type": "exponential", "base": 1, "factor": 2}, 4, 8_000),
        ({"type": "exponential", "base": 1, "factor": 2, "max": 5}, 4, 5_000),
        ({"type": "exponential", "base": 1, "factor": 10}, 99, 315_619_200_000),
    ],
)
def test_a_retry_is_delayed_by_its_policy_and_attempt(retry: Any, attempt: int, delay_ms: int) -> None:
    assert Decisions("_lib/ending").call("retry_delay", "id", retry, attempt) == delay_ms


def test_jitter_lengthens_a_delay_by_the_task_and_the_same_for_everybody() -> None:
    lua, retry = Decisions("_lib/ending"), {"type": "fixed", "seconds": 10, "jitter": 0.5}
    delays = [lua.call("retry_delay", f"id-{n}", retry, 1) for n in range(200)]
    assert delays == [lua.call("retry_delay", f"id-{n}", retry, 1) for n in range(200)]
    assert (min(delays) < 10_100, max(delays) > 14_900) == (True, True)
    assert all(10_000 <= delay < 15_000 for delay in delays)


@pytest.mark.parametrize(
    ("value", "score", "fields"),
    [
        ("7 900 t1 - alice", NOW + 500, {"expires": NOW + 500, "live": True, "mended": False}),
        ("7 900 t1 - alice", NOW, {"expires": NOW, "live": False}),
        ("7 900 t1 - alice", NOW + 90_000, {"expires": NOW + 900, "live": True, "mended": True}),
        ("7 900 t1 - alice", NOW + 1_900, {"expires": NOW + 1_900, "mended": False}),
        ("7 900 t1 - alice", None, {"expires": NOW + 900, "live": True, "mended": True}),
        (
            f"7 9 t1,t2 {NOW} alice of {text('Köln')}",
            NOW + 5,
            {"owner": f"alice of {text('Köln')}", "calls": "t1,t2", "note": f"{NOW}"},
        ),
    ],
)
def test_a_lease_is_read_and_judged_by_the_clock(value: str, score: int | None, fields: dict[str, Any]) -> None:
    lease = Decisions("_lib/lease", now=NOW).call("lease_parse", value, score)
    assert {name: lease[name] for name in fields} == fields


@pytest.mark.parametrize("value", ["", "7", "7 1 t1 -", "x7 1 t1 - alice", "7.5 1 t1 - alice"])
def test_what_is_no_lease_is_none(value: str) -> None:
    assert Decisions("_lib/lease", now=NOW).call("lease_parse", value, NOW) is None


def test_what_cannot_be_read_names_its_entry() -> None:
    lua = Decisions("_lib/record", server=lambda command, *args: lua.table(["scribble"]))
    with unreadable("task\xffk"):
        lua.call("task_read", "k")


@pytest.mark.parametrize(
    ("newest", "fence", "admitted"), [(None, 1, False), (None, NOW * 1000, True), (7, 7, True), (8, 7, False), (7, 8, True)]
)
def test_a_fence_is_admitted_unless_a_newer_one_wrote(newest: int | None, fence: int, admitted: bool) -> None:
    assert Decisions("_lib/fenced", now=NOW).call("fenced_admits", newest, fence) is admitted


@pytest.mark.parametrize(
    ("seen", "epoch", "sizes", "odd"),
    [
        (NOW, 1, {"defs": 3, "slots": 4, "dues": 3, "order": 3}, results.NO),
        (None, 0, {"defs": 0, "slots": 0, "dues": 0, "order": 0}, results.NO),
        (None, 1, {"defs": 0, "slots": 0, "dues": 0, "order": 0}, results.LOST),
        (NOW, 1, {"defs": 3, "slots": 3, "dues": 3, "order": 3}, results.LOST),
        (NOW, 1, {"defs": 3, "slots": 4, "dues": 2, "order": 3}, results.LOST),
        (NOW, 1, {"defs": 3, "slots": 4, "dues": 3, "order": 4}, results.LOST),
        (NOW + 1_000, 1, {"defs": 3, "slots": 4, "dues": 3, "order": 3}, results.NO),
        (NOW + 1_001, 1, {"defs": 3, "slots": 4, "dues": 3, "order": 3}, results.SET_BACK),
    ],
)
def test_the_schedule_is_odd_when_an_index_lacks_a_job_or_the_clock_was_set_back(
    seen: int | None, epoch: int, sizes: dict[str, int], odd: int
) -> None:
    lua = Decisions("_lib/schedule", now=NOW, server=lambda command, key: sizes[key])
    assert lua.call("schedule_odd", {"seen": seen, **{name: [name] for name in sizes}}, epoch) == odd


def test_the_runner_keeps_a_decision_from_the_server_and_gives_back_what_it_changed() -> None:
    lua = Decisions("_lib/record", now=NOW)
    with pytest.raises(Unasked, match="HMGET"):
        lua.call("task_read", "k")
    lua = Decisions("_lib/lease", now=NOW)
    lease = lua.table({"calls": "t1"})
    lua.call("lease_retake", lease, "t2")
    assert plain(lease) == {"calls": "t1,t2"}
    assert lua.value("now") == NOW
