"""Why: every state and every reason has a sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from lockbeat import At, Cron, Every
from lockbeat.calendars import Closed
from lockbeat.calendars.values import Calendar, CalendarEntry
from lockbeat.jobs import Backfilled, Change, Job, Lateness, LedgerEntry, Slot, why
from lockbeat.jobs.ledger import KNOWN, situation
from lockbeat.jobs.past import RECORDED, State
from lockbeat.jobs.why import UNTOLD, Facts, of_entry, of_instant
from lockbeat.store import reasons
from lockbeat.store.records import STATES, Attempt, Retried, TaskRecord
from lockbeat.triggers import ByHand, Called

NINE = round(datetime(2030, 1, 30, 9, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
REASONS = Path(__file__).parents[2] / "scripts_lua/_lib/reasons.lua"


def test_every_reason_has_a_sentence_for_people() -> None:
    of_scripts = set(re.findall(r"^  [A-Z_]+ = '([a-z_]+)'", REASONS.read_text(), re.M))
    assert set(reasons.BECAUSE) == set(reasons.SENTENCES) == of_scripts


DETAILS = {
    **dict.fromkeys(("overlap", "overlap_unread", "overtaken"), f"report@{NINE - HOUR}"),
    **dict.fromkeys(("buffer_full",), "100"),
    **dict.fromkeys(("lock_held",), "alice"),
    **dict.fromkeys(("buffered", "fired", "took_place"), "host.1"),
    **dict.fromkeys(("paused", "skip_next"), "alice: the printer burns"),
    **dict.fromkeys(("late", "not_begun_within"), "10000"),
    "excluded": "holidays-de Christmas",
    "clock_set_back": "2030-01-30T12:00:00+00:00",
    "rules_changed": "2030-01-30T12:00:00+00:00 2025a 2025b",
}
"""What a reason's sentence names, where it names anything."""


@pytest.mark.parametrize("code", reasons.BECAUSE)
def test_a_reason_is_told_in_sentences_that_name_its_detail(code: str) -> None:
    text, detail = why.because("report", code, DETAILS.get(code, "")), DETAILS.get(code, "")
    if code == "fired":
        assert text == ""
        return
    assert re.fullmatch(r"[A-Z].*\.", text)
    assert "{" not in text
    for word in ("alice", "printer", "holidays-de: Christmas", "100 ", "2030-01-30", "10 s", "2025a then, 2025b now"):
        if word.replace(": ", " ").replace(" then,", "").replace(" now", "") in detail:
            assert word in text
    if detail.startswith("report@"):
        assert "the slot of 2030-01-30T08:00:00" in text.lower().replace("t08", "T08")


def test_a_reason_of_a_newer_instance_is_given_back_as_it_is() -> None:
    assert why.because("report", "eclipse", "2030") == "eclipse 2030."


def entry(state: str, *attempts: Attempt, **more: Any) -> LedgerEntry:
    begun = {"started_ms": NINE + 100, "attempt": len(attempts), "by": attempts[-1].owner} if attempts else {}
    given: dict[str, Any] = {"at_ms": NINE + 50, "max_attempts": 3, "attempts_made": attempts, **begun, **more}
    return LedgerEntry("report", NINE, state, **given)


def attempt(how: str, error: str | None = None, number: int = 1) -> Attempt:
    ended = None if how == "running" else NINE / 1000 + 4.1
    return Attempt(number, "host.1", 7, NINE / 1000 + 0.1, ended, how, error)  # type: ignore[arg-type]


