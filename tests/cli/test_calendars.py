"""calendars, calendar: kept, shown and forgotten from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Lockbeat, left

ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//a//b//EN
BEGIN:VEVENT
UID:1
DTSTART;VALUE=DATE:20200103
RRULE:FREQ=YEARLY
SUMMARY:Stock-taking
END:VEVENT
END:VCALENDAR
"""


def test_a_calendar_is_put_shown_listed_and_deleted(lockbeat: Lockbeat, store: str) -> None:
    put = lockbeat("calendar", "put", "closing", "2030-12-25 Christmas", "2030-12-31..2031-01-01", "--url", store)
    assert (put.code, put.out) == (0, "put closing: 2 entries, known until 2031-01-01\n")
    for shown in (lockbeat("calendar", "closing", "--url", store), lockbeat("calendar", "show", "closing", "--url", store)):
        assert shown.out.startswith("closing: dates, put 20")
        assert shown.out.endswith("  excluded by: no job\n  2030-12-25 Christmas\n  2030-12-31..2031-01-01\n")
    [listed] = lockbeat("calendars", "--url", store, "--json").json
    assert listed == lockbeat("calendar", "closing", "--url", store, "--json").json
    assert listed["entries"][0] == {"first": "2030-12-25", "last": "2030-12-25", "name": "Christmas"}
    assert (listed["name"], listed["until"], listed["jobs"], listed["missing"]) == ("closing", "2031-01-01", [], False)
    out = lockbeat("calendars", "--url", store).out
    assert "2030-12-25 Christmas" in out
    assert "dates" in out
    assert lockbeat("calendar", "delete", "closing", "--url", store).out == "deleted calendar closing\n"
    gone = lockbeat("calendar", "delete", "closing", "--url", store)
    assert (gone.code, gone.err) == (1, "lockbeat: no calendar named 'closing'\n")
    assert lockbeat("calendars", "--url", store).out.startswith("no calendars in namespace lockbeat")


def test_a_calendar_comes_from_a_file_or_a_country(lockbeat: Lockbeat, store: str, tmp_path: Path) -> None:
    file = tmp_path / "stock.ics"
    file.write_text(ICS)
    put = lockbeat("calendar", "put", "stock", "--ics", file, "--years", "2030-2031", "--url", store)
    assert put.out.startswith("put stock: 2 entries, known until 2031-12-31, from ics stock.ics sha256:")
    put = lockbeat("calendar", "put", "holidays", "--country", "DE-BY", "--years", "2030", "--url", store, "--json")
    assert put.json["source"] == "holidays DE-BY"
    assert {"first": "2030-01-01", "last": "2030-01-01", "name": "Neujahr"} in put.json["entries"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["calendar"], "Missing command"),
        (["calendar", "put"], "NAME"),
        (["calendar", "put", "x", "--url", "STORE"], "DATES, --ics FILE or --country CODE"),
        (["calendar", "put", "x", "2030-01-01", "--country", "DE", "--url", "STORE"], "DATES, --ics FILE or --country CODE"),
        (["calendar", "put", "x", "2030-02-30", "--url", "STORE"], "no day that there is"),
        (["calendar", "put", "a b", "2030-02-03", "--url", "STORE"], "letters, digits"),
        (["calendar", "put", "x", "--country", "XX", "--url", "STORE"], "country"),
        (["calendar", "put", "x", "--country", "DE", "--years", "2031-2030", "--url", "STORE"], "--years"),
        (["calendar", "put", "x", "--country", "DE", "--years", "soon", "--url", "STORE"], "--years"),
        (["calendar", "put", "x", "--ics", "/nowhere.ics", "--url", "STORE"], "No such file"),
        (["calendar", "put", "x", "2030-01-01", "--years", "2030", "--url", "STORE"], "years"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(lockbeat: Lockbeat, store: str, raw: Any, args: list[str], said: str) -> None:
    answer = lockbeat(*(store if arg == "STORE" else arg for arg in args))
    assert (answer.code, answer.out) == (2, "")
    assert (answer.err.count("\n"), answer.err[:10]) == (1, "lockbeat: ")
    assert said in answer.err
    assert left(raw) == set()


def test_an_unknown_calendar_is_one_line_and_exit_code_1(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    answer = lockbeat("calendar", "nobody", "--url", store)
    assert (answer.code, answer.out) == (1, "")
    assert "no calendar named 'nobody'" in answer.err
    assert left(raw) == set()
