"""Why an instant is no slot: which rule of the trigger excluded it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat import AnyOf, At, Cron, Every
from lockbeat.triggers import Between, ByHand, Trigger
from lockbeat.triggers.no_slot import CODES, no_slot

BERLIN: dict[str, Any] = {"timezone": "Europe/Berlin"}


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


TABLE: list[tuple[Trigger, str, str, str]] = [
    (Cron("*/5 * * * *"), "2030-01-31T12:07Z", "field", "its minute is 7, where the line says */5"),
    (Cron("0 9 * * *"), "2030-01-31T10:00Z", "field", "its hour is 10, where the line says 9"),
    (
        Cron("0 9 * * *"),
        "2030-01-31T10:30Z",
        "field",
        "its minute is 30, where the line says 0 and its hour is 10, where the line",
    ),
    (Cron("0 9 * * *"), "2030-01-31T09:00:05Z", "field", "its second is 5, where the line says 0"),
    (Cron("0 9 * * *"), "2030-01-31T09:00:00.250Z", "field", "slots of a cron line are whole seconds"),
    (Cron("30 0 9 * * *"), "2030-01-31T09:00:10Z", "field", "its second is 10, where the line says 30"),
    (Cron("0 9 * 6 *"), "2030-01-31T09:00Z", "field", "its month is January, where the line says 6"),
    (
        Cron("0 9 * * mon-wed"),
        "2030-01-31T09:00Z",
        "field",
        "its day is Thursday, the 31, where the line says mon-wed as day of the week",
    ),
    (Cron("0 9 1 * *"), "2030-01-31T09:00Z", "field", "the 31, where the line says 1 as day of the month"),
    (Cron("0 9 1 * mon"), "2030-01-31T09:00Z", "field", "1 as day of the month or mon as day of the week"),
    (Cron("0 9 * * *", **BERLIN), "2030-01-31T09:00Z", "field", "the clock of Europe/Berlin shows 2030-01-31 10:00:00"),
    (
        Cron("30 2 * * *", **BERLIN),
        "2030-03-31T01:30Z",
        "gap",
        "skipped 2030-03-31 02:30:00, and gap=after fires at 2030-03-31T01:00:00",
    ),
    (Cron("30 2 * * *", gap="skip", **BERLIN), "2030-03-31T01:30Z", "gap", "skipped 2030-03-31 02:30:00, and gap=skip drops it"),
    (Cron("*/30 2 * * *", **BERLIN), "2030-03-31T01:30Z", "gap", "a line with `*` follows real time"),
    (
        Cron("30 2 * * *", **BERLIN),
        "2030-10-27T01:30Z",
        "fold",
        "shows 2030-10-27 02:30:00 twice, and fold=first fires the first time",
    ),
    (Cron("30 2 * * *", fold="last", **BERLIN), "2030-10-27T00:30Z", "fold", "fold=last fires the last time"),
    (Every(10), "2030-01-31T12:00:03Z", "period", "a slot comes every 10s, counted from 1970-01-01T00:00:00+00:00"),
    (At(datetime(2030, 1, 1, tzinfo=UTC)), "2030-01-31T12:00Z", "once", "its only slot is 2030-01-01T00:00:00+00:00"),
    (Between(Every(60), ms("2030-01-01T00:00Z")), "2029-12-31T23:59Z", "before_start", "starts at 2030-01-01"),
    (Between(Every(60), None, ms("2030-01-01T00:00Z")), "2030-01-01T00:00Z", "after_end", "ends before 2030-01-01"),
    (Between(Every(60), ms("2030-01-01T00:00Z")), "2030-01-01T00:00:01Z", "period", "every 1m"),
    (ByHand(), "2030-01-31T12:00Z", "by_hand", "runs when somebody triggers it"),
]


@pytest.mark.parametrize(("trigger", "at", "code", "why"), TABLE)
def test_the_rule_that_excluded_an_instant_is_named(trigger: Trigger, at: str, code: str, why: str) -> None:
    [found] = no_slot(trigger, ms(at))
    assert found.code == code
    assert why in found.why


def test_every_code_has_its_row() -> None:
    assert {code for *_, code, _ in TABLE} == set(CODES)


def test_of_several_triggers_each_says_why() -> None:
    found = no_slot(AnyOf(Every(10), Cron("0 9 * * *")), ms("2030-01-31T09:00:05Z"))
    assert {one.code for one in found} == {"period", "field"}
    assert any(one.why.startswith("0 9 * * * UTC: ") for one in found)


def test_a_slot_of_one_of_them_is_a_slot() -> None:
    assert no_slot(AnyOf(Every(10), Cron("0 9 * * *")), ms("2030-01-31T09:00:10Z")) == []


@given(
    line=st.sampled_from(["30 2 * * *", "*/20 1-3 * * *", "0 0 29 2 *", "0 0 1,15 * fri", "10 30 2 L * *", "0 9 * * fri#2"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "+05:30"]),
    at=st.integers(0, 4_000_000_000).map(lambda seconds: seconds // 600 * 600_000),
)
def test_nothing_is_said_of_a_slot_and_something_of_all_else(line: str, zone: str, at: int) -> None:
    cron = Cron(line, zone)
    assert bool(no_slot(cron, at)) is (cron.prev(at) != at)
