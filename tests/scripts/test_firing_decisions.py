"""What becomes of a slot that has come due, as tables: no server decides anything here."""

from __future__ import annotations

from typing import Any

import pytest

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
    missed = lua.call("firing_missed", {"unsure": unsure}, "report", SLOT, ID, SLOT, SLOT, 0, window, 100)
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
    assert lua.call("firing_missed", {"unsure": 0}, "report", SLOT, ID, first, last, count, -1, 100) is False
    found = TaskRecord.of(page(lua, "tasks", f"report@{first}").encode("latin-1"))
    assert (found.slot_state, found.code, found.policies) == ("missed", "not_fired", {"last": last, "count": count})
    assert JobCounts.of(page(lua, "counts", "report")) == JobCounts(missed=counted)


def test_a_slot_that_the_ledger_knows_is_not_fired_again() -> None:
    lua = decided(task={ID: "done 1 1 1 1 0 0 1 2 - \xff\xff"})
    assert lua.call("firing_missed", {"unsure": 0}, "report", SLOT, ID, SLOT, SLOT, 0, -1, 100) is True
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
    said = lua.call("firing_overlap", "report", "bob")
    found = said if isinstance(said, tuple) else (said, None, None)
    assert (*found, None, None)[:3:2] == (code, place)
    assert found[1] == (BEFORE if code else None)


def test_without_an_unfinished_task_nothing_stands_in_the_way() -> None:
    assert decided().call("firing_overlap", "report", "bob") is None
