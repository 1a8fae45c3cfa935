"""The worker: claims tasks under a lease and runs their functions."""

from lockbeat.worker.functions import Function, Run
from lockbeat.worker.worker import CLAIM_LEASE_MS, Worker

__all__ = ["CLAIM_LEASE_MS", "Function", "Run", "Worker"]
