"""What other schedulers of Celery have, as jobs: `beat_schedule`, RedBeat's entries, the tables of django-celery-beat.

Each is read by its own package, and nothing is changed there. An entry becomes what the scheduler of this package makes of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from kombu.utils.json import loads

from lockbeat.celery.config import Config
from lockbeat.celery.entries import job_of
from lockbeat.celery.unsendable import faults_of
from lockbeat.client import Lockbeat
from lockbeat.errors import Conflict, InvalidArgument, LockbeatError, MissingExtra, UnknownJob
from lockbeat.jobs.definition import Job
from lockbeat.jobs.options import LONGEST_DESCRIPTION
from lockbeat.triggers import At

_loads: Any = loads
ORIGIN = "import"
PAGE = 1000
OWN = "celery.backend_cleanup"
"""What every scheduler of Celery puts into its entries."""
IN_CODE = "it stands in the code's beat_schedule, and lockbeat.celery:Scheduler declares it from there"
DISABLED = "it was disabled"


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of one entry."""

    name: str
    task: str = ""
    job: Job | None = None
    """None: it is left."""
    left: str = ""
    """Why."""
    paused: str = ""
    """Why the job is paused from the start; empty: it is not."""
    notes: tuple[str, ...] = ()
    """What is otherwise than it was."""
    faults: tuple[str, ...] = ()
    """Why its messages can't be sent, or would not be run."""


def app_of(target: str) -> Celery:
    """The app that `celery -A TARGET` finds, with all that it declares, as a beat has it.

    Raises InvalidArgument when there is none; whatever its own code raises.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        app = find_app(target)
    except (AttributeError, ModuleNotFoundError) as problem:
        missing = getattr(problem, "name", None) or ""
        if missing == target and ":" in target:
            said = problem.__context__ or problem  # the module has no such name; Celery then looked for a module TARGET
            raise InvalidArgument("app", f"{target!r} names no Celery app: {said}") from None
        if isinstance(problem, ModuleNotFoundError) and missing and not f"{target.partition(':')[0]}.".startswith(f"{missing}."):
            raise  # the app's own import
        raise InvalidArgument("app", f"{target!r} names no Celery app: {problem}") from None
    if not isinstance(app, Celery):
        raise InvalidArgument("app", f"{target!r} is no Celery app but of type {type(app).__name__}")
    app.set_current()  # schedules that are read take their time zone from it
    app.loader.init_worker()
    app.finalize()
    return app


def of_celery(app: Celery) -> Iterator[Entry]:
    """The entries of `beat_schedule` and of `add_periodic_task`."""
    for name, entry in (app.conf.beat_schedule or {}).items():
        yield _entry(app, str(name), entry)


def of_redbeat(app: Celery) -> Iterator[Entry]:
    """The entries that RedBeat keeps in Redis. Raises MissingExtra, and errors of redis-py's."""
    try:
        from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis
    except ImportError as problem:
        raise MissingExtra("RedBeat's entries are read by it: pip install celery-redbeat") from problem
    conf, client, start = ensure_conf(app), get_redis(app), 0
    static = {*client.smembers(conf.statics_key)}
    while keys := client.zrange(conf.schedule_key, start, start + PAGE - 1):
        start += PAGE
        for key in keys:
            name = key.removeprefix(conf.key_prefix)
            try:
                said = RedBeatSchedulerEntry.load_definition(key, app)
                name = str(said["name"])
            except KeyError:
                yield Entry(name, left="RedBeat has no definition of it")
            except (ValueError, TypeError, AttributeError) as problem:
                yield Entry(name, left=f"RedBeat can't read it: {problem}")
            else:
                paused = "" if said.pop("enabled", True) else DISABLED
                yield _kept(app, name, name in static) or _entry(app, name, said, paused)


def of_django(app: Celery) -> Iterator[Entry]:
    """The rows of django-celery-beat's `PeriodicTask`. Raises MissingExtra, and errors of Django's."""
    try:
        import django
        from django.apps import apps

        if not apps.ready:
            django.setup()
        from django_celery_beat.models import PeriodicTask
        from django_celery_beat.schedulers import ModelEntry
    except ImportError as problem:
        raise MissingExtra("these tables are read by Django: pip install django-celery-beat") from problem
    rows = PeriodicTask.objects.select_related("interval", "crontab", "solar", "clocked").order_by("name")
    for row in rows.iterator(chunk_size=PAGE):
        yield _kept(app, row.name, False) or _unfit(row) or _of_row(app, row, ModelEntry)


