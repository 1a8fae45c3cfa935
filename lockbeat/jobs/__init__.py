"""Jobs: what is due when, as data in the store, and the scheduler that every instance runs."""

from lockbeat.jobs.applying import Applied, Put
from lockbeat.jobs.around import Upcoming
from lockbeat.jobs.backfill import MOST_SLOTS, UNCONFIRMED, Backfill
from lockbeat.jobs.backfiller import Backfiller
from lockbeat.jobs.control import Change, Resumed
from lockbeat.jobs.definition import Job, task_id
from lockbeat.jobs.firing import Runner
from lockbeat.jobs.ledger import Backfilled, Lateness, LedgerEntry
from lockbeat.jobs.listing import State
from lockbeat.jobs.options import API, CODE, JobOptions
from lockbeat.jobs.outbox import Outbox
from lockbeat.jobs.past import History
from lockbeat.jobs.plan import MOST_COUNTED, Slot
from lockbeat.jobs.registry import Jobs
from lockbeat.jobs.scheduler import Scheduler
from lockbeat.jobs.several import SeveralJobs
from lockbeat.jobs.state import JobState
from lockbeat.jobs.version import KnownVersion, Version, check_version, known_versions, version_of
from lockbeat.jobs.why import Explanation

__all__ = [
    "API",
    "CODE",
    "MOST_COUNTED",
    "MOST_SLOTS",
    "UNCONFIRMED",
    "Applied",
    "Backfill",
    "Backfilled",
    "Backfiller",
    "Change",
    "Explanation",
    "History",
    "Job",
    "JobOptions",
    "JobState",
    "Jobs",
    "KnownVersion",
    "Lateness",
    "LedgerEntry",
    "Outbox",
    "Put",
    "Resumed",
    "Runner",
    "Scheduler",
    "SeveralJobs",
    "Slot",
    "State",
    "Upcoming",
    "Version",
    "check_version",
    "known_versions",
    "task_id",
    "version_of",
]
