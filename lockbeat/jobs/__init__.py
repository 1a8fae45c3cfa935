"""Jobs: what is due when, as data in the store, and the scheduler that every instance runs."""

from lockbeat.jobs.around import Upcoming
from lockbeat.jobs.control import Change, Resumed
from lockbeat.jobs.definition import Job, JobOptions, task_id
from lockbeat.jobs.firing import Runner
from lockbeat.jobs.ledger import LedgerEntry
from lockbeat.jobs.listing import State
from lockbeat.jobs.plan import MOST_COUNTED, Slot
from lockbeat.jobs.registry import Jobs, JobState
from lockbeat.jobs.scheduler import Scheduler

__all__ = [
    "MOST_COUNTED",
    "Change",
    "Job",
    "JobOptions",
    "JobState",
    "Jobs",
    "LedgerEntry",
    "Resumed",
    "Runner",
    "Scheduler",
    "Slot",
    "State",
    "Upcoming",
    "task_id",
]
