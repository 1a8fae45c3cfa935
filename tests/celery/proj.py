"""A project of Celery's, as the environment wants it: its tasks write down what ran, in a Redis of their own."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import redis
from celery import Celery
from celery.signals import before_task_publish

from lockbeat.celery import once, witness

BROKER, RECORD = os.environ["BROKER"], os.environ["RECORD"]
app = Celery("proj", broker=BROKER)
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_prefetch_multiplier=4,
    **json.loads(os.environ.get("CONF", "{}")),
)
app.conf.beat_schedule = {
    f"entry-{number}": {"task": "record", "schedule": float(os.environ.get("PERIOD", "1")), "args": [f"entry-{number}"]}
    for number in range(int(os.environ.get("ENTRIES", "0")))
} | {name: {**entry, "schedule": float(entry["schedule"])} for name, entry in json.loads(os.environ.get("MORE", "{}")).items()}
if "WITNESS" in os.environ:
    witness(app)


@before_task_publish.connect
def stamp(headers: dict[str, Any], **_: object) -> None:
    headers["sent_at"] = time.time()


def write(what: str, request: Any, **more: Any) -> None:
    said = {name: request.get(name) for name in ("lockbeat_job", "lockbeat_slot", "lockbeat_fence", "sent_at")}
    line = {"what": what, "id": request.id, "at": time.time(), "pid": os.getpid(), "retries": request.retries, **said, **more}
    with redis.Redis.from_url(RECORD) as client:
        client.rpush("record", json.dumps(line))


@app.task(name="record", bind=True)
@once
def record(self: Any, entry: str, **kwargs: Any) -> None:
    write(entry, self.request, kwargs=kwargs, expires=self.request.expires, eta=self.request.eta)


@app.task(name="bare", bind=True)
def bare(self: Any, entry: str) -> None:
    write(entry, self.request)


@app.task(name="slow", bind=True)
@once(lease=2)
def slow(self: Any, entry: str, seconds: float) -> None:
    write(f"{entry} begins", self.request)
    time.sleep(seconds)
    write(f"{entry} ends", self.request)


@app.task(name="mortal", bind=True)
@once(lease=6)
def mortal(self: Any, entry: str, seconds: float) -> None:
    write(f"{entry} begins", self.request)
    time.sleep(seconds)
    write(f"{entry} ends", self.request)


@app.task(name="again", bind=True, max_retries=2)
@once
def again(self: Any, entry: str) -> None:
    write(entry, self.request)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
