"""What has befallen users of Celery's beat and of RedBeat, by their public reports; done to this one."""

from __future__ import annotations

import signal
import socket
from collections import Counter

from lockbeat.celery import task_id
from lockbeat.jobs import LedgerEntry
from tests.celery.arena import Arena
from tests.conftest import needs
from tests.servers import free_port, wait_until

pytestmark = needs("valkey")


def test_a_beat_whose_store_is_away_starts_says_so_and_can_be_stopped(field: Arena) -> None:
    """redbeat #129, #223, #230: it could not be stopped without its lock. celery #9997: passwords in the log."""
    field.env["ENTRIES"] = "1"
    field.conf["lockbeat_url"] = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    beat = field.beat()
    beat.says("the store is away, trying again")
    assert beat.ends(signal.SIGTERM) == 0
    assert "Traceback" not in beat.said
    assert "secret" not in beat.said
    assert "store -> redis://user:***@127.0.0.1" in beat.said


def test_slots_whose_broker_is_away_at_the_start_are_tried_again(field: Arena) -> None:
    """celery #8845: beat waits for its broker, and nothing is due meanwhile."""
    field.env["ENTRIES"] = "2"
    field.broker.kill()
    field.beat()
    wait_until(lambda: _states(field)["retrying"] >= 2, "slots that are tried again", 60)
    field.broker.restart()
    field.worker()
    field.wait_ran(lambda ran: {line["what"] for line in ran} == {"entry-0", "entry-1"}, "both entries")
    wait_until(lambda: _states(field)["done"] >= 4 and not _states(field)["failed"], "sent in the end", 90)


def _states(field: Arena) -> Counter[str]:
    return Counter(entry.state for entry in field.lb.jobs.history(limit=1000).entries)


def test_a_store_that_is_emptied_sends_nothing_twice(field: Arena) -> None:
    """redbeat #163, #208, #238: without the lock every beat sends."""
    field.env["ENTRIES"] = "3"
    for _ in range(3):
        field.beat()
    field.worker()
    field.wait_ran(lambda ran: len({line["what"] for line in ran}) == 3, "each entry")
    field.store.call("FLUSHALL")
    before = len(field.ran)
    ran = field.wait_ran(lambda ran: len(ran) >= before + 9, "more of each")
    assert max(Counter(line["id"] for line in ran).values()) == 1


def test_a_beat_that_is_cut_off_from_a_silent_broker_can_be_stopped(field: Arena) -> None:
    """taskiq #626, celery #4079: one send that hangs, and nothing more is sent. The socket takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        field.broker_url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        field.conf["broker_transport_options"] = {"socket_timeout": 1, "socket_connect_timeout": 1}
        field.env["ENTRIES"] = "2"
        beat = field.beat()
        wait_until(lambda: _states(field)["retrying"] >= 3, "slots that are tried again", 60)
        assert beat.ends(signal.SIGTERM) == 0


def test_a_slot_whose_beat_was_killed_between_deciding_and_sending_is_sent_by_another(field: Arena) -> None:
    field.env["ENTRIES"] = "1"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        field.broker_url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        field.conf["broker_transport_options"] = {"socket_timeout": 600, "socket_connect_timeout": 600}
        beat = field.beat()
        wait_until(lambda: _sending(field), "a slot that is being sent", 60)
        slots = _sending(field)
        beat.kill()
    field.broker_url = ""
    field.beat()
    field.worker()
    ids = {task_id("entry-0", entry.slot): entry.fence for entry in slots}
    ran = field.wait_ran(lambda ran: {line["id"] for line in ran} >= ids.keys(), "the slots that the dead beat had taken")
    for line in ran:
        if line["id"] in ids:
            assert line["lockbeat_fence"] > (ids[line["id"]] or 0)


def _sending(field: Arena) -> list[LedgerEntry]:
    return [entry for entry in field.lb.jobs.ledger("entry-0") if entry.state == "fired" and entry.started_ms]
