"""The scheduler that `celery beat -S` takes: Celery starts it and asks what to do next, and lockbeat fires."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import click
from celery import beat

from lockbeat.celery.config import Config, config_of
from lockbeat.celery.serving import Served, jobs_of
from lockbeat.celery.shadow import Watch
from lockbeat.connection import parse_url
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError

log = logging.getLogger("celery.beat")


@contextmanager
def _said() -> Iterator[None]:
    """What is wrong with settings and entries is one line of the command's, as Celery says what is wrong with options."""
    try:
        yield
    except LockbeatError as problem:
        raise click.ClickException(str(problem)) from None


LOOK = 5.0
"""Seconds between two looks at whether entries have changed."""


def _kept(entry: Any) -> Any:
    """An entry as it is now, whatever is changed in it."""
    if not isinstance(entry, dict):
        return entry
    return {name: copy(value) if isinstance(value, (dict, list)) else value for name, value in entry.items()}


class Scheduler(beat.Scheduler):  # type: ignore[misc]  # Celery has no types
    """`celery -A proj beat -S lockbeat.celery:Scheduler`, on as many hosts as you like.

    Its settings are those of the app: lockbeat_url, lockbeat_namespace, lockbeat_version, lockbeat_concurrency, lockbeat_jobs,
    lockbeat_shadow.
    """

    shadow = False

    def __init__(self, app: Any, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        with _said():
            self.config: Config = config_of(app)
            self.address = parse_url(self.config.url)
        if self.shadow:
            self.config = replace(self.config, shadow=True)
        self._served: Served | None = None
        self._watch: Watch | None = None
        self._said: dict[str, Any] = {}  # by the app's configuration
        self._as_served: dict[str, Any] = {}
        super().__init__(app, *args, lazy=lazy, **kwargs)
        if lazy:  # for the banner, which comes before there is a log: what is wrong with entries is said there
            with _said():
                self._take_configured()
                jobs_of(app, self.config, self.schedule)

    def setup_schedule(self) -> None:
        """Take the entries of the configuration; those that can't be jobs are an error now, and not when they are due."""
        with _said():
            self._take_configured()
        self.install_default_entries(self.schedule)
        with _said():
            self._served = self._serving()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """See that it is served, as the entries are now. Seconds until it wants to look again."""
        if self._served is None:
            self._served = self._serving()
        if not self._started:
            self._served.start()
            self._started = True
        self._served.check()
        try:
            self._take_configured()
        except LockbeatError as problem:
            if self._unread != str(problem):
                log.error("beat: entries have changed, but stay as they were: %s", problem)
            self._unread = str(problem)
        if not self.schedules_equal(self._as_served, self.schedule):
            self._serve_anew()
        if self._watch is not None:
            self._watch.look()
        return min(float(self.max_interval), LOOK)

    _started = False
    _unread = ""
    """What the log has been told of a change that can't be read."""

    def _serving(self) -> Served:
        served = Served(self.app, self.config, self.schedule)
        self._as_served = dict(self.schedule)
        if self.config.shadow:
            self._watch = Watch(self.config)
        return served

    def _serve_anew(self) -> None:
        """Entries have changed while it ran: that is a deploy. One that is gone retires, as docs/deploys.md says."""
        before, self._as_served = self._served, dict(self.schedule)
        try:
            new = Served(self.app, self.config, self.schedule)
        except LockbeatError as problem:
            log.error("beat: entries have changed, but stay as they were: %s", problem)
            return
        log.info("beat: entries have changed, %d are served", len(self.schedule))
        if before is not None:
            before.stop()
        self._served = new
        new.start()

    def _take_configured(self) -> None:
        """Follow `app.conf.beat_schedule`, which `add_periodic_task` adds to as well; leave alone what was put in otherwise.

        Raises InvalidArgument, InvalidType for what can't be read, and has then followed nothing.
        """
        configured: Mapping[str, Any] = self.app.conf.beat_schedule or {}
        if not isinstance(configured, Mapping):
            raise InvalidType("beat_schedule", f"must be a dict of entries by their names, not a {type(configured).__name__}")
        if self._said == configured:
            return
        said = {name: _kept(entry) for name, entry in configured.items()}
        changed = {name: self._read(name, entry) for name, entry in said.items() if self._said.get(name) != entry}
        for name in self._said.keys() - configured.keys():
            self.schedule.pop(name, None)
        self.schedule.update(changed)
        self._said = said

    def _read(self, name: str, entry: Any) -> Any:
        """As Celery reads it, which raises whatever Python does of what it does not know."""
        try:
            return self._maybe_entry(name, entry)
        except Exception as problem:
            raise InvalidArgument("beat_schedule", f"entry {name!r}: {type(problem).__name__}: {problem}") from problem

    def close(self) -> None:
        """Stop serving: messages on their way are sent, and other beats go on at once. Called twice by Celery."""
        served, self._served = self._served, None
        watch, self._watch = self._watch, None
        self._started = False
        try:
            if served is not None:
                served.stop()
        finally:
            if watch is not None:
                watch.close()
            super().close()

    @property
    def info(self) -> str:
        """What Celery's banner says of it."""
        return f"    . store -> {self.address}{' (shadow: nothing is sent)' * self.config.shadow}"


class Shadow(Scheduler):
    """`-S lockbeat.celery:Shadow`, beside the beat that you have: sends nothing; `lockbeat shadow` says where they differ."""

    shadow = True