LATE = Lateness(0, 50, 0, None)
IN_LINE = Lateness(0, 50, None, None)
ENTRIES: list[tuple[str, LedgerEntry, list[str]]] = [
    (
        "waiting",
        entry("fired", code="fired", detail="host.1", by="host.1", lateness=LATE),
        ["It was fired by host.1, and no worker has begun it."],
    ),
    ("waiting", entry("fired", code="took_place", detail="host.1", lateness=LATE), ["took the place of earlier slots"]),
    (
        "waiting",
        entry("fired", code="backfilled", detail="host.1", by="host.1", backfill=Backfilled("anna", "a new report")),
        ["no worker has begun it. A backfill fired it at 2030-01-30T09:00:00.050", "begun by anna: a new report."],
    ),
    (
        "done",
        entry("done", attempt("done"), backfill=Backfilled("anna", None)),
        ["was done after", "for it had not run at its time: begun by anna."],
    ),
    (
        "in_line",
        entry("fired", code="buffered", detail="host.1", lateness=IN_LINE, in_line=True),
        ["in line", "the one before it has not ended"],
    ),
    (
        "running",
        entry("fired", attempt("running")),
        ["host.1 has run it since 2030-01-30T09:00:00.100"],
    ),
    (
        "retrying",
        entry("retrying", attempt("failed", "ValueError: no"), reason="ValueError: no", retry_ms=NINE + HOUR),
        ["Attempt 1 of 3, by host.1, failed after 4 s: ValueError: no. The next may begin at 2030-01-30T10:00:00"],
    ),
    ("done", entry("done", attempt("done")), ["report at 2030-01-30T09:00:00+00:00: done.", "was done after 4 s"]),
    (
        "failed",
        entry("failed", attempt("lost", "expired"), attempt("failed", "ValueError: no\nmore", 2), reason="ValueError: no\nmore"),
        ["Attempt 2 of 3", "failed after 4 s: ValueError: no."],
    ),
    (
        "lost",
        entry("lost", attempt("lost", "expired"), code="expired", reason="..."),
        ["was lost.", "Its lease was not renewed in time"],
    ),
    ("lost", entry("lost", attempt("lost", "released"), code="released"), ["All leases of its instance were released"]),
    ("cut", entry("failed", attempt("cut", "shutdown"), code="shutdown"), ["was cut short after 4 s.", "was shut down"]),
    (
        "stopping",
        entry("cancelled", attempt("running"), code="overtaken", detail=f"report@{NINE + HOUR}"),
        ["is told to stop, and its function has yet to do so", "The slot of 2030-01-30T10:00:00+00:00 came due after it"],
    ),
    (
        "cancelled",
        entry("cancelled", attempt("cancelled"), code="cancelled", detail="ann", ended_ms=NINE + HOUR),
        ["was stopped after 4 s", "It was cancelled by ann at 2030-01-30T10:00:00+00:00."],
    ),
    ("cancelled", entry("cancelled", code="cancelled"), ["It had not begun. It was cancelled."]),
    (
        "retrying",
        entry("retrying", attempt("cancelled"), code="retried", retried=Retried("bob", NINE / 1000 + 9, "cancelled", "ann")),
        ["was stopped after 4 s.", "bob had it tried again at 2030-01-30T09:00:09+00:00. It had been cancelled by ann."],
    ),
    (
        "waiting",
        entry("fired", code="retried", retried=Retried(None, NINE / 1000 + 9, "cancelled")),
        ["No worker has begun it. Somebody had it tried again at 2030-01-30T09:00:09+00:00. It had been cancelled."],
    ),
    (
        "failed",
        entry("failed", attempt("failed", "no"), reason="no", retried=Retried("bob", NINE / 1000 + 9)),
        ["failed after 4 s: no. bob had it tried again at 2030-01-30T09:00:09+00:00."],
    ),
    (
        "skipped",
        entry("skipped", max_attempts=None, code="overlap", detail=f"report@{NINE - HOUR}"),
        ["It was not fired. The slot of 2030-01-30T08:00:00+00:00 had not ended"],
    ),
    (
        "skipped",
        entry("skipped", max_attempts=None, code="paused", detail="alice: why", count=3, last_ms=NINE + 2 * HOUR),
        [
            "It is one of 3 slots from 2030-01-30T09:00:00+00:00 to 2030-01-30T11:00:00+00:00 that were skipped together.",
            "paused by alice: why",
        ],
    ),
    (
        "missed",
        entry("missed", max_attempts=None, code="not_fired"),
        ["It was not fired. No instance fired it before a later slot"],
    ),
    ("missed", entry("missed", code="not_begun"), ["It was fired, and nobody began it. No worker began it before"]),
    (
        "missed",
        entry("missed", max_attempts=None, code="emptied", count=-1, last_ms=NINE + HOUR),
        ["one of the slots from", "nobody knows"],
    ),
    (
        "anchored",
        entry("anchored", max_attempts=None, code="clock_set_back", detail="2030-02-01"),
        ["That is no slot", "clock was set back"],
    ),
    ("unknown", entry("unknown", code="unreadable"), ["can't be read"]),
]