def _kept(app: Celery, name: str, static: bool) -> Entry | None:
    """Of what the code declares by itself."""
    if name == OWN:
        return Entry(name, left="it is Celery's own, which lockbeat.celery:Scheduler has as well")
    return Entry(name, left=IN_CODE) if static or name in (app.conf.beat_schedule or {}) else None


def _unfit(row: Any) -> Entry | None:
    """A row that ModelEntry would disable in the database, and one that has come to its end."""
    for column in ("args", "kwargs", "headers"):
        try:
            _loads(getattr(row, column) or "{}")
        except ValueError as problem:
            return Entry(row.name, row.task, left=f"its {column} can't be read: {problem}")
    if not any((row.interval, row.crontab, row.solar, row.clocked)):
        return Entry(row.name, row.task, left="it has no schedule")
    if row.one_off and row.total_run_count:
        return Entry(row.name, row.task, left="it is to run once, and has run")
    return None


def _of_row(app: Celery, row: Any, kind: Any) -> Entry:
    notes, now = list[str](), datetime.now(UTC)
    options: dict[str, Any] = {"description": row.description[:LONGEST_DESCRIPTION]} if row.description else {}
    if len(row.description) > LONGEST_DESCRIPTION:
        notes.append(f"its description is cut to {LONGEST_DESCRIPTION} characters")
    if row.start_time is not None:
        options["start"] = _aware(row.start_time)
    if row.expires is not None:
        options["end"] = _aware(row.expires)
        notes += ["it has expired: it has no slots"] if _aware(row.expires) <= now else []
    if row.one_off:
        options["limit"] = 1
    if row.clocked and _aware(row.clocked.clocked_time) <= now:
        notes.append("its time is over: it has no slots")
    return _entry(app, row.name, kind(row, app=app), "" if row.enabled else DISABLED, tuple(notes), **options)


def _aware(when: datetime) -> datetime:
    """A time of a project without USE_TZ is one of its TIME_ZONE."""
    from django.utils import timezone

    aware: datetime = timezone.make_aware(when) if timezone.is_naive(when) else when
    return aware


def _entry(app: Celery, name: str, entry: Any, paused: str = "", notes: tuple[str, ...] = (), **options: Any) -> Entry:
    said = entry if isinstance(entry, Mapping) else vars(entry)
    task = str(said.get("task") or "")
    given = options | Config(None, jobs=app.conf.get("lockbeat_jobs")).job(name)
    try:
        job = job_of(name, entry, app, origin=ORIGIN, **given)
    except (LockbeatError, ValueError, TypeError) as problem:  # its own schedule may raise what it likes
        return Entry(name, task, left=str(problem))
    if isinstance(job.params, dict) and job.params.get("local"):
        return Entry(name, task, left="what it sends can't be put into JSON, or is too much: only the code can send it")
    now = datetime.now(UTC)
    if not notes and job.trigger.next(round(now.timestamp() * 1000)) is None:
        notes = ("it has no slots any more",)
    return Entry(name, task, job, paused=paused, notes=notes, faults=tuple(faults_of(app, job, now)))


async def put(lb: Lockbeat, entry: Entry, *, take_over: bool, by: str) -> Entry:
    """Put what becomes of an entry into the store. What was left, and why, if it belongs to another origin."""
    job = entry.job
    if job is None:
        return entry
    try:
        if entry.paused and not await _is_paused(lb, job.name):
            # Paused before it has slots: one of them could come due before the pause.
            tomorrow = datetime.fromtimestamp(await lb.store.server_time(), UTC) + timedelta(days=1)
            await lb.jobs.put_one(replace(job, trigger=At(tomorrow)), if_rev=None, take_over=take_over, by=by)
            await lb.jobs.pause(job.name, entry.paused, by=by)
        await lb.jobs.put_one(job, if_rev=None, take_over=take_over, by=by)
    except Conflict as problem:
        return replace(entry, job=None, left=f"{problem}; say --take-over")
    return entry


async def _is_paused(lb: Lockbeat, name: str) -> bool:
    try:
        return (await lb.jobs.get(name)).paused is not None
    except UnknownJob:
        return False
