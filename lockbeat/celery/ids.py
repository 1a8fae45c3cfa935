"""What a message says of the slot that it is sent for: its task id, and its headers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lockbeat.jobs.definition import task_id as id_of_slot
from lockbeat.triggers.base import instant_ms
from lockbeat.values.names import check_name
from lockbeat.worker import Run

JOB, SLOT, FENCE = "lockbeat_job", "lockbeat_slot", "lockbeat_fence"
"""The headers: the entry's name; its slot, as ISO 8601 in UTC; and a number that grows with each attempt to send it."""

MESSAGE = "lockbeat_message"
"""The header with the id that Celery's task would have, if its entry did not give it another."""


def task_id(name: str, slot: datetime, namespace: str = "lockbeat") -> str:
    """The id of Celery's task for a slot of an entry, the same on every host.

    slot: an aware datetime. namespace: as `lockbeat_namespace` has it.
    """
    return message_id(id_of_slot(check_name("name", name), instant_ms("slot", slot)), namespace)


def message_id(fired: str, namespace: str) -> str:
    """Of what lockbeat has fired under this id: NAME@SLOT_MS, or NAME!ID of a run that was triggered."""
    return str(uuid5(NAMESPACE_URL, f"lockbeat:{namespace}:{fired}"))


def headers(run: Run) -> dict[str, Any]:
    """What goes with the message; `celery_beat_task` is what Celery's own beat says."""
    slot = run.slot.isoformat(timespec="milliseconds")
    return {"celery_beat_task": True, JOB: run.job, SLOT: slot, FENCE: run.fence}
