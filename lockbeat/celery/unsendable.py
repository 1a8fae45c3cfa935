"""What is wrong with an entry's message, as far as its app can tell before one is sent. Nothing is sent to find out."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from celery.exceptions import QueueNotFound
from kombu import serialization as _serialization
from kombu.exceptions import EncodeError, SerializerNotInstalled

from lockbeat.celery.entries import SEND, message_of
from lockbeat.errors import LockbeatError
from lockbeat.jobs.definition import Job

serialization: Any = _serialization  # its functions have no types


def faults_of(app: Any, job: Job, now: datetime) -> Iterator[str]:
    """Why messages of a job can't be sent, or why no worker would run them: a sentence each."""
    if job.function != SEND:
        return
    try:
        task, args, kwargs, options = message_of(job.params, job.name, {})
    except LockbeatError as problem:
        yield f"no message can be sent: {problem}"
        return
    known = app.tasks.get(task)
    if known is None:
        yield f"the app has no task {task!r}: a worker that does not know it either drops each message"
    elif known.typing:
        try:
            known.__header__(*args, **kwargs)
        except TypeError as problem:
            yield f"its arguments do not fit the task, no message can be sent: {problem}"
    of_task = {} if known is None else {name: value for name, value in known._get_exec_options().items() if value is not None}
    options = {**of_task, **options}
    try:
        app.amqp.router.route(dict(options), task, args, kwargs, task_type=known)
    except QueueNotFound as problem:
        yield f"no message can be sent: {problem}, and task_create_missing_queues is off"
    except Exception as problem:  # noqa: BLE001 - a router is the project's own
        yield f"the app's router can't say where it goes: {type(problem).__name__}: {problem}"
    try:
        serialization.dumps((args, kwargs, {}), options.get("serializer") or app.conf.task_serializer)
    except (SerializerNotInstalled, EncodeError) as problem:
        yield f"no message can be sent: {problem}"
    if _has_expired(options.get("expires"), now, app.timezone):
        yield f"each message has expired before it is sent: expires is {options['expires']}"


def _has_expired(said: Any, now: datetime, zone: Any) -> bool:
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(said)
        except ValueError:
            return False
    if isinstance(said, datetime):
        return (said if said.tzinfo else said.replace(tzinfo=zone)).astimezone(UTC) <= now
    return isinstance(said, numbers.Real) and said <= 0
