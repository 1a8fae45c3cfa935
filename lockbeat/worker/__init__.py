"""The worker: claims tasks under a lease and runs their functions."""

from lockbeat.worker._functions import Function, Run
from lockbeat.worker._worker import Worker

__all__ = ["Function", "Run", "Worker"]
