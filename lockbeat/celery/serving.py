"""The jobs of an app's entries, served in a thread: what Celery's beat starts, looks after and stops."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lockbeat.celery.config import Config
from lockbeat.celery.entries import QUEUE, SEND, job_of
from lockbeat.celery.sending import HOPELESS, Sender
from lockbeat.celery.shadow import KEEP, SHADOW, shadowed
from lockbeat.errors import LockbeatError, StoreUnavailable
from lockbeat.jobs import CODE, Job
from lockbeat.sync import Beat, Lockbeat
from lockbeat.worker import Run

log = logging.getLogger("lockbeat")

GRACE = 5.0
"""Seconds that messages on their way get on shutdown."""


def jobs_of(app: Any, config: Config, entries: Mapping[str, Any]) -> dict[str, Job]:
    """The jobs of entries, by name. Raises InvalidArgument, InvalidType: they name the entry."""
    shadow: dict[str, Any] = {"function": SHADOW, "keep": KEEP} if config.shadow else {}
    return {name: job_of(name, entry, app, origin=CODE, **config.job(name), **shadow) for name, entry in entries.items()}


class Served:
    """A set of entries while it is served: each change of them is a version of its own, as a deploy is."""

    def __init__(self, app: Any, config: Config, entries: Mapping[str, Any]) -> None:
        jobs = jobs_of(app, config, entries)
        namespace = shadowed(config.namespace) if config.shadow else config.namespace
        self._lb = Lockbeat(config.url, namespace=namespace, timeout=config.timeout)
        self._beat = Beat(self._lb, queue=QUEUE, concurrency=config.concurrency, grace=GRACE, version=config.version)
        self._sender = Sender(app, self._lb.namespace, dict(entries))
        self._beat.task(name=SHADOW if config.shadow else SEND)(_nothing if config.shadow else self._send)
        self._beat.declared.update(jobs)

    @property
    def namespace(self) -> str:
        return self._lb.namespace

    def start(self) -> None:
        """Serve from now on; also while the store is away, which the log says."""
        self._beat.start(wait_for_store=False)

    def check(self) -> None:
        """Raises what has ended the serving, such as a store of another format."""
        try:
            _ = self._beat.jobs
        except StoreUnavailable:
            pass  # not there yet
        except LockbeatError:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut down, within GRACE and four times the store's timeout. Raises what had ended it before. Idempotent."""
        try:
            self._beat.stop()
        finally:
            self._sender.close()

    def _send(self, run: Run) -> None:
        try:
            self._sender.send(run)
        except HOPELESS as problem:
            # No other attempt would send it, and the beat must not be busy with it until its attempts are used up.
            log.error("%s can't be sent, and is given up: %s: %s", run.task_id, type(problem).__name__, problem)
            self._lb.tasks.cancel(run.task_id)
            raise


def _nothing(run: Run) -> None:
    """Of a shadow: the ledger says all."""
