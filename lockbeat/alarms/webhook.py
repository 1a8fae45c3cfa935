"""Webhooks: events sent to a URL of one's own, signed as https://www.standardwebhooks.com says, and retried as a task."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from lockbeat.alarms.checkins import base_url
from lockbeat.alarms.http import Http
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.events import Event, name_of
from lockbeat.retry import Exponential
from lockbeat.tasks import SpawnOptions
from lockbeat.values.names import check_name
from lockbeat.worker import Run

PREFIX = "lockbeat.webhook."
"""The names of its tasks begin so. What becomes of these is told to no webhook, or one that is away would never be done."""
ALARMS = ("slot_missed", "run_lost", "task_dead", "job_paused")
KINDS = ("slot_fired", "slot_missed", "slot_skipped", "run_done", "run_lost", "task_dead", "job_paused")
"""What can be sent: what the store keeps until it has been told."""
OPTIONS: SpawnOptions = {"max_attempts": 10, "retry": Exponential(5, factor=3, max=3600), "retention": 86_400}


class Webhook:
    """Sends events to a URL, each as a task of its own, which a worker of the program runs and tries again.

    url: where to.
    secret: by which it is signed: "whsec_" and base64, or any text.
    events: names of hooks; None: slot_missed, run_lost, task_dead and job_paused.
    name: tells it from the program's other webhooks.

    Raises: InvalidArgument for what can't be used.
    """

    def __init__(self, url: str, *, secret: str, events: Collection[str] | None = None, name: str = "default") -> None:
        base_url("url", url)
        self._url, self._key = url, _key(secret)
        chosen = ALARMS if events is None else events
        if isinstance(chosen, str) or not all(isinstance(one, str) for one in chosen):
            raise InvalidType("events", "must be several names, not one str")
        if unknown := sorted({*chosen} - {*KINDS}):
            raise InvalidArgument("events", f"{unknown[0]!r} can't be sent; there are {', '.join(KINDS)}")
        self._events = frozenset(chosen)
        self.task = PREFIX + check_name("name", name)
        """The name of its tasks."""

    def params(self, event: Event, event_id: str) -> dict[str, Any] | None:
        """Of the task that sends an event; None: it is not for this webhook."""
        kind = name_of(event)
        if kind not in self._events or str(getattr(event, "name", "")).startswith(PREFIX):
            return None
        data = {name: _plain(value) for name, value in event._asdict().items()}
        return {"id": event_id, "type": kind, "timestamp": data.get("at") or data.get("slot"), "data": data}

    async def deliver(self, run: Run) -> None:
        """The task: sends what it was spawned with. Raises NotTold."""
        body = json.dumps(run.params, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", **sign(self._key, str(run.params["id"]), round(time.time()), body)}
        async with Http() as http:
            await http.send("POST", self._url, content=body, headers=headers)

    def __repr__(self) -> str:
        return f"Webhook({self.task.removeprefix(PREFIX)})"  # without its secret


def sign(key: bytes, event_id: str, at: int, body: bytes) -> Mapping[str, str]:
    """The headers by which the receiver knows that it comes from us: an HMAC-SHA256 over id, time and body."""
    digest = hmac.new(key, f"{event_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _key(text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidType("secret", f"must be a str, not {type(text).__name__}")
    if len(text) < 16:
        raise InvalidArgument("secret", "must have 16 characters at least")
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise InvalidArgument("secret", "must be base64 behind whsec_") from None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
