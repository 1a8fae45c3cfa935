"""Celery's beat, run on every host: `celery -A proj beat -S lockbeat.celery:Scheduler`. See docs/celery.md.

Its entries are jobs of a store. Each slot is a task there, which sends one message to Celery's broker.
"""

try:
    import celery  # noqa: F401 - to say what is missing
except ImportError:
    raise ImportError("lockbeat.celery needs Celery: pip install 'lockbeat[celery]'") from None

from lockbeat.celery.entries import job_of
from lockbeat.celery.ids import task_id
from lockbeat.celery.once import once
from lockbeat.celery.scheduler import Scheduler, Shadow
from lockbeat.celery.witness import witness

__all__ = ["Scheduler", "Shadow", "job_of", "once", "task_id", "witness"]
