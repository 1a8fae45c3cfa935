"""Events as the store hands them out, and what hooks and monitors are told of them."""

from __future__ import annotations

import json
from datetime import datetime

from lockbeat.events import Event, JobPaused, RunCancelled, RunDone, RunLost, SlotFired, SlotMissed, SlotSkipped, TaskDead
from lockbeat.store import reasons
from lockbeat.store.keys import job_of_task, slot_of_task
from lockbeat.values.durations import instant


class Taken:
    """An event as `event/take` hands it out."""

    def __init__(self, row: bytes) -> None:
        line, event_id, until, said = row.split(b" ", 3)
        self.line, self.id, self.until = line.decode(), event_id.decode(), until.decode()
        job, _, text = said.partition(b"\xfe")
        self.job = job.decode()
        word, _, self.text = text.partition(b" ")
        self.word = word.decode()

    @property
    def happened(self) -> datetime:
        return instant(int(self.id[:13]))


def event_of(taken: Taken) -> Event | None:
    """The event; None: it is told to nobody. Raises ValueError and the like: it can't be read."""
    fields = [*map(str, json.loads(taken.text))]
    if taken.word == "paused":
        by, why, until = fields
        return JobPaused(taken.job, by, why, instant(int(until)) if int(until) else None, taken.happened)
    task_id, *rest = fields
    job, slot_ms = job_of_task(task_id), slot_of_task(task_id)
    slot = None if slot_ms is None else instant(slot_ms)
    if taken.word == "lost":
        text, attempt, fence, owner, code, most = rest
        again, reason = int(attempt) < int(most), reasons.sentence(code)
        return RunLost(task_id, _name(text), job, slot, int(attempt), int(fence), owner, code, reason, again, taken.happened)
    if taken.word == "dead":
        text, attempts, code, detail = rest
        return TaskDead(task_id, _name(text), job, slot, int(attempts), code, _sentence(code, detail), taken.happened)
    if taken.word == "done":
        text, attempt, fence, began_ms, ended_ms = rest
        took = max(int(ended_ms) - int(began_ms), 0) / 1000
        return (
            None if "backfill" in json.loads(text) else RunDone(task_id, _name(text), job, slot, int(attempt), int(fence), took)
        )
    if taken.word == "cancelled":
        code, detail, _ = rest
        return RunCancelled(task_id, job, slot, code, _sentence(code, detail), taken.happened)
    assert slot is not None
    assert slot_ms is not None
    if taken.word == "fired":
        return SlotFired(job, slot, task_id, taken.happened.timestamp() - slot_ms / 1000)
    code, detail, several = rest
    said = json.loads(several) if several else {"last": slot_ms, "count": 1}
    last, count = instant(said["last"]), said["count"] if said["count"] > 0 else None
    kind = SlotMissed if taken.word == "missed" else SlotSkipped
    return kind(job, slot, last, count, code, _sentence(code, detail), taken.happened)


def _name(text: str) -> str:
    """Of the function, from the JSON of a task's record."""
    return str(json.loads(text).get("name", "")) if text else ""


def _sentence(code: str, detail: str) -> str:
    return reasons.sentence(code, detail.partition("\x1f")[0]) if code else ""