@pytest.mark.parametrize(("what", "known", "said"), ENTRIES)
def test_what_became_of_a_slot_is_told(what: str, known: LedgerEntry, said: list[str]) -> None:
    told = of_entry(known, NINE)
    assert (told.situation, told.code, told.entry) == (what, known.code, known)
    for words in said:
        assert words in told.text
    assert "None" not in told.text
    assert "  " not in told.text


def test_every_situation_of_an_entry_has_its_row() -> None:
    assert {what for what, *_ in ENTRIES} == set(KNOWN)


def test_every_state_of_a_record_is_one_that_history_knows_and_why_tells() -> None:
    for state in STATES:
        for how in ("running", "done", "failed", "lost", "cut", "cancelled"):
            record = TaskRecord(state, 1, 1, 1, 1, 0, 1, 0, "", "", (attempt(how),))
            assert state in RECORDED[record.slot_state] or record.slot_state == "unknown"
            assert situation(entry(record.slot_state, attempt(how))) in KNOWN
    assert set(RECORDED) == set(State.__args__)  # type: ignore[attr-defined]


def test_a_triggered_run_is_told_by_its_id() -> None:
    told = of_entry(replace(entry("done", attempt("done")), run="report!4f1b"), NINE)
    assert told.text.startswith("report!4f1b, triggered at 2030-01-30T09:00:00+00:00: done.")


def test_lateness_is_taken_apart() -> None:
    late = entry("done", attempt("done"), lateness=Lateness(3200, 100, 41_000, 2000))
    assert (
        "It began 46 s after its slot: 3.2 s held back by its jitter, 100 ms until an instance fired it, "
        "41 s in line behind the one before, 2 s until a worker began it."
    ) in of_entry(late, NINE).text


def test_what_was_on_time_says_so() -> None:
    assert "It began on time." in of_entry(entry("done", attempt("done"), lateness=Lateness(0, 0, 0, 0)), NINE).text


def standing(trigger: Any = None, now: float = NINE / 1000, **known: Any) -> Facts:
    options = {name: known.pop(name) for name in ("limit", "jitter", "keep", "keep_for", "exclude") if name in known}
    job = Job.declare("report", trigger or Every(3600), **options)
    given: dict[str, Any] = {"next": Slot(NINE + HOUR, NINE + HOUR), "paused": None, "retired_at": None, "fired": 0} | known
    return Facts(job, now=now, **given)


