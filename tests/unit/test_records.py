"""Lines of the store as text, taken apart: what each field means, and that what can't be read is an error."""

from __future__ import annotations

import pytest

from lockbeat.store.records import Attempt, JobCounts, JobLine, LeaseLine, SlotLine, TaskRecord

BEGAN, ENDED = 1_700_000_000_000, 1_700_000_002_500


def record(state: str, *tries: bytes, code: str = "-", detail: str = "", json: bytes = b'{"name":"f","queue":"q"}') -> TaskRecord:
    head = f"{state} {len(tries)} 3 {BEGAN} {BEGAN + 1} 0 0 {BEGAN + 2} 0 {code} {detail}".encode()
    return TaskRecord.of(b"\xff".join([head, b"\xfe".join(tries), json]))


def made(how: str, error: str | None = None, number: int = 1) -> bytes:
    text = f"{number} {BEGAN * 1000} {BEGAN} {0 if how == '-' else ENDED} {how} an owner: with spaces".encode()
    return text if error is None else text + b"\xfd" + error.encode()


def test_a_task_that_runs_its_second_attempt() -> None:
    found = record("running", made("failed", "ValueError: äöü\nno luck"), made("-", number=2))
    assert (found.state, found.attempts, found.max_attempts, found.spawned_ms, found.due_ms) == (
        "running",
        2,
        3,
        BEGAN,
        BEGAN + 1,
    )
    assert (found.until_ms, found.began_ms, found.ended_ms, found.code, found.detail) == (0, BEGAN + 2, 0, "", "")
    assert found.policies == {"name": "f", "queue": "q"}
    first = Attempt(1, "an owner: with spaces", BEGAN * 1000, BEGAN / 1000, ENDED / 1000, "failed", "ValueError: äöü\nno luck")
    assert found.made == (first, Attempt(2, first.owner, first.fence, BEGAN / 1000, None, "running"))
    assert found.last == found.made[1]


def test_a_slot_that_ended_needs_no_policies_and_says_why() -> None:
    found = record("skipped", code="overlap", detail="report@5 of ann", json=b"")
    assert (found.code, found.detail, found.policies, found.made, found.last) == ("overlap", "report@5 of ann", {}, (), None)


@pytest.mark.parametrize(
    ("state", "tries", "slot", "task"),
    [
        ("waiting", [], "fired", "waiting"),
        ("running", ["-"], "fired", "running"),
        ("waiting", ["failed"], "retrying", "waiting"),
        ("waiting", ["lost"], "retrying", "waiting"),
        ("waiting", ["done", "cut"], "retrying", "waiting"),
        ("running", ["failed", "-"], "fired", "running"),
        ("stopping", ["-"], "cancelled", "cancelled"),
        ("cancelled", ["cancelled"], "cancelled", "cancelled"),
        ("cancelled", [], "cancelled", "cancelled"),
        ("done", ["failed", "done"], "done", "done"),
        ("dead", ["failed"], "failed", "dead"),
        ("dead", ["failed", "lost"], "lost", "dead"),
        ("dead", ["cut"], "failed", "dead"),
        ("skipped", [], "skipped", "cancelled"),
        ("missed", [], "missed", "cancelled"),
        ("anchored", [], "anchored", "cancelled"),
    ],
)
def test_the_public_words_follow_from_state_and_the_last_attempt(state: str, tries: list[str], slot: str, task: str) -> None:
    found = record(state, *map(made, tries))
    assert (found.slot_state, found.task_state) == (slot, task)


def test_an_error_that_was_cut_within_a_letter_can_be_read() -> None:
    assert record("dead", made("failed") + b"\xfd" + "naïve".encode()[:3]).made[0].error == "na\ufffd"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage",
        b"done 1 1 1 1 0 0 1 1 -\xff\xff",  # no detail, be it empty, is no end of a HEAD
        b"sleeping 0 1 1 1 0 0 0 0 - \xff\xff{}",
        b"done x 1 1 1 0 0 0 0 - \xff\xff{}",
        b"done 0 1 1 1 0 0 0 0 - \xff\xff[]",
        b"done 0 1 1 1 0 0 0 0 - \xff\xff{",
        b"done 0 1 1 1 0 0 0 0 - \xff",
        b"done 1 1 1 1 0 0 0 0 - \xff1 2 3 4 asleep ann\xff{}",
        b"done 1 1 1 1 0 0 0 0 - \xff1 2 3\xff{}",
    ],
)
def test_what_is_no_record_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        TaskRecord.of(text)


def test_leases_slots_jobs_and_counts() -> None:
    assert LeaseLine.of(b"17 5000 c1,c2 - ann of b") == LeaseLine(17, 5000, "c1,c2", "", "ann of b")
    assert LeaseLine.of(b"17 5000 c1 1700000000000 ann").note == "1700000000000"
    for line in (SlotLine.of("-1 0 a.b 2025b"), SlotLine.of("5 6 a.b"), JobLine.of('a.b {"x": 1}')):
        assert type(line).of(str(line)) == line
    assert SlotLine.of("5 6 a.b").rules == "-"
    assert JobLine.of('a.b {"x": 1}') == ("a.b", '{"x": 1}')
    assert JobCounts.of("9 4 1 0 2 30 1") == JobCounts(fired=9, done=4, failed=1, lost=0, skipped=2, missed=30, cancelled=1)
