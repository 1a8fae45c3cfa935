"""Entries of Celery's beat as jobs: which function sends them, and what it is told to send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celery.beat import ScheduleEntry
from celery.schedules import crontab
from kombu.utils import json as _kombu_json

from lockbeat.celery.schedules import trigger_of
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError
from lockbeat.jobs.definition import Job
from lockbeat.jobs.options import MOST_PARAMS
from lockbeat.retry import MOST_ATTEMPTS, Exponential
from lockbeat.triggers import Every, Trigger

kombu_json: Any = _kombu_json  # its functions have no types
SEND = "celery.send"
"""The function that sends a slot's message."""
QUEUE = "celery"
"""Lockbeat's queue of the tasks that send; Celery's own queues are no matter of it."""
PARTS = ("args", "kwargs", "options")
RETRY = Exponential(1, factor=2, max=60)
LEAST_PATIENCE = 300.0
"""Seconds for which a slot is tried to be sent at least; else until about when the next one is due."""
SAMPLE_MS = 1_700_000_000_000
"""An instant from which the distance of a trigger's slots is taken, the same on every host."""


def job_of(
    name: str,
    entry: Mapping[str, Any] | ScheduleEntry,
    app: Any,
    *,
    origin: str | None = None,
    function: str = SEND,
    **options: Any,
) -> Job:
    """The job of an entry: a dict as in `beat_schedule`, or an entry of a scheduler.

    origin, options: of the job, see `Job.declare`; options win over what follows from the entry.

    Raises: InvalidArgument, InvalidType, InvalidTrigger: each begins with the entry's name.
    """
    try:
        said = _read(entry)
        trigger = trigger_of(said["schedule"], app, bool(said.get("relative")))
        given = _policies(trigger, said["schedule"], app) | {"params": params_of(said)} | options
        return Job.declare(name, trigger, function=function, origin=origin, queue=QUEUE, **given)
    except (InvalidArgument, InvalidType) as problem:
        raise type(problem)(problem.argument, f"of entry {name!r} {problem.problem}") from None


def _read(entry: Mapping[str, Any] | ScheduleEntry) -> dict[str, Any]:
    said = dict(entry)
    if not isinstance(said.get("task"), str) or not said["task"]:
        raise InvalidArgument("task", f"must be the name of a task, not {said.get('task')!r:.80}")
    for part in PARTS:
        said[part] = said.get(part) or ()
    if "schedule" not in said:
        raise InvalidArgument("schedule", "is missing")
    return said


def _policies(trigger: Trigger, schedule: Any, app: Any) -> dict[str, Any]:
    """What a job has that its `lockbeat_jobs` does not say. Each slot is sent for itself, and a failure holds up no other."""
    deadline = app.conf.beat_cron_starting_deadline if isinstance(schedule, crontab) else None
    return {
        "overlap": "allow",
        "retry": RETRY,
        "max_attempts": attempts_for(patience(trigger)),
        "window": deadline or None,
    }


def patience(trigger: Trigger) -> float:
    """Seconds for which it is tried to send a slot: about as long as no later one is due."""
    first = trigger.next(SAMPLE_MS)
    second = None if first is None else trigger.next(first)
    apart = 0.0 if first is None or second is None else (second - first) / 1000
    return max(apart, LEAST_PATIENCE) if not isinstance(trigger, Every) else max(trigger.period_ms / 1000, LEAST_PATIENCE)


def attempts_for(seconds: float) -> int:
    """How many attempts by RETRY take so long, at least."""
    passed, attempts = 0.0, 1
    while passed < seconds and attempts < MOST_ATTEMPTS:
        passed += RETRY.delay(attempts)
        attempts += 1
    return attempts


def params_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the function that sends is told: task, args, kwargs and options, as kombu writes them in JSON.

    What JSON can't carry, such as a function to be called for each message, stays in the code: `local` says so.
    """
    parts = {"task": said["task"], **{part: _plain(said[part]) for part in PARTS if said[part]}}
    try:
        text = kombu_json.dumps(parts)
        if len(text.encode()) <= MOST_PARAMS - 100 and kombu_json.loads(text) == parts:
            found: dict[str, Any] = json.loads(text)
            return found
    except (TypeError, ValueError, RecursionError):
        pass
    return {"task": said["task"], "local": True}


def _plain(value: Any) -> Any:
    """With lists for tuples, which JSON has not, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


class UnknownEntry(LockbeatError):
    """What is to be sent stands in the code of another instance only."""


def message_of(params: Any, job: str, entries: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    """Task, args, kwargs and options of a message, from the params of a run; entries: those that this instance's code has.

    Raises: UnknownEntry. InvalidArgument for params that say no task.
    """
    if isinstance(params, Mapping) and not params.get("local") and isinstance(params.get("task"), str):
        told = kombu_json.loads(json.dumps(params))
        return told["task"], list(told.get("args") or ()), dict(told.get("kwargs") or {}), dict(told.get("options") or {})
    if job not in entries:
        if isinstance(params, Mapping) and params.get("local"):
            raise UnknownEntry(f"entry {job!r} stands in the code of another instance: what it sends can't be put into JSON")
        raise InvalidArgument("params", 'must say what to send: {"task": "proj.report", "args": [7]}')
    said = _read(entries[job])
    return said["task"], list(said["args"]), dict(said["kwargs"] or {}), dict(said["options"] or {})
