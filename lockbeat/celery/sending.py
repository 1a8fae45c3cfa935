"""Sending: a slot's message to Celery's broker, by one of a few connections of this process' own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from celery.beat import BeatLazyFunc
from celery.exceptions import ImproperlyConfigured, NotRegistered, QueueNotFound
from kombu.exceptions import EncodeError, SerializerNotInstalled

from lockbeat.celery.config import brokers_of, scheme_of
from lockbeat.celery.entries import message_of
from lockbeat.celery.ids import MESSAGE, headers, message_id
from lockbeat.errors import InvalidArgument
from lockbeat.worker import Run

log = logging.getLogger("lockbeat")

HOPELESS = (
    *(TypeError, AttributeError, EncodeError, SerializerNotInstalled),
    *(QueueNotFound, NotRegistered, ImproperlyConfigured, InvalidArgument),
)
"""What another attempt would meet as well."""
CONNECT_TIMEOUT = 5.0
SOCKET_TIMEOUT = 15.0
"""Seconds after which a Redis that is the broker counts as away, unless `broker_transport_options` say otherwise: without them a
send to one that is cut off would wait for a quarter of an hour."""
OVER_REDIS = ("redis", "rediss", "sentinel", "valkey", "valkeys", "redis+socket")


class Sender:
    """Sends the messages of an app's entries."""

    def __init__(self, app: Any, namespace: str, entries: Mapping[str, Any]) -> None:
        self._app, self._namespace, self._entries = app, namespace, entries
        self._idle: list[Any] = []
        self._guard = threading.Lock()
        self._closed = False

    def send(self, run: Run) -> None:
        """Send the message of a slot, or of a run that was triggered. Raises what the broker raises, and HOPELESS."""
        task, args, kwargs, options = message_of(run.params, run.job, self._entries)
        own = message_id(run.task_id, self._namespace)
        # An entry may give all its messages one id: the header tells them apart.
        known_by = {MESSAGE: own} if "task_id" in options else {}
        options = {"task_id": own, **options}
        options["headers"] = {**(options.get("headers") or {}), **headers(run), **known_by}
        args = [each() if isinstance(each, BeatLazyFunc) else each for each in args]
        kwargs = {name: each() if isinstance(each, BeatLazyFunc) else each for name, each in kwargs.items()}
        with self._producer() as producer:
            known = self._app.tasks.get(task)
            if known is not None:
                sent = known.apply_async(args, kwargs, producer=producer, **options)
            else:
                sent = self._app.send_task(task, args, kwargs, producer=producer, **options)
        log.debug("sent %s (%s): %s", run.task_id, task, getattr(sent, "id", None))

    @contextlib.contextmanager
    def _producer(self) -> Iterator[Any]:
        """A producer over a connection of its own. One whose message was not taken is thrown away: it may be half sent."""
        with self._guard:
            producer = self._idle.pop() if self._idle else None
        producer = producer or self._made()
        try:
            yield producer
        except BaseException:
            self._release(producer)
            raise
        with self._guard:
            keep = not self._closed
            if keep:
                self._idle.append(producer)
        if not keep:
            self._release(producer)

    def _made(self) -> Any:
        conf = self._app.conf
        options = dict(conf.broker_transport_options or {})
        if scheme_of(brokers_of(conf)) in OVER_REDIS:
            options = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT, **options}
        connection = self._app.connection_for_write(transport_options=options)
        try:
            connection.connect()  # or says at once that it can't be
        except BaseException:
            connection.release()
            raise
        return self._app.amqp.Producer(connection, auto_declare=False)

    @staticmethod
    def _release(producer: Any) -> None:
        try:
            producer.connection.release()
        except Exception as problem:  # noqa: BLE001 - a broken connection may say anything while it is closed
            log.debug("closing a connection to the broker: %r", problem)

    def close(self) -> None:
        """Close what is idle; what is being sent closes its own."""
        with self._guard:
            self._closed, idle, self._idle = True, self._idle, []
        for producer in idle:
            self._release(producer)
