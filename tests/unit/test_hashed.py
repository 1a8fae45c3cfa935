"""`H` in a cron line: numbers that the job's name decides, the same on every host."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.errors import InvalidTrigger
from lockbeat.jobs import Job
from lockbeat.triggers import AnyOf, Cron, Every
from lockbeat.triggers.grammar import parse

NAMES = st.text(min_size=1, max_size=20)
# Name and bounds of a field, its place in six fields, and the highest that `H` alone takes.
FIELDS = {"second": (0, 59, 0, 59), "minute": (0, 59, 1, 59), "hour": (0, 23, 2, 23), "day": (1, 31, 3, 28)} | {
    "month": (1, 12, 4, 12),
    "weekday": (0, 6, 5, 6),
}


def line(at: int, word: str) -> str:
    return " ".join(word if number == at else "*" for number in range(6))


def numbers(cron: Cron, at: int) -> list[int]:
    return [int(number) for number in cron.expression.split(" ")[at].split(",")]


@given(job=NAMES, field=st.sampled_from(sorted(FIELDS)), data=st.data())
def test_it_stays_within_its_range_keeps_its_step_and_is_stable(job: str, field: str, data: st.DataObject) -> None:
    low, high, at, most = FIELDS[field]
    bounds = data.draw(st.none() | st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda two: two[0] <= two[1]))
    first, last = bounds or (low, most)
    step = data.draw(st.none() | st.integers(1, last - first + 1))
    word = "H" + (f"({first}-{last})" if bounds else "") + (f"/{step}" if step else "")
    found = numbers(Cron(line(at, word)).of_job(job), at)
    assert found == numbers(Cron(line(at, word.lower())).of_job(job), at)
    assert first <= found[0]
    assert found[-1] <= last
    if step is None:
        assert len(found) == 1
    else:
        assert found[0] < first + step, "no value before the first"
        assert found == list(range(found[0], last + 1, step))


def test_it_is_the_same_in_another_process() -> None:
    """These are written down: another digest would move every job that has an H."""
    expected = ["13 7 15 * * UTC", "13,28,43,58 23,2 * * 5,5 UTC"]
    lines = ["H H(0-7) H * *", "H/15 H(22-2)/3 * * 5,H"]
    code = f"from lockbeat.triggers import Cron\nfor line in {lines}: print(Cron(line).of_job('invoices'))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert there.stdout.splitlines() == [str(Cron(line).of_job("invoices")) for line in lines] == expected


def test_jobs_are_spread_evenly_and_minute_and_hour_do_not_go_together() -> None:
    found = Counter(tuple(Cron("H H * * *").of_job(f"job-{number}").expression.split(" ")[:2]) for number in range(6000))
    minutes = Counter[str]()
    for (minute, _), count in found.items():
        minutes[minute] += count
    assert len(minutes) == 60
    assert max(minutes.values()) < 2 * 6000 / 60
    assert len(found) > 1300, "of 1440 pairs"


def test_a_range_may_wrap_as_any_other() -> None:
    hours = {int(Cron("0 H(22-2) * * *").of_job(f"job-{number}").expression.split(" ")[1]) for number in range(200)}
    assert hours == {22, 23, 0, 1, 2}


def test_it_names_fixed_local_times_unless_a_star_stands_beside_it() -> None:
    assert not parse(Cron("H H * * *").of_job("x").expression).real_time
    assert not parse(Cron("H/10 3 * * *").of_job("x").expression).real_time
    assert parse(Cron("H * * * *").of_job("x").expression).real_time


def test_without_a_job_it_has_no_slots() -> None:
    for ask in (Cron("H * * * *").next, Cron("H * * * *").prev):
        with pytest.raises(InvalidTrigger, match="has slots only as a job has it, for its H"):
            ask(0)


def test_a_job_settles_it_wherever_it_stands() -> None:
    hourly = Cron("H * * * *").of_job("report")
    assert Job("report", Cron("H * * * *")).trigger == hourly
    assert Job("report", AnyOf(Cron("H * * * *"), Every(7))).trigger == AnyOf(hourly, Every(7))
    assert Job("other", Cron("H * * * *")).trigger != hourly
    assert '"needs"' not in Job("report", Cron("H * * * *")).definition, "the store has numbers, which every version reads"


def test_a_day_that_no_month_has_is_said_of_the_line_as_the_job_has_it() -> None:
    with pytest.raises(InvalidTrigger, match="'0 0 30 2 \\*' never fires"):
        Job("report", Cron("0 0 H(30-30) 2 *"))
