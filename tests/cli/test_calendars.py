"""calendars, calendar: kept, shown and forgotten from the command line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lockbeat.jobs import Job
from lockbeat.triggers import Cron

from .conftest import Lockbeat, using
from .test_doctor import finding

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


def declare(store: str, *jobs: Job) -> None:
    using(store, lambda lb: lb.jobs.put(*jobs))


def test_next_shows_what_is_excluded_and_why_says_it(lockbeat: Lockbeat, store: str) -> None:
    declare(store, Job.declare("report", Cron("0 6 * * *"), exclude=["closing"]))
    coming = lockbeat("next", "report", "-n", "3", "--url", store, "--json").json
    slots = [datetime.fromisoformat(one["slot"]) for one in coming]
    days = [slot.date().isoformat() for slot in slots]
    lockbeat("calendar", "put", "closing", f"{days[1]} Stock-taking", "2099-01-01", "--url", store)
    lines = lockbeat("next", "report", "-n", "2", "--utc", "--url", store).out.splitlines()
    assert lines[1] == f"{days[1]} 06:00:00Z  excluded by closing: Stock-taking"
    assert [line[:10] for line in lines] == days
    stocktaking = {"calendar": "closing", "entry": "Stock-taking", "why": "excluded by closing: Stock-taking"}
    free = {"calendar": "", "entry": "", "why": ""}
    assert lockbeat("next", "report", "-n", "2", "--url", store, "--json").json == [
        {"slot": f"{day}T06:00:00.000Z", **said} for day, said in zip(days, (free, stocktaking, free), strict=True)
    ]
    why = lockbeat("why", "report", f"{days[1]}T06:00:00Z", "--url", store)
    assert why.code == 1
    assert why.out.endswith(", and excluded by closing: Stock-taking.\n")


def test_ls_calendars_and_doctor_say_what_is_missing_or_over(lockbeat: Lockbeat, store: str) -> None:
    assert finding(lockbeat("doctor", "--url", store, "--json"), "calendars")["state"] == "ok"
    declare(store, Job.declare("report", Cron("0 6 * * *"), exclude=["closing", "past"]), Job.declare("other", Cron("0 6 * * *")))
    lockbeat("calendar", "put", "past", "2001-01-01", "--url", store)
    problems = ["calendar 'closing' is missing", "calendar 'past' has no day known after 2001-01-01"]
    other, report = lockbeat("ls", "--url", store, "--json").json
    assert (other["calendar_problems"], other["exclude"]) == ([], [])
    assert (report["calendar_problems"], report["exclude"]) == (problems, ["closing", "past"])
    assert f"exclude=closing,past ({'; '.join(problems)})" in lockbeat("ls", "--url", store).out
    listed = {each["name"]: each for each in lockbeat("calendars", "--url", store, "--json").json}
    assert (listed["closing"]["missing"], listed["closing"]["jobs"], listed["past"]["missing"]) == (True, ["report"], False)
    out = lockbeat("calendars", "--url", store).out
    assert "missing" in out
    assert "2001-01-01, over" in out
    found = finding(lockbeat("doctor", "--url", store, "--json"), "calendars")
    assert found["says"] == "calendar 'closing' is missing: 1 job excludes by it, and fires every day"
    lockbeat("calendar", "put", "closing", "2099-01-01", "--url", store)
    found = finding(lockbeat("doctor", "--url", store, "--json"), "calendars")
    assert (found["state"], found["says"]) == ("warn", "calendar 'past' has no day known after 2001-01-01: 1 job excludes by it")
    lockbeat("calendar", "put", "past", "2099-01-01", "--url", store)
    found = finding(lockbeat("doctor", "--url", store, "--json"), "calendars")
    assert (found["state"], found["says"]) == ("ok", "2 calendars, each that jobs exclude by is known for a month")


def test_a_calendar_in_use_is_deleted_by_force(lockbeat: Lockbeat, store: str) -> None:
    declare(store, Job.declare("report", Cron("0 6 * * *"), exclude=["closing"]))
    put = lockbeat("calendar", "put", "closing", "2099-01-01", "--url", store)
    assert put.out == "put closing: 1 entry, known until 2099-01-01; 1 job excludes by it\n"
    assert "  excluded by: report\n" in lockbeat("calendar", "closing", "--url", store).out
    refused = lockbeat("calendar", "delete", "closing", "--url", store)
    said = "lockbeat: calendar 'closing' is in use: report excludes by it; --force deletes it, and they fire on its days\n"
    assert (refused.code, refused.err) == (1, said)
    assert lockbeat("calendar", "delete", "closing", "--force", "--url", store).code == 0
