"""What the scripts write, Python reads: the same record, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lockbeat.store import reasons
from lockbeat.store.records import STATES, Attempt, JobCounts, LeaseLine, SlotLine, TaskRecord
from tests.scripts.decisions import Decisions, plain, text

NOW = 1_800_000_000_000
MS = some.integers(0, 2**53 // 1000)
LUA = Decisions("_lib/record", "_lib/counts", "_lib/schedule", "_lib/lease", now=NOW)
NUMBERS = ("attempts", "max", "spawned", "due", "seq", "till", "began", "ended")


def read(record: Any) -> TaskRecord:
    """What Python makes of a record as Lua writes it."""
    return TaskRecord.of(LUA.call("record_text", record).encode("latin-1"))


def new(policies: dict[str, Any] | None = None) -> Any:
    """A record that nobody has begun, as Lua has it: its functions change the table."""
    return LUA._named["record_new"](text(f"3 {json.dumps(policies or {}, ensure_ascii=False)}"), NOW - 5)


@given(
    some.sampled_from(STATES),
    some.lists(MS, min_size=8, max_size=8),
    some.sampled_from(["-", "overlap", "a_code_of_later"]),
    some.text(some.characters(exclude_categories=["Cs"]), max_size=20),
    some.text(some.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_record_is_the_same_in_both_languages(state: str, numbers: list[int], code: str, detail: str, name: str) -> None:
    fields = dict(zip(NUMBERS, numbers, strict=True))
    policies = {"name": name, "queue": "q"}
    there = {"state": state, **fields, "code": code, "detail": text(detail), "tries": "", "json": text(json.dumps(policies))}
    found = read(there)
    assert (found.state, found.attempts, found.max_attempts) == (state, fields["attempts"], fields["max"])
    assert (found.spawned_ms, found.due_ms, found.until_ms) == (fields["spawned"], fields["due"], fields["till"])
    assert (found.began_ms, found.ended_ms) == (fields["began"], fields["ended"])
    assert (found.code, found.detail, found.policies) == ("" if code == "-" else code, detail, policies)
    assert LUA.call("record_parse", LUA.call("record_text", there)) == there


def test_attempts_are_the_same_in_both_languages() -> None:
    record = new({"name": "ünïcode"})
    wanted = []
    for number, (how, error, told) in enumerate(
        [
            ("failed", "ValueError: äöü\nno luck", "ValueError: äöü\nno luck"),
            ("lost", "expired", reasons.sentence("expired")),
            ("cut", "shutdown", reasons.sentence("shutdown")),
            ("cancelled", None, None),
            ("done", None, None),
        ]
    ):
        record["attempts"], fence = number + 1, NOW * 1000 + number
        LUA._named["try_begin"](record, fence, text("ann: from Köln"))
        assert LUA.call("last_try", plain(record))["owner"] == text("ann: from Köln")
        LUA._named["try_end"](record, how, None if error is None else text(error))
        wanted.append(Attempt(number + 1, "ann: from Köln", fence, NOW / 1000, NOW / 1000, how, told))  # type: ignore[arg-type]
        assert read(plain(record)).made == tuple(wanted)
    record["attempts"] = 6
    LUA._named["try_begin"](record, NOW * 1000 + 9, "bob")
    assert read(plain(record)).last == Attempt(6, "bob", NOW * 1000 + 9, NOW / 1000, None, "running")
    LUA._named["try_drop"](record)
    assert read(plain(record)).made == tuple(wanted), "given back before its body ran: it does not count"


def test_the_last_ten_attempts_are_kept_each_with_the_beginning_of_its_error() -> None:
    record = new()
    for number in range(1, 31):
        record["attempts"] = number
        LUA._named["try_begin"](record, NOW * 1000 + number, "ann")
        LUA._named["try_end"](record, "failed", text("ß" * 1000))
    found = read(plain(record))
    assert [one.number for one in found.made] == list(range(21, 31))
    assert {one.error for one in found.made} == {"ß" * 250}, "at most 500 bytes, and no half of a letter"


@pytest.mark.parametrize("what", JobCounts._fields)
def test_counts_are_the_same_in_both_languages(what: str) -> None:
    lua = Decisions("_lib/counts", now=NOW, server=lambda *_: [None])
    lua.call("counted", "report", what)
    assert lua.call("read", lua._named["q"]["counts"], "report") is None, "nothing of a job that is gone"
    lua.call("counted", "report", "fired", 1, True)
    lua.call("counted", "report", what, 12)
    found = JobCounts.of(lua.call("read", lua._named["q"]["counts"], "report"))
    assert found == JobCounts(fired=1)._replace(**{what: 12 + (what == "fired")})


def test_leases_and_places_of_jobs_are_the_same_in_both_languages() -> None:
    lease = {"fence": NOW * 1000, "ttl": 5000, "calls": "c1,c2", "note": str(NOW), "owner": text("ann: from Köln")}
    line = LUA.call("lease_text", lease)
    assert LeaseLine.of(line.encode("latin-1")) == (NOW * 1000, 5000, "c1,c2", str(NOW), "ann: from Köln")
    assert LUA.call("lease_parse", line, NOW + 10).items() >= {**lease, "expires": NOW + 10, "live": True}.items()
    lua = Decisions("_lib/schedule", now=NOW, server=lambda *_: [None, None])
    s = lua._named["schedule_of"]("defs", "order", "slots", "dues", lua.table(["report"]))
    lua._named["schedule_place"](s, "report", NOW, NOW + 7, "a.b 2025b")
    line = lua.call("read", s["slots"], "report")
    assert SlotLine.of(line) == (NOW, NOW + 7, "a.b", "2025b")
    assert str(SlotLine.of(line)) == line