PAUSED = Change("pause", NINE / 1000, "alice", "the printer burns", None)
SKIPPING = Change("skip_next", NINE / 1000, "bob", None, (NINE + HOUR) / 1000)
INSTANTS: list[tuple[str, Facts, int, list[str]]] = [
    ("to_come", standing(), NINE + HOUR, ["2030-01-30T10:00:00+00:00 has not come due: it is in 1 h"]),
    ("to_come", standing(jitter=1800), NINE + HOUR, ["its jitter holds it back until 2030-01-30T10:"]),
    (
        "to_be_skipped",
        standing(next=None, paused=PAUSED),
        NINE + HOUR,
        ["is not resumed before: it is paused, by alice at", "the printer burns"],
    ),
    (
        "to_be_skipped",
        standing(next=None, paused=PAUSED, now=NINE / 1000 + 5400),
        NINE + HOUR,
        ["was not fired: report is paused, by alice at", "is skipped if the job is resumed without catching up"],
    ),
    (
        "to_be_skipped",
        standing(next=Slot(NINE + 2 * HOUR, 0), paused=SKIPPING),
        NINE + HOUR,
        ["skipping until 2030-01-30T10:00:00+00:00, by bob"],
    ),
    (
        "to_be_skipped",
        standing(next=None, retired_at=NINE / 1000),
        NINE + HOUR,
        ["is not declared again before: it is retired at 20"],
    ),
    ("held_back", standing(next=Slot(NINE, NINE + 60_000), jitter=90), NINE, ["is held back by its jitter for another 1 m"]),
    ("due", standing(next=Slot(NINE, NINE)), NINE, ["has just come due, and is not fired yet"]),
    ("overdue", standing(next=Slot(NINE - HOUR, NINE - HOUR)), NINE - HOUR, ["is overdue by 1 h", "catch-up latest applies"]),
    ("overdue", standing(next=Slot(NINE - HOUR, NINE - HOUR), served=False), NINE - HOUR, ["No instance schedules"]),
    ("beyond_limit", standing(limit=3, fired=2), NINE + 2 * HOUR, ["is to be fired 3 times, and 1 are left"]),
    ("beyond_limit", standing(limit=3, fired=3, next=None), NINE + 2 * HOUR, ["has ended, as it was fired 3 times"]),
    ("ended", standing(next=None), NINE + HOUR, ["is not fired: report has ended"]),
    (
        "no_slot",
        standing(),
        NINE + 60_000,
        ["is no slot of report (every 1h): a slot comes every 1h", "The nearest: 2030-01-30T09:00:00+00:00 and"],
    ),
    ("no_slot", standing(Cron("0 9 * * *")), NINE + HOUR, ["its hour is 10, where the line says 9"]),
    (
        "no_slot",
        standing(At(datetime(2030, 1, 1, tzinfo=UTC))),
        NINE,
        ["its only slot", "The nearest: 2030-01-01T00:00:00+00:00."],
    ),
    (
        "forgotten",
        standing(oldest_ms=NINE, keep=5, keep_for=86_400),
        NINE - HOUR,
        ["begins at 2030-01-30T09:00:00+00:00; it keeps 5 entries, and none for longer than 1 d"],
    ),
    ("uncalled", standing(Called(Every(3600)), next=None), NINE - HOUR, ["nobody has called for it, by lockbeat exec"]),
    ("to_come", standing(Called(Every(3600)), next=None), NINE + HOUR, ["who calls for it first runs it"]),
    ("no_slot", standing(Called(least_ms=60_000), next=None), NINE, ["runs when somebody triggers it"]),
    ("not_declared", standing(), NINE - HOUR, ["was not declared then", "it keeps 100 entries"]),
]


@pytest.mark.parametrize(("what", "known", "at_ms", "said"), INSTANTS)
def test_what_is_said_of_an_instant_without_an_entry(what: str, known: Facts, at_ms: int, said: list[str]) -> None:
    told = of_instant(known, at_ms)
    assert (told.situation, told.entry, told.at_ms) == (what, None, at_ms)
    for words in said:
        assert words in told.text


def test_an_excluded_slot_to_come_names_the_calendar_and_the_entry() -> None:
    closed = Closed([calendar("2030-01-30", "a feast")], "UTC")
    told = of_instant(standing(closed=closed, exclude=["de"]), NINE + HOUR)
    assert (told.situation, told.code) == ("excluded", "excluded")
    assert "it is in 1 h, and excluded by de: a feast." in told.text


def calendar(day: str, name: str) -> Calendar:
    one = date.fromisoformat(day)
    return Calendar(name="de", entries=(CalendarEntry(one, one, name),), until=date(2031, 1, 1))


def test_neighbours_of_no_slot_are_given() -> None:
    told = of_instant(standing(), NINE + 1)
    assert (told.before_ms, told.after_ms) == (NINE, NINE + HOUR)


def test_a_job_without_a_slot_to_tell_of_says_so() -> None:
    assert why.of_none(standing(ByHand(), next=None)).situation == "no_slots"
    assert why.of_none(standing(next=None)).situation == "ended"
    assert why.of_none(standing(next=None, paused=PAUSED)).situation == "to_be_skipped"


def test_every_situation_without_an_entry_has_a_test() -> None:
    rows = {what for what, *_ in INSTANTS} | {"excluded", "no_slots", "ended"}
    assert rows == set(UNTOLD)
