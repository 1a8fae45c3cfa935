"""`lockbeat exec`: a command that runs while a lock is held, and no longer."""

from lockbeat.exec.guardian import Ended, Guardian
from lockbeat.exec.holding import Outcome, Request, run

__all__ = ["Ended", "Guardian", "Outcome", "Request", "run"]
