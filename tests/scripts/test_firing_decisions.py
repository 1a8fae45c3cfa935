"""What becomes of a slot that has come due, as tables: no server decides anything here."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from lockbeat.jobs.options import Overlap
from lockbeat.store.records import JobCounts, TaskRecord
from tests.scripts.decisions import Decisions

NOW = 1_800_000_000_000
SLOT = NOW - 500
ID = f"report@{SLOT}"


def decided(**kept: dict[str, str]) -> Any:
    """The library over a store that has these hashes, and nothing else: by key, field and value."""

    def server(command: str, key: str, *fields: Any) -> Any:
        if command in ("HMGET", "ZMSCORE"):
            return [kept.get(key.replace(":", "_"), {}).get(field) for field in fields]
        if command == "ZRANGEBYLEX":
            return []
        return None

    return Decisions("_lib/firing", now=NOW, server=server)


def page(lua: Any, name: str, field: str) -> Any:
    return lua.call("read", lua._named["q"][name], field)


@pytest.mark.parametrize(
    ("unsure", "window", "state", "code", "detail"),
    [
        (0, -1, None, "", ""),
        (0, 500, None, "", ""),
        (0, 499, "missed", "late", "499"),
        (SLOT - 1, -1, None, "", ""),
        (SLOT, -1, "missed", "went_back", ""),
        (SLOT, 499, "missed", "went_back", ""),
    ],
)
def test_a_slot_is_missed_that_may_have_run_or_is_too_late(
    unsure: int, window: int, state: str | None, code: str, detail: str
) -> None:
    lua = decided()
    missed = lua.call("firing_missed", {"unsure": unsure}, "report", SLOT, ID, "", window, 100)
    assert missed is (state is not None)
    text = page(lua, "tasks", ID)
    assert (text is None) is (state is None)
    if state is not None:
        found = TaskRecord.of(text.encode("latin-1"))
        assert (found.slot_state, found.code, found.detail) == (state, code, detail)
        assert found.policies == {"last": SLOT, "count": 1}
        assert JobCounts.of(page(lua, "counts", "report")) == JobCounts(missed=1)


@pytest.mark.parametrize(("count", "counted"), [(1, 1), (60, 60), (-1, 1)])
def test_those_before_it_are_one_entry(count: int, counted: int) -> None:
    lua = decided()
    first, last = SLOT - 60_000 * 60, SLOT - 60_000
    assert lua.call("firing_missed", {"unsure": 0}, "report", SLOT, ID, f"{first} {last} {count}", -1, 100) is False
    found = TaskRecord.of(page(lua, "tasks", f"report@{first}").encode("latin-1"))
    assert (found.slot_state, found.code, found.policies) == ("missed", "not_fired", {"last": last, "count": count})
    assert JobCounts.of(page(lua, "counts", "report")) == JobCounts(missed=counted)


def test_a_slot_that_the_ledger_knows_is_not_fired_again() -> None:
    lua = decided(task={ID: "done 1 1 1 1 0 0 1 2 - \xff\xff"})
    assert lua.call("firing_missed", {"unsure": 0}, "report", SLOT, ID, "", -1, 100) is True
    assert page(lua, "counts", "report") is None


BEFORE = f"report@{SLOT - 60_000}"
JSON = '{"name":"report","job":"report","queue":"default","overlap":"skip"}'
TRY = "1 7 5 6 {} ann"


@pytest.mark.parametrize(
    ("record", "lease", "code", "place"),
    [
        (f"waiting 0 1 1 77 9 0 0 0 fired ann\xff\xff{JSON}", None, None, 77),
        (f"waiting 1 2 1 77 9 0 5 0 - \xff{TRY.format('failed')}\xff{JSON}", None, "overlap", None),
        (f"running 1 1 1 77 0 0 5 0 - \xff{TRY.format('-')}\xff{JSON}", NOW + 1000, "overlap", None),
        (f"running 1 1 1 77 0 0 5 0 - \xff{TRY.format('-')}\xff{JSON}", NOW - 1, None, None),
        (f"running 1 1 1 77 0 0 5 0 - \xff{TRY.format('-')}\xff{JSON}", None, None, None),
        ("garbage", None, "overlap_unread", None),
        ("done 1 1 1 77 0 0 5 6 - \xff\xff", None, None, None),
    ],
)
def test_under_overlap_skip_the_jobs_unfinished_task_makes_way_or_does_not(
    record: str, lease: int | None, code: str | None, place: int | None
) -> None:
    held = (
        {}
        if lease is None
        else {"lock": {"job:report": f"7 5000 c {SLOT - 60_000} ann"}, "lock_live": {"job:report": str(lease)}}
    )
    lua = decided(job_open={"report": BEFORE}, task={BEFORE: record}, ledger_order={}, **held)
    said = lua.call("firing_overlap", "report", ID, SLOT, "bob", "skip", 100, 0)
    assert (said if isinstance(said, tuple) else (said, None)) == (code, BEFORE if code else place)


def test_without_an_unfinished_task_nothing_stands_in_the_way() -> None:
    for overlap in get_args(Overlap):
        assert decided().call("firing_overlap", "report", ID, SLOT, "bob", overlap, 100, 0) is None


WAITS, RETRIES, RUNS, STOPS = "waits", "retries", "runs", "stops"
UNFINISHED = {
    WAITS: "waiting 0 1 {spawned} 77 9 0 0 0 fired ann\xff\xff",
    RETRIES: f"waiting 1 2 {{spawned}} 77 9 0 5 0 - \xff{TRY.format('failed')}\xff",
    RUNS: f"running 1 1 {{spawned}} 77 0 0 5 0 - \xff{TRY.format('-')}\xff",
    STOPS: f"stopping 1 1 {{spawned}} 77 0 0 5 6 cancelled \xff{TRY.format('-')}\xff",
}
IN_LINE = [SLOT - 40_000, SLOT - 20_000]


@pytest.mark.parametrize(
    ("overlap", "unfinished", "line", "said", "dropped", "left"),
    [
        # What runs is waited for: by one, by as many as may, by none; and by the one for which it is cancelled.
        ("buffer_one", RUNS, 0, ("waits", None), [], 0),
        ("buffer_one", RUNS, 1, ("waits", None), ["overtaken"], 0),
        ("buffer_one", RETRIES, 1, ("waits", None), ["overtaken"], 0),
        ("buffer_one", STOPS, 1, ("waits", None), ["overtaken"], 0),
        ("buffer_all", RUNS, 0, ("waits", None), [], 0),
        ("buffer_all", RUNS, 1, ("waits", None), [None], 1),
        ("buffer_all", RUNS, 2, ("buffer_full", "2"), [None, None], 2),
        ("buffer_all", RETRIES, 1, ("waits", None), [None], 1),
        ("buffer_all", STOPS, 1, ("waits", None), [None], 1),
        ("cancel_other", RUNS, 0, ("waits", None), [], 0),
        ("cancel_other", STOPS, 1, ("waits", None), ["overtaken"], 0),
        ("skip", RUNS, 0, ("overlap", BEFORE), [], 0),
        ("skip", RETRIES, 0, ("overlap", BEFORE), [], 0),
        # What no worker has begun gives way, unless all are to run.
        ("skip", WAITS, 0, (None, 77), [], None),
        ("buffer_one", WAITS, 0, (None, 77), [], None),
        ("cancel_other", WAITS, 0, (None, 77), [], None),
        ("buffer_all", WAITS, 1, ("waits", None), [None], 1),
        # What waits to be tried again is cancelled at once, and nothing is left to wait for.
        ("cancel_other", RETRIES, 0, (None, None), [], None),
        # The policy was another when those in line joined it.
        ("skip", WAITS, 2, (None, 77), ["overtaken", "overtaken"], None),
        ("skip", RUNS, 2, ("overlap", BEFORE), [None, None], 2),
    ],
)
def test_what_a_slot_does_about_the_unfinished_task_by_overlap(
    overlap: str, unfinished: str, line: int, said: tuple[Any, Any], dropped: list[str | None], left: int | None
) -> None:
    lua = waiting_line(unfinished, line, overlap=overlap)
    found = lua.call("firing_overlap", "report", ID, SLOT, "bob", overlap, 2, 0)
    assert (found if isinstance(found, tuple) else (found, None)) == said
    assert ends_of(lua, line) == dropped
    assert line_now(lua) == (None if left is None else [BEFORE, *map(str, IN_LINE[line - left : line])])
    state = TaskRecord.of(page(lua, "tasks", BEFORE).encode("latin-1"))
    if overlap == "cancel_other" and unfinished in (RUNS, RETRIES):
        assert (state.state, state.code) == ("stopping" if unfinished == RUNS else "cancelled", "overtaken")
        assert state.detail == ID


@pytest.mark.parametrize(
    ("unfinished", "fired", "line", "said", "dropped", "left"),
    [
        # It came due before the one that runs was fired: that was late, so both are caught up. As a slot of now it is skipped.
        (RUNS, SLOT, 0, ("waits", None), [], 0),
        (RUNS, SLOT - 1, 0, ("overlap", BEFORE), [], 0),
        # While others wait to be caught up it waits behind them, and beyond `cap` the oldest is missed.
        (RUNS, SLOT - 1, 1, ("waits", None), [None], 1),
        (RUNS, SLOT, 2, ("waits", None), ["not_begun", None], 1),
        # There is no worker: an outage, too.
        (WAITS, SLOT - 1, 0, ("waits", None), [], 0),
        (WAITS, SLOT - 1, 2, ("waits", None), ["not_begun", None], 1),
        (RETRIES, SLOT - 1, 0, ("overlap", BEFORE), [], 0),
    ],
)
def test_under_catch_up_all_what_was_missed_waits_for_its_turn(
    unfinished: str, fired: int, line: int, said: tuple[Any, Any], dropped: list[str | None], left: int
) -> None:
    lua = waiting_line(unfinished, line, spawned=fired)
    found = lua.call("firing_overlap", "report", ID, SLOT, "bob", "skip", 100, 2)
    assert (found if isinstance(found, tuple) else (found, None)) == said
    assert ends_of(lua, line) == dropped
    assert line_now(lua) == [BEFORE, *map(str, IN_LINE[line - left : line])]


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "buffer_all", "cancel_other"])
def test_behind_one_that_nobody_will_end_the_next_in_line_is_looked_at(overlap: str) -> None:
    """Its lease was deleted: it is lost, and the first in line has gone to its queue."""
    lua = waiting_line(RUNS, 2, lease=None)
    lua.call("firing_overlap", "report", ID, SLOT, "bob", overlap, 100, 0)
    assert TaskRecord.of(page(lua, "tasks", BEFORE).encode("latin-1")).slot_state == "lost"
    if overlap == "buffer_all":
        assert line_now(lua) == [f"report@{IN_LINE[0]}", str(IN_LINE[1])]


def waiting_line(unfinished: str, line: int, *, spawned: int = 1, lease: int | None = NOW + 1000, overlap: str = "skip") -> Any:
    """A job whose task is so, and so many slots in line behind it."""
    json = JSON.replace('"skip"', f'"{overlap}"')
    records = {BEFORE: UNFINISHED[unfinished].format(spawned=spawned) + json}
    records |= {f"report@{slot}": f"waiting 0 1 1 {slot} 0 0 0 0 buffered ann\xff\xff{json}" for slot in IN_LINE[:line]}
    held: dict[str, dict[str, str]] = {}
    if lease is not None and unfinished in (RUNS, STOPS):
        held = {"lock": {"job:report": f"7 5000 c {SLOT - 60_000} ann"}, "lock_live": {"job:report": str(lease)}}
    kept = {f"report\xff{slot:015d}": "0" for slot in (SLOT - 60_000, *IN_LINE)}
    opened = "\xff".join([BEFORE, *map(str, IN_LINE[:line])])
    return decided(job_open={"report": opened}, task=records, ledger_order=kept, **held)


def line_now(lua: Any) -> list[str] | None:
    text = page(lua, "open", "report")
    return None if text is None else text.split("\xff")


def ends_of(lua: Any, line: int) -> list[str | None]:
    """Why those that stood in line have ended; None: they have not."""
    found = [TaskRecord.of(page(lua, "tasks", f"report@{slot}").encode("latin-1")) for slot in IN_LINE[:line]]
    return [None if record.state == "waiting" else record.code for record in found]
