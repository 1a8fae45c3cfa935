"""A shadow beside another beat: it sends nothing, and says on which slots they disagree."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lockbeat.celery.shadow import EARLY_MS, LATE_MS, SETTLE_MS, Disagreement, compare
from lockbeat.jobs import LedgerEntry
from lockbeat.sync import Lockbeat
from tests.celery.arena import LOCKBEAT, PLAIN, REDBEAT, SHADOW, Arena
from tests.conftest import needs
from tests.servers import wait_until

HOUR = 3_600_000
T = 500_000 * HOUR


def slot(at: int, state: str = "done", job: str = "job", **more: Any) -> LedgerEntry:
    return LedgerEntry(job, at, state, at_ms=at, **more)


def sent(at: int, job: str = "job") -> LedgerEntry:
    return LedgerEntry(job, at, "done", at_ms=at, run=f"{job}!{at}")


def judged(*entries: LedgerEntry, now: int = T + 100 * HOUR, **options: Any) -> tuple[int, list[tuple[int, int, bool]]]:
    found = compare(entries, now, **options)
    return found.slots, [(each.at_ms - T, each.sent, each.is_slot) for each in found.disagreements]


def test_a_message_a_slot_is_agreement() -> None:
    assert judged(*(each for n in range(4) for each in (slot(T + n * HOUR), sent(T + n * HOUR + 20)))) == (3, [])


def test_a_slot_without_a_message_and_one_with_two_are_not() -> None:
    entries = [sent(T), slot(T), slot(T + HOUR), slot(T + 2 * HOUR), sent(T + 2 * HOUR), sent(T + 2 * HOUR + 500)]
    assert judged(*entries) == (2, [(HOUR, 0, True), (2 * HOUR, 2, True)])


def test_a_message_at_no_slot_of_a_crontab_is_not_either() -> None:
    entries = [sent(T), slot(T), slot(T + HOUR), sent(T + HOUR), sent(T + HOUR + LATE_MS + 1)]
    assert judged(*entries) == (1, [(HOUR + LATE_MS + 1, 1, False)])


def test_a_period_may_have_another_phase() -> None:
    entries = [each for n in range(5) for each in (slot(T + n * HOUR), sent(T + n * HOUR + HOUR // 2))]
    assert judged(*entries, phased={"job"}) == (4, [])
    assert len(judged(*entries)[1]) > 4


def test_the_clocks_of_two_hosts_may_differ_a_little() -> None:
    entries = [sent(T), slot(T), slot(T + HOUR), sent(T + HOUR - EARLY_MS)]
    assert judged(*entries) == (1, [])


def test_what_nobody_can_judge_is_not_judged() -> None:
    assert judged(slot(T), slot(T + HOUR)) == (0, [])  # no witness
    old = [slot(T), slot(T + HOUR), sent(T + HOUR + 10)]
    assert judged(*old) == (0, [])  # before the first message
    away = [
        sent(T),
        slot(T + HOUR, "missed", last_ms=T + 3 * HOUR, count=3),
        sent(T + 2 * HOUR),
        slot(T + 4 * HOUR),
        sent(T + 4 * HOUR),
    ]
    assert judged(*away, phased={"job"}) == (1, [])  # the shadow was away
    late = [sent(T), slot(T + HOUR), sent(T + HOUR), slot(T + 2 * HOUR)]
    assert judged(*late, now=T + 2 * HOUR + SETTLE_MS - 1) == (1, [])  # it may still come
    assert judged(*late, now=T + 2 * HOUR + SETTLE_MS) == (2, [(2 * HOUR, 0, True)])


def test_a_disagreement_says_what_it_is() -> None:
    assert Disagreement("job", T, 0).what == "the other beat has sent nothing"
    assert Disagreement("job", T, 2).what == "the other beat has sent 2 messages"
    assert Disagreement("job", T, 1, False).what == "the other beat has sent a message, and this is no slot"


def shadow(field: Arena, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockbeat", "shadow", "--url", field.store.url, "--settle", "3", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.long
@needs("valkey")
def test_a_shadow_beside_a_beat_sends_nothing_and_compares(field: Arena) -> None:
    field.env |= {"ENTRIES": "2", "WITNESS": "1"}
    field.conf |= {"beat_max_loop_interval": 1, "redbeat_redis_url": field.broker.url}
    beside = field.beat(SHADOW)
    beside.says("beat: Starting...")
    with Lockbeat(field.store.url, namespace="lockbeat-shadow") as lb:
        wait_until(lambda: len(lb.jobs.list()) >= 2, "the shadow's jobs", 60)
    before = field.waiting
    assert before == 0
    field.beat(REDBEAT)
    with Lockbeat(field.store.url, namespace="lockbeat-shadow") as lb:

        def told() -> bool:
            entries = lb.jobs.history(limit=1000).entries
            return sum(bool(each.run) for each in entries) >= 8 and not all(each.run for each in entries)

        wait_until(told, "what the other beat has sent", 60)
        runs = sum(bool(each.run) for each in lb.jobs.history(limit=1000).entries)
    assert 0 < field.waiting <= runs + 4
    wait_until(lambda: shadow(field).returncode in (0, 3), "slots that are old enough", 60)
    said = shadow(field, "--json")
    found = json.loads(said.stdout)
    assert found["slots"] > 0
    assert found["messages"] >= 8
    assert not [each for each in found["disagreements"] if not each["slot"]]


@needs("valkey")
def test_two_beats_of_celerys_own_are_told_of(field: Arena) -> None:
    field.env |= {"ENTRIES": "1", "WITNESS": "1"}
    field.conf |= {"beat_max_loop_interval": 1}
    field.beat(LOCKBEAT, LOCKBEAT_SHADOW="1").says("(shadow: nothing is sent)")
    for _ in range(2):
        field.beat(PLAIN)
    wait_until(lambda: "has sent 2 messages" in shadow(field).stdout, "slots that were sent twice", 90)
    assert shadow(field).returncode == 3


@needs("valkey")
def test_without_a_witness_there_is_nothing_to_compare(field: Arena) -> None:
    said = shadow(field)
    assert said.returncode == 1
    assert (
        said.stderr
        == "lockbeat: nothing to compare: the other beat has sent nothing that a witness told of; see docs/celery.md\n"
    )
