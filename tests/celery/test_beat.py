"""`celery beat -S lockbeat.celery:Scheduler` as real processes, with a real broker and a real worker."""

from __future__ import annotations

import json
import signal
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Every
from lockbeat.celery import task_id
from lockbeat.celery.ids import message_id
from tests.celery.arena import Arena
from tests.celery.storms import settled, storm
from tests.conftest import needs

pytestmark = needs("valkey")


@pytest.mark.long
async def test_each_slot_is_run_once_though_beats_are_killed_and_the_broker_is_away(field: Arena) -> None:
    first, last = await storm(field, entries=5, seconds=12, kill_every=3, away=3)
    verdict = await settled(field, 5, first, last)
    assert (verdict.lost, verdict.twice, verdict.unknown) == ([], {}, [])
    assert verdict.once + verdict.told == verdict.slots >= 50
    assert verdict.once >= 20, "how many of those that were not run are told of as missed is the machine's affair"


def test_a_message_says_which_slot_it_is_for_and_keeps_what_its_entry_says(field: Arena) -> None:
    entry = {
        "task": "record",
        "schedule": 1,
        "args": ["report"],
        "kwargs": {"customer": 7},
        "options": {"queue": "reports", "expires": 3600, "countdown": 1, "headers": {"tenant": "a"}, "priority": 3},
    }
    one_id = entry | {"args": ["one id"], "options": {"queue": "reports", "task_id": "mine"}}
    field.env["MORE"] = json.dumps({"my report": entry, "one id": one_id})
    field.beat()
    field.worker("-Q", "reports")
    # Messages that share an id, as their entry wants it, are not taken for one another: each slot runs.
    ran = field.wait_ran(lambda ran: len({line["lockbeat_slot"] for line in ran if line["id"] == "mine"}) > 1, "two of one id")
    ran = field.wait_ran(lambda ran: any(line["what"] == "report" for line in ran), "a message of the other entry")
    line = next(line for line in ran if line["what"] == "report")
    slot = datetime.fromisoformat(line["lockbeat_slot"])
    assert line["id"] == task_id("my report", slot)
    assert (line["lockbeat_job"], line["kwargs"]) == ("my report", {"customer": 7})
    assert slot.timestamp() % 1 == 0
    assert line["lockbeat_fence"] > 1_000_000
    sent = datetime.fromtimestamp(line["sent_at"], UTC)
    assert abs((datetime.fromisoformat(line["eta"]) - sent).total_seconds() - 1) < 1
    assert abs((datetime.fromisoformat(line["expires"]) - sent).total_seconds() - 3600) < 1


def test_the_store_is_in_the_broker_where_that_is_redis(one_server: Arena) -> None:
    one_server.env["ENTRIES"] = "1"
    beat = one_server.beat()
    one_server.worker()
    one_server.wait_ran(lambda ran: len(ran) >= 2, "two slots")
    assert {state.job.name for state in one_server.lb.jobs.list()} == {"entry-0", "celery.backend_cleanup"}
    assert f"store -> redis://127.0.0.1:{one_server.broker.port}" in beat.said


def test_every_worker_can_have_a_beat_within_it(one_server: Arena) -> None:
    one_server.env["ENTRIES"] = "2"
    workers = [one_server.worker("-B", "--scheduler", "lockbeat") for _ in range(2)]
    ran = one_server.wait_ran(lambda ran: len(ran) >= 8, "some slots")
    assert max(Counter(line["id"] for line in ran).values()) == 1
    assert workers[0].ends() == 0
    before = len(one_server.ran)
    one_server.wait_ran(lambda ran: len(ran) >= before + 4, "more, by the other")


def test_a_beat_that_is_told_to_stop_leaves_the_rest_to_others_at_once(field: Arena) -> None:
    field.env["ENTRIES"] = "1"
    one, other = field.beat(), field.beat()
    field.worker()
    field.wait_ran(bool, "a slot")
    assert one.ends(signal.SIGTERM) == 0
    assert "Traceback" not in one.said
    before = len(field.ran)
    field.wait_ran(lambda ran: len(ran) >= before + 2, "two slots more")
    assert other.ends(signal.SIGINT) == 0
    assert "Traceback" not in other.said


def test_what_can_not_be_sent_is_given_up_with_a_word_in_the_log_and_the_ledger(field: Arena) -> None:
    wrong = {"task": "record", "schedule": 1, "args": [], "kwargs": {"no": 1}}
    field.env["MORE"] = json.dumps({"wrong": wrong, "well": {"task": "record", "schedule": 1, "args": ["well"]}})
    beat = field.beat()
    field.worker()
    beat.says("can't be sent, and is given up: TypeError")
    field.wait_ran(lambda ran: any(line["what"] == "well" for line in ran), "the other entry")
    assert {entry.state for entry in field.lb.jobs.ledger("wrong")[1:]} <= {
        "cancelled",
        "fired",
        "missed",
    }  # missed: on a busy machine
    assert "cancelled" in {entry.state for entry in field.lb.jobs.ledger("wrong")}


def test_a_job_that_is_put_at_run_time_is_sent_like_an_entry_and_by_hand_as_well(field: Arena) -> None:
    field.beat().says("beat: Starting...")
    field.worker()
    params = {"task": "record", "args": ["report-7"], "kwargs": {"customer": 7}}
    field.lb.jobs.put("report-7", Every(3600), function="celery.send", queue="celery", overlap="allow", params=params)
    run = field.lb.jobs.trigger("report-7", {"task": "record", "args": ["by hand"]})
    field.lb.jobs.put("report-8", Every(1), function="celery.send", queue="celery", overlap="allow", params=params)
    ran = field.wait_ran(lambda ran: {line["what"] for line in ran} == {"report-7", "by hand"}, "both")
    assert {line["id"] for line in ran if line["what"] == "by hand"} == {message_id(run.task_id, "lockbeat")}
    assert {line["lockbeat_job"] for line in ran if line["what"] == "report-7"} == {"report-8"}


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"lockbeat_ulr": "redis://x"}, "lockbeat_ulr: no such setting; did you mean lockbeat_url?"),
        ({"lockbeat_url": "http://x"}, "knows no such scheme"),
        ({"lockbeat_jobs": {"entry-0": {"catchup": "never"}}}, "catchup"),
    ],
)
def test_wrong_settings_are_one_line(field: Arena, conf: dict[str, Any], said: str) -> None:
    field.conf |= conf
    field.env["ENTRIES"] = "1"
    beat = field.beat()
    assert beat.popen.wait(60) == 1
    [line] = [line for line in beat.said.splitlines() if line.startswith("Error: ")]
    assert said in line
    assert "Traceback" not in beat.said
