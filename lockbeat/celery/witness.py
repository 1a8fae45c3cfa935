"""The witness: in the process of the beat that a team has, tells the shadow what that one sends."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from celery.signals import beat_init

from lockbeat.celery.config import Config, config_of
from lockbeat.celery.shadow import shadowed
from lockbeat.errors import LockbeatError, UnknownJob
from lockbeat.sync import Lockbeat

log = logging.getLogger("celery.beat")

MOST = 1000
"""Messages that wait to be told of. While more do, the next are not told of: the beat must not wait."""


def witness(app: Any) -> None:
    """Have the beat of this app, of whatever scheduler, tell a shadow which messages it sends. In any other process: nothing.

    It is told in a thread of its own: the beat neither waits for it, nor fails with it.
    """

    def begin(sender: Any, **_: object) -> None:
        scheduler = sender.scheduler
        if scheduler.app is app and not hasattr(scheduler, "config"):
            _Witness(config_of(app)).watch(scheduler)

    beat_init.connect(begin, weak=False, dispatch_uid=("lockbeat.celery.witness", id(app)))


class _Witness:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._waiting: queue.Queue[str] = queue.Queue(MOST)
        self._told = set[str]()

    def watch(self, scheduler: Any) -> None:
        """Have it told of each entry that this scheduler sends."""
        send = scheduler.apply_async

        def apply_async(entry: Any, *args: Any, **kwargs: Any) -> Any:
            result = send(entry, *args, **kwargs)
            try:
                self._waiting.put_nowait(entry.name)
            except queue.Full:
                self._once("full", "the store is away: not all that is sent is told of")
            return result

        scheduler.apply_async = apply_async
        threading.Thread(target=self._tell, name="lockbeat witness", daemon=True).start()

    def _tell(self) -> None:
        lb = Lockbeat(self._config.url, namespace=shadowed(self._config.namespace), timeout=self._config.timeout)
        while True:
            name = self._waiting.get()
            try:
                lb.jobs.trigger(name, by="celery beat")
            except UnknownJob:
                self._once(name, f"no shadow has an entry {name!r}")
            except LockbeatError as problem:
                self._once("away", str(problem))

    def _once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            log.warning("lockbeat witness: %s", text)
