"""The beat: jobs as data in the store, and the scheduler that every instance runs."""

from lockbeat.beat.registry import Jobs, JobState, LedgerEntry
from lockbeat.beat.scheduler import Runner, Scheduler

__all__ = ["JobState", "Jobs", "LedgerEntry", "Runner", "Scheduler"]
